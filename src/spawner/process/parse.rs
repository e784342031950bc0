//! Output streams: turns the bytes of a child's stdout into events, in one of three formats.
//! Pure: it reads no pipe and knows no clock. Bytes may come in any pieces; the events depend on
//! the bytes alone. What it keeps is bounded by the longest line or frame.

mod framed;
mod lines;
mod ndjson;
mod sse;

use adjutant_actors::model::output::{ContentRef, OutputEvent};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use framed::Framed;
use ndjson::Ndjson;
use sse::Sse;

/// The longest line or frame that is read unless told otherwise: 16 MiB, the most that the
/// length-prefixed format promises to carry.
pub const LONGEST_DEFAULT: usize = 16 * 1024 * 1024;

/// How a child that streams writes its events to stdout.
///
/// ```
/// use adjutant::spawner::process::{LONGEST_DEFAULT, StreamMode, StreamParser};
///
/// let mut parser = StreamParser::new(StreamMode::SseEvents, LONGEST_DEFAULT);
/// let mut events = Vec::new();
/// parser.push(b"data: {\"type\":\"progress\",\"stage\":\"read\"}\n\n: hi\n\n", &mut events).unwrap();
/// parser.finish(&mut events).unwrap();
/// assert_eq!((events.len(), parser.skipped()), (1, 0));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StreamMode {
    /// One event a line, as JSON.
    NdjsonLines,
    /// Server-sent events: the `data:` lines up to a blank line are one event as JSON.
    SseEvents,
    /// Four bytes of length, big-endian, and that many bytes of JSON.
    LengthPrefixed,
}

/// Why a stream cannot be read on.
///
/// ```
/// use adjutant::spawner::process::{StreamFault, StreamMode, StreamParser};
///
/// let mut parser = StreamParser::new(StreamMode::LengthPrefixed, 1024);
/// let fault = parser.push(&[0, 0, 0, 0], &mut Vec::new()).expect_err("a frame of no bytes");
/// match fault {
///     StreamFault::EmptyFrame => {}
///     StreamFault::TooLong { limit } => panic!("more than {limit}"),
///     other => panic!("{other}"),
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StreamFault {
    /// A line, frame or server-sent event is longer than allowed.
    #[error("an output line or frame is longer than {limit} bytes")]
    TooLong {
        /// The most bytes allowed.
        limit: usize,
    },
    /// A frame announces no bytes at all.
    #[error("an output frame has the length 0")]
    EmptyFrame,
}

/// An incremental parser for one stream.
///
/// Lines and frames that are no event are skipped and counted; bytes that are no UTF-8 are
/// replaced. After a fault nothing more is read.
///
/// ```
/// use adjutant::spawner::process::{LONGEST_DEFAULT, StreamMode, StreamParser};
///
/// let mut parser = StreamParser::new(StreamMode::NdjsonLines, LONGEST_DEFAULT);
/// let mut events = Vec::new();
/// parser.push(b"{\"type\":\"progress\",", &mut events).unwrap();
/// assert!(events.is_empty());
/// parser.push(b"\"stage\":\"read\"}\n", &mut events).unwrap();
/// assert_eq!(events.len(), 1);
/// ```
#[derive(Debug)]
pub struct StreamParser {
    format: Format,
    skipped: u64,
    fault: Option<StreamFault>,
}

#[derive(Debug)]
enum Format {
    Ndjson(Ndjson),
    Sse(Sse),
    Framed(Framed),
}

impl StreamParser {
    /// A parser at the start of a stream whose lines or frames have at most `longest` bytes.
    #[must_use]
    pub fn new(mode: StreamMode, longest: usize) -> Self {
        let format = match mode {
            StreamMode::NdjsonLines => Format::Ndjson(Ndjson::new(longest)),
            StreamMode::SseEvents => Format::Sse(Sse::new(longest)),
            StreamMode::LengthPrefixed => Format::Framed(Framed::new(longest)),
        };
        Self { format, skipped: 0, fault: None }
    }

    /// Reads on and appends the events that are now complete.
    ///
    /// # Errors
    /// The fault that ended the stream, from then on at each call. Events before it are in `out`.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<OutputEvent>) -> Result<(), StreamFault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let mut take = Take { out, skipped: &mut self.skipped };
        let done = match &mut self.format {
            Format::Ndjson(ndjson) => ndjson.push(bytes, &mut take),
            Format::Sse(sse) => sse.push(bytes, &mut take),
            Format::Framed(framed) => framed.push(bytes, &mut take),
        };
        done.inspect_err(|fault| self.fault = Some(*fault))
    }

    /// The stream has ended: appends what was waiting for a line's end.
    ///
    /// # Errors
    /// The fault that ended the stream.
    pub fn finish(&mut self, out: &mut Vec<OutputEvent>) -> Result<(), StreamFault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let mut take = Take { out, skipped: &mut self.skipped };
        let done = match &mut self.format {
            Format::Ndjson(ndjson) => {
                ndjson.finish(&mut take);
                Ok(())
            }
            Format::Sse(sse) => sse.finish(&mut take),
            Format::Framed(framed) => {
                framed.finish(&mut take);
                Ok(())
            }
        };
        done.inspect_err(|fault| self.fault = Some(*fault))
    }

    /// How many lines or frames were no event. Blank lines do not count.
    #[must_use]
    pub fn skipped(&self) -> u64 {
        self.skipped
    }
}

/// Where a format leaves the texts it has cut out.
struct Take<'a> {
    out: &'a mut Vec<OutputEvent>,
    skipped: &'a mut u64,
}

impl Take<'_> {
    fn text(&mut self, bytes: &[u8]) {
        match decode(bytes) {
            Some(event) => self.out.push(event),
            None => self.skip(),
        }
    }

    fn skip(&mut self) {
        *self.skipped += 1;
    }
}

