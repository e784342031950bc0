//! Idempotency keys across a crash: the same engine, killed, and asked the same again.

use std::sync::Arc;
use std::time::Duration;

use adjutant::store::{SqliteStore, StoreCfg};
use adjutant::{
    CapToken, DispatchOptions, DispatchOutcome, Engine, EngineCfg, EngineError, HoldPolicy,
    InProcSpawner, LayerRegistry, OnInterrupt, Role, SpawnerAdapter, TaskId, TaskOptions, TaskSpec,
    WorkerResult,
};
use serde_json::json;

use crate::Folder;

const HOUR: Duration = Duration::from_secs(3600);

async fn open(folder: &Folder) -> Engine {
    let store: SqliteStore = folder.store().unwrap();
    let hold_policy = HoldPolicy::Warn;
    let cfg = EngineCfg { token_keys: store.keys(), hold_policy, ..EngineCfg::default() };
    Engine::open(cfg, LayerRegistry::new(), Arc::new(store)).await.unwrap()
}

async fn start(engine: &Engine, token: &CapToken, key: &str) -> TaskId {
    let on_interrupt = if key == "block" { OnInterrupt::Block } else { OnInterrupt::Retry };
    let options = TaskOptions::default().with_key(key).with_on_interrupt(on_interrupt);
    engine.start_task_with(token, TaskSpec::new("any", key), options).await.unwrap()
}

fn agents(hang: bool) -> Arc<dyn SpawnerAdapter> {
    let mut agents = InProcSpawner::new();
    agents.register("any", move |call: adjutant::WorkerInvocation| async move {
        if hang && call.prompt != "done" {
            std::future::pending::<()>().await;
        }
        Ok(WorkerResult { value: json!(call.attempt), ok: true })
    });
    Arc::new(agents)
}

async fn dispatch(
    engine: &Engine,
    token: &CapToken,
    task: TaskId,
    hang: bool,
) -> Result<DispatchOutcome, EngineError> {
    let options = DispatchOptions::default().with_key("go");
    engine.dispatch_with(token, &task, &agents(hang), options).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_is_made_again_after_a_crash_finds_what_was_done() {
    let folder = Folder::new(StoreCfg::default());
    let engine = open(&folder).await;
    let ann = engine.attach("ann", Role::Operator, HOUR).await.unwrap();
    let (done, block, retry) = (
        start(&engine, &ann, "done").await,
        start(&engine, &ann, "block").await,
        start(&engine, &ann, "retry").await,
    );
    let passed = |attempt: u32| Ok(DispatchOutcome::Pass(json!(attempt)));
    assert_eq!(dispatch(&engine, &ann, done, true).await, passed(1));
    for task in [block, retry] {
        let (engine, ann) = (engine.clone(), ann.clone());
        tokio::spawn(async move { dispatch(&engine, &ann, task, true).await });
    }
    while engine.with_state("look", |state| state.live_attempts().len()).await.unwrap() < 2 {
        tokio::task::yield_now().await;
    }
    engine.flush().await.unwrap();

    let copy = folder.copied();
    let engine = open(&copy).await;
    let last = engine.recovery().last_seq;
    let again = engine.attach("ann", Role::Operator, HOUR).await.unwrap();
    for token in [&ann, &again] {
        assert_eq!(start(&engine, token, "done").await, done);
        assert_eq!(start(&engine, token, "block").await, block);
        assert_eq!(start(&engine, token, "retry").await, retry);
        assert_eq!(dispatch(&engine, token, done, false).await, passed(1));
        let lost = dispatch(&engine, token, block, false).await;
        let Err(EngineError::DispatchFailed(why)) = &lost else { panic!("{lost:?}") };
        assert!(why.starts_with("interrupted"), "{why}");
    }
    let waiting = engine.interrupted_tasks().await.unwrap();
    assert_eq!(waiting, [(retry, "any".to_owned())]);
    assert_eq!(dispatch(&engine, &again, retry, false).await, passed(2));
    assert_eq!(dispatch(&engine, &ann, retry, false).await, passed(2));
    let events = engine.events_after(last, 1000).await.unwrap();
    let created = events.iter().filter(|record| record.event.kind() == "task_created").count();
    assert_eq!(created, 0);
    assert_eq!(engine.with_state("audit", |state| state.audit()).await.unwrap(), Ok(()));
    engine.shutdown(Duration::from_secs(5)).await;
}
