//! Reads: what the tables hold, as the journal behind the fold has changed it since.
//!
//! Everything here is one read transaction over one connection, so a reader sees the store as
//! after some commit, whatever the writer does meanwhile.

use std::collections::HashMap;

use adjutant_actors::journal::Head;
use adjutant_actors::journal::frame::{self, BatchView};
use adjutant_actors::model::event::EventRecord;
use adjutant_actors::state::effect::Now;
use adjutant_actors::state::images::{Mark, Row, SetAside, TableName};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension};

use crate::store::fold::event_sum;
use crate::store::schema::{folded, meta, sum};

/// The batches that are not folded yet, as frames.
struct Suffix {
    frames: Vec<(u64, Vec<u8>)>,
}

impl Suffix {
    fn read(conn: &Connection) -> rusqlite::Result<Self> {
        let from = meta(conn, "folded_to")?;
        let mut statement = conn.prepare_cached(
            "SELECT number, frame FROM journal WHERE number > ?1 ORDER BY number",
        )?;
        let rows = statement.query_map([from.cast_signed()], |row| {
            Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get::<_, Vec<u8>>(1)?))
        })?;
        Ok(Self { frames: rows.collect::<rusqlite::Result<_>>()? })
    }

    /// The frames that can be read; the others are named in `aside`.
    fn views(&self, aside: &mut Vec<SetAside>) -> Vec<BatchView<'_>> {
        let mut views = Vec::with_capacity(self.frames.len());
        for (number, bytes) in &self.frames {
            match frame::read(bytes) {
                Ok(view) if view.number == *number => views.push(view),
                Ok(_) => aside.push(named("journal", number.to_string(), "it has another number")),
                Err(error) => aside.push(named("journal", number.to_string(), &error.to_string())),
            }
        }
        views
    }
}

fn named(table: &str, key: String, why: &str) -> SetAside {
    SetAside { table: table.to_owned(), key, why: why.to_owned() }
}

