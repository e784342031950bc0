//! Events: what happened, in the words that travel, and the record that gives each its number.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::model::ids::{ResumeKey, SessionId, TaskId};
use crate::model::output::OutputEvent;
use crate::model::role::Role;

/// Something that happened in the engine. JSON is tagged by `kind`.
///
/// Bodies above the configured inline size are replaced by a reference, so that the tail of
/// events stays small; the full body is read from the task.
///
/// ```
/// use adjutant_actors::model::{event::Event, ids::TaskId};
///
/// let task_id = TaskId::from_bits(1);
/// let event = Event::TaskCancelled { task_id };
/// assert_eq!((event.kind(), event.task_id()), ("task_cancelled", Some(task_id)));
/// assert_eq!(serde_json::to_value(&event)?["kind"], event.kind());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
#[expect(missing_docs, reason = "each field is what its name and type say")]
pub enum Event {
    /// A session was opened, or came back by a heartbeat.
    SessionAttached { session_id: SessionId, role: Role },
    /// A session was detached by its owner or lapsed.
    SessionDetached { session_id: SessionId },
    /// A task was started.
    TaskCreated { task_id: TaskId },
    /// An attempt was dispatched.
    TaskAttemptStarted { task_id: TaskId, attempt: u32 },
    /// An attempt ended with a decision.
    TaskAttemptCompleted { task_id: TaskId, attempt: u32, result: Value },
    /// A task passed.
    TaskPass { task_id: TaskId, result: Value },
    /// A task was blocked.
    TaskBlocked { task_id: TaskId, result: Value },
    /// A task waits for its senior.
    TaskSuspended { task_id: TaskId, key: ResumeKey },
    /// A task goes on after its senior's answer.
    TaskResumed { task_id: TaskId, key: ResumeKey },
    /// A task was cancelled.
    TaskCancelled { task_id: TaskId },
    /// A question was asked.
    SeniorQueried { task_id: TaskId, question: Value },
    /// A question was answered.
    SeniorAnswered { task_id: TaskId, answer: Value },
    /// A worker sent a piece of output.
    WorkerOutput { task_id: TaskId, attempt: u32, event: OutputEvent },
    /// An attempt took longer than the configured hold; it goes on.
    AttemptSlow { task_id: TaskId, attempt: u32, elapsed_ms: u64, default_hold_ms: u64 },
    /// The prompt of a task's next attempt was set by a senior.
    DirectiveInjected { task_id: TaskId },
    /// New dispatches wait.
    DispatchPaused,
    /// Waiting dispatches go on.
    DispatchResumed,
}

impl Event {
    /// The task that the event is about, if it is about one.
    #[must_use]
    pub fn task_id(&self) -> Option<TaskId> {
        match self {
            Self::TaskCreated { task_id }
            | Self::TaskAttemptStarted { task_id, .. }
            | Self::TaskAttemptCompleted { task_id, .. }
            | Self::TaskPass { task_id, .. }
            | Self::TaskBlocked { task_id, .. }
            | Self::TaskSuspended { task_id, .. }
            | Self::TaskResumed { task_id, .. }
            | Self::TaskCancelled { task_id }
            | Self::SeniorQueried { task_id, .. }
            | Self::SeniorAnswered { task_id, .. }
            | Self::WorkerOutput { task_id, .. }
            | Self::AttemptSlow { task_id, .. }
            | Self::DirectiveInjected { task_id } => Some(*task_id),
            Self::SessionAttached { .. }
            | Self::SessionDetached { .. }
            | Self::DispatchPaused
            | Self::DispatchResumed => None,
        }
    }

    /// The wire word of the event's kind.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::SessionAttached { .. } => "session_attached",
            Self::SessionDetached { .. } => "session_detached",
            Self::TaskCreated { .. } => "task_created",
            Self::TaskAttemptStarted { .. } => "task_attempt_started",
            Self::TaskAttemptCompleted { .. } => "task_attempt_completed",
            Self::TaskPass { .. } => "task_pass",
            Self::TaskBlocked { .. } => "task_blocked",
            Self::TaskSuspended { .. } => "task_suspended",
            Self::TaskResumed { .. } => "task_resumed",
            Self::TaskCancelled { .. } => "task_cancelled",
            Self::SeniorQueried { .. } => "senior_queried",
            Self::SeniorAnswered { .. } => "senior_answered",
            Self::WorkerOutput { .. } => "worker_output",
            Self::AttemptSlow { .. } => "attempt_slow",
            Self::DirectiveInjected { .. } => "directive_injected",
            Self::DispatchPaused => "dispatch_paused",
            Self::DispatchResumed => "dispatch_resumed",
        }
    }
}

/// One event with its place in the engine's one order.
///
/// ```
/// use adjutant_actors::model::event::{Event, EventRecord};
///
/// let record = EventRecord { seq: 3, at: 1_900_000_000, event: Event::DispatchPaused };
/// let text = serde_json::to_string(&record)?;
/// assert_eq!(serde_json::from_str::<EventRecord>(&text)?, record);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventRecord {
    /// Position from 1, without gaps.
    pub seq: u64,
    /// Unix seconds at which it was recorded.
    pub at: u64,
    /// What happened.
    pub event: Event,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_is_the_wire_tag() {
        let event = Event::TaskAttemptStarted { task_id: TaskId::from_bits(1), attempt: 2 };
        let json = serde_json::to_value(&event).unwrap();
        assert_eq!(json["kind"], event.kind());
        assert_eq!(json["attempt"], 2);
    }
}
