//! Tasks and runs by the oracle: started, cancelled, posted to, settled; opened, handed over, ended.

use adjutant_actors::errors::EngineError;
use adjutant_actors::model::event::Event;
use adjutant_actors::model::ids::{RunId, SessionId, TaskId};
use adjutant_actors::model::task::TaskStatus;
use adjutant_actors::state::attempts::Verdict;
use adjutant_actors::state::effect::Effect;
use adjutant_actors::state::runs::RunStatus;
use serde_json::Value;

use crate::call::{Call, Reply, Said, Who, session_of, spec, text, value};
use crate::oracle::auth::Reach;
use crate::oracle::{Ended, Oracle, Run, Task};

/// What a start says beside who calls.
struct Start {
    id: TaskId,
    agent: u8,
    parent: Option<TaskId>,
    key: Option<u8>,
    retry: bool,
}

impl Oracle {
    pub(super) fn tasks(&mut self, call: &Call) -> Reply {
        match *call {
            Call::Start { who, id, agent, parent, key, retry } => {
                self.start(who, Start { id, agent, parent, key, retry }).map(Said::Task)
            }
            Call::Step { who, run, step, id, agent } => self.step(who, (run, step), id, agent),
            Call::Read { who, task } => {
                let grant = self.check(who, Reach::Tree(task))?;
                let state = self.state_of(task).ok_or_else(|| no_task(task))?;
                self.spend(&grant)?;
                Ok(Said::State(Box::new(state)))
            }
            Call::Cancel { who, task } => {
                let grant = self.check(who, Reach::Tree(task))?;
                if self.task(task)?.status == TaskStatus::Pass {
                    return Err(refused());
                }
                self.spend(&grant)?;
                self.cancel_tree(task);
                Ok(Said::Nothing)
            }
            Call::Post { who, task, value: number } => {
                let grant = self.check(who, Reach::Own(task))?;
                self.task(task)?;
                self.live(task).ok_or_else(refused)?;
                self.spend(&grant)?;
                self.touch(task).result = Some(value(number));
                Ok(Said::Nothing)
            }
            Call::OpenRun { run, session } => self.open_run(run, session.map(session_of)),
            Call::EndRun { run, status } => self.end_run(run, status),
            Call::ResumeRun { run, session } => self.resume_run(run, session.map(session_of)),
            ref other => unreachable!("{other:?} is not about a task"),
        }
    }

    pub(super) fn task(&self, id: TaskId) -> Result<&Task, EngineError> {
        self.tasks.get(&id).ok_or_else(|| no_task(id))
    }

    /// A task for change, seen at this moment.
    pub(super) fn touch(&mut self, id: TaskId) -> &mut Task {
        let task = self.tasks.get_mut(&id).expect("it was looked up before");
        task.updated = task.updated.max(self.now.unix);
        task
    }

    fn start(&mut self, who: Who, new: Start) -> Result<TaskId, EngineError> {
        let grant = self.check(who, new.parent.map_or(Reach::Anywhere, Reach::Tree))?;
        let parent = new.parent.or(grant.bound.map(|(task, _)| task));
        let key = new.key.map(|key| self.owned_key(who, key));
        let before = self.tasks.iter().find(|(_, task)| key.is_some() && task.key == key);
        if let Some((id, task)) = before {
            let same = [
                ("agent", task.spec.agent == spec(new.agent).agent),
                ("parent", task.parent == parent),
                ("on_interrupt", task.retry == new.retry),
            ];
            let differs: Vec<_> = same.iter().filter(|one| !one.1).map(|one| one.0).collect();
            if differs.is_empty() {
                return Ok(*id);
            }
            let key = text(new.key.unwrap_or_default()).to_string();
            return Err(EngineError::KeyConflict { key, differs });
        }
        let (depth, root, session) = match parent {
            None => (0, new.id, grant.session),
            Some(parent) => {
                let above = self.task(parent)?;
                let (current, max) = (above.depth + 1, self.rules.max_spawn_depth);
                if current >= max {
                    return Err(EngineError::SpawnDepthExceeded { current, max });
                }
                let (current, max) =
                    (self.below(parent).len() as u64, self.rules.limits.children_per_task);
                if current >= max {
                    return Err(EngineError::ChildLimitExceeded { current, max });
                }
                (depth_below(above), above.root, above.session)
            }
        };
        self.room_to_live(root)?;
        self.spend(&grant)?;
        let task = Task {
            spec: spec(new.agent),
            status: TaskStatus::Pending,
            attempt: 0,
            result: None,
            created: self.now.unix,
            updated: self.now.unix,
            settled: 0,
            depth,
            parent,
            root,
            session,
            directive: None,
            step: None,
            key,
            retry: new.retry,
        };
        self.tasks.insert(new.id, task);
        self.event(Event::TaskCreated { task_id: new.id });
        Ok(new.id)
    }

