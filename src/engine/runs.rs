//! Runs of programs: what the engine keeps of them. They are carried out in `blueprint`.
//!
//! All of it is for trusted callers: a run belongs to the host that carries it on.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use adjutant_actors::errors::EngineError;
use adjutant_actors::model::ids::{RunId, SessionId, StepKey, TaskId};
use adjutant_actors::model::measure::{check_name, measure_text};
use adjutant_actors::model::role::Verb;
use adjutant_actors::model::task::TaskSpec;
use adjutant_actors::model::token::CapToken;
#[cfg(feature = "server")]
use adjutant_actors::state::EngineState;
use adjutant_actors::state::runs::{KeptStep, NewRun, RunRecord, RunStatus};
use adjutant_actors::state::tasks::NewTask;
use serde_json::Value;

use crate::engine::{Engine, TaskOptions};

/// Calls of steps that one turn gives at most.
const PAGE: usize = 512;

/// The runs that are carried on by this engine.
#[derive(Debug, Default)]
pub(crate) struct ActiveRuns(Arc<Mutex<HashSet<RunId>>>);

/// A run that nobody else may carry on while this lives.
#[derive(Debug)]
pub(crate) struct ActiveRun {
    runs: Arc<Mutex<HashSet<RunId>>>,
    id: RunId,
}

