//! The embedded store: a journal in SQLite that outlives the process and that people can query.
//!
//! A store is a folder, held by one process at a time. One thread of its own writes: it takes all
//! batches that have queued, appends them to the table `journal` in one transaction with one
//! flush, and then says that they are safe. When it has time it folds the journal into tables that
//! people query (`tasks`, `specs`, `attempts`, `texts`, `outputs`, `bodies`, `sessions`, `tokens`,
//! `resumes`, `resources`, `runs`, `events`) and trims it. A load reads the tables and what the
//! journal has after them. It never goes on after a failed write, and it never reads a clock.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Sender};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use adjutant_actors::journal::{Batch, Done, Head, Journal, JournalError};
use adjutant_actors::model::event::EventRecord;
use adjutant_actors::model::token::SigningKey;
use adjutant_actors::state::images::{Row, SetAside};
use adjutant_actors::state::outputs::BodyHash;
use rusqlite::Connection;

pub use crate::store::check::{Report, export_json, fsck};
use crate::store::place::{Held, unusable};
use crate::store::schema::broken;
use crate::store::secrets::Secrets;
pub use crate::store::view::View;
use crate::store::writer::{Command, Reply, Writer};

mod check;
mod fold;
mod log;
mod place;
mod read;
mod schema;
mod secrets;
#[cfg(feature = "server")]
mod shelf;
mod view;
mod writer;

/// When a batch is called safe.
///
/// ```
/// use adjutant::store::{Durability, StoreCfg};
/// use std::time::Duration;
///
/// let durability = Durability::Interval(Duration::from_millis(200));
/// let cfg = StoreCfg { durability, ..StoreCfg::default() };
/// assert_ne!(cfg.durability, Durability::default());
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Durability {
    /// When it is flushed to the disk: it survives a loss of power.
    #[default]
    Sync,
    /// When it is written: it survives the death of the process, and a loss of power takes at most
    /// what was written in this time.
    Interval(Duration),
    /// When it is written; flushed by the operating system as it likes.
    None,
}

/// How long the event log reaches back; the tightest bound counts. The newest 1024 events are
/// always kept.
///
/// ```
/// use adjutant::store::{EventLog, StoreCfg};
///
/// let events = EventLog { count: 10_000, ..EventLog::default() };
/// let cfg = StoreCfg { events, ..StoreCfg::default() };
/// # let _ = cfg;
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventLog {
    /// Events.
    pub count: u64,
    /// Time since they were recorded.
    pub age: Duration,
    /// Bytes of their JSON.
    pub bytes: u64,
}

impl Default for EventLog {
    fn default() -> Self {
        Self { count: 1_000_000, age: Duration::from_secs(30 * 24 * 3600), bytes: 1 << 30 }
    }
}

/// Settings of a store.
///
/// ```
/// use adjutant::store::{Durability, StoreCfg};
/// let cfg = StoreCfg { durability: Durability::None, ..StoreCfg::default() };
/// assert_eq!(cfg.events.count, 1_000_000);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreCfg {
    /// When a batch is called safe.
    pub durability: Durability,
    /// How long the event log reaches back.
    pub events: EventLog,
    /// Bytes of the journal above which the writer folds under load, not only when it is quiet.
    pub fold_bytes: u64,
    /// Bytes written after which the write-ahead log is carried into the database under load.
    pub checkpoint_bytes: u64,
}

impl Default for StoreCfg {
    fn default() -> Self {
        Self {
            durability: Durability::Sync,
            events: EventLog::default(),
            fold_bytes: 64 << 20,
            checkpoint_bytes: 16 << 20,
        }
    }
}

