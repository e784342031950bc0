//! A journal in memory, for tests: it keeps frames, can hold batches back, fail and crash.
//!
//! It outlives no process; what it shares with a real backend is the contract.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::journal::{Batch, Done, Head, Journal, JournalError, frame};
use crate::model::event::EventRecord;
use crate::state::images::{Row, SetAside, TableName};
use crate::state::outputs::BodyHash;

/// What outlives a crash.
#[derive(Debug, Clone, Default)]
struct Kept {
    frames: Vec<Vec<u8>>,
    epoch: u64,
    aside: Vec<SetAside>,
}

#[derive(Default)]
struct Inner {
    kept: Kept,
    /// Batches that wait for a release, while they are held back.
    held: Option<Vec<(Vec<u8>, Done)>>,
    appended: Option<u64>,
    failed: Option<JournalError>,
}

/// A journal in memory. Clones share it.
///
/// ```
/// use adjutant_actors::journal::{Batch, Journal, memory::MemoryJournal};
/// use adjutant_actors::state::images::Touched;
/// # use adjutant_actors::{config::EngineCfg, state::{EngineState, Rules, auth::Access, effect::Now}};
/// # let mut state = EngineState::new(Rules::from(&EngineCfg::default()));
/// # let now = Now { unix: 1, ms: 1 };
/// let journal = MemoryJournal::default();
/// let epoch = journal.lead()?;
/// journal.hold(); // nothing is safe from here on
/// let batch = Batch::cut(&state, &mut Touched::default(), &[], 1, epoch, now);
/// journal.append(batch, Box::new(|_safe| ()));
/// assert_eq!(journal.held(), 1);
/// assert_eq!(journal.crashed().load(16, &mut |_| {})?.last_batch, 0);
/// assert_eq!(journal.release(), 1);
/// assert_eq!(journal.crashed().load(16, &mut |_| {})?.last_batch, 1);
/// journal.fail("no room is left");
/// assert!(journal.flush().is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Default)]
pub struct MemoryJournal {
    inner: Arc<Mutex<Inner>>,
}

type Folded = BTreeMap<(TableName, String), (u8, Vec<u8>)>;

impl Kept {
    fn fold(&self) -> Result<(Folded, Head), JournalError> {
        let mut rows = Folded::new();
        let mut head = Head { epoch: self.epoch, ..Head::default() };
        for bytes in &self.frames {
            let view = frame::read(bytes)
                .map_err(|error| JournalError::Misuse(format!("a kept frame: {error}")))?;
            for image in view.images {
                let place = (image.table, image.key.to_owned());
                match image.image {
                    Some((version, json)) => drop(rows.insert(place, (version, json.to_vec()))),
                    None => drop(rows.remove(&place)),
                }
            }
            for event in view.events {
                let parsed = serde_json::from_slice(event.json)
                    .map_err(|error| JournalError::Misuse(format!("a kept event: {error}")))?;
                head.events.push(EventRecord { seq: event.seq, at: event.at, event: parsed });
            }
            head.last_batch = view.number;
            head.at = Some(view.at);
            head.mark = view.mark;
        }
        for row in &self.aside {
            rows.retain(|(table, key), _| table.as_str() != row.table || *key != row.key);
        }
        Ok((rows, head))
    }
}

impl MemoryJournal {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Holds back every batch from now on: none is safe before [`Self::release`].
    pub fn hold(&self) {
        self.lock().held.get_or_insert_default();
    }

    /// Makes the batches that were held back safe, in their order, and goes on holding.
    pub fn release(&self) -> usize {
        let held = self.lock().held.as_mut().map(std::mem::take).unwrap_or_default();
        let count = held.len();
        for (bytes, done) in held {
            self.lock().kept.frames.push(bytes);
            done(Ok(()));
        }
        count
    }

    /// How many batches are held back.
    #[must_use]
    pub fn held(&self) -> usize {
        self.lock().held.as_ref().map_or(0, Vec::len)
    }

