//! Looks at a store without changing it: the check of everything, and the export of everything.
//!
//! Both read as of one commit and need no lock, so they may run beside the holder.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use adjutant_actors::config::EngineCfg;
use adjutant_actors::journal::JournalError;
use adjutant_actors::state::Rules;
use adjutant_actors::state::images::{Rebuild, Row, SetAside};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::store::place::unusable;
use crate::store::read;
use crate::store::schema::{self, broken};

/// Events that an export reads at a time.
const PAGE: usize = 1_000;

/// What a check of a store found.
///
/// ```
/// use adjutant::store::{SqliteStore, StoreCfg, export_json, fsck};
///
/// let dir = tempfile::tempdir()?;
/// drop(SqliteStore::open(dir.path(), StoreCfg::default())?);
/// let report = fsck(dir.path())?;
/// assert!(report.is_sound() && report.last_seq == 0);
///
/// let mut lines = Vec::new();
/// assert_eq!(export_json(dir.path(), &mut lines)?, 0); // nothing is in it
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Number of the newest batch.
    pub last_batch: u64,
    /// Number of the newest event.
    pub last_seq: u64,
    /// Usable rows by table.
    pub rows: BTreeMap<&'static str, u64>,
    /// Rows that a load would set aside.
    pub set_aside: Vec<SetAside>,
    /// What the database says of its own structure; empty where it is sound.
    pub structure: Vec<String>,
    /// The rule that the loaded state breaks, if it breaks one.
    pub broken_rule: Option<String>,
}

impl Report {
    /// Whether nothing was found.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.set_aside.is_empty() && self.structure.is_empty() && self.broken_rule.is_none()
    }
}

/// Checks a store: the structure of its database, every checksum, every image, and every rule of
/// the state that a load would give. Changes nothing; needs no lock.
///
/// ```
/// let report = adjutant::store::fsck("/no/such/store");
/// assert!(matches!(report, Err(adjutant::journal::JournalError::Unusable { .. })));
/// ```
///
/// # Errors
/// `TooNew`, `Unusable`; `Damaged` where not even the structure can be read.
pub fn fsck(path: impl AsRef<Path>) -> Result<Report, JournalError> {
    let path = path.as_ref();
    let mut conn = schema::reader(path)?;
    let mut report = Report { structure: structure(&conn), ..Report::default() };
    let (mut rebuild, mut rows) = (Rebuild::default(), BTreeMap::new());
    let loaded = read::load(&mut conn, PAGE, &mut |row| {
        *rows.entry(row.table.as_str()).or_default() += 1;
        rebuild.row(row);
    });
    let head = match loaded {
        Ok(head) => head,
        Err(error) if report.structure.is_empty() => return Err(broken(path, "read", &error)),
        Err(error) => {
            report.structure.push(error.to_string());
            return Ok(report);
        }
    };
    let rules = Rules::from(&EngineCfg::default());
    let rebuilt = rebuild.finish(rules, head.mark, head.events);
    report.broken_rule = rebuilt.state.audit().err();
    report.last_batch = head.last_batch;
    report.last_seq = head.mark.last_seq;
    report.rows = rows;
    report.set_aside = head.set_aside;
    report.set_aside.extend(rebuilt.set_aside);
    Ok(report)
}

/// What SQLite finds wrong with the file; the error itself where it cannot even look.
fn structure(conn: &rusqlite::Connection) -> Vec<String> {
    let look = || -> rusqlite::Result<Vec<String>> {
        let mut statement = conn.prepare("PRAGMA integrity_check(20)")?;
        let found = statement.query_map([], |row| row.get::<_, String>(0))?;
        found.collect()
    };
    match look() {
        Ok(found) => found.into_iter().filter(|line| line != "ok").collect(),
        Err(error) => vec![error.to_string()],
    }
}

#[derive(Serialize)]
struct Line<'a> {
    table: &'a str,
    key: &'a str,
    record: &'a RawValue,
}

/// Writes a store as lines of JSON: `{"table", "key", "record"}` for each record, in no order, then
/// `{"table": "events", "key", "at", "record"}` for each event in its order. Changes nothing; needs
/// no lock. Returns how many lines there are.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use adjutant::store::{SqliteStore, StoreCfg, export_json};
/// use adjutant::{Engine, EngineCfg, LayerRegistry, Role};
/// use std::{sync::Arc, time::Duration};
///
/// let dir = tempfile::tempdir()?;
/// let store = Arc::new(SqliteStore::open(dir.path(), StoreCfg::default())?);
/// let cfg = EngineCfg { token_keys: store.keys(), ..EngineCfg::default() };
/// let engine = Engine::open(cfg, LayerRegistry::new(), store).await?;
/// engine.attach("ann", Role::Operator, Duration::from_secs(60)).await?;
///
/// let mut lines = Vec::new();
/// let count = export_json(dir.path(), &mut lines)?;
/// assert!(count >= 3); // the session, its token, its event
/// assert_eq!(String::from_utf8(lines)?.lines().count() as u64, count);
/// # Ok(()) }
/// ```
///
/// # Errors
/// `TooNew`, `Unusable` also where `out` cannot be written, `Damaged`.
pub fn export_json(path: impl AsRef<Path>, out: &mut dyn Write) -> Result<u64, JournalError> {
    let path = path.as_ref();
    let mut conn = schema::reader(path)?;
    let (mut lines, mut failed) = (0, None);
    let head = read::load(&mut conn, 1, &mut |row| {
        if failed.is_none() {
            failed = write_row(out, row).err();
            lines += 1;
        }
    });
    head.map_err(|error| broken(path, "read", &error))?;
    failed.map_or(Ok(()), Err).map_err(|error| unusable(path, "exported", error))?;
    let mut after = 0;
    loop {
        let page = read::events_after(&mut conn, after, PAGE)
            .map_err(|error| broken(path, "read", &error))?;
        let Some(last) = page.last() else { break };
        after = last.seq;
        for record in &page {
            write_event(out, record).map_err(|error| unusable(path, "exported", error))?;
            lines += 1;
        }
    }
    out.flush().map_err(|error| unusable(path, "exported", error))?;
    Ok(lines)
}

fn write_row(out: &mut dyn Write, row: Row<'_>) -> io::Result<()> {
    // A row whose image is no JSON would make the export no JSON: its bytes go out as a text.
    let text = String::from_utf8_lossy(row.image);
    let table = row.table.as_str();
    match serde_json::from_str::<&RawValue>(&text) {
        Ok(record) => serde_json::to_writer(&mut *out, &Line { table, key: row.key, record })?,
        Err(_) => {
            let line = serde_json::json!({ "table": table, "key": row.key, "damaged": text });
            serde_json::to_writer(&mut *out, &line)?;
        }
    }
    out.write_all(b"\n")
}

fn write_event(
    out: &mut dyn Write,
    record: &adjutant_actors::model::event::EventRecord,
) -> io::Result<()> {
    let line = serde_json::json!({
        "table": "events", "key": record.seq, "at": record.at, "record": record.event,
    });
    serde_json::to_writer(&mut *out, &line)?;
    out.write_all(b"\n")
}
