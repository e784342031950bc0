//! A spawner of one's own: each worker computes on a thread of its own, reports progress, and
//! stops when it is asked to.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::sync::Arc;
use std::time::Duration;

use adjutant::{
    CancellationToken, CapToken, ContentRef, Ctx, Engine, EngineCfg, EngineError, OutputEvent,
    Role, SpawnError, SpawnerAdapter, TaskId, TaskSpec, Worker, WorkerError, WorkerJoinHandler,
    async_trait,
};
use serde_json::json;
use tokio::sync::oneshot;

/// Counts the primes below the number in the prompt.
struct PrimeSpawner;

#[async_trait]
impl SpawnerAdapter for PrimeSpawner {
    async fn spawn(
        &self,
        engine: &Engine,
        ctx: &Ctx,
        task_id: TaskId,
        attempt: u32,
        token: CapToken,
    ) -> Result<Box<dyn Worker>, SpawnError> {
        if ctx.agent != "primes" {
            return Err(SpawnError::NotRegistered(ctx.agent.clone()));
        }
        let internal = |error: EngineError| SpawnError::Internal(error.to_string());
        let prompt = engine.fetch_prompt(&token, &task_id).await.map_err(internal)?;
        let below: u64 = prompt
            .trim()
            .parse()
            .map_err(|_| SpawnError::Internal(format!("{prompt:?} is no number")))?;
        let cancel = CancellationToken::new();
        let (done, completion) = oneshot::channel();
        // A worker must not keep the engine alive, so it gets a clone that does not.
        let job = Job { engine: engine.unanchored(), token, task_id, attempt, below };
        let stop = cancel.clone();
        tokio::spawn(async move {
            let _ = done.send(job.run(stop).await);
        });
        Ok(Box::new(WorkerJoinHandler { worker_id: engine.mint().worker_id(), cancel, completion }))
    }
}

struct Job {
    engine: Engine,
    token: CapToken,
    task_id: TaskId,
    attempt: u32,
    below: u64,
}

impl Job {
    /// Sends output with the worker's own token; the last Final is the attempt's verdict.
    async fn run(self, stop: CancellationToken) -> Result<(), WorkerError> {
        let note = Some(format!("below {}", self.below));
        self.emit(OutputEvent::Progress { stage: "counting".to_owned(), note }).await?;
        let below = self.below;
        let counting = tokio::task::spawn_blocking(move || count_primes(below, &stop));
        let failed = |error: tokio::task::JoinError| WorkerError::Failed(error.to_string());
        let count = counting.await.map_err(failed)?.ok_or(WorkerError::Cancelled)?;
        let content = ContentRef::inline(json!({ "below": below, "primes": count }));
        self.emit(OutputEvent::Final { content, ok: true }).await
    }

    async fn emit(&self, event: OutputEvent) -> Result<(), WorkerError> {
        let sent = self.engine.submit_output(&self.token, &self.task_id, self.attempt, event).await;
        sent.map_err(|error| WorkerError::Failed(error.to_string()))
    }
}

/// `None` where it was asked to stop.
fn count_primes(below: u64, stop: &CancellationToken) -> Option<usize> {
    let mut primes: Vec<u64> = Vec::new();
    for number in 2..below {
        if stop.is_cancelled() {
            return None;
        }
        let small = primes.iter().take_while(|prime| *prime * *prime <= number);
        if small.into_iter().all(|prime| !number.is_multiple_of(*prime)) {
            primes.push(number);
        }
    }
    Some(primes.len())
}

#[tokio::main]
async fn main() -> Result<(), EngineError> {
    let engine = Engine::new(EngineCfg::default());
    let operator = engine.attach("ann", Role::Operator, Duration::from_secs(60)).await?;
    let spawner: Arc<dyn SpawnerAdapter> = Arc::new(PrimeSpawner);
    let task = engine.start_task(&operator, TaskSpec::new("primes", "20000")).await?;
    let outcome = engine.dispatch_attempt_with(&operator, &task, &spawner).await?;
    println!("{outcome:?}");
    for event in engine.output_tail(&task, 1).await {
        println!("{event:?}");
    }
    Ok(())
}
