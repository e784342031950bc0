//! The loads: each goes on by itself until the soak stops, and counts what it did.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use adjutant::{
    Delivery, EngineError, Intensity, Role, SpawnerAdapter, Supervised, TaskId, TaskSpec,
    TaskStatus,
};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::Soak;
use crate::agents::{children, faulty, functions};

/// The loads by their names, in the order of their numbers.
pub(crate) const KINDS: [&str; 9] = [
    "attempts of functions, whatever their end",
    "attempts of child processes",
    "launches that break",
    "dispatches dropped by their callers",
    "polls, most of them dropped",
    "sessions, some left to lapse",
    "questions, some never answered",
    "events read, by a reader that pauses",
    "rounds of killing actors",
];

/// Loads of each kind at a time.
const WIDTH: [u64; KINDS.len()] = [6, 2, 2, 4, 4, 2, 2, 1, 1];

/// Numbers that look drawn at random.
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) % bound.max(1)
    }

    fn micros(&mut self, below: u64) -> Duration {
        Duration::from_micros(self.below(below))
    }

    fn one_of<'a, T>(&mut self, all: &'a [T]) -> Option<&'a T> {
        all.get(usize::try_from(self.below(all.len() as u64)).unwrap_or(0))
    }
}

/// One load.
struct Load {
    soak: Arc<Soak>,
    kind: usize,
    draw: Draw,
}

/// Starts all loads.
pub(crate) fn start(soak: &Arc<Soak>, running: &mut JoinSet<()>) {
    // What workers and spawners panic for is a part of the load.
    let shown = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let text = panic.payload().downcast_ref::<&str>();
        if !text.is_some_and(|text| text.ends_with("'s own panic")) {
            shown(panic);
        }
    }));
    for (kind, width) in WIDTH.into_iter().enumerate() {
        for at in 0..width {
            let draw = Draw(0x9e37_79b9_7f4a_7c15 ^ ((kind as u64) << 8 | (at + 1)));
            running.spawn(Load { soak: soak.clone(), kind, draw }.run());
        }
    }
}

/// One attempt of a child, so that what the runtime keeps for children is there.
pub(crate) async fn warm_up(soak: &Arc<Soak>) -> Result<(), EngineError> {
    let [cat, ..] = children();
    let task = soak.engine.start_task(&soak.operator, TaskSpec::new("child", "warm")).await?;
    soak.engine.dispatch_attempt_with(&soak.operator, &task, &cat).await?;
    sleep(Duration::from_millis(500)).await;
    Ok(())
}

impl Load {
    async fn run(mut self) {
        let (functions, children, faulty) = (functions(), children(), faulty());
        let build = || Ok(faulty_once());
        let (within, backoff) = (Duration::from_millis(10), Duration::from_millis(1));
        let intensity = Intensity { restarts: u32::MAX, within, backoff };
        let supervised: Arc<dyn SpawnerAdapter> =
            Arc::new(Supervised::new("panics", build).intensity(intensity));
        let stop = self.soak.stop.clone();
        while !stop.is_cancelled() {
            let done = match self.kind {
                0 => self.attempt(&functions).await,
                1 => self.child(&children).await,
                2 => match self.draw.one_of(&faulty).cloned() {
                    Some(spawner) if self.draw.below(4) > 0 => self.dispatch("any", &spawner).await,
                    _ => self.dispatch("any", &supervised).await,
                },
                3 => self.dropped(&functions).await,
                4 => self.polls().await,
                5 => self.session().await,
                6 => self.question().await,
                7 => self.read().await,
                _ => self.kill().await,
            };
            match done {
                Ok(()) => self.soak.count(self.kind),
                Err(_) => drop(self.soak.errors.fetch_add(1, Ordering::Relaxed)),
            }
            // A machine with few cores has other things to do too.
            tokio::task::yield_now().await;
        }
    }

    async fn task(&self, agent: &str) -> Result<TaskId, EngineError> {
        self.soak.engine.start_task(&self.soak.operator, TaskSpec::new(agent, "do it")).await
    }

