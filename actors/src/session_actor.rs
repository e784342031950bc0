//! The session actor: gathers the heartbeats of one session and takes them in one turn.
//!
//! Spawned by a session's first beat, under the root; restarted by its next one. It is passive
//! again after a quiet time, so that idle sessions cost only their record. It holds no truth:
//! `last_seen` is in the state. A beat that was on its way when it ended is taken without it.

use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef, MessagingErr, SupervisionEvent};
use tokio::sync::oneshot;
use tokio_util::task::AbortOnDropHandle;

use crate::errors::EngineError;
use crate::mail::Letter;
use crate::messages::SessionMsg;
use crate::model::ids::SessionId;
use crate::state::auth::Access;
use crate::state::sessions::HeartbeatReply;
use crate::system::Core;

/// Quiet time after which the actor leaves.
const QUIET: Duration = Duration::from_secs(30);

pub(crate) struct Session;

pub(crate) struct Arguments {
    pub(crate) core: Arc<Core>,
    pub(crate) session: SessionId,
}

type BeatReply = oneshot::Sender<Result<HeartbeatReply, EngineError>>;

/// A timer that goes with its actor, which it would else keep in memory until it is due.
type Timer = AbortOnDropHandle<Result<(), MessagingErr<Letter<SessionMsg>>>>;

pub(crate) struct Pulse {
    core: Arc<Core>,
    session: SessionId,
    waiting: Vec<(Access, BeatReply)>,
    in_turn: Vec<BeatReply>,
    beats: u64,
    quiet: Timer,
}

impl Actor for Session {
    type Msg = Letter<SessionMsg>;
    type State = Pulse;
    type Arguments = Arguments;

    async fn pre_start(
        &self,
        myself: ActorRef<Letter<SessionMsg>>,
        args: Arguments,
    ) -> Result<Pulse, ActorProcessingErr> {
        let Arguments { core, session } = args;
        let quiet = timer(&core, 0, &myself);
        Ok(Pulse { core, session, waiting: Vec::new(), in_turn: Vec::new(), beats: 0, quiet })
    }

    async fn handle(
        &self,
        myself: ActorRef<Letter<SessionMsg>>,
        message: Letter<SessionMsg>,
        pulse: &mut Pulse,
    ) -> Result<(), ActorProcessingErr> {
        crate::hop::hop("session").await;
        match message.open() {
            SessionMsg::Beat { access, reply } => pulse.beat(access, reply, &myself),
            SessionMsg::Beaten(replies) => pulse.beaten(replies, &myself),
            SessionMsg::Quiet(beats) => pulse.quiet(beats, &myself),
            SessionMsg::Closed => myself.stop(None),
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _myself: ActorRef<Letter<SessionMsg>>,
        _event: SupervisionEvent,
        _pulse: &mut Pulse,
    ) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
}

/// Asks after the quiet time whether there were more beats than these.
fn timer(core: &Arc<Core>, beats: u64, myself: &ActorRef<Letter<SessionMsg>>) -> Timer {
    let mail = core.mail.clone();
    let timer = myself.send_after(QUIET, move || mail.letter(SessionMsg::Quiet(beats)));
    AbortOnDropHandle::new(timer)
}

impl Pulse {
    fn beat(&mut self, access: Access, reply: BeatReply, myself: &ActorRef<Letter<SessionMsg>>) {
        self.beats += 1;
        self.waiting.push((access, reply));
        self.take_beats(myself);
    }

    /// Starts one turn for all beats that wait, unless one is under way.
    fn take_beats(&mut self, myself: &ActorRef<Letter<SessionMsg>>) {
        if self.waiting.is_empty() || !self.in_turn.is_empty() {
            return;
        }
        let (calls, replies): (Vec<_>, Vec<_>) = self.waiting.drain(..).unzip();
        self.in_turn = replies;
        let (core, myself) = (self.core.clone(), myself.clone());
        tokio::spawn(async move {
            let replies = core.beat_turn(calls).await;
            let _ = myself.cast(core.mail.letter(SessionMsg::Beaten(replies)));
        });
    }

    fn beaten(
        &mut self,
        replies: Vec<Result<HeartbeatReply, EngineError>>,
        myself: &ActorRef<Letter<SessionMsg>>,
    ) {
        for (caller, reply) in self.in_turn.drain(..).zip(replies) {
            let _ = caller.send(reply);
        }
        self.take_beats(myself);
    }

    fn quiet(&mut self, beats: u64, myself: &ActorRef<Letter<SessionMsg>>) {
        let busy = !self.waiting.is_empty() || !self.in_turn.is_empty();
        if busy || beats != self.beats {
            self.quiet = timer(&self.core, self.beats, myself);
            return;
        }
        self.core.lock_sessions().remove(&self.session);
        myself.stop(None);
    }
}
