//! Turns: a closure over the state with the slot for its reply, and the queue they wait in.
//!
//! The queue outlives any one incarnation of the state actor; only the root closes it. A turn
//! whose caller has gone before it ran is dropped unrun; one that has begun always completes.

use std::any::Any;
use std::collections::VecDeque;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::task::AtomicWaker;

use crate::errors::EngineError;
use crate::model::ids::TaskId;
use crate::state::EngineState;
use crate::system::{Core, Links};

/// What a closure made of its turn.
pub(crate) enum Step<R> {
    /// It is done; its changes are kept.
    Keep(R),
    /// It is done; its changes are undone, as for a call that was refused.
    Undo(R),
    /// It has to wait until dispatching goes on, or until this task comes to an end.
    Defer(TaskId),
}

/// Whether a caller is told that its turn is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Caller {
    Told,
    /// It will hear of what follows in another way, and needs not wake for the reply.
    LeftAsleep,
}

/// What the state actor learns of a turn that it ran.
pub(crate) enum Ran {
    /// Its changes are kept; `follows` says whether something follows it.
    Keep {
        follows: bool,
    },
    Undo,
    Deferred(TaskId),
    /// The caller had gone; nothing ran.
    Abandoned,
}

/// A turn as the queue holds it: its types are known to its caller only.
pub(crate) trait Turn: Send + Sync {
    fn op(&self) -> &'static str;
    /// Runs the closure. The caller of this method commits or rolls back.
    fn run(&self, state: &mut EngineState) -> Ran;
    /// Does what follows a committed turn, before any later turn of the batch is settled.
    fn follow(&self, links: &mut Links, core: &Arc<Core>);
    /// Hands the reply to the caller.
    fn release(&self);
    /// Whether the closure came from the host, so that the host answers for its length.
    fn is_hosts(&self) -> bool;
    /// Tells the caller's future that the closure held the state for too long.
    fn overheld(&self, held: Duration);
    fn fail(&self, error: EngineError);
}

/// Where a turn stands. The caller touches the slot only when it is `DONE`, or after it moved the
/// turn from `QUEUED` to `GONE` itself; so the state actor never waits for it, nor it for a closure.
const QUEUED: u8 = 0;
const RUNNING: u8 = 1;
const DONE: u8 = 2;
const GONE: u8 = 3;

enum Outcome<R> {
    Reply(R),
    Panicked(Box<dyn Any + Send>),
    Overheld(Duration),
    Failed(EngineError),
}

struct Slot<F, H, R> {
    run: Option<F>,
    follow: Option<H>,
    outcome: Option<Outcome<R>>,
}

