//! Durable: whole lifecycles of an engine on the embedded store beside what the same disk allows;
//! the tail of one call; recovery; and the bytes on the disk.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use adjutant::journal::{Batch, Done, Head, Journal, JournalError, frame};
use adjutant::store::{SqliteStore, StoreCfg};
use adjutant::{
    CapToken, DispatchOutcome, Engine, EngineCfg, EventRecord, InProcSpawner, LayerRegistry, Role,
    SpawnerAdapter, TaskSpec, WorkerInvocation, WorkerResult,
};
use adjutant_actors::state::images::{Row, SetAside};
use adjutant_actors::state::outputs::BodyHash;
use tokio::time::Instant;

#[path = "calm.rs"]
mod calm;
#[path = "flow.rs"]
mod flow;
#[path = "harness.rs"]
mod harness;
#[path = "durable/raw.rs"]
mod raw;

use calm::calm;
use flow::Flow;
use harness::chart::{Panel, lines};
use harness::report::{Bound, Report};
use harness::{Each, Round, Scale, Summary, closed_loop, float, many, middle, runtime};
use raw::{Flushes, RawLog, folder_bytes, sent_to_disk};

const DAY: Duration = Duration::from_secs(24 * 3600);
const CLIENTS: [usize; 5] = [1, 16, 64, 256, 512];
/// Changes of a lifecycle that its next step waits for: start, dispatch, output, end.
const CHANGES: usize = 4;
/// Durable workflows a second and core that are published of today's systems.
const PUBLISHED: &str = "published of today's systems: 250 to 450";

/// An engine with what a client needs of it.
struct Swarm {
    engine: Engine,
    token: CapToken,
    spawner: Arc<dyn SpawnerAdapter>,
}

fn settings() -> EngineCfg {
    let mut cfg = calm();
    cfg.retention.settled_tasks = u64::MAX;
    cfg
}

impl Swarm {
    async fn around(engine: Engine) -> Arc<Self> {
        let token = engine.attach("bench", Role::Operator, DAY).await.expect("a session");
        let mut spawner = InProcSpawner::new();
        spawner.register("worker", |call: WorkerInvocation| async move {
            Ok(WorkerResult { value: call.prompt.into(), ok: true })
        });
        Arc::new(Self { engine, token, spawner: Arc::new(spawner) })
    }

    async fn on(journal: impl Journal) -> Arc<Self> {
        let opened = Engine::open(settings(), LayerRegistry::new(), Arc::new(journal)).await;
        Self::around(opened.expect("the journal opens")).await
    }

    async fn start(&self) -> Option<adjutant::TaskId> {
        self.engine.start_task(&self.token, TaskSpec::new("worker", "the directive")).await.ok()
    }

    /// Start, dispatch, pull, submit, pass.
    async fn lifecycle(self: Arc<Self>) -> bool {
        let Some(task) = self.start().await else { return false };
        let outcome = self.engine.dispatch_attempt_with(&self.token, &task, &self.spawner).await;
        matches!(outcome, Ok(DispatchOutcome::Pass(_)))
    }

    async fn round(self: &Arc<Self>, clients: usize, window: Duration) -> Round {
        let own = self.clone();
        closed_loop(clients, window, Each(move || own.clone().lifecycle())).await
    }
}

fn store(path: &Path) -> SqliteStore {
    SqliteStore::open(path, StoreCfg::default()).expect("the place can be written")
}

/// A store that counts the bytes that it is given.
struct Counted {
    store: SqliteStore,
    bytes: Arc<AtomicU64>,
}

