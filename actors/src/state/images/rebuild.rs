//! Builds a state from images: tables from rows, indexes and counts from tables. A row that
//! cannot be used is set aside with its reason; it never stops the rest.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::model::event::EventRecord;
use crate::model::ids::{ResumeKey, RunId, SessionId, TaskId};
use crate::model::output::{ContentRef, OutputEvent};
use crate::model::task::TaskStatus;
use crate::model::token::TokenFingerprint;
use crate::state::auth::CapTokenRecord;
use crate::state::images::{
    AttemptImage, IMAGE_VERSION, Key, Mark, Row, SetAside, SpecImage, TableName, TaskImage,
    TextImage,
};
use crate::state::outputs::{Body, BodyHash, OutputRecord};
use crate::state::resumes::ResumePending;
use crate::state::runs::RunRecord;
use crate::state::sessions::SessionRecord;
use crate::state::{EngineState, Rules};

mod fill;

/// A state that was rebuilt, and the rows that could not be used.
#[derive(Debug)]
pub struct Rebuilt {
    /// The state; it passes its audit.
    pub state: EngineState,
    /// What was set aside on the way.
    pub set_aside: Vec<SetAside>,
}

/// Takes rows in any order and builds a state from them.
///
/// ```
/// use adjutant_actors::config::EngineCfg;
/// use adjutant_actors::state::Rules;
/// use adjutant_actors::state::images::{Mark, Rebuild, Rebuilt, Row, TableName};
///
/// let mut rows = Rebuild::default();
/// rows.row(Row { table: TableName::Tasks, key: "no task", version: 1, image: b"{}" });
/// let rules = Rules::from(&EngineCfg::default());
/// let Rebuilt { state, set_aside } = rows.finish(rules, Mark::default(), Vec::new());
/// assert_eq!((state.task_count(), set_aside.len()), (0, 1));
/// ```
#[derive(Default)]
pub struct Rebuild {
    tasks: HashMap<TaskId, TaskImage>,
    specs: HashMap<TaskId, SpecImage>,
    attempts: HashMap<(TaskId, u32), AttemptImage>,
    texts: HashMap<(TaskId, u32), TextImage>,
    outputs: HashMap<(TaskId, u32, u32), OutputEvent>,
    bodies: HashMap<BodyHash, Arc<Value>>,
    sessions: HashMap<SessionId, SessionRecord>,
    tokens: HashMap<TokenFingerprint, CapTokenRecord>,
    resumes: HashMap<ResumeKey, ResumePending>,
    resources: HashMap<String, Arc<Value>>,
    runs: HashMap<RunId, RunRecord>,
    set_aside: Vec<SetAside>,
}

impl std::fmt::Debug for Rebuild {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rebuild").field("set_aside", &self.set_aside).finish_non_exhaustive()
    }
}

fn decode<T: DeserializeOwned>(image: &[u8]) -> Result<T, String> {
    serde_json::from_slice(image).map_err(|error| {
        // The error's own text may quote the row; what kind of error it is says enough.
        format!("its image cannot be read: {:?} error at byte {}", error.classify(), error.column())
    })
}

fn decode_body(hash: &BodyHash, image: &[u8]) -> Result<Arc<Value>, String> {
    if blake3::hash(image).as_bytes() != hash {
        return Err("its body does not have the hash that it is kept under".to_owned());
    }
    decode(image)
}

impl Rebuild {
    /// Takes one row. A damaged one is set aside.
    pub fn row(&mut self, row: Row<'_>) {
        if let Err(why) = self.take(row) {
            self.put_aside(row.table, row.key.to_owned(), &why);
        }
    }

    fn take(&mut self, row: Row<'_>) -> Result<(), String> {
        if row.version == 0 || row.version > IMAGE_VERSION {
            return Err(format!("its version is {}, and {IMAGE_VERSION} is known", row.version));
        }
        let key = Key::parse(row.table, row.key).ok_or("its key is not one of this table")?;
        let image = row.image;
        match key {
            Key::Task(id) => drop(self.tasks.insert(id, decode(image)?)),
            Key::Spec(id) => drop(self.specs.insert(id, decode(image)?)),
            Key::Attempt(task, attempt) => {
                self.attempts.insert((task, attempt), decode(image)?);
            }
            Key::Text(task, attempt) => drop(self.texts.insert((task, attempt), decode(image)?)),
            Key::Output(task, attempt, place) => {
                self.outputs.insert((task, attempt, place), decode(image)?);
            }
            Key::Body(hash) => drop(self.bodies.insert(hash, decode_body(&hash, image)?)),
            Key::Session(id) => drop(self.sessions.insert(id, decode(image)?)),
            Key::Token(fingerprint) => drop(self.tokens.insert(fingerprint, decode(image)?)),
            Key::Resume(key) => drop(self.resumes.insert(key, decode(image)?)),
            Key::Resource(name) => drop(self.resources.insert(name, decode(image)?)),
            Key::Run(id) => drop(self.runs.insert(id, decode(image)?)),
        }
        Ok(())
    }

