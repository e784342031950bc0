//! Tasks: start, read, cancel, post a result, and the one place where a status changes.

use std::sync::Arc;

use serde_json::Value;

use crate::errors::EngineError;
use crate::model::event::Event;
use crate::model::ids::{ResumeKey, SessionId, TaskId};
use crate::model::task::{OnInterrupt, TaskSpec, TaskState, TaskStatus};
use crate::state::attempts::Verdict;
use crate::state::auth::{Access, Reach};
use crate::state::effect::{Effect, Now};
use crate::state::keys::{Ended, OwnedKey};
use crate::state::{EngineState, Rules};

/// What the state keeps of a task. Cheap to clone: a turn keeps a copy of what it touches.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TaskRecord {
    pub(crate) spec: Arc<TaskSpec>,
    pub(crate) status: TaskStatus,
    pub(crate) attempt: u32,
    /// Whether the newest attempt still runs.
    pub(crate) live: bool,
    pub(crate) suspended_on: Option<ResumeKey>,
    pub(crate) last_result: Option<Arc<Value>>,
    pub(crate) created_at: u64,
    pub(crate) updated_at: u64,
    pub(crate) settled_ms: u64,
    pub(crate) depth: u32,
    pub(crate) parent: Option<TaskId>,
    /// The task at the top of the tree that this one is in; itself for an operator's own.
    pub(crate) root: TaskId,
    pub(crate) session: Option<SessionId>,
    /// Sub-tasks that are remembered.
    pub(crate) children: u64,
    /// Unsettled tasks of the tree; kept at its root only.
    pub(crate) tree_live: u64,
    /// Grows with every change that a waiter may want to hear of.
    pub(crate) revision: u64,
    /// Prompt of the next attempt, where a senior set one.
    pub(crate) next_prompt: Option<Arc<str>>,
    /// What it was started under, where that call may come again.
    pub(crate) key: Option<Arc<OwnedKey>>,
    pub(crate) on_interrupt: OnInterrupt,
}

/// A task that is about to be created.
#[derive(Debug, Clone)]
pub struct NewTask {
    /// Its fresh id.
    pub id: TaskId,
    /// Agent and first prompt.
    pub spec: Arc<TaskSpec>,
    /// The task that it is to be a sub-task of; a worker's own where none is named.
    pub parent: Option<TaskId>,
    /// Idempotency key; unique for its principal.
    pub key: Option<Arc<str>>,
    /// What is to become of it when its attempt is interrupted.
    pub on_interrupt: OnInterrupt,
}

impl NewTask {
    /// A task of its own, without a key.
    #[must_use]
    pub fn new(id: TaskId, spec: Arc<TaskSpec>) -> Self {
        Self { id, spec, parent: None, key: None, on_interrupt: OnInterrupt::Block }
    }
}

/// Whether a cancellation reaches the sub-tasks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CancelScope {
    subtasks: bool,
}

impl CancelScope {
    pub(crate) fn of(rules: &Rules) -> Self {
        Self { subtasks: rules.cancel_subtasks }
    }
}

impl EngineState {
    /// Creates a task. A worker's task becomes a sub-task of the worker's own.
    ///
    /// A key that was used before gives the task of then: nothing is created, recorded or spent.
    ///
    /// # Errors
    /// Those of an authorization; `KeyConflict`; `SpawnDepthExceeded`, `ChildLimitExceeded`,
    /// `TaskLimitExceeded`.
    pub fn create_task(
        &mut self,
        access: Access,
        new: NewTask,
        now: Now,
    ) -> Result<TaskId, EngineError> {
        let reach = new.parent.map_or(Reach::Anywhere, Reach::Tree);
        let grant = self.check(access, reach, now)?;
        let parent = new.parent.or(grant.bound.map(|(task, _)| task));
        let key = new.key.as_ref().map(|text| self.owned_key(access, text));
        if let Some(key) = &key
            && let Some(id) = self.started_before(key, &new, parent)?
        {
            return Ok(id);
        }
        let (depth, root, session) = match parent {
            Some(parent) => self.check_child(parent)?,
            None => (0, new.id, grant.session),
        };
        self.check_live(root)?;
        self.spend(&grant)?;
        let record = TaskRecord {
            spec: new.spec,
            status: TaskStatus::Pending,
            attempt: 0,
            live: false,
            suspended_on: None,
            last_result: None,
            created_at: now.unix,
            updated_at: now.unix,
            settled_ms: 0,
            depth,
            parent,
            root,
            session,
            children: 0,
            tree_live: 0,
            revision: 1,
            next_prompt: None,
            key: key.clone(),
            on_interrupt: new.on_interrupt,
        };
        self.tasks.insert(new.id, record);
        if let Some(key) = key {
            self.task_keys.insert(key, new.id);
        }
        if let Some(parent) = parent {
            self.children.insert((parent, new.id));
            if let Some(record) = self.tasks.get_mut(&parent) {
                record.children += 1;
            }
        }
        if let Some(session) = session {
            self.owned.insert((session, new.id));
        }
        self.count_live(root, true);
        self.record(now, Event::TaskCreated { task_id: new.id });
        Ok(new.id)
    }