/// A [`Journal`] in a folder on this machine.
///
/// Dropping it closes it, which blocks until everything is safe.
pub struct SqliteStore {
    path: PathBuf,
    /// The newest secret when the store was opened.
    secret: SigningKey,
    keys: Mutex<Vec<SigningKey>>,
    commands: Mutex<Option<Sender<Command>>>,
    reader: Mutex<Option<Connection>>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl std::fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteStore").field("path", &self.path).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SqliteStore {
    /// Opens the store in a folder, which is made where there is none, and holds it. Blocks on the
    /// disk.
    ///
    /// # Errors
    /// `Held` with the holder's process id; `TooNew`; `Unusable` where the place cannot be written;
    /// `Damaged`.
    ///
    /// ```
    /// use adjutant::{journal::JournalError, store::{SqliteStore, StoreCfg}};
    ///
    /// let dir = tempfile::tempdir()?;
    /// let store = SqliteStore::open(dir.path(), StoreCfg::default())?;
    /// assert_eq!(store.secret(), store.keys()[0].secret());
    /// match SqliteStore::open(store.path(), StoreCfg::default()) {
    ///     Err(JournalError::Held { .. }) => {} // one holder at a time
    ///     other => panic!("{other:?}"),
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn open(path: impl AsRef<Path>, cfg: StoreCfg) -> Result<Self, JournalError> {
        let path = path.as_ref().to_owned();
        let place = Held::take(&path)?;
        let conn = schema::writer(&path)?;
        let reader = schema::reader(&path)?;
        let keys = Secrets::of(&path).keys()?;
        let newest = keys.iter().max_by_key(|key| key.kid()).cloned();
        let secret = newest.ok_or_else(|| unusable(&path, "opened", "it has no secret"))?;
        let writer = Writer::new(conn, place, cfg)?;
        let (commands, told) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("adjutant-store".to_owned())
            .spawn(move || writer.run(&told))
            .map_err(|error| unusable(&path, "opened", error))?;
        Ok(Self {
            path,
            secret,
            keys: Mutex::new(keys),
            commands: Mutex::new(Some(commands)),
            reader: Mutex::new(Some(reader)),
            writer: Mutex::new(Some(thread)),
        })
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The signing secret that is kept beside the store, so that tokens outlive the process; made
    /// with the store. Fit for `EngineCfg::token_secret` until the first rotation; [`Self::keys`]
    /// is right after it too.
    #[must_use]
    pub fn secret(&self) -> &[u8] {
        self.secret.secret()
    }

    /// Every signing key that is kept, oldest first. For `EngineCfg::token_keys`.
    #[must_use]
    pub fn keys(&self) -> Vec<SigningKey> {
        lock(&self.keys).clone()
    }

    /// Makes the next signing key. It is on the disk when this returns, so that an engine may sign
    /// with it; the former ones stay until they are retired, and tokens under them verify, after a
    /// restart too. Blocks on the disk.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use adjutant::store::{SqliteStore, StoreCfg};
    /// use adjutant::{Engine, EngineCfg, LayerRegistry, Role};
    /// use std::{sync::Arc, time::Duration};
    ///
    /// let dir = tempfile::tempdir()?;
    /// let store = Arc::new(SqliteStore::open(dir.path(), StoreCfg::default())?);
    /// let cfg = EngineCfg { token_keys: store.keys(), ..EngineCfg::default() };
    /// let engine = Engine::open(cfg, LayerRegistry::new(), store.clone()).await?;
    /// let old = engine.attach("ann", Role::Operator, Duration::from_secs(60)).await?;
    ///
    /// let key = store.rotate_secret()?;
    /// engine.signer().rotate(key.kid(), key.secret())?;
    /// assert!(engine.heartbeat(&old).await.is_ok());
    ///
    /// // Once nobody needs the old tokens any more: first the engine, then the store.
    /// engine.retire_key(1).await?;
    /// store.retire_secret(1)?;
    /// assert!(engine.heartbeat(&old).await.is_err());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `Misuse` where four keys are kept; `Unusable`; `Closed`.
    pub fn rotate_secret(&self) -> Result<SigningKey, JournalError> {
        let mut keys = self.held_keys()?;
        let key = Secrets::of(&self.path).rotate(&keys)?;
        keys.push(key.clone());
        Ok(key)
    }

    /// Takes a former signing key away for good. Retire it in the engine first, which revokes its
    /// tokens. Blocks on the disk.
    ///
    /// # Errors
    /// `Misuse` for the newest key or one that is not kept; `Unusable`; `Closed`.
    pub fn retire_secret(&self, kid: u32) -> Result<(), JournalError> {
        let mut keys = self.held_keys()?;
        let former =
            keys.split_last().is_some_and(|(_, former)| former.iter().any(|key| key.kid() == kid));
        if !former {
            return Err(JournalError::Misuse(format!("signing key {kid} is no former one")));
        }
        Secrets::of(&self.path).retire(kid)?;
        keys.retain(|key| key.kid() != kid);
        Ok(())
    }

    /// The keys, for change while the store holds its folder.
    fn held_keys(&self) -> Result<MutexGuard<'_, Vec<SigningKey>>, JournalError> {
        let keys = lock(&self.keys);
        if lock(&self.commands).is_none() { Err(JournalError::Closed) } else { Ok(keys) }
    }

