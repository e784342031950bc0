//! Tasks: what starts one, what is read of one, and the one table of lawful moves.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::model::ids::{ResumeKey, TaskId};

/// What `start_task` needs: who works, and what is asked first.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TaskSpec {
    /// Name of the agent that runs the task.
    pub agent: String,
    /// Prompt of the first attempt, and of later ones that get none of their own.
    pub initial_directive: String,
}

impl TaskSpec {
    /// A spec from its two parts.
    #[must_use]
    pub fn new(agent: impl Into<String>, initial_directive: impl Into<String>) -> Self {
        Self { agent: agent.into(), initial_directive: initial_directive.into() }
    }
}

/// What becomes of a task whose attempt was interrupted by the end of its process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum OnInterrupt {
    /// It stays Blocked until somebody dispatches it.
    #[default]
    Block,
    /// It is Blocked and offered to be dispatched again; fit for work that may be done twice.
    Retry,
}

/// Where a task stands.
///
/// *Final* are Pass and Cancelled: they never change. *Settled* are these and Blocked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TaskStatus {
    /// Created, never dispatched.
    Pending,
    /// An attempt is live, or the task was resumed without one and waits for a dispatch.
    Running,
    /// A question to the senior is open.
    Suspended,
    /// Done and good. Final.
    Pass,
    /// Done and not good; it can be dispatched again.
    Blocked,
    /// Given up on. Final.
    Cancelled,
}

impl TaskStatus {
    /// Every status, in the order of a task's life.
    pub const ALL: [Self; 6] =
        [Self::Pending, Self::Running, Self::Suspended, Self::Pass, Self::Blocked, Self::Cancelled];

    /// The only authority on status changes: whether `self` may become `next`.
    ///
    /// Staying the same is a move only where something happens by it: a dispatch of a Running
    /// task without a live attempt, and a Suspended task whose attempt ends.
    ///
    /// ```
    /// use adjutant_actors::model::task::TaskStatus::{Blocked, Cancelled, Pass, Running};
    ///
    /// assert!(Blocked.may_become(Running));
    /// assert!(!Pass.may_become(Cancelled));
    /// ```
    #[must_use]
    pub fn may_become(self, next: Self) -> bool {
        use TaskStatus::{Blocked, Cancelled, Pass, Pending, Running, Suspended};
        matches!(
            (self, next),
            (Pending, Running | Suspended | Cancelled | Pass | Blocked)
                | (Running, Running | Suspended | Pass | Blocked | Cancelled)
                | (Suspended, Suspended | Running | Pass | Blocked | Cancelled)
                | (Blocked, Running | Pass | Cancelled)
        )
    }

    /// Whether the status never changes again: Pass and Cancelled.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Pass | Self::Cancelled)
    }

    /// Whether the task came to an end that can be reported: Pass, Blocked, Cancelled.
    #[must_use]
    pub fn is_settled(self) -> bool {
        matches!(self, Self::Pass | Self::Blocked | Self::Cancelled)
    }

    /// Another word for [`Self::is_settled`], the documented one.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        self.is_settled()
    }

    /// Whether a poll returns at this status: settled or Suspended.
    #[must_use]
    pub fn ends_poll(self) -> bool {
        self.is_settled() || self == Self::Suspended
    }

    /// The wire word of the status.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Suspended => "suspended",
            Self::Pass => "pass",
            Self::Blocked => "blocked",
            Self::Cancelled => "cancelled",
        }
    }
}

impl std::fmt::Display for TaskStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A snapshot of one task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskState {
    /// Its id.
    pub id: TaskId,
    /// What it was started with.
    pub spec: TaskSpec,
    /// Where it stands.
    pub status: TaskStatus,
    /// Number of the newest attempt; 0 before the first dispatch.
    pub attempt: u32,
    /// The open question, exactly while the status is Suspended.
    pub suspended_on: Option<ResumeKey>,
    /// Result of the newest ended attempt, or the newest posted one.
    pub last_result: Option<Value>,
    /// Unix seconds.
    pub created_at: u64,
    /// Unix seconds; never decreases.
    pub updated_at: u64,
    /// How many tasks above this one started each other; 0 for an operator's own.
    pub spawn_depth: u32,
}

/// How a dispatch came out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DispatchOutcome {
    /// The last Final said ok.
    Pass(Value),
    /// The last Final said not ok.
    Blocked(Value),
    /// The attempt ended without a Final while its question is open.
    Suspended(ResumeKey),
    /// The task was cancelled, or its attempt was ended by a verdict from outside.
    Cancelled,
    /// The attempt ran out of time; the task is Blocked.
    Timeout,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn final_statuses_have_no_way_out() {
        for next in TaskStatus::ALL {
            assert!(!TaskStatus::Pass.may_become(next));
            assert!(!TaskStatus::Cancelled.may_become(next));
        }
    }

    #[test]
    fn only_a_dispatch_leads_out_of_blocked_to_running() {
        assert!(TaskStatus::Blocked.may_become(TaskStatus::Running));
        assert!(!TaskStatus::Blocked.may_become(TaskStatus::Suspended));
        assert!(!TaskStatus::Blocked.may_become(TaskStatus::Pending));
    }

    #[test]
    fn nothing_returns_to_pending() {
        for from in TaskStatus::ALL {
            assert!(!from.may_become(TaskStatus::Pending));
        }
    }

    #[test]
    fn each_status_has_its_word_and_says_what_it_ends() {
        use TaskStatus::{Blocked, Cancelled, Pass, Pending, Running, Suspended};
        for (status, word, is_final, is_settled, ends_poll) in [
            (Pending, "pending", false, false, false),
            (Running, "running", false, false, false),
            (Suspended, "suspended", false, false, true),
            (Pass, "pass", true, true, true),
            (Blocked, "blocked", false, true, true),
            (Cancelled, "cancelled", true, true, true),
        ] {
            assert_eq!((status.as_str(), &*status.to_string()), (word, word));
            let said = (status.is_final(), status.is_settled(), status.ends_poll());
            assert_eq!(said, (is_final, is_settled, ends_poll), "{word}");
            assert_eq!(status.is_terminal(), is_settled, "{word}");
        }
    }
}
