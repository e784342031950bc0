//! The document as tools: its schema, and its check.

use adjutant_actors::errors::EngineError;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::blueprint::{Functions, check_text, json_schema, known_to, steps};
use crate::server::mcp::tool::{Call, Effect, Entry, Reply};
use crate::server::problem::Problem;

pub(crate) fn tools() -> Vec<Entry> {
    vec![
        Entry::new(
            "blueprint_schema",
            (
                "Schema of blueprints",
                "Gives the JSON Schema of the blueprint document. The guide adjutant://guides/blueprint is shorter.",
            ),
            Effect::Reads,
            schema,
        ),
        Entry::new(
            "check_blueprint",
            (
                "Check a blueprint",
                "Checks a blueprint document without running it, and names every mistake at once with its place.",
            ),
            Effect::Reads,
            check,
        ),
    ]
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Nothing {}

#[derive(Serialize, JsonSchema)]
struct Schema {
    /// The JSON Schema, draft 2020-12.
    schema: Map<String, Value>,
}

async fn schema(_: Call, Nothing {}: Nothing) -> Result<Reply<Schema>, Problem> {
    match json_schema() {
        Value::Object(schema) => Ok(Reply::Done(Schema { schema })),
        _ => Err(EngineError::Internal("the schema is no object".to_owned()).into()),
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Check {
    /// The document.
    blueprint: Map<String, Value>,
}

#[derive(Serialize, JsonSchema)]
struct Checked {
    /// Whether it can be run.
    ok: bool,
    /// Every mistake, with its place; none where `ok` is true.
    errors: Vec<String>,
    /// What is allowed and probably not meant.
    warnings: Vec<String>,
    /// How many agents it names.
    agents: usize,
    /// How many steps its flow has.
    steps: usize,
}

async fn check(call: Call, check: Check) -> Result<Reply<Checked>, Problem> {
    let text = Value::Object(check.blueprint).to_string();
    let known = known_to(&call.app.engine, &Functions::new()).await;
    // Without a folder nothing is read from the disk.
    let checked = match check_text(&text, None, &known) {
        Ok((blueprint, warnings)) => Checked {
            ok: true,
            errors: Vec::new(),
            warnings: warnings.iter().map(ToString::to_string).collect(),
            agents: blueprint.agents.len(),
            steps: steps(&blueprint.flow).len(),
        },
        Err(errors) => Checked {
            ok: false,
            errors: errors.errors().iter().map(ToString::to_string).collect(),
            warnings: Vec::new(),
            agents: 0,
            steps: 0,
        },
    };
    Ok(Reply::Done(checked))
}