/// The newest image of each record that the journal has.
type Newest<'a> = HashMap<(TableName, &'a str), Option<(u8, &'a [u8])>>;

/// The bytes of a text or blob; nothing for any other kind.
fn bytes(value: ValueRef<'_>) -> &[u8] {
    match value {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes,
        _ => &[],
    }
}

const DAMAGED: &str = "its checksum does not match";

/// Gives every record to `row`, and the head with at most `tail` events.
pub(super) fn load(
    conn: &mut Connection,
    tail: usize,
    row: &mut dyn FnMut(Row<'_>),
) -> rusqlite::Result<Head> {
    let view = conn.transaction()?;
    let suffix = Suffix::read(&view)?;
    let mut aside = Vec::new();
    let batches = suffix.views(&mut aside);
    let mut newest: Newest<'_> = HashMap::new();
    for image in batches.iter().flat_map(|batch| &batch.images) {
        newest.insert((image.table, image.key), image.image);
    }
    for table in folded() {
        let stale = |key: &str| newest.contains_key(&(table, key));
        read_table(&view, table, &stale, &mut aside, row)?;
    }
    for ((table, key), image) in &newest {
        if let Some((version, image)) = image {
            row(Row { table: *table, key, version: *version, image });
        }
    }
    read_bodies(&view, &mut aside, row)?;
    let mut head = head(&view, &suffix, &batches)?;
    head.events = newest_events(&view, &batches, tail, &mut aside)?;
    head.set_aside = aside;
    Ok(head)
}

fn read_table(
    conn: &Connection,
    table: TableName,
    stale: &dyn Fn(&str) -> bool,
    aside: &mut Vec<SetAside>,
    row: &mut dyn FnMut(Row<'_>),
) -> rusqlite::Result<()> {
    let mut statement = conn.prepare(&format!("SELECT key, v, sum, image FROM {table}"))?;
    let mut rows = statement.query([])?;
    while let Some(found) = rows.next()? {
        let (key, image) = (bytes(found.get_ref(0)?), bytes(found.get_ref(3)?));
        let version = found.get::<_, i64>(1).ok().and_then(|v| u8::try_from(v).ok());
        let kept = found.get::<_, i64>(2).ok();
        match (std::str::from_utf8(key), version) {
            // The journal has a newer image, or says that the record is gone.
            (Ok(text), _) if stale(text) => {}
            (Ok(text), Some(version)) if kept == Some(sum(table.as_str(), key, version, image)) => {
                row(Row { table, key: text, version, image });
            }
            _ => {
                let key = String::from_utf8_lossy(key).into_owned();
                aside.push(named(table.as_str(), key, DAMAGED));
            }
        }
    }
    Ok(())
}

fn read_bodies(
    conn: &Connection,
    aside: &mut Vec<SetAside>,
    row: &mut dyn FnMut(Row<'_>),
) -> rusqlite::Result<()> {
    let mut statement = conn.prepare("SELECT key, v, image FROM bodies")?;
    let mut rows = statement.query([])?;
    let table = TableName::Bodies;
    while let Some(found) = rows.next()? {
        let (key, image) = (bytes(found.get_ref(0)?), bytes(found.get_ref(2)?));
        let version = found.get::<_, i64>(1).ok().and_then(|v| u8::try_from(v).ok());
        match (std::str::from_utf8(key), version) {
            (Ok(key), Some(version)) => row(Row { table, key, version, image }),
            _ => {
                let key = String::from_utf8_lossy(key).into_owned();
                aside.push(named(table.as_str(), key, DAMAGED));
            }
        }
    }
    Ok(())
}

/// The newest batch's number, time and counters: from its frame, else from the fold.
fn head(conn: &Connection, suffix: &Suffix, batches: &[BatchView<'_>]) -> rusqlite::Result<Head> {
    let folded_to = meta(conn, "folded_to")?;
    let last_batch = suffix.frames.last().map_or(folded_to, |(number, _)| *number);
    let epoch = meta(conn, "epoch")?;
    if let Some(batch) = batches.last() {
        let at = Some(batch.at);
        return Ok(Head { last_batch, epoch, at, mark: batch.mark, ..Head::default() });
    }
    let at = Now { unix: meta(conn, "at_unix")?, ms: meta(conn, "at_ms")? };
    let paused = meta(conn, "paused")? != 0;
    let mark = Mark { last_seq: meta(conn, "last_seq")?, paused };
    Ok(Head { last_batch, epoch, at: (last_batch > 0).then_some(at), mark, ..Head::default() })
}

/// Reads the events that a statement gives as seq, at, sum and image.
fn events(
    conn: &Connection,
    sql: &str,
    values: (i64, i64),
    aside: &mut Vec<SetAside>,
) -> rusqlite::Result<Vec<EventRecord>> {
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query(values)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let (seq, at): (i64, i64) = (row.get(0)?, row.get(1)?);
        let (seq, at) = (seq.cast_unsigned(), at.cast_unsigned());
        let json = bytes(row.get_ref(3)?);
        let intact = row.get::<_, i64>(2).ok() == Some(event_sum(seq, at, json));
        match serde_json::from_slice(json) {
            Ok(event) if intact => found.push(EventRecord { seq, at, event }),
            _ => aside.push(named("events", seq.to_string(), DAMAGED)),
        }
    }
    Ok(found)
}

/// The events of batches with a number above `after`.
fn events_of(batches: &[BatchView<'_>], after: u64) -> Vec<EventRecord> {
    let all = batches.iter().flat_map(|batch| &batch.events).filter(|event| event.seq > after);
    let parsed = all.filter_map(|event| {
        let parsed = serde_json::from_slice(event.json).ok()?;
        Some(EventRecord { seq: event.seq, at: event.at, event: parsed })
    });
    parsed.collect()
}

fn newest_events(
    conn: &Connection,
    batches: &[BatchView<'_>],
    tail: usize,
    aside: &mut Vec<SetAside>,
) -> rusqlite::Result<Vec<EventRecord>> {
    let mut newest = events_of(batches, 0);
    let skip = newest.len().saturating_sub(tail);
    newest.drain(..skip);
    let missing = i64::try_from(tail - newest.len()).unwrap_or(i64::MAX);
    let sql = "SELECT seq, at, sum, image FROM events WHERE seq > ?1 ORDER BY seq DESC LIMIT ?2";
    let mut older = events(conn, sql, (0, missing), aside)?;
    older.reverse();
    older.append(&mut newest);
    Ok(older)
}

/// Events above `after`, oldest first. Damaged ones are left out.
pub(super) fn events_after(
    conn: &mut Connection,
    after: u64,
    limit: usize,
) -> rusqlite::Result<Vec<EventRecord>> {
    let view = conn.transaction()?;
    let most = i64::try_from(limit).unwrap_or(i64::MAX);
    let from = i64::try_from(after).unwrap_or(i64::MAX);
    let sql = "SELECT seq, at, sum, image FROM events WHERE seq > ?1 ORDER BY seq LIMIT ?2";
    let mut aside = Vec::new();
    let mut found = events(&view, sql, (from, most), &mut aside)?;
    if found.len() + aside.len() < limit {
        let suffix = Suffix::read(&view)?;
        let newer = events_of(&suffix.views(&mut aside), after);
        found.extend(newer);
        found.truncate(limit);
    }
    Ok(found)
}

/// The text of a body, if it is there and is what its hash says.
pub(super) fn body(conn: &Connection, hash: &[u8; 32]) -> rusqlite::Result<Option<Vec<u8>>> {
    let key = blake3::Hash::from_bytes(*hash).to_hex();
    let mut statement = conn.prepare_cached("SELECT image FROM bodies WHERE key = ?1")?;
    let found = statement.query_row([key.as_str()], |row| Ok(bytes(row.get_ref(0)?).to_vec()));
    let found = found.optional()?;
    Ok(found.filter(|text| blake3::hash(text).as_bytes() == hash))
}
