//! One call on the state, as data: what it says, what it carries out on a real `EngineState`, and what it is answered.
//!
//! Everything that a call needs stands in it, fresh ids too, so that the oracle hears exactly what
//! the state hears and a history can be printed, shortened and replayed. Nothing here judges.

use std::sync::{Arc, LazyLock};

use adjutant_actors::errors::EngineError;
use adjutant_actors::model::ids::{ResumeKey, RunId, SessionId, StepKey, TaskId};
use adjutant_actors::model::output::{ContentRef, OutputEvent, WorkerPayload};
use adjutant_actors::model::role::Role;
use adjutant_actors::model::session::{OperatorSession, SessionFaces};
use adjutant_actors::model::task::{OnInterrupt, TaskSpec, TaskState};
use adjutant_actors::model::token::{CapToken, HandleKey, Signed, TokenFingerprint, TokenSigner};
use adjutant_actors::state::attempts::{AttemptEnd, Begin, NewAttempt, Verdict};
use adjutant_actors::state::auth::{Access, NewToken, Reach};
use adjutant_actors::state::effect::Now;
use adjutant_actors::state::outputs::NewOutput;
use adjutant_actors::state::resumes::{Answer, Measured};
use adjutant_actors::state::runs::{NewRun, RunStatus};
use adjutant_actors::state::sessions::{HeartbeatReply, NewSession};
use adjutant_actors::state::tasks::NewTask;
use adjutant_actors::state::verdicts::Marking;
use adjutant_actors::state::{EngineState, Rules};
use serde_json::{Value, json};

/// Tokens that one history may use.
pub(crate) const TOKENS: usize = 160;

/// A token's public name and its handle, made once for all histories.
pub(crate) struct Made {
    pub(crate) signed: Signed,
    pub(crate) handle: HandleKey,
}

/// The tokens by their number. What the state compares is here; no signature is needed.
pub(crate) static POOL: LazyLock<Vec<Made>> = LazyLock::new(|| {
    let signer = TokenSigner::new([7; 32]);
    let made = |number: usize| {
        let fingerprint = TokenFingerprint::of_nonce(&format!("{number:032x}"));
        let digest = *blake3::hash(&number.to_be_bytes()).as_bytes();
        let handle = signer.handle_key(&format!("wh-{number}"));
        Made { signed: Signed { kid: 1, fingerprint, digest }, handle }
    };
    (0..TOKENS).map(made).collect()
});

/// The session that a token opens.
pub(crate) fn session_of(token: usize) -> SessionId {
    POOL[token].signed.fingerprint.session_id()
}

/// Who calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    Host,
    /// The holder of this token; the state may never have heard of it.
    Token(usize),
    /// One who changed a field of this token.
    Forger(usize),
}

impl Who {
    pub(crate) fn access(self) -> Access {
        match self {
            Self::Host => Access::Trusted,
            Self::Token(token) => Access::Token(POOL[token].signed),
            Self::Forger(token) => Access::Token(Signed { digest: [0; 32], ..POOL[token].signed }),
        }
    }
}

/// A piece of output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Out {
    Progress,
    Partial(u8),
    Artifact(u8),
    Final(u8, bool),
    File(bool),
}

impl Out {
    pub(crate) fn event(self) -> OutputEvent {
        match self {
            Self::Progress => OutputEvent::Progress { stage: "half".into(), note: None },
            Self::Partial(chunk) => OutputEvent::Partial { chunk: value(chunk) },
            Self::Artifact(body) => OutputEvent::Artifact {
                name: "part".into(),
                content: ContentRef::inline(value(body)),
            },
            Self::Final(body, ok) => {
                OutputEvent::Final { content: ContentRef::inline(value(body)), ok }
            }
            Self::File(ok) => OutputEvent::Final { content: ContentRef::file_ref("a/b"), ok },
        }
    }
}

/// How a worker ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    Done,
    Failed(String),
    TimedOut,
    Interrupted(String),
}

impl End {
    pub(crate) fn end(&self) -> AttemptEnd {
        match self.clone() {
            Self::Done => AttemptEnd::Done,
            Self::Failed(reason) => AttemptEnd::Failed(reason),
            Self::TimedOut => AttemptEnd::TimedOut,
            Self::Interrupted(reason) => AttemptEnd::Interrupted(reason),
        }
    }
}

/// The values with their JSON texts: small ones, the null, and two above the inline size of the rules.
static VALUES: LazyLock<[(Value, String); 5]> = LazyLock::new(|| {
    let values = [
        Value::Null,
        json!(1),
        json!({ "two": 2 }),
        json!("three, and longer than what is kept inline here"),
        json!(["four", "and longer than what is kept inline here"]),
    ];
    values.map(|value| (value.clone(), value.to_string()))
});

