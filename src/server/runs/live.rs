//! A run while it is carried on here: how to stop it, what of it is under way, and its end.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError, Weak};

use adjutant_actors::errors::EngineError;
use adjutant_actors::model::ids::{RunId, TaskId};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::blueprint::{RunObserver, RunOutcome, RunReport, StepEnd};
use crate::server::runs::{LiveRuns, lock};

/// How far a run has come.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Stage {
    /// It is not known to the engine yet.
    Beginning,
    /// The engine keeps it: it outlives whoever asked for it.
    Opened,
    /// It has ended or was left, or could not go on.
    Over(Result<RunOutcome, EngineError>),
}

/// A run that is carried on.
pub(crate) struct Live {
    id: RunId,
    home: Weak<LiveRuns>,
    pub(crate) cancel: CancellationToken,
    pub(crate) leave: CancellationToken,
    stage: watch::Sender<Stage>,
    open: Mutex<BTreeSet<TaskId>>,
}

impl Live {
    pub(crate) fn new(id: RunId, home: Weak<LiveRuns>) -> Self {
        Self {
            id,
            home,
            cancel: CancellationToken::new(),
            leave: CancellationToken::new(),
            stage: watch::Sender::new(Stage::Beginning),
            open: Mutex::default(),
        }
    }

    fn open(&self) -> MutexGuard<'_, BTreeSet<TaskId>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The tasks of steps that are under way, at most `limit`.
    pub(crate) fn open_tasks(&self, limit: usize) -> Vec<TaskId> {
        self.open().iter().take(limit).copied().collect()
    }

    pub(crate) fn stage(&self) -> watch::Receiver<Stage> {
        self.stage.subscribe()
    }

    pub(crate) fn is_over(&self) -> bool {
        matches!(*self.stage.borrow(), Stage::Over(_))
    }

    /// Says how the run ended. The first word counts.
    pub(crate) fn end(&self, ended: Result<RunReport, EngineError>) {
        let ended = ended.map(|report| report.outcome);
        self.stage.send_if_modified(|stage| {
            let first = !matches!(stage, Stage::Over(_));
            if first {
                *stage = Stage::Over(ended);
            }
            first
        });
        if let Some(home) = self.home.upgrade() {
            lock(&home).remove(&self.id);
        }
    }
}

impl RunObserver for Live {
    fn run_opened(&self) {
        self.stage.send_if_modified(|stage| {
            let first = *stage == Stage::Beginning;
            if first {
                *stage = Stage::Opened;
            }
            first
        });
    }

    fn step_started(&self, task: TaskId, _step: &str) {
        self.open().insert(task);
    }

    fn step_ended(&self, task: TaskId, _step: &str, _end: &StepEnd) {
        self.open().remove(&task);
    }
}
