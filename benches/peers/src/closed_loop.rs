//! Closed loops: callers that ask again as soon as they are answered, and what they saw.
//! Knows nothing of the peers but the trait that they implement.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::time::Instant;

use crate::peer::{Peer, Work};

/// How long a run takes: `ADJUTANT_BENCH_QUICK=1` makes it a matter of seconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    /// Rounds of each row; the one in the middle is reported.
    pub(crate) rounds: usize,
    /// Time that is measured in one round of one row; a tenth of it warms up before.
    pub(crate) window: Duration,
}

impl Scale {
    /// The scale that the environment asks for.
    pub(crate) fn from_env() -> Self {
        if std::env::var_os("ADJUTANT_BENCH_QUICK").is_some() {
            Self { rounds: 3, window: Duration::from_millis(60) }
        } else {
            Self { rounds: 5, window: Duration::from_millis(500) }
        }
    }
}

/// What the callers of one round saw.
#[derive(Debug, Clone)]
pub(crate) struct Round {
    /// Operations a second that were served within the window.
    pub(crate) rate: f64,
    /// Operations that ended within the window in a refusal or a failure.
    pub(crate) refused: u64,
    /// Operations that were served within the window.
    pub(crate) served: u64,
    /// Nanoseconds of the served operations that began within the window.
    pub(crate) latency: Histogram<u64>,
}

impl Round {
    fn empty() -> Self {
        let latency = Histogram::new(2).expect("2 digits are allowed");
        Self { rate: 0.0, refused: 0, served: 0, latency }
    }

    /// The share of the operations that were refused or failed, in percent.
    #[expect(clippy::cast_precision_loss, reason = "a percentage needs no 53 bits")]
    pub(crate) fn refused_percent(&self) -> f64 {
        let all = self.served + self.refused;
        if all == 0 { 0.0 } else { self.refused as f64 * 100.0 / all as f64 }
    }
}

/// Lets `callers` do `work` on a peer, in a warm-up and in the window after it.
///
/// A caller whose operation never had to wait yields once before the next one. Without that, a
/// peer that answers within the first poll would let two callers keep both worker threads, and
/// the others would not be callers at all.
pub(crate) async fn closed_loop<P: Peer>(
    peer: &P,
    work: Work,
    callers: usize,
    window: Duration,
) -> Round {
    let from = Instant::now() + window / 10;
    let until = from + window;
    let tasks: Vec<_> = (0..callers)
        .map(|_| tokio::spawn(caller(peer.clone(), work, callers > 1, from, until)))
        .collect();
    let mut round = Round::empty();
    for task in tasks {
        let own = task.await.expect("a caller does not panic");
        round.latency.add(own.latency).expect("the histograms are alike");
        round.served += own.served;
        round.refused += own.refused;
    }
    round.rate = per_second(round.served, window);
    round
}

async fn caller<P: Peer>(
    peer: P,
    work: Work,
    has_company: bool,
    from: Instant,
    until: Instant,
) -> Round {
    let mut seen = Round::empty();
    loop {
        let start = Instant::now();
        if start >= until {
            return seen;
        }
        let (served, waited) = match work {
            Work::Turns => watched(peer.turn()).await,
            Work::Lifecycle | Work::Owned => watched(peer.lifecycle()).await,
        };
        let end = Instant::now();
        if served && start >= from {
            seen.latency.record(nanos(end - start)).expect("it grows to any value");
        }
        if end >= from && end < until {
            seen.served += u64::from(served);
            seen.refused += u64::from(!served);
        }
        if has_company && !waited {
            give_way().await;
        }
    }
}

/// An operation's answer, and whether it had to wait for it.
async fn watched<F: Future>(operation: F) -> (F::Output, bool) {
    let mut operation = pin!(operation);
    let mut waited = false;
    let answer = poll_fn(|context| {
        let poll = operation.as_mut().poll(context);
        waited |= poll.is_pending();
        poll
    })
    .await;
    (answer, waited)
}

/// Goes to the end of the worker's queue.
async fn give_way() {
    let mut gave = false;
    poll_fn(|context| {
        if gave {
            return Poll::Ready(());
        }
        gave = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// The round in the middle, by rate.
pub(crate) fn median(mut rounds: Vec<Round>) -> Round {
    rounds.sort_by(|a, b| a.rate.total_cmp(&b.rate));
    let middle = rounds.len() / 2;
    rounds.swap_remove(middle)
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "a rate needs no 53 bits")]
fn per_second(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}
