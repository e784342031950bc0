//! Torn and damaged files: whatever is cut or bent, an opening gives whole batches or says what is
//! wrong, and never something that was not written.

use std::fs;
use std::path::Path;

use adjutant::journal::conformance::{World, rows_of};
use adjutant::journal::{Journal, JournalError, restore};
use adjutant::store::{SqliteStore, StoreCfg};

use crate::{Folder, database, written};

const WAL_HEADER: u64 = 32;
const WAL_FRAME: u64 = 24 + 4096;

/// What came of opening a store behind whose back something was done.
#[derive(Debug, PartialEq)]
enum Fate {
    /// Exactly what this batch left.
    Batch(u64),
    /// Some rows were set aside, the rest came back.
    Aside,
    /// It was refused, with a reason.
    Refused,
}

/// Opens and loads; fails where what comes back was never so and nothing was said of it.
fn fate(path: &Path, world: &World, context: &str) -> Fate {
    let opened = SqliteStore::open(path, StoreCfg::default())
        .and_then(|store| restore(&store, World::rules()).map(|restored| (store, restored)));
    let (store, restored) = match opened {
        Ok(opened) => opened,
        Err(error @ (JournalError::Damaged { .. } | JournalError::Unusable { .. })) => {
            assert!(error.to_string().len() > 40, "{context}: {error}");
            return Fate::Refused;
        }
        Err(error @ JournalError::Failed(_)) => panic!("{context}: failed by itself: {error}"),
        Err(JournalError::TooNew { .. }) => return Fate::Refused,
        Err(error) => panic!("{context}: {error}"),
    };
    restored.state.audit().unwrap_or_else(|broken| panic!("{context}: {broken}"));
    drop(store);
    if !restored.head.set_aside.is_empty() {
        return Fate::Aside;
    }
    let last = restored.head.last_batch;
    let (rows, mark) = world.outcome(last);
    assert!(rows_of(&restored.state) == rows, "{context}: not what batch {last} left");
    assert_eq!(restored.head.mark, mark, "{context}");
    Fate::Batch(last)
}

/// A store as a kill leaves it: everything still in the write-ahead log.
fn torn_store(batches: u64) -> (Folder, World) {
    let cfg = StoreCfg { checkpoint_bytes: u64::MAX, ..StoreCfg::default() };
    let folder = Folder::new(cfg);
    let store = folder.store().unwrap();
    let world = written(&store, 21, batches);
    let copy = folder.copied();
    drop(store);
    (copy, world)
}

/// Numbers from a seed.
fn numbers(mut seed: u64) -> impl FnMut(u64) -> u64 {
    move |end| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed >> 11) % end
    }
}

fn cut(folder: &Folder, name: &str, len: u64) -> Folder {
    let copy = folder.copied();
    let file = fs::OpenOptions::new().write(true).open(copy.path().join(name)).unwrap();
    file.set_len(len).unwrap();
    copy
}

#[test]
fn a_log_cut_anywhere_gives_the_batches_before_the_cut() {
    let (folder, world) = torn_store(40);
    let len = fs::metadata(folder.path().join("store.db-wal")).unwrap().len();
    let mut cuts = Vec::new();
    for frame in 0..=(len - WAL_HEADER) / WAL_FRAME {
        let edge = WAL_HEADER + frame * WAL_FRAME;
        cuts.extend([edge.saturating_sub(16), edge, (edge + 16).min(len)]);
    }
    let mut draw = numbers(5);
    cuts.extend((0..250).map(|_| draw(len)));
    cuts.sort_unstable();
    let mut newest = 0;
    for at in cuts {
        let copy = cut(&folder, "store.db-wal", at);
        match fate(&copy.path(), &world, &format!("log cut at {at} of {len}")) {
            Fate::Batch(batch) => {
                assert!(batch >= newest, "a longer log gives no less: {batch} after {newest}");
                newest = batch;
            }
            // Before the first commit there are no tables: an empty database is made anew.
            other => panic!("log cut at {at}: {other:?}"),
        }
    }
    assert_eq!(newest, 40, "the whole log gives every batch");
}

