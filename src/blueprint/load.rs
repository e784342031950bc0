//! Loading: from text or a file to a [`Blueprint`], with every fault of the document.
//!
//! The document is read part by part, so that a broken agent hides neither another broken agent
//! nor a broken flow. These functions block on the file system and belong outside a runtime's
//! own threads.

use std::collections::BTreeSet;
use std::path::Path;

use mlua_flow_ir::Node;
use serde_json::{Value, json};

use super::check::{self, Known, Warning};
use super::document::{AgentDef, Blueprint, OperatorDef};
use super::error::{CompileError, CompileErrors};
use super::record::{self, FieldFault};
use super::{file_ref, flow};

/// How large a document may be.
const DOCUMENT_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// Loads a blueprint from a file, with the files that it refers to.
///
/// ```
/// use adjutant::blueprint::{Known, check_file, load_blueprint};
///
/// let path = "examples/blueprints/census.json".as_ref();
/// let census = load_blueprint(path)?;
/// assert!(census.agent("count").is_some());
///
/// // The same with a check, all faults in one report:
/// let (_, warnings) = check_file(path, &Known::default())?;
/// assert!(warnings.is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// Every fault of the document's form. [`super::check()`] finds what the form does not show.
pub fn load_blueprint(path: &Path) -> Result<Blueprint, CompileErrors> {
    let parsed = parse(&read_file(path)?, Some(folder_of(path)));
    CompileErrors::from_list(parsed.errors)?;
    Ok(parsed.blueprint)
}

/// Reads a blueprint from its text. Without a `folder` it may not refer to files.
///
/// ```
/// let text = r#"{"id": "nothing", "flow": {"kind": "seq", "children": []}}"#;
/// let blueprint = adjutant::blueprint::parse_blueprint(text, None)?;
/// assert!(blueprint.strategy.strict_refs);
/// # Ok::<(), adjutant::blueprint::CompileErrors>(())
/// ```
///
/// # Errors
/// Every fault of the document's form. [`super::check()`] finds what the form does not show.
pub fn parse_blueprint(text: &str, folder: Option<&Path>) -> Result<Blueprint, CompileErrors> {
    let parsed = parse(text, folder);
    CompileErrors::from_list(parsed.errors)?;
    Ok(parsed.blueprint)
}

/// Loads a blueprint from a file and checks it, and reports the faults of both together.
///
/// ```
/// use adjutant::blueprint::{Known, check_file};
///
/// let faults = check_file("/no/such/file".as_ref(), &Known::default()).expect_err("it is not there");
/// assert_eq!(faults.errors().len(), 1);
/// ```
///
/// # Errors
/// Every fault of the document.
pub fn check_file(path: &Path, known: &Known) -> Result<(Blueprint, Vec<Warning>), CompileErrors> {
    check_text(&read_file(path)?, Some(folder_of(path)), known)
}

/// Reads a blueprint from its text and checks it, and reports the faults of both together.
///
/// ```
/// use adjutant::blueprint::{Known, check_text};
///
/// let text = r#"{"id": "x", "flow": {"kind": "step", "ref": "nobody",
///     "in": {"op": "lit", "value": 1}, "out": {"op": "path", "at": "$.y"}}}"#;
/// let faults = check_text(text, None, &Known::default()).expect_err("nobody is no agent");
/// assert!(faults.to_string().contains("no agent `nobody`"));
/// ```
///
/// # Errors
/// Every fault of the document.
pub fn check_text(
    text: &str,
    folder: Option<&Path>,
    known: &Known,
) -> Result<(Blueprint, Vec<Warning>), CompileErrors> {
    let Parsed { blueprint, unread, mut errors, is_document } = parse(text, folder);
    let mut warnings = Vec::new();
    if is_document {
        let (faults, slips) = check::faults(&blueprint, known, &unread);
        errors.extend(faults);
        warnings = slips;
    }
    CompileErrors::from_list(errors)?;
    Ok((blueprint, warnings))
}

