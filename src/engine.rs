//! The engine that hosts call: constructors, accessors, and the check that opens every call.
//!
//! Methods without a token are for trusted code of the host only; where a host would forward
//! remote input to one, it has a twin that takes a token.

use std::sync::Arc;
use std::time::Duration;

use adjutant_actors::clock::{Clock, SystemClock};
use adjutant_actors::config::EngineCfg;
use adjutant_actors::errors::EngineError;
use adjutant_actors::model::mint::Mint;
use adjutant_actors::model::role::{RoleVerbGate, Verb, default_role_verb_table};
use adjutant_actors::model::token::{CapToken, Signed, TokenSigner};
use adjutant_actors::state::EngineState;
use adjutant_actors::state::auth::Access;
use adjutant_actors::state::effect::Now;
use adjutant_actors::system::{ActorSystem, Counts, Recovery, ShutdownReport, Supervision};
use ractor::ActorCell;

use crate::middleware::LayerRegistry;
use crate::operator::{Operator, SeniorBridge, SpawnHook};
use crate::registry::Registry;

mod auth;
mod caller;
mod dispatch;
mod durable;
mod events;
mod interrupted;
pub(crate) mod pauses;
mod poll;
mod registries;
mod resume;
mod runs;
mod senior;
mod sessions;
mod tasks;
mod worker_api;

pub(crate) use caller::Caller;
pub use dispatch::DispatchOptions;
pub use durable::OpenOptions;
pub use events::{Delivery, EventFeed, EventStream};
pub use interrupted::Retry;
pub use tasks::TaskOptions;

/// How far in the future a token may say it was issued, before it is refused.
const CLOCK_SKEW_SECS: u64 = 60;

/// Id of the signing key that an engine starts with.
const FIRST_KEY: u32 = 1;

struct Inner {
    gate: RoleVerbGate,
    signer: TokenSigner,
    mint: Arc<Mint>,
    layers: LayerRegistry,
    bridges: Registry<dyn SeniorBridge>,
    hooks: Registry<dyn SpawnHook>,
    operators: Registry<dyn Operator>,
    active_runs: runs::ActiveRuns,
    /// Present where the engine was opened on a journal.
    recovery: Option<Recovery>,
}

/// A long-running engine. Cheap to clone; the last clone dropped stops its actors.
///
/// It may be made outside a runtime: the actors start on the first call. If their runtime goes
/// away, the next call starts them again on the same state.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), adjutant::EngineError> {
/// use adjutant::{Engine, EngineCfg, Role, TaskSpec};
/// use std::time::Duration;
///
/// let engine = Engine::new(EngineCfg::default());
/// let operator = engine.attach("ann", Role::Operator, Duration::from_secs(60)).await?;
/// let task = engine.start_task(&operator, TaskSpec::new("echo", "hello")).await?;
/// assert_eq!(engine.read_task_state(&operator, &task).await?.attempt, 0);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
    system: ActorSystem,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("cfg", self.cfg()).finish_non_exhaustive()
    }
}

impl Engine {
    /// An engine without layers.
    ///
    /// # Panics
    /// Where `token_secret` is empty, or `token_keys` are no ring of keys, or the operating system gives no random bytes.
    #[must_use]
    pub fn new(cfg: EngineCfg) -> Self {
        Self::new_with_layers(cfg, LayerRegistry::new())
    }

    /// An engine whose `link` knows these layers.
    ///
    /// ```
    /// use adjutant::{Engine, EngineCfg, LayerRegistry};
    ///
    /// let engine = Engine::new_with_layers(EngineCfg::default(), LayerRegistry::standard());
    /// assert!(engine.layer_registry().lookup_hint("main_ai").is_some());
    /// ```
    ///
    /// # Panics
    /// As [`Self::new`].
    #[must_use]
    pub fn new_with_layers(cfg: EngineCfg, layer_registry: LayerRegistry) -> Self {
        Self::with_clock(cfg, layer_registry, Arc::new(SystemClock::new()))
    }

    /// An engine on a clock of the host's own; for tests and simulations.
    ///
    /// ```
    /// use adjutant::{Engine, EngineCfg, LayerRegistry, SystemClock};
    ///
    /// let clock = std::sync::Arc::new(SystemClock::new()); // or one that a test moves
    /// let engine = Engine::with_clock(EngineCfg::default(), LayerRegistry::new(), clock);
    /// assert!(engine.root_cell().is_none()); // no actor runs before the first call
    /// ```
    ///
    /// # Panics
    /// As [`Self::new`].
    #[must_use]
    pub fn with_clock(cfg: EngineCfg, layers: LayerRegistry, clock: Arc<dyn Clock>) -> Self {
        let inner = Inner::new(&cfg, layers, default_role_verb_table());
        Self { inner: Arc::new(inner), system: ActorSystem::new(cfg, clock) }
    }

