//! The one error of the engine: what was asked and what stood in the way.
//!
//! No variant carries a secret: tokens and handles appear as fingerprints only.

use crate::journal::JournalError;
use crate::model::ids::{RunId, TaskId};
use crate::model::role::{Role, Verb};

/// Why a call to the engine was refused or failed.
///
/// ```
/// use adjutant_actors::errors::EngineError;
///
/// fn status(error: &EngineError) -> u16 {
///     match error {
///         EngineError::BadSignature | EngineError::TokenExpired => 401,
///         EngineError::RoleViolation { .. } => 403,
///         EngineError::TaskNotFound(_) => 404,
///         EngineError::ValueTooLarge { .. } => 413,
///         busy if busy.is_retryable() => 503,
///         _ => 500,
///     }
/// }
/// assert_eq!(status(&EngineError::LockBusy("start_task")), 503);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// No turn could be queued and `try_only` forbids waiting. Carries the operation's name.
    #[error("{0}: the engine's queue is full")]
    LockBusy(&'static str),
    /// No turn could be queued within the retry budget. Carries the operation's name.
    #[error("{0}: the engine's queue stayed full for the whole retry budget")]
    LockBusyAfterRetry(&'static str),
    /// The token's signature does not verify under any live key.
    #[error("the token's signature does not verify")]
    BadSignature,
    /// The token's time is over.
    #[error("the token has expired")]
    TokenExpired,
    /// All uses of the token are spent.
    #[error("all uses of the token are spent")]
    TokenUsesExhausted,
    /// The token was revoked, with its attempt, its session or its key.
    #[error("the token was revoked")]
    TokenRevoked,
    /// The engine has no record of the token or handle. Carries a fingerprint.
    #[error("the engine has no record of token {0}")]
    TokenNotFound(String),
    /// The gate does not allow the verb for the role.
    #[error("role {role} may not {verb}")]
    RoleViolation {
        /// Role of the token.
        role: Role,
        /// What was asked.
        verb: Verb,
    },
    /// A worker's token was used for another task than its own, whether that exists or not.
    #[error("the token is bound to task {bound} and may not touch {arg}")]
    TokenTaskMismatch {
        /// Task that the token is bound to.
        bound: TaskId,
        /// Task that was named.
        arg: TaskId,
    },
    /// No task has this id.
    #[error("no task {0}")]
    TaskNotFound(String),
    /// The token's session is not known, or the token has none.
    #[error("the token has no session")]
    SessionNotFound,
    /// No open question has this key.
    #[error("no open question has this key")]
    ResumeKeyNotFound,
    /// No run has this id.
    #[error("no run {0}")]
    RunNotFound(RunId),
    /// The run is not where the call needs it: it exists already, has ended, or is carried on here.
    #[error("run {run} {state}")]
    RunState {
        /// The run.
        run: RunId,
        /// How it stands.
        state: &'static str,
    },
    /// The program or the input is not what the run was started with; it goes on with that only.
    #[error("run {run} was started with something else: {}", differences.join("; "))]
    RunChanged {
        /// The run.
        run: RunId,
        /// Each place that differs, with the hashes of what stands there, old and new.
        differences: Vec<String>,
    },
    /// Nothing is stored under this name.
    #[error("nothing is stored under {0}")]
    ResourceNotFound(String),
    /// The move is not in the table of lawful moves. Names both statuses.
    #[error("{0}")]
    InvalidTransition(String),
    /// The attempt failed: its worker did not start, ended with an error, or sent no Final.
    #[error("the attempt failed: {0}")]
    DispatchFailed(String),
    /// The wait ran out of time.
    #[error("the wait ran out of time")]
    PollTimeout,
    /// What the caller waited for was cancelled.
    #[error("what the call waited for was cancelled")]
    Cancelled,
    /// The task would be nested too deep.
    #[error("the task would be at depth {current}, and {max} is the ceiling")]
    SpawnDepthExceeded {
        /// Depth that the task would have.
        current: u32,
        /// First depth that is refused.
        max: u32,
    },
    /// The parent task has as many sub-tasks as it may have.
    #[error("the task has {current} sub-tasks, and {max} is the limit")]
    ChildLimitExceeded {
        /// Sub-tasks now.
        current: u64,
        /// Most that it may have.
        max: u64,
    },
    /// As many tasks are unsettled as may be.
    #[error("{current} tasks are live in the {scope}, and {max} is the limit")]
    TaskLimitExceeded {
        /// `engine` or `tree`.
        scope: &'static str,
        /// Live tasks now.
        current: u64,
        /// Most that may be.
        max: u64,
    },
    /// A table is full: sessions, tokens, resources.
    #[error("the engine holds {current} {what}, and {max} is the limit")]
    TableFull {
        /// Which records.
        what: &'static str,
        /// How many now.
        current: u64,
        /// Most that may be.
        max: u64,
    },
    /// The attempt has sent as much output as it may.
    #[error("the attempt has sent {current} {unit} of output, and {max} is the limit")]
    OutputLimitExceeded {
        /// `events` or `bytes`.
        unit: &'static str,
        /// Sent, with this event.
        current: u64,
        /// Most that may be sent.
        max: u64,
    },
    /// The idempotency key was used before, with something else. The contents are not shown.
    #[error("key {key:?} was used before with another {}", differs.join(" and another "))]
    KeyConflict {
        /// The key.
        key: String,
        /// What differs: `agent`, `directive`, `parent`, `on_interrupt`, `prompt`.
        differs: Vec<&'static str>,
    },
    /// A value is larger, or nested deeper, than the engine accepts.
    #[error("the {what} is too large: {current} {unit}, and {max} is the limit")]
    ValueTooLarge {
        /// Which value.
        what: &'static str,
        /// `bytes` or `levels`.
        unit: &'static str,
        /// Its size.
        current: u64,
        /// Most that is accepted.
        max: u64,
    },
    /// An argument is malformed; says which and why.
    #[error("{0}")]
    InvalidArgument(String),
    /// The engine is shutting down or has stopped. Names the actor that is gone.
    #[error("the engine has stopped: {0}")]
    Stopped(String),
    /// The journal could not be opened or read. Boxed, because it is rare and large.
    #[error(transparent)]
    Journal(Box<JournalError>),
    /// Anything else; a bug or a broken environment.
    #[error("internal error: {0}")]
    Internal(String),
}

impl From<JournalError> for EngineError {
    fn from(error: JournalError) -> Self {
        Self::Journal(Box::new(error))
    }
}

impl EngineError {
    /// A refused status change, with both statuses in its text.
    ///
    /// ```
    /// use adjutant_actors::{errors::EngineError, model::{ids::TaskId, task::TaskStatus}};
    ///
    /// let refused = EngineError::transition(TaskId::from_bits(1), TaskStatus::Pass, "cancelled");
    /// assert!(matches!(refused, EngineError::InvalidTransition(_)));
    /// ```
    #[must_use]
    pub fn transition(
        task: TaskId,
        from: crate::model::task::TaskStatus,
        wish: impl std::fmt::Display,
    ) -> Self {
        Self::InvalidTransition(format!("task {task} is {from} and cannot {wish}"))
    }

    /// Whether the same call may succeed when it is tried again.
    ///
    /// ```
    /// use adjutant_actors::errors::EngineError;
    ///
    /// assert!(EngineError::PollTimeout.is_retryable());
    /// assert!(!EngineError::TokenExpired.is_retryable());
    /// ```
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::LockBusy(_)
                | Self::LockBusyAfterRetry(_)
                | Self::PollTimeout
                | Self::TaskLimitExceeded { .. }
                | Self::TableFull { .. }
        )
    }
}
