//! Tokens from the outside: verify, resolve to a task, mint, revoke.

use std::time::Duration;

use adjutant_actors::errors::EngineError;
use adjutant_actors::model::ids::TaskId;
use adjutant_actors::model::role::{Role, Verb};
use adjutant_actors::model::token::{
    CapToken, TokenFingerprint, TokenRequest, WorkerHandle, parse_handle,
};
use adjutant_actors::state::auth::{NewToken, Reach};
use adjutant_actors::state::effect::Now;

use crate::engine::{Caller, Engine};
#[cfg(feature = "server")]
use adjutant_actors::state::{EngineState, auth::Access};

impl Engine {
    /// Verifies a token for a verb and spends one use: signature, expiry, role × verb, record.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), adjutant::EngineError> {
    /// use adjutant::{Engine, EngineCfg, EngineError, Role, Verb};
    /// use std::time::Duration;
    ///
    /// let engine = Engine::new(EngineCfg::default());
    /// let token = engine.attach("ann", Role::Observer, Duration::from_secs(60)).await?;
    /// engine.verify_token(&token, Verb::ReadTrace).await?;
    /// let refused = engine.verify_token(&token, Verb::CancelTask).await;
    /// let role = Role::Observer;
    /// assert_eq!(refused, Err(EngineError::RoleViolation { role, verb: Verb::CancelTask }));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `BadSignature`, `TokenExpired`, `RoleViolation`, `TokenNotFound`, `TokenRevoked`,
    /// `TokenUsesExhausted`; none of them spends a use.
    pub async fn verify_token(&self, token: &CapToken, verb: Verb) -> Result<(), EngineError> {
        self.verify_as(token.into(), verb).await
    }

    /// As [`Self::verify_token`]; the host may do everything.
    pub(crate) async fn verify_as(
        &self,
        caller: Caller<'_>,
        verb: Verb,
    ) -> Result<(), EngineError> {
        let (access, now) = self.access(caller, verb)?;
        self.system()
            .transact("verify_token", move |state| state.verify(access, Reach::Anywhere, now))
            .await
    }

    /// As [`Self::verify_as`] with this reach, without spending a use: for a call that spent one
    /// when it began and took its time since.
    #[cfg(feature = "server")]
    pub(crate) async fn check_as(
        &self,
        caller: Caller<'_>,
        verb: Verb,
        reach: Reach,
    ) -> Result<(), EngineError> {
        let (access, now) = self.access(caller, verb)?;
        let check = move |state: &mut EngineState| state.check(access, reach, now).map(drop);
        self.system().transact("check_token", check).await
    }

    /// What the gate says of a role, for who is known by other means than a token.
    #[cfg(feature = "server")]
    pub(crate) fn permit(&self, role: Role, verb: Verb) -> Result<(), EngineError> {
        let allowed = self.inner.gate.is_allowed(role, verb);
        if allowed { Ok(()) } else { Err(EngineError::RoleViolation { role, verb }) }
    }

    /// As [`Self::verify_token`], and whether a worker's token may name this task: with the verbs
    /// of reading, polling and cancelling also a sub-task below its own, with `DispatchAttempt`
    /// only those, with every other verb only its own.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use adjutant::Verb;
    /// # let engine = adjutant::Engine::new(adjutant::EngineCfg::default());
    /// # let minute = std::time::Duration::from_secs(60);
    /// # let operator = engine.attach("ann", adjutant::Role::Operator, minute).await?;
    /// # let task = engine.start_task(&operator, adjutant::TaskSpec::new("echo", "hello")).await?;
    /// engine.verify_token_for_task(&operator, Verb::ReadTaskState, &task).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of [`Self::verify_token`], `TokenTaskMismatch`, `TaskNotFound`.
    pub async fn verify_token_for_task(
        &self,
        token: &CapToken,
        verb: Verb,
        task_id: &TaskId,
    ) -> Result<(), EngineError> {
        let (access, now) = self.access(token, verb)?;
        let reach = reach_of(verb, *task_id);
        self.system()
            .transact("verify_token_for_task", move |state| state.verify(access, reach, now))
            .await
    }

