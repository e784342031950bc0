//! Collects what turns touched, and makes the images of it: a note within each turn, one cut
//! for a whole batch. A record that many turns of a batch touched is written once.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::model::event::{Event, EventRecord};
use crate::model::ids::{SessionId, TaskId};
use crate::state::EngineState;
use crate::state::effect::Effect;
use crate::state::images::{
    AttemptImage, Image, Key, Mark, Record, ResultImage, TaskImage, TextImage,
};
use crate::state::outputs::OutputRecord;
use crate::state::tasks::TaskRecord;

/// The records that the turns of a batch touched.
#[derive(Debug, Default)]
pub struct Touched {
    keys: Vec<Key>,
}

impl Touched {
    /// Whether nothing was touched that a journal keeps.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

impl EngineState {
    /// Notes what the present turn touched. Call it before [`Self::commit`], and not at all where
    /// the turn is undone.
    ///
    /// A heartbeat that only moves `last_seen` is not noted: that field is not kept.
    pub fn note_touched(&self, touched: &mut Touched) {
        let keys = &mut touched.keys;
        let marks = self.counters_before.marks;
        let (created, flipped) = self.announced_now();
        for id in self.tasks.touched() {
            keys.push(Key::Task(*id));
            if !self.tasks.contains(id) || created.contains(id) {
                keys.push(Key::Spec(*id));
            }
        }
        for place @ (task, attempt) in self.attempts.touched() {
            keys.push(Key::Attempt(*task, *attempt));
            if self.attempts.get(place).is_none_or(|record| record.texts_mark > marks) {
                keys.push(Key::Text(*task, *attempt));
            }
        }
        let outputs = self.outputs.touched();
        keys.extend(outputs.map(|(task, attempt, place)| Key::Output(*task, *attempt, *place)));
        for hash in self.bodies.touched() {
            if self.bodies.get(hash).is_none_or(|record| record.born_mark > marks) {
                keys.push(Key::Body(*hash));
            }
        }
        for id in self.sessions.touched() {
            if !self.sessions.contains(id) || flipped.contains(id) {
                keys.push(Key::Session(*id));
            }
        }
        keys.extend(self.tokens.touched().map(|fingerprint| Key::Token(*fingerprint)));
        keys.extend(self.resumes.touched().map(|key| Key::Resume(*key)));
        keys.extend(self.resources.touched().map(|name| Key::Resource(name.clone())));
        keys.extend(self.runs.touched().map(|id| Key::Run(*id)));
    }

    /// Notes every record there is: for a whole copy of a state.
    pub fn note_all(&self, touched: &mut Touched) {
        let keys = &mut touched.keys;
        for (id, _) in self.tasks.iter() {
            keys.extend([Key::Task(*id), Key::Spec(*id)]);
        }
        for ((task, attempt), _) in self.attempts.iter() {
            keys.extend([Key::Attempt(*task, *attempt), Key::Text(*task, *attempt)]);
        }
        let outputs = self.outputs.iter();
        keys.extend(
            outputs.map(|((task, attempt, place), _)| Key::Output(*task, *attempt, *place)),
        );
        keys.extend(self.bodies.iter().map(|(hash, _)| Key::Body(*hash)));
        keys.extend(self.sessions.iter().map(|(id, _)| Key::Session(*id)));
        keys.extend(self.tokens.iter().map(|(fingerprint, _)| Key::Token(*fingerprint)));
        keys.extend(self.resumes.iter().map(|(key, _)| Key::Resume(*key)));
        keys.extend(self.resources.iter().map(|(name, _)| Key::Resource(name.clone())));
        keys.extend(self.runs.iter().map(|(id, _)| Key::Run(*id)));
    }

    /// The tasks that this turn creates, and the sessions that it opens, attaches or detaches: each
    /// makes an event.
    fn announced_now(&self) -> (BTreeSet<TaskId>, BTreeSet<SessionId>) {
        let (mut created, mut flipped) = (BTreeSet::new(), BTreeSet::new());
        for effect in &self.outbox {
            let Effect::Announce(record) = effect else { continue };
            match &record.event {
                Event::TaskCreated { task_id } => {
                    created.insert(*task_id);
                }
                Event::SessionAttached { session_id, .. }
                | Event::SessionDetached { session_id } => {
                    flipped.insert(*session_id);
                }
                _ => {}
            }
        }
        (created, flipped)
    }

