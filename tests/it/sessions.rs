//! Sessions: beats keep them, silence detaches them once, a beat brings them back.

use std::time::Duration;

use adjutant::{
    CapToken, EngineCfg, EngineError, Event, LongHoldConfig, Role, TaskSpec, TaskStatus,
};
use ractor::ActorStatus;

use crate::world::{LONG, World, calm, children, eventually, soon};

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// How often a token's session was attached and detached, by the log.
async fn flips(world: &World, token: &CapToken) -> (usize, usize) {
    let session = token.fingerprint().session_id();
    let (mut attached, mut detached) = (0, 0);
    for record in world.events().await {
        match record.event {
            Event::SessionAttached { session_id, .. } if session_id == session => attached += 1,
            Event::SessionDetached { session_id } if session_id == session => detached += 1,
            _ => {}
        }
    }
    (attached, detached)
}

fn beat(world: &World, token: &CapToken, every: Duration) -> tokio::task::JoinHandle<()> {
    let (engine, token) = (world.engine.clone(), token.clone());
    tokio::spawn(async move {
        loop {
            engine.heartbeat(&token).await.unwrap();
            tokio::time::sleep(every).await;
        }
    })
}

#[tokio::test(start_paused = true)]
async fn a_day_of_heartbeats_keeps_all_sessions_but_the_silent_one() {
    let world = World::new().await;
    let attach = |name| world.engine.attach(name, Role::Operator, DAY * 9);
    let mut steady = Vec::new();
    for name in ["a", "b", "c", "d", "e"] {
        steady.push(attach(name).await.unwrap());
    }
    let silent = attach("silent").await.unwrap();
    let detach_loop = world.engine.start_detach_loop();
    let beats: Vec<_> = steady.iter().map(|token| beat(&world, token, MINUTE * 5)).collect();
    let ends = beat(&world, &silent, MINUTE * 5);
    tokio::time::sleep(MINUTE * 60).await;
    assert_eq!(flips(&world, &silent).await, (1, 0));
    ends.abort();
    tokio::time::sleep(MINUTE * 14).await;
    assert_eq!(flips(&world, &silent).await, (1, 0), "three intervals are not over");
    tokio::time::sleep(MINUTE * 7).await;
    assert_eq!(flips(&world, &silent).await, (1, 1));
    tokio::time::sleep(MINUTE * 60 * 10).await;
    assert_eq!(flips(&world, &silent).await, (1, 1), "one event a flip");
    world.engine.heartbeat(&silent).await.unwrap();
    assert_eq!(flips(&world, &silent).await, (2, 1), "a beat attaches again");
    tokio::time::sleep(MINUTE * 60 * 13).await;
    assert_eq!(flips(&world, &silent).await, (2, 2));
    for (token, beats) in steady.iter().zip(beats) {
        assert_eq!(flips(&world, token).await, (1, 0));
        assert!(!beats.is_finished());
        beats.abort();
    }
    detach_loop.abort();
    assert!(soon("the loop", detach_loop).await.unwrap_err().is_cancelled());
    tokio::time::sleep(DAY).await;
    for token in &steady {
        assert_eq!(flips(&world, token).await, (1, 0), "the loop was ended");
    }
    eventually("passive sessions", || async { children(&world.engine).len() == 1 }).await;
    world.audit().await;
}

