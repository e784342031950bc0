//! What each kind of agent needs to know: the typed forms of an agent's `spec`.
//!
//! Reading a spec reports every wrong field of it at once. Nothing is looked up here: whether a
//! function is registered or an operator declared is the check's business.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::document::{AgentDef, AgentKind};
use super::error::{CompileError, CompileErrors};
use super::record::{self, FieldFault};
use crate::spawner::process::StreamMode;

/// A child process: a program with arguments, or one shell line.
///
/// The agent's input arrives on the child's standard input, or as one more argument where
/// `use_stdin` is false. Arguments are plain text, never templates.
///
/// ```
/// use adjutant::blueprint::SubprocessSpec;
///
/// let spec = SubprocessSpec { program: Some("wc".into()), ..SubprocessSpec::default() };
/// assert!(spec.use_stdin && spec.stream_mode.is_none());
/// ```
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SubprocessSpec {
    /// The program to start. Exactly one of this and `shell` is given.
    pub program: Option<String>,
    /// A line for `sh -c`; `args` become its `$1`, `$2` and so on.
    pub shell: Option<String>,
    /// The arguments.
    pub args: Vec<String>,
    /// Whether the input goes to standard input.
    pub use_stdin: bool,
    /// How standard output is read; the whole of it as one value where this is absent.
    pub stream_mode: Option<StreamMode>,
    /// The folder to start in.
    pub cwd: Option<String>,
    /// Variables beside the allow-list of the host.
    pub env: BTreeMap<String, String>,
    /// How long one attempt may take.
    pub timeout_secs: Option<u64>,
    /// How much standard output is read before the attempt fails.
    pub max_stdout_bytes: Option<u64>,
    /// How many children of this agent live at once.
    pub max_concurrency: Option<u32>,
}

impl Default for SubprocessSpec {
    fn default() -> Self {
        Self {
            program: None,
            shell: None,
            args: Vec::new(),
            use_stdin: true,
            stream_mode: None,
            cwd: None,
            env: BTreeMap::new(),
            timeout_secs: None,
            max_stdout_bytes: None,
            max_concurrency: None,
        }
    }
}

impl fmt::Debug for SubprocessSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubprocessSpec")
            .field("program", &self.program)
            .field("args", &self.args.len())
            .field("env_names", &self.env.keys().collect::<Vec<_>>())
            .field("stream_mode", &self.stream_mode)
            .finish_non_exhaustive()
    }
}

/// A function that the host registered.
///
/// ```
/// let spec: adjutant::blueprint::RustFnSpec = serde_json::from_str(r#"{"fn_id": "identity"}"#)?;
/// assert_eq!(spec.max_concurrency, None);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RustFnSpec {
    /// The name it was registered under; `identity` is always there.
    pub fn_id: String,
    /// How many calls of this agent run at once.
    #[serde(default)]
    pub max_concurrency: Option<u32>,
}

/// An operator of the document or of the host.
///
/// ```
/// let spec: adjutant::blueprint::OperatorSpec = serde_json::from_str(r#"{"operator_ref": "desk"}"#)?;
/// assert_eq!(spec.operator_ref, "desk");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OperatorSpec {
    /// The operator's name.
    pub operator_ref: String,
    /// How many calls of this agent run at once.
    #[serde(default)]
    pub max_concurrency: Option<u32>,
}

/// A question to the senior.
///
/// ```
/// let spec: adjutant::blueprint::AskSpec =
///     serde_json::from_str(r#"{"question_template": "Release {{ version }}?"}"#)?;
/// assert!(spec.question_template.is_some());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AskSpec {
    /// The question's text as a strict template over the input's keys; the input itself if absent.
    pub question_template: Option<String>,
}

/// The typed spec of an agent.
///
/// ```
/// use adjutant::blueprint::{AgentDef, AgentKind, AgentSpec};
///
/// let agent: AgentDef = serde_json::from_str(
///     r#"{"name": "ask", "kind": "operator", "spec": {"operator_ref": "desk", "max_concurrency": 2}}"#,
/// )?;
/// let spec = agent.typed_spec(&AgentKind::Operator)?;
/// assert_eq!(spec.max_concurrency(), Some(2));
/// assert!(matches!(spec, AgentSpec::Operator(desk) if desk.operator_ref == "desk"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum AgentSpec {
    /// A child process.
    Subprocess(SubprocessSpec),
    /// A registered function.
    RustFn(RustFnSpec),
    /// An operator.
    Operator(OperatorSpec),
    /// A question to the senior.
    Ask(AskSpec),
}

