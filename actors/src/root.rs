//! The root supervisor: starts the state actor, restarts what may be restarted, keeps the sweeps.
//!
//! One per engine, under the host's supervisor if one was given. When it stops, its whole tree
//! stops; calls that wait get an error. Attempts, waiters and sessions are its children too, so
//! that no supervision event ever stands before a turn; their ends need no act of its own.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::errors::EngineError;
use crate::mail::{Letter, Mail};
use crate::messages::{Intensity, RootMsg, SpawnerMsg, StateMsg};
use crate::spawner_actor::{self, Spawner};
use crate::state_actor::{self, StateActor};
use crate::system::{Core, SpawnerView, TreeGuard};

/// Records that one sweeping turn looks at, at most.
const SWEEP_BUDGET: usize = 256;
/// Starts of one spawner's actor within [`RESTART_PERIOD`] before it is left dead.
const SPAWNER_STARTS_MAX: usize = 5;
/// Spawners that were left dead, remembered at most.
const GIVEN_UP_MAX: usize = 64;
const RESTART_PERIOD: Duration = Duration::from_secs(10);

pub(crate) struct Root;

pub(crate) struct Arguments {
    pub(crate) core: Arc<Core>,
    pub(crate) guard: Arc<TreeGuard>,
}

pub(crate) struct Tree {
    core: Arc<Core>,
    guard: Arc<TreeGuard>,
    state_actor: ActorRef<StateMsg>,
    spawners: HashMap<ActorId, Supervised>,
    /// Names of spawners that were left dead, the newest last.
    given_up: VecDeque<String>,
}

struct Supervised {
    args: spawner_actor::Arguments,
    starts: VecDeque<Instant>,
    /// The reference that launches hold; told again after a restart.
    seat: Arc<SpawnerSeat>,
}

/// Where launches find a supervised spawner's actor, whichever incarnation it is in.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use adjutant_actors::messages::{Intensity, SpawnerMsg};
/// use std::sync::Arc;
/// # use adjutant_actors::{clock::SystemClock, config::EngineCfg, system::ActorSystem};
/// # let system = ActorSystem::new(EngineCfg::default(), std::sync::Arc::new(SystemClock::new()));
/// let build = || Ok(Arc::new("built") as adjutant_actors::launch::Built);
/// let seat = system.supervise("agents".into(), Arc::new(build), Intensity::default()).await?;
/// let (reply, built) = tokio::sync::oneshot::channel();
/// assert!(seat.tell(SpawnerMsg::Checkout(reply)));
/// let (_built, generation) = built.await??;
/// assert!(seat.tell(SpawnerMsg::Broke(generation, "a worker panicked".into())));
/// seat.retire();
/// # Ok(()) }
/// ```
pub struct SpawnerSeat {
    actor: std::sync::Mutex<Option<ActorRef<Letter<SpawnerMsg>>>>,
    retired: AtomicBool,
    mail: Arc<Mail>,
}

impl SpawnerSeat {
    fn new(mail: Arc<Mail>) -> Self {
        Self { actor: std::sync::Mutex::default(), retired: AtomicBool::new(false), mail }
    }

    /// Tells the present incarnation something. False where there is none.
    #[must_use]
    pub fn tell(&self, message: SpawnerMsg) -> bool {
        self.actor().is_some_and(|actor| actor.cast(self.mail.letter(message)).is_ok())
    }

    fn actor(&self) -> Option<ActorRef<Letter<SpawnerMsg>>> {
        self.actor.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Ends the spawner's actor for good.
    pub fn retire(&self) {
        self.retired.store(true, Ordering::Release);
        if let Some(actor) = self.actor() {
            actor.stop(None);
        }
    }

    fn set(&self, actor: Option<ActorRef<Letter<SpawnerMsg>>>) {
        *self.actor.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = actor;
    }
}

impl Actor for Root {
    type Msg = Letter<RootMsg>;
    type State = Tree;
    type Arguments = Arguments;

    async fn pre_start(
        &self,
        myself: ActorRef<Letter<RootMsg>>,
        args: Arguments,
    ) -> Result<Tree, ActorProcessingErr> {
        let Arguments { core, guard } = args;
        core.count_actor();
        let state_actor = start_state_actor(&core, &guard, &myself).await?;
        let sweep = core.cfg.retention.sweep_interval;
        let mail = core.mail.clone();
        let sweep = sweep.max(Duration::from_millis(10));
        myself.send_interval(sweep, move || mail.letter(RootMsg::Sweep));
        Ok(Tree { core, guard, state_actor, spawners: HashMap::new(), given_up: VecDeque::new() })
    }

