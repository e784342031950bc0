//! Outputs: what workers send, and large bodies, each kept once.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::config::Limits;
use crate::errors::EngineError;
use crate::model::event::Event;
use crate::model::ids::TaskId;
use crate::model::measure::{measure, measure_text};
use crate::model::output::{ContentRef, OutputEvent};
use crate::state::EngineState;
use crate::state::attempts::AttemptRecord;
use crate::state::auth::{Access, Grant, Reach};
use crate::state::effect::Now;

/// BLAKE3 of the JSON text of a body.
pub type BodyHash = [u8; 32];

/// A large body and how many output events hold it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct BodyRecord {
    pub(crate) value: Arc<Value>,
    pub(crate) holders: u64,
    /// The engine's mark when the body came in.
    pub(crate) born_mark: u64,
}

/// A body as it is kept: shared, never copied by a turn.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Body {
    Inline(Arc<Value>),
    Large { hash: BodyHash, bytes: u64, value: Arc<Value> },
    Elsewhere(ContentRef),
}

/// An output event as it is kept.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum OutputRecord {
    Plain(OutputEvent),
    Artifact { name: String, body: Body },
    Final { ok: bool, body: Body },
}

/// An output event that was measured, and hashed where it is large, before its turn.
#[derive(Debug, Clone)]
pub struct NewOutput {
    record: OutputRecord,
    bytes: u64,
}

/// The hash as events and stores print it.
#[must_use]
pub fn body_ref(hash: &BodyHash) -> String {
    format!("b3-{}", blake3::Hash::from_bytes(*hash).to_hex())
}

impl Body {
    fn new(content: ContentRef, limits: &Limits) -> Result<(Self, u64), EngineError> {
        match content {
            ContentRef::Inline { value } => {
                let bytes = measure("output body", &value, limits.value_bytes)?;
                if bytes <= limits.inline_bytes {
                    return Ok((Self::Inline(Arc::new(value)), bytes));
                }
                let mut hasher = blake3::Hasher::new();
                serde_json::to_writer(&mut hasher, &value)
                    .map_err(|error| EngineError::Internal(format!("hash a body: {error}")))?;
                let hash = *hasher.finalize().as_bytes();
                Ok((Self::Large { hash, bytes, value: Arc::new(value) }, bytes))
            }
            ContentRef::Stored { .. } => Err(EngineError::InvalidArgument(
                "a worker sends a body or a file, not a reference to a stored body".to_owned(),
            )),
            other => {
                let bytes = measure("output body", &other.to_value(), limits.value_bytes)?;
                Ok((Self::Elsewhere(other), bytes))
            }
        }
    }

    /// As the worker sent it.
    fn full(&self) -> ContentRef {
        match self {
            Self::Inline(value) | Self::Large { value, .. } => {
                ContentRef::inline((**value).clone())
            }
            Self::Elsewhere(content) => content.clone(),
        }
    }

    /// As events carry it: large bodies by reference.
    fn shown(&self) -> ContentRef {
        match self {
            Self::Large { hash, bytes, .. } => {
                ContentRef::Stored { hash: body_ref(hash), bytes: *bytes }
            }
            other => other.full(),
        }
    }

    /// Whether the body and `value` are one and the same, not only equal.
    pub(crate) fn is(&self, value: &Arc<Value>) -> bool {
        match self {
            Self::Inline(own) | Self::Large { value: own, .. } => Arc::ptr_eq(own, value),
            Self::Elsewhere(_) => false,
        }
    }

    /// As a task's result.
    pub(crate) fn value(&self) -> Arc<Value> {
        match self {
            Self::Inline(value) | Self::Large { value, .. } => value.clone(),
            Self::Elsewhere(content) => Arc::new(content.to_value()),
        }
    }
}

