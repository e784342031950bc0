//! The seam to what hosts run: one trait to start an attempt's worker, one for the worker itself.
//!
//! The actors know no spawner. The engine above hands down a [`Launch`]; calling it again is a
//! restart, so the attempt actor needs no more.

use std::any::Any;
use std::sync::Arc;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use crate::model::ids::WorkerId;

/// How a worker failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WorkerError {
    /// It ended with an error.
    #[error("{0}")]
    Failed(String),
    /// It stopped because it was asked to.
    #[error("the worker was cancelled")]
    Cancelled,
}

/// A worker that is already running.
///
/// Dropping it must stop what it runs: the engine drops a worker that ignores its cancel token
/// once the grace period is over.
#[async_trait]
pub trait Worker: Send {
    /// Names the worker in logs.
    fn id(&self) -> &WorkerId;

    /// Asks the worker to stop when it is cancelled. Every clone is the same token.
    fn cancel_token(&self) -> CancellationToken;

    /// Waits for the end. A signal, not a value: the result travels as output.
    ///
    /// Dropping this future stops the worker.
    async fn join(self: Box<Self>) -> Result<(), WorkerError>;
}

/// Starts the worker of one attempt.
#[async_trait]
pub trait Launch: Send + Sync + 'static {
    /// Starts the worker. Called again after a panic, within the limit and before any output.
    ///
    /// # Errors
    /// Why no worker could be started, for the attempt's verdict.
    async fn launch(&self) -> Result<Box<dyn Worker>, String>;

    /// The span of the attempt, which its worker runs in. It ends when this is dropped.
    fn span(&self) -> tracing::Span {
        tracing::Span::none()
    }

    /// How often it may be called again after a panic.
    fn restarts(&self) -> u32 {
        0
    }
}

/// What a supervised spawner's factory builds; the host knows its real type.
pub type Built = Arc<dyn Any + Send + Sync>;

/// Builds a supervised spawner, at first and after each panic. May panic itself.
pub type Factory = Arc<dyn Fn() -> Result<Built, String> + Send + Sync>;

/// The text of a panic's payload.
#[must_use]
pub fn panic_text(payload: &(dyn Any + Send)) -> String {
    payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a text".to_owned())
}
