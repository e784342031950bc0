//! The oracle: what the state must answer and hold, in plain maps.
//!
//! It shares no code with the state. What the state counts or indexes is found here by looking at
//! everything. A call that is refused is answered before anything here changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use adjutant_actors::errors::EngineError;
use adjutant_actors::model::event::Event;
use adjutant_actors::model::ids::{ResumeKey, RunId, SessionId, TaskId};
use adjutant_actors::model::role::Role;
use adjutant_actors::model::task::{TaskSpec, TaskState, TaskStatus};
use adjutant_actors::state::Rules;
use adjutant_actors::state::attempts::Verdict;
use adjutant_actors::state::effect::{Effect, Now};
use adjutant_actors::state::runs::RunStatus;
use serde_json::Value;

use crate::call::{Call, Out, Reply, Said, Who};

#[path = "oracle/attempts.rs"]
mod attempts;
#[path = "oracle/auth.rs"]
mod auth;
#[path = "oracle/retention.rs"]
mod retention;
#[path = "oracle/senior.rs"]
mod senior;
#[path = "oracle/sessions.rs"]
mod sessions;
#[path = "oracle/tasks.rs"]
mod tasks;

/// On whose behalf a key was set.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Principal {
    Host,
    Operator(String),
    Task(TaskId),
}

type Key = (Principal, u8);

#[derive(Debug, Clone)]
struct Token {
    agent: String,
    role: Role,
    session: Option<SessionId>,
    bound: Option<(TaskId, u32)>,
    uses: Option<u32>,
    revoked: bool,
    deadline: u64,
}

#[derive(Debug, Clone)]
struct Session {
    operator: String,
    role: Role,
    token: usize,
    attached_at: u64,
    last_seen: u64,
    last_beat: u64,
    attached: bool,
    idle_since: u64,
}

#[derive(Debug, Clone)]
struct Task {
    spec: TaskSpec,
    status: TaskStatus,
    attempt: u32,
    result: Option<Value>,
    created: u64,
    updated: u64,
    settled: u64,
    depth: u32,
    parent: Option<TaskId>,
    root: TaskId,
    session: Option<SessionId>,
    directive: Option<u8>,
    step: Option<(RunId, u8)>,
    key: Option<Key>,
    retry: bool,
}

/// How an attempt ended, as far as that is remembered.
#[derive(Debug, Clone, PartialEq)]
enum Ended {
    As(Verdict),
    Interrupted(String),
}

#[derive(Debug, Clone)]
struct Attempt {
    live: bool,
    tokens: Vec<usize>,
    /// The token whose handle it has; the handle stands while the attempt is live.
    handle: usize,
    /// A prompt of its own.
    prompt: Option<u8>,
    system: Option<u8>,
    outputs: Vec<Out>,
    output_bytes: u64,
    last_final: Option<usize>,
    key: Option<(Key, bool)>,
    /// Whether its end will be remembered.
    noted: bool,
    ended: Option<Ended>,
}

#[derive(Debug, Clone)]
struct Question {
    task: TaskId,
    answer: Option<Value>,
    closed: bool,
}

#[derive(Debug, Clone)]
struct Run {
    status: RunStatus,
    sessions: Vec<SessionId>,
    ended: u64,
}

/// Everything that the oracle knows.
#[derive(Debug, Clone)]
pub(crate) struct Oracle {
    rules: Rules,
    now: Now,
    tokens: BTreeMap<usize, Token>,
    sessions: BTreeMap<SessionId, Session>,
    tasks: BTreeMap<TaskId, Task>,
    attempts: BTreeMap<(TaskId, u32), Attempt>,
    questions: BTreeMap<ResumeKey, Question>,
    runs: BTreeMap<RunId, Run>,
    resources: BTreeMap<u8, Value>,
    paused: bool,
    last_seq: u64,
    /// When which session is to be looked at. A beat leaves its entry where it is.
    agenda: BTreeSet<(u64, SessionId)>,
    /// Tasks of a run that is being ended and that were not reached yet.
    held: BTreeSet<TaskId>,
    told: Told,
}

/// What one turn has to tell the outside, beside its reply.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Told {
    pub(crate) events: Vec<Event>,
    pub(crate) effects: Vec<Effect>,
}

/// The sizes that can be asked of a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sizes {
    pub(crate) tasks: usize,
    pub(crate) live: u64,
    pub(crate) sessions: usize,
    pub(crate) tokens: usize,
    pub(crate) handles: usize,
    pub(crate) outputs: usize,
    pub(crate) bodies: usize,
    pub(crate) last_seq: u64,
    pub(crate) paused: bool,
}

impl Oracle {
    pub(crate) fn new(rules: Rules) -> Self {
        Self {
            rules,
            now: Now { unix: 0, ms: 0 },
            tokens: BTreeMap::new(),
            sessions: BTreeMap::new(),
            tasks: BTreeMap::new(),
            attempts: BTreeMap::new(),
            questions: BTreeMap::new(),
            runs: BTreeMap::new(),
            resources: BTreeMap::new(),
            paused: false,
            last_seq: 0,
            agenda: BTreeSet::new(),
            held: BTreeSet::new(),
            told: Told::default(),
        }
    }

    /// What the state must answer to a call at this moment, and what it must tell the outside.
    pub(crate) fn hear(&mut self, call: &Call, now: Now) -> (Reply, Told) {
        self.now = now;
        let reply = self.answer(call);
        (reply, std::mem::take(&mut self.told))
    }

