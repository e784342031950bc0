//! What a server counts of the events: outcomes, attempts and how long they took, what waits.
//!
//! It follows the events by their numbers, so each is counted once, however late. Times are those
//! between two events as they arrive, so they need no turn of their own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use adjutant_actors::errors::EngineError;
use adjutant_actors::model::event::Event;
use adjutant_actors::model::ids::TaskId;
use adjutant_actors::model::task::TaskStatus;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::engine::pauses::Pauses;
use crate::engine::{Delivery, Engine, EventFeed};

/// How a task ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

/// A task that is not settled: where it stands, and since when.
struct Life {
    status: TaskStatus,
    since: Option<Instant>,
}

/// Counters that only grow, since the server started, and what stands of unsettled tasks.
pub(crate) struct Tally {
    registry: Registry,
    outcomes: Family<Outcome, Counter>,
    started: Counter,
    attempts: Counter,
    questions: Counter,
    missed: Counter,
    attempt_time: Histogram,
    queue_wait: Histogram,
    queued: Gauge,
    running: Gauge,
    suspended: Gauge,
    lives: Mutex<HashMap<TaskId, Life>>,
}

impl Default for Tally {
    fn default() -> Self {
        let long = || Histogram::new(exponential_buckets(0.005, 4.0, 10));
        let mut tally = Self {
            registry: Registry::with_prefix("adjutant"),
            outcomes: Family::default(),
            started: Counter::default(),
            attempts: Counter::default(),
            questions: Counter::default(),
            missed: Counter::default(),
            attempt_time: long(),
            queue_wait: long(),
            queued: Gauge::default(),
            running: Gauge::default(),
            suspended: Gauge::default(),
            lives: Mutex::default(),
        };
        // All are shown from the start, so that a rate over them is right.
        for outcome in ["pass", "blocked", "cancelled"] {
            let _ = tally.outcomes.get_or_create(&Outcome { outcome });
        }
        tally.register();
        tally
    }
}

impl Tally {
    fn register(&mut self) {
        let registry = &mut self.registry;
        let outcomes = self.outcomes.clone();
        registry.register("outcomes", "Tasks that came to an end, by outcome", outcomes);
        for (name, help, counter) in [
            ("tasks_started", "Tasks that were started", &self.started),
            ("attempts_started", "Attempts that were dispatched", &self.attempts),
            ("questions", "Questions that were put to a senior", &self.questions),
            ("events_uncounted", "Events that were gone before they were counted", &self.missed),
        ] {
            registry.register(name, help, counter.clone());
        }
        let help = "Time from the start of an attempt to its end";
        registry.register("attempt_seconds", help, self.attempt_time.clone());
        let help = "Time from the start of a task to its first attempt";
        registry.register("queue_wait_seconds", help, self.queue_wait.clone());
        for (name, help, gauge) in [
            ("queued_tasks", "Tasks that wait for their first attempt", &self.queued),
            ("running_tasks", "Tasks that an attempt is at work on", &self.running),
            ("suspended_tasks", "Tasks with an open question", &self.suspended),
        ] {
            registry.register(name, help, gauge.clone());
        }
    }

    pub(crate) fn registry(&self) -> &Registry {
        &self.registry
    }

    fn ended(&self, outcome: &'static str) {
        self.outcomes.get_or_create(&Outcome { outcome }).inc();
    }

    fn count(&self, delivery: &Delivery) {
        match delivery {
            Delivery::Missed { from, to } => {
                self.missed.inc_by(to.saturating_sub(*from) + 1);
            }
            Delivery::Record(record) => self.apply(&record.event, Instant::now()),
        }
    }

