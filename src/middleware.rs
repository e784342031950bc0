//! Layers: what wraps a spawner. The trait, the stack, the registry, and `link`.
//!
//! A layer reads and transforms results; it appends to what is recorded and never rewrites it.

use std::collections::HashMap;
use std::sync::Arc;

use crate::engine::Engine;
use crate::spawner::SpawnerAdapter;

mod annotate;
mod audit;
mod long_hold;
mod main_ai;
mod operator_delegate;
mod senior_escalation;
pub(crate) mod wrapped;

pub use annotate::{
    AgentResolverMiddleware, DATA_SINK_ENDPOINT, INPUT_REFS, InputInjectMiddleware,
    PROJECT_NAME_ALIAS, ProjectNameAliasMiddleware, SinkMiddleware,
};
pub use audit::AuditMiddleware;
pub use long_hold::LongHoldMiddleware;
pub use main_ai::MainAIMiddleware;
pub use operator_delegate::OperatorDelegateMiddleware;
pub use senior_escalation::SeniorEscalationMiddleware;

/// Wraps a spawner in another one.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use adjutant::{
///     CapToken, Ctx, Engine, SpawnError, SpawnerAdapter, SpawnerLayer, TaskId, Worker, async_trait,
/// };
/// use std::sync::Arc;
///
/// /// Refuses every attempt after the second.
/// struct Twice;
///
/// struct Counted(Arc<dyn SpawnerAdapter>);
///
/// impl SpawnerLayer for Twice {
///     fn wrap(&self, inner: Arc<dyn SpawnerAdapter>) -> Arc<dyn SpawnerAdapter> {
///         Arc::new(Counted(inner))
///     }
/// }
///
/// #[async_trait]
/// impl SpawnerAdapter for Counted {
///     async fn spawn(
///         &self, engine: &Engine, ctx: &Ctx, task: TaskId, attempt: u32, token: CapToken,
///     ) -> Result<Box<dyn Worker>, SpawnError> {
///         if attempt > 2 {
///             return Err(SpawnError::RejectedByMiddleware("twice is enough".into()));
///         }
///         self.0.spawn(engine, ctx, task, attempt, token).await
///     }
///
///     fn launch_restarts(&self) -> u32 {
///         self.0.launch_restarts()
///     }
/// }
///
/// # let engine = adjutant::Engine::new(adjutant::EngineCfg::default());
/// # let minute = std::time::Duration::from_secs(60);
/// # let operator = engine.attach("ann", adjutant::Role::Operator, minute).await?;
/// # let mut agents = adjutant::InProcSpawner::new();
/// # agents.register("echo", |call| async move {
/// #     Ok(adjutant::WorkerResult { value: call.prompt.into(), ok: true })
/// # });
/// # let spawner: std::sync::Arc<dyn adjutant::SpawnerAdapter> = std::sync::Arc::new(agents);
/// # let task = engine.start_task(&operator, adjutant::TaskSpec::new("echo", "hello")).await?;
/// let spawner = Twice.wrap(spawner);
/// engine.dispatch_attempt_with(&operator, &task, &spawner).await?;
/// # Ok(()) }
/// ```
pub trait SpawnerLayer: Send + Sync {
    /// The wrapped spawner.
    fn wrap(&self, inner: Arc<dyn SpawnerAdapter>) -> Arc<dyn SpawnerAdapter>;
}

/// Builds a stack of layers by hand; the last layer is the outermost.
///
/// ```
/// use adjutant::{InProcSpawner, SpawnerAdapter, SpawnerLayer, SpawnerStack};
/// use std::sync::Arc;
///
/// struct Through;
///
/// impl SpawnerLayer for Through {
///     fn wrap(&self, inner: Arc<dyn SpawnerAdapter>) -> Arc<dyn SpawnerAdapter> {
///         inner
///     }
/// }
///
/// let base: Arc<dyn SpawnerAdapter> = Arc::new(InProcSpawner::new());
/// let spawner = SpawnerStack::new(base).layer(Through).build();
/// # let _ = spawner;
/// ```
#[derive(Clone)]
pub struct SpawnerStack {
    top: Arc<dyn SpawnerAdapter>,
}

