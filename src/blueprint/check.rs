//! The check of a blueprint against what the host knows: every fault at once.
//!
//! It reads a document that was loaded or built in code and says what keeps it from running,
//! and what looks like a slip. It builds nothing and starts nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use adjutant_actors::model::task::OnInterrupt;

use super::document::{AgentDef, AgentKind, Blueprint, SCHEMA_VERSION};
use super::error::{CompileError, CompileErrors};
use super::flow::{self, FlowRef, Survey};
use super::spec::{self, AgentSpec};

/// What the host brings to a blueprint.
///
/// ```
/// use adjutant::blueprint::{AgentKind, Known};
///
/// let mut known = Known { default_agent_kind: Some(AgentKind::RustFn), ..Known::default() };
/// known.operators.insert("desk".into());
/// assert!(known.rust_fns.contains("identity"));
/// ```
#[derive(Debug, Clone)]
pub struct Known {
    /// The registered functions; `identity` is among them.
    pub rust_fns: BTreeSet<String>,
    /// The operators of the host, beside those of the document.
    pub operators: BTreeSet<String>,
    /// The functions that expressions may call.
    pub externs: BTreeSet<String>,
    /// The kind of agents where neither they nor the document name one.
    pub default_agent_kind: Option<AgentKind>,
    /// The layers that programs may list; none where that is not known, and not looked at.
    pub layers: Option<BTreeSet<String>>,
    /// Whether steps that name no agent of the document go somewhere else.
    pub default_route: bool,
}

impl Default for Known {
    fn default() -> Self {
        Self {
            rust_fns: BTreeSet::from(["identity".to_owned()]),
            operators: BTreeSet::new(),
            externs: BTreeSet::new(),
            default_agent_kind: None,
            layers: None,
            default_route: false,
        }
    }
}

/// What looks like a slip and stops nothing.
///
/// ```
/// use adjutant::blueprint::{Known, Warning, check_text};
///
/// let text = r#"{"id": "idle", "flow": {"kind": "seq", "children": []},
///     "agents": [{"name": "e", "kind": "rust_fn", "spec": {"fn_id": "identity"}}]}"#;
/// let (_, warnings) = check_text(text, None, &Known::default())?;
/// assert_eq!(warnings, [Warning::UnusedAgent { agent: "e".into() }]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Warning {
    /// An agent was left out because this build does not run its kind.
    DroppedAgent {
        /// The agent's name.
        agent: String,
        /// Its kind.
        kind: AgentKind,
    },
    /// A step or an extern call names nothing; it fails when it is reached.
    UnresolvedRef {
        /// The place, as a JSON pointer.
        place: String,
        /// What it names.
        reference: String,
    },
    /// No step names the agent.
    UnusedAgent {
        /// The agent's name.
        agent: String,
    },
    /// A hint is for an agent that does not exist.
    UnknownHint {
        /// The name.
        agent: String,
    },
    /// A layer is listed that the host does not have; it is left out.
    UnknownLayer {
        /// Its key.
        layer: String,
    },
    /// A part of the flow never runs.
    Unreachable {
        /// The place, as a JSON pointer.
        place: String,
        /// Why.
        msg: String,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DroppedAgent { agent, kind } => {
                write!(f, "agent `{agent}` is left out: kind `{kind}` is not supported")
            }
            Self::UnresolvedRef { place, reference } => {
                write!(f, "{place}: nothing is named `{reference}`; it fails when it is reached")
            }
            Self::UnusedAgent { agent } => write!(f, "agent `{agent}` is named by no step"),
            Self::UnknownHint { agent } => {
                write!(f, "hints.per_agent: there is no agent `{agent}`")
            }
            Self::UnknownLayer { layer } => {
                write!(f, "spawner_hints.layers: there is no layer `{layer}` here; it is left out")
            }
            Self::Unreachable { place, msg } => write!(f, "{place}: {msg}"),
        }
    }
}

