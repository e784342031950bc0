//! Idempotency keys: what is asked again is found, and nobody finds what another one asked.

use std::sync::Arc;
use std::time::Duration;

use adjutant::{
    CapToken, DispatchOptions, DispatchOutcome, Engine, EngineError, InProcSpawner, OnInterrupt,
    Retention, Role, SpawnerAdapter, TaskId, TaskOptions, TaskSpec, TaskStatus,
};
use serde_json::json;
use tokio::sync::Semaphore;

use crate::world::{LONG, World, agents, calm, done, eventually, soon};

fn keyed(key: &str) -> TaskOptions {
    TaskOptions::default().with_key(key)
}

fn under(key: &str) -> DispatchOptions {
    DispatchOptions::default().with_key(key)
}

fn conflict<T: std::fmt::Debug>(refused: Result<T, EngineError>, key: &str) -> Vec<&'static str> {
    match refused {
        Err(EngineError::KeyConflict { key: named, differs }) if named == key => differs,
        other => panic!("{other:?}"),
    }
}

async fn start(
    engine: &Engine,
    token: &CapToken,
    agent: &str,
    key: &str,
) -> Result<TaskId, EngineError> {
    engine.start_task_with(token, TaskSpec::new(agent, "do it"), keyed(key)).await
}

#[tokio::test]
async fn a_key_gives_the_same_task_without_event_or_admission() {
    let mut cfg = calm();
    cfg.limits.live_tasks = 1;
    let world = World::with(cfg).await;
    let (engine, token) = (&world.engine, &world.operator);
    let first = start(engine, token, "pass", "k").await.unwrap();
    let events = world.events().await.len();
    assert_eq!(start(engine, token, "pass", "k").await, Ok(first));
    let other = start(engine, token, "pass", "l").await;
    assert!(matches!(other, Err(EngineError::TaskLimitExceeded { .. })), "{other:?}");
    assert_eq!(world.events().await.len(), events);
    engine.dispatch_attempt_with(token, &first, &agents()).await.unwrap();
    assert_eq!(start(engine, token, "pass", "k").await, Ok(first), "settled tasks keep their key");
    world.audit().await;
}

#[tokio::test]
async fn something_else_under_a_key_is_refused_and_says_what_differs() {
    let world = World::new().await;
    let (engine, token) = (&world.engine, &world.operator);
    let first = start(engine, token, "pass", "k").await.unwrap();
    assert_eq!(conflict(start(engine, token, "other", "k").await, "k"), ["agent"]);
    let secret = TaskSpec::new("other", "the password is xyzzy");
    let options = TaskOptions { parent: Some(first), ..keyed("k") };
    let options = options.with_on_interrupt(OnInterrupt::Retry);
    let refused = engine.start_task_with(token, secret, options).await;
    let text = refused.clone().unwrap_err().to_string();
    assert_eq!(conflict(refused, "k"), ["agent", "directive", "parent", "on_interrupt"]);
    assert!(text.contains("\"k\"") && !text.contains("xyzzy") && !text.contains("do it"), "{text}");
    for bad in [String::new(), "x".repeat(257), "a\nb".to_owned()] {
        let refused = start(engine, token, "pass", &bad).await;
        let what = matches!(
            refused,
            Err(EngineError::InvalidArgument(_) | EngineError::ValueTooLarge { what: "key", .. })
        );
        assert!(what, "{refused:?}");
    }
    start(engine, token, "pass", &"x".repeat(256)).await.unwrap();
    world.audit().await;
}

#[tokio::test]
async fn a_key_follows_the_operator_id_and_nobody_else_meets_it() {
    let world = World::new().await;
    let engine = &world.engine;
    let ann = engine.attach("ann", Role::Operator, LONG).await.unwrap();
    let first = start(engine, &ann, "pass", "k").await.unwrap();
    engine.detach(&ann).await.unwrap();
    let again = engine.attach("ann", Role::Operator, LONG).await.unwrap();
    assert_eq!(start(engine, &again, "pass", "k").await, Ok(first));
    let bob = engine.attach("bob", Role::Operator, LONG).await.unwrap();
    let other = start(engine, &bob, "another", "k").await.unwrap();
    assert_ne!(other, first);
    world.audit().await;
}