    fn apply(&self, event: &Event, now: Instant) {
        match event {
            Event::TaskCreated { task_id } => {
                self.started.inc();
                self.moved(*task_id, Some(TaskStatus::Pending), now);
            }
            Event::TaskAttemptStarted { task_id, .. } => {
                self.attempts.inc();
                self.moved(*task_id, Some(TaskStatus::Running), now);
            }
            Event::TaskResumed { task_id, .. } => {
                self.moved(*task_id, Some(TaskStatus::Running), now);
            }
            Event::TaskSuspended { task_id, .. } => {
                self.moved(*task_id, Some(TaskStatus::Suspended), now);
            }
            Event::TaskPass { task_id, .. } => {
                self.ended("pass");
                self.moved(*task_id, None, now);
            }
            Event::TaskBlocked { task_id, .. } => {
                self.ended("blocked");
                self.moved(*task_id, None, now);
            }
            Event::TaskCancelled { task_id } => {
                self.ended("cancelled");
                self.moved(*task_id, None, now);
            }
            Event::SeniorQueried { .. } => {
                self.questions.inc();
            }
            _ => {}
        }
    }

    fn gauge(&self, status: TaskStatus) -> &Gauge {
        match status {
            TaskStatus::Running => &self.running,
            TaskStatus::Suspended => &self.suspended,
            _ => &self.queued,
        }
    }

    /// Moves a task to its next status; `None` is the end.
    fn moved(&self, task: TaskId, next: Option<TaskStatus>, now: Instant) {
        let mut lives = self.lives.lock().unwrap_or_else(PoisonError::into_inner);
        let before = lives.remove(&task);
        if let Some(before) = &before {
            self.gauge(before.status).dec();
            let took = before.since.map(|since| now.duration_since(since).as_secs_f64());
            match (before.status, next, took) {
                (TaskStatus::Pending, Some(TaskStatus::Running), Some(took)) => {
                    self.queue_wait.observe(took);
                }
                (TaskStatus::Running, None, Some(took)) => self.attempt_time.observe(took),
                _ => {}
            }
        }
        if let Some(status) = next {
            self.gauge(status).inc();
            lives.insert(task, Life { status, since: Some(now) });
        }
    }

    /// Takes over the tasks that are there, and nothing else of what it knew of tasks.
    fn begin(&self, unsettled: Vec<(TaskId, TaskStatus)>) {
        let mut lives = self.lives.lock().unwrap_or_else(PoisonError::into_inner);
        lives.clear();
        for gauge in [&self.queued, &self.running, &self.suspended] {
            gauge.set(0);
        }
        for (task, status) in unsettled {
            self.gauge(status).inc();
            lives.insert(task, Life { status, since: None });
        }
    }
}

/// Counts every event from now on, until the engine is gone or the task is aborted.
pub(crate) async fn follow(
    engine: &Engine,
    tally: &Arc<Tally>,
) -> Result<JoinHandle<()>, EngineError> {
    let (engine, tally) = (engine.unanchored(), Arc::clone(tally));
    let (mut seen, mut feed) = begin(&engine, &tally).await?;
    Ok(tokio::spawn(async move {
        loop {
            let delivery = feed.next().await;
            if let Some(delivery) = &delivery {
                tally.count(delivery);
            }
            match delivery {
                Some(Delivery::Record(record)) => {
                    seen = record.seq;
                    continue;
                }
                Some(Delivery::Missed { to, .. }) => seen = to,
                None => {}
            }
            // Tasks may have ended in what was missed: it begins again with those that are there.
            let Some((last, again)) = begin_again(&engine, &tally).await else { return };
            tally.missed.inc_by(last.saturating_sub(seen));
            (seen, feed) = (last, again);
        }
    }))
}

/// As [`begin`], as often as it takes; `None` once the engine is gone.
async fn begin_again(engine: &Engine, tally: &Tally) -> Option<(u64, EventFeed)> {
    let mut pauses = Pauses::default();
    loop {
        match begin(engine, tally).await {
            Ok(begun) => return Some(begun),
            Err(_) if engine.system().is_closed() => return None,
            Err(error) => {
                tracing::debug!(error = error.to_string(), "what is counted waits for the engine");
                pauses.next().await;
            }
        }
    }
}

/// Takes the unsettled tasks over; gives the newest event's number and the events from there on.
async fn begin(engine: &Engine, tally: &Tally) -> Result<(u64, EventFeed), EngineError> {
    let look = |state: &mut adjutant_actors::state::EngineState| {
        (state.last_seq(), state.unsettled_tasks())
    };
    let (last, unsettled) = engine.with_state("last_seq", look).await?;
    tally.begin(unsettled);
    Ok((last, engine.event_feed(last).await?))
}

