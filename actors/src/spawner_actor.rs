//! The spawner actor: keeps one supervised spawner built.
//!
//! It owns the factory's product and hands it out to launches, which run it in their own attempt;
//! so a slow launch holds nobody up. A panic of the product brings a new one after a backoff,
//! within an intensity; past that, launches are refused with the reason. Spawned under the root,
//! which starts it again on the same factory if it dies.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use ractor::{Actor, ActorProcessingErr, ActorRef, MessagingErr, SupervisionEvent};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::launch::{Built, Factory, panic_text};
use crate::mail::{Letter, Mail};
use crate::messages::{Checkout, Intensity, SpawnerMsg};

pub(crate) struct Spawner;

#[derive(Clone)]
pub(crate) struct Arguments {
    pub(crate) name: String,
    pub(crate) factory: Factory,
    pub(crate) intensity: Intensity,
    pub(crate) mail: Arc<Mail>,
}

enum Product {
    Ready(Built),
    /// A rebuild waits for its backoff.
    Resting,
    /// Past the intensity; for this reason.
    Refused(String),
}

pub(crate) struct Keeper {
    args: Arguments,
    product: Product,
    generation: u64,
    broken_at: VecDeque<Instant>,
    waiting: Vec<oneshot::Sender<Checkout>>,
    /// Brings the next rebuild. It goes with its actor, which it would else keep in memory.
    timer: Option<AbortOnDropHandle<Result<(), MessagingErr<Letter<SpawnerMsg>>>>>,
}

impl Actor for Spawner {
    type Msg = Letter<SpawnerMsg>;
    type State = Keeper;
    type Arguments = Arguments;

    async fn pre_start(
        &self,
        myself: ActorRef<Letter<SpawnerMsg>>,
        args: Arguments,
    ) -> Result<Keeper, ActorProcessingErr> {
        let mut keeper = Keeper {
            args,
            product: Product::Resting,
            generation: 0,
            broken_at: VecDeque::new(),
            waiting: Vec::new(),
            timer: None,
        };
        keeper.build(&myself);
        Ok(keeper)
    }

    async fn handle(
        &self,
        myself: ActorRef<Letter<SpawnerMsg>>,
        message: Letter<SpawnerMsg>,
        keeper: &mut Keeper,
    ) -> Result<(), ActorProcessingErr> {
        match message.open() {
            SpawnerMsg::Checkout(reply) => keeper.check_out(reply),
            SpawnerMsg::Broke(generation, reason) => keeper.broke(generation, &reason, &myself),
            SpawnerMsg::Rebuild => keeper.build(&myself),
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _myself: ActorRef<Letter<SpawnerMsg>>,
        _event: SupervisionEvent,
        _keeper: &mut Keeper,
    ) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
}

impl Keeper {
    fn check_out(&mut self, reply: oneshot::Sender<Checkout>) {
        match &self.product {
            Product::Ready(built) => {
                let _ = reply.send(Ok((built.clone(), self.generation)));
            }
            Product::Refused(reason) => {
                let _ = reply.send(Err(reason.clone()));
            }
            Product::Resting => self.waiting.push(reply),
        }
    }

    /// Builds the product; a factory that fails or panics counts like a product that broke.
    fn build(&mut self, myself: &ActorRef<Letter<SpawnerMsg>>) {
        let factory = self.args.factory.clone();
        let built = match catch_unwind(AssertUnwindSafe(|| factory())) {
            Ok(Ok(built)) => Ok(built),
            Ok(Err(reason)) => Err(reason),
            Err(panic) => Err(format!("its factory panicked: {}", panic_text(&*panic))),
        };
        match built {
            Ok(built) => {
                self.generation += 1;
                self.product = Product::Ready(built);
                self.answer_waiting();
            }
            Err(reason) => self.rest(&reason, myself),
        }
    }

    fn broke(&mut self, generation: u64, reason: &str, myself: &ActorRef<Letter<SpawnerMsg>>) {
        let current = matches!(self.product, Product::Ready(_)) && generation == self.generation;
        if current {
            self.rest(reason, myself);
        }
    }

    /// Counts a break: waits for a rebuild, or gives up past the intensity.
    fn rest(&mut self, reason: &str, myself: &ActorRef<Letter<SpawnerMsg>>) {
        let Intensity { restarts, within, backoff } = self.args.intensity;
        let now = Instant::now();
        self.broken_at.push_back(now);
        while self.broken_at.front().is_some_and(|at| now.duration_since(*at) > within) {
            self.broken_at.pop_front();
        }
        let breaks = u32::try_from(self.broken_at.len()).unwrap_or(u32::MAX);
        let name = &self.args.name;
        if breaks > restarts {
            tracing::error!(name, breaks, reason, "a spawner broke too often and is given up");
            self.product = Product::Refused(format!(
                "spawner {name} broke {breaks} times within {within:?} and is given up: {reason}"
            ));
            self.answer_waiting();
            return;
        }
        tracing::warn!(name, breaks, reason, "a spawner broke and is rebuilt");
        self.product = Product::Resting;
        let wait = backoff.saturating_mul(1 << (breaks - 1).min(16));
        let mail = self.args.mail.clone();
        let timer = myself.send_after(wait, move || mail.letter(SpawnerMsg::Rebuild));
        self.timer = Some(AbortOnDropHandle::new(timer));
    }

    fn answer_waiting(&mut self) {
        for reply in std::mem::take(&mut self.waiting) {
            self.check_out(reply);
        }
    }
}
