//! Questions to the senior: a task suspends on one, an answer resumes it. The answer is kept, so
//! it can be read by whoever asked even after a detach, hours later.

use std::sync::Arc;

use serde_json::Value;

use crate::errors::EngineError;
use crate::model::event::Event;
use crate::model::ids::{ResumeKey, TaskId};
use crate::model::task::TaskStatus;
use crate::state::EngineState;
use crate::state::auth::{Access, Reach};
use crate::state::effect::{Effect, Now};

/// A question and, once there is one, its answer.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct ResumePending {
    /// The task that is suspended on it.
    pub task_id: TaskId,
    /// What was asked.
    pub question: Arc<Value>,
    /// The first answer; later ones are refused.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::state::images::present::deserialize"
    )]
    pub answer: Option<Arc<Value>>,
    /// Whether the task came to an end before an answer did.
    pub closed: bool,
    /// Unix seconds.
    pub asked_at: u64,
}

/// A value that was measured before its turn.
#[derive(Debug, Clone)]
pub struct Measured {
    /// The value.
    pub value: Arc<Value>,
    /// Bytes of its JSON text.
    pub bytes: u64,
}

/// What a look at a question found.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// It is open; the task's revision tells when to look again.
    Open {
        /// The task that is suspended on it.
        task: TaskId,
        /// Its revision now.
        revision: u64,
    },
    /// It was answered.
    Given(Arc<Value>),
    /// Its task came to an end without an answer.
    Closed,
}

/// A question from its asking to its answer:
///
/// ```
/// use adjutant_actors::model::ids::ResumeKey;
/// use adjutant_actors::state::resumes::{Answer, Measured, ResumePending};
/// # use adjutant_actors::{config::EngineCfg, state::{EngineState, Rules, auth::Access, effect::Now}};
/// # let mut state = EngineState::new(Rules::from(&EngineCfg::default()));
/// # let now = Now { unix: 1, ms: 1 };
/// # use adjutant_actors::{model::{ids::TaskId, task::TaskSpec}, state::tasks::NewTask};
/// # let spec = std::sync::Arc::new(TaskSpec::new("echo", "hello"));
/// # let task = state.create_task(Access::Trusted, NewTask::new(TaskId::from_bits(1), spec), now)?;
/// let measured = |text: &str| Measured { value: std::sync::Arc::new(text.into()), bytes: 9 };
/// let key = state.query_senior(Access::Trusted, task, ResumeKey::from_bits(1), measured("now?"), now)?;
/// assert_eq!(state.open_questions(10).len(), 1);
/// state.answer_query(Access::Trusted, key, measured("yes"), now)?;
/// match state.read_answer(key)? {
///     Answer::Given(answer) => assert_eq!(*answer, "yes"),
///     Answer::Open { .. } | Answer::Closed => panic!("it was answered"),
/// }
/// assert!(matches!(state.pending_resume(key), Some(ResumePending { answer: Some(_), .. })));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
impl EngineState {
    /// Suspends a task on a question.
    ///
    /// # Errors
    /// Those of an authorization; `InvalidTransition` unless the task is Pending or Running.
    pub fn query_senior(
        &mut self,
        access: Access,
        task: TaskId,
        key: ResumeKey,
        question: Measured,
        now: Now,
    ) -> Result<ResumeKey, EngineError> {
        let grant = self.check(access, Reach::Own(task), now)?;
        let status = self.task_record(task)?.status;
        if !matches!(status, TaskStatus::Pending | TaskStatus::Running) {
            return Err(EngineError::transition(task, status, "be suspended on a question"));
        }
        self.spend(&grant)?;
        self.move_task(task, TaskStatus::Suspended, "be suspended on a question", now)?;
        let shown = self.shown_value(&question.value, question.bytes);
        let record = ResumePending {
            task_id: task,
            question: question.value,
            answer: None,
            closed: false,
            asked_at: now.unix,
        };
        self.resumes.insert(key, record);
        self.questions.insert((task, key));
        if let Some(record) = self.tasks.get_mut(&task) {
            record.suspended_on = Some(key);
        }
        self.clock(task, false);
        self.record(now, Event::SeniorQueried { task_id: task, question: shown });
        self.record(now, Event::TaskSuspended { task_id: task, key });
        Ok(key)
    }

