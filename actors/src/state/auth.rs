//! Authorization: record, revocation, binding and quota, then the one use that is spent.
//!
//! What needs no record (signature, wall-clock expiry, role × verb) is checked before the turn.
//! `check` only reads; a transition calls it first, tests its own legality next, and then calls
//! `spend`, which is the last thing that can refuse.

use crate::errors::EngineError;
use crate::model::ids::{SessionId, TaskId};
use crate::model::role::Role;
use crate::model::token::{CapToken, HandleKey, Signed, TokenFingerprint};
use crate::state::EngineState;
use crate::state::effect::Now;

/// Revoked tokens that are remembered as such, so that a late holder is told `revoked`.
const RETIRED_TOKENS_MAX: u64 = 4_096;

/// Why [`CapTokenRecord::consume`] refused to spend a use.
///
/// ```
/// use adjutant_actors::{errors::EngineError, state::auth::CapTokenConsumeError};
///
/// let refused = EngineError::from(CapTokenConsumeError::Exhausted);
/// assert_eq!(refused, EngineError::TokenUsesExhausted);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CapTokenConsumeError {
    /// The token was revoked.
    #[error("the token was revoked")]
    Revoked,
    /// No use is left.
    #[error("all uses of the token are spent")]
    Exhausted,
}

impl From<CapTokenConsumeError> for EngineError {
    fn from(error: CapTokenConsumeError) -> Self {
        match error {
            CapTokenConsumeError::Revoked => Self::TokenRevoked,
            CapTokenConsumeError::Exhausted => Self::TokenUsesExhausted,
        }
    }
}

/// What the engine keeps of a token that it minted. Signature and nonce are blanked.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct CapTokenRecord {
    /// The token without its secrets.
    pub token: CapToken,
    /// Uses that are left; `None` is unlimited.
    pub uses_left: Option<u32>,
    /// Whether it was revoked.
    pub revoked: bool,
    /// For a worker: its task.
    pub task_id: Option<TaskId>,
    /// For a worker: its attempt.
    pub attempt: Option<u32>,
    pub(crate) session: Option<SessionId>,
    #[serde(with = "crate::model::token::bytes32")]
    pub(crate) digest: [u8; 32],
    pub(crate) kid: u32,
    pub(crate) deadline_ms: u64,
}

impl CapTokenRecord {
    /// Spends one use.
    ///
    /// # Errors
    /// `Revoked` or `Exhausted`; nothing is changed then.
    pub fn consume(&mut self) -> Result<(), CapTokenConsumeError> {
        if self.revoked {
            return Err(CapTokenConsumeError::Revoked);
        }
        match &mut self.uses_left {
            None => Ok(()),
            Some(0) => Err(CapTokenConsumeError::Exhausted),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
        }
    }
}

/// Who calls, as far as that was proven before the turn.
///
/// Code of the host is trusted, everybody else shows a token; see [`Reach`] for how far it goes:
///
/// ```
/// use adjutant_actors::state::auth::{Grant, Reach};
/// # use adjutant_actors::{config::EngineCfg, state::{EngineState, Rules, auth::Access, effect::Now}};
/// # let mut state = EngineState::new(Rules::from(&EngineCfg::default()));
/// # let now = Now { unix: 1, ms: 1 };
/// # use adjutant_actors::{model::{ids::TaskId, task::TaskSpec}, state::tasks::NewTask};
/// # let spec = std::sync::Arc::new(TaskSpec::new("echo", "hello"));
/// # let task = state.create_task(Access::Trusted, NewTask::new(TaskId::from_bits(1), spec), now)?;
/// let grant: Grant = state.check(Access::Trusted, Reach::Tree(task), now)?;
/// state.spend(&grant)?; // the last that can refuse; `verify` does both
/// state.verify(Access::Trusted, Reach::Own(task), now)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Code of the host in the same process.
    Trusted,
    /// The holder of a token whose signature was verified.
    Token(Signed),
}

/// How far a verb reaches; decides which tasks a worker's token may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// The verb names no task.
    Anywhere,
    /// The worker's own task, at the attempt it is bound to.
    Own(TaskId),
    /// The worker's own task and the sub-tasks below it.
    Tree(TaskId),
    /// Only the sub-tasks below it.
    Below(TaskId),
}

impl Reach {
    fn task(self) -> Option<TaskId> {
        match self {
            Self::Anywhere => None,
            Self::Own(task) | Self::Tree(task) | Self::Below(task) => Some(task),
        }
    }
}

/// What a check found; proof that it was made.
#[derive(Debug, Clone, Copy)]
pub struct Grant {
    token: Option<TokenFingerprint>,
    /// Whether the token's uses are counted.
    limited: bool,
    /// For a worker: what its token is bound to.
    pub(crate) bound: Option<(TaskId, u32)>,
    pub(crate) session: Option<SessionId>,
}

