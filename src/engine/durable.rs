//! Engines that outlive their process: opened on a journal, flushed, and told when it failed.

use std::sync::Arc;
use std::time::Duration;

use adjutant_actors::clock::{Clock, SystemClock};
use adjutant_actors::config::EngineCfg;
use adjutant_actors::errors::EngineError;
use adjutant_actors::journal::Journal;
use adjutant_actors::model::group::ProcessGroup;
use adjutant_actors::model::ids::TaskId;
use adjutant_actors::model::role::{RoleVerbGate, default_role_verb_table};
use adjutant_actors::state::EngineState;
use adjutant_actors::system::{ActorSystem, Opening, Recovery};
use ractor::ActorCell;

use crate::engine::{Engine, Inner};
use crate::middleware::LayerRegistry;
use crate::spawner::process::end_left;

/// Longest that processes which a dead engine left get to end by themselves.
const LEFT_GRACE: Duration = Duration::from_secs(1);

/// What may be said of an engine that is opened. Use the struct update syntax.
///
/// ```
/// use adjutant::{OpenOptions, Role, RoleVerbGate, Verb};
///
/// let gate = RoleVerbGate::new().allow(Role::Operator, &[Verb::StartTask]);
/// let options = OpenOptions { gate: Some(gate), ..OpenOptions::default() };
/// # let _ = options;
/// ```
#[derive(Clone, Default)]
pub struct OpenOptions {
    /// The gate, in place of the default one. It is fixed for an engine's life.
    pub gate: Option<RoleVerbGate>,
    /// A clock of the host's own; its monotonic part goes on from the journal's newest batch.
    pub clock: Option<Arc<dyn Clock>>,
    /// An actor of the host's that the engine's actors are children of, as in
    /// [`Engine::start_linked`].
    pub supervisor: Option<ActorCell>,
}

impl std::fmt::Debug for OpenOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (clock, linked) = (self.clock.is_some(), self.supervisor.is_some());
        f.debug_struct("OpenOptions").field("clock", &clock).field("linked", &linked).finish()
    }
}

impl Engine {
    /// Opens an engine on the state that a journal keeps, and keeps it there from now on.
    ///
    /// Whatever a call returned, an event showed or a worker was given is safe by then, and comes
    /// back. What was at work when the process before ended is ended here: its task is Blocked, or
    /// keeps its open question; [`Self::recovery`] names it. Child processes that outlived it are
    /// asked to end and killed, if they are still the remembered ones. Sessions that were attached have one
    /// whole heartbeat threshold to beat with the token that they have. `token_secret` must be the
    /// one of before, or `token_keys` those of before, such as `SqliteStore::keys`, or no token verifies.
    ///
    /// If the journal fails later, the engine stops: see [`Self::journal_failure`].
    ///
    /// ```
    /// # #[cfg(feature = "store")]
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use adjutant::store::{SqliteStore, StoreCfg};
    /// use adjutant::{Engine, EngineCfg, LayerRegistry, Role, TaskSpec};
    /// use std::{sync::Arc, time::Duration};
    ///
    /// let dir = tempfile::tempdir()?;
    /// let store = SqliteStore::open(dir.path(), StoreCfg::default())?;
    /// let cfg = EngineCfg { token_keys: store.keys(), ..EngineCfg::default() };
    /// let engine = Engine::open(cfg.clone(), LayerRegistry::new(), Arc::new(store)).await?;
    /// let operator = engine.attach("ann", Role::Operator, Duration::from_secs(60)).await?;
    /// let task = engine.start_task(&operator, TaskSpec::new("echo", "hello")).await?;
    /// engine.shutdown(Duration::from_secs(5)).await;
    ///
    /// let store = SqliteStore::open(dir.path(), StoreCfg::default())?;
    /// let engine = Engine::open(cfg, LayerRegistry::new(), Arc::new(store)).await?;
    /// assert_eq!(engine.recovery().tasks, 1);
    /// assert_eq!(engine.read_task_state(&operator, &task).await?.attempt, 0);
    /// # Ok(()) }
    /// # #[cfg(not(feature = "store"))] fn main() {}
    /// ```
    ///
    /// # Errors
    /// `Journal` where it cannot be read; `Stopped` where it fails at once; `Internal` outside a
    /// runtime.
    ///
    /// # Panics
    /// As [`Self::new`].
    pub async fn open(
        cfg: EngineCfg,
        layers: LayerRegistry,
        journal: Arc<dyn Journal>,
    ) -> Result<Self, EngineError> {
        Self::open_with(cfg, layers, journal, OpenOptions::default()).await
    }

