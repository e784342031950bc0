//! Whatever breaks below an attempt, it is decided, told once, and nobody is left waiting.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use adjutant::{
    DispatchOptions, DispatchOutcome, EngineCfg, EngineError, Role, TaskSpec, TaskStatus,
};

use crate::faulty::{Fault, faulty};
use crate::world::{LONG, World, agents, calm, children, eventually, soon};

/// What every attempt that broke leaves in the log of its task.
const BROKEN: [&str; 4] =
    ["task_created", "task_attempt_started", "task_attempt_completed", "task_blocked"];

#[tokio::test(start_paused = true)]
async fn every_fault_decides_the_attempt_and_wakes_its_pollers() {
    let world = World::with(EngineCfg { attempt_timeout: Some(LONG / 2), ..calm() }).await;
    let failed = |text: &str| Err(EngineError::DispatchFailed(text.to_owned()));
    for (fault, expected) in [
        (Fault::SpawnError, failed("no room")),
        (Fault::SpawnPanic, failed("the worker panicked: the spawner's own panic")),
        (Fault::SpawnHang, Ok(DispatchOutcome::Timeout)),
        (Fault::JoinError, failed("broke")),
        (Fault::JoinPanic, failed("the worker panicked: the worker's own panic")),
        (Fault::Mute, failed("the worker ended without a Final")),
        (Fault::Hang, Ok(DispatchOutcome::Timeout)),
        (Fault::Stubborn, Ok(DispatchOutcome::Timeout)),
    ] {
        let (spawner, probe) = faulty(fault);
        let task = world.start("any").await;
        let polls = [world.poll(task), world.poll(task)];
        eventually("the polls", || async { children(&world.engine).len() == 2 }).await;
        let outcome = soon("dispatch", world.run(task, &spawner)).await.unwrap();
        assert_eq!(outcome, expected, "{fault:?}");
        for poll in polls {
            let state = soon("poll", poll).await.unwrap().unwrap();
            assert_eq!(state.status, TaskStatus::Blocked, "{fault:?}");
        }
        assert_eq!(world.kinds(task).await, BROKEN, "{fault:?}");
        assert_eq!((probe.asked(), probe.gone()), (1, 1), "{fault:?}");
        world.at_rest().await;
    }
    eventually("an empty tree", || async { children(&world.engine).len() == 1 }).await;
}

#[tokio::test(start_paused = true)]
async fn a_final_that_was_sent_does_not_save_a_worker_that_hangs() {
    let world = World::new().await;
    let (spawner, _) = faulty(Fault::Lingers);
    let task = world.start("any").await;
    let options =
        DispatchOptions { timeout: Some(Duration::from_secs(9)), ..DispatchOptions::default() };
    let outcome = world.engine.dispatch_with(&world.operator, &task, &spawner, options).await;
    assert_eq!(outcome, Ok(DispatchOutcome::Timeout));
    assert_eq!(world.status(task).await, TaskStatus::Blocked);
    world.at_rest().await;
}

