//! Behavior of the public engine: one binary, a module a theme, worlds from `world`.

#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

mod dispatching;
mod public_api;
mod world;
