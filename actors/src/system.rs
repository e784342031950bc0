//! The actor system: the handle that hosts hold, and the core that all its actors share.
//!
//! Actors start on the first call that needs them, so a handle can be made outside a runtime. The
//! last handle dropped stops the tree. If a tree ends otherwise (its runtime went away, a host
//! killed it), the next call starts another one on the same state.

use std::collections::VecDeque;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ractor::{ActorCell, ActorRef, ActorRuntime, ActorStatus};
use tokio::sync::{Semaphore, broadcast};
use tokio_util::task::TaskTracker;

use crate::clock::Clock;
use crate::config::EngineCfg;
use crate::errors::EngineError;
use crate::messages::{AttemptMsg, RootMsg, SessionMsg, WaiterMsg};
use crate::model::event::{Event, EventRecord};
use crate::model::ids::{SessionId, TaskId};
use crate::outgoing::Outgoing;
use crate::pool::Pool;
use crate::root::{self, Root};
use crate::shards::ShardMap;
use crate::state::attempts::{AttemptEnd, Verdict};
use crate::state::effect::{Effect, Now};
use crate::state::{EngineState, Rules};
use crate::turn::{Caller, Queued, Step, Turn, TurnCell, TurnQueue};

mod calls;
mod counts;
mod shutdown;
mod watch;

pub use counts::Counts;
pub use shutdown::ShutdownReport;
pub use watch::PollStart;

/// Live references beside the state. Only the state actor uses them, within a batch.
#[derive(Default)]
pub struct Links {
    pub(crate) waiters: ShardMap<TaskId, WaiterLink>,
    pub(crate) attempts: ShardMap<(TaskId, u32), ActorRef<AttemptMsg>>,
    /// Dispatches that wait while dispatching is paused, in their order.
    pub(crate) line: VecDeque<(TaskId, Arc<dyn Turn>)>,
    /// How many callers were parked.
    pub(crate) tickets: u64,
    /// What the batch will send once it is committed.
    pub(crate) out: Vec<Outgoing>,
}

/// A waiter, and the ticket of the newest caller that was sent to it.
pub(crate) struct WaiterLink {
    pub(crate) actor: ActorRef<WaiterMsg>,
    pub(crate) newest: u64,
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
    sessions: Mutex<ShardMap<SessionId, ActorRef<SessionMsg>>>,
    pub(crate) queue: TurnQueue,
    pub(crate) permits: Semaphore,
    events: broadcast::Sender<Event>,
    records: broadcast::Sender<EventRecord>,
    clock: Arc<dyn Clock>,
    last_now: Mutex<Now>,
    tree: Mutex<TreeSlot>,
    counters: counts::Counters,
    pub(crate) idle_attempts: Pool<AttemptMsg>,
    pub(crate) idle_waiters: Pool<WaiterMsg>,
    /// One token per attempt actor; a shutdown waits for their end.
    pub(crate) attempts: TaskTracker,
    draining: AtomicBool,
}

