//! A store as it stands, for whoever looks at it without opening an engine. Changes nothing and
//! needs no lock, so it may look beside the holder.

use std::path::{Path, PathBuf};

use adjutant_actors::config::EngineCfg;
use adjutant_actors::journal::JournalError;
use adjutant_actors::model::event::EventRecord;
use adjutant_actors::model::ids::TaskId;
use adjutant_actors::state::images::{Rebuild, SetAside};
use adjutant_actors::state::{EngineState, Rules};
use rusqlite::Connection;

use crate::store::read;
use crate::store::schema::{self, broken};

/// Events that are read at a time.
const PAGE: usize = 1_000;

/// What a store holds, as of one commit.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use adjutant::store::{SqliteStore, StoreCfg, View};
/// use adjutant::{Engine, EngineCfg, LayerRegistry, Role, TaskSpec};
/// use std::{sync::Arc, time::Duration};
///
/// let dir = tempfile::tempdir()?;
/// let store = Arc::new(SqliteStore::open(dir.path(), StoreCfg::default())?);
/// let cfg = EngineCfg { token_keys: store.keys(), ..EngineCfg::default() };
/// let engine = Engine::open(cfg, LayerRegistry::new(), store).await?;
/// # let minute = std::time::Duration::from_secs(60);
/// # let operator = engine.attach("ann", adjutant::Role::Operator, minute).await?;
/// # let task = engine.start_task(&operator, adjutant::TaskSpec::new("echo", "hello")).await?;
///
/// let mut view = View::open(dir.path())?; // beside the engine that holds it
/// assert_eq!(view.state().task_count(), 1);
/// assert!(view.set_aside().is_empty() && view.path() == dir.path());
/// assert_eq!(view.events_of(task)?.len(), 1);
/// # Ok(()) }
/// ```
pub struct View {
    path: PathBuf,
    conn: Connection,
    state: EngineState,
    set_aside: Vec<SetAside>,
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("View").field("path", &self.path).finish_non_exhaustive()
    }
}

impl View {
    /// Reads the store in a folder. Blocks on the disk.
    ///
    /// # Errors
    /// `TooNew`, `Unusable`, `Damaged`.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, JournalError> {
        let path = path.as_ref().to_owned();
        let mut conn = schema::reader(&path)?;
        let mut rebuild = Rebuild::default();
        let head = read::load(&mut conn, PAGE, &mut |row| rebuild.row(row))
            .map_err(|error| broken(&path, "read", &error))?;
        let rules = Rules::from(&EngineCfg::default());
        let rebuilt = rebuild.finish(rules, head.mark, head.events);
        let mut set_aside = head.set_aside;
        set_aside.extend(rebuilt.set_aside);
        Ok(Self { path, conn, state: rebuilt.state, set_aside })
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The state that a load would give.
    #[must_use]
    pub fn state(&self) -> &EngineState {
        &self.state
    }

    /// What could not be read.
    #[must_use]
    pub fn set_aside(&self) -> &[SetAside] {
        &self.set_aside
    }

    /// The events of a task that the log still has, oldest first. Reads the whole log.
    ///
    /// # Errors
    /// `Unusable`, `Damaged`.
    pub fn events_of(&mut self, task: TaskId) -> Result<Vec<EventRecord>, JournalError> {
        let (mut after, mut found) = (0, Vec::new());
        loop {
            let page = read::events_after(&mut self.conn, after, PAGE)
                .map_err(|error| broken(&self.path, "read", &error))?;
            let Some(last) = page.last() else { return Ok(found) };
            after = last.seq;
            found.extend(page.into_iter().filter(|record| record.event.task_id() == Some(task)));
        }
    }
}
