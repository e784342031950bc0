//! Fills the tables of an empty state from rows that fit together, and rebuilds what follows.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;

use crate::model::ids::{RunId, SessionId, TaskId};
use crate::model::task::TaskSpec;
use crate::model::token::TokenFingerprint;
use crate::state::EngineState;
use crate::state::attempts::AttemptRecord;
use crate::state::auth::CapTokenRecord;
use crate::state::images::rebuild::{Rebuild, lost_handle, output_record};
use crate::state::images::{
    AttemptImage, Key, ResultImage, SetAside, SpecImage, TaskImage, TextImage,
};
use crate::state::outputs::{Body, BodyRecord, OutputRecord};
use crate::state::runs::{RunRecord, RunStatus};
use crate::state::sessions::SessionRecord;
use crate::state::tasks::TaskRecord;
use crate::table::Table;

/// Inserts after which a table's memory of the turn is dropped.
const COMMIT_EVERY: usize = 1024;

fn fill<K, V>(table: &mut Table<K, V>, records: impl IntoIterator<Item = (K, V)>)
where
    K: Eq + std::hash::Hash + Clone,
    V: Clone,
{
    for (at, (key, value)) in records.into_iter().enumerate() {
        table.insert(key, value);
        if at % COMMIT_EVERY == 0 {
            table.commit();
        }
    }
    table.commit();
}

impl EngineState {
    pub(super) fn fill(&mut self, mut rows: Rebuild, set_aside: &mut Vec<SetAside>) {
        self.fill_outputs(&mut rows);
        self.fill_attempts(&mut rows, set_aside);
        let specs = std::mem::take(&mut rows.specs);
        let mut tasks = std::mem::take(&mut rows.tasks);
        for (id, spec) in specs {
            let Some(image) = tasks.remove(&id) else { continue };
            let result = self.result_of(id, &image.result);
            self.tasks.insert(id, task_record(spec, image, result));
        }
        self.tasks.commit();
        fill(&mut self.resumes, rows.resumes);
        fill(&mut self.resources, rows.resources);
        self.fill_runs(rows.runs);
        self.fill_tokens(rows.tokens);
        fill(&mut self.sessions, rows.sessions);
        self.index_tasks();
        self.index_keys();
        self.index_sessions();
        for (key, resume) in self.resumes.iter() {
            self.questions.insert((resume.task_id, *key));
        }
        self.end_fill();
    }

    /// Ends the turn in which everything came in; nothing of it is asked of the outside.
    fn end_fill(&mut self) {
        let mut effects = Vec::new();
        self.commit(&mut effects);
    }

    fn fill_outputs(&mut self, rows: &mut Rebuild) {
        let bodies = std::mem::take(&mut rows.bodies);
        fill(
            &mut self.bodies,
            bodies.iter().map(|(hash, value)| {
                (*hash, BodyRecord { value: value.clone(), holders: 0, born_mark: 0 })
            }),
        );
        let outputs = std::mem::take(&mut rows.outputs);
        for (at, (place, event)) in outputs.into_iter().enumerate() {
            let Some(record) = output_record(event, &bodies) else { continue };
            if let Some(Body::Large { hash, .. }) = record.body()
                && let Some(body) = self.bodies.get_mut(hash)
            {
                body.holders += 1;
            }
            self.outputs.insert(place, Arc::new(record));
            if at % COMMIT_EVERY == 0 {
                self.outputs.commit();
            }
        }
        self.outputs.commit();
        self.bodies.commit();
    }

