//! Lists for people: tasks and sessions in pages, each page a bounded amount of work.

use std::sync::Arc;

use crate::model::ids::{ResumeKey, RunId, SessionId, StepKey, TaskId};
use crate::model::role::Role;
use crate::model::task::{TaskSpec, TaskStatus};
use crate::state::EngineState;
use crate::state::tasks::TaskRecord;
use crate::table::Place;

/// What a list shows of a task.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskSummary {
    /// Its id.
    pub id: TaskId,
    /// What it was started with.
    pub spec: Arc<TaskSpec>,
    /// Where it stands.
    pub status: TaskStatus,
    /// Its newest attempt; 0 before the first.
    pub attempt: u32,
    /// Whether that still runs.
    pub live: bool,
    /// The task that it is a sub-task of.
    pub parent: Option<TaskId>,
    /// The run that a step of which it carries out.
    pub run: Option<RunId>,
    /// Its open question.
    pub question: Option<ResumeKey>,
    /// Unix seconds.
    pub created_at: u64,
    /// Unix seconds.
    pub updated_at: u64,
}

/// What a list shows of a session: never a token, nor the tasks, which may be many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionSummary {
    /// Its id.
    pub id: SessionId,
    /// Who attached.
    pub operator_id: String,
    /// What it may do.
    pub role: Role,
    /// Whether its heartbeats are within the threshold.
    pub attached: bool,
    /// Unix seconds.
    pub attached_at: u64,
    /// Unix seconds of the last heartbeat.
    pub last_seen: u64,
}

/// Where a page ended, and how the next one begins.
pub type Page<T, K> = (Vec<T>, Option<K>);

impl EngineState {
    /// What a list shows of a task.
    #[must_use]
    pub fn task_summary(&self, id: &TaskId) -> Option<TaskSummary> {
        Some(summary(*id, self.tasks.get(id)?))
    }

    /// A page of all tasks that are wanted, in no order; looks at about `looks` of them.
    #[must_use]
    pub fn tasks_page(
        &self,
        from: &Place<TaskId>,
        looks: usize,
        limit: usize,
        wanted: impl Fn(&TaskSummary) -> bool,
    ) -> Page<TaskSummary, Place<TaskId>> {
        self.tasks.page(from, looks, limit, |id, record| {
            Some(summary(*id, record)).filter(|task| wanted(task))
        })
    }

    /// The sub-tasks of a task after one of them, by their ids, at most `looks`.
    #[must_use]
    pub fn children_page(
        &self,
        parent: TaskId,
        after: Option<TaskId>,
        looks: usize,
    ) -> Page<TaskSummary, TaskId> {
        let first = after.unwrap_or(TaskId::from_bits(0));
        let all = self.children.range((parent, first)..=(parent, TaskId::from_bits(u128::MAX)));
        let ids: Vec<_> =
            all.map(|(_, id)| *id).filter(|id| Some(*id) != after).take(looks).collect();
        let next = ids.last().copied().filter(|_| ids.len() == looks);
        (ids.iter().filter_map(|id| self.task_summary(id)).collect(), next)
    }

    /// The tasks of a run's steps after the call of one, at most `looks`.
    #[must_use]
    pub fn run_page(
        &self,
        run: RunId,
        after: Option<StepKey>,
        looks: usize,
    ) -> Page<TaskSummary, StepKey> {
        let steps = self.step_tasks(run, after, looks);
        let next = steps.last().map(|(key, _)| *key).filter(|_| steps.len() == looks);
        (steps.iter().filter_map(|(_, id)| self.task_summary(id)).collect(), next)
    }

    /// A page of all sessions, in no order.
    #[must_use]
    pub fn sessions_page(
        &self,
        from: &Place<SessionId>,
        limit: usize,
    ) -> Page<SessionSummary, Place<SessionId>> {
        self.sessions.page(from, limit, limit, |id, record| {
            Some(SessionSummary {
                id: *id,
                operator_id: record.operator_id.to_string(),
                role: record.role,
                attached: record.attached,
                attached_at: record.attached_at,
                last_seen: record.last_seen,
            })
        })
    }

    /// The run of the task at the top of a task's tree, and that task. Both are what data of a
    /// worker belongs to.
    #[must_use]
    pub fn tree_of(&self, id: &TaskId) -> Option<(TaskId, Option<RunId>)> {
        let root = self.tasks.get(id)?.root;
        let run = self.step_of(&root).map(|step| step.run);
        Some((root, run))
    }
}

fn summary(id: TaskId, record: &TaskRecord) -> TaskSummary {
    TaskSummary {
        id,
        spec: record.spec.clone(),
        status: record.status,
        attempt: record.attempt,
        live: record.live,
        parent: record.parent,
        run: record.step.as_ref().map(|step| step.run),
        question: record.suspended_on,
        created_at: record.created_at,
        updated_at: record.updated_at,
    }
}
