//! The calls of steps: which task carries one out, and what is kept of those that a run finds again.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::errors::EngineError;
use crate::model::ids::{ResumeKey, RunId, StepKey, TaskId};
use crate::model::task::TaskStatus;
use crate::state::EngineState;
use crate::state::auth::Access;
use crate::state::effect::Now;
use crate::state::runs::RunStatus;
use crate::state::tasks::NewTask;

/// The call of a step that a task carries out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepOf {
    /// The run.
    pub run: RunId,
    /// The call.
    pub key: StepKey,
    /// What the run was told of its end, where the task does not tell.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::state::images::present::deserialize"
    )]
    pub told: Option<Arc<Value>>,
}

/// A call of a step that has its task.
#[derive(Debug, Clone, PartialEq)]
pub struct KeptStep {
    /// The call.
    pub key: StepKey,
    /// Its task.
    pub task: TaskId,
    /// Where the task stands.
    pub status: TaskStatus,
    /// Its newest attempt; 0 before the first.
    pub attempt: u32,
    /// Whether that still runs.
    pub live: bool,
    /// Whether that was interrupted, and did not end by itself.
    pub interrupted: bool,
    /// The task's result.
    pub result: Option<Arc<Value>>,
    /// The newest question that it asked, and the answer if there is one.
    pub question: Option<(ResumeKey, Arc<Value>, Option<Arc<Value>>)>,
    /// What the run was told of its end, where the task does not tell.
    pub told: Option<Arc<Value>>,
}

/// The call of a step, which has one task however often it is asked for:
///
/// ```
/// use adjutant_actors::model::ids::{RunId, StepKey};
/// use adjutant_actors::state::runs::{KeptStep, NewRun, StepOf};
/// use std::sync::Arc;
/// # use adjutant_actors::{config::EngineCfg, state::{EngineState, Rules, auth::Access, effect::Now}};
/// # let mut state = EngineState::new(Rules::from(&EngineCfg::default()));
/// # let now = Now { unix: 1, ms: 1 };
/// # use adjutant_actors::{model::{ids::TaskId, task::TaskSpec}, state::tasks::NewTask};
/// # let (run, nothing) = (RunId::from_bits(1), Arc::new(serde_json::Value::Null));
/// # let opened = NewRun {
/// #     name: "echo".into(),
/// #     document: nothing.clone(),
/// #     document_hash: "".into(),
/// #     input: nothing.clone(),
/// #     input_hash: "".into(),
/// #     settings: nothing.clone(),
/// #     sessions: vec![],
/// # };
/// # state.open_run(run, opened, now)?;
/// let call = StepKey::from_bits(1);
/// let new = |id| NewTask::new(TaskId::from_bits(id), Arc::new(TaskSpec::new("echo", "hello")));
/// let task = state.start_step(Access::Trusted, run, call, new(1), now)?;
/// assert_eq!(state.start_step(Access::Trusted, run, call, new(2), now)?, task);
/// assert_eq!(state.task_of_step(run, call), Some(task));
///
/// state.note_told(task, Arc::new("it took too long".into()));
/// let kept: Vec<KeptStep> = state.kept_steps(run, None, 100);
/// assert!(kept[0].task == task && kept[0].told.is_some() && !state.was_interrupted(&task));
/// assert_eq!(state.step_tasks(run, None, 100), [(call, task)]);
/// assert_eq!(state.step_of(&task).map(|step: Arc<StepOf>| step.run), Some(run));
/// assert_eq!(state.run_page(run, None, 100).0.len(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
impl EngineState {
    /// Starts the task of a step's call, or gives the one that there is.
    ///
    /// # Errors
    /// `RunNotFound`; `RunState` where it has ended; those of [`Self::create_task`].
    pub fn start_step(
        &mut self,
        access: Access,
        run: RunId,
        key: StepKey,
        new: NewTask,
        now: Now,
    ) -> Result<TaskId, EngineError> {
        let status = self.runs.get(&run).ok_or(EngineError::RunNotFound(run))?.status;
        if status != RunStatus::Open {
            return Err(EngineError::RunState { run, state: "has ended" });
        }
        if let Some(task) = self.task_of_step(run, key) {
            return Ok(task);
        }
        let id = self.create_task(access, new, now)?;
        if let Some(record) = self.tasks.get_mut(&id) {
            record.step = Some(Arc::new(StepOf { run, key, told: None }));
        }
        self.steps.insert((run, key, id));
        Ok(id)
    }