    fn step(&mut self, who: Who, step: (RunId, u8), id: TaskId, agent: u8) -> Reply {
        self.open(step.0)?;
        if let Some((id, _)) = self.tasks.iter().find(|(_, task)| task.step == Some(step)) {
            return Ok(Said::Task(*id));
        }
        let id = self.start(who, Start { id, agent, parent: None, key: None, retry: false })?;
        self.tasks.get_mut(&id).expect("it was started").step = Some(step);
        Ok(Said::Task(id))
    }

    /// The remembered tasks right below one.
    pub(super) fn below(&self, id: TaskId) -> Vec<TaskId> {
        let below = self.tasks.iter().filter(|(_, task)| task.parent == Some(id));
        below.map(|(id, _)| *id).collect()
    }

    /// How many tasks of a tree are unsettled, as long as its root is remembered.
    pub(super) fn live_in_tree(&self, root: TaskId) -> u64 {
        if !self.tasks.contains_key(&root) {
            return 0;
        }
        let of_tree = self.tasks.values().filter(|task| task.root == root);
        of_tree.filter(|task| !task.status.is_settled()).count() as u64
    }

    pub(super) fn room_to_live(&self, root: TaskId) -> Result<(), EngineError> {
        let (limits, live) = (&self.rules.limits, self.sizes().live);
        for (scope, current, max) in [
            ("tree", self.live_in_tree(root), limits.live_tasks_per_tree),
            ("engine", live, limits.live_tasks),
        ] {
            if current >= max {
                return Err(EngineError::TaskLimitExceeded { scope, current, max });
            }
        }
        Ok(())
    }

    /// Moves a task to another status. Where it settles, others may be forgotten for it.
    pub(super) fn become_(&mut self, id: TaskId, next: TaskStatus) {
        let now = self.now.ms;
        let task = self.touch(id);
        let before = std::mem::replace(&mut task.status, next);
        assert!(before.may_become(next), "the oracle moves {id} from {before} to {next}");
        if next.is_settled() {
            task.settled = now;
            self.held.remove(&id);
        }
        if next.is_settled() && !before.is_settled() {
            self.forget_overflow();
        }
    }

    /// Gives a task its verdict. Its attempt and its question are over.
    pub(super) fn settle(&mut self, id: TaskId, ok: bool, result: Value, shown: Value) {
        self.touch(id).result = Some(result);
        self.become_(id, if ok { TaskStatus::Pass } else { TaskStatus::Blocked });
        self.event(if ok {
            Event::TaskPass { task_id: id, result: shown }
        } else {
            Event::TaskBlocked { task_id: id, result: shown }
        });
    }

    pub(super) fn cancel_tree(&mut self, id: TaskId) {
        let mut open = vec![id];
        while let Some(id) = open.pop() {
            if self.rules.cancel_subtasks {
                open.extend(self.below(id));
            }
            if self.tasks.get(&id).is_none_or(|task| task.status.is_final()) {
                continue;
            }
            self.end_from_outside(id);
            self.become_(id, TaskStatus::Cancelled);
            self.event(Event::TaskCancelled { task_id: id });
        }
    }

