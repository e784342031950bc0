//! What a batch of turns sends, in order, once its changes are kept.
//!
//! Turns and their follow-ups only add to the list; the state actor alone sends it, after the
//! whole batch is committed. So nobody hears of a change before it stands.

use std::sync::Arc;

use ractor::ActorRef;

use crate::attempt::{Answer, Run};
use crate::desk::{Place, Resting};
use crate::mail::Letter;
use crate::messages::{AttemptMsg, Change, WaiterMsg};
use crate::state::attempts::Verdict;
use crate::system::Core;
use crate::waiter::WaiterLink;

/// One message on its way.
pub(crate) enum Outgoing {
    ToWaiter(ActorRef<Letter<WaiterMsg>>, WaiterMsg),
    /// The end of a watched task.
    Ended(WaiterLink, Change),
    /// The begin of an attempt.
    Begin(Place, Box<Run>),
    ToAttempt(ActorRef<Letter<AttemptMsg>>, AttemptMsg),
    /// The end of an attempt, to whoever dispatched it, with what is to be cleared away then.
    Verdict(Answer, Verdict, Resting),
}

impl Outgoing {
    /// Sends it. An addressee that is gone has been decided otherwise.
    pub(crate) fn send(self, core: &Arc<Core>) {
        match self {
            Self::ToWaiter(waiter, message) => drop(waiter.cast(core.mail.letter(message))),
            Self::Ended(waiter, change) => waiter.end(change, core),
            Self::Begin(place, run) => place.begin(run, core),
            Self::ToAttempt(attempt, message) => drop(attempt.cast(core.mail.letter(message))),
            Self::Verdict(dispatcher, verdict, resting) => {
                drop(dispatcher.send((verdict, resting)));
            }
        }
    }
}