    /// An engine whose actors are children of a host's actor, started at once.
    ///
    /// The supervisor sees the root's end as a supervision event. As long as it lives, the next
    /// call after such an end starts the tree again under it, on the same state.
    ///
    /// ```
    /// use adjutant::{Engine, EngineCfg, EngineError, LayerRegistry};
    ///
    /// fn under(host: ractor::ActorCell) -> Result<Engine, EngineError> {
    ///     Engine::start_linked(EngineCfg::default(), LayerRegistry::standard(), host)
    /// }
    /// ```
    ///
    /// # Errors
    /// `Internal` outside a runtime; `Stopped` where the supervisor has stopped.
    ///
    /// # Panics
    /// As [`Self::new`].
    pub fn start_linked(
        cfg: EngineCfg,
        layers: LayerRegistry,
        supervisor: ActorCell,
    ) -> Result<Self, EngineError> {
        let inner = Inner::new(&cfg, layers, default_role_verb_table());
        let clock = Arc::new(SystemClock::new());
        let system = ActorSystem::start_linked(cfg, clock, supervisor)?;
        Ok(Self { inner: Arc::new(inner), system })
    }

    /// A fresh engine, with an empty state, of the same configuration and layers under another
    /// gate. The gate is fixed for an engine's life; an engine that is opened on a journal is given
    /// it there, by [`OpenOptions`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), adjutant::EngineError> {
    /// use adjutant::{Engine, EngineCfg, EngineError, Role, RoleVerbGate, TaskSpec, Verb};
    /// use std::time::Duration;
    ///
    /// let gate = RoleVerbGate::new().allow(Role::Operator, &[Verb::ReadTaskState]);
    /// let engine = Engine::new(EngineCfg::default()).with_gate(gate);
    /// let operator = engine.attach("ann", Role::Operator, Duration::from_secs(60)).await?;
    /// let refused = engine.start_task(&operator, TaskSpec::new("echo", "hello")).await;
    /// assert!(matches!(refused, Err(EngineError::RoleViolation { verb: Verb::StartTask, .. })));
    /// # Ok(()) }
    /// ```
    ///
    /// # Panics
    /// Where the engine keeps a journal, which would be left behind.
    #[must_use]
    pub fn with_gate(self, gate: RoleVerbGate) -> Self {
        assert!(self.inner.recovery.is_none(), "the gate of an opened engine is in OpenOptions");
        let cfg = self.cfg().clone();
        let inner = Inner::new(&cfg, self.inner.layers.clone(), gate);
        let system = ActorSystem::new(cfg, Arc::new(SystemClock::new()));
        Self { inner: Arc::new(inner), system }
    }

    /// The configuration that the engine was made with.
    #[must_use]
    pub fn cfg(&self) -> &EngineCfg {
        self.system.cfg()
    }

    /// The layers that `link` knows.
    #[must_use]
    pub fn layer_registry(&self) -> &LayerRegistry {
        &self.inner.layers
    }

    /// The signer of the engine's tokens. Retire its keys through [`Self::retire_key`].
    #[must_use]
    pub fn signer(&self) -> &TokenSigner {
        &self.inner.signer
    }

    /// The source of the engine's ids.
    #[must_use]
    pub fn mint(&self) -> &Mint {
        &self.inner.mint
    }

