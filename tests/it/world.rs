//! A world: an engine with an operator, and spawners that do as they are told.

use std::sync::Arc;
use std::time::Duration;

use adjutant::{
    CapToken, Engine, EngineCfg, InProcSpawner, Role, SpawnerAdapter, TaskId, TaskSpec,
    WorkerError, WorkerResult,
};
use serde_json::{Value, json};

/// Long enough that only a hang reaches it.
pub(crate) const LONG: Duration = Duration::from_secs(30);

/// An engine and the tokens that most tests need.
pub(crate) struct World {
    pub(crate) engine: Engine,
    pub(crate) operator: CapToken,
    pub(crate) senior: CapToken,
    pub(crate) observer: CapToken,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(EngineCfg::default()).await
    }

    pub(crate) async fn with(cfg: EngineCfg) -> Self {
        let engine = Engine::new(cfg);
        let day = Duration::from_secs(24 * 3600 * 30);
        let operator = engine.attach("operator", Role::Operator, day).await.unwrap();
        let senior = engine.attach("senior", Role::Senior, day).await.unwrap();
        let observer = engine.attach("observer", Role::Observer, day).await.unwrap();
        Self { engine, operator, senior, observer }
    }

    pub(crate) async fn start(&self, agent: &str) -> TaskId {
        self.engine.start_task(&self.operator, TaskSpec::new(agent, "do it")).await.unwrap()
    }

    /// Runs the state's audit.
    pub(crate) async fn audit(&self) {
        let audit = self.engine.with_state("audit", |state| state.audit()).await.unwrap();
        assert_eq!(audit, Ok(()));
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
