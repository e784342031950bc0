//! Memory: allocations of one operation, and bytes of one thing that is kept. Apart from the other
//! benches, because an allocator that counts slows everything down, and unevenly.

use std::alloc::System;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use adjutant::journal::memory::MemoryJournal;
use adjutant::journal::{Journal, Restored, restore};
use adjutant::{
    DispatchOutcome, Engine, EngineState, InProcSpawner, Now, Role, SpawnerAdapter, TaskId,
    TaskSpec, WorkerInvocation, WorkerResult,
};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tokio::sync::{Semaphore, oneshot};

#[path = "calm.rs"]
mod calm;
#[path = "contenders.rs"]
mod contenders;
#[path = "fill.rs"]
mod fill;
#[path = "flow.rs"]
mod flow;
#[path = "harness.rs"]
mod harness;
#[path = "tick.rs"]
mod tick;

use calm::calm;
use contenders::{Contender, Contenders, Row, Visit};
use fill::Kind;
use flow::Flow;
use harness::report::{Bound, Report};
use harness::{Scale, many, runtime};
use tick::Bare;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const DAY: Duration = Duration::from_secs(24 * 3600);
const KB: f64 = 1024.0;

/// Bytes that are allocated at the moment, by all threads.
fn held() -> f64 {
    let stats = ALLOCATOR.stats();
    many(stats.bytes_allocated) - many(stats.bytes_deallocated)
}

/// Allocations and bytes of one of many operations, growth of what exists included.
async fn spent<Fut: Future<Output = bool>>(
    count: usize,
    operation: impl Fn() -> Fut,
) -> (f64, f64) {
    for _ in 0..count / 10 {
        assert!(operation().await, "an operation of the warm-up is served");
    }
    let before = ALLOCATOR.stats();
    for _ in 0..count {
        assert!(operation().await, "an operation is served");
    }
    let stats = ALLOCATOR.stats() - before;
    let times = stats.allocations + stats.reallocations;
    (many(times) / many(count), many(stats.bytes_allocated) / many(count))
}

/// What one change of the state by a contender allocates.
struct Spent(usize);

impl Visit for Spent {
    type Output = (f64, f64);

    async fn visit(self, contender: impl Contender) -> (f64, f64) {
        spent(self.0, || contender.change(0)).await
    }
}

async fn changes(report: &mut Report, scale: Scale) {
    let group = "allocations of one change, trivial closure, one caller";
    report.heading(group);
    let contenders = Contenders::new().await;
    for row in Row::ALL.into_iter().chain([Row::Verify]) {
        let (times, bytes) = contenders.visit(row, Spent(scale.pick(20_000, 2_000))).await;
        report.figure(group, &format!("{}, allocations", row.name()), times, "");
        report.figure(group, &format!("{}, bytes allocated", row.name()), bytes, "B");
        if row == Row::Ours {
            let measure = "allocations per `with_state`";
            report.target(measure, (times * 100.0).round() / 100.0, Bound::AtMost, 1.0, None, "");
        }
    }
}

fn in_process(hang: bool, at_work: &Arc<AtomicU64>) -> Arc<dyn SpawnerAdapter> {
    let mut spawner = InProcSpawner::new();
    let at_work = at_work.clone();
    spawner.register(fill::AGENT, move |call: WorkerInvocation| {
        at_work.fetch_add(1, Ordering::Relaxed);
        async move {
            if hang {
                std::future::pending::<()>().await;
            }
            Ok(WorkerResult { value: call.prompt.into(), ok: true })
        }
    });
    Arc::new(spawner)
}

async fn lifecycles(report: &mut Report, scale: Scale) {
    let group = "allocations of one lifecycle: start, dispatch, pull, submit, pass";
    report.heading(group);
    let mut cfg = calm();
    cfg.retention.settled_tasks = 100;
    let engine = Engine::new(cfg);
    let token = engine.attach("bench", Role::Operator, DAY).await.expect("a session");
    let spawner = in_process(false, &Arc::default());
    let (times, bytes) = spent(scale.pick(5_000, 1_000), || async {
        let spec = TaskSpec::new(fill::AGENT, fill::DIRECTIVE);
        let Ok(task) = engine.start_task(&token, spec).await else { return false };
        let outcome = engine.dispatch_attempt_with(&token, &task, &spawner).await;
        matches!(outcome, Ok(DispatchOutcome::Pass(_)))
    })
    .await;
    report.figure(group, "allocations", times, "");
    report.figure(group, "bytes allocated", bytes, "B");
}

/// Bytes of one thing in kilobytes, with what they must not pass.
struct Footprints {
    group: &'static str,
    bars: Vec<(String, f64, Option<f64>)>,
}