impl SpawnerStack {
    /// A stack of the base alone.
    pub fn new(base: impl Into<Arc<dyn SpawnerAdapter>>) -> Self {
        Self { top: base.into() }
    }

    /// Puts a layer on top.
    #[must_use]
    pub fn layer<L: SpawnerLayer>(self, layer: L) -> Self {
        Self { top: layer.wrap(self.top) }
    }

    /// Puts a layer on top whose type is not known here.
    ///
    /// ```
    /// use adjutant::{InProcSpawner, MainAIMiddleware, SpawnerAdapter, SpawnerLayer, SpawnerStack};
    /// use std::sync::Arc;
    ///
    /// let chosen: Vec<Arc<dyn SpawnerLayer>> = vec![Arc::new(MainAIMiddleware)];
    /// let base: Arc<dyn SpawnerAdapter> = Arc::new(InProcSpawner::new());
    /// let spawner = chosen.into_iter().fold(SpawnerStack::new(base), SpawnerStack::layer_dyn).build();
    /// # let _ = spawner;
    /// ```
    #[must_use]
    pub fn layer_dyn(self, layer: Arc<dyn SpawnerLayer>) -> Self {
        Self { top: layer.wrap(self.top) }
    }

    /// The finished stack.
    #[must_use]
    pub fn build(self) -> Arc<dyn SpawnerAdapter> {
        self.top
    }
}

type LayerFactory = Arc<dyn Fn(&Engine) -> Arc<dyn SpawnerLayer> + Send + Sync>;

/// The layers that an engine knows: those of every program, and those that programs ask for.
///
/// ```
/// use adjutant::{Engine, EngineCfg, InProcSpawner, LayerRegistry, SpawnerAdapter, SpawnerLayer, link};
/// use std::sync::Arc;
///
/// struct Through;
///
/// impl SpawnerLayer for Through {
///     fn wrap(&self, inner: Arc<dyn SpawnerAdapter>) -> Arc<dyn SpawnerAdapter> {
///         inner
///     }
/// }
///
/// let layers = LayerRegistry::new().with_hint("through", |_engine| Arc::new(Through));
/// let engine = Engine::new_with_layers(EngineCfg::default(), layers);
/// let spawner = link(Arc::new(InProcSpawner::new()), &["through".to_owned()], &engine);
/// # let _ = spawner;
/// ```
#[derive(Clone, Default)]
pub struct LayerRegistry {
    base: Vec<LayerFactory>,
    hints: HashMap<String, LayerFactory>,
}

impl LayerRegistry {
    /// A registry without layers.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The layers of this crate: audit and long hold for every program, and under the keys
    /// `main_ai`, `senior_escalation` and `operator_delegate` those that programs ask for.
    ///
    /// ```
    /// use adjutant::{LayerRegistry, MainAIMiddleware};
    /// use std::sync::Arc;
    ///
    /// let layers = LayerRegistry::standard().with_base(|_engine| Arc::new(MainAIMiddleware));
    /// assert_eq!(layers.base_factories().len(), 3); // beside audit and long hold
    /// assert_eq!(layers.hint_keys(), ["main_ai", "operator_delegate", "senior_escalation"]);
    /// assert!(layers.lookup_hint("main_ai").is_some());
    /// ```
    #[must_use]
    pub fn standard() -> Self {
        Self::new()
            .with_base(|engine| Arc::new(AuditMiddleware::new(engine.event_tx())))
            .with_base(|engine| {
                let hold = engine.cfg().long_hold.default_hold;
                Arc::new(LongHoldMiddleware::new(hold, engine.event_tx()))
            })
            .with_hint("main_ai", |_| Arc::new(MainAIMiddleware))
            .with_hint("senior_escalation", |_| Arc::new(SeniorEscalationMiddleware))
            .with_hint("operator_delegate", |_| Arc::new(OperatorDelegateMiddleware))
    }

