//! actix: an actor that owns the records, in a system of its own, asked with typed messages.
//!
//! An actix actor lives on the one thread of its arbiter. So the actor runs on the thread of its
//! own `System`, as actix is meant to be used, and the callers on the two workers send to its
//! address: it has a third thread that the other contenders do not have, and every message
//! crosses threads. Its mailbox has a place for every caller; the default has 16.

use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use actix::{Actor, Addr, Context, Handler, Message, MessageResult, System};
use futures::channel::oneshot;

use super::{Peer, Work};
use crate::records::{Answer, Ask, Records, Step, count, five_messages};

/// More than there are callers.
const PLACES: usize = 1024;

/// The address of the actor, and the thread that it lives on.
#[derive(Clone)]
pub(crate) struct ActixActor {
    owner: Addr<Owner>,
    system: System,
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
}

struct Owner(Records);

impl Actor for Owner {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Context<Self>) {
        context.set_mailbox_capacity(PLACES);
    }
}

impl Message for Step {
    type Result = Answer;
}

impl Handler<Step> for Owner {
    type Result = MessageResult<Step>;

    fn handle(&mut self, step: Step, _context: &mut Context<Self>) -> Self::Result {
        MessageResult(self.0.apply(step))
    }
}

impl Ask for ActixActor {
    async fn ask(&self, step: Step) -> Option<Answer> {
        self.owner.send(step).await.ok()
    }
}

impl Peer for ActixActor {
    const NAME: &'static str = "actix send";
    const FLOOR: bool = true;

    async fn start(_work: Work) -> Self {
        let (ready, started) = oneshot::channel();
        let thread = thread::spawn(move || {
            let runner = System::new();
            let owner = runner.block_on(async { Owner(Records::default()).start() });
            let _ = ready.send((owner, System::current()));
            runner.run().expect("the system runs until it is stopped");
        });
        let (owner, system) = started.await.expect("the system starts");
        Self { owner, system, thread: Arc::new(Mutex::new(Some(thread))) }
    }

    async fn turn(&self) -> bool {
        count(self).await
    }

    async fn lifecycle(&self) -> bool {
        five_messages(self).await
    }

    async fn stop(self) {
        self.system.stop();
        let thread = self.thread.lock().expect("no holder panics").take();
        if let Some(thread) = thread {
            let joined = tokio::task::spawn_blocking(move || thread.join()).await;
            joined.expect("the wait does not panic").expect("the system does not panic");
        }
    }
}
