//! The fold: carries batches from the journal into the tables that people query, trims the
//! journal behind itself, and forgets the oldest events.
//!
//! A fold is a transaction that is not flushed by itself: if it is lost, the journal is still
//! there. The next commit flushes it along.

use std::collections::BTreeMap;

use adjutant_actors::journal::frame::{self, BatchView};
use adjutant_actors::state::images::TableName;
use rusqlite::{Connection, Transaction};

use crate::store::EventLog;
use crate::store::schema::{meta, set_meta, sum};

/// Bytes of frames that one fold takes, about.
const CHUNK_BYTES: usize = 256 << 10;
/// Events that one fold forgets at most.
const FORGET_MAX: u64 = 10_000;
/// Events that are kept whatever the settings say: more than the engine's own tail.
const KEEP_MIN: u64 = 1_024;

/// What a fold did.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Folded {
    /// Batches that it carried over.
    pub(super) batches: u64,
    /// Bytes of their frames.
    pub(super) bytes: u64,
}

/// The newest image of each record among some batches.
type Newest<'a> = BTreeMap<(TableName, &'a str), Option<(u8, &'a [u8])>>;

/// Carries the oldest batches over. None left: a fold of nothing.
pub(super) fn fold(conn: &mut Connection, log: &EventLog) -> rusqlite::Result<Folded> {
    let change = conn.transaction()?;
    let from = meta(&change, "folded_to")?;
    let frames = oldest_frames(&change, from)?;
    let Some((last, _)) = frames.last() else { return Ok(Folded::default()) };
    let last = *last;
    let mut done = Folded::default();
    let mut newest = Newest::new();
    let mut views = Vec::new();
    for (number, bytes) in &frames {
        done.batches += 1;
        done.bytes += bytes.len() as u64;
        match frame::read(bytes) {
            Ok(view) => views.push(view),
            Err(error) => keep_aside(&change, *number, bytes, &error.to_string())?,
        }
    }
    for view in &views {
        for image in &view.images {
            newest.insert((image.table, image.key), image.image);
        }
    }
    write_rows(&change, &newest)?;
    let added = write_events(&change, &views)?;
    if let Some(view) = views.last() {
        set_meta(&change, "last_seq", view.mark.last_seq)?;
        set_meta(&change, "paused", u64::from(view.mark.paused))?;
        set_meta(&change, "at_unix", view.at.unix)?;
        set_meta(&change, "at_ms", view.at.ms)?;
        let bytes = meta(&change, "event_bytes")? + added;
        forget_events(&change, log, view.mark.last_seq, view.at.unix, bytes)?;
    }
    change.execute("DELETE FROM journal WHERE number <= ?1", [last.cast_signed()])?;
    set_meta(&change, "folded_to", last)?;
    change.commit()?;
    Ok(done)
}

fn oldest_frames(conn: &Connection, from: u64) -> rusqlite::Result<Vec<(u64, Vec<u8>)>> {
    let mut statement =
        conn.prepare_cached("SELECT number, frame FROM journal WHERE number > ?1 ORDER BY number")?;
    let mut rows = statement.query([from.cast_signed()])?;
    let (mut frames, mut total) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        let bytes: Vec<u8> = row.get(1)?;
        total += bytes.len();
        frames.push((row.get::<_, i64>(0)?.cast_unsigned(), bytes));
        if total >= CHUNK_BYTES {
            break;
        }
    }
    Ok(frames)
}

/// Keeps a batch that cannot be read for people to look at.
fn keep_aside(conn: &Connection, number: u64, bytes: &[u8], why: &str) -> rusqlite::Result<()> {
    conn.execute(
        "INSERT INTO set_aside (source, key, why, data) VALUES ('journal', ?1, ?2, ?3)",
        (number.to_string(), why, bytes),
    )
    .map(drop)
}

fn write_rows(change: &Transaction<'_>, newest: &Newest<'_>) -> rusqlite::Result<()> {
    for ((table, key), image) in newest {
        match image {
            Some((version, image)) => {
                let sql = format!(
                    "INSERT INTO {table} (key, v, sum, image) VALUES (?1, ?2, ?3, ?4) \
                     ON CONFLICT (key) DO UPDATE SET v = ?2, sum = ?3, image = ?4"
                );
                let sum = sum(table.as_str(), key.as_bytes(), *version, image);
                let image = String::from_utf8_lossy(image);
                change.prepare_cached(&sql)?.execute((key, version, sum, image))?;
            }
            None => {
                let sql = format!("DELETE FROM {table} WHERE key = ?1");
                change.prepare_cached(&sql)?.execute([key])?;
            }
        }
    }
    Ok(())
}

/// Adds events and gives their bytes.
fn write_events(change: &Transaction<'_>, views: &[BatchView<'_>]) -> rusqlite::Result<u64> {
    let mut statement = change.prepare_cached(
        "INSERT OR REPLACE INTO events (seq, at, sum, image) VALUES (?1, ?2, ?3, ?4)",
    )?;
    let mut bytes = 0;
    for event in views.iter().flat_map(|view| &view.events) {
        let sum = event_sum(event.seq, event.at, event.json);
        let image = String::from_utf8_lossy(event.json);
        statement.execute((event.seq.cast_signed(), event.at.cast_signed(), sum, image))?;
        bytes += event.json.len() as u64;
    }
    Ok(bytes)
}

/// What stands beside an event.
pub(super) fn event_sum(seq: u64, at: u64, json: &[u8]) -> i64 {
    sum("events", &[seq.to_le_bytes(), at.to_le_bytes()].concat(), 1, json)
}

/// Forgets the oldest events while there are more than the log may hold.
fn forget_events(
    change: &Transaction<'_>,
    log: &EventLog,
    last: u64,
    now: u64,
    bytes: u64,
) -> rusqlite::Result<()> {
    let first: Option<i64> =
        change.query_row("SELECT min(seq) FROM events", [], |row| row.get(0))?;
    let Some(first) = first.map(i64::cast_unsigned) else {
        return set_meta(change, "event_bytes", bytes);
    };
    let oldest = now.saturating_sub(log.age.as_secs());
    let end = last.saturating_sub(KEEP_MIN).min(first.saturating_add(FORGET_MAX));
    let surplus = (last + 1).saturating_sub(log.count).min(end + 1);
    let mut statement = change
        .prepare_cached("SELECT seq, at, length(image) FROM events WHERE seq <= ?1 ORDER BY seq")?;
    let mut rows = statement.query([end.cast_signed()])?;
    let (mut left, mut cut) = (bytes, None);
    while let Some(row) = rows.next()? {
        let (seq, at): (i64, i64) = (row.get(0)?, row.get(1)?);
        let (seq, at) = (seq.cast_unsigned(), at.cast_unsigned());
        if seq >= surplus && at >= oldest && left <= log.bytes {
            break;
        }
        left = left.saturating_sub(row.get::<_, i64>(2)?.cast_unsigned());
        cut = Some(seq);
    }
    if let Some(cut) = cut {
        change.execute("DELETE FROM events WHERE seq <= ?1", [cut.cast_signed()])?;
    }
    set_meta(change, "event_bytes", left)
}
