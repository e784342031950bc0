//! The process table as `/proc` shows it: one line of it, all of it, and the boot that it is of.
//! Reads only. Elsewhere than on Linux it knows nothing, so nothing is concluded from it.

/// What the table says of one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) state: char,
    pub(super) group: u32,
    pub(super) session: u32,
    /// Ticks from the boot to its start.
    pub(super) start: u64,
}

impl Entry {
    /// Whether it still runs; the dead wait for their parent to reap them.
    pub(super) fn runs(self) -> bool {
        !matches!(self.state, 'Z' | 'X')
    }

    /// Reads a line of the table. The name before the fields may hold anything, so they start
    /// after its last parenthesis.
    fn parse(stat: &str) -> Option<Self> {
        let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        let group = fields.nth(1)?.parse().ok()?;
        let session = fields.next()?.parse().ok()?;
        let start = fields.nth(15)?.parse().ok()?;
        Some(Self { state, group, session, start })
    }
}

/// The process with this id, if there is one.
pub(super) fn process(id: u32) -> Option<Entry> {
    Entry::parse(&std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?)
}

/// Every process that is in a group; `None` where the table cannot be read.
pub(super) fn members(group: u32) -> Option<Vec<Entry>> {
    let table = std::fs::read_dir("/proc").ok()?;
    let entries = table
        .filter_map(|entry| std::fs::read_to_string(entry.ok()?.path().join("stat")).ok())
        .filter_map(|stat| Entry::parse(&stat));
    Some(entries.filter(|entry| entry.group == group).collect())
}

/// The boot that the ticks count from.
pub(super) fn boot() -> Option<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let line = "12 (a) Z 1) S 7 42 40 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 9876 1000 2";
        let expected = Entry { state: 'S', group: 42, session: 40, start: 9876 };
        assert_eq!(Entry::parse(line), Some(expected));
        assert_eq!(Entry::parse("12 (a) S 7 42 40"), None);
        assert_eq!(Entry::parse(""), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_is_in_the_table() {
        let own = process(std::process::id()).unwrap();
        assert!(own.runs() && own.start > 0);
        assert!(members(own.group).unwrap().contains(&own) || own.group == 0);
        assert_eq!(boot(), boot());
    }
}
