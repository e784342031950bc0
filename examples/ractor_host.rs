//! A ractor host: the engine stands under the host's supervisor, its events arrive as the host's
//! own messages, and its end arrives as a supervision event.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::sync::Arc;
use std::time::Duration;

use adjutant::{
    CapToken, Delivery, Engine, EngineCfg, Event, EventRecord, InProcSpawner, LayerRegistry, Role,
    SpawnerAdapter, TaskSpec, WorkerResult,
};
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};

/// What the host hears: wishes of its own callers, and what happens in the engine.
enum HostMsg {
    Shout(String),
    Engine(Delivery),
}

struct Host;

struct HostState {
    engine: Engine,
    operator: CapToken,
    spawner: Arc<dyn SpawnerAdapter>,
}

impl Actor for Host {
    type Msg = HostMsg;
    type State = HostState;
    type Arguments = ();

    async fn pre_start(
        &self,
        myself: ActorRef<HostMsg>,
        (): (),
    ) -> Result<HostState, ActorProcessingErr> {
        let cfg = EngineCfg::default();
        let engine = Engine::start_linked(cfg, LayerRegistry::new(), myself.get_cell())?;
        let wrap = |delivery| Some(HostMsg::Engine(delivery));
        engine.forward_events(myself, 0, wrap).await?;
        let operator = engine.attach("host", Role::Operator, Duration::from_secs(3600)).await?;
        let mut agents = InProcSpawner::new();
        agents.register("shout", |call| async move {
            Ok(WorkerResult { value: call.prompt.to_uppercase().into(), ok: true })
        });
        Ok(HostState { engine, operator, spawner: Arc::new(agents) })
    }

    async fn handle(
        &self,
        _myself: ActorRef<HostMsg>,
        message: HostMsg,
        state: &mut HostState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            HostMsg::Shout(text) => state.shout(text).await?,
            HostMsg::Engine(Delivery::Record(record)) => state.heard(record),
            HostMsg::Engine(Delivery::Missed { from, to }) => {
                println!("events {from} to {to} are gone");
            }
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<HostMsg>,
        event: SupervisionEvent,
        _state: &mut HostState,
    ) -> Result<(), ActorProcessingErr> {
        if let SupervisionEvent::ActorTerminated(..) | SupervisionEvent::ActorFailed(..) = event {
            println!("the engine's tree has ended; the host ends too");
            myself.stop(None);
        }
        Ok(())
    }
}

impl HostState {
    /// Starts a task; its end comes back as an event, so the handler does not wait for it.
    async fn shout(&self, text: String) -> Result<(), ActorProcessingErr> {
        let task = self.engine.start_task(&self.operator, TaskSpec::new("shout", text)).await?;
        let (engine, operator) = (self.engine.clone(), self.operator.clone());
        let spawner = self.spawner.clone();
        tokio::spawn(async move { engine.dispatch_attempt_with(&operator, &task, &spawner).await });
        Ok(())
    }

    fn heard(&self, EventRecord { seq, event, .. }: EventRecord) {
        println!("{seq:>3} {}", event.kind());
        if let Event::TaskPass { result, .. } = event {
            println!("    {result}");
            let engine = self.engine.clone();
            tokio::spawn(async move { engine.shutdown(Duration::from_secs(5)).await });
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), ActorProcessingErr> {
    let (host, ended) = Host::spawn(None, Host, ()).await?;
    host.cast(HostMsg::Shout("hello from a host".to_owned()))?;
    ended.await?;
    Ok(())
}