    /// Fails the journal, as a write error would: what is held back and what comes later.
    pub fn fail(&self, cause: &str) {
        let error = JournalError::Failed(cause.to_owned());
        let held = {
            let mut inner = self.lock();
            inner.failed.get_or_insert_with(|| error.clone());
            inner.held.as_mut().map(std::mem::take).unwrap_or_default()
        };
        for (_, done) in held {
            done(Err(error.clone()));
        }
    }

    /// The journal as a process finds it after a crash at this moment.
    #[must_use]
    pub fn crashed(&self) -> Self {
        let kept = self.lock().kept.clone();
        Self { inner: Arc::new(Mutex::new(Inner { kept, ..Inner::default() })) }
    }

    /// Why this batch is not taken, if it is not; takes note of it otherwise.
    fn admit(inner: &mut Inner, batch: &Batch) -> Result<(), JournalError> {
        if let Some(error) = &inner.failed {
            return Err(error.clone());
        }
        let current = inner.kept.epoch;
        if batch.epoch != current {
            return Err(JournalError::Fenced { own: batch.epoch, current });
        }
        let last = match inner.appended {
            Some(number) => number,
            None => inner.kept.fold()?.1.last_batch,
        };
        if batch.number != last + 1 {
            let number = batch.number;
            return Err(JournalError::Misuse(format!("batch {number} after batch {last}")));
        }
        inner.appended = Some(batch.number);
        Ok(())
    }
}

impl Journal for MemoryJournal {
    fn load(&self, tail: usize, row: &mut dyn FnMut(Row<'_>)) -> Result<Head, JournalError> {
        let (rows, mut head) = self.lock().kept.fold()?;
        for ((table, key), (version, image)) in &rows {
            row(Row { table: *table, key, version: *version, image });
        }
        let skip = head.events.len().saturating_sub(tail);
        head.events.drain(..skip);
        Ok(head)
    }

    fn set_aside(&self, rows: &[SetAside]) -> Result<(), JournalError> {
        self.lock().kept.aside.extend_from_slice(rows);
        Ok(())
    }

    fn lead(&self) -> Result<u64, JournalError> {
        let mut inner = self.lock();
        inner.kept.epoch += 1;
        Ok(inner.kept.epoch)
    }

    fn append(&self, batch: Batch, done: Done) {
        let mut bytes = Vec::new();
        let mut inner = self.lock();
        let written = Self::admit(&mut inner, &batch).and_then(|()| {
            frame::write(&batch, |_| true, &mut bytes)
                .map_err(|error| JournalError::Failed(error.to_string()))
        });
        if let Err(error) = written {
            let fenced = matches!(error, JournalError::Fenced { .. });
            let kept = if fenced { error.clone() } else { JournalError::Failed(error.to_string()) };
            inner.failed.get_or_insert(kept);
            drop(inner);
            return done(Err(error));
        }
        if let Some(held) = &mut inner.held {
            return held.push((bytes, done));
        }
        inner.kept.frames.push(bytes);
        drop(inner);
        done(Ok(()));
    }

    fn events_after(&self, after: u64, limit: usize) -> Result<Vec<EventRecord>, JournalError> {
        let (_, head) = self.lock().kept.fold()?;
        Ok(head.events.into_iter().filter(|record| record.seq > after).take(limit).collect())
    }

    fn body(&self, hash: &BodyHash) -> Result<Option<Vec<u8>>, JournalError> {
        let (mut rows, _) = self.lock().kept.fold()?;
        let key = blake3::Hash::from_bytes(*hash).to_hex().to_string();
        Ok(rows.remove(&(TableName::Bodies, key)).map(|(_, image)| image))
    }

    fn flush(&self) -> Result<(), JournalError> {
        self.release();
        self.lock().failed.clone().map_or(Ok(()), Err)
    }

    fn close(&self) -> Result<(), JournalError> {
        self.release();
        let mut inner = self.lock();
        match inner.failed.get_or_insert(JournalError::Closed) {
            JournalError::Closed => Ok(()),
            error => Err(error.clone()),
        }
    }
}
