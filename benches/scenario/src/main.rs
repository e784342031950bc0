//! The scenario whose instructions `.ci/instructions` counts: lifecycles, turns, polls and beats
//! one after the other, on one thread, as many as it is told.

use std::sync::Arc;
use std::time::Duration;

use adjutant::{
    CapToken, DispatchOutcome, Engine, InProcSpawner, Role, SpawnerAdapter, TaskSpec, Verb,
    WorkerInvocation, WorkerResult,
};

#[path = "../../calm.rs"]
mod calm;

const DAY: Duration = Duration::from_secs(24 * 3600);

async fn lifecycle(engine: &Engine, token: &CapToken, spawner: &Arc<dyn SpawnerAdapter>) {
    let task = engine.start_task(token, TaskSpec::new("echo", "the directive")).await;
    let task = task.expect("a task is started");
    let outcome = engine.dispatch_attempt_with(token, &task, spawner).await;
    assert!(matches!(outcome, Ok(DispatchOutcome::Pass(_))), "a lifecycle passes");
    engine.poll_task(token, &task, Duration::ZERO).await.expect("a look at the task");
    engine.verify_token(token, Verb::PollTask).await.expect("the token is good");
    engine.heartbeat(token).await.expect("the session beats");
    for _ in 0..10 {
        engine.with_state("count", |_| ()).await.expect("a turn runs");
    }
}

async fn scenario(times: usize) {
    let mut cfg = calm::calm();
    cfg.retention.settled_tasks = 32;
    let engine = Engine::new(cfg);
    let token = engine.attach("ann", Role::Operator, DAY).await.expect("a session");
    let mut spawner = InProcSpawner::new();
    spawner.register("echo", |call: WorkerInvocation| async move {
        Ok(WorkerResult { value: call.prompt.into(), ok: true })
    });
    let spawner: Arc<dyn SpawnerAdapter> = Arc::new(spawner);
    for _ in 0..times {
        lifecycle(&engine, &token, &spawner).await;
    }
}

fn main() {
    let times = std::env::var("ADJUTANT_SCENARIO_TIMES").ok().and_then(|text| text.parse().ok());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime can be built").block_on(scenario(times.unwrap_or(100)));
}
