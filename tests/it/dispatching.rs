//! Dispatch: every outcome is really produced, and every way out decides the task.

use std::time::Duration;

use adjutant::{DispatchOptions, DispatchOutcome, EngineCfg, EngineError, TaskStatus};
use serde_json::json;

use crate::world::{LONG, World, agents, calm, eventually, soon};

#[tokio::test]
async fn the_last_final_decides() {
    let world = World::new().await;
    let (engine, token) = (&world.engine, &world.operator);
    let pass = world.start("pass").await;
    let outcome = engine.dispatch_attempt_with(token, &pass, &agents()).await.unwrap();
    assert_eq!(outcome, DispatchOutcome::Pass(json!({ "echo": "do it" })));
    let block = world.start("block").await;
    let outcome = engine.dispatch_attempt_with(token, &block, &agents()).await.unwrap();
    assert_eq!(outcome, DispatchOutcome::Blocked(json!("no")));
    let state = engine.poll_task(token, &block, LONG).await.unwrap();
    assert_eq!((state.status, state.attempt), (TaskStatus::Blocked, 1));
    world.audit().await;
}

#[tokio::test]
async fn a_worker_that_breaks_blocks_its_task_and_says_why() {
    let world = World::new().await;
    for (agent, reason) in [("panic", "own panic"), ("fail", "broke"), ("nobody", "registered")] {
        let task = world.start(agent).await;
        let result = world.engine.dispatch_attempt_with(&world.operator, &task, &agents()).await;
        let Err(EngineError::DispatchFailed(text)) = result else { panic!("{agent}: {result:?}") };
        assert!(text.contains(reason), "{agent}: {text}");
        let state = world.engine.poll_task(&world.operator, &task, LONG).await.unwrap();
        assert_eq!(state.status, TaskStatus::Blocked, "{agent}");
    }
    world.audit().await;
}

#[tokio::test(start_paused = true)]
async fn an_attempt_ends_at_its_time_out() {
    let world = World::new().await;
    let task = world.start("hang").await;
    let options =
        DispatchOptions { timeout: Some(Duration::from_secs(60)), ..DispatchOptions::default() };
    let outcome =
        world.engine.dispatch_with(&world.operator, &task, &agents(), options).await.unwrap();
    assert_eq!(outcome, DispatchOutcome::Timeout);
    let state = world.engine.read_task_state(&world.operator, &task).await.unwrap();
    assert_eq!(state.status, TaskStatus::Blocked);
    world.audit().await;
}

#[tokio::test]
async fn those_that_wait_for_a_resume_are_bounded_and_who_left_makes_room() {
    let world = World::with(EngineCfg { queue_limit: 2, ..calm() }).await;
    let (engine, senior) = (&world.engine, &world.senior);
    engine.pause_dispatch(senior).await.unwrap();
    let mut runs = Vec::new();
    for _ in 0..3 {
        runs.push(world.run(world.start("pass").await, &agents()));
    }
    let any = futures::future::select_all(runs);
    let (refused, _, waiting) = soon("a refusal", any).await;
    let full =
        EngineError::TableFull { what: "dispatches that wait for a resume", current: 2, max: 2 };
    assert_eq!(refused.unwrap(), Err(full.clone()));
    for run in waiting {
        run.abort();
        assert!(run.await.unwrap_err().is_cancelled());
    }
    let mut runs = Vec::new();
    for _ in 0..2 {
        runs.push(world.run(world.start("pass").await, &agents()));
    }
    let (third, agents) = (world.start("pass").await, agents());
    let refused = || async {
        let run = engine.dispatch_attempt_with(&world.operator, &third, &agents);
        // Where there is room it waits, and leaves again.
        tokio::time::timeout(Duration::from_millis(5), run).await == Ok(Err(full.clone()))
    };
    eventually("both in line", refused).await;
    engine.resume_dispatch(senior).await.unwrap();
    for run in runs {
        let passed = soon("a dispatch", run).await.unwrap().unwrap();
        assert!(matches!(passed, DispatchOutcome::Pass(_)), "{passed:?}");
    }
    world.at_rest().await;
}
