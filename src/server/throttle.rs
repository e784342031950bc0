//! How often a bearer that is looked up may turn out to be none: per caller, and over all.
//!
//! A caller is an address. Each failure costs a little of what a caller has, which comes back with
//! time; who has nothing left is refused before a look-up. A bearer that was good before is never
//! refused here, nor is one that needs no look-up to be known, nor a caller without a failure.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::time::Instant;

use crate::server::listen::Peer;
use crate::server::problem::Problem;
use crate::server::{App, caller};

/// Callers that are remembered, at most; the one that failed least goes first.
const CALLERS_MAX: usize = 1024;

/// Good bearers that are remembered, at most; the oldest goes first.
const GOOD_MAX: usize = 4096;

/// What all callers have together, in callers.
const CALLERS_TOGETHER: u32 = 10;

#[derive(Default)]
struct Memory {
    /// When each caller will have all of its failures forgiven.
    callers: HashMap<IpAddr, Instant>,
    all: Option<Instant>,
    good: HashSet<blake3::Hash>,
    order: VecDeque<blake3::Hash>,
}

/// The memory of failures.
pub(crate) struct Throttle {
    /// Failures in a row that one caller has.
    burst: u32,
    /// Time in which one of them is forgiven.
    heal: Duration,
    memory: Mutex<Memory>,
    refused: AtomicU64,
}

impl Throttle {
    pub(crate) fn new(burst: u32, heal: Duration) -> Self {
        Self { burst, heal, memory: Mutex::default(), refused: AtomicU64::new(0) }
    }

    /// No change is left half done, so a holder's panic leaves it usable.
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a bearer was good before.
    pub(crate) fn knows(&self, bearer: &str) -> bool {
        self.memory().good.contains(&blake3::hash(bearer.as_bytes()))
    }

    /// Refuses a caller that has nothing left, and says when it may come again.
    pub(crate) fn admit(&self, caller: IpAddr, now: Instant) -> Result<(), Duration> {
        let memory = self.memory();
        let Some(own) = memory.callers.get(&network(caller)) else { return Ok(()) };
        let wait = |until: Instant, has: Duration| (until - now).saturating_sub(has);
        let all = memory.all.map_or(Duration::ZERO, |all| wait(all, self.heal * self.burst));
        let wait = wait(*own, self.heal * self.burst.saturating_sub(1)).max(all);
        if wait.is_zero() { Ok(()) } else { Err(wait) }
    }

    /// Counts a refusal by [`Self::admit`] that was kept to.
    pub(crate) fn was_refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Requests that were refused.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Notes a look-up that failed.
    pub(crate) fn failed(&self, caller: IpAddr, now: Instant) {
        let mut memory = self.memory();
        let later = |until: Option<Instant>, by: Duration| until.unwrap_or(now).max(now) + by;
        // Not above what is refused: those who fail without end lock nobody out for long after it.
        let most = now + self.heal * self.burst.saturating_add(1);
        memory.all = Some(later(memory.all, self.heal / CALLERS_TOGETHER).min(most));
        let caller = network(caller);
        if memory.callers.len() >= CALLERS_MAX && !memory.callers.contains_key(&caller) {
            memory.callers.retain(|_, until| *until > now);
            let least = memory.callers.iter().min_by_key(|(_, until)| **until).map(|(ip, _)| *ip);
            if let Some(least) = least.filter(|_| memory.callers.len() >= CALLERS_MAX) {
                memory.callers.remove(&least);
            }
        }
        let own = memory.callers.get(&caller).copied();
        memory.callers.insert(caller, later(own, self.heal));
    }

    /// Remembers a bearer that was looked up and is good.
    pub(crate) fn was_good(&self, bearer: &str) {
        let hash = blake3::hash(bearer.as_bytes());
        let mut memory = self.memory();
        if memory.good.insert(hash) {
            memory.order.push_back(hash);
            if memory.order.len() > GOOD_MAX
                && let Some(oldest) = memory.order.pop_front()
            {
                memory.good.remove(&oldest);
            }
        }
    }
}

