//! Retention: what may be forgotten, and when. Each call does a bounded amount of work.

use crate::model::ids::{SessionId, TaskId};
use crate::state::EngineState;
use crate::state::effect::Now;
use crate::state::millis;
use crate::state::outputs::Body;

/// Records that a settling task may push out on its way; more than it brings in.
const OVERFLOW_BUDGET: usize = 64;

impl EngineState {
    /// Forgets the oldest settled tasks while there are more than may be remembered.
    pub(crate) fn forget_overflow(&mut self, now: Now) {
        let mut budget = OVERFLOW_BUDGET;
        let max = usize::try_from(self.rules.retention.settled_tasks.max(1)).unwrap_or(usize::MAX);
        while self.settled.len() > max && budget > 0 {
            let Some((_, oldest)) = self.settled.first().copied() else { return };
            self.forget_task(oldest, now, &mut budget);
        }
    }

    /// Forgets what is due, at most about `budget` records. Returns whether more is due.
    pub fn sweep(&mut self, now: Now, mut budget: usize) -> bool {
        self.sweep_tokens(now, &mut budget);
        self.sweep_tasks(now, &mut budget);
        self.sweep_sessions(now, &mut budget);
        self.sweep_runs(now, &mut budget);
        budget == 0
    }

    fn sweep_tokens(&mut self, now: Now, budget: &mut usize) {
        while *budget > 0 {
            match self.expiries.first().copied() {
                Some((deadline, fingerprint)) if deadline <= now.ms => {
                    self.expiries.remove(&(deadline, fingerprint));
                    self.drop_token(fingerprint);
                    *budget -= 1;
                }
                _ => return,
            }
        }
    }

    fn sweep_tasks(&mut self, now: Now, budget: &mut usize) {
        self.forget_overflow(now);
        let age = millis(self.rules.retention.settled_age);
        while *budget > 0 {
            match self.settled.first().copied() {
                Some((since, task)) if since.saturating_add(age) <= now.ms => {
                    self.forget_task(task, now, budget);
                }
                _ => return,
            }
        }
    }

    /// Forgets a settled task with all it owns, as far as the budget goes; the task itself last. A
    /// task waits while sub-tasks of it are remembered: through it these are reached by a cancel,
    /// and by the workers above.
    fn forget_task(&mut self, id: TaskId, now: Now, budget: &mut usize) {
        let Some(record) = self.tasks.get(&id) else {
            // Every caller looks at the first in the line.
            if let Some(first) = self.settled.first().copied() {
                self.settled.remove(&first);
            }
            return;
        };
        let (since, attempts) = (record.settled_ms, record.attempt);
        let (parent, session, key) = (record.parent, record.session, record.key.clone());
        let step = record.step.clone();
        if let Some(next) = self.stays_until(id, now) {
            self.settled.remove(&(since, id));
            self.settled.insert((next, id));
            if let Some(record) = self.tasks.get_mut(&id) {
                record.settled_ms = next;
            }
            *budget = budget.saturating_sub(1);
            return;
        }
        for attempt in 1..=attempts {
            if !self.forget_attempt(id, attempt, budget) {
                return;
            }
        }
        for key in self.questions_of(id) {
            self.questions.remove(&(id, key));
            self.resumes.remove(&key);
        }
        for child in self.child_tasks(id) {
            self.children.remove(&(id, child));
        }
        if let Some(parent) = parent {
            self.children.remove(&(parent, id));
            if let Some(record) = self.tasks.get_mut(&parent) {
                record.children = record.children.saturating_sub(1);
            }
        }
        if let Some(session) = session {
            self.owned.remove(&(session, id));
        }
        if let Some(step) = step {
            self.steps.remove(&(step.run, step.key, id));
        }
        if let Some(key) = key {
            self.task_keys.remove(&key);
        }
        self.settled.remove(&(since, id));
        self.tasks.remove(&id);
        *budget = budget.saturating_sub(1);
    }

