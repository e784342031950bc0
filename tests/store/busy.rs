//! A store beside others at its database: who locks it for a while, and who reads for long.

use std::fs;
use std::time::Duration;

use adjutant::journal::Journal;
use adjutant::journal::conformance::{append, check_prefix};
use adjutant::store::StoreCfg;
use rusqlite::Connection;

use crate::{Folder, database, written};

/// How long the lock is held: above what a connection of the store waits otherwise.
const HELD: Duration = Duration::from_secs(6);

#[test]
fn a_lock_that_somebody_holds_for_seconds_is_waited_for_and_fails_nothing() {
    let folder = Folder::new(StoreCfg::default());
    let store = folder.store().unwrap();
    let mut world = written(&store, 41, 1);
    let other = Connection::open(database(&folder.path())).unwrap();
    // Taken before the store has folded, so both its fold and its commit run into it.
    other.busy_timeout(HELD).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let holder = std::thread::spawn(move || {
        std::thread::sleep(HELD);
        other.execute_batch("ROLLBACK").unwrap();
    });
    append(&store, world.batch()).unwrap();
    holder.join().unwrap();
    append(&store, world.batch()).unwrap();
    store.flush().unwrap();
    drop(store);
    check_prefix(&folder.store().unwrap(), &world, 3);
}

#[test]
fn what_a_reader_kept_from_the_database_is_carried_over_once_it_is_gone() {
    let folder = Folder::new(StoreCfg { checkpoint_bytes: 1 << 20, ..StoreCfg::default() });
    let store = folder.store().unwrap();
    let mut world = written(&store, 42, 1);
    let reader = Connection::open(database(&folder.path())).unwrap();
    let folded = || {
        let look = Connection::open(database(&folder.path())).unwrap();
        let sql = "SELECT (SELECT count(*) FROM journal), page_count * page_size
                   FROM pragma_page_count, pragma_page_size";
        let (left, bytes): (i64, i64) =
            look.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        (left == 0).then_some(bytes.cast_unsigned())
    };
    until(|| folded().is_some());
    reader.execute_batch("BEGIN; SELECT count(*) FROM tasks").unwrap();
    for _ in 0..300 {
        append(&store, world.batch()).unwrap();
    }
    until(|| folded().is_some());
    let length = || fs::metadata(database(&folder.path())).unwrap().len();
    let whole = folded().unwrap();
    assert!(length() < whole, "the reader holds nothing up");
    reader.execute_batch("COMMIT").unwrap();
    append(&store, world.batch()).unwrap();
    until(|| length() >= whole);
}

/// Waits until it is so; fails after a time that only a hang reaches.
fn until(is_so: impl Fn() -> bool) {
    let looks = 30_000 / 5;
    for _ in 0..looks {
        if is_so() {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("it never is so");
}
