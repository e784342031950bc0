//! Scale: what a call costs with few and with many sessions and tasks; the longest turn while the
//! tables grow; and a subscriber that never reads.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use adjutant::{CapToken, Engine, EngineError, Role, TaskSpec, Verb};
use serde_json::json;
use tokio::time::Instant;

#[path = "calm.rs"]
mod calm;
#[path = "fill.rs"]
mod fill;
#[path = "growth.rs"]
mod growth;
#[path = "harness.rs"]
mod harness;

use calm::calm;
use fill::Kind;
use harness::chart::{Panel, lines};
use harness::report::{Bound, Report};
use harness::{Each, Scale, closed_loop, many, middle, runtime};

const DAY: Duration = Duration::from_secs(24 * 3600);
/// Callers of each phase.
const CALLERS: usize = 8;
/// Sessions that beat and detach, spread over all; as many in each world, so that their actors
/// are as many, too.
const PROBES: usize = 10;
const CALLS: [&str; 7] =
    ["token verify", "heartbeat", "detach", "start", "query senior", "resume", "cancel"];

/// An engine with so many sessions and retained tasks.
struct World {
    sessions: usize,
    tasks: usize,
    engine: Engine,
    tokens: Vec<Arc<CapToken>>,
    senior: Arc<CapToken>,
}

impl World {
    async fn new(sessions: usize, tasks: usize) -> Self {
        let mut cfg = calm();
        // Full from the start: each task that is settled lets the oldest one go.
        cfg.retention.settled_tasks = tasks as u64;
        let engine = Engine::new(cfg);
        let senior = engine.attach("senior", Role::Senior, DAY).await.expect("a session");
        let tokens = fill::sessions(&engine, sessions).await.into_iter().map(Arc::new).collect();
        fill::fill(&engine, Kind::Finished, tasks).await;
        let kept = engine.with_state("count", |state| state.task_count()).await;
        assert_eq!(kept, Ok(tasks), "all tasks are retained");
        Self { sessions, tasks, engine, tokens, senior: Arc::new(senior) }
    }

    fn name(&self) -> String {
        format!("{} sessions, {} tasks", self.sessions, self.tasks)
    }

    /// Tokens of sessions that stand far from each other in the order of their making.
    fn spread(&self, count: usize) -> Vec<Arc<CapToken>> {
        (0..count).map(|at| self.tokens[at * 7_919 % self.tokens.len()].clone()).collect()
    }

    /// One round: nanoseconds of one call of each kind.
    async fn round(&self, count: usize) -> [f64; 7] {
        let engine = &self.engine;
        // The world before this one has filled the caches.
        beat(engine, &self.spread(count / 4)).await;
        let (verify, _) = phase(engine, self.spread(count), |engine, token| async move {
            engine.verify_token(&token, Verb::PollTask).await
        })
        .await;
        let probes = self.spread(PROBES);
        let owners: Vec<_> = probes.iter().cycle().take(count).cloned().collect();
        beat(engine, &probes).await;
        let beaten = beat(engine, &owners).await;
        let mut detached = 0.0;
        let repeats = count / 64;
        for _ in 0..repeats {
            let (each, _) = phase(engine, probes.clone(), |engine, token| async move {
                engine.detach(&token).await
            })
            .await;
            detached += each / many(repeats);
            beat(engine, &probes).await;
        }
        let (started, tasks) = phase(engine, owners, |engine, token| async move {
            let task = engine.start_task(&token, TaskSpec::new("worker", "work")).await?;
            Ok((token, task))
        })
        .await;
        let (asked, keys) = phase(engine, tasks.clone(), |engine, (token, task)| async move {
            engine.query_senior(&token, &task, json!("which?")).await
        })
        .await;
        let senior = self.senior.clone();
        let (resumed, _) = phase(engine, keys, move |engine, key| {
            let senior = senior.clone();
            async move { engine.answer_query(&senior, key, json!("this one")).await }
        })
        .await;
        let (cancelled, _) = phase(engine, tasks, |engine, (token, task)| async move {
            engine.cancel_task(&token, &task).await
        })
        .await;
        [verify, beaten, detached, started, asked, resumed, cancelled]
    }
}