    fn put_aside(&mut self, table: TableName, key: String, why: &str) {
        let table = table.as_str().to_owned();
        self.set_aside.push(SetAside { table, key, why: why.to_owned() });
    }

    /// Builds the state: sets aside what does not fit together, fills the tables, and rebuilds
    /// indexes and counts. `events` are the newest of the log, oldest first.
    #[must_use]
    pub fn finish(mut self, rules: Rules, mark: Mark, events: Vec<EventRecord>) -> Rebuilt {
        self.drop_unfit_tasks();
        self.drop_orphans();
        self.drop_doubled_handles();
        let mut state = EngineState::new(rules);
        let mut set_aside = std::mem::take(&mut self.set_aside);
        state.fill(self, &mut set_aside);
        state.counters.last_seq = mark.last_seq;
        state.counters.paused = mark.paused;
        state.counters_before = state.counters;
        state.tail = newest_run(events, mark.last_seq, state.rules.limits.event_tail.max(1));
        Rebuilt { state, set_aside }
    }

    /// Sets aside the tasks that break a rule of their own.
    fn drop_unfit_tasks(&mut self) {
        let unfit: Vec<_> = self
            .tasks
            .iter()
            .filter_map(|(id, task)| self.unfit(*id, task).map(|why| (*id, why)))
            .collect();
        for (id, why) in unfit {
            self.tasks.remove(&id);
            self.put_aside(TableName::Tasks, id.to_string(), why);
        }
    }

    fn unfit(&self, id: TaskId, task: &TaskImage) -> Option<&'static str> {
        if !self.specs.contains_key(&id) {
            return Some("what it was started with is missing");
        }
        let open = task.suspended_on.and_then(|key| self.resumes.get(&key)).is_some_and(|resume| {
            resume.task_id == id && resume.answer.is_none() && !resume.closed
        });
        let suspended = task.status == TaskStatus::Suspended;
        if suspended != open || task.suspended_on.is_some() != open {
            return Some("its status and its open question do not agree");
        }
        let may_live = matches!(task.status, TaskStatus::Running | TaskStatus::Suspended);
        if task.live && !(may_live && task.attempt > 0) {
            return Some("its status and its live attempt do not agree");
        }
        // A parent may be forgotten; one that is there is a level above, so none is in a circle.
        let above = task.parent.and_then(|parent| self.tasks.get(&parent));
        let fits = above.is_none_or(|above| {
            above.depth.checked_add(1) == Some(task.depth) && above.root == task.root
        });
        if !fits || (task.parent.is_none() && task.root != id) {
            return Some("its place below its parent does not fit");
        }
        if task.attempt == u32::MAX || task.revision == u64::MAX {
            return Some("its counters are at their end");
        }
        None
    }

    /// Sets aside what belongs to a task, an attempt or an output that is not there.
    fn drop_orphans(&mut self) {
        let mut aside: Vec<(Key, &'static str)> = Vec::new();
        let tasks = &self.tasks;
        let no_task = "its task is not there";
        for id in self.specs.keys().filter(|id| !tasks.contains_key(id)) {
            aside.push((Key::Spec(*id), no_task));
        }
        let exists = |task: &TaskId, attempt: u32| {
            tasks.get(task).is_some_and(|record| (1..=record.attempt).contains(&attempt))
        };
        for (task, attempt) in self.attempts.keys().filter(|(task, at)| !exists(task, *at)) {
            aside.push((Key::Attempt(*task, *attempt), no_task));
        }
        for (task, attempt) in self.texts.keys().filter(|(task, at)| !exists(task, *at)) {
            aside.push((Key::Text(*task, *attempt), no_task));
        }
        for ((task, attempt, place), event) in &self.outputs {
            let key = Key::Output(*task, *attempt, *place);
            if !exists(task, *attempt) {
                aside.push((key, no_task));
            } else if let Some(ContentRef::Stored { hash, .. }) = event.content()
                && !parse_ref(hash).is_some_and(|hash| self.bodies.contains_key(&hash))
            {
                aside.push((key, "its body is not there"));
            }
        }
        for (key, resume) in &self.resumes {
            let open = resume.answer.is_none() && !resume.closed;
            match tasks.get(&resume.task_id) {
                None => aside.push((Key::Resume(*key), no_task)),
                Some(task) if open && task.suspended_on != Some(*key) => {
                    aside.push((Key::Resume(*key), "it is open, and its task waits for another"));
                }
                Some(_) => {}
            }
        }
        for (key, why) in aside {
            self.forget(&key);
            self.put_aside(key.table(), key.text(), why);
        }
        self.drop_unheld_bodies();
    }

    /// Sets aside the attempts that name one handle, which can be the handle of one at most.
    fn drop_doubled_handles(&mut self) {
        let mut holders: HashMap<_, Vec<_>> = HashMap::new();
        for (place, attempt) in &self.attempts {
            holders.entry(attempt.handle).or_default().push(*place);
        }
        for (task, attempt) in holders.into_values().filter(|all| all.len() > 1).flatten() {
            let key = Key::Attempt(task, attempt);
            self.forget(&key);
            self.put_aside(key.table(), key.text(), "its handle is another attempt's too");
        }
    }

    fn drop_unheld_bodies(&mut self) {
        let stored = self.outputs.values().filter_map(|event| match event.content() {
            Some(ContentRef::Stored { hash, .. }) => parse_ref(hash),
            _ => None,
        });
        let held: HashSet<BodyHash> = stored.collect();
        let unheld: Vec<_> =
            self.bodies.keys().filter(|hash| !held.contains(*hash)).copied().collect();
        for hash in unheld {
            self.bodies.remove(&hash);
            self.put_aside(TableName::Bodies, Key::Body(hash).text(), "no output names it");
        }
    }

    fn forget(&mut self, key: &Key) {
        match key {
            Key::Spec(id) => drop(self.specs.remove(id)),
            Key::Attempt(task, attempt) => drop(self.attempts.remove(&(*task, *attempt))),
            Key::Text(task, attempt) => drop(self.texts.remove(&(*task, *attempt))),
            Key::Output(task, attempt, place) => {
                self.outputs.remove(&(*task, *attempt, *place));
            }
            Key::Resume(key) => drop(self.resumes.remove(key)),
            _ => {}
        }
    }
}

