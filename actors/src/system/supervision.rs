//! The supervision tree as it stands, for whoever watches it. Decides nothing.

use std::time::Duration;

use tokio::sync::oneshot;

use crate::mail::Kind;
use crate::messages::RootMsg;
use crate::system::ActorSystem;

/// One supervised spawner's actor.
///
/// ```
/// use adjutant_actors::system::SpawnerView;
///
/// /// Whether a spawner is about to be given up.
/// fn is_shaky(spawner: &SpawnerView) -> bool {
///     !spawner.alive || spawner.restarts + 1 >= spawner.limit
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpawnerView {
    /// Its name in logs.
    pub name: String,
    /// Whether it runs; otherwise it died too often and is left dead.
    pub alive: bool,
    /// Its restarts within the period that ends now.
    pub restarts: usize,
    /// Restarts within a period, at most.
    pub limit: usize,
    /// The period.
    pub within: Duration,
}

/// The tree.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # use adjutant_actors::{clock::SystemClock, config::EngineCfg, system::ActorSystem};
/// # let system = ActorSystem::new(EngineCfg::default(), std::sync::Arc::new(SystemClock::new()));
/// system.with_state("look", |state| state.task_count()).await?;
/// let tree = system.supervision().await;
/// assert!(tree.alive && tree.spawners.is_empty() && tree.attempts == 0);
/// for (kind, waiting) in system.mailboxes().by_kind() {
///     println!("{waiting} messages wait for {kind}");
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Supervision {
    /// Whether a root runs. It starts with the first call.
    pub alive: bool,
    /// Restarts of the state actor, which has no limit: it comes back on the same state.
    pub state_restarts: u64,
    /// Sessions that have an actor.
    pub sessions: usize,
    /// Attempts in flight, each under an actor of its own, which is never restarted.
    pub attempts: usize,
    /// The spawners' actors, by name.
    pub spawners: Vec<SpawnerView>,
    /// What waits to be handled.
    pub mailboxes: Mailboxes,
}

/// Messages that actors did not take up yet, by the kind of actor; of one engine.
///
/// ```
/// use adjutant_actors::system::Mailboxes;
///
/// let waiting = Mailboxes { state: 3, ..Mailboxes::default() };
/// assert_eq!(waiting.by_kind()[0].1, 3);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mailboxes {
    /// Turns that wait for the state actor.
    pub state: usize,
    /// For sessions: heartbeats and what follows from them.
    pub sessions: usize,
    /// For waiters: callers to park, and changes to tell them.
    pub waiters: usize,
    /// For attempts: stops, clocks, ends.
    pub attempts: usize,
    /// For the root and the actors of supervised spawners.
    pub supervisors: usize,
}

impl Mailboxes {
    /// Each with the name of its kind.
    #[must_use]
    pub fn by_kind(&self) -> [(&'static str, usize); 5] {
        [
            ("state", self.state),
            ("sessions", self.sessions),
            ("waiters", self.waiters),
            ("attempts", self.attempts),
            ("supervisors", self.supervisors),
        ]
    }
}

impl ActorSystem {
    /// What waits in mailboxes at the moment.
    #[must_use]
    pub fn mailboxes(&self) -> Mailboxes {
        let lying = |kind| self.core.mail.lying(kind);
        Mailboxes {
            state: self.queued_turns(),
            sessions: lying(Kind::Session),
            waiters: lying(Kind::Waiter),
            attempts: lying(Kind::Attempt),
            supervisors: lying(Kind::Supervisor),
        }
    }

    /// The supervision tree as it stands. Dropping the future changes nothing.
    pub async fn supervision(&self) -> Supervision {
        let core = &self.core;
        let mut view = Supervision {
            alive: false,
            state_restarts: core.counts().state_restarts,
            sessions: core.lock_sessions().len(),
            attempts: core.attempts.len(),
            spawners: Vec::new(),
            // Before the root is asked, whose mailbox is one of them.
            mailboxes: self.mailboxes(),
        };
        let Some(root) = core.root() else { return view };
        let (reply, told) = oneshot::channel();
        if root.cast(core.mail.letter(RootMsg::Inspect(reply))).is_ok()
            && let Ok(spawners) = told.await
        {
            view.alive = true;
            view.spawners = spawners;
        }
        view
    }
}
