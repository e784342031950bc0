//! The state: every table of the engine, the one way an event is made, and the end of a turn.
//!
//! Transitions are methods, grouped by what changes together in the files below. Each takes `now`
//! and fresh ids as arguments, checks everything before it changes anything, and leaves what the
//! outside has to do in the outbox. Nothing here knows a clock, randomness, a channel or a log.

use std::collections::VecDeque;
use std::sync::Arc;

use serde_json::Value;

use crate::config::{EngineCfg, Limits, Retention};
use crate::model::event::{Event, EventRecord};
use crate::model::ids::{ResumeKey, RunId, SessionId, StepKey, TaskId};
use crate::model::task::TaskStatus;
use crate::model::token::{HandleKey, TokenFingerprint};
use crate::state::attempts::AttemptRecord;
use crate::state::auth::CapTokenRecord;
use crate::state::effect::{Effect, Now};
use crate::state::keys::OwnedKey;
use crate::state::outputs::{BodyHash, BodyRecord, OutputRecord};
use crate::state::resumes::ResumePending;
use crate::state::runs::RunRecord;
use crate::state::sessions::SessionRecord;
use crate::state::tasks::TaskRecord;
use crate::table::{Index, Table};

pub mod attempts;
pub mod audit;
pub mod auth;
pub mod effect;
pub mod groups;
pub mod images;
pub mod keys;
pub mod lists;
pub mod outputs;
pub mod payload;
pub mod resources;
pub mod resumes;
pub mod retention;
pub mod runs;
pub mod sessions;
pub mod tasks;
pub mod verdicts;

/// The rules that transitions follow; the part of the configuration that is not about waiting.
#[derive(Debug, Clone, PartialEq)]
pub struct Rules {
    /// First depth that is refused.
    pub max_spawn_depth: u32,
    /// Whether cancelling reaches the sub-tasks.
    pub cancel_subtasks: bool,
    /// Whether the tasks of a lapsed session go on.
    pub keepalive_on_idle: bool,
    /// Milliseconds without a beat after which a session lapses.
    pub lapse_after_ms: u64,
    /// Sizes and counts.
    pub limits: Limits,
    /// What may be forgotten, and when.
    pub retention: Retention,
}

impl From<&EngineCfg> for Rules {
    fn from(cfg: &EngineCfg) -> Self {
        Self {
            max_spawn_depth: cfg.max_spawn_depth,
            cancel_subtasks: cfg.cancel_subtasks,
            keepalive_on_idle: cfg.long_hold.keepalive_on_idle,
            lapse_after_ms: millis(cfg.long_hold.lapse_after()),
            limits: cfg.limits,
            retention: cfg.retention,
        }
    }
}

/// Whole milliseconds, saturating.
pub(crate) fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Counters that a rollback restores as a whole.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    pub(crate) last_seq: u64,
    pub(crate) live_tasks: u64,
    pub(crate) retired_tokens: u64,
    pub(crate) paused: bool,
    /// Grows with every long text or body that comes in, so that each is journaled once.
    pub(crate) marks: u64,
}

