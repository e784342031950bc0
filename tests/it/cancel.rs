//! Cancelling: it reaches the worker, takes the sub-tasks along, and is the last word.

use std::sync::Arc;
use std::time::Duration;

use adjutant::{
    ContentRef, DispatchOutcome, EngineCfg, EngineError, InProcSpawner, OutputEvent,
    SpawnerAdapter, TaskId, TaskOptions, TaskSpec, TaskStatus,
};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::faulty::{Fault, faulty};
use crate::world::{LONG, World, agents, calm, children, eventually, soon};

#[tokio::test(start_paused = true)]
async fn a_cancel_fires_the_workers_token_and_drops_the_function() {
    struct OnDrop(mpsc::UnboundedSender<&'static str>);
    impl Drop for OnDrop {
        fn drop(&mut self) {
            let _ = self.0.send("dropped");
        }
    }
    let world = World::new().await;
    let (tell, mut told) = mpsc::unbounded_channel();
    let mut spawner = InProcSpawner::new();
    spawner.register("works", move |call| {
        let tell = tell.clone();
        async move {
            let _guard = OnDrop(tell.clone());
            let token = call.cancel_token.unwrap();
            let told = tell.clone();
            tokio::spawn(async move {
                token.cancelled().await;
                let _ = told.send("asked");
            });
            let _ = tell.send("began");
            std::future::pending().await
        }
    });
    let spawner: Arc<dyn SpawnerAdapter> = Arc::new(spawner);
    let task = world.start("works").await;
    let dispatched = world.run(task, &spawner);
    assert_eq!(soon("the worker", told.recv()).await, Some("began"));
    let began = Instant::now();
    world.engine.cancel_task(&world.operator, &task).await.unwrap();
    let mut ends = [soon("an end", told.recv()).await, soon("an end", told.recv()).await];
    ends.sort_unstable();
    assert_eq!(ends, [Some("asked"), Some("dropped")]);
    assert_eq!(soon("dispatch", dispatched).await.unwrap(), Ok(DispatchOutcome::Cancelled));
    assert!(began.elapsed() < world.engine.cfg().cancel_grace, "only the force stopped it");
    assert_eq!(world.engine.counts().forced_stops, 0);
    assert_eq!(world.kinds(task).await, ["task_created", "task_attempt_started", "task_cancelled"]);
    world.at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_ignores_its_token_is_stopped_after_the_grace() {
    let grace = Duration::from_secs(7);
    let world = World::with(EngineCfg { cancel_grace: grace, ..calm() }).await;
    let (spawner, probe) = faulty(Fault::Stubborn);
    let task = world.start("stubborn").await;
    let dispatched = world.run(task, &spawner);
    eventually("the worker", || async { probe.asked() == 1 }).await;
    let began = Instant::now();
    world.engine.cancel_task(&world.operator, &task).await.unwrap();
    let state = world.engine.poll_task(&world.operator, &task, LONG).await.unwrap();
    assert_eq!(state.status, TaskStatus::Cancelled, "the status does not wait for the worker");
    assert_eq!(probe.gone(), 0, "the grace is the worker's");
    assert_eq!(soon("dispatch", dispatched).await.unwrap(), Ok(DispatchOutcome::Cancelled));
    assert!(began.elapsed() >= grace && began.elapsed() < grace * 2, "{:?}", began.elapsed());
    eventually("the worker's end", || async { probe.gone() == 1 }).await;
    assert_eq!(world.engine.counts().forced_stops, 1);
    world.at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn a_spawn_that_hangs_is_cancelled_like_a_worker() {
    let world = World::new().await;
    let (spawner, probe) = faulty(Fault::SpawnHang);
    let task = world.start("any").await;
    let dispatched = world.run(task, &spawner);
    eventually("the spawn", || async { probe.asked() == 1 }).await;
    world.engine.cancel_task(&world.operator, &task).await.unwrap();
    assert_eq!(soon("dispatch", dispatched).await.unwrap(), Ok(DispatchOutcome::Cancelled));
    eventually("the spawn's end", || async { probe.gone() == 1 }).await;
    eventually("an empty tree", || async { children(&world.engine).len() == 1 }).await;
    world.at_rest().await;
}

/// A parent with two children, one of which has a child; leaves run, the rest waits.
async fn family(world: &World) -> [TaskId; 4] {
    let engine = &world.engine;
    let parent = world.start("any").await;
    let child = |of| TaskOptions { parent: Some(of), ..TaskOptions::default() };
    let spec = || TaskSpec::new("any", "do it");
    let start = |of| engine.start_task_with(&world.operator, spec(), child(of));
    let (first, second) = (start(parent).await.unwrap(), start(parent).await.unwrap());
    let leaf = start(first).await.unwrap();
    [parent, first, second, leaf]
}

#[tokio::test(start_paused = true)]
async fn a_cancel_takes_the_sub_tasks_and_their_workers_along() {
    let world = World::new().await;
    let (spawner, probe) = faulty(Fault::Hang);
    let tasks = family(&world).await;
    let [parent, first, second, leaf] = tasks;
    world.engine.mark_pass(&world.operator, &second, json!("early")).await.unwrap();
    let runs: Vec<_> = [first, leaf].map(|task| world.run(task, &spawner)).into();
    eventually("the workers", || async { probe.asked() == 2 }).await;
    let engine = world.engine.clone();
    let token = world.operator.clone();
    let poll = tokio::spawn(async move { engine.poll_task(&token, &leaf, LONG).await });
    eventually("the poll", || async { children(&world.engine).len() == 4 }).await;
    world.engine.cancel_task(&world.operator, &parent).await.unwrap();
    assert_eq!(soon("poll", poll).await.unwrap().unwrap().status, TaskStatus::Cancelled);
    for run in runs {
        assert_eq!(soon("dispatch", run).await.unwrap(), Ok(DispatchOutcome::Cancelled));
    }
    assert_eq!(probe.asked_to_stop(), 2, "both workers were asked");
    for (task, status) in tasks.into_iter().zip([
        TaskStatus::Cancelled,
        TaskStatus::Cancelled,
        TaskStatus::Pass,
        TaskStatus::Cancelled,
    ]) {
        assert_eq!(world.status(task).await, status);
    }
    world.at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn a_cancel_spares_the_sub_tasks_where_the_settings_say_so() {
    let world = World::with(EngineCfg { cancel_subtasks: false, ..calm() }).await;
    let [parent, first, _, leaf] = family(&world).await;
    world.engine.cancel_task(&world.operator, &parent).await.unwrap();
    assert_eq!(world.status(parent).await, TaskStatus::Cancelled);
    assert_eq!(world.status(first).await, TaskStatus::Pending);
    let agents = agents();
    let outcome = world.engine.dispatch_attempt_with(&world.operator, &leaf, &agents).await;
    assert!(matches!(outcome, Err(EngineError::DispatchFailed(_))), "{outcome:?}");
    assert_eq!(world.kinds(first).await, ["task_created"]);
    world.at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn a_late_result_does_not_reopen_a_cancelled_task() {
    let world = World::new().await;
    let (tell, mut told) = mpsc::unbounded_channel();
    let mut spawner = InProcSpawner::new();
    spawner.register("late", move |call| {
        let _ = tell.send((call.token.clone(), call.sink.clone().unwrap()));
        async move { std::future::pending().await }
    });
    let spawner: Arc<dyn SpawnerAdapter> = Arc::new(spawner);
    let task = world.start("late").await;
    let dispatched = world.run(task, &spawner);
    let (token, sink) = soon("the worker", told.recv()).await.unwrap();
    world.engine.cancel_task(&world.operator, &task).await.unwrap();
    let before = world.engine.with_state("copy", |state| state.clone()).await.unwrap();
    let event = || OutputEvent::Final { content: ContentRef::inline(json!("late")), ok: true };
    assert_eq!(sink.emit(event()).await, Err(EngineError::TokenRevoked));
    let submitted = world.engine.submit_output(&token, &task, 1, event()).await;
    assert_eq!(submitted, Err(EngineError::TokenRevoked));
    let posted = world.engine.post_result(&token, &task, json!("late")).await;
    assert!(posted.is_err(), "{posted:?}");
    let dispatched = soon("dispatch", dispatched).await.unwrap();
    assert_eq!(dispatched, Ok(DispatchOutcome::Cancelled));
    let again = world.engine.dispatch_attempt_with(&world.operator, &task, &agents()).await;
    assert!(matches!(again, Err(EngineError::InvalidTransition(_))), "{again:?}");
    let after = world.engine.with_state("copy", |state| state.clone()).await.unwrap();
    assert!(before == after, "a late result left a trace");
    assert_eq!(world.status(task).await, TaskStatus::Cancelled);
}

#[tokio::test]
async fn a_final_that_was_sent_does_not_outlive_the_cancel() {
    let world = World::new().await;
    let (spawner, probe) = faulty(Fault::Lingers);
    let task = world.start("lingers").await;
    let dispatched = world.run(task, &spawner);
    let sent = async || world.kinds(task).await.contains(&"worker_output");
    eventually("the final", sent).await;
    world.engine.cancel_task(&world.operator, &task).await.unwrap();
    assert_eq!(world.status(task).await, TaskStatus::Cancelled);
    drop(dispatched);
    assert_eq!(probe.asked(), 1);
    world.at_rest().await;
}

#[tokio::test]
async fn a_second_cancel_is_ok_and_silent_and_a_pass_cannot_be_cancelled() {
    let world = World::new().await;
    let task = world.start("pass").await;
    world.engine.cancel_task(&world.operator, &task).await.unwrap();
    let events = world.events().await;
    assert_eq!(world.engine.cancel_task(&world.operator, &task).await, Ok(()));
    assert_eq!(world.events().await, events);
    let passed = world.start("pass").await;
    world.engine.dispatch_attempt_with(&world.operator, &passed, &agents()).await.unwrap();
    let events = world.events().await;
    let refused = world.engine.cancel_task(&world.operator, &passed).await;
    assert!(matches!(refused, Err(EngineError::InvalidTransition(_))), "{refused:?}");
    assert_eq!(world.events().await, events);
}
