//! Tests: whatever a state went through, its images build an equal one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::config::EngineCfg;
use crate::model::event::EventRecord;
use crate::model::output::OutputEvent;
use crate::model::role::Role;
use crate::model::session::SessionFaces;
use crate::model::token::TokenSigner;
use crate::state::attempts::{AttemptEnd, NewAttempt};
use crate::state::auth::{Access, NewToken, Reach};
use crate::state::effect::{Effect, Now};
use crate::state::outputs::NewOutput;
use crate::state::resumes::Measured;
use crate::state::sessions::NewSession;
use crate::state::tasks::NewTask;
use crate::state::{EngineState, Rules};

mod hostile;
mod keys;

type Rows = BTreeMap<(TableName, String), Vec<u8>>;

/// A state with a journal of rows beside it, kept by what turns note.
struct World {
    state: EngineState,
    signer: TokenSigner,
    rows: Rows,
    written: Vec<(TableName, String)>,
    events: Vec<EventRecord>,
    now: Now,
    ids: u128,
    secrets: Vec<String>,
}

fn rules() -> Rules {
    Rules::from(&EngineCfg::default())
}

fn apply(rows: &mut Rows, images: Vec<Image>) -> Vec<(TableName, String)> {
    let mut written = Vec::new();
    for image in images {
        let place = (image.key().table(), image.key().text());
        if image.is_removal() {
            rows.remove(&place);
        } else {
            let mut bytes = Vec::new();
            image.encode(&mut bytes).unwrap();
            rows.insert(place.clone(), bytes);
            written.push(place);
        }
    }
    written
}

fn rebuild(rows: &Rows, mark: Mark, events: &[EventRecord]) -> Rebuilt {
    let mut rebuild = Rebuild::default();
    for ((table, key), image) in rows {
        rebuild.row(Row { table: *table, key, version: IMAGE_VERSION, image });
    }
    rebuild.finish(rules(), mark, events.to_vec())
}

fn rows_of(state: &EngineState) -> Rows {
    let (mut rows, mut touched) = (Rows::new(), Touched::default());
    state.note_all(&mut touched);
    apply(&mut rows, state.images(&mut touched));
    rows
}

impl World {
    fn new() -> Self {
        Self {
            state: EngineState::new(rules()),
            signer: TokenSigner::new([7; 32]),
            rows: Rows::new(),
            written: Vec::new(),
            events: Vec::new(),
            now: Now { unix: 1_000, ms: 10 },
            ids: 0,
            secrets: Vec::new(),
        }
    }

    /// Runs one turn and keeps what it touched, as a batch of its own.
    fn turn<R>(&mut self, act: impl FnOnce(&mut EngineState, Now) -> R) -> R {
        self.now.ms += 7;
        let result = act(&mut self.state, self.now);
        let (mut touched, mut effects) = (Touched::default(), Vec::new());
        self.state.note_touched(&mut touched);
        self.state.commit(&mut effects);
        self.written = apply(&mut self.rows, self.state.images(&mut touched));
        self.events.extend(events_of(&effects).iter().map(|event| (**event).clone()));
        result
    }

    fn token(&mut self, role: Role) -> NewToken {
        let life = Duration::from_secs(3_600);
        let token = self.signer.session("ann", role, life);
        let signed = self.signer.verify(&token).unwrap();
        self.secrets.extend([token.nonce.clone(), token.sig_hex.clone()]);
        NewToken { token, signed, deadline_ms: self.now.ms + 3_600_000 }
    }

    fn attach(&mut self) -> Access {
        let token = self.token(Role::Operator);
        let access = Access::Token(token.signed);
        let faces = SessionFaces { hook_id: Some("hook".to_owned()), ..SessionFaces::default() };
        let new = NewSession { operator_id: "ann".into(), role: Role::Operator, faces, token };
        self.turn(|state, now| state.attach(new, now)).unwrap();
        access
    }

    fn task(&mut self, access: Access, parent: Option<TaskId>) -> TaskId {
        self.ids += 1;
        let id = TaskId::from_bits(self.ids);
        let spec = Arc::new(TaskSpec::new("coder", "the first directive"));
        self.turn(|state, now| {
            state.create_task(access, NewTask { parent, ..NewTask::new(id, spec) }, now)
        })
        .unwrap()
    }

    fn begin(&mut self, access: Access, task: TaskId) -> Access {
        let token = self.token(Role::Worker);
        let worker = Access::Token(token.signed);
        let handle = lost(self.ids, token.signed.fingerprint);
        let new = NewAttempt { task, token, handle, prompt: Some("do it".into()), key: None };
        self.turn(|state, now| state.begin_attempt(access, new, now)).unwrap();
        worker
    }

    fn output(&mut self, worker: Access, task: TaskId, attempt: u32, event: OutputEvent) {
        let new = NewOutput::prepare(event, &rules().limits).unwrap();
        self.turn(|state, now| state.append_output(worker, task, attempt, new, now)).unwrap();
    }

