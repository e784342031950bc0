//! Events for those who watch: plain and numbered streams, the tail, and a feed without holes.

use std::collections::VecDeque;

use adjutant_actors::errors::EngineError;
use adjutant_actors::model::event::{Event, EventRecord};
use adjutant_actors::model::ids::TaskId;
use adjutant_actors::model::role::Verb;
use adjutant_actors::model::token::CapToken;
use adjutant_actors::state::auth::Reach;
use adjutant_actors::system::Past;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::task::JoinHandle;

use crate::engine::pauses::Pauses;
use crate::engine::{Caller, Engine};

/// Events that a feed reads from the log at once.
const FEED_PAGE: usize = 4096;

/// A live stream of events. A receiver that lags is told how many it missed.
///
/// ```
/// use adjutant::{Engine, EngineCfg, EventStream};
///
/// let events: EventStream = Engine::new(EngineCfg::default()).subscribe();
/// assert!(events.is_empty());
/// ```
pub type EventStream = broadcast::Receiver<Event>;

/// What an [`EventFeed`] delivers.
///
/// ```
/// use adjutant::{Delivery, EventRecord};
///
/// fn tell(delivery: Delivery) -> String {
///     match delivery {
///         Delivery::Record(EventRecord { seq, event, .. }) => format!("{seq} {}", event.kind()),
///         Delivery::Missed { from, to } => format!("{from} to {to} are gone"),
///     }
/// }
/// assert_eq!(tell(Delivery::Missed { from: 1, to: 3 }), "1 to 3 are gone");
/// ```
#[derive(Debug, Clone, PartialEq)]
pub enum Delivery {
    /// The next event.
    Record(EventRecord),
    /// Events that the reader missed and that are gone from the tail: exactly these numbers.
    Missed {
        /// First number that is gone.
        from: u64,
        /// Last number that is gone.
        to: u64,
    },
}

/// Events in their order from a number on: the log first, then live. Where the reader lags, it
/// is refilled from the log, which is the tail in memory and, before it, the journal's, if one is
/// kept; what is gone there is told exactly.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), adjutant::EngineError> {
/// use adjutant::{Delivery, Engine, EngineCfg, Event, Role, TaskSpec};
/// use std::time::Duration;
///
/// let engine = Engine::new(EngineCfg::default());
/// let operator = engine.attach("ann", Role::Operator, Duration::from_secs(60)).await?;
/// let task = engine.start_task(&operator, TaskSpec::new("echo", "hello")).await?;
/// // From after the first event on: the past from the tail, then whatever comes.
/// let mut feed = engine.event_feed(1).await?;
/// let Some(Delivery::Record(record)) = feed.next().await else { panic!("the engine is gone") };
/// assert_eq!((record.seq, record.event), (2, Event::TaskCreated { task_id: task }));
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct EventFeed {
    engine: Engine,
    live: broadcast::Receiver<EventRecord>,
    ready: VecDeque<EventRecord>,
    last: u64,
    /// Whether the log may have more than the page that was read of it.
    behind: bool,
}

impl EventFeed {
    /// What is ready, in the order of the numbers; what was delivered before is passed over.
    fn pop(&mut self) -> Option<Delivery> {
        loop {
            let seq = self.ready.front()?.seq;
            if seq > self.last + 1 {
                let (from, to) = (self.last + 1, seq - 1);
                self.last = to;
                return Some(Delivery::Missed { from, to });
            }
            let record = self.ready.pop_front()?;
            if seq > self.last {
                self.last = seq;
                return Some(Delivery::Record(record));
            }
        }
    }

    /// Whether events are missing before the ones that are ready.
    fn has_gap(&self) -> bool {
        self.ready.front().is_some_and(|record| record.seq > self.last + 1)
    }

    /// The next delivery, if it is there without waiting. Does not refill what was missed.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let engine = adjutant::Engine::new(adjutant::EngineCfg::default());
    /// # let minute = std::time::Duration::from_secs(60);
    /// # let operator = engine.attach("ann", adjutant::Role::Operator, minute).await?;
    /// let mut feed = engine.event_feed(0).await?;
    /// assert!(feed.try_next().is_some()); // the attached session
    /// assert!(feed.try_next().is_none()); // where `next` would wait
    /// # Ok(()) }
    /// ```
    pub fn try_next(&mut self) -> Option<Delivery> {
        loop {
            if let Some(delivery) = self.pop() {
                return Some(delivery);
            }
            match self.live.try_recv() {
                Ok(record) => self.ready.push_back(record),
                Err(TryRecvError::Lagged(_)) => self.engine.system().count_lag(),
                Err(TryRecvError::Empty | TryRecvError::Closed) => return None,
            }
        }
    }

