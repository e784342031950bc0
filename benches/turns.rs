//! Turns: `with_state` in a closed loop beside locks, a channel and a bare actor call; what a
//! token check adds to a turn; and how soon a stop is served under load.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use adjutant::Engine;
use ractor::{ActorCell, ActorStatus};
use tokio::time::Instant;

#[path = "calm.rs"]
mod calm;
#[path = "contenders.rs"]
mod contenders;
#[path = "harness.rs"]
mod harness;

use calm::calm;
use contenders::{BareCall, Contender, Contenders, Ours, Row};
use harness::chart::{Panel, lines};
use harness::report::{Bound, Report};
use harness::{Round, Scale, Summary, many, quantile, runtime};

const CALLERS: [usize; 5] = [1, 8, 64, 512, 4_096];
const CLOSURES_US: [u64; 3] = [0, 5, 20];
/// Longest time that the state actor gives to one batch of turns.
const BATCH_BUDGET_US: f64 = 100.0;

/// One group of rows.
struct Group {
    micros: u64,
    callers: usize,
    sums: Vec<Summary>,
}

impl Group {
    fn of(&self, row: Row) -> Summary {
        let place = Row::ALL.iter().position(|other| *other == row);
        self.sums[place.expect("every group has every row")]
    }
}

/// Interleaved rounds of these rows.
async fn rounds<'a>(
    contenders: &Contenders,
    rows: &'a [Row],
    callers: usize,
    micros: u64,
    scale: Scale,
) -> Vec<(&'a str, Vec<Round>)> {
    let mut all: Vec<_> = rows.iter().map(|row| (row.name(), Vec::new())).collect();
    for _ in 0..scale.rounds {
        for (row, (_, own)) in rows.iter().zip(&mut all) {
            own.push(contenders.round(*row, callers, micros, scale.window).await);
        }
    }
    all
}

async fn throughput(report: &mut Report, contenders: &Contenders, scale: Scale) -> Vec<Group> {
    let mut groups = Vec::new();
    for micros in CLOSURES_US {
        for callers in CALLERS {
            let rows = rounds(contenders, &Row::ALL, callers, micros, scale).await;
            let title = format!("{micros} µs closures, {callers} callers");
            groups.push(Group { micros, callers, sums: report.loops(&title, &rows) });
        }
    }
    groups
}

fn targets(report: &mut Report, groups: &[Group]) {
    let find = |micros, callers| {
        groups.iter().find(|group| group.micros == micros && group.callers == callers)
    };
    let musts = [(1, 0.95, 1.1), (8, 1.2, 1.6), (64, 1.7, 2.0), (512, 1.9, 2.2)];
    for (callers, must, stretch) in musts {
        let Some(group) = find(0, callers) else { continue };
        let ratio = group.of(Row::Ours).ratio;
        let measure = format!("`with_state` against bare ractor `call`, {callers} callers");
        report.target(&measure, ratio, Bound::AtLeast, must, Some(stretch), "×");
    }
    if let Some(group) = find(0, 64) {
        let (ours, bare) = (group.of(Row::Ours), group.of(Row::BareCall));
        let channel = ours.rate / group.of(Row::Channel).rate;
        let measure = "`with_state` against tokio mpsc + oneshot, 64 callers";
        report.target(measure, channel, Bound::AtLeast, 1.1, Some(1.3), "×");
        let mut tail = |measure: &str, value: f64, must, stretch| {
            report.target(measure, value, Bound::AtMost, must, stretch, "×");
        };
        tail("its p99 against its p50, 64 callers", ours.p99 / ours.p50, 4.0, Some(3.0));
        tail("its p99 against bare call's p99, 64 callers", ours.p99 / bare.p99, 1.0, None);
        tail("its p999 against its p50, 64 callers", ours.p999 / ours.p50, 8.0, Some(6.0));
    }
    for callers in [64, 512] {
        let Some(group) = find(20, callers) else { continue };
        let (ours, back_off) = (group.of(Row::Ours), group.of(Row::BackOff));
        let of = format!("20 µs closures, {callers} callers");
        let refused = ours.refused * 100.0;
        report.target(&format!("{of}: refused"), refused, Bound::AtMost, 0.0, None, "%");
        let tail = back_off.p99 / ours.p99;
        report.target(
            &format!("{of}: back-off's p99 / ours"),
            tail,
            Bound::AtLeast,
            15.0,
            None,
            "×",
        );
        let ratio = ours.ratio;
        report.target(&format!("{of}: against bare call"), ratio, Bound::AtLeast, 0.95, None, "×");
    }
}

/// 512 callers with 5 µs closures that never stop calling.
struct Load {
    on: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    fn start(contender: impl Contender) -> Self {
        let on = Arc::new(AtomicBool::new(true));
        let run = |_| {
            let (contender, on) = (contender.clone(), on.clone());
            tokio::spawn(async move {
                while on.load(Ordering::Relaxed) {
                    // A turn that was in the batch of a stopped actor fails; its caller goes on.
                    contender.change(5).await;
                    tokio::task::consume_budget().await;
                }
            })
        };
        Self { on: on.clone(), tasks: (0..512).map(run).collect() }
    }

