//! Layers that lay something out in the context: sink, input references, project alias, agent.

use std::sync::Arc;

use serde_json::Value;

use crate::ctx::Ctx;
use crate::middleware::SpawnerLayer;
use crate::middleware::wrapped::rewritten;
use crate::output_store::{OutputRef, OutputStore};
use crate::spawner::SpawnerAdapter;

/// Key of the sink's address in [`CtxMeta::runtime`](crate::ctx::CtxMeta::runtime).
pub const DATA_SINK_ENDPOINT: &str = "data_sink_endpoint";
/// Key of the input references there: a list of [`OutputRef`] texts.
pub const INPUT_REFS: &str = "input_refs";
/// Key of the project's alias there.
pub const PROJECT_NAME_ALIAS: &str = "project_name_alias";

/// Tells workers where large outputs go, so that a driving agent carries ids only.
///
/// ```
/// use adjutant::{LayerRegistry, MemoryOutputStore, SinkMiddleware};
/// use std::sync::Arc;
///
/// let store = Arc::new(MemoryOutputStore::new());
/// let layers = LayerRegistry::new().with_hint("sink", move |_engine| {
///     Arc::new(SinkMiddleware::new(store.clone(), "http://127.0.0.1:7777/outputs"))
/// });
/// assert_eq!(layers.hint_keys(), ["sink"]);
///
/// let layer = SinkMiddleware::new(Arc::new(MemoryOutputStore::new()), "/outputs");
/// let served = layer.store().clone(); // by the host, under that address
/// # let _ = served;
/// ```
#[derive(Clone)]
pub struct SinkMiddleware {
    store: Arc<dyn OutputStore>,
    endpoint: String,
}

impl SinkMiddleware {
    /// A sink that keeps in `store` what workers send to `endpoint`.
    pub fn new(store: Arc<dyn OutputStore>, endpoint: impl Into<String>) -> Self {
        Self { store, endpoint: endpoint.into() }
    }

    /// The store behind the endpoint, for the host that serves it.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn OutputStore> {
        &self.store
    }
}

impl SpawnerLayer for SinkMiddleware {
    fn wrap(&self, inner: Arc<dyn SpawnerAdapter>) -> Arc<dyn SpawnerAdapter> {
        let endpoint = Value::from(self.endpoint.clone());
        rewritten(inner, move |ctx| {
            ctx.meta.runtime.insert(DATA_SINK_ENDPOINT.to_owned(), endpoint.clone());
        })
    }
}

/// Names outputs of others as a worker's inputs.
///
/// ```
/// use adjutant::{InputInjectMiddleware, OutputRef};
///
/// let report: OutputRef = format!("out-{:032x}", 7).parse()?;
/// let layer = InputInjectMiddleware::new([report]);
/// # let _ = layer;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct InputInjectMiddleware {
    refs: Vec<OutputRef>,
}

impl InputInjectMiddleware {
    /// These outputs, in this order.
    pub fn new(refs: impl IntoIterator<Item = OutputRef>) -> Self {
        Self { refs: refs.into_iter().collect() }
    }
}

impl SpawnerLayer for InputInjectMiddleware {
    fn wrap(&self, inner: Arc<dyn SpawnerAdapter>) -> Arc<dyn SpawnerAdapter> {
        let refs: Value = self.refs.iter().map(ToString::to_string).collect();
        rewritten(inner, move |ctx| {
            ctx.meta.runtime.insert(INPUT_REFS.to_owned(), refs.clone());
        })
    }
}

/// Tells workers the name that a project goes by.
///
/// ```
/// use adjutant::{InProcSpawner, ProjectNameAliasMiddleware, SpawnerLayer};
/// use std::sync::Arc;
///
/// let spawner = ProjectNameAliasMiddleware::new("north").wrap(Arc::new(InProcSpawner::new()));
/// # let _ = spawner;
/// ```
#[derive(Debug, Clone)]
pub struct ProjectNameAliasMiddleware {
    alias: String,
}

impl ProjectNameAliasMiddleware {
    /// This alias.
    pub fn new(alias: impl Into<String>) -> Self {
        Self { alias: alias.into() }
    }
}

impl SpawnerLayer for ProjectNameAliasMiddleware {
    fn wrap(&self, inner: Arc<dyn SpawnerAdapter>) -> Arc<dyn SpawnerAdapter> {
        let alias = Value::from(self.alias.clone());
        rewritten(inner, move |ctx| {
            ctx.meta.runtime.insert(PROJECT_NAME_ALIAS.to_owned(), alias.clone());
        })
    }
}

type Resolve = Arc<dyn Fn(&str, &Ctx) -> String + Send + Sync>;

/// Lets a function pick the agent that really works, by the name that the task gives.
///
/// ```
/// use adjutant::AgentResolverMiddleware;
/// let layer = AgentResolverMiddleware::new(|hint, ctx| {
///     if ctx.attempt > 1 { format!("{hint}-careful") } else { hint.to_owned() }
/// });
/// ```
#[derive(Clone)]
pub struct AgentResolverMiddleware {
    resolve: Resolve,
}

impl AgentResolverMiddleware {
    /// This function; returning the name it is given passes the attempt through.
    pub fn new<F>(resolve: F) -> Self
    where
        F: Fn(&str, &Ctx) -> String + Send + Sync + 'static,
    {
        Self { resolve: Arc::new(resolve) }
    }
}

impl SpawnerLayer for AgentResolverMiddleware {
    fn wrap(&self, inner: Arc<dyn SpawnerAdapter>) -> Arc<dyn SpawnerAdapter> {
        let resolve = self.resolve.clone();
        rewritten(inner, move |ctx| {
            let agent = resolve(&ctx.agent, ctx);
            if agent != ctx.agent {
                tracing::debug!(task = %ctx.task_id, from = ctx.agent, to = agent, "agent resolved");
                ctx.agent = agent;
            }
        })
    }
}