    /// The next delivery; `None` once the engine is gone, or where its log cannot be read.
    /// Dropping this future loses nothing.
    pub async fn next(&mut self) -> Option<Delivery> {
        loop {
            if self.has_gap() || (self.behind && self.ready.is_empty()) {
                self.refill().await?;
            }
            if let Some(delivery) = self.pop() {
                return Some(delivery);
            }
            match self.live.recv().await {
                Ok(record) => self.ready.push_back(record),
                Err(RecvError::Lagged(_)) => self.engine.system().count_lag(),
                Err(RecvError::Closed) => return None,
            }
        }
    }

    /// Reads a page of the log. If that is its end, the page also holds what was ready, and newer
    /// ones; those come from the live stream again and are passed over then. An engine that is busy
    /// is asked again, since only the log says what is gone; `None` where it cannot be read.
    async fn refill(&mut self) -> Option<()> {
        let mut pauses = Pauses::default();
        loop {
            match self.engine.events_after(self.last, FEED_PAGE).await {
                Ok(page) => {
                    self.behind = page.len() >= FEED_PAGE;
                    self.ready = page.into();
                    return Some(());
                }
                Err(error) if self.engine.may_answer_later(&error) => pauses.next().await,
                Err(error) => {
                    let error = error.to_string();
                    tracing::debug!(error, "a reader of events cannot read what it missed");
                    return None;
                }
            }
        }
    }
}

impl Engine {
    /// The sender of the event stream. What a host sends itself reaches the subscribers and is
    /// not in the log. Trusted callers only.
    #[must_use]
    pub fn event_tx(&self) -> broadcast::Sender<Event> {
        self.system().event_tx()
    }

