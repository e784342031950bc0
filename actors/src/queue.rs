//! The queue of turns, and the places in it.
//!
//! The queue outlives any one incarnation of the state actor; only the root closes it. Callers'
//! turns hold a place each and are bounded; the engine's own turns need none, so a full queue
//! cannot keep an attempt from being decided.
//!
//! One message wakes the state actor for many turns: a flag under the queue's lock says that a
//! wake-up is under way, and the end of each batch looks again, so none is lost. The actor takes
//! the queue whole, by exchanging its empty list for the full one; what it did not run yet goes
//! back in its order when it dies.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use tokio::sync::oneshot;

use crate::errors::EngineError;
use crate::system::Core;
use crate::turn::Turn;

/// A turn in the queue, and whether it holds a place.
pub(crate) struct Queued {
    pub(crate) turn: Arc<dyn Turn>,
    pub(crate) holds_place: bool,
}

/// Why a turn was not added.
pub(crate) enum Refused {
    /// The queue is closed; the error says why.
    Closed(EngineError),
    /// Every place is taken, or others wait for one.
    Full,
}

/// Wakes the state actor; says whether it is there.
pub(crate) type Wake = Arc<dyn Fn() -> bool + Send + Sync>;

/// A place that was kept free for one caller. Dropped unused, it goes to the next one.
pub(crate) struct Place {
    core: Option<Arc<Core>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(core) = self.core.take() {
            core.queue.give_back(&core);
        }
    }
}

/// The queue of turns.
pub(crate) struct TurnQueue {
    inner: Mutex<Inner>,
    places: usize,
}

struct Inner {
    turns: VecDeque<Queued>,
    /// Turns that the state actor has taken and will not run in its present batch.
    held: usize,
    /// Places that turns hold, or that are kept free for callers.
    taken: usize,
    /// Callers that wait for a place, in their order.
    waiting: VecDeque<oneshot::Sender<Place>>,
    /// Absent while no state actor is there.
    port: Option<Wake>,
    /// Number of the incarnation that the port leads to.
    incarnation: u64,
    /// Whether a wake-up is under way that will look at the queue.
    draining: bool,
    /// Whether the state actor has something else to look at.
    news: bool,
    closed: Option<String>,
}

impl Inner {
    /// The wake-up that is due, if turns or news wait and nobody sent one. The caller sends it when it
    /// has let go of the queue, with [`TurnQueue::wake`].
    fn due(&mut self) -> Option<(Wake, u64)> {
        if self.draining || (self.turns.len() + self.held == 0 && !self.news) {
            return None;
        }
        let port = self.port.clone()?;
        self.draining = true;
        Some((port, self.incarnation))
    }

    /// Frees places, and keeps them for callers that wait: these are to be sent to them when the
    /// caller has let go of the queue.
    fn free(&mut self, count: usize, places: usize) -> Vec<oneshot::Sender<Place>> {
        self.taken -= count;
        let mut granted = Vec::new();
        while self.taken < places
            && let Some(caller) = self.waiting.pop_front()
        {
            if !caller.is_closed() {
                self.taken += 1;
                granted.push(caller);
            }
        }
        granted
    }
}

fn grant(callers: Vec<oneshot::Sender<Place>>, core: &Arc<Core>) {
    for caller in callers {
        // A caller that is gone gives the place back by the drop of what could not be sent.
        let _ = caller.send(Place { core: Some(core.clone()) });
    }
}

