//! Waits and dispatches: the turns that leave somebody behind to answer later.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures::FutureExt;
use futures::future::FusedFuture;
use ractor::{ActorRef, ActorRuntime, ActorStatus};
use tokio::sync::oneshot;

use crate::attempt::{Answer, Run};
use crate::desk::Place;
use crate::errors::EngineError;
use crate::launch::Launch;
use crate::mail::{Letter, Mail};
use crate::messages::{Change, Until, WaiterMsg};
use crate::model::ids::TaskId;
use crate::outgoing::Outgoing;
use crate::state::EngineState;
use crate::state::attempts::{Plan, Verdict};
use crate::system::{ActorSystem, Core, Links};
use crate::turn::{Caller, Step};
use crate::waiter::{Waiter, WaiterLink, Watch};

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
    waiter: ActorRef<Letter<WaiterMsg>>,
    mail: Arc<Mail>,
    ticket: u64,
    answered: bool,
}

impl Drop for Parked {
    fn drop(&mut self) {
        if !self.answered {
            self.answer.close();
            let _ = self.waiter.cast(self.mail.letter(WaiterMsg::Left(self.ticket)));
        }
    }
}

impl Links {
    /// Sends a caller to the waiter of a task; an idle one or one that is started for it, if
    /// the task has none.
    fn park(&mut self, core: &Arc<Core>, task: TaskId, until: Until) -> Option<Parked> {
        let alive = |link: &WaiterLink| link.actor.get_status() < ActorStatus::Stopping;
        self.tickets += 1;
        let ticket = self.tickets;
        let (waiter, watch) = match self.waiters.get_mut(&task).filter(|link| alive(link)) {
            Some(link) => {
                link.newest = ticket;
                (link.actor.clone(), link.watch.clone())
            }
            None => {
                let root = core.root()?.get_cell();
                let actor = core.idle_waiters.take().or_else(|| {
                    ActorRuntime::spawn_linked_instant(None, Waiter, core.clone(), root)
                        .ok()
                        .inspect(|_| core.count_actor())
                        .map(|(actor, _)| actor)
                })?;
                let (tree, watch) = (core.idle_waiters.tree(), Watch::new(task));
                let link =
                    WaiterLink { actor: actor.clone(), watch: watch.clone(), tree, newest: ticket };
                self.waiters.insert(task, link);
                (actor, watch)
            }
        };
        let (reply, answer) = oneshot::channel();
        let park = WaiterMsg::Park { watch, ticket, until, reply };
        self.out.push(Outgoing::ToWaiter(waiter.clone(), park));
        Some(Parked { answer, waiter, mail: core.mail.clone(), ticket, answered: false })
    }
}

