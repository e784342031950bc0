//! Tests: what an open run has done stays, and its end lets everything go.

use serde_json::json;

use super::*;
use crate::config::EngineCfg;
use crate::model::ids::StepKey;
use crate::model::task::{TaskSpec, TaskStatus};
use crate::state::Rules;
use crate::state::auth::Access;
use crate::state::images::{IMAGE_VERSION, Rebuild, Row, Touched};
use crate::state::tasks::NewTask;

const NOW: Now = Now { unix: 1_000, ms: 10 };
const RUN: RunId = RunId::from_bits(1);

fn opened() -> EngineState {
    let mut rules = Rules::from(&EngineCfg::default());
    rules.retention.settled_tasks = 1;
    let mut state = EngineState::new(rules);
    let new = NewRun {
        name: "census".into(),
        document: Arc::new(json!({ "id": "census" })),
        document_hash: "aa".into(),
        input: Arc::new(Value::Null),
        input_hash: "bb".into(),
        settings: Arc::new(Value::Null),
        sessions: Vec::new(),
    };
    state.open_run(RUN, new, NOW).unwrap();
    state
}

/// Starts the call `key` and passes it with its number, unless it has its task already.
fn pass(state: &mut EngineState, key: u128) -> TaskId {
    let spec = Arc::new(TaskSpec::new("count", "x"));
    let id = TaskId::from_bits(key + 100);
    let new = NewTask::new(id, spec);
    let task = state.start_step(Access::Trusted, RUN, StepKey::from_bits(key), new, NOW).unwrap();
    state.settle(task, true, Arc::new(json!(key as u64)), json!(key as u64), NOW);
    end_turn(state);
    task
}

fn end_turn(state: &mut EngineState) {
    state.audit().unwrap();
    state.commit(&mut Vec::new());
}

/// The state that its images build.
fn reloaded(state: &EngineState) -> EngineState {
    let (mut touched, mut rebuild) = (Touched::default(), Rebuild::default());
    state.note_all(&mut touched);
    for image in state.images(&mut touched).iter().filter(|image| !image.is_removal()) {
        let (mut bytes, key) = (Vec::new(), image.key().text());
        image.encode(&mut bytes).unwrap();
        let table = image.key().table();
        rebuild.row(Row { table, key: &key, version: IMAGE_VERSION, image: &bytes });
    }
    let rebuilt = rebuild.finish(state.rules.clone(), state.mark(), state.events_after(0, 10_000));
    assert_eq!(rebuilt.set_aside, []);
    rebuilt.state
}

#[test]
fn the_same_call_has_the_same_task() {
    let mut state = opened();
    let first = pass(&mut state, 7);
    assert_eq!(pass(&mut state, 7), first);
    assert_ne!(pass(&mut state, 8), first);
    let kept = state.kept_steps(RUN, None, 10);
    assert_eq!(kept.iter().map(|step| step.key.bits()).collect::<Vec<_>>(), [7, 8]);
    assert_eq!(state.kept_steps(RUN, Some(StepKey::from_bits(7)), 10), kept[1..]);
    assert_eq!(kept[0].result.as_deref(), Some(&json!(7)));
}

#[test]
fn no_task_of_an_open_run_is_forgotten_and_all_go_after_its_end() {
    let mut state = opened();
    for key in 0..50 {
        pass(&mut state, key);
    }
    let late = Now { unix: 9_000_000, ms: 9_000_000_000 };
    state.sweep(late, 10_000);
    assert_eq!(state.task_count(), 50);
    let mut state = reloaded(&state);
    state.sweep(late, 10_000);
    assert_eq!(state.task_count(), 50);
    state.end_run(RUN, RunStatus::Pass, Arc::new(json!({})), late).unwrap();
    end_turn(&mut state);
    assert_eq!(state.run(RUN).unwrap().document, None);
    state.sweep(late, 10_000);
    end_turn(&mut state);
    assert_eq!(state.task_count(), 0);
    state.sweep(Now { unix: 0, ms: u64::MAX }, 10_000);
    end_turn(&mut state);
    assert_eq!(state.runs(), []);
}

#[test]
fn the_end_of_a_run_cancels_what_is_open_of_it() {
    let mut state = opened();
    let spec = Arc::new(TaskSpec::new("count", "x"));
    let new = NewTask::new(TaskId::from_bits(5), spec);
    let key = StepKey::from_bits(5);
    let open = state.start_step(Access::Trusted, RUN, key, new.clone(), NOW).unwrap();
    end_turn(&mut state);
    state.end_run(RUN, RunStatus::Failed, Arc::new(json!({})), NOW).unwrap();
    end_turn(&mut state);
    assert_eq!(state.task(&open).unwrap().status, TaskStatus::Cancelled);
    let ended = EngineError::RunState { run: RUN, state: "has ended" };
    assert_eq!(state.start_step(Access::Trusted, RUN, key, new, NOW), Err(ended.clone()));
    assert_eq!(state.resume_run(RUN, Vec::new(), NOW), Err(ended));
}

#[test]
fn a_run_comes_back_as_it_was() {
    let mut state = opened();
    let task = pass(&mut state, 3);
    state.note_told(task, Arc::new(json!({ "end": "timeout" })));
    state.resume_run(RUN, vec![SessionId::from_bits(9)], NOW).unwrap();
    end_turn(&mut state);
    let back = reloaded(&state);
    assert_eq!(back.runs(), state.runs());
    assert_eq!(back.kept_steps(RUN, None, 9), state.kept_steps(RUN, None, 9));
    assert_eq!(back.run(RUN).unwrap().resumed, 1);
    assert_eq!(back.kept_steps(RUN, None, 9)[0].told.as_deref(), Some(&json!({"end": "timeout"})));
}

#[test]
fn pages_of_runs_go_from_the_newest_to_the_oldest_and_say_where_to_look_on() {
    let mut state = opened();
    let first = state.run(RUN).unwrap();
    for number in 2..=3_000u128 {
        let now = Now { unix: 1_000 + number as u64 / 2, ms: 10 };
        let new = NewRun {
            name: first.name.clone(),
            document: Arc::new(Value::Null),
            document_hash: "aa".into(),
            input: Arc::new(Value::Null),
            input_hash: "bb".into(),
            settings: Arc::new(Value::Null),
            sessions: Vec::new(),
        };
        state.open_run(RunId::from_bits(number), new, now).unwrap();
    }
    end_turn(&mut state);
    let ids = |page: &RunsPage| page.found.iter().map(|(id, _)| id.bits()).collect::<Vec<_>>();
    let page = state.runs_page(None, 3, |id, _| id.bits() % 2 == 1);
    assert_eq!(ids(&page), [2_999, 2_997, 2_995]);
    let page = state.runs_page(page.next, 2, |id, _| id.bits() % 2 == 1);
    assert_eq!(ids(&page), [2_993, 2_991]);

    let (mut looks, mut at, mut found) = (0, None, Vec::new());
    loop {
        let page = state.runs_page(at, 10, |id, _| id == RUN);
        found.extend(ids(&page));
        (looks, at) = (looks + 1, page.next);
        if at.is_none() {
            break;
        }
    }
    assert_eq!((looks, found), (3, vec![1]), "no look goes through more than its share");
    assert_eq!(reloaded(&state).runs_page(None, 1, |_, _| true).found.len(), 1);
}
