//! Dispatching one attempt: begin it, start its supervisor, await its verdict.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use adjutant_actors::errors::EngineError;
use adjutant_actors::launch::{Launch, Worker};
use adjutant_actors::messages::{Change, Until};
use adjutant_actors::model::ids::TaskId;
use adjutant_actors::model::measure::measure_text;
use adjutant_actors::model::role::{Role, Verb};
use adjutant_actors::model::task::DispatchOutcome;
use adjutant_actors::model::token::{CapToken, WorkerHandle};
use adjutant_actors::state::EngineState;
use adjutant_actors::state::attempts::{Begin, NewAttempt, Plan, Verdict};
use adjutant_actors::system::PollStart;
use async_trait::async_trait;

use crate::ctx::{Ctx, WORKER_HANDLE};
use crate::engine::auth::worker_name;
use crate::engine::tasks::checked_key;
use crate::engine::{Caller, Engine};
use crate::spawner::SpawnerAdapter;

/// What may be said of one attempt. Use the struct update syntax.
///
/// ```
/// use adjutant::DispatchOptions;
///
/// let options = DispatchOptions { prompt: Some("try harder".into()), ..DispatchOptions::default() }
///     .with_key("second try");
/// assert_eq!(options.key.as_deref(), Some("second try"));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DispatchOptions {
    /// Prompt of this attempt; otherwise an injected directive, else the task's first one.
    pub prompt: Option<String>,
    /// Longest life of this attempt, in place of the configured one. Its clock stands still while
    /// the task is suspended.
    pub timeout: Option<Duration>,
    /// Idempotency key, at most 256 bytes: see [`Self::with_key`].
    pub key: Option<String>,
}

impl DispatchOptions {
    /// Sets an idempotency key: dispatching the task again under it begins nothing. It waits for
    /// the attempt that the first call began, if that is live, and gives its verdict, also after a
    /// crash; spawner and time-out are those of the first call. Another prompt is a `KeyConflict`.
    ///
    /// One exception: where the attempt was interrupted by the end of its process and the task is
    /// to be retried ([`OnInterrupt::Retry`](crate::OnInterrupt::Retry)), the same call begins the
    /// next attempt, once, and the key is that one's.
    ///
    /// A key belongs to whoever set it, as that of a task, and to the task. It is remembered as
    /// long as that.
    #[must_use]
    pub fn with_key(self, key: impl Into<String>) -> Self {
        Self { key: Some(key.into()), ..self }
    }
}

