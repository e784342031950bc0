//! Turns: a panic or an overlong hold stays with the caller that brought it; admission is bounded.

use std::time::Duration;

use adjutant::{EngineCfg, EngineError, HoldPolicy, TaskSpec};

use crate::world::{World, calm, soon};

#[tokio::test]
async fn a_panicking_closure_is_undone_and_goes_on_in_its_caller() {
    let world = World::new().await;
    let task = world.start("any").await;
    let before = world.engine.with_state("copy", |state| state.clone()).await.unwrap();
    let engine = world.engine.clone();
    let panicked = tokio::spawn(async move {
        let half_done = move |state: &mut adjutant::EngineState| {
            let now = adjutant::Now { unix: 1, ms: 1 };
            state.cancel_task(adjutant::Access::Trusted, task, now).unwrap();
            state.set_resource("half".into(), std::sync::Arc::new(1.into())).unwrap();
            panic!("half-way");
        };
        engine.with_state("half", half_done).await
    });
    let panic = soon("the panic", panicked).await.unwrap_err().into_panic();
    assert_eq!(panic.downcast_ref::<&str>(), Some(&"half-way"));
    let after = world.engine.with_state("copy", |state| state.clone()).await.unwrap();
    assert!(before == after, "what a panicking closure changed was kept");
    assert_eq!(world.engine.counts().restarts, 0, "the state actor lives on");
    assert_eq!(world.kinds(task).await, ["task_created"]);
}

fn hold(state: &mut adjutant::EngineState) -> usize {
    let end = tokio::time::Instant::now() + Duration::from_millis(40);
    while tokio::time::Instant::now() < end {
        std::hint::spin_loop();
    }
    state.set_resource("held".into(), std::sync::Arc::new(1.into())).unwrap();
    state.task_count()
}

#[tokio::test]
async fn an_overlong_hold_panics_in_its_caller_and_is_kept() {
    let cfg = EngineCfg { hold_policy: HoldPolicy::Panic, max_hold_ms: 20, ..calm() };
    let world = World::with(cfg).await;
    let engine = world.engine.clone();
    let held = tokio::spawn(async move { engine.with_state("long", hold).await });
    let panic = soon("the panic", held).await.unwrap_err().into_panic();
    let text = panic.downcast_ref::<String>().unwrap();
    assert!(text.contains("long: the closure held"), "{text}");
    let kept = world.engine.with_state("look", |state| state.resource("held")).await.unwrap();
    assert!(kept.is_some());
}

#[tokio::test]
async fn an_overlong_hold_is_only_counted_where_the_policy_warns() {
    let world = World::with(EngineCfg { max_hold_ms: 20, ..calm() }).await;
    assert_eq!(world.engine.with_state("long", hold).await, Ok(0));
    assert!(world.engine.counts().overlong_holds >= 1);
}

/// Fills an engine whose queue has one place: a closure holds the state, a turn waits behind it.
async fn full(cfg: EngineCfg) -> Result<usize, EngineError> {
    let world = World::with(EngineCfg { queue_limit: 1, max_hold_ms: 60_000, ..cfg }).await;
    let (open, gate) = std::sync::mpsc::channel::<()>();
    let (begun, has_begun) = tokio::sync::oneshot::channel();
    let engine = world.engine.clone();
    let holder = tokio::spawn(async move {
        let hold = move |_: &mut adjutant::EngineState| {
            let _ = begun.send(());
            let _ = gate.recv();
        };
        engine.with_state("hold", hold).await
    });
    has_begun.await.unwrap();
    let engine = world.engine.clone();
    let waiting = tokio::spawn(async move { engine.with_state("wait", |_| ()).await });
    while world.engine.queued_turns() == 0 {
        tokio::task::yield_now().await;
    }
    let refused = world.engine.with_state("refused", |state| state.task_count()).await;
    open.send(()).unwrap();
    assert_eq!(soon("holder", holder).await.unwrap(), Ok(()));
    assert_eq!(soon("waiting", waiting).await.unwrap(), Ok(()));
    let spec = TaskSpec::new("any", "x");
    world.engine.start_task(&world.operator, spec).await.unwrap();
    refused
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_refuses_at_once_or_after_the_budget() {
    let at_once = full(EngineCfg { try_only: true, ..calm() }).await;
    assert_eq!(at_once, Err(EngineError::LockBusy("refused")));
    let later = full(EngineCfg { max_retry: 2, backoff_ms_step: 1, ..calm() }).await;
    assert_eq!(later, Err(EngineError::LockBusyAfterRetry("refused")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_turn_whose_caller_has_gone_never_runs() {
    let world = World::with(EngineCfg { max_hold_ms: 60_000, ..calm() }).await;
    let (open, gate) = std::sync::mpsc::channel::<()>();
    let (begun, has_begun) = tokio::sync::oneshot::channel();
    let engine = world.engine.clone();
    let holder = tokio::spawn(async move {
        let hold = move |_: &mut adjutant::EngineState| {
            let _ = begun.send(());
            let _ = gate.recv();
        };
        engine.with_state("hold", hold).await
    });
    has_begun.await.unwrap();
    let engine = world.engine.clone();
    let gone = tokio::spawn(async move { engine.set_resource("gone", 1.into()).await });
    while world.engine.queued_turns() == 0 {
        tokio::task::yield_now().await;
    }
    gone.abort();
    let _ = gone.await;
    open.send(()).unwrap();
    holder.await.unwrap().unwrap();
    let found = world.engine.with_state("look", |state| state.resource("gone")).await.unwrap();
    assert_eq!(found, None);
}
