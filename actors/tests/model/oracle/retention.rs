//! What is forgotten, and when, by the oracle. Budgets count as they do in the state, so that a
//! sweep that stops half-way stops at the same place.

use adjutant_actors::model::ids::TaskId;
use adjutant_actors::state::runs::RunStatus;

use crate::call::POOL;
use crate::oracle::{Oracle, Token};

/// Records that a settling task pushes out at most.
const OVERFLOW: usize = 64;

impl Oracle {
    /// The settled tasks that may be forgotten, oldest first.
    fn forgettable(&self) -> Vec<(u64, TaskId)> {
        let may_go = |id: &TaskId| !self.is_pinned(*id);
        let settled = self.tasks.iter().filter(|(id, task)| task.status.is_settled() && may_go(id));
        let mut order: Vec<_> = settled.map(|(id, task)| (task.settled, *id)).collect();
        order.sort_unstable();
        order
    }

    pub(super) fn forget_overflow(&mut self) {
        let (mut budget, max) = (OVERFLOW, self.rules.retention.settled_tasks as usize);
        while budget > 0 {
            let order = self.forgettable();
            if order.len() <= max.max(1) {
                return;
            }
            self.forget(order[0].1, &mut budget);
        }
    }

    pub(super) fn sweep(&mut self, mut budget: usize) -> bool {
        self.sweep_tokens(&mut budget);
        self.forget_overflow();
        let age = self.rules.retention.settled_age.as_millis() as u64;
        while budget > 0 {
            match self.forgettable().first() {
                Some((since, task)) if since + age <= self.now.ms => {
                    self.forget(*task, &mut budget);
                }
                _ => break,
            }
        }
        self.sweep_sessions(&mut budget);
        self.sweep_runs(&mut budget);
        budget == 0
    }

    fn sweep_tokens(&mut self, budget: &mut usize) {
        let over = |token: &Token| !token.revoked && token.deadline <= self.now.ms;
        let due = self.tokens.iter().filter(|(_, token)| over(token));
        let mut due: Vec<_> = due
            .map(|(number, token)| (token.deadline, POOL[*number].signed.fingerprint, *number))
            .collect();
        due.sort_unstable();
        for (_, _, number) in due.into_iter().take(*budget) {
            self.tokens.remove(&number);
            *budget -= 1;
        }
    }

    /// Forgets a task with what it owns, newest outputs of the oldest attempt first, unless tasks
    /// below it are remembered.
    fn forget(&mut self, id: TaskId, budget: &mut usize) {
        let now = self.now.ms;
        if let Some(child) = self.below(id).first() {
            let (own, below) = (&self.tasks[&id], &self.tasks[child]);
            let waits = below.status.is_settled() && !self.is_pinned(*child);
            let next = if waits { own.settled.max(below.settled) + 1 } else { now + 1 };
            self.tasks.get_mut(&id).unwrap().settled = next;
            *budget -= 1;
            return;
        }
        for attempt in 1..=self.tasks[&id].attempt {
            let Some(held) = self.attempts.get_mut(&(id, attempt)) else { continue };
            if *budget == 0 {
                return;
            }
            *budget -= 1;
            while *budget > 0 && held.outputs.pop().is_some() {
                *budget -= 1;
            }
            if !held.outputs.is_empty() {
                return;
            }
            self.attempts.remove(&(id, attempt));
        }
        self.questions.retain(|_, asked| asked.task != id);
        self.tasks.remove(&id);
        *budget = budget.saturating_sub(1);
    }

    fn sweep_sessions(&mut self, budget: &mut usize) {
        let age = self.rules.retention.session_age.as_millis() as u64;
        while *budget > 0 {
            let idle = self.sessions.iter().filter(|(_, session)| !session.attached);
            let Some((since, id)) = idle.map(|(id, session)| (session.idle_since, *id)).min()
            else {
                return;
            };
            if since + age > self.now.ms {
                return;
            }
            *budget -= 1;
            let token = self.tokens.get(&self.sessions[&id].token);
            if token.is_some_and(|token| !token.revoked) {
                self.sessions.get_mut(&id).unwrap().idle_since = self.now.ms + 1;
            } else {
                self.sessions.remove(&id);
            }
        }
    }

    fn sweep_runs(&mut self, budget: &mut usize) {
        let retention = &self.rules.retention;
        let (age, max) = (retention.settled_age.as_millis() as u64, retention.ended_runs as usize);
        while *budget > 0 {
            let ended = self.runs.iter().filter(|(_, run)| run.status != RunStatus::Open);
            let count = ended.clone().count();
            let Some((since, id)) = ended.map(|(id, run)| (run.ended, *id)).min() else { return };
            if since + age > self.now.ms && count <= max {
                return;
            }
            self.runs.remove(&id);
            *budget -= 1;
        }
    }
}