impl Drop for ActiveRun {
    fn drop(&mut self) {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

impl Engine {
    /// What is kept of a run. Trusted callers only.
    ///
    /// # Errors
    /// `Stopped`.
    pub async fn read_run(&self, run: RunId) -> Result<Option<RunRecord>, EngineError> {
        self.system().transact("read_run", move |state| Ok(state.run(run))).await
    }

    /// Every run that is remembered, the oldest first. Trusted callers only.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use adjutant::blueprint::{Functions, RunOptions, compile, run};
    /// use adjutant::{CancellationToken, RunStatus};
    /// use std::sync::Arc;
    /// # let engine = adjutant::Engine::new(adjutant::EngineCfg::default());
    /// # let text = r#"{"id": "echo", "agents": [{"name": "e", "kind": "rust_fn", "spec": {"fn_id": "identity"}}],
    /// #     "flow": {"kind": "step", "ref": "e", "in": {"op": "path", "at": "$.in"}, "out": {"op": "path", "at": "$.out"}}}"#;
    /// # let echo = adjutant::blueprint::parse_blueprint(text, None)?;
    /// let (id, leave) = (engine.mint().run_id(), CancellationToken::new());
    /// leave.cancel();
    /// # let program = Arc::new(compile(&engine, &echo, &Functions::new()).await?);
    /// let options = RunOptions { id: Some(id), leave, ..RunOptions::default() };
    /// run(&engine, program, serde_json::json!({ "in": 1 }), options).await?;
    /// assert_eq!(engine.list_runs().await?[0].0, id);
    ///
    /// engine.cancel_run(id).await?;
    /// let record = engine.read_run(id).await?.expect("it is kept");
    /// assert_eq!(record.status, RunStatus::Cancelled);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `Stopped`.
    pub async fn list_runs(&self) -> Result<Vec<(RunId, RunRecord)>, EngineError> {
        self.system().transact("list_runs", |state| Ok(state.runs())).await
    }

    /// The tasks of a run's steps, at most `limit`, in turns of bounded length.
    #[cfg(feature = "server")]
    pub(crate) async fn run_tasks(
        &self,
        run: RunId,
        limit: usize,
    ) -> Result<Vec<TaskId>, EngineError> {
        let (mut tasks, mut after) = (Vec::new(), None);
        while tasks.len() < limit {
            let want = PAGE.min(limit - tasks.len());
            let look = move |state: &mut EngineState| state.step_tasks(run, after, want);
            let page = self.with_state("run_tasks", look).await?;
            let done = page.len() < want;
            after = page.last().map(|(key, _)| *key);
            tasks.extend(page.into_iter().map(|(_, task)| task));
            if done {
                break;
            }
        }
        Ok(tasks)
    }

    /// Whether a step of a run was given to an agent, looked for in turns of bounded length.
    #[cfg(feature = "server")]
    pub(crate) async fn run_has_agent(&self, run: RunId, agent: &str) -> Result<bool, EngineError> {
        let mut after = None;
        loop {
            let agent = agent.to_owned();
            let look = move |state: &mut EngineState| {
                let page = state.step_tasks(run, after, PAGE);
                let last = page.last().map(|(key, _)| *key).filter(|_| page.len() == PAGE);
                let mut agents = page.iter().filter_map(|(_, task)| state.task_agent(task));
                (agents.any(|own| own == agent), last)
            };
            let (found, last) = self.with_state("run_has_agent", look).await?;
            if found || last.is_none() {
                return Ok(found);
            }
            after = last;
        }
    }

    /// Ends an open run that nobody carries on as cancelled, with its open tasks. Trusted callers
    /// only.
    ///
    /// # Errors
    /// `RunNotFound`; `RunState` where it has ended or is carried on here.
    pub async fn cancel_run(&self, run: RunId) -> Result<(), EngineError> {
        let _held = self.hold_run(run)?;
        let report = serde_json::json!({ "outcome": "cancelled", "context": null });
        self.end_run(run, RunStatus::Cancelled, report).await
    }

    /// Whether a shutdown has begun or the journal failed: what ends from now on may not have ended by itself.
    pub(crate) fn is_ending(&self) -> bool {
        self.system().is_draining() || self.journal_failure().is_some()
    }

    /// Takes a run for this caller alone.
    pub(crate) fn hold_run(&self, id: RunId) -> Result<ActiveRun, EngineError> {
        let runs = self.inner.active_runs.0.clone();
        if !runs.lock().unwrap_or_else(PoisonError::into_inner).insert(id) {
            return Err(EngineError::RunState { run: id, state: "is carried on already" });
        }
        Ok(ActiveRun { runs, id })
    }

    pub(crate) async fn open_run(&self, run: RunId, new: NewRun) -> Result<(), EngineError> {
        let now = self.now()?;
        self.measured("document", Value::clone(&new.document))?;
        self.measured("input", Value::clone(&new.input))?;
        self.system().transact("open_run", move |state| state.open_run(run, new, now)).await
    }

    pub(crate) async fn take_over_run(
        &self,
        run: RunId,
        sessions: Vec<SessionId>,
    ) -> Result<(), EngineError> {
        let now = self.now()?;
        self.system()
            .transact("resume_run", move |state| state.resume_run(run, sessions, now))
            .await
    }

    pub(crate) async fn end_run(
        &self,
        run: RunId,
        status: RunStatus,
        report: Value,
    ) -> Result<(), EngineError> {
        let (now, report) = (self.now()?, Arc::new(report));
        self.system()
            .transact("end_run", move |state| state.end_run(run, status, report, now))
            .await
    }

    /// The calls of a run that have their task, in turns of bounded length.
    pub(crate) async fn kept_steps(&self, run: RunId) -> Result<Vec<KeptStep>, EngineError> {
        let mut all: Vec<KeptStep> = Vec::new();
        loop {
            let after = all.last().map(|step| step.key);
            let page = self
                .system()
                .transact("kept_steps", move |state| Ok(state.kept_steps(run, after, PAGE)))
                .await?;
            let done = page.len() < PAGE;
            all.extend(page);
            if done {
                return Ok(all);
            }
        }
    }

    /// Starts the task of a step's call, or gives the one that there is.
    pub(crate) async fn start_step(
        &self,
        token: &CapToken,
        (run, key): (RunId, StepKey),
        spec: TaskSpec,
        options: TaskOptions,
    ) -> Result<TaskId, EngineError> {
        let (access, now) = self.access(token, Verb::StartTask)?;
        self.refuse_while_draining()?;
        check_name("agent", &spec.agent)?;
        measure_text("directive", &spec.initial_directive, self.cfg().limits.prompt_bytes)?;
        let mut new = NewTask::new(self.mint().task_id(), Arc::new(spec));
        new.on_interrupt = options.on_interrupt;
        self.system()
            .transact("start_step", move |state| state.start_step(access, run, key, new, now))
            .await
    }

    /// Whether the newest attempt of a task was interrupted, and did not end by itself.
    pub(crate) async fn was_interrupted(&self, task: TaskId) -> Result<bool, EngineError> {
        self.system()
            .transact("was_interrupted", move |state| Ok(state.was_interrupted(&task)))
            .await
    }

    /// Keeps what a run was told of the end of a step.
    pub(crate) async fn note_told(&self, task: TaskId, told: Value) -> Result<(), EngineError> {
        let told = Arc::new(told);
        self.system()
            .transact("note_told", move |state| {
                state.note_told(task, told);
                Ok(())
            })
            .await
    }
}
