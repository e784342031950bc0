//! Sessions: heartbeats over days, lapses, detaching and coming back.

use std::time::Duration;

use adjutant::{Engine, EngineCfg, EngineError, Event, Role, SessionId, TaskStatus};

use crate::world::{World, calm, soon};

async fn flips(engine: &Engine, session: SessionId) -> Vec<&'static str> {
    let events = engine.events_after(0, usize::MAX).await.unwrap();
    let own = events.iter().filter(|record| match &record.event {
        Event::SessionAttached { session_id, .. } | Event::SessionDetached { session_id } => {
            *session_id == session
        }
        _ => false,
    });
    own.map(|record| record.event.kind()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_day_of_heartbeats_keeps_those_that_beat_and_detaches_the_silent_one_once() {
    let mut cfg = calm();
    cfg.limits.event_tail = 100_000;
    let engine = Engine::new(cfg);
    let ttl = Duration::from_secs(3 * 24 * 3600);
    let mut sessions = Vec::new();
    for role in [Role::Operator, Role::Observer, Role::Senior, Role::Operator] {
        sessions.push(engine.attach("ann", role, ttl).await.unwrap());
    }
    let detach_loop = engine.start_detach_loop();
    let (silent, beating) = sessions.split_last().unwrap();
    for _ in 0..(24 * 3600 / 200) {
        tokio::time::sleep(Duration::from_secs(200)).await;
        for token in beating {
            engine.heartbeat(token).await.unwrap();
        }
    }
    for token in beating {
        let session = engine.read_session(token).await.unwrap();
        assert!(session.attached);
        assert_eq!(flips(&engine, session.id).await, ["session_attached"]);
    }
    let quiet = engine.read_session(silent).await.unwrap();
    assert!(!quiet.attached);
    assert_eq!(flips(&engine, quiet.id).await, ["session_attached", "session_detached"]);
    engine.heartbeat(silent).await.unwrap();
    assert!(engine.read_session(silent).await.unwrap().attached);
    assert_eq!(flips(&engine, quiet.id).await.last(), Some(&"session_attached"));
    detach_loop.abort();
    assert!(detach_loop.await.unwrap_err().is_cancelled());
    tokio::time::sleep(Duration::from_secs(24 * 3600)).await;
    assert!(engine.read_session(silent).await.unwrap().attached, "nobody looks any more");
}

#[tokio::test(start_paused = true)]
async fn a_lapse_cancels_open_tasks_only_where_the_setting_says_so() {
    for keep in [true, false] {
        let mut cfg = calm();
        cfg.long_hold.keepalive_on_idle = keep;
        let world = World::with(cfg).await;
        let _loop = world.engine.start_detach_loop();
        let (open, done) = (world.start("any").await, world.start("any").await);
        world.engine.mark_pass(&world.operator, &done, 1.into()).await.unwrap();
        tokio::time::sleep(Duration::from_secs(2 * 3600)).await;
        let expected = if keep { TaskStatus::Pending } else { TaskStatus::Cancelled };
        assert_eq!(world.status(open).await, expected);
        assert_eq!(world.status(done).await, TaskStatus::Pass);
        world.at_rest().await;
    }
}

#[tokio::test]
async fn a_heartbeat_brings_a_detached_session_back_but_not_a_revoked_one() {
    let world = World::new().await;
    let engine = &world.engine;
    engine.detach(&world.operator).await.unwrap();
    engine.detach(&world.operator).await.unwrap();
    assert!(!engine.read_session(&world.operator).await.unwrap().attached);
    let reply = engine.heartbeat_with_reply(&world.operator).await.unwrap();
    assert_eq!(reply.session, world.operator.fingerprint().session_id());
    assert!(reply.lapses_in_ms > 0 && reply.token_ends_in_ms > reply.lapses_in_ms && !reply.drain);
    let kinds = flips(engine, reply.session).await;
    assert_eq!(kinds, ["session_attached", "session_detached", "session_attached"]);
    engine.detach_and_revoke(&world.operator).await.unwrap();
    assert_eq!(engine.heartbeat(&world.operator).await, Err(EngineError::TokenRevoked));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beats_that_come_together_are_all_answered() {
    let world = World::new().await;
    let beats: Vec<_> = (0..500)
        .map(|_| {
            let (engine, token) = (world.engine.clone(), world.operator.clone());
            tokio::spawn(async move { engine.heartbeat(&token).await })
        })
        .collect();
    for beat in beats {
        assert_eq!(soon("beat", beat).await.unwrap(), Ok(()));
    }
}

#[tokio::test]
async fn a_session_lists_what_it_owns() {
    let world = World::new().await;
    let mut tasks = vec![world.start("a").await, world.start("b").await];
    tasks.sort_unstable();
    let session = world.engine.read_session(&world.operator).await.unwrap();
    assert_eq!(session.owned_task_ids, tasks);
    let cfg = EngineCfg::default();
    assert_eq!(cfg.long_hold.heartbeat_miss_threshold, 3);
}