    fn finish(&mut self, task: TaskId, attempt: u32) {
        self.turn(|state, now| state.finish_attempt(task, attempt, AttemptEnd::Done, now)).unwrap();
    }

    fn ask(&mut self, worker: Access, task: TaskId) -> ResumeKey {
        self.ids += 1;
        let key = ResumeKey::from_bits(self.ids);
        let question = measured(json!({ "why": null }));
        self.turn(|state, now| state.query_senior(worker, task, key, question, now)).unwrap()
    }

    fn rebuilt(&self) -> Rebuilt {
        rebuild(&self.rows, self.state.mark(), &self.events)
    }

    /// Fails unless the rows build a state that equals this one.
    fn check(&self) -> EngineState {
        self.state.audit().unwrap();
        let Rebuilt { state, set_aside } = self.rebuilt();
        assert_eq!(set_aside, Vec::new());
        state.audit().unwrap();
        assert_eq!(rows_of(&state), rows_of(&self.state));
        assert_eq!(rows_of(&state), self.rows);
        assert_eq!(state.mark(), self.state.mark());
        assert_eq!(state.events_after(0, 10_000), self.state.events_after(0, 10_000));
        assert_eq!(state.live_tasks(), self.state.live_tasks());
        assert_eq!(state.handle_count(), self.state.handle_count());
        state
    }
}

fn measured(value: Value) -> Measured {
    Measured { value: Arc::new(value), bytes: 20 }
}

fn lost(salt: u128, fingerprint: TokenFingerprint) -> HandleKey {
    let text = blake3::hash(format!("{salt} {fingerprint}").as_bytes()).to_hex();
    serde_json::from_value(json!(text.as_str())).unwrap()
}

fn final_of(value: Value) -> OutputEvent {
    OutputEvent::Final { content: crate::model::output::ContentRef::inline(value), ok: true }
}

fn big(salt: u8) -> Value {
    json!({ "text": "x".repeat(30 << 10), "salt": salt, "half": 0.1 + 0.2 })
}

/// A world with a bit of everything in it.
fn busy() -> (World, Access, Vec<TaskId>) {
    let mut world = World::new();
    let ann = world.attach();
    let tasks: Vec<_> = (0..5).map(|_| world.task(ann, None)).collect();
    let worker = world.begin(ann, tasks[0]);
    world.output(worker, tasks[0], 1, OutputEvent::Partial { chunk: json!(1.5) });
    world.output(worker, tasks[0], 1, final_of(big(1)));
    world.finish(tasks[0], 1);
    let worker = world.begin(ann, tasks[1]);
    world.output(worker, tasks[1], 1, final_of(big(1)));
    world.turn(|state, _| state.bake_system_prompt(tasks[1], 1, Some("be good".into()))).unwrap();
    world.task(worker, Some(tasks[1]));
    let worker = world.begin(ann, tasks[2]);
    world.ask(worker, tasks[2]);
    let worker = world.begin(ann, tasks[3]);
    let key = world.ask(worker, tasks[3]);
    let answer = measured(Value::Null);
    world.turn(|state, now| state.answer_query(ann, key, answer, now)).unwrap();
    world.turn(|state, now| state.cancel_task(ann, tasks[4], now)).unwrap();
    world.turn(|state, _| state.set_resource("a/b".to_owned(), Arc::new(json!([1])))).unwrap();
    (world, ann, tasks)
}

#[test]
fn what_turns_note_builds_an_equal_state() {
    let (mut world, ann, tasks) = busy();
    world.check();
    world.finish(tasks[1], 1);
    world.turn(|state, now| state.set_paused(ann, true, now)).unwrap();
    world.turn(|state, now| state.detach(ann, now)).unwrap();
    let state = world.check();
    assert!(state.is_paused());
    assert_eq!(state.task(&tasks[0]).unwrap().last_result, Some(big(1)));
    assert_eq!(state.body_count(), 1);
}

#[test]
fn a_null_answer_and_a_null_result_are_not_taken_for_none() {
    let mut world = World::new();
    let ann = world.attach();
    let task = world.task(ann, None);
    let worker = world.begin(ann, task);
    let key = world.ask(worker, task);
    world.turn(|state, now| state.answer_query(ann, key, measured(Value::Null), now)).unwrap();
    world.turn(|state, now| state.post_result(worker, task, Arc::new(Value::Null), now)).unwrap();
    let state = world.check();
    assert_eq!(state.task(&task).unwrap().last_result, Some(Value::Null));
    assert_eq!(state.pending_resume(key).unwrap().answer, Some(Arc::new(Value::Null)));
}