#[tokio::test]
async fn the_workers_of_a_task_share_its_keys_with_nobody() {
    let world = World::new().await;
    let (engine, token) = (&world.engine, &world.operator);
    let inside = engine.unanchored();
    let mut spawner = InProcSpawner::new();
    spawner.register("boss", move |call: adjutant::WorkerInvocation| {
        let engine = inside.clone();
        async move {
            let child = start(&engine, &call.token, "pass", "k").await.unwrap();
            let again = start(&engine, &call.token, "pass", "k").await.unwrap();
            assert_eq!(child, again);
            done(json!(child.to_string()), false)
        }
    });
    let spawner: Arc<dyn SpawnerAdapter> = Arc::new(spawner);
    let (boss, other) = (world.start("boss").await, world.start("boss").await);
    let child = async |task| {
        let outcome = engine.dispatch_attempt_with(token, task, &spawner).await.unwrap();
        let DispatchOutcome::Blocked(child) = outcome else { panic!("{outcome:?}") };
        child.as_str().unwrap().parse::<TaskId>().unwrap()
    };
    let first = child(&boss).await;
    assert_eq!(child(&boss).await, first, "the next attempt finds what the first one started");
    assert_ne!(child(&other).await, first);
    // An operator who calls himself like a worker is not taken for one.
    let posing = engine.attach(format!("worker-of-{boss}"), Role::Operator, LONG).await.unwrap();
    assert_ne!(start(engine, &posing, "pass", "k").await.unwrap(), first);
    assert_ne!(start(engine, token, "pass", "k").await.unwrap(), first);
    world.audit().await;
}

#[tokio::test]
async fn a_key_is_forgotten_with_its_task() {
    let mut cfg = calm();
    cfg.retention = Retention { settled_tasks: 1, ..Retention::default() };
    let world = World::with(cfg).await;
    let (engine, token) = (&world.engine, &world.operator);
    let first = start(engine, token, "pass", "k").await.unwrap();
    engine.dispatch_with(token, &first, &agents(), under("d")).await.unwrap();
    // Of two that settled in one millisecond, the id decides which goes first.
    eventually("it is forgotten", || async {
        let pushing = world.start("pass").await;
        engine.cancel_task(token, &pushing).await.unwrap();
        let gone = engine.read_task_state(token, &first).await;
        matches!(gone, Err(EngineError::TaskNotFound(_)))
    })
    .await;
    assert_ne!(start(engine, token, "other", "k").await.unwrap(), first);
    world.audit().await;
}

#[tokio::test]
async fn a_call_that_is_made_again_spends_no_use() {
    let world = World::new().await;
    let engine = &world.engine;
    let inside = engine.unanchored();
    let mut spawner = InProcSpawner::new();
    spawner.register("boss", move |call: adjutant::WorkerInvocation| {
        let engine = inside.clone();
        async move {
            let minute = Duration::from_secs(60);
            let boss = engine.attach("boss", Role::Operator, minute).await.unwrap();
            let minted = engine.mint_worker_token(&boss, &call.task_id, minute, Some(1)).await;
            let once = minted.unwrap();
            let first = start(&engine, &once, "pass", "k").await.unwrap();
            assert_eq!(start(&engine, &once, "pass", "k").await, Ok(first));
            let spent = start(&engine, &once, "pass", "l").await;
            done(json!(spent == Err(EngineError::TokenUsesExhausted)), true)
        }
    });
    let spawner: Arc<dyn SpawnerAdapter> = Arc::new(spawner);
    let boss = world.start("boss").await;
    let outcome = engine.dispatch_attempt_with(&world.operator, &boss, &spawner).await;
    assert_eq!(outcome, Ok(DispatchOutcome::Pass(json!(true))));
    world.audit().await;
}

#[tokio::test]
async fn a_refused_start_leaves_its_key_free() {
    let mut cfg = calm();
    cfg.limits.live_tasks = 0;
    let world = World::with(cfg).await;
    for agent in ["a", "b"] {
        let full = start(&world.engine, &world.operator, agent, "k").await;
        assert!(matches!(full, Err(EngineError::TaskLimitExceeded { .. })), "{full:?}");
    }
    world.audit().await;
}

