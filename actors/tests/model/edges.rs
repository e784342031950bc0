//! Edges that a history of some dozen steps does not come to: full tables, long lines, quiet ends.

use std::sync::Arc;

use adjutant_actors::config::{EngineCfg, Limits};
use adjutant_actors::errors::EngineError;
use adjutant_actors::model::ids::{ResumeKey, TaskId};
use adjutant_actors::model::role::Role;
use adjutant_actors::model::session::SessionFaces;
use adjutant_actors::model::task::TaskStatus;
use adjutant_actors::model::token::{CapToken, Signed, TokenFingerprint, TokenSigner};
use adjutant_actors::state::attempts::{AttemptEnd, NewAttempt, Verdict};
use adjutant_actors::state::auth::{Access, NewToken, Reach};
use adjutant_actors::state::effect::Now;
use adjutant_actors::state::outputs::NewOutput;
use adjutant_actors::state::sessions::NewSession;
use adjutant_actors::state::tasks::NewTask;
use adjutant_actors::state::{EngineState, Rules};

use crate::call::carry::measured;
use crate::call::{Out, spec};

const NOW: Now = Now { unix: 1_000_000, ms: 1_000 };
const TASK: TaskId = TaskId::from_bits(1);

fn state(limits: Limits) -> (EngineState, Rules) {
    let cfg = EngineCfg { limits, token_secret: vec![7; 32], ..EngineCfg::default() };
    let rules = Rules::from(&cfg);
    (EngineState::new(rules.clone()), rules)
}

fn signed(number: usize) -> Signed {
    let fingerprint = TokenFingerprint::of_nonce(&format!("{number:032x}"));
    let digest = *blake3::hash(&number.to_be_bytes()).as_bytes();
    Signed { kid: 1, fingerprint, digest }
}

fn token(number: usize, role: Role) -> NewToken {
    let token = CapToken {
        agent_id: "ann".to_owned(),
        role,
        scopes: Vec::new(),
        issued_at: NOW.unix,
        expire_at: NOW.unix + 60,
        max_uses: None,
        nonce: String::new(),
        sig_hex: String::new(),
    };
    NewToken { token, signed: signed(number), deadline_ms: NOW.ms + 60_000 }
}

fn attach(state: &mut EngineState, number: usize) -> Result<(), EngineError> {
    let new = NewSession {
        operator_id: "ann".into(),
        role: Role::Operator,
        faces: SessionFaces::default(),
        token: token(number, Role::Operator),
    };
    state.attach(new, NOW).map(drop)
}

/// A state in which an attempt of [`TASK`] is live, whose token is that number.
fn at_work(state: &mut EngineState, number: usize) -> Result<(), EngineError> {
    if state.task(&TASK).is_none() {
        state.create_task(Access::Trusted, NewTask::new(TASK, Arc::new(spec(1))), NOW)?;
    }
    let handle = TokenSigner::new([7; 32]).handle_key(&format!("wh-{number}"));
    let token = token(number, Role::Worker);
    let new = NewAttempt { task: TASK, token, handle, prompt: None, key: None };
    state.begin_attempt(Access::Trusted, new, NOW).map(drop)
}

fn revision(state: &EngineState) -> u64 {
    state.glance(&TASK).unwrap().1
}

#[test]
fn an_attempt_takes_so_many_usable_tokens() {
    let (mut state, _) = state(Limits::default());
    at_work(&mut state, 0).unwrap();
    let mint = |state: &mut EngineState, number| {
        state.mint_worker_token(Access::Trusted, TASK, token(number, Role::Worker), NOW)
    };
    for number in 1..=64 {
        assert_eq!(mint(&mut state, number), Ok(1));
    }
    let what = "tokens of one attempt";
    let full = Err(EngineError::TableFull { what, current: 65, max: 64 });
    assert_eq!(mint(&mut state, 65), full);
    state.revoke(signed(3).fingerprint).unwrap();
    assert_eq!(mint(&mut state, 65), Ok(1));
    assert_eq!(mint(&mut state, 66), full);
    state.finish_attempt(TASK, 1, AttemptEnd::Done, NOW);
    let live = state.check(Access::Token(signed(65)), Reach::Own(TASK), NOW);
    assert_eq!(live.map(drop), Err(EngineError::TokenRevoked));
    assert_eq!(state.audit(), Ok(()));
}

#[test]
fn there_is_room_for_so_many_tokens_whoever_they_are_for() {
    let (mut state, _) = state(Limits { tokens: 2, ..Limits::default() });
    attach(&mut state, 0).unwrap();
    at_work(&mut state, 1).unwrap();
    let full = || EngineError::TableFull { what: "tokens", current: 2, max: 2 };
    assert_eq!(attach(&mut state, 2), Err(full()));
    let minted = state.mint_worker_token(Access::Trusted, TASK, token(2, Role::Worker), NOW);
    assert_eq!(minted, Err(full()));
    state.finish_attempt(TASK, 1, AttemptEnd::Done, NOW);
    assert_eq!(at_work(&mut state, 2), Err(full()), "a revoked token is remembered for a while");
}

#[test]
fn so_many_revoked_tokens_are_remembered_the_newest() {
    let (mut state, _) = state(Limits::default());
    let count = 4_096;
    for number in 0..=count {
        attach(&mut state, number).unwrap();
        let kept = state.token_count();
        state.revoke(signed(number).fingerprint).unwrap();
        assert_eq!(state.token_count(), kept.min(count), "after {number}");
    }
    let told = |number| state.check(Access::Token(signed(number)), Reach::Anywhere, NOW).map(drop);
    assert!(matches!(told(0), Err(EngineError::TokenNotFound(_))));
    for number in [1, count] {
        assert_eq!(told(number), Err(EngineError::TokenRevoked), "{number}");
    }
}

