//! The live page in a real browser, with the program behind it.
//!
//! Chromium and its driver must be installed: the packages chromium and chromium-driver of Debian.
#![expect(clippy::unwrap_used, reason = "a test fails by a panic, in its helpers too")]
#![cfg(feature = "cli")]

mod browser;
mod doors;
mod looks;
mod page;
mod served;
