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
pub(super) struct Session {
    engine: Engine,
    operator: CapToken,
    senior: CapToken,
    bridge_id: Option<String>,
    ttl: Duration,
}

impl Session {
    pub(super) async fn attach(
        engine: &Engine,
        program: &Program,
        options: &RunOptions,
    ) -> Result<Self, EngineError> {
        let ttl = options.ttl.or(program.ttl()).unwrap_or(DEFAULT_TTL);
        let life = ttl.saturating_add(TOKEN_MARGIN);
        let bridge_id = match &options.senior {
            Some(bridge) => {
                let id = format!("br-{:032x}", engine.mint().bits128());
                engine.register_senior_bridge(id.clone(), bridge.clone()).await;
                Some(id)
            }
            None => None,
        };
        let operator = engine
            .attach_with_ids(
                options.operator_id.clone(),
                Role::Operator,
                life,
                options.kind,
                options.bridge_id.clone().or_else(|| bridge_id.clone()),
                options.hook_id.clone(),
                options.operator_backend_id.clone(),
                options.agent_kinds.clone(),
                program.agent_kinds().clone(),
                program.default_kind(),
            )
            .await?;
        let senior =
            engine.attach(format!("{}-senior", options.operator_id), Role::Senior, life).await?;
        Ok(Self { engine: engine.clone(), operator, senior, bridge_id, ttl })
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

    /// Forgets the bridge. The sessions stay; whoever carries the run on or ends it ends them.
    pub(super) async fn leave(self) {
        if let Some(id) = &self.bridge_id {
            self.engine.unregister_senior_bridge(id).await;
        }
    }

    /// Cancels what is still open of the run, and ends its sessions.
    pub(super) async fn end(self) {
        let open = self.engine.read_session(&self.operator).await.map(|own| own.owned_task_ids);
        for task in open.unwrap_or_default() {
            let settled = match self.engine.read_task_state(&self.operator, &task).await {
                Ok(state) => state.status.is_settled(),
                Err(_) => true,
            };
            if !settled {
                let _ = self.engine.cancel_task(&self.operator, &task).await;
            }
        }
        for token in [&self.operator, &self.senior] {
            if let Err(error) = self.engine.detach_and_revoke(token).await {
                tracing::warn!(error = error.to_string(), "a run's session could not be ended");
            }
        }
        self.leave().await;
    }
}