/// Refuses a caller whose bearers failed too often, and counts those that fail. Which ones are good
/// is said by who looked them up: an answer may be one that anybody gets.
pub(crate) async fn pass(app: &App, request: Request, next: Next) -> Response {
    // What is open to everybody is so to who guesses, too.
    if !["/v1/", "/metrics", "/mcp"].iter().any(|part| request.uri().path().starts_with(part)) {
        return next.run(request).await;
    }
    let peer = request.extensions().get::<Peer>().map(|peer| peer.0.ip());
    let (Some(peer), Some(bearer)) = (peer, caller::shown(request.headers())) else {
        return next.run(request).await;
    };
    if app.throttle.knows(&bearer) {
        return next.run(request).await;
    }
    if let Err(wait) = app.throttle.admit(peer, Instant::now())
        && !caller::is_plain(app, &bearer)
    {
        app.throttle.was_refused();
        return Problem::too_many_failures(wait).into_response();
    }
    let response = next.run(request).await;
    let failed = response.extensions().get::<Problem>().is_some_and(Problem::is_failed_look_up);
    if failed && !caller::is_plain(app, &bearer) {
        app.throttle.failed(peer, Instant::now());
    }
    response
}

/// What counts as one caller: an address, and for IPv6 the network that one subscriber is given.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn spent(throttle: &Throttle, caller: IpAddr, now: Instant) -> u32 {
        (0..10_000)
            .take_while(|_| throttle.admit(caller, now).is_ok())
            .map(|_| throttle.failed(caller, now))
            .count() as u32
    }

    #[test]
    fn a_caller_has_its_burst_and_then_one_more_a_time() {
        let (throttle, now) = (Throttle::new(5, Duration::from_secs(1)), Instant::now());
        assert_eq!(spent(&throttle, caller(1), now), 5);
        assert_eq!(throttle.admit(caller(1), now), Err(Duration::from_secs(1)));
        assert_eq!(spent(&throttle, caller(1), now + Duration::from_secs(1)), 1);
        assert_eq!(spent(&throttle, caller(1), now + Duration::from_secs(99)), 5);
    }

    #[test]
    fn another_caller_is_let_in_and_all_together_are_bounded() {
        let (throttle, now) = (Throttle::new(5, Duration::from_secs(1)), Instant::now());
        spent(&throttle, caller(1), now);
        assert!(throttle.admit(caller(2), now).is_ok());
        let all: u32 = (2..=100).map(|last| spent(&throttle, caller(last), now)).sum();
        // Each of them has one; 50 are all that they have together.
        assert!((99..=160).contains(&all), "{all}");
        assert!(throttle.admit(caller(101), now).is_ok(), "it did not fail yet");
    }

    #[test]
    fn failures_of_many_are_forgiven_soon_after_they_end() {
        let (throttle, now) = (Throttle::new(5, Duration::from_secs(1)), Instant::now());
        throttle.failed(caller(1), now);
        for number in 0..100_000_u32 {
            throttle.failed(IpAddr::from((0x0A00_0000 + number % 500).to_be_bytes()), now);
        }
        assert!(throttle.admit(caller(1), now).is_err(), "all together have nothing left");
        assert_eq!(throttle.admit(caller(1), now + Duration::from_secs(1)), Ok(()));
    }

    #[test]
    fn a_network_of_one_subscriber_is_one_caller() {
        let of = |text: &str| network(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:192.0.2.1"), caller(1));
    }

    #[test]
    fn the_memory_has_its_size() {
        let (throttle, now) = (Throttle::new(5, Duration::from_secs(1)), Instant::now());
        for number in 0..5000_u32 {
            throttle.failed(IpAddr::from(number.to_be_bytes()), now);
            throttle.was_good(&number.to_string());
        }
        let memory = throttle.memory();
        assert_eq!(memory.callers.len(), CALLERS_MAX);
        assert_eq!((memory.good.len(), memory.order.len()), (GOOD_MAX, GOOD_MAX));
    }
}
