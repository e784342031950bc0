//! Runs of programs: what one was started with, which task carries out which call of a step, how it
//! ended. What a program is, is not known here: its document and its settings are values.
//!
//! A run goes on after a crash by being evaluated again: each call of a step finds its task by the
//! key that follows from the call. So while a run is open, none of its tasks is forgotten.

use std::ops::Bound;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::errors::EngineError;
use crate::model::ids::{RunId, SessionId, TaskId};
use crate::state::EngineState;
use crate::state::effect::Now;
use crate::state::tasks::CancelScope;

mod steps;

pub use self::steps::{KeptStep, StepOf};

/// Runs that one look at a list goes through.
const RUNS_LOOKED_AT: usize = 1024;

/// Where a run stands.
///
/// ```
/// use adjutant_actors::state::runs::RunStatus;
///
/// assert_eq!(serde_json::to_value(RunStatus::Open)?, RunStatus::Open.as_str());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RunStatus {
    /// It goes on, or waits for somebody who carries it on.
    Open,
    /// It came to its end.
    Pass,
    /// A step was blocked.
    Blocked,
    /// A step or the run ran out of time.
    Timeout,
    /// It was cancelled.
    Cancelled,
    /// Anything else went wrong.
    Failed,
}

impl RunStatus {
    /// The wire word of the status.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Pass => "pass",
            Self::Blocked => "blocked",
            Self::Timeout => "timeout",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
        }
    }
}

/// What is kept of a run. Its `Debug` shows neither document nor values.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// The program's name.
    pub name: Arc<str>,
    /// Where it stands.
    pub status: RunStatus,
    /// The program's document; let go at the end.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::state::images::present::deserialize"
    )]
    pub document: Option<Arc<Value>>,
    /// Hash of the document.
    pub document_hash: Arc<str>,
    /// What it was started with; let go at the end.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::state::images::present::deserialize"
    )]
    pub input: Option<Arc<Value>>,
    /// Hash of the input.
    pub input_hash: Arc<str>,
    /// What the host keeps with it; let go at the end.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::state::images::present::deserialize"
    )]
    pub settings: Option<Arc<Value>>,
    /// The sessions of whoever carries it on.
    pub sessions: Vec<SessionId>,
    /// Unix seconds.
    pub started_at: u64,
    /// Unix seconds; absent while it is open.
    pub ended_at: Option<u64>,
    /// How often it was resumed.
    pub resumed: u32,
    /// When it was resumed last, in Unix seconds.
    pub resumed_at: Option<u64>,
    /// What is left of it; absent while it is open.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::state::images::present::deserialize"
    )]
    pub report: Option<Arc<Value>>,
    pub(crate) ended_ms: u64,
}

impl std::fmt::Debug for RunRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RunRecord")
            .field("name", &self.name)
            .field("status", &self.status)
            .field("document_hash", &self.document_hash)
            .field("input_hash", &self.input_hash)
            .field("resumed", &self.resumed)
            .finish_non_exhaustive()
    }
}

/// A part of the list of runs.
#[derive(Debug, Clone)]
pub struct RunsPage {
    /// The runs that were wanted, the newest first.
    pub found: Vec<(RunId, RunRecord)>,
    /// Where to look on; nothing where all have been looked at.
    pub next: Option<(u64, RunId)>,
}

/// A run that is about to be opened.
#[derive(Clone)]
pub struct NewRun {
    /// The program's name.
    pub name: Arc<str>,
    /// Its document.
    pub document: Arc<Value>,
    /// Hash of the document.
    pub document_hash: Arc<str>,
    /// What it is started with.
    pub input: Arc<Value>,
    /// Hash of the input.
    pub input_hash: Arc<str>,
    /// What the host keeps with it.
    pub settings: Arc<Value>,
    /// The sessions of whoever carries it on.
    pub sessions: Vec<SessionId>,
}

/// A run from its opening to its end:
///
/// ```
/// use adjutant_actors::model::ids::RunId;
/// use adjutant_actors::state::runs::{NewRun, RunRecord, RunStatus, RunsPage};
/// use std::sync::Arc;
/// # use adjutant_actors::{config::EngineCfg, state::{EngineState, Rules, auth::Access, effect::Now}};
/// # let mut state = EngineState::new(Rules::from(&EngineCfg::default()));
/// # let now = Now { unix: 1, ms: 1 };
/// let (id, nothing) = (RunId::from_bits(1), Arc::new(serde_json::Value::Null));
/// let new = NewRun {
///     name: "echo".into(),
///     document: nothing.clone(),
///     document_hash: "".into(),
///     input: nothing.clone(),
///     input_hash: "".into(),
///     settings: nothing.clone(),
///     sessions: vec![],
/// };
/// state.open_run(id, new, now)?;
/// state.end_run(id, RunStatus::Pass, nothing, now)?;
/// assert!(state.resume_run(id, vec![], now).is_err()); // it has ended
/// assert_eq!(state.run(id).map(|run| run.status), Some(RunStatus::Pass));
/// let wanted = |_, run: &RunRecord| run.ended_at.is_some();
/// let RunsPage { found, next } = state.runs_page(None, 10, wanted);
/// assert_eq!((state.runs().len(), found.len(), next), (1, 1, None));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
impl EngineState {
    /// Opens a run.
    ///
    /// # Errors
    /// `RunState` where the id is taken; `TableFull`.
    pub fn open_run(&mut self, id: RunId, new: NewRun, now: Now) -> Result<(), EngineError> {
        if self.runs.contains(&id) {
            return Err(EngineError::RunState { run: id, state: "exists already" });
        }
        let (open, max) = (self.runs.len() - self.ended_runs.len(), self.rules.limits.open_runs);
        if open as u64 >= max {
            return Err(EngineError::TableFull { what: "open runs", current: open as u64, max });
        }
        let record = RunRecord {
            name: new.name,
            status: RunStatus::Open,
            document: Some(new.document),
            document_hash: new.document_hash,
            input: Some(new.input),
            input_hash: new.input_hash,
            settings: Some(new.settings),
            sessions: new.sessions,
            started_at: now.unix,
            ended_at: None,
            resumed: 0,
            resumed_at: None,
            report: None,
            ended_ms: 0,
        };
        self.run_starts.insert((now.unix, id));
        self.runs.insert(id, record);
        Ok(())
    }