    /// Attempts, with stand-ins for the live ones whose record is damaged: their end must still
    /// be decided.
    fn fill_attempts(&mut self, rows: &mut Rebuild, set_aside: &mut Vec<SetAside>) {
        let images = std::mem::take(&mut rows.attempts);
        let mut bound = tokens_by_attempt(rows);
        for (place, mut image) in images {
            // What ends with an attempt are the tokens that are bound to it, whatever its row says.
            image.tokens.retain(|token| {
                rows.tokens.get(token).is_none_or(|record| place_of(record) == Some(place))
            });
            let unnamed = bound.remove(&place).unwrap_or_default();
            let unnamed = unnamed.into_iter().filter(|token| !image.tokens.contains(token));
            let unnamed: Vec<_> = unnamed.collect();
            image.tokens.extend(unnamed);
            let texts = rows.texts.remove(&place).unwrap_or_default();
            self.attempts.insert(place, attempt_record(image, texts));
        }
        let live: Vec<_> = rows
            .tasks
            .iter()
            .filter(|(_, task)| task.live)
            .map(|(id, task)| (*id, task.attempt))
            .collect();
        for place @ (task, attempt) in live {
            if self.attempts.contains(&place) {
                continue;
            }
            let Some(handle) = lost_handle(task, attempt) else { continue };
            let tokens = bound.remove(&place).unwrap_or_default();
            let texts = rows.texts.remove(&place).unwrap_or_default();
            let image = AttemptImage { tokens, handle, output_bytes: 0, notes: None };
            self.attempts.insert(place, attempt_record(image, texts));
            let key = Key::Attempt(task, attempt);
            set_aside.push(SetAside {
                table: key.table().as_str().to_owned(),
                key: key.text(),
                why: "it is live and its record is missing; a stand-in takes its place".to_owned(),
            });
        }
        for (place, output) in self.outputs.iter() {
            let (task, attempt, at) = *place;
            let Some(record) = self.attempts.get_mut(&(task, attempt)) else { continue };
            record.outputs = record.outputs.max(at.saturating_add(1));
            if matches!(&**output, OutputRecord::Final { .. }) {
                record.last_final = record.last_final.max(Some(at));
            }
        }
        self.attempts.commit();
    }

    fn result_of(&self, id: TaskId, image: &ResultImage) -> Option<Arc<Value>> {
        match image {
            ResultImage::None => None,
            ResultImage::Value(value) => Some(value.clone()),
            ResultImage::Output { attempt, place } => {
                self.outputs.get(&(id, *attempt, *place))?.body().map(Body::value)
            }
        }
    }

    /// Tokens; a worker's whose attempt is not live is revoked, whatever its row says.
    fn fill_tokens(&mut self, rows: impl IntoIterator<Item = (TokenFingerprint, CapTokenRecord)>) {
        let mut revoked: Vec<(u64, TokenFingerprint)> = Vec::new();
        for (fingerprint, mut record) in rows {
            let bound = record.task_id.zip(record.attempt);
            record.revoked |= bound.is_some_and(|(task, attempt)| !self.is_live(task, attempt));
            if record.revoked {
                revoked.push((record.token.issued_at, fingerprint));
            } else {
                self.expiries.insert((record.deadline_ms, fingerprint));
            }
            self.tokens.insert(fingerprint, record);
        }
        self.tokens.commit();
        revoked.sort_unstable();
        for (_, fingerprint) in revoked {
            self.counters.retired_tokens += 1;
            self.retired.insert((self.counters.retired_tokens, fingerprint));
        }
    }

    /// Edges, orders, handles and counts that follow from the tasks.
    fn index_tasks(&mut self) {
        let ids: Vec<TaskId> = self.tasks.iter().map(|(id, _)| *id).collect();
        for id in ids {
            let Some(task) = self.tasks.get(&id) else { continue };
            let (status, settled_ms, root) = (task.status, task.settled_ms, task.root);
            let (parent, session, step) = (task.parent, task.session, task.step.clone());
            let live = task.live.then_some(task.attempt);
            if let Some(session) = session {
                self.owned.insert((session, id));
            }
            if let Some(parent) = parent
                && let Some(above) = self.tasks.get_mut(&parent)
            {
                above.children += 1;
                self.children.insert((parent, id));
            }
            if let Some(step) = step {
                self.steps.insert((step.run, step.key, id));
            }
            if !status.is_settled() {
                self.count_live(root, true);
            } else if !self.is_pinned(id) {
                self.settled.insert((settled_ms, id));
            }
            if let Some(attempt) = live
                && let Some(record) = self.attempts.get(&(id, attempt))
            {
                let of_it = |token: &&TokenFingerprint| {
                    let record = self.tokens.get(*token);
                    record.is_some_and(|record| place_of(record) == Some((id, attempt)))
                };
                // Where the record names none of its own, the handle opens nothing.
                let own = record.tokens.iter().find(of_it).copied();
                let own = own.unwrap_or_else(|| TokenFingerprint::of_nonce(""));
                self.handles.insert(record.handle, own);
            }
        }
    }

