//! The writer: one thread that owns the writing connection. It takes what has queued, makes it
//! safe in one transaction, reports each batch, and folds and checkpoints when it has time.
//!
//! An error poisons it: what is queued and all that comes later fails with the first cause. It
//! never goes on after one, since nobody can say what reached the disk.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use adjutant_actors::journal::{Batch, Done, JournalError, frame};
use adjutant_actors::state::images::{IMAGE_VERSION, Image, SetAside, TableName};
use rusqlite::Connection;
use tokio::time::Instant;

use crate::store::fold::fold;
use crate::store::log::Log;
use crate::store::place::Held;
use crate::store::schema::{BUSY, broken, meta, set_meta};
use crate::store::{Durability, StoreCfg};

/// Batches that one commit takes at most.
const GROUP_BATCHES: usize = 256;
/// Bytes of frames after which a commit takes no more.
const GROUP_BYTES: usize = 1 << 20;
/// Quiet time after which the writer folds.
const QUIET: Duration = Duration::from_millis(20);

pub(super) type Reply<T> = Sender<Result<T, JournalError>>;

/// What the writer is told.
pub(super) enum Command {
    Append(Box<Batch>, Done),
    SetAside(Vec<SetAside>, Reply<()>),
    Lead(Reply<u64>),
    Flush(Reply<()>),
    /// Work of another part of the store on its connection. It tells its own caller.
    #[cfg(feature = "server")]
    Work(crate::store::shelf::Work),
    Close(Reply<()>),
}

impl Command {
    /// Refuses the command.
    pub(super) fn refuse(self, error: JournalError) {
        match self {
            Self::Append(_, done) => done(Err(error)),
            Self::SetAside(_, reply) | Self::Flush(reply) | Self::Close(reply) => {
                drop(reply.send(Err(error)));
            }
            Self::Lead(reply) => drop(reply.send(Err(error))),
            #[cfg(feature = "server")]
            Self::Work(work) => drop(work(Err(error))),
        }
    }
}

pub(super) struct Writer {
    conn: Connection,
    place: Held,
    cfg: StoreCfg,
    last: u64,
    epoch: u64,
    poison: Option<JournalError>,
    /// Bytes of frames that are not folded.
    backlog: u64,
    log: Log,
    last_sync: Instant,
    unsynced: bool,
}

/// A batch that is part of the present group, and its frame.
struct Framed {
    batch: Box<Batch>,
    frame: Vec<u8>,
    done: Done,
}