/// The longest run of events without gaps that ends with `last`, at most `max` of them.
fn newest_run(events: Vec<EventRecord>, last: u64, max: usize) -> VecDeque<Arc<EventRecord>> {
    let mut run = VecDeque::new();
    let mut next = last;
    for record in events.into_iter().rev() {
        if record.seq != next || next == 0 || run.len() == max {
            break;
        }
        next -= 1;
        run.push_front(Arc::new(record));
    }
    run
}

/// Reads the hash of a body as events print it.
fn parse_ref(text: &str) -> Option<BodyHash> {
    let hash = blake3::Hash::from_hex(text.strip_prefix("b3-")?).ok()?;
    Some(*hash.as_bytes())
}

/// The record of an output event; `None` where its body is not among `bodies`.
fn output_record(
    event: OutputEvent,
    bodies: &HashMap<BodyHash, Arc<Value>>,
) -> Option<OutputRecord> {
    let held = |content: ContentRef| match content {
        ContentRef::Inline { value } => Some(Body::Inline(Arc::new(value))),
        ContentRef::Stored { hash, bytes } => {
            let hash = parse_ref(&hash)?;
            Some(Body::Large { hash, bytes, value: bodies.get(&hash)?.clone() })
        }
        other @ ContentRef::FileRef { .. } => Some(Body::Elsewhere(other)),
    };
    Some(match event {
        OutputEvent::Artifact { name, content } => {
            OutputRecord::Artifact { name, body: held(content)? }
        }
        OutputEvent::Final { content, ok } => OutputRecord::Final { ok, body: held(content)? },
        plain => OutputRecord::Plain(plain),
    })
}

/// A handle key that no handle has: what stands in for a damaged one, since no handle hashes to a
/// text of ours.
fn lost_handle(task: TaskId, attempt: u32) -> Option<crate::model::token::HandleKey> {
    let text = blake3::hash(format!("lost handle of {task}/{attempt}").as_bytes()).to_hex();
    let text: serde::de::value::StrDeserializer<'_, serde::de::value::Error> =
        serde::de::IntoDeserializer::into_deserializer(text.as_str());
    crate::model::token::HandleKey::deserialize(text).ok()
}