/// A value by its number.
pub(crate) fn value(number: u8) -> Value {
    VALUES[usize::from(number) % VALUES.len()].0.clone()
}

/// Its JSON text.
pub(crate) fn json_text(number: u8) -> &'static str {
    &VALUES[usize::from(number) % VALUES.len()].1
}

/// The spec of a task by the number of its agent.
pub(crate) fn spec(agent: u8) -> TaskSpec {
    TaskSpec::new(format!("agent-{agent}"), "do it")
}

pub(crate) fn text(number: u8) -> Arc<str> {
    format!("text-{number}").into()
}

/// A call. `life` is in milliseconds.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Call {
    Attach {
        token: usize,
        role: Role,
        operator: u8,
        life: u64,
        uses: Option<u32>,
    },
    Beat {
        who: Who,
    },
    Detach {
        who: Who,
        revoke: bool,
    },
    Session {
        who: Who,
    },
    Start {
        who: Who,
        id: TaskId,
        agent: u8,
        parent: Option<TaskId>,
        key: Option<u8>,
        retry: bool,
    },
    Step {
        who: Who,
        run: RunId,
        step: u8,
        id: TaskId,
        agent: u8,
    },
    Dispatch {
        who: Who,
        task: TaskId,
        token: usize,
        key: Option<u8>,
        prompt: Option<u8>,
        life: u64,
    },
    Pull {
        who: Who,
        task: TaskId,
    },
    Read {
        who: Who,
        task: TaskId,
    },
    Cancel {
        who: Who,
        task: TaskId,
    },
    Post {
        who: Who,
        task: TaskId,
        value: u8,
    },
    Output {
        who: Who,
        task: TaskId,
        attempt: u32,
        out: Out,
        result: bool,
    },
    Bake {
        task: TaskId,
        attempt: u32,
        text: Option<u8>,
    },
    Finish {
        task: TaskId,
        attempt: u32,
        end: End,
    },
    Verdict {
        task: TaskId,
        attempt: u32,
    },
    InterruptAll {
        reason: String,
    },
    Ask {
        who: Who,
        task: TaskId,
        key: ResumeKey,
        value: u8,
    },
    Answer {
        who: Who,
        key: ResumeKey,
        value: u8,
    },
    Look {
        key: ResumeKey,
    },
    Mark {
        who: Who,
        marking: Marking,
        task: TaskId,
        ok: bool,
        value: u8,
    },
    Inject {
        who: Who,
        task: TaskId,
        text: u8,
    },
    Pause {
        who: Who,
        on: bool,
    },
    Mint {
        who: Who,
        task: TaskId,
        token: usize,
        life: u64,
        uses: Option<u32>,
    },
    Verify {
        who: Who,
    },
    Revoke {
        token: usize,
    },
    Handle {
        token: usize,
    },
    Lapse {
        budget: usize,
    },
    Sweep {
        budget: usize,
    },
    OpenRun {
        run: RunId,
        session: Option<usize>,
    },
    EndRun {
        run: RunId,
        status: RunStatus,
    },
    ResumeRun {
        run: RunId,
        session: Option<usize>,
    },
    SetResource {
        name: u8,
        value: u8,
    },
    Fetch {
        who: Who,
        name: u8,
    },
}

/// What a call is answered, beside a refusal.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Said {
    Nothing,
    Session(SessionId),
    Beat(HeartbeatReply),
    Own(Box<OperatorSession>),
    Task(TaskId),
    /// The attempt, and whether it runs on behalf of a session that is there.
    Begun(u32, bool),
    Known(u32),
    Paused,
    State(Box<TaskState>),
    Payload(WorkerPayload),
    Number(usize),
    Verdict(Option<Verdict>),
    Answer(Answer),
    Bound(TaskId, u32),
    Value(Arc<Value>),
    /// Whether something is left to do, at once or at some time.
    More(bool),
}

/// A reply, without the free text of a refusal.
pub(crate) type Reply = Result<Said, EngineError>;

/// Takes the free text out of a refusal; kinds and numbers stay.
pub(crate) fn plain(error: EngineError) -> EngineError {
    match error {
        EngineError::InvalidTransition(_) => EngineError::InvalidTransition(String::new()),
        EngineError::TokenNotFound(_) => EngineError::TokenNotFound(String::new()),
        EngineError::ResourceNotFound(_) => EngineError::ResourceNotFound(String::new()),
        other => other,
    }
}

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
