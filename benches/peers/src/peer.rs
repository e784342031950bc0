//! The peers: what each must be able to do, and what they share so that all do the same work.

use std::future::Future;
use std::sync::Mutex;
use std::time::Duration;

mod actix;
mod adjutant;
mod kameo;
mod mlua_swarm;
mod ractor;

pub(crate) use self::actix::ActixActor;
pub(crate) use self::adjutant::Adjutant;
pub(crate) use self::kameo::KameoActor;
pub(crate) use self::mlua_swarm::MluaSwarm;
pub(crate) use self::ractor::RactorActor;

/// The agent of every task.
pub(crate) const AGENT: &str = "worker";
/// The directive of every task, which its worker gives back as its result.
pub(crate) const DIRECTIVE: &str = "the directive";
/// Settled tasks that are kept, by those who can forget.
pub(crate) const KEPT: usize = 10_000;
/// Tasks that one session starts before another one is attached.
const TASKS_PER_SESSION: u64 = 128;
/// Tasks that the one session of [`Work::Owned`] owns before anything is measured.
const OWNED: usize = 10_000;
const DAY: Duration = Duration::from_secs(24 * 3600);

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// A trivial question to the state, with its answer.
    Turns,
    /// A task from start to pass; sessions are renewed.
    Lifecycle,
    /// The same under one session that already owns many tasks.
    Owned,
}

/// One contender, alive for one round. A clone is another caller's handle to the same one.
pub(crate) trait Peer: Clone + Send + Sync + 'static {
    /// Its name in the table.
    const NAME: &'static str;
    /// What [`Self::lifecycle`] is, where it is not a lifecycle.
    const FLOOR: bool;

    /// Starts it, ready for this work.
    fn start(work: Work) -> impl Future<Output = Self> + Send;

    /// One trivial question, before any task was started; whether it was served.
    fn turn(&self) -> impl Future<Output = bool> + Send;

    /// One task from start to pass, or as many messages; whether all of it was served.
    fn lifecycle(&self) -> impl Future<Output = bool> + Send;

    /// Ends it, so that nothing of it runs in the next contender's round.
    fn stop(self) -> impl Future<Output = ()> + Send;
}

/// The session that the callers of an engine share, and when another one is due.
struct Session<T> {
    current: Mutex<(T, u64)>,
    renewed: bool,
}

impl<T: Clone> Session<T> {
    fn new(token: T, work: Work) -> Self {
        Self { current: Mutex::new((token, 0)), renewed: work == Work::Lifecycle }
    }

    /// The token for one more task; `None` for the one caller who is to attach a session first.
    /// Meanwhile the others go on with the present one, so that nobody waits for that.
    fn next(&self) -> Option<T> {
        let mut current = self.current.lock().expect("no holder panics");
        if self.renewed && current.1 == TASKS_PER_SESSION {
            current.1 = 0;
            return None;
        }
        current.1 += 1;
        Some(current.0.clone())
    }

    /// The next tasks belong to this session.
    fn renew(&self, token: T) {
        *self.current.lock().expect("no holder panics") = (token, 1);
    }

    /// The attach was refused: the next caller is to try.
    fn not_renewed(&self) {
        self.current.lock().expect("no holder panics").1 = TASKS_PER_SESSION;
    }
}
