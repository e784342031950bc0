//! One call on the state, as data: what it says and what it is answered.
//!
//! Everything that a call needs stands in it, fresh ids too, so that the oracle hears exactly what
//! the state hears and a history can be printed, shortened and replayed.

use std::sync::Arc;

use adjutant_actors::errors::EngineError;
use adjutant_actors::model::ids::{ResumeKey, RunId, SessionId, TaskId};
use adjutant_actors::model::output::WorkerPayload;
use adjutant_actors::model::role::Role;
use adjutant_actors::model::session::OperatorSession;
use adjutant_actors::model::task::TaskState;
use adjutant_actors::state::attempts::Verdict;
use adjutant_actors::state::resumes::Answer;
use adjutant_actors::state::runs::RunStatus;
use adjutant_actors::state::sessions::HeartbeatReply;
use adjutant_actors::state::verdicts::Marking;
use serde_json::Value;

#[path = "call/carry.rs"]
pub(crate) mod carry;
#[path = "call/parts.rs"]
mod parts;

pub(crate) use carry::carry_out;
pub(crate) use parts::{End, Out, POOL, TOKENS, Who, json_text, session_of, spec, text, value};

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