    /// Adds a layer of every program; the first one added is the innermost.
    #[must_use]
    pub fn with_base<F>(mut self, factory: F) -> Self
    where
        F: Fn(&Engine) -> Arc<dyn SpawnerLayer> + Send + Sync + 'static,
    {
        self.base.push(Arc::new(factory));
        self
    }

    /// Adds a layer that a program gets when it lists the key.
    #[must_use]
    pub fn with_hint<F>(mut self, key: impl Into<String>, factory: F) -> Self
    where
        F: Fn(&Engine) -> Arc<dyn SpawnerLayer> + Send + Sync + 'static,
    {
        self.hints.insert(key.into(), Arc::new(factory));
        self
    }

    /// The layers of every program, innermost first.
    #[must_use]
    pub fn base_factories(&self) -> &[LayerFactory] {
        &self.base
    }

    /// The layer under a key.
    #[must_use]
    pub fn lookup_hint(&self, key: &str) -> Option<&LayerFactory> {
        self.hints.get(key)
    }

    /// The keys that programs may list, in order.
    #[must_use]
    pub fn hint_keys(&self) -> Vec<String> {
        let mut keys: Vec<_> = self.hints.keys().cloned().collect();
        keys.sort_unstable();
        keys
    }
}

/// A program lists layers that the engine does not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown layers {unknown:?}; this engine knows {known:?}")]
pub struct UnknownHints {
    /// The keys that nobody registered, in the listed order.
    pub unknown: Vec<String>,
    /// The keys that are registered, in order.
    pub known: Vec<String>,
}

/// Wraps a base spawner: base layers first, then the listed ones, so that the last is outermost.
/// Each unknown key is passed over with a warning; [`try_link`] refuses instead.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use adjutant::{Engine, EngineCfg, InProcSpawner, LayerRegistry, link};
/// use std::sync::Arc;
///
/// let engine = Engine::new_with_layers(EngineCfg::default(), LayerRegistry::standard());
/// let layers = ["main_ai".to_owned(), "senior_escalation".to_owned()];
/// let spawner = link(Arc::new(InProcSpawner::new()), &layers, &engine);
/// # let _ = spawner;
/// # Ok(()) }
/// ```
pub fn link(
    base: Arc<dyn SpawnerAdapter>,
    layer_hints: &[String],
    engine: &Engine,
) -> Arc<dyn SpawnerAdapter> {
    let registry = engine.layer_registry();
    let mut stack = SpawnerStack::new(base);
    for factory in registry.base_factories() {
        stack = stack.layer_dyn(factory(engine));
    }
    for key in layer_hints {
        match registry.lookup_hint(key) {
            Some(factory) => stack = stack.layer_dyn(factory(engine)),
            None => tracing::warn!(key, "a program lists a layer that this engine does not know"),
        }
    }
    stack.build()
}

/// As [`link`], but unknown keys are an error under `strict_link`.
///
/// ```
/// use adjutant::{Engine, EngineCfg, InProcSpawner, LayerRegistry, UnknownHints, try_link};
/// use std::sync::Arc;
///
/// let cfg = EngineCfg { strict_link: true, ..EngineCfg::default() };
/// let engine = Engine::new_with_layers(cfg, LayerRegistry::standard());
/// let base = Arc::new(InProcSpawner::new());
/// let Err(UnknownHints { unknown, known }) = try_link(base, &["audti".to_owned()], &engine) else {
///     panic!("no layer has that key")
/// };
/// assert_eq!((unknown, known.len()), (vec!["audti".to_owned()], 3));
/// ```
///
/// # Errors
/// [`UnknownHints`], with all of them.
pub fn try_link(
    base: Arc<dyn SpawnerAdapter>,
    layer_hints: &[String],
    engine: &Engine,
) -> Result<Arc<dyn SpawnerAdapter>, UnknownHints> {
    let registry = engine.layer_registry();
    let is_unknown = |key: &&String| registry.lookup_hint(key).is_none();
    let unknown: Vec<_> = layer_hints.iter().filter(is_unknown).cloned().collect();
    if engine.cfg().strict_link && !unknown.is_empty() {
        return Err(UnknownHints { unknown, known: registry.hint_keys() });
    }
    Ok(link(base, layer_hints, engine))
}
