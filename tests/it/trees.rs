//! The actor tree's life: last handle, lost runtime, a host's supervisor, shutdown.

use std::sync::Arc;
use std::time::Duration;

use adjutant::{
    DispatchOutcome, Engine, EngineCfg, EngineError, Event, LayerRegistry, Role, TaskSpec,
    TaskStatus,
};
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::faulty::{Fault, faulty};
use crate::world::{LONG, World, agents, calm, children, eventually, soon};

#[tokio::test]
async fn the_last_handle_dropped_ends_the_worker_and_decides_its_attempt() {
    let world = World::new().await;
    let (spawner, probe) = faulty(Fault::Stubborn);
    let task = world.start("any").await;
    let (engine, token) = (world.engine.unanchored(), world.operator.clone());
    let run = {
        let (engine, token, spawner) = (engine.clone(), token.clone(), spawner.clone());
        tokio::spawn(async move { engine.dispatch_attempt_with(&token, &task, &spawner).await })
    };
    eventually("the worker", || async { probe.asked() == 1 }).await;
    let poll = {
        let (engine, token) = (engine.clone(), token.clone());
        tokio::spawn(async move { engine.poll_task(&token, &task, LONG).await })
    };
    eventually("the poll", || async { children(&engine).len() == 3 }).await;
    let mut events = engine.subscribe_records();
    drop(world);
    eventually("the worker's end", || async { probe.gone() == 1 }).await;
    let outcome = soon("dispatch", run).await.unwrap();
    assert!(matches!(outcome, Err(EngineError::DispatchFailed(_))), "{outcome:?}");
    let polled = soon("poll", poll).await.unwrap();
    assert!(matches!(polled, Err(EngineError::Stopped(_))), "{polled:?}");
    let mut kinds = Vec::new();
    while kinds.len() < 2 {
        kinds.push(soon("events", events.recv()).await.unwrap().event.kind());
    }
    assert_eq!(kinds, ["task_attempt_completed", "task_blocked"]);
    let after = engine.read_task_state(&token, &task).await;
    assert!(matches!(after, Err(EngineError::Stopped(_))), "{after:?}");
    assert!(engine.root_cell().is_none());
}

#[test]
fn a_lost_runtime_decides_its_attempts_and_the_next_one_goes_on() {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(2).enable_all().build().unwrap()
    };
    for round in 0..10 {
        let (spawner, probe) = faulty(Fault::Stubborn);
        let first = runtime();
        let (world, task) = first.block_on(async {
            let world = World::around(Engine::new(calm())).await;
            let task = world.start("any").await;
            let (_run, _poll) = (world.run(task, &spawner), world.poll(task));
            if round % 2 == 0 {
                eventually("the worker", || async { probe.asked() == 1 }).await;
            }
            (world, task)
        });
        drop(first);
        assert_eq!(probe.asked(), probe.gone(), "a worker outlived its runtime");
        runtime().block_on(async {
            let status = world.status(task).await;
            assert!(matches!(status, TaskStatus::Blocked | TaskStatus::Pending), "{status}");
            assert!(round % 2 != 0 || status == TaskStatus::Blocked, "{status}");
            world.at_rest().await;
            let next = world.start("pass").await;
            let outcome = world.run(next, &agents()).await.unwrap();
            assert!(matches!(outcome, Ok(DispatchOutcome::Pass(_))), "{outcome:?}");
        });
    }
}

