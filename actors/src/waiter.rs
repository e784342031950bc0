//! The waiter: parks callers on one task and answers them when the task changes as they wish.
//!
//! It holds no truth: everything it knows was told to it by the state actor, which casts `Park`
//! and `Changed` in the order of the turns, so no change falls between the two. Spawned when a
//! task is first watched, under the root; never restarted: if it dies, its callers ask once more.
//! It retires when nobody is parked and no `Park` is on its way.

use std::collections::BTreeMap;
use std::sync::Arc;

use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::sync::oneshot;

use crate::messages::{Change, Until, WaiterMsg};
use crate::model::ids::TaskId;
use crate::system::Core;

pub(crate) struct Waiter;

pub(crate) struct Arguments {
    pub(crate) core: Arc<Core>,
    pub(crate) task: TaskId,
}

pub(crate) struct Watch {
    core: Arc<Core>,
    task: TaskId,
    parked: BTreeMap<u64, (Until, oneshot::Sender<Change>)>,
    /// Ticket of the newest caller, which is also how many there were.
    parks: u64,
}

impl Actor for Waiter {
    type Msg = WaiterMsg;
    type State = Watch;
    type Arguments = Arguments;

    async fn pre_start(
        &self,
        _myself: ActorRef<WaiterMsg>,
        args: Arguments,
    ) -> Result<Watch, ActorProcessingErr> {
        let Arguments { core, task } = args;
        Ok(Watch { core, task, parked: BTreeMap::new(), parks: 0 })
    }

    async fn handle(
        &self,
        myself: ActorRef<WaiterMsg>,
        message: WaiterMsg,
        watch: &mut Watch,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            WaiterMsg::Park { ticket, until, reply } => watch.park(ticket, until, reply),
            WaiterMsg::Left(ticket) => {
                watch.parked.remove(&ticket);
            }
            WaiterMsg::Changed(change) => watch.changed(&change),
        }
        if watch.parked.is_empty() {
            watch.retire(myself);
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
    /// Parks a caller. The turn that sent it found nothing to answer, and every later change is
    /// cast behind it, so what was told before cannot be its answer.
    fn park(&mut self, ticket: u64, until: Until, reply: oneshot::Sender<Change>) {
        self.parks = ticket;
        self.parked.insert(ticket, (until, reply));
    }

    fn changed(&mut self, change: &Change) {
        for (ticket, (until, reply)) in std::mem::take(&mut self.parked) {
            if change.satisfies(until) {
                let _ = reply.send(change.clone());
            } else {
                self.parked.insert(ticket, (until, reply));
            }
        }
    }

    /// Asks the state actor to let this waiter go, unless somebody was parked meanwhile.
    fn retire(&self, myself: ActorRef<WaiterMsg>) {
        let (task, parks) = (self.task, self.parks);
        self.core.engine_turn(
            "retire_waiter",
            |_state| (),
            move |links, ()| {
                let idle = links.waiters.get(&task).is_some_and(|link| {
                    link.parks == parks && link.actor.get_id() == myself.get_id()
                });
                if idle {
                    links.waiters.remove(&task);
                    myself.stop(None);
                }
            },
        );
    }
}
