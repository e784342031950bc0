//! Sessions: attach, heartbeat, detach, lapse. Each flip of `attached` makes exactly one event.

use std::sync::Arc;

use crate::errors::EngineError;
use crate::model::event::Event;
use crate::model::ids::{SessionId, TaskId};
use crate::model::role::Role;
use crate::model::session::{OperatorSession, SessionFaces};
use crate::model::token::TokenFingerprint;
use crate::state::EngineState;
use crate::state::auth::{Access, Grant, NewToken, Reach};
use crate::state::effect::{Effect, Now};
use crate::state::tasks::CancelScope;

/// What the state keeps of a session.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub(crate) struct SessionRecord {
    pub(crate) operator_id: Arc<str>,
    pub(crate) role: Role,
    pub(crate) attached_at: u64,
    pub(crate) last_seen: u64,
    pub(crate) last_beat_ms: u64,
    pub(crate) attached: bool,
    /// Where the session stands in the order of the idle, while it is detached.
    pub(crate) idle_since_ms: u64,
    pub(crate) faces: Arc<SessionFaces>,
    pub(crate) token: TokenFingerprint,
}

/// A session that is about to be opened, with its freshly minted token.
#[derive(Debug, Clone)]
pub struct NewSession {
    /// Who attaches.
    pub operator_id: Arc<str>,
    /// What it may do.
    pub role: Role,
    /// Kinds and registered faces.
    pub faces: SessionFaces,
    /// The session's token.
    pub token: NewToken,
}

/// What a heartbeat tells the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct HeartbeatReply {
    /// The session that beat.
    pub session: SessionId,
    /// Whether new dispatches wait, so that a client starts nothing new.
    pub drain: bool,
    /// Milliseconds until the session lapses without another beat.
    pub lapses_in_ms: u64,
    /// Milliseconds until the session's token ends.
    pub token_ends_in_ms: u64,
}

/// A session from its token to its end:
///
/// ```
/// use adjutant_actors::model::{role::Role, session::SessionFaces, token::{TokenRequest, TokenSigner}};
/// use adjutant_actors::state::{auth::{CapTokenRecord, NewToken}, sessions::{HeartbeatReply, NewSession}};
/// use std::time::Duration;
/// # use adjutant_actors::{config::EngineCfg, state::{EngineState, Rules, auth::Access, effect::Now}};
/// # let mut state = EngineState::new(Rules::from(&EngineCfg::default()));
/// # let now = Now { unix: 1, ms: 1 };
/// let (token, signed) = TokenSigner::new([7; 32]).mint_at(TokenRequest {
///     agent_id: "ann".into(),
///     role: Role::Operator,
///     scopes: vec!["*".into()],
///     issued_at: now.unix,
///     ttl: Duration::from_secs(60),
///     max_uses: None,
///     nonce: "0123456789abcdef0123456789abcdef".into(),
/// });
/// let token = NewToken { token, signed, deadline_ms: 60_000 };
/// let faces = SessionFaces::default();
/// let id = state.attach(NewSession { operator_id: "ann".into(), role: Role::Operator, faces, token }, now)?;
/// let record: Option<CapTokenRecord> = state.token_record(signed.fingerprint);
/// assert!(record.is_some_and(|record| !record.revoked));
///
/// let ann = Access::Token(signed);
/// let HeartbeatReply { session, drain, .. } = state.heartbeat(ann, now)?;
/// assert_eq!((session, drain, state.session_of(signed.fingerprint)), (id, false, Some(id)));
/// assert_eq!(state.read_session(ann, now)?.operator_id, "ann");
/// assert!(state.lapse_sessions(now, 100).is_some()); // when to look again
///
/// state.detach(ann, now)?;
/// assert_eq!(state.attached_sessions(Role::Operator), 0);
/// state.detach_and_revoke(ann, now)?; // no heartbeat brings it back
/// assert!(state.heartbeat(ann, now).is_err() && state.session(id).is_some());
/// assert!(state.token_record(signed.fingerprint).is_some_and(|mut record| record.consume().is_err()));
/// state.revoke(signed.fingerprint)?;
/// assert_eq!(state.revoke_minted_under(1), 0); // there was no other
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
impl EngineState {
    /// Opens a session.
    ///
    /// # Errors
    /// `TableFull` where there are too many sessions or tokens.
    pub fn attach(&mut self, new: NewSession, now: Now) -> Result<SessionId, EngineError> {
        let current = self.sessions.len() as u64;
        let max = self.rules.limits.sessions;
        if current >= max {
            return Err(EngineError::TableFull { what: "sessions", current, max });
        }
        self.check_token_room()?;
        let fingerprint = new.token.signed.fingerprint;
        let id = fingerprint.session_id();
        let record = SessionRecord {
            operator_id: new.operator_id,
            role: new.role,
            attached_at: now.unix,
            last_seen: now.unix,
            last_beat_ms: now.ms,
            attached: true,
            idle_since_ms: 0,
            faces: Arc::new(new.faces),
            token: fingerprint,
        };
        self.store_token(new.token, Some(id), None);
        self.lapses.insert((now.ms.saturating_add(self.rules.lapse_after_ms), id));
        self.sessions.insert(id, record);
        self.record(now, Event::SessionAttached { session_id: id, role: new.role });
        Ok(id)
    }

