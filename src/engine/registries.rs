//! The named faces of operators, and how a session's names become an [`OperatorInfo`].

use std::sync::Arc;

use adjutant_actors::errors::EngineError;
use adjutant_actors::state::attempts::Plan;

use crate::engine::Engine;
use crate::operator::{Operator, OperatorInfo, SeniorBridge, SpawnHook};

impl Engine {
    /// Registers a senior bridge, in place of one of the same name.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), adjutant::EngineError> {
    /// use adjutant::{Engine, EngineCfg, SeniorBridge, TaskId, async_trait};
    /// use serde_json::{Value, json};
    /// use std::sync::Arc;
    ///
    /// struct AlwaysYes;
    ///
    /// #[async_trait]
    /// impl SeniorBridge for AlwaysYes {
    ///     async fn ask(&self, _task_id: &TaskId, _question: Value) -> Result<Value, String> {
    ///         Ok(json!(true))
    ///     }
    /// }
    ///
    /// let engine = Engine::new(EngineCfg::default());
    /// engine.register_senior_bridge("yes", Arc::new(AlwaysYes)).await;
    /// assert_eq!(engine.list_senior_bridge_ids().await, ["yes"]);
    /// # Ok(()) }
    /// ```
    pub async fn register_senior_bridge(
        &self,
        id: impl Into<String>,
        bridge: Arc<dyn SeniorBridge>,
    ) {
        self.inner.bridges.insert(id.into(), bridge);
    }

    /// Registers a spawn hook, in place of one of the same name.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use adjutant::{Ctx, SpawnHook, async_trait};
    /// use serde_json::Value;
    /// use std::sync::Arc;
    ///
    /// struct Quiet;
    ///
    /// #[async_trait]
    /// impl SpawnHook for Quiet {
    ///     async fn before(&self, _ctx: &Ctx) -> Result<(), String> { Ok(()) }
    ///     async fn after(&self, _ctx: &Ctx, _result: &Value) -> Result<(), String> { Ok(()) }
    /// }
    ///
    /// # let engine = adjutant::Engine::new(adjutant::EngineCfg::default());
    /// engine.register_spawn_hook("quiet", Arc::new(Quiet)).await;
    /// assert_eq!(engine.list_spawn_hook_ids().await, ["quiet"]);
    /// engine.unregister_spawn_hook("quiet").await;
    /// engine.unregister_senior_bridge("never there").await;
    /// assert!(engine.list_spawn_hook_ids().await.is_empty());
    /// # Ok(()) }
    /// ```
    pub async fn register_spawn_hook(&self, id: impl Into<String>, hook: Arc<dyn SpawnHook>) {
        self.inner.hooks.insert(id.into(), hook);
    }

    /// Registers an operator, in place of one of the same name.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use adjutant::{CapToken, Ctx, Operator, WorkerBinding, WorkerError, WorkerResult};
    /// use std::sync::Arc;
    ///
    /// struct Desk;
    ///
    /// #[adjutant::async_trait]
    /// impl Operator for Desk {
    ///     async fn execute(
    ///         &self, _: &Ctx, _: Option<String>, prompt: String, _: Option<WorkerBinding>, _: CapToken,
    ///     ) -> Result<WorkerResult, WorkerError> {
    ///         Ok(WorkerResult { value: prompt.into(), ok: true })
    ///     }
    /// }
    ///
    /// # let engine = adjutant::Engine::new(adjutant::EngineCfg::default());
    /// engine.register_operator("desk", Arc::new(Desk)).await;
    /// assert_eq!(engine.list_operator_ids().await, ["desk"]);
    /// assert!(engine.find_operator("desk").is_some());
    /// engine.unregister_operator("desk").await;
    /// assert!(engine.find_operator("desk").is_none());
    /// # Ok(()) }
    /// ```
    pub async fn register_operator(&self, id: impl Into<String>, operator: Arc<dyn Operator>) {
        self.inner.operators.insert(id.into(), operator);
    }

    /// Forgets a senior bridge; one that is not there is no error.
    pub async fn unregister_senior_bridge(&self, id: &str) {
        self.forget_bridge(id);
    }

    /// As [`Self::unregister_senior_bridge`], where nothing can be awaited.
    pub(crate) fn forget_bridge(&self, id: &str) {
        self.inner.bridges.remove(id);
    }

