//! Behavior of the public engine: one binary, a module a theme, worlds from `world`.

#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

mod cancel;
mod clocks;
mod dispatching;
mod events;
mod faulty;
mod keys;
mod layers;
mod limits;
#[cfg(feature = "cli")]
mod logs;
mod mailboxes;
mod matrix;
mod output_store;
mod public_api;
mod questions;
mod races;
mod rights;
mod runs;
mod secrets;
mod sessions;
mod supervised;
mod supervision;
mod tokens;
mod trees;
mod turns;
mod waiting;
mod world;
