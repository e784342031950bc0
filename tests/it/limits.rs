//! Limits and retention: each cap has its own error, and what is forgotten is gone with all it
//! owns.

use std::time::Duration;

use adjutant::{
    AttemptEnd, ContentRef, Engine, EngineCfg, EngineError, Event, InProcSpawner, Now, OutputEvent,
    Role, TaskOptions, TaskSpec, TaskStatus, WorkerResult,
};
use serde_json::json;

use crate::world::{World, agents, calm};

async fn spec(world: &World, spec: TaskSpec) -> Result<adjutant::TaskId, EngineError> {
    world.engine.start_task(&world.operator, spec).await
}

#[tokio::test]
async fn values_above_their_cap_are_refused_and_at_it_accepted() {
    let mut cfg = calm();
    cfg.limits.prompt_bytes = 10;
    cfg.limits.value_bytes = 12;
    cfg.limits.resources = 1;
    let world = World::with(cfg).await;
    assert!(spec(&world, TaskSpec::new("a", "0123456789")).await.is_ok());
    let long = spec(&world, TaskSpec::new("a", "0123456789x")).await;
    assert!(matches!(
        long,
        Err(EngineError::ValueTooLarge { what: "directive", current: 11, max: 10, .. })
    ));
    for agent in ["", "line\nbreak", "\u{1b}[31m", &"x".repeat(257)] {
        assert!(spec(&world, TaskSpec::new(agent, "x")).await.is_err(), "{agent:?}");
    }
    let engine = &world.engine;
    assert_eq!(engine.set_resource("r", json!("0123456789")).await, Ok(()));
    let large = engine.set_resource("r", json!("0123456789x")).await;
    assert!(matches!(large, Err(EngineError::ValueTooLarge { what: "resource", .. })));
    let full = engine.set_resource("s", json!(1)).await;
    assert!(matches!(full, Err(EngineError::TableFull { what: "resources", .. })));
}

#[tokio::test]
async fn depth_children_and_live_tasks_have_errors_of_their_own() {
    let mut cfg = EngineCfg { max_spawn_depth: 2, ..calm() };
    cfg.limits.children_per_task = 2;
    cfg.limits.live_tasks_per_tree = 3;
    cfg.limits.live_tasks = 4;
    let world = World::with(cfg).await;
    let under = |parent| TaskOptions { parent: Some(parent), ..TaskOptions::default() };
    let start = async |options| {
        let spec = TaskSpec::new("a", "x");
        world.engine.start_task_with(&world.operator, spec, options).await
    };
    let root = start(TaskOptions::default()).await.unwrap();
    let child = start(under(root)).await.unwrap();
    let deep = start(under(child)).await;
    assert_eq!(deep, Err(EngineError::SpawnDepthExceeded { current: 2, max: 2 }));
    start(under(root)).await.unwrap();
    let wide = start(under(root)).await;
    assert_eq!(wide, Err(EngineError::ChildLimitExceeded { current: 2, max: 2 }));
    let other = start(TaskOptions::default()).await.unwrap();
    let full = start(TaskOptions::default()).await;
    let engine_full = EngineError::TaskLimitExceeded { scope: "engine", current: 4, max: 4 };
    assert_eq!(full, Err(engine_full));
    world.engine.cancel_task(&world.operator, &other).await.unwrap();
    world.engine.cancel_task(&world.operator, &root).await.unwrap();
    assert!(start(TaskOptions::default()).await.is_ok());
    world.audit().await;
}

#[tokio::test]
async fn a_tree_of_live_tasks_is_capped() {
    let mut cfg = calm();
    cfg.limits.live_tasks_per_tree = 2;
    let world = World::with(cfg).await;
    let root = world.start("a").await;
    let under = TaskOptions { parent: Some(root), ..TaskOptions::default() };
    let start = async || {
        let spec = TaskSpec::new("a", "x");
        world.engine.start_task_with(&world.operator, spec, under.clone()).await
    };
    start().await.unwrap();
    let full = start().await;
    assert_eq!(full, Err(EngineError::TaskLimitExceeded { scope: "tree", current: 2, max: 2 }));
}

#[tokio::test]
async fn sessions_and_tokens_are_capped() {
    let mut cfg = calm();
    cfg.limits.sessions = 2;
    let engine = Engine::new(cfg);
    let minute = Duration::from_secs(60);
    for _ in 0..2 {
        engine.attach("a", Role::Observer, minute).await.unwrap();
    }
    let full = engine.attach("a", Role::Observer, minute).await;
    assert!(matches!(full, Err(EngineError::TableFull { what: "sessions", .. })));
    let mut cfg = calm();
    cfg.limits.tokens = 1;
    let engine = Engine::new(cfg);
    engine.attach("a", Role::Observer, minute).await.unwrap();
    let full = engine.attach("a", Role::Observer, minute).await;
    assert!(matches!(full, Err(EngineError::TableFull { what: "tokens", .. })));
    let zero = engine.attach("a", Role::Observer, Duration::ZERO).await;
    assert!(matches!(zero, Err(EngineError::InvalidArgument(_))));
}

