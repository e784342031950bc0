//! Sessions by the oracle: attached, seen, detached, lapsed.

use adjutant_actors::errors::EngineError;
use adjutant_actors::model::event::Event;
use adjutant_actors::model::ids::{SessionId, TaskId};
use adjutant_actors::model::session::OperatorSession;
use adjutant_actors::state::effect::Effect;
use adjutant_actors::state::sessions::HeartbeatReply;

use crate::call::{Call, POOL, Reply, Said, Who, session_of};
use crate::oracle::auth::{Grant, Reach};
use crate::oracle::{Oracle, Session, Token};

impl Oracle {
    pub(super) fn sessions(&mut self, call: &Call) -> Reply {
        match *call {
            Call::Attach { token, role, operator, life, uses } => {
                let deadline = self.now.ms + life;
                let agent = format!("operator-{operator}");
                let session = Some(session_of(token));
                let (bound, revoked) = (None, false);
                self.attach(token, Token { agent, role, session, bound, uses, revoked, deadline })
            }
            Call::Beat { who } => self.beat(who),
            Call::Detach { who, revoke } => {
                let (grant, id) = self.own_session(who)?;
                self.spend(&grant)?;
                self.close(id);
                if revoke {
                    self.revoke(self.sessions[&id].token);
                }
                Ok(Said::Session(id))
            }
            Call::Session { who } => {
                let (grant, id) = self.own_session(who)?;
                self.spend(&grant)?;
                Ok(Said::Own(Box::new(self.session(id))))
            }
            Call::Lapse { budget } => Ok(Said::More(self.lapse(budget))),
            ref other => unreachable!("{other:?} is not about a session"),
        }
    }

    fn attach(&mut self, number: usize, token: Token) -> Reply {
        let (current, max) = (self.sessions.len() as u64, self.rules.limits.sessions);
        if current >= max {
            return Err(EngineError::TableFull { what: "sessions", current, max });
        }
        self.room_for_token()?;
        let (id, role) = (session_of(number), token.role);
        let session = Session {
            operator: token.agent.clone(),
            role,
            token: number,
            attached_at: self.now.unix,
            last_seen: self.now.unix,
            last_beat: self.now.ms,
            attached: true,
            idle_since: 0,
        };
        self.sessions.insert(id, session);
        self.agenda.insert((self.now.ms + self.rules.lapse_after_ms, id));
        self.tokens.insert(number, token);
        self.event(Event::SessionAttached { session_id: id, role });
        Ok(Said::Session(id))
    }

    /// The caller's own session. A worker has none: its token names that of its task.
    fn own_session(&self, who: Who) -> Result<(Grant, SessionId), EngineError> {
        let grant = self.check(who, Reach::Anywhere)?;
        let own =
            grant.session.filter(|id| grant.bound.is_none() && self.sessions.contains_key(id));
        Ok((grant, own.ok_or(EngineError::SessionNotFound)?))
    }

    fn beat(&mut self, who: Who) -> Reply {
        let (grant, id) = self.own_session(who)?;
        self.spend(&grant)?;
        let now = self.now;
        let session = self.sessions.get_mut(&id).unwrap();
        session.last_seen = session.last_seen.max(now.unix);
        session.last_beat = now.ms;
        let (token, role) = (session.token, session.role);
        if !std::mem::replace(&mut session.attached, true) {
            self.agenda.insert((now.ms + self.rules.lapse_after_ms, id));
            self.event(Event::SessionAttached { session_id: id, role });
        }
        let ends = self.tokens.get(&token).map_or(0, |token| token.deadline);
        Ok(Said::Beat(HeartbeatReply {
            session: id,
            drain: self.paused,
            lapses_in_ms: self.rules.lapse_after_ms,
            token_ends_in_ms: ends.saturating_sub(now.ms),
        }))
    }

    pub(super) fn close(&mut self, id: SessionId) {
        let now = self.now.ms;
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if std::mem::replace(&mut session.attached, false) {
            session.idle_since = now;
            self.effect(Effect::SessionClosed(id));
            self.event(Event::SessionDetached { session_id: id });
        }
    }

    /// Ends a session for good.
    pub(super) fn end_session(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.get(&id) {
            let token = session.token;
            self.close(id);
            self.revoke(token);
        }
    }

    fn owned(&self, id: SessionId) -> Vec<TaskId> {
        let own = self.tasks.iter().filter(|(_, task)| task.session == Some(id));
        own.map(|(id, _)| *id).collect()
    }

    fn session(&self, id: SessionId) -> OperatorSession {
        let session = &self.sessions[&id];
        OperatorSession {
            id,
            operator_id: session.operator.clone(),
            role: session.role,
            attached_at: session.attached_at,
            last_seen: session.last_seen,
            attached: session.attached,
            owned_task_ids: self.owned(id),
            token_nonce: POOL[session.token].signed.fingerprint.to_string(),
            operator_kind: None,
            runtime_agent_kinds: Default::default(),
            bp_agent_kinds: Default::default(),
            bp_global_kind: None,
            bridge_id: None,
            hook_id: None,
            operator_backend_id: None,
        }
    }

    /// Looks at the sessions that are due. Returns whether more are.
    fn lapse(&mut self, budget: usize) -> bool {
        for _ in 0..budget {
            let Some((due, id)) = self.agenda.first().copied() else { return false };
            if due > self.now.ms {
                return false;
            }
            self.agenda.remove(&(due, id));
            let Some(session) = self.sessions.get(&id).filter(|session| session.attached) else {
                continue;
            };
            let lapse = session.last_beat + self.rules.lapse_after_ms;
            if lapse > self.now.ms {
                self.agenda.insert((lapse, id));
                continue;
            }
            self.close(id);
            for task in self.owned(id) {
                let open = self.tasks.get(&task).is_some_and(|task| !task.status.is_settled());
                if open && !self.rules.keepalive_on_idle {
                    self.cancel_tree(task);
                }
            }
        }
        self.agenda.first().is_some_and(|(due, _)| *due <= self.now.ms)
    }
}