    /// The task that a worker's token is bound to. The token is verified; no use is spent.
    ///
    /// # Errors
    /// Those of [`Self::verify_token`]; `RoleViolation` for another role than Worker.
    pub async fn task_id_from_token(&self, token: &CapToken) -> Result<TaskId, EngineError> {
        let (signed, now) = self.signed(token)?;
        if token.role != Role::Worker {
            return Err(EngineError::RoleViolation { role: token.role, verb: Verb::VerifyToken });
        }
        let bound = move |state: &mut adjutant_actors::state::EngineState| {
            state.bound_task(signed, now).map(|(task, _)| task)
        };
        self.system().transact("task_id_from_token", bound).await
    }

    /// The task behind a worker handle. A handle with a typing error is refused without a look-up.
    ///
    /// # Errors
    /// `InvalidArgument` for a text that is no handle; `TokenNotFound`, `TokenExpired`.
    pub async fn task_id_from_handle(&self, handle: &str) -> Result<TaskId, EngineError> {
        self.resolve_handle(handle).await.map(|(task, _)| task)
    }

    /// The task and the attempt behind a worker handle.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let engine = adjutant::Engine::new(adjutant::EngineCfg::default());
    /// let mistyped = engine.resolve_handle("not a handle").await;
    /// assert!(matches!(mistyped, Err(adjutant::EngineError::InvalidArgument(_))));
    /// assert!(engine.task_id_from_handle("not a handle").await.is_err());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Self::task_id_from_handle`].
    pub async fn resolve_handle(&self, handle: &str) -> Result<(TaskId, u32), EngineError> {
        parse_handle(handle).map_err(|error| EngineError::InvalidArgument(error.to_string()))?;
        let (key, now) = (self.signer().handle_key(handle), self.now()?);
        self.system().transact("resolve_handle", move |state| state.resolve_handle(&key, now)).await
    }

    /// Mints one more worker token for the task's live attempt; it dies with the attempt.
    ///
    /// # Errors
    /// Those of an authorization; `InvalidTransition` where no attempt is live;
    /// `InvalidArgument` for a `ttl` of zero or `max_uses` of 0.
    ///
    /// For a helper that does a part of the work of an attempt:
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use adjutant::{InProcSpawner, SpawnerAdapter, WorkerResult};
    /// use std::{sync::Arc, time::Duration};
    /// # let engine = adjutant::Engine::new(adjutant::EngineCfg::default());
    /// # let minute = std::time::Duration::from_secs(60);
    /// # let operator = engine.attach("ann", adjutant::Role::Operator, minute).await?;
    /// # let task = engine.start_task(&operator, adjutant::TaskSpec::new("echo", "hello")).await?;
    /// # let (mut agents, inside, ann) = (InProcSpawner::new(), engine.unanchored(), operator.clone());
    /// agents.register("echo", move |call| {
    ///     let (engine, ann) = (inside.clone(), ann.clone());
    ///     async move {
    ///         let (once, ttl) = (Some(1), Duration::from_secs(9));
    ///         let helper = engine.mint_worker_token(&ann, &call.task_id, ttl, once).await.unwrap();
    ///         let prompt = engine.fetch_prompt(&helper, &call.task_id).await.unwrap();
    ///         let same = engine.task_id_from_token(&helper).await == Ok(call.task_id);
    ///         Ok(WorkerResult { value: prompt.into(), ok: same })
    ///     }
    /// });
    /// # let spawner: Arc<dyn SpawnerAdapter> = Arc::new(agents);
    /// engine.dispatch_attempt_with(&operator, &task, &spawner).await?;
    /// assert_eq!(engine.read_task_state(&operator, &task).await?.last_result, Some("hello".into()));
    /// # Ok(()) }
    /// ```
    pub async fn mint_worker_token(
        &self,
        token: &CapToken,
        task_id: &TaskId,
        ttl: Duration,
        max_uses: Option<u32>,
    ) -> Result<CapToken, EngineError> {
        let (access, now) = self.access(token, Verb::MintWorkerToken)?;
        if max_uses == Some(0) {
            return Err(EngineError::InvalidArgument("max_uses is 0".to_owned()));
        }
        let (minted, new) =
            self.mint_token(worker_name(*task_id), Role::Worker, ttl, max_uses, now)?;
        let task = *task_id;
        self.system()
            .transact("mint_worker_token", move |state| {
                state.mint_worker_token(access, task, new, now)
            })
            .await?;
        Ok(minted)
    }

