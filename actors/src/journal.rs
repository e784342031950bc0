//! The journal: where a state survives its process. The trait, what it carries, and the journal
//! that keeps nothing.
//!
//! It knows no actor and no runtime; a backend runs on threads of its own. A backend is written
//! from this page alone, with [`frame`] to put a batch into bytes, and proven by the suite in
//! `conformance` (feature `conformance`).
//!
//! # The contract
//!
//! * **Order.** Batches have numbers without gaps, from [`Head::last_batch`]` + 1` on. `append` is
//!   called in that order by one caller; a backend makes them safe in that order and reports them
//!   in that order, each exactly once.
//! * **Atomicity.** Of a batch all is kept or nothing: images, counters and events.
//! * **Safe** means: a [`Journal::load`] after a crash of the process, or after a loss of power
//!   where the backend promises as much, gives the batch back. A backend reports a batch only
//!   then. It may make several batches safe at once.
//! * **Load** gives the records as after some prefix of the appended batches; the prefix includes
//!   every batch that was reported safe. A batch that was not reported may be in it: its callers
//!   were never answered, so they must ask.
//! * **Errors are fatal.** After a write or a flush failed, nobody can say what is on the disk. The
//!   journal then fails the batch, every one behind it and every later one with the first cause,
//!   until it is opened anew. The engine stops taking work.
//! * **Fencing.** [`Journal::lead`] gives a number above all that were given before, to anyone.
//!   Batches carry it; a backend refuses a batch with a lower one than it gave last.
//! * **Events** stand in one order without gaps; the log may forget its oldest, never the newest.
//! * **Damage** never stops a load: rows that cannot be read are moved out of the way and named in
//!   [`Head::set_aside`], as are those that [`Journal::set_aside`] is told of. Only where nothing
//!   sensible can be read at all is the load refused.

use std::path::PathBuf;
use std::sync::Arc;

use crate::model::event::EventRecord;
use crate::state::effect::{Effect, Now};
use crate::state::images::{Image, Mark, Rebuild, Rebuilt, Row, SetAside, Touched, events_of};
use crate::state::outputs::BodyHash;
use crate::state::{EngineState, Rules};

#[cfg(feature = "conformance")]
pub mod conformance;
pub mod frame;
#[cfg(feature = "conformance")]
pub mod memory;

/// Why a journal could not do what it was asked.
///
/// ```
/// use adjutant_actors::journal::JournalError;
///
/// let error = JournalError::Held { path: "state".into(), pid: Some(7) };
/// match &error {
///     JournalError::Held { .. } => assert!(error.to_string().ends_with("is held by process 7")),
///     JournalError::TooNew { known, .. } => panic!("written by another version than {known}"),
///     other => panic!("{other}"),
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// Another process holds the store.
    #[error("the store at {} is held by {}", path.display(), holder(*pid))]
    Held {
        /// The store's folder.
        path: PathBuf,
        /// The holder, where it could be read.
        pid: Option<u32>,
    },
    /// The store was written by a later version of the program.
    #[error("the store at {} has version {found}, and this program knows up to {known}", path.display())]
    TooNew {
        /// The store's folder.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The latest one that is known.
        known: u32,
    },
    /// The store cannot be opened or written: no right, no room, no such place.
    #[error("the store at {} cannot be {what}: {why}", path.display())]
    Unusable {
        /// The store's folder.
        path: PathBuf,
        /// What was tried: `opened`, `read`, `written`.
        what: &'static str,
        /// The cause.
        why: String,
    },
    /// The store is damaged so that nothing sensible can be read.
    #[error("the store at {} is damaged: {why}", path.display())]
    Damaged {
        /// The store's folder.
        path: PathBuf,
        /// What was found.
        why: String,
    },
    /// An earlier write failed, so nothing that came after it is safe. Open the store anew.
    #[error("the journal failed before and takes nothing more: {0}")]
    Failed(String),
    /// Another leader has taken over; this one must stop.
    #[error("epoch {own} was followed by epoch {current}: another engine leads")]
    Fenced {
        /// The epoch of the batch.
        own: u64,
        /// The epoch that was given last.
        current: u64,
    },
    /// The journal was closed.
    #[error("the journal is closed")]
    Closed,
    /// A caller broke the contract; says how.
    #[error("{0}")]
    Misuse(String),
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