impl Writer {
    pub(super) fn new(conn: Connection, place: Held, cfg: StoreCfg) -> Result<Self, JournalError> {
        let read = || -> rusqlite::Result<(u64, u64, u64)> {
            let folded = meta(&conn, "folded_to")?;
            let sql =
                "SELECT coalesce(max(number), 0), coalesce(sum(length(frame)), 0) FROM journal";
            let (last, backlog) =
                conn.query_row(sql, [], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))?;
            Ok((folded.max(last.cast_unsigned()), backlog.cast_unsigned(), meta(&conn, "epoch")?))
        };
        let (last, backlog, epoch) = read().map_err(|e| broken(place.path(), "read", &e))?;
        Ok(Self {
            conn,
            place,
            cfg,
            last,
            epoch,
            poison: None,
            backlog,
            log: Log::default(),
            last_sync: Instant::now(),
            unsynced: false,
        })
    }

    /// Serves commands until the store is closed or dropped. Gives the place free at the end.
    pub(super) fn run(mut self, commands: &Receiver<Command>) {
        let mut waiting: VecDeque<Command> = VecDeque::new();
        loop {
            if waiting.is_empty() {
                match self.next(commands) {
                    Some(command) => waiting.push_back(command),
                    None => return drop(self.close()),
                }
            }
            while let Ok(command) = commands.try_recv() {
                waiting.push_back(command);
            }
            self.append_group(&mut waiting);
            self.relieve();
            match waiting.pop_front() {
                Some(append @ Command::Append(..)) => waiting.push_front(append),
                Some(Command::Close(reply)) => {
                    let closed = self.close();
                    for late in waiting {
                        late.refuse(JournalError::Closed);
                    }
                    drop(self);
                    return drop(reply.send(closed));
                }
                Some(other) => self.serve(other),
                None => {}
            }
        }
    }

    /// Waits for a command; folds, flushes and checkpoints while there is none. `None` once
    /// nobody is left who could send one.
    fn next(&mut self, commands: &Receiver<Command>) -> Option<Command> {
        loop {
            let idle = self.poison.is_some() || (self.backlog == 0 && !self.unsynced);
            if idle {
                return commands.recv().ok();
            }
            match commands.recv_timeout(QUIET) {
                Ok(command) => return Some(command),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => {
                    self.tend(|writer| {
                        writer.sync_when_due()?;
                        writer.fold_once()?;
                        let bytes = writer.cfg.checkpoint_bytes / 16;
                        writer.log.carry_above(bytes, &writer.conn, &writer.cfg)
                    });
                }
            }
        }
    }

    fn serve(&mut self, command: Command) {
        if let Some(error) = &self.poison {
            return command.refuse(error.clone());
        }
        match command {
            Command::SetAside(rows, reply) => {
                drop(reply.send(self.guard(|writer| writer.move_aside(&rows))))
            }
            Command::Lead(reply) => {
                let led = self.guard(|writer| {
                    writer.epoch += 1;
                    set_meta(&writer.conn, "epoch", writer.epoch)?;
                    Ok(writer.epoch)
                });
                drop(reply.send(led));
            }
            Command::Flush(reply) => drop(reply.send(self.guard(Self::sync))),
            #[cfg(feature = "server")]
            Command::Work(work) => self.tend(|writer| work(Ok(&mut writer.conn))),
            Command::Append(..) | Command::Close(_) => {}
        }
    }

    /// Runs work that must not fail; an error poisons the writer.
    fn guard<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> rusqlite::Result<T>,
    ) -> Result<T, JournalError> {
        if let Some(error) = &self.poison {
            return Err(error.clone());
        }
        work(self).map_err(|error| {
            let first = broken(self.place.path(), "written", &error);
            tracing::error!(error = first.to_string(), "the store failed and takes nothing more");
            self.poison = Some(JournalError::Failed(first.to_string()));
            first
        })
    }

    fn tend(&mut self, work: impl FnOnce(&mut Self) -> rusqlite::Result<()>) {
        // What fails here is told by the poison: to whoever appends next.
        let _ = self.guard(work);
    }

    /// Takes the batches at the head of the line, as many as fit, and commits them at once.
    fn append_group(&mut self, waiting: &mut VecDeque<Command>) {
        let (mut group, mut bytes): (Vec<Framed>, usize) = (Vec::new(), 0);
        let mut refused = None;
        while group.len() < GROUP_BATCHES && bytes < GROUP_BYTES {
            let Some(Command::Append(..)) = waiting.front() else { break };
            let Some(Command::Append(batch, done)) = waiting.pop_front() else { break };
            match self.admit(&batch, group.len() as u64) {
                Ok(frame) => {
                    bytes += frame.len();
                    group.push(Framed { batch, frame, done });
                }
                Err(error) => {
                    refused = Some((error, done));
                    break;
                }
            }
        }
        if !group.is_empty() {
            let committed = self.guard(|writer| writer.commit(&group));
            if committed.is_ok() {
                self.last += group.len() as u64;
                self.backlog += bytes as u64;
            }
            for framed in group {
                (framed.done)(committed.clone());
            }
        }
        if let Some((error, done)) = refused {
            // A fenced journal stays fenced; anything else is a failure like a broken disk.
            let later = match &error {
                JournalError::Fenced { .. } | JournalError::Failed(_) => error.clone(),
                other => JournalError::Failed(other.to_string()),
            };
            self.poison.get_or_insert(later);
            done(Err(error));
        }
    }

    /// Checks a batch that would come after `ahead` others of the group, and gives its frame.
    fn admit(&self, batch: &Batch, ahead: u64) -> Result<Vec<u8>, JournalError> {
        if let Some(error) = &self.poison {
            return Err(error.clone());
        }
        if batch.epoch != self.epoch {
            return Err(JournalError::Fenced { own: batch.epoch, current: self.epoch });
        }
        let (number, last) = (batch.number, self.last + ahead);
        if number != last + 1 {
            return Err(JournalError::Misuse(format!("batch {number} came after batch {last}")));
        }
        let mut out = Vec::new();
        frame::write(batch, |key| key.table() != TableName::Bodies, &mut out)
            .map_err(|error| JournalError::Misuse(format!("batch {number}: {error}")))?;
        Ok(out)
    }

    fn commit(&mut self, group: &[Framed]) -> rusqlite::Result<()> {
        self.set_sync()?;
        let change = self.conn.transaction()?;
        {
            let mut insert =
                change.prepare_cached("INSERT INTO journal (number, frame) VALUES (?1, ?2)")?;
            for framed in group {
                insert.execute((framed.batch.number.cast_signed(), &framed.frame))?;
                self.log.grew(framed.frame.len() as u64 + 4096);
            }
            let images = group.iter().flat_map(|framed| &framed.batch.images);
            for image in images.filter(|image| image.key().table() == TableName::Bodies) {
                self.log.grew(write_body(&change, image)?);
            }
        }
        change.commit()
    }

    /// Sets whether the next commit is flushed: always, when it is due, or never.
    fn set_sync(&mut self) -> rusqlite::Result<()> {
        let full = match self.cfg.durability {
            Durability::Sync => return Ok(()),
            Durability::Interval(every) => self.last_sync.elapsed() >= every,
            Durability::None => false,
        };
        if full {
            self.last_sync = Instant::now();
        }
        self.unsynced = !full && self.cfg.durability != Durability::None;
        self.conn.execute_batch(sync_pragma(full))
    }

    fn sync_when_due(&mut self) -> rusqlite::Result<()> {
        match self.cfg.durability {
            Durability::Interval(every) if self.unsynced && self.last_sync.elapsed() >= every => {
                self.sync()
            }
            _ => Ok(()),
        }
    }

    /// Makes everything before safe: a flushed commit takes along what was not flushed.
    fn sync(&mut self) -> rusqlite::Result<()> {
        self.conn.execute_batch(sync_pragma(true))?;
        set_meta(&self.conn, "synced_to", self.last)?;
        self.last_sync = Instant::now();
        self.unsynced = false;
        Ok(())
    }

    /// Folds or checkpoints under load, where too much is left over.
    fn relieve(&mut self) {
        if self.poison.is_none() && self.backlog > self.cfg.fold_bytes {
            self.tend(Self::fold_once);
        }
        if self.poison.is_none() {
            let bytes = self.cfg.checkpoint_bytes;
            self.tend(|writer| writer.log.carry_above(bytes, &writer.conn, &writer.cfg));
        }
    }

    fn fold_once(&mut self) -> rusqlite::Result<()> {
        if self.backlog == 0 {
            return Ok(());
        }
        self.conn.execute_batch(sync_pragma(false))?;
        let folded = fold(&mut self.conn, &self.cfg.events);
        let restored = self.conn.execute_batch(sync_pragma(true));
        let folded = folded?;
        restored?;
        self.log.grew(folded.bytes);
        self.backlog =
            if folded.batches == 0 { 0 } else { self.backlog.saturating_sub(folded.bytes) };
        Ok(())
    }

    /// Moves rows to where nothing reads them but people.
    fn move_aside(&mut self, rows: &[SetAside]) -> rusqlite::Result<()> {
        while self.backlog > 0 {
            self.fold_once()?;
        }
        let change = self.conn.transaction()?;
        for row in rows {
            let table = TableName::ALL.into_iter().find(|table| table.as_str() == row.table);
            let (table, column) = match table {
                Some(table) => (table.as_str(), "key"),
                None if row.table == "events" => ("events", "seq"),
                None => continue,
            };
            change.execute(
                &format!(
                    "INSERT INTO set_aside (source, key, why, data)
                     SELECT ?1, {column}, ?2, CAST(image AS BLOB) FROM {table} WHERE {column} = ?3"
                ),
                (table, &row.why, &row.key),
            )?;
            change.execute(&format!("DELETE FROM {table} WHERE {column} = ?1"), [&row.key])?;
        }
        change.commit()
    }

    /// Folds what is left, leaves an empty log behind, and makes it all safe.
    fn close(&mut self) -> Result<(), JournalError> {
        let closed = self.guard(|writer| {
            while writer.backlog > 0 {
                writer.fold_once()?;
            }
            writer.sync()?;
            // Readers are not waited for as long as a lock: what they hold up stays in the log.
            writer.conn.busy_timeout(BUSY)?;
            writer.conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        });
        self.poison.get_or_insert(JournalError::Closed);
        closed
    }
}

fn sync_pragma(full: bool) -> &'static str {
    if full { "PRAGMA synchronous = FULL" } else { "PRAGMA synchronous = NORMAL" }
}

/// Stores or removes a body; gives its bytes.
fn write_body(conn: &Connection, image: &Image) -> rusqlite::Result<u64> {
    let key = image.key().text();
    if image.is_removal() {
        conn.prepare_cached("DELETE FROM bodies WHERE key = ?1")?.execute([key])?;
        return Ok(0);
    }
    let mut json = Vec::new();
    image
        .encode(&mut json)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    let text = String::from_utf8_lossy(&json);
    conn.prepare_cached("INSERT OR REPLACE INTO bodies (key, v, image) VALUES (?1, ?2, ?3)")?
        .execute((key, IMAGE_VERSION, &text))?;
    Ok(text.len() as u64)
}