    /// Keeps what a run was told of the end of a step, where its task does not tell.
    pub fn note_told(&mut self, task: TaskId, told: Arc<Value>) {
        let Some(record) = self.tasks.get_mut(&task) else { return };
        let noted = record.step.as_ref().map(|own| StepOf { told: Some(told), ..(**own).clone() });
        record.step = noted.map(Arc::new);
    }

    /// The task of a step's call.
    #[must_use]
    pub fn task_of_step(&self, run: RunId, key: StepKey) -> Option<TaskId> {
        let (first, last) = (TaskId::from_bits(0), TaskId::from_bits(u128::MAX));
        self.steps.range((run, key, first)..=(run, key, last)).next().map(|(_, _, task)| *task)
    }

    pub(super) fn step_edges(
        &self,
        run: RunId,
        after: Option<StepKey>,
    ) -> impl Iterator<Item = (StepKey, TaskId)> {
        let start = match after {
            Some(key) => (run, key, TaskId::from_bits(u128::MAX)),
            None => (run, StepKey::from_bits(0), TaskId::from_bits(0)),
        };
        let end = (run, StepKey::from_bits(u128::MAX), TaskId::from_bits(u128::MAX));
        self.steps.range(start..=end).map(|(_, key, task)| (*key, *task))
    }

    /// The calls of a run that have a task, in the order of their keys from after `after` on, at
    /// most `limit`.
    #[must_use]
    pub fn kept_steps(&self, run: RunId, after: Option<StepKey>, limit: usize) -> Vec<KeptStep> {
        let edges = self.step_edges(run, after).filter(|(key, _)| Some(*key) != after);
        edges.take(limit).filter_map(|(key, task)| self.kept_step(key, task)).collect()
    }

    /// The calls of a run with their tasks alone, as [`Self::kept_steps`] gives them.
    #[must_use]
    pub fn step_tasks(
        &self,
        run: RunId,
        after: Option<StepKey>,
        limit: usize,
    ) -> Vec<(StepKey, TaskId)> {
        let edges = self.step_edges(run, after).filter(|(key, _)| Some(*key) != after);
        edges.take(limit).collect()
    }

    fn kept_step(&self, key: StepKey, task: TaskId) -> Option<KeptStep> {
        let record = self.tasks.get(&task)?;
        let asked = self.questions_of(task).into_iter();
        let newest = asked.filter_map(|key| Some((self.resumes.get(&key)?, key)));
        let newest = newest.max_by_key(|(asked, key)| (asked.asked_at, *key));
        let newest =
            record.suspended_on.and_then(|key| Some((self.resumes.get(&key)?, key))).or(newest);
        Some(KeptStep {
            key,
            task,
            status: record.status,
            attempt: record.attempt,
            live: record.live,
            interrupted: self.was_interrupted(&task),
            result: record.last_result.clone(),
            question: newest
                .map(|(asked, key)| (key, asked.question.clone(), asked.answer.clone())),
            told: record.step.as_ref().and_then(|own| own.told.clone()),
        })
    }

    /// Whether the newest attempt of a task was interrupted, and did not end by itself.
    #[must_use]
    pub fn was_interrupted(&self, task: &TaskId) -> bool {
        let place = self.tasks.get(task).map(|record| (*task, record.attempt));
        place
            .and_then(|place| self.attempts.get(&place))
            .is_some_and(|record| record.is_interrupted())
    }

    /// The call of a step that a task carries out, if it carries out one.
    #[must_use]
    pub fn step_of(&self, task: &TaskId) -> Option<Arc<StepOf>> {
        self.tasks.get(task)?.step.clone()
    }

    /// Whether an open run may still need the task.
    pub(crate) fn is_pinned(&self, task: TaskId) -> bool {
        let step = self.tasks.get(&task).and_then(|record| record.step.as_ref());
        step.and_then(|own| self.runs.get(&own.run))
            .is_some_and(|run| run.status == RunStatus::Open)
    }
}
