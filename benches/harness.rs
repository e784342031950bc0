//! What the benches share: how large a run is, closed loops of callers, and what rounds sum up to.
//!
//! It measures and knows no engine. `report.rs` prints and writes what was measured, `chart.rs`
//! draws it.
#![allow(dead_code, reason = "each bench uses a part of it")]

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::time::Instant;

#[path = "harness/chart.rs"]
pub(crate) mod chart;
#[path = "harness/report.rs"]
pub(crate) mod report;

/// How large a bench is: `ADJUTANT_BENCH_QUICK=1` makes it a matter of seconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    /// Whether this is a quick run, whose figures prove nothing.
    pub(crate) quick: bool,
    /// Rounds of each row; medians are printed.
    pub(crate) rounds: usize,
    /// Time that one round of one row takes.
    pub(crate) window: Duration,
}

impl Scale {
    /// The scale that the environment asks for.
    pub(crate) fn from_env() -> Self {
        let quick = std::env::var_os("ADJUTANT_BENCH_QUICK").is_some_and(|value| value != "0");
        if quick {
            Self { quick, rounds: 3, window: Duration::from_millis(40) }
        } else {
            Self { quick, rounds: 5, window: Duration::from_millis(300) }
        }
    }

    /// A number of things: the first one in a full run, the second one in a quick run.
    pub(crate) fn pick<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }
}

/// A runtime of two workers, as on the machine that the figures are for.
pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime can be built")
}

/// What callers do again and again. Each caller has a clone of its own, so that what it holds is
/// not cloned for each call.
pub(crate) trait Operation: Clone + Send + Sync + 'static {
    /// Does it once and says whether it was served; `false` counts as a refusal.
    fn run(&self) -> impl Future<Output = bool> + Send;
}

/// An operation that a closure makes, for where a clone for each call does not matter.
#[derive(Clone)]
pub(crate) struct Each<F>(pub(crate) F);

impl<F, Fut> Operation for Each<F>
where
    F: Fn() -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = bool> + Send,
{
    fn run(&self) -> impl Future<Output = bool> + Send {
        (self.0)()
    }
}

/// What one round measured.
#[derive(Debug, Clone)]
pub(crate) struct Round {
    /// Operations a second.
    pub(crate) rate: f64,
    /// Latencies of the served operations in nanoseconds.
    pub(crate) latency: Histogram<u64>,
    /// Operations that were refused.
    pub(crate) refused: u64,
}

impl Round {
    fn microseconds(&self, quantile: f64) -> f64 {
        micros(self.latency.value_at_quantile(quantile))
    }
}

/// Runs an operation in a closed loop of `callers` for a window.
pub(crate) async fn closed_loop(
    callers: usize,
    window: Duration,
    operation: impl Operation,
) -> Round {
    let rate = counted(callers, window / 2, operation.clone()).await;
    let (latency, refused) = timed(callers, window / 2, operation).await;
    Round { rate, latency, refused }
}

/// Operations a second that are served, by callers that read no clock: reading it twice and noting
/// the difference costs a fifth of a turn, and so would draw all ratios towards 1.
async fn counted(callers: usize, window: Duration, operation: impl Operation) -> f64 {
    let gate = Arc::new(tokio::sync::Barrier::new(callers + 1));
    let stop = Arc::new(AtomicBool::new(false));
    let tasks: Vec<_> = (0..callers)
        .map(|_| {
            let (operation, gate, stop) = (operation.clone(), gate.clone(), stop.clone());
            tokio::spawn(async move {
                let mut served = 0_u64;
                gate.wait().await;
                while !stop.load(Ordering::Relaxed) {
                    served += u64::from(operation.run().await);
                }
                served
            })
        })
        .collect();
    gate.wait().await;
    let start = Instant::now();
    tokio::time::sleep(window).await;
    stop.store(true, Ordering::Relaxed);
    let time = start.elapsed();
    let mut served = 0;
    for task in tasks {
        served += task.await.expect("a caller does not panic");
    }
    per_second(served, time)
}

