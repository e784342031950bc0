//! Attempts alone: begun by turns that change nothing, with workers that hang, so that what is
//! measured is the start of the attempt and not the rights, records and secrets around it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use adjutant::{CancellationToken, EngineState, Mint, SystemClock, TaskSpec, Worker};
use adjutant_actors::launch::Launch;
use adjutant_actors::state::attempts::Plan;
use adjutant_actors::system::ActorSystem;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::calm::calm;
use crate::harness::many;

/// Callers that start attempts at once.
const CALLERS: usize = 64;

/// A launch that tells its caller that it was called, and hangs until it is to end.
struct Hang {
    launched: Mutex<Option<oneshot::Sender<()>>>,
    end: CancellationToken,
}

#[adjutant::async_trait]
impl Launch for Hang {
    async fn launch(&self) -> Result<Box<dyn Worker>, String> {
        if let Some(launched) = self.launched.lock().expect("no holder panics").take() {
            let _ = launched.send(());
        }
        self.end.cancelled().await;
        Err("it is over".to_owned())
    }
}

/// The plan of an attempt that the state knows nothing of.
fn plan(mint: &Mint, spec: &Arc<TaskSpec>) -> Plan {
    Plan { task: mint.task_id(), attempt: 1, spec: spec.clone(), session: None }
}

/// Attempts that hang at once when those that ended before them have left idle actors behind.
const WAVE: usize = 1_000;

/// Microseconds each to start so many attempts that all hang: until each one's launch was called.
pub(crate) async fn start(count: usize) -> f64 {
    let system = ActorSystem::new(calm(), Arc::new(SystemClock::new()));
    system.with_state("start", |_| ()).await.expect("the system runs");
    let each = wave(&system, count, &CancellationToken::new()).await;
    system.shutdown(Duration::ZERO).await;
    each
}

/// As [`start`], a thousand at a time: each wave ends before the next one starts.
pub(crate) async fn start_again(count: usize) -> f64 {
    let system = ActorSystem::new(calm(), Arc::new(SystemClock::new()));
    system.with_state("start", |_| ()).await.expect("the system runs");
    let (mut total, waves) = (0.0, (count / WAVE).max(1));
    for place in 0..=waves {
        let end = CancellationToken::new();
        let turns = system.counts().turns;
        let each = wave(&system, WAVE, &end).await;
        // The first one finds no idle actor.
        if place > 0 {
            total += each;
        }
        end.cancel();
        // A turn began each attempt, another one decides it; then its actor is idle soon.
        let decided = turns + 2 * (WAVE / CALLERS * CALLERS) as u64;
        while system.counts().turns < decided {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    system.shutdown(Duration::ZERO).await;
    total / many(waves)
}

/// Starts so many attempts from a few callers. A caller leaves its dispatch once the launch was
/// called; the attempt belongs to its supervisor and stays.
async fn wave(system: &ActorSystem, count: usize, end: &CancellationToken) -> f64 {
    let begin = Instant::now();
    let callers: Vec<_> = (0..CALLERS)
        .map(|seed| {
            let (system, end) = (system.clone(), end.clone());
            tokio::spawn(async move {
                let (mint, spec) = (Mint::seeded(seed as u64), Arc::new(TaskSpec::new("a", "b")));
                for _ in 0..count / CALLERS {
                    let (tell, launched) = oneshot::channel();
                    let plan = plan(&mint, &spec);
                    let launched_by = Mutex::new(Some(tell));
                    let hang: Arc<dyn Launch> =
                        Arc::new(Hang { launched: launched_by, end: end.clone() });
                    let begin = move |_: &mut EngineState| Ok(Some(plan.clone()));
                    let dispatch = system.dispatch(mint.task_id(), None, begin, |_| hang);
                    tokio::select! {
                        biased;
                        told = launched => told.expect("the launch is called"),
                        _ = dispatch => panic!("an attempt that hangs was decided"),
                    }
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.expect("a caller does not panic");
    }
    begin.elapsed().as_secs_f64() * 1e6 / many(count / CALLERS * CALLERS)
}

/// Microseconds each of as many turns without attempts, from as many callers.
pub(crate) async fn turns(count: usize) -> f64 {
    let system = ActorSystem::new(calm(), Arc::new(SystemClock::new()));
    system.with_state("start", |_| ()).await.expect("the system runs");
    let begin = Instant::now();
    let callers: Vec<_> = (0..CALLERS)
        .map(|seed| {
            let system = system.clone();
            tokio::spawn(async move {
                let (mint, spec) = (Mint::seeded(seed as u64), Arc::new(TaskSpec::new("a", "b")));
                for _ in 0..count / CALLERS {
                    let plan = plan(&mint, &spec);
                    let begun = system.with_state("begin", move |_| plan.clone()).await;
                    begun.expect("a turn runs");
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.expect("a caller does not panic");
    }
    begin.elapsed().as_secs_f64() * 1e6 / many(count / CALLERS * CALLERS)
}