impl Journal for Counted {
    fn load(&self, tail: usize, row: &mut dyn FnMut(Row<'_>)) -> Result<Head, JournalError> {
        self.store.load(tail, row)
    }

    fn set_aside(&self, rows: &[SetAside]) -> Result<(), JournalError> {
        self.store.set_aside(rows)
    }

    fn lead(&self) -> Result<u64, JournalError> {
        self.store.lead()
    }

    fn append(&self, batch: Batch, done: Done) {
        let mut bytes = Vec::new();
        frame::write(&batch, |_| true, &mut bytes).expect("a batch has a frame");
        self.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.store.append(batch, done);
    }

    fn events_after(&self, after: u64, limit: usize) -> Result<Vec<EventRecord>, JournalError> {
        self.store.events_after(after, limit)
    }

    fn body(&self, hash: &BodyHash) -> Result<Option<Vec<u8>>, JournalError> {
        self.store.body(hash)
    }

    fn flush(&self) -> Result<(), JournalError> {
        self.store.flush()
    }

    fn close(&self) -> Result<(), JournalError> {
        self.store.close()
    }
}

/// Bytes of a lifecycle, with so many clients.
struct Bytes {
    clients: usize,
    /// That the journal is given.
    frames: f64,
    /// That are sent towards the disk, folds and checkpoints included.
    sent: f64,
    /// On the disk, once everything is folded.
    kept: f64,
    /// That a bare file is sent with the same frames, flushed in the same groups.
    raw: f64,
}

/// Runs lifecycles on a fresh store and counts their bytes.
async fn bytes(clients: usize, scale: Scale) -> Bytes {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("store");
    let given = Arc::new(AtomicU64::new(0));
    let swarm = Swarm::on(Counted { store: store(&path), bytes: given.clone() }).await;
    let (before, empty) = (sent_to_disk(), folder_bytes(&path));
    let each = scale.pick(8_192, 512) / clients;
    let each = each.min(scale.pick(1_000, 50));
    let runs: Vec<_> = (0..clients)
        .map(|_| {
            let swarm = swarm.clone();
            tokio::spawn(async move {
                for _ in 0..each {
                    assert!(swarm.clone().lifecycle().await, "a lifecycle passes");
                }
            })
        })
        .collect();
    for run in runs {
        run.await.expect("a client does not panic");
    }
    swarm.engine.shutdown(Duration::from_secs(5)).await;
    let count = many(clients * each);
    let frames = float(given.load(Ordering::Relaxed)) / count;
    let sent = sent_to_disk().zip(before).map_or(f64::NAN, |(now, then)| float(now - then) / count);
    let kept = float(folder_bytes(&path).saturating_sub(empty)) / count;
    let before = sent_to_disk();
    let log = RawLog::create(&dir.path().join("raw"));
    let whole = frames.round() as usize;
    let runs: Vec<_> = (0..clients)
        .map(|_| {
            let log = log.clone();
            tokio::spawn(async move {
                for _ in 0..each {
                    log.clone().lifecycle(whole, CHANGES).await;
                }
            })
        })
        .collect();
    for run in runs {
        run.await.expect("a client does not panic");
    }
    let raw = sent_to_disk().zip(before).map_or(f64::NAN, |(now, then)| float(now - then) / count);
    Bytes { clients, frames, sent, kept, raw }
}

async fn byte_rows(report: &mut Report, scale: Scale) -> Vec<Bytes> {
    let group = "bytes of one lifecycle";
    report.heading(group);
    let mut all = Vec::new();
    for clients in CLIENTS {
        let found = bytes(clients, scale).await;
        if [1, 16, 256].contains(&clients) {
            let mut row = |what: &str, value: f64| {
                report.figure(group, &format!("{clients} clients, {what}"), value, "B");
            };
            row("given to the journal", found.frames);
            row("sent towards the disk, folds and checkpoints included", found.sent);
            row("sent towards the disk by a raw append of the same records", found.raw);
            row("on the disk, once folded", found.kept);
        }
        all.push(found);
    }
    all
}

const ROWS: [&str; 3] =
    ["raw append in groups, the same bytes and waits", "durable lifecycle", "lifecycle in memory"];

async fn lifecycle_rows(
    report: &mut Report,
    scale: Scale,
    sizes: &[Bytes],
) -> Vec<(usize, Vec<Summary>)> {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let swarm = Swarm::on(store(&dir.path().join("store"))).await;
    let memory = Swarm::around(Engine::new(settings())).await;
    let log = RawLog::create(&dir.path().join("raw"));
    let window = scale.window * 2;
    let mut all = Vec::new();
    for size in sizes {
        let (clients, whole) = (size.clients, size.frames.round() as usize);
        let mut rows = ROWS.map(|name| (name, Vec::new()));
        let mut alone = Vec::new();
        for _ in 0..scale.rounds {
            let raw = log.clone();
            let append = Each(move || raw.clone().lifecycle(whole, CHANGES));
            rows[0].1.push(closed_loop(clients, window, append).await);
            rows[1].1.push(swarm.round(clients, window).await);
            rows[2].1.push(memory.round(clients, window).await);
            let flushes = Flushes::measure(&dir.path().join("alone"), whole / CHANGES, window / 4);
            alone.push(1e6 / flushes.mean() / many(CHANGES));
        }
        let sums = report.loops(&format!("lifecycles, {clients} clients"), &rows);
        if matches!(clients, 64 | 512) {
            let measure = format!("durable lifecycles / raw append in groups, {clients} clients");
            report.target(&measure, sums[1].ratio, Bound::AtLeast, 0.5, None, "×");
            let measure = format!("durable lifecycles / one flush a change, {clients} clients");
            let beside = sums[1].rate / middle(alone);
            report.target(&measure, beside, Bound::AtLeast, 20.0, None, "×");
            let row = format!("durable lifecycles a second and core ({PUBLISHED})");
            report.figure("lifecycles", &row, sums[1].rate / 2.0, "");
        }
        all.push((clients, sums));
    }
    swarm.engine.shutdown(Duration::from_secs(5)).await;
    all
}

async fn tail_row(report: &mut Report, scale: Scale) {
    let group = "start_task, 64 callers, beside the disk's own flush";
    let dir = tempfile::tempdir().expect("a temporary folder");
    let swarm = Swarm::on(store(&dir.path().join("store"))).await;
    let mut rounds = Vec::new();
    let mut flushes: Option<Flushes> = None;
    for _ in 0..scale.rounds {
        let found = Flushes::measure(&dir.path().join("alone"), 4096, scale.window);
        match &mut flushes {
            Some(flushes) => flushes.append(found),
            None => flushes = Some(found),
        }
        let own = swarm.clone();
        let start = Each(move || {
            let own = own.clone();
            async move { own.start().await.is_some() }
        });
        rounds.push(closed_loop(64, scale.window, start).await);
    }
    let sums = report.loops(group, &[("start_task", rounds)]);
    let flushes = flushes.expect("there is a round");
    report.figure(group, "4 KiB and a flush, p50", flushes.quantile(0.5), "µs");
    report.figure(group, "4 KiB and a flush, p99", flushes.quantile(0.99), "µs");
    let measure = "p99 of start_task, 64 callers / p99 of a flush";
    report.target(measure, sums[0].p99 / flushes.quantile(0.99), Bound::AtMost, 4.0, None, "×");
    swarm.engine.shutdown(Duration::from_secs(5)).await;
}

async fn recovery_rows(report: &mut Report, scale: Scale) {
    let (finished, open) = (scale.pick(100_000, 1_000), scale.pick(10_000, 100));
    let group = format!("recovery of {finished} finished and {open} open tasks");
    report.heading(&group);
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("store");
    let filled = store(&path);
    let mut flow = Flow::new();
    flow.epoch = filled.lead().expect("a fresh store is led");
    for _ in 0..100 {
        let batch = flow.batch((finished + open) / 100, finished / 100);
        filled.append(batch, Box::new(|told| told.expect("a batch is safe")));
        filled.flush().expect("the store is flushed");
    }
    filled.close().expect("the store closes");
    drop((filled, flow));
    let (mut reads, mut opens) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let start = Instant::now();
        let bytes = std::fs::read(path.join("store.db")).expect("the store is read").len();
        reads.push(start.elapsed().as_secs_f64());
        report.figure(&group, "bytes", many(bytes), "B");
        let start = Instant::now();
        let journal = Arc::new(store(&path));
        let opened = Engine::open(settings(), LayerRegistry::new(), journal).await;
        let engine = opened.expect("the store opens");
        opens.push(start.elapsed().as_secs_f64());
        assert_eq!(engine.recovery().tasks, finished + open);
        engine.shutdown(Duration::from_secs(5)).await;
    }
    report.figure(&group, "reading the same bytes", middle(reads), "s");
    report.target(&group, middle(opens), Bound::AtMost, 2.0, None, "s");
}

