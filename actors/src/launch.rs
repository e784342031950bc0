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
///
/// ```
/// use adjutant_actors::launch::WorkerError;
///
/// assert_eq!(WorkerError::Failed("no network".into()).to_string(), "no network");
/// ```
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
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use adjutant_actors::launch::{Worker, WorkerError};
/// use adjutant_actors::model::ids::WorkerId;
/// use tokio_util::sync::CancellationToken;
///
/// /// Works until it is asked to stop.
/// struct Patient(WorkerId, CancellationToken);
///
/// #[async_trait::async_trait]
/// impl Worker for Patient {
///     fn id(&self) -> &WorkerId { &self.0 }
///     fn cancel_token(&self) -> CancellationToken { self.1.clone() }
///     async fn join(self: Box<Self>) -> Result<(), WorkerError> {
///         self.1.cancelled().await;
///         Err(WorkerError::Cancelled)
///     }
/// }
///
/// let worker = Box::new(Patient(WorkerId::from_bits(1), CancellationToken::new()));
/// worker.cancel_token().cancel();
/// assert_eq!(worker.join().await, Err(WorkerError::Cancelled));
/// # Ok(()) }
/// ```
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
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use adjutant_actors::launch::{Launch, Worker};
///
/// /// Never gets a worker started.
/// struct NoRoom;
///
/// #[async_trait::async_trait]
/// impl Launch for NoRoom {
///     async fn launch(&self) -> Result<Box<dyn Worker>, String> {
///         Err("no room for one more".into())
///     }
/// }
///
/// assert!(NoRoom.launch().await.is_err() && NoRoom.restarts() == 0);
/// # Ok(()) }
/// ```
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
///
/// ```
/// use adjutant_actors::launch::{Built, Factory};
/// use std::sync::Arc;
///
/// let factory: Factory = Arc::new(|| {
///     let built: Built = Arc::new(String::from("whatever the host launches through"));
///     Ok(built)
/// });
/// assert!(factory().unwrap().downcast::<String>().is_ok());
/// ```
pub type Factory = Arc<dyn Fn() -> Result<Built, String> + Send + Sync>;

/// The text of a panic's payload.
///
/// ```
/// let payload = std::panic::catch_unwind(|| panic!("no such thing")).unwrap_err();
/// assert_eq!(adjutant_actors::launch::panic_text(&*payload), "no such thing");
/// ```
#[must_use]
pub fn panic_text(payload: &(dyn Any + Send)) -> String {
    payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a text".to_owned())
}
