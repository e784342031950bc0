//! Lines: cuts bytes at line feeds and keeps the piece of a line that has not ended yet.
//! It knows nothing of what a line says.

use super::StreamFault;

#[derive(Debug)]
pub(super) struct Lines {
    partial: Vec<u8>,
    longest: usize,
}

impl Lines {
    pub(super) fn new(longest: usize) -> Self {
        Self { partial: Vec::new(), longest }
    }

    /// Hands each complete line to `line`, without its line feed.
    pub(super) fn push(
        &mut self,
        bytes: &[u8],
        mut line: impl FnMut(&[u8]) -> Result<(), StreamFault>,
    ) -> Result<(), StreamFault> {
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let (head, tail) = (&rest[..end], &rest[end + 1..]);
            self.check(head)?;
            if self.partial.is_empty() {
                line(head)?;
            } else {
                let mut whole = std::mem::take(&mut self.partial);
                whole.extend_from_slice(head);
                line(&whole)?;
            }
            rest = tail;
        }
        self.check(rest)?;
        self.partial.extend_from_slice(rest);
        Ok(())
    }

    /// The last line, if the stream ended inside one.
    pub(super) fn finish(&mut self) -> Option<Vec<u8>> {
        Some(std::mem::take(&mut self.partial)).filter(|line| !line.is_empty())
    }

    fn check(&self, more: &[u8]) -> Result<(), StreamFault> {
        if self.partial.len() + more.len() > self.longest {
            return Err(StreamFault::TooLong { limit: self.longest });
        }
        Ok(())
    }
}
