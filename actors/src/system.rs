//! The actor system: the handle that hosts hold, and the core that all its actors share.
//!
//! Actors start on the first call that needs them, so a handle can be made outside a runtime. The
//! last handle dropped stops the tree. If a tree ends otherwise (its runtime went away, a host
//! killed it), the next call starts another one on the same state.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ractor::{ActorCell, ActorRef};
use tokio::sync::broadcast;
use tokio_util::task::TaskTracker;

use crate::clock::Clock;
use crate::commits::Commits;
use crate::config::EngineCfg;
use crate::desk::Place;
use crate::errors::EngineError;
use crate::line::Line;
use crate::mail::{Letter, Mail};
use crate::messages::{AttemptMsg, SessionMsg, WaiterMsg};
use crate::model::event::{Event, EventRecord};
use crate::model::ids::{SessionId, TaskId};
use crate::outgoing::Outgoing;
use crate::pool::Pool;
use crate::queue::TurnQueue;
use crate::shards::ShardMap;
use crate::state::attempts::{AttemptEnd, Verdict};
use crate::state::effect::Now;
use crate::state::{EngineState, Rules};
use crate::turn::{Caller, Step, Turn, TurnCell};
use crate::waiter::WaiterLink;

mod calls;
mod counts;
mod durable;
mod history;
mod shutdown;
mod supervision;
mod tree;
mod watch;

pub use counts::{Counts, TIME_BOUNDS, Times};
pub use durable::{Opening, Recovery};
pub use history::Past;
pub use shutdown::ShutdownReport;
pub use supervision::{Mailboxes, SpawnerView, Supervision};
pub(crate) use tree::TreeGuard;
pub use watch::PollStart;

/// Live references beside the state. Only the state actor uses them, within a batch.
#[derive(Default)]
pub struct Links {
    pub(crate) waiters: ShardMap<TaskId, WaiterLink>,
    pub(crate) attempts: ShardMap<(TaskId, u32), ActorRef<Letter<AttemptMsg>>>,
    /// Dispatches that wait while dispatching is paused, in their order.
    pub(crate) line: Line,
    /// How many callers were parked.
    pub(crate) tickets: u64,
    /// What the batch will send once it is committed.
    pub(crate) out: Vec<Outgoing>,
}

impl Links {
    pub(crate) fn tell_attempt(&mut self, task: TaskId, attempt: u32, message: AttemptMsg) {
        if let Some(actor) = self.attempts.get(&(task, attempt)) {
            self.out.push(Outgoing::ToAttempt(actor.clone(), message));
        }
    }
}

/// What all actors of one engine share.
pub struct Core {
    pub(crate) cfg: EngineCfg,
    state: Mutex<EngineState>,
    links: Mutex<Links>,
    sessions: Mutex<ShardMap<SessionId, ActorRef<Letter<SessionMsg>>>>,
    pub(crate) queue: TurnQueue,
    /// Absent where nothing is kept.
    commits: Option<Commits>,
    events: broadcast::Sender<Event>,
    records: broadcast::Sender<EventRecord>,
    clock: Arc<dyn Clock>,
    last_now: Mutex<Now>,
    tree: Mutex<tree::TreeSlot>,
    counters: counts::Counters,
    /// Messages that lie in mailboxes.
    pub(crate) mail: Arc<Mail>,
    pub(crate) idle_attempts: Arc<Pool<Place>>,
    pub(crate) idle_waiters: Arc<Pool<ActorRef<Letter<WaiterMsg>>>>,
    /// One token per attempt actor; a shutdown waits for their end.
    pub(crate) attempts: TaskTracker,
    draining: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Core {
    /// A core on this state, and on the journal that keeps it. Needs no runtime.
    pub(crate) fn new(
        cfg: EngineCfg,
        clock: Arc<dyn Clock>,
        state: EngineState,
        commits: Option<Commits>,
    ) -> Arc<Self> {
        let capacity = cfg.limits.broadcast_capacity.max(1);
        Arc::new(Self {
            state: Mutex::new(state),
            links: Mutex::default(),
            sessions: Mutex::default(),
            queue: TurnQueue::new(cfg.queue_limit),
            commits,
            events: broadcast::Sender::new(capacity),
            records: broadcast::Sender::new(capacity),
            last_now: Mutex::new(clock.now().unwrap_or(Now { unix: 0, ms: 0 })),
            clock,
            tree: Mutex::default(),
            counters: counts::Counters::default(),
            mail: Arc::default(),
            idle_attempts: Arc::default(),
            idle_waiters: Arc::default(),
            attempts: TaskTracker::new(),
            draining: AtomicBool::new(false),
            cfg,
        })
    }

    /// The one lock on the state. For the state actor, and for the burial of a tree.
    pub(crate) fn lock_state(&self) -> MutexGuard<'_, EngineState> {
        lock(&self.state)
    }