impl OutputRecord {
    fn event(&self, body: impl Fn(&Body) -> ContentRef) -> OutputEvent {
        match self {
            Self::Plain(event) => event.clone(),
            Self::Artifact { name, body: held } => {
                OutputEvent::Artifact { name: name.clone(), content: body(held) }
            }
            Self::Final { ok, body: held } => OutputEvent::Final { content: body(held), ok: *ok },
        }
    }

    /// The event with large bodies by reference.
    pub(crate) fn shown(&self) -> OutputEvent {
        self.event(Body::shown)
    }

    pub(crate) fn body(&self) -> Option<&Body> {
        match self {
            Self::Plain(_) => None,
            Self::Artifact { body, .. } | Self::Final { body, .. } => Some(body),
        }
    }
}

impl NewOutput {
    /// Measures an event against the limits and hashes its body where it is large.
    ///
    /// # Errors
    /// `ValueTooLarge`; `InvalidArgument` for a reference to a stored body.
    pub fn prepare(event: OutputEvent, limits: &Limits) -> Result<Self, EngineError> {
        let (record, bytes) = match event {
            OutputEvent::Artifact { name, content } => {
                let named = measure_text("artifact name", &name, limits.inline_bytes)?;
                let (body, bytes) = Body::new(content, limits)?;
                (OutputRecord::Artifact { name, body }, bytes + named)
            }
            OutputEvent::Final { content, ok } => {
                let (body, bytes) = Body::new(content, limits)?;
                (OutputRecord::Final { ok, body }, bytes)
            }
            OutputEvent::Partial { chunk } => {
                let bytes = measure("output chunk", &chunk, limits.value_bytes)?;
                (OutputRecord::Plain(OutputEvent::Partial { chunk }), bytes)
            }
            OutputEvent::Progress { stage, note } => {
                let noted = note.as_deref().unwrap_or_default();
                let bytes = measure_text("stage", &stage, limits.inline_bytes)?
                    + measure_text("note", noted, limits.inline_bytes)?;
                (OutputRecord::Plain(OutputEvent::Progress { stage, note }), bytes)
            }
        };
        Ok(Self { record, bytes })
    }
}

impl EngineState {
    /// Takes one output event of a live attempt.
    ///
    /// # Errors
    /// Those of an authorization; `InvalidTransition` for an attempt that is not the live one;
    /// `OutputLimitExceeded`.
    pub fn append_output(
        &mut self,
        access: Access,
        task: TaskId,
        attempt: u32,
        new: NewOutput,
        now: Now,
    ) -> Result<(), EngineError> {
        let grant = self.check(access, Reach::Own(task), now)?;
        self.check_live_attempt(&grant, task, attempt)?;
        let Some(record) = self.attempts.get(&(task, attempt)) else {
            return Err(EngineError::Internal(format!(
                "attempt {attempt} of {task} has no record"
            )));
        };
        check_output_room(record, new.bytes, &self.rules.limits)?;
        self.spend(&grant)?;
        self.push_output(task, attempt, new, now);
        Ok(())
    }

    /// As [`Self::append_output`] with a Final, and sets the task's interim result as well.
    ///
    /// # Errors
    /// As [`Self::append_output`].
    pub fn append_result(
        &mut self,
        access: Access,
        task: TaskId,
        attempt: u32,
        new: NewOutput,
        now: Now,
    ) -> Result<(), EngineError> {
        let value = new.record.body().map(Body::value);
        self.append_output(access, task, attempt, new, now)?;
        if let Some(record) = self.tasks.get_mut(&task) {
            record.last_result = value;
        }
        Ok(())
    }

    fn check_live_attempt(
        &self,
        grant: &Grant,
        task: TaskId,
        attempt: u32,
    ) -> Result<(), EngineError> {
        let bound = grant.bound.is_none_or(|(_, bound)| bound == attempt);
        if bound && self.is_live(task, attempt) {
            return Ok(());
        }
        let live = self.task_record(task)?;
        let now = if live.live { live.attempt.to_string() } else { "none".to_owned() };
        Err(EngineError::InvalidTransition(format!(
            "attempt {attempt} of task {task} cannot send output: the live attempt is {now}"
        )))
    }

