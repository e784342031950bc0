//! Process groups that a dead engine left behind: told from later ones with the same number, asked
//! to end, and killed. Blocks; it is for a thread of its own, before an engine takes up work.
//!
//! In doubt a group is left alone. The number of a group is free for others only when no member is
//! left, so a leader that started at the remembered time, in the remembered boot, proves that the
//! whole group is the remembered one. Where the leader is gone and members are left, all of them
//! must be in the remembered session and have started no earlier than it.

use std::time::Duration;

use adjutant_actors::model::group::ProcessGroup;

use super::group::{Group, Left};
use super::table;

/// Pause between two looks at what was asked to end.
const PAUSE: Duration = Duration::from_millis(5);

/// Looks that killed members get to die in; only the kernel can hold them up.
const DEATH_LOOKS: u32 = 200;

/// What identifies the group that a child leads; `None` where the system does not tell.
pub(super) fn identify(leader: u32) -> Option<ProcessGroup> {
    let entry = table::process(leader)?;
    let boot = table::boot()?.into();
    Some(ProcessGroup { number: leader, session: entry.session, start: entry.start, boot })
}

/// The group, if it is still the remembered one and anything in it runs.
fn same(left: &ProcessGroup, boot: &str) -> Option<Group> {
    if *left.boot != *boot {
        return None;
    }
    let group = Group::of_leader(left.number)?;
    let members = table::members(left.number)?;
    let known = match table::process(left.number) {
        Some(leader) => leader.start == left.start && leader.group == left.number,
        None => members
            .iter()
            .all(|member| member.session == left.session && member.start >= left.start),
    };
    (known && members.iter().any(|member| member.runs())).then_some(group)
}

/// Ends the groups that are still there: asks them, gives them `grace` together, kills the rest.
/// Returns how many there were.
pub(crate) fn end_left(groups: &[ProcessGroup], grace: Duration) -> usize {
    let Some(boot) = table::boot() else { return 0 };
    let mut there: Vec<&ProcessGroup> = Vec::new();
    for left in groups {
        if let Some(group) = same(left, &boot)
            && group.ask_to_end() == Left::Members
        {
            there.push(left);
        }
    }
    let count = there.len();
    let looks = u32::try_from(grace.as_millis() / PAUSE.as_millis()).unwrap_or(u32::MAX);
    wait(&mut there, looks, |left| same(left, &boot));
    // Looked at again before each kill: the number may have become free meanwhile.
    wait(&mut there, DEATH_LOOKS, |left| {
        same(left, &boot).filter(|group| group.kill() == Left::Members)
    });
    if !there.is_empty() {
        tracing::warn!(groups = there.len(), "process groups of a dead engine do not die");
    }
    count
}

/// Looks until none is left, at most `looks` times after the first.
fn wait(
    there: &mut Vec<&ProcessGroup>,
    looks: u32,
    reach: impl Fn(&ProcessGroup) -> Option<Group>,
) {
    for _ in 0..=looks {
        there.retain(|left| reach(left).is_some());
        if there.is_empty() {
            return;
        }
        std::thread::sleep(PAUSE);
    }
}
