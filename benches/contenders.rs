//! The contenders: ways to change one state from many callers, each as its users would write it.
//!
//! All of them do the same work on the state. Only the last one is ours.
#![allow(dead_code, reason = "each bench uses a part of it")]

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use adjutant::{CapToken, Engine, EngineState, Role, Verb};
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, RpcReplyPort, SupervisionEvent};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::calm::calm;
use crate::harness::{Operation, Round, closed_loop};

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

/// A way to change the state.
pub(crate) trait Contender: Clone + Send + Sync + 'static {
    /// Changes the state once, for about `micros`, and says whether that was possible.
    fn change(&self, micros: u64) -> impl Future<Output = bool> + Send;
}

/// A contender in a closed loop.
#[derive(Clone)]
struct Loop<C> {
    contender: C,
    micros: u64,
}

impl<C: Contender> Operation for Loop<C> {
    fn run(&self) -> impl Future<Output = bool> + Send {
        self.contender.change(self.micros)
    }
}

type Job = Box<dyn FnOnce(&mut u64) + Send>;

#[derive(Clone)]
pub(crate) struct StdMutex(Arc<Mutex<u64>>);

impl Contender for StdMutex {
    async fn change(&self, micros: u64) -> bool {
        work(&mut self.0.lock().expect("no holder panics"), micros);
        tokio::task::yield_now().await;
        true
    }
}

#[derive(Clone)]
pub(crate) struct ParkingLotMutex(Arc<parking_lot::Mutex<u64>>);

impl Contender for ParkingLotMutex {
    async fn change(&self, micros: u64) -> bool {
        work(&mut self.0.lock(), micros);
        tokio::task::yield_now().await;
        true
    }
}

#[derive(Clone)]
pub(crate) struct TokioMutex(Arc<tokio::sync::Mutex<u64>>);

impl Contender for TokioMutex {
    async fn change(&self, micros: u64) -> bool {
        work(&mut *self.0.lock().await, micros);
        true
    }
}

/// Tries three times more, after 10, 20 and 30 ms, and refuses then.
#[derive(Clone)]
pub(crate) struct BackOff(Arc<tokio::sync::Mutex<u64>>);

impl Contender for BackOff {
    async fn change(&self, micros: u64) -> bool {
        for wait_ms in [0, 10, 20, 30] {
            if wait_ms > 0 {
                tokio::time::sleep(Duration::from_millis(wait_ms)).await;
            }
            if let Ok(mut state) = self.0.try_lock() {
                work(&mut state, micros);
                drop(state);
                tokio::task::yield_now().await;
                return true;
            }
        }
        false
    }
}

#[derive(Clone)]
pub(crate) struct Channel(mpsc::UnboundedSender<(Job, oneshot::Sender<()>)>);

impl Channel {
    fn new() -> Self {
        let (channel, mut jobs) = mpsc::unbounded_channel::<(Job, oneshot::Sender<()>)>();
        tokio::spawn(async move {
            let mut state = 0;
            while let Some((job, reply)) = jobs.recv().await {
                job(&mut state);
                let _ = reply.send(());
            }
        });
        Self(channel)
    }
}

