//! What this process has: children, descriptors, and anything alive that carries a mark in its
//! environment. Each count is waited for with a deadline, never slept for.

use std::fs;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::time::{Instant, sleep};

static TURN: Mutex<()> = Mutex::new(());

/// Runs one test at a time, each with a runtime of two threads that is there only meanwhile: a
/// runtime has descriptors of its own.
pub(crate) fn alone(test: impl Future<Output = ()>) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(test);
}

/// States of this process's children, `Z` for those that died and were not reaped.
pub(crate) fn children() -> Vec<char> {
    let own = std::process::id().to_string();
    stats().filter(|stat| stat.get(1) == Some(&own)).filter_map(|s| s[0].chars().next()).collect()
}

fn stats() -> impl Iterator<Item = Vec<String>> {
    let table = fs::read_dir("/proc").unwrap();
    table.filter_map(|entry| {
        let stat = fs::read_to_string(entry.ok()?.path().join("stat")).ok()?;
        Some(stat[stat.rfind(')')? + 1..].split_whitespace().map(String::from).collect())
    })
}

pub(crate) fn open_descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Live processes whose environment holds `mark`, whatever their parent, group or session is.
pub(crate) fn marked(mark: &str) -> usize {
    let table = fs::read_dir("/proc").unwrap();
    let environs = table.filter_map(|entry| fs::read(entry.ok()?.path().join("environ")).ok());
    environs.filter(|environ| environ.windows(mark.len()).any(|w| w == mark.as_bytes())).count()
}

/// Waits until `condition` holds, and says what did not come about.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "not within 10 s: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}
