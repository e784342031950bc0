//! Turns: a closure over the state with the slot for its reply, and the queue they wait in.
//!
//! The queue outlives any one incarnation of the state actor; only the root closes it. A turn
//! whose caller has gone before it ran is dropped unrun; one that has begun always completes.

use std::collections::VecDeque;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
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

/// What the state actor learns of a turn that it ran.
pub(crate) enum Ran {
    Keep,
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

enum Stage<F, H, R> {
    Queued(F, H),
    Running,
    Ran(std::thread::Result<R>, Option<H>),
    Released(std::thread::Result<R>),
    Overheld(Duration),
    Failed(EngineError),
    Gone,
}

/// One turn: closure, follow-up and reply in one allocation.
pub(crate) struct TurnCell<F, H, R> {
    op: &'static str,
    hosts: bool,
    stage: Mutex<Stage<F, H, R>>,
    waker: AtomicWaker,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<F, H, R> TurnCell<F, H, R>
where
    F: FnMut(&mut EngineState) -> Step<R> + Send + 'static,
    H: FnOnce(&mut R, &mut Links, &Arc<Core>) + Send + 'static,
    R: Send + 'static,
{
    pub(crate) fn new(op: &'static str, hosts: bool, run: F, follow: H) -> Arc<Self> {
        let stage = Mutex::new(Stage::Queued(run, follow));
        Arc::new(Self { op, hosts, stage, waker: AtomicWaker::new() })
    }

    fn set(&self, stage: Stage<F, H, R>) {
        *lock(&self.stage) = stage;
    }

    fn take(&self) -> Stage<F, H, R> {
        std::mem::replace(&mut *lock(&self.stage), Stage::Running)
    }
}

impl<F, H, R> Turn for TurnCell<F, H, R>
where
    F: FnMut(&mut EngineState) -> Step<R> + Send + 'static,
    H: FnOnce(&mut R, &mut Links, &Arc<Core>) + Send + 'static,
    R: Send + 'static,
{
    fn op(&self) -> &'static str {
        self.op
    }

    fn run(&self, state: &mut EngineState) -> Ran {
        let (mut run, follow) = match self.take() {
            Stage::Queued(run, follow) => (run, follow),
            other => {
                self.set(other);
                return Ran::Abandoned;
            }
        };
        match catch_unwind(AssertUnwindSafe(|| run(state))) {
            Ok(Step::Keep(reply)) => {
                self.set(Stage::Ran(Ok(reply), Some(follow)));
                Ran::Keep
            }
            Ok(Step::Undo(reply)) => {
                self.set(Stage::Ran(Ok(reply), Some(follow)));
                Ran::Undo
            }
            Ok(Step::Defer(task)) => {
                self.set(Stage::Queued(run, follow));
                Ran::Deferred(task)
            }
            Err(panic) => {
                self.set(Stage::Ran(Err(panic), None));
                Ran::Undo
            }
        }
    }

    fn follow(&self, links: &mut Links, core: &Arc<Core>) {
        match self.take() {
            Stage::Ran(Ok(mut reply), Some(follow)) => {
                follow(&mut reply, links, core);
                self.set(Stage::Ran(Ok(reply), None));
            }
            other => self.set(other),
        }
    }

    fn release(&self) {
        match self.take() {
            Stage::Ran(result, _) => self.set(Stage::Released(result)),
            other => self.set(other),
        }
        self.waker.wake();
    }

    fn is_hosts(&self) -> bool {
        self.hosts
    }

    fn overheld(&self, held: Duration) {
        self.set(Stage::Overheld(held));
        self.waker.wake();
    }

    fn fail(&self, error: EngineError) {
        self.set(Stage::Failed(error));
        self.waker.wake();
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
        let mut stage = lock(&self.0.stage);
        match std::mem::replace(&mut *stage, Stage::Gone) {
            Stage::Released(Ok(reply)) => Poll::Ready(Ok(reply)),
            Stage::Released(Err(panic)) => {
                drop(stage);
                resume_unwind(panic)
            }
            Stage::Overheld(held) => {
                drop(stage);
                panic!("{}: the closure held the engine's state for {held:?}", self.0.op)
            }
            Stage::Failed(error) => Poll::Ready(Err(error)),
            waiting => {
                *stage = waiting;
                Poll::Pending
            }
        }
    }
}

impl<F, H, R> Drop for TurnReply<F, H, R> {
    fn drop(&mut self) {
        let mut stage = lock(&self.0.stage);
        if matches!(*stage, Stage::Queued(..)) {
            let taken = std::mem::replace(&mut *stage, Stage::Gone);
            drop(stage);
            drop(taken);
        }
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

#[derive(Default)]
struct QueueInner {
    turns: VecDeque<Queued>,
    /// Wakes the state actor; absent while none is there.
    port: Option<Box<dyn Fn() -> bool + Send>>,
    /// Whether a wake-up is under way that will look at the queue.
    draining: bool,
    closed: Option<String>,
    /// Counts the state actors that were there; the end of an older one closes no newer port.
    incarnation: u64,
}

impl QueueInner {
    /// Wakes the state actor unless somebody did. Returns whether one is there.
    fn nudge(&mut self) -> bool {
        if self.draining || self.turns.is_empty() {
            return self.draining || self.port.is_some();
        }
        self.draining = self.port.as_ref().is_some_and(|wake| wake());
        self.draining
    }
}

impl TurnQueue {
    /// Adds a turn. Returns whether a state actor is there to run it.
    pub(crate) fn push(&self, queued: Queued) -> Result<bool, (Queued, EngineError)> {
        let mut inner = lock(&self.inner);
        if let Some(reason) = &inner.closed {
            let error = EngineError::Stopped(reason.clone());
            drop(inner);
            return Err((queued, error));
        }
        inner.turns.push_back(queued);
        Ok(inner.nudge())
    }

    /// Puts turns that had been deferred in front of all others, in their order.
    pub(crate) fn push_front(&self, turns: impl DoubleEndedIterator<Item = Queued>) {
        let mut inner = lock(&self.inner);
        for queued in turns.rev() {
            inner.turns.push_front(queued);
        }
        inner.nudge();
    }

    pub(crate) fn pop(&self) -> Option<Queued> {
        lock(&self.inner).turns.pop_front()
    }

    /// A state actor is there; if turns wait, it is woken. Returns its number.
    pub(crate) fn open_port(&self, wake: Box<dyn Fn() -> bool + Send>) -> u64 {
        let mut inner = lock(&self.inner);
        inner.incarnation += 1;
        inner.port = Some(wake);
        inner.draining = false;
        inner.nudge();
        inner.incarnation
    }

    /// The state actor of this number is gone; turns wait for the next one, if that is not there
    /// already: a supervisor hears of an end before the actor's state is dropped.
    pub(crate) fn close_port(&self, incarnation: u64) {
        let mut inner = lock(&self.inner);
        if inner.incarnation == incarnation {
            inner.port = None;
            inner.draining = false;
        }
    }

    /// No state actor is left.
    pub(crate) fn close_ports(&self) {
        let mut inner = lock(&self.inner);
        inner.port = None;
        inner.draining = false;
    }

    /// A batch is done: wakes the actor again if turns wait.
    pub(crate) fn batch_done(&self) {
        let mut inner = lock(&self.inner);
        inner.draining = false;
        inner.nudge();
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
