//! Waits and dispatches: the turns that leave somebody behind to answer later.

use std::sync::Arc;
use std::time::Duration;

use ractor::{ActorRef, ActorRuntime, ActorStatus};
use tokio::sync::oneshot;

use crate::attempt::{self, Attempt};
use crate::errors::EngineError;
use crate::launch::Launch;
use crate::messages::{Change, Until, WaiterMsg};
use crate::model::ids::TaskId;
use crate::state::EngineState;
use crate::state::attempts::{Begin, Plan, Verdict};
use crate::system::{ActorSystem, Core, Links, WaiterLink};
use crate::turn::Step;
use crate::waiter::{self, Waiter};

/// What the turn that starts a wait came to.
pub enum PollStart<T> {
    /// There is nothing to wait for.
    Ready(T),
    /// The caller is to be parked on this task.
    Wait(TaskId, Until),
}

/// A caller that is parked. Dropping it tells the waiter.
struct Parked {
    answer: oneshot::Receiver<Change>,
    waiter: ActorRef<WaiterMsg>,
    ticket: u64,
    answered: bool,
}

impl Drop for Parked {
    fn drop(&mut self) {
        if !self.answered {
            self.answer.close();
            let _ = self.waiter.cast(WaiterMsg::Left(self.ticket));
        }
    }
}

impl Links {
    /// Sends a caller to the waiter of a task, which is started if it is not there.
    fn park(&mut self, core: &Arc<Core>, task: TaskId, until: Until) -> Option<Parked> {
        let alive = |link: &WaiterLink| link.actor.get_status() < ActorStatus::Stopping;
        if !self.waiters.get(&task).is_some_and(alive) {
            let args = waiter::Arguments { core: core.clone(), task };
            let root = core.root()?.get_cell();
            let (actor, _) = ActorRuntime::spawn_linked_instant(None, Waiter, args, root).ok()?;
            core.count_actor();
            self.waiters.insert(task, WaiterLink { actor, parks: 0 });
        }
        let link = self.waiters.get_mut(&task)?;
        let (reply, answer) = oneshot::channel();
        link.parks += 1;
        let ticket = link.parks;
        let _ = link.actor.cast(WaiterMsg::Park { ticket, until, reply });
        Some(Parked { answer, waiter: link.actor.clone(), ticket, answered: false })
    }
}

/// An attempt that began: what it is, and where its verdict will come.
pub struct Dispatched {
    /// What the dispatcher needs to know of it.
    pub plan: Plan,
    /// Its verdict. Gone without one if the whole tree ended.
    pub verdict: oneshot::Receiver<Verdict>,
}

impl ActorSystem {
    /// Runs `look` in a turn; as long as it says to wait, parks the caller, and looks again after
    /// each change that `accept` does not take for an answer. Dropping the future leaves nothing behind.
    ///
    /// # Errors
    /// Those of `look`; `PollTimeout` after `hold`, if a last look does not find an answer;
    /// `Stopped` where the tree ends twice meanwhile.
    pub async fn wait_for<T, F>(
        &self,
        op: &'static str,
        hold: Duration,
        look: F,
        accept: fn(Change) -> Option<T>,
    ) -> Result<T, EngineError>
    where
        T: Send + 'static,
        F: Fn(&mut EngineState, bool) -> Result<PollStart<T>, EngineError> + Clone + Send + 'static,
    {
        let deadline = deadline(hold);
        let mut first = true;
        let mut lost = 0;
        loop {
            let mut parked = match self.look(op, look.clone(), first).await? {
                Looked::Ready(answer) => return Ok(answer),
                Looked::Parked(parked) => parked,
                Looked::Lost => return Err(EngineError::Stopped("root supervisor".to_owned())),
            };
            first = false;
            match tokio::time::timeout_at(deadline, &mut parked.answer).await {
                Ok(Ok(change)) => {
                    parked.answered = true;
                    if let Some(answer) = accept(change) {
                        return Ok(answer);
                    }
                }
                Ok(Err(_)) => {
                    parked.answered = true;
                    lost += 1;
                    if lost > 1 {
                        return Err(EngineError::Stopped("the task's waiter".to_owned()));
                    }
                }
                Err(_) => {
                    drop(parked);
                    return self.last_look(op, look).await;
                }
            }
        }
    }

