//! What tokens may touch: a table of verbs and tasks, bindings to attempts, and refusals that
//! change nothing.

use std::sync::Arc;
use std::time::Duration;

use adjutant::{
    CapToken, ContentRef, Engine, EngineError, EngineState, OutputEvent, Role, SpawnerAdapter,
    TaskId, TaskSpec, TokenRequest, TokenSigner,
};
use serde_json::json;

use crate::faulty::{Fault, faulty};
use crate::world::{Run, World, agents, children, eventually};

/// A worker at work on `own`, which has a parent and a sibling, a child and a grandchild.
pub(crate) struct Family {
    pub(crate) world: World,
    /// The worker's token: bound to `own`.
    pub(crate) worker: CapToken,
    parent: TaskId,
    pub(crate) own: TaskId,
    sibling: TaskId,
    child: TaskId,
    grandchild: TaskId,
    _runs: Vec<Run>,
}

/// Dispatches a task to a worker that hangs, and mints one more token for it.
pub(crate) async fn at_work(world: &World, task: TaskId) -> (CapToken, Run) {
    let (spawner, probe) = faulty(Fault::Hang);
    let run = world.run(task, &spawner);
    eventually("the worker", || async { probe.asked() == 1 }).await;
    let hour = Duration::from_secs(3600);
    let minted = world.engine.mint_worker_token(&world.operator, &task, hour, None).await;
    (minted.unwrap(), run)
}

async fn sub_task(world: &World, worker: &CapToken) -> TaskId {
    world.engine.start_task(worker, TaskSpec::new("pass", "sub")).await.unwrap()
}

impl Family {
    pub(crate) async fn new() -> Self {
        let world = World::new().await;
        let parent = world.start("any").await;
        let (above, first) = at_work(&world, parent).await;
        let (own, sibling) = (sub_task(&world, &above).await, sub_task(&world, &above).await);
        let (worker, second) = at_work(&world, own).await;
        let child = sub_task(&world, &worker).await;
        let (below, third) = at_work(&world, child).await;
        let grandchild = sub_task(&world, &below).await;
        let runs = vec![first, second, third];
        Self { world, worker, parent, own, sibling, child, grandchild, _runs: runs }
    }

