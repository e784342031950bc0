//! A process group as it is remembered: its number, and what tells it from a later one that was
//! given the same number. Plain values; whoever starts processes knows how to read them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A process group that works for an attempt.
///
/// ```
/// use adjutant_actors::model::group::ProcessGroup;
///
/// let group = ProcessGroup { number: 4711, session: 12, start: 99, boot: "one boot".into() };
/// let later = ProcessGroup { boot: "the next boot".into(), ..group.clone() };
/// assert_ne!(group, later); // the same number, and another process
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessGroup {
    /// Its number, which is the id of the process that leads it.
    pub number: u32,
    /// The session that it is in.
    pub session: u32,
    /// When its leader started, in the system's ticks since it booted.
    pub start: u64,
    /// Which boot of the system that was.
    pub boot: Arc<str>,
}
