//! What the server keeps beside the engine's state, behind one small trait, and its form in memory.
//!
//! A shelf decides nothing about rights. Its calls block, so the server makes them away from its
//! own threads.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use adjutant_actors::journal::JournalError;
use adjutant_actors::model::ids::RunId;

/// Keys of runs that are remembered; the oldest go first.
pub(crate) const KEYS_MAX: usize = 100_000;

/// The run that a key was used for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimedRun {
    /// The run.
    pub run: RunId,
    /// Hash of the body that it was asked for with.
    pub body: String,
}

/// A place for what the server keeps. All calls block.
pub trait Shelf: Send + Sync {
    /// Gives a key to a run, or tells which run has it. Both in one step.
    ///
    /// # Errors
    /// Those of the place.
    fn claim_run(
        &self,
        key: &str,
        fresh: &ClaimedRun,
        now: u64,
    ) -> Result<ClaimedRun, JournalError>;
}

/// A shelf that ends with the process.
#[derive(Default)]
pub struct MemoryShelf {
    inner: Mutex<Inner>,
}

impl std::fmt::Debug for MemoryShelf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryShelf").finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Inner {
    keys: HashMap<String, ClaimedRun>,
    order: std::collections::VecDeque<String>,
}

impl MemoryShelf {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shelf for MemoryShelf {
    fn claim_run(
        &self,
        key: &str,
        fresh: &ClaimedRun,
        _now: u64,
    ) -> Result<ClaimedRun, JournalError> {
        let mut inner = self.lock();
        if let Some(held) = inner.keys.get(key) {
            return Ok(held.clone());
        }
        inner.keys.insert(key.to_owned(), fresh.clone());
        inner.order.push_back(key.to_owned());
        while inner.order.len() > KEYS_MAX {
            if let Some(oldest) = inner.order.pop_front() {
                inner.keys.remove(&oldest);
            }
        }
        Ok(fresh.clone())
    }
}