/// Checks a blueprint against what the host knows.
///
/// ```
/// use adjutant::blueprint::{Known, check, parse_blueprint};
///
/// let blueprint = parse_blueprint(r#"{
///     "id": "hello",
///     "agents": [{"name": "hello", "kind": "lua"}],
///     "flow": {"kind": "seq", "children": []}
/// }"#, None)?;
/// let errors = check(&blueprint, &Known::default()).expect_err("lua is not supported");
/// assert!(errors.to_string().contains("supported: subprocess, rust_fn, operator, ask"));
/// # Ok::<(), adjutant::blueprint::CompileErrors>(())
/// ```
///
/// # Errors
/// Every fault of the document.
pub fn check(blueprint: &Blueprint, known: &Known) -> Result<Vec<Warning>, CompileErrors> {
    let (errors, warnings) = faults(blueprint, known, &BTreeSet::new());
    CompileErrors::from_list(errors)?;
    Ok(warnings)
}

/// The faults and warnings of a blueprint; `unread` are the agents that could not be read.
pub(crate) fn faults(
    blueprint: &Blueprint,
    known: &Known,
    unread: &BTreeSet<String>,
) -> (Vec<CompileError>, Vec<Warning>) {
    let mut check = Check { blueprint, known, errors: Vec::new(), warnings: Vec::new() };
    check.header();
    check.layers();
    let mut routed = unread.clone();
    check.names();
    for agent in &blueprint.agents {
        if check.agent(agent) {
            routed.insert(agent.name.clone());
        }
    }
    check.flow(&flow::survey(&blueprint.flow), &routed);
    (check.errors, check.warnings)
}

struct Check<'a> {
    blueprint: &'a Blueprint,
    known: &'a Known,
    errors: Vec<CompileError>,
    warnings: Vec<Warning>,
}

