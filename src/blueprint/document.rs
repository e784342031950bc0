//! The blueprint document: its records, their defaults and their text form.
//!
//! Plain data. What a record means is decided elsewhere: the check says whether the whole
//! is sound, the specs give an agent's `spec` its type. Unknown fields are errors here, in
//! every record. No record prints an agent's `spec`, which may hold environment values.

use std::collections::BTreeMap;
use std::fmt;

use adjutant_actors::model::session::OperatorKind;
use adjutant_actors::model::task::OnInterrupt;
use mlua_flow_ir::Node;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use self::words::AgentKind;
use self::words::{InterruptWord, KindWord};

mod words;

/// The document version that this build reads.
pub const SCHEMA_VERSION: &str = "0.1.0";

fn schema_version() -> String {
    SCHEMA_VERSION.to_owned()
}

fn is_block(on_interrupt: &OnInterrupt) -> bool {
    *on_interrupt == OnInterrupt::Block
}

const fn yes() -> bool {
    true
}

/// A program: agents, operators and the flow of steps over them.
///
/// ```
/// use adjutant::blueprint::Blueprint;
///
/// let text = r#"{
///     "id": "echo",
///     "agents": [{"name": "echo", "kind": "rust_fn", "spec": {"fn_id": "identity"}}],
///     "flow": {"kind": "step", "ref": "echo",
///              "in": {"op": "path", "at": "$.input"}, "out": {"op": "path", "at": "$.output"}}
/// }"#;
/// let blueprint: Blueprint = serde_json::from_str(text)?;
/// assert_eq!(blueprint.agents[0].name, "echo");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Blueprint {
    /// The version of this document format.
    #[serde(default = "schema_version")]
    pub schema_version: String,
    /// The program's name.
    pub id: String,
    /// What is done, in which order.
    #[schemars(with = "Value")]
    pub flow: Node,
    /// Who does it. A step's `ref` names one of these.
    #[serde(default)]
    pub agents: Vec<AgentDef>,
    /// The operators that agents may name in `operator_ref`.
    #[serde(default)]
    pub operators: Vec<OperatorDef>,
    /// Free hints for hosts and layers.
    #[serde(default)]
    pub hints: Hints,
    /// How strictly the document is compiled.
    #[serde(default)]
    pub strategy: Strategy,
    /// What the document says about itself.
    #[serde(default)]
    pub metadata: Metadata,
    /// Which layers wrap the agents' spawners.
    #[serde(default)]
    pub spawner_hints: SpawnerHints,
    /// The kind of agents that name none. `operator` where nobody decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_agent_kind: Option<AgentKind>,
    /// The kind of operators that name none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<KindWord>")]
    pub default_operator_kind: Option<OperatorKind>,
}

impl Blueprint {
    /// The kind of `agent`: its own, else the document's, else the host's, else `operator`.
    ///
    /// ```
    /// use adjutant::blueprint::AgentKind;
    /// # let text = r#"{"id": "echo", "agents": [{"name": "e", "kind": "rust_fn", "spec": {"fn_id": "identity"}}],
    /// #     "flow": {"kind": "step", "ref": "e", "in": {"op": "path", "at": "$.in"}, "out": {"op": "path", "at": "$.out"}}}"#;
    /// # let echo = adjutant::blueprint::parse_blueprint(text, None)?;
    /// let agent = echo.agent("e").expect("the document names it");
    /// assert_eq!(echo.kind_of(agent, None), AgentKind::RustFn);
    /// assert!(echo.operator("e").is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn kind_of(&self, agent: &AgentDef, host_default: Option<&AgentKind>) -> AgentKind {
        let named = agent.kind.as_ref().or(self.default_agent_kind.as_ref()).or(host_default);
        named.cloned().unwrap_or(AgentKind::Operator)
    }

    /// The agent of that name, the first where a name was given twice.
    #[must_use]
    pub fn agent(&self, name: &str) -> Option<&AgentDef> {
        self.agents.iter().find(|agent| agent.name == name)
    }

    /// The operator of that name.
    #[must_use]
    pub fn operator(&self, name: &str) -> Option<&OperatorDef> {
        self.operators.iter().find(|operator| operator.name == name)
    }
}

