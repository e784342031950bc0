//! Carries a run out: the engine on its store, the events shown, signals, and what came of it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use adjutant::blueprint::{Program, RunOptions, RunOutcome, RunReport};
use adjutant::store::SqliteStore;
use adjutant::{
    CancellationToken, Delivery, Engine, EngineCfg, EngineError, Event, EventFeed, EventRecord,
    HoldPolicy, LayerRegistry, RunId, ShutdownReport, TaskId,
};
use anyhow::bail;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::args::HowArgs;
use crate::cli::board::{Board, Style};
use crate::cli::run::resume_line;
use crate::cli::senior::{Answers, CliSenior};
use crate::cli::{code, print_line, say, usage};

/// Time that workers get to end after the run.
pub(crate) const SHUTDOWN: Duration = Duration::from_secs(8);
/// How often a store is swept: short runs must get to it too, or their stores grow for ever.
const SWEEP: Duration = Duration::from_millis(100);
/// Events that a slow terminal may lag behind.
const EVENTS_KEPT: usize = 65_536;

/// Runs a command on a runtime of its own.
pub(crate) fn block_on(command: impl Future<Output = anyhow::Result<i32>>) -> anyhow::Result<i32> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let done = runtime.block_on(command);
    // A thread may still wait for the keyboard; it ends with the process.
    runtime.shutdown_background();
    done
}

/// An engine that is about to carry a run out.
pub(crate) struct Drive {
    pub(crate) engine: Engine,
    /// The folder of its store, if it has one.
    pub(crate) store: Option<PathBuf>,
    pub(crate) how: HowArgs,
    pub(crate) answers: Arc<Answers>,
}

impl Drive {
    pub(crate) async fn open(
        store: Option<SqliteStore>,
        how: HowArgs,
        answers: Answers,
    ) -> anyhow::Result<Self> {
        let mut cfg = EngineCfg {
            attempt_timeout: how.attempt_timeout.map(Duration::from_secs),
            // A program that a loaded machine halts for a moment goes on.
            hold_policy: HoldPolicy::Warn,
            ..EngineCfg::default()
        };
        cfg.retention.sweep_interval = SWEEP;
        cfg.limits.event_tail = EVENTS_KEPT;
        cfg.limits.broadcast_capacity = EVENTS_KEPT;
        let (layers, answers) = (LayerRegistry::standard(), Arc::new(answers));
        let Some(store) = store else {
            let engine = Engine::new_with_layers(cfg, layers);
            return Ok(Self { engine, store: None, how, answers });
        };
        let path = store.path().to_owned();
        cfg.token_secret = store.secret().to_vec();
        let engine = Engine::open(cfg, layers, Arc::new(store)).await?;
        for row in &engine.recovery().set_aside {
            say(&format!("adjutant: {} {}: {}", row.table, row.key, row.why));
        }
        Ok(Self { engine, store: Some(path), how, answers })
    }

    /// A step that an answer was given for and that the program does not have.
    pub(crate) fn unknown_answer(&self, program: &Program) -> Option<String> {
        let names = program.agent_names();
        self.answers.steps().into_iter().find(|step| !names.contains(&step.as_str()))
    }

    pub(crate) fn resume_line(&self, id: RunId) -> String {
        resume_line(id, self.store.as_deref())
    }

    /// Carries out what `begin` begins while events are shown; at the end, all that were recorded
    /// have been.
    pub(crate) async fn run<F>(
        &self,
        id: Option<RunId>,
        begin: impl FnOnce(RunOptions) -> F,
    ) -> anyhow::Result<i32>
    where
        F: Future<Output = Result<RunReport, EngineError>>,
    {
        let (engine, json) = (&self.engine, self.how.json);
        let mut board = Board::new(Style::detect(self.how.quiet || json));
        let mut feed = engine.event_feed(self.last_event().await?).await?;
        let (cancel, leave) = (CancellationToken::new(), CancellationToken::new());
        let options = self.options(id, &board, &cancel, &leave);
        let interrupts = tokio::spawn(interrupts(cancel, id.map(|_| leave)));
        let mut running = std::pin::pin!(begin(options));
        let report = loop {
            tokio::select! {
                biased;
                delivery = feed.next(), if engine.journal_failure().is_none() => {
                    show(engine, delivery, &mut board, json).await?;
                }
                report = &mut running => break report,
            }
        };
        let left = shut_down(engine, &mut feed, &mut board, json).await?;
        interrupts.abort();
        board.finish();
        if let Some(error) = engine.journal_failure() {
            bail!("{error}");
        }
        match report {
            Ok(report) => {
                let is_left = report.outcome == RunOutcome::Left;
                if !is_left && (!left.interrupted.is_empty() || left.killed > 0) {
                    say(&format!("adjutant: {left}"));
                }
                self.finish(id, &report)
            }
            Err(EngineError::RunChanged { run, differences }) => {
                let all = differences.join("\n  ");
                Ok(usage(&format!(
                    "run {run} was started with something else (--recorded goes on with the blueprint \
                     as it was):\n  {all}"
                )))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn options(
        &self,
        id: Option<RunId>,
        board: &Board,
        cancel: &CancellationToken,
        leave: &CancellationToken,
    ) -> RunOptions {
        RunOptions {
            operator_id: "adjutant-run".to_owned(),
            ttl: self.how.ttl.map(Duration::from_secs),
            senior: Some(Arc::new(CliSenior {
                engine: self.engine.unanchored(),
                answers: self.answers.clone(),
                bars: board.bars(),
                turn: tokio::sync::Mutex::new(()),
                leave: id.map(|_| leave.clone()),
            })),
            cancel: cancel.clone(),
            leave: leave.clone(),
            id,
            ..RunOptions::default()
        }
    }

    /// The number of the newest event: those of earlier runs are not shown.
    async fn last_event(&self) -> anyhow::Result<u64> {
        Ok(self.engine.with_state("progress", |state| state.last_seq()).await?)
    }

    /// Prints what came of the run and picks the exit code.
    fn finish(&self, id: Option<RunId>, report: &RunReport) -> anyhow::Result<i32> {
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
            RunOutcome::Left => {
                let go_on = id.map(|id| self.resume_line(id)).unwrap_or_default();
                (code::LEFT, Some(format!("the run is open; go on with `{go_on}`")))
            }
            RunOutcome::Failed { reason } => (code::FAILED, Some(reason.clone())),
            _ => (code::FAILED, Some("the run came to an unknown end".to_owned())),
        };
        if self.how.json {
            let done = json!({ "kind": "run_finished", "run": id, "report": report });
            print_line(&done.to_string())?;
        } else if code == code::PASS {
            print_line(&format!("{:#}", report.context))?;
        }
        if let Some(text) = text {
            say(&format!("adjutant: {text}"));
        }
        Ok(code)
    }
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

/// The first Ctrl-C cancels the run, and so does TERM, which leaves a kept run open instead; the
/// second one ends the program.
async fn interrupts(
    cancel: CancellationToken,
    leave: Option<CancellationToken>,
) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    for first in [true, false] {
        let stop = tokio::select! {
            _ = interrupt.recv() => &cancel,
            _ = terminate.recv() => leave.as_ref().unwrap_or(&cancel),
        };
        if first {
            say("adjutant: interrupted; stopping (again to exit at once)");
            stop.cancel();
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