fn chart(path: &Path, all: &[(usize, Vec<Summary>)]) -> Result<(), String> {
    let panel = |title: &str, y: &str, figure: fn(&Summary) -> f64| Panel {
        title: title.to_owned(),
        x: "clients".to_owned(),
        y: y.to_owned(),
        log: true,
        line: None,
        series: (0..ROWS.len())
            .map(|row| {
                let points = all.iter().map(|(clients, sums)| (many(*clients), figure(&sums[row])));
                (ROWS[row].to_owned(), points.collect())
            })
            .collect(),
    };
    let panels = [
        panel("throughput", "a second", |sum| sum.rate),
        panel("tail", "p99 latency, µs", |sum| sum.p99),
    ];
    lines(path, "durable: start, dispatch, pull, submit, pass", &panels)
}

async fn bench() {
    let scale = Scale::from_env();
    let what = "lifecycles on the embedded store; ratios to the group's first row";
    let mut report = Report::new("durable", what, scale);
    let sizes = byte_rows(&mut report, scale).await;
    let all = lifecycle_rows(&mut report, scale, &sizes).await;
    tail_row(&mut report, scale).await;
    recovery_rows(&mut report, scale).await;
    report.write(|path| chart(path, &all));
}

fn main() {
    runtime().block_on(bench());
}