    /// Ends a live attempt, whose worker is told, and closes an open question.
    pub(super) fn end_from_outside(&mut self, id: TaskId) {
        if let Some(attempt) = self.live(id) {
            self.part(id, attempt);
            self.note_end(id, attempt, Ended::As(Verdict::Cancelled));
            self.effect(Effect::Stop(id, attempt, Verdict::Cancelled));
        }
        self.close_question(id);
    }

    fn open(&mut self, id: RunId) -> Result<&mut Run, EngineError> {
        let run = self.runs.get_mut(&id).ok_or(EngineError::RunNotFound(id))?;
        if run.status != RunStatus::Open {
            return Err(EngineError::RunState { run: id, state: "has ended" });
        }
        Ok(run)
    }

    fn open_run(&mut self, id: RunId, session: Option<SessionId>) -> Reply {
        if self.runs.contains_key(&id) {
            return Err(EngineError::RunState { run: id, state: "exists already" });
        }
        let open = self.runs.values().filter(|run| run.status == RunStatus::Open).count();
        let (current, max) = (open as u64, self.rules.limits.open_runs);
        if current >= max {
            return Err(EngineError::TableFull { what: "open runs", current, max });
        }
        let sessions = session.into_iter().collect();
        self.runs.insert(id, Run { status: RunStatus::Open, sessions, ended: 0 });
        Ok(Said::Nothing)
    }

    fn steps_of(&self, id: RunId) -> Vec<TaskId> {
        let of_run = |task: &Task| task.step.filter(|step| step.0 == id).map(|step| step.1);
        let steps = self.tasks.iter().filter_map(|(id, task)| Some((of_run(task)?, *id)));
        let mut steps: Vec<_> = steps.collect();
        steps.sort_unstable();
        steps.into_iter().map(|(_, id)| id).collect()
    }

    fn resume_run(&mut self, id: RunId, session: Option<SessionId>) -> Reply {
        let run = self.open(id)?;
        for before in std::mem::replace(&mut run.sessions, session.into_iter().collect()) {
            self.end_session(before);
        }
        for task in self.steps_of(id) {
            let task = self.tasks.get_mut(&task).expect("it is a step's");
            if !task.status.is_final() {
                task.session = session;
            }
        }
        Ok(Said::Nothing)
    }

    fn end_run(&mut self, id: RunId, status: RunStatus) -> Reply {
        let now = self.now.ms;
        let run = self.open(id)?;
        run.status = if status == RunStatus::Open { RunStatus::Failed } else { status };
        run.ended = now;
        let sessions = std::mem::take(&mut run.sessions);
        let steps = self.steps_of(id);
        self.held = steps.iter().copied().collect();
        for task in steps {
            self.held.remove(&task);
            if self.tasks.get(&task).is_some_and(|task| !task.status.is_settled()) {
                self.cancel_tree(task);
            }
        }
        for session in sessions {
            self.end_session(session);
        }
        Ok(Said::Nothing)
    }

    /// Whether a task may not be forgotten yet because of its run.
    pub(super) fn is_pinned(&self, id: TaskId) -> bool {
        let run = self.tasks.get(&id).and_then(|task| task.step);
        let open = run.and_then(|(run, _)| self.runs.get(&run));
        self.held.contains(&id) || open.is_some_and(|run| run.status == RunStatus::Open)
    }
}

fn depth_below(task: &Task) -> u32 {
    task.depth + 1
}

pub(super) fn no_task(id: TaskId) -> EngineError {
    EngineError::TaskNotFound(id.to_string())
}

/// A refused move.
pub(super) fn refused() -> EngineError {
    EngineError::InvalidTransition(String::new())
}