impl AgentSpec {
    /// How many attempts of the agent may live at once, where its spec says so.
    #[must_use]
    pub fn max_concurrency(&self) -> Option<u32> {
        match self {
            Self::Subprocess(spec) => spec.max_concurrency,
            Self::RustFn(spec) => spec.max_concurrency,
            Self::Operator(spec) => spec.max_concurrency,
            Self::Ask(_) => None,
        }
    }
}

impl AgentDef {
    /// The agent's spec as that of `kind`, which [`super::Blueprint::kind_of`] tells.
    ///
    /// ```
    /// use adjutant::blueprint::{AgentDef, AgentKind};
    /// # let agent: AgentDef = serde_json::from_str(r#"{"name": "e", "spec": {"color": 1}}"#).unwrap();
    /// let faults = agent.typed_spec(&AgentKind::RustFn).expect_err("no such field");
    /// assert!(faults.to_string().contains("color"));
    /// ```
    ///
    /// # Errors
    /// The kind is not supported, or the fields of the spec that are wrong.
    pub fn typed_spec(&self, kind: &AgentKind) -> Result<AgentSpec, CompileErrors> {
        let Some(outcome) = read(self, kind) else {
            let (agent, kind) = (self.name.clone(), kind.clone());
            return Err(CompileError::UnknownKind { agent, kind }.into());
        };
        outcome.map_err(|faults| CompileErrors::of(invalid_spec(&self.name, faults)))
    }
}

/// The faults of a spec as compile errors of the agent.
pub(crate) fn invalid_spec(agent: &str, faults: Vec<FieldFault>) -> Vec<CompileError> {
    let error = |FieldFault { field, msg }| {
        let agent = agent.to_owned();
        CompileError::InvalidSpec { agent, field, msg }
    };
    faults.into_iter().map(error).collect()
}

/// Reads the spec of `agent` as that of `kind`; `None` for a kind that this build does not run.
pub(crate) fn read(
    agent: &AgentDef,
    kind: &AgentKind,
) -> Option<Result<AgentSpec, Vec<FieldFault>>> {
    let value = Value::Object(agent.spec.clone());
    let spec = match kind {
        AgentKind::Subprocess => record::read(&value, &json!({})).map(AgentSpec::Subprocess),
        AgentKind::RustFn => record::read(&value, &json!({"fn_id": "f"})).map(AgentSpec::RustFn),
        AgentKind::Operator => {
            record::read(&value, &json!({"operator_ref": "o"})).map(AgentSpec::Operator)
        }
        AgentKind::Ask => record::read(&value, &json!({})).map(AgentSpec::Ask),
        AgentKind::Lua | AgentKind::AgentBlock | AgentKind::Unknown(_) => return None,
    };
    Some(spec.and_then(|spec| {
        let mut faults = faults_of(&spec);
        faults.extend(template_fault(agent, &spec));
        if faults.is_empty() { Ok(spec) } else { Err(faults) }
    }))
}

fn faults_of(spec: &AgentSpec) -> Vec<FieldFault> {
    let mut faults = Vec::new();
    if spec.max_concurrency() == Some(0) {
        faults.push(FieldFault::new("max_concurrency", "must be at least 1"));
    }
    match spec {
        AgentSpec::Subprocess(spec) => subprocess_faults(spec, &mut faults),
        AgentSpec::RustFn(spec) if spec.fn_id.is_empty() => {
            faults.push(FieldFault::new("fn_id", "must not be empty"));
        }
        AgentSpec::Operator(spec) if spec.operator_ref.is_empty() => {
            faults.push(FieldFault::new("operator_ref", "must not be empty"));
        }
        _ => {}
    }
    faults
}