#[cfg(test)]
mod tests {
    use std::task::Poll;
    use std::time::Duration;

    use adjutant_actors::model::role::Role;
    use adjutant_actors::model::task::TaskSpec;
    use adjutant_actors::state::EngineState;
    use adjutant_actors::state::effect::Now;
    use tokio_util::task::AbortOnDropHandle;

    use super::*;
    use crate::{EngineCfg, HoldPolicy};

    #[tokio::test(start_paused = true)]
    async fn a_task_is_counted_where_it_stands_and_its_times_are_kept() {
        let (tally, task) = (Tally::default(), TaskId::from_bits(1));
        let begun = Instant::now();
        let at = |secs| begun + Duration::from_secs(secs);
        tally.apply(&Event::TaskCreated { task_id: task }, at(0));
        assert_eq!((tally.queued.get(), tally.running.get()), (1, 0));
        tally.apply(&Event::TaskAttemptStarted { task_id: task, attempt: 1 }, at(2));
        assert_eq!((tally.queued.get(), tally.running.get()), (0, 1));
        tally.apply(&Event::TaskPass { task_id: task, result: true.into() }, at(5));
        assert_eq!((tally.queued.get(), tally.running.get()), (0, 0));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, tally.registry()).unwrap();
        for line in ["queue_wait_seconds_sum 2.0", "attempt_seconds_sum 3.0"] {
            assert!(text.contains(&format!("adjutant_{line}\n")), "{text}");
        }
        assert!(tally.lives.lock().unwrap().is_empty());
    }

    /// Lets every task go first that is ready.
    async fn step_back() {
        let mut first = true;
        let wait = std::future::poll_fn(move |cx| {
            if std::mem::take(&mut first) {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Poll::Ready(())
        });
        wait.await;
    }

    #[tokio::test]
    async fn who_missed_events_while_the_queue_is_full_goes_on_counting() {
        const LONG: Duration = Duration::from_secs(30);
        let mut cfg = EngineCfg {
            queue_limit: 1,
            try_only: true,
            hold_policy: HoldPolicy::Warn,
            ..EngineCfg::default()
        };
        (cfg.limits.event_tail, cfg.limits.broadcast_capacity) = (1, 1);
        let (engine, tally) = (Engine::new(cfg), Arc::new(Tally::default()));
        let operator = engine.attach("ann", Role::Operator, LONG).await.unwrap();
        let _following = follow(&engine, &tally).await.unwrap();
        let flood = (0..4).map(|_| {
            let engine = engine.clone();
            AbortOnDropHandle::new(tokio::spawn(async move {
                loop {
                    let _ = engine.with_state("flood", |_| ()).await;
                    step_back().await;
                }
            }))
        });
        let flood: Vec<_> = flood.collect();
        let burst = |state: &mut EngineState| {
            let event = Event::TaskCancelled { task_id: TaskId::from_bits(1) };
            (0..50).for_each(|_| state.record(Now { unix: 1, ms: 1 }, event.clone()));
        };
        let missing = async {
            while tally.missed.get() == 0 {
                let _ = engine.with_state("burst", burst).await;
                step_back().await;
            }
        };
        tokio::time::timeout(LONG, missing).await.expect("it never falls behind");
        drop(flood);
        let counting = async {
            let before = tally.started.get();
            while tally.started.get() == before {
                let _ = engine.start_task(&operator, TaskSpec::new("any", "x")).await;
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(LONG, counting).await.expect("it counts no more");
    }

    #[tokio::test]
    async fn a_task_whose_end_was_missed_is_counted_no_more() {
        let (tally, gone, there) = (Tally::default(), TaskId::from_bits(1), TaskId::from_bits(2));
        tally.apply(&Event::TaskCreated { task_id: gone }, Instant::now());
        tally.begin(vec![(there, TaskStatus::Running)]);
        assert_eq!((tally.queued.get(), tally.running.get()), (0, 1));
        tally.apply(&Event::TaskPass { task_id: there, result: true.into() }, Instant::now());
        assert_eq!(tally.running.get(), 0);
        assert!(tally.lives.lock().unwrap().is_empty());
    }
}
