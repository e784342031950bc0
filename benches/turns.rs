//! Turns: `with_state` in a closed loop beside locks, a channel and a bare actor call.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use adjutant::{Engine, EngineCfg, HoldPolicy};
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort, SupervisionEvent};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

#[path = "harness.rs"]
mod harness;

use harness::{Report, Round, Scale, closed_loop, median, runtime};

type Job = Box<dyn FnOnce(&mut u64) + Send>;

/// Works on the state for about `micros` microseconds.
fn work(state: &mut u64, micros: u64) {
    *state = state.wrapping_add(1);
    if micros > 0 {
        let end = Instant::now() + Duration::from_micros(micros);
        while Instant::now() < end {
            std::hint::spin_loop();
        }
    }
}

/// Bare actor that owns the state and runs boxed closures.
struct Bare;

enum BareMsg {
    Run(Job, RpcReplyPort<()>),
}

impl Actor for Bare {
    type Msg = BareMsg;
    type State = u64;
    type Arguments = ();

    async fn pre_start(
        &self,
        _myself: ActorRef<BareMsg>,
        (): (),
    ) -> Result<u64, ActorProcessingErr> {
        Ok(0)
    }

    async fn handle(
        &self,
        _myself: ActorRef<BareMsg>,
        BareMsg::Run(job, reply): BareMsg,
        state: &mut u64,
    ) -> Result<(), ActorProcessingErr> {
        job(state);
        let _ = reply.send(());
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _myself: ActorRef<BareMsg>,
        _event: SupervisionEvent,
        _state: &mut u64,
    ) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
}

/// The contenders, alive for the whole bench.
#[derive(Clone)]
struct Contenders {
    mutex: Arc<Mutex<u64>>,
    async_mutex: Arc<tokio::sync::Mutex<u64>>,
    channel: mpsc::UnboundedSender<(Job, oneshot::Sender<()>)>,
    actor: ActorRef<BareMsg>,
    engine: Engine,
}

const ROWS: [&str; 6] = [
    "bare ractor call",
    "std mutex",
    "tokio mutex",
    "try-lock, back-off 10/20/30 ms",
    "tokio mpsc + oneshot",
    "with_state",
];

impl Contenders {
    async fn new() -> Self {
        let (channel, mut jobs) = mpsc::unbounded_channel::<(Job, oneshot::Sender<()>)>();
        tokio::spawn(async move {
            let mut state = 0;
            while let Some((job, reply)) = jobs.recv().await {
                job(&mut state);
                let _ = reply.send(());
            }
        });
        let (actor, _) = Actor::spawn(None, Bare, ()).await.expect("an actor starts");
        let cfg = EngineCfg { hold_policy: HoldPolicy::Warn, ..EngineCfg::default() };
        let engine = Engine::new(cfg);
        Self { mutex: Arc::default(), async_mutex: Arc::default(), channel, actor, engine }
    }

    async fn round(
        &self,
        row: &'static str,
        callers: usize,
        micros: u64,
        window: Duration,
    ) -> Round {
        let own = self.clone();
        let run = move || {
            let own = own.clone();
            async move { own.operation(row, micros).await }
        };
        closed_loop(callers, window, run).await
    }

    /// One operation of a contender. All pay the same for being picked and cloned.
    async fn operation(&self, row: &str, micros: u64) -> bool {
        match row {
            "std mutex" => {
                work(&mut self.mutex.lock().expect("no holder panics"), micros);
                tokio::task::yield_now().await;
                true
            }
            "tokio mutex" => {
                work(&mut *self.async_mutex.lock().await, micros);
                true
            }
            "try-lock, back-off 10/20/30 ms" => try_lock(&self.async_mutex, micros).await,
            "tokio mpsc + oneshot" => {
                let (reply, done) = oneshot::channel();
                let job: Job = Box::new(move |state| work(state, micros));
                self.channel.send((job, reply)).is_ok() && done.await.is_ok()
            }
            "bare ractor call" => {
                let job: Job = Box::new(move |state| work(state, micros));
                self.actor.call(|reply| BareMsg::Run(job, reply), None).await.is_ok()
            }
            _ => {
                let turn = move |_: &mut adjutant::EngineState| work(&mut 0, micros);
                self.engine.with_state("bench", turn).await.is_ok()
            }
        }
    }
}

async fn try_lock(mutex: &tokio::sync::Mutex<u64>, micros: u64) -> bool {
    for wait_ms in [0, 10, 20, 30] {
        if wait_ms > 0 {
            tokio::time::sleep(Duration::from_millis(wait_ms)).await;
        }
        if let Ok(mut state) = mutex.try_lock() {
            work(&mut state, micros);
            drop(state);
            tokio::task::yield_now().await;
            return true;
        }
    }
    false
}

async fn bench() {
    let scale = Scale::from_env();
    let mut report = Report::new("turns", "closures on the state, ratios to a bare ractor call");
    let contenders = Contenders::new().await;
    for micros in [0, 5, 20] {
        for callers in [1, 8, 64, 512] {
            let group = format!("{micros} us closures, {callers} callers");
            report.heading(&group);
            let mut rounds: Vec<Vec<Round>> = ROWS.iter().map(|_| Vec::new()).collect();
            for _ in 0..scale.rounds {
                for (row, own) in ROWS.iter().zip(&mut rounds) {
                    own.push(contenders.round(row, callers, micros, scale.window).await);
                }
            }
            let medians: Vec<_> = rounds.into_iter().map(median).collect();
            let baseline = medians.first().map_or(1.0, |round| round.rate);
            for (row, round) in ROWS.iter().zip(&medians) {
                report.row(&group, row, round, baseline);
            }
        }
    }
    report.write();
}

fn main() {
    runtime().block_on(bench());
}
