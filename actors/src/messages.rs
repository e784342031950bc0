//! The whole wire between the actors on one page. Wishes are in the imperative, facts in the past.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::errors::EngineError;
use crate::launch::{Built, Factory};
use crate::mail::{Addressed, Kind};
use crate::model::task::TaskState;
use crate::state::attempts::Verdict;
use crate::state::auth::Access;
use crate::state::sessions::HeartbeatReply;
use crate::waiter::Watch;

/// To the state actor. Everything else reaches it as a turn in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateMsg {
    /// Run the turns that wait.
    Drain,
}

/// What a waiter is told of its task.
#[derive(Debug, Clone)]
pub struct Change {
    /// The task as it is now; `None` once it is forgotten.
    pub task: Option<Arc<TaskState>>,
    /// Its revision.
    pub revision: u64,
}

/// Until when a parked caller waits.
///
/// A wait for the next change of a task, whatever it is:
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use adjutant_actors::messages::{Change, Until};
/// use adjutant_actors::system::PollStart;
/// # use adjutant_actors::{clock::SystemClock, config::EngineCfg, system::ActorSystem};
/// # let system = ActorSystem::new(EngineCfg::default(), std::sync::Arc::new(SystemClock::new()));
/// let look = |state: &mut adjutant_actors::state::EngineState, last: bool| {
///     Ok(match state.unsettled_tasks().first() {
///         Some((task, _)) if !last => PollStart::Wait(*task, Until::Past(0)),
///         _ => PollStart::Ready(()),
///     })
/// };
/// let accept = |change: Change| change.task.map(|_| ());
/// system.wait_for("look", std::time::Duration::ZERO, look, accept).await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// Until the task is settled or suspended, or forgotten.
    Ended,
    /// Until its revision is above this one.
    Past(u64),
}

/// To a waiter.
#[derive(Debug)]
pub(crate) enum WaiterMsg {
    /// Park a caller on a task; for a waiter that watches none, this is its task from now on.
    Park {
        /// The task, and who is parked on it.
        watch: Arc<Watch>,
        /// Names the caller, among all callers of the engine.
        ticket: u64,
        /// What it waits for.
        until: Until,
        /// Where it is answered.
        reply: oneshot::Sender<Change>,
    },
    /// The parked caller of this ticket went away.
    Left(u64),
    /// The task changed.
    Changed(Change),
    /// The task changed and ends every wait: answer all, and watch it no longer.
    Ended(Change),
    /// Nobody is parked and nobody will be sent: watch the task no longer.
    Rest,
}

/// To the actor of an attempt. Numbers name the attempt among those that the actor has had.
pub(crate) enum AttemptMsg {
    /// The attempt is over in the state; stop the worker and report this verdict.
    Stop(Verdict),
    /// Let the attempt's clock run, or stand still.
    Clock(bool),
    /// The attempt's time is over, by this setting of its clock.
    TimedOut(u64, u64),
    /// The time-out was the attempt's end.
    TimeDecided(u64, Verdict),
    /// The grace period is over.
    GraceOver(u64),
    /// The worker ended and the state was told; the verdict where that decided the attempt.
    Finished(u64, Option<Verdict>),
}

/// To a session.
#[derive(Debug)]
pub enum SessionMsg {
    /// Take a heartbeat.
    Beat {
        /// Who beats.
        access: Access,
        /// Where it is answered.
        reply: oneshot::Sender<Result<HeartbeatReply, EngineError>>,
    },
    /// The turn for the gathered beats is done.
    Beaten(Vec<Result<HeartbeatReply, EngineError>>),
    /// Nothing was heard since the timer of this number was set.
    Quiet(u64),
    /// The session was detached or lapsed.
    Closed,
}

/// What a supervised spawner gives to a launch.
pub type Checkout = Result<(Built, u64), String>;

/// To a supervised spawner.
pub enum SpawnerMsg {
    /// Give the built spawner.
    Checkout(oneshot::Sender<Checkout>),
    /// The spawner of this generation panicked.
    Broke(u64, String),
    /// Build it again, now that the backoff is over.
    Rebuild,
}

/// How often something may be rebuilt before it is given up.
///
/// ```
/// use adjutant_actors::messages::Intensity;
///
/// let patient = Intensity { restarts: 10, ..Intensity::default() };
/// assert_eq!(patient.within.as_secs(), 10);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Intensity {
    /// Rebuilds within the period.
    pub restarts: u32,
    /// The period.
    pub within: Duration,
    /// Wait before the first rebuild; doubled for each further one within the period.
    pub backoff: Duration,
}

impl Default for Intensity {
    fn default() -> Self {
        Self { restarts: 3, within: Duration::from_secs(10), backoff: Duration::from_millis(50) }
    }
}

/// To the root supervisor.
pub enum RootMsg {
    /// Start an actor for a supervised spawner.
    Supervise {
        /// Its name in logs.
        name: String,
        /// Builds the spawner.
        factory: Factory,
        /// How often.
        intensity: Intensity,
        /// Where its actor is told.
        reply: oneshot::Sender<Result<Arc<crate::root::SpawnerSeat>, EngineError>>,
    },
    /// Tell of the spawners' actors.
    Inspect(oneshot::Sender<Vec<crate::system::SpawnerView>>),
    /// Forget what is due.
    Sweep,
}

impl Addressed for WaiterMsg {
    const KIND: Kind = Kind::Waiter;
}

impl Addressed for AttemptMsg {
    const KIND: Kind = Kind::Attempt;
}

impl Addressed for SessionMsg {
    const KIND: Kind = Kind::Session;
}

impl Addressed for SpawnerMsg {
    const KIND: Kind = Kind::Supervisor;
}

impl Addressed for RootMsg {
    const KIND: Kind = Kind::Supervisor;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wake_up_costs_nothing_to_send() {
        assert_eq!(size_of::<StateMsg>(), 0);
    }
}
