//! The data plane: where bodies go that a driving agent should carry by id only.
//!
//! Apart from the output of attempts, which the engine's state keeps: nothing here decides a
//! verdict, and a host may put a store of its own in its place.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use adjutant_actors::model::ids::TaskId;
use adjutant_actors::model::mint::Mint;
use adjutant_actors::model::output::{ContentRef, OutputEvent};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Names one stored output: `out-` and 32 hex digits. 128 random bits, since knowing it is what
/// a host may take for the right to read.
///
/// ```
/// use adjutant::{OutputRef, OutputRefParseError};
///
/// let text = format!("out-{:032x}", 7);
/// let name: OutputRef = text.parse()?;
/// assert_eq!(name.to_string(), text);
/// assert_eq!("out-7".parse::<OutputRef>(), Err(OutputRefParseError));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct OutputRef(u128);

/// A text that is no [`OutputRef`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an output reference must be `out-` and 32 lower-case hex digits")]
pub struct OutputRefParseError;

impl fmt::Display for OutputRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "out-{:032x}", self.0)
    }
}

impl fmt::Debug for OutputRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for OutputRef {
    type Err = OutputRefParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.strip_prefix("out-").ok_or(OutputRefParseError)?;
        let lower = digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if digits.len() != 32 || !lower {
            return Err(OutputRefParseError);
        }
        u128::from_str_radix(digits, 16).map(Self).map_err(|_| OutputRefParseError)
    }
}

impl TryFrom<String> for OutputRef {
    type Error = OutputRefParseError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<OutputRef> for String {
    fn from(id: OutputRef) -> Self {
        id.to_string()
    }
}

/// One stored output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OutputRecord {
    /// Its name.
    pub id: OutputRef,
    /// The task that it came from.
    pub task_id: TaskId,
    /// The attempt that it came from.
    pub attempt: u32,
    /// The agent that made it.
    pub producer_agent: String,
    /// What it is.
    pub event: OutputEvent,
    /// The outputs that it was made of.
    pub parent_refs: Vec<OutputRef>,
}

/// Why a store did not do as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OutputStoreError {
    /// Nothing is stored under this name.
    #[error("no output {0} is stored")]
    NotFound(String),
    /// Anything else.
    #[error("output store: {0}")]
    Internal(String),
}

/// Keeps outputs by reference. Dropping a future of it may leave its change done or not done.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use adjutant::{ContentRef, MemoryOutputStore, OutputEvent, OutputStore, OutputStoreError, TaskId};
///
/// let store: std::sync::Arc<dyn OutputStore> = std::sync::Arc::new(MemoryOutputStore::new());
/// let task = TaskId::from_bits(1);
/// let artifact = |text: &str| OutputEvent::Artifact {
///     name: "plan".into(),
///     content: ContentRef::inline_text(text),
/// };
/// let draft = store.append(task, 1, "writer", artifact("draft"), vec![]).await?;
/// let plan = store.append(task, 1, "writer", artifact("plan"), vec![draft]).await?;
/// let listed: Vec<adjutant::OutputRecord> = store.list_for_attempt(&task, 1).await?;
/// assert_eq!((listed.len(), store.get_latest_by_name("writer").await?.id), (2, plan));
/// assert!(matches!(store.get_latest_by_name("nobody").await, Err(OutputStoreError::NotFound(_))));
/// # Ok(()) }
/// ```
#[async_trait]
pub trait OutputStore: Send + Sync {
    /// Keeps an output and names it.
    ///
    /// # Errors
    /// `Internal` where it cannot be kept.
    async fn append(
        &self,
        task_id: TaskId,
        attempt: u32,
        producer: &str,
        event: OutputEvent,
        parent_refs: Vec<OutputRef>,
    ) -> Result<OutputRef, OutputStoreError>;

    /// The output of this name.
    ///
    /// # Errors
    /// `NotFound`.
    async fn get(&self, id: &OutputRef) -> Result<OutputRecord, OutputStoreError>;

    /// The newest output of a producer, whatever its task.
    ///
    /// # Errors
    /// `NotFound`.
    async fn get_latest_by_name(&self, producer: &str) -> Result<OutputRecord, OutputStoreError>;

