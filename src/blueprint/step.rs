//! One step of a flow: one task and one dispatch, queued at its agent's limit.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use adjutant_actors::errors::EngineError;
use adjutant_actors::model::ids::{ResumeKey, StepKey, TaskId};
use adjutant_actors::model::task::{DispatchOutcome, TaskSpec, TaskState, TaskStatus};
use adjutant_actors::model::token::CapToken;
use adjutant_actors::state::runs::KeptStep;
use async_trait::async_trait;
use mlua_flow_ir::{AsyncDispatcher, EvalError};
use serde_json::Value;

use crate::blueprint::compile::{Agent, AgentWork, Program};
use crate::blueprint::kept::{self, Kept, Replay};
use crate::blueprint::run::{RunObserver, StepEnd};
use crate::engine::{DispatchOptions, Engine, TaskOptions};
use crate::operator::SeniorBridge;
use crate::spawner::SpawnerAdapter;
use crate::template;

/// Runs the steps of one run.
pub(crate) struct Steps {
    pub(crate) engine: Engine,
    pub(crate) program: Arc<Program>,
    pub(crate) operator: CapToken,
    pub(crate) senior: CapToken,
    pub(crate) bridge: Option<Arc<dyn SeniorBridge>>,
    pub(crate) observer: Arc<dyn RunObserver>,
    pub(crate) hold: Duration,
    /// How the newest step that did not pass ended; tells a run's outcome where the flow fails.
    pub(crate) fault: Mutex<Option<(String, StepEnd)>>,
    /// The run's memory, where it is one that survives.
    pub(crate) kept: Option<Kept>,
}

/// Cancels the task of a step whose future is dropped, as the loser of a race is. Where the whole
/// of a run that survives is dropped, its tasks stay.
struct CancelOnDrop<'a> {
    steps: &'a Steps,
    task: Option<TaskId>,
}

impl Drop for CancelOnDrop<'_> {
    fn drop(&mut self) {
        let Some(task) = self.task.take() else { return };
        let keeps = self.steps.kept.is_some();
        if self.steps.kept.as_ref().is_some_and(Kept::is_over) {
            return;
        }
        let (engine, token) = (self.steps.engine.unanchored(), self.steps.operator.clone());
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                // First the note, so that a task whose cancellation is lost is not taken up again.
                if keeps && let Err(error) = engine.note_told(task, kept::dropped()).await {
                    tracing::debug!(%task, error = error.to_string(), "a dropped step was not noted");
                }
                if let Err(error) = engine.cancel_task(&token, &task).await {
                    tracing::debug!(%task, error = error.to_string(), "the task of a dropped step was not cancelled");
                }
            });
        }
    }
}

#[async_trait]
impl AsyncDispatcher for Steps {
    async fn dispatch(&self, ref_: &str, input: Value) -> Result<Value, EvalError> {
        match self.run(ref_, input).await {
            StepEnd::Pass(value) => Ok(value),
            end => {
                let msg = end.to_string();
                let mut fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
                *fault = Some((ref_.to_owned(), end));
                Err(EvalError::DispatcherError { ref_: ref_.to_owned(), msg })
            }
        }
    }
}

