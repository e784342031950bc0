//! What an operator is given for a worker: a handle and a token of their own for each time that an
//! attempt is handed over.
//!
//! The attempt's own handle and token stay in the process. What is handed over ends with the reply,
//! with the attempt, or when another login takes over, whichever is first; so a worker that an
//! older holder started can post nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use adjutant_actors::errors::EngineError;
use adjutant_actors::model::ids::TaskId;
use adjutant_actors::model::token::CapToken;

use crate::engine::Engine;
use crate::server::link::Link;

/// What a handle stands for, and the link that it was sent over.
#[derive(Debug)]
struct Lease {
    task: TaskId,
    attempt: u32,
    link: Arc<Link>,
}

/// The handles that are out, by their hashes.
#[derive(Debug, Default)]
pub(crate) struct Leases(Mutex<HashMap<blake3::Hash, Lease>>);

impl Leases {
    /// A map is whole between any two of its changes.
    fn out(&self) -> MutexGuard<'_, HashMap<blake3::Hash, Lease>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Draws a handle that stands for an attempt until it is dropped.
    pub(crate) fn handle(
        self: &Arc<Self>,
        engine: &Engine,
        link: Arc<Link>,
        (task, attempt): (TaskId, u32),
    ) -> LeasedHandle {
        let text = engine.draw_handle().expose().to_owned();
        let key = blake3::hash(text.as_bytes());
        self.out().insert(key, Lease { task, attempt, link });
        LeasedHandle { leases: self.clone(), key, text }
    }

    /// What a handle stands for, if it is out and its holder is still one.
    pub(crate) fn find(&self, handle: &str) -> Option<(TaskId, u32)> {
        let (hash, out) = (blake3::hash(handle.as_bytes()), self.out());
        let lease = out.get(&hash).filter(|lease| lease.link.ended().is_none())?;
        Some((lease.task, lease.attempt))
    }

    /// Mints a token for the live attempt of a task.
    pub(crate) async fn token(
        &self,
        engine: &Engine,
        task: &TaskId,
    ) -> Result<LeasedToken, EngineError> {
        let token = engine.lend_worker_token(task).await?;
        Ok(LeasedToken { engine: engine.clone(), token })
    }
}

/// A handle that is out.
pub(crate) struct LeasedHandle {
    leases: Arc<Leases>,
    key: blake3::Hash,
    pub(crate) text: String,
}

impl Drop for LeasedHandle {
    fn drop(&mut self) {
        self.leases.out().remove(&self.key);
    }
}

/// A token that is out. One that is not revoked dies with its attempt.
pub(crate) struct LeasedToken {
    engine: Engine,
    pub(crate) token: CapToken,
}

impl LeasedToken {
    /// Revokes it. An attempt that is over has revoked it before.
    pub(crate) async fn revoke(self) {
        let _ = self.engine.revoke_token(self.token.fingerprint()).await;
    }
}
