//! Fill: puts many records into an engine's state quickly, through the public transitions and
//! without actors, many records a turn or one a turn.
#![allow(dead_code, reason = "each bench uses a part of it")]

use std::sync::Arc;
use std::time::Duration;

use adjutant::{
    Access, AttemptEnd, CapToken, Clock, ContentRef, Engine, EngineState, Mint, Now, OutputEvent,
    ResumeKey, Role, SessionFaces, SystemClock, TaskId, TaskSpec, TokenRequest,
};
use adjutant_actors::model::token::{HandleKey, WorkerHandle};
use adjutant_actors::state::attempts::NewAttempt;
use adjutant_actors::state::auth::NewToken;
use adjutant_actors::state::outputs::NewOutput;
use adjutant_actors::state::resumes::Measured;
use adjutant_actors::state::sessions::NewSession;
use adjutant_actors::state::tasks::NewTask;
use serde_json::json;

/// Records that one turn takes when the state is filled.
const CHUNK: usize = 64;
const DAYS: Duration = Duration::from_secs(2 * 24 * 3600);
/// What a filled task is asked, and what it answers.
pub(crate) const AGENT: &str = "worker";
pub(crate) const DIRECTIVE: &str = "the directive of this task";
pub(crate) const RESULT: &str = "done";

/// Kinds of records, each with all that belongs to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A task that was never dispatched.
    Pending,
    /// A task with an attempt, its token and its handle, all live.
    Live,
    /// A task that passed, with its attempt and its output.
    Finished,
    /// A task that is suspended on a question.
    Question,
    /// An attached session with its token.
    Session,
}

/// A record that was prepared outside the turn that takes it.
pub(crate) enum Seed {
    Task { kind: Kind, new: NewTask, attempt: Option<Box<(NewAttempt, NewOutput)>>, key: ResumeKey },
    Session { new: Box<NewSession>, token: CapToken },
}

/// What stands for a record that was taken.
pub(crate) enum Planted {
    Task(TaskId),
    Question(ResumeKey),
    Session(CapToken),
}

/// The moment that all filled records are made at.
pub(crate) fn now() -> Now {
    SystemClock::new().now().expect("the wall clock is right")
}

fn token(engine: &Engine, mint: &Mint, name: String, role: Role, now: Now) -> (CapToken, NewToken) {
    let request = TokenRequest {
        agent_id: name,
        role,
        scopes: vec!["*".to_owned()],
        issued_at: now.unix,
        ttl: DAYS,
        max_uses: None,
        nonce: mint.nonce(),
    };
    let (token, signed) = engine.signer().mint_at(request);
    let deadline_ms = u64::try_from(DAYS.as_millis()).expect("days fit");
    (token.clone(), NewToken { token, signed, deadline_ms })
}

fn handle(engine: &Engine, mint: &Mint) -> HandleKey {
    engine.signer().handle_key(WorkerHandle::draw(mint).expose())
}

impl Seed {
    /// Prepares a record.
    pub(crate) fn new(engine: &Engine, kind: Kind, now: Now) -> Self {
        let mint = engine.mint();
        if kind == Kind::Session {
            let operator = format!("op-{:032x}", mint.bits128());
            let (token, record) = token(engine, mint, operator.clone(), Role::Operator, now);
            let (operator_id, faces) = (Arc::from(operator), SessionFaces::default());
            let new = NewSession { operator_id, role: Role::Operator, faces, token: record };
            return Self::Session { new: Box::new(new), token };
        }
        let id = mint.task_id();
        let spec = Arc::new(TaskSpec::new(AGENT, DIRECTIVE));
        let attempt = matches!(kind, Kind::Live | Kind::Finished).then(|| {
            let (_, token) = token(engine, mint, format!("worker-of-{id}"), Role::Worker, now);
            let attempt = NewAttempt {
                task: id,
                token,
                handle: handle(engine, mint),
                prompt: None,
                key: None,
            };
            let event = OutputEvent::Final { content: ContentRef::inline_text(RESULT), ok: true };
            let output = NewOutput::prepare(event, &engine.cfg().limits);
            Box::new((attempt, output.expect("the result is small")))
        });
        let key = mint.resume_key();
        Self::Task { kind, new: NewTask::new(id, spec), attempt, key }
    }

    /// Takes the record into the state.
    pub(crate) fn plant(self, state: &mut EngineState, now: Now) -> Planted {
        const LAWFUL: &str = "a fresh record is lawful";
        match self {
            Self::Session { new, token } => {
                state.attach(*new, now).expect(LAWFUL);
                Planted::Session(token)
            }
            Self::Task { kind, new, attempt, key } => {
                let id = state.create_task(Access::Trusted, new, now).expect(LAWFUL);
                if let Some(attempt) = attempt {
                    let (new, output) = *attempt;
                    state.begin_attempt(Access::Trusted, new, now).expect(LAWFUL);
                    if kind == Kind::Finished {
                        state.append_output(Access::Trusted, id, 1, output, now).expect(LAWFUL);
                        state.finish_attempt(id, 1, AttemptEnd::Done, now).expect(LAWFUL);
                    }
                }
                if kind == Kind::Question {
                    let question = Measured { value: Arc::new(json!("which?")), bytes: 8 };
                    state.query_senior(Access::Trusted, id, key, question, now).expect(LAWFUL);
                    return Planted::Question(key);
                }
                Planted::Task(id)
            }
        }
    }
}

/// Fills the state with so many records of a kind, many a turn.
pub(crate) async fn fill(engine: &Engine, kind: Kind, count: usize) -> Vec<Planted> {
    let now = now();
    let mut planted = Vec::with_capacity(count);
    while planted.len() < count {
        let size = CHUNK.min(count - planted.len());
        let seeds: Vec<_> = (0..size).map(|_| Seed::new(engine, kind, now)).collect();
        let plant = move |state: &mut EngineState| {
            seeds.into_iter().map(|seed| seed.plant(state, now)).collect::<Vec<_>>()
        };
        planted.extend(engine.with_state("fill", plant).await.expect("the engine runs"));
    }
    planted
}

/// As [`fill`], for kinds that are tasks.
pub(crate) async fn tasks(engine: &Engine, kind: Kind, count: usize) -> Vec<TaskId> {
    let planted = fill(engine, kind, count).await.into_iter();
    planted
        .filter_map(|planted| match planted {
            Planted::Task(id) => Some(id),
            _ => None,
        })
        .collect()
}

/// As [`fill`], for sessions.
pub(crate) async fn sessions(engine: &Engine, count: usize) -> Vec<CapToken> {
    let planted = fill(engine, Kind::Session, count).await.into_iter();
    planted
        .filter_map(|planted| match planted {
            Planted::Session(token) => Some(token),
            _ => None,
        })
        .collect()
}