impl Footprints {
    fn add(
        &mut self,
        report: &mut Report,
        name: &str,
        bytes: f64,
        bound: Option<(f64, Option<f64>)>,
    ) {
        report.figure(self.group, name, bytes, "B");
        if let Some((must, stretch)) = bound {
            report.target(name, bytes / KB, Bound::AtMost, must, stretch, "KB");
        }
        self.bars.push((name.to_owned(), bytes / KB, bound.map(|(must, _)| must)));
    }
}

/// Lets retention forget every finished task.
async fn forget(engine: &Engine) {
    let age = engine.cfg().retention.settled_age.as_millis();
    let ms = u64::try_from(age).expect("an age fits") + 1;
    let later = Now { unix: fill::now().unix, ms };
    let sweep = move |state: &mut EngineState| state.sweep(later, 256);
    while engine.with_state("sweep", sweep).await.expect("the engine runs") {}
    let left = engine.with_state("count", |state| state.task_count()).await;
    assert_eq!(left, Ok(0), "retention lets all tasks go");
}

/// What is kept of finished tasks, and what is left when retention lets them go.
async fn retained(report: &mut Report, sizes: &mut Footprints, count: usize) {
    let mut cfg = calm();
    cfg.retention.settled_tasks = u64::MAX;
    let engine = Engine::new(cfg);
    // The tail of events, tokens that are remembered as revoked, and the signer's memory of those
    // that it made have bounds of their own; all are full after these.
    drop(fill::fill(&engine, Kind::Finished, 40_000).await);
    forget(&engine).await;
    let before = held();
    drop(fill::fill(&engine, Kind::Finished, count).await);
    let grown = held() - before;
    let strings = many(fill::AGENT.len() + fill::DIRECTIVE.len() + fill::RESULT.len());
    let name = "finished task with its output";
    sizes.add(report, name, grown / many(count) - strings, Some((1.2, Some(0.6))));
    forget(&engine).await;
    let kept = (held() - before).max(0.0) / grown * 100.0;
    let name = "left of it when retention let all tasks go";
    report.figure(sizes.group, name, kept, "%");
    report.target(name, kept, Bound::AtMost, 5.0, Some(1.0), "%");
}

/// Sessions that are attached and idle; and the actor of one that just beat.
async fn sessions(report: &mut Report, sizes: &mut Footprints, count: usize) {
    let engine = Engine::new(calm());
    drop(fill::sessions(&engine, 100).await);
    let before = held();
    drop(fill::sessions(&engine, count).await);
    let idle = (held() - before) / many(count);
    sizes.add(report, "idle attached session with its token", idle, Some((1.5, Some(0.7))));
    let tokens = fill::sessions(&engine, 1_000).await;
    let before = held();
    for token in &tokens {
        engine.heartbeat(token).await.expect("a session beats");
    }
    let beating = (held() - before) / 1_000.0;
    sizes.add(report, "session that beats: its actor, until it is quiet", beating, None);
    let root = Bare::start(None).await;
    let before = held();
    let mut actors = Vec::with_capacity(1_000);
    for _ in 0..1_000 {
        actors.push(Bare::start(Some(root.get_cell())).await);
    }
    sizes.add(report, "idle bare ractor actor, for comparison", (held() - before) / 1_000.0, None);
    root.stop(None);
}

/// Attempts that are at work, with the task, the caller that waits, and all between.
async fn attempts(report: &mut Report, sizes: &mut Footprints, count: usize) {
    let at_work = Arc::new(AtomicU64::new(0));
    let spawner = in_process(true, &at_work);
    let engine = Engine::new(calm());
    let token = Arc::new(engine.attach("bench", Role::Operator, DAY).await.expect("a session"));
    let tasks = fill::tasks(&engine, Kind::Pending, count).await;
    let gate = Arc::new(Semaphore::new(0));
    for task in tasks {
        let (engine, token) = (engine.clone(), token.clone());
        let (spawner, gate) = (spawner.clone(), gate.clone());
        tokio::spawn(async move {
            let _open = gate.acquire().await;
            engine.dispatch_attempt_with(&token, &task, &spawner).await
        });
    }
    settled().await;
    let before = held();
    gate.add_permits(count);
    while at_work.load(Ordering::Relaxed) < count as u64 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    settled().await;
    let each = (held() - before) / many(count);
    sizes.add(report, "live attempt, its worker and its token", each, None);
    engine.shutdown(Duration::ZERO).await;
}

