//! The public engine.

pub use adjutant_actors::clock::{Clock, SystemClock};
pub use adjutant_actors::config::{EngineCfg, HoldPolicy, Limits, LongHoldConfig, Retention};
pub use adjutant_actors::errors::EngineError;
pub use adjutant_actors::launch::{Worker, WorkerError};
pub use adjutant_actors::messages::Intensity;
pub use adjutant_actors::model::event::{Event, EventRecord};
pub use adjutant_actors::model::ids::{IdParseError, ResumeKey, SessionId, TaskId, WorkerId};
pub use adjutant_actors::model::mint::Mint;
pub use adjutant_actors::model::output::{ContentRef, OutputEvent, WorkerPayload};
pub use adjutant_actors::model::role::{Role, RoleVerbGate, Verb, default_role_verb_table};
pub use adjutant_actors::model::session::{
    OperatorKind, OperatorSession, SessionFaces, collapse_operator_kind,
};
pub use adjutant_actors::model::task::{DispatchOutcome, TaskSpec, TaskState, TaskStatus};
pub use adjutant_actors::model::token::{
    CapToken, CapTokenDecodeError, TokenFingerprint, TokenSigner,
};
pub use adjutant_actors::state::EngineState;
pub use adjutant_actors::state::auth::{CapTokenConsumeError, CapTokenRecord};
pub use adjutant_actors::state::effect::Now;
pub use adjutant_actors::state::resumes::ResumePending;
pub use adjutant_actors::state::sessions::HeartbeatReply;
pub use adjutant_actors::system::{Counts, ShutdownReport};
pub use async_trait::async_trait;
pub use tokio_util::sync::CancellationToken;

pub use crate::ctx::{Ctx, CtxMeta};
pub use crate::engine::{Delivery, DispatchOptions, Engine, EventFeed, EventStream, TaskOptions};
pub use crate::middleware::{
    LayerRegistry, SpawnerLayer, SpawnerStack, UnknownHints, link, try_link,
};
pub use crate::operator::{
    Operator, OperatorInfo, SeniorBridge, SpawnHook, WorkerBinding, WorkerResult,
};
pub use crate::spawner::{
    InProcSpawner, OutputSink, ProcessSpawner, SpawnError, SpawnerAdapter, StreamMode, Supervised,
    WorkerInvocation, WorkerJoinHandler,
};

pub mod blueprint;
pub mod ctx;
pub mod engine;
pub mod middleware;
pub mod operator;
mod registry;
pub mod spawner;
mod template;

/// The documented path of `link`.
pub mod service {
    /// Linking a program's layers.
    pub mod linker {
        pub use crate::middleware::{link, try_link};
    }
}