impl Steps {
    async fn run(&self, step: &str, input: Value) -> StepEnd {
        let call = self.kept.as_ref().map(|kept| kept.call(step, &input));
        let (key, before) = call.map_or((None, None), |call| (Some(call.key), call.kept));
        match before.as_ref().map(kept::replay) {
            Some(Replay::End(end)) => return end,
            Some(Replay::Dropped) => return std::future::pending().await,
            Some(Replay::Open) | None => {}
        }
        if self.kept.is_some() {
            // Whatever is known from before is told first: who lost a race then starts nothing now.
            tokio::task::yield_now().await;
        }
        let Some(agent) = self.program.agent(step) else {
            return StepEnd::Failed(format!("no agent is called {step}"));
        };
        let _place = match agent.limit.acquire().await {
            Ok(place) => place,
            Err(_) => return StepEnd::Failed(format!("the queue of agent {step} was closed")),
        };
        let task = match self.task_of(agent, &input, key, before.as_ref()).await {
            Ok(task) => task,
            Err(error) => return self.unless_leaving(StepEnd::Failed(error.to_string())).await,
        };
        let mut guard = CancelOnDrop { steps: self, task: Some(task) };
        self.observer.step_started(task, step);
        let end = match &agent.work {
            AgentWork::Spawn(spawner) => self.work(task, agent, spawner, before).await,
            AgentWork::Ask(template) => match question(step, template.as_deref(), input) {
                Ok(question) => self.ask(task, question, before).await,
                Err(reason) => {
                    let _ = self.engine.cancel_task(&self.operator, &task).await;
                    StepEnd::Failed(reason)
                }
            },
        };
        let end = self.unless_leaving(end).await;
        if self.kept.is_some()
            && let Some(told) = kept::told(&end)
            && let Err(error) = self.engine.note_told(task, told).await
        {
            return self.unless_leaving(StepEnd::Failed(error.to_string())).await;
        }
        guard.task = None;
        self.observer.step_ended(task, step, &end);
        end
    }