/// Every mutable thing of one engine. Read and changed in turns only.
#[derive(Debug, Clone)]
pub struct EngineState {
    pub(crate) rules: Rules,
    pub(crate) tasks: Table<TaskId, TaskRecord>,
    pub(crate) attempts: Table<(TaskId, u32), AttemptRecord>,
    pub(crate) outputs: Table<(TaskId, u32, u32), Arc<OutputRecord>>,
    pub(crate) bodies: Table<BodyHash, BodyRecord>,
    pub(crate) sessions: Table<SessionId, SessionRecord>,
    pub(crate) tokens: Table<TokenFingerprint, CapTokenRecord>,
    pub(crate) handles: Table<HandleKey, TokenFingerprint>,
    pub(crate) resumes: Table<ResumeKey, ResumePending>,
    pub(crate) resources: Table<String, Arc<Value>>,
    pub(crate) runs: Table<RunId, RunRecord>,
    /// Idempotency keys of tasks, and those of attempts within their task.
    pub(crate) task_keys: Table<Arc<OwnedKey>, TaskId>,
    pub(crate) attempt_keys: Table<(TaskId, Arc<OwnedKey>), u32>,
    /// Edges: (owner, task), (parent, child), (task, question), (run, step, task).
    pub(crate) owned: Index<(SessionId, TaskId)>,
    pub(crate) children: Index<(TaskId, TaskId)>,
    pub(crate) questions: Index<(TaskId, ResumeKey)>,
    pub(crate) steps: Index<(RunId, StepKey, TaskId)>,
    /// Deadlines and orders: lapses, token ends, settled tasks that may be forgotten, retired
    /// tokens, detached sessions, ended runs.
    pub(crate) lapses: Index<(u64, SessionId)>,
    pub(crate) expiries: Index<(u64, TokenFingerprint)>,
    pub(crate) settled: Index<(u64, TaskId)>,
    pub(crate) retired: Index<(u64, TokenFingerprint)>,
    pub(crate) idle_sessions: Index<(u64, SessionId)>,
    pub(crate) ended_runs: Index<(u64, RunId)>,
    /// Runs by their start, for lists.
    pub(crate) run_starts: Index<(u64, RunId)>,
    pub(crate) counters: Counters,
    counters_before: Counters,
    tail: VecDeque<Arc<EventRecord>>,
    outbox: Vec<Effect>,
}

/// Compares what turns can change; the tail follows from it and is left out, as is the outbox.
impl PartialEq for EngineState {
    fn eq(&self, other: &Self) -> bool {
        self.tasks == other.tasks
            && self.attempts == other.attempts
            && self.outputs == other.outputs
            && self.bodies == other.bodies
            && self.sessions == other.sessions
            && self.tokens == other.tokens
            && self.handles == other.handles
            && self.resumes == other.resumes
            && self.resources == other.resources
            && self.runs == other.runs
            && self.task_keys == other.task_keys
            && self.attempt_keys == other.attempt_keys
            && self.owned == other.owned
            && self.children == other.children
            && self.questions == other.questions
            && self.steps == other.steps
            && self.lapses == other.lapses
            && self.expiries == other.expiries
            && self.settled == other.settled
            && self.retired == other.retired
            && self.idle_sessions == other.idle_sessions
            && self.ended_runs == other.ended_runs
            && self.run_starts == other.run_starts
            && self.counters == other.counters
    }
}

/// Calls one method on every table and index, so that no turn ends in half of them.
macro_rules! every_table {
    ($state:expr, $method:ident) => {{
        let state: &mut EngineState = $state;
        state.tasks.$method();
        state.attempts.$method();
        state.outputs.$method();
        state.bodies.$method();
        state.sessions.$method();
        state.tokens.$method();
        state.handles.$method();
        state.resumes.$method();
        state.resources.$method();
        state.runs.$method();
        state.task_keys.$method();
        state.attempt_keys.$method();
        state.owned.$method();
        state.children.$method();
        state.questions.$method();
        state.steps.$method();
        state.lapses.$method();
        state.expiries.$method();
        state.settled.$method();
        state.retired.$method();
        state.idle_sessions.$method();
        state.ended_runs.$method();
        state.run_starts.$method();
    }};
}

