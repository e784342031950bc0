//! Dispatch: whole lifecycles of tasks, in process and through real children; what they cost in
//! turns and actors; what starting an attempt costs; and attempts in flight.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use adjutant::{
    CapToken, DispatchOutcome, Engine, InProcSpawner, ProcessSpawner, Role, SpawnerAdapter, TaskId,
    TaskSpec, WorkerInvocation, WorkerResult,
};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

#[path = "attempts.rs"]
mod attempts;
#[path = "calm.rs"]
mod calm;
#[path = "harness.rs"]
mod harness;
#[path = "tick.rs"]
mod tick;

use calm::calm;
use harness::chart::{Panel, lines};
use harness::report::{Bound, Report};
use harness::{Each, Round, Scale, Summary, closed_loop, float, many, middle, runtime};
use tick::Bare;

/// Tasks that one session starts before the next one is attached.
const TASKS_PER_SESSION: u64 = 128;
/// Tasks of the session that owns many.
const OWNED: usize = 10_000;
const CLIENTS: [usize; 4] = [1, 8, 64, 512];
const DAY: Duration = Duration::from_secs(24 * 3600);

/// An engine with the session that its clients share, renewed now and then.
struct Swarm {
    engine: Engine,
    token: Mutex<Arc<CapToken>>,
    tasks: AtomicU64,
    /// Tasks after which the session is renewed.
    renewal: u64,
    spawner: Arc<dyn SpawnerAdapter>,
}

impl Swarm {
    async fn new(spawner: Arc<dyn SpawnerAdapter>) -> Self {
        let mut cfg = calm();
        cfg.retention.settled_tasks = 10_000;
        let engine = Engine::new(cfg);
        let token = engine.attach("bench", Role::Operator, DAY).await.expect("a session");
        let (token, tasks) = (Mutex::new(Arc::new(token)), AtomicU64::new(0));
        Self { engine, token, tasks, renewal: TASKS_PER_SESSION, spawner }
    }

    /// One whose session owns many open tasks and is never renewed.
    async fn crowded(spawner: Arc<dyn SpawnerAdapter>) -> Self {
        let swarm = Self { renewal: u64::MAX, ..Self::new(spawner).await };
        let token = swarm.session().await;
        for _ in 0..OWNED {
            swarm.start(&token).await.expect("a task is started");
        }
        swarm
    }

    async fn session(&self) -> Arc<CapToken> {
        let count = self.tasks.fetch_add(1, Ordering::Relaxed) + 1;
        if count.is_multiple_of(self.renewal) {
            let fresh = self.engine.attach("bench", Role::Operator, DAY).await;
            let fresh = Arc::new(fresh.expect("a session is attached"));
            *self.token.lock().expect("no holder panics") = fresh;
        }
        self.token.lock().expect("no holder panics").clone()
    }

    async fn start(&self, token: &CapToken) -> Option<TaskId> {
        self.engine.start_task(token, TaskSpec::new("worker", "the directive")).await.ok()
    }

    /// Start, dispatch, pull, submit, pass.
    async fn lifecycle(&self) -> bool {
        let token = self.session().await;
        let Some(task) = self.start(&token).await else { return false };
        let outcome = self.engine.dispatch_attempt_with(&token, &task, &self.spawner).await;
        matches!(outcome, Ok(DispatchOutcome::Pass(_)))
    }

    async fn round(self: &Arc<Self>, clients: usize, window: Duration) -> Round {
        let own = self.clone();
        let run = move || {
            let own = own.clone();
            async move { own.lifecycle().await }
        };
        closed_loop(clients, window, Each(run)).await
    }
}

fn in_process() -> Arc<dyn SpawnerAdapter> {
    let mut spawner = InProcSpawner::new();
    spawner.register("worker", |call: WorkerInvocation| async move {
        Ok(WorkerResult { value: call.prompt.into(), ok: true })
    });
    Arc::new(spawner)
}

/// The same number of round trips to a task behind a channel.
async fn five_messages(channel: mpsc::UnboundedSender<oneshot::Sender<()>>) -> bool {
    for _ in 0..5 {
        let (reply, done) = oneshot::channel();
        if channel.send(reply).is_err() || done.await.is_err() {
            return false;
        }
    }
    true
}

fn channel_task() -> mpsc::UnboundedSender<oneshot::Sender<()>> {
    let (channel, mut ticks) = mpsc::unbounded_channel::<oneshot::Sender<()>>();
    tokio::spawn(async move {
        while let Some(reply) = ticks.recv().await {
            let _ = reply.send(());
        }
    });
    channel
}

