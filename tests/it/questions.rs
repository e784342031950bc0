//! Questions, pauses and verdicts from outside.

use std::time::Duration;

use adjutant::{
    DispatchOptions, DispatchOutcome, EngineError, InProcSpawner, SpawnerAdapter, TaskStatus,
};
use serde_json::json;
use std::sync::Arc;

use crate::faulty::{Fault, faulty};
use crate::world::{World, agents, done, eventually, soon};

#[tokio::test(start_paused = true)]
async fn the_clock_of_an_attempt_stands_still_while_its_question_is_open() {
    let world = World::new().await;
    let task = world.start("any").await;
    let (spawner, probe) = faulty(Fault::Hang);
    let (engine, token) = (world.engine.clone(), world.operator.clone());
    let options =
        DispatchOptions { timeout: Some(Duration::from_secs(60)), ..DispatchOptions::default() };
    let run =
        tokio::spawn(async move { engine.dispatch_with(&token, &task, &spawner, options).await });
    eventually("the worker", || async { probe.asked() == 1 }).await;
    tokio::time::sleep(Duration::from_secs(40)).await;
    let key = world.engine.query_senior(&world.operator, &task, json!("?")).await.unwrap();
    tokio::time::sleep(Duration::from_secs(7 * 24 * 3600)).await;
    assert_eq!(world.status(task).await, TaskStatus::Suspended);
    world.engine.answer_query(&world.senior, key, json!("go on")).await.unwrap();
    let resumed = tokio::time::Instant::now();
    assert_eq!(run.await.unwrap(), Ok(DispatchOutcome::Timeout));
    let left = resumed.elapsed().as_secs();
    assert!((19..=21).contains(&left), "{left} s were left");
    world.at_rest().await;
}

#[tokio::test]
async fn a_worker_that_leaves_while_its_question_is_open_leaves_the_task_suspended() {
    let world = World::new().await;
    let task = world.start("leaves").await;
    let (open, gate) = tokio::sync::watch::channel(false);
    let mut spawner = InProcSpawner::new();
    spawner.register("leaves", move |_| {
        let mut gate = gate.clone();
        async move {
            gate.wait_for(|open| *open).await.unwrap();
            Err(adjutant::WorkerError::Failed("went home".into()))
        }
    });
    let spawner: Arc<dyn SpawnerAdapter> = Arc::new(spawner);
    let run = world.run(task, &spawner);
    let running = async || world.status(task).await == TaskStatus::Running;
    eventually("the attempt", running).await;
    let engine = &world.engine;
    let key = engine.query_senior(&world.operator, &task, json!("?")).await.unwrap();
    open.send(true).unwrap();
    assert_eq!(soon("run", run).await.unwrap(), Ok(DispatchOutcome::Suspended(key)));
    assert_eq!(world.status(task).await, TaskStatus::Suspended);
    let refused = engine.dispatch_attempt_with(&world.operator, &task, &agents()).await;
    assert!(matches!(refused, Err(EngineError::InvalidTransition(_))), "{refused:?}");
    engine.answer_query(&world.senior, key, json!("!")).await.unwrap();
    assert_eq!(world.status(task).await, TaskStatus::Running);
    let mut pass = InProcSpawner::new();
    pass.register("leaves", |_| async { done(json!("second"), true) });
    let pass: Arc<dyn SpawnerAdapter> = Arc::new(pass);
    let outcome = world.run(task, &pass).await.unwrap();
    assert_eq!(outcome, Ok(DispatchOutcome::Pass(json!("second"))));
    world.at_rest().await;
}

