//! What seniors may do beside answering: list what is open, inject a directive, pause and resume dispatching.

use std::sync::Arc;

use adjutant_actors::errors::EngineError;
use adjutant_actors::model::ids::{ResumeKey, TaskId};
use adjutant_actors::model::measure::measure_text;
use adjutant_actors::model::role::Verb;
use adjutant_actors::model::token::CapToken;
use adjutant_actors::state::auth::Reach;
use adjutant_actors::state::resumes::ResumePending;

use crate::engine::{Caller, Engine};

impl Engine {
    /// The open questions, oldest first, at most `limit`; for whoever may answer them.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let engine = adjutant::Engine::new(adjutant::EngineCfg::default());
    /// # let minute = std::time::Duration::from_secs(60);
    /// # let operator = engine.attach("ann", adjutant::Role::Operator, minute).await?;
    /// # let task = engine.start_task(&operator, adjutant::TaskSpec::new("echo", "hello")).await?;
    /// let senior = engine.attach("sam", adjutant::Role::Senior, minute).await?;
    /// let key = engine.query_senior(&operator, &task, "really?".into()).await?;
    /// let questions = engine.open_questions(&senior, 10).await?;
    /// assert_eq!((questions[0].0, &*questions[0].1.question), (key, &"really?".into()));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of an authorization with `AnswerQuery`.
    pub async fn open_questions(
        &self,
        token: &CapToken,
        limit: usize,
    ) -> Result<Vec<(ResumeKey, ResumePending)>, EngineError> {
        self.open_questions_as(token.into(), limit).await
    }

    /// As [`Self::open_questions`].
    pub(crate) async fn open_questions_as(
        &self,
        caller: Caller<'_>,
        limit: usize,
    ) -> Result<Vec<(ResumeKey, ResumePending)>, EngineError> {
        let (access, now) = self.access(caller, Verb::AnswerQuery)?;
        self.system()
            .transact("open_questions", move |state| {
                state.verify(access, Reach::Anywhere, now)?;
                Ok(state.open_questions(limit))
            })
            .await
    }

    /// Sets the prompt of the task's next attempt.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let engine = adjutant::Engine::new(adjutant::EngineCfg::default());
    /// # let minute = std::time::Duration::from_secs(60);
    /// # let operator = engine.attach("ann", adjutant::Role::Operator, minute).await?;
    /// # let mut agents = adjutant::InProcSpawner::new();
    /// # agents.register("echo", |call| async move {
    /// #     Ok(adjutant::WorkerResult { value: call.prompt.into(), ok: true })
    /// # });
    /// # let spawner: std::sync::Arc<dyn adjutant::SpawnerAdapter> = std::sync::Arc::new(agents);
    /// # let task = engine.start_task(&operator, adjutant::TaskSpec::new("echo", "hello")).await?;
    /// let senior = engine.attach("sam", adjutant::Role::Senior, minute).await?;
    /// engine.inject_directive(&senior, &task, "goodbye").await?;
    /// let outcome = engine.dispatch_attempt_with(&operator, &task, &spawner).await?;
    /// assert_eq!(outcome, adjutant::DispatchOutcome::Pass("goodbye".into()));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of an authorization; `InvalidTransition` for a task that is final; `ValueTooLarge`.
    pub async fn inject_directive(
        &self,
        token: &CapToken,
        task_id: &TaskId,
        directive: impl Into<String>,
    ) -> Result<(), EngineError> {
        let (access, now) = self.access(token, Verb::InjectDirective)?;
        let (task, directive) = (*task_id, directive.into());
        measure_text("directive", &directive, self.cfg().limits.prompt_bytes)?;
        let directive: Arc<str> = Arc::from(directive);
        self.system()
            .transact("inject_directive", move |state| {
                state.inject_directive(access, task, directive, now)
            })
            .await
    }

    /// Lets new dispatches of the whole engine wait, in their order; running ones go on.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let engine = adjutant::Engine::new(adjutant::EngineCfg::default());
    /// # let minute = std::time::Duration::from_secs(60);
    /// # let operator = engine.attach("ann", adjutant::Role::Operator, minute).await?;
    /// # let mut agents = adjutant::InProcSpawner::new();
    /// # agents.register("echo", |call| async move {
    /// #     Ok(adjutant::WorkerResult { value: call.prompt.into(), ok: true })
    /// # });
    /// # let spawner: std::sync::Arc<dyn adjutant::SpawnerAdapter> = std::sync::Arc::new(agents);
    /// # let task = engine.start_task(&operator, adjutant::TaskSpec::new("echo", "hello")).await?;
    /// let senior = engine.attach("sam", adjutant::Role::Senior, minute).await?;
    /// engine.pause_dispatch(&senior).await?;
    /// let dispatch = engine.dispatch_attempt_with(&operator, &task, &spawner);
    /// let (outcome, resumed) = tokio::join!(dispatch, engine.resume_dispatch(&senior));
    /// resumed?;
    /// assert_eq!(outcome?, adjutant::DispatchOutcome::Pass("hello".into()));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of an authorization.
    pub async fn pause_dispatch(&self, token: &CapToken) -> Result<(), EngineError> {
        self.set_paused(token, Verb::PauseLoop, true).await
    }

    /// Lets the dispatches that wait go on, in their order.
    ///
    /// # Errors
    /// Those of an authorization.
    pub async fn resume_dispatch(&self, token: &CapToken) -> Result<(), EngineError> {
        self.set_paused(token, Verb::ResumeLoop, false).await
    }

    async fn set_paused(
        &self,
        token: &CapToken,
        verb: Verb,
        paused: bool,
    ) -> Result<(), EngineError> {
        let (access, now) = self.access(token, verb)?;
        self.system()
            .transact("pause_dispatch", move |state| state.set_paused(access, paused, now))
            .await
    }
}
