//! adjutant: an engine with the retention of its own benches.

use std::sync::Arc;
use std::time::Duration;

use adjutant::{
    CapToken, DispatchOutcome, Engine, EngineCfg, EngineError, HoldPolicy, InProcSpawner, Role,
    SpawnerAdapter, TaskSpec, WorkerInvocation, WorkerResult,
};

use super::{AGENT, DAY, DIRECTIVE, KEPT, OWNED, Peer, Session, Work};

/// An engine, its callers' session and its spawner.
#[derive(Clone)]
pub(crate) struct Adjutant(Arc<Parts>);

struct Parts {
    engine: Engine,
    session: Session<CapToken>,
    spawner: Arc<dyn SpawnerAdapter>,
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
        let task = self.engine.start_task(&token, TaskSpec::new(AGENT, DIRECTIVE)).await?;
        self.engine.dispatch_attempt_with(&token, &task, &self.spawner).await
    }
}

impl Peer for Adjutant {
    const NAME: &'static str = "adjutant";
    const FLOOR: bool = false;

    async fn start(work: Work) -> Self {
        let mut cfg = EngineCfg { hold_policy: HoldPolicy::Warn, ..EngineCfg::default() };
        cfg.retention.settled_tasks = KEPT as u64;
        let engine = Engine::new(cfg);
        let token = engine.attach("bench", Role::Operator, DAY).await.expect("a session");
        if work == Work::Owned {
            for _ in 0..OWNED {
                let spec = TaskSpec::new(AGENT, DIRECTIVE);
                engine.start_task(&token, spec).await.expect("a lone caller is served");
            }
        }
        let mut spawner = InProcSpawner::new();
        spawner.register(AGENT, |call: WorkerInvocation| async move {
            Ok(WorkerResult { value: call.prompt.into(), ok: true })
        });
        let (session, spawner) = (Session::new(token, work), Arc::new(spawner));
        Self(Arc::new(Parts { engine, session, spawner }))
    }

    async fn turn(&self) -> bool {
        matches!(self.0.engine.with_state("bench", |state| state.task_count()).await, Ok(0))
    }

    async fn lifecycle(&self) -> bool {
        matches!(self.0.lifecycle().await, Ok(DispatchOutcome::Pass(_)))
    }

    async fn stop(self) {
        self.0.engine.shutdown(Duration::from_secs(5)).await;
    }
}
