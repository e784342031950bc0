//! kameo: an actor that owns the records, asked with typed messages.
//!
//! Its mailbox is unbounded: with the default of 64 places the callers beyond them would wait for
//! a place first, which the other actors' callers need not do.

use kameo::actor::{Actor, ActorRef, Spawn};
use kameo::error::Infallible;
use kameo::mailbox;
use kameo::message::{Context, Message};

use super::{Peer, Work};
use crate::records::{Answer, Ask, Records, Step, count, five_messages};

/// The handle of the actor.
#[derive(Clone)]
pub(crate) struct KameoActor(ActorRef<Owner>);

struct Owner(Records);

impl Actor for Owner {
    type Args = ();
    type Error = Infallible;

    async fn on_start((): (), _own: ActorRef<Self>) -> Result<Self, Infallible> {
        Ok(Self(Records::default()))
    }
}

impl Message<Step> for Owner {
    type Reply = Result<Answer, Infallible>;

    async fn handle(&mut self, step: Step, _: &mut Context<Self, Self::Reply>) -> Self::Reply {
        Ok(self.0.apply(step))
    }
}

impl Ask for KameoActor {
    async fn ask(&self, step: Step) -> Option<Answer> {
        self.0.ask(step).send().await.ok()
    }
}

impl Peer for KameoActor {
    const NAME: &'static str = "kameo ask";
    const FLOOR: bool = true;

    async fn start(_work: Work) -> Self {
        let owner = Owner::spawn_with_mailbox((), mailbox::unbounded());
        owner.wait_for_startup().await;
        Self(owner)
    }

    async fn turn(&self) -> bool {
        count(self).await
    }

    async fn lifecycle(&self) -> bool {
        five_messages(self).await
    }

    async fn stop(self) {
        // An actor that is gone already is what is wanted.
        let _ = self.0.stop_gracefully().await;
        self.0.wait_for_shutdown().await;
    }
}
