//! Dispatching one attempt: begin it, start its supervisor, await its verdict.

use std::sync::Arc;
use std::time::Duration;

use adjutant_actors::errors::EngineError;
use adjutant_actors::launch::{Launch, Worker};
use adjutant_actors::model::ids::TaskId;
use adjutant_actors::model::measure::measure_text;
use adjutant_actors::model::role::{Role, Verb};
use adjutant_actors::model::task::DispatchOutcome;
use adjutant_actors::model::token::{CapToken, WorkerHandle};
use adjutant_actors::state::EngineState;
use adjutant_actors::state::attempts::{Begin, NewAttempt, Plan, Verdict};
use async_trait::async_trait;

use crate::ctx::{Ctx, WORKER_HANDLE};
use crate::engine::Engine;
use crate::engine::auth::worker_name;
use crate::spawner::SpawnerAdapter;

/// What may be said of one attempt. Use the struct update syntax.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DispatchOptions {
    /// Prompt of this attempt; otherwise an injected directive, else the task's first one.
    pub prompt: Option<String>,
    /// Longest life of this attempt, in place of the configured one. Its clock stands still while
    /// the task is suspended.
    pub timeout: Option<Duration>,
}

impl Engine {
    /// Dispatches one attempt through a spawner and waits for its end.
    ///
    /// The attempt belongs to its supervisor, not to this future: dropping the future loses
    /// neither the attempt nor its verdict. A worker may dispatch only sub-tasks below its own
    /// task. While dispatching is paused, calls wait here in their order.
    ///
    /// # Errors
    /// Those of an authorization; `InvalidTransition` while an attempt is live or for a status
    /// that forbids it; `DispatchFailed` where the worker did not start, ended with an error or
    /// sent no Final: the task is Blocked then, and that was published; `Stopped`.
    pub async fn dispatch_attempt_with(
        &self,
        token: &CapToken,
        task_id: &TaskId,
        spawner: &Arc<dyn SpawnerAdapter>,
    ) -> Result<DispatchOutcome, EngineError> {
        self.dispatch_with(token, task_id, spawner, DispatchOptions::default()).await
    }

    /// As [`Self::dispatch_attempt_with`], with options.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), adjutant::EngineError> {
    /// use adjutant::{
    ///     DispatchOptions, DispatchOutcome, Engine, EngineCfg, InProcSpawner, Role, SpawnerAdapter,
    ///     TaskSpec,
    /// };
    /// use std::{sync::Arc, time::Duration};
    ///
    /// let engine = Engine::new(EngineCfg::default());
    /// let operator = engine.attach("ann", Role::Operator, Duration::from_secs(60)).await?;
    /// let mut agents = InProcSpawner::new();
    /// agents.register("sleeper", |_| std::future::pending());
    /// let spawner: Arc<dyn SpawnerAdapter> = Arc::new(agents);
    /// let task = engine.start_task(&operator, TaskSpec::new("sleeper", "sleep")).await?;
    /// let timeout = Some(Duration::from_millis(20));
    /// let options = DispatchOptions { timeout, ..DispatchOptions::default() };
    /// let outcome = engine.dispatch_with(&operator, &task, &spawner, options).await?;
    /// assert_eq!(outcome, DispatchOutcome::Timeout);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Self::dispatch_attempt_with`]; `ValueTooLarge` for the prompt.
    pub async fn dispatch_with(
        &self,
        token: &CapToken,
        task_id: &TaskId,
        spawner: &Arc<dyn SpawnerAdapter>,
        options: DispatchOptions,
    ) -> Result<DispatchOutcome, EngineError> {
        let (access, now) = self.access(token, Verb::DispatchAttempt)?;
        if token.role != Role::Worker {
            self.refuse_while_draining()?;
        }
        if let Some(prompt) = &options.prompt {
            measure_text("prompt", prompt, self.cfg().limits.prompt_bytes)?;
        }
        let task = *task_id;
        let timeout = options.timeout.or(self.cfg().attempt_timeout);
        let ttl = timeout.unwrap_or_default().max(self.cfg().worker_token_ttl);
        let (worker_token, record) =
            self.mint_token(worker_name(task), Role::Worker, ttl, None, now)?;
        let handle = self.draw_handle();
        let new = NewAttempt {
            task,
            token: record,
            handle: self.signer().handle_key(handle.expose()),
            prompt: options.prompt.map(Arc::from),
        };
        let mut new = Some(Box::new(new));
        let begin = move |state: &mut EngineState| {
            let attempt = new.take().expect("a paused attempt is given back");
            match state.begin_attempt(access, *attempt, now)? {
                Begin::Begun(plan) => Ok(Some(plan)),
                Begin::Paused(attempt) => {
                    new = Some(attempt);
                    Ok(None)
                }
            }
        };
        let launch = self.launch_of(spawner.clone(), worker_token, handle);
        outcome(self.system().dispatch(task, timeout, begin, launch).await?)
    }

    /// Makes the launch of an attempt, once its plan is known.
    fn launch_of(
        &self,
        spawner: Arc<dyn SpawnerAdapter>,
        token: CapToken,
        handle: WorkerHandle,
    ) -> impl FnOnce(&Plan) -> Arc<dyn Launch> + Send + 'static {
        let engine = self.unanchored();
        move |plan| {
            let mut ctx = Ctx::new(plan.task, plan.attempt, plan.spec.agent.clone());
            ctx.operator = engine.operator_info(plan);
            ctx.meta.runtime.insert(WORKER_HANDLE.to_owned(), handle.expose().into());
            let refused = engine.check_faces(plan).err();
            Arc::new(SpawnLaunch { engine, spawner, ctx, token, refused })
        }
    }
}

fn outcome(verdict: Verdict) -> Result<DispatchOutcome, EngineError> {
    let own = |value: Arc<serde_json::Value>| Arc::unwrap_or_clone(value);
    match verdict {
        Verdict::Pass(value) => Ok(DispatchOutcome::Pass(own(value))),
        Verdict::Blocked(value) => Ok(DispatchOutcome::Blocked(own(value))),
        Verdict::Suspended(key) => Ok(DispatchOutcome::Suspended(key)),
        Verdict::Cancelled => Ok(DispatchOutcome::Cancelled),
        Verdict::Timeout => Ok(DispatchOutcome::Timeout),
        Verdict::Failed(reason) => Err(EngineError::DispatchFailed(reason)),
    }
}

/// A spawner with all that its `spawn` needs; what the attempt's supervisor launches.
struct SpawnLaunch {
    engine: Engine,
    spawner: Arc<dyn SpawnerAdapter>,
    ctx: Ctx,
    token: CapToken,
    refused: Option<EngineError>,
}

#[async_trait]
impl Launch for SpawnLaunch {
    async fn launch(&self) -> Result<Box<dyn Worker>, String> {
        if let Some(error) = &self.refused {
            return Err(error.to_string());
        }
        let (task, attempt) = (self.ctx.task_id, self.ctx.attempt);
        self.spawner
            .spawn(&self.engine, &self.ctx, task, attempt, self.token.clone())
            .await
            .map_err(|error| error.to_string())
    }

    fn restarts(&self) -> u32 {
        self.spawner.launch_restarts().max(self.engine.cfg().launch_restarts)
    }
}
