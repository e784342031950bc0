//! A bare actor that answers calls and does nothing else: what the substrate costs by itself.
#![allow(dead_code, reason = "each bench uses a part of it")]

use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, RpcReplyPort, SupervisionEvent};
use tokio::time::Instant;

use crate::harness::many;

/// Callers that start actors at once.
const CALLERS: usize = 64;

/// The actor.
pub(crate) struct Bare;

/// Its one message.
pub(crate) struct Tick(pub(crate) RpcReplyPort<()>);

impl Actor for Bare {
    type Msg = Tick;
    type State = u64;
    type Arguments = ();

    async fn pre_start(&self, _myself: ActorRef<Tick>, (): ()) -> Result<u64, ActorProcessingErr> {
        Ok(0)
    }

    async fn handle(
        &self,
        _myself: ActorRef<Tick>,
        Tick(reply): Tick,
        state: &mut u64,
    ) -> Result<(), ActorProcessingErr> {
        *state += 1;
        let _ = reply.send(());
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _myself: ActorRef<Tick>,
        _event: SupervisionEvent,
        _state: &mut u64,
    ) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
}

impl Bare {
    /// Starts one, under a supervisor if there is one.
    pub(crate) async fn start(supervisor: Option<ActorCell>) -> ActorRef<Tick> {
        let started = match supervisor {
            Some(cell) => Actor::spawn_linked(None, Self, (), cell).await,
            None => Actor::spawn(None, Self, ()).await,
        };
        started.expect("an actor starts").0
    }
}

/// Five calls one after the other, as many as a lifecycle has turns.
pub(crate) async fn five_calls(actor: ActorRef<Tick>) -> bool {
    for _ in 0..5 {
        if actor.call(Tick, None).await.is_err() {
            return false;
        }
    }
    true
}

/// Microseconds each to start so many idle actors under one supervisor, from 64 callers.
pub(crate) async fn spawn_linked(count: usize) -> f64 {
    let root = Bare::start(None).await;
    let start = Instant::now();
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let root = root.get_cell();
            tokio::spawn(async move {
                for _ in 0..count / CALLERS {
                    Bare::start(Some(root.clone())).await;
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.expect("a caller does not panic");
    }
    let each = start.elapsed().as_secs_f64() * 1e6 / many(count / CALLERS * CALLERS);
    root.stop_and_wait(None, None).await.expect("the actor runs");
    each
}
