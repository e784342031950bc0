//! The tree: starting it, finding its root, closing it, and burying what it leaves.
//!
//! At most one tree stands at a time; the next one starts on the same state.

use std::sync::Arc;

use ractor::{ActorCell, ActorRef, ActorRuntime, ActorStatus};

use crate::commits::{Commits, Release};
use crate::errors::EngineError;
use crate::mail::Letter;
use crate::messages::RootMsg;
use crate::root::{self, Root};
use crate::state::effect::Effect;
use crate::system::{Core, lock};

#[derive(Default)]
pub(super) struct TreeSlot {
    pub(super) root: Option<ActorRef<Letter<RootMsg>>>,
    /// Whether a tree was started and is not buried yet.
    pub(super) standing: bool,
    /// The host's actor that the tree is linked under.
    pub(super) supervisor: Option<ActorCell>,
}

/// Held by the root and by the state actor. Once both are gone, the tree is: waiting calls fail,
/// live attempts are decided, and their events are published, even without a runtime.
pub(crate) struct TreeGuard {
    core: Arc<Core>,
}

impl Drop for TreeGuard {
    fn drop(&mut self) {
        self.core.bury("the actor tree ended");
    }
}

impl Core {
    /// The root of the running tree.
    pub(crate) fn root(&self) -> Option<ActorRef<Letter<RootMsg>>> {
        let alive = |root: &ActorRef<Letter<RootMsg>>| root.get_status() < ActorStatus::Stopping;
        lock(&self.tree).root.clone().filter(alive)
    }

    /// Starts a tree unless one is there. Needs a runtime.
    ///
    /// A tree that is ending counts as there until it is buried; its burial fails what waits.
    pub(crate) fn ensure_tree(self: &Arc<Self>) -> Result<(), EngineError> {
        let host = {
            let mut tree = lock(&self.tree);
            if let Some(reason) = self.queue.closed() {
                return Err(EngineError::Stopped(reason));
            }
            if tree.standing {
                return Ok(());
            }
            if tokio::runtime::Handle::try_current().is_err() {
                let text = "no tokio runtime to start the actors in";
                return Err(EngineError::Internal(text.to_owned()));
            }
            if tree
                .supervisor
                .as_ref()
                .is_some_and(|host| host.get_status() >= ActorStatus::Stopping)
            {
                return Err(EngineError::Stopped("the host's supervisor has stopped".to_owned()));
            }
            tree.standing = true;
            self.idle_attempts.open();
            self.idle_waiters.open();
            tree.supervisor.clone()
        };
        // Not under the lock: a runtime that shuts down drops the guard, and so buries, at once.
        let guard = Arc::new(TreeGuard { core: self.clone() });
        let args = root::Arguments { core: self.clone(), guard };
        let started = match host {
            Some(host) => ActorRuntime::spawn_linked_instant(None, Root, args, host),
            None => ActorRuntime::spawn_instant(None, Root, args),
        };
        let (root, _) = started.map_err(|error| EngineError::Internal(error.to_string()))?;
        self.count_actor();
        lock(&self.tree).root = Some(root.clone());
        match self.queue.closed() {
            // Closed while the tree was starting, before there was a root to stop.
            Some(reason) => {
                root.stop(Some(reason.clone()));
                Err(EngineError::Stopped(reason))
            }
            None => Ok(()),
        }
    }

    /// Refuses everything from now on and stops the tree; what waits is failed by its burial.
    pub(crate) fn close(self: &Arc<Self>, reason: &str) {
        self.queue.close(reason);
        let root = lock(&self.tree).root.take();
        match root {
            Some(root) => root.stop(Some(reason.to_owned())),
            None => self.bury(reason),
        }
    }

    /// What is left to do when a tree is gone: decide its attempts, publish that, fail its callers.
    pub(super) fn bury(self: &Arc<Self>, reason: &str) {
        let reason = &self.queue.closed().unwrap_or_else(|| reason.to_owned());
        let (mut effects, mut gone, mut batch) = (Vec::new(), Release::default(), None);
        {
            let mut state = self.lock_state();
            let mut links = self.lock_links();
            links.waiters.clear();
            for (_, attempt) in links.attempts.iter() {
                attempt.stop(None);
            }
            links.attempts.clear();
            links.out.clear();
            let line = links.line.take();
            drop(links);
            for turn in line {
                turn.fail(EngineError::Stopped(reason.clone()));
            }
            let now = self.now_or_last();
            crate::hop::interrupting(reason, now);
            state.interrupt_all(reason, now);
            let mut growth = self.commits().map(Commits::lock);
            if let Some(growth) = &mut growth {
                growth.note(&state);
            }
            state.commit(&mut effects);
            if let (Some(commits), Some(growth)) = (self.commits(), &mut growth) {
                growth.note_events(&effects);
                gone = growth.abandon();
                batch = commits.cut(growth, &state, || self.now_or_last());
            }
        }
        match batch {
            Some(batch) => self.append(batch),
            None if self.commits().is_some() => {}
            None => self.announce_all(effects),
        }
        for turn in gone.turns.drain(..) {
            turn.fail(EngineError::Stopped(reason.clone()));
        }
        drop(gone);
        self.lock_sessions().clear();
        self.idle_attempts.close();
        self.idle_waiters.close();
        self.queue.close_every_port();
        lock(&self.tree).standing = false;
        self.fail_waiting(&EngineError::Stopped(reason.clone()));
        self.go_on_alone();
    }

    fn announce_all(&self, effects: Vec<Effect>) {
        for effect in effects {
            if let Effect::Announce(record) = effect {
                self.announce(&record);
            }
        }
    }

    /// Whether a tree stands, so that a state actor is there or comes, or a burial.
    pub(super) fn stands(&self) -> bool {
        lock(&self.tree).standing
    }

    /// Does what a state actor would do with the news of the journal, where there is no tree: what
    /// a burial left is announced once it is safe, and what waited is appended.
    pub(super) fn go_on_alone(self: &Arc<Self>) {
        let Some(commits) = self.commits() else { return };
        let mut ready = Release::default();
        let (heard, batch) = {
            let state = self.lock_state();
            let mut growth = commits.lock();
            let heard = commits.hear(&mut growth, &mut ready);
            // Under the lock, so that no later batch's events overtake these.
            for record in ready.events.drain(..) {
                self.announce(&record);
            }
            let next = heard.is_ok();
            let batch = next.then(|| commits.cut(&mut growth, &state, || self.now_or_last()));
            (heard, batch.flatten())
        };
        match (heard, batch) {
            (Err(error), _) => self.journal_failed(&error),
            (Ok(()), Some(batch)) => self.append(batch),
            (Ok(()), None) => {}
        }
        // A tree that started meanwhile may have left these.
        for message in ready.out.drain(..) {
            message.send(self);
        }
        for turn in ready.turns.drain(..) {
            turn.release();
        }
    }
}