    /// What the engine counted of its own life.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let engine = adjutant::Engine::new(adjutant::EngineCfg::default());
    /// # let minute = std::time::Duration::from_secs(60);
    /// # let operator = engine.attach("ann", adjutant::Role::Operator, minute).await?;
    /// assert_eq!((engine.counts().turns, engine.queued_turns()), (1, 0));
    /// assert!(engine.supervision().await.spawners.is_empty());
    /// assert_ne!(engine.mint().run_id(), engine.mint().run_id());
    /// assert!(engine.signer().verify_sig(&operator) && engine.cfg().max_spawn_depth > 0);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.system.counts()
    }

    /// Turns that wait in the queue at the moment.
    #[must_use]
    pub fn queued_turns(&self) -> usize {
        self.system.queued_turns()
    }

    /// The supervision tree as it stands. Trusted callers only.
    pub async fn supervision(&self) -> Supervision {
        self.system.supervision().await
    }

    /// The root of the engine's actors, while they run; for a host's own supervision.
    #[must_use]
    pub fn root_cell(&self) -> Option<ActorCell> {
        self.system.root_cell()
    }

    /// A clone that does not keep the actors alive: for what runs inside the engine, as a worker
    /// or a hook. Once the last ordinary clone is dropped, its calls give `Stopped`.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let engine = adjutant::Engine::new(adjutant::EngineCfg::default());
    /// let inside = engine.unanchored();
    /// drop(engine);
    /// let refused = inside.with_state("look", |state| state.task_count()).await;
    /// assert!(matches!(refused, Err(adjutant::EngineError::Stopped(_))));
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn unanchored(&self) -> Self {
        Self { inner: self.inner.clone(), system: self.system.unanchored() }
    }

    pub(crate) fn system(&self) -> &ActorSystem {
        &self.system
    }

    /// Runs a synchronous closure on the state, in a turn of its own. Trusted callers only.
    ///
    /// No `await` fits into it, so it cannot wait while it holds the state. A panic in it is
    /// undone and resumed in this caller; others do not notice. An overlong one is kept, and
    /// panics here under [`HoldPolicy::Panic`](adjutant_actors::config::HoldPolicy). Dropping this
    /// future before the turn ran takes the turn back; later, the turn completes without it.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), adjutant::EngineError> {
    /// use adjutant::{Engine, EngineCfg};
    ///
    /// let engine = Engine::new(EngineCfg::default());
    /// let tasks = engine.with_state("count tasks", |state| state.task_count()).await?;
    /// assert_eq!(tasks, 0);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `LockBusy` or `LockBusyAfterRetry` where the queue is full; `Stopped`.
    pub async fn with_state<F, R>(&self, op: &'static str, f: F) -> Result<R, EngineError>
    where
        F: FnOnce(&mut EngineState) -> R + Send + 'static,
        R: Send + 'static,
    {
        self.system.with_state(op, f).await
    }

    /// Drains, then stops, then kills, within `deadline`; and says what was left.
    ///
    /// New sessions, tasks of operators and dispatches are refused at once; attempts may end by
    /// themselves, and start sub-tasks for that, until a quarter of the deadline (at most the
    /// cancel grace) is left. Then they are interrupted. Every other call works until the end. At
    /// the end everything is made safe and the journal is closed, if one is kept, within ten seconds.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), adjutant::EngineError> {
    /// use adjutant::{Engine, EngineCfg, EngineError, Role, TaskSpec};
    /// use std::time::Duration;
    ///
    /// let engine = Engine::new(EngineCfg::default());
    /// let operator = engine.attach("ann", Role::Operator, Duration::from_secs(60)).await?;
    /// let task = engine.start_task(&operator, TaskSpec::new("echo", "hello")).await?;
    /// let report = engine.shutdown(Duration::from_secs(5)).await;
    /// assert_eq!(report.waiting, [task]);
    /// assert!(matches!(engine.heartbeat(&operator).await, Err(EngineError::Stopped(_))));
    /// # Ok(()) }
    /// ```
    pub async fn shutdown(&self, deadline: Duration) -> ShutdownReport {
        self.system.shutdown(deadline).await
    }

    pub(crate) fn now(&self) -> Result<Now, EngineError> {
        self.system.now()
    }

    /// What needs no record: signature, wall-clock times, role × verb; in this order.
    /// With it comes the moment at which it was checked. The host needs none of these.
    pub(crate) fn access<'a>(
        &self,
        caller: impl Into<Caller<'a>>,
        verb: Verb,
    ) -> Result<(Access, Now), EngineError> {
        let Caller::Token(token) = caller.into() else {
            return Ok((Access::Trusted, self.now()?));
        };
        let (signed, now) = self.signed(token)?;
        if !self.inner.gate.is_allowed(token.role, verb) {
            return Err(EngineError::RoleViolation { role: token.role, verb });
        }
        Ok((Access::Token(signed), now))
    }

    /// Signature and wall-clock times.
    pub(crate) fn signed(&self, token: &CapToken) -> Result<(Signed, Now), EngineError> {
        let signed = self.inner.signer.verify(token).ok_or(EngineError::BadSignature)?;
        let now = self.now()?;
        if token.is_expired(now.unix) || token.issued_at > now.unix + CLOCK_SKEW_SECS {
            return Err(EngineError::TokenExpired);
        }
        Ok((signed, now))
    }

    pub(crate) fn refuse_while_draining(&self) -> Result<(), EngineError> {
        if self.system.is_draining() {
            return Err(EngineError::Stopped("it is shutting down".to_owned()));
        }
        Ok(())
    }
}

/// The signer with all keys of a configuration.
fn signer(cfg: &EngineCfg, mint: &Arc<Mint>) -> TokenSigner {
    let mut keys: Vec<_> = cfg.token_keys.iter().collect();
    keys.sort_by_key(|key| key.kid());
    let (kid, secret) =
        keys.first().map_or((FIRST_KEY, &*cfg.token_secret), |key| (key.kid(), key.secret()));
    let signer =
        TokenSigner::with_key(kid, secret, mint.clone()).expect("no secret in EngineCfg is empty");
    for key in keys.iter().skip(1) {
        signer
            .rotate(key.kid(), key.secret())
            .expect("EngineCfg::token_keys are at most four, each with an id of its own");
    }
    signer
}

impl Inner {
    fn new(cfg: &EngineCfg, layers: LayerRegistry, gate: RoleVerbGate) -> Self {
        let mint = Arc::new(Mint::from_os().expect("the operating system gives random bytes"));
        let signer = signer(cfg, &mint);
        Self {
            gate,
            signer,
            mint,
            layers,
            bridges: Registry::default(),
            hooks: Registry::default(),
            operators: Registry::default(),
            active_runs: runs::ActiveRuns::default(),
            recovery: None,
        }
    }
}
