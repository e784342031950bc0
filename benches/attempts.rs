//! Attempts alone: begun by turns that change nothing, with workers that hang, so that what is
//! measured is the start of the attempt and not the rights, records and secrets around it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use adjutant::{EngineState, Mint, SystemClock, TaskSpec, Worker};
use adjutant_actors::launch::Launch;
use adjutant_actors::state::attempts::Plan;
use adjutant_actors::system::ActorSystem;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::calm::calm;
use crate::harness::many;

/// Callers that start attempts at once.
const CALLERS: usize = 64;

/// A launch that tells its caller that it was called, and hangs.
struct Hang(Mutex<Option<oneshot::Sender<()>>>);

#[adjutant::async_trait]
impl Launch for Hang {
    async fn launch(&self) -> Result<Box<dyn Worker>, String> {
        if let Some(launched) = self.0.lock().expect("no holder panics").take() {
            let _ = launched.send(());
        }
        std::future::pending().await
    }
}

/// The plan of an attempt that the state knows nothing of.
fn plan(mint: &Mint, spec: &Arc<TaskSpec>) -> Plan {
    Plan { task: mint.task_id(), attempt: 1, spec: spec.clone(), session: None }
}

/// Microseconds each to start so many attempts, until each one's launch was called. The caller
/// leaves then; the attempt belongs to its supervisor and stays.
pub(crate) async fn start(count: usize) -> f64 {
    let system = ActorSystem::new(calm(), Arc::new(SystemClock::new()));
    system.with_state("start", |_| ()).await.expect("the system runs");
    let begin = Instant::now();
    let callers: Vec<_> = (0..CALLERS)
        .map(|seed| {
            let system = system.clone();
            tokio::spawn(async move {
                let (mint, spec) = (Mint::seeded(seed as u64), Arc::new(TaskSpec::new("a", "b")));
                for _ in 0..count / CALLERS {
                    let (tell, launched) = oneshot::channel();
                    let plan = plan(&mint, &spec);
                    let hang: Arc<dyn Launch> = Arc::new(Hang(Mutex::new(Some(tell))));
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
    let each = begin.elapsed().as_secs_f64() * 1e6 / many(count / CALLERS * CALLERS);
    system.shutdown(Duration::ZERO).await;
    each
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