/// A token record that is about to be stored.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// The token; its secrets are blanked on the way in.
    pub token: CapToken,
    /// What signing it gave.
    pub signed: Signed,
    /// When it ends, in milliseconds of the monotonic clock.
    pub deadline_ms: u64,
}

impl EngineState {
    /// Checks a call without changing anything.
    ///
    /// # Errors
    /// In this order: `TokenNotFound`, `BadSignature` (the fields are not those that were
    /// minted), `TokenRevoked`, `TokenExpired`, `TokenTaskMismatch`, `TaskNotFound`.
    pub fn check(&self, access: Access, reach: Reach, now: Now) -> Result<Grant, EngineError> {
        let Access::Token(signed) = access else {
            self.require(reach)?;
            return Ok(Grant { token: None, limited: false, bound: None, session: None });
        };
        let record = self.live_record(signed, now)?;
        let bound = match (record.token.role, record.task_id) {
            (Role::Worker, None) => return Err(unknown(signed.fingerprint)),
            (Role::Worker, Some(task)) => {
                self.check_binding(task, reach)?;
                Some((task, record.attempt.unwrap_or(0)))
            }
            (_, _) => {
                self.require(reach)?;
                None
            }
        };
        let (token, limited) = (Some(signed.fingerprint), record.uses_left.is_some());
        Ok(Grant { token, limited, bound, session: record.session })
    }

    /// The record of a token that may still be used.
    fn live_record(&self, signed: Signed, now: Now) -> Result<&CapTokenRecord, EngineError> {
        let record =
            self.tokens.get(&signed.fingerprint).ok_or_else(|| unknown(signed.fingerprint))?;
        if record.digest != signed.digest || record.kid != signed.kid {
            return Err(EngineError::BadSignature);
        }
        if record.revoked {
            return Err(EngineError::TokenRevoked);
        }
        if now.ms >= record.deadline_ms {
            return Err(EngineError::TokenExpired);
        }
        Ok(record)
    }

    fn require(&self, reach: Reach) -> Result<(), EngineError> {
        match reach.task() {
            Some(task) if !self.tasks.contains(&task) => {
                Err(EngineError::TaskNotFound(task.to_string()))
            }
            _ => Ok(()),
        }
    }

    /// A worker's reach. The answer for a foreign task is the same whether it exists or not.
    fn check_binding(&self, bound: TaskId, reach: Reach) -> Result<(), EngineError> {
        let (arg, allowed) = match reach {
            Reach::Anywhere => return Ok(()),
            Reach::Own(arg) => (arg, arg == bound),
            Reach::Tree(arg) => (arg, arg == bound || self.is_below(arg, bound)),
            Reach::Below(arg) => (arg, self.is_below(arg, bound)),
        };
        if allowed { Ok(()) } else { Err(EngineError::TokenTaskMismatch { bound, arg }) }
    }

    /// Whether `task` was started by `above` or by a task below it. Bounded by the depth ceiling.
    fn is_below(&self, task: TaskId, above: TaskId) -> bool {
        let mut parent = self.tasks.get(&task).and_then(|record| record.parent);
        while let Some(id) = parent {
            if id == above {
                return true;
            }
            parent = self.tasks.get(&id).and_then(|record| record.parent);
        }
        false
    }

    /// Spends one use of a checked token: the last step that can refuse, the first that changes.
    ///
    /// # Errors
    /// `TokenUsesExhausted`; nothing is changed then.
    pub fn spend(&mut self, grant: &Grant) -> Result<(), EngineError> {
        let Some(fingerprint) = grant.token else { return Ok(()) };
        if !grant.limited {
            return Ok(());
        }
        if self.tokens.get(&fingerprint).is_some_and(|record| record.uses_left == Some(0)) {
            return Err(EngineError::TokenUsesExhausted);
        }
        let record = self.tokens.get_mut(&fingerprint).ok_or_else(|| unknown(fingerprint))?;
        Ok(record.consume()?)
    }

    /// Checks a token for a verb that names `reach` and spends one use; nothing else happens.
    ///
    /// # Errors
    /// Those of [`Self::check`] and [`Self::spend`].
    pub fn verify(&mut self, access: Access, reach: Reach, now: Now) -> Result<(), EngineError> {
        let grant = self.check(access, reach, now)?;
        self.spend(&grant)
    }

    /// Stores the record of a fresh token.
    pub(crate) fn store_token(
        &mut self,
        new: NewToken,
        session: Option<SessionId>,
        bound: Option<(TaskId, u32)>,
    ) {
        let NewToken { mut token, signed, deadline_ms } = new;
        token.sig_hex = String::new();
        token.nonce = String::new();
        let record = CapTokenRecord {
            uses_left: token.max_uses,
            token,
            revoked: false,
            task_id: bound.map(|(task, _)| task),
            attempt: bound.map(|(_, attempt)| attempt),
            session,
            digest: signed.digest,
            kid: signed.kid,
            deadline_ms,
        };
        self.expiries.insert((deadline_ms, signed.fingerprint));
        self.tokens.insert(signed.fingerprint, record);
    }

