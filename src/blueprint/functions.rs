//! Functions that blueprints may name: agents of kind `rust_fn`.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use adjutant_actors::launch::WorkerError;
use serde_json::{Value, json};

use crate::operator::WorkerResult;
use crate::spawner::WorkerInvocation;

type FunctionFuture = Pin<Box<dyn Future<Output = Result<WorkerResult, WorkerError>> + Send>>;
/// A registered function.
pub(crate) type Function = Arc<dyn Fn(WorkerInvocation) -> FunctionFuture + Send + Sync>;

/// Registered functions by name. `identity` is always there: it returns `{by, agent, echoed}`.
///
/// ```
/// use adjutant::blueprint::Functions;
/// use adjutant::{WorkerInvocation, WorkerResult};
///
/// let functions = Functions::new().with("length", |call: WorkerInvocation| async move {
///     Ok(WorkerResult { value: call.prompt.len().into(), ok: true })
/// });
/// assert_eq!(functions.names(), ["identity", "length"]);
/// ```
#[derive(Clone)]
pub struct Functions {
    by_name: BTreeMap<String, Function>,
}

impl Default for Functions {
    fn default() -> Self {
        Self::new()
    }
}

impl Functions {
    /// The built-in functions.
    #[must_use]
    pub fn new() -> Self {
        let empty = Self { by_name: BTreeMap::new() };
        empty.with("identity", |call: WorkerInvocation| async move {
            let echoed = serde_json::from_str(&call.prompt).unwrap_or(Value::String(call.prompt));
            let value = json!({ "by": "identity", "agent": call.agent, "echoed": echoed });
            Ok(WorkerResult { value, ok: true })
        })
    }

    /// Adds a function, in place of one of the same name.
    ///
    /// ```
    /// use adjutant::{WorkerError, WorkerResult, blueprint::Functions};
    ///
    /// let functions = Functions::default().with("refuse", |_call| async {
    ///     Err::<WorkerResult, _>(WorkerError::Failed("not today".into()))
    /// });
    /// assert!(functions.names().contains(&"refuse"));
    /// ```
    #[must_use]
    pub fn with<F, Fut>(mut self, name: impl Into<String>, f: F) -> Self
    where
        F: Fn(WorkerInvocation) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<WorkerResult, WorkerError>> + Send + 'static,
    {
        self.by_name.insert(name.into(), Arc::new(move |call| Box::pin(f(call))));
        self
    }

    /// Names of the functions, in order.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        self.by_name.keys().map(String::as_str).collect()
    }

    pub(crate) fn get(&self, name: &str) -> Option<Function> {
        self.by_name.get(name).cloned()
    }
}
