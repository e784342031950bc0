//! Turns as callers bring them: admission by place, refusal without a trace, host closures.

use std::sync::Arc;

use tokio::sync::{broadcast, oneshot};

use crate::config::EngineCfg;
use crate::errors::EngineError;
use crate::launch::Factory;
use crate::mail::Letter;
use crate::messages::{Intensity, RootMsg, SessionMsg};
use crate::model::event::{Event, EventRecord};
use crate::model::ids::{SessionId, TaskId};
use crate::queue::{Place, Refused};
use crate::root::SpawnerSeat;
use crate::session_actor::{self, Session};
use crate::state::EngineState;
use crate::state::auth::Access;
use crate::state::effect::Now;
use crate::state::sessions::HeartbeatReply;
use crate::system::{ActorSystem, Core, Counts, Links};
use crate::turn::{Caller, Step, TurnCell, TurnReply};

type Follow<R> = fn(&mut R, &mut Links, &Arc<Core>) -> Caller;

/// For turns that nothing follows.
fn no_follow<R>() -> Option<Follow<R>> {
    None
}

impl Core {
    /// Waits in line for a place in the queue, as long as the retry budget allows.
    async fn place(self: &Arc<Self>, op: &'static str) -> Result<Place, EngineError> {
        let line = self.queue.line_up(self);
        match tokio::time::timeout(self.cfg.retry_budget(), line).await {
            Ok(Ok(place)) => Ok(place),
            Ok(Err(_)) => Err(EngineError::Stopped(self.queue.closed().unwrap_or_default())),
            Err(_) => Err(EngineError::LockBusyAfterRetry(op)),
        }
    }

    /// Queues a caller's turn and waits for its reply.
    pub(crate) async fn call<R, F, H>(
        self: &Arc<Self>,
        op: &'static str,
        hosts: bool,
        run: F,
        follow: Option<H>,
    ) -> Result<R, EngineError>
    where
        R: Send + 'static,
        F: FnMut(&mut EngineState) -> Step<R> + Send + 'static,
        H: FnOnce(&mut R, &mut Links, &Arc<Self>) -> Caller + Send + 'static,
    {
        let cell = TurnCell::new(op, hosts, run, follow);
        crate::hop::hop("call").await;
        let mut queued = self.queue.push_callers(cell.clone(), None);
        if matches!(queued, Err(Refused::Full)) && !self.cfg.try_only {
            let place = Box::pin(self.place(op)).await?;
            queued = self.queue.push_callers(cell.clone(), Some(place));
        }
        match queued {
            Ok(there) => self.see_to_it(there),
            Err(Refused::Closed(error)) => return Err(error),
            Err(Refused::Full) => return Err(EngineError::LockBusy(op)),
        }
        let reply = TurnReply(cell).await;
        crate::hop::hop("reply").await;
        reply
    }

    /// Whether an attempt has sent nothing yet, so that launching it again repeats nothing.
    pub(crate) async fn is_silent(self: &Arc<Self>, task: TaskId, attempt: u32) -> bool {
        let (tell, told) = oneshot::channel();
        self.engine_turn(
            "is_silent",
            move |state| state.is_live(task, attempt) && state.sent_nothing(task, attempt),
            move |_links, silent| {
                let _ = tell.send(silent);
            },
        );
        told.await.unwrap_or(false)
    }

    /// Takes several heartbeats in one turn; each gets its own answer.
    pub(crate) async fn beat_turn(
        self: &Arc<Self>,
        calls: Vec<Access>,
    ) -> Vec<Result<HeartbeatReply, EngineError>> {
        let count = calls.len();
        let now = match self.now() {
            Ok(now) => now,
            Err(error) => return vec![Err(error); count],
        };
        let run = move |state: &mut EngineState| {
            let beat = |access: &Access| {
                crate::hop::beating(*access, now);
                state.heartbeat(*access, now)
            };
            Step::Keep(calls.iter().map(beat).collect::<Vec<_>>())
        };
        match self.call("heartbeat", false, run, no_follow()).await {
            Ok(replies) => replies,
            Err(error) => vec![Err(error); count],
        }
    }