    /// The images of all that was noted, as the records stand, in the order of their keys. Empties
    /// `touched`. Call it between turns.
    pub fn images(&self, touched: &mut Touched) -> Vec<Image> {
        let mut keys = std::mem::take(&mut touched.keys);
        keys.sort_unstable();
        keys.dedup();
        keys.into_iter().filter_map(|key| self.image(key)).collect()
    }

    /// The counters that belong to the images.
    #[must_use]
    pub fn mark(&self) -> Mark {
        Mark { last_seq: self.counters.last_seq, paused: self.counters.paused }
    }

    /// The image of one record; `None` where there is nothing to keep and never was.
    fn image(&self, key: Key) -> Option<Image> {
        let record = match &key {
            Key::Task(id) => {
                self.tasks.get(id).map(|task| Record::Task(self.task_image(*id, task)))
            }
            Key::Spec(id) => self
                .tasks
                .get(id)
                .map(|task| Record::Spec(task.spec.clone(), task.key.clone(), task.on_interrupt)),
            Key::Attempt(task, attempt) => self.attempts.get(&(*task, *attempt)).map(|record| {
                Record::Attempt(AttemptImage {
                    tokens: record.tokens.clone(),
                    handle: record.handle,
                    output_bytes: record.output_bytes,
                    notes: record.notes.clone(),
                })
            }),
            Key::Text(task, attempt) => match self.attempts.get(&(*task, *attempt)) {
                Some(record) if record.prompt.is_none() && record.system.is_none() => return None,
                Some(record) => Some(Record::Text(TextImage {
                    prompt: record.prompt.clone(),
                    baked: record.system.is_some(),
                    system: record.system.clone().flatten(),
                })),
                None => None,
            },
            Key::Output(task, attempt, place) => {
                self.outputs.get(&(*task, *attempt, *place)).cloned().map(Record::Output)
            }
            Key::Body(hash) => self.bodies.get(hash).map(|body| Record::Body(body.value.clone())),
            Key::Session(id) => self.sessions.get(id).cloned().map(Record::Session),
            Key::Token(fingerprint) => self.tokens.get(fingerprint).cloned().map(Record::Token),
            Key::Resume(resume) => self.resumes.get(resume).cloned().map(Record::Resume),
            Key::Resource(name) => self.resources.get(name).cloned().map(Record::Resource),
            Key::Run(id) => self.runs.get(id).cloned().map(Record::Run),
        };
        Some(Image { key, record })
    }

    fn task_image(&self, id: TaskId, task: &TaskRecord) -> TaskImage {
        TaskImage {
            status: task.status,
            attempt: task.attempt,
            live: task.live,
            suspended_on: task.suspended_on,
            result: self.result_image(id, task),
            created_at: task.created_at,
            updated_at: task.updated_at,
            settled_ms: task.settled_ms,
            depth: task.depth,
            parent: task.parent,
            root: task.root,
            session: task.session,
            revision: task.revision,
            next_prompt: task.next_prompt.clone(),
            step: task.step.clone(),
        }
    }

    /// The result by reference where the last Final of a recent attempt is the very same value.
    fn result_image(&self, id: TaskId, task: &TaskRecord) -> ResultImage {
        let Some(value) = &task.last_result else { return ResultImage::None };
        for attempt in (1..=task.attempt).rev().take(4) {
            let last = self.attempts.get(&(id, attempt)).and_then(|record| record.last_final);
            let Some(place) = last else { continue };
            let output = self.outputs.get(&(id, attempt, place));
            let same = output.is_some_and(|output| match &**output {
                OutputRecord::Final { body, .. } => body.is(value),
                _ => false,
            });
            if same {
                return ResultImage::Output { attempt, place };
            }
        }
        ResultImage::Value(value.clone())
    }
}

/// The events among these effects, in their order, for the batch that the effects belong to.
#[must_use]
pub fn events_of(effects: &[Effect]) -> Vec<Arc<EventRecord>> {
    let announced = effects.iter().filter_map(|effect| match effect {
        Effect::Announce(record) => Some(record.clone()),
        _ => None,
    });
    announced.collect()
}
