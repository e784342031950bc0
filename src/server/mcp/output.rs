//! What tasks are and what their attempts sent, as a tool.

use adjutant_actors::errors::EngineError;
use adjutant_actors::model::ids::TaskId;
use adjutant_actors::model::output::OutputEvent;
use adjutant_actors::model::task::TaskState;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::server::mcp::tool::{Call, Effect, Entry, Reply};
use crate::server::parse;
use crate::server::problem::Problem;

/// Pieces of output in one reply, at most; the last ones count most.
const PIECES_MAX: usize = 200;
const NOT_SHOWN: &str =
    "the pieces are shown to whoever may read traces: an observer, or the admin";

pub(crate) fn tools() -> Vec<Entry> {
    let about = "Shows a task with what one of its attempts sent: progress, partial pieces, artifacts and the final \
                 verdict, in order. Without `attempt` it is the newest one. While the attempt runs, this is what it has \
                 sent so far.";
    vec![Entry::new("read_output", ("Read a task's output", about), Effect::Reads, read)]
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Read {
    /// The task, from run_status or list_questions.
    task_id: String,
    /// The number of the attempt, from 1; the newest one where it is absent.
    #[serde(default)]
    attempt: Option<u32>,
    /// How many of the last pieces to show: 200 at most, which is the default.
    #[serde(default)]
    #[schemars(range(min = 1, max = 200))]
    last: Option<usize>,
}

/// A task as tools show it.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct Task {
    /// Its id.
    pub(crate) task_id: String,
    /// The agent that does it.
    pub(crate) agent: String,
    /// pending, running, suspended, pass, blocked or cancelled.
    pub(crate) status: String,
    /// The number of the newest attempt; 0 before the first one.
    pub(crate) attempt: u32,
    /// The result of the newest attempt that ended; null before.
    pub(crate) result: Value,
    /// The key of its open question, exactly while it is suspended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) question: Option<String>,
    /// In seconds since 1970.
    pub(crate) started_at: u64,
    /// In seconds since 1970.
    pub(crate) changed_at: u64,
}

impl From<TaskState> for Task {
    fn from(task: TaskState) -> Self {
        Self {
            task_id: task.id.to_string(),
            agent: task.spec.agent,
            status: task.status.as_str().to_owned(),
            attempt: task.attempt,
            result: task.last_result.unwrap_or_default(),
            question: task.suspended_on.map(|key| key.to_string()),
            started_at: task.created_at,
            changed_at: task.updated_at,
        }
    }
}

#[derive(Serialize, JsonSchema)]
struct Output {
    /// The task as it is now.
    task: Task,
    /// The attempt that is shown.
    attempt: u32,
    /// What it sent, in order: objects with a `type` of progress, partial, artifact or final.
    output: Vec<Value>,
    /// How many earlier pieces are not shown.
    left_out: usize,
    /// Why the pieces are not shown, where they are not.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'static str>,
}

async fn read(call: Call, read: Read) -> Result<Reply<Output>, Problem> {
    let id: TaskId = parse(&read.task_id)?;
    let task = call.app.engine.read_task_as(call.who.caller(), &id).await?;
    let attempt = read.attempt.unwrap_or(task.attempt);
    let sent = call.app.engine.read_output_as(call.who.caller(), &id, attempt).await;
    let (sent, note) = match sent {
        Ok(sent) => (sent, None),
        // An operator sees what became of its tasks, and not how.
        Err(EngineError::RoleViolation { .. }) => (Vec::new(), Some(NOT_SHOWN)),
        Err(error) => return Err(error.into()),
    };
    let left_out = sent.len().saturating_sub(read.last.unwrap_or(PIECES_MAX).clamp(1, PIECES_MAX));
    let output = sent.iter().skip(left_out).map(piece).collect();
    Ok(Reply::Done(Output { task: task.into(), attempt, output, left_out, note }))
}

fn piece(event: &OutputEvent) -> Value {
    serde_json::to_value(event).unwrap_or_default()
}