const IN_PROCESS: [&str; 4] = [
    "five bare ractor calls",
    "five tokio mpsc + oneshot",
    "lifecycle",
    "lifecycle, a session with 10,000 tasks",
];

async fn in_process_rows(report: &mut Report, scale: Scale) -> Vec<(usize, Vec<Summary>)> {
    let swarm = Arc::new(Swarm::new(in_process()).await);
    let crowded = Arc::new(Swarm::crowded(in_process()).await);
    let (actor, channel) = (Bare::start(None).await, channel_task());
    let mut all = Vec::new();
    for clients in CLIENTS {
        let mut rows = IN_PROCESS.map(|name| (name, Vec::new()));
        for _ in 0..scale.rounds {
            let (actor, channel) = (actor.clone(), channel.clone());
            let calls = Each(move || tick::five_calls(actor.clone()));
            rows[0].1.push(closed_loop(clients, scale.window, calls).await);
            let sends = Each(move || five_messages(channel.clone()));
            rows[1].1.push(closed_loop(clients, scale.window, sends).await);
            rows[2].1.push(swarm.round(clients, scale.window).await);
            rows[3].1.push(crowded.round(clients, scale.window).await);
        }
        let sums = report.loops(&format!("in process, {clients} clients"), &rows);
        let flat = sums[3].rate / sums[2].rate;
        let measure =
            format!("lifecycle of a session with 10,000 tasks / fresh, {clients} clients");
        report.target(&measure, flat, Bound::AtLeast, 0.9, Some(0.98), "×");
        if clients == 64 {
            let measure = "lifecycle, 64 clients: p99";
            report.target(measure, sums[2].p99 / 1e3, Bound::AtMost, 2.0, None, "ms");
        }
        all.push((clients, sums));
    }
    let refused = all.iter().map(|(_, sums)| sums[2].refused * 100.0).fold(0.0, f64::max);
    report.target(
        "lifecycle, any number of clients: refused",
        refused,
        Bound::AtMost,
        0.0,
        None,
        "%",
    );
    all
}

async fn bare_child() -> bool {
    let child = tokio::process::Command::new("/bin/true").spawn();
    let Ok(mut child) = child else { return false };
    child.wait().await.is_ok_and(|status| status.success())
}

async fn child_rows(report: &mut Report, scale: Scale) {
    let swarm = Arc::new(Swarm::new(Arc::new(ProcessSpawner::new("/bin/true"))).await);
    for clients in [1, 8] {
        let mut rows = ["spawn and wait for /bin/true", "lifecycle with /bin/true"]
            .map(|row| (row, Vec::new()));
        for _ in 0..scale.rounds {
            rows[0].1.push(closed_loop(clients, scale.window, Each(bare_child)).await);
            rows[1].1.push(swarm.round(clients, scale.window).await);
        }
        report.loops(&format!("child process, {clients} clients"), &rows);
    }
}

/// Counts that no clock and no machine changes: turns and actors of one lifecycle.
async fn counts(report: &mut Report) {
    const RUNS: u64 = 1_000;
    let group = "counts of one lifecycle, in process";
    report.heading(group);
    let swarm = Swarm { renewal: u64::MAX, ..Swarm::new(in_process()).await };
    assert!(swarm.lifecycle().await, "a lifecycle passes");
    let before = swarm.engine.counts();
    for _ in 0..RUNS {
        assert!(swarm.lifecycle().await, "a lifecycle passes");
    }
    let after = swarm.engine.counts();
    // A sweep now and then is a turn, too, and not the lifecycle's.
    let each =
        |after: u64, before: u64| (float(after - before) / float(RUNS) * 50.0).round() / 50.0;
    let turns = each(after.turns, before.turns);
    report.figure(group, "turns", turns, "");
    let actors = each(after.actors_started, before.actors_started);
    report.figure(group, "actors started", actors, "");
    report.target("turns per lifecycle", turns, Bound::AtMost, 5.0, Some(4.0), "");
    let token = swarm.session().await;
    let before = swarm.engine.counts();
    for _ in 0..RUNS {
        let task = swarm.start(&token).await.expect("a task is started");
        let poll = swarm.engine.poll_task(&token, &task, DAY);
        let dispatch = swarm.engine.dispatch_attempt_with(&token, &task, &swarm.spawner);
        let (state, outcome) = tokio::join!(poll, dispatch);
        assert!(state.is_ok() && outcome.is_ok(), "a polled lifecycle passes");
    }
    let after = swarm.engine.counts();
    let turns = each(after.turns, before.turns);
    report.figure(group, "turns, with one poll that waits", turns, "");
    let actors = each(after.actors_started, before.actors_started);
    report.figure(group, "actors started, with one poll that waits", actors, "");
    let measure = "turns per lifecycle with the first poll of its task";
    report.target(measure, turns, Bound::AtMost, 7.0, Some(6.0), "");
}

