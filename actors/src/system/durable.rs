//! The journal's side of the system: opening on what it keeps, its failure, flush and close.
//!
//! Nothing here waits for a disk on a worker thread of the runtime.

use std::sync::Arc;
use std::time::Duration;

use ractor::ActorCell;
use tokio::time::Instant;

use crate::clock::{Clock, Continued};
use crate::commits::Commits;
use crate::config::EngineCfg;
use crate::errors::EngineError;
use crate::journal::{Batch, Journal, JournalError, Restored, restore};
use crate::model::ids::TaskId;
use crate::state::Rules;
use crate::state::images::SetAside;
use crate::system::{ActorSystem, Core, lock};

/// Time that a shutdown gives the journal to make everything safe.
const CLOSE_TIME: Duration = Duration::from_secs(10);

/// What a system is opened with.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use adjutant_actors::{clock::SystemClock, config::EngineCfg, journal::NoJournal};
/// use adjutant_actors::system::{ActorSystem, Opening, Recovery};
/// use std::sync::Arc;
///
/// let (journal, clock) = (Arc::new(NoJournal), Arc::new(SystemClock::new()));
/// let opening = Opening { journal, clock, supervisor: None };
/// let (system, recovery) = ActorSystem::open(EngineCfg::default(), opening).await?;
/// let Recovery { tasks, interrupted, .. } = recovery;
/// assert!(tasks == 0 && interrupted.is_empty() && system.journal_failure().is_none());
/// system.flush().await?;
/// # Ok(()) }
/// ```
pub struct Opening {
    /// Where the state is kept.
    pub journal: Arc<dyn Journal>,
    /// The host's clock; its monotonic part goes on from the journal's newest batch.
    pub clock: Arc<dyn Clock>,
    /// The host's actor that the tree is linked under.
    pub supervisor: Option<ActorCell>,
}

/// What came back when an engine was opened on its journal, and what was done with it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovery {
    /// Tasks that came back, settled ones included.
    pub tasks: usize,
    /// Those of them that are not settled, after what follows.
    pub open_tasks: u64,
    /// Sessions that came back attached and were given one whole threshold to beat.
    pub sessions: usize,
    /// Attempts that were live when the process before ended, and were ended as interrupted.
    pub interrupted: Vec<(TaskId, u32)>,
    /// Number of the newest event before the recovery.
    pub last_seq: u64,
    /// The epoch under which this engine leads; 0 without a journal.
    pub epoch: u64,
    /// What could not be read or did not fit together, and was moved out of the way.
    pub set_aside: Vec<SetAside>,
}

/// The journal's word on a batch, which it owes. Dropped unsaid, as when its thread panics, it says
/// that the journal is gone: nobody could tell what became of the batch, and all would wait.
struct Word(Option<Arc<Core>>);

impl Word {
    fn say(mut self, result: Result<(), JournalError>, cut: Instant) {
        let Some(core) = self.0.take() else { return };
        if result.is_ok() {
            core.count_commit(cut.elapsed());
        }
        core.told(result);
    }
}

impl Drop for Word {
    fn drop(&mut self) {
        if let Some(core) = self.0.take() {
            core.told(Err(JournalError::Closed));
        }
    }
}

impl Core {
    /// Hands a batch to the journal. Call it without any lock.
    pub(crate) fn append(self: &Arc<Self>, batch: Batch) {
        let Some(commits) = self.commits() else { return };
        let (word, cut) = (Word(Some(self.clone())), Instant::now());
        let done = move |result: Result<(), JournalError>| word.say(result, cut);
        commits.append(batch, Box::new(done));
    }

    /// The journal said whether the batch in flight is safe. On a thread of the journal.
    fn told(self: &Arc<Self>, result: Result<(), JournalError>) {
        let Some(commits) = self.commits() else { return };
        commits.tell(result);
        // A tree that stands has a state actor, or gets one, or is buried: each looks at the news.
        if !self.queue.nudge() && !self.stands() {
            self.go_on_alone();
        }
    }

