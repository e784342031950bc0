//! The compiler: a checked blueprint becomes a program, agent by agent.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use adjutant_actors::model::session::OperatorKind;
use adjutant_actors::model::task::OnInterrupt;
use mlua_flow_ir::Node;
use serde_json::Value;
use tokio::sync::Semaphore;

use crate::blueprint::check::{Known, check};
use crate::blueprint::document::{AgentDef, Blueprint};
use crate::blueprint::error::{CompileError, CompileErrors};
use crate::blueprint::functions::Functions;
use crate::blueprint::spec::{self, AgentSpec, SubprocessSpec};
use crate::engine::Engine;
use crate::middleware::{ProjectNameAliasMiddleware, SpawnerLayer, UnknownHints, try_link};
use crate::operator::WorkerBinding;
use crate::spawner::{InProcSpawner, OperatorSpawner, ProcessSpawner, SpawnerAdapter};

/// Attempts of one agent at once, for each core, where its spec does not say.
const CONCURRENCY_PER_CORE: usize = 4;

/// Why a blueprint is not a program.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use adjutant::blueprint::{Functions, ProgramError, compile, parse_blueprint};
///
/// # let engine = adjutant::Engine::new(adjutant::EngineCfg::default());
/// let text = r#"{"id": "x", "spawner_hints": {"layers": ["no_such"]},
///     "flow": {"kind": "seq", "children": []}}"#;
/// match compile(&engine, &parse_blueprint(text, None)?, &Functions::new()).await {
///     Ok(program) => assert_eq!(program.warnings().len(), 1), // an unknown layer is left out
///     Err(ProgramError::Compile(faults)) => panic!("{faults}"),
///     Err(other) => panic!("unknown layers, under `strict_link`: {other}"),
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ProgramError {
    /// The document is wrong; all that is, at once.
    #[error(transparent)]
    Compile(#[from] CompileErrors),
    /// It lists layers that this engine does not know, and linking is strict.
    #[error(transparent)]
    Layers(#[from] UnknownHints),
}

/// What carries out a step.
pub(crate) enum AgentWork {
    /// A worker, started by this spawner under all linked layers.
    Spawn(Arc<dyn SpawnerAdapter>),
    /// The senior, asked with this template, or with the input itself.
    Ask(Option<String>),
}

/// One agent, ready to work.
pub(crate) struct Agent {
    pub(crate) name: String,
    pub(crate) work: AgentWork,
    /// Places for attempts that live at once; further steps queue here.
    pub(crate) limit: Semaphore,
    pub(crate) timeout: Option<Duration>,
    pub(crate) on_interrupt: OnInterrupt,
}

/// A blueprint that was compiled for an engine.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use adjutant::blueprint::{Functions, compile};
///
/// # let engine = adjutant::Engine::new(adjutant::EngineCfg::default());
/// # let text = r#"{"id": "echo", "agents": [{"name": "e", "kind": "rust_fn", "spec": {"fn_id": "identity"}}],
/// #     "flow": {"kind": "step", "ref": "e", "in": {"op": "path", "at": "$.in"}, "out": {"op": "path", "at": "$.out"}}}"#;
/// # let echo = adjutant::blueprint::parse_blueprint(text, None)?;
/// let program = compile(&engine, &echo, &Functions::new()).await?;
/// assert_eq!((program.name(), program.agent_names()), ("echo", vec!["e"]));
/// assert!(program.warnings().is_empty());
/// assert_eq!(program.document()["id"], "echo");
/// # Ok(()) }
/// ```
pub struct Program {
    name: String,
    document: Arc<Value>,
    agents: HashMap<String, Agent>,
    flow: Node,
    ttl: Option<Duration>,
    kinds: HashMap<String, OperatorKind>,
    default_kind: Option<OperatorKind>,
    warnings: Vec<String>,
}

impl Program {
    /// The blueprint's id.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The document that it was compiled from. Holds what the blueprint holds, environment values
    /// included.
    #[must_use]
    pub fn document(&self) -> &Arc<Value> {
        &self.document
    }

    /// What looks like a slip in the document and stopped nothing.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Names of the agents, in order.
    #[must_use]
    pub fn agent_names(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.agents.keys().map(String::as_str).collect();
        names.sort_unstable();
        names
    }

    pub(crate) fn agent(&self, name: &str) -> Option<&Agent> {
        self.agents.get(name)
    }

    pub(crate) fn flow(&self) -> &Node {
        &self.flow
    }

    pub(crate) fn ttl(&self) -> Option<Duration> {
        self.ttl
    }

    pub(crate) fn agent_kinds(&self) -> &HashMap<String, OperatorKind> {
        &self.kinds
    }

    pub(crate) fn default_kind(&self) -> Option<OperatorKind> {
        self.default_kind
    }
}

/// What an engine with these functions brings to a blueprint.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use adjutant::blueprint::{Functions, check, known_to};
///
/// # let engine = adjutant::Engine::new(adjutant::EngineCfg::default());
/// # let text = r#"{"id": "echo", "agents": [{"name": "e", "kind": "rust_fn", "spec": {"fn_id": "identity"}}],
/// #     "flow": {"kind": "step", "ref": "e", "in": {"op": "path", "at": "$.in"}, "out": {"op": "path", "at": "$.out"}}}"#;
/// # let echo = adjutant::blueprint::parse_blueprint(text, None)?;
/// let known = known_to(&engine, &Functions::new()).await;
/// let warnings = check(&echo, &known)?; // what `compile` would find, without building anything
/// assert!(known.rust_fns.contains("identity") && warnings.is_empty());
/// # Ok(()) }
/// ```
pub async fn known_to(engine: &Engine, functions: &Functions) -> Known {
    Known {
        rust_fns: functions.names().into_iter().map(str::to_owned).collect(),
        operators: engine.list_operator_ids().await.into_iter().collect(),
        layers: Some(engine.layer_registry().hint_keys().into_iter().collect()),
        ..Known::default()
    }
}

/// Compiles a blueprint for an engine: checks it, builds a spawner for each agent, links layers.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use adjutant::blueprint::{Functions, ProgramError, compile, parse_blueprint};
///
/// # let engine = adjutant::Engine::new(adjutant::EngineCfg::default());
/// let wrong = parse_blueprint(r#"{"id": "wrong",
///     "agents": [{"name": "e", "kind": "rust_fn", "spec": {"fn_id": "nobody"}}],
///     "flow": {"kind": "seq", "children": []}}"#, None)?;
/// let Err(ProgramError::Compile(faults)) = compile(&engine, &wrong, &Functions::new()).await else {
///     panic!("no function of that name is registered")
/// };
/// assert_eq!(faults.errors().len(), 1);
/// # Ok(()) }
/// ```
///
/// # Errors
/// Every fault of the document at once; unknown layers under `strict_link`.
pub async fn compile(
    engine: &Engine,
    blueprint: &Blueprint,
    functions: &Functions,
) -> Result<Program, ProgramError> {
    let known = known_to(engine, functions).await;
    let warnings = check(blueprint, &known)?;
    let mut agents = HashMap::new();
    let mut kinds = HashMap::new();
    for def in &blueprint.agents {
        let kind = blueprint.kind_of(def, known.default_agent_kind.as_ref());
        let Some(Ok(spec)) = spec::read(def, &kind) else { continue };
        if let AgentSpec::Operator(operator) = &spec {
            let named = blueprint.operator(&operator.operator_ref).and_then(|def| def.kind);
            kinds.extend(named.map(|kind| (def.name.clone(), kind)));
        }
        agents.insert(def.name.clone(), agent(engine, blueprint, def, &spec, functions)?);
    }
    let document = serde_json::to_value(blueprint).map_err(unwritable)?;
    Ok(Program {
        name: blueprint.id.clone(),
        document: Arc::new(document),
        agents,
        flow: blueprint.flow.clone(),
        ttl: blueprint.metadata.default_run_ttl_secs.map(Duration::from_secs),
        kinds,
        default_kind: blueprint.default_operator_kind,
        warnings: warnings.iter().map(ToString::to_string).collect(),
    })
}

/// A document that serde cannot write; a checked one always can be.
fn unwritable(error: serde_json::Error) -> CompileErrors {
    let (field, msg) = (String::new(), format!("it cannot be written: {error}"));
    CompileErrors::from(CompileError::InvalidDocument { field, msg })
}

/// Builds one agent from its checked spec.
fn agent(
    engine: &Engine,
    blueprint: &Blueprint,
    def: &AgentDef,
    spec: &AgentSpec,
    functions: &Functions,
) -> Result<Agent, ProgramError> {
    let mut timeout = None;
    let base: Arc<dyn SpawnerAdapter> = match spec {
        AgentSpec::Ask(ask) => {
            return Ok(Agent {
                name: def.name.clone(),
                work: AgentWork::Ask(ask.question_template.clone()),
                limit: Semaphore::new(Semaphore::MAX_PERMITS),
                timeout: None,
                on_interrupt: def.on_interrupt,
            });
        }
        AgentSpec::Subprocess(process) => {
            timeout = process.timeout_secs.map(Duration::from_secs);
            Arc::new(process_spawner(process))
        }
        AgentSpec::RustFn(function) => {
            let mut spawner = InProcSpawner::new();
            if let Some(function) = functions.get(&function.fn_id) {
                spawner.register(def.name.clone(), move |call| function(call));
            }
            Arc::new(spawner)
        }
        AgentSpec::Operator(operator) => Arc::new(operator_spawner(def, &operator.operator_ref)),
    };
    let mut linked = try_link(base, &blueprint.spawner_hints.layers, engine)?;
    if let Some(alias) = &blueprint.metadata.project_name_alias {
        linked = ProjectNameAliasMiddleware::new(alias.clone()).wrap(linked);
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let places = spec.max_concurrency().map_or(cores * CONCURRENCY_PER_CORE, |max| max as usize);
    Ok(Agent {
        name: def.name.clone(),
        work: AgentWork::Spawn(linked),
        limit: Semaphore::new(places),
        timeout,
        on_interrupt: def.on_interrupt,
    })
}

fn process_spawner(spec: &SubprocessSpec) -> ProcessSpawner {
    let mut spawner = match (&spec.program, &spec.shell) {
        (Some(program), _) => ProcessSpawner::new(program.clone()).args(spec.args.clone()),
        (None, shell) => ProcessSpawner::run(shell.clone().unwrap_or_default()),
    };
    spawner = spawner.use_stdin(spec.use_stdin);
    if let Some(mode) = spec.stream_mode {
        spawner = spawner.stream_mode(mode);
    }
    if let Some(folder) = &spec.cwd {
        spawner = spawner.cwd(folder.clone());
    }
    if let Some(bytes) = spec.max_stdout_bytes {
        spawner = spawner.max_stdout_bytes(bytes);
    }
    for (name, value) in &spec.env {
        spawner = spawner.env(name.clone(), value.clone());
    }
    spawner
}

fn operator_spawner(def: &AgentDef, operator_ref: &str) -> OperatorSpawner {
    let mut spawner = OperatorSpawner::named(operator_ref);
    if let Some(prompt) = &def.profile.system_prompt {
        spawner = spawner.system_prompt(prompt.clone());
    }
    if let Some(definition) = &def.profile.worker_binding {
        let (definition, tools) = (definition.clone(), def.profile.tools.clone());
        spawner = spawner.binding(WorkerBinding { definition, tools });
    }
    spawner
}