    /// Forgets a spawn hook; one that is not there is no error.
    pub async fn unregister_spawn_hook(&self, id: &str) {
        self.inner.hooks.remove(id);
    }

    /// Forgets an operator; one that is not there is no error.
    pub async fn unregister_operator(&self, id: &str) {
        self.inner.operators.remove(id);
    }

    /// Names of the registered spawn hooks, in order.
    pub async fn list_spawn_hook_ids(&self) -> Vec<String> {
        self.inner.hooks.ids()
    }

    /// Names of the registered senior bridges, in order.
    pub async fn list_senior_bridge_ids(&self) -> Vec<String> {
        self.inner.bridges.ids()
    }

    /// Names of the registered operators, in order.
    pub async fn list_operator_ids(&self) -> Vec<String> {
        self.inner.operators.ids()
    }

    /// A registered senior bridge by its name.
    #[cfg(feature = "server")]
    pub(crate) fn find_bridge(&self, id: &str) -> Option<Arc<dyn SeniorBridge>> {
        self.inner.bridges.get(id)
    }

    /// Whether a spawn hook of that name is registered.
    #[cfg(feature = "server")]
    pub(crate) fn has_hook(&self, id: &str) -> bool {
        self.inner.hooks.get(id).is_some()
    }

    /// A registered operator by its name.
    pub fn find_operator(&self, id: &str) -> Option<Arc<dyn Operator>> {
        self.inner.operators.get(id)
    }

    /// Registers one object as all three faces under a name.
    #[cfg(feature = "server")]
    pub(crate) fn seat<F>(&self, name: &str, faces: &Arc<F>)
    where
        F: SeniorBridge + SpawnHook + Operator + 'static,
    {
        self.inner.bridges.insert(name.to_owned(), faces.clone());
        self.inner.hooks.insert(name.to_owned(), faces.clone());
        self.inner.operators.insert(name.to_owned(), faces.clone());
    }

    /// Forgets all three faces of a name.
    #[cfg(feature = "server")]
    pub(crate) fn unseat(&self, name: &str) {
        self.inner.bridges.remove(name);
        self.inner.hooks.remove(name);
        self.inner.operators.remove(name);
    }

    /// Whether any face is registered under a name.
    #[cfg(feature = "server")]
    pub(crate) fn is_seated(&self, name: &str) -> bool {
        let inner = &self.inner;
        inner.bridges.get(name).is_some()
            || inner.hooks.get(name).is_some()
            || inner.operators.get(name).is_some()
    }

    /// The operator on whose behalf an attempt runs. A sub-task has its parent's.
    pub(crate) fn operator_info(&self, plan: &Plan) -> OperatorInfo {
        let Some((_, operator_id, faces)) = &plan.session else { return OperatorInfo::default() };
        OperatorInfo {
            kind: faces.kind_for(&plan.spec.agent),
            id: operator_id.to_string(),
            senior_bridge: self.inner.bridges.resolve("senior bridge", faces.bridge_id.as_ref()),
            spawn_hook: self.inner.hooks.resolve("spawn hook", faces.hook_id.as_ref()),
            operator: self.inner.operators.resolve("operator", faces.operator_backend_id.as_ref()),
        }
    }

    /// Under `strict_link`: refuses a session whose faces resolve to nothing.
    pub(crate) fn check_faces(&self, plan: &Plan) -> Result<(), EngineError> {
        let Some((_, _, faces)) = &plan.session else { return Ok(()) };
        if !self.cfg().strict_link {
            return Ok(());
        }
        let missing = [
            (
                "senior bridge",
                &faces.bridge_id,
                faces.bridge_id.as_ref().is_some_and(|id| self.inner.bridges.get(id).is_none()),
            ),
            (
                "spawn hook",
                &faces.hook_id,
                faces.hook_id.as_ref().is_some_and(|id| self.inner.hooks.get(id).is_none()),
            ),
            (
                "operator",
                &faces.operator_backend_id,
                faces
                    .operator_backend_id
                    .as_ref()
                    .is_some_and(|id| self.inner.operators.get(id).is_none()),
            ),
        ];
        match missing.into_iter().find(|(_, _, missing)| *missing) {
            Some((face, id, _)) => Err(EngineError::DispatchFailed(format!(
                "the session names {face} {}, which nobody registered",
                id.as_deref().unwrap_or_default()
            ))),
            None => Ok(()),
        }
    }
}