impl ActorSystem {
    /// Runs `look` in a turn; as long as it says to wait, parks the caller, and looks again after
    /// each change that `accept` does not take for an answer. Dropping the future leaves nothing behind.
    ///
    /// # Errors
    /// Those of `look`; `PollTimeout` after `hold`, if a last look does not find an answer;
    /// `Stopped` where the tree ends twice meanwhile.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use adjutant_actors::system::PollStart;
    /// # use adjutant_actors::{clock::SystemClock, config::EngineCfg, system::ActorSystem};
    /// # let system = ActorSystem::new(EngineCfg::default(), std::sync::Arc::new(SystemClock::new()));
    /// let look = |state: &mut adjutant_actors::state::EngineState, _last: bool| {
    ///     Ok(PollStart::Ready(state.task_count())) // or `PollStart::Wait`, to be called again
    /// };
    /// let hold = std::time::Duration::from_secs(1);
    /// assert_eq!(system.wait_for("look", hold, look, |_change| None).await?, 0);
    /// # Ok(()) }
    /// ```
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
                Caller::Told
            };
        Ok(match self.core.call(op, false, run, Some(follow)).await?? {
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
    /// can leave the attempt without one, and waits for its verdict. Waits in line while
    /// dispatching is paused.
    ///
    /// # Errors
    /// Those of [`EngineState::begin_attempt`]; those of [`ActorSystem::with_state`];
    /// `DispatchFailed` where the whole tree ended before the attempt did.
    ///
    /// A dispatch that has nothing to begin ends where it is refused:
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use adjutant_actors::errors::EngineError;
    /// use adjutant_actors::launch::{Launch, Worker};
    /// use adjutant_actors::model::ids::TaskId;
    /// use std::sync::Arc;
    ///
    /// struct NoRoom;
    ///
    /// #[async_trait::async_trait]
    /// impl Launch for NoRoom {
    ///     async fn launch(&self) -> Result<Box<dyn Worker>, String> {
    ///         Err("no room".into())
    ///     }
    /// }
    ///
    /// # use adjutant_actors::{clock::SystemClock, config::EngineCfg, system::ActorSystem};
    /// # let system = ActorSystem::new(EngineCfg::default(), std::sync::Arc::new(SystemClock::new()));
    /// let task = TaskId::from_bits(1);
    /// let begin = move |_state: &mut adjutant_actors::state::EngineState| {
    ///     Err(EngineError::TaskNotFound(task.to_string()))
    /// };
    /// let verdict = system.dispatch(task, None, begin, |_plan| Arc::new(NoRoom) as Arc<dyn Launch>).await;
    /// assert!(matches!(verdict, Err(EngineError::TaskNotFound(_))));
    /// # Ok(()) }
    /// ```
    pub async fn dispatch<F, L>(
        &self,
        task: TaskId,
        timeout: Option<Duration>,
        mut begin: F,
        launch: L,
    ) -> Result<Verdict, EngineError>
    where
        F: FnMut(&mut EngineState) -> Result<Option<Plan>, EngineError> + Send + 'static,
        L: FnOnce(&Plan) -> Arc<dyn Launch> + Send + 'static,
    {
        let (verdict, mut decided) = oneshot::channel();
        let run = move |state: &mut EngineState| match begin(state) {
            Ok(Some(plan)) => Step::Keep(Ok(plan)),
            Ok(None) => Step::Defer(task),
            Err(error) => Step::Undo(Err(error)),
        };
        let follow =
            move |reply: &mut Result<Plan, EngineError>, links: &mut Links, core: &Arc<Core>| {
                let Ok(plan) = reply else { return Caller::Told };
                let launch = launch(plan);
                start_attempt(links, core, (plan.task, plan.attempt), launch, timeout, verdict)
            };
        let turn = self.core.call("dispatch_attempt", false, run, Some(follow));
        let mut turn = std::pin::pin!(turn.fuse());
        // The verdict first: where there is one, the caller was not woken for the turn.
        std::future::poll_fn(|cx| {
            if !decided.is_terminated()
                && let Poll::Ready(Ok((verdict, _resting))) = Pin::new(&mut decided).poll(cx)
            {
                return Poll::Ready(Ok(verdict));
            }
            match turn.as_mut().poll(cx) {
                Poll::Ready(Err(error) | Ok(Err(error))) => Poll::Ready(Err(error)),
                _ if turn.is_terminated() && decided.is_terminated() => {
                    let text = "interrupted: the engine has stopped".to_owned();
                    Poll::Ready(Err(EngineError::DispatchFailed(text)))
                }
                _ => Poll::Pending,
            }
        })
        .await
    }
}

/// Sends an attempt to an actor, an idle one or one that is started for it. If there is no root
/// to start it under, the burial of the tree, which is under way then, decides the attempt.
fn start_attempt(
    links: &mut Links,
    core: &Arc<Core>,
    attempt: (TaskId, u32),
    launch: Arc<dyn Launch>,
    timeout: Option<Duration>,
    verdict: Answer,
) -> Caller {
    let Some(root) = core.root() else { return Caller::Told };
    let root = root.get_cell();
    let run = Box::new(Run::new(core.clone(), attempt, launch, timeout, verdict));
    if let Some(place) = core.idle_attempts.take().or_else(|| Place::start(core, root)) {
        links.attempts.insert(attempt, place.actor().clone());
        links.out.push(Outgoing::Begin(place, run));
    }
    Caller::LeftAsleep
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
