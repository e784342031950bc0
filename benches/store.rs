//! The store beside what the disk allows: durable batches a second against a raw append of the
//! same bytes with the same grouping, and disk use. What an engine on it does is in `durable.rs`.

#![expect(clippy::unwrap_used, reason = "a bench fails by panicking")]
#![expect(clippy::print_stdout, reason = "a bench prints what it measured")]

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::mpsc;

use adjutant::EngineCfg;
use adjutant::journal::{Batch, Journal, frame, restore};
use adjutant::store::{SqliteStore, StoreCfg};
use adjutant_actors::state::Rules;
use tokio::time::Instant;

#[path = "flow.rs"]
mod flow;

use flow::Flow;

fn folder_bytes(path: &Path) -> u64 {
    std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
}

/// Appends batches of one lifecycle with `flight` on their way; beside it, the same frames to a
/// file, flushed in the same groups.
fn commits(flight: usize, count: usize) {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(dir.path().join("store"), StoreCfg::default()).unwrap();
    let mut flow = Flow::new();
    restore(&store, Rules::from(&EngineCfg::default())).unwrap();
    flow.epoch = store.lead().unwrap();
    let batches: Vec<Batch> = (0..count).map(|_| flow.batch(1, 1)).collect();
    let mut frames = Vec::new();
    for batch in &batches {
        let mut out = Vec::new();
        frame::write(batch, |_| true, &mut out).unwrap();
        frames.push(out);
    }
    let bytes: usize = frames.iter().map(Vec::len).sum();

    let mut raw = File::create(dir.path().join("raw")).unwrap();
    let start = Instant::now();
    for group in frames.chunks(flight) {
        for frame in group {
            raw.write_all(frame).unwrap();
        }
        raw.sync_data().unwrap();
    }
    let raw = count as f64 / start.elapsed().as_secs_f64();

    let (tell, told) = mpsc::channel();
    let start = Instant::now();
    let mut waits = Vec::with_capacity(count);
    for (at, batch) in batches.into_iter().enumerate() {
        if at >= flight {
            waits.push(told.recv().unwrap());
        }
        let (tell, sent) = (tell.clone(), Instant::now());
        store.append(
            batch,
            Box::new(move |result| {
                result.unwrap();
                let _ = tell.send(sent.elapsed());
            }),
        );
    }
    store.flush().unwrap();
    let took = count as f64 / start.elapsed().as_secs_f64();
    waits.sort_unstable();
    let at = |share: f64| waits[((waits.len() - 1) as f64 * share) as usize];
    store.close().unwrap();
    let disk = folder_bytes(&dir.path().join("store"));
    println!(
        "{flight:>4} on their way: {took:>8.0} lifecycles/s, raw append {raw:>8.0}, ratio {:.2}, \
         p50 {:?}, p99 {:?}, frame {} B, disk {} B per lifecycle",
        took / raw,
        at(0.5),
        at(0.99),
        bytes / count,
        disk / count as u64,
    );
}

fn main() {
    for (flight, count) in [(1, 1_000), (16, 8_000), (64, 16_000), (256, 24_000)] {
        commits(flight, count);
    }
}
