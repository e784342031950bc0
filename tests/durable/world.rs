//! A world on a journal: an engine with its tokens, opened again after an end of any kind.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use adjutant::journal::Journal;
use adjutant::store::{SqliteStore, StoreCfg};
use adjutant::{
    CapToken, DispatchOutcome, Engine, EngineCfg, EngineError, HoldPolicy, InProcSpawner,
    LayerRegistry, Role, SpawnerAdapter, TaskId, TaskSpec, TaskState, TaskStatus, WorkerResult,
};
use ractor::{ActorCell, ActorStatus};
use serde_json::json;
use tokio::task::JoinHandle;

pub(crate) const DAY: Duration = Duration::from_secs(24 * 3600);

/// Settings under which a loaded machine fails no test, with a secret that outlives the engine.
pub(crate) fn cfg() -> EngineCfg {
    EngineCfg {
        hold_policy: HoldPolicy::Warn,
        token_secret: b"the same one at every start".to_vec(),
        ..EngineCfg::default()
    }
}

pub(crate) async fn open(journal: impl Journal) -> Engine {
    open_with(cfg(), journal).await
}

pub(crate) async fn open_with(cfg: EngineCfg, journal: impl Journal) -> Engine {
    Engine::open(cfg, LayerRegistry::new(), Arc::new(journal)).await.unwrap()
}

/// The tokens that most tests need; they outlive any one engine.
#[derive(Clone)]
pub(crate) struct People {
    pub(crate) operator: CapToken,
    pub(crate) senior: CapToken,
}

impl People {
    pub(crate) async fn of(engine: &Engine) -> Self {
        let operator = engine.attach("operator", Role::Operator, DAY).await.unwrap();
        let senior = engine.attach("senior", Role::Senior, DAY).await.unwrap();
        Self { operator, senior }
    }
}

pub(crate) async fn start(engine: &Engine, token: &CapToken, agent: &str) -> TaskId {
    engine.start_task(token, TaskSpec::new(agent, "do it")).await.unwrap()
}

/// Dispatches a task in the background, and waits until its attempt runs.
pub(crate) async fn dispatched(
    engine: &Engine,
    people: &People,
    task: TaskId,
) -> JoinHandle<Result<DispatchOutcome, EngineError>> {
    // A caller in the middle of its dispatch keeps no engine from ending.
    let (caller, token) = (engine.unanchored(), people.operator.clone());
    let run = async move { caller.dispatch_attempt_with(&token, &task, &agents()).await };
    let run = tokio::spawn(run);
    let running =
        || async { read(engine, &people.operator, task).await.status == TaskStatus::Running };
    eventually("the attempt", running).await;
    run
}

pub(crate) async fn read(engine: &Engine, token: &CapToken, task: TaskId) -> TaskState {
    engine.read_task_state(token, &task).await.unwrap()
}

/// The state keeps its rules, no attempt is live and no task Running.
pub(crate) async fn at_rest(engine: &Engine) {
    let look = |state: &mut adjutant::EngineState| {
        let running = state.tasks_with(|status| status == TaskStatus::Running);
        (state.audit(), state.live_attempts(), running)
    };
    let found = engine.with_state("at_rest", look).await.unwrap();
    assert_eq!(found, (Ok(()), vec![], vec![]), "audit, live attempts, running tasks");
}

/// Agents: `pass` ends at once, `hang` never ends.
pub(crate) fn agents() -> Arc<dyn SpawnerAdapter> {
    let mut spawner = InProcSpawner::new();
    spawner.register("pass", |call| async move {
        Ok(WorkerResult { value: json!({ "echo": call.prompt }), ok: true })
    });
    spawner.register("hang", |_| std::future::pending());
    Arc::new(spawner)
}

/// A folder for a store, which goes away with it.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.0.path().join("store")
    }

    pub(crate) fn store(&self) -> SqliteStore {
        SqliteStore::open(self.path(), StoreCfg::default()).unwrap()
    }
}

/// The living actors right below the engine's root; where nothing was dispatched or watched yet,
/// that is the state actor alone.
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
    let condition = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    soon(what, condition).await;
}

/// Waits for a future that must not hang.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(60), future).await {
        Ok(value) => value,
        Err(_) => panic!("hangs: {what}"),
    }
}

/// Lets everything that can run do so, on a runtime of one thread.
pub(crate) async fn idle() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}
