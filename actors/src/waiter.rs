//! The waiter: parks callers on one task and answers them when the task changes as they wish.
//!
//! It holds no truth: everything it knows was told to it by the state actor, which sends `Park`
//! and `Changed` in the order of the turns, so no change falls between the two. Spawned, or taken
//! from the pool, when a task is first watched, under the root; never restarted: if it dies, its
//! callers ask once more. It comes to rest when its task has ended, or when nobody is parked and
//! no `Park` is on its way. Where its task ends and few are parked, the state actor answers them
//! itself, and the waiter is not woken; a `Park` that was on its way finds the end noted in its watch.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::sync::oneshot;

use crate::mail::Letter;
use crate::messages::{Change, Until, WaiterMsg};
use crate::model::ids::TaskId;
use crate::outgoing::Outgoing;
use crate::system::Core;

/// Callers that the state actor answers itself when their task ends; more would hold it up.
const FEW: usize = 8;

pub(crate) struct Waiter;

/// One task that is watched: what its waiter and the state actor share. A later task of the same
/// waiter is another watch.
#[derive(Debug)]
pub(crate) struct Watch {
    task: TaskId,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    parked: BTreeMap<u64, (Until, oneshot::Sender<Change>)>,
    /// Ticket of the newest caller.
    newest: u64,
    /// The end of the task, for callers whose `Park` was on its way then.
    ended: Option<Change>,
}

impl Watch {
    pub(crate) fn new(task: TaskId) -> Arc<Self> {
        Arc::new(Self { task, inner: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn park(&self, ticket: u64, until: Until, reply: oneshot::Sender<Change>) {
        let mut inner = self.lock();
        if let Some(change) = &inner.ended {
            let _ = reply.send(change.clone());
            return;
        }
        inner.newest = ticket;
        inner.parked.insert(ticket, (until, reply));
    }

    fn changed(&self, change: &Change) {
        let mut inner = self.lock();
        for (ticket, (until, reply)) in std::mem::take(&mut inner.parked) {
            if change.satisfies(until) {
                let _ = reply.send(change.clone());
            } else {
                inner.parked.insert(ticket, (until, reply));
            }
        }
    }

    /// The task ended. Answers all who are parked, unless they are more than `most`; returns
    /// whether it did.
    fn end(&self, change: Change, most: usize) -> bool {
        let mut inner = self.lock();
        let few = inner.parked.len() <= most;
        let parked = if few { std::mem::take(&mut inner.parked) } else { BTreeMap::new() };
        inner.ended = Some(change.clone());
        drop(inner);
        for (_, reply) in parked.into_values() {
            let _ = reply.send(change.clone());
        }
        few
    }
}

/// The state actor's hold on a task's waiter. Whoever takes it out of the links lets the waiter
/// come to rest.
pub(crate) struct WaiterLink {
    pub(crate) actor: ActorRef<Letter<WaiterMsg>>,
    pub(crate) watch: Arc<Watch>,
    /// Number of the tree in which the waiter lives.
    pub(crate) tree: u64,
    /// Ticket of the newest caller that was sent to it.
    pub(crate) newest: u64,
}

impl WaiterLink {
    /// The task ended: answers those who are parked, here or by the waiter.
    pub(crate) fn end(self, change: Change, core: &Core) {
        if self.watch.end(change.clone(), FEW) {
            core.idle_waiters.keep(self.actor, self.tree);
        } else {
            let _ = self.actor.cast(core.mail.letter(WaiterMsg::Ended(change)));
        }
    }
}

/// What the actor holds.
pub(crate) struct Seat {
    core: Arc<Core>,
    tree: u64,
    /// The newest watch; it may have ended.
    watch: Option<Arc<Watch>>,
}

/// Callers of a waiter that died learn it.
impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(watch) = self.watch.take() {
            let parked = std::mem::take(&mut watch.lock().parked);
            drop(parked);
        }
    }
}

impl Actor for Waiter {
    type Msg = Letter<WaiterMsg>;
    type State = Seat;
    type Arguments = Arc<Core>;

    async fn pre_start(
        &self,
        _myself: ActorRef<Letter<WaiterMsg>>,
        core: Arc<Core>,
    ) -> Result<Seat, ActorProcessingErr> {
        let tree = core.idle_waiters.tree();
        Ok(Seat { core, tree, watch: None })
    }

    async fn handle(
        &self,
        myself: ActorRef<Letter<WaiterMsg>>,
        message: Letter<WaiterMsg>,
        seat: &mut Seat,
    ) -> Result<(), ActorProcessingErr> {
        crate::hop::hop("waiter").await;
        let message = message.open();
        if let WaiterMsg::Park { watch, ticket, until, reply } = message {
            watch.park(ticket, until, reply);
            seat.watch = Some(watch);
            return Ok(());
        }
        let Some(watch) = &seat.watch else { return Ok(()) };
        match message {
            WaiterMsg::Park { .. } => {}
            WaiterMsg::Left(ticket) => {
                let left = watch.lock().parked.remove(&ticket);
                if left.is_some() {
                    seat.retire_if_alone(watch, myself);
                }
            }
            WaiterMsg::Changed(change) => {
                watch.changed(&change);
                seat.retire_if_alone(watch, myself);
            }
            WaiterMsg::Ended(change) => {
                watch.end(change, usize::MAX);
                seat.core.idle_waiters.keep(myself, seat.tree);
            }
            WaiterMsg::Rest => seat.core.idle_waiters.keep(myself, seat.tree),
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _myself: ActorRef<Letter<WaiterMsg>>,
        _event: SupervisionEvent,
        _seat: &mut Seat,
    ) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
}

impl Change {
    /// Whether this change is what a caller waits for.
    pub(crate) fn satisfies(&self, until: Until) -> bool {
        match until {
            Until::Ended => self.task.as_ref().is_none_or(|task| task.status.ends_poll()),
            Until::Past(revision) => self.revision > revision,
        }
    }
}

impl Seat {
    /// Where nobody is parked: asks the state actor to let this waiter go, unless it sends
    /// somebody meanwhile.
    fn retire_if_alone(&self, watch: &Watch, myself: ActorRef<Letter<WaiterMsg>>) {
        let (task, newest) = {
            let inner = watch.lock();
            if !inner.parked.is_empty() || inner.ended.is_some() {
                return;
            }
            (watch.task, inner.newest)
        };
        self.core.engine_turn(
            "retire_waiter",
            |_state| (),
            move |links, ()| {
                let idle = links.waiters.get(&task).is_some_and(|link| {
                    link.newest == newest && link.actor.get_id() == myself.get_id()
                });
                if idle {
                    links.waiters.remove(&task);
                    links.out.push(Outgoing::ToWaiter(myself, WaiterMsg::Rest));
                }
            },
        );
    }
}
