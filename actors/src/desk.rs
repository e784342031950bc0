//! The actor of attempts: one attempt at a time, and between two it holds nothing.
//!
//! Spawned, or taken from the pool, by the turn that begins an attempt, under the root; never
//! restarted. What it holds lies in a slot that it shares with whoever begins an attempt and with
//! the attempt's work: the work starts without waking this actor, and an attempt whose verdict goes
//! straight to its dispatcher is cleared away there. When the actor dies, the slot is emptied and
//! closed, which interrupts the attempt that lies there and every later one. Messages of an earlier
//! attempt carry its number and are dropped; by the number a verdict empties only its own slot.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, ActorRuntime, SupervisionEvent};

use crate::attempt::{Over, Run};
use crate::mail::Letter;
use crate::messages::AttemptMsg;
use crate::pool::Resident;
use crate::state::attempts::Verdict;
use crate::system::Core;

pub(crate) struct Attempt;

/// The attempt in flight, if there is one. Nothing waits while it is locked.
#[derive(Clone, Default)]
struct Slot(Arc<Mutex<Held>>);

#[derive(Default)]
struct Held {
    run: Option<Box<Run>>,
    /// Attempts that lay here: the number of the newest.
    runs: u64,
    /// The actor is gone.
    closed: bool,
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the attempt of this number out.
    fn take(&self, number: u64) -> Option<Box<Run>> {
        self.lock().run.take_if(|run| run.is(number))
    }
}

/// An actor of attempts with its slot, as those know it who begin an attempt there.
#[derive(Clone)]
pub(crate) struct Place {
    actor: ActorRef<Letter<AttemptMsg>>,
    slot: Slot,
    tree: u64,
}

impl Resident for Place {
    fn cell(&self) -> ActorCell {
        self.actor.get_cell()
    }
}

impl Place {
    /// Starts an actor under the root; `None` where the root takes none any more.
    pub(crate) fn start(core: &Arc<Core>, root: ActorCell) -> Option<Self> {
        let (slot, tree) = (Slot::default(), core.idle_attempts.tree());
        let desk = Desk { core: core.clone(), tree, slot: slot.clone() };
        let started = ActorRuntime::spawn_linked_instant(None, Attempt, desk, root);
        let (actor, _) = started.ok()?;
        core.count_actor();
        Some(Self { actor, slot, tree })
    }

    pub(crate) fn actor(&self) -> &ActorRef<Letter<AttemptMsg>> {
        &self.actor
    }

    /// Begins an attempt. Where the actor is gone, dropping the attempt interrupts it.
    pub(crate) fn begin(self, mut run: Box<Run>, core: &Arc<Core>) {
        // Locked before the work starts, so that its end finds the attempt in its place.
        let slot = self.slot.clone();
        let mut held = slot.lock();
        if held.closed {
            drop(held);
            drop(run);
            return;
        }
        held.runs += 1;
        let (number, actor) = (held.runs, self.actor.clone());
        run.begin(number, Rest { place: self, number, core: core.clone() }, &actor);
        held.run = Some(run);
    }
}

/// What the actor holds.
pub(crate) struct Desk {
    core: Arc<Core>,
    tree: u64,
    slot: Slot,
}

impl Actor for Attempt {
    type Msg = Letter<AttemptMsg>;
    type State = Desk;
    type Arguments = Desk;

    async fn pre_start(
        &self,
        _myself: ActorRef<Letter<AttemptMsg>>,
        desk: Desk,
    ) -> Result<Desk, ActorProcessingErr> {
        Ok(desk)
    }

    async fn handle(
        &self,
        myself: ActorRef<Letter<AttemptMsg>>,
        message: Letter<AttemptMsg>,
        desk: &mut Desk,
    ) -> Result<(), ActorProcessingErr> {
        crate::hop::hop("attempt").await;
        desk.hear(message.open(), &myself);
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _myself: ActorRef<Letter<AttemptMsg>>,
        _event: SupervisionEvent,
        _desk: &mut Desk,
    ) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
}

impl Desk {
    fn hear(&mut self, message: AttemptMsg, myself: &ActorRef<Letter<AttemptMsg>>) {
        let mut held = self.slot.lock();
        let run = held.run.as_mut();
        let over = run.is_some_and(|run| matches!(run.hear(message, myself), Over::Yes));
        let run = if over { held.run.take() } else { None };
        drop(held);
        drop(run);
        if over {
            let place = Place { actor: myself.clone(), slot: self.slot.clone(), tree: self.tree };
            self.core.idle_attempts.keep(place, self.tree);
        }
    }
}

/// The slot outlives the actor in its attempt's work, which must not go on unsupervised.
impl Drop for Desk {
    fn drop(&mut self) {
        let mut held = self.slot.lock();
        held.closed = true;
        let run = held.run.take();
        drop(held);
        drop(run);
    }
}

/// Clears a decided attempt away, and lets its actor come to rest.
pub(crate) struct Rest {
    place: Place,
    number: u64,
    core: Arc<Core>,
}

impl Rest {
    /// Has the actor clear it away, with the verdict if that is still to be reported.
    pub(crate) fn finished(
        self,
        verdict: Option<Verdict>,
    ) -> (ActorRef<Letter<AttemptMsg>>, AttemptMsg) {
        (self.place.actor, AttemptMsg::Finished(self.number, verdict))
    }

    fn rest(self) {
        if tokio::runtime::Handle::try_current().is_err() {
            // Coming to rest needs a runtime; the actor has one.
            let mail = self.core.mail.clone();
            let (actor, message) = self.finished(None);
            drop(actor.cast(mail.letter(message)));
        } else if let Some(mut run) = self.place.slot.take(self.number) {
            run.put_away();
            drop(run);
            let tree = self.place.tree;
            self.core.idle_attempts.keep(self.place, tree);
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::oneshot;

    use super::*;
    use crate::clock::SystemClock;
    use crate::config::EngineCfg;
    use crate::launch::{Launch, Worker};
    use crate::model::mint::Mint;
    use crate::system::ActorSystem;

    struct Never;

    #[async_trait::async_trait]
    impl Launch for Never {
        async fn launch(&self) -> Result<Box<dyn Worker>, String> {
            panic!("it was launched")
        }
    }

    #[tokio::test]
    async fn an_attempt_that_meets_a_dead_actor_is_given_up_and_never_launched() {
        let system = ActorSystem::new(EngineCfg::default(), Arc::new(SystemClock::new()));
        system.with_state("start", |_| ()).await.unwrap();
        let core = system.core.clone();
        let place = Place::start(&core, core.root().unwrap().get_cell()).unwrap();
        place.actor.stop_and_wait(None, None).await.unwrap();
        let (verdict, decided) = oneshot::channel();
        let attempt = (Mint::seeded(1).task_id(), 1);
        place.begin(
            Box::new(Run::new(core.clone(), attempt, Arc::new(Never), None, verdict)),
            &core,
        );
        // The state does not know the attempt, so there is no verdict, and nobody holds its place.
        assert!(decided.await.is_err());
        assert!(place_is_empty(&core).await);
        system.shutdown(Duration::ZERO).await;
    }

    /// Whether no attempt holds a shutdown up.
    async fn place_is_empty(core: &Core) -> bool {
        core.attempts.close();
        core.attempts.wait().await;
        core.attempts.is_empty()
    }
}
