//! Turns: a closure over the state with the slot for its reply.
//!
//! A turn whose caller has gone before it ran is dropped unrun; one that has begun always
//! completes.
//!
//! It is one allocation: closure, reply and waker lie in one shared cell. A stage number says who
//! may touch the slot: the state actor while it runs, the caller once it is done or after it took
//! the turn back by changing the number itself. So neither ever waits for the other.

use std::any::Any;
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
    /// Makes of the reply that the closure held the state for too long.
    fn overheld(&self, held: Duration);
    fn fail(&self, error: EngineError);
    /// Whether its caller took it back, so that it never runs.
    fn is_abandoned(&self) -> bool;
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
        lock(&self.slot).outcome = Some(Outcome::Overheld(held));
    }

    fn fail(&self, error: EngineError) {
        self.finish(Outcome::Failed(error));
    }

    fn is_abandoned(&self) -> bool {
        self.stage.load(Ordering::Relaxed) == GONE
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
        if self.0.stage.load(Ordering::Relaxed) == DONE {
            return;
        }
        self.0.caller_gone.store(true, Ordering::SeqCst);
        self.0.take_back();
    }
}
