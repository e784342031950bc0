//! The journal's suite, run against the journal in memory, which backends are compared with.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::sync::Arc;

use adjutant_actors::journal::conformance::{Place, World, append, run};
use adjutant_actors::journal::memory::MemoryJournal;
use adjutant_actors::journal::{Journal, JournalError, NoJournal};

/// A place in memory: every opening is a process that finds what the one before left.
struct Memory(std::sync::Mutex<MemoryJournal>);

impl Place for Memory {
    fn open(&self) -> Result<Arc<dyn Journal>, JournalError> {
        let mut last = self.0.lock().unwrap();
        *last = last.crashed();
        Ok(Arc::new(last.clone()))
    }

    fn crashed(&self) -> Box<dyn Place> {
        Box::new(Self(std::sync::Mutex::new(self.0.lock().unwrap().crashed())))
    }
}

#[test]
fn the_journal_in_memory_keeps_the_contract() {
    run(&|| Box::new(Memory(std::sync::Mutex::default())));
}

#[test]
fn a_held_batch_is_neither_safe_nor_kept() {
    let journal = MemoryJournal::default();
    let mut world = World::new(1);
    world.epoch = journal.lead().unwrap();
    journal.hold();
    let (tell, told) = std::sync::mpsc::channel();
    journal.append(world.batch(), Box::new(move |result| drop(tell.send(result))));
    assert!(told.try_recv().is_err());
    assert_eq!(journal.crashed().load(1, &mut |_| {}).unwrap().last_batch, 0);
    assert_eq!(journal.release(), 1);
    assert_eq!(told.try_recv(), Ok(Ok(())));
    assert_eq!(journal.crashed().load(1, &mut |_| {}).unwrap().last_batch, 1);
}

#[test]
fn without_a_journal_every_batch_is_called_safe_and_none_is_kept() {
    let mut world = World::new(1);
    assert_eq!(append(&NoJournal, world.batch()), Ok(()));
    assert_eq!(NoJournal.load(9, &mut |_| panic!("nothing is kept")).unwrap().last_batch, 0);
}
