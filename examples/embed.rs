//! The engine in ten lines: attach, register an agent, start a task, dispatch it.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::{sync::Arc, time::Duration};

use adjutant::{Engine, EngineCfg, EngineError, InProcSpawner, Role, TaskSpec, WorkerResult, link};

#[tokio::main]
async fn main() -> Result<(), EngineError> {
    let engine = Engine::new(EngineCfg::default());
    let operator = engine.attach("ann", Role::Operator, Duration::from_secs(60)).await?;
    let mut agents = InProcSpawner::new();
    agents.register("shout", |call| async move {
        Ok(WorkerResult { value: call.prompt.to_uppercase().into(), ok: true })
    });
    let spawner = link(Arc::new(agents), &[], &engine);
    let task = engine.start_task(&operator, TaskSpec::new("shout", "hello")).await?;
    println!("{:?}", engine.dispatch_attempt_with(&operator, &task, &spawner).await?);
    Ok(())
}
