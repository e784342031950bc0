//! What people see: tables, rights of files, the check, the export.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use adjutant::journal::Journal;
use adjutant::journal::conformance::World;
use adjutant::store::{StoreCfg, export_json, fsck};
use serde_json::Value;

use crate::{Folder, database, written};

fn closed(batches: u64) -> (Folder, World) {
    let folder = Folder::new(StoreCfg::default());
    let store = folder.store().unwrap();
    let world = written(&store, 41, batches);
    store.close().unwrap();
    (folder, world)
}

#[test]
fn the_tables_can_be_queried() {
    let (folder, world) = closed(60);
    let conn = rusqlite::Connection::open(database(&folder.path())).unwrap();
    let count = |sql: &str| conn.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    let coders = "SELECT count(*) FROM tasks JOIN specs USING (key) WHERE agent = 'coder'";
    assert_eq!(count(coders), world.state().task_count() as i64);
    let live = "SELECT count(*) FROM tasks WHERE status NOT IN ('pass', 'blocked', 'cancelled')";
    assert_eq!(count(live), world.state().live_tasks() as i64);
    assert_eq!(count("SELECT count(*) FROM events"), world.events().len() as i64);
    assert_eq!(
        count("SELECT count(*) FROM events WHERE kind = 'task_created' AND task IS NULL"),
        0
    );
    assert_eq!(count("SELECT count(*) FROM journal"), 0, "the journal is trimmed");
}

#[test]
fn files_and_folders_are_private() {
    let folder = Folder::new(StoreCfg::default());
    let store = folder.store().unwrap();
    written(&store, 42, 3);
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder.path()), 0o700);
    let files: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap()).collect();
    assert!(files.len() >= 4, "{files:?}");
    for file in files {
        assert_eq!(mode(&file.path()), 0o600, "{file:?}");
    }
}

#[test]
fn a_check_beside_the_holder_finds_a_sound_store_sound() {
    let folder = Folder::new(StoreCfg::default());
    let store = folder.store().unwrap();
    let world = written(&store, 43, 60);
    let report = fsck(folder.path()).unwrap();
    assert!(report.is_sound(), "{report:?}");
    assert_eq!(report.last_batch, 60);
    assert_eq!(report.last_seq, world.state().last_seq());
    assert_eq!(report.rows["tasks"], world.state().task_count() as u64);
    drop(store);
    assert!(fsck(folder.path()).unwrap().is_sound());
}

#[test]
fn a_check_names_what_is_wrong_and_changes_nothing() {
    let (folder, _) = closed(60);
    let conn = rusqlite::Connection::open(database(&folder.path())).unwrap();
    let task: String = conn.query_row("SELECT key FROM specs LIMIT 1", [], |r| r.get(0)).unwrap();
    conn.execute("DELETE FROM specs WHERE key = ?1", [&task]).unwrap();
    drop(conn);
    for _ in 0..2 {
        let report = fsck(folder.path()).unwrap();
        let named = report.set_aside.iter().any(|row| row.table == "tasks" && row.key == task);
        assert!(named && !report.is_sound(), "{report:?}");
        assert_eq!(report.broken_rule, None, "what is left fits together");
    }
}

#[test]
fn an_export_holds_every_record_and_every_event_as_a_line() {
    let (folder, world) = closed(60);
    let mut out = Vec::new();
    let lines = export_json(folder.path(), &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    let parsed: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(parsed.len() as u64, lines);
    let of = |table: &str| parsed.iter().filter(|line| line["table"] == table).count();
    assert_eq!(of("tasks"), world.state().task_count());
    assert_eq!(of("events"), world.events().len());
    assert_eq!(lines as usize, world.outcome(60).0.len() + world.events().len());
}
