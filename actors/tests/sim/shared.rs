//! What all parts of one simulation share: chance, the trace, the log of turns, what was named.
//!
//! Everything is drawn from one row of numbers in the order of the scheduler, so the same seed gives
//! the same run.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use adjutant_actors::clock::Clock;
use adjutant_actors::errors::EngineError;
use adjutant_actors::hop::{Between, Pause};
use adjutant_actors::model::ids::{ResumeKey, TaskId};
use adjutant_actors::model::token::TokenFingerprint;
use adjutant_actors::state::attempts::AttemptEnd;
use adjutant_actors::state::auth::Access;
use adjutant_actors::state::effect::Now;
use adjutant_actors::state::{EngineState, Rules};
use tokio::time::Instant;

use crate::call::{Call, End, POOL, Reply, Said, TOKENS, Who, carry_out, plain};

/// The runtime's paused clock; the wall clock goes with it.
pub(crate) struct SimClock(Instant);

impl SimClock {
    pub(crate) fn new() -> Self {
        Self(Instant::now())
    }
}

impl Clock for SimClock {
    fn now(&self) -> Result<Now, EngineError> {
        let ms = self.0.elapsed().as_millis() as u64;
        Ok(Now { unix: 1_000_000 + ms / 1_000, ms })
    }
}

/// A turn in its place: what it carried out, when, and what it was answered where that is known.
pub(crate) struct Turn {
    pub(crate) call: Call,
    pub(crate) now: Now,
    pub(crate) reply: Option<Reply>,
}

/// What was named so far.
#[derive(Default)]
pub(crate) struct Known {
    pub(crate) tasks: Vec<TaskId>,
    pub(crate) questions: Vec<ResumeKey>,
    pub(crate) sessions: Vec<usize>,
    pub(crate) tokens: usize,
    /// Workers that run.
    pub(crate) workers: usize,
}

/// Lines that no run comes near that goes as it should.
const TRACE_MAX: usize = 20_000;

#[derive(Default)]
struct Inner {
    row: u64,
    trace: Vec<String>,
    log: Vec<Turn>,
    known: Known,
    /// Whether actors may be ended at a hop.
    faults: bool,
}

/// One simulation's shared part.
pub(crate) struct Shared {
    pub(crate) rules: Rules,
    pub(crate) clock: Arc<SimClock>,
    numbers: HashMap<TokenFingerprint, usize>,
    inner: Mutex<Inner>,
}

