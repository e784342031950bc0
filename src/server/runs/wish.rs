//! What somebody wants of a new run, and the form in which a run keeps it for a restart.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use adjutant_actors::errors::EngineError;
use adjutant_actors::model::ids::TaskId;
use adjutant_actors::model::session::OperatorKind;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::blueprint::{RunOptions, kept};
use crate::engine::Engine;
use crate::operator::SeniorBridge;

/// How often a bridge that is not there yet is looked for.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Name of a run's operator where none is given.
const OPERATOR: &str = "http-run";

/// Where a run's document comes from.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// The request itself.
    Inline(Value),
    /// What the server keeps: the newest version, or that of a hash.
    Stored { id: String, version: Option<String> },
}

/// Who does the agents' work and answers: ids under which faces are registered.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = RunOperator)]
pub(crate) struct OperatorWish {
    /// Who does the work, over what the blueprint says.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub(crate) kind: Option<OperatorKind>,
    /// Name of the operator that the run attaches as.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<String>,
    /// Who does the work of single agents.
    #[serde(skip_serializing_if = "HashMap::is_empty")]
    #[schema(value_type = HashMap<String, String>)]
    pub(crate) per_agent_kinds: HashMap<String, OperatorKind>,
    /// A login, which stands for all three faces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) operator_sid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) spawn_hook_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) senior_bridge_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) operator_backend_id: Option<String>,
}

impl OperatorWish {
    fn bridge(&self) -> Option<&String> {
        self.senior_bridge_id.as_ref().or(self.operator_sid.as_ref())
    }

    fn backend(&self) -> Option<&String> {
        self.operator_sid.as_ref().or(self.operator_backend_id.as_ref())
    }

    fn hook(&self) -> Option<&String> {
        self.spawn_hook_id.as_ref().or(self.operator_sid.as_ref())
    }

    /// Refuses names that nobody registered.
    pub(crate) fn check(&self, engine: &Engine) -> Result<(), EngineError> {
        let absent = |what: &str, id: &String| {
            Err(EngineError::InvalidArgument(format!("nobody registered {what} {id}")))
        };
        match (self.backend(), self.bridge(), self.spawn_hook_id.as_ref()) {
            (Some(id), _, _) if engine.find_operator(id).is_none() => absent("operator", id),
            (_, Some(id), _) if engine.find_bridge(id).is_none() => absent("senior bridge", id),
            (_, _, Some(id)) if !engine.has_hook(id) => absent("spawn hook", id),
            _ => Ok(()),
        }
    }
}

/// A run that is about to be started.
#[derive(Debug, Clone)]
pub(crate) struct NewRun {
    pub(crate) blueprint: Source,
    /// The flow's context; an object.
    pub(crate) input: Value,
    pub(crate) ttl: Option<Duration>,
    pub(crate) operator: OperatorWish,
    /// Idempotency key; it belongs to the principal.
    pub(crate) key: Option<String>,
    /// Who asks.
    pub(crate) principal: String,
}

/// What a run keeps of this: enough to carry it on after a restart.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Settings {
    /// Says that a server started it.
    #[serde(default)]
    server: bool,
    ttl_secs: Option<u64>,
    #[serde(default)]
    operator: OperatorWish,
    #[serde(default)]
    principal: String,
}

impl NewRun {
    /// Hash of all that was asked for.
    pub(crate) fn digest(&self) -> String {
        let blueprint = match &self.blueprint {
            Source::Inline(document) => json!({ "inline": document }),
            Source::Stored { id, version } => json!({ "id": id, "version": version }),
        };
        let ttl = self.ttl.map(|ttl| ttl.as_secs());
        let all = json!([blueprint, self.input, ttl, self.operator]);
        kept::digest(&all).to_hex().to_string()
    }

    pub(crate) fn settings(&self) -> Value {
        let settings = Settings {
            server: true,
            ttl_secs: self.ttl.map(|ttl| ttl.as_secs()),
            operator: self.operator.clone(),
            principal: self.principal.clone(),
        };
        serde_json::to_value(settings).unwrap_or_default()
    }
}

/// Whether a run with these settings is a server's.
pub(crate) fn is_own(settings: &Value) -> bool {
    settings["server"] == true
}

/// The options of a run with these settings.
pub(crate) fn options(engine: &Engine, settings: Value) -> RunOptions {
    let read: Settings = serde_json::from_value(settings.clone()).unwrap_or_default();
    let wish = read.operator;
    let bridge = wish.bridge().cloned();
    let senior = bridge.clone().map(|id| {
        let engine = engine.unanchored();
        Arc::new(Named { engine, id }) as Arc<dyn SeniorBridge>
    });
    RunOptions {
        operator_id: wish.id.clone().unwrap_or_else(|| OPERATOR.to_owned()),
        ttl: read.ttl_secs.map(Duration::from_secs),
        kind: wish.kind,
        agent_kinds: wish.per_agent_kinds.clone(),
        senior,
        bridge_id: bridge,
        hook_id: wish.hook().cloned(),
        operator_backend_id: wish.backend().cloned(),
        settings,
        ..RunOptions::default()
    }
}

/// The bridge of a name, whoever holds it when it is asked. Where nobody does, or who does cannot
/// answer, the question stays open for everybody else.
struct Named {
    engine: Engine,
    id: String,
}

#[async_trait]
impl SeniorBridge for Named {
    async fn ask(&self, task_id: &TaskId, question: Value) -> Result<Value, String> {
        let bridge = loop {
            match self.engine.find_bridge(&self.id) {
                Some(bridge) => break bridge,
                None => tokio::time::sleep(LOOK_AGAIN).await,
            }
        };
        match bridge.ask(task_id, question).await {
            Ok(answer) => Ok(answer),
            Err(error) => {
                tracing::warn!(task = %task_id, error, "a bridge left a question open");
                std::future::pending().await
            }
        }
    }
}
