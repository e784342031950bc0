//! The payload that a worker pulls: prompt and system prompt of its attempt.

use std::sync::Arc;

use crate::errors::EngineError;
use crate::model::ids::TaskId;
use crate::model::output::WorkerPayload;
use crate::state::EngineState;
use crate::state::auth::{Access, Reach};
use crate::state::effect::Now;

impl EngineState {
    /// The prompt of a task's current attempt, authorized.
    ///
    /// # Errors
    /// Those of an authorization.
    pub fn fetch_prompt(
        &mut self,
        access: Access,
        task: TaskId,
        now: Now,
    ) -> Result<String, EngineError> {
        self.fetch_payload(access, task, now).map(|payload| payload.prompt)
    }

    /// What the worker of a task's current attempt needs to start, authorized.
    ///
    /// # Errors
    /// Those of an authorization.
    pub fn fetch_payload(
        &mut self,
        access: Access,
        task: TaskId,
        now: Now,
    ) -> Result<WorkerPayload, EngineError> {
        let grant = self.check(access, Reach::Own(task), now)?;
        let payload = self.payload(task)?;
        self.spend(&grant)?;
        Ok(payload)
    }

    fn payload(&self, task: TaskId) -> Result<WorkerPayload, EngineError> {
        let record = self.task_record(task)?;
        let attempt = record.attempt.max(1);
        let held = self.attempts.get(&(task, attempt));
        let prompt = held.and_then(|held| held.prompt.as_deref());
        Ok(WorkerPayload {
            task_id: task,
            attempt,
            agent: record.spec.agent.clone(),
            system: held
                .and_then(|held| held.system.clone())
                .flatten()
                .map(|text| text.to_string()),
            prompt: prompt.unwrap_or(&record.spec.initial_directive).to_owned(),
        })
    }

    /// Stores the rendered system prompt of an attempt.
    ///
    /// # Errors
    /// `TaskNotFound`; `InvalidTransition` for an attempt that never began.
    pub fn bake_system_prompt(
        &mut self,
        task: TaskId,
        attempt: u32,
        system: Option<Arc<str>>,
    ) -> Result<(), EngineError> {
        let current = self.task_record(task)?.attempt;
        let Some(record) = self.attempts.get_mut(&(task, attempt)) else {
            return Err(EngineError::InvalidTransition(format!(
                "attempt {attempt} of task {task} has not begun: the newest is {current}"
            )));
        };
        self.counters.marks += 1;
        record.system = Some(system);
        record.texts_mark = self.counters.marks;
        Ok(())
    }
}