#[tokio::test(start_paused = true)]
async fn the_detach_loop_ends_with_its_engine() {
    let world = World::new().await;
    let detach_loop = world.engine.start_detach_loop();
    drop(world);
    tokio::time::timeout(MINUTE * 10, detach_loop).await.expect("the loop goes on").unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn the_detach_loop_outlives_a_tree_that_the_next_call_starts_again() {
    let long_hold = LongHoldConfig {
        heartbeat_interval: Duration::from_millis(50),
        heartbeat_miss_threshold: 1,
        ..LongHoldConfig::default()
    };
    let world = World::with(EngineCfg { long_hold, max_hold_ms: u128::MAX, ..calm() }).await;
    let engine = &world.engine;
    let detach_loop = engine.start_detach_loop();
    let (open, blocked) = crate::turns::block(engine).await;
    eventually("the loop's turn", || async { engine.queued_turns() == 1 }).await;
    let root = engine.root_cell().unwrap();
    root.kill();
    // Its children are told before it has stopped, so the loop's turn never runs in this tree.
    eventually("the root's end", || async { root.get_status() == ActorStatus::Stopped }).await;
    open.send(()).unwrap();
    let _ = soon("the blocking turn", blocked).await;
    let silent = loop {
        match engine.attach("silent", Role::Observer, DAY).await {
            Ok(silent) => break silent,
            Err(error) => assert!(matches!(error, EngineError::Stopped(_)), "{error:?}"),
        }
    };
    eventually("its lapse", || async { flips(&world, &silent).await == (1, 1) }).await;
    assert!(!detach_loop.is_finished());
    detach_loop.abort();
}

#[tokio::test(start_paused = true)]
async fn a_lapse_cancels_open_tasks_only_where_the_settings_say_so() {
    for keepalive_on_idle in [true, false] {
        let long_hold = LongHoldConfig { keepalive_on_idle, ..LongHoldConfig::default() };
        let world = World::with(EngineCfg { long_hold, ..calm() }).await;
        let idle = world.engine.attach("idle", Role::Operator, DAY * 9).await.unwrap();
        let start = || world.engine.start_task(&idle, TaskSpec::new("any", "x"));
        let (open, passed) = (start().await.unwrap(), start().await.unwrap());
        world.engine.mark_pass(&idle, &passed, 1.into()).await.unwrap();
        let (kept, keeps) = (world.start("any").await, beat(&world, &world.operator, MINUTE));
        let (spawner, probe) = crate::faulty::faulty(crate::faulty::Fault::Hang);
        let live = start().await.unwrap();
        let run = world.run(live, &spawner);
        eventually("the worker", || async { probe.asked() == 1 }).await;
        let poll = world.poll(open);
        let _loop = world.engine.start_detach_loop();
        tokio::time::sleep(MINUTE * 21).await;
        assert_eq!(flips(&world, &idle).await, (1, 1));
        assert_eq!(world.status(passed).await, TaskStatus::Pass);
        assert_eq!(world.status(kept).await, TaskStatus::Pending, "another session's task");
        if keepalive_on_idle {
            assert_eq!(world.status(open).await, TaskStatus::Pending);
            assert_eq!(world.status(live).await, TaskStatus::Running);
            assert!(!poll.is_finished());
        } else {
            assert_eq!(soon("poll", poll).await.unwrap().unwrap().status, TaskStatus::Cancelled);
            let outcome = soon("dispatch", run).await.unwrap();
            assert_eq!(outcome, Ok(adjutant::DispatchOutcome::Cancelled));
            assert_eq!(probe.asked_to_stop(), 1);
            world.at_rest().await;
        }
        assert!(!keeps.is_finished());
        keeps.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn a_beat_attaches_a_detached_session_but_not_a_revoked_one() {
    let world = World::new().await;
    let engine = &world.engine;
    let token = engine.attach("ann", Role::Observer, DAY).await.unwrap();
    engine.detach(&token).await.unwrap();
    assert_eq!(flips(&world, &token).await, (1, 1));
    engine.heartbeat(&token).await.unwrap();
    assert_eq!(flips(&world, &token).await, (2, 1));
    engine.heartbeat(&token).await.unwrap();
    assert_eq!(flips(&world, &token).await, (2, 1), "a beat of an attached session is silent");
    engine.detach_and_revoke(&token).await.unwrap();
    assert_eq!(engine.heartbeat(&token).await, Err(EngineError::TokenRevoked));
    assert_eq!(engine.detach(&token).await, Err(EngineError::TokenRevoked));
    assert_eq!(flips(&world, &token).await, (2, 2));
    world.audit().await;
}

#[tokio::test(start_paused = true)]
async fn a_beats_reply_tells_what_is_left() {
    let world = World::new().await;
    let token = world.engine.attach("ann", Role::Operator, DAY).await.unwrap();
    let reply = world.engine.heartbeat_with_reply(&token).await.unwrap();
    assert_eq!(reply.session, token.fingerprint().session_id());
    assert!(!reply.drain);
    let lapses = u64::try_from(world.engine.cfg().long_hold.lapse_after().as_millis()).unwrap();
    assert_eq!(reply.lapses_in_ms, lapses);
    let day = u64::try_from(DAY.as_millis()).unwrap();
    assert!(reply.token_ends_in_ms <= day && reply.token_ends_in_ms + 10_000 >= day);
    world.engine.pause_dispatch(&world.senior).await.unwrap();
    assert!(world.engine.heartbeat_with_reply(&token).await.unwrap().drain, "dispatch is paused");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beats_that_come_together_are_all_answered_in_few_turns() {
    let cfg = EngineCfg { queue_limit: 2, try_only: true, max_hold_ms: u128::MAX, ..calm() };
    let world = World::with(cfg).await;
    world.engine.heartbeat(&world.operator).await.unwrap();
    eventually("the session's actor", || async { children(&world.engine).len() == 2 }).await;
    // The state stands still, so that the beats gather; each in a turn of its own would be
    // refused, as only two turns may wait.
    let (open, gate) = std::sync::mpsc::channel::<()>();
    let (tell, told) = tokio::sync::oneshot::channel();
    let engine = world.engine.clone();
    let blocked = tokio::spawn(async move {
        let wait = move |_: &mut adjutant::EngineState| {
            let _ = tell.send(());
            let _ = gate.recv();
        };
        engine.with_state("block", wait).await.unwrap();
    });
    told.await.unwrap();
    let beats: Vec<_> = (0..100)
        .map(|_| {
            let (engine, token) = (world.engine.clone(), world.operator.clone());
            tokio::spawn(async move { engine.heartbeat(&token).await })
        })
        .collect();
    eventually("a beat's turn", || async { world.engine.queued_turns() >= 1 }).await;
    open.send(()).unwrap();
    soon("the blocking turn", blocked).await.unwrap();
    for beat in beats {
        assert_eq!(tokio::time::timeout(LONG, beat).await.unwrap().unwrap(), Ok(()));
    }
}