#[tokio::test]
async fn an_attempts_output_is_capped_by_events_and_bytes() {
    let mut cfg = calm();
    cfg.limits.outputs_per_attempt = 3;
    cfg.limits.output_bytes_per_attempt = 100;
    let world = World::with(cfg).await;
    let mut spawner = InProcSpawner::new();
    spawner.register("loud", |call: adjutant::WorkerInvocation| async move {
        let sink = call.sink.unwrap();
        let emit = async |text: String| {
            sink.emit(OutputEvent::Partial { chunk: json!(text) }).await.map_err(
                |error| match error {
                    EngineError::OutputLimitExceeded { unit, .. } => unit,
                    other => panic!("{other}"),
                },
            )
        };
        let bytes = emit("x".repeat(99)).await;
        let first = emit("a".into()).await;
        let second = emit("b".into()).await;
        let third = emit("c".into()).await;
        let fourth = emit("d".into()).await;
        assert_eq!((bytes, first, second, third), (Err("bytes"), Ok(()), Ok(()), Ok(())));
        assert_eq!(fourth, Err("events"));
        Ok(WorkerResult { value: json!(1), ok: true })
    });
    let spawner: std::sync::Arc<dyn adjutant::SpawnerAdapter> = std::sync::Arc::new(spawner);
    let task = world.start("loud").await;
    let end = world.run(task, &spawner).await.unwrap();
    assert!(
        matches!(end, Err(EngineError::DispatchFailed(ref text)) if text.contains("events")),
        "{end:?}"
    );
    world.at_rest().await;
}

#[tokio::test]
async fn a_large_body_is_kept_once_and_events_carry_a_reference() {
    let mut cfg = calm();
    cfg.limits.inline_bytes = 100;
    let world = World::with(cfg).await;
    let body = json!("y".repeat(1_000));
    let mut spawner = InProcSpawner::new();
    let sent = body.clone();
    spawner.register("large", move |_| {
        let value = sent.clone();
        async move { Ok(WorkerResult { value, ok: true }) }
    });
    let spawner: std::sync::Arc<dyn adjutant::SpawnerAdapter> = std::sync::Arc::new(spawner);
    for _ in 0..3 {
        let task = world.start("large").await;
        let outcome = world.run(task, &spawner).await.unwrap();
        assert_eq!(outcome, Ok(adjutant::DispatchOutcome::Pass(body.clone())));
        let tail = world.engine.output_tail(&task, 1).await;
        assert_eq!(tail[0].content(), Some(&ContentRef::inline(body.clone())));
    }
    let bodies = world.engine.with_state("bodies", |state| state.body_count()).await.unwrap();
    assert_eq!(bodies, 1);
    let log = serde_json::to_string(&world.events().await).unwrap();
    assert!(log.contains("b3-") && !log.contains("yyyyyyyyyy"));
    let outputs = world.events().await.into_iter().filter_map(|record| match record.event {
        Event::WorkerOutput { event, .. } => event.content().cloned(),
        _ => None,
    });
    assert!(
        outputs
            .into_iter()
            .all(|content| matches!(content, ContentRef::Stored { bytes: 1_002, .. }))
    );
    world.audit().await;
}

#[tokio::test]
async fn a_cancel_reaches_what_lives_below_a_sub_task_that_ended_long_ago() {
    let mut cfg = calm();
    cfg.retention.settled_tasks = 1;
    let world = World::with(cfg).await;
    let below = async |parent| {
        let options = TaskOptions { parent: Some(parent), ..TaskOptions::default() };
        let spec = TaskSpec::new("any", "do it");
        world.engine.start_task_with(&world.operator, spec, options).await.unwrap()
    };
    let top = world.start("any").await;
    let ended = below(top).await;
    let lives = below(ended).await;
    let others = [world.start("any").await, world.start("any").await];
    for task in [ended].into_iter().chain(others) {
        world.engine.mark_pass(&world.operator, &task, json!(1)).await.unwrap();
    }
    world.engine.cancel_task(&world.operator, &top).await.unwrap();
    let live = world.engine.with_state("look", |state| state.unsettled_tasks()).await.unwrap();
    assert_eq!(live, [], "{lives} lives on below a tree that was cancelled");
    world.at_rest().await;
}

