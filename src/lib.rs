//! The public engine.

pub mod blueprint;
