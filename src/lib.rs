//! The public engine.