    pub(crate) fn tasks(&self) -> [(&'static str, TaskId); 6] {
        [
            ("own", self.own),
            ("child", self.child),
            ("grandchild", self.grandchild),
            ("parent", self.parent),
            ("sibling", self.sibling),
            ("random", self.world.engine.mint().task_id()),
        ]
    }

    /// Whether a verb may touch a task; anything but a mismatch counts as touching it.
    async fn may(&self, verb: &str, task: TaskId) -> bool {
        let (engine, token) = (&self.world.engine, &self.worker);
        let event = || OutputEvent::Partial { chunk: json!(1) };
        let result: Result<(), EngineError> = match verb {
            "prompt" => engine.fetch_prompt(token, &task).await.map(|_| ()),
            "payload" => engine.fetch_worker_payload(token, &task).await.map(|_| ()),
            "result" => engine.post_result(token, &task, json!(1)).await,
            "output" => engine.submit_output(token, &task, 1, event()).await,
            "read" => engine.read_task_state(token, &task).await.map(|_| ()),
            "poll" => engine.poll_task(token, &task, Duration::ZERO).await.map(|_| ()),
            "dispatch" => {
                let none: Arc<dyn SpawnerAdapter> = faulty(Fault::SpawnError).0;
                engine.dispatch_attempt_with(token, &task, &none).await.map(|_| ())
            }
            _ => engine.cancel_task(token, &task).await,
        };
        match result {
            Err(EngineError::TokenTaskMismatch { bound, arg }) => {
                assert_eq!((bound, arg), (self.own, task));
                false
            }
            _ => true,
        }
    }
}

#[tokio::test]
async fn a_worker_touches_its_own_task_and_those_below_and_nothing_else() {
    let own: &[&str] = &["own"];
    let tree: &[&str] = &["own", "child", "grandchild"];
    let below: &[&str] = &["child", "grandchild"];
    for (verb, allowed) in [
        ("prompt", own),
        ("payload", own),
        ("result", own),
        ("output", own),
        ("read", tree),
        ("poll", tree),
        ("dispatch", below),
        ("cancel", tree),
    ] {
        let family = Family::new().await;
        // Cancelling the own task ends the token, so it comes last.
        for (name, task) in family.tasks().into_iter().rev() {
            let may = family.may(verb, task).await;
            assert_eq!(may, allowed.contains(&name), "{verb} of {name}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_of_an_older_attempt_reads_nothing_and_decides_nothing() {
    let world = World::new().await;
    let task = world.start("any").await;
    let (old, run) = at_work(&world, task).await;
    world.engine.mark_blocked(&world.operator, &task, json!("no")).await.unwrap();
    run.await.unwrap().unwrap();
    let (new, _run) = at_work(&world, task).await;
    let event = || OutputEvent::Final { content: ContentRef::inline(json!("forged")), ok: true };
    for attempt in [1, 2, 3] {
        let late = world.engine.submit_output(&old, &task, attempt, event()).await;
        assert_eq!(late, Err(EngineError::TokenRevoked), "attempt {attempt}");
        let ahead = world.engine.submit_output(&new, &task, attempt, event()).await;
        assert_eq!(ahead.is_ok(), attempt == 2, "attempt {attempt}: {ahead:?}");
    }
    assert_eq!(world.engine.fetch_prompt(&old, &task).await, Err(EngineError::TokenRevoked));
    assert!(world.engine.output_tail(&task, 1).await.is_empty());
    assert!(world.engine.output_tail(&task, 3).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn every_end_of_an_attempt_revokes_its_token_and_handle() {
    for end in ["cancel", "mark", "override", "time-out", "shutdown"] {
        let world = World::new().await;
        let (engine, operator) = (&world.engine, &world.operator);
        let task = world.start("any").await;
        let (token, run) = at_work(&world, task).await;
        assert_eq!(engine.task_id_from_token(&token).await, Ok(task));
        let handles = engine.with_state("look", |state| state.handle_count()).await.unwrap();
        assert_eq!(handles, 1);
        match end {
            "cancel" => engine.cancel_task(operator, &task).await.unwrap(),
            "mark" => engine.mark_pass(operator, &task, json!(1)).await.unwrap(),
            "override" => {
                engine.override_verdict(&world.senior, &task, false, json!(1)).await.unwrap();
            }
            "time-out" => {
                let state = move |state: &mut EngineState| {
                    let end = adjutant::AttemptEnd::TimedOut;
                    let now = adjutant::Now { unix: 1, ms: 1 };
                    state.finish_attempt(task, 1, end, now)
                };
                engine.with_state("time-out", state).await.unwrap();
            }
            _ => {
                let report = engine.shutdown(Duration::from_millis(1)).await;
                assert_eq!(report.interrupted, [(task, 1)]);
                continue;
            }
        }
        drop(run);
        let replay = engine.read_task_state(&token, &task).await;
        assert_eq!(replay, Err(EngineError::TokenRevoked), "{end}");
        let handles = engine.with_state("look", |state| state.handle_count()).await.unwrap();
        assert_eq!(handles, 0, "{end}");
        world.audit().await;
    }
}

/// The state as it is; comparing two shows every difference.
pub(crate) async fn copy(engine: &Engine) -> EngineState {
    engine.with_state("copy", |state| state.clone()).await.unwrap()
}

#[tokio::test]
async fn a_refused_call_changes_nothing_and_spends_no_use() {
    let world = World::new().await;
    let (engine, operator) = (&world.engine, &world.operator);
    let task = world.start("any").await;
    let (_, run) = at_work(&world, task).await;
    let minute = Duration::from_secs(60);
    let once = engine.mint_worker_token(operator, &task, minute, Some(1)).await.unwrap();
    let foreign = world.start("any").await;
    let stranger = TokenSigner::new("other").session("x", Role::Operator, minute);
    let unknown = engine.signer().session("x", Role::Operator, minute);
    let mut forged = world.observer.clone();
    forged.role = Role::Operator;
    let before = copy(engine).await;
    let event = || OutputEvent::Partial { chunk: json!(1) };
    let spec = || TaskSpec::new("any", "x");
    let refused = [
        ("signature", engine.start_task(&stranger, spec()).await.err()),
        ("changed role", engine.start_task(&forged, spec()).await.err()),
        ("no record", engine.start_task(&unknown, spec()).await.err()),
        ("role", engine.start_task(&world.observer, spec()).await.err()),
        ("binding", engine.read_task_state(&once, &foreign).await.err()),
        ("attempt", engine.submit_output(&once, &task, 2, event()).await.err()),
        ("legality", engine.dispatch_attempt_with(operator, &task, &agents()).await.err()),
        ("verdict", engine.override_verdict(&world.senior, &foreign, true, json!(1)).await.err()),
        ("no question", engine.resume(engine.mint().resume_key(), json!(1)).await.err()),
        ("too deep", engine.post_result(&once, &task, deep(200)).await.err()),
    ];
    for (why, error) in refused {
        assert!(error.is_some(), "{why} was not refused");
        assert!(copy(engine).await == before, "{why} changed the state: {error:?}");
    }
    assert!(engine.read_task_state(&once, &task).await.is_ok(), "its one use was spent before");
    let again = engine.read_task_state(&once, &task).await;
    assert_eq!(again, Err(EngineError::TokenUsesExhausted));
    drop(run);
}

#[tokio::test]
async fn another_token_under_a_known_nonce_is_not_that_token() {
    let world = World::new().await;
    let (engine, observer) = (&world.engine, &world.observer);
    let request = TokenRequest {
        agent_id: observer.agent_id.clone(),
        role: Role::Operator,
        scopes: observer.scopes.clone(),
        issued_at: observer.issued_at,
        ttl: Duration::from_secs(3600),
        max_uses: None,
        nonce: observer.nonce.clone(),
    };
    let (raised, _) = engine.signer().mint_at(request);
    assert!(engine.signer().verify_sig(&raised));
    let started = engine.start_task(&raised, TaskSpec::new("any", "x")).await;
    assert_eq!(started, Err(EngineError::BadSignature));
}

fn deep(levels: usize) -> serde_json::Value {
    (0..levels).fold(json!(0), |inner, _| json!([inner]))
}

#[tokio::test]
async fn a_worker_neither_keeps_nor_reads_nor_ends_the_session_that_its_task_runs_for() {
    let world = World::new().await;
    let (engine, task) = (&world.engine, world.start("any").await);
    let (worker, run) = at_work(&world, task).await;
    let before = children(engine).len();
    assert_eq!(engine.heartbeat(&worker).await, Err(EngineError::SessionNotFound));
    assert_eq!(engine.read_session(&worker).await, Err(EngineError::SessionNotFound));
    assert_eq!(engine.detach(&worker).await, Err(EngineError::SessionNotFound));
    assert_eq!(engine.detach_and_revoke(&worker).await, Err(EngineError::SessionNotFound));
    assert!(engine.read_session(&world.operator).await.unwrap().attached);
    assert_eq!(children(engine).len(), before, "an actor beats for a worker");
    drop(run);
}

#[tokio::test]
async fn a_worker_token_that_was_revoked_by_itself_leaves_a_sound_state() {
    let world = World::new().await;
    let (engine, task) = (&world.engine, world.start("any").await);
    let (_, run) = at_work(&world, task).await;
    assert_eq!(engine.signer().rotate(2, "a second root, long enough to be one"), Ok(()));
    assert_eq!(engine.retire_key(1).await, Ok(5), "three sessions and two of the worker");
    world.audit().await;
    drop(run);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_racers_spend_seven_uses_seven_times() {
    let world = World::new().await;
    let task = world.start("any").await;
    let (_, run) = at_work(&world, task).await;
    let minute = Duration::from_secs(60);
    let minted = world.engine.mint_worker_token(&world.operator, &task, minute, Some(7)).await;
    let token = minted.unwrap();
    let racers: Vec<_> = (0..64)
        .map(|_| {
            let (engine, token) = (world.engine.clone(), token.clone());
            tokio::spawn(async move { engine.read_task_state(&token, &task).await.is_ok() })
        })
        .collect();
    let mut served = 0;
    for racer in racers {
        served += usize::from(racer.await.unwrap());
    }
    assert_eq!(served, 7);
    drop(run);
}

#[tokio::test]
async fn keys_rotate_and_a_retired_one_ends_its_tokens() {
    let world = World::new().await;
    let engine = &world.engine;
    engine.signer().rotate(2, "a second root, long enough to be one").unwrap();
    let minute = Duration::from_secs(60);
    let fresh = engine.attach("new", Role::Operator, minute).await.unwrap();
    assert!(engine.heartbeat(&world.operator).await.is_ok(), "an old key still verifies");
    assert_eq!(engine.retire_key(1).await, Ok(3));
    assert_eq!(engine.heartbeat(&world.operator).await, Err(EngineError::BadSignature));
    assert!(engine.heartbeat(&fresh).await.is_ok());
}