/// One turn: closure, follow-up and reply in one allocation. The closure runs where it lies.
pub(crate) struct TurnCell<F, H, R> {
    op: &'static str,
    hosts: bool,
    stage: AtomicU8,
    caller_gone: AtomicBool,
    asleep: AtomicBool,
    slot: Mutex<Slot<F, H, R>>,
    waker: AtomicWaker,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<F, H, R> TurnCell<F, H, R> {
    /// Without a `follow`, nothing follows the turn.
    pub(crate) fn new(op: &'static str, hosts: bool, run: F, follow: Option<H>) -> Arc<Self> {
        let slot = Slot { run: Some(run), follow, outcome: None };
        Arc::new(Self {
            op,
            hosts,
            stage: AtomicU8::new(QUEUED),
            caller_gone: AtomicBool::new(false),
            asleep: AtomicBool::new(false),
            slot: Mutex::new(slot),
            waker: AtomicWaker::new(),
        })
    }

    fn finish(&self, outcome: Outcome<R>) {
        lock(&self.slot).outcome = Some(outcome);
        self.stage.store(DONE, Ordering::Release);
        self.waker.wake();
    }

    /// Takes the turn back if it did not begin. Returns whether it did so.
    fn take_back(&self) -> bool {
        let taken =
            self.stage.compare_exchange(QUEUED, GONE, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        if taken {
            let mut slot = lock(&self.slot);
            let job = (slot.run.take(), slot.follow.take());
            drop(slot);
            drop(job);
        }
        taken
    }
}

impl<F, H, R> Turn for TurnCell<F, H, R>
where
    F: FnMut(&mut EngineState) -> Step<R> + Send + 'static,
    H: FnOnce(&mut R, &mut Links, &Arc<Core>) -> Caller + Send + 'static,
    R: Send + 'static,
{
    fn op(&self) -> &'static str {
        self.op
    }

    fn run(&self, state: &mut EngineState) -> Ran {
        let begun =
            self.stage.compare_exchange(QUEUED, RUNNING, Ordering::SeqCst, Ordering::SeqCst);
        let mut slot = lock(&self.slot);
        let (Ok(_), Some(run)) = (begun, slot.run.as_mut()) else { return Ran::Abandoned };
        match catch_unwind(AssertUnwindSafe(|| run(state))) {
            Ok(Step::Keep(reply)) => {
                slot.outcome = Some(Outcome::Reply(reply));
                Ran::Keep { follows: slot.follow.is_some() }
            }
            Ok(Step::Undo(reply)) => {
                slot.outcome = Some(Outcome::Reply(reply));
                Ran::Undo
            }
            Ok(Step::Defer(task)) => {
                drop(slot);
                self.stage.store(QUEUED, Ordering::SeqCst);
                // A caller that left while the closure ran could not take the turn back.
                if self.caller_gone.load(Ordering::SeqCst) && self.take_back() {
                    return Ran::Abandoned;
                }
                Ran::Deferred(task)
            }
            Err(panic) => {
                slot.outcome = Some(Outcome::Panicked(panic));
                Ran::Undo
            }
        }
    }

    fn follow(&self, links: &mut Links, core: &Arc<Core>) {
        let mut slot = lock(&self.slot);
        let follow = slot.follow.take();
        if let (Some(follow), Some(Outcome::Reply(reply))) = (follow, slot.outcome.as_mut()) {
            let caller = follow(reply, links, core);
            self.asleep.store(caller == Caller::LeftAsleep, Ordering::Relaxed);
        }
    }

    fn release(&self) {
        self.stage.store(DONE, Ordering::Release);
        if !self.asleep.load(Ordering::Relaxed) {
            self.waker.wake();
        }
    }

    fn is_hosts(&self) -> bool {
        self.hosts
    }

    fn overheld(&self, held: Duration) {
        self.finish(Outcome::Overheld(held));
    }

    fn fail(&self, error: EngineError) {
        self.finish(Outcome::Failed(error));
    }
}

/// The caller's side of a turn.
///
/// Dropping it before the turn ran takes the turn back; after that the turn completes without it.
pub(crate) struct TurnReply<F, H, R>(pub(crate) Arc<TurnCell<F, H, R>>);

impl<F, H, R> Future for TurnReply<F, H, R> {
    type Output = Result<R, EngineError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.waker.register(cx.waker());
        if self.0.stage.load(Ordering::Acquire) != DONE {
            return Poll::Pending;
        }
        let outcome = lock(&self.0.slot).outcome.take();
        match outcome {
            Some(Outcome::Reply(reply)) => Poll::Ready(Ok(reply)),
            Some(Outcome::Panicked(panic)) => resume_unwind(panic),
            Some(Outcome::Overheld(held)) => {
                panic!("{}: the closure held the engine's state for {held:?}", self.0.op)
            }
            Some(Outcome::Failed(error)) => Poll::Ready(Err(error)),
            None => Poll::Pending,
        }
    }
}

impl<F, H, R> Drop for TurnReply<F, H, R> {
    fn drop(&mut self) {
        self.0.caller_gone.store(true, Ordering::SeqCst);
        self.0.take_back();
    }
}

/// A turn in the queue, and whether it gives a permit back when it leaves.
pub(crate) struct Queued {
    pub(crate) turn: Arc<dyn Turn>,
    pub(crate) permit: bool,
}

/// The queue of turns.
#[derive(Default)]
pub(crate) struct TurnQueue {
    inner: Mutex<QueueInner>,
}

/// Wakes the state actor; says whether it is there.
pub(crate) type Wake = Arc<dyn Fn() -> bool + Send + Sync>;