    async fn stop(self) {
        self.on.store(false, Ordering::Relaxed);
        for task in self.tasks {
            task.await.expect("a caller does not panic");
        }
    }
}

/// The state actor: the one child of a root under which nothing else was started.
async fn state_actor(engine: &Engine) -> ActorCell {
    loop {
        let children = engine.root_cell().map(|root| root.get_children()).unwrap_or_default();
        if let Some(child) = children.iter().find(|cell| cell.get_status() == ActorStatus::Running)
        {
            return child.clone();
        }
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
}

/// Microseconds from a stop signal to the end of the actor that it was sent to. The task that
/// waits is woken by that end and runs next on the same thread, so its own turn adds little.
async fn stop_served(cell: &ActorCell) -> f64 {
    let start = Instant::now();
    cell.stop_and_wait(None, None).await.expect("a running actor takes a stop");
    start.elapsed().as_secs_f64() * 1e6
}

/// Stops the state actor again and again under load; its root restarts it on the same state. And
/// stops whole trees by their root, with a fresh engine each time.
async fn stops(report: &mut Report, scale: Scale) {
    let engine = Engine::new(calm());
    engine.with_state("start", |_| ()).await.expect("the engine runs");
    let load = Load::start(Ours(engine.clone()));
    let mut served = Vec::new();
    for at in 0..scale.pick(400, 50) {
        tokio::time::sleep(Duration::from_micros(1_000 + 37 * (at % 50))).await;
        served.push(stop_served(&state_actor(&engine).await).await);
    }
    load.stop().await;
    let mut roots = Vec::new();
    for at in 0..scale.pick(60, 10) {
        let engine = Engine::new(calm());
        engine.with_state("start", |_| ()).await.expect("the engine runs");
        let load = Load::start(Ours(engine.clone()));
        tokio::time::sleep(Duration::from_micros(2_000 + 37 * at)).await;
        let root = engine.root_cell().expect("a tree runs");
        roots.push(stop_served(&root).await);
        load.stop().await;
    }
    let mut bare = Vec::new();
    for at in 0..scale.pick(200, 30) {
        let actor = BareCall::start().await;
        let load = Load::start(actor.clone());
        tokio::time::sleep(Duration::from_micros(2_000 + 37 * (at % 50))).await;
        bare.push(stop_served(&actor.cell()).await);
        load.stop().await;
    }
    let group = "a stop served under 512 callers with 5 µs closures";
    report.heading(group);
    let middle = quantile(served.clone(), 0.5) / BATCH_BUDGET_US;
    let tail = quantile(served.clone(), 0.99) / BATCH_BUDGET_US;
    let rows = [
        ("the state actor", served),
        ("the root, with its tree", roots),
        ("floor: a bare actor that answers calls", bare),
    ];
    for (row, figures) in rows {
        for (name, part) in [("median", 0.5), ("p99", 0.99), ("max", 1.0)] {
            let value = quantile(figures.clone(), part);
            report.figure(group, &format!("stop of {row} to its end, {name}"), value, "µs");
        }
    }
    let measure = "stop of the state actor under load against the batch budget of 100 µs";
    report.target(&format!("{measure}, median"), middle, Bound::AtMost, 1.5, None, "×");
    report.target(&format!("{measure}, p99"), tail, Bound::AtMost, 3.0, None, "×");
}

fn chart(path: &Path, groups: &[Group]) -> Result<(), String> {
    let series = |micros: u64, figure: fn(&Summary) -> f64| {
        let ours_first = Row::ALL.iter().rev();
        ours_first
            .map(|row| {
                let own = groups.iter().filter(|group| group.micros == micros);
                let points = own.map(|group| (many(group.callers), figure(&group.of(*row))));
                (row.name().to_owned(), points.collect())
            })
            .collect()
    };
    let panels = [
        Panel {
            title: "trivial closures".to_owned(),
            x: "callers".to_owned(),
            y: "throughput / bare ractor call".to_owned(),
            log: true,
            line: Some(1.0),
            series: series(0, |sum| sum.ratio),
        },
        Panel {
            title: "closures of 20 µs".to_owned(),
            x: "callers".to_owned(),
            y: "p99 latency, µs".to_owned(),
            log: true,
            line: None,
            series: series(20, |sum| sum.p99),
        },
    ];
    lines(path, "turns: one state, many callers", &panels)
}

async fn bench() {
    let scale = Scale::from_env();
    let what = "closures on one state; ratios to a bare ractor call";
    let mut report = Report::new("turns", what, scale);
    let contenders = Contenders::new().await;
    let groups = throughput(&mut report, &contenders, scale).await;
    targets(&mut report, &groups);
    let rows = rounds(&contenders, &[Row::Ours, Row::Verify], 64, 0, scale).await;
    let sums = report.loops("a token check and a bare turn, 64 callers", &rows);
    let measure = "`verify_token` against bare turns, 64 callers";
    report.target(measure, sums[1].ratio, Bound::AtLeast, 0.7, Some(0.9), "×");
    stops(&mut report, scale).await;
    report.write(|path| chart(path, &groups));
}

fn main() {
    runtime().block_on(bench());
}
