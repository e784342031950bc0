//! The process spawner: an attempt's worker is a child process.
//!
//! The child gets the prompt on stdin or as its last argument, and its credentials through a
//! pipe. Its stdout is the result, or a stream of events that are sent on as they come. Passing
//! needs both: a Final that says ok and exit code 0.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use adjutant_actors::launch::{Worker, WorkerError};
use adjutant_actors::model::ids::TaskId;
use adjutant_actors::model::output::{ContentRef, OutputEvent};
use adjutant_actors::model::token::CapToken;
use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::parse::StreamMode;
use super::run::{ChildFault, ChildReport, run_child, run_remembered};
use super::spec::{ChildCommand, ChildLimits, ChildSpec, Credentials};
use crate::ctx::{Ctx, WORKER_HANDLE};
use crate::engine::Engine;
use crate::middleware::DATA_SINK_ENDPOINT;
use crate::spawner::task_worker::TaskWorker;
use crate::spawner::{EngineSink, OutputSink, SpawnError, SpawnerAdapter};

/// Events that a child may be ahead of the engine.
const EVENTS_AHEAD: usize = 64;
/// How much of the end of stderr goes into a result or an error.
const STDERR_SHOWN: usize = 2_000;

/// Runs a program as the worker of each attempt.
///
/// ```
/// use adjutant::{ProcessSpawner, StreamMode};
/// let plain = ProcessSpawner::new("wc").arg("-w").args(["--total", "never"]);
/// let streaming = ProcessSpawner::run("my-agent --events").stream_mode(StreamMode::NdjsonLines);
/// ```
#[derive(Debug, Clone)]
pub struct ProcessSpawner {
    spec: ChildSpec,
    limits: ChildLimits,
    use_stdin: bool,
}

impl ProcessSpawner {
    /// A program by name or path, in plain mode.
    #[must_use]
    pub fn new(program: impl Into<OsString>) -> Self {
        Self::of(ChildCommand::program(program))
    }

    /// A line for `sh -c`, in plain mode. Its arguments are `$1` and so on.
    #[must_use]
    pub fn run(shell_line: impl Into<OsString>) -> Self {
        Self::of(ChildCommand::shell(shell_line))
    }

    fn of(command: ChildCommand) -> Self {
        Self { spec: ChildSpec::new(command), limits: ChildLimits::default(), use_stdin: true }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.spec.command.push_arg(arg);
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<I>(mut self, args: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<OsString>,
    {
        for arg in args {
            self.spec.command.push_arg(arg);
        }
        self
    }

    /// Whether the prompt is written to stdin, which is then closed (the default), or is the last
    /// argument.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use adjutant::{DispatchOutcome, ProcessSpawner, SpawnerAdapter};
    /// use adjutant::spawner::process::ChildLimits;
    /// use std::{sync::Arc, time::Duration};
    /// # let engine = adjutant::Engine::new(adjutant::EngineCfg::default());
    /// # let minute = std::time::Duration::from_secs(60);
    /// # let operator = engine.attach("ann", adjutant::Role::Operator, minute).await?;
    /// # let task = engine.start_task(&operator, adjutant::TaskSpec::new("echo", "hello")).await?;
    /// let greet = ProcessSpawner::run(r#"printf '"%s, %s"' "$GREETING" "$1""#)
    ///     .use_stdin(false)
    ///     .plain()
    ///     .env("GREETING", "hi")
    ///     .inherit_env("MY_AGENT_*")
    ///     .cwd("/")
    ///     .limits(ChildLimits { grace: Duration::from_secs(1), ..ChildLimits::default() })
    ///     .max_stdout_bytes(1 << 20)
    ///     .time_limit(Duration::from_secs(60));
    /// let spawner: Arc<dyn SpawnerAdapter> = Arc::new(greet);
    /// let outcome = engine.dispatch_attempt_with(&operator, &task, &spawner).await?;
    /// assert_eq!(outcome, DispatchOutcome::Pass("hi, hello".into()));
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn use_stdin(mut self, use_stdin: bool) -> Self {
        self.use_stdin = use_stdin;
        self
    }

    /// Reads stdout as a stream of events.
    #[must_use]
    pub fn stream_mode(mut self, mode: StreamMode) -> Self {
        self.spec.mode = Some(mode);
        self
    }

    /// Takes the whole stdout as the result: JSON, or else `{raw, stderr}`.
    #[must_use]
    pub fn plain(mut self) -> Self {
        self.spec.mode = None;
        self
    }

    /// Sets a variable of the child's environment, which is otherwise cleared to an allow-list.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.spec.set_var(name, value);
        self
    }

    /// Lets the child inherit a variable; a star at the end stands for any rest of the name.
    #[must_use]
    pub fn inherit_env(mut self, name: impl Into<String>) -> Self {
        self.spec.inherit.push(name.into());
        self
    }

    /// Starts the child in this folder.
    #[must_use]
    pub fn cwd(mut self, folder: impl Into<PathBuf>) -> Self {
        self.spec.cwd = Some(folder.into());
        self
    }

    /// The most bytes of stdout in all; a child that writes more is stopped and blocked.
    #[must_use]
    pub fn max_stdout_bytes(mut self, bytes: u64) -> Self {
        self.limits.stdout_bytes = bytes;
        self
    }

    /// The longest that the child may run; a child that takes longer is stopped and blocked. The
    /// attempt's own time-out, which stands still while its task is suspended, is the better one.
    #[must_use]
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.limits.wall = Some(limit);
        self
    }

    /// Sets all limits.
    #[must_use]
    pub fn limits(mut self, limits: ChildLimits) -> Self {
        self.limits = limits;
        self
    }
}

