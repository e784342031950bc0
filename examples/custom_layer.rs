//! A layer of one's own: it refuses agents that are not on a list, and adds to each attempt how
//! long its worker took. Programs ask for it by the key `stopwatch`.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::sync::Arc;
use std::time::Duration;

use adjutant::{
    CancellationToken, CapToken, ContentRef, Ctx, Engine, EngineCfg, EngineError, InProcSpawner,
    LayerRegistry, OutputEvent, Role, SpawnError, SpawnerAdapter, SpawnerLayer, TaskId, TaskSpec,
    Worker, WorkerError, WorkerId, WorkerResult, async_trait, link,
};
use serde_json::json;
use tokio::time::Instant;

/// The layer; `wrap` makes one [`Timed`] around what it is put on.
struct Stopwatch {
    allowed: &'static [&'static str],
}

impl SpawnerLayer for Stopwatch {
    fn wrap(&self, inner: Arc<dyn SpawnerAdapter>) -> Arc<dyn SpawnerAdapter> {
        Arc::new(Timed { inner, allowed: self.allowed })
    }
}

struct Timed {
    inner: Arc<dyn SpawnerAdapter>,
    allowed: &'static [&'static str],
}

#[async_trait]
impl SpawnerAdapter for Timed {
    async fn spawn(
        &self,
        engine: &Engine,
        ctx: &Ctx,
        task_id: TaskId,
        attempt: u32,
        token: CapToken,
    ) -> Result<Box<dyn Worker>, SpawnError> {
        if !self.allowed.contains(&ctx.agent.as_str()) {
            let reason = format!("agent {} is not on the list", ctx.agent);
            return Err(SpawnError::RejectedByMiddleware(reason));
        }
        let since = Instant::now();
        let worker = self.inner.spawn(engine, ctx, task_id, attempt, token).await?;
        Ok(Box::new(TimedWorker { worker, engine: engine.unanchored(), task_id, attempt, since }))
    }

    fn launch_restarts(&self) -> u32 {
        self.inner.launch_restarts()
    }
}

struct TimedWorker {
    worker: Box<dyn Worker>,
    engine: Engine,
    task_id: TaskId,
    attempt: u32,
    since: Instant,
}

#[async_trait]
impl Worker for TimedWorker {
    fn id(&self) -> &WorkerId {
        self.worker.id()
    }

    fn cancel_token(&self) -> CancellationToken {
        self.worker.cancel_token()
    }

    /// The attempt is still live here, so a layer may append to its output. It never rewrites.
    async fn join(self: Box<Self>) -> Result<(), WorkerError> {
        let Self { worker, engine, task_id, attempt, since } = *self;
        let end = worker.join().await;
        let took = json!({ "took_us": since.elapsed().as_micros().to_string() });
        let event = OutputEvent::Artifact {
            name: "stopwatch".to_owned(),
            content: ContentRef::inline(took),
        };
        if let Err(error) = engine.append_output_trusted(&task_id, attempt, event).await {
            println!("the time of {task_id} is lost: {error}");
        }
        end
    }
}

#[tokio::main]
async fn main() -> Result<(), EngineError> {
    let layers = LayerRegistry::new()
        .with_hint("stopwatch", |_engine| Arc::new(Stopwatch { allowed: &["shout"] }));
    let engine = Engine::new_with_layers(EngineCfg::default(), layers);
    let operator = engine.attach("ann", Role::Operator, Duration::from_secs(60)).await?;
    let mut agents = InProcSpawner::new();
    for agent in ["shout", "whisper"] {
        agents.register(agent, |call| async move {
            Ok(WorkerResult { value: call.prompt.to_uppercase().into(), ok: true })
        });
    }
    let spawner = link(Arc::new(agents), &["stopwatch".to_owned()], &engine);
    for agent in ["shout", "whisper"] {
        let task = engine.start_task(&operator, TaskSpec::new(agent, "hello")).await?;
        match engine.dispatch_attempt_with(&operator, &task, &spawner).await {
            Ok(outcome) => println!("{agent}: {outcome:?}"),
            Err(error) => println!("{agent}: {error}"),
        }
        for event in engine.output_tail(&task, 1).await {
            println!("  {event:?}");
        }
    }
    Ok(())
}
