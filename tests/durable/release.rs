//! What is heard, and when: on a journal that holds batches back until it is told.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use adjutant::journal::memory::MemoryJournal;
use adjutant::{
    DispatchOutcome, Event, InProcSpawner, SpawnerAdapter, TaskSpec, TaskStatus, WorkerResult,
};
use serde_json::json;

use crate::world::{DAY, People, children, eventually, idle, open, read, soon, start};

/// Waits until the journal holds a batch back, and everything that can run has run.
async fn in_flight(journal: &MemoryJournal) {
    eventually("a batch", || async { journal.held() == 1 }).await;
    idle().await;
}

#[tokio::test]
async fn a_reply_waits_until_it_is_safe() {
    let journal = MemoryJournal::default();
    let engine = open(journal.clone()).await;
    let people = People::of(&engine).await;
    journal.hold();
    let run = tokio::spawn({
        let (engine, token) = (engine.clone(), people.operator.clone());
        async move { engine.start_task(&token, TaskSpec::new("pass", "do it")).await }
    });
    in_flight(&journal).await;
    assert!(!run.is_finished(), "the reply came before the journal said that it is safe");
    journal.release();
    let task = soon("the reply", run).await.unwrap().unwrap();
    let after = open(journal.crashed()).await;
    assert_eq!(read(&after, &people.operator, task).await.status, TaskStatus::Pending);
}

#[tokio::test]
async fn a_read_waits_for_what_it_may_have_seen_and_for_nothing_else() {
    let journal = MemoryJournal::default();
    let engine = open(journal.clone()).await;
    let people = People::of(&engine).await;
    journal.hold();
    let count = |engine: &adjutant::Engine| {
        let engine = engine.clone();
        tokio::spawn(async move { engine.with_state("count", |state| state.task_count()).await })
    };
    // Nothing is in flight, so nothing can be lost.
    assert_eq!(soon("a read", count(&engine)).await.unwrap(), Ok(0));
    let first = tokio::spawn({
        let (engine, token) = (engine.clone(), people.operator.clone());
        async move { start(&engine, &token, "pass").await }
    });
    in_flight(&journal).await;
    let (early, unknown) = (count(&engine), adjutant::Mint::seeded(3).task_id());
    let refused = tokio::spawn({
        let (engine, token) = (engine.clone(), people.operator.clone());
        async move { engine.read_task_state(&token, &unknown).await }
    });
    idle().await;
    let second = tokio::spawn({
        let (engine, token) = (engine.clone(), people.operator.clone());
        async move { start(&engine, &token, "pass").await }
    });
    idle().await;
    let late = count(&engine);
    idle().await;
    for (what, done) in [
        ("a read of the batch in flight", early.is_finished()),
        ("a refusal", refused.is_finished()),
        ("a read of the batch that grows", late.is_finished()),
    ] {
        assert!(!done, "{what} was answered before what it saw was safe");
    }
    journal.release();
    soon("the first", first).await.unwrap();
    assert_eq!(soon("the early read", early).await.unwrap(), Ok(1));
    assert!(soon("the refusal", refused).await.unwrap().is_err());
    in_flight(&journal).await;
    assert!(!late.is_finished() && !second.is_finished(), "these wait for the second batch");
    journal.release();
    soon("the second", second).await.unwrap();
    assert_eq!(soon("the late read", late).await.unwrap(), Ok(2));
}

#[tokio::test]
async fn one_batch_is_in_flight_and_the_next_one_takes_all_that_came_meanwhile() {
    let journal = MemoryJournal::default();
    let engine = open(journal.clone()).await;
    let people = People::of(&engine).await;
    journal.hold();
    let mut starts = Vec::new();
    for _ in 0..100 {
        let (engine, token) = (engine.clone(), people.operator.clone());
        starts.push(tokio::spawn(async move { start(&engine, &token, "pass").await }));
        idle().await;
        assert_eq!(journal.held(), 1);
    }
    assert_eq!(journal.release(), 1);
    soon("the first", starts.remove(0)).await.unwrap();
    in_flight(&journal).await;
    assert_eq!(journal.release(), 1);
    for start in starts {
        soon("the others, in one batch", start).await.unwrap();
    }
}

