//! An actor engine for swarms of agents, to be embedded in a host or run as a program.
//!
//! A host attaches *sessions*, starts *tasks* and dispatches *attempts* at them. A *spawner*,
//! which the host brings along, starts the *worker* of an attempt: a function, a child process, a
//! person. Whatever happens to that worker, its task is decided, the event is published and
//! whoever waits is woken. All state changes in *turns*, one at a time, run by one actor.
//!
//! ```
//! use std::{sync::Arc, time::Duration};
//! use adjutant::{
//!     DispatchOutcome, Engine, EngineCfg, InProcSpawner, Role, SpawnerAdapter, TaskSpec,
//!     WorkerResult,
//! };
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), adjutant::EngineError> {
//! let engine = Engine::new(EngineCfg::default());
//! let operator = engine.attach("ann", Role::Operator, Duration::from_secs(60)).await?;
//!
//! let mut agents = InProcSpawner::new();
//! agents.register("shout", |call| async move {
//!     Ok(WorkerResult { value: call.prompt.to_uppercase().into(), ok: true })
//! });
//! let spawner: Arc<dyn SpawnerAdapter> = Arc::new(agents);
//!
//! let task = engine.start_task(&operator, TaskSpec::new("shout", "hello")).await?;
//! let outcome = engine.dispatch_attempt_with(&operator, &task, &spawner).await?;
//! assert_eq!(outcome, DispatchOutcome::Pass("HELLO".into()));
//! # Ok(()) }
//! ```
//!
//! # Where things are
//!
//! Every name stands at the root of the crate; the modules are for reading.
//!
//! * [`engine`]: [`Engine`] with its methods by theme: sessions, tokens, tasks, dispatch, the
//!   worker's side, questions to the senior, polls, events, shutdown.
//! * [`spawner`]: the trait [`SpawnerAdapter`] and its implementations. [`WorkerJoinHandler`] is
//!   the shortest way to one of your own, [`Supervised`] rebuilds any of them after a panic.
//! * [`middleware`]: layers around spawners, their [`LayerRegistry`], and [`link()`].
//! * [`operator`] and [`ctx`]: the faces of an operator, and what an attempt is shown.
//! * `server`: the engine over HTTP, behind the feature of that name.
//! * [`blueprint`]: the document that names agents and a flow over them, its check and its schema.
//!
//! Two types to read early: [`EngineCfg`] holds every number, [`Event`] lists what can happen.
//!
//! # Trust boundary
//!
//! Code in the host's own process is trusted. Methods without a token (`attach*`, `with_state`,
//! `set_resource`, `resume`, `subscribe`, `output_tail`, and all whose documentation says
//! "trusted callers only") are for it alone. Whatever comes from elsewhere, from a worker, a child
//! process or a remote operator, comes with a [`CapToken`]; where a host would forward such input
//! to a method without one, a twin takes it: [`Engine::answer_query`], [`Engine::subscribe_with`],
//! [`Engine::read_trace`], [`Engine::read_output`].
//!
//! A call is checked in one order: signature, expiry, role × verb; then, in one turn, record,
//! revocation, binding, legality and quota; then one use is spent; then it acts. A refused call
//! changes nothing. A worker's token reaches its own task and attempt and the sub-tasks below,
//! and dies with the attempt.
//!
//! # Cancellation
//!
//! Dropping a future of this crate is always safe. Before its turn ran, the turn is taken back;
//! after that, it completes without its caller. A dropped poll leaves nothing behind. A dropped
//! dispatch loses nothing either: the attempt belongs to its supervisor, and its verdict is in
//! the task. To stop an attempt, cancel its task: its worker is asked by its [`CancellationToken`],
//! and dropped after the grace period. So a [`Worker`] must stop what it runs when it is dropped.
//!
//! # Start and end
//!
//! [`Engine::new`] is synchronous and may stand outside a runtime: actors start with the first
//! call. The last clone dropped stops them; live attempts are then decided as Blocked. For an
//! orderly end, [`Engine::shutdown`] drains, then stops, then kills, and reports what it left.
//! [`Engine::start_linked`] starts the engine under an actor of the host's, and
//! [`Engine::forward_events`] delivers its events as that actor's own messages. [`Engine::open`] opens it
//! on a [`journal`], which outlives the process.

pub use adjutant_actors::clock::{Clock, SystemClock};
pub use adjutant_actors::config::{EngineCfg, HoldPolicy, Limits, LongHoldConfig, Retention};
pub use adjutant_actors::errors::EngineError;
pub use adjutant_actors::journal;
pub use adjutant_actors::launch::{Worker, WorkerError};
pub use adjutant_actors::messages::Intensity;
pub use adjutant_actors::model::event::{Event, EventRecord};
pub use adjutant_actors::model::group::ProcessGroup;
pub use adjutant_actors::model::ids::{
    IdParseError, ResumeKey, RunId, SessionId, TaskId, WorkerId,
};
pub use adjutant_actors::model::mint::Mint;
pub use adjutant_actors::model::output::{ContentRef, OutputEvent, WorkerPayload};
pub use adjutant_actors::model::role::{Role, RoleVerbGate, Verb, default_role_verb_table};
pub use adjutant_actors::model::session::{
    OperatorKind, OperatorSession, SessionFaces, collapse_operator_kind,
};
pub use adjutant_actors::model::task::{
    DispatchOutcome, OnInterrupt, TaskSpec, TaskState, TaskStatus,
};
pub use adjutant_actors::model::token::{
    CapToken, CapTokenDecodeError, SigningKey, TokenFingerprint, TokenRequest, TokenSigner,
};
pub use adjutant_actors::state::EngineState;
pub use adjutant_actors::state::attempts::AttemptEnd;
pub use adjutant_actors::state::auth::{Access, CapTokenConsumeError, CapTokenRecord};
pub use adjutant_actors::state::effect::Now;
pub use adjutant_actors::state::resumes::ResumePending;
pub use adjutant_actors::state::runs::{RunRecord, RunStatus};
pub use adjutant_actors::state::sessions::HeartbeatReply;
pub use adjutant_actors::system::{
    Counts, Mailboxes, Recovery, ShutdownReport, SpawnerView, Supervision, Times,
};
pub use async_trait::async_trait;
pub use tokio_util::sync::CancellationToken;

pub use crate::ctx::{Ctx, CtxMeta};
pub use crate::engine::{
    Delivery, DispatchOptions, Engine, EventFeed, EventStream, OpenOptions, Retry, TaskOptions,
};
pub use crate::middleware::{
    AgentResolverMiddleware, AuditMiddleware, InputInjectMiddleware, LayerRegistry,
    LongHoldMiddleware, MainAIMiddleware, OperatorDelegateMiddleware, ProjectNameAliasMiddleware,
    SeniorEscalationMiddleware, SinkMiddleware, SpawnerLayer, SpawnerStack, UnknownHints, link,
    try_link,
};
pub use crate::operator::{
    Operator, OperatorInfo, SeniorBridge, SpawnHook, WorkerBinding, WorkerResult,
};
pub use crate::output_store::{
    MemoryOutputStore, MemoryStoreLimits, MemoryStoreStats, OutputRecord, OutputRef,
    OutputRefParseError, OutputStore, OutputStoreError,
};
pub use crate::spawner::{
    InProcSpawner, OperatorSpawner, OutputSink, ProcessSpawner, SpawnError, SpawnerAdapter,
    StreamMode, Supervised, WorkerInvocation, WorkerJoinHandler,
};

pub mod blueprint;
pub mod ctx;
pub mod engine;
pub mod middleware;
pub mod operator;
pub mod output_store;
mod registry;
#[cfg(feature = "server")]
pub mod server;
pub mod spawner;
#[cfg(feature = "store")]
pub mod store;
mod template;

/// The documented path of [`link()`].
pub mod service {
    /// Linking a program's layers.
    pub mod linker {
        pub use crate::middleware::{
            AgentResolverMiddleware, AuditMiddleware, InputInjectMiddleware, LayerRegistry,
            LongHoldMiddleware, MainAIMiddleware, OperatorDelegateMiddleware,
            ProjectNameAliasMiddleware, SeniorEscalationMiddleware, SinkMiddleware, SpawnerLayer,
            SpawnerStack, UnknownHints, link, try_link,
        };
    }
}

/// The examples of the README, compiled as doctests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
