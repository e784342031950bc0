//! The sessions of one run: attached before it, ended with it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use adjutant_actors::errors::EngineError;
use adjutant_actors::model::ids::SessionId;
use adjutant_actors::model::role::Role;
use adjutant_actors::model::token::CapToken;

use crate::blueprint::compile::Program;
use crate::blueprint::kept::Kept;
use crate::blueprint::run::RunOptions;
use crate::blueprint::step::Steps;
use crate::engine::Engine;

/// Life of a run where neither the caller nor the blueprint names one.
const DEFAULT_TTL: Duration = Duration::from_secs(1800);
/// How much longer than the run its tokens live, so that its clean-up can still use them.
const TOKEN_MARGIN: Duration = Duration::from_secs(60);

/// The two sessions of a run: the operator that starts its tasks, the senior that answers.
///
/// Dropped before its end it ends them, unless the run is kept: then they stay, and whoever carries
/// the run on or ends it ends them.
pub(super) struct Session {
    engine: Engine,
    operator: CapToken,
    senior: CapToken,
    left: Left,
    ttl: Duration,
}

/// What an end of any kind has to tidy up.
struct Left {
    engine: Engine,
    bridge_id: Option<String>,
    /// The sessions that end with it, the operator's first.
    tokens: Vec<CapToken>,
}

impl Drop for Left {
    fn drop(&mut self) {
        if let Some(id) = &self.bridge_id {
            self.engine.forget_bridge(id);
        }
        let (engine, tokens) = (self.engine.unanchored(), std::mem::take(&mut self.tokens));
        if tokens.is_empty() {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { end_all(&engine, &tokens).await });
        }
    }
}

impl Session {
    pub(super) async fn attach(
        engine: &Engine,
        program: &Program,
        options: &RunOptions,
    ) -> Result<Self, EngineError> {
        let ttl = options.ttl.or(program.ttl()).unwrap_or(DEFAULT_TTL);
        let life = ttl.saturating_add(TOKEN_MARGIN);
        let mut left = Left { engine: engine.clone(), bridge_id: None, tokens: Vec::new() };
        if let Some(bridge) = &options.senior {
            let id = format!("br-{:032x}", engine.mint().bits128());
            left.bridge_id = Some(id.clone());
            engine.register_senior_bridge(id, bridge.clone()).await;
        }
        let operator = engine
            .attach_with_ids(
                options.operator_id.clone(),
                Role::Operator,
                life,
                options.kind,
                options.bridge_id.clone().or_else(|| left.bridge_id.clone()),
                options.hook_id.clone(),
                options.operator_backend_id.clone(),
                options.agent_kinds.clone(),
                program.agent_kinds().clone(),
                program.default_kind(),
            )
            .await?;
        left.tokens.push(operator.clone());
        let senior =
            engine.attach(format!("{}-senior", options.operator_id), Role::Senior, life).await?;
        left.tokens.push(senior.clone());
        Ok(Self { engine: engine.clone(), operator, senior, left, ttl })
    }

    /// What runs the steps of the run.
    pub(super) fn steps(
        &self,
        program: &Arc<Program>,
        options: &RunOptions,
        kept: Option<Kept>,
    ) -> Steps {
        Steps {
            engine: self.engine.clone(),
            program: program.clone(),
            operator: self.operator.clone(),
            senior: self.senior.clone(),
            bridge: options.senior.clone(),
            observer: options.observer.clone(),
            hold: self.ttl,
            fault: Mutex::new(None),
            kept,
        }
    }

    /// The ids of the sessions, the operator's first.
    pub(super) fn ids(&self) -> Vec<SessionId> {
        [&self.operator, &self.senior].map(|token| token.fingerprint().session_id()).to_vec()
    }

    /// Says that the run is kept from here on, and with it its sessions.
    pub(super) fn keep(&mut self) {
        self.left.tokens.clear();
    }

    /// Cancels what is still open of the run, and ends its sessions.
    pub(super) async fn end(mut self) {
        end_all(&self.engine, &self.left.tokens).await;
        self.left.tokens.clear();
    }
}

/// Cancels what is still open of the first of these sessions, and ends all of them.
async fn end_all(engine: &Engine, tokens: &[CapToken]) {
    let Some(operator) = tokens.first() else { return };
    let open = engine.read_session(operator).await.map(|own| own.owned_task_ids);
    for task in open.unwrap_or_default() {
        let settled = match engine.read_task_state(operator, &task).await {
            Ok(state) => state.status.is_settled(),
            Err(_) => true,
        };
        if !settled {
            let _ = engine.cancel_task(operator, &task).await;
        }
    }
    for token in tokens {
        if let Err(error) = engine.detach_and_revoke(token).await {
            tracing::warn!(error = error.to_string(), "a run's session could not be ended");
        }
    }
}
