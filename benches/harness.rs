//! What the benches share: closed loops of callers, percentiles, and a table with ratios.
#![expect(clippy::print_stdout, reason = "a bench prints its table")]
#![allow(dead_code, reason = "each bench uses a part of it")]

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};
use tokio::time::Instant;

/// How large a bench is: `ADJUTANT_BENCH_QUICK=1` makes it a matter of seconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    /// Rounds of each row; the median is printed.
    pub(crate) rounds: usize,
    /// Time that one round of one row takes.
    pub(crate) window: Duration,
}

impl Scale {
    /// The scale that the environment asks for.
    pub(crate) fn from_env() -> Self {
        let quick = std::env::var_os("ADJUTANT_BENCH_QUICK").is_some();
        if quick {
            Self { rounds: 3, window: Duration::from_millis(60) }
        } else {
            Self { rounds: 5, window: Duration::from_millis(500) }
        }
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

/// What one round measured.
#[derive(Debug, Clone)]
pub(crate) struct Round {
    /// Operations a second.
    pub(crate) rate: f64,
    /// Latencies in nanoseconds.
    pub(crate) latency: Histogram<u64>,
    /// Operations that were refused.
    pub(crate) refused: u64,
}

/// Runs `operation` in a closed loop of `callers` for a window. `operation` says whether it was
/// served; `false` counts as a refusal.
pub(crate) async fn closed_loop<F, Fut>(callers: usize, window: Duration, operation: F) -> Round
where
    F: Fn() -> Fut + Clone + Send + 'static,
    Fut: Future<Output = bool> + Send,
{
    let gate = Arc::new(tokio::sync::Barrier::new(callers + 1));
    let tasks: Vec<_> = (0..callers)
        .map(|_| {
            let (operation, gate) = (operation.clone(), gate.clone());
            tokio::spawn(async move {
                let mut latency = Histogram::<u64>::new(3).expect("3 digits are allowed");
                let mut refused = 0;
                gate.wait().await;
                let end = Instant::now() + window;
                loop {
                    let start = Instant::now();
                    if start >= end {
                        return (latency, refused);
                    }
                    if operation().await {
                        latency.saturating_record(nanos(start.elapsed()));
                    } else {
                        refused += 1;
                    }
                }
            })
        })
        .collect();
    gate.wait().await;
    let start = Instant::now();
    let mut latency = Histogram::<u64>::new(3).expect("3 digits are allowed");
    let mut refused = 0;
    for task in tasks {
        let (own, own_refused) = task.await.expect("a caller does not panic");
        latency.add(own).expect("the histograms are alike");
        refused += own_refused;
    }
    let rate = per_second(latency.len(), start.elapsed());
    Round { rate, latency, refused }
}

/// Whole nanoseconds.
pub(crate) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Events a second.
#[expect(clippy::cast_precision_loss, reason = "a rate needs no 53 bits")]
pub(crate) fn per_second(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

/// The round in the middle, by rate.
pub(crate) fn median(mut rounds: Vec<Round>) -> Round {
    rounds.sort_by(|a, b| a.rate.total_cmp(&b.rate));
    let middle = rounds.len() / 2;
    rounds.swap_remove(middle)
}

/// The middle of some numbers.
pub(crate) fn middle(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or_default()
}

/// A table that is printed, and written as JSON below `target/bench/`.
pub(crate) struct Report {
    name: &'static str,
    rows: Vec<Value>,
}

impl Report {
    /// An empty report with its heading printed.
    pub(crate) fn new(name: &'static str, what: &str) -> Self {
        println!("\n# {name}: {what}");
        Self { name, rows: Vec::new() }
    }

    /// Prints a heading within the table.
    pub(crate) fn heading(&self, text: &str) {
        println!("\n## {text}");
    }

    /// Adds a row of a closed loop beside its baseline's rate.
    pub(crate) fn row(&mut self, group: &str, name: &str, round: &Round, baseline: f64) {
        let at = |quantile| micros(round.latency.value_at_quantile(quantile));
        let (p50, p99, p999) = (at(0.5), at(0.99), at(0.999));
        let (max, refused) = (micros(round.latency.max()), round.refused);
        let ratio = round.rate / baseline;
        println!(
            "{name:<34} {:>12.0}/s  {ratio:>6.2}x  p50 {p50:>9.1} us  p99 {p99:>10.1} us  \
             p999 {p999:>10.1} us  max {max:>10.1} us  refused {refused}",
            round.rate
        );
        self.rows.push(json!({
            "group": group, "row": name, "per_second": round.rate, "ratio": ratio,
            "p50_us": p50, "p99_us": p99, "p999_us": p999, "max_us": max, "refused": refused
        }));
    }

    /// Adds a single figure.
    pub(crate) fn figure(&mut self, group: &str, name: &str, value: f64, unit: &str) {
        println!("{name:<60} {value:>14.2} {unit}");
        self.rows.push(json!({ "group": group, "row": name, "value": value, "unit": unit }));
    }

    /// Writes the rows as JSON.
    pub(crate) fn write(&self) {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench");
        let path = folder.join(format!("{}.json", self.name));
        let written = std::fs::create_dir_all(&folder)
            .and_then(|()| std::fs::write(&path, format!("{:#}\n", json!(self.rows))));
        match written {
            Ok(()) => println!("\nwritten to target/bench/{}.json", self.name),
            Err(error) => println!("\nnot written to {}: {error}", path.display()),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a latency needs no 53 bits")]
fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1000.0
}