fn subprocess_faults(spec: &SubprocessSpec, faults: &mut Vec<FieldFault>) {
    let mut fault = |field: &str, msg: &str| faults.push(FieldFault::new(field, msg));
    match (&spec.program, &spec.shell) {
        (None, None) => fault("program", "is missing; give `program` or `shell`"),
        (Some(_), Some(_)) => fault("shell", "cannot be given beside `program`"),
        (Some(text), None) if text.is_empty() => fault("program", "must not be empty"),
        (None, Some(text)) if text.trim().is_empty() => fault("shell", "must not be empty"),
        _ => {}
    }
    let texts = [("program", &spec.program), ("shell", &spec.shell), ("cwd", &spec.cwd)];
    for (field, text) in texts {
        if text.as_ref().is_some_and(|text| text.contains('\0')) {
            fault(field, "must not hold a NUL character");
        }
    }
    if spec.cwd.as_ref().is_some_and(String::is_empty) {
        fault("cwd", "must not be empty");
    }
    if spec.args.iter().any(|arg| arg.contains('\0')) {
        fault("args", "must not hold a NUL character");
    }
    if spec.env.iter().any(|(name, value)| !is_env_name(name) || value.contains('\0')) {
        fault("env", "names must be letters, digits and `_`, and values must not hold a NUL");
    }
    if spec.timeout_secs == Some(0) {
        fault("timeout_secs", "must be at least 1");
    }
    if spec.max_stdout_bytes == Some(0) {
        fault("max_stdout_bytes", "must be at least 1");
    }
}

fn is_env_name(name: &str) -> bool {
    let first = name.bytes().next();
    first.is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Templates are compiled here so that a typing slip is found before anything runs.
fn template_fault(agent: &AgentDef, spec: &AgentSpec) -> Option<FieldFault> {
    let (field, source) = match spec {
        AgentSpec::Ask(spec) => ("question_template", spec.question_template.as_deref()?),
        AgentSpec::Operator(_) => {
            ("profile.system_prompt", agent.profile.system_prompt.as_deref()?)
        }
        _ => return None,
    };
    let environment = minijinja::Environment::new();
    let outcome = environment.template_from_str(source).err();
    outcome.map(|error| FieldFault::new(field, format!("is not a valid template: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faulty(kind: &str, spec: &Value) -> Vec<String> {
        let agent = json!({"name": "a", "kind": kind, "spec": spec});
        let agent: AgentDef = serde_json::from_value(agent).unwrap();
        match read(&agent, agent.kind.as_ref().unwrap()).unwrap() {
            Ok(_) => Vec::new(),
            Err(faults) => faults.into_iter().map(|fault| fault.field).collect(),
        }
    }

    #[test]
    fn sound_specs_are_accepted() {
        let none: [&str; 0] = [];
        assert_eq!(faulty("subprocess", &json!({"program": "sh", "args": ["-c", "true"]})), none);
        assert_eq!(faulty("subprocess", &json!({"shell": "wc -l", "stream_mode": null})), none);
        assert_eq!(faulty("rust_fn", &json!({"fn_id": "identity"})), none);
        assert_eq!(faulty("operator", &json!({"operator_ref": "main"})), none);
        assert_eq!(faulty("ask", &json!({})), none);
    }

    #[test]
    fn every_wrong_field_of_a_spec_is_named() {
        let spec = json!({"progam": "sh", "use_stdin": "yes", "stream_mode": "lines"});
        assert_eq!(faulty("subprocess", &spec), ["progam", "stream_mode", "use_stdin"]);
        let spec = json!({"program": "", "cwd": "", "timeout_secs": 0, "env": {"A=B": "c"}});
        assert_eq!(faulty("subprocess", &spec), ["program", "cwd", "env", "timeout_secs"]);
        assert_eq!(faulty("subprocess", &json!({"program": "a", "shell": "b"})), ["shell"]);
        assert_eq!(faulty("rust_fn", &json!({})), ["fn_id"]);
        assert_eq!(
            faulty("operator", &json!({"max_concurrency": -1})),
            ["operator_ref", "max_concurrency"]
        );
    }

    #[test]
    fn a_template_that_does_not_compile_is_found() {
        let spec = json!({"question_template": "write {{ files ?"});
        assert_eq!(faulty("ask", &spec), ["question_template"]);
    }
}
