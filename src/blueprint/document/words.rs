//! The words that stand for a choice in the document, and their part of the schema.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What carries an agent's work out.
///
/// ```
/// use adjutant::blueprint::AgentKind;
///
/// let kind = AgentKind::from("subprocess".to_owned());
/// assert!(kind.is_supported() && kind.as_str() == "subprocess");
/// assert!(!AgentKind::from("cron".to_owned()).is_supported());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
#[non_exhaustive]
pub enum AgentKind {
    /// A child process.
    Subprocess,
    /// A function that the host registered.
    RustFn,
    /// An operator of the host.
    Operator,
    /// A question to the senior.
    Ask,
    /// A script, known by the format and refused by this build.
    Lua,
    /// An in-process language model agent, known by the format and refused by this build.
    AgentBlock,
    /// Anything else. The check reports it with the agent's name.
    Unknown(String),
}

impl AgentKind {
    /// The kinds that this build runs.
    pub const SUPPORTED: [&'static str; 4] = ["subprocess", "rust_fn", "operator", "ask"];

    /// The text form, as in the document.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Subprocess => "subprocess",
            Self::RustFn => "rust_fn",
            Self::Operator => "operator",
            Self::Ask => "ask",
            Self::Lua => "lua",
            Self::AgentBlock => "agent_block",
            Self::Unknown(text) => text,
        }
    }

    /// Whether this build can run an agent of this kind.
    #[must_use]
    pub fn is_supported(&self) -> bool {
        Self::SUPPORTED.contains(&self.as_str())
    }
}

impl From<String> for AgentKind {
    fn from(text: String) -> Self {
        match text.as_str() {
            "subprocess" => Self::Subprocess,
            "rust_fn" => Self::RustFn,
            "operator" => Self::Operator,
            "ask" => Self::Ask,
            "lua" => Self::Lua,
            "agent_block" => Self::AgentBlock,
            _ => Self::Unknown(text),
        }
    }
}

impl From<AgentKind> for String {
    fn from(kind: AgentKind) -> Self {
        kind.as_str().to_owned()
    }
}

impl fmt::Display for AgentKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl JsonSchema for AgentKind {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "AgentKind".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "What carries an agent's work out.",
            "enum": Self::SUPPORTED,
        })
    }
}

/// How an operator takes part; the words of [`OperatorKind`] for the schema.
#[derive(JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(dead_code, reason = "the schema is made of the names")]
pub(super) enum KindWord {
    /// The operator does the work.
    MainAi,
    /// A spawner does the work.
    Automate,
    /// A spawner does the work and the operator watches it.
    Composite,
}

/// What becomes of an interrupted task; the words of `OnInterrupt` for the schema.
#[derive(JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(dead_code, reason = "the schema is made of the names")]
pub(super) enum InterruptWord {
    /// It stays blocked.
    Block,
    /// It is dispatched again; fit for work that may be done twice.
    Retry,
}
