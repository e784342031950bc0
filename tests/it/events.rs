//! Events: stored and sent once, in one order; a slow reader learns exactly what it missed.

use std::collections::HashMap;

use adjutant::{Delivery, EngineCfg, Event, EventRecord, TaskId, TaskStatus};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use serde_json::json;

use crate::turns::block;
use crate::world::{World, agents, calm, eventually, soon};

/// A history of many verbs, most of them lawful.
async fn history(world: &World, rounds: u64) {
    let (engine, operator, senior) = (&world.engine, &world.operator, &world.senior);
    let mut tasks = Vec::new();
    let mut number = rounds;
    for round in 0..rounds {
        // A small generator of one fixed sequence.
        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(round | 1);
        let pick = number >> 33;
        if tasks.len() < 3 || pick.is_multiple_of(7) {
            let agent = ["pass", "block", "fail"][usize::try_from(pick % 3).unwrap()];
            tasks.push(world.start(agent).await);
        }
        let task = tasks[usize::try_from(pick).unwrap() % tasks.len()];
        let _ = match (pick >> 8) % 6 {
            0 | 1 => engine.dispatch_attempt_with(operator, &task, &agents()).await.map(|_| ()),
            2 => match engine.query_senior(operator, &task, json!("?")).await {
                Ok(key) => engine.answer_query(senior, key, json!("!")).await,
                Err(error) => Err(error),
            },
            3 if pick.is_multiple_of(5) => engine.cancel_task(operator, &task).await,
            4 => engine.override_verdict(senior, &task, pick.is_multiple_of(2), json!(1)).await,
            _ => engine.query_senior(operator, &task, json!("?")).await.map(|_| ()),
        };
    }
}

fn check_order(records: &[EventRecord]) {
    for (place, record) in records.iter().enumerate() {
        assert_eq!(record.seq, place as u64 + 1);
    }
}

#[tokio::test]
async fn live_streams_and_the_tail_hold_the_same_events_in_the_same_order() {
    let mut cfg = calm();
    cfg.limits.event_tail = 100_000;
    cfg.limits.broadcast_capacity = 100_000;
    let world = World::with(cfg).await;
    let (mut records, mut plain) = (world.engine.subscribe_records(), world.engine.subscribe());
    history(&world, 600).await;
    let tail = world.events().await;
    check_order(&tail);
    let fresh: Vec<_> = tail.iter().skip(3).cloned().collect();
    let mut live = Vec::new();
    while let Ok(record) = records.try_recv() {
        live.push(record);
    }
    assert_eq!(live, fresh);
    let mut events = Vec::new();
    while let Ok(event) = plain.try_recv() {
        events.push(event);
    }
    assert_eq!(events, fresh.into_iter().map(|record| record.event).collect::<Vec<_>>());
    world.audit().await;
}

#[tokio::test]
async fn the_events_of_a_task_fit_their_grammar_and_fold_to_its_status() {
    let mut cfg = calm();
    cfg.limits.event_tail = 100_000;
    let world = World::with(cfg).await;
    history(&world, 600).await;
    let mut statuses: HashMap<TaskId, TaskStatus> = HashMap::new();
    let mut open_attempt: HashMap<TaskId, bool> = HashMap::new();
    for record in world.events().await {
        let Some(task) = record.event.task_id() else { continue };
        let before = statuses.get(&task).copied();
        let next = match &record.event {
            Event::TaskCreated { .. } => {
                assert_eq!(before, None);
                TaskStatus::Pending
            }
            Event::TaskAttemptStarted { .. } => {
                assert_ne!(open_attempt.insert(task, true), Some(true));
                TaskStatus::Running
            }
            Event::TaskAttemptCompleted { .. } => {
                assert_eq!(open_attempt.insert(task, false), Some(true));
                continue;
            }
            Event::TaskPass { .. } => TaskStatus::Pass,
            Event::TaskBlocked { .. } => TaskStatus::Blocked,
            Event::TaskSuspended { .. } => TaskStatus::Suspended,
            Event::TaskResumed { .. } => TaskStatus::Running,
            Event::TaskCancelled { .. } => TaskStatus::Cancelled,
            _ => continue,
        };
        if let Some(before) = before {
            assert!(before.may_become(next), "{before} became {next}");
        }
        statuses.insert(task, next);
    }
    assert!(statuses.len() > 50);
    for (task, status) in statuses {
        assert_eq!(world.status(task).await, status);
    }
}

