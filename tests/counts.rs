//! Counts that no clock and no machine changes: allocations, turns and actors of what is done
//! most. A change that makes one of them grow has to say here why.
//!
//! One test function, in a binary of its own and on a single-threaded runtime: the allocator
//! counts for the whole process.

#![expect(clippy::print_stdout, reason = "--nocapture shows what is measured")]

use std::alloc::System;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use adjutant::{
    CapToken, DispatchOutcome, Engine, EngineCfg, HoldPolicy, InProcSpawner, Role, SpawnerAdapter,
    TaskId, TaskSpec, Verb, WorkerInvocation, WorkerResult,
};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// What one operation may cost at most.
struct Ceiling {
    name: &'static str,
    allocations: f64,
    turns: f64,
    actors: f64,
}

/// All ceilings, just above what is measured. Lower them when an operation becomes cheaper.
const WITH_STATE: Ceiling =
    Ceiling { name: "with_state", allocations: 1.1, turns: 1.0, actors: 0.0 };
const VERIFY: Ceiling = Ceiling { name: "verify_token", allocations: 1.1, turns: 1.0, actors: 0.0 };
const LIFECYCLE: Ceiling = Ceiling {
    name: "lifecycle: start, dispatch, pull, submit, pass",
    allocations: 80.0,
    turns: 5.0,
    actors: 0.1,
};
const LOOKED_AT: Ceiling =
    Ceiling { name: "lifecycle, looked at by a poll", allocations: 84.0, turns: 6.0, actors: 0.1 };
const AWAITED: Ceiling =
    Ceiling { name: "lifecycle, awaited by a poll", allocations: 95.0, turns: 6.0, actors: 0.1 };

const TIMES: u32 = 400;
const DAY: Duration = Duration::from_secs(24 * 3600);

struct World {
    engine: Engine,
    token: CapToken,
    spawner: Arc<dyn SpawnerAdapter>,
    over: Vec<String>,
}

impl World {
    async fn new() -> Self {
        let mut cfg = EngineCfg { hold_policy: HoldPolicy::Warn, ..EngineCfg::default() };
        // Reached in the warm-up, so that what is kept does not grow while it is counted.
        cfg.retention.settled_tasks = 32;
        cfg.limits.event_tail = 64;
        // No sweep comes between.
        cfg.retention.sweep_interval = DAY;
        let engine = Engine::new(cfg);
        let token = engine.attach("ann", Role::Operator, DAY).await.expect("a session");
        let mut spawner = InProcSpawner::new();
        spawner.register("echo", |call: WorkerInvocation| async move {
            Ok(WorkerResult { value: call.prompt.into(), ok: true })
        });
        Self { engine, token, spawner: Arc::new(spawner), over: Vec::new() }
    }

    /// Counts what an operation costs, and notes where that is above its ceiling.
    async fn count<Fut: Future<Output = ()>>(&mut self, most: Ceiling, run: impl Fn() -> Fut) {
        for _ in 0..TIMES {
            run().await;
        }
        let before = (ALLOCATOR.stats(), self.engine.counts());
        for _ in 0..TIMES {
            run().await;
        }
        let (stats, counts) = (ALLOCATOR.stats() - before.0, self.engine.counts());
        let allocations = u32::try_from(stats.allocations + stats.reallocations);
        let turns = u32::try_from(counts.turns - before.1.turns);
        let actors = u32::try_from(counts.actors_started - before.1.actors_started);
        for (what, count, ceiling) in [
            ("allocations", allocations.ok(), most.allocations),
            ("turns", turns.ok(), most.turns),
            ("actors started", actors.ok(), most.actors),
        ] {
            let each = f64::from(count.expect("a few")) / f64::from(TIMES);
            println!("{}: {each:.2} {what}, at most {ceiling}", most.name);
            if each > ceiling {
                self.over.push(format!("{}: {each:.2} {what} instead of {ceiling}", most.name));
            }
        }
    }
}

async fn start(engine: &Engine, token: &CapToken) -> TaskId {
    let task = engine.start_task(token, TaskSpec::new("echo", "the directive")).await;
    task.expect("a task is started")
}

async fn passes(engine: &Engine, token: &CapToken, task: TaskId, by: &Arc<dyn SpawnerAdapter>) {
    let outcome = engine.dispatch_attempt_with(token, &task, by).await;
    assert!(matches!(outcome, Ok(DispatchOutcome::Pass(_))), "{outcome:?}");
}

/// What is measured is printed with `--nocapture`. Turns: start, dispatch, pull, submit, finish,
/// one more for a poll. Actors: none, because attempts and waiters that are idle are taken again.
#[tokio::test(flavor = "current_thread")]
async fn operations_cost_no_more_turns_actors_and_allocations_than_they_did() {
    let mut world = World::new().await;
    let (engine, token, by) = (&world.engine.clone(), &world.token.clone(), &world.spawner.clone());
    world
        .count(WITH_STATE, || async {
            engine.with_state("count", |_| ()).await.expect("a turn runs");
        })
        .await;
    world
        .count(VERIFY, || async {
            engine.verify_token(token, Verb::PollTask).await.expect("the token is good");
        })
        .await;
    world
        .count(LIFECYCLE, || async {
            passes(engine, token, start(engine, token).await, by).await;
        })
        .await;
    world
        .count(LOOKED_AT, || async {
            let task = start(engine, token).await;
            passes(engine, token, task, by).await;
            engine.poll_task(token, &task, Duration::ZERO).await.expect("a look");
        })
        .await;
    world
        .count(AWAITED, || async {
            let task = start(engine, token).await;
            let poll = engine.poll_task(token, &task, DAY);
            let (state, ()) = tokio::join!(poll, passes(engine, token, task, by));
            state.expect("the poll is answered");
        })
        .await;
    assert!(
        world.over.is_empty(),
        "more than the ceilings at the head of this file: {:#?}",
        world.over
    );
}
