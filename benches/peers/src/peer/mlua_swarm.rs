//! mlua-swarm: the known engine with this public contract, with its default settings.

use std::sync::Arc;

use mlua_swarm::{
    CapToken, DispatchOutcome, Engine, EngineCfg, EngineError, InProcSpawner, Role, SpawnerAdapter,
    TaskSpec, WorkerInvocation, WorkerResult,
};

use super::{AGENT, DAY, DIRECTIVE, OWNED, Peer, Session, Work};

/// An engine, its callers' session and its spawner.
#[derive(Clone)]
pub(crate) struct MluaSwarm(Arc<Parts>);

struct Parts {
    engine: Engine,
    session: Session<CapToken>,
    spawner: Arc<dyn SpawnerAdapter>,
}

fn spec() -> TaskSpec {
    TaskSpec {
        agent: AGENT.to_owned(),
        initial_directive: DIRECTIVE.into(),
        step_ctx: None,
        check_policy: None,
    }
}

impl Parts {
    async fn token(&self) -> Result<CapToken, EngineError> {
        if let Some(token) = self.session.next() {
            return Ok(token);
        }
        let attached = self.engine.attach("bench", Role::Operator, DAY).await;
        match &attached {
            Ok(token) => self.session.renew(token.clone()),
            Err(_) => self.session.not_renewed(),
        }
        attached
    }

    async fn lifecycle(&self) -> Result<DispatchOutcome, EngineError> {
        let token = self.token().await?;
        let task = self.engine.start_task(&token, spec()).await?;
        self.engine.dispatch_attempt_with(&token, &task, &self.spawner, None).await
    }
}

impl Peer for MluaSwarm {
    const NAME: &'static str = "mlua-swarm";
    const FLOOR: bool = false;

    async fn start(work: Work) -> Self {
        let engine = Engine::new(EngineCfg::default());
        let token = engine.attach("bench", Role::Operator, DAY).await.expect("a session");
        if work == Work::Owned {
            for _ in 0..OWNED {
                engine.start_task(&token, spec()).await.expect("a lone caller is served");
            }
        }
        let mut spawner = InProcSpawner::new();
        spawner.register(AGENT, |call: WorkerInvocation| async move {
            Ok(WorkerResult { value: call.prompt.into(), ok: true, stats: None })
        });
        let (session, spawner) = (Session::new(token, work), Arc::new(spawner));
        Self(Arc::new(Parts { engine, session, spawner }))
    }

    async fn turn(&self) -> bool {
        matches!(self.0.engine.with_state("bench", |state| state.tasks.len()).await, Ok(0))
    }

    async fn lifecycle(&self) -> bool {
        matches!(self.0.lifecycle().await, Ok(DispatchOutcome::Pass(_)))
    }

    /// It runs nothing by itself: its end is the drop of its last handle.
    async fn stop(self) {}
}
