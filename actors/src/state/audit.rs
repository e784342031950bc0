//! The audit: what must hold between turns, each rule with its name. Looks at everything, so it
//! is for tests and simulations; a debug build audits the tasks that a turn touched.

use std::collections::HashMap;

use crate::model::ids::TaskId;
use crate::model::task::TaskStatus;
use crate::state::EngineState;
use crate::state::effect::Effect;
use crate::state::runs::RunStatus;

/// The rules, as a test or a check of a store asks for them:
///
/// ```
/// # use adjutant_actors::{config::EngineCfg, state::{EngineState, Rules, auth::Access, effect::Now}};
/// # let mut state = EngineState::new(Rules::from(&EngineCfg::default()));
/// # let now = Now { unix: 1, ms: 1 };
/// # use adjutant_actors::{model::{ids::TaskId, task::TaskSpec}, state::tasks::NewTask};
/// # let spec = std::sync::Arc::new(TaskSpec::new("echo", "hello"));
/// # let task = state.create_task(Access::Trusted, NewTask::new(TaskId::from_bits(1), spec), now)?;
/// state.audit()?;
/// state.audit_task(task)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
impl EngineState {
    /// Checks every rule; the error names the rule and what broke it.
    ///
    /// # Errors
    /// The first broken rule.
    pub fn audit(&self) -> Result<(), String> {
        for (id, _) in self.tasks.iter() {
            self.audit_task(*id)?;
        }
        self.audit_counts()?;
        self.audit_edges()?;
        self.audit_tokens()?;
        self.audit_bodies()?;
        self.audit_runs()?;
        self.audit_keys()?;
        self.audit_event_order()
    }

    /// Checks the rules of one task.
    ///
    /// # Errors
    /// The first broken rule.
    pub fn audit_task(&self, id: TaskId) -> Result<(), String> {
        let Some(task) = self.tasks.get(&id) else { return Ok(()) };
        let open = task.suspended_on.and_then(|key| self.resumes.get(&key));
        let open = open.is_some_and(|question| {
            question.task_id == id && question.answer.is_none() && !question.closed
        });
        rule("suspension", id, (task.status == TaskStatus::Suspended) == open)?;
        rule("suspension key", id, task.suspended_on.is_some() == open)?;
        let may_live = matches!(task.status, TaskStatus::Running | TaskStatus::Suspended);
        rule("live attempts", id, !task.live || (may_live && task.attempt > 0))?;
        let settled = self.settled.contains(&(task.settled_ms, id));
        let may_go = task.status.is_settled() && !self.is_pinned(id);
        rule("settled", id, may_go == settled)?;
        let edge =
            task.step.as_ref().is_none_or(|own| self.steps.contains(&(own.run, own.key, id)));
        rule("step edges", id, edge)?;
        let held = self.attempts.get(&(id, task.attempt));
        let armed = held.is_some_and(|attempt| self.handles.contains(&attempt.handle));
        rule("handles", id, task.live == armed)?;
        let above = task.parent.and_then(|parent| self.tasks.get(&parent));
        rule("depth", id, above.is_none_or(|above| task.depth == above.depth.saturating_add(1)))
    }

    fn audit_counts(&self) -> Result<(), String> {
        let live = self.tasks.iter().filter(|(_, task)| !task.status.is_settled()).count() as u64;
        same("live counts", live, self.counters.live_tasks)?;
        let mut below: HashMap<TaskId, u64> = HashMap::new();
        for (_, task) in self.tasks.iter().filter(|(_, task)| !task.status.is_settled()) {
            *below.entry(task.root).or_default() += 1;
        }
        for (id, root) in self.tasks.iter().filter(|(id, task)| task.root == **id) {
            same("tree counts", below.get(id).copied().unwrap_or(0), root.tree_live)?;
        }
        let settled = self
            .tasks
            .iter()
            .filter(|(id, task)| task.status.is_settled() && !self.is_pinned(**id))
            .count();
        same("settled order", settled as u64, self.settled.len() as u64)
    }

