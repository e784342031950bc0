//! How all links stand together, and what is counted of them, for the metrics and the doctor.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::server::links::Links;

/// How many links there are, by how they stand.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standings {
    pub(crate) connected: u64,
    pub(crate) away: u64,
    pub(crate) parked: u64,
    pub(crate) unanswered: u64,
}

impl Links {
    /// How the links stand, all together.
    pub(crate) fn standings(&self) -> Standings {
        let mut sum = Standings::default();
        for login in self.table().logins.values() {
            let standing = login.link.standing();
            if standing.connected {
                sum.connected += 1;
            } else {
                sum.away += 1;
            }
            sum.parked += standing.parked as u64;
            sum.unanswered += standing.unanswered as u64;
        }
        sum
    }

    /// Name, meaning and value of every counter.
    pub(crate) fn counters(&self) -> [(&'static str, &'static str, u64); 6] {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counts = &self.counts;
        [
            ("operator_swaps_total", "Sockets that took another's place.", read(&counts.swaps)),
            (
                "operators_taken_over_total",
                "Logins whose roles another took.",
                read(&counts.taken_over),
            ),
            ("operators_torn_down_total", "Links that were torn down.", read(&counts.torn_down)),
            (
                "operator_silent_sockets_total",
                "Sockets given up for silence.",
                read(&counts.silent),
            ),
            (
                "operator_dropped_replies_total",
                "Replies that settled nothing.",
                read(&counts.dropped_replies),
            ),
            (
                "operator_refused_frames_total",
                "Frames that a full link did not take.",
                read(&counts.refused_frames),
            ),
        ]
    }
}
