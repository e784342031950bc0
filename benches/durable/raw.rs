//! What the disk allows: appends to a bare file, flushed alone or in groups by a thread.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::harness::{nanos, quantile};

/// A file that a thread appends to: all that has queued is written and flushed at once, then
/// everybody is told. No store that flushes can be faster with the same bytes and waits.
#[derive(Clone)]
pub(crate) struct RawLog {
    records: mpsc::Sender<(usize, oneshot::Sender<()>)>,
}

impl RawLog {
    pub(crate) fn create(path: &Path) -> Self {
        let mut file = File::create(path).expect("the place can be written");
        let (records, queued) = mpsc::channel::<(usize, oneshot::Sender<()>)>();
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            while let Ok(first) = queued.recv() {
                let mut told = vec![first];
                told.extend(queued.try_iter());
                bytes.clear();
                bytes.resize(told.iter().map(|(size, _)| size).sum(), 7_u8);
                file.write_all(&bytes).expect("the file is written");
                file.sync_data().expect("the file is flushed");
                for (_, told) in told {
                    let _ = told.send(());
                }
            }
        });
        Self { records }
    }

    /// As many records after each other as a lifecycle has changes, of as many bytes in all.
    pub(crate) async fn lifecycle(self, bytes: usize, changes: usize) -> bool {
        for _ in 0..changes {
            let (tell, told) = oneshot::channel();
            if self.records.send((bytes / changes, tell)).is_err() || told.await.is_err() {
                return false;
            }
        }
        true
    }
}

/// Appends with a flush each, one after the other: how long each takes, in microseconds.
pub(crate) struct Flushes(Vec<f64>);

impl Flushes {
    pub(crate) fn measure(path: &Path, bytes: usize, time: Duration) -> Self {
        let mut file = File::create(path).expect("the place can be written");
        let (record, start, mut took) = (vec![7_u8; bytes], Instant::now(), Vec::new());
        while start.elapsed() < time {
            let before = Instant::now();
            file.write_all(&record).expect("the file is written");
            file.sync_data().expect("the file is flushed");
            took.push(crate::harness::float(nanos(before.elapsed())) / 1e3);
        }
        Self(took)
    }

    pub(crate) fn append(&mut self, mut other: Self) {
        self.0.append(&mut other.0);
    }

    pub(crate) fn quantile(&self, part: f64) -> f64 {
        quantile(self.0.clone(), part)
    }

    pub(crate) fn mean(&self) -> f64 {
        self.0.iter().sum::<f64>() / crate::harness::many(self.0.len())
    }
}

/// Bytes that this process has sent towards the disk; `None` where the system does not say.
pub(crate) fn sent_to_disk() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/io").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("write_bytes: "))?;
    line.parse().ok()
}

/// Bytes of the files in a folder.
pub(crate) fn folder_bytes(path: &Path) -> u64 {
    let entries = std::fs::read_dir(path).expect("the folder is there");
    entries.map(|entry| entry.and_then(|it| it.metadata()).map_or(0, |data| data.len())).sum()
}
