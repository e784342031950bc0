//! The JSON Schema of the document.
//!
//! The records derive theirs; the flow's part is made from the table of shapes, because the flow
//! crate has none. The schema describes the document as it is written, with file references, and
//! accepts what the check accepts as far as a schema can say it.

use serde_json::{Map, Value, json};

use super::document::{AgentKind, Blueprint};
use super::flow::shape::{EXPRS, Holds, JOINS, NODES, PATH_PATTERN, Shape};
use super::spec::{AskSpec, OperatorSpec, RustFnSpec, SubprocessSpec};

/// The JSON Schema (draft 2020-12) of a blueprint.
///
/// ```
/// let schema = adjutant::blueprint::json_schema();
/// assert_eq!(schema["properties"]["flow"]["$ref"], "#/$defs/FlowNode");
/// ```
#[must_use]
pub fn json_schema() -> Value {
    let mut generator = schemars::SchemaGenerator::default();
    let specs = [
        ("subprocess", generator.subschema_for::<SubprocessSpec>()),
        ("rust_fn", generator.subschema_for::<RustFnSpec>()),
        ("operator", generator.subschema_for::<OperatorSpec>()),
        ("ask", generator.subschema_for::<AskSpec>()),
    ];
    let mut schema = generator.into_root_schema_for::<Blueprint>().to_value();
    leave_out_examples(&mut schema);
    allow_file_refs(&mut schema);
    schema["properties"]["flow"] = json!({"$ref": "#/$defs/FlowNode"});
    schema["properties"]["agents"]["items"] =
        json!({"anyOf": [{"$ref": "#/$defs/AgentDef"}, {"$ref": "#/$defs/AgentMdRef"}]});
    let choices: Vec<_> = specs.iter().map(|(kind, spec)| spec_of_kind(kind, spec)).collect();
    let definitions = &mut schema["$defs"];
    definitions["AgentDef"]["allOf"] = choices.into();
    definitions["FlowNode"] = one_of("kind", "A node of the flow.", &NODES);
    definitions["FlowExpr"] = one_of("op", "An expression over the context.", &EXPRS);
    definitions["FlowTarget"] = object("op", &EXPRS[0]);
    definitions["FileRef"] = reference("$file", "A file's text, from the document's folder.");
    definitions["AgentMdRef"] = reference("$agent_md", "An agent as front matter and a body.");
    schema
}

fn reference(key: &str, about: &str) -> Value {
    json!({
        "description": about, "type": "object", "additionalProperties": false, "required": [key],
        "properties": {key: {"type": "string", "minLength": 1}},
    })
}

/// The spec must fit the kind where the agent names one.
fn spec_of_kind(kind: &str, spec: &schemars::Schema) -> Value {
    debug_assert!(AgentKind::SUPPORTED.contains(&kind), "{kind} has a spec and is not supported");
    json!({
        "if": {"properties": {"kind": {"const": kind}}, "required": ["kind"]},
        "then": {"properties": {"spec": spec}},
    })
}

/// Descriptions come from the records' documentation, whose examples are for embedders.
fn leave_out_examples(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if let Some(Value::String(about)) = fields.get_mut("description")
                && let Some(end) = about.find("\n\n```")
            {
                about.truncate(end);
            }
            fields.values_mut().for_each(leave_out_examples);
        }
        Value::Array(items) => items.iter_mut().for_each(leave_out_examples),
        _ => {}
    }
}

/// Wherever a free text stands, a reference to a file may stand too.
fn allow_file_refs(schema: &mut Value) {
    let file = json!({"$ref": "#/$defs/FileRef"});
    match schema {
        Value::Object(fields) if is_text(fields) => {
            let mut text = std::mem::take(fields);
            let mut both = Map::new();
            for key in ["description", "default"] {
                both.extend(text.remove(key).map(|value| (key.to_owned(), value)));
            }
            both.insert("anyOf".into(), json!([text, file]));
            *fields = both;
        }
        Value::Object(fields) => fields.values_mut().for_each(allow_file_refs),
        Value::Array(items) => items.iter_mut().for_each(allow_file_refs),
        _ => {}
    }
}

fn is_text(fields: &Map<String, Value>) -> bool {
    let holds_text = match fields.get("type") {
        Some(Value::String(one)) => one == "string",
        Some(Value::Array(several)) => several.contains(&json!("string")),
        _ => false,
    };
    holds_text && !fields.contains_key("enum") && !fields.contains_key("const")
}

fn one_of(tag: &str, about: &str, shapes: &[Shape]) -> Value {
    let choices: Vec<_> = shapes.iter().map(|shape| object(tag, shape)).collect();
    json!({"description": about, "oneOf": choices})
}

fn object(tag: &str, shape: &Shape) -> Value {
    let mut properties = Map::from_iter([(tag.to_owned(), json!({"const": shape.tag}))]);
    let mut required = vec![tag];
    for field in shape.fields {
        let mut holds = held(field.holds);
        if field.required {
            required.push(field.name);
        } else {
            holds = json!({"anyOf": [holds, {"type": "null"}]});
        }
        properties.insert(field.name.to_owned(), holds);
    }
    json!({
        "description": shape.about, "type": "object", "properties": properties,
        "required": required, "additionalProperties": false,
    })
}

fn held(holds: Holds) -> Value {
    match holds {
        Holds::Name => json!({"type": "string", "minLength": 1}),
        Holds::Any => json!(true),
        Holds::Expr => json!({"$ref": "#/$defs/FlowExpr"}),
        Holds::Exprs => json!({"type": "array", "items": {"$ref": "#/$defs/FlowExpr"}}),
        Holds::Target => json!({"$ref": "#/$defs/FlowTarget"}),
        Holds::Path => json!({"type": "string", "pattern": PATH_PATTERN}),
        Holds::Node => json!({"$ref": "#/$defs/FlowNode"}),
        Holds::Nodes => json!({"type": "array", "items": {"$ref": "#/$defs/FlowNode"}}),
        Holds::Join => json!({"enum": JOINS}),
        Holds::Count => json!({"type": "integer", "minimum": 1, "maximum": u32::MAX}),
    }
}

#[cfg(test)]
mod tests;
