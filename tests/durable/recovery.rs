//! What comes back after a crash: the acknowledged state, with what was at work ended in order.

use std::sync::Arc;
use std::time::Duration;

use adjutant::journal::memory::MemoryJournal;
use adjutant::{
    Clock, ContentRef, DispatchOutcome, Engine, EngineError, LayerRegistry, Now, OpenOptions,
    OutputEvent, TaskStatus, Verb,
};
use serde_json::json;

use crate::world::{
    DAY, Folder, People, agents, at_rest, cfg, dispatched, open, read, soon, start,
};

#[tokio::test]
async fn the_acknowledged_state_comes_back_from_a_store_that_was_closed() {
    let folder = Folder::new();
    let engine = open(folder.store()).await;
    let people = People::of(&engine).await;
    let (passed, cancelled, pending) = (
        start(&engine, &people.operator, "pass").await,
        start(&engine, &people.operator, "pass").await,
        start(&engine, &people.operator, "pass").await,
    );
    let outcome = engine.dispatch_attempt_with(&people.operator, &passed, &agents()).await;
    assert_eq!(outcome, Ok(DispatchOutcome::Pass(json!({ "echo": "do it" }))));
    engine.cancel_task(&people.operator, &cancelled).await.unwrap();
    engine.set_resource("goal", json!(["a", 1.5])).await.unwrap();
    let long = "x".repeat(100_000);
    let content = ContentRef::inline(json!(long));
    let artifact = OutputEvent::Artifact { name: "big".into(), content };
    let asked = start(&engine, &people.operator, "hang").await;
    dispatched(&engine, &people, asked).await;
    engine.append_output_trusted(&asked, 1, artifact.clone()).await.unwrap();
    let tasks = [passed, cancelled, pending];
    let before = engine.with_state("copy", |state| state.clone()).await.unwrap();
    engine.shutdown(Duration::from_millis(50)).await;

    let engine = open(folder.store()).await;
    let after = engine.with_state("copy", |state| state.clone()).await.unwrap();
    for task in tasks {
        assert_eq!(after.task(&task), before.task(&task));
    }
    assert_eq!(engine.output_tail(&asked, 1).await, [artifact]);
    assert_eq!(engine.events_after(0, 8).await.unwrap(), before.events_after(0, 8));
    assert_eq!((engine.recovery().tasks, engine.recovery().set_aside.len()), (4, 0));
    at_rest(&engine).await;
}

#[tokio::test]
async fn attempts_that_were_live_end_as_interrupted_and_their_tokens_are_revoked() {
    let journal = MemoryJournal::default();
    let engine = open(journal.clone()).await;
    let people = People::of(&engine).await;
    let task = start(&engine, &people.operator, "hang").await;
    dispatched(&engine, &people, task).await;
    let minted = engine.mint_worker_token(&people.operator, &task, DAY, None).await.unwrap();

    let after = open(journal.crashed()).await;
    assert_eq!(after.recovery().interrupted, [(task, 1)]);
    assert_eq!((after.recovery().tasks, after.recovery().open_tasks), (1, 0));
    let state = read(&after, &people.operator, task).await;
    assert_eq!((state.status, state.attempt), (TaskStatus::Blocked, 1));
    let result = state.last_result.unwrap().to_string();
    assert!(result.contains("interrupted"), "{result}");
    let refused = after.verify_token(&minted, Verb::FetchPrompt).await;
    assert_eq!(refused.map(|_| ()), Err(EngineError::TokenRevoked));
    at_rest(&after).await;
    // The ordinary way: the end is an event, and the next attempt has the next number.
    let kinds: Vec<_> = after.events_after(0, usize::MAX).await.unwrap();
    let kinds: Vec<_> = kinds.iter().map(|record| record.event.kind()).collect();
    assert_eq!(kinds[kinds.len() - 2..], ["task_attempt_completed", "task_blocked"]);
    dispatched(&after, &people, task).await;
    assert_eq!(read(&after, &people.operator, task).await.attempt, 2);
    drop(engine);
}

