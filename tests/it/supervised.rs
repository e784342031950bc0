//! `Supervised`: rebuilt after a panic within an intensity, refused past it, restarted if killed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use adjutant::{
    DispatchOutcome, EngineError, InProcSpawner, Intensity, OutputEvent, SpawnerAdapter, Supervised,
};
use serde_json::json;
use tokio::time::Instant;

use crate::world::{World, children, done, eventually};

/// What the factory builds: agents that panic until enough was built or tried.
struct Plant {
    built: Arc<AtomicU32>,
    runs: Arc<AtomicU32>,
    spawner: Arc<dyn SpawnerAdapter>,
}

/// `frail` panics in the first `panics` runs, `speaks` sends output and panics, `pass` passes.
fn plant(panics: u32, intensity: Intensity) -> Plant {
    let (built, runs) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let (count_built, count_runs) = (built.clone(), runs.clone());
    let factory = move || -> Result<Arc<dyn SpawnerAdapter>, String> {
        count_built.fetch_add(1, Ordering::SeqCst);
        let mut spawner = InProcSpawner::new();
        let runs = count_runs.clone();
        spawner.register("frail", move |_| {
            let run = runs.fetch_add(1, Ordering::SeqCst) + 1;
            async move {
                assert!(run > panics, "run {run} breaks");
                done(json!(run), true)
            }
        });
        let runs = count_runs.clone();
        spawner.register("speaks", move |call| {
            runs.fetch_add(1, Ordering::SeqCst);
            async move {
                let event = OutputEvent::Partial { chunk: json!("so far") };
                call.sink.unwrap().emit(event).await.unwrap();
                panic!("after its first words")
            }
        });
        spawner.register("pass", |_| async { done(json!("ok"), true) });
        Ok(Arc::new(spawner))
    };
    let spawner = Arc::new(Supervised::new("plant", factory).intensity(intensity));
    Plant { built, runs, spawner }
}

impl Plant {
    fn counts(&self) -> (u32, u32) {
        (self.built.load(Ordering::SeqCst), self.runs.load(Ordering::SeqCst))
    }
}

fn thrice() -> Intensity {
    Intensity { restarts: 3, within: Duration::from_secs(10), backoff: Duration::from_millis(100) }
}

#[tokio::test(start_paused = true)]
async fn a_panic_before_any_output_is_rebuilt_and_launched_again_with_backoff() {
    let (world, plant) = (World::new().await, plant(2, thrice()));
    let task = world.start("frail").await;
    let began = Instant::now();
    let outcome = world.engine.dispatch_attempt_with(&world.operator, &task, &plant.spawner).await;
    assert_eq!(outcome, Ok(DispatchOutcome::Pass(json!(3))));
    assert_eq!(plant.counts(), (3, 3), "built, run");
    // 100 ms before the second build, 200 ms before the third.
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(300) && took < Duration::from_secs(2), "{took:?}");
    let kinds = ["task_created", "task_attempt_started", "worker_output"];
    assert_eq!(world.kinds(task).await[..3], kinds, "a launch again is no attempt");
    world.at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn past_the_intensity_dispatches_are_refused_with_the_reason() {
    let (world, plant) = (World::new().await, plant(u32::MAX, thrice()));
    let task = world.start("frail").await;
    let run = || world.engine.dispatch_attempt_with(&world.operator, &task, &plant.spawner);
    let Err(EngineError::DispatchFailed(text)) = run().await else { panic!("it passed") };
    assert!(text.contains("breaks"), "{text}");
    assert_eq!(plant.counts(), (4, 4), "one launch and three more");
    let Err(EngineError::DispatchFailed(text)) = run().await else { panic!("it passed") };
    assert!(text.contains("given up") && text.contains("run 4 breaks"), "{text}");
    assert_eq!(plant.counts(), (4, 4), "it was refused without a launch");
    world.at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn breaks_that_are_far_apart_never_reach_the_intensity() {
    let once = Intensity { restarts: 1, ..thrice() };
    let (world, plant) = (World::new().await, plant(0, once));
    for round in 1..=5 {
        let task = world.start("speaks").await;
        let result =
            world.engine.dispatch_attempt_with(&world.operator, &task, &plant.spawner).await;
        assert!(matches!(result, Err(EngineError::DispatchFailed(_))), "{result:?}");
        tokio::time::sleep(Duration::from_secs(11)).await;
        assert_eq!(plant.counts(), (round + 1, round));
    }
    let task = world.start("pass").await;
    let outcome = world.engine.dispatch_attempt_with(&world.operator, &task, &plant.spawner).await;
    assert_eq!(outcome, Ok(DispatchOutcome::Pass(json!("ok"))));
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_has_spoken_is_not_launched_again() {
    let (world, plant) = (World::new().await, plant(0, thrice()));
    let task = world.start("speaks").await;
    let result = world.engine.dispatch_attempt_with(&world.operator, &task, &plant.spawner).await;
    let Err(EngineError::DispatchFailed(text)) = result else { panic!("{result:?}") };
    assert!(text.contains("after its first words"), "{text}");
    assert_eq!(plant.counts().1, 1, "runs");
    world.at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn a_spawner_actor_that_is_killed_is_started_again() {
    let (world, plant) = (World::new().await, plant(0, thrice()));
    let first = world.start("pass").await;
    let run = |task| {
        let (engine, token, spawner) = (&world.engine, &world.operator, &plant.spawner);
        async move { engine.dispatch_attempt_with(token, &task, spawner).await }
    };
    let before = children(&world.engine);
    assert_eq!(run(first).await, Ok(DispatchOutcome::Pass(json!("ok"))));
    eventually("the attempt's end", || async { children(&world.engine).len() == 2 }).await;
    let known = |cell: &ractor::ActorCell| before.iter().any(|it| it.get_id() == cell.get_id());
    let actor = children(&world.engine).into_iter().find(|cell| !known(cell)).unwrap();
    actor.kill();
    eventually("the second build", || async { plant.counts().0 == 2 }).await;
    eventually("the second actor", || async { children(&world.engine).len() == 2 }).await;
    let second = world.start("pass").await;
    assert_eq!(run(second).await, Ok(DispatchOutcome::Pass(json!("ok"))));
    let Plant { spawner, .. } = plant;
    drop(spawner);
    eventually("its end", || async { children(&world.engine).len() == 1 }).await;
}

#[tokio::test(start_paused = true)]
async fn a_factory_that_fails_is_asked_again_and_then_given_up() {
    let world = World::new().await;
    let asked = Arc::new(AtomicU32::new(0));
    let count = asked.clone();
    let factory = move || -> Result<Arc<dyn SpawnerAdapter>, String> {
        match count.fetch_add(1, Ordering::SeqCst) {
            0 => panic!("the factory's own panic"),
            _ => Err("no parts".to_owned()),
        }
    };
    let spawner: Arc<dyn SpawnerAdapter> =
        Arc::new(Supervised::new("plant", factory).intensity(thrice()));
    let task = world.start("any").await;
    let result = world.engine.dispatch_attempt_with(&world.operator, &task, &spawner).await;
    let Err(EngineError::DispatchFailed(text)) = result else { panic!("{result:?}") };
    assert!(text.contains("no parts") && text.contains("given up"), "{text}");
    assert_eq!(asked.load(Ordering::SeqCst), 4);
    world.at_rest().await;
}