#[tokio::test]
async fn a_killed_attempt_actor_leaves_no_attempt_running() {
    let world = World::new().await;
    let (spawner, probe) = faulty(Fault::Stubborn);
    let task = world.start("any").await;
    let before = children(&world.engine);
    let run = world.run(task, &spawner);
    eventually("the worker", || async { probe.asked() == 1 }).await;
    let known = |cell: &ractor::ActorCell| before.iter().any(|it| it.get_id() == cell.get_id());
    let supervisor = children(&world.engine).into_iter().find(|cell| !known(cell)).unwrap();
    let poll = world.poll(task);
    supervisor.kill();
    let outcome = soon("dispatch", run).await.unwrap();
    assert!(matches!(outcome, Err(EngineError::DispatchFailed(_))), "{outcome:?}");
    assert_eq!(soon("poll", poll).await.unwrap().unwrap().status, TaskStatus::Blocked);
    eventually("the worker's end", || async { probe.gone() == 1 }).await;
    assert_eq!(world.kinds(task).await, BROKEN);
    world.at_rest().await;
    let again = world.start("pass").await;
    let outcome = world.engine.dispatch_attempt_with(&world.operator, &again, &agents()).await;
    assert!(matches!(outcome, Ok(DispatchOutcome::Pass(_))), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killing_every_actor_below_the_root_leaves_nobody_waiting() {
    let grace = Duration::from_millis(20);
    let world = World::with(EngineCfg { cancel_grace: grace, ..calm() }).await;
    let (spawner, probe) = faulty(Fault::Stubborn);
    for round in 1..=10 {
        let mut polls = Vec::new();
        let mut runs = Vec::new();
        for _ in 0..5 {
            let task = world.start("any").await;
            runs.push((task, world.run(task, &spawner)));
            polls.push(world.poll(task));
        }
        // One round in two strikes before the attempts have settled in.
        if round % 2 == 0 {
            eventually("the workers", || async { probe.asked() == probe.gone() + 5 }).await;
        }
        for child in children(&world.engine) {
            child.kill();
        }
        // Dispatches that were not begun yet are refused, or begin after the strike.
        for (task, run) in runs {
            let _ = world.engine.cancel_task(&world.operator, &task).await;
            let _ = soon("dispatch", run).await.unwrap();
        }
        for poll in polls {
            match soon("poll", poll).await.unwrap() {
                Ok(state) => assert!(state.status.is_settled(), "{}", state.status),
                Err(error) => assert!(
                    matches!(error, EngineError::Stopped(_) | EngineError::Internal(_)),
                    "{error}"
                ),
            }
        }
        eventually("the workers' end", || async { probe.asked() == probe.gone() }).await;
        world.at_rest().await;
    }
    assert!(world.engine.counts().restarts >= 10, "{:?}", world.engine.counts());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_state_actor_costs_its_callers_an_error_at_most_and_no_state() {
    let world = World::new().await;
    let begun = Arc::new(AtomicUsize::new(0));
    let state_actor = || {
        let children = children(&world.engine);
        children.into_iter().min_by_key(|cell| cell.get_id().pid())
    };
    let callers: Vec<_> = (0..8)
        .map(|_| {
            let (engine, token, begun) =
                (world.engine.clone(), world.operator.clone(), begun.clone());
            tokio::spawn(async move {
                let (mut kept, mut refused) = (0, 0);
                for _ in 0..500 {
                    begun.fetch_add(1, Ordering::SeqCst);
                    match engine.start_task(&token, TaskSpec::new("any", "do it")).await {
                        Ok(_) => kept += 1,
                        Err(EngineError::Internal(_)) => refused += 1,
                        Err(error) => panic!("{error}"),
                    }
                }
                (kept, refused)
            })
        })
        .collect();
    for strike in 1..=20 {
        eventually("some load", || async { begun.load(Ordering::SeqCst) >= strike * 150 }).await;
        let restarts = world.engine.counts().restarts;
        if let Some(actor) = state_actor() {
            actor.kill();
            eventually("a restart", || async { world.engine.counts().restarts > restarts }).await;
        }
    }
    let (mut kept, mut refused) = (0, 0);
    for caller in callers {
        let (ok, err) = soon("a caller", caller).await.unwrap();
        kept += ok;
        refused += err;
    }
    assert_eq!(kept + refused, 4_000);
    let count = world.engine.with_state("count", |state| state.task_count()).await.unwrap();
    assert!(kept <= count && count <= kept + refused, "{kept} <= {count} <= {kept} + {refused}");
    assert_eq!(world.engine.queued_turns(), 0);
    world.at_rest().await;
}

#[tokio::test]
async fn a_dropped_dispatch_future_does_not_lose_the_verdict() {
    let world = World::new().await;
    let (open, gate) = tokio::sync::watch::channel(false);
    let mut spawner = adjutant::InProcSpawner::new();
    spawner.register("gated", move |_| {
        let mut gate = gate.clone();
        async move {
            gate.wait_for(|open| *open).await.unwrap();
            crate::world::done(serde_json::json!("late"), true)
        }
    });
    let spawner: Arc<dyn adjutant::SpawnerAdapter> = Arc::new(spawner);
    let task = world.start("gated").await;
    let run = world.run(task, &spawner);
    let began = async || world.status(task).await == TaskStatus::Running;
    eventually("the attempt", began).await;
    run.abort();
    assert!(run.await.unwrap_err().is_cancelled());
    open.send(true).unwrap();
    let state = soon("poll", world.poll(task)).await.unwrap().unwrap();
    assert_eq!(state.status, TaskStatus::Pass);
    assert_eq!(state.last_result, Some(serde_json::json!("late")));
    assert_eq!(world.kinds(task).await.last(), Some(&"task_pass"));
    world.at_rest().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dispatch_dropped_at_any_moment_leaves_a_task_that_can_go_on() {
    let world = World::new().await;
    let spawner = agents();
    let mut tasks = Vec::new();
    for turns in 0..200_u32 {
        let task = world.start("pass").await;
        let run = world.run(task, &spawner);
        for _ in 0..turns % 20 {
            tokio::task::yield_now().await;
        }
        run.abort();
        let _ = run.await;
        tasks.push(task);
    }
    for task in tasks {
        if world.status(task).await == TaskStatus::Pending {
            let outcome = world.run(task, &spawner).await.unwrap();
            assert!(matches!(outcome, Ok(DispatchOutcome::Pass(_))), "{outcome:?}");
        }
        let state = soon("poll", world.poll(task)).await.unwrap().unwrap();
        assert_eq!(state.status, TaskStatus::Pass);
    }
    world.at_rest().await;
}

#[tokio::test]
async fn two_engines_do_not_meet_and_no_actor_is_named() {
    let (one, two) = (World::new().await, World::new().await);
    let task = one.start("pass").await;
    let foreign = two.engine.read_task_state(&one.operator, &task).await;
    assert_eq!(foreign, Err(EngineError::BadSignature));
    let unknown = two.engine.read_task_state(&two.operator, &task).await;
    assert!(matches!(unknown, Err(EngineError::TaskNotFound(_))), "{unknown:?}");
    let mut heard = two.engine.subscribe_records();
    let (spawner, probe) = faulty(Fault::Hang);
    let (run, poll) = (one.run(task, &spawner), one.poll(task));
    one.engine.heartbeat(&one.operator).await.unwrap();
    eventually("the worker", || async { probe.asked() == 1 }).await;
    assert_eq!(ractor::registry::registered(), Vec::<String>::new());
    let name = |cell: &ractor::ActorCell| cell.get_name();
    assert!(children(&one.engine).iter().all(|cell| name(cell).is_none()));
    run.abort();
    poll.abort();
    drop(one);
    eventually("the worker's end", || async { probe.gone() == 1 }).await;
    assert!(heard.try_recv().is_err(), "one engine's events reached the other");
    assert!(two.engine.attach("next", Role::Operator, LONG).await.is_ok());
    two.at_rest().await;
}
