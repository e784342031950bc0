//! Layers and operators: each fires when it should and leaves alone what it should.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use adjutant::{
    AgentResolverMiddleware, CapToken, Ctx, DispatchOutcome, Engine, EngineCfg, EngineError,
    InProcSpawner, InputInjectMiddleware, LayerRegistry, MemoryOutputStore, Operator, OperatorInfo,
    OperatorKind, OperatorSpawner, ProjectNameAliasMiddleware, Role, SeniorBridge, SinkMiddleware,
    SpawnError, SpawnHook, SpawnerAdapter, SpawnerLayer, SpawnerStack, TaskId, TaskSpec, Worker,
    WorkerBinding, WorkerError, WorkerResult, async_trait, link, try_link,
};
use serde_json::{Value, json};

use crate::world::{World, agents, calm, done, eventually};

/// Notes what it was called with, in order.
#[derive(Clone, Default)]
struct Notes(Arc<Mutex<Vec<String>>>);

impl Notes {
    fn add(&self, note: impl Into<String>) {
        self.0.lock().unwrap().push(note.into());
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// All three faces in one.
#[derive(Clone, Default)]
struct Face {
    notes: Notes,
    refuses: bool,
    hangs: bool,
    binding: bool,
}

#[async_trait]
impl SeniorBridge for Face {
    async fn ask(&self, _task: &TaskId, question: Value) -> Result<Value, String> {
        self.notes.add(format!("ask {question}"));
        if self.refuses { Err("no answer".into()) } else { Ok(json!("let it pass")) }
    }
}

#[async_trait]
impl SpawnHook for Face {
    async fn before(&self, ctx: &Ctx) -> Result<(), String> {
        self.notes.add(format!("before {}", ctx.agent));
        if self.refuses { Err("not today".into()) } else { Ok(()) }
    }

    async fn after(&self, _ctx: &Ctx, result: &Value) -> Result<(), String> {
        self.notes.add(format!("after {result}"));
        Err("its error changes nothing".into())
    }
}

struct OnDrop(Notes);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.add("dropped");
    }
}

#[async_trait]
impl Operator for Face {
    async fn execute(
        &self,
        _ctx: &Ctx,
        system: Option<String>,
        prompt: String,
        worker: Option<WorkerBinding>,
        _token: CapToken,
    ) -> Result<WorkerResult, WorkerError> {
        let _dropped = OnDrop(self.notes.clone());
        let binding = worker.map(|binding| binding.definition);
        self.notes.add(format!("execute {system:?} {prompt} {binding:?}"));
        if self.hangs {
            std::future::pending::<()>().await;
        }
        done(json!("by the operator"), true)
    }

    fn requires_worker_binding(&self) -> bool {
        self.binding
    }
}

/// A session with all faces and this kind.
async fn attach(engine: &Engine, face: &Face, kind: OperatorKind) -> CapToken {
    let info = OperatorInfo {
        kind,
        id: "ann".into(),
        senior_bridge: Some(Arc::new(face.clone())),
        spawn_hook: Some(Arc::new(face.clone())),
        operator: Some(Arc::new(face.clone())),
    };
    engine.attach_with("ann", Role::Operator, Duration::from_secs(60), info).await.unwrap()
}

/// Dispatches `agent` under a hinted layer, in a session of this kind.
async fn under(
    hint: &str,
    face: &Face,
    kind: OperatorKind,
    agent: &str,
) -> Result<DispatchOutcome, EngineError> {
    let engine = Engine::new_with_layers(calm(), LayerRegistry::standard());
    let token = attach(&engine, face, kind).await;
    let task = engine.start_task(&token, TaskSpec::new(agent, "do it")).await.unwrap();
    let spawner = link(agents(), &[hint.to_owned()], &engine);
    engine.dispatch_attempt_with(&token, &task, &spawner).await
}

#[tokio::test]
async fn the_hook_frames_attempts_in_which_an_operator_takes_part() {
    for kind in [OperatorKind::MainAi, OperatorKind::Composite] {
        let face = Face::default();
        let outcome = under("main_ai", &face, kind, "block").await.unwrap();
        assert_eq!(outcome, DispatchOutcome::Blocked(json!("no")));
        assert_eq!(face.notes.take(), ["before block", "after \"no\""]);
        let _ = under("main_ai", &face, kind, "fail").await;
        assert_eq!(face.notes.take(), ["before fail", "after \"broke\""]);
    }
    let face = Face::default();
    under("main_ai", &face, OperatorKind::Automate, "pass").await.unwrap();
    assert_eq!(face.notes.take(), [""; 0]);
}