    async fn handle(
        &self,
        myself: ActorRef<Letter<RootMsg>>,
        message: Letter<RootMsg>,
        tree: &mut Tree,
    ) -> Result<(), ActorProcessingErr> {
        crate::hop::hop("root").await;
        match message.open() {
            RootMsg::Supervise { name, factory, intensity, reply } => {
                tree.supervise(name, factory, intensity, reply, &myself).await;
            }
            RootMsg::Inspect(reply) => drop(reply.send(tree.inspect())),
            RootMsg::Sweep => tree.sweep(&myself),
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<Letter<RootMsg>>,
        event: SupervisionEvent,
        tree: &mut Tree,
    ) -> Result<(), ActorProcessingErr> {
        let who = match &event {
            SupervisionEvent::ActorTerminated(who, _, _) => who,
            SupervisionEvent::ActorFailed(who, error) => {
                tracing::error!(actor = %who.get_id(), error = error.to_string(), "an actor failed");
                who
            }
            _ => return Ok(()),
        };
        let id = who.get_id();
        if id == tree.state_actor.get_id() {
            tracing::error!("the state actor ended and is restarted on the same state");
            tree.core.count_state_restart();
            tree.state_actor = start_state_actor(&tree.core, &tree.guard, &myself).await?;
        } else if let Some(dead) = tree.spawners.remove(&id) {
            tree.restart_spawner(dead, &myself).await;
        }
        Ok(())
    }
}

async fn start_state_actor(
    core: &Arc<Core>,
    guard: &Arc<TreeGuard>,
    root: &ActorRef<Letter<RootMsg>>,
) -> Result<ActorRef<StateMsg>, ActorProcessingErr> {
    let args = state_actor::Arguments { core: core.clone(), guard: guard.clone() };
    let (actor, _) = Actor::spawn_linked(None, StateActor, args, root.get_cell()).await?;
    core.count_actor();
    Ok(actor)
}

impl Tree {
    async fn supervise(
        &mut self,
        name: String,
        factory: crate::launch::Factory,
        intensity: Intensity,
        reply: oneshot::Sender<Result<Arc<SpawnerSeat>, EngineError>>,
        myself: &ActorRef<Letter<RootMsg>>,
    ) {
        let mail = self.core.mail.clone();
        let seat = Arc::new(SpawnerSeat::new(mail.clone()));
        let args = spawner_actor::Arguments { name, factory, intensity, mail };
        let supervised = Supervised { args, starts: VecDeque::new(), seat: seat.clone() };
        self.restart_spawner(supervised, myself).await;
        let _ = reply.send(Ok(seat));
    }

    /// Starts a spawner's actor, unless it was started too often of late.
    async fn restart_spawner(
        &mut self,
        mut supervised: Supervised,
        myself: &ActorRef<Letter<RootMsg>>,
    ) {
        let now = Instant::now();
        supervised.starts.retain(|at| now.duration_since(*at) <= RESTART_PERIOD);
        supervised.starts.push_back(now);
        supervised.seat.set(None);
        if supervised.seat.retired.load(Ordering::Acquire) {
            return;
        }
        if supervised.starts.len() > SPAWNER_STARTS_MAX {
            tracing::error!(name = supervised.args.name, "a spawner's actor died too often");
            if self.given_up.len() >= GIVEN_UP_MAX {
                self.given_up.pop_front();
            }
            self.given_up.push_back(supervised.args.name);
            return;
        }
        let args = supervised.args.clone();
        match Actor::spawn_linked(None, Spawner, args, myself.get_cell()).await {
            Ok((actor, _)) => {
                self.core.count_actor();
                supervised.seat.set(Some(actor.clone()));
                self.spawners.insert(actor.get_id(), supervised);
            }
            Err(error) => {
                tracing::error!(error = error.to_string(), "a spawner's actor could not be started")
            }
        }
    }

    /// What stands of the spawners, by name.
    fn inspect(&self) -> Vec<SpawnerView> {
        let now = Instant::now();
        let view = |name: &str, alive, restarts| SpawnerView {
            name: name.to_owned(),
            alive,
            restarts,
            limit: SPAWNER_STARTS_MAX - 1,
            within: RESTART_PERIOD,
        };
        let recent = |at: &&Instant| now.duration_since(**at) <= RESTART_PERIOD;
        let live = self.spawners.values().map(|spawner| {
            let starts = spawner.starts.iter().filter(recent).count();
            view(&spawner.args.name, true, starts.saturating_sub(1))
        });
        let dead = self.given_up.iter().map(|name| view(name, false, SPAWNER_STARTS_MAX));
        let mut all: Vec<_> = live.chain(dead).collect();
        all.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        all
    }

    fn sweep(&self, myself: &ActorRef<Letter<RootMsg>>) {
        let Ok(now) = self.core.now() else { return };
        let (myself, mail) = (myself.clone(), self.core.mail.clone());
        self.core.engine_turn(
            "sweep",
            move |state| {
                crate::hop::sweeping(SWEEP_BUDGET, now);
                state.sweep(now, SWEEP_BUDGET)
            },
            move |_links, more| {
                if more {
                    let _ = myself.cast(mail.letter(RootMsg::Sweep));
                }
            },
        );
    }
}
