//! Behavior of the public engine: one binary, a module a theme, worlds from `world`.

#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

mod cancel;
mod dispatching;
mod faulty;
mod layers;
mod output_store;
mod public_api;
mod supervision;
mod world;
