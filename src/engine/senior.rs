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