    /// Takes a heartbeat: the session is seen now, and attached again if it was not.
    ///
    /// # Errors
    /// Those of an authorization; `SessionNotFound` where the token has no session.
    pub fn heartbeat(&mut self, access: Access, now: Now) -> Result<HeartbeatReply, EngineError> {
        let grant = self.check(access, Reach::Anywhere, now)?;
        let (id, record) = self.own_session(&grant)?;
        let (token, role) = (record.token, record.role);
        self.spend(&grant)?;
        let lapse_after = self.rules.lapse_after_ms;
        let Some(record) = self.sessions.get_mut(&id) else {
            return Err(EngineError::SessionNotFound);
        };
        let idle_since = record.idle_since_ms;
        record.last_seen = record.last_seen.max(now.unix);
        record.last_beat_ms = now.ms;
        let came_back = !std::mem::replace(&mut record.attached, true);
        if came_back {
            self.idle_sessions.remove(&(idle_since, id));
            self.lapses.insert((now.ms.saturating_add(lapse_after), id));
            self.record(now, Event::SessionAttached { session_id: id, role });
        }
        let ends = self.tokens.get(&token).map_or(0, |record| record.deadline_ms);
        Ok(HeartbeatReply {
            session: id,
            drain: self.counters.paused,
            lapses_in_ms: lapse_after,
            token_ends_in_ms: ends.saturating_sub(now.ms),
        })
    }

    /// The caller's own session. A worker has none: its token names the session that its task runs
    /// for, which is not its own to keep, to read or to end.
    fn own_session(&self, grant: &Grant) -> Result<(SessionId, &SessionRecord), EngineError> {
        let own = grant.session.filter(|_| grant.bound.is_none());
        own.and_then(|id| Some((id, self.sessions.get(&id)?))).ok_or(EngineError::SessionNotFound)
    }

    /// Detaches the caller's own session; its tasks stay, and a heartbeat attaches it again.
    ///
    /// # Errors
    /// Those of an authorization; `SessionNotFound` where the token has no session.
    pub fn detach(&mut self, access: Access, now: Now) -> Result<SessionId, EngineError> {
        let grant = self.check(access, Reach::Anywhere, now)?;
        let (id, _) = self.own_session(&grant)?;
        self.spend(&grant)?;
        self.close_session(id, now);
        Ok(id)
    }

    /// Detaches the caller's own session and revokes its token: no heartbeat brings it back.
    ///
    /// # Errors
    /// As [`Self::detach`].
    pub fn detach_and_revoke(
        &mut self,
        access: Access,
        now: Now,
    ) -> Result<SessionId, EngineError> {
        let id = self.detach(access, now)?;
        if let Some(token) = self.sessions.get(&id).map(|record| record.token) {
            self.revoke_token(token);
        }
        Ok(id)
    }

    /// Detaches a session and revokes its token, for the host that opened it.
    pub(crate) fn end_session(&mut self, id: SessionId, now: Now) {
        let Some(token) = self.sessions.get(&id).map(|record| record.token) else { return };
        self.close_session(id, now);
        self.revoke_token(token);
    }