impl Check<'_> {
    fn document(&mut self, field: impl Into<String>, msg: &str) {
        self.errors.push(CompileError::InvalidDocument { field: field.into(), msg: msg.into() });
    }

    fn header(&mut self) {
        if self.blueprint.schema_version != SCHEMA_VERSION {
            let found = self.blueprint.schema_version.clone();
            let supported = SCHEMA_VERSION;
            self.errors.push(CompileError::UnsupportedVersion { found, supported });
        }
        if let Some(msg) = name_fault(&self.blueprint.id) {
            self.document("id", msg);
        }
        if self.blueprint.metadata.default_run_ttl_secs == Some(0) {
            self.document("metadata.default_run_ttl_secs", "must be at least 1");
        }
    }

    fn layers(&mut self) {
        let Some(known) = &self.known.layers else { return };
        let listed = self.blueprint.spawner_hints.layers.iter();
        for layer in listed.filter(|layer| !known.contains(*layer)) {
            self.warnings.push(Warning::UnknownLayer { layer: layer.clone() });
        }
    }

    fn names(&mut self) {
        let mut seen = BTreeSet::new();
        for (index, operator) in self.blueprint.operators.iter().enumerate() {
            let field = format!("operators/{index}/name");
            if let Some(msg) = name_fault(&operator.name) {
                self.document(field, msg);
            } else if !seen.insert(&operator.name) {
                self.document(field, &format!("`{}` is given twice", operator.name));
            }
        }
        let mut counts = BTreeMap::new();
        for (index, agent) in self.blueprint.agents.iter().enumerate() {
            *counts.entry(&agent.name).or_insert(0) += 1;
            if let Some(msg) = name_fault(&agent.name) {
                let agent = format!("agents/{index}");
                let (field, msg) = ("name".to_owned(), msg.to_owned());
                self.errors.push(CompileError::InvalidAgent { agent, field, msg });
            }
        }
        for (agent, count) in counts.into_iter().filter(|(_, count)| *count > 1) {
            self.errors.push(CompileError::DuplicateAgent { agent: agent.clone(), count });
        }
    }

    /// Whether steps may name the agent. A faulty one counts, or its steps would be faults too.
    fn agent(&mut self, agent: &AgentDef) -> bool {
        let name = agent.name.clone();
        let kind = self.blueprint.kind_of(agent, self.known.default_agent_kind.as_ref());
        if kind == AgentKind::Ask && agent.on_interrupt == OnInterrupt::Retry {
            let msg = "is `retry`, but a question stays open by itself".to_owned();
            let (agent, field) = (name.clone(), "on_interrupt".to_owned());
            self.errors.push(CompileError::InvalidAgent { agent, field, msg });
        }
        match spec::read(agent, &kind) {
            None if self.blueprint.strategy.strict_kind => {
                self.errors.push(CompileError::UnknownKind { agent: name, kind });
            }
            None => {
                self.warnings.push(Warning::DroppedAgent { agent: name, kind });
                return false;
            }
            Some(Err(faults)) => self.errors.extend(spec::invalid_spec(&name, faults)),
            Some(Ok(spec)) => self.lookups(name, &spec),
        }
        true
    }

    fn lookups(&mut self, agent: String, spec: &AgentSpec) {
        match spec {
            AgentSpec::RustFn(spec) if !self.known.rust_fns.contains(&spec.fn_id) => {
                let names: Vec<_> = self.known.rust_fns.iter().map(String::as_str).collect();
                let field = "fn_id".to_owned();
                let (fn_id, names) = (&spec.fn_id, names.join(", "));
                let msg = format!("no function `{fn_id}` is registered; registered: {names}");
                self.errors.push(CompileError::InvalidSpec { agent, field, msg });
            }
            AgentSpec::Operator(spec) => {
                let declared = self.blueprint.operators.iter().map(|operator| &operator.name);
                let defined: BTreeSet<_> = declared.chain(&self.known.operators).collect();
                if !defined.contains(&spec.operator_ref) {
                    self.errors.push(CompileError::UnresolvedOperatorRef {
                        agent,
                        reference: spec.operator_ref.clone(),
                        defined: defined.into_iter().cloned().collect(),
                    });
                }
            }
            _ => {}
        }
    }

    fn flow(&mut self, survey: &Survey, routed: &BTreeSet<String>) {
        for fault in &survey.faults {
            let (place, msg) = (fault.place.clone(), fault.msg.clone());
            self.errors.push(CompileError::InvalidFlow { place, msg });
        }
        for note in &survey.unreachable {
            let (place, msg) = (note.place.clone(), note.msg.clone());
            self.warnings.push(Warning::Unreachable { place, msg });
        }
        for step in survey.steps.iter().filter(|step| !routed.contains(&step.reference)) {
            if !self.known.default_route {
                self.unresolved_step(step, routed);
            }
        }
        let externs = survey.externs.iter();
        for call in externs.filter(|call| !self.known.externs.contains(&call.reference)) {
            let place = call.place.clone();
            if self.blueprint.strategy.strict_refs {
                let msg = format!("field `ref`: no extern `{}` is registered", call.reference);
                self.errors.push(CompileError::InvalidFlow { place, msg });
            } else {
                let reference = call.reference.clone();
                self.warnings.push(Warning::UnresolvedRef { place, reference });
            }
        }
        self.unused(survey);
    }

    fn unresolved_step(&mut self, step: &FlowRef, routed: &BTreeSet<String>) {
        let FlowRef { place, reference } = step.clone();
        if self.blueprint.strategy.strict_refs {
            let nearest = nearest(&reference, routed);
            let known = routed.iter().cloned().collect();
            self.errors.push(CompileError::UnresolvedRef { place, reference, nearest, known });
        } else {
            self.warnings.push(Warning::UnresolvedRef { place, reference });
        }
    }

    fn unused(&mut self, survey: &Survey) {
        let used: BTreeSet<_> = survey.steps.iter().map(|step| &step.reference).collect();
        let agents: BTreeSet<_> = self.blueprint.agents.iter().map(|agent| &agent.name).collect();
        // A flow that could not be read has steps that were not seen.
        if survey.faults.is_empty() {
            let unused = agents.difference(&used);
            let unused = unused.map(|agent| Warning::UnusedAgent { agent: (*agent).clone() });
            self.warnings.extend(unused);
        }
        let hints = self.blueprint.hints.per_agent.keys();
        let strange = hints.filter(|agent| !agents.contains(agent));
        self.warnings.extend(strange.map(|agent| Warning::UnknownHint { agent: agent.clone() }));
    }
}

fn name_fault(name: &str) -> Option<&'static str> {
    if name.trim().is_empty() {
        Some("must not be empty")
    } else if name.chars().any(char::is_control) {
        Some("must not hold control characters")
    } else {
        None
    }
}

/// The known name that takes the fewest edits to reach, where those are few for its length.
fn nearest(name: &str, known: &BTreeSet<String>) -> Option<String> {
    let limit = 1 + name.chars().count() / 3;
    let scored = known.iter().map(|other| (edits(name, other), other));
    scored.filter(|(count, _)| *count <= limit).min().map(|(_, other)| other.clone())
}

fn edits(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (index, left) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = index + 1;
        for (column, right) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(left != *right);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(row[column] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests;