    /// As [`Self::open`], with options.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use adjutant::journal::memory::MemoryJournal;
    /// use adjutant::{Engine, EngineCfg, LayerRegistry, OpenOptions};
    /// use std::sync::Arc;
    ///
    /// let (cfg, layers) = (EngineCfg::default(), LayerRegistry::standard());
    /// let journal = Arc::new(MemoryJournal::default()); // for tests; otherwise a store
    /// let engine = Engine::open_with(cfg, layers, journal, OpenOptions::default()).await?;
    /// engine.flush().await?;
    /// assert_eq!((engine.recovery().tasks, engine.journal_failure()), (0, None));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Self::open`]; `Stopped` where the supervisor has stopped.
    ///
    /// # Panics
    /// As [`Self::new`].
    pub async fn open_with(
        cfg: EngineCfg,
        layers: LayerRegistry,
        journal: Arc<dyn Journal>,
        options: OpenOptions,
    ) -> Result<Self, EngineError> {
        let OpenOptions { gate, clock, supervisor } = options;
        let clock = clock.unwrap_or_else(|| Arc::new(SystemClock::new()));
        let gate = gate.unwrap_or_else(default_role_verb_table);
        let mut inner = Inner::new(&cfg, layers, gate);
        let opening = Opening { journal, clock, supervisor };
        let (system, recovery) = ActorSystem::open(cfg, opening).await?;
        inner.recovery = Some(recovery);
        let engine = Self { inner: Arc::new(inner), system };
        engine.end_left_groups().await?;
        Ok(engine)
    }

    /// Ends the processes that worked for attempts which are over: those of a process that died.
    /// Makes room for the tokens that came back.
    async fn end_left_groups(&self) -> Result<(), EngineError> {
        let look = |state: &mut EngineState| Ok((state.left_groups(), state.token_count()));
        let (left, tokens) = self.system().transact("left_groups", look).await?;
        self.signer().expect_tokens(tokens);
        if left.is_empty() {
            return Ok(());
        }
        let grace = (self.cfg().cancel_grace / 2).min(LEFT_GRACE);
        let (places, groups): (Vec<_>, Vec<_>) = left.into_iter().unzip();
        let groups = groups.concat();
        let ended = tokio::task::spawn_blocking(move || end_left(&groups, grace)).await;
        let ended = ended.map_err(|error| EngineError::Internal(error.to_string()))?;
        tracing::info!(ended, remembered = places.len(), "looked for processes that were left");
        let forget = move |state: &mut EngineState| {
            places.iter().for_each(|(task, attempt)| state.forget_groups(*task, *attempt));
            Ok(())
        };
        self.system().transact("forget_groups", forget).await
    }

    /// Whether the engine keeps a journal.
    pub(crate) fn is_durable(&self) -> bool {
        self.inner.recovery.as_ref().is_some_and(|recovery| recovery.epoch > 0)
    }

    /// Remembers a process group of a live attempt; safe when this returns.
    pub(crate) async fn remember_group(
        &self,
        task: TaskId,
        attempt: u32,
        group: ProcessGroup,
    ) -> Result<(), EngineError> {
        self.system()
            .transact("remember_group", move |state| state.remember_group(task, attempt, group))
            .await
    }

    /// What came back when the engine was opened; nothing where it keeps no journal.
    #[must_use]
    pub fn recovery(&self) -> &Recovery {
        static NOTHING: std::sync::LazyLock<Recovery> = std::sync::LazyLock::new(Recovery::default);
        self.inner.recovery.as_ref().unwrap_or(&NOTHING)
    }

    /// Waits until everything that was done before is on the disk, whatever level of safety the
    /// journal has. Without a journal, there is nothing to wait for.
    ///
    /// # Errors
    /// `Journal`; `Stopped`.
    pub async fn flush(&self) -> Result<(), EngineError> {
        self.system().flush().await
    }

    /// Why the journal failed, if it did. Nobody can say then what is on the disk, so the engine has
    /// stopped, and every call gives `Stopped` with this reason. A restart recovers.
    #[must_use]
    pub fn journal_failure(&self) -> Option<String> {
        self.system().journal_failure()
    }
}
