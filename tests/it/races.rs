//! Races in real time on several threads: whoever meets whom, the outcome is one of the lawful ones.
//!
//! Each race runs many rounds of everything at once, and every caller must be answered. No round
//! asks who wins, only that what the callers were told, the task and the log agree.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use adjutant::{
    CapToken, ContentRef, DispatchOptions, DispatchOutcome, EngineError, InProcSpawner,
    OutputEvent, SpawnerAdapter, TaskId, TaskOptions, TaskSpec, TaskStatus,
};
use serde_json::json;
use tokio::sync::Barrier;
use tokio::sync::broadcast::error::TryRecvError;
use tokio::task::JoinHandle;

use crate::faulty::{Fault, faulty};
use crate::world::{World, agents, done, eventually, soon};

/// How many rounds a race runs; `ADJUTANT_RACE_ROUNDS` multiplies it.
fn rounds(number: usize) -> usize {
    let times = std::env::var("ADJUTANT_RACE_ROUNDS").ok();
    number * times.map_or(1, |times| times.parse::<usize>().unwrap())
}

/// Lets `count` callers loose at the same moment, each after its own few yields.
fn race<T, F, Fut>(count: usize, caller: F) -> Vec<JoinHandle<T>>
where
    T: Send + 'static,
    F: Fn(usize) -> Fut,
    Fut: Future<Output = T> + Send + 'static,
{
    let start = Arc::new(Barrier::new(count));
    let one = |nth| {
        let (start, call) = (start.clone(), caller(nth));
        tokio::spawn(async move {
            start.wait().await;
            for _ in 0..nth % 4 {
                tokio::task::yield_now().await;
            }
            call.await
        })
    };
    (0..count).map(one).collect()
}

async fn all<T>(callers: Vec<JoinHandle<T>>) -> Vec<T> {
    let mut answers = Vec::new();
    for caller in callers {
        answers.push(soon("a racer", caller).await.unwrap());
    }
    answers
}

