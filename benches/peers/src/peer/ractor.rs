//! Bare ractor: an actor that owns the records and runs boxed closures on them.
//!
//! It is the baseline of `turns`, as in the repository's own bench of that name, and so is asked
//! as `with_state` is: with a closure.

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort, SupervisionEvent};

use super::{Peer, Work};
use crate::records::{Answer, Ask, Records, Step, count, five_messages};

type Job = Box<dyn FnOnce(&mut Records) -> Answer + Send>;

/// The handle of the actor.
#[derive(Clone)]
pub(crate) struct RactorActor(ActorRef<Run>);

struct Owner;

struct Run(Job, RpcReplyPort<Answer>);

impl Actor for Owner {
    type Msg = Run;
    type State = Records;
    type Arguments = ();

    async fn pre_start(&self, _own: ActorRef<Run>, (): ()) -> Result<Records, ActorProcessingErr> {
        Ok(Records::default())
    }

    async fn handle(
        &self,
        _own: ActorRef<Run>,
        Run(job, reply): Run,
        records: &mut Records,
    ) -> Result<(), ActorProcessingErr> {
        // A caller that has gone needs no answer.
        let _ = reply.send(job(records));
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _own: ActorRef<Run>,
        _event: SupervisionEvent,
        _records: &mut Records,
    ) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
}

impl Ask for RactorActor {
    async fn ask(&self, step: Step) -> Option<Answer> {
        let job: Job = Box::new(move |records| records.apply(step));
        let called = self.0.call(|reply| Run(job, reply), None).await;
        called.ok()?.success_or(()).ok()
    }
}

impl Peer for RactorActor {
    const NAME: &'static str = "bare ractor call";
    const FLOOR: bool = true;

    async fn start(_work: Work) -> Self {
        let (owner, _) = Actor::spawn(None, Owner, ()).await.expect("an actor starts");
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
        let _ = self.0.stop_and_wait(None, None).await;
    }
}
