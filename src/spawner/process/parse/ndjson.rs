//! One event a line. Blank lines mean nothing.

use super::lines::Lines;
use super::{StreamFault, Take};

#[derive(Debug)]
pub(super) struct Ndjson {
    lines: Lines,
}

impl Ndjson {
    pub(super) fn new(longest: usize) -> Self {
        Self { lines: Lines::new(longest) }
    }

    pub(super) fn push(&mut self, bytes: &[u8], take: &mut Take<'_>) -> Result<(), StreamFault> {
        self.lines.push(bytes, |line| {
            read(line, take);
            Ok(())
        })
    }

    pub(super) fn finish(&mut self, take: &mut Take<'_>) {
        if let Some(line) = self.lines.finish() {
            read(&line, take);
        }
    }
}

fn read(line: &[u8], take: &mut Take<'_>) {
    if !line.trim_ascii().is_empty() {
        take.text(line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_needs_no_line_feed() {
        let (mut out, mut skipped) = (Vec::new(), 0);
        let mut take = Take { out: &mut out, skipped: &mut skipped };
        let mut ndjson = Ndjson::new(100);
        ndjson.push(b"\n  \n{\"type\":\"partial\",\"chunk\":1}", &mut take).unwrap();
        ndjson.finish(&mut take);
        assert_eq!((out.len(), skipped), (1, 0));
    }

    #[test]
    fn a_line_without_end_is_cut_at_the_limit() {
        let (mut out, mut skipped) = (Vec::new(), 0);
        let mut take = Take { out: &mut out, skipped: &mut skipped };
        let mut ndjson = Ndjson::new(10);
        ndjson.push(b"12345678", &mut take).unwrap();
        ndjson.push(b"90", &mut take).unwrap();
        assert_eq!(ndjson.push(b"1", &mut take), Err(StreamFault::TooLong { limit: 10 }));
    }
}