    pub(crate) fn lock_links(&self) -> MutexGuard<'_, Links> {
        lock(&self.links)
    }

    pub(crate) fn lock_sessions(
        &self,
    ) -> MutexGuard<'_, ShardMap<SessionId, ActorRef<Letter<SessionMsg>>>> {
        lock(&self.sessions)
    }

    pub(crate) fn commits(&self) -> Option<&Commits> {
        self.commits.as_ref()
    }

    /// The present moment.
    pub(crate) fn now(&self) -> Result<Now, EngineError> {
        self.clock.now()
    }

    /// The present moment; where the wall clock is broken, the last time it was not. For what has
    /// to be decided whatever the clock says.
    pub(crate) fn now_or_last(&self) -> Now {
        match self.clock.now() {
            Ok(now) => {
                *lock(&self.last_now) = now;
                now
            }
            Err(_) => *lock(&self.last_now),
        }
    }

    /// Sends an event to the subscribers, in the order of the numbers.
    pub(crate) fn announce(&self, record: &EventRecord) {
        if self.events.receiver_count() > 0 {
            let _ = self.events.send(record.event.clone());
        }
        if self.records.receiver_count() > 0 {
            let _ = self.records.send(record.clone());
        }
    }

    /// Queues one of the engine's own turns and sees to it that a tree runs it.
    fn enqueue(self: &Arc<Self>, turn: Arc<dyn Turn>) {
        match self.queue.push(turn.clone()) {
            Ok(there) => self.see_to_it(there),
            Err(error) => turn.fail(error),
        }
    }

    /// Starts a tree for a turn that was queued, unless a state actor is there.
    pub(crate) fn see_to_it(self: &Arc<Self>, there: bool) {
        if !there && let Err(error) = self.ensure_tree() {
            self.fail_waiting(&error);
        }
    }

    /// Fails every turn that waits.
    fn fail_waiting(self: &Arc<Self>, error: &EngineError) {
        for queued in self.queue.take_all(self) {
            queued.turn.fail(error.clone());
        }
    }

    /// A turn of the engine itself: needs no place, no caller waits, `follow` sees the reply.
    pub(crate) fn engine_turn<R: Send + 'static>(
        self: &Arc<Self>,
        op: &'static str,
        run: impl FnOnce(&mut EngineState) -> R + Send + 'static,
        follow: impl FnOnce(&mut Links, R) + Send + 'static,
    ) {
        let mut run = Some(run);
        let step = move |state: &mut EngineState| {
            let run = run.take().expect("a turn that does not defer runs once");
            Step::Keep(Some(run(state)))
        };
        let follow = move |reply: &mut Option<R>, links: &mut Links, _: &Arc<Self>| {
            if let Some(reply) = reply.take() {
                follow(links, reply);
            }
            Caller::Told
        };
        self.enqueue(TurnCell::new(op, false, step, Some(follow)));
    }

    /// Ends an attempt. What it came to goes to `told`, which says whom to send it to once it is
    /// committed; `None` where the attempt was over already.
    pub(crate) fn finish_attempt(
        self: &Arc<Self>,
        task: TaskId,
        attempt: u32,
        end: AttemptEnd,
        told: impl FnOnce(Option<Verdict>, &mut Vec<Outgoing>) + Send + 'static,
    ) {
        let now = self.now_or_last();
        self.engine_turn(
            "finish_attempt",
            move |state| {
                crate::hop::finishing((task, attempt), &end, now);
                state.finish_attempt(task, attempt, end, now)
            },
            move |links, verdict| {
                if verdict.is_some() {
                    links.attempts.remove(&(task, attempt));
                }
                told(verdict, &mut links.out);
            },
        );
    }
}

/// Stops the tree when the last handle is dropped.
struct Anchor {
    core: Arc<Core>,
}

impl Drop for Anchor {
    fn drop(&mut self) {
        self.core.close("the last handle was dropped");
    }
}

/// A handle on one engine's actors and state. Cheap to clone.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use adjutant_actors::{clock::SystemClock, config::EngineCfg, system::ActorSystem};
/// use std::sync::Arc;
///
/// let system = ActorSystem::new(EngineCfg::default(), Arc::new(SystemClock::new()));
/// assert!(system.root_cell().is_none()); // the actors start with the first call
/// let tasks = system.with_state("count tasks", |state| state.task_count()).await?;
/// assert!(tasks == 0 && system.root_cell().is_some());
/// let inside = system.unanchored();
/// drop(system);
/// assert!(inside.with_state("count tasks", |state| state.task_count()).await.is_err());
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct ActorSystem {
    pub(crate) core: Arc<Core>,
    /// Absent in the handles that workers hold, so that they do not keep the tree alive.
    _anchor: Option<Arc<Anchor>>,
}

impl ActorSystem {
    /// A system whose actors start on the first call.
    #[must_use]
    pub fn new(cfg: EngineCfg, clock: Arc<dyn Clock>) -> Self {
        let state = EngineState::new(Rules::from(&cfg));
        Self::of(Core::new(cfg, clock, state, None))
    }

    fn of(core: Arc<Core>) -> Self {
        Self { _anchor: Some(Arc::new(Anchor { core: core.clone() })), core }
    }

    /// As [`Self::new`], under a host's supervisor. The tree starts at once.
    ///
    /// ```
    /// use adjutant_actors::{clock::SystemClock, config::EngineCfg, errors::EngineError, system::ActorSystem};
    ///
    /// fn under(host: ractor::ActorCell) -> Result<ActorSystem, EngineError> {
    ///     ActorSystem::start_linked(EngineCfg::default(), std::sync::Arc::new(SystemClock::new()), host)
    /// }
    /// ```
    ///
    /// # Errors
    /// `Internal` outside a runtime; `Stopped` where the supervisor has stopped.
    pub fn start_linked(
        cfg: EngineCfg,
        clock: Arc<dyn Clock>,
        supervisor: ActorCell,
    ) -> Result<Self, EngineError> {
        let system = Self::new(cfg, clock);
        lock(&system.core.tree).supervisor = Some(supervisor);
        system.core.ensure_tree()?;
        Ok(system)
    }

    /// A handle that does not keep the tree alive.
    #[must_use]
    pub fn unanchored(&self) -> Self {
        Self { core: self.core.clone(), _anchor: None }
    }

    /// The cell of the root supervisor, while a tree runs.
    #[must_use]
    pub fn root_cell(&self) -> Option<ActorCell> {
        self.core.root().map(|root| root.get_cell())
    }
}
