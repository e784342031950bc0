//! A spawner that fails as it is told, and a probe that counts what became of its workers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use adjutant::{
    CancellationToken, CapToken, ContentRef, Ctx, Engine, OutputEvent, SpawnError, SpawnerAdapter,
    TaskId, Worker, WorkerError, WorkerId, async_trait,
};
use serde_json::json;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    SpawnError,
    SpawnPanic,
    SpawnHang,
    JoinError,
    JoinPanic,
    /// Ends without a Final.
    Mute,
    /// Never ends by itself, but heeds its cancel token.
    Hang,
    /// Never ends by itself, and ignores its cancel token.
    Stubborn,
    /// Sends a passing Final, then never ends.
    Lingers,
}

/// Counts of what happened to the workers.
#[derive(Debug, Default)]
pub(crate) struct Probe {
    pub(crate) asked: AtomicUsize,
    pub(crate) asked_to_stop: AtomicUsize,
    pub(crate) gone: AtomicUsize,
}

impl Probe {
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    pub(crate) fn asked_to_stop(&self) -> usize {
        self.asked_to_stop.load(Ordering::SeqCst)
    }

    pub(crate) fn gone(&self) -> usize {
        self.gone.load(Ordering::SeqCst)
    }
}

/// The spawner.
pub(crate) struct Faulty {
    fault: Fault,
    probe: Arc<Probe>,
}

/// A faulty spawner with its probe.
pub(crate) fn faulty(fault: Fault) -> (Arc<dyn SpawnerAdapter>, Arc<Probe>) {
    let probe = Arc::new(Probe::default());
    (Arc::new(Faulty { fault, probe: probe.clone() }), probe)
}

/// Counts the end of a worker or of a spawn, however it comes.
struct Gone(Arc<Probe>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.gone.fetch_add(1, Ordering::SeqCst);
    }
}

struct FaultyWorker {
    id: WorkerId,
    fault: Fault,
    cancel: CancellationToken,
    gone: Gone,
}

#[async_trait]
impl SpawnerAdapter for Faulty {
    async fn spawn(
        &self,
        engine: &Engine,
        _ctx: &Ctx,
        task_id: TaskId,
        attempt: u32,
        token: CapToken,
    ) -> Result<Box<dyn Worker>, SpawnError> {
        let gone = Gone(self.probe.clone());
        self.probe.asked.fetch_add(1, Ordering::SeqCst);
        match self.fault {
            Fault::SpawnError => return Err(SpawnError::Internal("no room".to_owned())),
            Fault::SpawnPanic => panic!("the spawner's own panic"),
            Fault::SpawnHang => std::future::pending().await,
            Fault::Lingers => {
                let content = ContentRef::inline(json!("late"));
                let event = OutputEvent::Final { content, ok: true };
                engine.submit_output(&token, &task_id, attempt, event).await.unwrap();
            }
            _ => {}
        }
        let (id, cancel) = (engine.mint().worker_id(), CancellationToken::new());
        Ok(Box::new(FaultyWorker { id, fault: self.fault, cancel, gone }))
    }
}

#[async_trait]
impl Worker for FaultyWorker {
    fn id(&self) -> &WorkerId {
        &self.id
    }

    fn cancel_token(&self) -> CancellationToken {
        self.cancel.clone()
    }

    async fn join(self: Box<Self>) -> Result<(), WorkerError> {
        match self.fault {
            Fault::JoinError => Err(WorkerError::Failed("broke".to_owned())),
            Fault::JoinPanic => panic!("the worker's own panic"),
            Fault::Mute => Ok(()),
            Fault::Hang => {
                self.cancel.cancelled().await;
                self.gone.0.asked_to_stop.fetch_add(1, Ordering::SeqCst);
                Err(WorkerError::Cancelled)
            }
            _ => std::future::pending().await,
        }
    }
}