/// The event that a text holds. A stored body is the engine's own word and none of a worker's.
fn decode(bytes: &[u8]) -> Option<OutputEvent> {
    let event: OutputEvent = serde_json::from_str(&String::from_utf8_lossy(bytes)).ok()?;
    match event.content() {
        Some(ContentRef::Stored { .. }) => None,
        _ => Some(event),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODES: [StreamMode; 3] =
        [StreamMode::NdjsonLines, StreamMode::SseEvents, StreamMode::LengthPrefixed];

    /// Texts as a child may send them: events, noise, bad UTF-8, a stored body, deep nesting.
    fn texts() -> Vec<Vec<u8>> {
        let mut bomb = br#"{"type":"partial","chunk":"#.to_vec();
        bomb.extend([b'['; 10_000]);
        vec![
            br#"{"type":"progress","stage":"read"}"#.to_vec(),
            b"no json".to_vec(),
            b"{\"type\":\"progress\",\"stage\":\"\xff\xfe\"}".to_vec(),
            br#"{"type":"artifact","name":"a","content":{"kind":"stored","hash":"b3-0","bytes":1}}"#
                .to_vec(),
            bomb,
            r#"{"type":"partial","chunk":{"text":"snowman ☃"}}"#.into(),
            br#"{"type":"final","content":{"kind":"inline","value":[1]},"ok":true}"#.to_vec(),
        ]
    }

    fn stream(mode: StreamMode) -> Vec<u8> {
        let mut bytes = Vec::new();
        for text in texts() {
            match mode {
                StreamMode::NdjsonLines => bytes.extend([text.as_slice(), b"\r\n \n"].concat()),
                StreamMode::SseEvents => {
                    bytes.extend([b"event: x\ndata: ", text.as_slice(), b"\r\n\r\n"].concat());
                }
                StreamMode::LengthPrefixed => {
                    bytes.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
                    bytes.extend(text);
                }
            }
        }
        bytes
    }

    type Outcome = (Vec<OutputEvent>, u64, Option<StreamFault>);

    fn read<'a>(
        mode: StreamMode,
        longest: usize,
        pieces: impl Iterator<Item = &'a [u8]>,
    ) -> Outcome {
        let mut parser = StreamParser::new(mode, longest);
        let mut out = Vec::new();
        let mut fault = None;
        for piece in pieces {
            if let Err(found) = parser.push(piece, &mut out) {
                fault = Some(found);
            }
        }
        fault = fault.or(parser.finish(&mut out).err());
        (out, parser.skipped(), fault)
    }

    #[test]
    fn each_format_keeps_events_and_counts_the_rest() {
        for mode in MODES {
            let bytes = stream(mode);
            let (events, skipped, fault) = read(mode, LONGEST_DEFAULT, std::iter::once(&bytes[..]));
            assert_eq!((events.len(), skipped, fault), (4, 3, None), "{mode:?}");
            let replaced = OutputEvent::Progress { stage: "\u{fffd}\u{fffd}".into(), note: None };
            assert_eq!(events[1], replaced, "{mode:?}");
        }
    }

    #[test]
    fn any_chunking_gives_the_same_events_and_the_same_fault() {
        for mode in MODES {
            for longest in [LONGEST_DEFAULT, 10_026, 60] {
                let bytes = stream(mode);
                let whole = read(mode, longest, std::iter::once(&bytes[..]));
                assert_eq!(read(mode, longest, bytes.chunks(1)), whole, "{mode:?} {longest}");
                for seed in 1..100_u64 {
                    let pieces = pieces(&bytes, seed);
                    let got = read(mode, longest, pieces.into_iter());
                    assert_eq!(got, whole, "{mode:?} {longest} seed {seed}");
                }
            }
        }
    }

    /// Cuts at places drawn from a seed: mostly short pieces, empty ones among them.
    fn pieces(mut bytes: &[u8], seed: u64) -> Vec<&[u8]> {
        let mut word = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut pieces = Vec::new();
        while !bytes.is_empty() {
            word ^= word << 13;
            word ^= word >> 7;
            word ^= word << 17;
            let most = if word & 0x700 == 0 { 4_000 } else { 9 };
            let len = usize::try_from((word >> 32) % most).unwrap().min(bytes.len());
            let (piece, rest) = bytes.split_at(len);
            pieces.push(piece);
            bytes = rest;
        }
        pieces
    }

    #[test]
    fn random_bytes_never_panic_and_read_alike_in_any_pieces() {
        for mode in MODES {
            for seed in 1..200_u64 {
                let mut word = seed;
                let bytes: Vec<u8> = std::iter::repeat_with(|| {
                    word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    // Half of them from the formats' own alphabet, so that structure arises.
                    let byte = word.to_be_bytes()[0];
                    if byte & 1 == 0 {
                        b"data: \n\r{}\0\0\0\x02"[usize::from(byte) % 14]
                    } else {
                        byte
                    }
                })
                .take(600)
                .collect();
                let whole = read(mode, 64, std::iter::once(&bytes[..]));
                assert_eq!(read(mode, 64, pieces(&bytes, seed).into_iter()), whole, "seed {seed}");
            }
        }
    }

    #[test]
    fn a_fault_stays() {
        let mut parser = StreamParser::new(StreamMode::LengthPrefixed, 8);
        let mut out = Vec::new();
        let fault = Err(StreamFault::TooLong { limit: 8 });
        assert_eq!(parser.push(&[0, 0, 0, 9], &mut out), fault);
        assert_eq!(parser.push(b"\0\0\0\x02{}", &mut out), fault);
        assert_eq!(parser.finish(&mut out), fault);
    }
}