    /// Where in the line a task is looked at again, if it may not be forgotten now: behind a
    /// sub-task that waits there too, else at the end, which this sweep does not reach.
    fn stays_until(&self, id: TaskId, now: Now) -> Option<u64> {
        let record = self.tasks.get(&id)?;
        let (first, last) = (TaskId::from_bits(0), TaskId::from_bits(u128::MAX));
        let Some((_, child)) = self.children.range((id, first)..=(id, last)).next().copied() else {
            return (record.tree_live > 0).then_some(now.ms + 1);
        };
        let waits = self.tasks.get(&child).filter(|child| child.status.is_settled());
        Some(match waits {
            Some(waits) if !self.is_pinned(child) => {
                waits.settled_ms.max(record.settled_ms).saturating_add(1)
            }
            _ => now.ms + 1,
        })
    }

    /// Forgets an attempt's outputs, newest first, then the attempt. Returns whether it is gone.
    fn forget_attempt(&mut self, task: TaskId, attempt: u32, budget: &mut usize) -> bool {
        let Some(record) = self.attempts.get(&(task, attempt)) else { return true };
        let mut left = record.outputs;
        if *budget == 0 {
            return false;
        }
        *budget -= 1;
        while left > 0 && *budget > 0 {
            left -= 1;
            *budget -= 1;
            if let Some(output) = self.outputs.remove(&(task, attempt, left)) {
                self.release_body(output.body());
            }
        }
        if left > 0 {
            if let Some(record) = self.attempts.get_mut(&(task, attempt)) {
                record.outputs = left;
            }
            return false;
        }
        let forgotten = self.attempts.remove(&(task, attempt));
        if let Some(key) = forgotten.and_then(|record| record.notes?.key) {
            self.attempt_keys.remove(&(task, key));
        }
        true
    }

    fn release_body(&mut self, body: Option<&Body>) {
        let Some(Body::Large { hash, .. }) = body else { return };
        let Some(kept) = self.bodies.get_mut(hash) else { return };
        kept.holders -= 1;
        if kept.holders == 0 {
            self.bodies.remove(hash);
        }
    }

    pub(crate) fn questions_of(&self, task: TaskId) -> Vec<crate::model::ids::ResumeKey> {
        use crate::model::ids::ResumeKey;
        let first = (task, ResumeKey::from_bits(0));
        let last = (task, ResumeKey::from_bits(u128::MAX));
        self.questions.range(first..=last).map(|(_, key)| *key).collect()
    }

    /// Forgets ended runs. Their tasks are forgotten by the rules of tasks.
    fn sweep_runs(&mut self, now: Now, budget: &mut usize) {
        let age = millis(self.rules.retention.settled_age);
        let max = usize::try_from(self.rules.retention.ended_runs).unwrap_or(usize::MAX);
        while *budget > 0 {
            match self.ended_runs.first().copied() {
                Some((since, id))
                    if since.saturating_add(age) <= now.ms || self.ended_runs.len() > max =>
                {
                    self.ended_runs.remove(&(since, id));
                    if let Some(run) = self.runs.remove(&id) {
                        self.run_starts.remove(&(run.started_at, id));
                    }
                    *budget -= 1;
                }
                _ => return,
            }
        }
    }

    /// Forgets detached sessions whose token can never bring them back.
    fn sweep_sessions(&mut self, now: Now, budget: &mut usize) {
        let age = millis(self.rules.retention.session_age);
        while *budget > 0 {
            match self.idle_sessions.first().copied() {
                Some((since, id)) if since.saturating_add(age) <= now.ms => {
                    self.idle_sessions.remove(&(since, id));
                    *budget -= 1;
                    self.forget_session(id, now);
                }
                _ => return,
            }
        }
    }

    fn forget_session(&mut self, id: SessionId, now: Now) {
        let Some(record) = self.sessions.get(&id) else { return };
        let usable = self.tokens.get(&record.token).is_some_and(|token| !token.revoked);
        if usable {
            let later = now.ms + 1;
            self.idle_sessions.insert((later, id));
            if let Some(record) = self.sessions.get_mut(&id) {
                record.idle_since_ms = later;
            }
        } else {
            self.sessions.remove(&id);
        }
    }
}