/// A closed store, everything in the database.
fn closed_store(batches: u64) -> (Folder, World) {
    let folder = Folder::new(StoreCfg::default());
    let store = folder.store().unwrap();
    let world = written(&store, 22, batches);
    store.close().unwrap();
    (folder, world)
}

#[test]
fn a_database_cut_anywhere_is_refused_or_whole() {
    let (folder, world) = closed_store(40);
    let len = fs::metadata(database(&folder.path())).unwrap().len();
    let mut draw = numbers(6);
    let mut cuts: Vec<u64> = (0..250).map(|_| draw(len)).collect();
    cuts.extend((1..len / 4096).flat_map(|page| [page * 4096 - 16, page * 4096, page * 4096 + 16]));
    let mut refused = 0;
    for at in cuts {
        let copy = cut(&folder, "store.db", at);
        match fate(&copy.path(), &world, &format!("database cut at {at} of {len}")) {
            Fate::Refused => refused += 1,
            Fate::Batch(batch) => assert!(at == 0 && batch == 0, "cut at {at} gave batch {batch}"),
            Fate::Aside => {}
        }
    }
    assert!(refused > 100, "a database that lacks pages is refused: {refused}");
}

#[test]
fn a_flipped_bit_is_found() {
    let (folder, world) = closed_store(40);
    let whole = fs::read(database(&folder.path())).unwrap();
    let mut draw = numbers(7);
    let mut seen = [0_u32; 3];
    for _ in 0..250 {
        let bit = draw(whole.len() as u64 * 8);
        let copy = folder.copied();
        let mut bent = whole.clone();
        bent[(bit / 8) as usize] ^= 1 << (bit % 8);
        fs::write(database(&copy.path()), &bent).unwrap();
        match fate(&copy.path(), &world, &format!("bit {bit} flipped")) {
            Fate::Batch(batch) => {
                assert_eq!(batch, 40, "bit {bit}");
                seen[0] += 1;
            }
            Fate::Aside => seen[1] += 1,
            Fate::Refused => seen[2] += 1,
        }
    }
    assert!(seen.iter().all(|count| *count > 0), "whole, set aside, refused: {seen:?}");
}

#[test]
fn a_bent_log_gives_the_batches_before_the_bend() {
    let (folder, world) = torn_store(40);
    let whole = fs::read(folder.path().join("store.db-wal")).unwrap();
    let mut draw = numbers(8);
    for _ in 0..60 {
        let bit = draw(whole.len() as u64 * 8);
        let copy = folder.copied();
        let mut bent = whole.clone();
        bent[(bit / 8) as usize] ^= 1 << (bit % 8);
        fs::write(copy.path().join("store.db-wal"), &bent).unwrap();
        let fate = fate(&copy.path(), &world, &format!("log bit {bit} flipped"));
        assert!(matches!(fate, Fate::Batch(_)), "bit {bit}: {fate:?}");
    }
}

#[test]
fn a_damaged_row_is_moved_aside_once_and_the_rest_goes_on() {
    let (folder, _) = closed_store(40);
    let conn = rusqlite::Connection::open(database(&folder.path())).unwrap();
    let key: String =
        conn.query_row("SELECT key FROM resources LIMIT 1", [], |row| row.get(0)).unwrap();
    conn.execute("UPDATE resources SET image = '{\"bent\":1}' WHERE key = ?1", [&key]).unwrap();
    drop(conn);
    let store = folder.store().unwrap();
    let restored = restore(&store, World::rules()).unwrap();
    let named: Vec<_> = restored.head.set_aside.iter().map(|row| row.key.clone()).collect();
    assert_eq!(named, std::slice::from_ref(&key));
    drop(store);
    let store = folder.store().unwrap();
    assert_eq!(restore(&store, World::rules()).unwrap().head.set_aside, []);
    drop(store);
    let conn = rusqlite::Connection::open(database(&folder.path())).unwrap();
    let kept: (String, String) = conn
        .query_row("SELECT source, why FROM set_aside WHERE key = ?1", [&key], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .unwrap();
    assert_eq!(kept, ("resources".to_owned(), "its checksum does not match".to_owned()));
}