/// What a run of turns changed, to be kept as a whole.
///
/// ```
/// use adjutant_actors::journal::{Batch, frame};
/// use adjutant_actors::state::images::Touched;
/// # use adjutant_actors::{config::EngineCfg, state::{EngineState, Rules, auth::Access, effect::Now}};
/// # let mut state = EngineState::new(Rules::from(&EngineCfg::default()));
/// # let now = Now { unix: 1, ms: 1 };
/// # use adjutant_actors::{model::{ids::TaskId, task::TaskSpec}, state::tasks::NewTask};
/// # let spec = std::sync::Arc::new(TaskSpec::new("echo", "hello"));
/// # let task = state.create_task(Access::Trusted, NewTask::new(TaskId::from_bits(1), spec), now)?;
/// let (mut touched, mut effects) = (Touched::default(), Vec::new());
/// state.note_touched(&mut touched);
/// state.commit(&mut effects);
/// let batch = Batch::cut(&state, &mut touched, &effects, 1, 1, now);
/// assert_eq!((batch.events.len(), batch.images.is_empty()), (1, false));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Batch {
    /// Its number: one more than the batch before it.
    pub number: u64,
    /// What [`Journal::lead`] gave.
    pub epoch: u64,
    /// When it was cut.
    pub at: Now,
    /// Counters after it.
    pub mark: Mark,
    /// Every record that it touched, each once, as it stands after it.
    pub images: Vec<Image>,
    /// The events that it made, in their order.
    pub events: Vec<Arc<EventRecord>>,
}

/// Shows how much it holds and nothing of what: events carry results.
impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batch")
            .field("number", &self.number)
            .field("epoch", &self.epoch)
            .field("images", &self.images.len())
            .field("events", &self.events.len())
            .finish_non_exhaustive()
    }
}

impl Batch {
    /// Cuts a batch between turns: all that `touched` notes, as it stands, and the events among
    /// `effects`, which are those of the turns since the cut before. Empties `touched`.
    #[must_use]
    pub fn cut(
        state: &EngineState,
        touched: &mut Touched,
        effects: &[Effect],
        number: u64,
        epoch: u64,
        at: Now,
    ) -> Self {
        let images = state.images(touched);
        Self { number, epoch, at, mark: state.mark(), images, events: events_of(effects) }
    }
}

/// Told when a batch is safe, or why it never will be. Runs on a thread of the journal, or
/// within `append`, before that returns; it must not block, nor take a lock that is held around
/// `append`: hand the word on and return.
pub type Done = Box<dyn FnOnce(Result<(), JournalError>) + Send>;

/// What a load gives beside the rows.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Head {
    /// Number of the newest batch; 0 before the first.
    pub last_batch: u64,
    /// The epoch that was given last; 0 before the first.
    pub epoch: u64,
    /// When the newest batch was cut; `None` before the first. The engine's monotonic clock goes
    /// on from it (`clock::Continued`).
    pub at: Option<Now>,
    /// Counters after the newest batch.
    pub mark: Mark,
    /// The newest events, oldest first.
    pub events: Vec<EventRecord>,
    /// What could not be read and was moved out of the way.
    pub set_aside: Vec<SetAside>,
}