async fn beat(engine: &Engine, tokens: &[Arc<CapToken>]) -> f64 {
    let beat = |engine: Engine, token: Arc<CapToken>| async move { engine.heartbeat(&token).await };
    phase(engine, tokens.to_vec(), beat).await.0
}

/// Makes one call an item, from a few callers. Gives nanoseconds a call, and the answers.
async fn phase<T, A, F, Fut>(engine: &Engine, items: Vec<T>, call: F) -> (f64, Vec<A>)
where
    T: Clone + Send + Sync + 'static,
    A: Send + 'static,
    F: Fn(Engine, T) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Result<A, EngineError>> + Send,
{
    let count = items.len();
    let shares: Vec<_> = items.chunks(count.div_ceil(CALLERS)).map(<[T]>::to_vec).collect();
    let start = Instant::now();
    let callers: Vec<_> = shares
        .into_iter()
        .map(|share| {
            let (engine, call) = (engine.clone(), call.clone());
            tokio::spawn(async move {
                let mut answers = Vec::with_capacity(share.len());
                for item in share {
                    answers.push(call(engine.clone(), item).await.expect("the call is served"));
                }
                answers
            })
        })
        .collect();
    let mut answers = Vec::with_capacity(count);
    for caller in callers {
        answers.extend(caller.await.expect("a caller does not panic"));
    }
    (start.elapsed().as_secs_f64() * 1e9 / many(count), answers)
}

/// What all calls cost in a world, against the smallest one.
struct Costs {
    sessions: usize,
    tasks: usize,
    ratios: [f64; 7],
}

async fn flatness(report: &mut Report, scale: Scale) -> Vec<Costs> {
    let (few, some, most) = scale.pick((10, 1_000, 100_000), (10, 100, 1_000));
    let (small, large, largest) = scale.pick((1_000, 100_000, 1_000_000), (1_000, 5_000, 20_000));
    let sizes = [(few, small), (some, small), (most, small), (few, large), (few, largest)];
    let mut worlds = Vec::new();
    for (sessions, tasks) in sizes {
        worlds.push(World::new(sessions, tasks).await);
    }
    let count = scale.pick(4_096, 512);
    let mut rounds: Vec<Vec<[f64; 7]>> = worlds.iter().map(|_| Vec::new()).collect();
    // The first round warms up.
    for round in 0..=scale.rounds {
        for (world, own) in worlds.iter().zip(&mut rounds) {
            let figures = world.round(count).await;
            if round > 0 {
                own.push(figures);
            }
        }
    }
    cold_memory(report, &[few, small, most, largest], count);
    let mut all = Vec::new();
    for (world, own) in worlds.iter().zip(&rounds) {
        let nanos = places(|call| own.iter().map(|round| round[call]).collect());
        let beside = own.iter().zip(&rounds[0]);
        let ratios =
            places(|call| beside.clone().map(|(large, small)| large[call] / small[call]).collect());
        let group = world.name();
        report.heading(&group);
        for (call, name) in CALLS.iter().enumerate() {
            report.figure(&group, &format!("{name}, a call"), nanos[call] / 1e3, "µs");
            let row = format!("{name}, against the smallest world");
            report.figure(&group, &row, ratios[call], "×");
        }
        all.push(Costs { sessions: world.sessions, tasks: world.tasks, ratios });
    }
    for costs in [&all[2], &all[4]] {
        for (call, name) in CALLS.iter().enumerate() {
            let measure =
                format!("{name}: {} sessions, {} tasks / smallest", costs.sessions, costs.tasks);
            report.target(&measure, costs.ratios[call], Bound::AtMost, 1.3, Some(1.1), "×");
        }
    }
    all
}

/// A record as large as a task's, on cache lines of its own.
#[derive(Clone)]
struct Cold([u64; 48]);