#[async_trait]
impl SpawnerAdapter for ProcessSpawner {
    async fn spawn(
        &self,
        engine: &Engine,
        ctx: &Ctx,
        task_id: TaskId,
        attempt: u32,
        token: CapToken,
    ) -> Result<Box<dyn Worker>, SpawnError> {
        let prompt = engine
            .fetch_prompt(&token, &task_id)
            .await
            .map_err(|error| SpawnError::Internal(format!("pull the prompt: {error}")))?;
        let mut spec = self.spec.clone();
        spec.for_attempt(&task_id, attempt, &ctx.agent);
        if let Some(sink) = ctx.meta.runtime.get(DATA_SINK_ENDPOINT).and_then(Value::as_str) {
            spec.set_var("ADJUTANT_DATA_SINK", sink);
        }
        let handle = ctx.meta.runtime.get(WORKER_HANDLE).and_then(Value::as_str);
        spec.credentials =
            Some(Credentials::new(&token.encode(), handle.unwrap_or_default(), &task_id));
        let input = if self.use_stdin {
            Some(prompt.into_bytes())
        } else {
            spec.command.push_arg(prompt);
            None
        };
        let mut limits = self.limits.clone();
        // Half of the attempt's grace, so that the group is killed and reaped within it.
        limits.grace = limits.grace.min(engine.cfg().cancel_grace / 2);
        let cancel = CancellationToken::new();
        let sink = EngineSink { engine: engine.unanchored(), token, task_id, attempt };
        let job = Job { spec, limits, sink, cancel: cancel.clone() };
        Ok(TaskWorker::start(engine.mint().worker_id(), cancel, job.run(input)))
    }
}

/// One child with all it needs.
struct Job {
    spec: ChildSpec,
    limits: ChildLimits,
    sink: EngineSink,
    cancel: CancellationToken,
}

impl Job {
    /// Runs the child, sends its events on, and judges it by its Final and its exit.
    async fn run(self, input: Option<Vec<u8>>) -> Result<(), WorkerError> {
        let (events, taken) = mpsc::channel(EVENTS_AHEAD);
        let (spec, limits, cancel) = (&self.spec, &self.limits, self.cancel.clone());
        let child = async {
            if !self.sink.engine.is_durable() {
                return run_child(spec, input, limits, events, cancel).await;
            }
            let (engine, task, attempt) = (&self.sink.engine, self.sink.task_id, self.sink.attempt);
            let remember = |group| async move {
                let told = engine.remember_group(task, attempt, group).await;
                told.map_err(|error| error.to_string())
            };
            run_remembered(spec, input, limits, events, cancel, remember).await
        };
        let (report, sent) = tokio::join!(child, self.send_on(taken));
        sent?;
        let report = report.map_err(|error| WorkerError::Failed(error.to_string()))?;
        if let Some(fault) = report.fault {
            return Err(fault_error(fault, &report));
        }
        match self.verdict(&report) {
            Some(event) => self.emit(event).await,
            None => Ok(()),
        }
    }

    /// Sends events on in their order. Ends early where the engine takes no more, which ends the
    /// child as well.
    async fn send_on(&self, mut taken: mpsc::Receiver<OutputEvent>) -> Result<(), WorkerError> {
        while let Some(event) = taken.recv().await {
            self.emit(event).await?;
        }
        Ok(())
    }

    async fn emit(&self, event: OutputEvent) -> Result<(), WorkerError> {
        let failed = |error| WorkerError::Failed(format!("submit the child's output: {error}"));
        self.sink.emit(event).await.map_err(failed)
    }

    /// The Final that the child's end adds to what it sent, if it needs one.
    fn verdict(&self, report: &ChildReport) -> Option<OutputEvent> {
        let exit = report.status;
        let stderr = stderr_text(report);
        let (value, ok) = match (self.spec.mode, report.final_ok) {
            (None, _) => (plain_value(report, &stderr), exit.success()),
            (Some(_), Some(true)) if !exit.success() => {
                let note = format!("the child sent a passing final and then ended with {exit}");
                (json!({ "note": note, "exit_code": exit.code(), "stderr": stderr }), false)
            }
            (Some(_), Some(_)) => return None,
            (Some(_), None) => {
                let value = json!({
                    "raw": "",
                    "note": "the child sent no final event",
                    "exit_success": exit.success(),
                    "exit_code": exit.code(),
                    "skipped": report.skipped,
                    "stderr": stderr,
                });
                (value, false)
            }
        };
        Some(OutputEvent::Final { content: ContentRef::inline(value), ok })
    }
}

/// The whole stdout as JSON, or else as text beside the end of stderr.
fn plain_value(report: &ChildReport, stderr: &str) -> Value {
    let text = String::from_utf8_lossy(&report.stdout);
    serde_json::from_str(text.trim()).unwrap_or_else(|_| json!({ "raw": text, "stderr": stderr }))
}

fn stderr_text(report: &ChildReport) -> String {
    let tail = &report.stderr_tail;
    let start = tail.len().saturating_sub(STDERR_SHOWN);
    String::from_utf8_lossy(tail.get(start..).unwrap_or_default()).trim().to_owned()
}

fn fault_error(fault: ChildFault, report: &ChildReport) -> WorkerError {
    if fault == ChildFault::Cancelled {
        return WorkerError::Cancelled;
    }
    let stderr = stderr_text(report);
    let said = if stderr.is_empty() { String::new() } else { format!("; stderr: {stderr}") };
    WorkerError::Failed(format!("the child was stopped: {fault}{said}"))
}