/// How often each of these kinds is in a task's part of the log.
async fn logged<const N: usize>(world: &World, task: TaskId, kinds: [&str; N]) -> [usize; N] {
    let log = world.kinds(task).await;
    kinds.map(|kind| log.iter().filter(|logged| **logged == kind).count())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_poll_misses_the_end_that_comes_while_it_parks() {
    let world = World::new().await;
    for round in 0..rounds(400) {
        let task = world.start("pass").await;
        let spawner = agents();
        let callers = race(6, |nth| {
            let (engine, operator, spawner) =
                (world.engine.clone(), world.operator.clone(), spawner.clone());
            async move {
                match (nth, round % 3) {
                    (0, 0) => engine.cancel_task(&operator, &task).await.unwrap(),
                    (0, 1) => engine.mark_pass(&operator, &task, json!(1)).await.unwrap(),
                    (0, _) => {
                        engine.dispatch_attempt_with(&operator, &task, &spawner).await.unwrap();
                    }
                    _ => {
                        let end = engine.poll_task(&operator, &task, Duration::MAX).await.unwrap();
                        assert!(end.status.is_settled(), "a poll ended at {}", end.status);
                    }
                }
            }
        });
        all(callers).await;
    }
    world.at_rest().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_wait_for_an_answer_misses_it() {
    let world = World::new().await;
    for _ in 0..rounds(300) {
        let task = world.start("any").await;
        let key = world.engine.query_senior(&world.operator, &task, json!("?")).await.unwrap();
        let callers = race(5, |nth| {
            let (engine, senior) = (world.engine.clone(), world.senior.clone());
            async move {
                if nth == 4 {
                    engine.answer_query(&senior, key, json!("!")).await.unwrap();
                    return json!("!");
                }
                engine.await_resume(key, Duration::MAX).await.unwrap()
            }
        });
        assert!(all(callers).await.iter().all(|answer| *answer == json!("!")));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_limited_token_is_spent_exactly_as_often_as_it_says_whatever_it_is_used_for() {
    let world = World::new().await;
    let (spawner, probe) = faulty(Fault::Hang);
    let task = world.start("any").await;
    let run = world.run(task, &spawner);
    eventually("the worker", || async { probe.asked() == 1 }).await;
    for round in 0..rounds(50) {
        let uses = 1 + round % 9;
        let minute = Duration::from_secs(60);
        let limit = Some(u32::try_from(uses).unwrap());
        let minted = world.engine.mint_worker_token(&world.operator, &task, minute, limit).await;
        let token = minted.unwrap();
        let callers = race(16, |nth| use_of(&world, token.clone(), task, nth));
        let answers = all(callers).await;
        let served = answers.iter().filter(|answer| answer.is_ok()).count();
        assert_eq!(served, uses, "round {round}: {answers:?}");
        let spent = |answer: &Result<(), EngineError>| {
            matches!(answer, Ok(()) | Err(EngineError::TokenUsesExhausted))
        };
        assert!(answers.iter().all(spent), "round {round}: {answers:?}");
    }
    world.engine.cancel_task(&world.operator, &task).await.unwrap();
    assert_eq!(soon("dispatch", run).await.unwrap(), Ok(DispatchOutcome::Cancelled));
    world.at_rest().await;
}

/// One use of a worker's token, each racer another verb.
fn use_of(
    world: &World,
    token: CapToken,
    task: TaskId,
    nth: usize,
) -> impl Future<Output = Result<(), EngineError>> + Send + 'static {
    let engine = world.engine.clone();
    async move {
        match nth % 5 {
            0 => engine.read_task_state(&token, &task).await.map(drop),
            1 => engine.post_result(&token, &task, json!(nth)).await,
            2 => engine.fetch_worker_payload(&token, &task).await.map(drop),
            3 => {
                let content = ContentRef::inline(json!(nth));
                let event = OutputEvent::Artifact { name: "a".into(), content };
                engine.submit_output(&token, &task, 1, event).await
            }
            _ => engine.start_task(&token, TaskSpec::new("any", "sub")).await.map(drop),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_racing_dispatches_of_one_task_exactly_one_wins() {
    let world = World::new().await;
    let launched = Arc::new(AtomicUsize::new(0));
    let mut spawner = InProcSpawner::new();
    let count = launched.clone();
    spawner.register("once", move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        async { done(json!("done"), true) }
    });
    let spawner: Arc<dyn SpawnerAdapter> = Arc::new(spawner);
    for round in 1..=rounds(200) {
        let task = world.start("once").await;
        let callers = race(8, |_| {
            let (engine, operator, spawner) =
                (world.engine.clone(), world.operator.clone(), spawner.clone());
            async move { engine.dispatch_attempt_with(&operator, &task, &spawner).await }
        });
        let answers = all(callers).await;
        let won = |answer: &&Result<_, _>| **answer == Ok(DispatchOutcome::Pass(json!("done")));
        let refused = |answer: &&Result<DispatchOutcome, _>| {
            matches!(answer, Err(EngineError::InvalidTransition(_)))
        };
        let (won, refused) =
            (answers.iter().filter(won).count(), answers.iter().filter(refused).count());
        assert_eq!((won, refused), (1, 7), "{answers:?}");
        assert_eq!(launched.load(Ordering::SeqCst), round);
    }
    world.at_rest().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn racing_calls_under_one_key_are_one_call() {
    let world = World::new().await;
    let spawner = agents();
    for round in 0..rounds(100) {
        let callers = race(8, |_| {
            let (engine, operator, spawner) =
                (world.engine.clone(), world.operator.clone(), spawner.clone());
            async move {
                let spec = TaskSpec::new("pass", "do it");
                let keyed = TaskOptions::default().with_key(format!("task-{round}"));
                let task = engine.start_task_with(&operator, spec, keyed).await.unwrap();
                let keyed = DispatchOptions::default().with_key("attempt");
                let outcome = engine.dispatch_with(&operator, &task, &spawner, keyed).await;
                (task, outcome.unwrap())
            }
        });
        let answers = all(callers).await;
        let (task, outcome) = &answers[0];
        assert!(matches!(outcome, DispatchOutcome::Pass(_)), "{outcome:?}");
        assert!(answers.iter().all(|answer| answer == &answers[0]), "{answers:?}");
        assert_eq!(logged(&world, *task, ["task_created", "task_attempt_started"]).await, [1, 1]);
    }
    world.at_rest().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_cancel_that_meets_the_workers_end_either_wins_or_is_refused() {
    let world = World::new().await;
    let spawner = agents();
    for round in 0..rounds(400) {
        let task = world.start("pass").await;
        let run = world.run(task, &spawner);
        let cancel = race(1, |_| {
            let (engine, operator) = (world.engine.clone(), world.operator.clone());
            async move {
                for _ in 0..round % 40 {
                    tokio::task::yield_now().await;
                }
                engine.cancel_task(&operator, &task).await
            }
        });
        let cancelled = all(cancel).await.remove(0);
        let outcome = soon("dispatch", run).await.unwrap();
        let status = world.status(task).await;
        let ends = logged(&world, task, ["task_pass", "task_cancelled"]).await;
        match cancelled {
            // It may come before the dispatch, which is refused then.
            Ok(()) => {
                let refused = matches!(outcome, Err(EngineError::InvalidTransition(_)));
                assert!(refused || outcome == Ok(DispatchOutcome::Cancelled), "{outcome:?}");
                assert_eq!((status, ends), (TaskStatus::Cancelled, [0, 1]));
            }
            Err(EngineError::InvalidTransition(_)) => {
                assert!(matches!(outcome, Ok(DispatchOutcome::Pass(_))), "{outcome:?}");
                assert_eq!((status, ends), (TaskStatus::Pass, [1, 0]));
            }
            Err(other) => panic!("the cancel was answered {other}"),
        }
    }
    world.at_rest().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_racing_answers_one_counts_and_a_cancel_leaves_none_waiting() {
    let world = World::new().await;
    for _ in 0..rounds(300) {
        let task = world.start("any").await;
        let key = world.engine.query_senior(&world.operator, &task, json!("?")).await.unwrap();
        let waits = {
            let engine = world.engine.clone();
            tokio::spawn(async move { engine.await_resume(key, Duration::MAX).await })
        };
        let callers = race(4, |nth| {
            let (engine, operator, senior) =
                (world.engine.clone(), world.operator.clone(), world.senior.clone());
            async move {
                match nth {
                    0 => engine.cancel_task(&operator, &task).await.map(|()| None),
                    _ => engine.answer_query(&senior, key, json!(nth)).await.map(|_| Some(nth)),
                }
            }
        });
        let answers = all(callers).await;
        assert_eq!(answers[0], Ok(None), "an unanswered or resumed task can be cancelled");
        let given: Vec<_> = answers.iter().filter_map(|answer| answer.clone().ok()?).collect();
        assert!(given.len() <= 1, "two answers counted: {answers:?}");
        let waited = soon("await_resume", waits).await.unwrap();
        match given.first() {
            Some(nth) => assert_eq!(waited, Ok(json!(nth))),
            None => assert_eq!(waited, Err(EngineError::Cancelled)),
        }
        assert_eq!(world.status(task).await, TaskStatus::Cancelled);
        let log = logged(&world, task, ["senior_answered", "task_cancelled"]).await;
        assert_eq!(log, [given.len(), 1]);
    }
    world.at_rest().await;
}

/// What the callers of the last race do again and again, until the engine has stopped.
async fn bother(world: &World, spawners: &[Arc<dyn SpawnerAdapter>; 2], nth: usize) {
    let (engine, operator, senior) = (&world.engine, &world.operator, &world.senior);
    let stopped = |error: EngineError| matches!(error, EngineError::Stopped(_));
    loop {
        let task = match engine.start_task(operator, TaskSpec::new("pass", "do it")).await {
            Ok(task) => task,
            Err(error) if stopped(error.clone()) => return,
            Err(error) => panic!("a start was answered {error}"),
        };
        let done = match nth % 6 {
            0 => engine.dispatch_attempt_with(operator, &task, &spawners[0]).await.map(drop),
            1 => engine.dispatch_attempt_with(operator, &task, &spawners[1]).await.map(drop),
            2 => engine.poll_task(operator, &task, Duration::MAX).await.map(drop),
            3 => match engine.query_senior(operator, &task, json!("?")).await {
                Ok(key) => engine.await_resume(key, Duration::MAX).await.map(drop),
                Err(error) => Err(error),
            },
            4 => {
                let paused = engine.pause_dispatch(senior).await;
                paused.and(engine.resume_dispatch(senior).await)
            }
            _ => engine.cancel_task(operator, &task).await,
        };
        match done {
            Ok(()) | Err(EngineError::DispatchFailed(_)) => {}
            Err(error) if stopped(error.clone()) => return,
            Err(error) => panic!("caller {nth} was answered {error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_shutdown_in_the_middle_of_everything_answers_everybody() {
    for round in 0..rounds(12) {
        let world = Arc::new(World::new().await);
        let (hanging, probe) = faulty(Fault::Hang);
        let spawners = Arc::new([agents(), hanging]);
        let mut records = world.engine.subscribe_records();
        let callers = race(24, |nth| {
            let (world, spawners) = (world.clone(), spawners.clone());
            async move { bother(&world, &spawners, nth).await }
        });
        let started = world.engine.clone();
        eventually("the work", || async { started.counts().turns > 400 * (1 + round as u64 % 3) })
            .await;
        let deadline = Duration::from_millis([0, 40, 400][round % 3]);
        soon("the shutdown", world.engine.shutdown(deadline)).await;
        all(callers).await;
        eventually("the workers' end", || async { probe.gone() == probe.asked() }).await;
        // What the last state actor holds is counted until it is gone.
        eventually("an empty queue", || async { world.engine.queued_turns() == 0 }).await;
        // Nothing is heard after the end, and every event until then came in its order.
        let mut last = None;
        loop {
            match records.try_recv() {
                Ok(record) => {
                    assert!(last.is_none_or(|last| record.seq == last + 1));
                    last = Some(record.seq);
                }
                Err(TryRecvError::Lagged(_)) => last = None,
                Err(_) => break,
            }
        }
    }
}
