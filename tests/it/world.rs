//! A world: an engine with an operator, and spawners that do as they are told.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use adjutant::{
    CapToken, DispatchOutcome, Engine, EngineCfg, EngineError, EventRecord, HoldPolicy,
    InProcSpawner, Role, SpawnerAdapter, TaskId, TaskSpec, TaskState, TaskStatus, WorkerError,
    WorkerResult,
};
use ractor::{ActorCell, ActorStatus};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

/// Long enough that only a hang reaches it.
pub(crate) const LONG: Duration = Duration::from_secs(30);

/// A dispatch in a task of its own.
pub(crate) type Run = JoinHandle<Result<DispatchOutcome, EngineError>>;
/// A poll in a task of its own.
pub(crate) type Poll = JoinHandle<Result<TaskState, EngineError>>;

/// An engine and the tokens that most tests need.
pub(crate) struct World {
    pub(crate) engine: Engine,
    pub(crate) operator: CapToken,
    pub(crate) senior: CapToken,
    pub(crate) observer: CapToken,
}

/// Settings under which a loaded machine fails no test: holds are counted only.
pub(crate) fn calm() -> EngineCfg {
    EngineCfg { hold_policy: HoldPolicy::Warn, ..EngineCfg::default() }
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(calm()).await
    }

    pub(crate) async fn with(cfg: EngineCfg) -> Self {
        Self::around(Engine::new(cfg)).await
    }

    pub(crate) async fn around(engine: Engine) -> Self {
        let month = Duration::from_secs(24 * 3600 * 30);
        let operator = engine.attach("operator", Role::Operator, month).await.unwrap();
        let senior = engine.attach("senior", Role::Senior, month).await.unwrap();
        let observer = engine.attach("observer", Role::Observer, month).await.unwrap();
        Self { engine, operator, senior, observer }
    }

    pub(crate) async fn start(&self, agent: &str) -> TaskId {
        self.engine.start_task(&self.operator, TaskSpec::new(agent, "do it")).await.unwrap()
    }

    /// Dispatches in a task of its own.
    pub(crate) fn run(&self, task: TaskId, spawner: &Arc<dyn SpawnerAdapter>) -> Run {
        let (engine, token, spawner) =
            (self.engine.clone(), self.operator.clone(), spawner.clone());
        tokio::spawn(async move { engine.dispatch_attempt_with(&token, &task, &spawner).await })
    }

    /// Polls in a task of its own.
    pub(crate) fn poll(&self, task: TaskId) -> Poll {
        let (engine, token) = (self.engine.clone(), self.operator.clone());
        tokio::spawn(async move { engine.poll_task(&token, &task, Duration::MAX).await })
    }

    pub(crate) async fn status(&self, task: TaskId) -> TaskStatus {
        self.engine.read_task_state(&self.operator, &task).await.unwrap().status
    }

    pub(crate) async fn events(&self) -> Vec<EventRecord> {
        self.engine.events_after(0, usize::MAX).await.unwrap()
    }

    /// The kinds of a task's events, in their order.
    pub(crate) async fn kinds(&self, task: TaskId) -> Vec<&'static str> {
        let of_task = |record: &EventRecord| record.event.task_id() == Some(task);
        self.events().await.iter().filter(|it| of_task(it)).map(|it| it.event.kind()).collect()
    }

    /// Runs the state's audit.
    pub(crate) async fn audit(&self) {
        let audit = self.engine.with_state("audit", |state| state.audit()).await.unwrap();
        assert_eq!(audit, Ok(()));
    }

    /// Nothing is Running, no attempt is live, the state keeps its rules.
    pub(crate) async fn at_rest(&self) {
        self.audit().await;
        let look = |state: &mut adjutant::EngineState| {
            (state.live_attempts(), state.tasks_with(|status| status == TaskStatus::Running))
        };
        let (live, running) = self.engine.with_state("at_rest", look).await.unwrap();
        assert_eq!((live, running), (vec![], vec![]), "live attempts, running tasks");
    }
}

/// The living actors right below the engine's root.
pub(crate) fn children(engine: &Engine) -> Vec<ActorCell> {
    let all = engine.root_cell().map(|root| root.get_children()).unwrap_or_default();
    all.into_iter().filter(|child| child.get_status() < ActorStatus::Stopping).collect()
}

/// Waits until a condition holds; fails after a time that only a hang reaches.
pub(crate) async fn eventually<F, Fut>(what: &str, condition: F)
where
    F: Fn() -> Fut,
    Fut: Future<Output = bool>,
{
    let deadline = tokio::time::Instant::now() + LONG;
    while !condition().await {
        assert!(tokio::time::Instant::now() < deadline, "never came: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Waits for a future that must not hang.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(LONG, future).await {
        Ok(value) => value,
        Err(_) => panic!("hangs: {what}"),
    }
}

/// Agents: `pass` and `block` end at once, `hang` never ends, `panic` panics, `fail` errors.
pub(crate) fn agents() -> Arc<dyn SpawnerAdapter> {
    let mut spawner = InProcSpawner::new();
    spawner.register("pass", |call| async move { done(json!({ "echo": call.prompt }), true) });
    spawner.register("block", |_| async move { done(json!("no"), false) });
    spawner.register("hang", |_| std::future::pending());
    spawner.register("panic", |_| async move { panic!("the worker's own panic") });
    spawner.register("fail", |_| async move { Err(WorkerError::Failed("broke".into())) });
    Arc::new(spawner)
}

#[expect(clippy::unnecessary_wraps, reason = "what a worker function returns")]
pub(crate) fn done(value: Value, ok: bool) -> Result<WorkerResult, WorkerError> {
    Ok(WorkerResult { value, ok })
}
