//! Hops: the places where a message waits its turn, for a simulation to come between.
//!
//! In an engine that serves there is nothing here: each function is empty. With the feature
//! `simulation`, a thread may install a [`Between`], which says at each hop how long it takes and
//! is told of the turns that the engine brings by itself, in the order of the turns.

#[cfg(not(feature = "simulation"))]
use crate::state::{attempts::AttemptEnd, auth::Access, effect::Now};

#[cfg(feature = "simulation")]
pub use simulated::{Between, Pause, install};
#[cfg(feature = "simulation")]
pub(crate) use simulated::{beating, finishing, hop, interrupting, sweeping};

/// A message is about to be heard, or a caller to go on, at this place.
#[cfg(not(feature = "simulation"))]
pub(crate) async fn hop(_place: &'static str) {}

/// A turn takes a heartbeat.
#[cfg(not(feature = "simulation"))]
pub(crate) fn beating(_access: Access, _now: Now) {}

/// A turn ends an attempt.
#[cfg(not(feature = "simulation"))]
pub(crate) fn finishing(_place: (crate::model::ids::TaskId, u32), _end: &AttemptEnd, _now: Now) {}

/// A turn, or a burial, ends every live attempt.
#[cfg(not(feature = "simulation"))]
pub(crate) fn interrupting(_reason: &str, _now: Now) {}

/// A turn sweeps.
#[cfg(not(feature = "simulation"))]
pub(crate) fn sweeping(_budget: usize, _now: Now) {}

#[cfg(feature = "simulation")]
mod simulated {
    use std::cell::RefCell;
    use std::rc::Rc;
    use std::time::Duration;

    use crate::model::ids::TaskId;
    use crate::state::attempts::AttemptEnd;
    use crate::state::auth::Access;
    use crate::state::effect::Now;

    /// How long a hop takes.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Pause {
        /// No time.
        None,
        /// So many rounds of the scheduler.
        Yields(u32),
        /// So much of the runtime's time.
        Sleep(Duration),
        /// It never ends: whoever hops there panics.
        Panic,
    }

    /// What comes between two hops of the actors that run on its thread.
    pub trait Between {
        /// How long this hop takes.
        fn pause(&self, place: &'static str) -> Pause;
        /// A turn takes a heartbeat.
        fn beating(&self, access: Access, now: Now);
        /// A turn ends an attempt.
        fn finishing(&self, place: (TaskId, u32), end: &AttemptEnd, now: Now);
        /// A turn, or a burial, ends every live attempt.
        fn interrupting(&self, reason: &str, now: Now);
        /// A turn sweeps.
        fn sweeping(&self, budget: usize, now: Now);
    }

    thread_local! {
        static BETWEEN: RefCell<Option<Rc<dyn Between>>> = const { RefCell::new(None) };
    }

    /// Comes between all hops on this thread from now on; `None` takes it away.
    ///
    /// ```
    /// use adjutant_actors::hop::{Between, Pause, install};
    /// use adjutant_actors::model::ids::TaskId;
    /// use adjutant_actors::state::{attempts::AttemptEnd, auth::Access, effect::Now};
    ///
    /// /// Lets every hop take one more round of the scheduler.
    /// struct Late;
    ///
    /// impl Between for Late {
    ///     fn pause(&self, _place: &'static str) -> Pause { Pause::Yields(1) }
    ///     fn beating(&self, _: Access, _: Now) {}
    ///     fn finishing(&self, _: (TaskId, u32), _: &AttemptEnd, _: Now) {}
    ///     fn interrupting(&self, _: &str, _: Now) {}
    ///     fn sweeping(&self, _: usize, _: Now) {}
    /// }
    ///
    /// install(Some(std::rc::Rc::new(Late)));
    /// install(None);
    /// ```
    pub fn install(between: Option<Rc<dyn Between>>) {
        BETWEEN.set(between);
    }

    fn between<T>(say: impl FnOnce(&dyn Between) -> T) -> Option<T> {
        let between = BETWEEN.with_borrow(Clone::clone);
        between.map(|between| say(&*between))
    }

    pub(crate) async fn hop(place: &'static str) {
        match between(|between| between.pause(place)).unwrap_or(Pause::None) {
            Pause::None => {}
            Pause::Yields(rounds) => {
                for _ in 0..rounds {
                    tokio::task::yield_now().await;
                }
            }
            Pause::Sleep(time) => tokio::time::sleep(time).await,
            Pause::Panic => panic!("the simulation ends it at {place}"),
        }
    }

    pub(crate) fn beating(access: Access, now: Now) {
        between(|between| between.beating(access, now));
    }

    pub(crate) fn finishing(place: (TaskId, u32), end: &AttemptEnd, now: Now) {
        between(|between| between.finishing(place, end, now));
    }

    pub(crate) fn interrupting(reason: &str, now: Now) {
        between(|between| between.interrupting(reason, now));
    }

    pub(crate) fn sweeping(budget: usize, now: Now) {
        between(|between| between.sweeping(budget, now));
    }
}
