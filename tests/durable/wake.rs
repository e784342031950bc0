//! Wake-ups: a journal that answers on a thread of its own, at once, whatever the state actor does
//! at that moment.

use std::sync::mpsc::{Sender, channel};

use adjutant::journal::memory::MemoryJournal;
use adjutant::journal::{Batch, Done, Head, Journal, JournalError};
use adjutant::{EventRecord, TaskSpec};
use adjutant_actors::state::images::{Row, SetAside};

use crate::world::{People, open, soon};

/// A journal in memory that appends on another thread.
struct Elsewhere {
    memory: MemoryJournal,
    batches: Sender<(Batch, Done)>,
}

impl Elsewhere {
    fn new() -> Self {
        let (memory, (batches, given)) = (MemoryJournal::default(), channel());
        let keeper = memory.clone();
        std::thread::spawn(move || {
            for (batch, done) in given {
                keeper.append(batch, done);
            }
        });
        Self { memory, batches }
    }
}

impl Journal for Elsewhere {
    fn load(&self, tail: usize, row: &mut dyn FnMut(Row<'_>)) -> Result<Head, JournalError> {
        self.memory.load(tail, row)
    }
    fn set_aside(&self, rows: &[SetAside]) -> Result<(), JournalError> {
        self.memory.set_aside(rows)
    }
    fn lead(&self) -> Result<u64, JournalError> {
        self.memory.lead()
    }
    fn append(&self, batch: Batch, done: Done) {
        self.batches.send((batch, done)).expect("the thread lives as long as this");
    }
    fn events_after(&self, after: u64, limit: usize) -> Result<Vec<EventRecord>, JournalError> {
        self.memory.events_after(after, limit)
    }
    fn body(&self, hash: &[u8; 32]) -> Result<Option<Vec<u8>>, JournalError> {
        self.memory.body(hash)
    }
    fn flush(&self) -> Result<(), JournalError> {
        self.memory.flush()
    }
    fn close(&self) -> Result<(), JournalError> {
        self.memory.close()
    }
}

/// With two callers, the word that a batch is safe often comes while the state actor looks at the
/// other one's turn, and nothing else would wake it afterwards.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_word_of_the_journal_is_missed_by_a_busy_state_actor() {
    let engine = open(Elsewhere::new()).await;
    let people = People::of(&engine).await;
    let callers: Vec<_> = (0..2)
        .map(|_| {
            let (engine, token) = (engine.clone(), people.operator.clone());
            tokio::spawn(async move {
                for _ in 0..4_000 {
                    let task = engine.start_task(&token, TaskSpec::new("pass", "do it")).await;
                    engine.cancel_task(&token, &task.unwrap()).await.unwrap();
                }
            })
        })
        .collect();
    for caller in callers {
        soon("the replies", caller).await.unwrap();
    }
}
