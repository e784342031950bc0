//! Idle actors, kept for the next attempt or the next watched task, since starting one costs more
//! than everything else that an attempt needs.
//!
//! An idle actor is unlinked from the root, holds nothing of its last work, and leaves when a
//! whole sweep passed without need of it. The pool decides nothing: an actor that died here is
//! found dead and dropped by whoever takes it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use ractor::{ActorCell, ActorRef, ActorStatus};

/// Idle actors that are kept at most.
const IDLE_MAX: usize = 1024;

/// The idle actors of one kind.
pub(crate) struct Pool<M: 'static> {
    inner: Mutex<Inner<M>>,
}

struct Inner<M: 'static> {
    idle: Vec<ActorRef<M>>,
    /// Fewest idle actors since the last sweep: so many were not needed.
    fewest: usize,
    open: bool,
}

impl<M> Default for Pool<M> {
    fn default() -> Self {
        Self { inner: Mutex::new(Inner { idle: Vec::new(), fewest: 0, open: false }) }
    }
}

impl<M: ractor::Message> Pool<M> {
    fn lock(&self) -> MutexGuard<'_, Inner<M>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A tree stands; actors may come to rest here.
    pub(crate) fn open(&self) {
        self.lock().open = true;
    }

    /// Takes an idle actor and links it under the root again.
    pub(crate) fn take(&self, root: &ActorCell) -> Option<ActorRef<M>> {
        loop {
            let mut inner = self.lock();
            let actor = inner.idle.pop()?;
            inner.fewest = inner.fewest.min(inner.idle.len());
            drop(inner);
            if actor.get_status() < ActorStatus::Stopping {
                actor.get_cell().link(root.clone());
                return Some(actor);
            }
        }
    }

    /// Keeps an actor that has come to rest, or stops it where there is no room.
    pub(crate) fn keep(&self, actor: ActorRef<M>) {
        if let Some(root) = actor.get_cell().try_get_supervisor() {
            actor.get_cell().unlink(root);
        }
        let mut inner = self.lock();
        if inner.open && inner.idle.len() < IDLE_MAX {
            inner.idle.push(actor);
        } else {
            drop(inner);
            actor.stop(None);
        }
    }

    /// Stops the actors that nobody needed since the last sweep.
    pub(crate) fn sweep(&self) {
        let mut inner = self.lock();
        let spare = inner.fewest.min(inner.idle.len());
        let leaving: Vec<_> = inner.idle.drain(..spare).collect();
        if inner.idle.capacity() > 2 * IDLE_MAX.min(inner.idle.len() + 16) {
            inner.idle.shrink_to_fit();
        }
        inner.fewest = inner.idle.len();
        drop(inner);
        for actor in leaving {
            actor.stop(None);
        }
    }

    /// Stops all of them; none may come to rest here until a tree stands again.
    pub(crate) fn close(&self) {
        let mut inner = self.lock();
        inner.open = false;
        inner.fewest = 0;
        let leaving = std::mem::take(&mut inner.idle);
        drop(inner);
        for actor in leaving {
            actor.stop(None);
        }
    }
}
