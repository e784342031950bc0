//! What a store runs into: another holder, another version, no right, no room.

use std::fs;
use std::process::Command;

use adjutant::journal::conformance::{World, append, check_prefix};
use adjutant::journal::{Journal, JournalError, restore};
use adjutant::store::{SqliteStore, StoreCfg, View, fsck};

use crate::{Folder, database, written};

/// Where a test that runs in a process of its own finds its store.
const PLACE: &str = "ADJUTANT_TEST_STORE";

/// Runs one test of this binary in a process of its own, under `shell`'s limits.
fn child(test: &str, place: &std::path::Path, shell: &str) -> (bool, String) {
    let output = Command::new("sh")
        .args(["-c", &format!("{shell} exec \"$0\" \"$@\"")])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(PLACE, place)
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn a_second_opening_in_a_process_of_its_own() {
    let Some(place) = std::env::var_os(PLACE) else { return };
    match SqliteStore::open(place, StoreCfg::default()) {
        Ok(_) => println!("opened"),
        Err(error) => println!("refused: {error}"),
    }
}

#[test]
fn a_second_process_is_refused_and_told_the_holder() {
    let folder = Folder::new(StoreCfg::default());
    let store = folder.store().unwrap();
    let test = "limits::a_second_opening_in_a_process_of_its_own";
    let (_, said) = child(test, &folder.path(), "");
    let expected = format!("is held by process {}", std::process::id());
    assert!(said.contains(&expected), "{said}");
    assert!(matches!(folder.store(), Err(JournalError::Held { pid: Some(_), .. })));
    drop(store);
    let (_, said) = child(test, &folder.path(), "");
    assert!(said.contains("opened"), "{said}");
}

#[test]
fn a_store_that_runs_full_in_a_process_of_its_own() {
    let Some(place) = std::env::var_os(PLACE) else { return };
    let store = SqliteStore::open(place, StoreCfg::default()).unwrap();
    let mut world = World::new(31);
    restore(&store, World::rules()).unwrap();
    world.epoch = store.lead().unwrap();
    let mut safe = 0;
    let first = loop {
        match append(&store, world.batch()) {
            Ok(()) => safe += 1,
            Err(error) => break error,
        }
    };
    println!("safe: {safe}; first: {first};");
    let second = append(&store, world.batch()).unwrap_err();
    // Where it ran full in a fold between two batches, the first one hears of that already.
    let caused = matches!(&second, JournalError::Failed(cause) if *cause == first.to_string());
    assert!(caused || second == first, "{second:?} after {first:?}");
    assert_eq!(store.flush().unwrap_err(), second);
}

#[test]
fn a_full_disk_fails_the_store_and_takes_nothing_back() {
    let folder = Folder::new(StoreCfg::default());
    let test = "limits::a_store_that_runs_full_in_a_process_of_its_own";
    // The limit is in blocks of 512 or 1024 bytes, as the shell has it.
    let (passed, said) = child(test, &folder.path(), "trap '' XFSZ; ulimit -f 800;");
    assert!(passed, "{said}");
    let safe: u64 =
        said.split("safe: ").nth(1).unwrap().split(';').next().unwrap().parse().unwrap();
    assert!(safe > 10, "{said}");
    assert!(said.contains("cannot be written"), "{said}");
    let mut world = World::new(31);
    for _ in 0..safe + 2 {
        world.batch();
    }
    let store = folder.store().unwrap();
    check_prefix(&store, &world, safe);
}

#[test]
fn a_place_that_cannot_be_written_is_refused_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "in the way").unwrap();
    for place in [file.join("store"), file, "/proc/adjutant/store".into()] {
        let error = SqliteStore::open(&place, StoreCfg::default()).unwrap_err();
        assert!(matches!(error, JournalError::Unusable { .. }), "{error:?}");
        assert!(error.to_string().contains(place.to_str().unwrap()), "{error}");
    }
}

#[test]
fn a_later_version_and_a_foreign_database_are_refused_and_left_alone() {
    let folder = Folder::new(StoreCfg::default());
    drop(folder.store().unwrap());
    let conn = rusqlite::Connection::open(database(&folder.path())).unwrap();
    conn.execute_batch("PRAGMA user_version = 77").unwrap();
    let error = folder.store().unwrap_err();
    assert!(matches!(error, JournalError::TooNew { found: 77, known: 4, .. }), "{error:?}");
    conn.execute_batch("PRAGMA user_version = 1; PRAGMA application_id = 5").unwrap();
    let error = folder.store().unwrap_err();
    assert!(error.to_string().contains("not one of this program"), "{error}");
    drop(conn);
    fs::write(database(&folder.path()), "this is a text and no database at all".repeat(200))
        .unwrap();
    let error = folder.store().unwrap_err();
    assert!(matches!(error, JournalError::Damaged { .. }), "{error:?}");
    assert!(fs::read(database(&folder.path())).unwrap().starts_with(b"this is a text"));
}

#[test]
fn a_store_of_the_first_version_is_read_as_it_is_and_brought_up_by_its_next_holder() {
    let folder = Folder::new(StoreCfg::default());
    let store = folder.store().unwrap();
    let world = written(&store, 7, 40);
    drop(store);
    let conn = rusqlite::Connection::open(database(&folder.path())).unwrap();
    conn.execute_batch(
        "DROP TABLE run_keys; DROP TABLE blueprints; DROP TABLE blueprint_versions;
         DROP TABLE data; DROP TABLE logins; PRAGMA user_version = 1;",
    )
    .unwrap();
    let version = || conn.query_row("PRAGMA user_version", [], |row| row.get::<_, u32>(0)).unwrap();
    assert!(fsck(folder.path()).unwrap().is_sound());
    View::open(folder.path()).unwrap();
    assert_eq!(version(), 1, "who only looks changes nothing");
    let store = folder.store().unwrap();
    assert_eq!(version(), 4);
    check_prefix(&store, &world, 40);
}

#[test]
fn the_event_log_forgets_its_oldest_and_never_its_newest() {
    let mut cfg = StoreCfg { fold_bytes: 0, ..StoreCfg::default() };
    cfg.events.count = 1;
    let folder = Folder::new(cfg);
    let store = folder.store().unwrap();
    let world = written(&store, 32, 900);
    drop(store);
    let store = folder.store().unwrap();
    let left = store.events_after(0, usize::MAX).unwrap();
    let made = world.events();
    assert!(made.len() > 2_000, "the world makes {} events", made.len());
    assert!((1_024..1_500).contains(&left.len()), "{} events are left", left.len());
    assert!(
        left[..] == made[made.len() - left.len()..],
        "what is left is the newest, without gaps"
    );
}