    /// Detaches one session if it is attached.
    fn close_session(&mut self, id: SessionId, now: Now) {
        let Some(record) = self.sessions.get_mut(&id) else { return };
        if !std::mem::replace(&mut record.attached, false) {
            return;
        }
        record.idle_since_ms = now.ms;
        self.idle_sessions.insert((now.ms, id));
        self.effect(Effect::SessionClosed(id));
        self.record(now, Event::SessionDetached { session_id: id });
    }

    /// Detaches sessions whose last beat is too long ago, at most `budget` entries of the agenda a
    /// call. Returns when to look again, in milliseconds of the monotonic clock.
    ///
    /// The agenda holds one entry per attached session. A beat does not move it: an entry that
    /// comes due is put forward to the session's real lapse, so a beat costs no agenda at all.
    pub fn lapse_sessions(&mut self, now: Now, budget: usize) -> Option<u64> {
        for _ in 0..budget {
            let (due, id) = *self.lapses.first()?;
            if due > now.ms {
                return Some(due);
            }
            self.lapses.remove(&(due, id));
            let Some(record) = self.sessions.get(&id) else { continue };
            if !record.attached {
                continue;
            }
            let lapse = record.last_beat_ms.saturating_add(self.rules.lapse_after_ms);
            if lapse > now.ms {
                self.lapses.insert((lapse, id));
                continue;
            }
            self.close_session(id, now);
            if !self.rules.keepalive_on_idle {
                self.cancel_owned(id, now);
            }
        }
        self.lapses.first().map(|(due, _)| *due)
    }

    /// Cancels the open tasks of a session that lapsed.
    fn cancel_owned(&mut self, id: SessionId, now: Now) {
        for task in self.owned_tasks(id) {
            let open = self.tasks.get(&task).is_some_and(|record| !record.status.is_settled());
            if open {
                self.cancel_tree(task, CancelScope::of(&self.rules), now);
            }
        }
    }

    fn owned_tasks(&self, id: SessionId) -> Vec<TaskId> {
        let first = (id, TaskId::from_bits(0));
        let last = (id, TaskId::from_bits(u128::MAX));
        self.owned.range(first..=last).map(|(_, task)| *task).collect()
    }

    /// A snapshot of the caller's own session.
    ///
    /// # Errors
    /// Those of an authorization; `SessionNotFound`.
    pub fn read_session(
        &mut self,
        access: Access,
        now: Now,
    ) -> Result<OperatorSession, EngineError> {
        let grant = self.check(access, Reach::Anywhere, now)?;
        let (id, _) = self.own_session(&grant)?;
        let session = self.session(id).ok_or(EngineError::SessionNotFound)?;
        self.spend(&grant)?;
        Ok(session)
    }

    /// How many sessions of a role are attached, as far as the first hundred thousand tell.
    #[must_use]
    pub fn attached_sessions(&self, role: Role) -> usize {
        let some = self.sessions.iter().take(100_000);
        some.filter(|(_, session)| session.attached && session.role == role).count()
    }

    /// The session of a token.
    #[must_use]
    pub fn session_of(&self, fingerprint: TokenFingerprint) -> Option<SessionId> {
        self.tokens.get(&fingerprint).and_then(|record| record.session)
    }

    /// A snapshot of a session, with the list of its tasks made now.
    #[must_use]
    pub fn session(&self, id: SessionId) -> Option<OperatorSession> {
        let record = self.sessions.get(&id)?;
        let faces = (*record.faces).clone();
        Some(OperatorSession {
            id,
            operator_id: record.operator_id.to_string(),
            role: record.role,
            attached_at: record.attached_at,
            last_seen: record.last_seen,
            attached: record.attached,
            owned_task_ids: self.owned_tasks(id),
            token_nonce: record.token.to_string(),
            operator_kind: faces.operator_kind,
            runtime_agent_kinds: faces.runtime_agent_kinds,
            bp_agent_kinds: faces.bp_agent_kinds,
            bp_global_kind: faces.bp_global_kind,
            bridge_id: faces.bridge_id,
            hook_id: faces.hook_id,
            operator_backend_id: faces.operator_backend_id,
        })
    }
}
