//! What the load dispatches to: workers and spawners that do their work, or break in some way.

use std::sync::Arc;
use std::time::Duration;

use adjutant::{
    CapToken, Ctx, Engine, InProcSpawner, OutputEvent, ProcessSpawner, SpawnError, SpawnerAdapter,
    TaskId, Worker, WorkerError, WorkerInvocation, WorkerResult, async_trait,
};
use serde_json::json;

/// Functions that pass, block, fail, panic, hang, and talk much.
pub(crate) fn functions() -> Arc<dyn SpawnerAdapter> {
    let mut agents = InProcSpawner::new();
    agents.register("pass", |call| async move {
        Ok(WorkerResult { value: json!({ "echo": call.prompt }), ok: true })
    });
    agents.register("block", |_| async { Ok(WorkerResult { value: json!("no"), ok: false }) });
    agents.register("fail", |_| async { Err(WorkerError::Failed("broke".to_owned())) });
    agents.register("panic", |_| async { panic!("the worker's own panic") });
    agents.register("hang", |_| std::future::pending());
    agents.register("slow", |_| async {
        tokio::time::sleep(Duration::from_millis(30)).await;
        Ok(WorkerResult { value: json!("late"), ok: true })
    });
    agents.register("talk", |call: WorkerInvocation| async move {
        for part in 0..20 {
            let Some(sink) = &call.sink else { break };
            let chunk = json!({ "part": part, "text": "x".repeat(500) });
            let sent = sink.emit(OutputEvent::Partial { chunk }).await;
            sent.map_err(|error| WorkerError::Failed(error.to_string()))?;
        }
        // Large enough to be kept apart from the events.
        Ok(WorkerResult { value: json!("y".repeat(40_000)), ok: true })
    });
    Arc::new(agents)
}

/// Children that echo, fail, never end, and leave a grandchild behind.
pub(crate) fn children() -> [Arc<dyn SpawnerAdapter>; 4] {
    ["cat", "exit 3", "sleep 60", "sleep 60 & echo left"]
        .map(|line| Arc::new(ProcessSpawner::run(line).use_stdin(line == "cat")) as _)
}

/// What becomes of a launch.
#[derive(Clone, Copy)]
enum Launch {
    Refuses,
    Panics,
    Hangs,
}

struct Faulty(Launch);

#[async_trait]
impl SpawnerAdapter for Faulty {
    async fn spawn(
        &self,
        _: &Engine,
        _: &Ctx,
        _: TaskId,
        _: u32,
        _: CapToken,
    ) -> Result<Box<dyn Worker>, SpawnError> {
        match self.0 {
            Launch::Refuses => Err(SpawnError::Internal("no room".to_owned())),
            Launch::Panics => panic!("the spawner's own panic"),
            Launch::Hangs => std::future::pending().await,
        }
    }
}

/// Spawners that refuse, panic and hang; the last one panics under a supervisor.
pub(crate) fn faulty() -> [Arc<dyn SpawnerAdapter>; 3] {
    [Launch::Refuses, Launch::Panics, Launch::Hangs]
        .map(|launch| Arc::new(Faulty(launch)) as Arc<dyn SpawnerAdapter>)
}