    fn fill_runs(&mut self, runs: impl IntoIterator<Item = (RunId, RunRecord)>) {
        for (id, run) in runs {
            if run.status != RunStatus::Open {
                self.ended_runs.insert((run.ended_ms, id));
            }
            self.run_starts.insert((run.started_at, id));
            self.runs.insert(id, run);
        }
        self.runs.commit();
    }

    /// Keys of tasks and attempts. Where damage left one key on two records, the newest keeps it.
    fn index_keys(&mut self) {
        let keyed = self.tasks.iter().filter_map(|(id, task)| Some((task.key.clone()?, *id)));
        let mut keyed: Vec<_> = keyed.collect();
        keyed.sort_unstable();
        for (key, id) in keyed {
            if let Some(before) = self.task_keys.get(&key).copied()
                && let Some(task) = self.tasks.get_mut(&before)
            {
                task.key = None;
            }
            self.task_keys.insert(key, id);
        }
        let keyed = self.attempts.iter().filter_map(|((task, attempt), record)| {
            let notes = record.notes.as_ref()?;
            Some((*task, notes.key.clone()?, *attempt, notes.prompted))
        });
        let mut keyed: Vec<_> = keyed.collect();
        keyed.sort_unstable();
        for (task, key, attempt, prompted) in keyed {
            self.key_attempt(task, attempt, Some((key, prompted)));
        }
    }

    fn index_sessions(&mut self) {
        let lapse_after = self.rules.lapse_after_ms;
        let all: Vec<(SessionId, SessionRecord)> =
            self.sessions.iter().map(|(id, record)| (*id, record.clone())).collect();
        for (id, record) in all {
            if record.attached {
                self.lapses.insert((record.last_beat_ms.saturating_add(lapse_after), id));
            } else {
                self.idle_sessions.insert((record.idle_since_ms, id));
            }
        }
    }
}

/// The attempt that a token is bound to.
fn place_of(token: &CapTokenRecord) -> Option<(TaskId, u32)> {
    token.task_id.zip(token.attempt)
}

/// The tokens that are not revoked, by the attempt that they are bound to.
fn tokens_by_attempt(rows: &Rebuild) -> HashMap<(TaskId, u32), Vec<TokenFingerprint>> {
    let mut bound: HashMap<_, Vec<_>> = HashMap::new();
    for (fingerprint, token) in rows.tokens.iter().filter(|(_, token)| !token.revoked) {
        if let Some(place) = place_of(token) {
            bound.entry(place).or_default().push(*fingerprint);
        }
    }
    bound
}

fn attempt_record(image: AttemptImage, texts: TextImage) -> AttemptRecord {
    AttemptRecord {
        tokens: image.tokens,
        handle: image.handle,
        prompt: texts.prompt,
        system: texts.baked.then_some(texts.system),
        outputs: 0,
        output_bytes: image.output_bytes,
        last_final: None,
        texts_mark: 0,
        notes: image.notes,
    }
}

fn task_record(spec: SpecImage, image: TaskImage, last_result: Option<Arc<Value>>) -> TaskRecord {
    TaskRecord {
        spec: Arc::new(TaskSpec::new(spec.agent, spec.initial_directive)),
        status: image.status,
        attempt: image.attempt,
        live: image.live,
        suspended_on: image.suspended_on,
        last_result,
        created_at: image.created_at,
        updated_at: image.updated_at,
        settled_ms: image.settled_ms,
        depth: image.depth,
        parent: image.parent,
        root: image.root,
        session: image.session,
        children: 0,
        tree_live: 0,
        revision: image.revision,
        next_prompt: image.next_prompt,
        step: image.step,
        key: spec.key,
        on_interrupt: spec.on_interrupt,
    }
}
