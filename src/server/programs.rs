//! Blueprints that come over HTTP: read without files, held against the programs that are allowed,
//! compiled.
//!
//! A document from outside never reads a file of this machine and never names a program that the
//! settings do not: what it may do otherwise is what those programs do with any arguments.

use std::sync::Arc;

use adjutant_actors::errors::EngineError;
use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::blueprint::{
    AgentSpec, Blueprint, CompileErrors, Known, Program, ProgramError, SubprocessSpec, check_text,
    compile, known_to,
};
use crate::engine::Engine;
use crate::server::ServerCfg;
use crate::server::blueprints;
use crate::server::problem::{Problem, Setting};
use crate::server::runs::Source;

/// What a shell line runs in.
const SHELL: &str = "sh";

/// Reads a document and checks it against what is there now, and says all that is wrong with it.
pub(crate) async fn read(
    engine: &Engine,
    cfg: &ServerCfg,
    document: &Value,
) -> Result<Blueprint, Problem> {
    checked(document, &known_to(engine, &cfg.functions).await)
}

/// As [`read`], but takes every operator for known: it may log in before the document is run.
pub(crate) async fn read_for_later(
    engine: &Engine,
    cfg: &ServerCfg,
    document: &Value,
) -> Result<Blueprint, Problem> {
    let mut known = known_to(engine, &cfg.functions).await;
    let agents = document["agents"].as_array().into_iter().flatten();
    let named = agents.filter_map(|agent| agent["spec"]["operator_ref"].as_str());
    known.operators.extend(named.map(str::to_owned));
    checked(document, &known)
}

fn checked(document: &Value, known: &Known) -> Result<Blueprint, Problem> {
    // Without a folder a document refers to no file.
    let checked = check_text(&document.to_string(), None, known);
    checked.map(|(blueprint, _)| blueprint).map_err(|errors| faulty(&errors))
}

/// The blueprint of a request, or the one that it names.
pub(crate) async fn of_source(
    engine: &Engine,
    cfg: &ServerCfg,
    source: &Source,
) -> Result<Blueprint, Problem> {
    match source {
        Source::Inline(document) => read(engine, cfg, document).await,
        Source::Stored { id, version } => {
            let document = blueprints::document(&cfg.shelf, id, version.as_deref()).await?;
            read(engine, cfg, &document).await
        }
    }
}

/// Makes a program of a document, or says all that is wrong with it.
pub(crate) async fn program(
    engine: &Engine,
    cfg: &ServerCfg,
    blueprint: &Blueprint,
) -> Result<Arc<Program>, Problem> {
    let program = match compile(engine, blueprint, &cfg.functions).await {
        Ok(program) => program,
        Err(ProgramError::Compile(errors)) => return Err(faulty(&errors)),
        Err(ProgramError::Layers(unknown)) => {
            let faults = json!([unknown.to_string()]);
            return Err(refused(unknown.to_string()).with("faults", faults));
        }
    };
    allowed(blueprint, &cfg.programs)?;
    Ok(Arc::new(program))
}

fn refused(detail: String) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_blueprint", detail)
}

/// All faults at once.
fn faulty(errors: &CompileErrors) -> Problem {
    let faults: Vec<_> = errors.errors().iter().map(ToString::to_string).collect();
    refused(errors.to_string()).with("faults", json!(faults))
}

/// Refuses a document whose agents are programs that the settings do not name.
fn allowed(blueprint: &Blueprint, programs: &[String]) -> Result<(), Problem> {
    let mut refused = Vec::new();
    for agent in &blueprint.agents {
        let kind = blueprint.kind_of(agent, None);
        let Ok(AgentSpec::Subprocess(spec)) = agent.typed_spec(&kind) else { continue };
        if let Some(why) = objection(&spec, programs) {
            let program = spec.program.as_deref().unwrap_or(SHELL);
            refused.push(json!({ "agent": agent.name, "program": program, "why": why }));
        }
    }
    let Some(first) = refused.first() else { return Ok(()) };
    let detail = format!(
        "agent {} may not run {}: {}",
        first["agent"].as_str().unwrap_or_default(),
        first["program"].as_str().unwrap_or_default(),
        first["why"].as_str().unwrap_or_default(),
    );
    let problem = Problem::new(StatusCode::FORBIDDEN, "program_not_allowed", detail);
    Err(problem.with("refused", json!(refused)).because_of(Setting::Programs))
}

/// Why a program is not run. What decides which file is run must not come from outside either.
fn objection(spec: &SubprocessSpec, programs: &[String]) -> Option<String> {
    let program = spec.program.as_deref().unwrap_or(SHELL);
    if !programs.iter().any(|allowed| allowed == program) {
        return Some("it is not among the allowed `programs`".to_owned());
    }
    if program.contains('/') && !program.starts_with('/') {
        return Some("a path to a program must be absolute".to_owned());
    }
    let steered = spec.env.keys().find(|name| !is_harmless(name))?;
    Some(format!("its variable {steered} may decide what is run"))
}

/// Whether a variable decides nothing but how a program talks. Shells and interpreters take code
/// from many others (`BASH_ENV`, `NODE_OPTIONS`, `PYTHONPATH`, `LD_PRELOAD`), and nobody knows all.
fn is_harmless(name: &str) -> bool {
    matches!(name, "LANG" | "TZ" | "TERM" | "NO_COLOR") || name.starts_with("LC_")
}

/// The input of a run, as the flow's context.
pub(crate) fn checked_input(input: Value) -> Result<Value, Problem> {
    if input.is_object() {
        return Ok(input);
    }
    Err(EngineError::InvalidArgument("the input must be an object".to_owned()).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(value: Value) -> SubprocessSpec {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_program_is_run_only_as_the_settings_name_it() {
        let programs = ["cat".to_owned(), "/bin/ls".to_owned(), "./here".to_owned()];
        let objects = |value| objection(&spec(value), &programs).is_some();
        assert!(!objects(json!({ "program": "cat" })));
        assert!(!objects(json!({ "program": "/bin/ls", "env": { "LANG": "C" } })));
        assert!(objects(json!({ "program": "/bin/cat" })));
        assert!(objects(json!({ "program": "./here" })));
        assert!(objects(json!({ "shell": "cat" })));
        for name in ["PATH", "LD_PRELOAD", "Path", "BASH_ENV", "NODE_OPTIONS", "LC"] {
            assert!(objects(json!({ "program": "cat", "env": { name: "x" } })), "{name}");
        }
        assert!(objection(&spec(json!({ "shell": "true" })), &["sh".to_owned()]).is_none());
    }
}