impl Shared {
    pub(crate) fn new(seed: u64, rules: Rules, faults: bool) -> Arc<Self> {
        let numbers = POOL.iter().enumerate();
        let numbers = numbers.map(|(number, made)| (made.signed.fingerprint, number)).collect();
        let inner = Mutex::new(Inner { row: seed, faults, ..Inner::default() });
        Arc::new(Self { rules, clock: Arc::new(SimClock::new()), numbers, inner })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(crate) fn now(&self) -> Now {
        self.clock.now().unwrap()
    }

    /// The next number of the row, below `bound`.
    pub(crate) fn draw(&self, bound: usize) -> usize {
        let mut inner = self.lock();
        inner.row = inner.row.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = inner.row;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }

    pub(crate) fn chance(&self, percent: usize) -> bool {
        self.draw(100) < percent
    }

    pub(crate) fn small(&self) -> u8 {
        self.draw(250) as u8
    }

    /// Waits for a time by chance, at most `most` milliseconds.
    pub(crate) async fn linger(&self, most: usize) {
        tokio::time::sleep(Duration::from_millis(self.draw(most + 1) as u64)).await;
    }

    pub(crate) fn trace(&self, line: String) {
        let ms = self.now().ms;
        let mut inner = self.lock();
        assert!(inner.trace.len() < TRACE_MAX, "it never comes to rest: {line}");
        inner.trace.push(format!("{ms:>7} {line}"));
    }

    pub(crate) fn known<T>(&self, look: impl FnOnce(&mut Known) -> T) -> T {
        look(&mut self.lock().known)
    }

    pub(crate) fn stop_faults(&self) {
        self.lock().faults = false;
    }

    pub(crate) fn take(&self) -> (Vec<String>, Vec<Turn>) {
        let mut inner = self.lock();
        (std::mem::take(&mut inner.trace), std::mem::take(&mut inner.log))
    }

    pub(crate) fn token(&self) -> usize {
        self.known(|known| {
            known.tokens += 1;
            assert!(known.tokens < TOKENS, "the simulation needs more tokens");
            known.tokens - 1
        })
    }

    /// One of those by chance, the newest most often.
    pub(crate) fn pick<T: Copy>(&self, list: impl FnOnce(&Known) -> &Vec<T>) -> Option<T> {
        let (one, other) = (self.draw(1_000), self.draw(1_000));
        let inner = self.lock();
        let list = list(&inner.known);
        let back = one.min(other) * list.len() / 1_000;
        list.len().checked_sub(back + 1).map(|at| list[at])
    }

    /// The host, or a session that was attached.
    pub(crate) fn who(&self) -> Who {
        if self.chance(50) {
            return Who::Host;
        }
        self.pick(|known| &known.sessions).map_or(Who::Host, Who::Token)
    }

    /// Logs a turn in its place.
    pub(crate) fn log(&self, call: Call, now: Now, reply: Option<Reply>) {
        self.trace(format!("turn {call:?} => {reply:?}"));
        self.lock().log.push(Turn { call, now, reply });
    }

    /// The turn that carries a call out and logs it.
    pub(crate) fn turn(
        self: &Arc<Self>,
        call: Call,
    ) -> impl FnOnce(&mut EngineState) -> Result<Said, EngineError> + Send + 'static {
        let shared = self.clone();
        move |state| {
            let now = shared.now();
            let reply = carry_out(state, &call, &shared.rules, now);
            shared.log(call, now, Some(reply.clone().map_err(plain)));
            reply
        }
    }
}

/// What comes between the hops.
pub(crate) struct Hops(pub(crate) Arc<Shared>);

impl Between for Hops {
    fn pause(&self, place: &'static str) -> Pause {
        let may_end = ["state", "waiter", "attempt", "session"].contains(&place);
        let faults = may_end && self.0.lock().faults;
        // The state hears much more than the others.
        let ends = if place == "state" { 4 } else { 20 };
        let pause = match self.0.draw(1_000) {
            0..600 => Pause::None,
            600..850 => Pause::Yields(1 + self.0.draw(4) as u32),
            drawn if drawn < 1_000 - ends => {
                Pause::Sleep(Duration::from_millis(1 + self.0.draw(8) as u64))
            }
            _ if faults => Pause::Panic,
            _ => Pause::Sleep(Duration::from_millis(300)),
        };
        self.0.trace(format!("hop {place} {pause:?}"));
        pause
    }

    fn beating(&self, access: Access, now: Now) {
        let who = match access {
            Access::Trusted => Who::Host,
            Access::Token(signed) => Who::Token(self.0.numbers[&signed.fingerprint]),
        };
        self.0.log(Call::Beat { who }, now, None);
    }

    fn finishing(&self, (task, attempt): (TaskId, u32), end: &AttemptEnd, now: Now) {
        let end = match end.clone() {
            AttemptEnd::Done => End::Done,
            AttemptEnd::Failed(reason) => End::Failed(reason),
            AttemptEnd::TimedOut => End::TimedOut,
            AttemptEnd::Interrupted(reason) => End::Interrupted(reason),
        };
        self.0.log(Call::Finish { task, attempt, end }, now, None);
    }

    fn interrupting(&self, reason: &str, now: Now) {
        self.0.log(Call::InterruptAll { reason: reason.to_owned() }, now, None);
    }

    fn sweeping(&self, budget: usize, now: Now) {
        self.0.log(Call::Sweep { budget }, now, None);
    }
}
