//! A process group, seen from outside: signals to all of it, and whether anything in it still
//! runs. It never names group 0 or 1 nor the group of this process.
//!
//! A group's number stays taken while any member, dead or alive, is left. Once it was seen
//! empty the number may be given to strangers, so whoever sees it empty must forget it.

use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, getpgrp, kill_process, kill_process_group, test_kill_process_group,
};

#[cfg(target_os = "linux")]
use super::table;

/// The number of a group that this process made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Group(Pid);

/// What is left of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    /// Nothing: the number is free.
    Nothing,
    /// Something that may still run.
    Members,
}

impl Group {
    /// The group that a child leads; `None` for numbers that must never be signaled.
    pub(super) fn of_leader(id: u32) -> Option<Self> {
        let pid = Pid::from_raw(i32::try_from(id).ok()?)?;
        (!pid.is_init() && pid != getpgrp()).then_some(Self(pid))
    }

    /// Asks every member to end, stopped ones too.
    pub(super) fn ask_to_end(self) -> Left {
        let left = left(kill_process_group(self.0, Signal::TERM));
        let _ = kill_process_group(self.0, Signal::CONT);
        left
    }

    /// Holds the leader up until [`Self::go_on`]. Only the leader: a member that is being forked
    /// while the two signals go to the whole group may keep the first and miss the second. The
    /// number must still be the leader's, which it is until the leader was reaped.
    pub(super) fn hold_leader(self) {
        let _ = kill_process(self.0, Signal::STOP);
    }

    /// Lets a held leader go on.
    pub(super) fn go_on(self) {
        let _ = kill_process(self.0, Signal::CONT);
    }

    pub(super) fn kill(self) -> Left {
        left(kill_process_group(self.0, Signal::KILL))
    }

    /// Whether any member is left, without reaching for it.
    pub(super) fn look(self) -> Left {
        left(test_kill_process_group(self.0))
    }

    /// Whether a member still runs. Members that are dead but not yet reaped by their parent do
    /// not count, so this reads the process table: not for a runtime's own threads.
    #[cfg(target_os = "linux")]
    pub(super) fn running(self) -> bool {
        let wanted = u32::try_from(self.0.as_raw_nonzero().get()).unwrap_or(0);
        table::members(wanted).is_none_or(|members| members.iter().any(|member| member.runs()))
    }

    /// Whether a member is left; no portable way tells the dead ones apart.
    #[cfg(not(target_os = "linux"))]
    pub(super) fn running(self) -> bool {
        self.look() == Left::Members
    }
}

/// Members of another user cannot be signaled but are there.
fn left(signaled: Result<(), Errno>) -> Left {
    if signaled == Err(Errno::SRCH) { Left::Nothing } else { Left::Members }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_group_of_others_is_ever_named() {
        let own = u32::try_from(getpgrp().as_raw_nonzero().get()).unwrap();
        for id in [0, 1, u32::MAX, own] {
            assert!(Group::of_leader(id).is_none(), "{id}");
        }
    }
}
