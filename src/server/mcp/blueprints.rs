//! The document as tools: its schema, its check, and those that the server keeps.

use adjutant_actors::errors::EngineError;
use adjutant_actors::model::role::Verb;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::blueprint::{check_text, json_schema, known_to, steps};
use crate::server::blueprints;
use crate::server::mcp::tool::{Call, Effect, Entry, Reply};
use crate::server::problem::Problem;
use crate::server::shelf::BlueprintVersion;

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
        Entry::new(
            "list_blueprints",
            (
                "List blueprints",
                "Lists the blueprints that are kept, by their ids, for the blueprint_id of run_blueprint.",
            ),
            Effect::Reads,
            list,
        ),
        Entry::new(
            "put_blueprint",
            (
                "Keep a blueprint",
                "Checks a document and keeps it under its id, as the newest version; older versions stay, by their \
                 hashes. Nothing is run.",
            ),
            Effect::AddsOnce,
            put,
        ),
        Entry::new(
            "archive_blueprint",
            (
                "Archive a blueprint",
                "Archives a blueprint: it runs no more by its id, and takes no version; runs that are going on stay. \
                 Without `confirm` nothing is done and the reply shows what would be archived.",
            ),
            Effect::Destroys,
            archive,
        ),
        Entry::new(
            "unarchive_blueprint",
            (
                "Take a blueprint back",
                "Takes an archived blueprint back, so that it runs by its id again.",
            ),
            Effect::AddsOnce,
            unarchive,
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
    let known = known_to(&call.app.engine, &call.app.cfg.functions).await;
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

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct List {
    /// How many at most; 20 where it is absent.
    #[serde(default)]
    #[schemars(range(min = 1, max = 500))]
    limit: Option<usize>,
    /// Where to go on: `next` of the page before.
    #[serde(default)]
    after: String,
}

#[derive(Serialize, JsonSchema)]
struct Listed {
    /// The blueprints, in the order of their ids.
    blueprints: Vec<Kept>,
    /// For `after`, where there may be more.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// A blueprint with its newest version.
#[derive(Serialize, JsonSchema)]
struct Kept {
    /// Its id.
    blueprint_id: String,
    /// Hash of the newest version.
    hash: String,
    /// When that was put, in milliseconds since 1970.
    at: u64,
    /// Whether it runs no more by its id.
    archived: bool,
}

impl From<BlueprintVersion> for Kept {
    fn from(version: BlueprintVersion) -> Self {
        let at = version.at.saturating_mul(1000);
        Self { blueprint_id: version.id, hash: version.hash, at, archived: version.archived }
    }
}

async fn list(call: Call, list: List) -> Result<Reply<Listed>, Problem> {
    let page = blueprints::newest(&call.app, &call.who, list.limit, list.after).await?;
    let (found, next) = page;
    Ok(Reply::Done(Listed { blueprints: found.into_iter().map(Kept::from).collect(), next }))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Document {
    /// The document. See the resource adjutant://guides/blueprint.
    blueprint: Map<String, Value>,
}

#[derive(Serialize, JsonSchema)]
struct Stored {
    #[serde(flatten)]
    kept: Kept,
    /// Whether it is another version than the newest one before.
    changed: bool,
}

async fn put(call: Call, put: Document) -> Result<Reply<Stored>, Problem> {
    let document = Value::Object(put.blueprint);
    let (version, changed) = blueprints::keep(&call.app, &call.who, &document, None).await?;
    Ok(Reply::Done(Stored { kept: version.into(), changed }))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Archive {
    /// The blueprint.
    blueprint_id: String,
    /// Does it; otherwise the reply shows what would be archived.
    #[serde(default)]
    confirm: bool,
}

#[derive(Serialize, JsonSchema)]
struct Archived {
    #[serde(flatten)]
    kept: Kept,
    /// What to do next, where there is something to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<&'static str>,
}

async fn archive(call: Call, archive: Archive) -> Result<Reply<Archived>, Problem> {
    if archive.confirm {
        set_archived(call, &archive.blueprint_id, true).await
    } else {
        call.who.may(&call.app, Verb::ReadTaskState).await?;
        let kept: Kept = blueprints::head_of(&call.app, &archive.blueprint_id).await?.into();
        let next = (!kept.archived).then_some("call again with confirm true to archive it");
        Ok(Reply::Done(Archived { kept, next }))
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Unarchive {
    /// The blueprint.
    blueprint_id: String,
}

async fn unarchive(call: Call, unarchive: Unarchive) -> Result<Reply<Archived>, Problem> {
    set_archived(call, &unarchive.blueprint_id, false).await
}

async fn set_archived(call: Call, id: &str, archived: bool) -> Result<Reply<Archived>, Problem> {
    blueprints::set_archived(&call.app, &call.who, id, archived).await?;
    let kept = blueprints::head_of(&call.app, id).await?.into();
    Ok(Reply::Done(Archived { kept, next: None }))
}