/// What it costs to look up one record and read it whole in a plain hash map of so many, in no
/// order: what tables that do not fit into the caches cost anybody.
fn cold_memory(report: &mut Report, sizes: &[usize], count: usize) {
    let group = "the floor: one look-up in a plain hash map of boxed records of 384 bytes";
    report.heading(group);
    for size in sizes {
        let map: HashMap<u64, Box<Cold>> =
            (0..*size as u64).map(|key| (key, Box::new(Cold([key; 48])))).collect();
        let rounds = (0..5).map(|round: u64| {
            let start = Instant::now();
            let mut sum = 0_u64;
            for at in 0..count as u64 {
                let key = (at + round).wrapping_mul(0x9E37_79B9_7F4A_7C15) % *size as u64;
                let record = map.get(&key).expect("every key is there");
                sum = record.0.iter().fold(sum, |sum, word| sum.wrapping_add(*word));
            }
            assert_ne!(std::hint::black_box(sum), 1, "the records were read");
            start.elapsed().as_secs_f64() * 1e9 / many(count)
        });
        let nanos = middle(rounds.collect());
        report.figure(group, &format!("{size} records"), nanos / 1e3, "µs");
    }
}

fn places(figures: impl Fn(usize) -> Vec<f64>) -> [f64; 7] {
    std::array::from_fn(|call| middle(figures(call)))
}

/// Starts and cancels with and without subscribers that never read.
async fn deaf_subscribers(report: &mut Report, scale: Scale) {
    let mut cfg = calm();
    cfg.retention.settled_tasks = 10_000;
    let engine = Engine::new(cfg);
    let token = engine.attach("bench", Role::Operator, DAY).await.expect("a session");
    let token = Arc::new(token);
    let call = {
        let engine = engine.clone();
        Each(move || {
            let (engine, token) = (engine.clone(), token.clone());
            async move {
                let task = engine.start_task(&token, TaskSpec::new("worker", "work")).await;
                let Ok(task) = task else { return false };
                engine.cancel_task(&token, &task).await.is_ok()
            }
        })
    };
    let mut rows =
        ["nobody subscribed", "two subscribers that never read"].map(|row| (row, Vec::new()));
    for _ in 0..scale.rounds {
        rows[0].1.push(closed_loop(64, scale.window, call.clone()).await);
        let deaf = (engine.subscribe(), engine.subscribe_records());
        rows[1].1.push(closed_loop(64, scale.window, call.clone()).await);
        drop(deaf);
    }
    let sums = report.loops("start and cancel, 64 callers", &rows);
    let measure = "throughput with subscribers that never read";
    report.target(measure, sums[1].ratio, Bound::AtLeast, 0.9, Some(0.97), "×");
}

fn chart(path: &Path, all: &[Costs]) -> Result<(), String> {
    let series = |places: &[usize], across: fn(&Costs) -> usize| {
        let calls = CALLS.iter().enumerate();
        calls
            .map(|(call, name)| {
                let points = places.iter().map(|place| {
                    let costs = &all[*place];
                    (many(across(costs)), costs.ratios[call])
                });
                ((*name).to_owned(), points.collect())
            })
            .collect()
    };
    let panel = |title: &str, x: &str, series| Panel {
        title: title.to_owned(),
        x: x.to_owned(),
        y: "cost of a call / smallest world".to_owned(),
        log: false,
        line: Some(1.0),
        series,
    };
    let panels = [
        panel("more sessions", "sessions", series(&[0, 1, 2], |costs| costs.sessions)),
        panel("more retained tasks", "tasks", series(&[0, 3, 4], |costs| costs.tasks)),
    ];
    lines(path, "scale: what a call costs as the tables grow", &panels)
}

async fn bench() {
    let scale = Scale::from_env();
    let mut report = Report::new("scale", "what a call costs as the tables grow", scale);
    let all = flatness(&mut report, scale).await;
    deaf_subscribers(&mut report, scale).await;
    growth::longest_turns(&mut report, scale);
    report.write(|path| chart(path, &all));
}

fn main() {
    if growth::was_asked() {
        return;
    }
    runtime().block_on(bench());
}
