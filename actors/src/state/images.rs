//! Images: what a journal keeps of each record, and the name that it is kept under.
//!
//! An image is the whole record as it stands after a turn, so recovery is loading, not replaying.
//! What follows from other records is left out and rebuilt: indexes, counts, handles, the bodies
//! that outputs share. What never changes and may be long is a record of its own (a task's spec,
//! an attempt's texts), so that no status change writes a prompt again. No image holds a secret:
//! tokens are kept as their records are, with nonce and signature blanked.
//!
//! Images are JSON: people can query them, floats and nested values come back as they were, and a
//! field that is added later has a default. Each has the version of its form.

use std::fmt;
use std::sync::Arc;

use serde::de::IntoDeserializer;
use serde::de::value::{Error as ValueError, StrDeserializer};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::model::ids::{ResumeKey, SessionId, TaskId};
use crate::model::task::{OnInterrupt, TaskSpec, TaskStatus};
use crate::model::token::{HandleKey, TokenFingerprint};
use crate::state::auth::CapTokenRecord;
use crate::state::keys::{AttemptNotes, OwnedKey};
use crate::state::outputs::{BodyHash, OutputRecord};
use crate::state::resumes::ResumePending;
use crate::state::sessions::SessionRecord;

mod collect;
mod rebuild;
mod recover;
mod spec;
#[cfg(test)]
mod tests;

pub use self::collect::{Touched, events_of};
pub use self::rebuild::{Rebuild, Rebuilt};
pub use self::recover::Recovery;
pub(crate) use self::spec::SpecImage;

/// The version of the images that this code writes. Older ones are read for ever.
pub const IMAGE_VERSION: u8 = 1;

/// The kinds of records that a journal keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum TableName {
    /// Tasks, without what they were started with.
    Tasks,
    /// What tasks were started with; never changes.
    Specs,
    /// Attempts, without their texts.
    Attempts,
    /// Prompts and system prompts of attempts.
    Texts,
    /// Output events.
    Outputs,
    /// Large bodies by their hash.
    Bodies,
    /// Sessions.
    Sessions,
    /// Token records by fingerprint.
    Tokens,
    /// Questions and their answers.
    Resumes,
    /// Named values.
    Resources,
}

impl TableName {
    /// Every table.
    pub const ALL: [Self; 10] = [
        Self::Tasks,
        Self::Specs,
        Self::Attempts,
        Self::Texts,
        Self::Outputs,
        Self::Bodies,
        Self::Sessions,
        Self::Tokens,
        Self::Resumes,
        Self::Resources,
    ];

    /// The word for the table, fit for a table's name in a database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tasks => "tasks",
            Self::Specs => "specs",
            Self::Attempts => "attempts",
            Self::Texts => "texts",
            Self::Outputs => "outputs",
            Self::Bodies => "bodies",
            Self::Sessions => "sessions",
            Self::Tokens => "tokens",
            Self::Resumes => "resumes",
            Self::Resources => "resources",
        }
    }

    /// The number of the table in frames; never given to another one.
    #[must_use]
    pub fn wire(self) -> u8 {
        match self {
            Self::Tasks => 1,
            Self::Specs => 2,
            Self::Attempts => 3,
            Self::Texts => 4,
            Self::Outputs => 5,
            Self::Bodies => 6,
            Self::Sessions => 7,
            Self::Tokens => 8,
            Self::Resumes => 9,
            Self::Resources => 10,
        }
    }

    /// The table with this number.
    #[must_use]
    pub fn from_wire(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|table| table.wire() == number)
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Names one record of one table.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Key {
    /// A task.
    Task(TaskId),
    /// What a task was started with.
    Spec(TaskId),
    /// An attempt of a task.
    Attempt(TaskId, u32),
    /// The texts of an attempt.
    Text(TaskId, u32),
    /// An output event of an attempt, by its place from 0.
    Output(TaskId, u32, u32),
    /// A large body.
    Body(BodyHash),
    /// A session.
    Session(SessionId),
    /// A token.
    Token(TokenFingerprint),
    /// A question.
    Resume(ResumeKey),
    /// A named value.
    Resource(String),
}

/// Reads a text form that a type has for serde only.
fn parse_text<'de, T: Deserialize<'de>>(text: &'de str) -> Option<T> {
    let text: StrDeserializer<'de, ValueError> = text.into_deserializer();
    T::deserialize(text).ok()
}

impl Key {
    /// The table that the record is in.
    #[must_use]
    pub fn table(&self) -> TableName {
        match self {
            Self::Task(_) => TableName::Tasks,
            Self::Spec(_) => TableName::Specs,
            Self::Attempt(..) => TableName::Attempts,
            Self::Text(..) => TableName::Texts,
            Self::Output(..) => TableName::Outputs,
            Self::Body(_) => TableName::Bodies,
            Self::Session(_) => TableName::Sessions,
            Self::Token(_) => TableName::Tokens,
            Self::Resume(_) => TableName::Resumes,
            Self::Resource(_) => TableName::Resources,
        }
    }