impl TurnQueue {
    /// An empty queue with so many places for callers' turns, at least one.
    pub(crate) fn new(places: usize) -> Self {
        let inner = Inner {
            turns: VecDeque::new(),
            held: 0,
            taken: 0,
            waiting: VecDeque::new(),
            port: None,
            incarnation: 0,
            draining: false,
            news: false,
            closed: None,
        };
        Self { inner: Mutex::new(inner), places: places.max(1) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock()
    }

    /// Sends a wake-up that is due. Returns whether a state actor is there.
    fn wake(&self, due: Option<(Wake, u64)>, there: bool) -> bool {
        let Some((wake, incarnation)) = due else { return there };
        let sent = wake();
        if !sent {
            let mut inner = self.lock();
            if inner.incarnation == incarnation {
                inner.draining = false;
            }
        }
        sent
    }

    /// Adds one of the engine's own turns. Returns whether a state actor is there to run it.
    pub(crate) fn push(&self, turn: Arc<dyn Turn>) -> Result<bool, EngineError> {
        self.add(Queued { turn, holds_place: false }, None).map_err(|refused| match refused {
            Refused::Closed(error) => error,
            Refused::Full => EngineError::Internal("an own turn found no place".to_owned()),
        })
    }

    /// Adds a caller's turn, on a free place or on the one that was kept for it.
    pub(crate) fn push_callers(
        &self,
        turn: Arc<dyn Turn>,
        place: Option<Place>,
    ) -> Result<bool, Refused> {
        self.add(Queued { turn, holds_place: true }, place)
    }

    fn add(&self, queued: Queued, place: Option<Place>) -> Result<bool, Refused> {
        let mut inner = self.lock();
        if let Some(reason) = &inner.closed {
            let error = EngineError::Stopped(reason.clone());
            drop(inner);
            return Err(Refused::Closed(error));
        }
        match place {
            Some(mut place) => drop(place.core.take()),
            None if queued.holds_place => {
                if inner.taken >= self.places || !inner.waiting.is_empty() {
                    return Err(Refused::Full);
                }
                inner.taken += 1;
            }
            None => {}
        }
        inner.turns.push_back(queued);
        let due = inner.due();
        let there = inner.draining;
        drop(inner);
        Ok(self.wake(due, there))
    }

    /// Lines up for a place. Dropping the receiver leaves the line; it ends without a place when
    /// the queue is closed.
    pub(crate) fn line_up(&self, core: &Arc<Core>) -> oneshot::Receiver<Place> {
        let (send, receive) = oneshot::channel();
        let mut inner = self.lock();
        if inner.closed.is_none() {
            // Now and then, so that those who left the line do not fill it.
            if inner.waiting.len() >= 64 && inner.waiting.len().is_power_of_two() {
                inner.waiting.retain(|caller| !caller.is_closed());
            }
            inner.waiting.push_back(send);
        }
        let granted = inner.free(0, self.places);
        drop(inner);
        grant(granted, core);
        receive
    }

    fn give_back(&self, core: &Arc<Core>) {
        let granted = self.lock().free(1, self.places);
        grant(granted, core);
    }

    /// Puts turns that had been deferred or taken in front of all others, in their order.
    pub(crate) fn push_front(&self, turns: impl DoubleEndedIterator<Item = Queued>) {
        let mut inner = self.lock();
        for queued in turns.rev() {
            inner.turns.push_front(queued);
        }
        let due = inner.due();
        drop(inner);
        self.wake(due, false);
    }

    /// Exchanges `held` for all turns that wait, if it is empty, and frees the places of the
    /// first `limit` turns in it, which are to run now.
    pub(crate) fn take(&self, limit: usize, held: &mut VecDeque<Queued>, core: &Arc<Core>) {
        let mut inner = self.lock();
        inner.news = false;
        if held.is_empty() {
            std::mem::swap(&mut inner.turns, held);
        }
        let mut freed = 0;
        for queued in held.iter_mut().take(limit) {
            freed += usize::from(std::mem::take(&mut queued.holds_place));
        }
        inner.held = held.len().saturating_sub(limit);
        let granted = inner.free(freed, self.places);
        drop(inner);
        grant(granted, core);
    }

    /// Wakes the state actor for something else than turns. Returns whether one is there; where
    /// none is, the next one is woken.
    pub(crate) fn nudge(&self) -> bool {
        let mut inner = self.lock();
        inner.news = true;
        let due = inner.due();
        let there = inner.draining;
        drop(inner);
        self.wake(due, there)
    }

    /// A state actor is there; it is woken, since there may be news that the one before it took
    /// and did not look at. Returns the number of its incarnation.
    pub(crate) fn open_port(&self, wake: Wake) -> u64 {
        let mut inner = self.lock();
        inner.port = Some(wake);
        inner.news = true;
        inner.incarnation += 1;
        inner.draining = false;
        let number = inner.incarnation;
        let due = inner.due();
        drop(inner);
        self.wake(due, true);
        number
    }

    /// This incarnation of the state actor is gone; turns wait for the next one. A supervisor may
    /// have started that before the old one's state was dropped: its port stays open then.
    pub(crate) fn close_port(&self, incarnation: u64) {
        let mut inner = self.lock();
        if inner.incarnation == incarnation {
            inner.port = None;
            inner.draining = false;
            inner.held = 0;
        }
    }

    /// No state actor is there, whichever it was.
    pub(crate) fn close_every_port(&self) {
        let mut inner = self.lock();
        inner.port = None;
        inner.draining = false;
    }

    /// A batch is done: wakes the actor again if turns wait, or if it holds some.
    pub(crate) fn batch_done(&self, held: usize) {
        let mut inner = self.lock();
        inner.draining = false;
        inner.held = held;
        let due = inner.due();
        drop(inner);
        self.wake(due, true);
    }

    /// Refuses all turns from now on, and lets nobody wait for a place.
    pub(crate) fn close(&self, reason: &str) {
        let mut inner = self.lock();
        inner.closed.get_or_insert_with(|| reason.to_owned());
        let waiting = std::mem::take(&mut inner.waiting);
        drop(inner);
        drop(waiting);
    }

    pub(crate) fn closed(&self) -> Option<String> {
        self.lock().closed.clone()
    }

    /// Takes all turns that wait, for failing them.
    pub(crate) fn take_all(&self, core: &Arc<Core>) -> VecDeque<Queued> {
        let mut turns = VecDeque::new();
        self.take(usize::MAX, &mut turns, core);
        turns
    }

    pub(crate) fn len(&self) -> usize {
        let inner = self.lock();
        inner.turns.len() + inner.held
    }
}