/// An agent `gated` that waits for a permit before it ends well.
fn gated() -> (Arc<dyn SpawnerAdapter>, Arc<Semaphore>) {
    let (mut spawner, gate) = (InProcSpawner::new(), Arc::new(Semaphore::new(0)));
    let permits = gate.clone();
    spawner.register("gated", move |call: adjutant::WorkerInvocation| {
        let permits = permits.clone();
        async move {
            permits.acquire().await.unwrap().forget();
            done(json!({ "attempt": call.attempt, "prompt": call.prompt }), true)
        }
    });
    (Arc::new(spawner), gate)
}

#[tokio::test]
async fn a_second_dispatch_under_a_key_waits_for_the_first_ones_verdict() {
    let world = World::new().await;
    let (spawner, gate) = gated();
    let task = world.start("gated").await;
    let dispatch = |options| {
        let (engine, token) = (world.engine.clone(), world.operator.clone());
        let spawner = spawner.clone();
        tokio::spawn(async move { engine.dispatch_with(&token, &task, &spawner, options).await })
    };
    let first = dispatch(under("k"));
    eventually("the attempt", || async { world.status(task).await == TaskStatus::Running }).await;
    let second = dispatch(under("k"));
    let other = dispatch(under("l")).await.unwrap();
    assert!(matches!(other, Err(EngineError::InvalidTransition(_))), "{other:?}");
    let prompted = DispatchOptions { prompt: Some("else".to_owned()), ..under("k") };
    assert_eq!(conflict(dispatch(prompted).await.unwrap(), "k"), ["prompt"]);
    assert!(!first.is_finished() && !second.is_finished());
    gate.add_permits(1);
    let expected = DispatchOutcome::Pass(json!({ "attempt": 1, "prompt": "do it" }));
    for run in [first, second, dispatch(under("k"))] {
        assert_eq!(soon("a verdict", run).await.unwrap().as_ref(), Ok(&expected));
    }
    world.at_rest().await;
}

#[tokio::test]
async fn every_kind_of_end_is_given_again() {
    let world = World::new().await;
    let (engine, token) = (&world.engine, &world.operator);
    for agent in ["pass", "block", "fail", "panic", "hang"] {
        let task = world.start(agent).await;
        let options = DispatchOptions { timeout: Some(Duration::from_millis(50)), ..under("k") };
        let first = engine.dispatch_with(token, &task, &agents(), options.clone()).await;
        let again = engine.dispatch_with(token, &task, &agents(), options).await;
        assert_eq!(first, again, "{agent}");
        assert_eq!(engine.read_task_state(token, &task).await.unwrap().attempt, 1, "{agent}");
    }
    world.audit().await;
}

#[tokio::test]
async fn an_older_attempt_keeps_its_verdict_and_a_cancelled_one_too() {
    let world = World::new().await;
    let (engine, token) = (&world.engine, &world.operator);
    let task = world.start("block").await;
    let first = engine.dispatch_with(token, &task, &agents(), under("one")).await;
    engine.inject_directive(&world.senior, &task, "again".to_owned()).await.unwrap();
    engine.dispatch_with(token, &task, &agents(), under("two")).await.unwrap();
    assert_eq!(engine.dispatch_with(token, &task, &agents(), under("one")).await, first);
    assert_eq!(engine.read_task_state(token, &task).await.unwrap().attempt, 2);
    // An injected directive is not a prompt of the call.
    engine.dispatch_with(token, &task, &agents(), under("two")).await.unwrap();

    let (spawner, _gate) = gated();
    let task = world.start("gated").await;
    let (inside, ann, agents) = (engine.clone(), token.clone(), spawner.clone());
    let run =
        tokio::spawn(async move { inside.dispatch_with(&ann, &task, &agents, under("k")).await });
    eventually("the attempt", || async { world.status(task).await == TaskStatus::Running }).await;
    engine.cancel_task(token, &task).await.unwrap();
    assert_eq!(soon("the end", run).await.unwrap(), Ok(DispatchOutcome::Cancelled));
    let again = engine.dispatch_with(token, &task, &spawner, under("k")).await;
    assert_eq!(again, Ok(DispatchOutcome::Cancelled));
    world.at_rest().await;
}

