//! What is logged, at every level: no secret, nobody's texts, and one line an event.
//!
//! Each test has a runtime of one thread, so that its subscriber hears everything that the engine
//! says meanwhile and nothing of another test.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use adjutant::{
    CancellationToken, CapToken, Ctx, Engine, EngineCfg, InProcSpawner, LayerRegistry, Operator,
    OperatorInfo, OperatorKind, OutputEvent, Role, SeniorBridge, SpawnError, SpawnHook,
    SpawnerAdapter, TaskId, TaskSpec, Worker, WorkerBinding, WorkerError, WorkerInvocation,
    WorkerJoinHandler, WorkerResult, async_trait, link,
};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tracing::Level;
use tracing::subscriber::DefaultGuard;

use crate::rights::copy;
use crate::world::{World, calm, done};

/// A text that ends its line, colors the next one, and pretends to be of the log.
const FORGED: &str = "x\nERROR adjutant: FORGED\r\u{1b}[31mFORGED\u{9b}2J";

/// The log's text.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// Hears everything until the guard is dropped.
    fn start(&self) -> DefaultGuard {
        let log = self.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(Level::TRACE)
            .with_ansi(false)
            .without_time()
            .with_writer(move || log.clone())
            .finish();
        tracing::subscriber::set_default(subscriber)
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A host's faces that say no, with this text.
#[derive(Clone)]
struct No(String);

#[async_trait]
impl SeniorBridge for No {
    async fn ask(&self, _: &TaskId, _: Value) -> Result<Value, String> {
        Err(self.0.clone())
    }
}

#[async_trait]
impl SpawnHook for No {
    async fn before(&self, ctx: &Ctx) -> Result<(), String> {
        if ctx.agent == "refused" { Err(self.0.clone()) } else { Ok(()) }
    }

    async fn after(&self, _: &Ctx, _: &Value) -> Result<(), String> {
        Err(self.0.clone())
    }
}

#[async_trait]
impl Operator for No {
    async fn execute(
        &self,
        _: &Ctx,
        _: Option<String>,
        _: String,
        _: Option<WorkerBinding>,
        _: CapToken,
    ) -> Result<WorkerResult, WorkerError> {
        Err(WorkerError::Failed(self.0.clone()))
    }
}

#[async_trait]
impl SpawnerAdapter for No {
    async fn spawn(
        &self,
        _: &Engine,
        _: &Ctx,
        _: TaskId,
        _: u32,
        _: CapToken,
    ) -> Result<Box<dyn Worker>, SpawnError> {
        Err(SpawnError::Internal(self.0.clone()))
    }
}

/// A session of the engine whose faces say no.
async fn refusing(engine: &Engine, text: &str) -> CapToken {
    let no = Arc::new(No(text.to_owned()));
    let info = OperatorInfo {
        kind: OperatorKind::MainAi,
        id: "no".to_owned(),
        senior_bridge: Some(no.clone()),
        spawn_hook: Some(no.clone()),
        operator: Some(no),
    };
    let hour = Duration::from_secs(3600);
    engine.attach_with("no", Role::Operator, hour, info).await.unwrap()
}

/// Agents that repeat a text in each way that they can end, under all standard layers.
fn repeating(engine: &Engine, text: &str) -> Arc<dyn SpawnerAdapter> {
    let mut agents = InProcSpawner::new();
    let said = text.to_owned();
    let [fails, panics, blocks, passes] = [said.clone(), said.clone(), said.clone(), said];
    agents.register("fails", move |_| std::future::ready(Err(WorkerError::Failed(fails.clone()))));
    agents.register("panics", move |_| {
        let text = panics.clone();
        async move { panic!("{text}") }
    });
    agents.register("blocks", move |_| std::future::ready(done(json!(blocks.clone()), false)));
    agents.register("passes", move |call: WorkerInvocation| {
        let text = passes.clone();
        async move {
            let sink = call.sink.unwrap();
            let stage = OutputEvent::Progress { stage: text.clone(), note: Some(text.clone()) };
            sink.emit(stage).await.unwrap();
            sink.emit(OutputEvent::Partial { chunk: json!(text) }).await.unwrap();
            done(json!(text), true)
        }
    });
    layered(Arc::new(agents), engine)
}

fn layered(spawner: Arc<dyn SpawnerAdapter>, engine: &Engine) -> Arc<dyn SpawnerAdapter> {
    let hints: Vec<String> = LAYERS.iter().map(|layer| (*layer).to_owned()).collect();
    link(spawner, &hints, engine)
}

/// Beside the layers that every program has.
const LAYERS: [&str; 3] = ["main_ai", "operator_delegate", "senior_escalation"];

async fn world() -> World {
    World::around(Engine::new_with_layers(calm(), LayerRegistry::standard())).await
}

#[tokio::test]
async fn no_text_of_a_caller_or_a_worker_makes_a_line_of_its_own() {
    let log = Log::default();
    let guard = log.start();
    let world = world().await;
    let engine = &world.engine;
    let spawner = repeating(engine, FORGED);
    let refuses = layered(Arc::new(No(FORGED.to_owned())), engine);
    for token in [world.operator.clone(), refusing(engine, FORGED).await] {
        for agent in ["fails", "panics", "blocks", "passes", "refused", "nobody"] {
            let task = engine.start_task(&token, TaskSpec::new(agent, FORGED)).await.unwrap();
            let spawner = if agent == "nobody" { &refuses } else { &spawner };
            let _ = engine.dispatch_attempt_with(&token, &task, spawner).await;
            let _ = engine.cancel_task(&token, &task).await;
        }
    }
    let task = world.start(FORGED_NAME).await;
    let unknown = [FORGED.to_owned()];
    let _ = link(spawner, &unknown, engine);
    let refused = [
        engine.set_resource(FORGED, json!(1)).await.err(),
        engine.attach(FORGED, Role::Operator, Duration::from_secs(1)).await.err(),
        engine.start_task(&world.operator, TaskSpec::new(FORGED, "x")).await.err(),
        engine.resolve_handle(FORGED).await.err(),
    ];
    for error in refused.iter().flatten() {
        assert!(!error.to_string().contains(['\n', '\r', '\u{1b}', '\u{9b}']), "{error}");
    }
    engine.cancel_task(&world.operator, &task).await.unwrap();
    engine.shutdown(Duration::from_secs(5)).await;
    drop(guard);
    let text = log.text();
    assert!(text.contains("FORGED"), "nothing of it was logged, so nothing is shown:\n{text}");
    assert!(!text.contains(['\u{1b}', '\u{9b}', '\r']), "{text}");
    let levels = ["TRACE", "DEBUG", " INFO", " WARN", "ERROR"];
    for line in text.lines() {
        let own = levels.iter().any(|level| line.starts_with(level));
        assert!(own && !line.starts_with("ERROR adjutant: FORGED"), "{line}");
    }
}

/// An agent that nobody brings; a name may hold no control character.
const FORGED_NAME: &str = "ERROR adjutant: FORGED";

const TEXTS: [&str; 6] = [
    "canary-prompt",
    "canary-system",
    "canary-answer",
    "canary-question",
    "canary-result",
    "canary-resource",
];

/// Shows what an attempt is given, then waits until it is to stop.
struct Waits(Mutex<Option<oneshot::Sender<(CapToken, String)>>>);

#[async_trait]
impl SpawnerAdapter for Waits {
    async fn spawn(
        &self,
        engine: &Engine,
        ctx: &Ctx,
        task: TaskId,
        attempt: u32,
        token: CapToken,
    ) -> Result<Box<dyn Worker>, SpawnError> {
        assert_eq!(engine.fetch_prompt(&token, &task).await.unwrap(), "canary-prompt");
        let system = Some("canary-system".to_owned());
        engine.bake_worker_system_prompt(&task, attempt, system).await.unwrap();
        let handle = ctx.meta.runtime["worker_handle"].as_str().unwrap().to_owned();
        let tell = self.0.lock().unwrap().take().unwrap();
        tell.send((token, handle)).unwrap();
        let (cancel, (done, completion)) = (CancellationToken::new(), oneshot::channel());
        let asked = cancel.clone();
        tokio::spawn(async move {
            asked.cancelled().await;
            done.send(Err(WorkerError::Cancelled))
        });
        Ok(Box::new(WorkerJoinHandler { worker_id: engine.mint().worker_id(), cancel, completion }))
    }
}

/// A task that held all that a task may hold, from its prompt to the answer of its senior, and the
/// token and the handle of its worker.
async fn filled(world: &World) -> (TaskId, CapToken, String) {
    let engine = &world.engine;
    engine.set_resource("name", json!("canary-resource")).await.unwrap();
    let (tell, told) = oneshot::channel();
    let agents: Arc<dyn SpawnerAdapter> = Arc::new(Waits(Mutex::new(Some(tell))));
    let spec = TaskSpec::new("waits", "canary-prompt");
    let task = engine.start_task(&world.operator, spec).await.unwrap();
    let run = world.run(task, &link(agents, &[], engine));
    let (token, handle) = told.await.unwrap();
    let key = engine.query_senior(&world.operator, &task, json!("canary-question")).await.unwrap();
    engine.answer_query(&world.senior, key, json!("canary-answer")).await.unwrap();
    engine.mark_pass(&world.operator, &task, json!("canary-result")).await.unwrap();
    run.await.unwrap().unwrap();
    (task, token, handle)
}

#[tokio::test]
async fn no_secret_and_nobodys_text_is_in_a_log_or_an_error() {
    let log = Log::default();
    let guard = log.start();
    let root = "canary-root-of-all-keys-32-bytes!";
    let cfg = EngineCfg { token_secret: root.as_bytes().to_vec(), ..calm() };
    let world = World::around(Engine::new_with_layers(cfg, LayerRegistry::standard())).await;
    let engine = &world.engine;
    let (task, worker, handle) = filled(&world).await;
    let mut errors = Vec::new();
    for token in [&worker, &world.operator, &world.senior, &world.observer] {
        errors.extend(engine.fetch_prompt(token, &task).await.err());
        errors.extend(engine.mark_pass(token, &task, json!("canary-result")).await.err());
        errors.extend(engine.inject_directive(token, &task, "canary-prompt").await.err());
        errors.extend(engine.fetch_data(token, "canary-resource").await.err());
        let again = engine.query_senior(token, &task, json!("canary-question")).await;
        errors.extend(again.err());
    }
    errors.extend(engine.resolve_handle(&handle).await.err());
    errors.extend(engine.resolve_handle(&format!("{handle}0")).await.err());
    assert!(errors.len() > 15, "{errors:?}");
    let session = engine.read_session(&world.operator).await.unwrap();
    let shown = format!(
        "{engine:?} {:?} {:?} {worker:?} {session:?} {errors:?}",
        engine.cfg(),
        engine.signer()
    );
    let shown = errors.iter().fold(shown, |shown, error| format!("{shown} {error}"));
    let state = format!("{:?}", copy(engine).await);
    let events = serde_json::to_string(&world.events().await).unwrap();
    engine.shutdown(Duration::from_secs(5)).await;
    drop(guard);
    let text = log.text();
    assert!(text.contains("attempt spawned"), "{text}");
    for canary in TEXTS {
        assert!(!text.contains(canary) && !shown.contains(canary), "{canary}\n{text}\n{shown}");
    }
    // Events carry questions, answers and results; what a worker is given is in none.
    for canary in ["canary-prompt", "canary-system", "canary-resource"] {
        assert!(!events.contains(canary), "{canary}: {events}");
    }
    let mut secrets = vec![root.to_owned(), handle];
    for token in [&worker, &world.operator, &world.senior, &world.observer] {
        secrets.extend([token.nonce.clone(), token.sig_hex.clone(), token.encode()]);
    }
    for secret in secrets {
        for (place, said) in
            [("log", &text), ("debug", &shown), ("state", &state), ("event", &events)]
        {
            assert!(!said.contains(&secret), "a secret is in the {place}");
        }
    }
}