    /// Hands an open run to whoever carries it on from now: the sessions before are ended, and the
    /// tasks that are not final are the first new one's. Looks at all of the run's tasks.
    ///
    /// # Errors
    /// `RunNotFound`; `RunState` where it has ended.
    pub fn resume_run(
        &mut self,
        id: RunId,
        sessions: Vec<SessionId>,
        now: Now,
    ) -> Result<(), EngineError> {
        let record = self.open_record(id)?;
        record.resumed = record.resumed.saturating_add(1);
        record.resumed_at = Some(now.unix);
        let heir = sessions.first().copied();
        for before in std::mem::replace(&mut record.sessions, sessions) {
            self.end_session(before, now);
        }
        for (_, task) in self.step_edges(id, None).collect::<Vec<_>>() {
            self.give_task(task, heir);
        }
        Ok(())
    }

    /// Makes a task that is not final one of another session's.
    fn give_task(&mut self, id: TaskId, heir: Option<SessionId>) {
        if self.tasks.get(&id).is_none_or(|record| record.status.is_final()) {
            return;
        }
        let Some(record) = self.tasks.get_mut(&id) else { return };
        if let Some(before) = std::mem::replace(&mut record.session, heir) {
            self.owned.remove(&(before, id));
        }
        if let Some(heir) = heir {
            self.owned.insert((heir, id));
        }
    }

    fn open_record(&mut self, id: RunId) -> Result<&mut RunRecord, EngineError> {
        let record = self.runs.get(&id).ok_or(EngineError::RunNotFound(id))?;
        if record.status != RunStatus::Open {
            return Err(EngineError::RunState { run: id, state: "has ended" });
        }
        self.runs.get_mut(&id).ok_or(EngineError::RunNotFound(id))
    }

    /// Ends a run: its open tasks are cancelled, its document and input are let go. Looks at all
    /// of the run's tasks.
    ///
    /// # Errors
    /// `RunNotFound`; `RunState` where it has ended.
    pub fn end_run(
        &mut self,
        id: RunId,
        status: RunStatus,
        report: Arc<Value>,
        now: Now,
    ) -> Result<(), EngineError> {
        let record = self.open_record(id)?;
        record.status = if status == RunStatus::Open { RunStatus::Failed } else { status };
        record.report = Some(report);
        record.ended_at = Some(now.unix);
        record.ended_ms = now.ms;
        (record.document, record.input, record.settings) = (None, None, None);
        let sessions = std::mem::take(&mut record.sessions);
        self.ended_runs.insert((now.ms, id));
        for (_, task) in self.step_edges(id, None).collect::<Vec<_>>() {
            let Some(record) = self.tasks.get(&task) else { continue };
            if record.status.is_settled() {
                self.settled.insert((record.settled_ms, task));
            } else {
                self.cancel_tree(task, CancelScope::of(&self.rules), now);
            }
        }
        for session in sessions {
            self.end_session(session, now);
        }
        Ok(())
    }

    /// What is kept of a run.
    #[must_use]
    pub fn run(&self, id: RunId) -> Option<RunRecord> {
        self.runs.get(&id).cloned()
    }

    /// The newest runs that are wanted, from below `before` on, at most `limit`; and the last run
    /// that was looked at, where the look ended before the oldest one. Looks at 1,024 runs at most.
    #[must_use]
    pub fn runs_page(
        &self,
        before: Option<(u64, RunId)>,
        limit: usize,
        wanted: impl Fn(RunId, &RunRecord) -> bool,
    ) -> RunsPage {
        let below = match before {
            Some(before) => Bound::Excluded(before),
            None => Bound::Unbounded,
        };
        let mut older = self.run_starts.range((Bound::Unbounded, below)).rev().copied();
        let (mut found, mut last) = (Vec::new(), None);
        for (started, id) in older.by_ref().take(RUNS_LOOKED_AT) {
            last = Some((started, id));
            if let Some(run) = self.runs.get(&id).filter(|run| wanted(id, run)) {
                found.push((id, run.clone()));
            }
            if found.len() >= limit {
                break;
            }
        }
        RunsPage { found, next: last.filter(|_| older.next().is_some()) }
    }

    /// Every run that is remembered, the oldest first.
    #[must_use]
    pub fn runs(&self) -> Vec<(RunId, RunRecord)> {
        let mut all: Vec<_> = self.runs.iter().map(|(id, run)| (*id, run.clone())).collect();
        all.sort_by_key(|(id, run)| (run.started_at, *id));
        all
    }
}

#[cfg(test)]
mod tests;