#[tokio::test]
async fn an_interrupted_attempt_is_begun_again_once_where_the_task_says_so() {
    let world = World::new().await;
    let (engine, token) = (&world.engine, &world.operator);
    for (on_interrupt, attempts) in [(OnInterrupt::Block, 1), (OnInterrupt::Retry, 2)] {
        let (spawner, gate) = gated();
        let options = TaskOptions::default().with_on_interrupt(on_interrupt);
        let spec = TaskSpec::new("gated", "do it");
        let task = engine.start_task_with(token, spec, options).await.unwrap();
        let (inside, ann, agents) = (engine.clone(), token.clone(), spawner.clone());
        let run =
            tokio::spawn(
                async move { inside.dispatch_with(&ann, &task, &agents, under("k")).await },
            );
        eventually("it runs", || async { world.status(task).await == TaskStatus::Running }).await;
        let now = adjutant::Now { unix: 2_000_000_000, ms: 1 };
        engine
            .with_state("interrupt", move |state| state.interrupt_all("the process ended", now))
            .await
            .unwrap();
        let lost = soon("the end", run).await.unwrap();
        assert!(matches!(lost, Err(EngineError::DispatchFailed(_))), "{lost:?}");
        let waiting = engine.with_state("waiting", |state| state.interrupted_to_retry()).await;
        let expected = if attempts == 2 { vec![task] } else { vec![] };
        assert_eq!(waiting.unwrap(), expected);
        gate.add_permits(1);
        let first = engine.dispatch_with(token, &task, &spawner, under("k")).await;
        let again = engine.dispatch_with(token, &task, &spawner, under("k")).await;
        assert_eq!(first, again);
        assert_eq!(first.is_ok(), attempts == 2, "{first:?}");
        assert_eq!(engine.read_task_state(token, &task).await.unwrap().attempt, attempts);
    }
    world.at_rest().await;
}

#[tokio::test]
async fn a_retry_has_the_prompt_and_the_key_of_the_attempt_that_was_lost() {
    let world = World::new().await;
    let (engine, token) = (&world.engine, &world.operator);
    let (spawner, gate) = gated();
    let options = || TaskOptions::default().with_on_interrupt(OnInterrupt::Retry);
    let spec = || TaskSpec::new("gated", "do it");
    let task = engine.start_task_with(token, spec(), options()).await.unwrap();
    let other = engine.start_task_with(token, spec(), options()).await.unwrap();
    let blocking = world.start("gated").await;
    let mut runs = Vec::new();
    for task in [task, other, blocking] {
        let (inside, ann, agents) = (engine.clone(), token.clone(), spawner.clone());
        let options = DispatchOptions { prompt: Some("this once".to_owned()), ..under("k") };
        let run = async move { inside.dispatch_with(&ann, &task, &agents, options).await };
        runs.push(tokio::spawn(run));
        eventually("it runs", || async { world.status(task).await == TaskStatus::Running }).await;
    }
    let now = adjutant::Now { unix: 2_000_000_000, ms: 1 };
    let lose = move |state: &mut adjutant::EngineState| state.interrupt_all("it ended", now);
    engine.with_state("lose", lose).await.unwrap();
    for run in runs {
        assert!(soon("the end", run).await.unwrap().is_err());
    }
    engine.cancel_task(token, &other).await.unwrap();
    let waiting = engine.interrupted_tasks().await.unwrap();
    assert_eq!(waiting, [(task, "gated".to_owned())]);
    assert_eq!(engine.retry_interrupted(token, |_| None).await.unwrap(), []);
    gate.add_permits(1);
    let retries = engine.retry_interrupted(token, |_| Some(spawner.clone())).await.unwrap();
    let passed = DispatchOutcome::Pass(json!({ "attempt": 2, "prompt": "this once" }));
    assert_eq!(retries, [(task, Ok(passed.clone()))]);
    let options = DispatchOptions { prompt: Some("this once".to_owned()), ..under("k") };
    let again = engine.dispatch_with(token, &task, &spawner, options).await;
    assert_eq!(again, Ok(passed), "the key is that of the retry");
    assert_eq!(engine.interrupted_tasks().await.unwrap(), []);
    world.at_rest().await;
}
