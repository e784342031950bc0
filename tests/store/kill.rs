//! A writer that is killed at any moment: what it was told is safe is there, as it was.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use adjutant::journal::conformance::{World, check_prefix};
use adjutant::journal::{Journal, restore};
use adjutant::store::{SqliteStore, StoreCfg};

use crate::Folder;

const PLACE: &str = "ADJUTANT_TEST_KILLED_STORE";
const SEED: &str = "ADJUTANT_TEST_KILLED_SEED";
const ROUNDS: u64 = 24;
/// Batches that are on their way at any time.
const IN_FLIGHT: u64 = 4;

/// Folds and checkpoints often, so that kills meet these too.
fn cfg() -> StoreCfg {
    StoreCfg { fold_bytes: 64 << 10, checkpoint_bytes: 256 << 10, ..StoreCfg::default() }
}

#[test]
fn a_writer_in_a_process_of_its_own() {
    let Some(place) = std::env::var_os(PLACE) else { return };
    let seed = std::env::var(SEED).unwrap().parse().unwrap();
    let store = SqliteStore::open(place, cfg()).unwrap();
    restore(&store, World::rules()).unwrap();
    let mut world = World::new(seed);
    world.epoch = store.lead().unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    // More than the parent lets it write.
    for number in 1..100_000 {
        if number > IN_FLIGHT {
            told.recv().unwrap();
        }
        let tell = tell.clone();
        store.append(
            world.batch(),
            Box::new(move |result| {
                result.unwrap();
                let mut out = std::io::stdout().lock();
                writeln!(out, "safe {number}").unwrap();
                out.flush().unwrap();
                let _ = tell.send(());
            }),
        );
    }
}

#[test]
fn what_was_called_safe_before_a_kill_is_there_after_it() {
    for round in 0..ROUNDS {
        let folder = Folder::new(cfg());
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "kill::a_writer_in_a_process_of_its_own", "--nocapture"])
            .env(PLACE, folder.path())
            .env(SEED, round.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let told = lines.map_while(Result::ok);
        let mut told = told.filter_map(|line| line.strip_prefix("safe ")?.parse::<u64>().ok());
        let enough = 1 + round * 7;
        let reached = told.find(|number| *number >= enough).expect("the writer gets that far");
        child.kill().unwrap();
        let safe = told.last().unwrap_or(reached);
        child.wait().unwrap();
        let mut world = World::new(round);
        for _ in 0..safe + 2 * IN_FLIGHT {
            world.batch();
        }
        let store = folder.store().unwrap();
        let last = check_prefix(&store, &world, safe);
        assert!(last <= safe + IN_FLIGHT, "round {round}: {last} after {safe}");
    }
}