/// Until no thread allocates any more.
async fn settled() {
    let mut last = f64::NAN;
    loop {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let now = held();
        if now.total_cmp(&last).is_eq() {
            return;
        }
        last = now;
    }
}

/// Bytes that parked polls hold beyond the futures of their callers. Those are there before: each
/// caller holds its whole future and waits at a gate until all are.
async fn parked(tasks: Vec<TaskId>, engine: &Engine) -> f64 {
    let token = Arc::new(engine.attach("bench", Role::Operator, DAY).await.expect("a session"));
    let (count, gate) = (tasks.len(), Arc::new(Semaphore::new(0)));
    let polls: Vec<_> = tasks
        .into_iter()
        .map(|task| {
            let (engine, token, gate) = (engine.clone(), token.clone(), gate.clone());
            tokio::spawn(async move {
                let _open = gate.acquire().await;
                engine.poll_task(&token, &task, DAY).await.is_ok()
            })
        })
        .collect();
    settled().await;
    let (before, turns) = (held(), engine.counts().turns);
    gate.add_permits(count);
    while engine.counts().turns < turns + count as u64 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    settled().await;
    let each = (held() - before) / many(count);
    for poll in polls {
        poll.abort();
        let _ = poll.await;
    }
    each
}

async fn polls(report: &mut Report, sizes: &mut Footprints, count: usize) {
    let engine = Engine::new(calm());
    let one = fill::tasks(&engine, Kind::Pending, 1).await;
    let each = parked(one.repeat(count), &engine).await;
    let name = "parked poll, many on one task, beyond its future";
    sizes.add(report, name, each, Some((1.0, None)));
    let tasks = fill::tasks(&engine, Kind::Pending, count).await;
    let each = parked(tasks, &engine).await;
    let name = "watched task with one parked poll, beyond its future";
    sizes.add(report, name, each, Some((9.0, Some(2.0))));
    drop(engine);
    settled().await;
    let before = held();
    let (senders, waits): (Vec<_>, Vec<_>) = (0..count)
        .map(|_| {
            let (send, wait) = oneshot::channel::<u64>();
            (send, tokio::spawn(wait))
        })
        .unzip();
    settled().await;
    let each = (held() - before) / many(count);
    sizes.add(report, "task that waits for a oneshot, for comparison", each, None);
    drop((senders, waits));
}

/// Bytes of a state that came back from a journal, beside the same state as it grew.
fn restored(report: &mut Report, scale: Scale) {
    let group = "a state that came back from its journal";
    report.heading(group);
    let (batches, count) = (scale.pick(200, 20), 100);
    let before = held();
    let mut flow = Flow::new();
    for _ in 0..batches {
        drop(flow.batch(count, count * 9 / 10));
    }
    let grown = held() - before;
    drop(flow);
    let (journal, mut flow) = (MemoryJournal::default(), Flow::new());
    flow.epoch = journal.lead().expect("a fresh journal is led");
    for _ in 0..batches {
        let batch = flow.batch(count, count * 9 / 10);
        journal.append(batch, Box::new(|told| told.expect("a batch is safe")));
    }
    drop(flow);
    let before = held();
    let Restored { state, head } = restore(&journal, Flow::rules()).expect("the journal loads");
    drop(head);
    let back = held() - before;
    assert_eq!(state.task_count(), batches * count);
    report.figure(group, "as it grew", grown / many(state.task_count()), "B a task");
    report.figure(group, "as it came back", back / many(state.task_count()), "B a task");
    report.target("memory after recovery / before", back / grown, Bound::AtMost, 1.2, None, "×");
}

fn chart(path: &Path, sizes: &Footprints) -> Result<(), String> {
    harness::chart::bars(path, "memory: what is kept of one thing", "KB", &sizes.bars)
}

async fn bench() {
    let scale = Scale::from_env();
    let mut report =
        Report::new("memory", "allocations of one operation, bytes of one thing", scale);
    changes(&mut report, scale).await;
    lifecycles(&mut report, scale).await;
    let mut sizes = Footprints { group: "bytes of one thing that is kept", bars: Vec::new() };
    report.heading(sizes.group);
    // Just below the size at which hash tables of a power of two double.
    retained(&mut report, &mut sizes, scale.pick(100_000, 10_000)).await;
    sessions(&mut report, &mut sizes, scale.pick(100_000, 10_000)).await;
    attempts(&mut report, &mut sizes, scale.pick(10_000, 1_000)).await;
    polls(&mut report, &mut sizes, scale.pick(10_000, 1_000)).await;
    restored(&mut report, scale);
    report.write(|path| chart(path, &sizes));
}

fn main() {
    runtime().block_on(bench());
}