/// One agent: a name that steps refer to, and how its work is done.
///
/// ```
/// use adjutant::blueprint::{AgentDef, AgentKind};
///
/// let agent: AgentDef = serde_json::from_str(
///     r#"{"name": "count", "kind": "subprocess", "spec": {"program": "wc"}, "on_interrupt": "retry"}"#,
/// )?;
/// assert_eq!(agent.kind, Some(AgentKind::Subprocess));
/// assert_eq!(agent.on_interrupt, adjutant::OnInterrupt::Retry);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AgentDef {
    /// The name, unique in the document.
    pub name: String,
    /// The kind; the document's default where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<AgentKind>,
    /// What the kind needs to know.
    #[serde(default)]
    pub spec: Map<String, Value>,
    /// Who the agent is.
    #[serde(default)]
    pub profile: Profile,
    /// What the document says about the agent.
    #[serde(default)]
    pub meta: AgentMeta,
    /// What becomes of its task when the process ends while an attempt runs.
    #[serde(default, skip_serializing_if = "is_block")]
    #[schemars(with = "InterruptWord")]
    pub on_interrupt: OnInterrupt,
}

impl fmt::Debug for AgentDef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentDef")
            .field("name", &self.name)
            .field("kind", &self.kind)
            .field("spec_fields", &self.spec.keys().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

/// One operator that agents may name.
///
/// ```
/// use adjutant::{OperatorKind, blueprint::OperatorDef};
///
/// let desk: OperatorDef = serde_json::from_str(r#"{"name": "desk", "kind": "main_ai"}"#)?;
/// assert_eq!(desk.kind, Some(OperatorKind::MainAi));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OperatorDef {
    /// The name, unique among the operators.
    pub name: String,
    /// A name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// How the operator takes part; the document's default where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<KindWord>")]
    pub kind: Option<OperatorKind>,
    /// What the host needs to know.
    #[serde(default)]
    pub spec: Map<String, Value>,
    /// Who the operator is.
    #[serde(default)]
    pub profile: Profile,
    /// What the document says about the operator.
    #[serde(default)]
    pub meta: AgentMeta,
}

impl fmt::Debug for OperatorDef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OperatorDef")
            .field("name", &self.name)
            .field("kind", &self.kind)
            .field("spec_fields", &self.spec.keys().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

/// Who an agent or operator is.
///
/// ```
/// let profile: adjutant::blueprint::Profile =
///     serde_json::from_str(r#"{"system_prompt": "You review.", "tools": ["read"]}"#)?;
/// assert_eq!(profile.tools, ["read"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Profile {
    /// The system prompt, a template for operators.
    pub system_prompt: Option<String>,
    /// The model that should do the work.
    pub model: Option<String>,
    /// How hard it should try.
    pub effort: Option<String>,
    /// The tools it may use.
    pub tools: Vec<String>,
    /// What it is for.
    pub description: Option<String>,
    /// Anything else.
    pub extras: BTreeMap<String, Value>,
    /// The content hash of the profile's source.
    pub version_hash: Option<String>,
    /// The name of the sub-agent definition that a worker is bound to.
    pub worker_binding: Option<String>,
}

/// What the document says about an agent or operator.
///
/// ```
/// let meta: adjutant::blueprint::AgentMeta = serde_json::from_str(r#"{"tags": ["nightly"]}"#)?;
/// assert!(meta.version.is_none() && meta.tags == ["nightly"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AgentMeta {
    /// What it is for.
    pub description: Option<String>,
    /// Its version.
    pub version: Option<String>,
    /// Words to find it by.
    pub tags: Vec<String>,
}

/// Free hints for hosts and layers.
///
/// ```
/// let hints: adjutant::blueprint::Hints = serde_json::from_str(r#"{"per_agent": {"e": {"cpu": 2}}}"#)?;
/// assert_eq!(hints.per_agent["e"]["cpu"], 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Hints {
    /// Hints for one agent, by its name.
    pub per_agent: BTreeMap<String, Value>,
    /// Hints for all.
    pub global: BTreeMap<String, Value>,
}

