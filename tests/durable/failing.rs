//! Journals that fail, are taken over, or are left behind by their engine.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use adjutant::journal::memory::MemoryJournal;
use adjutant::journal::{Batch, Done, Head, Journal, JournalError};
use adjutant::{Engine, EngineError, EventRecord, LayerRegistry, TaskStatus};
use adjutant_actors::state::images::{Row, SetAside};
use adjutant_actors::state::outputs::BodyHash;

use crate::world::{
    Folder, People, agents, at_rest, cfg, dispatched, eventually, idle, open, read, soon, start,
};

fn says<T: std::fmt::Debug>(result: Result<T, EngineError>, what: &str) {
    match result {
        Err(EngineError::Stopped(reason)) => assert!(reason.contains(what), "{reason}"),
        other => panic!("not stopped because of {what}: {other:?}"),
    }
}

#[tokio::test]
async fn a_journal_that_fails_stops_the_engine_and_nothing_of_the_lost_batch_is_heard() {
    let journal = MemoryJournal::default();
    let engine = open(journal.clone()).await;
    let people = People::of(&engine).await;
    let (kept, lost) = (
        start(&engine, &people.operator, "pass").await,
        start(&engine, &people.operator, "hang").await,
    );
    let mut records = engine.subscribe_records();
    assert_eq!(engine.journal_failure(), None);
    journal.hold();
    let calls = [kept, lost].map(|task| {
        let (engine, token) = (engine.clone(), people.operator.clone());
        tokio::spawn(async move { engine.cancel_task(&token, &task).await })
    });
    let run = tokio::spawn({
        let (engine, token) = (engine.clone(), people.operator.clone());
        async move { engine.dispatch_attempt_with(&token, &lost, &agents()).await }
    });
    eventually("a batch", || async { journal.held() == 1 }).await;
    idle().await;
    journal.fail("the disk is full");
    for call in calls {
        says(soon("a caller", call).await.unwrap(), "the disk is full");
    }
    let outcome = soon("the dispatch", run).await.unwrap();
    assert!(outcome.is_err(), "{outcome:?}");
    says(engine.read_task_state(&people.operator, &kept).await, "the disk is full");
    says(engine.attach("late", adjutant::Role::Observer, Duration::MAX).await, "the disk is full");
    assert!(engine.journal_failure().unwrap().contains("the disk is full"));
    eventually("the end of the tree", || async { engine.root_cell().is_none() }).await;
    let told: Vec<EventRecord> = std::iter::from_fn(|| records.try_recv().ok()).collect();
    assert_eq!(told, [], "these events are in no log");
    let report = engine.shutdown(Duration::from_secs(1)).await;
    assert_eq!(report.interrupted, []);

    let after = open(journal.crashed()).await;
    for task in [kept, lost] {
        assert_eq!(read(&after, &people.operator, task).await.status, TaskStatus::Pending);
    }
    at_rest(&after).await;
}

/// A journal whose thread panics over a batch once it is told to, and never says a word of it.
#[derive(Clone, Default)]
struct Panics {
    inner: MemoryJournal,
    now: Arc<AtomicBool>,
}