impl EngineState {
    /// An empty state under these rules.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            tasks: Table::default(),
            attempts: Table::default(),
            outputs: Table::default(),
            bodies: Table::default(),
            sessions: Table::default(),
            tokens: Table::default(),
            handles: Table::default(),
            resumes: Table::default(),
            resources: Table::default(),
            runs: Table::default(),
            task_keys: Table::default(),
            attempt_keys: Table::default(),
            owned: Index::default(),
            children: Index::default(),
            questions: Index::default(),
            steps: Index::default(),
            lapses: Index::default(),
            expiries: Index::default(),
            settled: Index::default(),
            retired: Index::default(),
            idle_sessions: Index::default(),
            ended_runs: Index::default(),
            run_starts: Index::default(),
            counters: Counters::default(),
            counters_before: Counters::default(),
            tail: VecDeque::new(),
            outbox: Vec::new(),
        }
    }

    /// Makes an event: numbers it and puts it into the outbox. The only way an event is made;
    /// at the end of the turn it enters the tail and is sent, both or neither.
    ///
    /// **Invariant:** numbers are contiguous from 1 (`audit`: event order).
    pub fn record(&mut self, now: Now, event: Event) {
        self.counters.last_seq += 1;
        let record = EventRecord { seq: self.counters.last_seq, at: now.unix, event };
        self.outbox.push(Effect::Announce(Arc::new(record)));
    }

    pub(crate) fn effect(&mut self, effect: Effect) {
        self.outbox.push(effect);
    }

    /// Ends a turn and keeps its changes; what it asked of the outside is added to `effects`.
    pub fn commit(&mut self, effects: &mut Vec<Effect>) {
        for effect in &self.outbox {
            if let Effect::Announce(record) = effect {
                if self.tail.len() >= self.rules.limits.event_tail.max(1) {
                    self.tail.pop_front();
                }
                self.tail.push_back(record.clone());
            }
        }
        effects.append(&mut self.outbox);
        effects.extend(self.tasks.touched().map(|id| Effect::Changed(*id)));
        every_table!(self, commit);
        self.counters_before = self.counters;
    }

    /// Ends a turn and undoes everything that it did.
    pub fn rollback(&mut self) {
        self.outbox.clear();
        every_table!(self, rollback);
        self.counters = self.counters_before;
    }

    /// The newest events with a number above `after`, oldest first, at most `limit`. If the first
    /// one's number is above `after + 1`, those between are gone from the tail.
    #[must_use]
    pub fn events_after(&self, after: u64, limit: usize) -> Vec<EventRecord> {
        let first = self.tail.front().map_or(0, |record| record.seq);
        let skip =
            usize::try_from(after.saturating_add(1).saturating_sub(first)).unwrap_or(usize::MAX);
        self.tail.iter().skip(skip).take(limit).map(|record| EventRecord::clone(record)).collect()
    }

    /// Number of the oldest event in the tail; that of the next event where the tail is empty.
    #[must_use]
    pub fn first_seq(&self) -> u64 {
        self.tail.front().map_or(self.counters.last_seq + 1, |record| record.seq)
    }

    /// Number of the newest event that this state made; 0 before the first.
    #[must_use]
    pub fn last_seq(&self) -> u64 {
        self.counters.last_seq
    }

    /// How many tasks are not settled.
    #[must_use]
    pub fn live_tasks(&self) -> u64 {
        self.counters.live_tasks
    }

    /// The tasks that are not settled, in no order. Looks at every task.
    #[must_use]
    pub fn unsettled_tasks(&self) -> Vec<(TaskId, TaskStatus)> {
        let all = self.tasks.iter().map(|(id, record)| (*id, record.status));
        all.filter(|(_, status)| !status.is_settled()).collect()
    }

    /// How many tasks are remembered, settled ones included.
    #[must_use]
    pub fn task_count(&self) -> usize {
        self.tasks.len()
    }

    /// How many sessions are remembered.
    #[must_use]
    pub fn session_count(&self) -> usize {
        self.sessions.len()
    }

    /// How many token records there are, revoked ones that are still remembered included.
    #[must_use]
    pub fn token_count(&self) -> usize {
        self.tokens.len()
    }

    /// How many worker handles are live.
    #[must_use]
    pub fn handle_count(&self) -> usize {
        self.handles.len()
    }

    /// How many output events are kept.
    #[must_use]
    pub fn output_count(&self) -> usize {
        self.outputs.len()
    }

    /// How many large bodies are kept, each once.
    #[must_use]
    pub fn body_count(&self) -> usize {
        self.bodies.len()
    }

    /// Whether new dispatches wait.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.counters.paused
    }
}
