//! The server over real sockets, with a real HTTP client and a real child process.
#![expect(clippy::unwrap_used, reason = "a test fails by a panic, in its helpers too")]
#![cfg(feature = "cli")]

mod api;
mod blueprints;
mod child;
mod contract;
mod curl;
mod data;
mod deaf;
mod desk;
mod dispatch;
mod doors;
mod limits;
mod line;
mod links;
mod lists;
mod logins;
mod operators;
mod restart;
mod runs;
mod secrets;
mod sink;
mod streams;
mod swaps;
mod takeover;
mod verbs;
mod workers;
mod works;
