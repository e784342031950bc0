//! The suite that every journal must pass, and the world that it writes: an engine's state that
//! takes random turns from a seed, with a copy of every batch's outcome to compare with.
//!
//! A backend's test gives [`run`] a way to make fresh places. Failures panic with what was broken.

use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::journal::{Batch, Journal, JournalError, restore};
use crate::state::images::{SetAside, TableName};

mod world;

pub use self::world::{Rows, World, rows_of};

/// Where a backend keeps its things.
pub trait Place {
    /// Opens what is there.
    ///
    /// # Errors
    /// The backend's own.
    fn open(&self) -> Result<Arc<dyn Journal>, JournalError>;

    /// A copy of the place as a crash of the process at this moment leaves it.
    fn crashed(&self) -> Box<dyn Place>;
}

type Fresh<'a> = &'a dyn Fn() -> Box<dyn Place>;

/// Runs every case, each on a fresh place.
///
/// ```
/// use adjutant_actors::journal::conformance::{Place, run};
/// use adjutant_actors::journal::{Journal, JournalError, memory::MemoryJournal};
/// use std::sync::{Arc, Mutex};
///
/// /// Each opening is a process that finds what the one before it left.
/// #[derive(Default)]
/// struct InMemory(Mutex<MemoryJournal>);
///
/// impl Place for InMemory {
///     fn open(&self) -> Result<Arc<dyn Journal>, JournalError> {
///         let mut last = self.0.lock().expect("nobody panics with it");
///         *last = last.crashed();
///         Ok(Arc::new(last.clone()))
///     }
///
///     fn crashed(&self) -> Box<dyn Place> {
///         let last = self.0.lock().expect("nobody panics with it");
///         Box::new(InMemory(Mutex::new(last.crashed())))
///     }
/// }
///
/// run(&|| Box::new(InMemory::default()));
/// ```
///
/// # Panics
/// Where the backend breaks the contract; names the case and the difference.
pub fn run(fresh: Fresh<'_>) {
    an_empty_place_gives_an_empty_state(fresh);
    what_was_called_safe_survives_a_crash(fresh);
    a_crash_at_any_moment_leaves_a_prefix(fresh);
    batches_are_reported_once_and_in_order(fresh);
    a_batch_out_of_order_fails_the_journal(fresh);
    an_earlier_epoch_is_refused(fresh);
    events_are_read_in_order_across_restarts(fresh);
    bodies_are_read_by_their_hash(fresh);
    what_was_set_aside_does_not_come_back(fresh);
    a_closed_journal_takes_nothing(fresh);
}

fn open(place: &dyn Place) -> Arc<dyn Journal> {
    place.open().unwrap_or_else(|error| panic!("the place opens: {error}"))
}

/// Appends a batch and waits until it is safe.
///
/// ```
/// use adjutant_actors::journal::conformance::{World, append, check_prefix};
/// use adjutant_actors::journal::{Journal, memory::MemoryJournal};
///
/// let (journal, mut world) = (MemoryJournal::default(), World::new(7));
/// world.epoch = journal.lead()?;
/// append(&journal, world.batch())?;
/// assert_eq!(check_prefix(&journal.crashed(), &world, 1), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// What the journal said of the batch; `Closed` where it said nothing within a minute.
pub fn append(journal: &dyn Journal, batch: Batch) -> Result<(), JournalError> {
    let (tell, told) = mpsc::channel();
    journal.append(batch, Box::new(move |result| drop(tell.send(result))));
    told.recv_timeout(Duration::from_secs(60)).unwrap_or(Err(JournalError::Closed))
}

/// Takes the lead and writes `count` batches of a fresh world.
fn written(journal: &dyn Journal, seed: u64, count: u64) -> World {
    let mut world = World::new(seed);
    restore(journal, World::rules()).expect("an empty place loads");
    world.epoch = journal.lead().expect("a fresh journal gives an epoch");
    for _ in 0..count {
        let batch = world.batch();
        append(journal, batch).expect("a batch in order becomes safe");
    }
    world
}

