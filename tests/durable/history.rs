//! The log: events before the tail and before the restart, by their numbers.

use adjutant::journal::memory::MemoryJournal;
use adjutant::{Delivery, EngineCfg, Role};

use crate::world::{DAY, Folder, People, cfg, open, open_with, soon, start};

fn short_tail() -> EngineCfg {
    let mut cfg = cfg();
    cfg.limits.event_tail = 4;
    cfg
}

#[tokio::test]
async fn events_are_read_back_past_the_tail_and_across_restarts() {
    let folder = Folder::new();
    let engine = open_with(short_tail(), folder.store()).await;
    let people = People::of(&engine).await;
    let observer = engine.attach("observer", Role::Observer, DAY).await.unwrap();
    let first = start(&engine, &people.operator, "pass").await;
    for _ in 0..10 {
        start(&engine, &people.operator, "pass").await;
    }
    engine.cancel_task(&people.operator, &first).await.unwrap();
    let before = engine.events_after(0, usize::MAX).await.unwrap();
    assert!(before.len() > 12);
    assert!(before.iter().zip(1..).all(|(record, seq)| record.seq == seq), "{before:?}");
    engine.shutdown(DAY).await;

    let engine = open_with(short_tail(), folder.store()).await;
    assert_eq!(engine.recovery().last_seq, before.len() as u64);
    start(&engine, &people.operator, "pass").await;
    let after = engine.events_after(0, usize::MAX).await.unwrap();
    assert_eq!(after[..before.len()], before);
    assert!(after.iter().zip(1..).all(|(record, seq)| record.seq == seq), "numbers go on");
    assert_eq!(engine.events_after(3, 5).await.unwrap(), after[3..8]);
    assert_eq!(engine.events_after(after.len() as u64, 5).await.unwrap(), []);
    assert_eq!(engine.events_after(u64::MAX, 5).await.unwrap(), []);
    let of_first = engine.read_trace(&observer, Some(&first), 0, 10).await.unwrap();
    let kinds: Vec<_> = of_first.iter().map(|record| record.event.kind()).collect();
    assert_eq!(kinds, ["task_created", "task_cancelled"]);
    assert_eq!(engine.read_trace(&observer, Some(&first), 0, 1).await.unwrap(), of_first[..1]);
}

#[tokio::test]
async fn a_feed_goes_through_the_whole_log_page_by_page_and_then_live() {
    let engine = open_with(short_tail(), MemoryJournal::default()).await;
    let people = People::of(&engine).await;
    // More than a page of the feed, in turns that make many events.
    for _ in 0..5 {
        let tasks: Vec<_> = (0..1_000)
            .map(|_| {
                let (engine, token) = (engine.clone(), people.operator.clone());
                tokio::spawn(async move { start(&engine, &token, "pass").await })
            })
            .collect();
        for task in tasks {
            soon("a start", task).await.unwrap();
        }
    }
    let mut feed = engine.event_feed(0).await.unwrap();
    let newest = engine.events_after(0, usize::MAX).await.unwrap().len() as u64;
    assert!(newest > 5_000);
    let next = tokio::spawn({
        let (engine, token) = (engine.clone(), people.operator.clone());
        async move { start(&engine, &token, "pass").await }
    });
    for seq in 1..=newest + 1 {
        match soon("a delivery", feed.next()).await {
            Some(Delivery::Record(record)) => assert_eq!(record.seq, seq),
            other => panic!("{other:?} instead of {seq}"),
        }
    }
    next.await.unwrap();
}

#[tokio::test]
async fn without_a_journal_there_is_nothing_to_flush_and_nothing_came_back() {
    let engine = open(adjutant::journal::NoJournal).await;
    let people = People::of(&engine).await;
    start(&engine, &people.operator, "pass").await;
    engine.flush().await.unwrap();
    assert_eq!(engine.recovery(), &adjutant::Recovery::default());
    assert_eq!(engine.journal_failure(), None);
    assert!(engine.shutdown(DAY).await.waiting.len() == 1);
}
