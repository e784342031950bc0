//! Waiters: parked polls woken, beside oneshots; and a poll that has nothing to wait for.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use adjutant::{Access, CapToken, Engine, EngineState, Role, TaskId};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;

#[path = "calm.rs"]
mod calm;
#[path = "fill.rs"]
mod fill;
#[path = "harness.rs"]
mod harness;
#[path = "tick.rs"]
mod tick;

use calm::calm;
use fill::Kind;
use harness::chart::{Panel, lines};
use harness::report::{Bound, Report};
use harness::{Each, Scale, closed_loop, many, middle, runtime};
use tick::{Bare, Tick};

const DAY: Duration = Duration::from_secs(24 * 3600);
/// Polls that are on their way at once; fewer than turns may wait in the queue.
const AT_ONCE: usize = 10_000;
const ROWS: [&str; 6] = [
    "polls on as many tasks, one turn cancels all",
    "polls on one task",
    "polls on as many tasks, a call cancels each",
    "bare oneshots",
    "bare actors, a message to each",
    "oneshots that are waited for with a time-out",
];

struct World {
    engine: Engine,
    token: Arc<CapToken>,
}

impl World {
    async fn new() -> Self {
        let engine = Engine::new(calm());
        let token = engine.attach("bench", Role::Operator, DAY).await.expect("a session");
        Self { engine, token: Arc::new(token) }
    }

    fn poll(&self, task: TaskId) -> JoinHandle<bool> {
        let (engine, token) = (self.engine.clone(), self.token.clone());
        tokio::spawn(async move { engine.poll_task(&token, &task, DAY).await.is_ok() })
    }

