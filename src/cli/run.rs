//! `adjutant run`: runs a blueprint, kept in a store unless that is not wanted.

use std::path::Path;
use std::sync::Arc;

use adjutant::blueprint::{Functions, compile, load_blueprint, run};
use adjutant::{RunId, RunStatus};
use anyhow::{Context, bail};
use serde_json::{Value, json};

use crate::cli::args::RunArgs;
use crate::cli::drive::{self, Drive};
use crate::cli::place::{Place, is_own};
use crate::cli::senior::Answers;
use crate::cli::{say, usage};

pub(crate) fn main(args: RunArgs) -> anyhow::Result<i32> {
    drive::block_on(command(args))
}

async fn command(args: RunArgs) -> anyhow::Result<i32> {
    let input = match read_input(&args.input) {
        Ok(input) => input,
        Err(error) => return Ok(usage(&format!("{error:#}"))),
    };
    let answers = match Answers::parse(&args.how.answers) {
        Ok(answers) => answers,
        Err(error) => return Ok(usage(&format!("{error:#}"))),
    };
    let blueprint = match load_blueprint(&args.blueprint) {
        Ok(blueprint) => blueprint,
        Err(errors) => return Ok(usage(&format!("{}:\n{errors}", args.blueprint.display()))),
    };
    let place = Place::of(&args.store)?;
    let store = tokio::task::spawn_blocking(move || place.open_for_run()).await??;
    let drive = Drive::open(store, args.how, answers).await?;
    let program = match compile(&drive.engine, &blueprint, &Functions::new()).await {
        Ok(program) => Arc::new(program),
        Err(errors) => {
            drive.engine.shutdown(drive::SHUTDOWN).await;
            return Ok(usage(&format!("{}:\n{errors}", args.blueprint.display())));
        }
    };
    for warning in program.warnings() {
        say(&format!("warning: {warning}"));
    }
    if let Some(step) = drive.unknown_answer(&program) {
        drive.engine.shutdown(drive::SHUTDOWN).await;
        return Ok(usage(&format!("--answer {step}=…: the blueprint has no step {step}")));
    }
    let mut id = None;
    if drive.store.is_some() {
        tell_open_runs(&drive).await?;
        id = Some(drive.engine.mint().run_id());
    }
    let settings = settings(&args.blueprint, &drive)?;
    let engine = drive.engine.clone();
    drive
        .run(id, |mut options| {
            options.settings = settings;
            async move { run(&engine, program, input, options).await }
        })
        .await
}

/// What whoever resumes the run has to know of how it was started.
fn settings(blueprint: &Path, drive: &Drive) -> anyhow::Result<Value> {
    Ok(json!({
        "blueprint": std::path::absolute(blueprint)?,
        "cwd": std::env::current_dir()?,
        "answers": drive.how.answers,
        "ttl": drive.how.ttl,
        "attempt_timeout": drive.how.attempt_timeout,
    }))
}

/// Says which runs of the store are open, since they go on only by `adjutant resume`.
async fn tell_open_runs(drive: &Drive) -> anyhow::Result<()> {
    let runs = drive.engine.list_runs().await?;
    let open: Vec<_> = runs.iter().filter(|(_, run)| run.status == RunStatus::Open).collect();
    if let Some((id, run)) = open.last() {
        let more = match open.len() - 1 {
            0 => String::new(),
            more => format!(" (and {more} more: `adjutant runs`)"),
        };
        let (name, go_on) = (&run.name, drive.resume_line(*id));
        say(&format!(
            "adjutant: an earlier run of {name} is open: `{go_on}` goes on with it, with --give-up \
             ends it{more}; this is a new run"
        ));
    }
    Ok(())
}

/// How a person resumes a run.
pub(crate) fn resume_line(id: RunId, store: Option<&Path>) -> String {
    let named = store.filter(|path| !is_own(path));
    let store = named.map(|path| format!(" --store {}", path.display())).unwrap_or_default();
    format!("adjutant resume {id}{store}")
}

/// The initial context: an object, in place or in a file.
pub(crate) fn read_input(text: &str) -> anyhow::Result<Value> {
    let (text, from) = match text.strip_prefix('@') {
        Some(path) => {
            let read = std::fs::read_to_string(path).with_context(|| format!("--input @{path}"))?;
            (read, format!("--input @{path}"))
        }
        None => (text.to_owned(), "--input".to_owned()),
    };
    match serde_json::from_str(&text) {
        Ok(Value::Object(input)) => Ok(Value::Object(input)),
        Ok(_) => bail!("{from}: the flow's context must be a JSON object"),
        Err(error) => Err(error).with_context(|| format!("{from}: not JSON")),
    }
}
