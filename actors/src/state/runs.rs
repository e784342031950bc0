//! Runs of programs: what one was started with, which task carries out which call of a step, how it
//! ended. What a program is, is not known here: its document and its settings are values.
//!
//! A run goes on after a crash by being evaluated again: each call of a step finds its task by the
//! key that follows from the call. So while a run is open, none of its tasks is forgotten.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::errors::EngineError;
use crate::model::ids::{ResumeKey, RunId, SessionId, StepKey, TaskId};
use crate::model::task::TaskStatus;
use crate::state::EngineState;
use crate::state::auth::Access;
use crate::state::effect::Now;
use crate::state::tasks::{CancelScope, NewTask};

/// Where a run stands.
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

/// The call of a step that a task carries out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepOf {
    /// The run.
    pub run: RunId,
    /// The call.
    pub key: StepKey,
    /// What the run was told of its end, where the task does not tell.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::state::images::present::deserialize"
    )]
    pub told: Option<Arc<Value>>,
}

/// A call of a step that has its task.
#[derive(Debug, Clone, PartialEq)]
pub struct KeptStep {
    /// The call.
    pub key: StepKey,
    /// Its task.
    pub task: TaskId,
    /// Where the task stands.
    pub status: TaskStatus,
    /// Its newest attempt; 0 before the first.
    pub attempt: u32,
    /// Whether that still runs.
    pub live: bool,
    /// The task's result.
    pub result: Option<Arc<Value>>,
    /// The newest question that it asked, and the answer if there is one.
    pub question: Option<(ResumeKey, Arc<Value>, Option<Arc<Value>>)>,
    /// What the run was told of its end, where the task does not tell.
    pub told: Option<Arc<Value>>,
}

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

    /// Starts the task of a step's call, or gives the one that there is.
    ///
    /// # Errors
    /// `RunNotFound`; `RunState` where it has ended; those of [`Self::create_task`].
    pub fn start_step(
        &mut self,
        access: Access,
        run: RunId,
        key: StepKey,
        new: NewTask,
        now: Now,
    ) -> Result<TaskId, EngineError> {
        let status = self.runs.get(&run).ok_or(EngineError::RunNotFound(run))?.status;
        if status != RunStatus::Open {
            return Err(EngineError::RunState { run, state: "has ended" });
        }
        if let Some(task) = self.task_of_step(run, key) {
            return Ok(task);
        }
        let id = self.create_task(access, new, now)?;
        if let Some(record) = self.tasks.get_mut(&id) {
            record.step = Some(Arc::new(StepOf { run, key, told: None }));
        }
        self.steps.insert((run, key, id));
        Ok(id)
    }

    /// Keeps what a run was told of the end of a step, where its task does not tell.
    pub fn note_told(&mut self, task: TaskId, told: Arc<Value>) {
        let Some(record) = self.tasks.get_mut(&task) else { return };
        let noted = record.step.as_ref().map(|own| StepOf { told: Some(told), ..(**own).clone() });
        record.step = noted.map(Arc::new);
    }

    /// The task of a step's call.
    #[must_use]
    pub fn task_of_step(&self, run: RunId, key: StepKey) -> Option<TaskId> {
        let (first, last) = (TaskId::from_bits(0), TaskId::from_bits(u128::MAX));
        self.steps.range((run, key, first)..=(run, key, last)).next().map(|(_, _, task)| *task)
    }

    fn step_edges(
        &self,
        run: RunId,
        after: Option<StepKey>,
    ) -> impl Iterator<Item = (StepKey, TaskId)> {
        let start = match after {
            Some(key) => (run, key, TaskId::from_bits(u128::MAX)),
            None => (run, StepKey::from_bits(0), TaskId::from_bits(0)),
        };
        let end = (run, StepKey::from_bits(u128::MAX), TaskId::from_bits(u128::MAX));
        self.steps.range(start..=end).map(|(_, key, task)| (*key, *task))
    }

    /// The calls of a run that have a task, in the order of their keys from after `after` on, at
    /// most `limit`.
    #[must_use]
    pub fn kept_steps(&self, run: RunId, after: Option<StepKey>, limit: usize) -> Vec<KeptStep> {
        let edges = self.step_edges(run, after).filter(|(key, _)| Some(*key) != after);
        edges.take(limit).filter_map(|(key, task)| self.kept_step(key, task)).collect()
    }

    fn kept_step(&self, key: StepKey, task: TaskId) -> Option<KeptStep> {
        let record = self.tasks.get(&task)?;
        let asked = self.questions_of(task).into_iter();
        let newest = asked.filter_map(|key| Some((self.resumes.get(&key)?, key)));
        let newest = newest.max_by_key(|(asked, key)| (asked.asked_at, *key));
        let newest =
            record.suspended_on.and_then(|key| Some((self.resumes.get(&key)?, key))).or(newest);
        Some(KeptStep {
            key,
            task,
            status: record.status,
            attempt: record.attempt,
            live: record.live,
            result: record.last_result.clone(),
            question: newest
                .map(|(asked, key)| (key, asked.question.clone(), asked.answer.clone())),
            told: record.step.as_ref().and_then(|own| own.told.clone()),
        })
    }

    /// What is kept of a run.
    #[must_use]
    pub fn run(&self, id: RunId) -> Option<RunRecord> {
        self.runs.get(&id).cloned()
    }

    /// Every run that is remembered, the oldest first.
    #[must_use]
    pub fn runs(&self) -> Vec<(RunId, RunRecord)> {
        let mut all: Vec<_> = self.runs.iter().map(|(id, run)| (*id, run.clone())).collect();
        all.sort_by_key(|(id, run)| (run.started_at, *id));
        all
    }

    /// The call of a step that a task carries out, if it carries out one.
    #[must_use]
    pub fn step_of(&self, task: &TaskId) -> Option<Arc<StepOf>> {
        self.tasks.get(task)?.step.clone()
    }

    /// Whether an open run may still need the task.
    pub(crate) fn is_pinned(&self, task: TaskId) -> bool {
        let step = self.tasks.get(&task).and_then(|record| record.step.as_ref());
        step.and_then(|own| self.runs.get(&own.run))
            .is_some_and(|run| run.status == RunStatus::Open)
    }
}

#[cfg(test)]
mod tests;