    fn answer(&mut self, call: &Call) -> Reply {
        match call.clone() {
            Call::Attach { .. }
            | Call::Beat { .. }
            | Call::Detach { .. }
            | Call::Session { .. } => self.sessions(call),
            Call::Lapse { .. } => self.sessions(call),
            Call::Start { .. } | Call::Step { .. } | Call::Read { .. } | Call::Cancel { .. } => {
                self.tasks(call)
            }
            Call::Post { .. } | Call::OpenRun { .. } | Call::EndRun { .. } => self.tasks(call),
            Call::ResumeRun { .. } => self.tasks(call),
            Call::Dispatch { .. } | Call::Pull { .. } | Call::Output { .. } | Call::Bake { .. } => {
                self.attempts(call)
            }
            Call::Finish { .. } | Call::Verdict { .. } | Call::Mint { .. } => self.attempts(call),
            Call::InterruptAll { .. } | Call::Handle { .. } => self.attempts(call),
            Call::Ask { .. } | Call::Answer { .. } | Call::Look { .. } => self.senior(call),
            Call::Mark { .. } | Call::Inject { .. } | Call::Pause { .. } => self.senior(call),
            Call::Sweep { budget } => Ok(Said::More(self.sweep(budget))),
            Call::Verify { who } => {
                let grant = self.check(who, crate::oracle::auth::Reach::Anywhere)?;
                self.spend(&grant).map(|()| Said::Nothing)
            }
            Call::Revoke { token } => {
                self.tokens.get(&token).ok_or(EngineError::TokenNotFound(String::new()))?;
                self.revoke(token);
                Ok(Said::Nothing)
            }
            Call::SetResource { name, value } => self.set_resource(name, value),
            Call::Fetch { who, name } => self.fetch(who, name),
        }
    }

    fn set_resource(&mut self, name: u8, value: u8) -> Reply {
        let (current, max) = (self.resources.len() as u64, self.rules.limits.resources);
        if current >= max && !self.resources.contains_key(&name) {
            return Err(EngineError::TableFull { what: "resources", current, max });
        }
        self.resources.insert(name, crate::call::value(value));
        Ok(Said::Nothing)
    }

    fn fetch(&mut self, who: Who, name: u8) -> Reply {
        let grant = self.check(who, crate::oracle::auth::Reach::Anywhere)?;
        let missing = EngineError::ResourceNotFound(String::new());
        let value = self.resources.get(&name).cloned().ok_or(missing)?;
        self.spend(&grant)?;
        Ok(Said::Value(Arc::new(value)))
    }

    fn event(&mut self, event: Event) {
        self.last_seq += 1;
        self.told.events.push(event);
    }

    fn effect(&mut self, effect: Effect) {
        self.told.effects.push(effect);
    }

    /// The snapshot that the state must give of a task.
    pub(crate) fn state_of(&self, id: TaskId) -> Option<TaskState> {
        let task = self.tasks.get(&id)?;
        Some(TaskState {
            id,
            spec: task.spec.clone(),
            status: task.status,
            attempt: task.attempt,
            suspended_on: self.open_question(id),
            last_result: task.result.clone(),
            created_at: task.created,
            updated_at: task.updated,
            spawn_depth: task.depth,
        })
    }

    /// The tasks that may be dispatched.
    pub(crate) fn ready(&self) -> Vec<TaskId> {
        let ready = [TaskStatus::Pending, TaskStatus::Running, TaskStatus::Blocked];
        let tasks = self.tasks.iter().filter(|(_, task)| ready.contains(&task.status));
        tasks.map(|(id, _)| *id).filter(|id| self.live(*id).is_none()).collect()
    }

    /// The open questions.
    pub(crate) fn open_questions(&self) -> Vec<ResumeKey> {
        let open = |asked: &Question| asked.answer.is_none() && !asked.closed;
        self.questions.iter().filter(|(_, asked)| open(asked)).map(|(key, _)| *key).collect()
    }

    /// Whether a token may be used.
    pub(crate) fn is_usable(&self, token: usize) -> bool {
        let token = self.tokens.get(&token);
        token.is_some_and(|token| !token.revoked && token.deadline > self.now.ms)
    }

    pub(crate) fn remembers(&self, task: TaskId) -> bool {
        self.tasks.contains_key(&task)
    }

    /// The tasks that are remembered.
    pub(crate) fn known_tasks(&self) -> impl Iterator<Item = TaskId> + '_ {
        self.tasks.keys().copied()
    }

    /// The live attempts, in the order of their tasks.
    pub(crate) fn live_attempts(&self) -> Vec<(TaskId, u32)> {
        self.attempts.iter().filter(|(_, attempt)| attempt.live).map(|(place, _)| *place).collect()
    }

    /// The tokens of a task's live attempt.
    pub(crate) fn worker_tokens(&self, task: TaskId) -> &[usize] {
        let live = self.live(task).and_then(|attempt| self.attempts.get(&(task, attempt)));
        live.map_or(&[], |attempt| &attempt.tokens)
    }

    pub(crate) fn sizes(&self) -> Sizes {
        let outputs = || self.attempts.values().flat_map(|attempt| &attempt.outputs);
        let large: BTreeSet<&str> = outputs().filter_map(|out| self.large_body(*out)).collect();
        Sizes {
            tasks: self.tasks.len(),
            live: self.tasks.values().filter(|task| !task.status.is_settled()).count() as u64,
            sessions: self.sessions.len(),
            tokens: self.tokens.len(),
            handles: self.live_attempts().len(),
            outputs: outputs().count(),
            bodies: large.len(),
            last_seq: self.last_seq,
            paused: self.paused,
        }
    }
}
