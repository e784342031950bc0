//! Carries calls out on a real `EngineState`. Nothing here judges.

use std::sync::Arc;

use adjutant_actors::model::ids::StepKey;
use adjutant_actors::model::role::Role;
use adjutant_actors::model::session::SessionFaces;
use adjutant_actors::model::task::OnInterrupt;
use adjutant_actors::model::token::CapToken;
use adjutant_actors::state::attempts::{Begin, NewAttempt};
use adjutant_actors::state::auth::{NewToken, Reach};
use adjutant_actors::state::effect::Now;
use adjutant_actors::state::outputs::NewOutput;
use adjutant_actors::state::resumes::{Answer, Measured};
use adjutant_actors::state::runs::NewRun;
use adjutant_actors::state::sessions::NewSession;
use adjutant_actors::state::tasks::NewTask;
use adjutant_actors::state::{EngineState, Rules};
use serde_json::json;

use super::parts::{POOL, json_text, session_of, spec, text, value};
use super::{Call, Reply, Said};

fn new_token(
    token: usize,
    (agent, role): (String, Role),
    life: u64,
    max_uses: Option<u32>,
    now: Now,
) -> NewToken {
    let minted = CapToken {
        agent_id: agent,
        role,
        scopes: Vec::new(),
        issued_at: now.unix,
        expire_at: now.unix + life / 1000,
        max_uses,
        nonce: String::new(),
        sig_hex: String::new(),
    };
    NewToken { token: minted, signed: POOL[token].signed, deadline_ms: now.ms + life }
}

pub(crate) fn measured(number: u8) -> Measured {
    Measured { value: Arc::new(value(number)), bytes: json_text(number).len() as u64 }
}

fn run_of(session: Option<usize>) -> NewRun {
    NewRun {
        name: "run".into(),
        document: Arc::new(json!({})),
        document_hash: "d".into(),
        input: Arc::new(json!({})),
        input_hash: "i".into(),
        settings: Arc::new(json!({})),
        sessions: session.map(session_of).into_iter().collect(),
    }
}

/// Carries a call out. The caller ends the turn.
pub(crate) fn carry_out(state: &mut EngineState, call: &Call, rules: &Rules, now: Now) -> Reply {
    let nothing = |()| Said::Nothing;
    match call.clone() {
        Call::Start { .. } | Call::Step { .. } | Call::Dispatch { .. } | Call::Mint { .. } => {
            start(state, call, now)
        }
        Call::Attach { .. } | Call::Beat { .. } | Call::Detach { .. } | Call::Session { .. } => {
            session(state, call, now)
        }
        Call::OpenRun { .. } | Call::EndRun { .. } | Call::ResumeRun { .. } => {
            run(state, call, now)
        }
        Call::Ask { .. } | Call::Answer { .. } | Call::Look { .. } | Call::Mark { .. } => {
            senior(state, call, now)
        }
        Call::Inject { .. } | Call::Pause { .. } => senior(state, call, now),
        Call::Finish { .. }
        | Call::Verdict { .. }
        | Call::InterruptAll { .. }
        | Call::Handle { .. } => engine(state, call, now),
        Call::Lapse { .. } | Call::Sweep { .. } | Call::Revoke { .. } => engine(state, call, now),
        Call::Pull { who, task } => state.fetch_payload(who.access(), task, now).map(Said::Payload),
        Call::Read { who, task } => {
            state.read_task(who.access(), task, now).map(|task| Said::State(Box::new(task)))
        }
        Call::Cancel { who, task } => state.cancel_task(who.access(), task, now).map(nothing),
        Call::Post { who, task, value: number } => {
            state.post_result(who.access(), task, Arc::new(value(number)), now).map(nothing)
        }
        Call::Output { who, task, attempt, out, result } => {
            let new = NewOutput::prepare(out.event(), &rules.limits)?;
            if result {
                state.append_result(who.access(), task, attempt, new, now).map(nothing)
            } else {
                state.append_output(who.access(), task, attempt, new, now).map(nothing)
            }
        }
        Call::Bake { task, attempt, text: number } => {
            state.bake_system_prompt(task, attempt, number.map(text)).map(nothing)
        }
        Call::Verify { who } => state.verify(who.access(), Reach::Anywhere, now).map(nothing),
        Call::SetResource { name, value: number } => {
            state.set_resource(text(name).to_string(), Arc::new(value(number))).map(nothing)
        }
        Call::Fetch { who, name } => {
            state.fetch_data(who.access(), &text(name), now).map(Said::Value)
        }
    }
}

/// What the engine does of its own accord.
fn engine(state: &mut EngineState, call: &Call, now: Now) -> Reply {
    match call.clone() {
        Call::Finish { task, attempt, end } => {
            Ok(Said::Verdict(state.finish_attempt(task, attempt, end.end(), now)))
        }
        Call::Verdict { task, attempt } => state.verdict_of(task, attempt).map(Said::Verdict),
        Call::InterruptAll { reason } => Ok(Said::Number(state.interrupt_all(&reason, now))),
        Call::Revoke { token } => {
            state.revoke(POOL[token].signed.fingerprint).map(|()| Said::Nothing)
        }
        Call::Handle { token } => {
            let bound = state.resolve_handle(&POOL[token].handle, now);
            bound.map(|(task, attempt)| Said::Bound(task, attempt))
        }
        Call::Lapse { budget } => {
            Ok(Said::More(state.lapse_sessions(now, budget).is_some_and(|due| due <= now.ms)))
        }
        Call::Sweep { budget } => Ok(Said::More(state.sweep(now, budget))),
        other => unreachable!("{other:?} is a caller's"),
    }
}