    /// The actor of a session that beats; started if it is not there.
    fn session_actor(
        self: &Arc<Self>,
        session: SessionId,
    ) -> Result<ractor::ActorRef<Letter<SessionMsg>>, EngineError> {
        if let Some(actor) = self.lock_sessions().get(&session) {
            return Ok(actor.clone());
        }
        self.ensure_tree()?;
        let root = self.root().ok_or_else(|| EngineError::Stopped("root supervisor".to_owned()))?;
        let args = session_actor::Arguments { core: self.clone(), session };
        let (actor, _) =
            ractor::ActorRuntime::spawn_linked_instant(None, Session, args, root.get_cell())
                .map_err(|error| EngineError::Internal(error.to_string()))?;
        self.count_actor();
        let mut sessions = self.lock_sessions();
        let kept = sessions.get(&session).unwrap_or(&actor).clone();
        sessions.insert(session, kept.clone());
        drop(sessions);
        if kept.get_id() != actor.get_id() {
            actor.stop(None);
        }
        Ok(kept)
    }
}

impl ActorSystem {
    /// The configuration that the system was made with.
    #[must_use]
    pub fn cfg(&self) -> &EngineCfg {
        &self.core.cfg
    }

    /// The present moment by the engine's clock.
    ///
    /// # Errors
    /// `Internal` where the wall clock stands before 1970.
    pub fn now(&self) -> Result<Now, EngineError> {
        self.core.now()
    }

    /// The sender of the event stream. What a host sends reaches subscribers and is not logged.
    #[must_use]
    pub fn event_tx(&self) -> broadcast::Sender<Event> {
        self.core.events.clone()
    }

    /// A subscription to numbered events.
    #[must_use]
    pub fn subscribe_records(&self) -> broadcast::Receiver<EventRecord> {
        self.core.records.subscribe()
    }

