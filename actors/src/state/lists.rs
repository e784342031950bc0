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

/// Walks that may be cut anywhere and gone on with:
///
/// ```
/// use adjutant_actors::{state::lists::{Page, SessionSummary, TaskSummary}, table::Place};
/// # use adjutant_actors::{config::EngineCfg, state::{EngineState, Rules, auth::Access, effect::Now}};
/// # let mut state = EngineState::new(Rules::from(&EngineCfg::default()));
/// # let now = Now { unix: 1, ms: 1 };
/// # use adjutant_actors::{model::{ids::TaskId, task::TaskSpec}, state::tasks::NewTask};
/// # let spec = std::sync::Arc::new(TaskSpec::new("echo", "hello"));
/// # let task = state.create_task(Access::Trusted, NewTask::new(TaskId::from_bits(1), spec), now)?;
/// state.commit(&mut Vec::new());
/// let (tasks, next) = state.tasks_page(&Place::default(), 1_000, 100, |task| !task.live);
/// assert_eq!((tasks[0].id, next.is_none()), (task, true));
/// assert!(matches!(state.task_summary(&task), Some(TaskSummary { live: false, .. })));
/// assert!(state.children_page(task, None, 100).0.is_empty());
/// let run = adjutant_actors::model::ids::RunId::from_bits(1);
/// assert!(state.run_page(run, None, 100).0.is_empty()); // for the tasks of its steps
/// assert_eq!(state.tree_of(&task), Some((task, None)));
/// let (sessions, _): Page<SessionSummary, _> = state.sessions_page(&Place::default(), 100);
/// assert!(sessions.is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// And what is read of one task:
///
/// ```
/// # use adjutant_actors::{config::EngineCfg, state::{EngineState, Rules, auth::Access, effect::Now}};
/// # let mut state = EngineState::new(Rules::from(&EngineCfg::default()));
/// # let now = Now { unix: 1, ms: 1 };
/// # use adjutant_actors::{model::{ids::TaskId, task::{TaskSpec, TaskStatus}}, state::tasks::NewTask};
/// # let spec = std::sync::Arc::new(TaskSpec::new("echo", "hello"));
/// # let task = state.create_task(Access::Trusted, NewTask::new(TaskId::from_bits(1), spec), now)?;
/// assert_eq!(state.read_task(Access::Trusted, task, now)?.status, TaskStatus::Pending);
/// assert_eq!(state.task(&task).map(|task| task.attempt), Some(state.task_attempt(task)?));
/// assert_eq!(state.glance(&task).map(|(status, _)| status), Some(TaskStatus::Pending));
/// assert_eq!((state.task_agent(&task), state.task_session(&task)), (Some("echo"), None));
/// assert!(state.task_parent(&task).is_none() && state.child_tasks(task).is_empty());
/// assert_eq!(state.tasks_with(|status| !status.is_final()), [task]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
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
