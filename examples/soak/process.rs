//! What the operating system says of this process: its memory, descriptors and children.

use std::fs;
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// The memory at a moment.
pub(crate) struct Sample {
    pub(crate) seconds: f64,
    pub(crate) bytes: u64,
}

/// Samples that are taken in all.
const SAMPLES: u32 = 240;

/// Memory that is resident, in bytes.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
    kib.unwrap_or(0_u64) * 1024
}

pub(crate) fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

/// Processes whose parent this one is, dead ones that nobody waited for among them.
pub(crate) fn children() -> usize {
    let threads = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let of = |thread: fs::DirEntry| fs::read_to_string(thread.path().join("children"));
    threads.filter_map(|thread| of(thread).ok()).map(|ids| ids.split_whitespace().count()).sum()
}

/// Waits for a time and takes samples of the memory meanwhile.
pub(crate) async fn watch(time: Duration) -> Vec<Sample> {
    let begun = Instant::now();
    let mut samples = Vec::new();
    while begun.elapsed() < time {
        sleep((time / SAMPLES).max(Duration::from_millis(20))).await;
        samples.push(Sample { seconds: begun.elapsed().as_secs_f64(), bytes: resident() });
    }
    samples
}

/// By how many bytes a minute the memory grows over the second half, by least squares.
pub(crate) fn slope(samples: &[Sample]) -> f64 {
    let half = samples.get(samples.len() / 2..).unwrap_or_default();
    let count = half.len() as f64;
    if count < 2.0 {
        return 0.0;
    }
    let mean = |of: fn(&Sample) -> f64| half.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|sample| sample.seconds), mean(|sample| sample.bytes as f64));
    let over: f64 = half.iter().map(|one| (one.seconds - x) * (one.bytes as f64 - y)).sum();
    let under: f64 = half.iter().map(|one| (one.seconds - x).powi(2)).sum();
    60.0 * over / under
}
