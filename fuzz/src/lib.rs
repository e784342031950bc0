//! What is fuzzed: each part reads bytes that a stranger may send, and says what must hold then.
//!
//! `fuzz_targets/` gives these functions to libFuzzer, `tests/corpus.rs` runs every kept input
//! through them. They use the public parts of the packages only, and fail by a panic.

mod attempt;
pub mod blueprint;
mod desk;
pub mod events;
pub mod http;
pub mod journal;
pub mod link;
pub mod names;
pub mod streams;
pub mod token;

/// What is done with an input.
pub type Check = fn(&[u8]);

/// Each target with the name of its corpus.
pub const TARGETS: [(&str, Check); 8] = [
    ("blueprint", blueprint::check),
    ("events", events::check),
    ("http", http::check),
    ("journal", journal::check),
    ("link", link::check),
    ("names", names::check),
    ("streams", streams::check),
    ("token", token::check),
];
