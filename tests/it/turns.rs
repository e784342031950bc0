//! Turns of the host: a panic is undone, a long hold is the caller's own, admission is bounded.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use adjutant::{Engine, EngineCfg, EngineError, EngineState, HoldPolicy, TaskStatus};
use adjutant_actors::state::auth::Access;
use futures::FutureExt;
use serde_json::json;
use tokio::time::Instant;

use crate::world::{World, calm, eventually, soon};

async fn copy(engine: &Engine) -> EngineState {
    engine.with_state("copy", |state| state.clone()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_in_a_closure_is_undone_and_meets_its_caller_alone() {
    let world = World::new().await;
    let task = world.start("any").await;
    let poll = world.poll(task);
    let others: Vec<_> = (0..4)
        .map(|_| {
            let (engine, token) = (world.engine.clone(), world.operator.clone());
            tokio::spawn(async move {
                for _ in 0..200 {
                    engine.read_task_state(&token, &task).await.unwrap();
                }
            })
        })
        .collect();
    let before = copy(&world.engine).await;
    let mut events = world.engine.subscribe_records();
    for _ in 0..50 {
        let breaks = world.engine.with_state("breaks", move |state| {
            let now = adjutant::Now { unix: 1_900_000_000, ms: 1 };
            state.cancel_task(Access::Trusted, task, now).unwrap();
            assert_eq!(state.glance(&task).unwrap().0, TaskStatus::Cancelled);
            panic!("the closure's own panic")
        });
        let panic = AssertUnwindSafe(breaks).catch_unwind().await.unwrap_err();
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"the closure's own panic"));
    }
    for other in others {
        soon("another caller", other).await.unwrap();
    }
    assert!(copy(&world.engine).await == before, "a panic left a trace");
    assert!(events.try_recv().is_err(), "an undone event was sent");
    assert!(!poll.is_finished(), "an undone change woke a poll");
    assert_eq!(world.engine.counts().restarts, 0, "the state actor lived on");
    world.engine.cancel_task(&world.operator, &task).await.unwrap();
    assert_eq!(events.recv().await.unwrap().seq, before.last_seq() + 1, "a number was skipped");
    soon("poll", poll).await.unwrap().unwrap();
}

