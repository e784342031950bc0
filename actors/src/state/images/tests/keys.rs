//! Tests: keys come back with the records that have them, and damage leaves each key one owner.

use super::*;
use crate::errors::EngineError;
use crate::state::attempts::{Begin, Verdict};

impl World {
    fn keyed(&mut self, access: Access, key: &str, text: &str) -> Result<TaskId, EngineError> {
        self.ids += 1;
        let (id, spec) = (TaskId::from_bits(self.ids), Arc::new(TaskSpec::new("coder", text)));
        let on_interrupt = OnInterrupt::Retry;
        let new = NewTask { key: Some(key.into()), on_interrupt, ..NewTask::new(id, spec) };
        self.turn(|state, now| state.create_task(access, new, now))
    }

    fn begin_keyed(&mut self, access: Access, task: TaskId, key: &str) -> (Begin, Access) {
        let token = self.token(Role::Worker);
        let worker = Access::Token(token.signed);
        let handle = lost(self.ids, token.signed.fingerprint);
        let new = NewAttempt { task, token, handle, prompt: None, key: Some(key.into()) };
        (self.turn(|state, now| state.begin_attempt(access, new, now)).unwrap(), worker)
    }

    /// The same world after a crash, recovered.
    fn crashed(mut self) -> Self {
        let rebuilt = self.rebuilt();
        assert_eq!(rebuilt.set_aside, []);
        self.state = rebuilt.state;
        self.turn(EngineState::recover);
        self.state.audit().unwrap();
        self
    }
}

#[test]
fn a_key_works_after_a_crash_and_for_a_new_session_of_the_same_operator() {
    let mut world = World::new();
    let ann = world.attach();
    let task = world.keyed(ann, "k", "one").unwrap();
    world.check();
    let mut world = world.crashed();
    let again = world.attach();
    for access in [ann, again] {
        assert_eq!(world.keyed(access, "k", "one"), Ok(task));
        assert_eq!(world.written, [], "a call that is made again writes nothing");
        let other = world.keyed(access, "k", "two");
        assert!(matches!(other, Err(EngineError::KeyConflict { .. })), "{other:?}");
    }
    assert_ne!(world.keyed(Access::Trusted, "k", "one"), Ok(task));
    world.state.audit().unwrap();
}

#[test]
fn verdicts_under_a_key_come_back_after_a_crash() {
    let mut world = World::new();
    let ann = world.attach();
    let passed = world.keyed(ann, "passed", "one").unwrap();
    let (_, worker) = world.begin_keyed(ann, passed, "d");
    world.output(worker, passed, 1, final_of(big(3)));
    world.finish(passed, 1);
    let asked = world.keyed(ann, "asked", "one").unwrap();
    let (_, worker) = world.begin_keyed(ann, asked, "d");
    let question = world.ask(worker, asked);
    let lost = world.keyed(ann, "lost", "one").unwrap();
    world.begin_keyed(ann, lost, "d");
    world.check();

    let mut world = world.crashed();
    for (task, expected) in
        [(passed, Verdict::Pass(Arc::new(big(3)))), (asked, Verdict::Suspended(question))]
    {
        let (begin, _) = world.begin_keyed(ann, task, "d");
        assert!(matches!(begin, Begin::Known(1)), "{begin:?}");
        assert_eq!(world.written, []);
        assert_eq!(world.state.verdict_of(task, 1), Ok(Some(expected)));
    }
    assert_eq!(world.state.interrupted_to_retry(), [lost]);
    let why = world.state.verdict_of(lost, 1).unwrap();
    assert!(matches!(why, Some(Verdict::Failed(why)) if why.starts_with("interrupted")));

    // A second crash before anybody came for it changes nothing.
    let mut world = world.crashed();
    assert_eq!(world.state.interrupted_to_retry(), [lost]);
    let (begin, _) = world.begin_keyed(ann, lost, "d");
    assert!(matches!(begin, Begin::Begun(_)), "{begin:?}");
    let (begin, _) = world.begin_keyed(ann, lost, "d");
    assert!(matches!(begin, Begin::Known(2)), "{begin:?}");
    assert_eq!(world.state.interrupted_to_retry(), []);
    world.state.audit().unwrap();
    world.rebuilt().state.audit().unwrap();
}

#[test]
fn a_key_that_damage_left_to_two_tasks_stays_with_the_newest() {
    let mut world = World::new();
    let ann = world.attach();
    let first = world.keyed(ann, "k", "one").unwrap();
    let second = world.keyed(ann, "l", "one").unwrap();
    let row = |id: TaskId| (TableName::Specs, id.to_string());
    let image = world.rows[&row(first)].clone();
    world.rows.insert(row(second), image);
    world.state = world.rebuilt().state;
    world.state.audit().unwrap();
    assert_eq!(world.keyed(ann, "k", "one"), Ok(second));
}

#[test]
fn a_turn_that_is_undone_leaves_its_key_free() {
    let mut world = World::new();
    let ann = world.attach();
    let new = NewTask {
        key: Some("k".into()),
        ..NewTask::new(TaskId::from_bits(77), Arc::new(TaskSpec::new("coder", "one")))
    };
    let before = world.state.clone();
    world.state.create_task(ann, new, world.now).unwrap();
    assert_ne!(world.state, before);
    world.state.rollback();
    assert_eq!(world.state, before);
    assert_ne!(world.keyed(ann, "k", "one"), Ok(TaskId::from_bits(77)));
}