    /// Dispatches a task and waits for the end, which is a failure more often than not.
    async fn dispatch(
        &self,
        agent: &str,
        spawner: &Arc<dyn SpawnerAdapter>,
    ) -> Result<(), EngineError> {
        let task = self.task(agent).await?;
        let engine = &self.soak.engine;
        match engine.dispatch_attempt_with(&self.soak.operator, &task, spawner).await {
            Ok(_) | Err(EngineError::DispatchFailed(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn attempt(&mut self, functions: &Arc<dyn SpawnerAdapter>) -> Result<(), EngineError> {
        const AGENTS: [&str; 8] =
            ["pass", "pass", "talk", "slow", "block", "fail", "panic", "hang"];
        let agent = self.draw.one_of(&AGENTS).copied().unwrap_or("pass");
        self.dispatch(agent, functions).await
    }

    async fn child(&mut self, children: &[Arc<dyn SpawnerAdapter>]) -> Result<(), EngineError> {
        let Some(spawner) = self.draw.one_of(children).cloned() else { return Ok(()) };
        let task = self.task("child").await?;
        let (engine, operator) = (&self.soak.engine, &self.soak.operator);
        let dispatch = engine.dispatch_attempt_with(operator, &task, &spawner);
        let wait = self.draw.micros(200_000);
        if timeout(wait, dispatch).await.is_err() {
            engine.cancel_task(operator, &task).await?;
        }
        Ok(())
    }

    /// A caller that goes away at any moment of its dispatch.
    async fn dropped(&mut self, functions: &Arc<dyn SpawnerAdapter>) -> Result<(), EngineError> {
        const AGENTS: [&str; 4] = ["pass", "slow", "talk", "hang"];
        let agent = self.draw.one_of(&AGENTS).copied().unwrap_or("pass");
        let wait = self.draw.micros(3_000);
        let task = self.task(agent).await?;
        let (engine, operator) = (&self.soak.engine, &self.soak.operator);
        let dispatch = engine.dispatch_attempt_with(operator, &task, functions);
        if timeout(wait, dispatch).await.is_err()
            && engine.read_task_state(operator, &task).await?.status == TaskStatus::Pending
        {
            // Its turn never came: nobody would end it, and it would be remembered for ever.
            engine.cancel_task(operator, &task).await?;
        }
        Ok(())
    }

    async fn polls(&mut self) -> Result<(), EngineError> {
        let task = self.task("nobody").await?;
        let (engine, operator) = (&self.soak.engine, &self.soak.operator);
        let mut polls = JoinSet::new();
        for _ in 0..=self.draw.below(12) {
            let (engine, operator) = (engine.clone(), operator.clone());
            let hold = Duration::from_secs(3600);
            polls.spawn(async move { engine.poll_task(&operator, &task, hold).await });
        }
        sleep(self.draw.micros(4_000)).await;
        if self.draw.below(2) == 0 {
            polls.abort_all();
        }
        engine.cancel_task(operator, &task).await?;
        while polls.join_next().await.is_some() {}
        Ok(())
    }

    /// Somebody attaches, starts tasks, and leaves with or without a word.
    async fn session(&mut self) -> Result<(), EngineError> {
        let engine = &self.soak.engine;
        let token = engine.attach("guest", Role::Operator, Duration::from_secs(2)).await?;
        let mut left = Vec::new();
        for _ in 0..self.draw.below(4) {
            left.push(engine.start_task(&token, TaskSpec::new("nobody", "left open")).await?);
            engine.heartbeat(&token).await?;
        }
        sleep(self.draw.micros(20_000)).await;
        if self.draw.below(2) == 0 {
            engine.detach_and_revoke(&token).await?;
            // Who leaves with a word leaves its tasks to others; those of who lapses end by that.
            for task in left {
                engine.cancel_task(&self.soak.operator, &task).await?;
            }
        }
        Ok(())
    }

    async fn question(&mut self) -> Result<(), EngineError> {
        let (engine, operator) = (&self.soak.engine, &self.soak.operator);
        let task = self.task("nobody").await?;
        let key = engine.query_senior(operator, &task, json!("really?")).await?;
        let waits = timeout(self.draw.micros(5_000), engine.await_resume(key, HOLD));
        let answers = self.draw.below(2) == 0;
        let answer = async {
            if answers {
                engine.answer_query(&self.soak.senior, key, json!("yes")).await
            } else {
                Ok(())
            }
        };
        let (_, answered) = tokio::join!(waits, answer);
        answered?;
        engine.cancel_task(operator, &task).await
    }

    /// Reads what happened and falls behind on purpose.
    async fn read(&mut self) -> Result<(), EngineError> {
        let mut feed = self.soak.engine.event_feed(0).await?;
        for _ in 0..500 {
            match timeout(Duration::from_millis(100), feed.next()).await {
                Ok(Some(Delivery::Record(_) | Delivery::Missed { .. })) => {}
                _ => break,
            }
        }
        sleep(self.draw.micros(50_000)).await;
        Ok(())
    }

    /// Kills some of the actors below the root, the state's own among them at times.
    async fn kill(&mut self) -> Result<(), EngineError> {
        sleep(Duration::from_millis(20) + self.draw.micros(80_000)).await;
        let below = self.soak.engine.root_cell().map(|root| root.get_children());
        let below = below.unwrap_or_default();
        for _ in 0..=self.draw.below(3) {
            if let Some(actor) = self.draw.one_of(&below) {
                actor.kill();
                self.soak.killed.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(())
    }
}

const HOLD: Duration = Duration::from_secs(3600);

fn faulty_once() -> Arc<dyn SpawnerAdapter> {
    let [_, panics, _] = faulty();
    panics
}