    /// Mints one more worker token for the task's live attempt, to be handed over to somebody else
    /// than the attempt's own worker. Trusted callers only.
    #[cfg(feature = "server")]
    pub(crate) async fn lend_worker_token(&self, task: &TaskId) -> Result<CapToken, EngineError> {
        let (task, now, ttl) = (*task, self.now()?, self.cfg().worker_token_ttl);
        let (minted, new) = self.mint_token(worker_name(task), Role::Worker, ttl, None, now)?;
        let lend =
            move |state: &mut EngineState| state.mint_worker_token(Access::Trusted, task, new, now);
        self.system().transact("lend_worker_token", lend).await?;
        Ok(minted)
    }

    /// Whether a token would still be verified, by its record. Trusted callers only.
    #[cfg(feature = "server")]
    pub(crate) async fn is_token_live(
        &self,
        fingerprint: TokenFingerprint,
    ) -> Result<bool, EngineError> {
        let now = self.now()?;
        let look = move |state: &mut EngineState| state.is_token_live(fingerprint, now);
        self.system().with_state("is_token_live", look).await
    }

    /// Revokes a token by its fingerprint. Trusted callers only.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let engine = adjutant::Engine::new(adjutant::EngineCfg::default());
    /// # let minute = std::time::Duration::from_secs(60);
    /// # let operator = engine.attach("ann", adjutant::Role::Operator, minute).await?;
    /// engine.revoke_token(operator.fingerprint()).await?;
    /// assert_eq!(engine.heartbeat(&operator).await, Err(adjutant::EngineError::TokenRevoked));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `TokenNotFound`.
    pub async fn revoke_token(&self, fingerprint: TokenFingerprint) -> Result<(), EngineError> {
        self.system().transact("revoke_token", move |state| state.revoke(fingerprint)).await
    }

    /// Retires a signing key: tokens under it no longer verify, and all their records are
    /// revoked. Returns how many. Looks at every record. Trusted callers only.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let engine = adjutant::Engine::new(adjutant::EngineCfg::default());
    /// # let minute = std::time::Duration::from_secs(60);
    /// # let operator = engine.attach("ann", adjutant::Role::Operator, minute).await?;
    /// engine.signer().rotate(2, b"a secret of thirty-two bytes or more")?;
    /// assert_eq!(engine.retire_key(1).await?, 1); // the one token that it had signed
    /// assert!(engine.heartbeat(&operator).await.is_err());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `InvalidArgument` for the active key or one that is not there.
    pub async fn retire_key(&self, kid: u32) -> Result<usize, EngineError> {
        self.signer()
            .retire(kid)
            .map_err(|error| EngineError::InvalidArgument(error.to_string()))?;
        self.system().transact("retire_key", move |state| Ok(state.revoke_minted_under(kid))).await
    }

    /// Mints a token and makes the record that a turn will store of it.
    pub(crate) fn mint_token(
        &self,
        agent_id: String,
        role: Role,
        ttl: Duration,
        max_uses: Option<u32>,
        now: Now,
    ) -> Result<(CapToken, NewToken), EngineError> {
        if ttl.is_zero() {
            return Err(EngineError::InvalidArgument("the token's ttl is zero".to_owned()));
        }
        let request = TokenRequest {
            agent_id,
            role,
            scopes: vec!["*".to_owned()],
            issued_at: now.unix,
            // The signed times are whole seconds; the record below has the exact end.
            ttl: Duration::from_secs(
                ttl.as_secs().saturating_add(u64::from(ttl.subsec_nanos() > 0)),
            ),
            max_uses,
            nonce: self.mint().nonce(),
        };
        let (token, signed) = self.signer().mint_at(request);
        let life = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        let deadline_ms = now.ms.saturating_add(life);
        let record = NewToken { token: token.clone(), signed, deadline_ms };
        Ok((token, record))
    }

    pub(crate) fn draw_handle(&self) -> WorkerHandle {
        WorkerHandle::draw(self.mint())
    }
}

/// Whom a dispatch's worker token names.
pub(crate) fn worker_name(task: TaskId) -> String {
    format!("worker-of-{task}")
}

/// How far a verb reaches for a worker.
fn reach_of(verb: Verb, task: TaskId) -> Reach {
    match verb {
        Verb::ReadTaskState | Verb::PollTask | Verb::CancelTask => Reach::Tree(task),
        Verb::DispatchAttempt => Reach::Below(task),
        _ => Reach::Own(task),
    }
}