impl Journal for Panics {
    fn load(&self, tail: usize, row: &mut dyn FnMut(Row<'_>)) -> Result<Head, JournalError> {
        self.inner.load(tail, row)
    }

    fn set_aside(&self, rows: &[SetAside]) -> Result<(), JournalError> {
        self.inner.set_aside(rows)
    }

    fn lead(&self) -> Result<u64, JournalError> {
        self.inner.lead()
    }

    fn append(&self, batch: Batch, done: Done) {
        if !self.now.load(Ordering::SeqCst) {
            return self.inner.append(batch, done);
        }
        std::thread::spawn(move || {
            let _held = (batch, done);
            panic!("the journal's own panic");
        });
    }

    fn events_after(&self, after: u64, limit: usize) -> Result<Vec<EventRecord>, JournalError> {
        self.inner.events_after(after, limit)
    }

    fn body(&self, hash: &BodyHash) -> Result<Option<Vec<u8>>, JournalError> {
        self.inner.body(hash)
    }

    fn flush(&self) -> Result<(), JournalError> {
        self.inner.flush()
    }

    fn close(&self) -> Result<(), JournalError> {
        self.inner.close()
    }
}

#[tokio::test]
async fn a_journal_whose_thread_panics_stops_the_engine_and_nobody_waits_for_its_word() {
    let journal = Panics::default();
    let engine = open(journal.clone()).await;
    let people = People::of(&engine).await;
    let task = start(&engine, &people.operator, "pass").await;
    journal.now.store(true, Ordering::SeqCst);
    let lost = engine.cancel_task(&people.operator, &task);
    says(soon("a caller", lost).await, "the journal is closed");
    assert!(engine.journal_failure().unwrap().contains("the journal is closed"));
    let after = open(journal.inner.crashed()).await;
    assert_eq!(read(&after, &people.operator, task).await.status, TaskStatus::Pending);
}

#[tokio::test]
async fn an_engine_whose_journal_another_one_leads_stops_at_its_next_change() {
    let journal = MemoryJournal::default();
    let engine = open(journal.clone()).await;
    let people = People::of(&engine).await;
    let successor = open(journal.clone()).await;
    assert_eq!(successor.recovery().epoch, engine.recovery().epoch + 1);
    let refused =
        engine.start_task(&people.operator, adjutant::TaskSpec::new("pass", "do it")).await;
    says(refused, "another engine leads");
    // The journal is spoiled for both then: a test in memory has one cause for all.
    assert!(engine.journal_failure().is_some());
}

#[tokio::test]
async fn a_journal_that_cannot_be_read_is_an_error_of_the_opening() {
    let folder = Folder::new();
    let store = folder.store();
    store.close().unwrap();
    let opened = Engine::open(cfg(), LayerRegistry::new(), std::sync::Arc::new(store)).await;
    match opened {
        Err(EngineError::Journal(error)) => assert_eq!(*error, JournalError::Closed),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_engine_that_is_dropped_makes_its_last_changes_safe_and_gives_the_place_free() {
    let folder = Folder::new();
    let engine = open(folder.store()).await;
    let people = People::of(&engine).await;
    let task = start(&engine, &people.operator, "hang").await;
    let run = dispatched(&engine, &people, task).await;
    drop(engine);
    assert!(soon("the dispatch", run).await.unwrap().is_err());
    let mut store = None;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while store.is_none() {
        assert!(tokio::time::Instant::now() < deadline, "the place is never free");
        store = adjutant::store::SqliteStore::open(folder.path(), Default::default()).ok();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let engine = open(store.unwrap()).await;
    assert_eq!(engine.recovery().interrupted, [], "the attempt was decided before");
    assert_eq!(read(&engine, &people.operator, task).await.status, TaskStatus::Blocked);
}

#[tokio::test]
async fn a_shutdown_makes_everything_safe_and_closes_the_journal() {
    let folder = Folder::new();
    let engine = open(folder.store()).await;
    let people = People::of(&engine).await;
    let task = start(&engine, &people.operator, "hang").await;
    let run = dispatched(&engine, &people, task).await;
    let report = soon("the shutdown", engine.shutdown(Duration::from_millis(200))).await;
    assert_eq!(report.interrupted, [(task, 1)]);
    assert!(soon("the dispatch", run).await.unwrap().is_err());
    // The engine is still there; its place is free all the same.
    let after = open(folder.store()).await;
    assert_eq!(after.recovery().interrupted, []);
    assert_eq!(read(&after, &people.operator, task).await.status, TaskStatus::Blocked);
    says(engine.flush().await, "shut down");
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_ends_though_the_journal_hangs_and_what_was_lost_was_never_heard() {
    let journal = MemoryJournal::default();
    let engine = open(journal.clone()).await;
    let people = People::of(&engine).await;
    journal.hold();
    let lost = tokio::spawn({
        let (engine, token) = (engine.clone(), people.operator.clone());
        async move { engine.start_task(&token, adjutant::TaskSpec::new("pass", "do it")).await }
    });
    idle().await;
    let start = tokio::time::Instant::now();
    engine.shutdown(Duration::from_secs(2)).await;
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    says(lost.await.unwrap(), "shut down");
    let after = open(journal.crashed()).await;
    assert_eq!(after.recovery().tasks, 0);
}

#[tokio::test]
#[should_panic(expected = "OpenOptions")]
async fn the_gate_of_an_opened_engine_is_not_changed_behind_its_journal() {
    let engine = open(MemoryJournal::default()).await;
    let _ = engine.with_gate(adjutant::RoleVerbGate::new());
}
