//! The supervision tree as it stands, for whoever watches it. Decides nothing.

use std::time::Duration;

use tokio::sync::oneshot;

use crate::messages::RootMsg;
use crate::system::ActorSystem;

/// One supervised spawner's actor.
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
}

impl ActorSystem {
    /// The supervision tree as it stands. Dropping the future changes nothing.
    pub async fn supervision(&self) -> Supervision {
        let core = &self.core;
        let mut view = Supervision {
            alive: false,
            state_restarts: core.counts().state_restarts,
            sessions: core.lock_sessions().len(),
            attempts: core.attempts.len(),
            spawners: Vec::new(),
        };
        let Some(root) = core.root() else { return view };
        let (reply, told) = oneshot::channel();
        if root.cast(RootMsg::Inspect(reply)).is_ok()
            && let Ok(spawners) = told.await
        {
            view.alive = true;
            view.spawners = spawners;
        }
        view
    }
}
