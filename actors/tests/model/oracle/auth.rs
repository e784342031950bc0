//! Who may do what, by the oracle: the order of refusals, the reach of workers, uses, revocation.

use adjutant_actors::errors::EngineError;
use adjutant_actors::model::ids::{SessionId, TaskId};
use adjutant_actors::model::role::Role;

use crate::call::Who;
use crate::oracle::{Key, Oracle, Principal};

/// Which tasks a call may name.
#[derive(Debug, Clone, Copy)]
pub(super) enum Reach {
    Anywhere,
    Own(TaskId),
    Tree(TaskId),
    Below(TaskId),
}

/// What a check found.
#[derive(Debug, Clone, Copy)]
pub(super) struct Grant {
    token: Option<usize>,
    pub(super) bound: Option<(TaskId, u32)>,
    pub(super) session: Option<SessionId>,
}

impl Oracle {
    pub(super) fn check(&self, who: Who, reach: Reach) -> Result<Grant, EngineError> {
        let missing = || EngineError::TokenNotFound(String::new());
        let number = match who {
            Who::Host => {
                self.named(reach)?;
                return Ok(Grant { token: None, bound: None, session: None });
            }
            Who::Token(number) | Who::Forger(number) => number,
        };
        let token = self.tokens.get(&number).ok_or_else(missing)?;
        if matches!(who, Who::Forger(_)) {
            return Err(EngineError::BadSignature);
        }
        if token.revoked {
            return Err(EngineError::TokenRevoked);
        }
        if self.now.ms >= token.deadline {
            return Err(EngineError::TokenExpired);
        }
        if token.role == Role::Worker {
            let (bound, _) = token.bound.ok_or_else(missing)?;
            let (arg, reached) = match reach {
                Reach::Anywhere => (bound, true),
                Reach::Own(arg) => (arg, arg == bound),
                Reach::Tree(arg) => (arg, arg == bound || self.above(arg).contains(&bound)),
                Reach::Below(arg) => (arg, self.above(arg).contains(&bound)),
            };
            if !reached {
                return Err(EngineError::TokenTaskMismatch { bound, arg });
            }
        } else {
            self.named(reach)?;
        }
        Ok(Grant { token: Some(number), bound: token.bound, session: token.session })
    }

    /// The task that is named must be there.
    fn named(&self, reach: Reach) -> Result<(), EngineError> {
        match reach {
            Reach::Own(task) | Reach::Tree(task) | Reach::Below(task) => {
                self.task(task).map(|_| ())
            }
            Reach::Anywhere => Ok(()),
        }
    }

    /// The tasks above one, from the nearest on, as far as they are remembered.
    fn above(&self, task: TaskId) -> Vec<TaskId> {
        let parent_of = |task: &TaskId| self.tasks.get(task).and_then(|task| task.parent);
        std::iter::successors(parent_of(&task), parent_of).collect()
    }

    pub(super) fn spend(&mut self, grant: &Grant) -> Result<(), EngineError> {
        let token = grant.token.and_then(|token| self.tokens.get_mut(&token));
        match token.and_then(|token| token.uses.as_mut()) {
            Some(0) => Err(EngineError::TokenUsesExhausted),
            Some(uses) => {
                *uses -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    pub(super) fn revoke(&mut self, token: usize) {
        if let Some(token) = self.tokens.get_mut(&token) {
            token.revoked = true;
        }
    }

    pub(super) fn room_for_token(&self) -> Result<(), EngineError> {
        let (current, max) = (self.tokens.len() as u64, self.rules.limits.tokens);
        if current >= max {
            return Err(EngineError::TableFull { what: "tokens", current, max });
        }
        Ok(())
    }

    /// A key under its principal.
    pub(super) fn owned_key(&self, who: Who, text: u8) -> Key {
        let token = match who {
            Who::Host => None,
            Who::Token(number) | Who::Forger(number) => self.tokens.get(&number),
        };
        let by = match token {
            None => Principal::Host,
            Some(token) => match token.bound {
                Some((task, _)) => Principal::Task(task),
                None => Principal::Operator(token.agent.clone()),
            },
        };
        (by, text)
    }
}
