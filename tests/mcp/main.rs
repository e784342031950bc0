//! The server of the Model Context Protocol, driven by two real clients over its two ways in.
#![expect(clippy::unwrap_used, reason = "a test fails by a panic, in its helpers too")]
#![cfg(feature = "mcp")]

mod bridge;
#[path = "../server/desk.rs"]
#[expect(dead_code, reason = "the other tests of the server use the rest of it")]
mod desk;
mod doors;
mod python;
mod rust;
mod settings;