/// Keeps batches and gives them back. See the module for the contract.
///
/// All calls are made from any thread. `append` returns at once; the others may block on a disk
/// and are not for a worker thread of an async runtime.
///
/// ```
/// use adjutant_actors::journal::{Batch, Done, Head, Journal, JournalError};
/// use adjutant_actors::model::event::EventRecord;
/// use adjutant_actors::state::images::{Row, SetAside};
/// use std::sync::atomic::{AtomicU64, Ordering};
///
/// /// Counts batches and keeps none of them: what is safe here is lost with the process.
/// #[derive(Default)]
/// struct Counted(AtomicU64);
///
/// impl Journal for Counted {
///     fn load(&self, _: usize, _: &mut dyn FnMut(Row<'_>)) -> Result<Head, JournalError> {
///         Ok(Head::default())
///     }
///     fn set_aside(&self, _: &[SetAside]) -> Result<(), JournalError> { Ok(()) }
///     fn lead(&self) -> Result<u64, JournalError> { Ok(1) }
///     fn append(&self, batch: Batch, done: Done) {
///         self.0.store(batch.number, Ordering::Relaxed);
///         done(Ok(()));
///     }
///     fn events_after(&self, _: u64, _: usize) -> Result<Vec<EventRecord>, JournalError> {
///         Ok(Vec::new())
///     }
///     fn body(&self, _: &[u8; 32]) -> Result<Option<Vec<u8>>, JournalError> { Ok(None) }
///     fn flush(&self) -> Result<(), JournalError> { Ok(()) }
///     fn close(&self) -> Result<(), JournalError> { Ok(()) }
/// }
/// let journal = Counted::default();
/// assert_eq!((journal.lead()?, journal.load(16, &mut |_| {})?.last_batch), (1, 0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Journal: Send + Sync + 'static {
    /// Whether anything is kept at all. Where not, the engine makes no batches.
    fn keeps(&self) -> bool {
        true
    }

    /// Gives every record to `row`, in any order, each once, and the rest as [`Head`] with at most
    /// `tail` events. Called once, before the first append.
    ///
    /// # Errors
    /// `Unusable`, `Damaged`, `Failed`, `Closed`.
    fn load(&self, tail: usize, row: &mut dyn FnMut(Row<'_>)) -> Result<Head, JournalError>;

    /// Moves rows out of the way that were given by `load` and do not fit together.
    ///
    /// # Errors
    /// `Unusable`, `Failed`, `Closed`.
    fn set_aside(&self, rows: &[SetAside]) -> Result<(), JournalError>;

    /// Takes the lead: gives a new epoch and refuses batches of earlier ones from now on.
    ///
    /// # Errors
    /// `Unusable`, `Failed`, `Closed`.
    fn lead(&self) -> Result<u64, JournalError>;

    /// Takes the next batch and returns; `done` is called once, when it is safe or never will be.
    ///
    /// A batch out of order is a misuse and fails the journal, as any other error does.
    fn append(&self, batch: Batch, done: Done);

    /// Events with a number above `after`, oldest first, at most `limit`. If the first one's number
    /// is above `after + 1`, those between are forgotten. Gives only what is safe.
    ///
    /// # Errors
    /// `Unusable`, `Closed`.
    fn events_after(&self, after: u64, limit: usize) -> Result<Vec<EventRecord>, JournalError>;

    /// JSON text of a large body; `None` where there is none, or where its bytes are damaged.
    ///
    /// # Errors
    /// `Unusable`, `Closed`.
    fn body(&self, hash: &BodyHash) -> Result<Option<Vec<u8>>, JournalError>;

    /// Blocks until all that was appended before is safe, whatever level of safety is set.
    ///
    /// # Errors
    /// The one that failed the journal; `Closed`.
    fn flush(&self) -> Result<(), JournalError>;

    /// Makes everything safe, gives the place free, and refuses what comes later. Closing twice is
    /// no error. Dropping the journal closes it as well.
    ///
    /// # Errors
    /// The one that failed the journal.
    fn close(&self) -> Result<(), JournalError>;
}

/// Keeps nothing: every batch is called safe at once, and a load gives an empty state.
///
/// ```
/// use adjutant_actors::journal::{Journal, NoJournal};
///
/// assert!(!NoJournal.keeps());
/// assert_eq!(NoJournal.load(16, &mut |_| {})?.last_batch, 0);
/// # Ok::<(), adjutant_actors::journal::JournalError>(())
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct NoJournal;

impl Journal for NoJournal {
    fn keeps(&self) -> bool {
        false
    }

    fn load(&self, _tail: usize, _row: &mut dyn FnMut(Row<'_>)) -> Result<Head, JournalError> {
        Ok(Head::default())
    }

    fn set_aside(&self, _rows: &[SetAside]) -> Result<(), JournalError> {
        Ok(())
    }

    fn lead(&self) -> Result<u64, JournalError> {
        Ok(1)
    }

    fn append(&self, _batch: Batch, done: Done) {
        done(Ok(()));
    }

    fn events_after(&self, _after: u64, _limit: usize) -> Result<Vec<EventRecord>, JournalError> {
        Ok(Vec::new())
    }

    fn body(&self, _hash: &BodyHash) -> Result<Option<Vec<u8>>, JournalError> {
        Ok(None)
    }

    fn flush(&self) -> Result<(), JournalError> {
        Ok(())
    }

    fn close(&self) -> Result<(), JournalError> {
        Ok(())
    }
}

/// A state that came back, and the head that it came with. `head.set_aside` names everything that
/// was set aside, by the backend or for not fitting together.
#[derive(Debug)]
pub struct Restored {
    /// The state as after the newest batch; nothing is recovered yet.
    pub state: EngineState,
    /// The rest.
    pub head: Head,
}

/// Loads the state that a journal keeps. What does not fit together is moved out of the way there.
///
/// The caller goes on with a clock that continues `head.at`, then `EngineState::recover` as the
/// first turn, whose batch is the first to append.
///
/// ```
/// use adjutant_actors::journal::{NoJournal, Restored, restore};
/// use adjutant_actors::{config::EngineCfg, state::Rules};
///
/// let Restored { state, head } = restore(&NoJournal, Rules::from(&EngineCfg::default()))?;
/// assert_eq!((state.task_count(), head.epoch), (0, 0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// Those of [`Journal::load`] and [`Journal::set_aside`].
pub fn restore(journal: &dyn Journal, rules: Rules) -> Result<Restored, JournalError> {
    let mut rebuild = Rebuild::default();
    let tail = rules.limits.event_tail.max(1);
    let mut head = journal.load(tail, &mut |row| rebuild.row(row))?;
    let Rebuilt { state, set_aside } = rebuild.finish(rules, head.mark, head.events.clone());
    if !set_aside.is_empty() {
        journal.set_aside(&set_aside)?;
        head.set_aside.extend(set_aside);
    }
    Ok(Restored { state, head })
}