    /// Answers an open question and resumes its task. The first answer wins.
    ///
    /// # Errors
    /// Those of an authorization; `ResumeKeyNotFound`; `InvalidTransition` where the question was
    /// answered or closed before.
    pub fn answer_query(
        &mut self,
        access: Access,
        key: ResumeKey,
        answer: Measured,
        now: Now,
    ) -> Result<TaskId, EngineError> {
        let grant = self.check(access, Reach::Anywhere, now)?;
        let pending = self.resumes.get(&key).ok_or(EngineError::ResumeKeyNotFound)?;
        let task = pending.task_id;
        if pending.answer.is_some() || pending.closed {
            let fate = if pending.closed { "closed" } else { "answered" };
            return Err(EngineError::InvalidTransition(format!(
                "question {key} of task {task} was {fate} and cannot be answered again"
            )));
        }
        self.spend(&grant)?;
        self.move_task(task, TaskStatus::Running, "be resumed", now)?;
        let shown = self.shown_value(&answer.value, answer.bytes);
        if let Some(pending) = self.resumes.get_mut(&key) {
            pending.answer = Some(answer.value);
        }
        if let Some(record) = self.tasks.get_mut(&task) {
            record.suspended_on = None;
        }
        self.clock(task, true);
        self.record(now, Event::TaskResumed { task_id: task, key });
        self.record(now, Event::SeniorAnswered { task_id: task, answer: shown });
        Ok(task)
    }

    /// Lets the clock of a task's live attempt stand still, or run again.
    fn clock(&mut self, task: TaskId, runs: bool) {
        let live = self.tasks.get(&task).filter(|record| record.live).map(|record| record.attempt);
        if let Some(attempt) = live {
            self.effect(Effect::Clock(task, attempt, runs));
        }
    }

    /// Looks at a question.
    ///
    /// # Errors
    /// `ResumeKeyNotFound`.
    pub fn read_answer(&self, key: ResumeKey) -> Result<Answer, EngineError> {
        let pending = self.resumes.get(&key).ok_or(EngineError::ResumeKeyNotFound)?;
        Ok(match &pending.answer {
            Some(answer) => Answer::Given(answer.clone()),
            None if pending.closed => Answer::Closed,
            None => {
                let revision = self.tasks.get(&pending.task_id).map_or(0, |task| task.revision);
                Answer::Open { task: pending.task_id, revision }
            }
        })
    }

    /// A copy of a question's record.
    #[must_use]
    pub fn pending_resume(&self, key: ResumeKey) -> Option<ResumePending> {
        self.resumes.get(&key).cloned()
    }

    /// The open questions, oldest first, at most `limit`. Looks at every question that is
    /// remembered: for a list that people read.
    #[must_use]
    pub fn open_questions(&self, limit: usize) -> Vec<(ResumeKey, ResumePending)> {
        let open = |pending: &ResumePending| pending.answer.is_none() && !pending.closed;
        let mut found: Vec<_> = self
            .resumes
            .iter()
            .filter(|(_, pending)| open(pending))
            .map(|(key, pending)| (*key, pending.clone()))
            .collect();
        found.sort_unstable_by_key(|(key, pending)| (pending.asked_at, *key));
        found.truncate(limit);
        found
    }

    /// Closes the open question of a task that comes to an end.
    pub(crate) fn close_question(&mut self, task: TaskId) {
        let Some(key) = self.tasks.get(&task).and_then(|record| record.suspended_on) else {
            return;
        };
        if let Some(record) = self.tasks.get_mut(&task) {
            record.suspended_on = None;
        }
        if let Some(pending) = self.resumes.get_mut(&key) {
            pending.closed = true;
        }
    }
}
