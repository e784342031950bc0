//! A worker that is a future in a task of its own.

use std::future::Future;

use adjutant_actors::launch::{Worker, WorkerError};
use adjutant_actors::model::ids::WorkerId;
use async_trait::async_trait;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

type End = Result<(), WorkerError>;

/// Dropping it, or its join, drops the future.
pub(crate) struct TaskWorker {
    id: WorkerId,
    cancel: CancellationToken,
    handle: JoinHandle<End>,
}

impl TaskWorker {
    /// Starts the future, which is to end soon once the token is cancelled.
    pub(crate) fn start<F>(id: WorkerId, cancel: CancellationToken, work: F) -> Box<dyn Worker>
    where
        F: Future<Output = End> + Send + 'static,
    {
        Box::new(Self { id, cancel, handle: tokio::spawn(work) })
    }
}

impl Drop for TaskWorker {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

#[async_trait]
impl Worker for TaskWorker {
    fn id(&self) -> &WorkerId {
        &self.id
    }

    fn cancel_token(&self) -> CancellationToken {
        self.cancel.clone()
    }

    async fn join(mut self: Box<Self>) -> End {
        match (&mut self.handle).await {
            Ok(end) => end,
            // Raised again, so that the attempt's supervisor sees a panic as one.
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Err(WorkerError::Cancelled),
        }
    }
}