/// Latencies of served operations, and how many were refused.
async fn timed(
    callers: usize,
    window: Duration,
    operation: impl Operation,
) -> (Histogram<u64>, u64) {
    let gate = Arc::new(tokio::sync::Barrier::new(callers + 1));
    let tasks: Vec<_> = (0..callers)
        .map(|_| {
            let (operation, gate) = (operation.clone(), gate.clone());
            tokio::spawn(async move {
                let (mut latency, mut refused) = (histogram(), 0);
                gate.wait().await;
                let mut start = Instant::now();
                let end = start + window;
                loop {
                    let served = operation.run().await;
                    let done = Instant::now();
                    if served {
                        latency.record(nanos(done - start)).expect("it grows as it must");
                    } else {
                        refused += 1;
                    }
                    if done >= end {
                        return (latency, refused);
                    }
                    start = done;
                }
            })
        })
        .collect();
    gate.wait().await;
    let (mut latency, mut refused) = (histogram(), 0);
    for task in tasks {
        let (own, own_refused) = task.await.expect("a caller does not panic");
        latency.add(own).expect("the histograms are alike");
        refused += own_refused;
    }
    (latency, refused)
}

/// Small enough for thousands of callers; two digits are more than the machine's noise leaves.
fn histogram() -> Histogram<u64> {
    Histogram::new(2).expect("2 digits are allowed")
}

/// What the interleaved rounds of one row sum up to: the median of each figure on its own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Summary {
    /// Served operations a second.
    pub(crate) rate: f64,
    /// Median of the ratios to the baseline's rate in the same round.
    pub(crate) ratio: f64,
    /// Microseconds.
    pub(crate) p50: f64,
    /// Microseconds.
    pub(crate) p99: f64,
    /// Microseconds.
    pub(crate) p999: f64,
    /// Microseconds; the largest of all rounds.
    pub(crate) max: f64,
    /// Part of all operations that was refused.
    pub(crate) refused: f64,
}

impl Summary {
    /// Sums up the rounds of a row, beside those of its baseline.
    pub(crate) fn of(rounds: &[Round], baseline: &[Round]) -> Self {
        let figure = |of: &dyn Fn(&Round) -> f64| middle(rounds.iter().map(of).collect());
        let ratios = rounds.iter().zip(baseline).map(|(own, base)| own.rate / base.rate);
        let served: u64 = rounds.iter().map(|round| round.latency.len()).sum();
        let refused: u64 = rounds.iter().map(|round| round.refused).sum();
        Self {
            rate: figure(&|round| round.rate),
            ratio: middle(ratios.collect()),
            p50: figure(&|round| round.microseconds(0.5)),
            p99: figure(&|round| round.microseconds(0.99)),
            p999: figure(&|round| round.microseconds(0.999)),
            max: rounds.iter().map(|round| micros(round.latency.max())).fold(0.0, f64::max),
            refused: float(refused) / float((served + refused).max(1)),
        }
    }
}

/// Whole nanoseconds.
pub(crate) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Events a second.
pub(crate) fn per_second(count: u64, time: Duration) -> f64 {
    float(count) / time.as_secs_f64()
}

fn micros(nanos: u64) -> f64 {
    float(nanos) / 1000.0
}

/// A count as a figure.
#[expect(clippy::cast_precision_loss, reason = "a figure needs no 53 bits")]
pub(crate) fn float(count: u64) -> f64 {
    count as f64
}

/// A count of things in memory as a figure.
pub(crate) fn many(count: usize) -> f64 {
    float(count as u64)
}

/// The middle of some figures.
pub(crate) fn middle(figures: Vec<f64>) -> f64 {
    quantile(figures, 0.5)
}

/// The figure below which this part of the figures lies.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "an index into a short list"
)]
pub(crate) fn quantile(mut figures: Vec<f64>, part: f64) -> f64 {
    figures.sort_by(f64::total_cmp);
    let place = (many(figures.len().saturating_sub(1)) * part).round() as usize;
    figures.get(place).copied().unwrap_or(f64::NAN)
}