/// Fails unless the journal gives the state of one of the world's batches, at least `safe`.
/// Returns which one.
///
/// # Panics
/// As the suite does.
pub fn check_prefix(journal: &dyn Journal, world: &World, safe: u64) -> u64 {
    let restored = restore(journal, World::rules()).expect("the place loads");
    let last = restored.head.last_batch;
    assert!(last >= safe, "batch {safe} was called safe, and {last} is the last that came back");
    assert_eq!(restored.head.set_aside, Vec::new(), "nothing is damaged");
    let (rows, mark) = world.outcome(last);
    assert!(rows_of(&restored.state) == rows, "the records are not those of batch {last}");
    assert_eq!(restored.head.mark, mark, "the counters are not those of batch {last}");
    assert_eq!(restored.state.last_seq(), mark.last_seq);
    restored.state.audit().expect("what came back passes its audit");
    last
}

fn an_empty_place_gives_an_empty_state(fresh: Fresh<'_>) {
    let place = fresh();
    let journal = open(&*place);
    assert!(journal.keeps());
    let restored = restore(&*journal, World::rules()).expect("an empty place loads");
    assert_eq!((restored.head.last_batch, restored.state.task_count()), (0, 0));
    assert_eq!(restored.head.at, None);
    assert_eq!(journal.events_after(0, 10).expect("an empty log is read"), Vec::new());
}

fn what_was_called_safe_survives_a_crash(fresh: Fresh<'_>) {
    let place = fresh();
    let journal = open(&*place);
    let mut world = written(&*journal, 1, 0);
    for number in 1..=40 {
        append(&*journal, world.batch()).expect("a batch in order becomes safe");
        if number % 5 == 0 {
            let after = place.crashed();
            assert_eq!(check_prefix(&*open(&*after), &world, number), number);
        }
    }
}

fn a_crash_at_any_moment_leaves_a_prefix(fresh: Fresh<'_>) {
    let place = fresh();
    let journal = open(&*place);
    let mut world = written(&*journal, 2, 0);
    let safe = Arc::new(Mutex::new(0_u64));
    for _ in 0..8 {
        for _ in 0..25 {
            let batch = world.batch();
            let (number, safe) = (batch.number, safe.clone());
            journal.append(
                batch,
                Box::new(move |result| {
                    if result.is_ok() {
                        *safe.lock().unwrap_or_else(PoisonError::into_inner) = number;
                    }
                }),
            );
        }
        let at_least = *safe.lock().unwrap_or_else(PoisonError::into_inner);
        check_prefix(&*open(&*place.crashed()), &world, at_least);
    }
    journal.flush().expect("everything becomes safe");
    assert_eq!(check_prefix(&*open(&*place.crashed()), &world, 200), 200);
}

fn batches_are_reported_once_and_in_order(fresh: Fresh<'_>) {
    let place = fresh();
    let journal = open(&*place);
    let mut world = written(&*journal, 3, 0);
    let (tell, told) = mpsc::channel();
    for _ in 0..100 {
        let batch = world.batch();
        let (number, tell) = (batch.number, tell.clone());
        journal.append(batch, Box::new(move |result| drop(tell.send((number, result)))));
    }
    drop(tell);
    journal.flush().expect("everything becomes safe");
    let reports: Vec<_> = told.iter().collect();
    let expected: Vec<_> = (1..=100).map(|number| (number, Ok(()))).collect();
    assert_eq!(reports, expected);
}

fn a_batch_out_of_order_fails_the_journal(fresh: Fresh<'_>) {
    let place = fresh();
    let journal = open(&*place);
    let mut world = written(&*journal, 4, 3);
    let mut skipping = world.batch();
    skipping.number += 1;
    assert!(append(&*journal, skipping).is_err(), "a batch that skips one is refused");
    let error = append(&*journal, world.batch()).expect_err("a failed journal takes nothing");
    assert!(matches!(error, JournalError::Failed(_)), "{error:?}");
    drop(journal);
    assert_eq!(check_prefix(&*open(&*place), &world, 3), 3);
}

