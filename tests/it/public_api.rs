//! The public shapes: code as a host writes it against the documents, with names from the root of
//! the crate alone. Most of it only has to compile.

use std::str::FromStr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use adjutant::{
    CancellationToken, CapToken, CapTokenConsumeError, CapTokenDecodeError, CapTokenRecord,
    ContentRef, Ctx, DispatchOutcome, Engine, EngineCfg, EngineError, Event, InProcSpawner,
    LayerRegistry, LongHoldConfig, Operator, OperatorInfo, OperatorKind, OperatorSession,
    OutputEvent, OutputSink, ProcessSpawner, ResumeKey, ResumePending, Role, RoleVerbGate,
    SeniorBridge, SessionId, SpawnError, SpawnHook, SpawnerAdapter, SpawnerLayer, SpawnerStack,
    StreamMode, TaskId, TaskSpec, TaskState, TaskStatus, TokenSigner, Verb, Worker, WorkerBinding,
    WorkerError, WorkerId, WorkerInvocation, WorkerJoinHandler, WorkerPayload, WorkerResult,
    async_trait, collapse_operator_kind, default_role_verb_table, link,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::world::{LONG, World};

mod methods;

/// A spawner as a host writes it: a running task behind a [`WorkerJoinHandler`].
struct HostSpawner;

#[async_trait]
impl SpawnerAdapter for HostSpawner {
    async fn spawn(
        &self,
        engine: &Engine,
        ctx: &Ctx,
        task_id: TaskId,
        attempt: u32,
        token: CapToken,
    ) -> Result<Box<dyn Worker>, SpawnError> {
        if ctx.agent == "nobody" {
            return Err(SpawnError::NotRegistered(ctx.agent.clone()));
        }
        let refused = |error: EngineError| SpawnError::Internal(error.to_string());
        let payload: WorkerPayload =
            engine.fetch_worker_payload(&token, &task_id).await.map_err(refused)?;
        let WorkerPayload { prompt, system, agent, .. } = payload;
        let said = json!({ "agent": agent, "prompt": prompt, "system": system });
        let content = ContentRef::Inline { value: said };
        let event = OutputEvent::Final { content, ok: true };
        engine.submit_output(&token, &task_id, attempt, event).await.map_err(refused)?;
        let (done, completion) = oneshot::channel();
        let _ = done.send(Ok(()));
        let worker_id = engine.mint().worker_id();
        let cancel = CancellationToken::new();
        Ok(Box::new(WorkerJoinHandler { worker_id, cancel, completion }))
    }
}

/// A worker as a host writes it.
struct HostWorker(WorkerId, CancellationToken);

#[async_trait]
impl Worker for HostWorker {
    fn id(&self) -> &WorkerId {
        &self.0
    }

    fn cancel_token(&self) -> CancellationToken {
        self.1.clone()
    }

    async fn join(self: Box<Self>) -> Result<(), WorkerError> {
        self.1.cancelled().await;
        Err(WorkerError::Cancelled)
    }
}

/// The three faces of an operator in one type.
struct Faces;

#[async_trait]
impl Operator for Faces {
    async fn execute(
        &self,
        ctx: &Ctx,
        system: Option<String>,
        prompt: String,
        worker: Option<WorkerBinding>,
        worker_token: CapToken,
    ) -> Result<WorkerResult, WorkerError> {
        let _ = (system, worker, worker_token);
        if prompt.is_empty() {
            return Err(WorkerError::Failed("no prompt".to_owned()));
        }
        Ok(WorkerResult { value: json!({ "by": ctx.operator.id }), ok: true })
    }
}

#[async_trait]
impl SeniorBridge for Faces {
    async fn ask(&self, task_id: &TaskId, question: Value) -> Result<Value, String> {
        Ok(json!({ "task": task_id.to_string(), "question": question }))
    }
}

#[async_trait]
impl SpawnHook for Faces {
    async fn before(&self, ctx: &Ctx) -> Result<(), String> {
        if ctx.attempt > 3 { Err("enough".to_owned()) } else { Ok(()) }
    }

    async fn after(&self, _ctx: &Ctx, _result: &Value) -> Result<(), String> {
        Ok(())
    }
}

/// A layer that changes nothing.
struct Through;

impl SpawnerLayer for Through {
    fn wrap(&self, inner: Arc<dyn SpawnerAdapter>) -> Arc<dyn SpawnerAdapter> {
        inner
    }
}

/// A sink that keeps what it is given.
#[derive(Default)]
struct Kept(Mutex<Vec<OutputEvent>>);

#[async_trait]
impl OutputSink for Kept {
    async fn emit(&self, event: OutputEvent) -> Result<(), EngineError> {
        self.0.lock().unwrap().push(event);
        Ok(())
    }
}

#[test]
fn settings_take_the_struct_update_syntax() {
    let long_hold = LongHoldConfig {
        default_hold: Duration::from_secs(3600),
        max_hold: Duration::from_secs(48 * 3600),
        heartbeat_interval: Duration::from_secs(300),
        heartbeat_miss_threshold: 3,
        keepalive_on_idle: true,
    };
    assert_eq!(long_hold, LongHoldConfig::default());
    let cfg = EngineCfg {
        try_only: false,
        max_retry: 3,
        backoff_ms_step: 10,
        max_hold_ms: 50,
        token_secret: vec![7; 32],
        long_hold: LongHoldConfig { keepalive_on_idle: false, ..long_hold },
        max_spawn_depth: 4,
        ..EngineCfg::default()
    };
    let EngineCfg { max_retry, backoff_ms_step, max_hold_ms, .. } = cfg.clone();
    assert_eq!((max_retry, backoff_ms_step, max_hold_ms), (3, 10, 50));
    let (strict, relaxed) = (EngineCfg::strict(), EngineCfg::relaxed());
    assert_eq!((strict.try_only, strict.max_retry, strict.backoff_ms_step), (true, 0, 0));
    assert_eq!((relaxed.try_only, relaxed.max_retry, relaxed.backoff_ms_step), (false, 10, 50));
    assert_eq!((strict.max_hold_ms, relaxed.max_hold_ms), (10, 200));
}

#[test]
fn ids_are_their_text() {
    fn check<I>(text: &str)
    where
        I: FromStr + ToString + Clone + Eq + std::hash::Hash + std::fmt::Debug,
        I: Serialize + DeserializeOwned,
        I::Err: std::error::Error,
    {
        let id: I = text.parse().unwrap();
        assert_eq!(id.clone().to_string(), text);
        assert_eq!(serde_json::to_value(&id).unwrap(), json!(text));
        assert_eq!(serde_json::from_value::<I>(json!(text)).unwrap(), id);
    }
    let mint = adjutant::Mint::seeded(1);
    check::<TaskId>(&mint.task_id().to_string());
    check::<WorkerId>(&mint.worker_id().to_string());
    check::<ResumeKey>(&mint.resume_key().to_string());
    let token = TokenSigner::new([7; 32]).session("ann", Role::Operator, LONG);
    check::<SessionId>(&token.fingerprint().session_id().to_string());
}

#[test]
fn records_are_plain_data() {
    fn data<T: Clone + std::fmt::Debug + Serialize + DeserializeOwned + Send + 'static>() {}
    fn shown<T: Clone + std::fmt::Debug + Send + 'static>() {}
    data::<TaskSpec>();
    data::<TaskState>();
    data::<TaskStatus>();
    data::<DispatchOutcome>();
    data::<OperatorSession>();
    data::<OperatorKind>();
    data::<Event>();
    data::<OutputEvent>();
    data::<ContentRef>();
    data::<WorkerPayload>();
    data::<WorkerResult>();
    data::<WorkerBinding>();
    data::<CapToken>();
    data::<Role>();
    data::<Verb>();
    shown::<CapTokenRecord>();
    shown::<ResumePending>();
    shown::<EngineError>();
    shown::<SpawnError>();
    shown::<WorkerError>();
    let spec = TaskSpec { agent: "a".to_owned(), initial_directive: "d".to_owned() };
    assert_eq!(spec, TaskSpec::new("a", "d"));
}

#[test]
fn tokens_are_minted_encoded_and_verified() {
    let signer = TokenSigner::new(vec![7; 32]);
    let scopes = vec!["*".to_owned()];
    let minute = Duration::from_secs(60);
    let token: CapToken = signer.mint("ann", Role::Observer, scopes.clone(), minute, Some(3));
    let CapToken { agent_id, role, issued_at, expire_at, max_uses, nonce, sig_hex, .. } = &token;
    assert_eq!((agent_id.as_str(), *role, *max_uses), ("ann", Role::Observer, Some(3)));
    assert_eq!((expire_at - issued_at, nonce.len(), sig_hex.len()), (60, 32, 64));
    assert_eq!((token.id(), token.is_expired(*expire_at)), (nonce.as_str(), true));
    let bearer: String = token.encode();
    let decoded: Result<CapToken, CapTokenDecodeError> = CapToken::decode(&bearer);
    assert!(signer.verify_sig(&decoded.unwrap()));
    assert!(CapToken::decode("no token").is_err());
    let once = signer.one_time("ann", Role::Observer, scopes.clone(), minute);
    let twice = signer.limited("ann", Role::Observer, scopes, minute, 2);
    let session = signer.session("ann", Role::Observer, minute);
    assert_eq!((once.max_uses, twice.max_uses, session.max_uses), (Some(1), Some(2), None));
    assert_ne!(CapTokenConsumeError::Revoked, CapTokenConsumeError::Exhausted);
}

#[test]
fn a_gate_says_what_a_role_may() {
    let gate = RoleVerbGate::new().allow(Role::Worker, &[Verb::FetchPrompt]);
    assert!(gate.is_allowed(Role::Worker, Verb::FetchPrompt));
    assert!(!gate.is_allowed(Role::Operator, Verb::FetchPrompt));
    let table = default_role_verb_table();
    assert!(table.is_allowed(Role::Operator, Verb::StartTask));
    assert!(!table.is_allowed(Role::Observer, Verb::StartTask));
}

#[test]
fn outputs_and_contents_have_their_shapes() {
    let events = [
        OutputEvent::Progress { stage: "one".to_owned(), note: None },
        OutputEvent::Partial { chunk: json!("piece") },
        OutputEvent::Artifact { name: "log".to_owned(), content: ContentRef::inline_text("x") },
        OutputEvent::Final { content: ContentRef::inline(json!(1)), ok: true },
    ];
    let kinds = events.map(|event| serde_json::to_value(event).unwrap()["type"].clone());
    assert_eq!(kinds, ["progress", "partial", "artifact", "final"].map(|kind| json!(kind)));
    let file = ContentRef::FileRef { path: "p".to_owned(), mime: None, size_hint: Some(1) };
    assert_ne!(file, ContentRef::file_ref("p"));
}

#[test]
fn a_ctx_and_its_operator_are_open_records() {
    let mut ctx = Ctx::new(TaskId::from_bits(1), 1, "a");
    ctx.meta.runtime.insert("k".to_owned(), json!(1));
    ctx.meta.authz.insert("k".to_owned(), json!(1));
    ctx.meta.observer.insert("k".to_owned(), json!(1));
    ctx.meta.loop_ns.insert("k".to_owned(), json!(1));
    let faces = Arc::new(Faces);
    ctx.operator = OperatorInfo {
        kind: OperatorKind::MainAi,
        id: "ann".to_owned(),
        senior_bridge: Some(faces.clone()),
        spawn_hook: Some(faces.clone()),
        operator: Some(faces),
    };
    let Ctx { task_id: _, attempt, agent, .. } = &ctx;
    assert_eq!((*attempt, agent.as_str()), (1, "a"));
    assert_eq!(OperatorInfo::default().id, "default-automate");
    assert!(!Faces.requires_worker_binding());
    let kind = collapse_operator_kind(None, None, None, Some(OperatorKind::Composite));
    assert_eq!(kind, OperatorKind::Composite);
}

#[tokio::test]
async fn a_host_worker_is_a_worker() {
    let cancel = CancellationToken::new();
    let id: WorkerId = adjutant::Mint::seeded(1).worker_id();
    let worker: Box<dyn Worker> = Box::new(HostWorker(id, cancel.clone()));
    assert_eq!(*worker.id(), id);
    worker.cancel_token().cancel();
    assert_eq!(worker.join().await, Err(WorkerError::Cancelled));
    let (done, completion) = oneshot::channel();
    let handler = WorkerJoinHandler { worker_id: id, cancel, completion };
    let _ = done.send(Err(WorkerError::Failed("broke".to_owned())));
    assert!(handler.await_completion().await.is_err());
    let kept = Kept::default();
    kept.emit(OutputEvent::Partial { chunk: json!(1) }).await.unwrap();
    assert_eq!(kept.0.into_inner().unwrap().len(), 1);
}

#[tokio::test]
async fn stacks_and_links_wrap_a_spawner_of_the_host() {
    let layers = LayerRegistry::new()
        .with_base(|_engine: &Engine| Arc::new(Through))
        .with_hint("through", |_engine| Arc::new(Through) as Arc<dyn SpawnerLayer>);
    assert_eq!((layers.base_factories().len(), layers.lookup_hint("other").is_none()), (1, true));
    let engine = Engine::new_with_layers(EngineCfg::default(), layers);
    let base: Arc<dyn SpawnerAdapter> = Arc::new(HostSpawner);
    let by_hand: Arc<dyn SpawnerAdapter> =
        SpawnerStack::new(base.clone()).layer(Through).layer_dyn(Arc::new(Through)).build();
    let hints = ["through".to_owned()];
    let linked: Arc<dyn SpawnerAdapter> = link(base.clone(), &hints, &engine);
    let as_documented = adjutant::service::linker::link(base, &hints, &engine);
    let operator = engine.attach("ann", Role::Operator, LONG).await.unwrap();
    for spawner in [by_hand, linked, as_documented] {
        let task = engine.start_task(&operator, TaskSpec::new("any", "hello")).await.unwrap();
        let outcome = engine.dispatch_attempt_with(&operator, &task, &spawner).await.unwrap();
        let said = json!({ "agent": "any", "prompt": "hello", "system": null });
        assert_eq!(outcome, DispatchOutcome::Pass(said));
    }
}

#[test]
fn a_process_spawner_is_built_by_its_setters() {
    let sse = ProcessSpawner::new("cat").arg("-u").args(["-", "-"]).use_stdin(true);
    let spawners: [Arc<dyn SpawnerAdapter>; 4] = [
        Arc::new(sse.stream_mode(StreamMode::SseEvents)),
        Arc::new(ProcessSpawner::run("cat").stream_mode(StreamMode::NdjsonLines)),
        Arc::new(ProcessSpawner::run("cat").stream_mode(StreamMode::LengthPrefixed)),
        Arc::new(ProcessSpawner::new("echo").use_stdin(false).plain()),
    ];
    assert_eq!(spawners.len(), 4);
}

#[tokio::test]
async fn an_in_process_agent_sees_its_whole_invocation() {
    let world = World::new().await;
    let mut spawner = InProcSpawner::new();
    spawner
        .register("one", |call: WorkerInvocation| async move {
            let WorkerInvocation { token, task_id, attempt, agent, prompt, sink, cancel_token } =
                call;
            let _: (CapToken, TaskId, u32, String) = (token, task_id, attempt, agent);
            let sink: Arc<dyn OutputSink> = sink.unwrap();
            let stage = "begun".to_owned();
            sink.emit(OutputEvent::Progress { stage, note: None }).await.unwrap();
            let ok = !cancel_token.unwrap().is_cancelled();
            Ok(WorkerResult { value: prompt.into(), ok })
        })
        .register("two", |_| async { Err(WorkerError::Failed("no".to_owned())) });
    let spawner: Arc<dyn SpawnerAdapter> = Arc::new(spawner);
    let task = world.start("one").await;
    let outcome = world.engine.dispatch_attempt_with(&world.operator, &task, &spawner).await;
    assert_eq!(outcome, Ok(DispatchOutcome::Pass(json!("do it"))));
    assert_eq!(world.engine.output_tail(&task, 1).await.len(), 2);
}

#[tokio::test]
async fn the_verbs_of_seniors_observers_and_operators_have_methods() {
    let World { engine, operator, senior, observer } = World::new().await;
    let start = || engine.start_task(&operator, TaskSpec::new("any", "hello"));
    let (task, marked, blocked) =
        (start().await.unwrap(), start().await.unwrap(), start().await.unwrap());
    let mut live = engine.subscribe_with(&observer).await.unwrap();
    engine.inject_directive(&senior, &task, "hello again").await.unwrap();
    engine.pause_dispatch(&senior).await.unwrap();
    engine.resume_dispatch(&senior).await.unwrap();
    let key = engine.query_senior(&operator, &task, json!("?")).await.unwrap();
    engine.answer_query(&senior, key, json!("!")).await.unwrap();
    engine.override_verdict(&senior, &task, false, json!("no")).await.unwrap();
    engine.mark_pass(&operator, &marked, json!("yes")).await.unwrap();
    engine.mark_blocked(&operator, &blocked, json!("no")).await.unwrap();
    let minted = engine.mint_worker_token(&operator, &task, LONG, Some(1)).await;
    assert!(matches!(minted, Err(EngineError::InvalidTransition(_))), "no attempt is live");
    let trace = engine.read_trace(&observer, Some(&task), 0, usize::MAX).await.unwrap();
    assert!(trace.iter().all(|record| record.event.task_id() == Some(task)) && trace.len() > 4);
    assert_eq!(engine.read_output(&observer, &task, 1).await, Ok(vec![]));
    let first = live.recv().await.unwrap();
    assert_eq!(first.event, Event::DirectiveInjected { task_id: task });
    engine.detach_and_revoke(&observer).await.unwrap();
}
