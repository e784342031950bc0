//! Shutdown: drain, then stop, then kill, within one deadline; and the report of what was left.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::ids::TaskId;
use crate::model::task::TaskStatus;
use crate::state::EngineState;
use crate::system::ActorSystem;

/// What a shutdown left. Nothing in it is Running: interrupted attempts are decided as Blocked.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # use adjutant_actors::{clock::SystemClock, config::EngineCfg, system::ActorSystem};
/// # let system = ActorSystem::new(EngineCfg::default(), std::sync::Arc::new(SystemClock::new()));
/// let report = system.shutdown(std::time::Duration::from_secs(5)).await;
/// assert!(report.interrupted.is_empty() && report.killed == 0, "{report}");
/// assert!(system.is_draining() && system.is_closed());
/// let open = |state: &mut adjutant_actors::state::EngineState| state.tasks_with(|status| !status.is_final());
/// assert!(system.with_state("look", open).await.is_err()); // it has stopped
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShutdownReport {
    /// Attempts that ended by themselves within the deadline.
    pub drained: usize,
    /// Attempts that were still at work and were interrupted.
    pub interrupted: Vec<(TaskId, u32)>,
    /// Workers that ignored their cancel token and were stopped by force.
    pub killed: usize,
    /// Tasks whose question to the senior is still open.
    pub suspended: Vec<TaskId>,
    /// Tasks that were never dispatched, or wait for their next dispatch.
    pub waiting: Vec<TaskId>,
}

impl std::fmt::Display for ShutdownReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} attempts drained, {} interrupted, {} workers killed, {} tasks suspended, {} waiting",
            self.drained,
            self.interrupted.len(),
            self.killed,
            self.suspended.len(),
            self.waiting.len()
        )
    }
}

impl ActorSystem {
    /// Whether a shutdown has begun; new sessions, tasks and dispatches are refused then.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.core.draining.load(std::sync::atomic::Ordering::Acquire)
    }

    /// Drains, then stops, then kills: attempts may end by themselves until a quarter of the
    /// deadline, at most the cancel grace, is left; then their workers are asked to stop; then
    /// the tree is stopped with whatever is in it, and the journal is closed. A second call reports
    /// an empty rest.
    pub async fn shutdown(&self, deadline: Duration) -> ShutdownReport {
        let core = &self.core;
        core.draining.store(true, std::sync::atomic::Ordering::Release);
        let grace = (deadline / 4).min(core.cfg.cancel_grace);
        let at_work = core.attempts.len();
        core.attempts.close();
        let drained =
            tokio::time::timeout(deadline.saturating_sub(grace), core.attempts.wait()).await;
        // Where a journal is kept, this waits until it is safe: a disk that hangs holds nobody up.
        let limit = grace.max(Duration::from_secs(1));
        let mut report = tokio::time::timeout(limit, self.interrupt()).await.unwrap_or_default();
        report.drained = at_work.saturating_sub(report.interrupted.len());
        if drained.is_err() {
            let _ = tokio::time::timeout(grace, core.attempts.wait()).await;
        }
        report.killed = core.attempts.len();
        let root = core.root();
        core.close("it was shut down");
        if let Some(root) = root {
            // The whole deadline is spent by now at worst; the stop itself takes no long time.
            let _ = tokio::time::timeout(Duration::from_secs(1), root.get_cell().wait(None)).await;
        }
        self.close_journal().await;
        report
    }

    /// Decides the attempts that are still live and lists what is open.
    async fn interrupt(&self) -> ShutdownReport {
        if self.core.root().is_none() {
            return ShutdownReport::default();
        }
        let Ok(now) = self.now() else { return ShutdownReport::default() };
        let found = self
            .transact("shutdown", move |state| {
                let mut interrupted = state.live_attempts();
                interrupted.sort_unstable();
                let reason = "the engine was shut down";
                crate::hop::interrupting(reason, now);
                state.interrupt_all(reason, now);
                let suspended = state.tasks_with(|status| status == TaskStatus::Suspended);
                let waiting = state.tasks_with(|status| {
                    matches!(status, TaskStatus::Pending | TaskStatus::Running)
                });
                Ok(ShutdownReport { interrupted, suspended, waiting, ..ShutdownReport::default() })
            })
            .await;
        found.unwrap_or_default()
    }
}

impl EngineState {
    /// The tasks whose status is as asked, in the order of their ids. Looks at every task.
    #[must_use]
    pub fn tasks_with(&self, wanted: impl Fn(TaskStatus) -> bool) -> Vec<TaskId> {
        let mut found: Vec<_> = self
            .tasks
            .iter()
            .filter(|(_, record)| wanted(record.status))
            .map(|(id, _)| *id)
            .collect();
        found.sort_unstable();
        found
    }
}