    /// The task of a call: the one that it has, or a new one.
    async fn task_of(
        &self,
        agent: &Agent,
        input: &Value,
        key: Option<StepKey>,
        before: Option<&KeptStep>,
    ) -> Result<TaskId, EngineError> {
        if let Some(before) = before {
            return Ok(before.task);
        }
        let directive = match input {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let spec = TaskSpec::new(agent.name.clone(), directive);
        let options = TaskOptions::default().with_on_interrupt(agent.on_interrupt);
        match (&self.kept, key) {
            (Some(kept), Some(key)) => {
                let call = (kept.run, key);
                self.engine.start_step(&self.operator, call, spec, options).await
            }
            _ => self.engine.start_task_with(&self.operator, spec, options).await,
        }
    }

    /// Passes an end on, unless it came from the end of the engine under a run that survives: that
    /// is no end of the step, so the run is left as it is.
    async fn unless_leaving(&self, end: StepEnd) -> StepEnd {
        match &self.kept {
            Some(kept) if !matches!(end, StepEnd::Pass(_)) && self.engine.is_ending() => {
                kept.leave.cancel();
                std::future::pending().await
            }
            _ => end,
        }
    }

    /// Has a worker do the step. What it did before its process died is waited for or done again.
    async fn work(
        &self,
        task: TaskId,
        agent: &Agent,
        spawner: &Arc<dyn SpawnerAdapter>,
        before: Option<KeptStep>,
    ) -> StepEnd {
        if let Some(before) = before {
            if before.live {
                match self.await_attempt(task).await {
                    Ok(Some(state)) => return StepEnd::of_state(state),
                    Ok(None) => {}
                    Err(error) => return StepEnd::of_error(error),
                }
            } else if before.status == TaskStatus::Suspended
                && let Some((key, question, _)) = before.question
                && let Err(end) = self.answered(task, key, Value::clone(&question)).await
            {
                return end;
            }
        }
        let options = DispatchOptions { timeout: agent.timeout, ..DispatchOptions::default() };
        let dispatched = self.engine.dispatch_with(&self.operator, &task, spawner, options);
        StepEnd::of_outcome(dispatched.await)
    }

    /// Waits for the end of an attempt that was dispatched before; `None` where it was interrupted.
    async fn await_attempt(&self, task: TaskId) -> Result<Option<TaskState>, EngineError> {
        loop {
            let state = self.engine.poll_task(&self.operator, &task, self.hold).await?;
            let Some(key) = state.suspended_on else {
                let blocked = state.status == TaskStatus::Blocked;
                let interrupted = blocked && self.engine.was_interrupted(task).await?;
                return Ok((!interrupted).then_some(state));
            };
            match self.engine.await_resume(key, self.hold).await {
                Ok(_) | Err(EngineError::Cancelled) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Asks the senior, and passes the task with the answer.
    async fn ask(&self, task: TaskId, question: Value, before: Option<KeptStep>) -> StepEnd {
        match self.answer(task, question, before).await {
            Ok(answer) => StepEnd::Pass(answer),
            Err(end) if self.is_leaving() => self.unless_leaving(end).await,
            Err(end) => {
                let _ = self.engine.cancel_task(&self.operator, &task).await;
                end
            }
        }
    }

    fn is_leaving(&self) -> bool {
        self.kept.is_some() && self.engine.is_ending()
    }

    async fn answer(
        &self,
        task: TaskId,
        question: Value,
        before: Option<KeptStep>,
    ) -> Result<Value, StepEnd> {
        let (engine, operator) = (&self.engine, &self.operator);
        let answer = match before.and_then(|before| before.question) {
            Some((_, _, Some(answer))) => Value::clone(&answer),
            Some((key, question, None)) => {
                self.answered(task, key, Value::clone(&question)).await?
            }
            None => {
                let asked = engine.query_senior(operator, &task, question.clone()).await;
                self.answered(task, asked.map_err(StepEnd::of_error)?, question).await?
            }
        };
        engine.mark_pass(operator, &task, answer.clone()).await.map_err(StepEnd::of_error)?;
        Ok(answer)
    }

    /// Waits for the answer to an open question, from the bridge or from anybody else.
    async fn answered(
        &self,
        task: TaskId,
        key: ResumeKey,
        question: Value,
    ) -> Result<Value, StepEnd> {
        let engine = &self.engine;
        let asked = async {
            match &self.bridge {
                Some(bridge) => {
                    let answer = bridge.ask(&task, question).await;
                    let answer = answer.map_err(StepEnd::Failed)?;
                    let told = engine.answer_query(&self.senior, key, answer).await;
                    told.map_err(StepEnd::of_error)?;
                    std::future::pending().await
                }
                // Somebody else answers, through the engine.
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            answer = engine.await_resume(key, self.hold) => answer.map_err(StepEnd::of_error),
            refused = asked => refused,
        }
    }
}

/// The question of an `ask` step: its template filled in, or its input.
fn question(step: &str, template: Option<&str>, input: Value) -> Result<Value, String> {
    match template {
        Some(template) => template::render(step, template, &input).map(Value::String),
        None => Ok(input),
    }
}

impl StepEnd {
    fn of_outcome(outcome: Result<DispatchOutcome, EngineError>) -> Self {
        match outcome {
            Ok(DispatchOutcome::Pass(value)) => Self::Pass(value),
            Ok(DispatchOutcome::Blocked(value)) => Self::Blocked(value),
            Ok(DispatchOutcome::Timeout) => Self::Timeout,
            Ok(DispatchOutcome::Cancelled) => Self::Cancelled,
            Ok(DispatchOutcome::Suspended(key)) => {
                Self::Failed(format!("the worker left while question {key} is open"))
            }
            Ok(_) => Self::Failed("the attempt came to an end that is not known here".to_owned()),
            Err(error) => Self::of_error(error),
        }
    }

    /// The end of a step whose attempt somebody else dispatched.
    fn of_state(state: TaskState) -> Self {
        let result = state.last_result.unwrap_or_default();
        match state.status {
            TaskStatus::Pass => Self::Pass(result),
            TaskStatus::Cancelled => Self::Cancelled,
            _ => Self::Blocked(result),
        }
    }

    fn of_error(error: EngineError) -> Self {
        match error {
            EngineError::PollTimeout => Self::Timeout,
            EngineError::Cancelled => Self::Cancelled,
            other => Self::Failed(other.to_string()),
        }
    }
}
