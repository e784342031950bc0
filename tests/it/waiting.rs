//! Waiting: no wake-up is lost, nothing but an end ends a poll, nothing stays behind.

use std::time::Duration;

use adjutant::{EngineCfg, EngineError, LongHoldConfig, TaskId, TaskStatus};
use serde_json::json;
use tokio::time::Instant;

use crate::faulty::{Fault, faulty};
use crate::world::{LONG, World, agents, calm, children, eventually, soon};

const DAY: Duration = Duration::from_secs(24 * 3600);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_polls_return_while_their_tasks_finish() {
    let world = World::new().await;
    let mut tasks = Vec::new();
    for _ in 0..10_000 {
        tasks.push(world.start("any").await);
    }
    let marker = {
        let (engine, token, tasks) = (world.engine.clone(), world.operator.clone(), tasks.clone());
        tokio::spawn(async move {
            for task in tasks {
                engine.mark_pass(&token, &task, json!("ok")).await.unwrap();
            }
        })
    };
    // Every poll is spawned beside the marks, so that each order of the two occurs.
    let began = Instant::now();
    let polls: Vec<_> = tasks.iter().map(|task| world.poll(*task)).collect();
    let mut states = Vec::new();
    for poll in polls {
        let state = tokio::time::timeout(LONG * 2, poll).await.expect("a wake-up was lost");
        states.push(state.unwrap().unwrap());
    }
    marker.await.unwrap();
    assert!(states.iter().all(|state| state.status == TaskStatus::Pass));
    assert!(states.iter().map(|state| state.id).eq(tasks));
    assert!(began.elapsed() < LONG * 2, "{:?}", began.elapsed());
    eventually("the waiters' end", || async { children(&world.engine).len() == 1 }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poll_that_meets_the_very_end_is_answered() {
    let world = World::new().await;
    for _ in 0..500 {
        let task = world.start("any").await;
        let (engine, token) = (world.engine.clone(), world.operator.clone());
        let mark =
            tokio::spawn(async move { engine.mark_pass(&token, &task, json!(1)).await.unwrap() });
        let state = soon("poll", world.poll(task)).await.unwrap().unwrap();
        assert_eq!(state.status, TaskStatus::Pass);
        mark.await.unwrap();
    }
}

#[tokio::test]
async fn a_thousand_polls_on_one_task_are_woken_by_one_change() {
    let world = World::new().await;
    let task = world.start("any").await;
    let polls: Vec<_> = (0..1_000).map(|_| world.poll(task)).collect();
    eventually("the waiter", || async { children(&world.engine).len() == 2 }).await;
    world.engine.cancel_task(&world.operator, &task).await.unwrap();
    for poll in polls {
        let state = soon("poll", poll).await.unwrap().unwrap();
        assert_eq!(state.status, TaskStatus::Cancelled);
    }
    eventually("the waiter's end", || async { children(&world.engine).len() == 1 }).await;
}

#[tokio::test(start_paused = true)]
async fn a_poll_returns_at_an_end_or_a_question_and_at_nothing_else() {
    let world = World::new().await;
    let (spawner, probe) = faulty(Fault::Hang);
    let task = world.start("any").await;
    let snapshot = world.engine.poll_task(&world.operator, &task, Duration::ZERO).await.unwrap();
    assert_eq!(snapshot.status, TaskStatus::Pending, "a hold of zero only looks");
    let poll = world.poll(task);
    let run = world.run(task, &spawner);
    eventually("the worker", || async { probe.asked() == 1 }).await;
    tokio::time::sleep(DAY).await;
    assert!(!poll.is_finished(), "Running ended a poll");
    let key = world.engine.query_senior(&world.operator, &task, json!("?")).await.unwrap();
    let state = soon("poll", poll).await.unwrap().unwrap();
    assert_eq!((state.status, state.suspended_on), (TaskStatus::Suspended, Some(key)));
    world.engine.answer_query(&world.senior, key, json!("!")).await.unwrap();
    let poll = world.poll(task);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!poll.is_finished(), "a resumed task ended a poll");
    world.engine.cancel_task(&world.operator, &task).await.unwrap();
    assert_eq!(soon("poll", poll).await.unwrap().unwrap().status, TaskStatus::Cancelled);
    let _ = soon("dispatch", run).await;
    world.at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn a_change_made_by_hand_wakes_the_pollers_too() {
    let world = World::new().await;
    let task = world.start("any").await;
    let poll = world.poll(task);
    eventually("the poll", || async { children(&world.engine).len() == 2 }).await;
    let now = adjutant::Now { unix: 1_900_000_000, ms: 1 };
    let trusted = adjutant_actors::state::auth::Access::Trusted;
    let cancel = move |state: &mut adjutant::EngineState| state.cancel_task(trusted, task, now);
    world.engine.with_state("by hand", cancel).await.unwrap().unwrap();
    assert_eq!(soon("poll", poll).await.unwrap().unwrap().status, TaskStatus::Cancelled);
}

#[tokio::test(start_paused = true)]
async fn dropped_polls_leave_nothing_behind() {
    let world = World::new().await;
    let tasks: [TaskId; 2] = [world.start("any").await, world.start("any").await];
    for _ in 0..50 {
        let polls: Vec<_> = (0..40).map(|nth| world.poll(tasks[nth % 2])).collect();
        eventually("the waiters", || async { children(&world.engine).len() == 3 }).await;
        for poll in polls {
            poll.abort();
            let _ = poll.await;
        }
        eventually("their end", || async { children(&world.engine).len() == 1 }).await;
    }
    // One that stays is not disturbed by those that leave.
    let stays = world.poll(tasks[0]);
    let leaves = world.poll(tasks[0]);
    eventually("the waiter", || async { children(&world.engine).len() == 2 }).await;
    leaves.abort();
    world.engine.mark_pass(&world.operator, &tasks[0], json!(0)).await.unwrap();
    assert_eq!(soon("poll", stays).await.unwrap().unwrap().status, TaskStatus::Pass);
    eventually("an empty tree", || async { children(&world.engine).len() == 1 }).await;
    assert_eq!(world.engine.queued_turns(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_poll_runs_out_exactly_at_its_hold_and_holds_are_clamped() {
    let long_hold = LongHoldConfig { max_hold: DAY, ..LongHoldConfig::default() };
    let world = World::with(EngineCfg { long_hold, ..calm() }).await;
    let task = world.start("any").await;
    for (asked, held) in [
        (Duration::from_secs(1), Duration::from_secs(1)),
        (Duration::from_secs(3600), Duration::from_secs(3600)),
        (DAY * 2, DAY),
        (Duration::MAX, DAY),
    ] {
        let began = Instant::now();
        let polled = world.engine.poll_task(&world.operator, &task, asked).await;
        assert_eq!(polled, Err(EngineError::PollTimeout));
        let over = began.elapsed().checked_sub(held).expect("it came too early");
        assert!(over < Duration::from_millis(20), "{asked:?}: {over:?} late");
    }
    eventually("the waiters' end", || async { children(&world.engine).len() == 1 }).await;
}

#[tokio::test(start_paused = true)]
async fn a_poll_of_two_days_costs_two_days_of_nothing() {
    let sweep_interval = DAY * 30;
    let mut cfg = calm();
    cfg.retention.sweep_interval = sweep_interval;
    let world = World::with(cfg).await;
    let (spawner, probe) = faulty(Fault::Hang);
    let (task, asked) = (world.start("any").await, world.start("any").await);
    let run = world.run(task, &spawner);
    let key = world.engine.query_senior(&world.operator, &asked, json!("?")).await.unwrap();
    let poll = world.poll(task);
    let (engine, waits) = (world.engine.clone(), DAY * 3);
    let answer = tokio::spawn(async move { engine.await_resume(key, waits).await });
    eventually("all to wait", || async {
        probe.asked() == 1 && children(&world.engine).len() == 4
    })
    .await;
    let metrics = tokio::runtime::Handle::current().metrics();
    let before = metrics.worker_park_unpark_count(0);
    tokio::time::sleep(DAY * 2 - Duration::from_secs(3600)).await;
    let wakeups = metrics.worker_park_unpark_count(0) - before;
    assert!(wakeups < 200, "{wakeups} wake-ups in two days of waiting");
    assert!(!poll.is_finished() && !answer.is_finished());
    world.engine.mark_pass(&world.operator, &task, json!("at last")).await.unwrap();
    let state = soon("poll", poll).await.unwrap().unwrap();
    assert_eq!(state.status, TaskStatus::Pass);
    let ended = answer.await.unwrap();
    assert_eq!(ended, Err(EngineError::PollTimeout), "clamped to two days");
    let _ = soon("dispatch", run).await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_found_before_while_and_after_it_is_awaited() {
    let world = World::new().await;
    let engine = &world.engine;
    let ask = async || {
        let task = world.start("any").await;
        (task, engine.query_senior(&world.operator, &task, json!("?")).await.unwrap())
    };
    let (_, before) = ask().await;
    assert_eq!(
        engine.await_resume(before, Duration::ZERO).await,
        Err(EngineError::PollTimeout),
        "zero only looks"
    );
    engine.answer_query(&world.senior, before, json!(1)).await.unwrap();
    for hold in [Duration::ZERO, LONG] {
        assert_eq!(engine.await_resume(before, hold).await, Ok(json!(1)), "read again");
    }
    let (_, during) = ask().await;
    let waits = {
        let engine = engine.clone();
        tokio::spawn(async move { engine.await_resume(during, DAY).await })
    };
    eventually("the wait", || async { children(engine).len() == 2 }).await;
    engine.resume(during, json!(2)).await.unwrap();
    assert_eq!(soon("answer", waits).await.unwrap(), Ok(json!(2)));
    let (task, cancelled) = ask().await;
    let waits = {
        let engine = engine.clone();
        tokio::spawn(async move { engine.await_resume(cancelled, DAY).await })
    };
    eventually("the wait", || async { children(engine).len() == 2 }).await;
    engine.cancel_task(&world.operator, &task).await.unwrap();
    assert_eq!(soon("answer", waits).await.unwrap(), Err(EngineError::Cancelled));
    assert_eq!(engine.await_resume(cancelled, LONG).await, Err(EngineError::Cancelled));
    let (_, late) = ask().await;
    let began = Instant::now();
    assert_eq!(engine.await_resume(late, LONG).await, Err(EngineError::PollTimeout));
    let over = began.elapsed().checked_sub(LONG).expect("it came too early");
    assert!(over < Duration::from_millis(20), "{over:?}");
    let foreign = engine.mint().resume_key();
    assert_eq!(engine.await_resume(foreign, LONG).await, Err(EngineError::ResumeKeyNotFound));
}

#[tokio::test]
async fn a_poll_of_what_ended_before_returns_at_once() {
    let world = World::new().await;
    let task = world.start("pass").await;
    let _ = world.run(task, &agents()).await.unwrap();
    let state = world.engine.poll_task(&world.operator, &task, DAY).await.unwrap();
    assert_eq!(state.status, TaskStatus::Pass);
    assert!(children(&world.engine).len() <= 2, "no waiter was started");
}