fn read_file(path: &Path) -> Result<String, CompileErrors> {
    file_ref::read_capped(path, DOCUMENT_BYTES_MAX)
        .map_err(|msg| document_fault("", format!("{}: {msg}", path.display())).into())
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

fn document_fault(field: &str, msg: impl ToString) -> CompileError {
    CompileError::InvalidDocument { field: field.to_owned(), msg: msg.to_string() }
}

/// What could be read of a document. Parts that could not be are left out.
struct Parsed {
    blueprint: Blueprint,
    unread: BTreeSet<String>,
    errors: Vec<CompileError>,
    is_document: bool,
}

fn parse(text: &str, folder: Option<&Path>) -> Parsed {
    let (value, mut errors) = match value_of(text) {
        Ok(mut value) => {
            let faults = file_ref::resolve(&mut value, folder);
            (Some(value), faults)
        }
        Err(error) => (None, vec![error]),
    };
    let mut unread = BTreeSet::new();
    let mut blueprint = empty();
    let is_document = value.is_some();
    // Places that a failed reference left empty would only repeat its fault.
    let failed_refs = !errors.is_empty();
    if let Some(mut value) = value {
        let parts = ["flow", "agents", "operators"].map(|part| take(&mut value, part));
        let [flow, agents, operators] = parts;
        let mut found = Vec::new();
        read_header(&mut value, &mut blueprint, &mut found);
        blueprint.flow = read_flow(flow, &mut found);
        blueprint.agents = read_agents(agents, &mut unread, &mut found);
        blueprint.operators = read_operators(operators, &mut found);
        found.retain(|error| !(failed_refs && echoes_null(error)));
        errors.extend(found);
    }
    Parsed { blueprint, unread, errors, is_document }
}

fn echoes_null(error: &CompileError) -> bool {
    let msg = match error {
        CompileError::InvalidAgent { msg, .. } | CompileError::InvalidDocument { msg, .. } => msg,
        _ => return false,
    };
    msg.contains("invalid type: null") || msg == record::NOT_AN_OBJECT
}

fn value_of(text: &str) -> Result<Value, CompileError> {
    if text.len() as u64 > DOCUMENT_BYTES_MAX {
        return Err(document_fault("", format!("holds more than {DOCUMENT_BYTES_MAX} bytes")));
    }
    let value: Value = serde_json::from_str(text)
        .map_err(|error| document_fault("", format!("is not JSON: {error}")))?;
    if value.is_object() { Ok(value) } else { Err(document_fault("", "must be an object")) }
}

fn smallest() -> Value {
    json!({"id": "unread", "flow": {"kind": "seq", "children": []}})
}

fn empty() -> Blueprint {
    serde_json::from_value(smallest()).expect("the smallest document is valid")
}

fn take(value: &mut Value, part: &str) -> Option<Value> {
    value.as_object_mut().and_then(|fields| fields.remove(part))
}

/// Reads every field but the three that are read part by part.
fn read_header(value: &mut Value, blueprint: &mut Blueprint, errors: &mut Vec<CompileError>) {
    let smallest = smallest();
    value["flow"] = smallest["flow"].clone();
    match record::read(value, &smallest) {
        Ok(read) => *blueprint = read,
        Err(faults) => {
            errors.extend(faults.into_iter().map(|fault| document_fault(&fault.field, fault.msg)));
            let strategy = value.get("strategy").cloned();
            let strategy = strategy.and_then(|strategy| serde_json::from_value(strategy).ok());
            blueprint.strategy = strategy.unwrap_or_default();
        }
    }
}

fn read_flow(flow: Option<Value>, errors: &mut Vec<CompileError>) -> Node {
    match flow.as_ref().map(flow::read) {
        Some(Ok(flow)) => return flow,
        Some(Err(notes)) => errors.extend(
            notes
                .into_iter()
                .map(|note| CompileError::InvalidFlow { place: note.place, msg: note.msg }),
        ),
        None => errors.push(document_fault("flow", "is missing")),
    }
    Node::Seq { children: Vec::new() }
}

fn read_agents(
    agents: Option<Value>,
    unread: &mut BTreeSet<String>,
    errors: &mut Vec<CompileError>,
) -> Vec<AgentDef> {
    let mut read = Vec::new();
    for (index, value) in items(agents, "agents", errors).into_iter().enumerate() {
        match record::read(&value, &json!({"name": "a"})) {
            Ok(agent) => read.push(agent),
            Err(faults) => {
                let name = value.get("name").and_then(Value::as_str);
                unread.extend(name.map(str::to_owned));
                let agent = name.map_or_else(|| format!("agents/{index}"), str::to_owned);
                errors.extend(faults.into_iter().map(|FieldFault { field, msg }| {
                    CompileError::InvalidAgent { agent: agent.clone(), field, msg }
                }));
            }
        }
    }
    read
}

fn read_operators(operators: Option<Value>, errors: &mut Vec<CompileError>) -> Vec<OperatorDef> {
    let mut read = Vec::new();
    for (index, value) in items(operators, "operators", errors).into_iter().enumerate() {
        match record::read(&value, &json!({"name": "o"})) {
            Ok(operator) => read.push(operator),
            Err(faults) => errors.extend(faults.into_iter().map(|fault| {
                document_fault(&format!("operators/{index}/{}", fault.field), fault.msg)
            })),
        }
    }
    read
}

fn items(value: Option<Value>, field: &str, errors: &mut Vec<CompileError>) -> Vec<Value> {
    match value {
        None => Vec::new(),
        Some(Value::Array(items)) => items,
        Some(_) => {
            errors.push(document_fault(field, "must be a list"));
            Vec::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(value: &Value) -> Vec<String> {
        let outcome = check_text(&value.to_string(), None, &Known::default());
        outcome.unwrap_err().errors().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_broken_agent_hides_neither_another_fault_nor_its_own_steps() {
        let at = json!({"op": "path", "at": "$"});
        let errors = errors(&json!({
            "id": 7, "verison": 1,
            "agents": [
                {"name": "a", "knid": "ask", "profile": {"modle": "m"}},
                {"kind": "ask"},
                {"name": "b", "kind": "subprocess"},
            ],
            "operators": [{"name": "o", "kind": "boss"}],
            "flow": {"kind": "step", "ref": "a", "in": at, "out": {"op": "path", "at": "nowhere"}},
        }));
        let starts = [
            "document: field `id`: invalid type",
            "document: field `verison`: unknown field",
            "/flow/out/at: invalid path syntax",
            "agent `a`: field `knid`: unknown field",
            "agent `a`: field `profile`: unknown field",
            "agent `agents/1`: field `name`: is missing",
            "document: field `operators/0/kind`: unknown variant",
            "agent `b`: field `spec.program`: is missing",
        ];
        assert_eq!(errors.len(), starts.len(), "{errors:#?}");
        for (error, start) in errors.iter().zip(starts) {
            assert!(error.starts_with(start), "{error}\nis not\n{start}");
        }
    }

    #[test]
    fn what_is_no_document_gives_one_fault() {
        for text in ["", "[1]", "{"] {
            let errors = check_text(text, None, &Known::default()).unwrap_err();
            assert_eq!(errors.errors().len(), 1, "{text:?}");
        }
    }

    #[test]
    fn a_failed_reference_is_reported_once() {
        let errors = errors(&json!({"id": "x", "agents": [{"$agent_md": "a.md"}],
            "metadata": {"tags": [{"$file": "t"}]}, "flow": {"kind": "seq", "children": []}}));
        assert_eq!(errors.len(), 2, "{errors:#?}");
        assert!(errors.iter().all(|error| error.contains("may not refer to files")));
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = load_blueprint(Path::new("no-such-blueprint.json")).unwrap_err();
        assert!(error.to_string().contains("no-such-blueprint.json"));
    }
}