    /// What the engine counted of its own life.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.core.counts()
    }

    /// Counts a reader of events that fell behind and reads the log.
    pub fn count_lag(&self) {
        self.core.count_lag();
    }

    /// Turns that wait at the moment.
    #[must_use]
    pub fn queued_turns(&self) -> usize {
        self.core.queue.len()
    }

    /// Runs a host's closure on the state, in a turn of its own.
    ///
    /// A panic in the closure is undone and resumed here; an overlong closure is kept and, by the
    /// hold policy, panics here. Dropping this future before the turn ran takes the turn back.
    ///
    /// # Errors
    /// `LockBusy`, `LockBusyAfterRetry`, `Stopped`.
    pub async fn with_state<F, R>(&self, op: &'static str, f: F) -> Result<R, EngineError>
    where
        F: FnOnce(&mut EngineState) -> R + Send + 'static,
        R: Send + 'static,
    {
        let mut f = Some(f);
        let run = move |state: &mut EngineState| {
            let f = f.take().expect("a turn that does not defer runs once");
            Step::Keep(f(state))
        };
        self.core.call(op, true, run, no_follow()).await
    }

    /// Runs a transition in a turn of its own. What a refused one changed is undone.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use adjutant_actors::errors::EngineError;
    /// # use adjutant_actors::{clock::SystemClock, config::EngineCfg, system::ActorSystem};
    /// # let system = ActorSystem::new(EngineCfg::default(), std::sync::Arc::new(SystemClock::new()));
    /// let (now, mut records) = (system.now()?, system.subscribe_records());
    /// let refused = system.transact("try", move |state| {
    ///     state.record(now, adjutant_actors::model::event::Event::DispatchPaused);
    ///     Err::<(), _>(EngineError::Cancelled)
    /// });
    /// assert_eq!(refused.await, Err(EngineError::Cancelled));
    /// assert!(records.try_recv().is_err()); // the event was undone
    /// assert_eq!((system.queued_turns(), system.counts().turns), (0, 1));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of the transition, and those of [`Self::with_state`].
    pub async fn transact<F, R>(&self, op: &'static str, f: F) -> Result<R, EngineError>
    where
        F: FnOnce(&mut EngineState) -> Result<R, EngineError> + Send + 'static,
        R: Send + 'static,
    {
        let mut f = Some(f);
        let run = move |state: &mut EngineState| {
            let f = f.take().expect("a turn that does not defer runs once");
            match f(state) {
                Ok(reply) => Step::Keep(Ok(reply)),
                Err(error) => Step::Undo(Err(error)),
            }
        };
        self.core.call(op, false, run, no_follow()).await?
    }

    /// Takes a heartbeat through the session's actor, which gathers those that come together.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use adjutant_actors::{model::ids::SessionId, state::auth::Access};
    /// # use adjutant_actors::{clock::SystemClock, config::EngineCfg, system::ActorSystem};
    /// # let system = ActorSystem::new(EngineCfg::default(), std::sync::Arc::new(SystemClock::new()));
    /// let nobody = system.heartbeat(SessionId::from_bits(1), Access::Trusted).await;
    /// assert!(nobody.is_err() && system.cfg().long_hold.heartbeat_miss_threshold > 0);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of an authorization; `SessionNotFound`; those of [`Self::with_state`].
    pub async fn heartbeat(
        &self,
        session: SessionId,
        access: Access,
    ) -> Result<HeartbeatReply, EngineError> {
        let known = self.core.lock_sessions().contains(&session);
        if !known {
            // Only a session that exists gets an actor; a forged id costs one turn and no more.
            let now = self.now()?;
            let reply = self.beat(access, now).await;
            if reply.is_ok() {
                self.core.session_actor(session)?;
            }
            return reply;
        }
        let (reply, answered) = oneshot::channel();
        let actor = self.core.session_actor(session)?;
        let _ = actor.cast(self.core.mail.letter(SessionMsg::Beat { access, reply }));
        match answered.await {
            Ok(reply) => reply,
            Err(_) => {
                self.core.lock_sessions().remove(&session);
                let now = self.now()?;
                self.beat(access, now).await
            }
        }
    }

    /// Takes a heartbeat in a turn of its own.
    async fn beat(&self, access: Access, now: Now) -> Result<HeartbeatReply, EngineError> {
        let beat = move |state: &mut EngineState| {
            crate::hop::beating(access, now);
            state.heartbeat(access, now)
        };
        self.transact("heartbeat", beat).await
    }

    /// Starts an actor that keeps a spawner built.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use adjutant_actors::messages::Intensity;
    /// use std::sync::Arc;
    /// # use adjutant_actors::{clock::SystemClock, config::EngineCfg, system::ActorSystem};
    /// # let system = ActorSystem::new(EngineCfg::default(), std::sync::Arc::new(SystemClock::new()));
    /// let build = || Ok(Arc::new(()) as adjutant_actors::launch::Built);
    /// let seat = system.supervise("agents".into(), Arc::new(build), Intensity::default()).await?;
    /// assert_eq!(system.supervision().await.spawners[0].name, "agents");
    /// seat.retire();
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `Stopped`; `Internal` outside a runtime.
    pub async fn supervise(
        &self,
        name: String,
        factory: Factory,
        intensity: Intensity,
    ) -> Result<Arc<SpawnerSeat>, EngineError> {
        self.core.ensure_tree()?;
        let stopped = || EngineError::Stopped("root supervisor".to_owned());
        let root = self.core.root().ok_or_else(stopped)?;
        let (reply, answered) = oneshot::channel();
        let wanted = RootMsg::Supervise { name, factory, intensity, reply };
        let _ = root.cast(self.core.mail.letter(wanted));
        answered.await.map_err(|_| stopped())?
    }

    /// Whether everything is refused for good: it was closed, shut down, or its journal failed. A tree
    /// that ended otherwise is started again by the next call.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.core.queue.closed().is_some()
    }

    /// Refuses everything from now on and stops the tree at once.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use adjutant_actors::{clock::SystemClock, config::EngineCfg, system::ActorSystem};
    /// # let system = ActorSystem::new(EngineCfg::default(), std::sync::Arc::new(SystemClock::new()));
    /// system.close("the host ends");
    /// assert!(system.with_state("look", |state| state.task_count()).await.is_err());
    /// # Ok(()) }
    /// ```
    pub fn close(&self, reason: &str) {
        self.core.close(reason);
    }
}