    /// Depth, root and session of a sub-task of `parent`, if it may have one more.
    fn check_child(&self, parent: TaskId) -> Result<(u32, TaskId, Option<SessionId>), EngineError> {
        let record = self.task_record(parent)?;
        let (current, max) = (record.depth.saturating_add(1), self.rules.max_spawn_depth);
        if current >= max {
            return Err(EngineError::SpawnDepthExceeded { current, max });
        }
        let limit = self.rules.limits.children_per_task;
        if record.children >= limit {
            return Err(EngineError::ChildLimitExceeded { current: record.children, max: limit });
        }
        Ok((current, record.root, record.session))
    }

    /// Refuses when one more live task would be too many in the tree or in the engine.
    pub(crate) fn check_live(&self, root: TaskId) -> Result<(), EngineError> {
        let limits = &self.rules.limits;
        let in_tree = self.tasks.get(&root).map_or(0, |record| record.tree_live);
        for (scope, current, max) in [
            ("tree", in_tree, limits.live_tasks_per_tree),
            ("engine", self.counters.live_tasks, limits.live_tasks),
        ] {
            if current >= max {
                return Err(EngineError::TaskLimitExceeded { scope, current, max });
            }
        }
        Ok(())
    }

    pub(crate) fn count_live(&mut self, root: TaskId, born: bool) {
        let step = |count: &mut u64| {
            *count = if born { *count + 1 } else { count.saturating_sub(1) };
        };
        step(&mut self.counters.live_tasks);
        if let Some(record) = self.tasks.get_mut(&root) {
            step(&mut record.tree_live);
        }
    }

    pub(crate) fn task_record(&self, id: TaskId) -> Result<&TaskRecord, EngineError> {
        self.tasks.get(&id).ok_or_else(|| EngineError::TaskNotFound(id.to_string()))
    }

    /// Moves a task to another status. The one place where a status changes.
    ///
    /// **Invariant:** only along [`TaskStatus::may_become`]; `settled` holds exactly the settled
    /// tasks; the counts of live tasks follow (`audit`: settled, live counts).
    ///
    /// # Errors
    /// `InvalidTransition`; nothing is changed then. `wish` ends its sentence.
    pub(crate) fn move_task(
        &mut self,
        id: TaskId,
        next: TaskStatus,
        wish: &str,
        now: Now,
    ) -> Result<(), EngineError> {
        let record = self.task_record(id)?;
        let (from, root, settled_ms) = (record.status, record.root, record.settled_ms);
        if !from.may_become(next) {
            return Err(EngineError::transition(id, from, wish));
        }
        if let Some(record) = self.tasks.get_mut(&id) {
            record.status = next;
            record.updated_at = record.updated_at.max(now.unix);
            record.revision += 1;
            if next.is_settled() {
                record.settled_ms = now.ms;
            }
        }
        match (from.is_settled(), next.is_settled()) {
            (false, true) => {
                self.count_live(root, false);
                self.settled.insert((now.ms, id));
                self.forget_overflow(now);
            }
            (true, false) => {
                self.settled.remove(&(settled_ms, id));
                self.count_live(root, true);
            }
            (true, true) => {
                self.settled.remove(&(settled_ms, id));
                self.settled.insert((now.ms, id));
            }
            (false, false) => {}
        }
        Ok(())
    }

    /// A snapshot of a task, authorized.
    ///
    /// # Errors
    /// Those of an authorization.
    pub fn read_task(
        &mut self,
        access: Access,
        id: TaskId,
        now: Now,
    ) -> Result<TaskState, EngineError> {
        let grant = self.check(access, Reach::Tree(id), now)?;
        let missing = || EngineError::TaskNotFound(id.to_string());
        let snapshot = self.task(&id).ok_or_else(missing)?;
        self.spend(&grant)?;
        Ok(snapshot)
    }