#[test]
fn an_engine_outside_a_runtime_can_be_made_and_dropped() {
    let engine = Engine::new(EngineCfg::default());
    let attached = futures::executor::block_on(engine.attach("ann", Role::Operator, LONG));
    assert!(matches!(attached, Err(EngineError::Internal(_))), "{attached:?}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    assert!(runtime.block_on(engine.attach("ann", Role::Operator, LONG)).is_ok());
    drop(runtime);
    drop(engine);
}

/// A host's own actor; tells what ended below it.
struct Host;

impl Actor for Host {
    type Msg = ();
    type State = mpsc::UnboundedSender<ractor::ActorId>;
    type Arguments = Self::State;

    async fn pre_start(
        &self,
        _myself: ActorRef<()>,
        tell: Self::State,
    ) -> Result<Self::State, ActorProcessingErr> {
        Ok(tell)
    }

    async fn handle_supervisor_evt(
        &self,
        _myself: ActorRef<()>,
        event: SupervisionEvent,
        tell: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        if let SupervisionEvent::ActorTerminated(who, ..) | SupervisionEvent::ActorFailed(who, _) =
            event
        {
            let _ = tell.send(who.get_id());
        }
        Ok(())
    }
}

#[tokio::test]
async fn a_root_killed_by_its_host_fails_its_callers_and_the_next_call_starts_anew() {
    let (tell, mut ended) = mpsc::unbounded_channel();
    let (host, _) = Actor::spawn(None, Host, tell).await.unwrap();
    let engine = Engine::start_linked(calm(), LayerRegistry::new(), host.get_cell()).unwrap();
    let linked = async || host.get_cell().get_children().len() == 1;
    eventually("the tree, without a call", linked).await;
    let world = World::around(engine).await;
    let (spawner, probe) = faulty(Fault::Stubborn);
    let task = world.start("any").await;
    let (run, poll) = (world.run(task, &spawner), world.poll(task));
    eventually("worker and poll", || async {
        probe.asked() == 1 && children(&world.engine).len() == 3
    })
    .await;
    let mut events = world.engine.subscribe_records();
    let root = world.engine.root_cell().unwrap();
    root.kill();
    assert_eq!(soon("the host's event", ended.recv()).await, Some(root.get_id()));
    let outcome = soon("dispatch", run).await.unwrap();
    assert!(matches!(outcome, Err(EngineError::DispatchFailed(_))), "{outcome:?}");
    let polled = soon("poll", poll).await.unwrap();
    match polled {
        Ok(state) => assert_eq!(state.status, TaskStatus::Blocked),
        Err(error) => assert!(matches!(error, EngineError::Stopped(_)), "{error}"),
    }
    eventually("the worker's end", || async { probe.gone() == 1 }).await;
    let heard = soon("an event", events.recv()).await.unwrap().event;
    assert!(matches!(heard, Event::TaskAttemptCompleted { .. }), "{heard:?}");
    assert_eq!(world.status(task).await, TaskStatus::Blocked);
    world.at_rest().await;
    let next = world.engine.root_cell().unwrap();
    assert_ne!(next.get_id(), root.get_id());
    let below: Vec<_> = host.get_cell().get_children().iter().map(|it| it.get_id()).collect();
    assert_eq!(below, [next.get_id()], "the new tree is the host's as well");
    host.stop(None);
    let gone = async || world.engine.events_after(0, 1).await.is_err();
    eventually("the end with the host", gone).await;
}

/// Starts and dispatches one task of an agent, or of a fault.
async fn busy(world: &World, fault: Fault) -> adjutant::TaskId {
    let (spawner, probe) = faulty(fault);
    let task = world.start("any").await;
    let run = world.run(task, &spawner);
    eventually("the worker", || async { probe.asked() == 1 }).await;
    drop(run);
    task
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_drains_then_interrupts_then_kills_and_says_so() {
    let world = World::new().await;
    let mut spawner = adjutant::InProcSpawner::new();
    spawner.register("brief", |_| async {
        tokio::time::sleep(Duration::from_secs(10)).await;
        crate::world::done(serde_json::json!("in time"), true)
    });
    let spawner: Arc<dyn adjutant::SpawnerAdapter> = Arc::new(spawner);
    let brief = world.start("brief").await;
    let run = world.run(brief, &spawner);
    let running = async || world.status(brief).await == TaskStatus::Running;
    eventually("the attempt", running).await;
    let heeds = busy(&world, Fault::Hang).await;
    let ignores = busy(&world, Fault::Stubborn).await;
    let waiting = world.start("any").await;
    let asks = world.start("any").await;
    world.engine.query_senior(&world.operator, &asks, "?".into()).await.unwrap();
    let mut events = world.engine.subscribe_records();
    let engine = world.engine.clone();
    let began = Instant::now();
    let shutdown = tokio::spawn(async move { engine.shutdown(Duration::from_secs(60)).await });
    tokio::task::yield_now().await;
    let refused = world.engine.start_task(&world.operator, TaskSpec::new("any", "x")).await;
    assert!(matches!(refused, Err(EngineError::Stopped(_))), "{refused:?}");
    assert!(world.engine.heartbeat_with_reply(&world.operator).await.unwrap().drain);
    let report = tokio::time::timeout(LONG * 4, shutdown).await.unwrap().unwrap();
    assert!(began.elapsed() <= Duration::from_secs(61), "{:?}", began.elapsed());
    assert_eq!(report.drained, 1, "{report}");
    let mut interrupted = vec![(heeds, 1), (ignores, 1)];
    interrupted.sort_unstable();
    assert_eq!(report.interrupted, interrupted, "{report}");
    assert_eq!((report.killed, report.suspended, report.waiting), (1, vec![asks], vec![waiting]));
    let outcome = soon("dispatch", run).await.unwrap();
    assert_eq!(outcome, Ok(DispatchOutcome::Pass(serde_json::json!("in time"))));
    let mut decided = Vec::new();
    while let Ok(record) = events.try_recv() {
        if let Event::TaskPass { task_id, .. } | Event::TaskBlocked { task_id, .. } = record.event {
            decided.push(task_id);
        }
    }
    assert_eq!(decided[0], brief);
    decided[1..].sort_unstable();
    assert_eq!(decided[1..], interrupted.into_iter().map(|(task, _)| task).collect::<Vec<_>>());
    let after = world.engine.heartbeat(&world.operator).await;
    assert!(matches!(after, Err(EngineError::Stopped(_))), "{after:?}");
    assert_eq!(world.engine.shutdown(LONG).await, adjutant::ShutdownReport::default());
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_of_an_idle_engine_takes_no_time() {
    let world = World::new().await;
    let began = Instant::now();
    let report = world.engine.shutdown(Duration::from_secs(3600)).await;
    assert_eq!(report, adjutant::ShutdownReport::default());
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert!(world.engine.root_cell().is_none());
}