#[tokio::test]
async fn a_hook_that_refuses_rejects_the_spawn() {
    let face = Face { refuses: true, ..Face::default() };
    let error = under("main_ai", &face, OperatorKind::MainAi, "pass").await.unwrap_err();
    assert!(error.to_string().contains("refused by a layer: not today"), "{error}");
    assert_eq!(face.notes.take(), ["before pass"]);
}

#[tokio::test]
async fn the_senior_may_turn_a_no_into_a_yes() {
    let face = Face::default();
    let kind = OperatorKind::Automate;
    let outcome = under("senior_escalation", &face, kind, "block").await.unwrap();
    let expected = json!({ "original": "no", "senior_answer": "let it pass" });
    assert_eq!(outcome, DispatchOutcome::Pass(expected));
    assert_eq!(face.notes.take().len(), 1);
    under("senior_escalation", &face, kind, "pass").await.unwrap();
    let _ = under("senior_escalation", &face, kind, "fail").await;
    assert_eq!(face.notes.take(), [""; 0]);
    let mute = Face { refuses: true, ..Face::default() };
    let outcome = under("senior_escalation", &mute, kind, "block").await.unwrap();
    assert_eq!(outcome, DispatchOutcome::Blocked(json!("no")));
}

#[tokio::test]
async fn the_operator_works_in_place_of_the_spawner() {
    let face = Face::default();
    let outcome = under("operator_delegate", &face, OperatorKind::MainAi, "block").await.unwrap();
    assert_eq!(outcome, DispatchOutcome::Pass(json!("by the operator")));
    assert_eq!(face.notes.take()[0], "execute None do it None");
    let kind = OperatorKind::Automate;
    let outcome = under("operator_delegate", &face, kind, "block").await.unwrap();
    assert_eq!(outcome, DispatchOutcome::Blocked(json!("no")));
}

#[tokio::test(start_paused = true)]
async fn a_slow_attempt_is_reported_once_and_goes_on() {
    let mut cfg = calm();
    cfg.long_hold.default_hold = Duration::from_secs(10);
    let world = World::around(Engine::new_with_layers(cfg, LayerRegistry::standard())).await;
    let mut spawner = InProcSpawner::new();
    spawner.register("slow", |_| async {
        tokio::time::sleep(Duration::from_secs(60)).await;
        done(json!(1), true)
    });
    let spawner = link(Arc::new(spawner), &[], &world.engine);
    for (agent_secs, task) in [(60, world.start("slow").await)] {
        let outcome = world.run(task, &spawner).await.unwrap().unwrap();
        assert_eq!(outcome, DispatchOutcome::Pass(json!(1)), "{agent_secs}");
        let slow = world.kinds(task).await.into_iter().filter(|kind| *kind == "attempt_slow");
        assert_eq!(slow.count(), 1);
    }
}

/// Shows its agent and the named values of the context.
struct Mirror;

#[async_trait]
impl SpawnerAdapter for Mirror {
    async fn spawn(
        &self,
        engine: &Engine,
        ctx: &Ctx,
        task_id: TaskId,
        attempt: u32,
        token: CapToken,
    ) -> Result<Box<dyn Worker>, SpawnError> {
        let mut shown = json!({ "agent": ctx.agent });
        for key in ["data_sink_endpoint", "input_refs", "project_name_alias", "order"] {
            shown[key] = ctx.meta.runtime.get(key).cloned().unwrap_or_default();
        }
        let mut inner = InProcSpawner::new();
        inner.register(ctx.agent.clone(), move |_| {
            let shown = shown.clone();
            async move { done(shown, true) }
        });
        inner.spawn(engine, ctx, task_id, attempt, token).await
    }
}

#[tokio::test]
async fn layers_lay_values_out_for_those_below() {
    use adjutant::OutputStore;
    let world = World::new().await;
    let store = Arc::new(MemoryOutputStore::new());
    let event = adjutant::OutputEvent::Partial { chunk: json!(1) };
    let id = store.append(TaskId::from_bits(1), 1, "a", event, vec![]).await.unwrap();
    let stack = SpawnerStack::new(Arc::new(Mirror) as Arc<dyn SpawnerAdapter>)
        .layer(SinkMiddleware::new(store, "http://sink"))
        .layer(InputInjectMiddleware::new([id]))
        .layer(ProjectNameAliasMiddleware::new("bees"))
        .layer(AgentResolverMiddleware::new(|hint, _| format!("{hint}-real")))
        .build();
    let task = world.start("hint").await;
    let outcome = world.run(task, &stack).await.unwrap().unwrap();
    let expected = json!({
        "agent": "hint-real", "data_sink_endpoint": "http://sink",
        "input_refs": [id.to_string()], "project_name_alias": "bees", "order": null
    });
    assert_eq!(outcome, DispatchOutcome::Pass(expected));
}

