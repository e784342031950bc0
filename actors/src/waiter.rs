//! The waiter: parks callers on one task and answers them when the task changes as they wish.
//!
//! It holds no truth: everything it knows was told to it by the state actor, which sends `Park`
//! and `Changed` in the order of the turns, so no change falls between the two. Spawned, or taken
//! from the pool, when a task is first watched, under the root; never restarted: if it dies, its
//! callers ask once more. It comes to rest when its task has ended, or when nobody is parked and
//! no `Park` is on its way.

use std::collections::BTreeMap;
use std::sync::Arc;

use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::sync::oneshot;

use crate::messages::{Change, Until, WaiterMsg};
use crate::model::ids::TaskId;
use crate::outgoing::Outgoing;
use crate::system::Core;

pub(crate) struct Waiter;

pub(crate) struct Watch {
    core: Arc<Core>,
    tree: u64,
    /// Absent while it rests.
    task: Option<TaskId>,
    parked: BTreeMap<u64, (Until, oneshot::Sender<Change>)>,
    /// Ticket of the newest caller.
    newest: u64,
}

impl Actor for Waiter {
    type Msg = WaiterMsg;
    type State = Watch;
    type Arguments = Arc<Core>;

    async fn pre_start(
        &self,
        _myself: ActorRef<WaiterMsg>,
        core: Arc<Core>,
    ) -> Result<Watch, ActorProcessingErr> {
        let tree = core.idle_waiters.tree();
        Ok(Watch { core, tree, task: None, parked: BTreeMap::new(), newest: 0 })
    }

    async fn handle(
        &self,
        myself: ActorRef<WaiterMsg>,
        message: WaiterMsg,
        watch: &mut Watch,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            WaiterMsg::Park { task, ticket, until, reply } => {
                watch.task = Some(task);
                watch.newest = ticket;
                watch.parked.insert(ticket, (until, reply));
            }
            WaiterMsg::Left(ticket) => {
                if watch.parked.remove(&ticket).is_some() {
                    watch.retire_if_alone(myself);
                }
            }
            WaiterMsg::Changed(change) => {
                watch.changed(&change);
                watch.retire_if_alone(myself);
            }
            WaiterMsg::Ended(change) => {
                for (_, reply) in std::mem::take(&mut watch.parked).into_values() {
                    let _ = reply.send(change.clone());
                }
                watch.rest(myself);
            }
            WaiterMsg::Rest => watch.rest(myself),
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _myself: ActorRef<WaiterMsg>,
        _event: SupervisionEvent,
        _watch: &mut Watch,
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

impl Watch {
    fn changed(&mut self, change: &Change) {
        for (ticket, (until, reply)) in std::mem::take(&mut self.parked) {
            if change.satisfies(until) {
                let _ = reply.send(change.clone());
            } else {
                self.parked.insert(ticket, (until, reply));
            }
        }
    }

    /// Where nobody is parked: asks the state actor to let this waiter go, unless it sends
    /// somebody meanwhile.
    fn retire_if_alone(&self, myself: ActorRef<WaiterMsg>) {
        let Some(task) = self.task.filter(|_| self.parked.is_empty()) else { return };
        let newest = self.newest;
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

    fn rest(&mut self, myself: ActorRef<WaiterMsg>) {
        self.task = None;
        self.core.idle_waiters.keep(myself, self.tree);
    }
}