    /// A snapshot of a task.
    #[must_use]
    pub fn task(&self, id: &TaskId) -> Option<TaskState> {
        let record = self.tasks.get(id)?;
        Some(TaskState {
            id: *id,
            spec: (*record.spec).clone(),
            status: record.status,
            attempt: record.attempt,
            suspended_on: record.suspended_on,
            last_result: record.last_result.as_deref().cloned(),
            created_at: record.created_at,
            updated_at: record.updated_at,
            spawn_depth: record.depth,
        })
    }

    /// Status, revision and session of a task, without copying its strings.
    #[must_use]
    pub fn glance(&self, id: &TaskId) -> Option<(TaskStatus, u64)> {
        self.tasks.get(id).map(|record| (record.status, record.revision))
    }

    /// The agent of a task.
    #[must_use]
    pub fn task_agent(&self, id: &TaskId) -> Option<&str> {
        self.tasks.get(id).map(|record| record.spec.agent.as_str())
    }

    /// The session on whose behalf a task runs; sub-tasks have their parent's.
    #[must_use]
    pub fn task_session(&self, id: &TaskId) -> Option<SessionId> {
        self.tasks.get(id).and_then(|record| record.session)
    }

    /// The task that started this one.
    #[must_use]
    pub fn task_parent(&self, id: &TaskId) -> Option<TaskId> {
        self.tasks.get(id).and_then(|record| record.parent)
    }

    /// The newest attempt of a task.
    ///
    /// # Errors
    /// `TaskNotFound`.
    pub fn task_attempt(&self, id: TaskId) -> Result<u32, EngineError> {
        Ok(self.task_record(id)?.attempt)
    }

    /// Cancels a task, and its sub-tasks where the rules say so. A cancelled task stays as it is.
    ///
    /// # Errors
    /// Those of an authorization; `InvalidTransition` for a task that passed.
    pub fn cancel_task(&mut self, access: Access, id: TaskId, now: Now) -> Result<(), EngineError> {
        let grant = self.check(access, Reach::Tree(id), now)?;
        let status = self.task_record(id)?.status;
        if status != TaskStatus::Cancelled && !status.may_become(TaskStatus::Cancelled) {
            return Err(EngineError::transition(id, status, "be cancelled"));
        }
        self.spend(&grant)?;
        self.cancel_tree(id, CancelScope::of(&self.rules), now);
        Ok(())
    }

    /// Cancels `id` and what is below it; tasks that are final are passed over.
    pub(crate) fn cancel_tree(&mut self, id: TaskId, scope: CancelScope, now: Now) {
        let mut open = vec![id];
        while let Some(id) = open.pop() {
            if scope.subtasks {
                open.extend(self.child_tasks(id));
            }
            self.cancel_one(id, now);
        }
    }

    fn cancel_one(&mut self, id: TaskId, now: Now) {
        let Some(record) = self.tasks.get(&id) else { return };
        if record.status.is_final() {
            return;
        }
        self.end_live_attempt(id);
        self.close_question(id);
        if self.move_task(id, TaskStatus::Cancelled, "be cancelled", now).is_ok() {
            self.record(now, Event::TaskCancelled { task_id: id });
        }
    }

    /// The remembered sub-tasks of a task.
    #[must_use]
    pub fn child_tasks(&self, id: TaskId) -> Vec<TaskId> {
        let first = (id, TaskId::from_bits(0));
        let last = (id, TaskId::from_bits(u128::MAX));
        self.children.range(first..=last).map(|(_, child)| *child).collect()
    }

    /// Ends a live attempt from outside: its token and handle are revoked, its worker is told.
    pub(crate) fn end_live_attempt(&mut self, id: TaskId) {
        let Some(record) = self.tasks.get_mut(&id) else { return };
        if !std::mem::replace(&mut record.live, false) {
            return;
        }
        let attempt = record.attempt;
        self.retire_attempt(id, attempt);
        self.note_end(id, attempt, Ended::Cancelled);
        self.effect(Effect::Stop(id, attempt, Verdict::Cancelled));
    }

    /// Stores an interim result of the worker's own task; the status stays.
    ///
    /// # Errors
    /// Those of an authorization; `InvalidTransition` where no attempt is live.
    pub fn post_result(
        &mut self,
        access: Access,
        id: TaskId,
        result: Arc<Value>,
        now: Now,
    ) -> Result<(), EngineError> {
        let grant = self.check(access, Reach::Own(id), now)?;
        let record = self.task_record(id)?;
        if !record.live {
            return Err(EngineError::transition(id, record.status, "take a result"));
        }
        self.spend(&grant)?;
        if let Some(record) = self.tasks.get_mut(&id) {
            record.last_result = Some(result);
            record.updated_at = record.updated_at.max(now.unix);
        }
        Ok(())
    }
}
