//! The workers of a simulation: they pull, send, ask, sleep, and end in every way there is.

use std::sync::Arc;

use adjutant_actors::launch::{Launch, Worker, WorkerError};
use adjutant_actors::model::ids::{TaskId, WorkerId};
use adjutant_actors::system::ActorSystem;
use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use crate::call::{Call, Out, Who};
use crate::clients::ask;
use crate::shared::Shared;

/// How a worker ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    SpawnError,
    SpawnPanic,
    SpawnHang,
    Good,
    Mute,
    Fails,
    Panics,
    /// Never ends by itself, but heeds its cancel token.
    Hangs,
    /// Never ends by itself, and ignores its cancel token.
    Stubborn,
}

impl Fate {
    pub(crate) fn draw(shared: &Shared) -> Self {
        match shared.draw(16) {
            0 => Self::SpawnError,
            1 => Self::SpawnPanic,
            2 => Self::SpawnHang,
            3 => Self::Mute,
            4 => Self::Fails,
            5 => Self::Panics,
            6 => Self::Hangs,
            7 => Self::Stubborn,
            _ => Self::Good,
        }
    }
}

/// Starts the worker of one attempt.
pub(crate) struct SimLaunch {
    pub(crate) shared: Arc<Shared>,
    pub(crate) system: ActorSystem,
    pub(crate) task: TaskId,
    pub(crate) attempt: u32,
    pub(crate) token: usize,
    pub(crate) fate: Fate,
}

/// Counts a worker, however it ends.
struct Alive(Arc<Shared>);

impl Alive {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.known(|known| known.workers += 1);
        Self(shared.clone())
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.known(|known| known.workers -= 1);
    }
}

struct SimWorker {
    id: WorkerId,
    cancel: CancellationToken,
    shared: Arc<Shared>,
    system: ActorSystem,
    task: TaskId,
    attempt: u32,
    token: usize,
    fate: Fate,
    _alive: Alive,
}

#[async_trait]
impl Launch for SimLaunch {
    async fn launch(&self) -> Result<Box<dyn Worker>, String> {
        let alive = Alive::new(&self.shared);
        self.shared.linger(5).await;
        match self.fate {
            Fate::SpawnError => return Err("no room".into()),
            Fate::SpawnPanic => panic!("the spawner's own panic"),
            Fate::SpawnHang => std::future::pending().await,
            _ => {}
        }
        Ok(Box::new(SimWorker {
            id: WorkerId::from_bits(self.token as u128),
            cancel: CancellationToken::new(),
            shared: self.shared.clone(),
            system: self.system.clone(),
            task: self.task,
            attempt: self.attempt,
            token: self.token,
            fate: self.fate,
            _alive: alive,
        }))
    }

    fn restarts(&self) -> u32 {
        u32::from(self.token.is_multiple_of(3))
    }
}

impl SimWorker {
    /// A call of the worker's own; refusals are nothing to it.
    async fn call(&self, call: Call) {
        let _ = self.system.transact("worker", self.shared.turn(call)).await;
    }

    async fn send(&self, out: Out) {
        let (who, task, attempt) = (Who::Token(self.token), self.task, self.attempt);
        self.call(Call::Output { who, task, attempt, out, result: false }).await;
    }

    async fn work(&self) {
        let (who, task, shared) = (Who::Token(self.token), self.task, &self.shared);
        self.call(Call::Pull { who, task }).await;
        for _ in 0..shared.draw(4) {
            shared.linger(30).await;
            match shared.draw(5) {
                0 => self.send(Out::Partial(shared.small())).await,
                1 => self.send(Out::Artifact(shared.small())).await,
                2 => self.call(Call::Post { who, task, value: shared.small() }).await,
                3 => drop(ask(shared, &self.system, task).await),
                _ => {
                    let id = crate::clients::fresh_task(shared);
                    let agent = shared.small() % 2;
                    let (parent, key, retry) = (None, None, false);
                    self.call(Call::Start { who, id, agent, parent, key, retry }).await;
                }
            }
        }
        if self.fate != Fate::Mute {
            self.send(Out::Final(shared.small(), shared.chance(70))).await;
        }
    }
}

#[async_trait]
impl Worker for SimWorker {
    fn id(&self) -> &WorkerId {
        &self.id
    }

    fn cancel_token(&self) -> CancellationToken {
        self.cancel.clone()
    }

    async fn join(self: Box<Self>) -> Result<(), WorkerError> {
        self.work().await;
        match self.fate {
            Fate::Fails => Err(WorkerError::Failed("broke".into())),
            Fate::Panics => panic!("the worker's own panic"),
            Fate::Hangs => {
                self.cancel.cancelled().await;
                Err(WorkerError::Cancelled)
            }
            Fate::Stubborn => std::future::pending().await,
            _ => Ok(()),
        }
    }
}
