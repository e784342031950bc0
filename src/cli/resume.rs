//! `adjutant resume`: goes on with a run that was left open.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use adjutant::blueprint::{Blueprint, Functions, Program, compile, load_blueprint, resume, run};
use adjutant::journal::JournalError;
use adjutant::store::{SqliteStore, View};
use adjutant::{Engine, RunId, RunRecord, RunStatus, TaskStatus};
use anyhow::{Context, bail};
use serde::Deserialize;
use serde_json::Value;

use crate::cli::args::ResumeArgs;
use crate::cli::drive::{self, Drive};
use crate::cli::place::{self, Place};
use crate::cli::run::read_input;
use crate::cli::senior::Answers;
use crate::cli::{code, say, usage};

/// What `adjutant run` kept with the run. A run of another host has none of it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Settings {
    blueprint: Option<PathBuf>,
    cwd: Option<PathBuf>,
    answers: Vec<String>,
    ttl: Option<u64>,
    attempt_timeout: Option<u64>,
}

/// An open run and the folder of its store.
struct Found {
    id: RunId,
    record: RunRecord,
    folder: PathBuf,
}

pub(crate) fn main(mut args: ResumeArgs) -> anyhow::Result<i32> {
    let input = match args.input.as_deref().map(read_input).transpose() {
        Ok(input) => input,
        Err(error) => return Ok(usage(&format!("{error:#}"))),
    };
    let given = match Answers::parse(&args.how.answers) {
        Ok(answers) => answers.steps(),
        Err(error) => return Ok(usage(&format!("{error:#}"))),
    };
    let (found, store) = find(&Place::of(&args.store)?, args.run.as_deref())?;
    let kept = found.record.settings.as_deref().cloned().unwrap_or_default();
    let mut settings: Settings = serde_json::from_value(kept).unwrap_or_default();
    args.how.ttl = args.how.ttl.or(settings.ttl);
    args.how.attempt_timeout = args.how.attempt_timeout.or(settings.attempt_timeout);
    // What is given anew for a step stands in place of what was given for it before.
    settings.answers.retain(|text| {
        let step = text.split('=').next().unwrap_or_default();
        !given.iter().any(|given| given == step)
    });
    let reused = Answers::parse(&settings.answers)?.steps();
    args.how.answers.append(&mut settings.answers);
    if let Some(folder) = &settings.cwd {
        std::env::set_current_dir(folder)
            .with_context(|| format!("the run was started in {}", folder.display()))?;
    }
    drive::block_on(command(args, (found, store), settings.blueprint, input, reused))
}

/// The run that is meant: by the start of its id, or the newest open one.
///
/// The store comes with it, held. A run that another process carries on is passed over where none
/// was named.
fn find(place: &Place, wanted: Option<&str>) -> anyhow::Result<(Found, SqliteStore)> {
    let mut open = Vec::new();
    for view in place.views()? {
        open.extend(candidates(&view, wanted));
    }
    open.sort_by_key(|found| (found.record.started_at, found.id));
    match (wanted, open.len()) {
        (Some(wanted), 0) => bail!("no open run is called {wanted}; see `adjutant runs`"),
        (None, 0) => bail!("no run is open; see `adjutant runs`"),
        (Some(wanted), many @ 2..) => bail!("{wanted} fits {many} open runs; see `adjutant runs`"),
        _ => {}
    }
    let mut held = None;
    while let Some(found) = open.pop() {
        match place::open(&std::path::absolute(&found.folder)?) {
            Ok(store) => return Ok((found, store)),
            Err(error @ JournalError::Held { .. }) => held = held.or(Some(error)),
            Err(error) => return Err(error.into()),
        }
    }
    Err(held.map_or_else(|| anyhow::anyhow!("no run is open"), Into::into))
}

fn candidates(view: &View, wanted: Option<&str>) -> Vec<Found> {
    let open = view.state().runs().into_iter().filter(|(id, record)| {
        let fits = wanted.is_none_or(|start| id.to_string().starts_with(start));
        fits && record.status == RunStatus::Open
    });
    open.map(|(id, record)| Found { id, record, folder: view.path().to_owned() }).collect()
}

async fn command(
    args: ResumeArgs,
    (found, store): (Found, SqliteStore),
    blueprint: Option<PathBuf>,
    input: Option<Value>,
    reused: Vec<String>,
) -> anyhow::Result<i32> {
    let answers = Answers::parse(&args.how.answers)?;
    let drive = Drive::open(Some(store), args.how, answers).await?;
    if args.give_up {
        let given_up = drive.engine.cancel_run(found.id).await;
        drive.engine.shutdown(drive::SHUTDOWN).await;
        given_up?;
        say(&format!("adjutant: run {} was given up", found.id));
        return Ok(code::PASS);
    }
    let from = if args.recorded { None } else { blueprint };
    let program = match program(&drive.engine, &found.record, from.as_deref()).await {
        Ok(program) => Arc::new(program),
        Err(error) => {
            drive.engine.shutdown(drive::SHUTDOWN).await;
            return Ok(usage(&format!("run {}: {error:#}", found.id)));
        }
    };
    if let Some(step) = drive.unknown_answer(&program) {
        drive.engine.shutdown(drive::SHUTDOWN).await;
        return Ok(usage(&format!("--answer {step}=…: the blueprint has no step {step}")));
    }
    let passed = skip_used(&drive, found.id, &reused).await?;
    if !drive.how.quiet {
        let (id, name) = (found.id, &found.record.name);
        say(&format!("adjutant: goes on with {id} of {name}; {passed} steps passed before"));
    }
    let (id, engine) = (found.id, drive.engine.clone());
    drive
        .run(Some(id), |options| async move {
            match input {
                Some(input) => run(&engine, program, input, options).await,
                None => resume(&engine, id, program, options).await,
            }
        })
        .await
}

/// The program of a run: from its file, so that a change of that is noticed; else as it was kept.
async fn program(
    engine: &Engine,
    record: &RunRecord,
    file: Option<&Path>,
) -> anyhow::Result<Program> {
    let blueprint = match file.filter(|file| file.exists()) {
        Some(file) => load_blueprint(file).map_err(|errors| {
            let file = file.display();
            anyhow::anyhow!("{file} has changed; --recorded goes on with what it was\n{errors}")
        })?,
        None => {
            let document = record.document.as_deref().context("its blueprint was not kept")?;
            serde_json::from_value::<Blueprint>(document.clone())
                .context("its blueprint is of another version of the format")?
        }
    };
    Ok(compile(engine, &blueprint, &Functions::new()).await?)
}

/// Passes over the answers that were used before the run was left. Gives how many steps passed.
async fn skip_used(drive: &Drive, run: RunId, reused: &[String]) -> anyhow::Result<usize> {
    let (passed, used) = drive
        .engine
        .with_state("resume", move |state| {
            let mut passed = state.kept_steps(run, None, usize::MAX);
            passed.retain(|step| step.status == TaskStatus::Pass);
            let asked = passed.iter().filter(|step| step.question.is_some());
            let agents = asked.filter_map(|step| Some(state.task(&step.task)?.spec.agent));
            (passed.len(), agents.collect::<Vec<_>>())
        })
        .await?;
    for step in reused {
        drive.answers.skip(step, used.iter().filter(|name| *name == step).count());
    }
    Ok(passed)
}