#[tokio::test]
async fn the_oldest_settled_tasks_are_forgotten_with_all_they_own() {
    let mut cfg = calm();
    cfg.retention.settled_tasks = 10;
    cfg.limits.inline_bytes = 8;
    let world = World::with(cfg).await;
    let mut first = None;
    for _ in 0..50 {
        let task = world.start("pass").await;
        first.get_or_insert(task);
        world.engine.dispatch_attempt_with(&world.operator, &task, &agents()).await.unwrap();
    }
    let counts = |state: &mut adjutant::EngineState| {
        (state.task_count(), state.output_count(), state.body_count(), state.handle_count())
    };
    assert_eq!(world.engine.with_state("count", counts).await, Ok((10, 10, 1, 0)));
    let gone = world.engine.read_task_state(&world.operator, &first.unwrap()).await;
    assert!(matches!(gone, Err(EngineError::TaskNotFound(_))));
    let session = world.engine.read_session(&world.operator).await.unwrap();
    assert_eq!(session.owned_task_ids.len(), 10);
    world.audit().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_too_old_is_swept_back_to_the_baseline() {
    let world = World::new().await;
    let hour = Duration::from_secs(3600);
    let guest = world.engine.attach("guest", Role::Operator, hour).await.unwrap();
    for _ in 0..600 {
        let task = world.engine.start_task(&guest, TaskSpec::new("a", "x")).await.unwrap();
        world.engine.cancel_task(&guest, &task).await.unwrap();
    }
    world.engine.detach(&guest).await.unwrap();
    tokio::time::sleep(Duration::from_secs(8 * 24 * 3600)).await;
    let counts = |state: &mut adjutant::EngineState| {
        (state.task_count(), state.session_count(), state.token_count())
    };
    assert_eq!(world.engine.with_state("count", counts).await, Ok((0, 3, 3)));
    world.audit().await;
}

#[tokio::test]
async fn a_large_chunk_is_kept_whole_and_events_tell_its_size() {
    let mut cfg = calm();
    cfg.limits.inline_bytes = 100;
    let world = World::with(cfg).await;
    let mut spawner = InProcSpawner::new();
    spawner.register("wide", |call: adjutant::WorkerInvocation| async move {
        let sink = call.sink.unwrap();
        for wide in [98, 99] {
            sink.emit(OutputEvent::Partial { chunk: json!("z".repeat(wide)) }).await.unwrap();
        }
        let content = ContentRef::inline(json!(1));
        let long = OutputEvent::Artifact { name: "n".repeat(101), content };
        let refused = sink.emit(long).await;
        assert!(matches!(refused, Err(EngineError::ValueTooLarge { .. })), "{refused:?}");
        Ok(WorkerResult { value: json!(1), ok: true })
    });
    let spawner: std::sync::Arc<dyn adjutant::SpawnerAdapter> = std::sync::Arc::new(spawner);
    let task = world.start("wide").await;
    assert!(world.run(task, &spawner).await.unwrap().is_ok());
    let kept = world.engine.output_tail(&task, 1).await;
    assert_eq!(kept[1], OutputEvent::Partial { chunk: json!("z".repeat(99)) });
    let shown = world.events().await.into_iter().filter_map(|record| match record.event {
        Event::WorkerOutput { event: OutputEvent::Partial { chunk }, .. } => Some(chunk),
        _ => None,
    });
    let shown: Vec<_> = shown.collect();
    assert_eq!(shown, [json!("z".repeat(98)), json!({ "omitted_bytes": 101 })]);
}

#[tokio::test]
async fn attempts_of_a_task_are_capped() {
    let mut cfg = calm();
    cfg.limits.attempts_per_task = 2;
    let world = World::with(cfg).await;
    let task = world.start("block").await;
    for _ in 0..2 {
        let outcome = world.run(task, &agents()).await.unwrap();
        assert_eq!(outcome, Ok(adjutant::DispatchOutcome::Blocked(json!("no"))));
    }
    let full = world.run(task, &agents()).await.unwrap();
    let what = "attempts of the task";
    assert_eq!(full, Err(EngineError::TableFull { what, current: 2, max: 2 }));
    assert_eq!(world.status(task).await, TaskStatus::Blocked);
    world.at_rest().await;
}

#[tokio::test]
async fn a_sweep_puts_off_what_stays_to_the_next_one() {
    let mut cfg = calm();
    cfg.retention.settled_age = Duration::ZERO;
    cfg.retention.session_age = Duration::ZERO;
    cfg.retention.sweep_interval = Duration::from_secs(3600);
    let world = World::with(cfg).await;
    let (engine, operator) = (&world.engine, &world.operator);
    let parent = world.start("block").await;
    let (worker, run) = crate::rights::at_work(&world, parent).await;
    let child = engine.start_task(&worker, TaskSpec::new("any", "x")).await.unwrap();
    let day = Duration::from_secs(24 * 3600);
    let gone = engine.attach("gone", Role::Observer, day).await.unwrap();
    engine.detach(&gone).await.unwrap();
    let now = Now { unix: 4_000_000_000, ms: 1_000_000 };
    let sweep = move |state: &mut adjutant::EngineState| {
        let broke = AttemptEnd::Failed("it broke".into());
        state.finish_attempt(parent, 1, broke, Now { unix: now.unix, ms: now.ms - 1 });
        (state.sweep(now, 64), state.session_count())
    };
    // The parent stays for its open sub-task, the session for its token.
    let swept = engine.with_state("sweep", sweep).await.unwrap();
    assert_eq!(swept, (false, 4), "whether there is more to sweep, and the sessions");
    assert!(engine.read_task_state(operator, &parent).await.is_ok());
    assert!(engine.read_task_state(operator, &child).await.is_ok());
    world.audit().await;
    drop(run);
}