impl Contender for Channel {
    async fn change(&self, micros: u64) -> bool {
        let (reply, done) = oneshot::channel();
        let job: Job = Box::new(move |state| work(state, micros));
        self.0.send((job, reply)).is_ok() && done.await.is_ok()
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

#[derive(Clone)]
pub(crate) struct BareCall(ActorRef<BareMsg>);

impl BareCall {
    pub(crate) async fn start() -> Self {
        Self(Actor::spawn(None, Bare, ()).await.expect("an actor starts").0)
    }

    pub(crate) fn cell(&self) -> ActorCell {
        self.0.get_cell()
    }
}

impl Contender for BareCall {
    async fn change(&self, micros: u64) -> bool {
        let job: Job = Box::new(move |state| work(state, micros));
        self.0.call(|reply| BareMsg::Run(job, reply), None).await.is_ok()
    }
}

#[derive(Clone)]
pub(crate) struct Ours(pub(crate) Engine);

impl Contender for Ours {
    async fn change(&self, micros: u64) -> bool {
        self.0.with_state("bench", move |_: &mut EngineState| work(&mut 0, micros)).await.is_ok()
    }
}

/// A token that is verified for a verb; the closure's length does not matter to it.
#[derive(Clone)]
pub(crate) struct Verify(pub(crate) Engine, pub(crate) Arc<CapToken>);

impl Contender for Verify {
    async fn change(&self, _micros: u64) -> bool {
        self.0.verify_token(&self.1, Verb::PollTask).await.is_ok()
    }
}

/// A row of the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Row {
    BareCall,
    StdMutex,
    ParkingLot,
    TokioMutex,
    BackOff,
    Channel,
    Ours,
    Verify,
}

impl Row {
    /// The contenders; the first one is the baseline.
    pub(crate) const ALL: [Self; 7] = [
        Self::BareCall,
        Self::StdMutex,
        Self::ParkingLot,
        Self::TokioMutex,
        Self::BackOff,
        Self::Channel,
        Self::Ours,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::BareCall => "bare ractor call",
            Self::StdMutex => "std mutex",
            Self::ParkingLot => "parking_lot mutex",
            Self::TokioMutex => "tokio mutex",
            Self::BackOff => "try-lock, back-off 10/20/30 ms",
            Self::Channel => "tokio mpsc + oneshot",
            Self::Ours => "with_state",
            Self::Verify => "verify_token",
        }
    }
}

/// Does something with a contender, whichever type it has.
pub(crate) trait Visit {
    type Output;
    fn visit(self, contender: impl Contender) -> impl Future<Output = Self::Output>;
}

/// One of each, alive for a whole bench.
pub(crate) struct Contenders {
    std: StdMutex,
    parking_lot: ParkingLotMutex,
    tokio: TokioMutex,
    back_off: BackOff,
    channel: Channel,
    bare: BareCall,
    pub(crate) ours: Ours,
    verify: Verify,
}

impl Contenders {
    pub(crate) async fn new() -> Self {
        let engine = Engine::new(calm());
        let day = Duration::from_secs(24 * 3600);
        let token = engine.attach("bench", Role::Operator, day).await.expect("a session");
        Self {
            std: StdMutex(Arc::default()),
            parking_lot: ParkingLotMutex(Arc::default()),
            tokio: TokioMutex(Arc::default()),
            back_off: BackOff(Arc::default()),
            channel: Channel::new(),
            bare: BareCall::start().await,
            ours: Ours(engine.clone()),
            verify: Verify(engine, Arc::new(token)),
        }
    }

    pub(crate) async fn visit<V: Visit>(&self, row: Row, visitor: V) -> V::Output {
        match row {
            Row::BareCall => visitor.visit(self.bare.clone()).await,
            Row::StdMutex => visitor.visit(self.std.clone()).await,
            Row::ParkingLot => visitor.visit(self.parking_lot.clone()).await,
            Row::TokioMutex => visitor.visit(self.tokio.clone()).await,
            Row::BackOff => visitor.visit(self.back_off.clone()).await,
            Row::Channel => visitor.visit(self.channel.clone()).await,
            Row::Ours => visitor.visit(self.ours.clone()).await,
            Row::Verify => visitor.visit(self.verify.clone()).await,
        }
    }

    /// One round of a closed loop.
    pub(crate) async fn round(
        &self,
        row: Row,
        callers: usize,
        micros: u64,
        window: Duration,
    ) -> Round {
        self.visit(row, ClosedLoop { callers, micros, window }).await
    }
}

struct ClosedLoop {
    callers: usize,
    micros: u64,
    window: Duration,
}

impl Visit for ClosedLoop {
    type Output = Round;

    async fn visit(self, contender: impl Contender) -> Round {
        let operation = Loop { contender, micros: self.micros };
        closed_loop(self.callers, self.window, operation).await
    }
}
