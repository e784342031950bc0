//! Idle actors, kept for the next attempt or the next watched task, since starting one costs more
//! than everything else that an attempt needs.
//!
//! An idle actor stays linked under its root, holds nothing of its last work, and leaves when a
//! tenth of a second passed without need of it. The pool decides nothing: an actor that died here is
//! found dead and dropped by whoever takes it. What an attempt is given dies with its actor, or
//! decides the attempt when it is dropped unheard, so an actor that is killed while idle costs one
//! attempt an interruption and never a hang.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ractor::{ActorCell, ActorRef, ActorStatus, Message};

/// How long an idle actor is kept without need of it, up to twice that.
const KEPT: Duration = Duration::from_millis(100);
/// Idle actors that are kept at most. High, because a thousand that end together must not have to
/// stop together; the sweeps take those away that are not needed again.
const IDLE_MAX: usize = 65_536;

/// An actor, with whatever is needed to give it work.
pub(crate) trait Resident: Send + 'static {
    fn cell(&self) -> ActorCell;
}

impl<M: Message> Resident for ActorRef<M> {
    fn cell(&self) -> ActorCell {
        self.get_cell()
    }
}

/// The idle actors of one kind.
pub(crate) struct Pool<R> {
    inner: Mutex<Inner<R>>,
}

struct Inner<R> {
    idle: Vec<R>,
    /// Fewest idle actors since the last sweep: so many were not needed.
    fewest: usize,
    /// Number of the tree whose actors come to rest here; none does while it is ending.
    tree: u64,
    open: bool,
    /// Whether somebody sweeps.
    swept: bool,
}

impl<R> Default for Pool<R> {
    fn default() -> Self {
        Self {
            inner: Mutex::new(Inner {
                idle: Vec::new(),
                fewest: 0,
                tree: 0,
                open: false,
                swept: false,
            }),
        }
    }
}

impl<R: Resident> Pool<R> {
    fn lock(&self) -> MutexGuard<'_, Inner<R>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A tree stands; its actors may come to rest here.
    pub(crate) fn open(&self) {
        let mut inner = self.lock();
        inner.open = true;
        inner.tree += 1;
    }

    /// Number of the present tree, for an actor that starts in it.
    pub(crate) fn tree(&self) -> u64 {
        self.lock().tree
    }

    /// Takes an idle actor.
    pub(crate) fn take(&self) -> Option<R> {
        loop {
            let mut inner = self.lock();
            let actor = inner.idle.pop()?;
            inner.fewest = inner.fewest.min(inner.idle.len());
            drop(inner);
            if actor.cell().get_status() < ActorStatus::Stopping {
                return Some(actor);
            }
        }
    }

    /// Keeps an actor of this tree that has come to rest, or stops it where there is no room.
    pub(crate) fn keep(self: &Arc<Self>, actor: R, tree: u64) {
        let mut inner = self.lock();
        if inner.open && inner.tree == tree && inner.idle.len() < IDLE_MAX {
            inner.idle.push(actor);
            if !std::mem::replace(&mut inner.swept, true) {
                drop(inner);
                tokio::spawn(self.clone().sweep());
            }
        } else {
            drop(inner);
            actor.cell().stop(None);
        }
    }

    /// Stops actors that nobody needs, until none is left.
    async fn sweep(self: Arc<Self>) {
        // The flag is taken back even when the runtime drops this task.
        let mut broom = Broom { pool: self, done: false };
        while !broom.is_done() {
            tokio::time::sleep(KEPT).await;
            broom.pool.stop_spare();
        }
    }

    /// Stops the actors that nobody needed since this was done last.
    fn stop_spare(&self) {
        let mut inner = self.lock();
        let spare = inner.fewest.min(inner.idle.len());
        let leaving: Vec<_> = inner.idle.drain(..spare).collect();
        if inner.idle.capacity() > 4 * (inner.idle.len() + 16) {
            inner.idle.shrink_to_fit();
        }
        inner.fewest = inner.idle.len();
        drop(inner);
        for actor in leaving {
            actor.cell().stop(None);
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
            actor.cell().stop(None);
        }
    }
}

/// Held by who sweeps.
struct Broom<R: Resident> {
    pool: Arc<Pool<R>>,
    done: bool,
}

impl<R: Resident> Broom<R> {
    /// Whether nobody is idle; the next one to rest then finds that nobody sweeps.
    fn is_done(&mut self) -> bool {
        let mut inner = self.pool.lock();
        self.done = inner.idle.is_empty();
        inner.swept = !self.done;
        self.done
    }
}

impl<R: Resident> Drop for Broom<R> {
    fn drop(&mut self) {
        if !self.done {
            self.pool.lock().swept = false;
        }
    }
}
