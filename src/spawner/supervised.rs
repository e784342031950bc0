//! Any spawner, built by a factory and kept under a spawner actor that rebuilds it after a panic.

use std::any::Any;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::Arc;

use adjutant_actors::launch::{Built, Factory, Worker, WorkerError, panic_text};
use adjutant_actors::messages::{Intensity, SpawnerMsg};
use adjutant_actors::model::ids::{TaskId, WorkerId};
use adjutant_actors::model::token::CapToken;
use adjutant_actors::root::SpawnerSeat;
use async_trait::async_trait;
use futures::FutureExt;
use tokio::sync::{OnceCell, oneshot};
use tokio_util::sync::CancellationToken;

use crate::ctx::Ctx;
use crate::engine::Engine;
use crate::spawner::{SpawnError, SpawnerAdapter};

/// What the spawner actor keeps: its concrete type, behind `Any`.
struct Product(Arc<dyn SpawnerAdapter>);

/// A spawner under supervision.
///
/// The factory builds it on first use. When its `spawn` or one of its workers panics, it is built
/// again after a backoff, within the intensity; past that, dispatches fail with the reason. An
/// attempt whose worker panicked before any output is launched again on the new one.
///
/// One value serves one engine; its actor ends with this value or with the engine.
///
/// ```
/// use adjutant::{InProcSpawner, Intensity, SpawnerAdapter, Supervised, WorkerResult};
/// use std::{sync::Arc, time::Duration};
///
/// let build = || -> Result<Arc<dyn SpawnerAdapter>, String> {
///     let mut agents = InProcSpawner::new();
///     agents.register("echo", |call| async move {
///         Ok(WorkerResult { value: call.prompt.into(), ok: true })
///     });
///     Ok(Arc::new(agents))
/// };
/// let intensity = Intensity { restarts: 5, within: Duration::from_secs(60), ..Intensity::default() };
/// let spawner: Arc<dyn SpawnerAdapter> = Arc::new(Supervised::new("agents", build).intensity(intensity));
/// # let _ = spawner;
/// ```
pub struct Supervised {
    name: String,
    factory: Factory,
    intensity: Intensity,
    seat: OnceCell<Arc<SpawnerSeat>>,
}

impl Supervised {
    /// Supervises what `factory` builds, with the default intensity: 3 rebuilds within 10 s.
    pub fn new<F>(name: impl Into<String>, factory: F) -> Self
    where
        F: Fn() -> Result<Arc<dyn SpawnerAdapter>, String> + Send + Sync + 'static,
    {
        let factory: Factory =
            Arc::new(move || factory().map(|spawner| -> Built { Arc::new(Product(spawner)) }));
        Self { name: name.into(), factory, intensity: Intensity::default(), seat: OnceCell::new() }
    }

    /// Sets how often it may be rebuilt.
    #[must_use]
    pub fn intensity(mut self, intensity: Intensity) -> Self {
        self.intensity = intensity;
        self
    }

    async fn seat(&self, engine: &Engine) -> Result<&Arc<SpawnerSeat>, SpawnError> {
        self.seat
            .get_or_try_init(|| {
                engine.system().supervise(self.name.clone(), self.factory.clone(), self.intensity)
            })
            .await
            .map_err(|error| SpawnError::Internal(error.to_string()))
    }

    /// The spawner as it is built now; waits for a rebuild that is under way.
    async fn check_out(
        &self,
        seat: &SpawnerSeat,
    ) -> Result<(Arc<dyn SpawnerAdapter>, u64), SpawnError> {
        let dead = || SpawnError::Internal(format!("the actor of spawner {} is dead", self.name));
        let (reply, answer) = oneshot::channel();
        if !seat.tell(SpawnerMsg::Checkout(reply)) {
            return Err(dead());
        }
        let (built, generation) =
            answer.await.map_err(|_| dead())?.map_err(SpawnError::Internal)?;
        let product = (built as Arc<dyn Any + Send + Sync>)
            .downcast::<Product>()
            .map_err(|_| SpawnError::Internal("a factory built something else".to_owned()))?;
        Ok((product.0.clone(), generation))
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        if let Some(seat) = self.seat.get() {
            seat.retire();
        }
    }
}

/// Tells the spawner's actor that the product of a generation panicked.
fn report(seat: &SpawnerSeat, generation: u64, panic: &(dyn Any + Send)) {
    // One that is dead builds anew when it is started again.
    let _ = seat.tell(SpawnerMsg::Broke(generation, panic_text(panic)));
}

#[async_trait]
impl SpawnerAdapter for Supervised {
    async fn spawn(
        &self,
        engine: &Engine,
        ctx: &Ctx,
        task_id: TaskId,
        attempt: u32,
        token: CapToken,
    ) -> Result<Box<dyn Worker>, SpawnError> {
        let seat = self.seat(engine).await?;
        let (spawner, generation) = self.check_out(seat).await?;
        let spawn = spawner.spawn(engine, ctx, task_id, attempt, token);
        match AssertUnwindSafe(spawn).catch_unwind().await {
            Ok(Ok(worker)) => Ok(Box::new(Watched { worker, seat: seat.clone(), generation })),
            Ok(Err(error)) => Err(error),
            Err(panic) => {
                report(seat, generation, &*panic);
                resume_unwind(panic)
            }
        }
    }

    fn launch_restarts(&self) -> u32 {
        self.intensity.restarts
    }
}

/// A worker whose panic is reported before it goes on.
struct Watched {
    worker: Box<dyn Worker>,
    seat: Arc<SpawnerSeat>,
    generation: u64,
}

#[async_trait]
impl Worker for Watched {
    fn id(&self) -> &WorkerId {
        self.worker.id()
    }

    fn cancel_token(&self) -> CancellationToken {
        self.worker.cancel_token()
    }

    async fn join(self: Box<Self>) -> Result<(), WorkerError> {
        let Self { worker, seat, generation } = *self;
        match AssertUnwindSafe(worker.join()).catch_unwind().await {
            Ok(end) => end,
            Err(panic) => {
                report(&seat, generation, &*panic);
                resume_unwind(panic)
            }
        }
    }
}
