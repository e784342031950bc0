//! Real children: hostile ones and well-behaved ones. A binary of its own, because it counts
//! this process's children and open descriptors; its tests take turns for the same reason.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

mod census;
mod handing_over;
mod hostile;
#[cfg(feature = "store")]
mod left;
mod running;
mod spawning;