fn senior(state: &mut EngineState, call: &Call, now: Now) -> Reply {
    let nothing = |()| Said::Nothing;
    match call.clone() {
        Call::Ask { who, task, key, value } => {
            let asked = state.query_senior(who.access(), task, key, measured(value), now);
            asked.map(|_| Said::Nothing)
        }
        Call::Answer { who, key, value } => {
            state.answer_query(who.access(), key, measured(value), now).map(Said::Task)
        }
        Call::Look { key } => state.read_answer(key).map(|answer| Said::Answer(unrevised(answer))),
        Call::Mark { who, marking, task, ok, value } => {
            state.mark_task(who.access(), marking, task, ok, measured(value), now).map(nothing)
        }
        Call::Inject { who, task, text: number } => {
            state.inject_directive(who.access(), task, text(number), now).map(nothing)
        }
        Call::Pause { who, on } => state.set_paused(who.access(), on, now).map(nothing),
        other => unreachable!("{other:?} is not a senior's"),
    }
}

/// Revisions are for waiters; no call promises a number.
fn unrevised(answer: Answer) -> Answer {
    match answer {
        Answer::Open { task, .. } => Answer::Open { task, revision: 0 },
        other => other,
    }
}

fn start(state: &mut EngineState, call: &Call, now: Now) -> Reply {
    match call.clone() {
        Call::Start { who, id, agent, parent, key, retry } => {
            let on_interrupt = if retry { OnInterrupt::Retry } else { OnInterrupt::Block };
            let key = key.map(text);
            let new =
                NewTask { parent, key, on_interrupt, ..NewTask::new(id, Arc::new(spec(agent))) };
            state.create_task(who.access(), new, now).map(Said::Task)
        }
        Call::Step { who, run, step, id, agent } => {
            let new = NewTask::new(id, Arc::new(spec(agent)));
            let step = StepKey::from_bits(step.into());
            state.start_step(who.access(), run, step, new, now).map(Said::Task)
        }
        Call::Dispatch { who, .. } => state
            .begin_attempt(who.access(), new_attempt(call, now), now)
            .map(|begin| begun(&begin)),
        Call::Mint { who, task, token, life, uses } => {
            let new =
                new_token(token, (format!("worker-of-{task}"), Role::Worker), life, uses, now);
            let minted = state.mint_worker_token(who.access(), task, new, now)?;
            Ok(Said::Number(minted as usize))
        }
        other => unreachable!("{other:?} starts nothing"),
    }
}

fn session(state: &mut EngineState, call: &Call, now: Now) -> Reply {
    match call.clone() {
        Call::Attach { token, role, operator, life, uses } => {
            let name = format!("operator-{operator}");
            let new = NewSession {
                operator_id: name.as_str().into(),
                role,
                faces: SessionFaces::default(),
                token: new_token(token, (name, role), life, uses, now),
            };
            state.attach(new, now).map(Said::Session)
        }
        Call::Beat { who } => state.heartbeat(who.access(), now).map(Said::Beat),
        Call::Detach { who, revoke: false } => state.detach(who.access(), now).map(Said::Session),
        Call::Detach { who, revoke: true } => {
            state.detach_and_revoke(who.access(), now).map(Said::Session)
        }
        Call::Session { who } => {
            state.read_session(who.access(), now).map(|own| Said::Own(Box::new(own)))
        }
        other => unreachable!("{other:?} is not about a session"),
    }
}

fn run(state: &mut EngineState, call: &Call, now: Now) -> Reply {
    let nothing = |()| Said::Nothing;
    match call.clone() {
        Call::OpenRun { run, session } => state.open_run(run, run_of(session), now).map(nothing),
        Call::EndRun { run, status } => {
            state.end_run(run, status, Arc::new(json!({})), now).map(nothing)
        }
        Call::ResumeRun { run, session } => {
            let sessions = session.map(session_of).into_iter().collect();
            state.resume_run(run, sessions, now).map(nothing)
        }
        other => unreachable!("{other:?} is not about a run"),
    }
}

/// What a dispatch brings to the turn that begins its attempt.
pub(crate) fn new_attempt(call: &Call, now: Now) -> NewAttempt {
    let Call::Dispatch { task, token, key, prompt, life, .. } = *call else {
        unreachable!("{call:?} begins no attempt")
    };
    NewAttempt {
        task,
        token: new_token(token, (format!("worker-of-{task}"), Role::Worker), life, None, now),
        handle: POOL[token].handle,
        prompt: prompt.map(text),
        key: key.map(text),
    }
}

pub(crate) fn begun(begin: &Begin) -> Said {
    match begin {
        Begin::Begun(plan) => Said::Begun(plan.attempt, plan.session.is_some()),
        Begin::Known(attempt) => Said::Known(*attempt),
        Begin::Paused(_) => Said::Paused,
    }
}