    /// A live stream of events from now on. Trusted callers only; [`Self::subscribe_with`] takes a
    /// token.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let engine = adjutant::Engine::new(adjutant::EngineCfg::default());
    /// let (mut events, mut records) = (engine.subscribe(), engine.subscribe_records());
    /// # let minute = std::time::Duration::from_secs(60);
    /// # let operator = engine.attach("ann", adjutant::Role::Operator, minute).await?;
    /// assert!(matches!(events.recv().await?, adjutant::Event::SessionAttached { .. }));
    /// assert_eq!(records.recv().await?.seq, 1);
    /// let tx = engine.event_tx();
    /// assert_eq!(tx.receiver_count(), 1);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn subscribe(&self) -> EventStream {
        self.event_tx().subscribe()
    }

    /// A live stream of numbered events from now on. Trusted callers only.
    #[must_use]
    pub fn subscribe_records(&self) -> broadcast::Receiver<EventRecord> {
        self.system().subscribe_records()
    }

    /// A live stream of numbered events from now on, for an observer.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use adjutant::{Role, TaskSpec};
    /// # let engine = adjutant::Engine::new(adjutant::EngineCfg::default());
    /// # let minute = std::time::Duration::from_secs(60);
    /// # let operator = engine.attach("ann", adjutant::Role::Operator, minute).await?;
    /// let watcher = engine.attach("wim", Role::Observer, minute).await?;
    /// let mut records = engine.subscribe_with(&watcher).await?;
    /// # let task = engine.start_task(&operator, adjutant::TaskSpec::new("echo", "hello")).await?;
    /// assert_eq!(records.recv().await?.event.task_id(), Some(task));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of an authorization with `SubscribeEvents`.
    pub async fn subscribe_with(
        &self,
        token: &CapToken,
    ) -> Result<broadcast::Receiver<EventRecord>, EngineError> {
        let live = self.subscribe_records();
        self.verify_token(token, Verb::SubscribeEvents).await?;
        Ok(live)
    }

    /// Events after a number, oldest first, at most `limit`, as far as the tail and the journal's
    /// log, if one is kept, reach back. If the first one's number is above `after + 1`, those
    /// between are gone. Trusted callers only.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let engine = adjutant::Engine::new(adjutant::EngineCfg::default());
    /// # let minute = std::time::Duration::from_secs(60);
    /// # let operator = engine.attach("ann", adjutant::Role::Operator, minute).await?;
    /// # let task = engine.start_task(&operator, adjutant::TaskSpec::new("echo", "hello")).await?;
    /// let events = engine.events_after(1, 100).await?;
    /// assert_eq!((events.len(), events[0].seq, events[0].event.task_id()), (1, 2, Some(task)));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `LockBusy`, `Stopped`; `Journal` where the log cannot be read.
    pub async fn events_after(
        &self,
        after: u64,
        limit: usize,
    ) -> Result<Vec<EventRecord>, EngineError> {
        self.system().events("events_after", Past { after, limit, task: None }, |_| Ok(())).await
    }

    /// As [`Self::events_after`], for an observer, of one task or of all.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let engine = adjutant::Engine::new(adjutant::EngineCfg::default());
    /// # let minute = std::time::Duration::from_secs(60);
    /// # let operator = engine.attach("ann", adjutant::Role::Operator, minute).await?;
    /// # let task = engine.start_task(&operator, adjutant::TaskSpec::new("echo", "hello")).await?;
    /// let watcher = engine.attach("wim", adjutant::Role::Observer, minute).await?;
    /// let trace = engine.read_trace(&watcher, Some(&task), 0, 100).await?;
    /// assert_eq!(trace[0].event, adjutant::Event::TaskCreated { task_id: task });
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of an authorization with `ReadTrace`.
    pub async fn read_trace(
        &self,
        token: &CapToken,
        task_id: Option<&TaskId>,
        after: u64,
        limit: usize,
    ) -> Result<Vec<EventRecord>, EngineError> {
        self.read_trace_as(token.into(), task_id, after, limit).await
    }

    /// As [`Self::read_trace`].
    pub(crate) async fn read_trace_as(
        &self,
        caller: Caller<'_>,
        task_id: Option<&TaskId>,
        after: u64,
        limit: usize,
    ) -> Result<Vec<EventRecord>, EngineError> {
        let (access, now) = self.access(caller, Verb::ReadTrace)?;
        let task = task_id.copied();
        self.system()
            .events("read_trace", Past { after, limit, task }, move |state| {
                state.verify(access, task.map_or(Reach::Anywhere, Reach::Tree), now).map(|_| ())
            })
            .await
    }

    /// A feed of events after a number; 0 starts at the log's beginning. Trusted callers only.
    ///
    /// # Errors
    /// As [`Self::events_after`].
    pub async fn event_feed(&self, after: u64) -> Result<EventFeed, EngineError> {
        let live = self.subscribe_records();
        let ready = self.events_after(after, FEED_PAGE).await?;
        let behind = ready.len() >= FEED_PAGE;
        Ok(EventFeed { engine: self.unanchored(), live, ready: ready.into(), last: after, behind })
    }

    /// Delivers events to a host's actor as its own message type, from a number on. `wrap` may
    /// pass one over with `None`. Ends with the actor, the engine, or the handle's abort.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use adjutant::{Delivery, Engine, EngineError};
    /// use ractor::ActorRef;
    ///
    /// enum HostMsg {
    ///     Happened(u64),
    /// }
    ///
    /// async fn follow(engine: &Engine, host: ActorRef<HostMsg>) -> Result<(), EngineError> {
    ///     let wrap = |delivery| match delivery {
    ///         Delivery::Record(record) => Some(HostMsg::Happened(record.seq)),
    ///         Delivery::Missed { .. } => None,
    ///     };
    ///     engine.forward_events(host, 0, wrap).await?;
    ///     Ok(())
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Self::events_after`].
    pub async fn forward_events<M, F>(
        &self,
        actor: ractor::ActorRef<M>,
        after: u64,
        wrap: F,
    ) -> Result<JoinHandle<()>, EngineError>
    where
        M: ractor::Message,
        F: Fn(Delivery) -> Option<M> + Send + 'static,
    {
        let mut feed = self.event_feed(after).await?;
        Ok(tokio::spawn(async move {
            while let Some(delivery) = feed.next().await {
                if let Some(message) = wrap(delivery)
                    && actor.cast(message).is_err()
                {
                    return;
                }
            }
        }))
    }
}
