//! Waiters: parked polls woken, beside oneshots; and a poll that has nothing to wait for.

use std::time::Duration;

use adjutant::{CapToken, Engine, EngineCfg, HoldPolicy, Role, TaskId, TaskSpec};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;

#[path = "harness.rs"]
mod harness;

use harness::{Report, Scale, closed_loop, median, middle, runtime};

const DAY: Duration = Duration::from_secs(24 * 3600);

struct World {
    engine: Engine,
    token: CapToken,
}

impl World {
    async fn new() -> Self {
        let cfg = EngineCfg { hold_policy: HoldPolicy::Warn, ..EngineCfg::default() };
        let engine = Engine::new(cfg);
        let token = engine.attach("bench", Role::Operator, DAY).await.expect("a session");
        Self { engine, token }
    }

    async fn tasks(&self, count: usize) -> Vec<TaskId> {
        let mut tasks = Vec::with_capacity(count);
        for _ in 0..count {
            let spec = TaskSpec::new("any", "wait");
            tasks.push(self.engine.start_task(&self.token, spec).await.expect("a task"));
        }
        tasks
    }

    fn poll(&self, task: TaskId) -> JoinHandle<bool> {
        let (engine, token) = (self.engine.clone(), self.token.clone());
        tokio::spawn(async move { engine.poll_task(&token, &task, DAY).await.is_ok() })
    }

    /// Waits until every queued turn, and so every park, is served.
    async fn settle(&self) {
        for _ in 0..3 {
            let _ = self.engine.with_state("settle", |_| ()).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Seconds from the first change until the last poll has answered.
async fn wake(world: &World, tasks: &[TaskId], polls: Vec<JoinHandle<bool>>) -> f64 {
    world.settle().await;
    let start = Instant::now();
    for task in tasks {
        world.engine.cancel_task(&world.token, task).await.expect("a task is cancelled");
    }
    for poll in polls {
        assert!(poll.await.expect("a poll does not panic"), "a poll was not answered");
    }
    start.elapsed().as_secs_f64()
}

/// The same with bare oneshots, one sender after the other.
async fn wake_oneshots(count: usize) -> f64 {
    let (senders, waits): (Vec<_>, Vec<_>) = (0..count)
        .map(|_| {
            let (send, wait) = oneshot::channel::<u64>();
            (send, tokio::spawn(wait))
        })
        .unzip();
    tokio::time::sleep(Duration::from_millis(20)).await;
    let start = Instant::now();
    for send in senders {
        let _ = send.send(1);
    }
    for wait in waits {
        let _ = wait.await;
    }
    start.elapsed().as_secs_f64()
}

async fn bench() {
    let scale = Scale::from_env();
    let mut report = Report::new("waiters", "time from the first change to the last answer");
    for count in [1_000, 10_000] {
        let group = format!("{count} polls");
        report.heading(&group);
        let (mut bare, mut many, mut one) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..scale.rounds {
            bare.push(wake_oneshots(count).await);
            let world = World::new().await;
            let tasks = world.tasks(count).await;
            let polls = tasks.iter().map(|task| world.poll(*task)).collect();
            many.push(wake(&world, &tasks, polls).await);
            let single = world.tasks(1).await;
            let polls = (0..count).map(|_| world.poll(single[0])).collect();
            one.push(wake(&world, &single, polls).await);
        }
        let (bare, many, one) = (middle(bare), middle(many), middle(one));
        report.figure(&group, "bare oneshots", bare * 1e3, "ms");
        report.figure(&group, "polls on as many tasks, each cancelled", many * 1e3, "ms");
        report.figure(&group, "the same, ratio to oneshots", many / bare, "x");
        report.figure(&group, "polls on one task", one * 1e3, "ms");
        report.figure(&group, "the same, ratio to oneshots", one / bare, "x");
    }
    let world = World::new().await;
    let task = world.tasks(1).await[0];
    world.engine.cancel_task(&world.token, &task).await.expect("a task is cancelled");
    let group = "a poll with nothing to wait for, 64 callers";
    report.heading(group);
    let mut rounds = Vec::new();
    for _ in 0..scale.rounds {
        let (engine, token) = (world.engine.clone(), world.token.clone());
        let run = move || {
            let (engine, token) = (engine.clone(), token.clone());
            async move { engine.poll_task(&token, &task, DAY).await.is_ok() }
        };
        rounds.push(closed_loop(64, scale.window, run).await);
    }
    let round = median(rounds);
    report.row(group, "poll_task", &round, round.rate);
    report.write();
}

fn main() {
    runtime().block_on(bench());
}