    /// The outputs of an attempt, oldest first.
    ///
    /// # Errors
    /// `Internal`; an attempt without outputs has an empty list.
    async fn list_for_attempt(
        &self,
        task_id: &TaskId,
        attempt: u32,
    ) -> Result<Vec<OutputRecord>, OutputStoreError>;
}

/// Bounds of a [`MemoryOutputStore`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryStoreLimits {
    /// Bytes of a body above which it is kept once under its content hash.
    pub inline_bytes: u64,
    /// Records; the oldest go first.
    pub records: usize,
    /// Bytes of bodies in all; the oldest records go first.
    pub bytes: u64,
}

impl Default for MemoryStoreLimits {
    fn default() -> Self {
        Self { inline_bytes: 25 << 10, records: 100_000, bytes: 1 << 30 }
    }
}

/// What a [`MemoryOutputStore`] holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryStoreStats {
    /// Records.
    pub records: usize,
    /// Bodies that are kept under their hash, each once.
    pub bodies: usize,
    /// Bytes of all bodies as they are kept.
    pub bytes: u64,
}

/// Outputs in memory. Large bodies are kept once under the BLAKE3 hash of their JSON text.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), adjutant::OutputStoreError> {
/// # use adjutant::{ContentRef, MemoryOutputStore, MemoryStoreLimits, OutputEvent, OutputStore};
/// # use adjutant::{MemoryStoreStats, TaskId};
/// let store = MemoryOutputStore::with_limits(MemoryStoreLimits { records: 100, ..Default::default() });
/// let event = OutputEvent::Artifact { name: "log".into(), content: ContentRef::inline_text("x") };
/// let id = store.append(TaskId::from_bits(1), 1, "writer", event.clone(), vec![]).await?;
/// let MemoryStoreStats { records, .. } = store.stats();
/// assert!(store.get(&id).await?.event == event && records == 1);
/// # Ok(()) }
/// ```
pub struct MemoryOutputStore {
    limits: MemoryStoreLimits,
    mint: Mint,
    shelves: Mutex<Shelves>,
}

#[derive(Default)]
struct Shelves {
    next: u64,
    by_place: BTreeMap<u64, Kept>,
    places: HashMap<OutputRef, u64>,
    latest: HashMap<String, u64>,
    of_attempt: BTreeSet<(TaskId, u32, u64)>,
    bodies: HashMap<[u8; 32], Body>,
    bytes: u64,
}

struct Kept {
    record: OutputRecord,
    /// Hash of the body that the record holds by reference.
    body: Option<[u8; 32]>,
    bytes: u64,
}

struct Body {
    value: Arc<Value>,
    bytes: u64,
    holders: usize,
}

impl Default for MemoryOutputStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryOutputStore {
    /// A store with the default bounds.
    ///
    /// # Panics
    /// Where the operating system gives no random bytes.
    #[must_use]
    pub fn new() -> Self {
        Self::with_limits(MemoryStoreLimits::default())
    }

    /// A store with these bounds.
    ///
    /// # Panics
    /// As [`Self::new`].
    #[must_use]
    pub fn with_limits(limits: MemoryStoreLimits) -> Self {
        let mint = Mint::from_os().expect("the operating system gives random bytes");
        Self { limits, mint, shelves: Mutex::default() }
    }

