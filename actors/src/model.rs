//! Values: plain data with its checks and its text forms. No I/O, no clock, no async.

pub mod event;
pub mod group;
pub mod ids;
pub mod measure;
pub mod mint;
pub mod output;
pub mod role;
pub mod session;
pub mod task;
pub mod token;