#[derive(Default)]
struct QueueInner {
    turns: VecDeque<Queued>,
    /// Absent while no state actor is there.
    port: Option<Wake>,
    /// Number of the incarnation that the port leads to.
    incarnation: u64,
    /// Whether a wake-up is under way that will look at the queue.
    draining: bool,
    closed: Option<String>,
}

impl QueueInner {
    /// The wake-up that is due, if turns wait and nobody sent one. The caller sends it when it
    /// has let go of the queue, with [`TurnQueue::wake`].
    fn due(&mut self) -> Option<(Wake, u64)> {
        if self.draining || self.turns.is_empty() {
            return None;
        }
        let port = self.port.clone()?;
        self.draining = true;
        Some((port, self.incarnation))
    }
}

impl TurnQueue {
    /// Sends a wake-up that is due. Returns whether a state actor is there.
    fn wake(&self, due: Option<(Wake, u64)>, there: bool) -> bool {
        let Some((wake, incarnation)) = due else { return there };
        let sent = wake();
        if !sent {
            let mut inner = lock(&self.inner);
            if inner.incarnation == incarnation {
                inner.draining = false;
            }
        }
        sent
    }

    /// Adds a turn. Returns whether a state actor is there to run it.
    pub(crate) fn push(&self, queued: Queued) -> Result<bool, (Queued, EngineError)> {
        let mut inner = lock(&self.inner);
        if let Some(reason) = &inner.closed {
            let error = EngineError::Stopped(reason.clone());
            drop(inner);
            return Err((queued, error));
        }
        inner.turns.push_back(queued);
        let due = inner.due();
        let there = inner.draining;
        drop(inner);
        Ok(self.wake(due, there))
    }

    /// Puts turns that had been deferred or taken in front of all others, in their order.
    pub(crate) fn push_front(&self, turns: impl DoubleEndedIterator<Item = Queued>) {
        let mut inner = lock(&self.inner);
        for queued in turns.rev() {
            inner.turns.push_front(queued);
        }
        let due = inner.due();
        drop(inner);
        self.wake(due, false);
    }

    /// Moves the first turns, at most `limit`, to the end of `taken`. Returns how many permits
    /// they held; they hold none any more.
    pub(crate) fn take(&self, limit: usize, taken: &mut VecDeque<Queued>) -> usize {
        let mut inner = lock(&self.inner);
        let count = inner.turns.len().min(limit);
        let mut permits = 0;
        taken.extend(inner.turns.drain(..count).map(|Queued { turn, permit }| {
            permits += usize::from(permit);
            Queued { turn, permit: false }
        }));
        permits
    }

    /// A state actor is there; if turns wait, it is woken. Returns the number of its incarnation.
    pub(crate) fn open_port(&self, wake: Wake) -> u64 {
        let mut inner = lock(&self.inner);
        inner.port = Some(wake);
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
        let mut inner = lock(&self.inner);
        if inner.incarnation == incarnation {
            inner.port = None;
            inner.draining = false;
        }
    }

    /// No state actor is there, whichever it was.
    pub(crate) fn close_every_port(&self) {
        let mut inner = lock(&self.inner);
        inner.port = None;
        inner.draining = false;
    }

    /// A batch is done: wakes the actor again if turns wait.
    pub(crate) fn batch_done(&self) {
        let mut inner = lock(&self.inner);
        inner.draining = false;
        let due = inner.due();
        drop(inner);
        self.wake(due, true);
    }

    /// Refuses all turns from now on and takes those that wait.
    pub(crate) fn close(&self, reason: &str) {
        lock(&self.inner).closed.get_or_insert_with(|| reason.to_owned());
    }

    pub(crate) fn closed(&self) -> Option<String> {
        lock(&self.inner).closed.clone()
    }

    /// Takes all turns that wait, for failing them.
    pub(crate) fn take_all(&self) -> VecDeque<Queued> {
        std::mem::take(&mut lock(&self.inner).turns)
    }

    pub(crate) fn len(&self) -> usize {
        lock(&self.inner).turns.len()
    }
}