    fn send(&self, command: Command) {
        let sent = match &*lock(&self.commands) {
            Some(commands) => commands.send(command).map_err(|refused| refused.0),
            None => Err(command),
        };
        if let Err(command) = sent {
            command.refuse(JournalError::Closed);
        }
    }

    fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, JournalError> {
        let (reply, answer) = mpsc::channel();
        self.send(command(reply));
        answer.recv().unwrap_or(Err(JournalError::Closed))
    }

    /// Has the writer's thread do work on its connection, between two batches.
    #[cfg(feature = "server")]
    fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, JournalError> {
        self.ask(|reply| {
            Command::Work(Box::new(move |conn| {
                let done = conn.map(work);
                let (told, failed) = match done {
                    Ok(Ok(done)) => (Ok(done), Ok(())),
                    Ok(Err(error)) => (Err(JournalError::Failed(error.to_string())), Err(error)),
                    Err(refused) => (Err(refused), Ok(())),
                };
                drop(reply.send(told));
                failed
            }))
        })
    }

    fn read<T>(
        &self,
        read: impl FnOnce(&mut Connection) -> rusqlite::Result<T>,
    ) -> Result<T, JournalError> {
        let mut reader = lock(&self.reader);
        let conn = reader.as_mut().ok_or(JournalError::Closed)?;
        read(conn).map_err(|error| broken(&self.path, "read", &error))
    }
}

impl Journal for SqliteStore {
    fn load(&self, tail: usize, row: &mut dyn FnMut(Row<'_>)) -> Result<Head, JournalError> {
        let head = self.read(|conn| read::load(conn, tail, row))?;
        if !head.set_aside.is_empty() {
            self.set_aside(&head.set_aside)?;
        }
        Ok(head)
    }

    fn set_aside(&self, rows: &[SetAside]) -> Result<(), JournalError> {
        for row in rows {
            tracing::warn!(table = row.table, key = row.key, why = row.why, "a row was set aside");
        }
        self.ask(|reply| Command::SetAside(rows.to_vec(), reply))
    }

    fn lead(&self) -> Result<u64, JournalError> {
        self.ask(Command::Lead)
    }

    fn append(&self, batch: Batch, done: Done) {
        self.send(Command::Append(Box::new(batch), done));
    }

    fn events_after(&self, after: u64, limit: usize) -> Result<Vec<EventRecord>, JournalError> {
        self.read(|conn| read::events_after(conn, after, limit))
    }

    fn body(&self, hash: &BodyHash) -> Result<Option<Vec<u8>>, JournalError> {
        self.read(|conn| read::body(conn, hash))
    }

    fn flush(&self) -> Result<(), JournalError> {
        self.ask(Command::Flush)
    }

    fn close(&self) -> Result<(), JournalError> {
        *lock(&self.reader) = None;
        let Some(thread) = lock(&self.writer).take() else { return Ok(()) };
        // Nothing is sent after this one: whoever appends from now on is refused at once.
        let commands = lock(&self.commands).take();
        let (reply, answer) = mpsc::channel();
        drop(commands.map(|commands| commands.send(Command::Close(reply))));
        let closed = answer.recv().unwrap_or(Err(JournalError::Closed));
        if thread.join().is_err() {
            return Err(JournalError::Failed("the writer's thread panicked".to_owned()));
        }
        closed
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        // Whoever wants to know how it went calls `close` before.
        let _ = self.close();
    }
}
