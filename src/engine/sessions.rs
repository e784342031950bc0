//! Sessions: attach, heartbeat, detach, and the loop that lets silent ones lapse.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use adjutant_actors::errors::EngineError;
use adjutant_actors::model::ids::SessionId;
use adjutant_actors::model::measure::check_name;
use adjutant_actors::model::role::{Role, Verb};
use adjutant_actors::model::session::{OperatorKind, OperatorSession, SessionFaces};
use adjutant_actors::model::token::CapToken;
use adjutant_actors::state::EngineState;
use adjutant_actors::state::auth::Access;
use adjutant_actors::state::effect::Now;
use adjutant_actors::state::sessions::{HeartbeatReply, NewSession};
use tokio::task::JoinHandle;

use crate::engine::Engine;
use crate::operator::OperatorInfo;

/// Agenda entries that one turn of the detach loop looks at, at most.
const LAPSE_BUDGET: usize = 256;

impl Engine {
    /// Attaches a session without faces of its own. Trusted callers only, as all `attach*`: they
    /// give out rights. The token lives for `ttl`, with unlimited uses and scope `*`.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), adjutant::EngineError> {
    /// use adjutant::{Engine, EngineCfg, EngineError, Role};
    /// use std::time::Duration;
    ///
    /// let engine = Engine::new(EngineCfg::default());
    /// let token = engine.attach("ann", Role::Observer, Duration::from_secs(60)).await?;
    /// engine.heartbeat(&token).await?;
    /// assert_eq!(engine.read_session(&token).await?.operator_id, "ann");
    /// engine.detach_and_revoke(&token).await?;
    /// assert_eq!(engine.heartbeat(&token).await, Err(EngineError::TokenRevoked));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `InvalidArgument` for an empty or unprintable id or a `ttl` of zero; `TableFull`; `Stopped`.
    pub async fn attach(
        &self,
        operator_id: impl Into<String>,
        role: Role,
        ttl: Duration,
    ) -> Result<CapToken, EngineError> {
        self.attach_session(operator_id.into(), role, ttl, SessionFaces::default()).await
    }

    /// Attaches a session with faces given in place. They are registered under synthetic ids
    /// (`br-…`, `hk-…`, `op-…`), which do not survive the process.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use adjutant::{OperatorInfo, OperatorKind, Role};
    /// # let engine = adjutant::Engine::new(adjutant::EngineCfg::default());
    /// let faces = OperatorInfo { kind: OperatorKind::MainAi, ..OperatorInfo::default() };
    /// let hour = std::time::Duration::from_secs(3600);
    /// let token = engine.attach_with("ann", Role::Operator, hour, faces).await?;
    /// assert_eq!(engine.read_session(&token).await?.operator_kind, Some(OperatorKind::MainAi));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Self::attach`].
    pub async fn attach_with(
        &self,
        operator_id: impl Into<String>,
        role: Role,
        ttl: Duration,
        operator_info: OperatorInfo,
    ) -> Result<CapToken, EngineError> {
        let synthetic = |kind: &str| format!("{kind}-{:032x}", self.mint().bits128());
        let mut faces =
            SessionFaces { operator_kind: Some(operator_info.kind), ..SessionFaces::default() };
        if let Some(bridge) = operator_info.senior_bridge {
            let id = synthetic("br");
            self.register_senior_bridge(id.clone(), bridge).await;
            faces.bridge_id = Some(id);
        }
        if let Some(hook) = operator_info.spawn_hook {
            let id = synthetic("hk");
            self.register_spawn_hook(id.clone(), hook).await;
            faces.hook_id = Some(id);
        }
        if let Some(operator) = operator_info.operator {
            let id = synthetic("op");
            self.register_operator(id.clone(), operator).await;
            faces.operator_backend_id = Some(id);
        }
        self.attach_session(operator_id.into(), role, ttl, faces).await
    }

    /// Attaches a session with faces that are registered by name, and with the tiers of the
    /// cascade that picks an agent's kind. `kind` is what was asked for at launch; `None` leaves
    /// it to the blueprint's tiers.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), adjutant::EngineError> {
    /// use adjutant::{Engine, EngineCfg, OperatorKind, Role};
    /// use std::{collections::HashMap, time::Duration};
    ///
    /// let engine = Engine::new(EngineCfg::default());
    /// // The faces `bridge`, `hook` and `desk` are registered by the `register_*` methods.
    /// let faces = ["bridge", "hook", "desk"].map(|id| Some(id.to_owned()));
    /// let [bridge, hook, desk] = faces;
    /// let reviewers = HashMap::from([("review".to_owned(), OperatorKind::MainAi)]);
    /// let day = Duration::from_secs(24 * 3600);
    /// let token = engine
    ///     .attach_with_ids(
    ///         "ann", Role::Operator, day, None, bridge, hook, desk, reviewers, HashMap::new(), None,
    ///     )
    ///     .await?;
    /// let session = engine.read_session(&token).await?;
    /// assert_eq!(session.operator_backend_id.as_deref(), Some("desk"));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Self::attach`].
    pub async fn attach_with_ids(
        &self,
        operator_id: impl Into<String>,
        role: Role,
        ttl: Duration,
        kind: Option<OperatorKind>,
        bridge_id: Option<String>,
        hook_id: Option<String>,
        operator_backend_id: Option<String>,
        operator_kind_overrides: HashMap<String, OperatorKind>,
        bp_agent_kinds: HashMap<String, OperatorKind>,
        bp_global_kind: Option<OperatorKind>,
    ) -> Result<CapToken, EngineError> {
        let faces = SessionFaces {
            operator_kind: kind,
            runtime_agent_kinds: operator_kind_overrides,
            bp_agent_kinds,
            bp_global_kind,
            bridge_id,
            hook_id,
            operator_backend_id,
        };
        self.attach_session(operator_id.into(), role, ttl, faces).await
    }

