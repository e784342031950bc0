//! Waiting: no wake-up is lost, no poll returns early, a dropped poll leaves nothing behind.

use std::time::Duration;

use adjutant::{EngineError, TaskStatus};
use serde_json::json;

use crate::world::{LONG, World, children, eventually, soon};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_polls_that_register_while_their_tasks_finish_all_return() {
    let world = World::new().await;
    let mut tasks = Vec::new();
    for _ in 0..10_000 {
        tasks.push(world.start("any").await);
    }
    let polls: Vec<_> = tasks.iter().map(|task| world.poll(*task)).collect();
    let ends: Vec<_> = tasks
        .chunks(1_000)
        .map(|part| {
            let (engine, token, part) =
                (world.engine.clone(), world.operator.clone(), part.to_vec());
            tokio::spawn(async move {
                for task in part {
                    engine.mark_pass(&token, &task, json!(1)).await.unwrap();
                }
            })
        })
        .collect();
    for end in ends {
        end.await.unwrap();
    }
    for poll in polls {
        assert_eq!(soon("poll", poll).await.unwrap().unwrap().status, TaskStatus::Pass);
    }
    eventually("no waiter", || async { children(&world.engine).len() == 1 }).await;
    world.at_rest().await;
}

#[tokio::test]
async fn a_thousand_polls_on_one_task_all_hear_of_its_end() {
    let world = World::new().await;
    let task = world.start("any").await;
    let polls: Vec<_> = (0..1_000).map(|_| world.poll(task)).collect();
    eventually("a waiter", || async { children(&world.engine).len() == 2 }).await;
    world.engine.cancel_task(&world.operator, &task).await.unwrap();
    for poll in polls {
        assert_eq!(soon("poll", poll).await.unwrap().unwrap().status, TaskStatus::Cancelled);
    }
}

#[tokio::test]
async fn dropped_polls_leave_no_waiter() {
    let world = World::new().await;
    let task = world.start("any").await;
    let polls: Vec<_> = (0..100).map(|_| world.poll(task)).collect();
    eventually("a waiter", || async { children(&world.engine).len() == 2 }).await;
    for poll in polls {
        poll.abort();
    }
    eventually("no waiter", || async { children(&world.engine).len() == 1 }).await;
}

#[tokio::test(start_paused = true)]
async fn a_poll_ends_at_its_hold_and_a_hold_of_zero_only_looks() {
    let world = World::new().await;
    let (engine, token) = (&world.engine, &world.operator);
    let task = world.start("any").await;
    let state = engine.poll_task(token, &task, Duration::ZERO).await.unwrap();
    assert_eq!(state.status, TaskStatus::Pending);
    let start = tokio::time::Instant::now();
    let late = engine.poll_task(token, &task, Duration::from_secs(7)).await;
    assert_eq!(late, Err(EngineError::PollTimeout));
    assert_eq!(start.elapsed().as_secs(), 7);
    let clamped = engine.poll_task(token, &task, Duration::from_secs(400 * 24 * 3600)).await;
    assert_eq!(clamped, Err(EngineError::PollTimeout));
    assert_eq!(start.elapsed().as_secs(), 7 + engine.cfg().long_hold.max_hold.as_secs());
}

#[tokio::test(start_paused = true)]
async fn a_poll_of_two_days_costs_no_timer_storm() {
    let world = World::new().await;
    let task = world.start("any").await;
    let before = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let poll = world.poll(task);
    let (engine, token) = (world.engine.clone(), world.operator.clone());
    let end = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(2 * 24 * 3600 / 60)).await;
        engine.cancel_task(&token, &task).await.unwrap();
    });
    end.await.unwrap();
    assert_eq!(soon("poll", poll).await.unwrap().unwrap().status, TaskStatus::Cancelled);
    let task = world.start("any").await;
    let hold = Duration::from_secs(2 * 24 * 3600);
    let waited = world.engine.poll_task(&world.operator, &task, hold).await;
    assert_eq!(waited, Err(EngineError::PollTimeout));
    let after =
        || async { tokio::runtime::Handle::current().metrics().num_alive_tasks() <= before };
    eventually("the waiters' end", after).await;
}

#[tokio::test]
async fn a_resumed_task_does_not_end_a_poll() {
    let world = World::new().await;
    let (engine, token) = (&world.engine, &world.operator);
    let task = world.start("any").await;
    let key = engine.query_senior(token, &task, json!("?")).await.unwrap();
    let state = engine.poll_task(token, &task, LONG).await.unwrap();
    assert_eq!((state.status, state.suspended_on), (TaskStatus::Suspended, Some(key)));
    engine.resume(key, json!("!")).await.unwrap();
    let poll = world.poll(task);
    eventually("a waiter", || async { children(engine).len() == 2 }).await;
    engine.inject_directive(&world.senior, &task, "a change that ends no poll").await.unwrap();
    assert!(!poll.is_finished());
    engine.mark_blocked(token, &task, json!(0)).await.unwrap();
    assert_eq!(soon("poll", poll).await.unwrap().unwrap().status, TaskStatus::Blocked);
}

#[tokio::test(start_paused = true)]
async fn everybody_who_awaits_an_answer_sees_the_one_answer() {
    let world = World::new().await;
    let engine = &world.engine;
    let task = world.start("any").await;
    let key = engine.query_senior(&world.operator, &task, json!("?")).await.unwrap();
    assert_eq!(engine.await_resume(key, Duration::ZERO).await, Err(EngineError::PollTimeout));
    let before: Vec<_> = (0..10)
        .map(|_| {
            let engine = engine.clone();
            tokio::spawn(async move { engine.await_resume(key, LONG * 1_000).await })
        })
        .collect();
    tokio::time::sleep(LONG * 100).await;
    engine.answer_query(&world.senior, key, json!("yes")).await.unwrap();
    for wait in before {
        assert_eq!(soon("answer", wait).await.unwrap(), Ok(json!("yes")));
    }
    assert_eq!(engine.await_resume(key, Duration::ZERO).await, Ok(json!("yes")));
    let other = world.start("any").await;
    let key = engine.query_senior(&world.operator, &other, json!("?")).await.unwrap();
    let wait = {
        let engine = engine.clone();
        tokio::spawn(async move { engine.await_resume(key, LONG).await })
    };
    tokio::time::sleep(Duration::from_secs(1)).await;
    engine.cancel_task(&world.operator, &other).await.unwrap();
    assert_eq!(wait.await.unwrap(), Err(EngineError::Cancelled));
}
