//! The keeper of runs: an actor that supervises one actor for each run that is carried on.
//!
//! It is spawned with the server, under nobody, and stops with it; its runs stop with it and stay
//! open. A run's actor does one thing, carry its run on, and ends. One that fails is started again,
//! a few times, and goes on with its run as after a crash; what it lost is the evaluation, which
//! begins anew over the steps that are kept.

use std::collections::HashMap;
use std::sync::Arc;

use adjutant_actors::errors::EngineError;
use adjutant_actors::model::ids::RunId;
use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, SupervisionEvent};
use serde_json::Value;

use crate::blueprint::{Program, RunOptions, RunReport, resume, run};
use crate::engine::Engine;
use crate::server::runs::live::Live;

/// Times that a run's actor is started again.
const RESTARTS_MAX: u32 = 3;

/// One run to carry on.
#[derive(Clone)]
pub(crate) struct Job {
    pub(crate) engine: Engine,
    pub(crate) id: RunId,
    pub(crate) program: Arc<Program>,
    /// What it begins with; a run that is resumed has it already.
    pub(crate) input: Option<Value>,
    pub(crate) options: RunOptions,
    pub(crate) live: Arc<Live>,
}

impl Job {
    async fn carry_out(self) -> Result<RunReport, EngineError> {
        match self.input {
            Some(input) => run(&self.engine, self.program, input, self.options).await,
            None => resume(&self.engine, self.id, self.program, self.options).await,
        }
    }
}

/// What the keeper is told.
pub(crate) enum KeeperMsg {
    /// Starts the actor of a run.
    Carry(Box<Job>),
}

/// The supervisor.
pub(crate) struct Keeper;

/// A run's actor and what it takes to start it again.
struct Kept {
    job: Box<Job>,
    restarts: u32,
}

/// The runs by their actors.
#[derive(Default)]
pub(crate) struct Keeping(HashMap<ActorId, Kept>);

impl Actor for Keeper {
    type Msg = KeeperMsg;
    type State = Keeping;
    type Arguments = ();

    async fn pre_start(
        &self,
        _: ActorRef<KeeperMsg>,
        (): (),
    ) -> Result<Keeping, ActorProcessingErr> {
        Ok(Keeping::default())
    }

    async fn handle(
        &self,
        myself: ActorRef<KeeperMsg>,
        message: KeeperMsg,
        keeping: &mut Keeping,
    ) -> Result<(), ActorProcessingErr> {
        let KeeperMsg::Carry(job) = message;
        keeping.start(Kept { job, restarts: 0 }, &myself).await;
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<KeeperMsg>,
        event: SupervisionEvent,
        keeping: &mut Keeping,
    ) -> Result<(), ActorProcessingErr> {
        let (who, failed) = match &event {
            SupervisionEvent::ActorTerminated(who, _, _) => (who, false),
            SupervisionEvent::ActorFailed(who, _) => (who, true),
            _ => return Ok(()),
        };
        let Some(kept) = keeping.0.remove(&who.get_id()) else { return Ok(()) };
        // An actor that was killed ends without an error, and without having ended its run.
        if kept.job.live.is_over() {
            return Ok(());
        }
        tracing::error!(run = %kept.job.id, failed, "the actor of a run ended before its run");
        keeping.again(kept, &myself).await;
        Ok(())
    }
}

impl Keeping {
    async fn start(&mut self, kept: Kept, keeper: &ActorRef<KeeperMsg>) {
        let job = (*kept.job).clone();
        let live = job.live.clone();
        match Actor::spawn_linked(None, Carrier, job, keeper.get_cell()).await {
            Ok((actor, _)) => {
                self.0.insert(actor.get_id(), kept);
            }
            Err(error) => live.end(Err(EngineError::Internal(error.to_string()))),
        }
    }

    async fn again(&mut self, mut kept: Kept, keeper: &ActorRef<KeeperMsg>) {
        if kept.restarts >= RESTARTS_MAX {
            let reason = "the actor of the run failed again and again";
            kept.job.live.end(Err(EngineError::Internal(reason.to_owned())));
            return;
        }
        kept.restarts += 1;
        // What was opened before goes on as it was begun.
        if matches!(kept.job.engine.read_run(kept.job.id).await, Ok(Some(_))) {
            kept.job.input = None;
        }
        self.start(kept, keeper).await;
    }
}

/// The actor of one run.
struct Carrier;

impl Actor for Carrier {
    type Msg = ();
    type State = Option<Job>;
    type Arguments = Job;

    async fn pre_start(
        &self,
        myself: ActorRef<()>,
        job: Job,
    ) -> Result<Option<Job>, ActorProcessingErr> {
        myself.cast(())?;
        Ok(Some(job))
    }

    async fn handle(
        &self,
        myself: ActorRef<()>,
        (): (),
        job: &mut Option<Job>,
    ) -> Result<(), ActorProcessingErr> {
        if let Some(job) = job.take() {
            let live = job.live.clone();
            let ended = job.carry_out().await;
            live.end(ended);
        }
        myself.stop(None);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;
    use tokio::sync::Semaphore;

    use super::*;
    use crate::blueprint::Functions;
    use crate::operator::WorkerResult;
    use crate::server::ServerCfg;
    use crate::server::runs::{NewRun, OperatorWish, Runs, Source, Standing};
    use crate::{EngineCfg, HoldPolicy};

    #[tokio::test]
    async fn a_run_whose_actor_is_killed_goes_on_where_it_was() {
        let (gate, calls) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let (inside, called) = (gate.clone(), calls.clone());
        let functions = Functions::new().with("gate", move |call| {
            called.add_permits(1);
            let gate = inside.clone();
            async move {
                gate.acquire().await.unwrap().forget();
                Ok(WorkerResult { value: call.prompt.into(), ok: true })
            }
        });
        let calm = EngineCfg { hold_policy: HoldPolicy::Warn, ..EngineCfg::default() };
        let cfg = Arc::new(ServerCfg { functions, ..ServerCfg::default() });
        let runs = Runs::new(Engine::new(calm), cfg).await.unwrap();
        let agent = json!({ "name": "gate", "kind": "rust_fn", "spec": { "fn_id": "gate" } });
        let flow = json!({
            "kind": "step", "ref": "gate",
            "in": { "op": "path", "at": "$.x" }, "out": { "op": "path", "at": "$.y" }
        });
        let new = NewRun {
            blueprint: Source::Inline(json!({ "id": "one", "agents": [agent], "flow": flow })),
            input: json!({ "x": "on" }),
            ttl: None,
            operator: OperatorWish::default(),
            key: None,
            principal: "admin".to_owned(),
        };
        let begun = runs.start(new).await.unwrap();
        calls.acquire().await.unwrap().forget();
        let actors = runs.keeper.get_cell().get_children();
        assert_eq!(actors.len(), 1);
        actors[0].kill();
        // It is taken over, and the attempt that was under way is waited for and not made again.
        while runs.view(begun.run_id).await.unwrap().resumed == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        gate.add_permits(1);
        let ended = runs.wait(begun.run_id, Duration::from_secs(30)).await.unwrap();
        assert_eq!(ended.status, Standing::Pass);
        assert_eq!(calls.available_permits(), 0, "the step was done once");
        assert_eq!(runs.count(), 0);
    }
}
