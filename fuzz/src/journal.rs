//! The journal: frames that are damaged are refused, and whatever the rows say, a state comes of
//! them that keeps its rules.
//!
//! An input that begins with `F` is a frame without its checksum, which is added; one that begins
//! with `R` is rows, one a line: table, key and image with tabs between. Others are whole frames.

use adjutant::{EngineCfg, EngineState, EventRecord, Now};
use adjutant_actors::journal::frame;
use adjutant_actors::state::Rules;
use adjutant_actors::state::images::{
    IMAGE_VERSION, Mark, Rebuild, Rebuilt, Row, TableName, Touched,
};

const SUM_LEN: usize = 16;

fn rules() -> Rules {
    Rules::from(&EngineCfg { token_secret: vec![7; 32], ..EngineCfg::default() })
}

/// Reads a frame, or rows, and builds a state of them.
pub fn check(input: &[u8]) {
    match input {
        [b'F', body @ ..] => framed(&sealed(body)),
        [b'R', rows @ ..] => rows_of(rows),
        bytes => framed(bytes),
    }
}

fn sealed(body: &[u8]) -> Vec<u8> {
    let mut bytes = body.to_vec();
    bytes.extend_from_slice(&blake3::hash(body).as_bytes()[..SUM_LEN]);
    bytes
}

fn framed(bytes: &[u8]) {
    let Ok(view) = frame::read(bytes) else { return };
    let mut rebuild = Rebuild::default();
    for image in &view.images {
        if let Some((version, bytes)) = image.image {
            rebuild.row(Row { table: image.table, key: image.key, version, image: bytes });
        }
    }
    let read = |event: &frame::EventView<'_>| {
        let parsed = serde_json::from_slice(event.json).ok()?;
        Some(EventRecord { seq: event.seq, at: event.at, event: parsed })
    };
    let events = view.events.iter().filter_map(read).collect();
    sound(rebuild.finish(rules(), view.mark, events));
}

fn rows_of(rows: &[u8]) {
    let mut rebuild = Rebuild::default();
    for line in rows.split(|byte| *byte == b'\n') {
        let mut parts = line.splitn(3, |byte| *byte == b'\t');
        let (Some(table), Some(key), Some(image)) = (parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        let table = TableName::ALL.into_iter().find(|known| known.as_str().as_bytes() == table);
        let (Some(table), Ok(key)) = (table, std::str::from_utf8(key)) else { continue };
        rebuild.row(Row { table, key, version: IMAGE_VERSION, image });
    }
    sound(rebuild.finish(rules(), Mark::default(), Vec::new()));
}

/// The state keeps its rules, also once it is recovered, and its own images build it again.
fn sound(rebuilt: Rebuilt) {
    let Rebuilt { mut state, .. } = rebuilt;
    assert_eq!(state.audit(), Ok(()), "a rebuilt state");
    comes_back(&state);
    state.recover(Now { unix: 2_000_000_000, ms: 5_000 });
    assert_eq!(state.audit(), Ok(()), "a recovered state");
}

fn comes_back(state: &EngineState) {
    let mut touched = Touched::default();
    state.note_all(&mut touched);
    let mut rebuild = Rebuild::default();
    for image in state.images(&mut touched).iter().filter(|image| !image.is_removal()) {
        let mut bytes = Vec::new();
        image.encode(&mut bytes).expect("a record can be written");
        let (table, key) = (image.key().table(), image.key().text());
        rebuild.row(Row { table, key: &key, version: IMAGE_VERSION, image: &bytes });
    }
    let again = rebuild.finish(rules(), state.mark(), Vec::new());
    assert_eq!(again.set_aside, [], "a state's own images do not fit together");
}