#[tokio::test]
async fn events_are_sent_once_they_are_safe_and_in_their_order() {
    let journal = MemoryJournal::default();
    let engine = open(journal.clone()).await;
    let people = People::of(&engine).await;
    let (mut records, mut plain) = (engine.subscribe_records(), engine.subscribe());
    let last = engine.events_after(0, usize::MAX).await.unwrap().last().unwrap().seq;
    journal.hold();
    let mut starts = Vec::new();
    for _ in 0..20 {
        let (engine, token) = (engine.clone(), people.operator.clone());
        starts.push(tokio::spawn(async move { start(&engine, &token, "pass").await }));
    }
    in_flight(&journal).await;
    assert!(records.is_empty() && plain.is_empty(), "an event was sent before it was safe");
    while journal.release() > 0 {
        idle().await;
    }
    for start in starts {
        soon("a start", start).await.unwrap();
    }
    for seq in last + 1..=last + 20 {
        let record = records.try_recv().unwrap();
        assert_eq!(record.seq, seq);
        assert_eq!(plain.try_recv().unwrap(), record.event);
        assert!(matches!(record.event, Event::TaskCreated { .. }));
    }
}

#[tokio::test]
async fn no_worker_starts_before_its_dispatch_is_safe() {
    let journal = MemoryJournal::default();
    let engine = open(journal.clone()).await;
    let people = People::of(&engine).await;
    let task = start(&engine, &people.operator, "counted").await;
    let launched = Arc::new(AtomicUsize::new(0));
    let mut spawner = InProcSpawner::new();
    spawner.register("counted", {
        let launched = launched.clone();
        move |_| {
            launched.fetch_add(1, Ordering::SeqCst);
            async { Ok(WorkerResult { value: json!("done"), ok: true }) }
        }
    });
    let spawner: Arc<dyn SpawnerAdapter> = Arc::new(spawner);
    journal.hold();
    let run = tokio::spawn({
        let (engine, token) = (engine.clone(), people.operator.clone());
        async move { engine.dispatch_attempt_with(&token, &task, &spawner).await }
    });
    in_flight(&journal).await;
    assert_eq!(launched.load(Ordering::SeqCst), 0, "work began that could be lost");
    while !run.is_finished() {
        journal.release();
        idle().await;
    }
    assert_eq!(run.await.unwrap(), Ok(DispatchOutcome::Pass(json!("done"))));
    assert_eq!(launched.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_poll_is_answered_once_the_change_is_safe() {
    let journal = MemoryJournal::default();
    let engine = open(journal.clone()).await;
    let people = People::of(&engine).await;
    let task = start(&engine, &people.operator, "pass").await;
    let poll = tokio::spawn({
        let (engine, token) = (engine.clone(), people.operator.clone());
        async move { engine.poll_task(&token, &task, DAY).await }
    });
    eventually("the waiter", || async { children(&engine).len() == 2 }).await;
    journal.hold();
    let cancel = tokio::spawn({
        let (engine, token) = (engine.clone(), people.operator.clone());
        async move { engine.cancel_task(&token, &task).await }
    });
    in_flight(&journal).await;
    assert!(!poll.is_finished() && !cancel.is_finished());
    journal.release();
    soon("the cancel", cancel).await.unwrap().unwrap();
    assert_eq!(soon("the poll", poll).await.unwrap().unwrap().status, TaskStatus::Cancelled);
}

#[tokio::test]
async fn a_state_actor_that_is_killed_while_batches_wait_loses_none_of_them() {
    let journal = MemoryJournal::default();
    let engine = open(journal.clone()).await;
    let people = People::of(&engine).await;
    let mut records = engine.subscribe_records();
    journal.hold();
    let mut tasks = Vec::new();
    for round in 0..20 {
        let starts: Vec<_> = (0..2)
            .map(|_| {
                let (engine, token) = (engine.clone(), people.operator.clone());
                tokio::spawn(async move { start(&engine, &token, "pass").await })
            })
            .collect();
        in_flight(&journal).await;
        let [state_actor] = &children(&engine)[..] else { panic!("the state actor alone") };
        state_actor.kill();
        // The word of the journal finds the actor dying, gone, or there again.
        for _ in 0..round {
            tokio::task::yield_now().await;
        }
        while starts.iter().any(|start| !start.is_finished()) {
            journal.release();
            idle().await;
        }
        for start in starts {
            tasks.push(soon("a start", start).await.unwrap());
        }
        assert!(engine.counts().restarts > round);
    }
    let told: Vec<_> = std::iter::from_fn(|| records.try_recv().ok()).collect();
    assert_eq!(told.len(), tasks.len());
    assert!(told.windows(2).all(|two| two[1].seq == two[0].seq + 1), "{told:?}");
    let after = open(journal.crashed()).await;
    for task in tasks {
        assert_eq!(read(&after, &people.operator, task).await.status, TaskStatus::Pending);
    }
}