/// How strictly the document is compiled.
///
/// ```
/// use adjutant::blueprint::Strategy;
///
/// let lenient = Strategy { strict_refs: false, ..Strategy::default() };
/// assert!(lenient.strict_kind);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Strategy {
    /// A step that names no agent is an error; otherwise the step fails when it is reached.
    #[serde(default = "yes")]
    pub strict_refs: bool,
    /// An agent of a kind that is not supported is an error; otherwise it is left out.
    #[serde(default = "yes")]
    pub strict_kind: bool,
}

impl Default for Strategy {
    fn default() -> Self {
        Self { strict_refs: true, strict_kind: true }
    }
}

/// What the document says about itself.
///
/// ```
/// let metadata: adjutant::blueprint::Metadata = serde_json::from_str(r#"{"default_run_ttl_secs": 60}"#)?;
/// assert_eq!(metadata.default_run_ttl_secs, Some(60));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Metadata {
    /// What the program does.
    pub description: Option<String>,
    /// Where the document came from.
    pub origin: Option<Value>,
    /// Words to find it by.
    pub tags: Vec<String>,
    /// A name for this version of the document.
    pub version_label: Option<String>,
    /// The project's other name, handed to workers.
    pub project_name_alias: Option<String>,
    /// How long a run may take, where the launch names no limit.
    pub default_run_ttl_secs: Option<u64>,
}

/// Which layers wrap the agents' spawners.
///
/// ```
/// use adjutant::blueprint::SpawnerHints;
///
/// let hints = SpawnerHints { layers: vec!["main_ai".into(), "sink".into()] };
/// assert_eq!(hints.layers.last().map(String::as_str), Some("sink")); // the outermost
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SpawnerHints {
    /// The layers by key; the last is the outermost.
    pub layers: Vec<String>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn smallest() -> Value {
        json!({"id": "x", "flow": {"kind": "seq", "children": []}})
    }

    #[test]
    fn defaults_are_those_of_the_contract() {
        let blueprint: Blueprint = serde_json::from_value(smallest()).unwrap();
        assert_eq!(blueprint.schema_version, "0.1.0");
        assert_eq!(blueprint.strategy, Strategy { strict_refs: true, strict_kind: true });
        let agent: AgentDef = serde_json::from_value(json!({"name": "a"})).unwrap();
        assert_eq!(blueprint.kind_of(&agent, None), AgentKind::Operator);
        assert_eq!(blueprint.kind_of(&agent, Some(&AgentKind::Ask)), AgentKind::Ask);
    }

    #[test]
    fn a_document_survives_a_round_trip() {
        let mut value = smallest();
        value["agents"] = json!([{"name": "a", "kind": "lua"}, {"name": "b", "kind": "odd"}]);
        let first: Blueprint = serde_json::from_value(value).unwrap();
        let again = serde_json::from_value(serde_json::to_value(&first).unwrap()).unwrap();
        assert_eq!(first, again);
    }

    #[test]
    fn unknown_fields_are_errors_in_every_record() {
        for place in ["", "/hints", "/strategy", "/metadata", "/spawner_hints", "/agents/0/meta"] {
            let mut value = smallest();
            value["agents"] = json!([{"name": "a", "meta": {}}]);
            for key in ["hints", "strategy", "metadata", "spawner_hints"] {
                value[key] = json!({});
            }
            value.pointer_mut(place).unwrap()["odd"] = json!(1);
            assert!(serde_json::from_value::<Blueprint>(value).is_err(), "{place}");
        }
    }

    #[test]
    fn printing_an_agent_shows_no_environment_value() {
        let spec = json!({"name": "a", "spec": {"env": {"KEY": "hunter2"}}});
        let agent: AgentDef = serde_json::from_value(spec).unwrap();
        assert!(!format!("{agent:?}").contains("hunter2"));
    }
}