#[tokio::test]
async fn one_question_is_open_at_a_time_and_its_first_answer_wins() {
    let world = World::new().await;
    let (engine, operator, senior) = (&world.engine, &world.operator, &world.senior);
    let task = world.start("any").await;
    let key = engine.query_senior(operator, &task, json!("?")).await.unwrap();
    let second = engine.query_senior(operator, &task, json!("?")).await;
    assert!(matches!(second, Err(EngineError::InvalidTransition(_))), "{second:?}");
    let observer = engine.answer_query(&world.observer, key, json!(0)).await;
    assert!(matches!(observer, Err(EngineError::RoleViolation { .. })), "{observer:?}");
    engine.answer_query(senior, key, json!(1)).await.unwrap();
    let late = engine.answer_query(senior, key, json!(2)).await;
    assert!(matches!(late, Err(EngineError::InvalidTransition(_))), "{late:?}");
    let key = engine.query_senior(operator, &task, json!("?")).await.unwrap();
    engine.cancel_task(operator, &task).await.unwrap();
    assert!(engine.resume(key, json!(3)).await.is_err(), "a cancelled task was resumed");
    assert_eq!(world.status(task).await, TaskStatus::Cancelled);
    world.at_rest().await;
}

#[tokio::test]
async fn paused_dispatches_wait_and_go_on_in_their_order() {
    let world = World::new().await;
    let (engine, senior) = (&world.engine, &world.senior);
    engine.pause_dispatch(senior).await.unwrap();
    let mut tasks = Vec::new();
    let mut runs = Vec::new();
    for _ in 0..10 {
        let task = world.start("pass").await;
        tasks.push(task);
        runs.push(world.run(task, &agents()));
        tokio::task::yield_now().await;
        engine.with_state("let it queue", |_| ()).await.unwrap();
    }
    let gone = tasks.remove(4);
    engine.cancel_task(&world.operator, &gone).await.unwrap();
    let refused = soon("the cancelled one", runs.remove(4)).await.unwrap();
    assert!(matches!(refused, Err(EngineError::InvalidTransition(_))), "{refused:?}");
    for task in &tasks {
        assert_eq!(world.status(*task).await, TaskStatus::Pending);
    }
    engine.resume_dispatch(senior).await.unwrap();
    for run in runs {
        assert!(matches!(soon("run", run).await.unwrap(), Ok(DispatchOutcome::Pass(_))));
    }
    let started = world.events().await.into_iter().filter_map(|record| match record.event {
        adjutant::Event::TaskAttemptStarted { task_id, .. } => Some(task_id),
        _ => None,
    });
    assert_eq!(started.collect::<Vec<_>>(), tasks);
    world.at_rest().await;
}

#[tokio::test]
async fn a_directive_reaches_the_next_attempt_and_overrides_end_the_live_one() {
    let world = World::new().await;
    let (engine, operator, senior) = (&world.engine, &world.operator, &world.senior);
    let task = world.start("pass").await;
    engine.inject_directive(senior, &task, "do it better").await.unwrap();
    let outcome = world.run(task, &agents()).await.unwrap();
    assert_eq!(outcome, Ok(DispatchOutcome::Pass(json!({ "echo": "do it better" }))));
    let task = world.start("any").await;
    let (spawner, probe) = faulty(Fault::Hang);
    let run = world.run(task, &spawner);
    eventually("the worker", || async { probe.asked() == 1 }).await;
    engine.override_verdict(senior, &task, true, json!("fine")).await.unwrap();
    assert_eq!(soon("run", run).await.unwrap(), Ok(DispatchOutcome::Cancelled));
    let state = engine.read_task_state(operator, &task).await.unwrap();
    assert_eq!((state.status, state.last_result), (TaskStatus::Pass, Some(json!("fine"))));
    assert_eq!(probe.asked_to_stop(), 1);
    for result in [
        engine.cancel_task(operator, &task).await,
        engine.override_verdict(senior, &task, false, json!(1)).await,
        engine.inject_directive(senior, &task, "x").await,
        engine.mark_blocked(operator, &task, json!(1)).await,
    ] {
        assert!(matches!(result, Err(EngineError::InvalidTransition(_))), "{result:?}");
    }
    world.at_rest().await;
}
