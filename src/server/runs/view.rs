//! What is shown of a run.

use adjutant_actors::model::ids::{RunId, TaskId};
use adjutant_actors::state::runs::{RunRecord, RunStatus};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// Tasks that a view names at most; `GET /v1/tasks?run=` has all of them.
pub(crate) const TASKS_SHOWN: usize = 1000;

/// Where a run stands, as it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Standing {
    /// It is carried on.
    Running,
    /// It is carried on, and a question of it is open.
    Waiting,
    /// It came to its end.
    Pass,
    /// A step was blocked.
    Blocked,
    /// A step or the run ran out of time.
    Timeout,
    /// It was cancelled.
    Cancelled,
    /// It is open, and the server that goes down leaves it to the next one.
    Left,
    /// Anything else went wrong.
    Failed,
    /// It is open, and nobody carries it on.
    Interrupted,
}

impl Standing {
    /// That of a run that has ended; none of an open one.
    pub(crate) fn of_end(status: RunStatus) -> Option<Self> {
        Some(match status {
            RunStatus::Open => return None,
            RunStatus::Pass => Self::Pass,
            RunStatus::Blocked => Self::Blocked,
            RunStatus::Timeout => Self::Timeout,
            RunStatus::Cancelled => Self::Cancelled,
            _ => Self::Failed,
        })
    }

    /// Whether the run has ended.
    pub(crate) fn is_over(self) -> bool {
        !matches!(self, Self::Running | Self::Waiting | Self::Left | Self::Interrupted)
    }
}

/// A run as it is shown. Times are milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = Run)]
pub(crate) struct RunView {
    #[schema(value_type = String)]
    pub(crate) run_id: RunId,
    /// The document's id.
    pub(crate) blueprint: String,
    pub(crate) blueprint_hash: String,
    pub(crate) status: Standing,
    pub(crate) started_at: u64,
    pub(crate) ended_at: Option<u64>,
    /// How often it was resumed.
    pub(crate) resumed: u32,
    /// Outcome and context; absent while it is open, and in lists.
    pub(crate) report: Option<Value>,
    /// The tasks of its steps, at most [`TASKS_SHOWN`]; absent in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    pub(crate) tasks: Option<Vec<TaskId>>,
}

impl RunView {
    pub(crate) fn of(run_id: RunId, record: &RunRecord, status: Standing) -> Self {
        Self {
            run_id,
            blueprint: record.name.to_string(),
            blueprint_hash: record.document_hash.to_string(),
            status,
            started_at: record.started_at.saturating_mul(1000),
            ended_at: record.ended_at.map(|at| at.saturating_mul(1000)),
            resumed: record.resumed,
            report: None,
            tasks: None,
        }
    }
}