    async fn look<T, F>(
        &self,
        op: &'static str,
        look: F,
        first: bool,
    ) -> Result<Looked<T>, EngineError>
    where
        T: Send + 'static,
        F: Fn(&mut EngineState, bool) -> Result<PollStart<T>, EngineError> + Send + 'static,
    {
        let run = move |state: &mut EngineState| match look(state, first) {
            Ok(start) => Step::Keep(Ok(Looking::Found(start))),
            Err(error) => Step::Undo(Err(error)),
        };
        let follow =
            |reply: &mut Result<Looking<T>, EngineError>, links: &mut Links, core: &Arc<Core>| {
                if let Ok(Looking::Found(PollStart::Wait(task, until))) = reply {
                    *reply = Ok(Looking::Parked(links.park(core, *task, *until)));
                }
            };
        Ok(match self.core.call(op, false, run, follow).await?? {
            Looking::Found(PollStart::Ready(answer)) => Looked::Ready(answer),
            Looking::Parked(Some(parked)) => Looked::Parked(parked),
            Looking::Found(PollStart::Wait(..)) | Looking::Parked(None) => Looked::Lost,
        })
    }

    /// The look at the end of the time: a change that came just before it is not missed.
    async fn last_look<T, F>(&self, op: &'static str, look: F) -> Result<T, EngineError>
    where
        T: Send + 'static,
        F: Fn(&mut EngineState, bool) -> Result<PollStart<T>, EngineError> + Send + 'static,
    {
        let found = self.transact(op, move |state| look(state, false)).await?;
        match found {
            PollStart::Ready(answer) => Ok(answer),
            PollStart::Wait(..) => Err(EngineError::PollTimeout),
        }
    }

    /// Begins an attempt and starts its supervisor in one turn, so that no drop of this future
    /// can leave the attempt without one. Waits in line while dispatching is paused.
    ///
    /// # Errors
    /// Those of [`EngineState::begin_attempt`]; those of [`ActorSystem::with_state`].
    pub async fn dispatch<F, L>(
        &self,
        task: TaskId,
        timeout: Option<Duration>,
        begin: F,
        launch: L,
    ) -> Result<Dispatched, EngineError>
    where
        F: Fn(&mut EngineState) -> Result<Begin, EngineError> + Send + 'static,
        L: FnOnce(&Plan) -> Arc<dyn Launch> + Send + 'static,
    {
        type Reply = Result<(Plan, Option<oneshot::Receiver<Verdict>>), EngineError>;
        let run = move |state: &mut EngineState| match begin(state) {
            Ok(Begin::Begun(plan)) => Step::Keep(Ok((plan, None))),
            Ok(Begin::Paused) => Step::Defer(task),
            Err(error) => Step::Undo(Err(error)),
        };
        let follow = move |reply: &mut Reply, links: &mut Links, core: &Arc<Core>| {
            if let Ok((plan, verdict)) = reply {
                *verdict = Some(start_attempt(links, core, plan, timeout, launch(plan)));
            }
        };
        let (plan, verdict) = self.core.call("dispatch_attempt", false, run, follow).await??;
        let stopped = || EngineError::Stopped("root supervisor".to_owned());
        Ok(Dispatched { plan, verdict: verdict.ok_or_else(stopped)? })
    }
}

/// Starts the attempt's actor. If there is no root to start it under, the burial of the tree,
/// which is under way then, decides the attempt; the receiver finds its sender gone.
fn start_attempt(
    links: &mut Links,
    core: &Arc<Core>,
    plan: &Plan,
    timeout: Option<Duration>,
    launch: Arc<dyn Launch>,
) -> oneshot::Receiver<Verdict> {
    let (verdict, decided) = oneshot::channel();
    let (task, attempt) = (plan.task, plan.attempt);
    let Some(root) = core.root() else { return decided };
    let alive = core.attempts.token();
    let shared = core.clone();
    let args = attempt::Arguments { core: shared, task, attempt, launch, timeout, verdict, alive };
    if let Ok((actor, _)) = ActorRuntime::spawn_linked_instant(None, Attempt, args, root.get_cell())
    {
        core.count_actor();
        links.attempts.insert((task, attempt), actor);
    }
    decided
}

enum Looking<T> {
    Found(PollStart<T>),
    Parked(Option<Parked>),
}

enum Looked<T> {
    Ready(T),
    Parked(Parked),
    Lost,
}

/// The end of a wait; waits beyond what the timer can hold end there.
fn deadline(hold: Duration) -> tokio::time::Instant {
    const FAR: Duration = Duration::from_secs(365 * 24 * 3600);
    tokio::time::Instant::now() + hold.min(FAR)
}