fn an_earlier_epoch_is_refused(fresh: Fresh<'_>) {
    let place = fresh();
    let journal = open(&*place);
    let mut world = written(&*journal, 5, 2);
    let before = world.epoch;
    let epoch = journal.lead().expect("a journal gives an epoch");
    assert!(epoch > before);
    let error = append(&*journal, world.batch()).expect_err("an earlier epoch is refused");
    assert_eq!(error, JournalError::Fenced { own: before, current: epoch });
    drop(journal);
    let journal = open(&*place);
    check_prefix(&*journal, &world, 2);
    assert!(journal.lead().expect("a journal gives an epoch") > epoch);
}

fn events_are_read_in_order_across_restarts(fresh: Fresh<'_>) {
    let place = fresh();
    let journal = open(&*place);
    let mut world = written(&*journal, 6, 20);
    journal.close().expect("a journal closes");
    drop(journal);
    let journal = open(&*place);
    check_prefix(&*journal, &world, 20);
    world.epoch = journal.lead().expect("a journal gives an epoch");
    for _ in 0..20 {
        append(&*journal, world.batch()).expect("numbers go on across a restart");
    }
    let (mut read, mut after) = (Vec::new(), 0);
    loop {
        let page = journal.events_after(after, 7).expect("the log is read");
        let Some(last) = page.last() else { break };
        after = last.seq;
        read.extend(page);
    }
    assert!(read.len() > 40, "the world makes events");
    assert!(read == *world.events(), "the log differs from what was made");
    let rest = journal.events_after(after - 3, 100).expect("the log is read");
    assert_eq!(rest.len(), 3);
}

fn bodies_are_read_by_their_hash(fresh: Fresh<'_>) {
    let place = fresh();
    let journal = open(&*place);
    let world = written(&*journal, 7, 60);
    let (rows, _) = world.outcome(60);
    let bodies: Vec<_> =
        rows.iter().filter(|((table, _), _)| *table == TableName::Bodies).collect();
    assert!(!bodies.is_empty(), "the world makes large bodies");
    for ((_, key), text) in bodies {
        let hash = blake3::Hash::from_hex(key).expect("a body's key is its hash");
        let body = journal.body(hash.as_bytes()).expect("a body is read");
        assert_eq!(body.as_deref(), Some(text.as_slice()));
    }
    assert_eq!(journal.body(&[0; 32]).expect("a look-up that finds nothing is no error"), None);
}

fn what_was_set_aside_does_not_come_back(fresh: Fresh<'_>) {
    let place = fresh();
    let journal = open(&*place);
    let world = written(&*journal, 8, 30);
    journal.close().expect("a journal closes");
    let journal = open(&*place);
    let (rows, _) = world.outcome(30);
    let ((_, key), _) = rows
        .iter()
        .find(|((table, _), _)| *table == TableName::Resources)
        .expect("the world makes resources");
    let table = TableName::Resources.as_str().to_owned();
    let row = SetAside { table, key: key.clone(), why: "a test says so".to_owned() };
    journal.set_aside(&[row]).expect("a row is set aside");
    let restored = restore(&*open(&*place.crashed()), World::rules()).expect("the place loads");
    assert_eq!(restored.state.resource(key), None);
}

fn a_closed_journal_takes_nothing(fresh: Fresh<'_>) {
    let place = fresh();
    let journal = open(&*place);
    let mut world = written(&*journal, 9, 5);
    journal.close().expect("a journal closes");
    journal.close().expect("closing twice is no error");
    assert_eq!(append(&*journal, world.batch()), Err(JournalError::Closed));
    let reopened = open(&*place);
    assert_eq!(check_prefix(&*reopened, &world, 5), 5);
}
