//! Server-sent events: `data:` lines up to a blank line are one text, joined by line feeds.
//! Every other field and every comment is ignored. Lines end with LF or CR LF.

use super::lines::Lines;
use super::{StreamFault, Take};

#[derive(Debug)]
pub(super) struct Sse {
    lines: Lines,
    data: Option<Vec<u8>>,
    longest: usize,
}

impl Sse {
    pub(super) fn new(longest: usize) -> Self {
        Self { lines: Lines::new(longest), data: None, longest }
    }

    pub(super) fn push(&mut self, bytes: &[u8], take: &mut Take<'_>) -> Result<(), StreamFault> {
        let Self { lines, data, longest } = self;
        lines.push(bytes, |line| read(line, data, *longest, take))
    }

    pub(super) fn finish(&mut self, take: &mut Take<'_>) -> Result<(), StreamFault> {
        if let Some(line) = self.lines.finish() {
            read(&line, &mut self.data, self.longest, take)?;
        }
        flush(&mut self.data, take);
        Ok(())
    }
}

fn read(
    line: &[u8],
    data: &mut Option<Vec<u8>>,
    longest: usize,
    take: &mut Take<'_>,
) -> Result<(), StreamFault> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.is_empty() {
        flush(data, take);
    }
    let Some(value) = line.strip_prefix(b"data:") else { return Ok(()) };
    let value = value.strip_prefix(b" ").unwrap_or(value);
    let joined = match data {
        None => data.insert(Vec::new()),
        Some(joined) => {
            joined.push(b'\n');
            joined
        }
    };
    if joined.len() + value.len() > longest {
        return Err(StreamFault::TooLong { limit: longest });
    }
    joined.extend_from_slice(value);
    Ok(())
}

fn flush(data: &mut Option<Vec<u8>>, take: &mut Take<'_>) {
    if let Some(text) = data.take() {
        take.text(&text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(stream: &[u8], events: usize, skipped: u64) {
        let (mut out, mut seen) = (Vec::new(), 0);
        let mut take = Take { out: &mut out, skipped: &mut seen };
        let mut sse = Sse::new(64);
        sse.push(stream, &mut take).unwrap();
        sse.finish(&mut take).unwrap();
        assert_eq!((out.len(), seen), (events, skipped), "{}", String::from_utf8_lossy(stream));
    }

    #[test]
    fn data_lines_up_to_a_blank_line_are_one_event() {
        check(b"data: {\"type\":\"partial\",\ndata: \"chunk\":1}\n\n", 1, 0);
        check(b"id: 1\r\ndata:{\"type\":\"partial\",\"chunk\":1}\r\n\r\n: ping\r\n\r\n", 1, 0);
    }

    #[test]
    fn the_rest_is_flushed_at_the_end() {
        check(b"data: {\"type\":\"partial\",\"chunk\":1}", 1, 0);
        check(b"data: {\"type\":\"partial\",\"chunk\":1}\ndata: x", 0, 1);
    }

    #[test]
    fn many_short_lines_do_not_pass_the_limit_together() {
        let (mut out, mut skipped) = (Vec::new(), 0);
        let mut take = Take { out: &mut out, skipped: &mut skipped };
        let mut sse = Sse::new(20);
        let fault = sse.push(&b"data: 123456\n".repeat(4), &mut take);
        assert_eq!(fault, Err(StreamFault::TooLong { limit: 20 }));
    }
}
