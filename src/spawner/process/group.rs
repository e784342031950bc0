//! A process group, seen from outside: signals to all of it, and whether anything in it still
//! runs. It never names group 0 or 1 nor the group of this process.
//!
//! A group's number stays taken while any member, dead or alive, is left. Once it was seen
//! empty the number may be given to strangers, so whoever sees it empty must forget it.

use rustix::io::Errno;
use rustix::process::{Pid, Signal, getpgrp, kill_process_group, test_kill_process_group};

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
        let Ok(table) = std::fs::read_dir("/proc") else { return true };
        let wanted = self.0.as_raw_nonzero().get();
        table
            .filter_map(|entry| std::fs::read_to_string(entry.ok()?.path().join("stat")).ok())
            .filter_map(|stat| state_and_group(&stat))
            .any(|(state, group)| group == wanted && !matches!(state, 'Z' | 'X'))
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

/// State and group from a line of the process table. The name before them may hold anything, so
/// the fields start after its last parenthesis.
#[cfg(target_os = "linux")]
fn state_and_group(stat: &str) -> Option<(char, i32)> {
    let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let group = fields.nth(1)?.parse().ok()?;
    Some((state, group))
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

    #[cfg(target_os = "linux")]
    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        assert_eq!(state_and_group("12 (a) Z 1) S 7 42 42 0"), Some(('S', 42)));
        assert_eq!(state_and_group(""), None);
    }
}