    fn audit_edges(&self) -> Result<(), String> {
        for (id, task) in self.tasks.iter() {
            if let Some(parent) = task.parent.filter(|parent| self.tasks.contains(parent)) {
                rule("child edges", *id, self.children.contains(&(parent, *id)))?;
            }
            if let Some(session) = task.session {
                rule("owner edges", *id, self.owned.contains(&(session, *id)))?;
            }
            same("child counts", self.child_tasks(*id).len() as u64, task.children)?;
        }
        Ok(())
    }

    /// Every handle stands for a token of a live attempt; that may have been revoked by itself, and
    /// the handle says so then.
    fn audit_tokens(&self) -> Result<(), String> {
        for (_, fingerprint) in self.handles.iter() {
            let Some(record) = self.tokens.get(fingerprint) else { continue };
            let bound = record.task_id.zip(record.attempt);
            let live = bound.is_some_and(|(task, attempt)| self.is_live(task, attempt));
            if !live {
                return Err(format!("tokens: the handle of {fingerprint:?} outlives its attempt"));
            }
        }
        for (fingerprint, record) in self.tokens.iter() {
            let bound = record.task_id.zip(record.attempt);
            let live = bound.is_none_or(|(task, attempt)| self.is_live(task, attempt));
            if !record.revoked && !live {
                return Err(format!("tokens: worker token {fingerprint:?} outlives its attempt"));
            }
        }
        Ok(())
    }

    fn audit_bodies(&self) -> Result<(), String> {
        use crate::state::outputs::Body;
        let held = self
            .outputs
            .iter()
            .filter(|(_, output)| matches!(output.body(), Some(Body::Large { .. })))
            .count() as u64;
        same("bodies", held, self.bodies.iter().map(|(_, body)| body.holders).sum())
    }

    /// Every step edge has its task, and the orders of runs hold exactly the runs that they should.
    fn audit_runs(&self) -> Result<(), String> {
        let with_step = self.tasks.iter().filter(|(_, task)| task.step.is_some()).count();
        same("step edges", with_step as u64, self.steps.len() as u64)?;
        for (id, run) in self.runs.iter() {
            let ended = run.status != RunStatus::Open;
            if ended != self.ended_runs.contains(&(run.ended_ms, *id)) {
                return Err(format!("ended runs: broken at {id}"));
            }
            if !self.run_starts.contains(&(run.started_at, *id)) {
                return Err(format!("starts of runs: broken at {id}"));
            }
        }
        same("starts of runs", self.runs.len() as u64, self.run_starts.len() as u64)?;
        let ended = self.runs.iter().filter(|(_, run)| run.status != RunStatus::Open).count();
        same("ended runs", ended as u64, self.ended_runs.len() as u64)
    }

    /// The tail is without gaps, and the newest number is that of its last event or, within a
    /// turn, of the last one that waits in the outbox. The tail may be empty: a log whose newest
    /// part was damaged gives none back.
    fn audit_event_order(&self) -> Result<(), String> {
        let waiting = self.outbox.iter().filter_map(|effect| match effect {
            Effect::Announce(record) => Some(record.seq),
            _ => None,
        });
        let all: Vec<u64> = self.tail.iter().map(|record| record.seq).chain(waiting).collect();
        let first = (self.counters.last_seq + 1).saturating_sub(all.len() as u64);
        for (seq, expected) in all.into_iter().zip(first..) {
            same("event order", seq, expected)?;
        }
        Ok(())
    }
}

fn rule(name: &str, id: TaskId, holds: bool) -> Result<(), String> {
    if holds { Ok(()) } else { Err(format!("{name}: broken at task {id}")) }
}

fn same(name: &str, counted: u64, kept: u64) -> Result<(), String> {
    if counted == kept { Ok(()) } else { Err(format!("{name}: counted {counted}, kept {kept}")) }
}