    fn push_output(&mut self, task: TaskId, attempt: u32, new: NewOutput, now: Now) {
        let Some(record) = self.attempts.get_mut(&(task, attempt)) else { return };
        let place = record.outputs;
        record.outputs += 1;
        record.output_bytes += new.bytes;
        if matches!(new.record, OutputRecord::Final { .. }) {
            record.last_final = Some(place);
        }
        let mut held = new.record;
        self.share_body(&mut held);
        let event = match &held {
            OutputRecord::Plain(OutputEvent::Partial { chunk }) => {
                OutputEvent::Partial { chunk: self.shown_value(chunk, new.bytes) }
            }
            other => other.event(Body::shown),
        };
        self.outputs.insert((task, attempt, place), Arc::new(held));
        self.record(now, Event::WorkerOutput { task_id: task, attempt, event });
    }

    /// Keeps a large body once: an equal one that is there already is used instead.
    fn share_body(&mut self, record: &mut OutputRecord) {
        let (OutputRecord::Artifact { body, .. } | OutputRecord::Final { body, .. }) = record
        else {
            return;
        };
        let Body::Large { hash, value, .. } = body else { return };
        if let Some(kept) = self.bodies.get_mut(hash) {
            kept.holders += 1;
            *value = kept.value.clone();
        } else {
            self.counters.marks += 1;
            let born_mark = self.counters.marks;
            self.bodies.insert(*hash, BodyRecord { value: value.clone(), holders: 1, born_mark });
        }
    }

    /// The last Final of an attempt: its value, the value as events show it, and its `ok`.
    pub(crate) fn last_final(
        &self,
        task: TaskId,
        attempt: u32,
    ) -> Option<(Arc<Value>, Value, bool)> {
        let place = self.attempts.get(&(task, attempt))?.last_final?;
        match &**self.outputs.get(&(task, attempt, place))? {
            OutputRecord::Final { ok, body } => Some((body.value(), body.shown().to_value(), *ok)),
            _ => None,
        }
    }

    /// Value and `ok` of the last Final of an attempt.
    #[must_use]
    pub fn final_of(&self, task: TaskId, attempt: u32) -> Option<(Value, bool)> {
        self.last_final(task, attempt).map(|(value, _, ok)| ((*value).clone(), ok))
    }

    /// The value as events show it: by reference above the inline size.
    pub(crate) fn shown_value(&self, value: &Value, bytes: u64) -> Value {
        if bytes <= self.rules.limits.inline_bytes {
            value.clone()
        } else {
            json!({ "omitted_bytes": bytes })
        }
    }

    /// All output events of an attempt, in their order.
    #[must_use]
    pub fn output_tail(&self, task: TaskId, attempt: u32) -> Vec<OutputEvent> {
        let count = self.attempts.get(&(task, attempt)).map_or(0, |record| record.outputs);
        (0..count)
            .filter_map(|place| self.outputs.get(&(task, attempt, place)))
            .map(|record| record.event(Body::full))
            .collect()
    }

    /// A large body by its hash.
    #[must_use]
    pub fn body(&self, hash: &BodyHash) -> Option<Value> {
        self.bodies.get(hash).map(|record| (*record.value).clone())
    }
}

fn check_output_room(
    record: &AttemptRecord,
    bytes: u64,
    limits: &Limits,
) -> Result<(), EngineError> {
    let events = u64::from(record.outputs) + 1;
    let total = record.output_bytes + bytes;
    for (unit, current, max) in [
        ("events", events, limits.outputs_per_attempt),
        ("bytes", total, limits.output_bytes_per_attempt),
    ] {
        if current > max {
            return Err(EngineError::OutputLimitExceeded { unit, current, max });
        }
    }
    Ok(())
}