/// Holds the state for longer than the settings allow, and changes it.
async fn hold(engine: &Engine, token: &adjutant::CapToken) -> Result<(), String> {
    let task = engine.start_task(token, adjutant::TaskSpec::new("any", "x")).await.unwrap();
    let slow = engine.with_state("slow", move |state| {
        let now = adjutant::Now { unix: 1_900_000_000, ms: 1 };
        state.cancel_task(Access::Trusted, task, now).unwrap();
        let (_keep, never) = mpsc::channel::<()>();
        let _ = never.recv_timeout(Duration::from_millis(80));
    });
    let result = AssertUnwindSafe(slow).catch_unwind().await;
    let status = engine.read_task_state(token, &task).await.unwrap().status;
    assert_eq!(status, TaskStatus::Cancelled, "the change of a long hold is kept");
    match result {
        Ok(done) => done.map_err(|error| error.to_string()),
        Err(panic) => Err(panic.downcast_ref::<String>().cloned().unwrap_or_default()),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_overlong_hold_panics_in_its_caller_or_is_counted() {
    for policy in [HoldPolicy::Panic, HoldPolicy::Warn] {
        let cfg = EngineCfg { hold_policy: policy, max_hold_ms: 40, ..EngineCfg::default() };
        let world = World::with(cfg).await;
        let task = world.start("any").await;
        let (engine, token) = (world.engine.clone(), world.operator.clone());
        let other = tokio::spawn(async move {
            for _ in 0..20 {
                engine.read_task_state(&token, &task).await.unwrap();
            }
        });
        let held = hold(&world.engine, &world.operator).await;
        match policy {
            HoldPolicy::Panic => {
                let text = held.unwrap_err();
                assert!(text.contains("slow") && text.contains("held"), "{text}");
            }
            _ => assert_eq!(held, Ok(())),
        }
        assert!(world.engine.counts().overlong_holds >= 1);
        assert_eq!(world.engine.counts().restarts, 0);
        soon("the other caller", other).await.unwrap();
    }
}

/// Blocks the state until the sender is used or dropped; returns once it is blocked.
pub(crate) async fn block(engine: &Engine) -> (mpsc::Sender<()>, tokio::task::JoinHandle<()>) {
    let (open, gate) = mpsc::channel::<()>();
    let (tell, told) = tokio::sync::oneshot::channel();
    let engine = engine.clone();
    let blocked = tokio::spawn(async move {
        let wait = move |_: &mut EngineState| {
            let _ = tell.send(());
            let _ = gate.recv();
        };
        engine.with_state("block", wait).await.unwrap();
    });
    told.await.unwrap();
    (open, blocked)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn admission_is_refused_at_once_or_after_the_budget() {
    for try_only in [true, false] {
        let cfg = EngineCfg {
            queue_limit: 1,
            try_only,
            max_retry: 4,
            backoff_ms_step: 10,
            max_hold_ms: u128::MAX,
            ..calm()
        };
        let world = World::with(cfg).await;
        let (open, blocked) = block(&world.engine).await;
        let engine = world.engine.clone();
        let queued = tokio::spawn(async move { engine.with_state("queued", |_| 7).await });
        eventually("a full queue", || async { world.engine.queued_turns() == 1 }).await;
        for _ in 0..20 {
            let began = Instant::now();
            let refused = soon("refusal", world.engine.with_state("third", |_| ())).await;
            if try_only {
                assert_eq!(refused, Err(EngineError::LockBusy("third")));
            } else {
                assert_eq!(refused, Err(EngineError::LockBusyAfterRetry("third")));
                assert!(began.elapsed() >= Duration::from_millis(100), "{:?}", began.elapsed());
            }
            assert_eq!(world.engine.queued_turns(), 1, "a refused turn was queued");
        }
        open.send(()).unwrap();
        assert_eq!(soon("the queued turn", queued).await.unwrap(), Ok(7));
        soon("the blocking turn", blocked).await.unwrap();
        for _ in 0..10 {
            world.engine.with_state("again", |_| ()).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_turn_whose_caller_went_away_never_runs_and_holds_no_place_for_good() {
    let cfg = EngineCfg { queue_limit: 1, max_hold_ms: u128::MAX, ..calm() };
    let world = World::with(cfg).await;
    let task = world.start("any").await;
    for _ in 0..20 {
        let (open, blocked) = block(&world.engine).await;
        let ran = Arc::new(AtomicBool::new(false));
        let (engine, runs) = (world.engine.clone(), ran.clone());
        let gone = tokio::spawn(async move {
            engine.with_state("gone", move |_| runs.store(true, Ordering::SeqCst)).await
        });
        eventually("its place", || async { world.engine.queued_turns() == 1 }).await;
        gone.abort();
        assert!(gone.await.unwrap_err().is_cancelled());
        open.send(()).unwrap();
        soon("the blocking turn", blocked).await.unwrap();
        world.engine.mark_pass(&world.operator, &task, json!(1)).await.ok();
        assert!(!ran.load(Ordering::SeqCst), "a turn ran for nobody");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn the_engines_own_turns_need_no_place() {
    let cfg = EngineCfg { queue_limit: 1, try_only: true, max_hold_ms: u128::MAX, ..calm() };
    let world = World::with(cfg).await;
    let (spawner, probe) = crate::faulty::faulty(crate::faulty::Fault::Stubborn);
    let task = world.start("any").await;
    let options = adjutant::DispatchOptions {
        timeout: Some(Duration::from_millis(50)),
        ..adjutant::DispatchOptions::default()
    };
    let (engine, token) = (world.engine.clone(), world.operator.clone());
    let run =
        tokio::spawn(async move { engine.dispatch_with(&token, &task, &spawner, options).await });
    eventually("the worker", || async { probe.asked() == 1 }).await;
    let (open, blocked) = block(&world.engine).await;
    let engine = world.engine.clone();
    let queued = tokio::spawn(async move { engine.with_state("queued", |_| ()).await });
    eventually("the time-out's turn", || async { world.engine.queued_turns() == 2 }).await;
    open.send(()).unwrap();
    soon("the blocking turn", blocked).await.unwrap();
    soon("the queued turn", queued).await.unwrap().unwrap();
    assert_eq!(soon("dispatch", run).await.unwrap(), Ok(adjutant::DispatchOutcome::Timeout));
}
