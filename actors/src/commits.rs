//! Commits: what turns touched and what is to be heard of them, until the journal says it is safe.
//!
//! One batch is in flight at a time, and the next one grows meanwhile. Turns that only read wait for
//! what they may have seen. It outlives every incarnation of the state actor, so one that dies loses
//! nothing. It sends nothing itself: the state actor does, or the burial of a tree.
//!
//! ```text
//! turns run ──▶ note what each touched ──▶ commit in memory ──▶ is a batch in flight?
//!                                                   no: cut, append │ yes: the next one grows
//!                                                                   ▼                    │
//! journal's thread:   write ─▶ flush ─▶ say so ─▶ wake ◀────────────┘                    │
//!                                                   ▼                                    │
//! state actor: send that batch's events, messages, replies; cut what grew ◀──────────────┘
//! ```
//!
//! The start of an attempt is one of the messages, so no worker runs whose dispatch is not safe. A
//! failed journal closes the engine with its reason: what waits gets that error, and nothing goes on
//! in memory. Where no journal is kept, all of this is skipped.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::Notify;

use crate::journal::{Batch, Done, Journal, JournalError};
use crate::model::event::EventRecord;
use crate::outgoing::Outgoing;
use crate::state::EngineState;
use crate::state::effect::{Effect, Now};
use crate::state::images::{Touched, events_of};
use crate::turn::Turn;

/// What is sent of some turns, in this order: their events, their messages, their replies.
#[derive(Default)]
pub(crate) struct Release {
    pub(crate) events: Vec<Arc<EventRecord>>,
    pub(crate) out: Vec<Outgoing>,
    pub(crate) turns: Vec<Arc<dyn Turn>>,
}

impl Release {
    fn append(&mut self, other: &mut Self) {
        self.events.append(&mut other.events);
        self.out.append(&mut other.out);
        self.turns.append(&mut other.turns);
    }
}

/// Drops its journal on a thread of its own: a journal closes when it is dropped, and that waits for
/// a disk and for the journal's own thread, which may be the one that lets go last.
struct Seat(Option<Arc<dyn Journal>>);

impl Drop for Seat {
    fn drop(&mut self) {
        let journal = self.0.take();
        let closing = std::thread::Builder::new().name("adjutant-close".to_owned());
        if let Err(error) = closing.spawn(move || drop(journal)) {
            tracing::error!(
                error = error.to_string(),
                "the journal was not closed: there is no thread for it"
            );
        }
    }
}

/// The journal of an engine, and what waits for it.
pub(crate) struct Commits {
    journal: Seat,
    epoch: u64,
    growth: Mutex<Growth>,
    /// What the journal said of the batch in flight. Under a lock of its own, because a journal may
    /// say it within `append`.
    told: Mutex<Option<Result<(), JournalError>>>,
    failure: OnceLock<String>,
    rest: Notify,
}

/// What waits. Locked after the state, where both are.
pub(crate) struct Growth {
    /// Number of the newest batch that was cut.
    number: u64,
    touched: Touched,
    /// What is heard of the batch in flight, once it is safe.
    flight: Option<Release>,
    /// What is heard of the batch that grows.
    growing: Release,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Commits {
    /// For a journal that was loaded up to batch `number`, under its newest epoch.
    pub(crate) fn new(journal: Arc<dyn Journal>, epoch: u64, number: u64) -> Self {
        let growth = Growth {
            number,
            touched: Touched::default(),
            flight: None,
            growing: Release::default(),
        };
        Self {
            journal: Seat(Some(journal)),
            epoch,
            growth: Mutex::new(growth),
            told: Mutex::default(),
            failure: OnceLock::new(),
            rest: Notify::new(),
        }
    }

    pub(crate) fn journal(&self) -> &Arc<dyn Journal> {
        self.journal.0.as_ref().expect("the seat is emptied by its drop only")
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Growth> {
        lock(&self.growth)
    }

    /// Hands a batch to the journal. Call it without any lock.
    pub(crate) fn append(&self, batch: Batch, done: Done) {
        self.journal().append(batch, done);
    }

    /// Notes what the journal said of the batch in flight.
    pub(crate) fn tell(&self, result: Result<(), JournalError>) {
        *lock(&self.told) = Some(result);
    }

    /// Why the journal failed, if it did.
    pub(crate) fn failure(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }

    /// Notes why the journal failed, the first time; gives the reason that stands.
    pub(crate) fn failed(&self, error: &JournalError) -> &str {
        let reason = self.failure.get_or_init(|| format!("the journal failed: {error}"));
        self.rest.notify_waiters();
        reason
    }

    /// Moves to `ready` what is safe by what the journal said since.
    pub(crate) fn hear(
        &self,
        growth: &mut Growth,
        ready: &mut Release,
    ) -> Result<(), JournalError> {
        let told = lock(&self.told).take();
        let Some(result) = told else { return Ok(()) };
        result?;
        if let Some(mut flight) = growth.flight.take() {
            ready.append(&mut flight);
        }
        if !growth.is_dirty() {
            // These only read, and saw nothing but what is safe.
            ready.append(&mut growth.growing);
            self.rest.notify_waiters();
        }
        Ok(())
    }

    /// Cuts the batch that grew, unless one is in flight or nothing was touched. Call it between
    /// turns, and give the batch to [`Self::append`] before anything else is cut.
    pub(crate) fn cut(
        &self,
        growth: &mut Growth,
        state: &EngineState,
        now: impl FnOnce() -> Now,
    ) -> Option<Batch> {
        if growth.flight.is_some() || !growth.is_dirty() || self.failure().is_some() {
            return None;
        }
        growth.number += 1;
        let release = std::mem::take(&mut growth.growing);
        let batch = Batch {
            number: growth.number,
            epoch: self.epoch,
            at: now(),
            mark: state.mark(),
            images: state.images(&mut growth.touched),
            events: release.events.clone(),
        };
        growth.flight = Some(release);
        Some(batch)
    }

    /// Waits until nothing waits, or until the journal failed.
    pub(crate) async fn settled(&self) {
        loop {
            let mut told = std::pin::pin!(self.rest.notified());
            told.as_mut().enable();
            if self.failure().is_some() || self.lock().is_empty() {
                return;
            }
            told.await;
        }
    }
}

impl Growth {
    fn is_dirty(&self) -> bool {
        !self.touched.is_empty() || !self.growing.events.is_empty()
    }

    fn is_empty(&self) -> bool {
        self.flight.is_none() && !self.is_dirty()
    }

    /// Notes what the present turn touched, before its commit.
    pub(crate) fn note(&mut self, state: &EngineState) {
        state.note_touched(&mut self.touched);
    }

    /// Notes the events of turns that were committed.
    pub(crate) fn note_events(&mut self, effects: &[Effect]) {
        self.growing.events.append(&mut events_of(effects));
    }

    /// Keeps back what turns send until all that they may have seen is safe. Where it is already,
    /// both lists stay as they are.
    pub(crate) fn keep_back(&mut self, out: &mut Vec<Outgoing>, turns: &mut Vec<Arc<dyn Turn>>) {
        let place = if self.is_dirty() {
            &mut self.growing
        } else if let Some(flight) = &mut self.flight {
            flight
        } else {
            return;
        };
        place.out.append(out);
        place.turns.append(turns);
    }

    /// Takes the messages and replies away whose addressees are gone; events stay.
    pub(crate) fn abandon(&mut self) -> Release {
        let mut gone = Release::default();
        for release in self.flight.iter_mut().chain([&mut self.growing]) {
            gone.out.append(&mut release.out);
            gone.turns.append(&mut release.turns);
        }
        gone
    }
}
