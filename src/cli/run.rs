//! `adjutant run`: runs a blueprint, shows its progress, and prints what came of it.

use std::sync::Arc;
use std::time::Duration;

use adjutant::blueprint::{Functions, Program, RunOptions, RunOutcome, RunReport};
use adjutant::blueprint::{compile, load_blueprint, run};
use adjutant::{
    CancellationToken, Delivery, Engine, EngineCfg, Event, EventFeed, EventRecord, LayerRegistry,
    ShutdownReport, TaskId,
};
use anyhow::{Context, bail};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::args::RunArgs;
use crate::cli::board::{Board, Style};
use crate::cli::senior::{Answers, CliSenior};
use crate::cli::{code, print_line, say};

/// Time that workers get to end after the run.
const SHUTDOWN: Duration = Duration::from_secs(8);
/// Events that a slow terminal may lag behind.
const EVENTS_KEPT: usize = 65_536;

pub(crate) fn main(args: RunArgs) -> anyhow::Result<i32> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let done = runtime.block_on(command(args));
    // A thread may still wait for the keyboard; it ends with the process.
    runtime.shutdown_background();
    done
}

async fn command(args: RunArgs) -> anyhow::Result<i32> {
    let input = match read_input(&args.input) {
        Ok(input) => input,
        Err(error) => return Ok(usage(&format!("{error:#}"))),
    };
    let answers = match Answers::parse(&args.answers) {
        Ok(answers) => Arc::new(answers),
        Err(error) => return Ok(usage(&format!("{error:#}"))),
    };
    let blueprint = match load_blueprint(&args.blueprint) {
        Ok(blueprint) => blueprint,
        Err(errors) => return Ok(usage(&format!("{}:\n{errors}", args.blueprint.display()))),
    };
    let engine = engine(&args);
    let program = match compile(&engine, &blueprint, &Functions::new()).await {
        Ok(program) => Arc::new(program),
        Err(errors) => return Ok(usage(&format!("{}:\n{errors}", args.blueprint.display()))),
    };
    for warning in program.warnings() {
        say(&format!("warning: {warning}"));
    }
    for step in answers.steps() {
        if !program.agent_names().contains(&step.as_str()) {
            return Ok(usage(&format!("--answer {step}=…: the blueprint has no step {step}")));
        }
    }
    let report = watched(&engine, program, input, answers, &args).await?;
    finish(&report, args.json)
}

fn usage(text: &str) -> i32 {
    say(&format!("adjutant: {text}"));
    code::USAGE
}

fn engine(args: &RunArgs) -> Engine {
    let mut cfg = EngineCfg {
        attempt_timeout: args.attempt_timeout.map(Duration::from_secs),
        ..EngineCfg::default()
    };
    cfg.limits.event_tail = EVENTS_KEPT;
    cfg.limits.broadcast_capacity = EVENTS_KEPT;
    Engine::new_with_layers(cfg, LayerRegistry::standard())
}

/// The initial context: an object, in place or in a file.
fn read_input(text: &str) -> anyhow::Result<Value> {
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

/// Runs the program while events are shown; at the end, all that were recorded have been.
async fn watched(
    engine: &Engine,
    program: Arc<Program>,
    input: Value,
    answers: Arc<Answers>,
    args: &RunArgs,
) -> anyhow::Result<RunReport> {
    let mut board = Board::new(Style::detect(args.quiet || args.json));
    let mut feed = engine.event_feed(0).await?;
    let cancel = CancellationToken::new();
    let options = RunOptions {
        operator_id: "adjutant-run".to_owned(),
        ttl: args.ttl.map(Duration::from_secs),
        senior: Some(Arc::new(CliSenior {
            engine: engine.unanchored(),
            answers,
            bars: board.bars(),
            turn: tokio::sync::Mutex::new(()),
        })),
        cancel: cancel.clone(),
        ..RunOptions::default()
    };
    let interrupts = tokio::spawn(interrupts(cancel));
    let mut running = std::pin::pin!(run(engine, program, input, options));
    let report = loop {
        tokio::select! {
            biased;
            delivery = feed.next() => show(engine, delivery, &mut board, args.json).await?,
            report = &mut running => break report?,
        }
    };
    let left = shut_down(engine, &mut feed, &mut board, args.json).await?;
    interrupts.abort();
    board.finish();
    if !left.interrupted.is_empty() || left.killed > 0 {
        say(&format!("adjutant: {left}"));
    }
    Ok(report)
}

/// Shuts the engine down and shows the events of that, to the last one.
async fn shut_down(
    engine: &Engine,
    feed: &mut EventFeed,
    board: &mut Board,
    json: bool,
) -> anyhow::Result<ShutdownReport> {
    let mut ending = std::pin::pin!(engine.shutdown(SHUTDOWN));
    let left = loop {
        tokio::select! {
            biased;
            delivery = feed.next() => show(engine, delivery, board, json).await?,
            left = &mut ending => break left,
        }
    };
    while let Some(delivery) = feed.try_next() {
        show(engine, Some(delivery), board, json).await?;
    }
    Ok(left)
}

/// The first Ctrl-C or TERM cancels the run, the second one ends the program.
async fn interrupts(cancel: CancellationToken) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    for first in [true, false] {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        if first {
            say("adjutant: interrupted; stopping (again to exit at once)");
            cancel.cancel();
        }
    }
    std::process::exit(code::INTERRUPTED)
}

/// Shows one event: as JSON on stdout, or on the board.
async fn show(
    engine: &Engine,
    delivery: Option<Delivery>,
    board: &mut Board,
    json: bool,
) -> anyhow::Result<()> {
    match delivery {
        Some(Delivery::Record(record)) if json => {
            print_line(&serde_json::to_string(&record)?)?;
        }
        Some(Delivery::Record(EventRecord { event, .. })) => {
            let agent = match &event {
                Event::TaskCreated { task_id } => agent_of(engine, *task_id).await,
                _ => None,
            };
            board.apply(&event, agent);
        }
        Some(Delivery::Missed { from, to }) => {
            say(&format!("adjutant: events {from} to {to} were missed"));
        }
        None => bail!("the engine's events ended before the run did"),
    }
    Ok(())
}

async fn agent_of(engine: &Engine, task: TaskId) -> Option<String> {
    let found = engine
        .with_state("progress", move |state| state.task(&task).map(|task| task.spec.agent))
        .await;
    found.ok().flatten()
}

/// Prints what came of the run and picks the exit code.
fn finish(report: &RunReport, json: bool) -> anyhow::Result<i32> {
    let (code, text) = match &report.outcome {
        RunOutcome::Pass => (code::PASS, None),
        RunOutcome::Blocked { step, value } => {
            (code::BLOCKED, Some(format!("step {step} was blocked: {value}")))
        }
        RunOutcome::Timeout { step: Some(step) } => {
            (code::TIMEOUT, Some(format!("step {step} ran out of time")))
        }
        RunOutcome::Timeout { step: None } => {
            (code::TIMEOUT, Some("the run ran out of time".to_owned()))
        }
        RunOutcome::Cancelled => (code::INTERRUPTED, Some("the run was cancelled".to_owned())),
        RunOutcome::Failed { reason } => (code::FAILED, Some(reason.clone())),
        _ => (code::FAILED, Some("the run came to an unknown end".to_owned())),
    };
    if json {
        print_line(&json!({ "kind": "run_finished", "report": report }).to_string())?;
    } else if code == code::PASS {
        print_line(&format!("{:#}", report.context))?;
    }
    if let Some(text) = text {
        say(&format!("adjutant: {text}"));
    }
    Ok(code)
}
