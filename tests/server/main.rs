//! The server over real sockets, with a real HTTP client and a real child process.
#![expect(clippy::unwrap_used, reason = "a test fails by a panic, in its helpers too")]
#![cfg(feature = "cli")]

mod api;
mod child;
mod desk;
mod doors;
mod runs;
mod streams;
mod verbs;
mod workers;
mod works;