    /// Stops everything, since nobody can say what is kept: what waits to be heard never is.
    pub(crate) fn journal_failed(self: &Arc<Self>, error: &JournalError) {
        let Some(commits) = self.commits() else { return };
        let first = commits.failure().is_none();
        let reason = commits.failed(error);
        if first {
            tracing::error!(reason, "the engine stops");
        }
        // First closed, so that nothing is begun by what is dropped here.
        self.close(reason);
        let mut gone = commits.lock().abandon();
        for turn in gone.turns.drain(..) {
            turn.fail(EngineError::Stopped(reason.to_owned()));
        }
    }
}

/// Runs work that waits for a disk.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, JournalError> + Send + 'static,
) -> Result<T, EngineError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => Ok(result?),
        Err(error) => Err(EngineError::Internal(format!("the journal's caller ended: {error}"))),
    }
}

impl ActorSystem {
    /// A system on the state that a journal keeps. It leads from here on, and what the process
    /// before left undone is ended and safe when this returns. Needs a runtime.
    ///
    /// Dropping this future before it returns gives the journal back; the lead stays taken.
    ///
    /// # Errors
    /// `Journal` where it cannot be read; `Stopped` where it fails at once, or where the
    /// supervisor has stopped.
    pub async fn open(cfg: EngineCfg, opening: Opening) -> Result<(Self, Recovery), EngineError> {
        let Opening { journal, clock, supervisor } = opening;
        if !journal.keeps() {
            let system = match supervisor {
                Some(supervisor) => Self::start_linked(cfg, clock, supervisor)?,
                None => Self::new(cfg, clock),
            };
            return Ok((system, Recovery::default()));
        }
        let (rules, source) = (Rules::from(&cfg), journal.clone());
        // The lead first: from here on nobody else changes what is loaded.
        let load = move || Ok((source.lead()?, restore(&*source, rules)?));
        let (epoch, Restored { state, head }) = blocking(load).await?;
        let clock = Arc::new(Continued::new(clock, head.at)?);
        let commits = Commits::new(journal, epoch, head.last_batch);
        let system = Self::of(Core::new(cfg, clock, state, Some(commits)));
        lock(&system.core.tree).supervisor = supervisor;
        let now = system.now()?;
        let mut recovery = system
            .transact("recover", move |state| {
                let mut interrupted = state.live_attempts();
                interrupted.sort_unstable();
                let (tasks, last_seq) = (state.task_count(), state.last_seq());
                let sessions = state.recover(now).sessions;
                let open_tasks = state.live_tasks();
                let done = Recovery::default();
                Ok(Recovery { tasks, open_tasks, sessions, interrupted, last_seq, ..done })
            })
            .await?;
        recovery.epoch = epoch;
        recovery.set_aside = head.set_aside;
        Ok((system, recovery))
    }

    /// Why the journal failed, if it did. The engine has stopped then, and a restart recovers.
    #[must_use]
    pub fn journal_failure(&self) -> Option<String> {
        self.core.commits()?.failure().map(str::to_owned)
    }

    /// Waits until everything that was done before is on the disk, whatever level of safety the
    /// journal has. Without a journal, there is nothing to wait for.
    ///
    /// # Errors
    /// `Journal`; those of [`Self::with_state`].
    pub async fn flush(&self) -> Result<(), EngineError> {
        let Some(commits) = self.core.commits() else { return Ok(()) };
        // A turn that only looks is answered once all before it were taken by the journal.
        self.transact("flush", |_state| Ok(())).await?;
        let journal = commits.journal().clone();
        blocking(move || journal.flush()).await
    }

    /// Waits until what the tree left is safe, and closes the journal.
    pub(super) async fn close_journal(&self) {
        let Some(commits) = self.core.commits() else { return };
        let closing = async {
            while self.core.stands() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            commits.settled().await;
            let journal = commits.journal().clone();
            blocking(move || journal.close()).await
        };
        match tokio::time::timeout(CLOSE_TIME, closing).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(error = error.to_string(), "the journal did not close well")
            }
            Err(_) => tracing::warn!("the journal is not closed yet"),
        }
    }
}
