//! What a client may read beside the tools: the document's schema, the guides, runs and tasks.

use rmcp::ErrorData;
use rmcp::model::{ReadResourceResult, Resource, ResourceContents, ResourceTemplate};
use serde_json::Value;

use crate::blueprint::json_schema;
use crate::server::caller::Authority;
use crate::server::mcp::output::Task;
use crate::server::mcp::runs;
use crate::server::problem::Problem;
use crate::server::{Shared, parse};

const SCHEMA: &str = "adjutant://schema/blueprint";
const RUNS: &str = "adjutant://runs/";
const TASKS: &str = "adjutant://tasks/";
const MARKDOWN: &str = "text/markdown";
const JSON: &str = "application/json";

/// A text that is built into the program.
struct Guide {
    uri: &'static str,
    name: &'static str,
    about: &'static str,
    text: &'static str,
}

const GUIDES: [Guide; 3] = [
    Guide {
        uri: "adjutant://guides/blueprint",
        name: "How to write a blueprint",
        about: "The document, its agents, its flow and expressions, by example.",
        text: include_str!("../../../docs/guides/blueprint.md"),
    },
    Guide {
        uri: "adjutant://guides/worker",
        name: "How a worker works",
        about: "What a worker is given and what it gives back: as a child process, over HTTP, as an operator.",
        text: include_str!("../../../docs/guides/worker.md"),
    },
    Guide {
        uri: "adjutant://guides/answer",
        name: "How to answer a question",
        about: "Where questions come from, how they are answered, and what the answer becomes.",
        text: include_str!("../../../docs/guides/answer.md"),
    },
];

pub(crate) fn list() -> Vec<Resource> {
    let schema = Resource::new(SCHEMA, "Schema of blueprints")
        .with_description("The JSON Schema (draft 2020-12) of the blueprint document.")
        .with_mime_type("application/schema+json");
    let guides = GUIDES.iter().map(|guide| {
        Resource::new(guide.uri, guide.name).with_description(guide.about).with_mime_type(MARKDOWN)
    });
    std::iter::once(schema).chain(guides).collect()
}

pub(crate) fn templates() -> Vec<ResourceTemplate> {
    let template = |kind: &str, name: &str, about: &str| {
        ResourceTemplate::new(format!("adjutant://{kind}/{{id}}"), name)
            .with_description(about)
            .with_mime_type(JSON)
    };
    vec![
        template("runs", "A run", "A run as it is now: its status, its tasks, its report."),
        template("tasks", "A task", "A task as it is now: its agent, status, attempt and result."),
    ]
}

/// Reads a resource.
///
/// # Errors
/// Where there is none of this name, or the caller may not read it.
pub(crate) async fn read(
    app: &Shared,
    who: &Authority,
    uri: &str,
) -> Result<ReadResourceResult, ErrorData> {
    let guide = GUIDES.iter().find(|guide| guide.uri == uri);
    let (text, kind) = if let Some(guide) = guide {
        (guide.text.to_owned(), MARKDOWN)
    } else if uri == SCHEMA {
        (format!("{:#}", json_schema()), "application/schema+json")
    } else if let Some(id) = uri.strip_prefix(RUNS) {
        (json(runs::shown(app, who, id).await.map_err(refused)?), JSON)
    } else if let Some(id) = uri.strip_prefix(TASKS) {
        let task = match parse(id) {
            Ok(id) => app.engine.read_task_as(who.caller(), &id).await.map_err(Problem::from),
            Err(problem) => Err(problem),
        };
        (json(Task::from(task.map_err(refused)?)), JSON)
    } else {
        let told = format!("there is no resource {uri}; resources/list names them");
        return Err(ErrorData::resource_not_found(told, None));
    };
    let contents = ResourceContents::text(text, uri).with_mime_type(kind);
    Ok(ReadResourceResult::new(vec![contents]))
}

fn json(value: impl serde::Serialize) -> String {
    serde_json::to_string_pretty(&value).unwrap_or_default()
}

/// A refusal as an error of the protocol, with the problem document as its data.
fn refused(problem: Problem) -> ErrorData {
    let document = Value::Object(problem.document());
    let told = problem.detail().to_owned();
    match problem.code() {
        "run_not_found" | "task_not_found" => ErrorData::resource_not_found(told, Some(document)),
        "internal" => ErrorData::internal_error(told, Some(document)),
        _ => ErrorData::invalid_params(told, Some(document)),
    }
}
