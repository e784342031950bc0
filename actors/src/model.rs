//! Values: plain data with its checks and its text forms. No I/O, no clock, no async.

pub mod ids;
pub mod mint;
pub mod output;
pub mod role;
pub mod token;