#[derive(Default)]
struct TreeSlot {
    root: Option<ActorRef<RootMsg>>,
    /// Whether a tree was started and is not buried yet.
    standing: bool,
    /// The host's actor that the tree is linked under.
    supervisor: Option<ActorCell>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Held by the root and by the state actor. Once both are gone, the tree is: waiting calls fail,
/// live attempts are decided, and their events are published, even without a runtime.
pub(crate) struct TreeGuard {
    core: Arc<Core>,
}

impl Drop for TreeGuard {
    fn drop(&mut self) {
        self.core.bury("the actor tree ended");
    }
}

impl Core {
    /// A core with an empty state. Needs no runtime.
    pub(crate) fn new(cfg: EngineCfg, clock: Arc<dyn Clock>) -> Arc<Self> {
        let capacity = cfg.limits.broadcast_capacity.max(1);
        let permits = Semaphore::new(cfg.queue_limit.clamp(1, Semaphore::MAX_PERMITS));
        Arc::new(Self {
            state: Mutex::new(EngineState::new(Rules::from(&cfg))),
            links: Mutex::default(),
            sessions: Mutex::default(),
            queue: TurnQueue::default(),
            permits,
            events: broadcast::Sender::new(capacity),
            records: broadcast::Sender::new(capacity),
            last_now: Mutex::new(clock.now().unwrap_or(Now { unix: 0, ms: 0 })),
            clock,
            tree: Mutex::default(),
            counters: counts::Counters::default(),
            idle_attempts: Pool::default(),
            idle_waiters: Pool::default(),
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
    ) -> MutexGuard<'_, ShardMap<SessionId, ActorRef<SessionMsg>>> {
        lock(&self.sessions)
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

    /// Sends an event to the subscribers. Called by `settle` only, in the order of the numbers.
    pub(crate) fn announce(&self, record: &EventRecord) {
        if self.events.receiver_count() > 0 {
            let _ = self.events.send(record.event.clone());
        }
        if self.records.receiver_count() > 0 {
            let _ = self.records.send(record.clone());
        }
    }

    /// The root of the running tree.
    pub(crate) fn root(&self) -> Option<ActorRef<RootMsg>> {
        let alive = |root: &ActorRef<RootMsg>| root.get_status() < ActorStatus::Stopping;
        lock(&self.tree).root.clone().filter(alive)
    }

    /// Starts a tree unless one is there. Needs a runtime.
    ///
    /// A tree that is ending counts as there until it is buried; its burial fails what waits.
    pub(crate) fn ensure_tree(self: &Arc<Self>) -> Result<(), EngineError> {
        let host = {
            let mut tree = lock(&self.tree);
            if let Some(reason) = self.queue.closed() {
                return Err(EngineError::Stopped(reason));
            }
            if tree.standing {
                return Ok(());
            }
            if tokio::runtime::Handle::try_current().is_err() {
                let text = "no tokio runtime to start the actors in";
                return Err(EngineError::Internal(text.to_owned()));
            }
            if tree
                .supervisor
                .as_ref()
                .is_some_and(|host| host.get_status() >= ActorStatus::Stopping)
            {
                return Err(EngineError::Stopped("the host's supervisor has stopped".to_owned()));
            }
            tree.standing = true;
            self.idle_attempts.open();
            self.idle_waiters.open();
            tree.supervisor.clone()
        };
        // Not under the lock: a runtime that shuts down drops the guard, and so buries, at once.
        let guard = Arc::new(TreeGuard { core: self.clone() });
        let args = root::Arguments { core: self.clone(), guard };
        let started = match host {
            Some(host) => ActorRuntime::spawn_linked_instant(None, Root, args, host),
            None => ActorRuntime::spawn_instant(None, Root, args),
        };
        let (root, _) = started.map_err(|error| EngineError::Internal(error.to_string()))?;
        lock(&self.tree).root = Some(root.clone());
        match self.queue.closed() {
            // Closed while the tree was starting, before there was a root to stop.
            Some(reason) => {
                root.stop(Some(reason.clone()));
                Err(EngineError::Stopped(reason))
            }
            None => Ok(()),
        }
    }

    /// Queues a turn and sees to it that a tree runs it. On refusal the turn is failed.
    pub(crate) fn enqueue(self: &Arc<Self>, queued: Queued) {
        match self.queue.push(queued) {
            Ok(true) => {}
            Ok(false) => {
                if let Err(error) = self.ensure_tree() {
                    self.fail_waiting(&error);
                }
            }
            Err((queued, error)) => {
                if queued.permit {
                    self.permits.add_permits(1);
                }
                queued.turn.fail(error);
            }
        }
    }

    /// Fails every turn that waits.
    fn fail_waiting(&self, error: &EngineError) {
        for queued in self.queue.take_all() {
            if queued.permit {
                self.permits.add_permits(1);
            }
            queued.turn.fail(error.clone());
        }
    }

    /// A turn of the engine itself: needs no permit, no caller waits, `follow` sees the reply.
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
        self.enqueue(Queued { turn: TurnCell::new(op, false, step, Some(follow)), permit: false });
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
            move |state| state.finish_attempt(task, attempt, end, now),
            move |links, verdict| {
                if verdict.is_some() {
                    links.attempts.remove(&(task, attempt));
                }
                told(verdict, &mut links.out);
            },
        );
    }

    /// Refuses everything from now on and stops the tree; what waits is failed by its burial.
    pub(crate) fn close(&self, reason: &str) {
        self.queue.close(reason);
        let root = lock(&self.tree).root.take();
        match root {
            Some(root) => root.stop(Some(reason.to_owned())),
            None => self.bury(reason),
        }
    }

    /// What is left to do when a tree is gone: decide its attempts, publish that, fail its callers.
    fn bury(&self, reason: &str) {
        let reason = &self.queue.closed().unwrap_or_else(|| reason.to_owned());
        let mut effects = Vec::new();
        {
            let mut state = self.lock_state();
            let mut links = self.lock_links();
            links.waiters.clear();
            for (_, attempt) in links.attempts.iter() {
                attempt.stop(None);
            }
            links.attempts.clear();
            links.out.clear();
            let line = std::mem::take(&mut links.line);
            drop(links);
            for (_, turn) in line {
                turn.fail(EngineError::Stopped(reason.clone()));
            }
            state.interrupt_all(reason, self.now_or_last());
            state.commit(&mut effects);
        }
        for effect in effects {
            if let Effect::Announce(record) = effect {
                self.announce(&record);
            }
        }
        self.lock_sessions().clear();
        self.idle_attempts.close();
        self.idle_waiters.close();
        self.queue.close_every_port();
        lock(&self.tree).standing = false;
        self.fail_waiting(&EngineError::Stopped(reason.clone()));
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
#[derive(Clone)]
pub struct ActorSystem {
    core: Arc<Core>,
    /// Absent in the handles that workers hold, so that they do not keep the tree alive.
    _anchor: Option<Arc<Anchor>>,
}

impl ActorSystem {
    /// A system whose actors start on the first call.
    #[must_use]
    pub fn new(cfg: EngineCfg, clock: Arc<dyn Clock>) -> Self {
        let core = Core::new(cfg, clock);
        Self { _anchor: Some(Arc::new(Anchor { core: core.clone() })), core }
    }

    /// As [`Self::new`], under a host's supervisor. The tree starts at once.
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