impl Engine {
    /// Dispatches one attempt through a spawner and waits for its end.
    ///
    /// The attempt belongs to its supervisor, not to this future: dropping the future loses
    /// neither the attempt nor its verdict. A worker may dispatch only sub-tasks below its own
    /// task. While dispatching is paused, calls wait here in their order, at most
    /// [`queue_limit`](crate::EngineCfg::queue_limit) of them.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use adjutant::DispatchOutcome;
    /// # let engine = adjutant::Engine::new(adjutant::EngineCfg::default());
    /// # let minute = std::time::Duration::from_secs(60);
    /// # let operator = engine.attach("ann", adjutant::Role::Operator, minute).await?;
    /// # let mut agents = adjutant::InProcSpawner::new();
    /// # agents.register("echo", |call| async move {
    /// #     Ok(adjutant::WorkerResult { value: call.prompt.into(), ok: true })
    /// # });
    /// # let spawner: std::sync::Arc<dyn adjutant::SpawnerAdapter> = std::sync::Arc::new(agents);
    /// # let task = engine.start_task(&operator, adjutant::TaskSpec::new("echo", "hello")).await?;
    /// match engine.dispatch_attempt_with(&operator, &task, &spawner).await? {
    ///     DispatchOutcome::Pass(value) => assert_eq!(value, "hello"),
    ///     other => panic!("{other:?}"),
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of an authorization; `TableFull` where too many wait; `InvalidTransition` while an attempt is live or for a status
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
    /// A call that may have to be made again carries a key:
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), adjutant::EngineError> {
    /// # use adjutant::{DispatchOptions, Engine, EngineCfg, InProcSpawner, Role, SpawnerAdapter};
    /// # use adjutant::{TaskSpec, WorkerResult};
    /// # use std::{sync::Arc, time::Duration};
    /// # let engine = Engine::new(EngineCfg::default());
    /// # let operator = engine.attach("ann", Role::Operator, Duration::from_secs(60)).await?;
    /// # let mut agents = InProcSpawner::new();
    /// # agents.register("echo", |call| async move { Ok(WorkerResult { value: call.prompt.into(), ok: true }) });
    /// # let spawner: Arc<dyn SpawnerAdapter> = Arc::new(agents);
    /// let task = engine.start_task(&operator, TaskSpec::new("echo", "hello")).await?;
    /// let keyed = || DispatchOptions::default().with_key("first try");
    /// let first = engine.dispatch_with(&operator, &task, &spawner, keyed()).await?;
    /// let again = engine.dispatch_with(&operator, &task, &spawner, keyed()).await?;
    /// assert_eq!(first, again);
    /// assert_eq!(engine.read_task_state(&operator, &task).await?.attempt, 1);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Self::dispatch_attempt_with`]; `ValueTooLarge` for the prompt; `KeyConflict`, and
    /// `InvalidArgument` or `ValueTooLarge` for the key.
    pub async fn dispatch_with(
        &self,
        token: &CapToken,
        task_id: &TaskId,
        spawner: &Arc<dyn SpawnerAdapter>,
        options: DispatchOptions,
    ) -> Result<DispatchOutcome, EngineError> {
        self.dispatch_as(token.into(), task_id, spawner, options).await
    }

    /// As [`Self::dispatch_with`].
    pub(crate) async fn dispatch_as(
        &self,
        caller: Caller<'_>,
        task_id: &TaskId,
        spawner: &Arc<dyn SpawnerAdapter>,
        options: DispatchOptions,
    ) -> Result<DispatchOutcome, EngineError> {
        let (access, now) = self.access(caller, Verb::DispatchAttempt)?;
        if !caller.is_worker() {
            self.refuse_while_draining()?;
        }
        if let Some(prompt) = &options.prompt {
            measure_text("prompt", prompt, self.cfg().limits.prompt_bytes)?;
        }
        let (task, key) = (*task_id, checked_key(options.key)?);
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
            key,
        };
        let known = Arc::new(OnceLock::new());
        let found = known.clone();
        let mut new = Some(Box::new(new));
        let begin = move |state: &mut EngineState| {
            let attempt = new.take().expect("a paused attempt is given back");
            match state.begin_attempt(access, *attempt, now)? {
                Begin::Begun(plan) => Ok(Some(plan)),
                Begin::Known(attempt) => {
                    // Undoes a turn that changed nothing; the error is not given to anyone.
                    let _ = found.set(attempt);
                    Err(EngineError::Cancelled)
                }
                Begin::Paused(attempt) => {
                    new = Some(attempt);
                    Ok(None)
                }
            }
        };
        let launch = self.launch_of(spawner.clone(), worker_token, handle);
        let verdict = self.system().dispatch(task, timeout, begin, launch).await;
        match known.get() {
            Some(attempt) => outcome(self.await_verdict(task, *attempt).await?),
            None => outcome(verdict?),
        }
    }

    /// Waits for the end of an attempt that another call began.
    async fn await_verdict(&self, task: TaskId, attempt: u32) -> Result<Verdict, EngineError> {
        let look = move |state: &mut EngineState, _first: bool| {
            let gone = || EngineError::TaskNotFound(task.to_string());
            let (_, revision) = state.glance(&task).ok_or_else(gone)?;
            Ok(match state.verdict_of(task, attempt)? {
                Some(verdict) => PollStart::Ready(verdict),
                None => PollStart::Wait(task, Until::Past(revision)),
            })
        };
        // No change says how an attempt ended: each is looked at.
        let accept = |_: Change| None;
        self.system().wait_for("dispatch_attempt", Duration::MAX, look, accept).await
    }

    /// Makes the launch of an attempt, once its plan is known.
    fn launch_of(
        &self,
        spawner: Arc<dyn SpawnerAdapter>,
        token: CapToken,
        handle: WorkerHandle,
    ) -> impl FnOnce(&Plan) -> Arc<dyn Launch> + Send + 'static {
        let (engine, cause) = (self.unanchored(), tracing::Span::current());
        move |plan| {
            // Linked to what dispatched it and not below that: an attempt outlives its request.
            let span = tracing::info_span!(
                target: "adjutant::attempt",
                parent: None,
                "attempt",
                task = %plan.task,
                attempt = plan.attempt,
                agent = &*plan.spec.agent,
                end = tracing::field::Empty,
            );
            span.follows_from(&cause);
            let mut ctx = Ctx::new(plan.task, plan.attempt, plan.spec.agent.clone());
            ctx.operator = engine.operator_info(plan);
            ctx.meta.runtime.insert(WORKER_HANDLE.to_owned(), handle.expose().into());
            let refused = engine.check_faces(plan).err();
            Arc::new(SpawnLaunch { engine, spawner, ctx, token, refused, span })
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
    span: tracing::Span,
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

    fn span(&self) -> tracing::Span {
        self.span.clone()
    }

    fn restarts(&self) -> u32 {
        self.spawner.launch_restarts().max(self.engine.cfg().launch_restarts)
    }
}
