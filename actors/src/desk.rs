//! The actor of attempts: one attempt at a time, and between two it holds nothing.
//!
//! Spawned, or taken from the pool, by the turn that begins an attempt, under the root; never
//! restarted. What it holds lies in a slot that it shares with the attempt's work, so that an
//! attempt whose verdict goes straight to its dispatcher is cleared away there, and this actor is
//! not woken for it. When the actor dies, the slot is emptied, which interrupts the attempt.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};

use crate::attempt::{Over, Run};
use crate::messages::AttemptMsg;
use crate::state::attempts::Verdict;
use crate::system::Core;

pub(crate) struct Attempt;

/// The attempt in flight, if there is one. Nothing waits while it is locked.
#[derive(Clone, Default)]
pub(crate) struct Slot(Arc<Mutex<Option<Box<Run>>>>);

impl Slot {
    fn lock(&self) -> MutexGuard<'_, Option<Box<Run>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the attempt of this number out.
    fn take(&self, number: u64) -> Option<Box<Run>> {
        self.lock().take_if(|run| run.is(number))
    }
}

/// What the actor holds.
pub(crate) struct Desk {
    core: Arc<Core>,
    tree: u64,
    slot: Slot,
    runs: u64,
}

impl Actor for Attempt {
    type Msg = AttemptMsg;
    type State = Desk;
    type Arguments = Arc<Core>;

    async fn pre_start(
        &self,
        _myself: ActorRef<AttemptMsg>,
        core: Arc<Core>,
    ) -> Result<Desk, ActorProcessingErr> {
        let tree = core.idle_attempts.tree();
        Ok(Desk { core, tree, slot: Slot::default(), runs: 0 })
    }

    async fn handle(
        &self,
        myself: ActorRef<AttemptMsg>,
        message: AttemptMsg,
        desk: &mut Desk,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            AttemptMsg::Begin(run) => desk.begin(run, &myself),
            message => desk.hear(message, &myself),
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _myself: ActorRef<AttemptMsg>,
        _event: SupervisionEvent,
        _desk: &mut Desk,
    ) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
}

impl Desk {
    fn begin(&mut self, mut run: Box<Run>, myself: &ActorRef<AttemptMsg>) {
        self.runs += 1;
        // Locked before the work starts, so that its end finds the attempt in its place.
        let mut slot = self.slot.lock();
        let rest = Rest {
            slot: self.slot.clone(),
            number: self.runs,
            actor: myself.clone(),
            tree: self.tree,
            core: self.core.clone(),
        };
        run.begin(self.runs, rest, myself);
        *slot = Some(run);
    }

    fn hear(&mut self, message: AttemptMsg, myself: &ActorRef<AttemptMsg>) {
        let mut slot = self.slot.lock();
        let over = slot.as_mut().is_some_and(|run| matches!(run.hear(message, myself), Over::Yes));
        let run = if over { slot.take() } else { None };
        drop(slot);
        drop(run);
        if over {
            self.core.idle_attempts.keep(myself.clone(), self.tree);
        }
    }
}

/// The slot outlives the actor in its attempt's work, which must not go on unsupervised.
impl Drop for Desk {
    fn drop(&mut self) {
        let run = self.slot.lock().take();
        drop(run);
    }
}

/// Clears a decided attempt away, and lets its actor come to rest.
pub(crate) struct Rest {
    slot: Slot,
    number: u64,
    actor: ActorRef<AttemptMsg>,
    tree: u64,
    core: Arc<Core>,
}

impl Rest {
    /// Has the actor clear it away, with the verdict if that is still to be reported.
    pub(crate) fn finished(self, verdict: Option<Verdict>) -> (ActorRef<AttemptMsg>, AttemptMsg) {
        (self.actor, AttemptMsg::Finished(self.number, verdict))
    }

    fn rest(self) {
        if tokio::runtime::Handle::try_current().is_err() {
            // Coming to rest needs a runtime; the actor has one.
            let (actor, message) = self.finished(None);
            drop(actor.cast(message));
        } else if let Some(mut run) = self.slot.take(self.number) {
            run.put_away();
            drop(run);
            self.core.idle_attempts.keep(self.actor, self.tree);
        }
    }
}

/// Goes with a verdict to whoever waits for it, and clears the attempt away when it is dropped:
/// there, or where nobody waits.
#[derive(Default)]
pub(crate) struct Resting(Option<Rest>);

impl From<Rest> for Resting {
    fn from(rest: Rest) -> Self {
        Self(Some(rest))
    }
}

impl Drop for Resting {
    fn drop(&mut self) {
        if let Some(rest) = self.0.take() {
            rest.rest();
        }
    }
}