    /// Parks a poll on each of these, and returns when the turn of each one has run. A change
    /// that is made from then on is told behind the parking, so no sleep is needed.
    async fn park(&self, tasks: &[TaskId]) -> Vec<JoinHandle<bool>> {
        let mut polls = Vec::with_capacity(tasks.len());
        for some in tasks.chunks(AT_ONCE) {
            let parked = self.engine.counts().turns + some.len() as u64;
            polls.extend(some.iter().map(|task| self.poll(*task)));
            while self.engine.counts().turns < parked {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        polls
    }

    /// Seconds from the end of the one turn that cancels all until the last poll has answered.
    async fn wake(&self, tasks: Vec<TaskId>, polls: Vec<JoinHandle<bool>>) -> f64 {
        let begin = Instant::now();
        let committed = Arc::new(AtomicU64::new(0));
        let (now, at) = (fill::now(), committed.clone());
        let cancel = move |state: &mut EngineState| {
            for task in tasks {
                state.cancel_task(Access::Trusted, task, now).expect("an open task is cancelled");
            }
            at.store(harness::nanos(begin.elapsed()), Ordering::Relaxed);
        };
        self.engine.with_state("cancel all", cancel).await.expect("the engine runs");
        all_answered(polls).await;
        let committed = Duration::from_nanos(committed.load(Ordering::Relaxed));
        (begin.elapsed() - committed).as_secs_f64()
    }

    /// Seconds from the first of as many calls until the last poll has answered.
    async fn wake_by_calls(&self, tasks: &[TaskId], polls: Vec<JoinHandle<bool>>) -> f64 {
        let begin = Instant::now();
        for task in tasks {
            self.engine.cancel_task(&self.token, task).await.expect("an open task is cancelled");
        }
        all_answered(polls).await;
        begin.elapsed().as_secs_f64()
    }
}

async fn all_answered(polls: Vec<JoinHandle<bool>>) {
    for poll in polls {
        assert!(poll.await.expect("a poll does not panic"), "a poll was not answered");
    }
}

/// Seconds from the first send until the last of as many tasks has its value; with a time-out for
/// each wait, as each poll has one, or without.
async fn wake_oneshots(count: usize, timed: bool) -> f64 {
    let parked = Arc::new(AtomicU64::new(0));
    let (senders, waits): (Vec<_>, Vec<_>) = (0..count)
        .map(|_| {
            let ((send, wait), parked) = (oneshot::channel::<u64>(), parked.clone());
            let wait = async move {
                parked.fetch_add(1, Ordering::Relaxed);
                match timed {
                    true => tokio::time::timeout(DAY, wait).await.is_ok_and(|value| value.is_ok()),
                    false => wait.await.is_ok(),
                }
            };
            (send, tokio::spawn(wait))
        })
        .unzip();
    while parked.load(Ordering::Relaxed) < count as u64 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let start = Instant::now();
    for send in senders {
        let _ = send.send(1);
    }
    for wait in waits {
        assert!(wait.await.expect("a wait does not panic"), "a value was not received");
    }
    start.elapsed().as_secs_f64()
}

/// The same with an idle actor between each send and its task: the least that a wake-up through
/// an actor of its own can cost.
async fn wake_actors(count: usize) -> f64 {
    let mut actors = Vec::with_capacity(count);
    for _ in 0..count {
        actors.push(Bare::start(None).await);
    }
    let (senders, waits): (Vec<_>, Vec<_>) = (0..count)
        .map(|_| {
            let (send, wait) = oneshot::channel::<()>();
            (send, tokio::spawn(wait))
        })
        .unzip();
    tokio::time::sleep(Duration::from_millis(20)).await;
    let start = Instant::now();
    for (actor, send) in actors.iter().zip(senders) {
        actor.cast(Tick(send.into())).expect("an idle actor takes a message");
    }
    for wait in waits {
        assert!(wait.await.expect("a wait does not panic").is_ok(), "a value was not received");
    }
    let time = start.elapsed().as_secs_f64();
    for actor in actors {
        actor.stop(None);
    }
    time
}

/// One round of every row, in seconds.
async fn round(count: usize) -> [f64; 6] {
    let world = World::new().await;
    let tasks = fill::tasks(&world.engine, Kind::Pending, count).await;
    let polls = world.park(&tasks).await;
    let together = world.wake(tasks, polls).await;
    let one = fill::tasks(&world.engine, Kind::Pending, 1).await;
    let polls = world.park(&one.repeat(count)).await;
    let alone = world.wake(one, polls).await;
    let tasks = fill::tasks(&world.engine, Kind::Pending, count).await;
    let polls = world.park(&tasks).await;
    let by_calls = world.wake_by_calls(&tasks, polls).await;
    let (bare, timed) = (wake_oneshots(count, false).await, wake_oneshots(count, true).await);
    [together, alone, by_calls, bare, wake_actors(count).await, timed]
}

async fn answered(report: &mut Report, scale: Scale) {
    let world = World::new().await;
    let task = fill::tasks(&world.engine, Kind::Finished, 1).await[0];
    for callers in [1, 64] {
        let mut rows = ["with_state", "poll_task, answered at once"].map(|row| (row, Vec::new()));
        for _ in 0..scale.rounds {
            let engine = world.engine.clone();
            let turn = Each(move || {
                let engine = engine.clone();
                async move { engine.with_state("bench", |_| ()).await.is_ok() }
            });
            rows[0].1.push(closed_loop(callers, scale.window, turn).await);
            let (engine, token) = (world.engine.clone(), world.token.clone());
            let poll = Each(move || {
                let (engine, token) = (engine.clone(), token.clone());
                async move { engine.poll_task(&token, &task, DAY).await.is_ok() }
            });
            rows[1].1.push(closed_loop(callers, scale.window, poll).await);
        }
        report.loops(&format!("a poll of a task that has passed, {callers} callers"), &rows);
    }
}

fn chart(path: &Path, all: &[(usize, [f64; 6])]) -> Result<(), String> {
    let series = |figure: &dyn Fn(&[f64; 6], usize) -> f64| {
        (0..ROWS.len())
            .map(|row| {
                let points = all.iter().map(|(count, rows)| (many(*count), figure(rows, row)));
                (ROWS[row].to_owned(), points.collect())
            })
            .collect()
    };
    let panel = |title: &str, y: &str, series| Panel {
        title: title.to_owned(),
        x: "parked polls".to_owned(),
        y: y.to_owned(),
        log: true,
        line: None,
        series,
    };
    let panels = [
        panel("until the last answer", "ms", series(&|rows, row| rows[row] * 1e3)),
        panel("against bare oneshots", "ratio", series(&|rows, row| rows[row] / rows[3])),
    ];
    lines(path, "waiters: many polls woken", &panels)
}

async fn bench() {
    let scale = Scale::from_env();
    let what = "time from the change to the last answer, beside as many oneshots";
    let mut report = Report::new("waiters", what, scale);
    let mut all = Vec::new();
    for count in [1_000, 10_000, 100_000] {
        if scale.quick && count > 10_000 {
            continue;
        }
        let group = format!("{count} parked polls");
        report.heading(&group);
        let mut rounds = Vec::new();
        for _ in 0..scale.rounds {
            rounds.push(round(count).await);
        }
        let median =
            |figure: &dyn Fn(&[f64; 6]) -> f64| middle(rounds.iter().map(figure).collect());
        for (row, name) in ROWS.iter().enumerate() {
            report.figure(&group, name, median(&|rows| rows[row] * 1e3), "ms");
        }
        for (row, name) in ROWS.iter().enumerate().filter(|(row, _)| *row != 3) {
            let name = format!("{name}, against oneshots");
            report.figure(&group, &name, median(&|rows| rows[row] / rows[3]), "×");
        }
        let name = "polls on as many tasks, one turn cancels all, against bare actors";
        report.figure(&group, name, median(&|rows| rows[0] / rows[4]), "×");
        if count == 10_000 {
            let measure = "10,000 parked polls woken, against 10,000 oneshots";
            let ratio = median(&|rows| rows[0] / rows[3]);
            report.target(measure, ratio, Bound::AtMost, 3.0, Some(2.0), "×");
            let ratio = median(&|rows| rows[1] / rows[3]);
            let measure = format!("{measure}, all on one task");
            report.target(&measure, ratio, Bound::AtMost, 3.0, Some(2.0), "×");
        }
        all.push((count, [0, 1, 2, 3, 4, 5].map(|row| median(&|rows| rows[row]))));
    }
    answered(&mut report, scale).await;
    report.write(|path| chart(path, &all));
}

fn main() {
    runtime().block_on(bench());
}