    /// What it holds.
    #[must_use]
    pub fn stats(&self) -> MemoryStoreStats {
        let shelves = self.lock();
        MemoryStoreStats {
            records: shelves.by_place.len(),
            bodies: shelves.bodies.len(),
            bytes: shelves.bytes,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Shelves> {
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The value inside an event, if it carries one in place.
fn body_of(event: &mut OutputEvent) -> Option<&mut Value> {
    match event {
        OutputEvent::Partial { chunk } => Some(chunk),
        OutputEvent::Artifact { content: ContentRef::Inline { value }, .. }
        | OutputEvent::Final { content: ContentRef::Inline { value }, .. } => Some(value),
        _ => None,
    }
}

/// Length and hash of a value's JSON text.
fn digest(value: &Value) -> Result<(u64, [u8; 32]), OutputStoreError> {
    let mut hasher = blake3::Hasher::new();
    serde_json::to_writer(&mut hasher, value)
        .map_err(|error| OutputStoreError::Internal(error.to_string()))?;
    Ok((hasher.count(), *hasher.finalize().as_bytes()))
}

impl Shelves {
    /// Takes a large body off an event and keeps it once; returns its hash and the bytes that
    /// came to be kept.
    fn take_body(
        &mut self,
        event: &mut OutputEvent,
        inline: u64,
    ) -> Result<(Option<[u8; 32]>, u64), OutputStoreError> {
        let Some(value) = body_of(event) else { return Ok((None, 0)) };
        let (bytes, hash) = digest(value)?;
        if bytes <= inline {
            return Ok((None, bytes));
        }
        let value = Arc::new(std::mem::take(value));
        let body = self.bodies.entry(hash).or_insert(Body { value, bytes, holders: 0 });
        body.holders += 1;
        let fresh = if body.holders == 1 { bytes } else { 0 };
        self.bytes += fresh;
        Ok((Some(hash), 0))
    }

    /// The record as it was appended.
    fn whole(&self, place: u64) -> Option<OutputRecord> {
        let kept = self.by_place.get(&place)?;
        let mut record = kept.record.clone();
        if let Some(body) = kept.body.and_then(|hash| self.bodies.get(&hash))
            && let Some(value) = body_of(&mut record.event)
        {
            *value = (*body.value).clone();
        }
        Some(record)
    }

    fn forget_oldest(&mut self) {
        let Some((place, kept)) = self.by_place.pop_first() else { return };
        let record = kept.record;
        self.places.remove(&record.id);
        self.of_attempt.remove(&(record.task_id, record.attempt, place));
        if self.latest.get(&record.producer_agent) == Some(&place) {
            self.latest.remove(&record.producer_agent);
        }
        self.bytes -= kept.bytes;
        let Some(hash) = kept.body else { return };
        if let Some(body) = self.bodies.get_mut(&hash) {
            body.holders -= 1;
            if body.holders == 0 {
                self.bytes -= body.bytes;
                self.bodies.remove(&hash);
            }
        }
    }
}

#[async_trait]
impl OutputStore for MemoryOutputStore {
    async fn append(
        &self,
        task_id: TaskId,
        attempt: u32,
        producer: &str,
        mut event: OutputEvent,
        parent_refs: Vec<OutputRef>,
    ) -> Result<OutputRef, OutputStoreError> {
        let id = OutputRef(self.mint.bits128());
        let mut shelves = self.lock();
        let (body, bytes) = shelves.take_body(&mut event, self.limits.inline_bytes)?;
        let producer_agent = producer.to_owned();
        let record = OutputRecord { id, task_id, attempt, producer_agent, event, parent_refs };
        let place = shelves.next;
        shelves.next += 1;
        shelves.bytes += bytes;
        shelves.places.insert(id, place);
        shelves.latest.insert(producer.to_owned(), place);
        shelves.of_attempt.insert((task_id, attempt, place));
        shelves.by_place.insert(place, Kept { record, body, bytes });
        while shelves.by_place.len() > self.limits.records.max(1)
            || (shelves.bytes > self.limits.bytes && shelves.by_place.len() > 1)
        {
            shelves.forget_oldest();
        }
        Ok(id)
    }

    async fn get(&self, id: &OutputRef) -> Result<OutputRecord, OutputStoreError> {
        let shelves = self.lock();
        let found = shelves.places.get(id).and_then(|place| shelves.whole(*place));
        found.ok_or_else(|| OutputStoreError::NotFound(id.to_string()))
    }

    async fn get_latest_by_name(&self, producer: &str) -> Result<OutputRecord, OutputStoreError> {
        let shelves = self.lock();
        let found = shelves.latest.get(producer).and_then(|place| shelves.whole(*place));
        found.ok_or_else(|| OutputStoreError::NotFound(format!("of {producer}")))
    }

    async fn list_for_attempt(
        &self,
        task_id: &TaskId,
        attempt: u32,
    ) -> Result<Vec<OutputRecord>, OutputStoreError> {
        let shelves = self.lock();
        let of_attempt =
            shelves.of_attempt.range((*task_id, attempt, 0)..=(*task_id, attempt, u64::MAX));
        Ok(of_attempt.filter_map(|(_, _, place)| shelves.whole(*place)).collect())
    }
}
