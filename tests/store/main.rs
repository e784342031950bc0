//! The embedded store: the journal's suite, damaged files, full disks, second holders, and what
//! people see who open the database.

#![cfg(feature = "store")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use adjutant::journal::conformance::{Place, World, append, run};
use adjutant::journal::{Journal, JournalError, restore};
use adjutant::store::{Durability, SqliteStore, StoreCfg};

mod busy;
mod damage;
mod keys;
mod kill;
mod limits;
mod looks;
mod runs;
mod secrets;

/// A store in a folder that goes away with it.
pub(crate) struct Folder {
    dir: tempfile::TempDir,
    cfg: StoreCfg,
}

impl Folder {
    pub(crate) fn new(cfg: StoreCfg) -> Self {
        Self { dir: tempfile::tempdir().unwrap(), cfg }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    pub(crate) fn store(&self) -> Result<SqliteStore, JournalError> {
        SqliteStore::open(self.path(), self.cfg)
    }

    /// A copy of the files, as a kill at this moment leaves them.
    /// The copy lies in memory where there is such a place, since nothing more happens to its disk.
    pub(crate) fn copied(&self) -> Self {
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let copy = Self { dir, cfg: self.cfg };
        std::fs::create_dir(copy.path()).unwrap();
        for name in ["store.db", "store.db-wal", "secret"] {
            let from = self.path().join(name);
            if from.exists() {
                std::fs::copy(from, copy.path().join(name)).unwrap();
            }
        }
        copy
    }
}

impl Place for Folder {
    fn open(&self) -> Result<Arc<dyn Journal>, JournalError> {
        Ok(Arc::new(self.store()?))
    }

    fn crashed(&self) -> Box<dyn Place> {
        Box::new(self.copied())
    }
}

/// Writes batches of a fresh world into a store and waits until each is safe.
pub(crate) fn written(store: &SqliteStore, seed: u64, batches: u64) -> World {
    let mut world = World::new(seed);
    restore(store, World::rules()).unwrap();
    world.epoch = store.lead().unwrap();
    for _ in 0..batches {
        append(store, world.batch()).unwrap();
    }
    world
}

/// The database of a store, for a look or a blow behind its back.
pub(crate) fn database(path: &Path) -> PathBuf {
    path.join("store.db")
}

#[test]
fn the_store_keeps_the_contract() {
    run(&|| Box::new(Folder::new(StoreCfg::default())));
}

#[test]
fn a_store_that_is_not_flushed_keeps_the_contract_of_a_process_that_dies() {
    let every = std::time::Duration::from_millis(5);
    for durability in [Durability::Interval(every), Durability::None] {
        let cfg = StoreCfg { durability, ..StoreCfg::default() };
        run(&move || Box::new(Folder::new(cfg)));
    }
}

#[test]
fn a_store_that_folds_and_checkpoints_all_the_time_keeps_the_contract() {
    // A copy of the files is no honest crash while a checkpoint moves pages, so the cases that
    // copy under load run with the checkpoints off.
    let cfg = StoreCfg { fold_bytes: 0, ..StoreCfg::default() };
    run(&move || Box::new(Folder::new(cfg)));
}

#[test]
fn a_store_that_checkpoints_all_the_time_comes_back_whole() {
    let cfg = StoreCfg { fold_bytes: 4096, checkpoint_bytes: 4096, ..StoreCfg::default() };
    let folder = Folder::new(cfg);
    let store = folder.store().unwrap();
    let world = written(&store, 11, 300);
    drop(store);
    let store = folder.store().unwrap();
    let last = adjutant::journal::conformance::check_prefix(&store, &world, 300);
    assert_eq!(last, 300);
}
