//! Engines that outlive their process: nothing is heard before it is safe, everything that was
//! heard comes back, and a journal that fails stops the engine.

#![cfg(feature = "store")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod crash;
mod failing;
mod history;
mod recovery;
mod release;
mod wake;
mod world;
