//! One step of a flow: one task and one dispatch, queued at its agent's limit.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use adjutant_actors::errors::EngineError;
use adjutant_actors::model::ids::TaskId;
use adjutant_actors::model::task::{DispatchOutcome, TaskSpec};
use adjutant_actors::model::token::CapToken;
use async_trait::async_trait;
use mlua_flow_ir::{AsyncDispatcher, EvalError};
use serde_json::Value;

use crate::blueprint::compile::{AgentWork, Program};
use crate::blueprint::run::{RunObserver, StepEnd};
use crate::engine::{DispatchOptions, Engine, TaskOptions};
use crate::operator::SeniorBridge;
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
}

/// Cancels the task of a step whose future is dropped, as the loser of a race is.
struct CancelOnDrop<'a> {
    steps: &'a Steps,
    task: Option<TaskId>,
}

impl Drop for CancelOnDrop<'_> {
    fn drop(&mut self) {
        let Some(task) = self.task.take() else { return };
        let (engine, token) = (self.steps.engine.unanchored(), self.steps.operator.clone());
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Err(error) = engine.cancel_task(&token, &task).await {
                    tracing::debug!(%task, %error, "the task of a dropped step was not cancelled");
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
        let Some(agent) = self.program.agent(step) else {
            return StepEnd::Failed(format!("no agent is called {step}"));
        };
        let _place = match agent.limit.acquire().await {
            Ok(place) => place,
            Err(_) => return StepEnd::Failed(format!("the queue of agent {step} was closed")),
        };
        let directive = match &input {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let spec = TaskSpec::new(agent.name.clone(), directive);
        let options = TaskOptions::default().with_on_interrupt(agent.on_interrupt);
        let task = match self.engine.start_task_with(&self.operator, spec, options).await {
            Ok(task) => task,
            Err(error) => return StepEnd::Failed(error.to_string()),
        };
        let mut guard = CancelOnDrop { steps: self, task: Some(task) };
        self.observer.step_started(task, step);
        let end = match &agent.work {
            AgentWork::Spawn(spawner) => {
                let options =
                    DispatchOptions { timeout: agent.timeout, ..DispatchOptions::default() };
                let dispatched = self.engine.dispatch_with(&self.operator, &task, spawner, options);
                StepEnd::of_outcome(dispatched.await)
            }
            AgentWork::Ask(template) => match question(step, template.as_deref(), input) {
                Ok(question) => self.ask(task, question).await,
                Err(reason) => {
                    let _ = self.engine.cancel_task(&self.operator, &task).await;
                    StepEnd::Failed(reason)
                }
            },
        };
        guard.task = None;
        self.observer.step_ended(task, step, &end);
        end
    }

    /// Asks the senior, and passes the task with the answer.
    async fn ask(&self, task: TaskId, question: Value) -> StepEnd {
        match self.answer(task, question).await {
            Ok(answer) => StepEnd::Pass(answer),
            Err(end) => {
                let _ = self.engine.cancel_task(&self.operator, &task).await;
                end
            }
        }
    }

    async fn answer(&self, task: TaskId, question: Value) -> Result<Value, StepEnd> {
        let (engine, operator) = (&self.engine, &self.operator);
        let key = engine
            .query_senior(operator, &task, question.clone())
            .await
            .map_err(StepEnd::of_error)?;
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
        let answer = tokio::select! {
            biased;
            answer = engine.await_resume(key, self.hold) => answer.map_err(StepEnd::of_error)?,
            refused = asked => return refused,
        };
        engine.mark_pass(operator, &task, answer.clone()).await.map_err(StepEnd::of_error)?;
        Ok(answer)
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

    fn of_error(error: EngineError) -> Self {
        match error {
            EngineError::PollTimeout => Self::Timeout,
            EngineError::Cancelled => Self::Cancelled,
            other => Self::Failed(other.to_string()),
        }
    }
}