    async fn attach_session(
        &self,
        operator_id: String,
        role: Role,
        ttl: Duration,
        faces: SessionFaces,
    ) -> Result<CapToken, EngineError> {
        self.refuse_while_draining()?;
        check_name("operator id", &operator_id)?;
        let now = self.now()?;
        let (token, record) = self.mint_token(operator_id.clone(), role, ttl, None, now)?;
        let new = NewSession { operator_id: Arc::from(operator_id), role, faces, token: record };
        let attach = move |state: &mut EngineState| {
            state.attach(new, now)?;
            Ok(state.token_count())
        };
        let tokens = self.system().transact("attach", attach).await?;
        self.signer().expect_tokens(tokens);
        Ok(token)
    }

    /// Marks the token's session as detached. Its tasks stay, and a heartbeat with the same token
    /// attaches it again; use [`Self::detach_and_revoke`] to end it for good.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let engine = adjutant::Engine::new(adjutant::EngineCfg::default());
    /// # let minute = std::time::Duration::from_secs(60);
    /// # let operator = engine.attach("ann", adjutant::Role::Operator, minute).await?;
    /// engine.detach(&operator).await?;
    /// assert!(!engine.read_session(&operator).await?.attached);
    /// engine.heartbeat(&operator).await?;
    /// assert!(engine.read_session(&operator).await?.attached);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of an authorization; `SessionNotFound`.
    pub async fn detach(&self, token: &CapToken) -> Result<(), EngineError> {
        self.end_session(token, "detach", EngineState::detach).await
    }

    /// As [`Self::detach`], and revokes the session's token.
    ///
    /// # Errors
    /// As [`Self::detach`].
    pub async fn detach_and_revoke(&self, token: &CapToken) -> Result<(), EngineError> {
        self.end_session(token, "detach_and_revoke", EngineState::detach_and_revoke).await
    }

    async fn end_session(
        &self,
        token: &CapToken,
        op: &'static str,
        end: fn(&mut EngineState, Access, Now) -> Result<SessionId, EngineError>,
    ) -> Result<(), EngineError> {
        let (access, now) = self.access(token, Verb::DetachSession)?;
        self.system().transact(op, move |state| end(state, access, now)).await?;
        Ok(())
    }

    /// Says that the token's session is alive, and attaches it again if it had lapsed.
    ///
    /// # Errors
    /// Those of an authorization; `SessionNotFound`.
    pub async fn heartbeat(&self, token: &CapToken) -> Result<(), EngineError> {
        self.heartbeat_with_reply(token).await.map(|_| ())
    }

    /// As [`Self::heartbeat`], and tells the session whether to start anything new and how long
    /// it and its token have.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let engine = adjutant::Engine::new(adjutant::EngineCfg::default());
    /// # let minute = std::time::Duration::from_secs(60);
    /// # let operator = engine.attach("ann", adjutant::Role::Operator, minute).await?;
    /// let reply = engine.heartbeat_with_reply(&operator).await?;
    /// assert!(!reply.drain && reply.token_ends_in_ms <= 60_000);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Self::heartbeat`].
    pub async fn heartbeat_with_reply(
        &self,
        token: &CapToken,
    ) -> Result<HeartbeatReply, EngineError> {
        let (access, _) = self.access(token, Verb::Heartbeat)?;
        let session = token.fingerprint().session_id();
        let mut reply = self.system().heartbeat(session, access).await?;
        reply.drain |= self.system().is_draining();
        Ok(reply)
    }

    /// The session of a token, as it is now. The list of its tasks is made for this answer.
    ///
    /// # Errors
    /// Those of an authorization; `SessionNotFound`.
    pub async fn read_session(&self, token: &CapToken) -> Result<OperatorSession, EngineError> {
        let (access, now) = self.access(token, Verb::Heartbeat)?;
        self.system().transact("read_session", move |state| state.read_session(access, now)).await
    }

    /// Starts the loop that detaches sessions without a heartbeat for `heartbeat_miss_threshold`
    /// intervals. Dropping the handle leaves the loop running; aborting it, or the end of the
    /// engine, ends it. The loop does not keep the engine alive. Needs a runtime.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let engine = adjutant::Engine::new(adjutant::EngineCfg::default());
    /// let detaching = engine.start_detach_loop();
    /// assert!(!detaching.is_finished());
    /// detaching.abort();
    /// # Ok(()) }
    /// ```
    ///
    /// # Panics
    /// Outside a runtime.
    pub fn start_detach_loop(&self) -> JoinHandle<()> {
        let engine = self.unanchored();
        let interval = self.cfg().long_hold.heartbeat_interval.max(Duration::from_millis(1));
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(interval).await;
                // A tree that ended is started again by the next call, unless the engine is closed.
                if engine.lapse_sessions().await.is_err() && engine.system().is_closed() {
                    return;
                }
            }
        })
    }

    /// Detaches every session that is silent for too long now, in turns of bounded length.
    async fn lapse_sessions(&self) -> Result<(), EngineError> {
        loop {
            let now = self.now()?;
            let next =
                self.system()
                    .transact("lapse_sessions", move |state| {
                        Ok(state.lapse_sessions(now, LAPSE_BUDGET))
                    })
                    .await?;
            if next.is_none_or(|due| due > now.ms) {
                return Ok(());
            }
        }
    }
}