    /// The key as text; one spelling per key. Parts are separated by `/`.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Task(id) | Self::Spec(id) => id.to_string(),
            Self::Attempt(id, attempt) | Self::Text(id, attempt) => format!("{id}/{attempt}"),
            Self::Output(id, attempt, place) => format!("{id}/{attempt}/{place}"),
            Self::Body(hash) => blake3::Hash::from_bytes(*hash).to_hex().to_string(),
            Self::Session(id) => id.to_string(),
            Self::Token(fingerprint) => fingerprint.to_string(),
            Self::Resume(key) => key.to_string(),
            Self::Resource(name) => name.clone(),
        }
    }

    /// Reads a key of `table`; `None` for anything but the one spelling.
    #[must_use]
    pub fn parse(table: TableName, text: &str) -> Option<Self> {
        let mut parts = text.split('/');
        let mut task = || parts.next().and_then(|part| part.parse::<TaskId>().ok());
        let key = match table {
            TableName::Tasks => Self::Task(text.parse().ok()?),
            TableName::Specs => Self::Spec(text.parse().ok()?),
            TableName::Attempts => Self::Attempt(task()?, parts.next()?.parse().ok()?),
            TableName::Texts => Self::Text(task()?, parts.next()?.parse().ok()?),
            TableName::Outputs => {
                let (task, attempt) = (task()?, parts.next()?.parse().ok()?);
                Self::Output(task, attempt, parts.next()?.parse().ok()?)
            }
            TableName::Bodies => Self::Body(*blake3::Hash::from_hex(text).ok()?.as_bytes()),
            TableName::Sessions => Self::Session(text.parse().ok()?),
            TableName::Tokens => Self::Token(parse_text(text)?),
            TableName::Resumes => Self::Resume(text.parse().ok()?),
            TableName::Resources => Self::Resource(text.to_owned()),
        };
        (key.text() == text).then_some(key)
    }
}

/// A record as it stands after a batch of turns, or the word that it is gone.
///
/// Cheap to make and to send to another thread; the encoding is left to the journal's own. Its
/// `Debug` shows the key alone: records hold prompts and results.
#[derive(Clone)]
pub struct Image {
    key: Key,
    record: Option<Record>,
}

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.is_removal() { "Removal" } else { "Image" };
        f.debug_tuple(what).field(&self.key).finish()
    }
}

impl Image {
    /// Which record it is.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Whether the record is gone.
    #[must_use]
    pub fn is_removal(&self) -> bool {
        self.record.is_none()
    }

    /// Appends the record's JSON to `out`; nothing for a removal.
    ///
    /// # Errors
    /// That of the JSON writer, which no value that passed the engine's door meets.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), serde_json::Error> {
        self.record.as_ref().map_or(Ok(()), |record| record.encode(out))
    }
}

/// A row as a backend gives it back.
#[derive(Clone, Copy)]
pub struct Row<'a> {
    /// Its table.
    pub table: TableName,
    /// [`Key::text`] of its key.
    pub key: &'a str,
    /// Version of the image.
    pub version: u8,
    /// The image, as [`Image::encode`] wrote it.
    pub image: &'a [u8],
}

/// A row that cannot be used, and why. It is kept apart for people to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetAside {
    /// The table's name; `journal` and `events` for what is not a record.
    pub table: String,
    /// The row's key as text.
    pub key: String,
    /// What is wrong with it.
    pub why: String,
}

/// The state's counters that do not follow from its records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mark {
    /// Number of the newest event.
    pub last_seq: u64,
    /// Whether new dispatches wait.
    pub paused: bool,
}

#[derive(Clone)]
pub(crate) enum Record {
    Task(TaskImage),
    Spec(Arc<TaskSpec>, Option<Arc<OwnedKey>>, OnInterrupt),
    Attempt(AttemptImage),
    Text(TextImage),
    Output(Arc<OutputRecord>),
    Body(Arc<Value>),
    Session(SessionRecord),
    Token(CapTokenRecord),
    Resume(ResumePending),
    Resource(Arc<Value>),
}

impl Record {
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), serde_json::Error> {
        match self {
            Self::Task(task) => serde_json::to_writer(out, task),
            Self::Spec(spec, key, on_interrupt) => {
                serde_json::to_writer(out, &SpecImage::of(spec, key.clone(), *on_interrupt))
            }
            Self::Attempt(attempt) => serde_json::to_writer(out, attempt),
            Self::Text(text) => serde_json::to_writer(out, text),
            Self::Output(output) => serde_json::to_writer(out, &output.shown()),
            Self::Body(value) | Self::Resource(value) => serde_json::to_writer(out, value),
            Self::Session(session) => serde_json::to_writer(out, session),
            Self::Token(token) => serde_json::to_writer(out, token),
            Self::Resume(resume) => serde_json::to_writer(out, resume),
        }
    }
}

/// A task without its spec and without what other records tell.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct TaskImage {
    status: TaskStatus,
    attempt: u32,
    live: bool,
    suspended_on: Option<ResumeKey>,
    result: ResultImage,
    created_at: u64,
    updated_at: u64,
    settled_ms: u64,
    depth: u32,
    parent: Option<TaskId>,
    root: TaskId,
    session: Option<SessionId>,
    revision: u64,
    next_prompt: Option<Arc<str>>,
}

/// A task's result: by reference where an output event holds it already.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ResultImage {
    None,
    Output { attempt: u32, place: u32 },
    Value(Arc<Value>),
}

/// An attempt without its texts; how many outputs it sent follows from these.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct AttemptImage {
    tokens: Vec<TokenFingerprint>,
    handle: HandleKey,
    output_bytes: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    notes: Option<Box<AttemptNotes>>,
}

/// The texts of an attempt, which never change once they are there.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct TextImage {
    prompt: Option<Arc<str>>,
    /// Whether a system prompt was baked, be it none.
    baked: bool,
    system: Option<Arc<str>>,
}

/// Serde form of an optional value in which `Some(null)` is not `None`; the field is left out
/// where there is none.
pub(crate) mod present {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer};
    use serde_json::Value;

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Arc<Value>>, D::Error> {
        Arc::<Value>::deserialize(from).map(Some)
    }
}
