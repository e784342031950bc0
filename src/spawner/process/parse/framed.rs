//! Length-prefixed frames: four bytes of length, big-endian, then that many bytes of JSON.
//! Nothing is reserved for a length that is only announced.

use super::{StreamFault, Take};

const HEADER: usize = 4;

#[derive(Debug)]
pub(super) struct Framed {
    /// The header and body of the frame that is not complete yet.
    partial: Vec<u8>,
    longest: usize,
}

impl Framed {
    pub(super) fn new(longest: usize) -> Self {
        Self { partial: Vec::new(), longest }
    }

    pub(super) fn push(
        &mut self,
        mut bytes: &[u8],
        take: &mut Take<'_>,
    ) -> Result<(), StreamFault> {
        loop {
            bytes = self.fill(HEADER, bytes);
            let Some(header) = self.partial.first_chunk::<HEADER>() else { return Ok(()) };
            let body = usize::try_from(u32::from_be_bytes(*header)).unwrap_or(usize::MAX);
            if body == 0 {
                return Err(StreamFault::EmptyFrame);
            }
            if body > self.longest {
                return Err(StreamFault::TooLong { limit: self.longest });
            }
            bytes = self.fill(HEADER + body, bytes);
            if self.partial.len() < HEADER + body {
                return Ok(());
            }
            take.text(&self.partial[HEADER..]);
            self.partial = Vec::new();
        }
    }

    /// A frame that never became complete counts as skipped.
    pub(super) fn finish(&mut self, take: &mut Take<'_>) {
        if !std::mem::take(&mut self.partial).is_empty() {
            take.skip();
        }
    }

    /// Moves bytes over until `len` are held, and gives back the rest.
    fn fill<'a>(&mut self, len: usize, bytes: &'a [u8]) -> &'a [u8] {
        let wanted = len.saturating_sub(self.partial.len()).min(bytes.len());
        let (now, rest) = bytes.split_at(wanted);
        self.partial.extend_from_slice(now);
        rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(stream: &[u8], expected: Result<(), StreamFault>, events: usize, left: u64) {
        let (mut out, mut skipped) = (Vec::new(), 0);
        let mut take = Take { out: &mut out, skipped: &mut skipped };
        let mut framed = Framed::new(64);
        assert_eq!(framed.push(stream, &mut take), expected);
        framed.finish(&mut take);
        assert_eq!((out.len(), skipped), (events, left));
    }

    #[test]
    fn lengths_of_nothing_and_of_too_much_end_the_stream() {
        check(&[0, 0, 0, 0], Err(StreamFault::EmptyFrame), 0, 1);
        check(&[255, 255, 255, 255], Err(StreamFault::TooLong { limit: 64 }), 0, 1);
        check(
            b"\0\0\0\x1e{\"type\":\"partial\",\"chunk\":123}\0\0\0\0",
            Err(StreamFault::EmptyFrame),
            1,
            1,
        );
    }

    #[test]
    fn a_frame_that_breaks_off_is_counted() {
        check(b"\0\0\0\x1e{\"type\"", Ok(()), 0, 1);
        check(b"\0\0", Ok(()), 0, 1);
        check(b"", Ok(()), 0, 0);
    }
}
