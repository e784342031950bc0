//! History: events from the tail in memory and, before that, from the journal.
//!
//! Only what is safe is given: the turn that reads the tail is answered when all that it saw is, and
//! a journal gives nothing else.

use std::sync::Arc;

use crate::errors::EngineError;
use crate::journal::{Journal, JournalError};
use crate::model::event::EventRecord;
use crate::model::ids::TaskId;
use crate::state::EngineState;
use crate::system::ActorSystem;

/// Events that are read from the journal at once.
const PAGE: usize = 1024;

/// Which part of the past is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Past {
    /// Numbers above this one.
    pub after: u64,
    /// At most so many.
    pub limit: usize,
    /// Of this task only.
    pub task: Option<TaskId>,
}

impl Past {
    fn wants(&self, record: &EventRecord) -> bool {
        self.task.is_none() || record.event.task_id() == self.task
    }

    fn in_tail(&self, state: &EngineState) -> Vec<EventRecord> {
        let Some(_) = self.task else { return state.events_after(self.after, self.limit) };
        let mut found = state.events_after(self.after, usize::MAX);
        found.retain(|record| self.wants(record));
        found.truncate(self.limit);
        found
    }

    /// Those that stand before number `end`.
    fn in_journal(
        &self,
        journal: &dyn Journal,
        end: u64,
    ) -> Result<Vec<EventRecord>, JournalError> {
        let (mut found, mut after) = (Vec::new(), self.after);
        loop {
            let page = journal.events_after(after, PAGE)?;
            let Some(last) = page.last() else { return Ok(found) };
            after = last.seq;
            for record in page {
                if record.seq >= end || found.len() >= self.limit {
                    return Ok(found);
                }
                if self.wants(&record) {
                    found.push(record);
                }
            }
        }
    }
}

impl ActorSystem {
    /// Events of the past, oldest first, as far as the tail and the journal's log reach back.
    /// `check` runs first, in the same turn as the look at the tail.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use adjutant_actors::system::Past;
    /// # use adjutant_actors::{clock::SystemClock, config::EngineCfg, system::ActorSystem};
    /// # let system = ActorSystem::new(EngineCfg::default(), std::sync::Arc::new(SystemClock::new()));
    /// let past = Past { after: 0, limit: 100, task: None };
    /// let events = system.events("read events", past, |_state| Ok(())).await?;
    /// assert!(events.is_empty() && system.event_tx().receiver_count() == 0);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of `check`; `Journal`; those of [`Self::with_state`].
    pub async fn events<F>(
        &self,
        op: &'static str,
        past: Past,
        check: F,
    ) -> Result<Vec<EventRecord>, EngineError>
    where
        F: FnOnce(&mut EngineState) -> Result<(), EngineError> + Send + 'static,
    {
        let look = move |state: &mut EngineState| {
            check(state)?;
            Ok((state.first_seq(), past.in_tail(state)))
        };
        let (end, mut tail) = self.transact(op, look).await?;
        let Some(commits) = self.core.commits() else { return Ok(tail) };
        if past.after.saturating_add(1) >= end {
            return Ok(tail);
        }
        let journal: Arc<dyn Journal> = commits.journal().clone();
        let older = super::durable::blocking(move || past.in_journal(&*journal, end)).await;
        let mut found = older?;
        found.append(&mut tail);
        found.truncate(past.limit);
        Ok(found)
    }
}