#[tokio::test]
async fn a_feed_that_lags_is_refilled_and_told_exactly_what_is_gone() {
    let mut cfg = calm();
    cfg.limits.event_tail = 10;
    cfg.limits.broadcast_capacity = 4;
    let world = World::with(cfg).await;
    let mut feed = world.engine.event_feed(0).await.unwrap();
    for _ in 0..8 {
        world.start("any").await;
    }
    let last = world.engine.with_state("last", |state| state.last_seq()).await.unwrap();
    for expected in 1..=last {
        match feed.next().await {
            Some(Delivery::Record(record)) => assert_eq!(record.seq, expected),
            other => panic!("{other:?}"),
        }
    }
    for _ in 0..30 {
        world.start("any").await;
    }
    let gap = feed.next().await;
    assert_eq!(gap, Some(Delivery::Missed { from: last + 1, to: last + 20 }));
    for expected in last + 21..=last + 30 {
        match feed.next().await {
            Some(Delivery::Record(record)) => assert_eq!(record.seq, expected),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_feed_that_lags_while_the_queue_is_full_waits_and_is_told_of_nothing_gone() {
    let mut cfg = EngineCfg { queue_limit: 1, try_only: true, max_hold_ms: u128::MAX, ..calm() };
    cfg.limits.broadcast_capacity = 4;
    let world = World::with(cfg).await;
    let mut feed = world.engine.event_feed(0).await.unwrap();
    for _ in 0..8 {
        world.start("any").await;
    }
    for expected in 1..=3 {
        assert_eq!(number(feed.next().await), expected);
    }
    let (open, blocked) = block(&world.engine).await;
    let engine = world.engine.clone();
    let queued = tokio::spawn(async move { engine.with_state("queued", |_| ()).await });
    eventually("a full queue", || async { world.engine.queued_turns() == 1 }).await;
    let mut next = Box::pin(feed.next());
    let early = futures::poll!(&mut next);
    assert!(early.is_pending(), "nobody could read the log yet: {early:?}");
    open.send(()).unwrap();
    soon("the blocking turn", blocked).await.unwrap();
    soon("the queued turn", queued).await.unwrap().unwrap();
    assert_eq!(number(soon("a delivery", next).await), 4);
    for expected in 5..=11 {
        assert_eq!(number(soon("a delivery", feed.next()).await), expected);
    }
}

/// The number of the event that was delivered.
fn number(delivery: Option<Delivery>) -> u64 {
    match delivery {
        Some(Delivery::Record(record)) => record.seq,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn observers_read_by_token_and_others_do_not() {
    let world = World::new().await;
    let task = world.start("any").await;
    let other = world.start("any").await;
    let engine = &world.engine;
    let trace = engine.read_trace(&world.observer, Some(&task), 0, 100).await.unwrap();
    assert_eq!(trace.len(), 1);
    assert!(engine.read_trace(&world.operator, None, 0, 100).await.is_err());
    assert!(engine.subscribe_with(&world.operator).await.is_err());
    let mut live = engine.subscribe_with(&world.observer).await.unwrap();
    engine.cancel_task(&world.operator, &other).await.unwrap();
    let record = live.recv().await.unwrap();
    assert_eq!(record.event, Event::TaskCancelled { task_id: other });
}

/// A host's actor with a message type of its own.
struct Host;

enum HostMsg {
    Engine(Delivery),
    Count(ractor::RpcReplyPort<Vec<u64>>),
}

impl Actor for Host {
    type Msg = HostMsg;
    type State = Vec<u64>;
    type Arguments = ();

    async fn pre_start(
        &self,
        _myself: ActorRef<HostMsg>,
        (): (),
    ) -> Result<Vec<u64>, ActorProcessingErr> {
        Ok(Vec::new())
    }

    async fn handle(
        &self,
        _myself: ActorRef<HostMsg>,
        message: HostMsg,
        seen: &mut Vec<u64>,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            HostMsg::Engine(Delivery::Record(record)) => seen.push(record.seq),
            HostMsg::Engine(Delivery::Missed { .. }) => {}
            HostMsg::Count(reply) => {
                let _ = reply.send(seen.clone());
            }
        }
        Ok(())
    }
}

#[tokio::test]
async fn a_hosts_actor_receives_events_as_its_own_messages() {
    let world = World::new().await;
    let (host, _) = Actor::spawn(None, Host, ()).await.unwrap();
    let forward =
        world.engine.forward_events(host.clone(), 0, |it| Some(HostMsg::Engine(it))).await.unwrap();
    world.start("any").await;
    let seen = || async { host.call(HostMsg::Count, None).await.unwrap().unwrap() };
    eventually("four events", || async { seen().await == [1, 2, 3, 4] }).await;
    forward.abort();
    host.stop(None);
}