#[test]
fn a_token_is_live_until_it_is_revoked_or_runs_out() {
    let (mut state, _) = state(Limits::default());
    for number in 0..3 {
        attach(&mut state, number).unwrap();
    }
    let (fingerprint, end) = (signed(0).fingerprint, NOW.ms + 60_000);
    let live = |state: &EngineState, ms| state.is_token_live(fingerprint, Now { ms, ..NOW });
    assert!(live(&state, NOW.ms) && live(&state, end - 1));
    assert!(!live(&state, end) && !live(&state, end + 1));
    assert!(!state.is_token_live(signed(9).fingerprint, NOW));
    assert_eq!(state.token_record(fingerprint).map(|record| record.revoked), Some(false));
    state.revoke(fingerprint).unwrap();
    assert!(!live(&state, NOW.ms));
    assert_eq!(state.revoke_minted_under(2), 0, "nothing was minted under it");
    assert_eq!(state.revoke_minted_under(1), 2, "what was revoked counts no more");
    assert_eq!(state.revoke_minted_under(1), 0);
    assert_eq!(state.token_record(signed(2).fingerprint).map(|it| it.revoked), Some(true));
}

#[test]
fn the_questions_that_are_open_are_listed() {
    let (mut state, _) = state(Limits::default());
    at_work(&mut state, 0).unwrap();
    let key = ResumeKey::from_bits(1);
    let open = |state: &EngineState| state.open_questions(9).into_iter().map(|it| it.0).collect();
    let none: Vec<ResumeKey> = open(&state);
    assert_eq!(none, []);
    state.query_senior(Access::Trusted, TASK, key, measured(1), NOW).unwrap();
    let one: Vec<ResumeKey> = open(&state);
    assert_eq!(one, [key]);
    state.answer_query(Access::Trusted, key, measured(2), NOW).unwrap();
    let none: Vec<ResumeKey> = open(&state);
    assert_eq!(none, []);
}

#[test]
fn an_attempt_that_ends_quietly_is_seen_by_who_waits() {
    let (mut state, rules) = state(Limits::default());
    assert!(state.sent_nothing(TASK, 1));
    at_work(&mut state, 0).unwrap();
    assert!(state.sent_nothing(TASK, 1));
    let out = NewOutput::prepare(Out::Progress.event(), &rules.limits).unwrap();
    state.append_output(Access::Token(signed(0)), TASK, 1, out, NOW).unwrap();
    assert!(!state.sent_nothing(TASK, 1));
    let key = ResumeKey::from_bits(1);
    state.query_senior(Access::Trusted, TASK, key, measured(1), NOW).unwrap();
    let before = revision(&state);
    let verdict = state.finish_attempt(TASK, 1, AttemptEnd::Done, NOW);
    assert_eq!(verdict, Some(Verdict::Suspended(key)));
    assert!(revision(&state) > before, "the status stays, and the task is another");
}

#[test]
fn the_ends_of_attempts_have_words_of_their_own() {
    let why = || "why".to_owned();
    let ends = [
        AttemptEnd::Done,
        AttemptEnd::Failed(why()),
        AttemptEnd::TimedOut,
        AttemptEnd::Interrupted(why()),
    ];
    let words: Vec<_> = ends.iter().map(AttemptEnd::word).collect();
    assert_eq!(words, ["done", "failed", "timed_out", "interrupted"]);
}

#[test]
fn a_look_at_a_task_tells_what_it_is() {
    let (mut state, _) = state(Limits::default());
    assert_eq!((state.glance(&TASK), state.task_agent(&TASK)), (None, None));
    attach(&mut state, 0).unwrap();
    let session = state.session_of(signed(0).fingerprint);
    assert!(session.is_some());
    assert_eq!(state.attached_sessions(Role::Operator), 1);
    assert_eq!(state.attached_sessions(Role::Senior), 0);
    let own = Access::Token(signed(0));
    state.create_task(own, NewTask::new(TASK, Arc::new(spec(1))), NOW).unwrap();
    assert_eq!(state.task_attempt(TASK), Ok(0));
    for attempt in 1..=2 {
        at_work(&mut state, attempt).unwrap();
        assert_eq!(state.task_attempt(TASK), Ok(attempt as u32));
        assert_eq!(state.glance(&TASK).unwrap().0, TaskStatus::Running);
        state.finish_attempt(TASK, attempt as u32, AttemptEnd::Done, NOW);
        assert_eq!(state.glance(&TASK).unwrap().0, TaskStatus::Blocked);
    }
    assert_eq!(state.task_agent(&TASK), Some("agent-1"));
    assert_eq!((state.task_session(&TASK), state.task_parent(&TASK)), (session, None));
    at_work(&mut state, 3).unwrap();
    let below = TaskId::from_bits(2);
    let sub = NewTask { parent: Some(TASK), ..NewTask::new(below, Arc::new(spec(2))) };
    state.create_task(Access::Token(signed(3)), sub, NOW).unwrap();
    assert_eq!((state.task_session(&below), state.task_parent(&below)), (session, Some(TASK)));
    state.detach(own, NOW).unwrap();
    assert_eq!(state.attached_sessions(Role::Operator), 0);
}

#[test]
fn an_attempt_that_takes_long_is_an_event_and_nothing_else() {
    let (mut state, _) = state(Limits::default());
    at_work(&mut state, 0).unwrap();
    state.commit(&mut Vec::new());
    let (before, revision) = (state.last_seq(), revision(&state));
    state.note_slow_attempt(TASK, 1, 20, 10, NOW);
    assert_eq!(state.last_seq(), before + 1);
    assert_eq!(self::revision(&state), revision);
}
