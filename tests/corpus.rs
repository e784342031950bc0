//! Every kept input of the fuzz targets, as an ordinary test.

#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]
#![cfg(feature = "cli")]

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

#[path = "../fuzz/src/lib.rs"]
pub mod targets;

/// Kept inputs have at most so many bytes together, so that the repository stays small.
const CORPUS_BYTES_MAX: u64 = 1 << 20;

static PANICS: AtomicUsize = AtomicUsize::new(0);

fn inputs(target: &str) -> Vec<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let entries = std::fs::read_dir(folder).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort_unstable();
    paths
}

#[test]
fn every_kept_input_does_no_harm() {
    // A panic in a task of the server's is caught there, and counts all the same.
    let shown = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        PANICS.fetch_add(1, Ordering::SeqCst);
        shown(panic);
    }));
    let mut bytes = 0;
    for (name, check) in targets::TARGETS {
        let paths = inputs(name);
        assert!(paths.len() >= 4, "{name} has only {} kept inputs", paths.len());
        for path in paths {
            let input = std::fs::read(&path).unwrap();
            bytes += input.len() as u64;
            println!("{}", path.display());
            check(&input);
            assert_eq!(PANICS.load(Ordering::SeqCst), 0, "{}", path.display());
        }
    }
    assert!(bytes <= CORPUS_BYTES_MAX, "{bytes} bytes are kept");
}