/// Microseconds each until so many attempts of the whole engine are at work and hang there.
async fn in_flight(count: usize) -> f64 {
    let at_work = Arc::new(AtomicU64::new(0));
    let mut spawner = InProcSpawner::new();
    let seen = at_work.clone();
    spawner.register("worker", move |_| {
        seen.fetch_add(1, Ordering::Relaxed);
        std::future::pending()
    });
    let swarm = Arc::new(Swarm::new(Arc::new(spawner)).await);
    let token = swarm.session().await;
    let mut tasks = Vec::with_capacity(count);
    for _ in 0..count {
        tasks.push(swarm.start(&token).await.expect("a task is started"));
    }
    let start = Instant::now();
    for task in tasks {
        let (swarm, token) = (swarm.clone(), token.clone());
        tokio::spawn(async move {
            swarm.engine.dispatch_attempt_with(&token, &task, &swarm.spawner).await
        });
    }
    while at_work.load(Ordering::Relaxed) < count as u64 {
        tokio::task::yield_now().await;
    }
    let each = start.elapsed().as_secs_f64() * 1e6 / many(count);
    swarm.engine.shutdown(Duration::ZERO).await;
    each
}

async fn attempt_rows(report: &mut Report, scale: Scale) {
    let group = "attempts in flight, whose workers hang";
    report.heading(group);
    for count in [1_000, 10_000] {
        let mut each = Vec::new();
        for _ in 0..scale.rounds {
            each.push(in_flight(count).await);
        }
        let row = format!("dispatch until {count} workers are at work, each");
        report.figure(group, &row, middle(each), "µs");
    }
    let group = "starting an attempt beside a bare actor, 64 callers";
    report.heading(group);
    let (mut attempts, mut turns, mut bare) = (Vec::new(), Vec::new(), Vec::new());
    let mut again = Vec::new();
    for _ in 0..scale.rounds {
        let count = scale.pick(10_000, 2_000);
        bare.push(tick::spawn_linked(count).await);
        turns.push(attempts::turns(count).await);
        attempts.push(attempts::start(count).await);
        again.push(attempts::start_again(count).await);
    }
    let own: Vec<_> = again.iter().zip(&turns).map(|(start, turn)| start - turn).collect();
    let ratios = own.iter().zip(&bare).map(|(own, bare)| own / bare).collect();
    let mut row = |row: &str, figures: &[f64]| {
        report.figure(group, row, middle(figures.to_vec()), "µs");
    };
    row("`spawn_linked` of a bare actor", &bare);
    row("a turn that starts an attempt, until its launch was called; none ended before", &attempts);
    row("the same after a thousand have ended, a thousand at once", &again);
    row("the same turn without an attempt", &turns);
    row("so an attempt alone, after others have ended", &own);
    let measure = "starting an attempt against one `spawn_linked`";
    report.target(measure, middle(ratios), Bound::AtMost, 1.0, Some(0.35), "×");
}

fn chart(path: &Path, all: &[(usize, Vec<Summary>)]) -> Result<(), String> {
    let series = |figure: fn(&Summary) -> f64| {
        let order = [2, 3, 0, 1];
        order
            .map(|row| {
                let points = all.iter().map(|(clients, sums)| (many(*clients), figure(&sums[row])));
                (IN_PROCESS[row].to_owned(), points.collect())
            })
            .to_vec()
    };
    let panel = |title: &str, y: &str, log, figure: fn(&Summary) -> f64| Panel {
        title: title.to_owned(),
        x: "clients".to_owned(),
        y: y.to_owned(),
        log,
        line: None,
        series: series(figure),
    };
    let panels = [
        panel("throughput", "a second", true, |sum| sum.rate),
        panel("tail", "p99 latency, µs", true, |sum| sum.p99),
    ];
    lines(path, "dispatch: start, dispatch, pull, submit, pass", &panels)
}

async fn bench() {
    let scale = Scale::from_env();
    let what = "start, dispatch, pull, submit, pass; ratios to the group's first row";
    let mut report = Report::new("dispatch", what, scale);
    let all = in_process_rows(&mut report, scale).await;
    child_rows(&mut report, scale).await;
    counts(&mut report).await;
    attempt_rows(&mut report, scale).await;
    report.write(|path| chart(path, &all));
}

fn main() {
    runtime().block_on(bench());
}
