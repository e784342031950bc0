//! A worker that is at work for as long as its desk stands, and what it was given.

use std::sync::{Arc, Mutex, PoisonError};

use adjutant::{
    CapToken, Ctx, Engine, InProcSpawner, SpawnError, SpawnerAdapter, TaskId, TaskSpec, Worker,
    async_trait,
};

/// What a worker shows who it is with.
#[derive(Debug, Clone)]
pub(crate) struct Given {
    pub(crate) task: TaskId,
    pub(crate) token: String,
    pub(crate) handle: String,
}

/// Notes what its worker is given.
struct Noting {
    inner: InProcSpawner,
    given: Mutex<Option<Given>>,
}

#[async_trait]
impl SpawnerAdapter for Noting {
    async fn spawn(
        &self,
        engine: &Engine,
        ctx: &Ctx,
        task: TaskId,
        attempt: u32,
        token: CapToken,
    ) -> Result<Box<dyn Worker>, SpawnError> {
        let handle = ctx.meta.runtime["worker_handle"].as_str().unwrap_or_default().to_owned();
        let given = Given { task, token: token.encode(), handle };
        *self.given.lock().unwrap_or_else(PoisonError::into_inner) = Some(given);
        self.inner.spawn(engine, ctx, task, attempt, token).await
    }
}

/// Begins an attempt of a fresh task that does not end by itself.
pub(crate) async fn begin(engine: &Engine, operator: &CapToken) -> Given {
    let mut inner = InProcSpawner::new();
    inner.register("hang", |_| std::future::pending());
    let noting = Arc::new(Noting { inner, given: Mutex::default() });
    let task = engine.start_task(operator, TaskSpec::new("hang", "x")).await.expect("it may");
    let (own, operator) = (engine.clone(), operator.clone());
    let spawner: Arc<dyn SpawnerAdapter> = noting.clone();
    tokio::spawn(async move { own.dispatch_attempt_with(&operator, &task, &spawner).await });
    loop {
        let given = noting.given.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(given) = given {
            return given;
        }
        tokio::task::yield_now().await;
    }
}