/// Adds its name to a list in the context.
struct Named(&'static str);

impl SpawnerLayer for Named {
    fn wrap(&self, inner: Arc<dyn SpawnerAdapter>) -> Arc<dyn SpawnerAdapter> {
        Arc::new(NamedSpawner { inner, name: self.0 })
    }
}

struct NamedSpawner {
    inner: Arc<dyn SpawnerAdapter>,
    name: &'static str,
}

#[async_trait]
impl SpawnerAdapter for NamedSpawner {
    async fn spawn(
        &self,
        engine: &Engine,
        ctx: &Ctx,
        task_id: TaskId,
        attempt: u32,
        token: CapToken,
    ) -> Result<Box<dyn Worker>, SpawnError> {
        let mut ctx = ctx.clone();
        let list = ctx.meta.runtime.entry("order".into()).or_insert_with(|| json!([]));
        list.as_array_mut().unwrap().push(json!(self.name));
        self.inner.spawn(engine, &ctx, task_id, attempt, token).await
    }
}

#[tokio::test]
async fn the_last_hint_is_outermost_and_the_first_base_layer_innermost() {
    let registry = LayerRegistry::new()
        .with_base(|_| Arc::new(Named("base 1")))
        .with_base(|_| Arc::new(Named("base 2")))
        .with_hint("a", |_| Arc::new(Named("a")))
        .with_hint("b", |_| Arc::new(Named("b")));
    let world = World::around(Engine::new_with_layers(calm(), registry)).await;
    let hints = ["a".to_owned(), "nobody".to_owned(), "b".to_owned()];
    let spawner = link(Arc::new(Mirror), &hints, &world.engine);
    let task = world.start("any").await;
    let outcome = world.run(task, &spawner).await.unwrap().unwrap();
    let DispatchOutcome::Pass(value) = outcome else { panic!("{outcome:?}") };
    assert_eq!(value["order"], json!(["b", "a", "base 2", "base 1"]));
}

#[tokio::test]
async fn a_strict_link_names_all_unknown_hints() {
    let cfg = EngineCfg { strict_link: true, ..calm() };
    let engine = Engine::new_with_layers(cfg, LayerRegistry::standard());
    let hints = ["x".to_owned(), "main_ai".to_owned(), "y".to_owned()];
    let error = try_link(agents(), &hints, &engine).err().unwrap();
    assert_eq!(error.unknown, ["x", "y"]);
    assert_eq!(error.known, ["main_ai", "operator_delegate", "senior_escalation"]);
    let lax = Engine::new_with_layers(calm(), LayerRegistry::standard());
    assert!(try_link(agents(), &hints, &lax).is_ok());
}

#[tokio::test]
async fn the_operator_spawner_renders_binds_late_and_stops_when_asked() {
    let world = World::new().await;
    let face = Face { binding: true, ..Face::default() };
    let binding = || WorkerBinding { definition: "sub".into(), tools: vec![] };
    let spawner = |template: &str| -> Arc<dyn SpawnerAdapter> {
        Arc::new(OperatorSpawner::named("op").system_prompt(template).binding(binding()))
    };
    let task = world.start("any").await;
    let late = world.run(task, &spawner("x")).await.unwrap().unwrap_err();
    assert!(late.to_string().contains("no operator op is registered"), "{late}");
    world.engine.register_operator("op", Arc::new(face.clone())).await;
    let outcome = world.run(task, &spawner("You: {{ directive }}")).await.unwrap().unwrap();
    assert_eq!(outcome, DispatchOutcome::Pass(json!("by the operator")));
    assert_eq!(face.notes.take()[0], "execute Some(\"You: do it\") do it Some(\"sub\")");
    let payload = world.engine.fetch_worker_payload_trusted(&task).await.unwrap();
    assert_eq!(payload.system.as_deref(), Some("You: do it"));
    let task = world.start("poet").await;
    let error = world.run(task, &spawner("{{ nobody }}")).await.unwrap().unwrap_err();
    assert!(error.to_string().contains("poet"), "{error}");
    let unbound: Arc<dyn SpawnerAdapter> = Arc::new(OperatorSpawner::named("op"));
    let error = world.run(task, &unbound).await.unwrap().unwrap_err();
    assert!(error.to_string().contains("names no sub-agent"), "{error}");
}

#[tokio::test]
async fn cancelling_drops_the_operators_future() {
    let world = World::new().await;
    let face = Face { hangs: true, ..Face::default() };
    let spawner: Arc<dyn SpawnerAdapter> = Arc::new(OperatorSpawner::new(Arc::new(face.clone())));
    let task = world.start("any").await;
    let run = world.run(task, &spawner);
    let begun = || async { !face.notes.0.lock().unwrap().is_empty() };
    eventually("the operator's work", begun).await;
    world.engine.cancel_task(&world.operator, &task).await.unwrap();
    assert_eq!(run.await.unwrap(), Ok(DispatchOutcome::Cancelled));
    assert_eq!(face.notes.take()[1], "dropped");
}

/// Calls back into the engine from `before`, for its own task and in general.
struct Reentrant {
    engine: Engine,
    operator: CapToken,
}

#[async_trait]
impl SpawnHook for Reentrant {
    async fn before(&self, ctx: &Ctx) -> Result<(), String> {
        let (engine, token, task) = (&self.engine, &self.operator, &ctx.task_id);
        engine.read_task_state(token, task).await.map_err(|error| error.to_string())?;
        engine.poll_task(token, task, Duration::ZERO).await.map_err(|error| error.to_string())?;
        engine.heartbeat(token).await.map_err(|error| error.to_string())?;
        let other = engine
            .start_task(token, TaskSpec::new("pass", "inner"))
            .await
            .map_err(|error| error.to_string())?;
        let inner = engine.dispatch_attempt_with(token, &other, &agents()).await;
        inner.map(|_| ()).map_err(|error| error.to_string())
    }

    async fn after(&self, _ctx: &Ctx, _result: &Value) -> Result<(), String> {
        Ok(())
    }
}

#[tokio::test]
async fn a_hook_may_call_the_engine_without_a_dead_lock() {
    let registry = LayerRegistry::standard();
    let world = World::around(Engine::new_with_layers(calm(), registry)).await;
    let operator = world.operator.clone();
    let hook = Arc::new(Reentrant { engine: world.engine.unanchored(), operator });
    world.engine.register_spawn_hook("h", hook).await;
    let token = world
        .engine
        .attach_with_ids(
            "ann",
            Role::Operator,
            Duration::from_secs(60),
            Some(OperatorKind::MainAi),
            None,
            Some("h".into()),
            None,
            [].into(),
            [].into(),
            None,
        )
        .await
        .unwrap();
    let task = world.engine.start_task(&token, TaskSpec::new("pass", "x")).await.unwrap();
    let spawner = link(agents(), &["main_ai".into()], &world.engine);
    let outcome = world.engine.dispatch_attempt_with(&token, &task, &spawner).await.unwrap();
    assert!(matches!(outcome, DispatchOutcome::Pass(_)), "{outcome:?}");
    world.at_rest().await;
}

#[tokio::test]
async fn a_sub_tasks_dispatch_has_its_parents_operator_faces() {
    let face = Face::default();
    let engine = Engine::new_with_layers(calm(), LayerRegistry::standard());
    let token = attach(&engine, &face, OperatorKind::MainAi).await;
    let layered = link(agents(), &["main_ai".into()], &engine);
    let (inside, below) = (engine.unanchored(), layered.clone());
    let mut boss = InProcSpawner::new();
    boss.register("boss", move |call: adjutant::WorkerInvocation| {
        let (engine, below) = (inside.clone(), below.clone());
        async move {
            let spec = TaskSpec::new("pass", "below");
            let child = engine.start_task(&call.token, spec).await.unwrap();
            let outcome = engine.dispatch_attempt_with(&call.token, &child, &below).await.unwrap();
            done(json!(matches!(outcome, DispatchOutcome::Pass(_))), true)
        }
    });
    let boss: Arc<dyn SpawnerAdapter> = Arc::new(boss);
    let task = engine.start_task(&token, TaskSpec::new("boss", "x")).await.unwrap();
    let outcome = engine.dispatch_attempt_with(&token, &task, &boss).await;
    assert_eq!(outcome, Ok(DispatchOutcome::Pass(json!(true))));
    assert_eq!(face.notes.take()[0], "before pass");
}
