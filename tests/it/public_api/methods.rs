//! The documented methods of the engine, by their signatures. Never run: it only has to compile.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use adjutant::{
    CapToken, Engine, EngineCfg, EngineError, EngineState, Event, EventStream, LayerRegistry,
    OperatorInfo, OperatorKind, OutputEvent, ResumeKey, Role, TaskId, TaskState, TokenSigner, Verb,
    WorkerPayload, default_role_verb_table,
};
use serde_json::{Value, json};
use tokio::sync::broadcast;
use tokio::task::JoinHandle;

use super::Faces;
use crate::world::LONG;

type Done = Result<(), EngineError>;

async fn access_and_sessions(engine: Engine, token: CapToken, task: TaskId) {
    let gate = default_role_verb_table();
    let engine: Engine = engine.clone().with_gate(gate);
    let _: (&EngineCfg, &LayerRegistry, &TokenSigner) =
        (engine.cfg(), engine.layer_registry(), engine.signer());
    let _: broadcast::Sender<Event> = engine.event_tx();
    let _: EventStream = engine.subscribe();
    let _: Result<usize, EngineError> =
        engine.with_state("count", |state: &mut EngineState| state.task_count()).await;
    let _: Done = engine.verify_token(&token, Verb::StartTask).await;
    let _: Done = engine.verify_token_for_task(&token, Verb::FetchPrompt, &task).await;
    let _: Result<TaskId, EngineError> = engine.task_id_from_token(&token).await;
    let _: Result<TaskId, EngineError> = engine.task_id_from_handle("wh-").await;
    let _: Done = engine.submit_worker_result_trusted(&task, 1, json!(1), true).await;
    let attached: Result<CapToken, EngineError> = engine.attach("a", Role::Senior, LONG).await;
    let info = OperatorInfo::default();
    let _ = engine.attach_with("a", Role::Operator, LONG, info).await == attached;
    let (agents, blueprint) = (HashMap::<String, OperatorKind>::new(), HashMap::new());
    let (kind, bridge, hook) = (Some(OperatorKind::Automate), None::<String>, None::<String>);
    let backend = Some("op".to_owned());
    let _: Result<CapToken, EngineError> = engine
        .attach_with_ids(
            "a".to_owned(),
            Role::Operator,
            LONG,
            kind,
            bridge,
            hook,
            backend,
            agents,
            blueprint,
            None,
        )
        .await;
    engine.register_senior_bridge("b", Arc::new(Faces)).await;
    engine.register_spawn_hook("h", Arc::new(Faces)).await;
    engine.register_operator("o".to_owned(), Arc::new(Faces)).await;
    engine.unregister_senior_bridge("b").await;
    engine.unregister_spawn_hook("h").await;
    engine.unregister_operator("o").await;
    let _: Vec<String> = engine.list_spawn_hook_ids().await;
    let _: Vec<String> = engine.list_senior_bridge_ids().await;
    let _: Vec<String> = engine.list_operator_ids().await;
    let _: Done = engine.detach(&token).await;
    let _: Done = engine.heartbeat(&token).await;
}

async fn tasks_and_waits(engine: Engine, token: CapToken, task: TaskId, key: ResumeKey) {
    let _: Result<TaskState, EngineError> = engine.read_task_state(&token, &task).await;
    let _: Done = engine.cancel_task(&token, &task).await;
    let _: Result<String, EngineError> = engine.fetch_prompt(&token, &task).await;
    let _: Result<WorkerPayload, EngineError> = engine.fetch_worker_payload_trusted(&task).await;
    let _: Result<u32, EngineError> = engine.task_attempt(&task).await;
    let _: Done = engine.bake_worker_system_prompt(&task, 1, None).await;
    let _: Result<Value, EngineError> = engine.fetch_data(&token, "k").await;
    let _: Done = engine.set_resource("k", json!(1)).await;
    let _: Vec<OutputEvent> = engine.output_tail(&task, 1).await;
    let _: Done = engine.post_result(&token, &task, json!(1)).await;
    let _: Result<ResumeKey, EngineError> = engine.query_senior(&token, &task, json!("?")).await;
    let _: Done = engine.resume(key, json!(1)).await;
    let _: Result<Value, EngineError> = engine.await_resume(key, Duration::ZERO).await;
    let _: Result<TaskState, EngineError> = engine.poll_task(&token, &task, LONG).await;
    let detaching: JoinHandle<()> = engine.start_detach_loop();
    detaching.abort();
}

#[test]
fn the_futures_of_the_engine_can_be_spawned() {
    fn sessions<F: Future + Send + 'static>(_: fn(Engine, CapToken, TaskId) -> F) {}
    fn waits<F: Future + Send + 'static>(_: fn(Engine, CapToken, TaskId, ResumeKey) -> F) {}
    sessions(access_and_sessions);
    waits(tasks_and_waits);
}