#[test]
fn forgotten_tasks_leave_no_row() {
    let (mut world, ann, tasks) = busy();
    for task in &tasks {
        let _ = world.turn(|state, now| state.cancel_task(ann, *task, now));
    }
    // One age is enough for a tree, whichever of its tasks is met first.
    world.now.ms += 8 * 24 * 3_600_000;
    while world.turn(|state, now| state.sweep(now, 3)) {
        world.state.audit().unwrap();
    }
    let left = world.rows.keys().filter(|(table, _)| {
        !matches!(table, TableName::Sessions | TableName::Tokens | TableName::Resources)
    });
    assert_eq!(left.count(), 0);
    world.check();
}

#[test]
fn long_texts_and_bodies_are_written_once() {
    let mut world = World::new();
    let ann = world.attach();
    let task = world.task(ann, None);
    assert!(world.written.iter().any(|(table, _)| *table == TableName::Specs));
    let worker = world.begin(ann, task);
    let tables = |world: &World| world.written.iter().map(|row| row.0).collect::<Vec<_>>();
    assert_eq!(
        tables(&world),
        [TableName::Tasks, TableName::Attempts, TableName::Texts, TableName::Tokens]
    );
    world.turn(|state, _| state.bake_system_prompt(task, 1, Some("be good".into()))).unwrap();
    assert_eq!(tables(&world), [TableName::Attempts, TableName::Texts]);
    world.output(worker, task, 1, final_of(big(1)));
    assert_eq!(tables(&world), [TableName::Attempts, TableName::Outputs, TableName::Bodies]);
    world.output(worker, task, 1, final_of(big(1)));
    assert_eq!(tables(&world), [TableName::Attempts, TableName::Outputs]);
    world.finish(task, 1);
    let (_, row) = world.rows.iter().find(|((table, _), _)| *table == TableName::Tasks).unwrap();
    assert!(row.len() < 600, "a task's image repeats its result: {} bytes", row.len());
}

#[test]
fn a_beat_is_not_kept() {
    let mut world = World::new();
    let ann = world.attach();
    world.turn(|state, now| state.heartbeat(ann, now)).unwrap();
    assert_eq!(world.written, []);
}

#[test]
fn no_image_holds_a_nonce_or_a_signature() {
    let (world, _, _) = busy();
    assert_eq!(world.secrets.len(), 10, "a session and four workers, two secrets each");
    for (place, image) in &world.rows {
        let text = std::str::from_utf8(image).unwrap();
        for secret in &world.secrets {
            assert!(!text.contains(secret) && !place.1.contains(secret), "{place:?}");
        }
    }
}

#[test]
fn recovery_ends_live_attempts_and_keeps_questions() {
    let (world, ann, tasks) = busy();
    let Rebuilt { mut state, .. } = world.rebuilt();
    let now = Now { unix: 5_000, ms: 900_000 };
    let recovery = state.recover(now);
    assert_eq!(recovery, Recovery { interrupted: 3, sessions: 1 });
    let mut effects: Vec<Effect> = Vec::new();
    state.commit(&mut effects);
    state.audit().unwrap();
    assert_eq!(state.live_attempts(), []);
    assert_eq!(state.handle_count(), 0);
    let status = |at: usize| state.task(&tasks[at]).unwrap().status;
    assert_eq!(
        (status(1), status(2), status(3)),
        (TaskStatus::Blocked, TaskStatus::Suspended, TaskStatus::Blocked,)
    );
    let why = state.task(&tasks[1]).unwrap().last_result.unwrap().to_string();
    assert!(why.contains("interrupted"), "{why}");
    assert!(state.check(ann, Reach::Anywhere, now).is_ok(), "the session's token still counts");
    assert_eq!(state.lapse_sessions(now, 10), Some(now.ms + rules().lapse_after_ms));
}

#[test]
fn every_row_may_be_lost_or_damaged_and_the_rest_comes_back() {
    let (world, _, _) = busy();
    for place in world.rows.keys() {
        for damaged in [false, true] {
            let mut rows = world.rows.clone();
            if damaged {
                rows.insert(place.clone(), b"{\"half\":".to_vec());
            } else {
                rows.remove(place);
            }
            let Rebuilt { mut state, set_aside } =
                rebuild(&rows, world.state.mark(), &world.events);
            state.audit().unwrap_or_else(|broken| panic!("{place:?} {damaged}: {broken}"));
            state.recover(Now { unix: 5_000, ms: 900_000 });
            state.commit(&mut Vec::new());
            state.audit().unwrap_or_else(|broken| panic!("{place:?} {damaged}: {broken}"));
            let named = set_aside.iter().any(|row| row.key == place.1);
            assert!(named || !damaged, "{place:?} is damaged and not named");
        }
    }
}

#[test]
fn keys_have_one_spelling() {
    let (world, _, _) = busy();
    for (table, text) in world.rows.keys() {
        let key = Key::parse(*table, text).unwrap();
        assert_eq!((key.table(), &key.text()), (*table, text));
    }
    for text in ["", "T-1", "T-00000000000000000000000000000001/01", "x/1"] {
        assert_eq!(Key::parse(TableName::Attempts, text), None, "{text}");
    }
}
