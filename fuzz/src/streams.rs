//! Output streams of children: in whatever pieces the bytes come, the events are the same.
//!
//! The first byte of an input names the format, the second the longest line or frame, the third
//! how the rest is cut into pieces.

use adjutant::OutputEvent;
use adjutant::spawner::process::{StreamFault, StreamMode, StreamParser};

const MODES: [StreamMode; 3] =
    [StreamMode::NdjsonLines, StreamMode::SseEvents, StreamMode::LengthPrefixed];

#[derive(Debug, PartialEq)]
struct Read {
    events: Vec<OutputEvent>,
    skipped: u64,
    fault: Option<StreamFault>,
}

fn read<'a>(mode: StreamMode, longest: usize, pieces: impl Iterator<Item = &'a [u8]>) -> Read {
    let mut parser = StreamParser::new(mode, longest);
    let (mut events, mut fault) = (Vec::new(), None);
    for piece in pieces {
        fault = parser.push(piece, &mut events).err().or(fault);
    }
    fault = fault.or(parser.finish(&mut events).err());
    Read { events, skipped: parser.skipped(), fault }
}

/// Reads a stream whole, byte by byte, and in pieces.
pub fn check(input: &[u8]) {
    let [mode, longest, cut, bytes @ ..] = input else { return };
    let mode = MODES[usize::from(*mode) % MODES.len()];
    let longest = usize::from(*longest) * 8 + 1;
    let whole = read(mode, longest, std::iter::once(bytes));
    assert_eq!(read(mode, longest, bytes.chunks(1)), whole);
    assert_eq!(read(mode, longest, bytes.chunks(usize::from(*cut) + 2)), whole);
    for event in &whole.events {
        assert!(!matches!(event.content(), Some(adjutant::ContentRef::Stored { .. })));
    }
}
