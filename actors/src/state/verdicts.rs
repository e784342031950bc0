//! Verdicts: what gives a task one, operators' marks, a senior's override, and the next directive.

use std::sync::Arc;

use serde_json::Value;

use crate::errors::EngineError;
use crate::model::event::Event;
use crate::model::ids::TaskId;
use crate::model::task::TaskStatus;
use crate::state::EngineState;
use crate::state::auth::{Access, Reach};
use crate::state::effect::Now;
use crate::state::resumes::Measured;

/// From which statuses a verdict from outside is lawful.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Marking {
    /// An operator's mark: Pending and Running.
    Operator,
    /// A senior's override: Running, Suspended, and Blocked when it is to pass.
    Senior,
}

impl Marking {
    fn allows(self, status: TaskStatus, ok: bool) -> bool {
        match self {
            Self::Operator => matches!(status, TaskStatus::Pending | TaskStatus::Running),
            Self::Senior => match status {
                TaskStatus::Running | TaskStatus::Suspended => true,
                TaskStatus::Blocked => ok,
                _ => false,
            },
        }
    }
}

impl EngineState {
    /// Gives a task its verdict from outside. A live attempt is ended, an open question closed.
    ///
    /// # Errors
    /// Those of an authorization; `InvalidTransition` where the marking does not allow it.
    pub fn mark_task(
        &mut self,
        access: Access,
        marking: Marking,
        task: TaskId,
        ok: bool,
        value: Measured,
        now: Now,
    ) -> Result<(), EngineError> {
        let grant = self.check(access, Reach::Below(task), now)?;
        let status = self.task_record(task)?.status;
        if !marking.allows(status, ok) {
            let wish = if ok { "be passed from outside" } else { "be blocked from outside" };
            return Err(EngineError::transition(task, status, wish));
        }
        self.spend(&grant)?;
        self.end_live_attempt(task);
        self.close_question(task);
        let shown = self.shown_value(&value.value, value.bytes);
        self.settle(task, ok, value.value, shown, now);
        Ok(())
    }

    /// Gives a task its verdict: result, status, event. The caller has ended the attempt.
    pub(crate) fn settle(
        &mut self,
        task: TaskId,
        ok: bool,
        value: Arc<Value>,
        shown: Value,
        now: Now,
    ) {
        if let Some(record) = self.tasks.get_mut(&task) {
            record.last_result = Some(value);
        }
        let next = if ok { TaskStatus::Pass } else { TaskStatus::Blocked };
        if self.move_task(task, next, "be decided", now).is_ok() {
            let event = if ok {
                Event::TaskPass { task_id: task, result: shown }
            } else {
                Event::TaskBlocked { task_id: task, result: shown }
            };
            self.record(now, event);
        }
    }

    /// Sets the prompt of the next attempt.
    ///
    /// # Errors
    /// Those of an authorization; `InvalidTransition` for a task that is final.
    pub fn inject_directive(
        &mut self,
        access: Access,
        task: TaskId,
        directive: Arc<str>,
        now: Now,
    ) -> Result<(), EngineError> {
        let grant = self.check(access, Reach::Below(task), now)?;
        let status = self.task_record(task)?.status;
        if status.is_final() {
            return Err(EngineError::transition(task, status, "take a directive"));
        }
        self.spend(&grant)?;
        if let Some(record) = self.tasks.get_mut(&task) {
            record.next_prompt = Some(directive);
            record.updated_at = record.updated_at.max(now.unix);
        }
        self.record(now, Event::DirectiveInjected { task_id: task });
        Ok(())
    }

    /// Records that an attempt takes longer than was expected of it; nothing else happens.
    pub fn note_slow_attempt(
        &mut self,
        task: TaskId,
        attempt: u32,
        elapsed_ms: u64,
        default_hold_ms: u64,
        now: Now,
    ) {
        self.record(
            now,
            Event::AttemptSlow { task_id: task, attempt, elapsed_ms, default_hold_ms },
        );
    }
}