#[tokio::test]
async fn an_open_question_that_is_answered_after_the_crash_lets_its_task_go_on() {
    let journal = MemoryJournal::default();
    let engine = open(journal.clone()).await;
    let people = People::of(&engine).await;
    let task = start(&engine, &people.operator, "hang").await;
    dispatched(&engine, &people, task).await;
    let key = engine.query_senior(&people.operator, &task, json!("really?")).await.unwrap();

    let second = journal.crashed();
    let after = open(second.clone()).await;
    let state = read(&after, &people.operator, task).await;
    assert_eq!((state.status, state.suspended_on), (TaskStatus::Suspended, Some(key)));
    after.answer_query(&people.senior, key, json!("yes")).await.unwrap();

    // The answer survives the next crash, and the attempts go on upward.
    drop(engine);
    let last = open(second.crashed()).await;
    assert_eq!(last.await_resume(key, DAY).await, Ok(json!("yes")));
    let outcome = soon("the dispatch", async {
        let mut spawner = adjutant::InProcSpawner::new();
        spawner.register("hang", |_| async {
            Ok(adjutant::WorkerResult { value: json!("done"), ok: true })
        });
        let spawner: Arc<dyn adjutant::SpawnerAdapter> = Arc::new(spawner);
        last.dispatch_attempt_with(&people.operator, &task, &spawner).await
    });
    assert_eq!(outcome.await, Ok(DispatchOutcome::Pass(json!("done"))));
    assert_eq!(read(&last, &people.operator, task).await.attempt, 2);
    at_rest(&last).await;
}

/// A clock that a test sets: wall seconds stand, milliseconds are these.
struct Hand(std::sync::atomic::AtomicU64);

impl Clock for Hand {
    fn now(&self) -> Result<Now, EngineError> {
        Ok(Now { unix: 1_700_000_000, ms: self.0.load(std::sync::atomic::Ordering::SeqCst) })
    }
}

#[tokio::test]
async fn attached_sessions_have_one_threshold_to_beat_with_their_old_token() {
    let journal = MemoryJournal::default();
    let at = |ms: u64| Arc::new(Hand(ms.into()));
    let open_at = async |journal: &MemoryJournal, ms| {
        let options = OpenOptions { clock: Some(at(ms)), ..OpenOptions::default() };
        let journal = Arc::new(journal.clone());
        Engine::open_with(cfg(), LayerRegistry::new(), journal, options).await.unwrap()
    };
    let engine = open_at(&journal, 5_000).await;
    let people = People::of(&engine).await;
    let kept = journal.crashed();
    // The clock goes on from where the newest batch was cut.
    let after = open_at(&kept, 0).await;
    assert_eq!(after.recovery().sessions, 2);
    let threshold = u64::try_from(cfg().long_hold.lapse_after().as_millis()).unwrap();
    let lapse = async |ms: u64| {
        let now = Now { unix: 1_700_000_000, ms };
        after.with_state("lapse", move |state| state.lapse_sessions(now, 99)).await.unwrap();
        after.with_state("look", |state| state.audit()).await.unwrap().unwrap();
        let session = after.read_session(&people.operator).await.unwrap();
        session.attached
    };
    assert!(lapse(5_000 + threshold - 1).await, "the grace is one whole threshold");
    assert!(!lapse(5_000 + threshold + 1).await, "and no more");
    after.heartbeat(&people.operator).await.unwrap();
    assert!(after.read_session(&people.operator).await.unwrap().attached);
    // A lapse and a return are events, so they survive as well.
    let last = open_at(&kept.crashed(), 0).await;
    assert!(last.read_session(&people.operator).await.unwrap().attached);
    assert!(!last.read_session(&people.senior).await.unwrap().attached);
}

#[tokio::test]
async fn uses_of_a_token_that_were_spent_stay_spent() {
    let journal = MemoryJournal::default();
    let engine = open(journal.clone()).await;
    let people = People::of(&engine).await;
    let task = start(&engine, &people.operator, "hang").await;
    dispatched(&engine, &people, task).await;
    let limited = engine.mint_worker_token(&people.operator, &task, DAY, Some(3)).await.unwrap();
    let fingerprint = limited.fingerprint();
    let left = async |engine: &Engine| {
        let record = engine.with_state("left", move |state| state.token_record(fingerprint)).await;
        record.unwrap().unwrap().uses_left
    };
    for spent in 1..=3 {
        engine.fetch_prompt(&limited, &task).await.unwrap();
        assert_eq!(left(&open(journal.crashed()).await).await, Some(3 - spent));
    }
    let refused = engine.fetch_prompt(&limited, &task).await;
    assert_eq!(refused, Err(EngineError::TokenUsesExhausted));
    assert_eq!(left(&open(journal.crashed()).await).await, Some(0));
}
