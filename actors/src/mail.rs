//! Messages that are counted while they lie in a mailbox, by the kind of actor that they are for.
//!
//! The substrate does not tell how long a mailbox is. A letter counts itself from its making until
//! it is opened, or dropped with the mailbox of a dead actor, so the count cannot drift.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Kinds of actors that get letters. The state actor gets turns, which its queue counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Session,
    Waiter,
    Attempt,
    /// The root, and the actors of supervised spawners.
    Supervisor,
}

const KINDS: usize = 4;

/// A message that is for one kind of actor.
pub(crate) trait Addressed: Send + 'static {
    const KIND: Kind;
}

/// The letters of one engine that nobody opened yet.
#[derive(Debug, Default)]
pub(crate) struct Mail([AtomicUsize; KINDS]);

impl Mail {
    /// A letter that is about to be sent.
    pub(crate) fn letter<M: Addressed>(self: &Arc<Self>, message: M) -> Letter<M> {
        self.0[M::KIND as usize].fetch_add(1, Ordering::Relaxed);
        Letter { message, _lies: Lies(self.clone(), M::KIND) }
    }

    /// How many lie unopened.
    pub(crate) fn lying(&self, kind: Kind) -> usize {
        self.0[kind as usize].load(Ordering::Relaxed)
    }
}

/// A message on its way.
pub(crate) struct Letter<M> {
    message: M,
    _lies: Lies,
}

impl<M> Letter<M> {
    /// Takes the message out: it lies in a mailbox no longer.
    pub(crate) fn open(self) -> M {
        self.message
    }
}

struct Lies(Arc<Mail>, Kind);

impl Drop for Lies {
    fn drop(&mut self) {
        self.0.0[self.1 as usize].fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::{RootMsg, SessionMsg};

    #[test]
    fn a_letter_counts_until_it_is_opened_or_lost() {
        let mail = Arc::new(Mail::default());
        let (first, second) = (mail.letter(SessionMsg::Closed), mail.letter(SessionMsg::Quiet(1)));
        let other = mail.letter(RootMsg::Sweep);
        assert_eq!((mail.lying(Kind::Session), mail.lying(Kind::Supervisor)), (2, 1));
        assert!(matches!(first.open(), SessionMsg::Closed));
        assert_eq!(mail.lying(Kind::Session), 1);
        drop((second, other));
        assert_eq!((mail.lying(Kind::Session), mail.lying(Kind::Supervisor)), (0, 0));
    }
}