    /// Refuses when one more token would be too many.
    pub(crate) fn check_token_room(&self) -> Result<(), EngineError> {
        let current = self.tokens.len() as u64;
        let max = self.rules.limits.tokens;
        if current >= max {
            return Err(EngineError::TableFull { what: "tokens", current, max });
        }
        Ok(())
    }

    /// Revokes a token. It is remembered as revoked until enough others were revoked after it.
    pub(crate) fn revoke_token(&mut self, fingerprint: TokenFingerprint) {
        let Some(record) = self.tokens.get_mut(&fingerprint) else { return };
        if std::mem::replace(&mut record.revoked, true) {
            return;
        }
        let deadline = record.deadline_ms;
        self.expiries.remove(&(deadline, fingerprint));
        self.counters.retired_tokens += 1;
        self.retired.insert((self.counters.retired_tokens, fingerprint));
        if self.retired.len() as u64 > RETIRED_TOKENS_MAX
            && let Some(oldest) = self.retired.first().copied()
        {
            self.retired.remove(&oldest);
            self.tokens.remove(&oldest.1);
        }
    }

    /// Revokes a token by its fingerprint; for an operator who saw it leak.
    ///
    /// # Errors
    /// `TokenNotFound` if there is no record.
    pub fn revoke(&mut self, fingerprint: TokenFingerprint) -> Result<(), EngineError> {
        if !self.tokens.contains(&fingerprint) {
            return Err(unknown(fingerprint));
        }
        self.revoke_token(fingerprint);
        Ok(())
    }

    /// Revokes every token minted under the key `kid`. Looks at every record: for the rare act of
    /// retiring a key, not for a call path.
    pub fn revoke_minted_under(&mut self, kid: u32) -> usize {
        let doomed: Vec<_> = self
            .tokens
            .iter()
            .filter(|(_, record)| record.kid == kid && !record.revoked)
            .map(|(fingerprint, _)| *fingerprint)
            .collect();
        for fingerprint in &doomed {
            self.revoke_token(*fingerprint);
        }
        doomed.len()
    }

    /// Drops a token's record altogether, once it can never verify again.
    pub(crate) fn drop_token(&mut self, fingerprint: TokenFingerprint) {
        if let Some(record) = self.tokens.remove(&fingerprint) {
            self.expiries.remove(&(record.deadline_ms, fingerprint));
        }
    }

    /// What a live worker handle stands for.
    ///
    /// # Errors
    /// `TokenNotFound` for an unknown handle, `TokenRevoked` and `TokenExpired` as for its token.
    pub fn resolve_handle(
        &self,
        handle: &HandleKey,
        now: Now,
    ) -> Result<(TaskId, u32), EngineError> {
        let missing = || EngineError::TokenNotFound("behind this handle".to_owned());
        let fingerprint = self.handles.get(handle).ok_or_else(missing)?;
        let record = self.tokens.get(fingerprint).ok_or_else(missing)?;
        if record.revoked {
            return Err(EngineError::TokenRevoked);
        }
        if now.ms >= record.deadline_ms {
            return Err(EngineError::TokenExpired);
        }
        record.task_id.zip(record.attempt).ok_or_else(missing)
    }

    /// The task and attempt that a checked worker token is bound to.
    ///
    /// # Errors
    /// Those of [`Self::check`]; `TokenNotFound` where the token is bound to nothing.
    pub fn bound_task(&self, signed: Signed, now: Now) -> Result<(TaskId, u32), EngineError> {
        let grant = self.check(Access::Token(signed), Reach::Anywhere, now)?;
        grant.bound.ok_or_else(|| unknown(signed.fingerprint))
    }

    /// Whether a token may still be used, as far as its record says. One of which there is no record
    /// may not.
    ///
    /// ```
    /// use adjutant_actors::{model::token::TokenFingerprint, state::effect::Now};
    /// # use adjutant_actors::{config::EngineCfg, state::{EngineState, Rules}};
    /// # let state = EngineState::new(Rules::from(&EngineCfg::default()));
    /// let unknown = TokenFingerprint::of_nonce("nobody's");
    /// assert!(!state.is_token_live(unknown, Now { unix: 1, ms: 1 }));
    /// ```
    #[must_use]
    pub fn is_token_live(&self, fingerprint: TokenFingerprint, now: Now) -> bool {
        self.tokens.get(&fingerprint).is_some_and(|record| {
            !record.revoked && now.ms < record.deadline_ms && !record.token.is_expired(now.unix)
        })
    }

    /// A copy of a token's record.
    #[must_use]
    pub fn token_record(&self, fingerprint: TokenFingerprint) -> Option<CapTokenRecord> {
        self.tokens.get(&fingerprint).cloned()
    }
}

fn unknown(fingerprint: TokenFingerprint) -> EngineError {
    EngineError::TokenNotFound(format!("{fingerprint:?}"))
}
