//! What a server counts of the events: outcomes, attempts, questions.
//!
//! It follows the events by their numbers, so each is counted once, however late.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use adjutant_actors::errors::EngineError;
use adjutant_actors::model::event::Event;
use tokio::task::JoinHandle;

use crate::engine::Delivery;
use crate::server::App;

/// Counters that only grow, since the server started.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    started: AtomicU64,
    attempts: AtomicU64,
    passed: AtomicU64,
    blocked: AtomicU64,
    cancelled: AtomicU64,
    questions: AtomicU64,
    missed: AtomicU64,
}

impl Tally {
    fn count(&self, delivery: &Delivery) {
        let (counter, by) = match delivery {
            Delivery::Missed { from, to } => (&self.missed, to.saturating_sub(*from) + 1),
            Delivery::Record(record) => match record.event {
                Event::TaskCreated { .. } => (&self.started, 1),
                Event::TaskAttemptStarted { .. } => (&self.attempts, 1),
                Event::TaskPass { .. } => (&self.passed, 1),
                Event::TaskBlocked { .. } => (&self.blocked, 1),
                Event::TaskCancelled { .. } => (&self.cancelled, 1),
                Event::SeniorQueried { .. } => (&self.questions, 1),
                _ => return,
            },
        };
        counter.fetch_add(by, Ordering::Relaxed);
    }

    /// Writes the counters as Prometheus text.
    pub(crate) fn write(&self, out: &mut String) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let _ =
            writeln!(out, "# HELP adjutant_outcomes_total Tasks that came to an end, by outcome.");
        let _ = writeln!(out, "# TYPE adjutant_outcomes_total counter");
        for (outcome, counter) in
            [("pass", &self.passed), ("blocked", &self.blocked), ("cancelled", &self.cancelled)]
        {
            let _ =
                writeln!(out, "adjutant_outcomes_total{{outcome=\"{outcome}\"}} {}", read(counter));
        }
        for (name, help, counter) in [
            ("tasks_started_total", "Tasks that were started.", &self.started),
            ("attempts_started_total", "Attempts that were dispatched.", &self.attempts),
            ("questions_total", "Questions that were put to a senior.", &self.questions),
            (
                "events_uncounted_total",
                "Events that were gone before they were counted.",
                &self.missed,
            ),
        ] {
            metric(out, "counter", name, help, read(counter));
        }
    }
}

/// Writes one metric without labels.
pub(crate) fn metric(out: &mut String, kind: &str, name: &str, help: &str, value: u64) {
    let _ = writeln!(out, "# HELP adjutant_{name} {help}");
    let _ = writeln!(out, "# TYPE adjutant_{name} {kind}");
    let _ = writeln!(out, "adjutant_{name} {value}");
}

/// Counts every event from now on, until the engine is gone or the task is aborted.
pub(crate) async fn follow(app: &App) -> Result<JoinHandle<()>, EngineError> {
    let last = app.engine.with_state("last_seq", |state| state.last_seq()).await?;
    let mut feed = app.engine.event_feed(last).await?;
    let tally = Arc::clone(&app.tally);
    Ok(tokio::spawn(async move {
        while let Some(delivery) = feed.next().await {
            tally.count(&delivery);
        }
    }))
}
