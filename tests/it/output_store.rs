//! The store in memory: by reference, newest by name, large bodies once, bounded.

use adjutant::{
    ContentRef, MemoryOutputStore, MemoryStoreLimits, OutputEvent, OutputRef, OutputStore,
    OutputStoreError, TaskId,
};
use serde_json::json;

fn artifact(text: &str) -> OutputEvent {
    OutputEvent::Artifact { name: "a".into(), content: ContentRef::inline_text(text) }
}

const TASK: TaskId = TaskId::from_bits(7);

#[tokio::test]
async fn what_was_appended_is_found_by_reference_name_and_attempt() {
    let store = MemoryOutputStore::new();
    let one = store.append(TASK, 1, "ann", artifact("one"), vec![]).await.unwrap();
    let two = store.append(TASK, 1, "ann", artifact("two"), vec![one]).await.unwrap();
    store.append(TASK, 2, "bob", artifact("three"), vec![]).await.unwrap();
    assert_eq!(store.get(&one).await.unwrap().event, artifact("one"));
    let latest = store.get_latest_by_name("ann").await.unwrap();
    assert_eq!((latest.id, latest.parent_refs), (two, vec![one]));
    let listed = store.list_for_attempt(&TASK, 1).await.unwrap();
    assert_eq!(listed.iter().map(|record| record.id).collect::<Vec<_>>(), [one, two]);
    assert_eq!(store.list_for_attempt(&TASK, 9).await, Ok(vec![]));
    let missing = store.get_latest_by_name("nobody").await.unwrap_err();
    assert!(matches!(missing, OutputStoreError::NotFound(_)));
    assert_eq!(one.to_string().parse::<OutputRef>(), Ok(one));
    assert!("out-12".parse::<OutputRef>().is_err());
    assert_eq!(serde_json::to_value(one).unwrap(), json!(one.to_string()));
}

#[tokio::test]
async fn identical_large_bodies_are_kept_once_and_freed_with_the_last_holder() {
    let limits = MemoryStoreLimits { inline_bytes: 10, records: 2, ..Default::default() };
    let store = MemoryOutputStore::with_limits(limits);
    let large = "x".repeat(100);
    let first = store.append(TASK, 1, "a", artifact(&large), vec![]).await.unwrap();
    let second = store.append(TASK, 1, "b", artifact(&large), vec![]).await.unwrap();
    let stats = store.stats();
    assert_eq!((stats.records, stats.bodies, stats.bytes), (2, 1, 102));
    assert_eq!(store.get(&second).await.unwrap().event, artifact(&large));
    store.append(TASK, 1, "c", artifact("s"), vec![]).await.unwrap();
    assert!(store.get(&first).await.is_err(), "the oldest record goes first");
    assert_eq!(store.stats().bodies, 1);
    store.append(TASK, 1, "d", artifact("s"), vec![]).await.unwrap();
    let stats = store.stats();
    assert_eq!((stats.records, stats.bodies, stats.bytes), (2, 0, 6));
}

#[tokio::test]
async fn the_bytes_of_all_bodies_are_bounded() {
    let limits = MemoryStoreLimits { inline_bytes: 10, bytes: 250, ..Default::default() };
    let store = MemoryOutputStore::with_limits(limits);
    for letter in ["a", "b", "c", "d"] {
        store.append(TASK, 1, letter, artifact(&letter.repeat(100)), vec![]).await.unwrap();
    }
    let stats = store.stats();
    assert_eq!((stats.records, stats.bytes), (2, 204));
}
