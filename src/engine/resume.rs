//! Questions to the senior: ask, answer, await the answer.

use std::sync::Arc;
use std::time::Duration;

use adjutant_actors::errors::EngineError;
use adjutant_actors::messages::Until;
use adjutant_actors::model::ids::{ResumeKey, TaskId};
use adjutant_actors::model::role::Verb;
use adjutant_actors::model::token::CapToken;
use adjutant_actors::state::EngineState;
use adjutant_actors::state::auth::Access;
use adjutant_actors::state::resumes::Answer;
use adjutant_actors::system::PollStart;
use serde_json::Value;

use crate::engine::{Caller, Engine};

impl Engine {
    /// Asks the senior and suspends the task; its attempt's clock stands still. The key names the
    /// question and grants nothing. A worker that runs goes on, and may await the answer.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), adjutant::EngineError> {
    /// use adjutant::{Engine, EngineCfg, Role, TaskSpec, TaskStatus};
    /// use serde_json::json;
    /// use std::time::Duration;
    ///
    /// let engine = Engine::new(EngineCfg::default());
    /// let hour = Duration::from_secs(3600);
    /// let operator = engine.attach("ann", Role::Operator, hour).await?;
    /// let senior = engine.attach("sam", Role::Senior, hour).await?;
    /// let task = engine.start_task(&operator, TaskSpec::new("deploy", "to all")).await?;
    ///
    /// let key = engine.query_senior(&operator, &task, json!("really to all?")).await?;
    /// let state = engine.read_task_state(&operator, &task).await?;
    /// assert_eq!((state.status, state.suspended_on), (TaskStatus::Suspended, Some(key)));
    ///
    /// engine.answer_query(&senior, key, json!("to one first")).await?;
    /// assert_eq!(engine.await_resume(key, hour).await?, json!("to one first"));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of an authorization; `InvalidTransition` unless the task is Pending or Running;
    /// `ValueTooLarge`.
    pub async fn query_senior(
        &self,
        token: &CapToken,
        task_id: &TaskId,
        question: Value,
    ) -> Result<ResumeKey, EngineError> {
        let ((access, now), task) = (self.access(token, Verb::QuerySenior)?, *task_id);
        let question = self.measured("question", question)?;
        let key = self.mint().resume_key();
        self.system()
            .transact("query_senior", move |state| {
                state.query_senior(access, task, key, question, now)
            })
            .await
    }

    /// Answers a question as a senior and resumes its task. The first answer wins.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use adjutant::{EngineError, Role};
    /// # let engine = adjutant::Engine::new(adjutant::EngineCfg::default());
    /// # let minute = std::time::Duration::from_secs(60);
    /// # let operator = engine.attach("ann", adjutant::Role::Operator, minute).await?;
    /// # let task = engine.start_task(&operator, adjutant::TaskSpec::new("echo", "hello")).await?;
    /// let senior = engine.attach("sam", Role::Senior, minute).await?;
    /// let key = engine.query_senior(&operator, &task, "now?".into()).await?;
    /// let refused = engine.answer_query(&operator, key, true.into()).await;
    /// assert!(matches!(refused, Err(EngineError::RoleViolation { .. })));
    /// engine.answer_query(&senior, key, true.into()).await?;
    /// let second = engine.answer_query(&senior, key, false.into()).await;
    /// assert!(matches!(second, Err(EngineError::InvalidTransition { .. })));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of an authorization; `ResumeKeyNotFound`; `InvalidTransition` where it was answered
    /// or closed before; `ValueTooLarge`.
    pub async fn answer_query(
        &self,
        token: &CapToken,
        key: ResumeKey,
        answer: Value,
    ) -> Result<(), EngineError> {
        self.answer_as(token.into(), key, answer).await
    }

    /// As [`Self::answer_query`].
    pub(crate) async fn answer_as(
        &self,
        caller: Caller<'_>,
        key: ResumeKey,
        answer: Value,
    ) -> Result<(), EngineError> {
        let (access, _) = self.access(caller, Verb::AnswerQuery)?;
        self.answer(access, key, answer).await
    }

    /// As [`Self::answer_query`], without a token. Trusted callers only.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let engine = adjutant::Engine::new(adjutant::EngineCfg::default());
    /// # let minute = std::time::Duration::from_secs(60);
    /// # let operator = engine.attach("ann", adjutant::Role::Operator, minute).await?;
    /// # let task = engine.start_task(&operator, adjutant::TaskSpec::new("echo", "hello")).await?;
    /// let key = engine.query_senior(&operator, &task, "now?".into()).await?;
    /// engine.resume(key, "yes".into()).await?;
    /// assert_eq!(engine.await_resume(key, minute).await?, "yes");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Self::answer_query`].
    pub async fn resume(&self, key: ResumeKey, answer: Value) -> Result<(), EngineError> {
        self.answer(Access::Trusted, key, answer).await
    }

    async fn answer(
        &self,
        access: Access,
        key: ResumeKey,
        answer: Value,
    ) -> Result<(), EngineError> {
        let (answer, now) = (self.measured("answer", answer)?, self.now()?);
        self.system()
            .transact("answer_query", move |state| state.answer_query(access, key, answer, now))
            .await?;
        Ok(())
    }

    /// Waits for the answer to a question; one that was given before is returned at once. A
    /// timeout of zero only looks; longer ones are clamped to `max_hold`. Trusted callers only.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let engine = adjutant::Engine::new(adjutant::EngineCfg::default());
    /// # let minute = std::time::Duration::from_secs(60);
    /// # let operator = engine.attach("ann", adjutant::Role::Operator, minute).await?;
    /// # let task = engine.start_task(&operator, adjutant::TaskSpec::new("echo", "hello")).await?;
    /// let key = engine.query_senior(&operator, &task, "now?".into()).await?;
    /// let looked = engine.await_resume(key, std::time::Duration::ZERO).await;
    /// assert!(matches!(looked, Err(adjutant::EngineError::PollTimeout { .. })));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `ResumeKeyNotFound`; `PollTimeout`; `Cancelled` where the task came to an end unanswered.
    pub async fn await_resume(
        &self,
        key: ResumeKey,
        timeout: Duration,
    ) -> Result<Value, EngineError> {
        let hold = timeout.min(self.cfg().long_hold.max_hold);
        let look = move |state: &mut EngineState, _first: bool| match state.read_answer(key)? {
            Answer::Given(answer) => Ok(PollStart::Ready(answer)),
            Answer::Closed => Err(EngineError::Cancelled),
            Answer::Open { .. } if hold.is_zero() => Err(EngineError::PollTimeout),
            Answer::Open { task, revision } => Ok(PollStart::Wait(task, Until::Past(revision))),
        };
        let answer = self.system().wait_for("await_resume", hold, look, |_| None).await?;
        Ok(Arc::unwrap_or_clone(answer))
    }
}
