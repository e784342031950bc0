//! One child from its start to its report: the pumps run all the while, the child is ended by
//! its own exit, by a limit or by whoever cancels. It decides nothing about a task.
//! Dropping the call at any point kills the group.

use std::ffi::OsString;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::process::ExitStatus;
use std::time::Duration;

use adjutant_actors::model::group::ProcessGroup;
use adjutant_actors::model::output::OutputEvent;
use futures::future::{MaybeDone, join3, maybe_done};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::child::{ChildGroup, ChildPipes};
use super::parse::StreamFault;
use super::pump::{Output, Signals, Tail, feed};
use super::spec::{ChildLimits, ChildSpec};

/// Why a child could not be started or its end not be learned.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use adjutant::spawner::process::{ChildCommand, ChildError, ChildGroup, ChildSpec};
///
/// let spec = ChildSpec::new(ChildCommand::program("/no/such/program"));
/// match ChildGroup::spawn(&spec) {
///     Err(ChildError::Spawn { program, .. }) => assert_eq!(program, "/no/such/program"),
///     other => panic!("{:?}", other.map(|_| "it runs")),
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChildError {
    /// The program cannot be executed.
    #[error("cannot start {}: {source}", program.display())]
    Spawn {
        /// What was to be executed.
        program: OsString,
        /// What stood in the way.
        source: io::Error,
    },
    /// No pipe for the credentials.
    #[error("cannot hand the credentials over: {0}")]
    Credentials(#[source] io::Error),
    /// The credentials do not fit into a pipe.
    #[error("the credentials are longer than a pipe takes")]
    CredentialsTooLong,
    /// Whoever is to remember the child did not, so it was killed before it ran on.
    #[error("the child's group cannot be remembered: {0}")]
    Forgotten(String),
    /// The system does not tell how the child ended.
    #[error("cannot wait for the child: {0}")]
    Wait(#[source] io::Error),
    /// The child was killed and does not die.
    #[error("the child was killed and does not die")]
    NotReaped,
}

/// Why a child was ended, or its output not read to the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChildFault {
    /// Whoever holds the token asked for it.
    #[error("cancelled")]
    Cancelled,
    /// It took too long.
    #[error("not done within {} ms", limit.as_millis())]
    TimedOut {
        /// The longest it may take.
        limit: Duration,
    },
    /// It wrote too much.
    #[error("more than {limit} bytes of output")]
    StdoutTooLong {
        /// The most bytes of stdout.
        limit: u64,
    },
    /// Its stream cannot be read on.
    #[error(transparent)]
    Stream(StreamFault),
    /// Nobody takes its events any more.
    #[error("the events are no longer taken")]
    SinkClosed,
}

/// How a child ended and what it left.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use adjutant::spawner::process::{ChildCommand, ChildFault, ChildLimits, ChildSpec, run_child};
/// use std::time::Duration;
///
/// let mut command = ChildCommand::program("sleep");
/// command.push_arg("1000");
/// let spec = ChildSpec::new(command);
/// let (events, _taken) = tokio::sync::mpsc::channel(1);
/// let wall = Duration::from_millis(20);
/// let limits = ChildLimits { wall: Some(wall), ..ChildLimits::default() };
/// let report = run_child(&spec, None, &limits, events, Default::default()).await?;
/// assert_eq!(report.fault, Some(ChildFault::TimedOut { limit: wall }));
/// assert!(!report.ended_well() && !report.truncated());
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct ChildReport {
    /// How the child itself ended.
    pub status: ExitStatus,
    /// All of stdout in plain mode, up to the limit; empty in a stream mode.
    pub stdout: Vec<u8>,
    /// The end of stderr.
    pub stderr_tail: Vec<u8>,
    /// Lines or frames that were no event.
    pub skipped: u64,
    /// Why it was ended before its time; `None` if it went to its end by itself.
    pub fault: Option<ChildFault>,
    /// What the last final event said, if one was taken.
    pub final_ok: Option<bool>,
}

impl ChildReport {
    /// Whether the child went to its end by itself, with exit code 0, and did not call its
    /// result a failure. A stream without a final event is for the caller to judge.
    #[must_use]
    pub fn ended_well(&self) -> bool {
        self.fault.is_none() && self.status.success() && self.final_ok != Some(false)
    }

    /// Whether bytes of stdout were left unread for a limit's sake.
    #[must_use]
    pub fn truncated(&self) -> bool {
        matches!(self.fault, Some(ChildFault::StdoutTooLong { .. } | ChildFault::Stream(_)))
    }
}

/// Shows lengths in place of what the child wrote.
impl fmt::Debug for ChildReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChildReport")
            .field("status", &self.status)
            .field("stdout", &self.stdout.len())
            .field("stderr_tail", &self.stderr_tail.len())
            .field("skipped", &self.skipped)
            .field("fault", &self.fault)
            .field("final_ok", &self.final_ok)
            .finish()
    }
}

/// Starts a child, gives it `input`, hands its events to `events` as they come, and reports its
/// end. Whatever ends it, its whole group is gone when this returns. A full channel holds the
/// child up; memory stays within the limits plus what the channel holds.
///
/// Dropping this future kills the group.
///
/// # Errors
/// The child could not be started or waited for. A limit is no error but a fault in the report.
///
/// ```
/// use adjutant::spawner::process::{ChildCommand, ChildLimits, ChildSpec, run_child};
/// use tokio_util::sync::CancellationToken;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let spec = ChildSpec::new(ChildCommand::shell("tr a-z A-Z"));
/// let (events, _taken) = tokio::sync::mpsc::channel(16);
/// let cancel = CancellationToken::new();
/// let prompt = Some(b"hello".to_vec());
/// let report = run_child(&spec, prompt, &ChildLimits::default(), events, cancel).await?;
/// assert_eq!(report.stdout, b"HELLO");
/// # Ok(())
/// # }
/// ```
pub async fn run_child(
    spec: &ChildSpec,
    input: Option<Vec<u8>>,
    limits: &ChildLimits,
    events: mpsc::Sender<OutputEvent>,
    cancel: CancellationToken,
) -> Result<ChildReport, ChildError> {
    let (child, _) = started(spec, |_| None).await?;
    run_spawned(child, spec, input, limits, events, cancel).await
}

/// As [`run_child`], but the child runs on only when `remember` was told of its group.
pub(super) async fn run_remembered<F: Future<Output = Result<(), String>>>(
    spec: &ChildSpec,
    input: Option<Vec<u8>>,
    limits: &ChildLimits,
    events: mpsc::Sender<OutputEvent>,
    cancel: CancellationToken,
    remember: impl FnOnce(ProcessGroup) -> F,
) -> Result<ChildReport, ChildError> {
    let (child, held) = started(spec, ChildGroup::hold).await?;
    if let Some(group) = held {
        remember(group).await.map_err(ChildError::Forgotten)?;
        child.0.go_on();
    }
    run_spawned(child, spec, input, limits, events, cancel).await
}

type Child = (ChildGroup, ChildPipes);

/// Starts a child and does `then` at once, away from the runtime's workers: handing credentials
/// over takes a fork, which copies the page tables of this process, however many they are.
async fn started(
    spec: &ChildSpec,
    then: fn(&ChildGroup) -> Option<ProcessGroup>,
) -> Result<(Child, Option<ProcessGroup>), ChildError> {
    let own = spec.clone();
    // Where nobody waits any more, the child is dropped on that thread, which kills its group.
    let start = spawn_blocking(move || {
        let child = ChildGroup::spawn(&own)?;
        let done = then(&child.0);
        Ok((child, done))
    });
    start.await.unwrap_or_else(|error| {
        let program = spec.command.executable();
        Err(ChildError::Spawn { program, source: io::Error::other(error) })
    })
}

async fn run_spawned(
    (mut group, pipes): Child,
    spec: &ChildSpec,
    input: Option<Vec<u8>>,
    limits: &ChildLimits,
    events: mpsc::Sender<OutputEvent>,
    cancel: CancellationToken,
) -> Result<ChildReport, ChildError> {
    let stop = Stop::new(cancel, limits.wall);
    let signals = Signals::new(limits.linger);
    let mut output = Output::new(spec, limits, events);
    let mut tail = Tail::new(limits.stderr_tail);
    // On the heap, because the buffers of three pumps would make every caller's future large.
    let pumps = Box::pin(maybe_done(join3(
        feed(pipes.stdin, input, &signals),
        output.pump(pipes.stdout, &signals),
        tail.pump(pipes.stderr, &signals),
    )));
    let (status, stopped) = supervise(&mut group, pumps, &signals, &stop, limits.grace).await?;
    Ok(ChildReport {
        status,
        skipped: output.skipped(),
        fault: stopped.or(output.fault),
        final_ok: output.final_ok,
        stdout: output.plain,
        stderr_tail: tail.into_bytes(),
    })
}

/// Brings the child to its end, its own or an early one, with the pumps running alongside.
async fn supervise<P: Future>(
    group: &mut ChildGroup,
    mut pumps: Pin<Box<MaybeDone<P>>>,
    signals: &Signals,
    stop: &Stop,
    grace: Duration,
) -> Result<(ExitStatus, Option<ChildFault>), ChildError> {
    let (by_itself, mut stopped) = alongside(pumps.as_mut(), async {
        tokio::select! {
            biased;
            fault = stop.reason() => (false, Some(fault)),
            () = signals.halt.cancelled() => (false, None),
            _ = group.exited() => (true, None),
        }
    })
    .await;
    if !by_itself {
        alongside(pumps.as_mut(), group.terminate(grace)).await;
    }
    let status = alongside(pumps.as_mut(), group.finish()).await?;
    signals.exited.cancel();
    if by_itself {
        // What is still in the pipes counts, at the pace of whoever takes the events.
        stopped = tokio::select! {
            biased;
            fault = stop.reason() => Some(fault),
            () = pumps.as_mut() => None,
        };
    }
    Ok((status, stopped))
}

/// Runs `main` to its end and gives `side` a turn at each wake. What `side` gave is kept in it.
async fn alongside<S: Future, M: Future>(mut side: Pin<&mut MaybeDone<S>>, main: M) -> M::Output {
    let mut main = std::pin::pin!(main);
    poll_fn(|cx| {
        let _ = side.as_mut().poll(cx);
        main.as_mut().poll(cx)
    })
    .await
}

/// What ends a child from outside.
struct Stop {
    cancel: CancellationToken,
    /// None without a limit, and for limits past the end of the clock.
    deadline: Option<(Instant, Duration)>,
}

impl Stop {
    fn new(cancel: CancellationToken, wall: Option<Duration>) -> Self {
        let deadline = wall.and_then(|limit| Some((Instant::now().checked_add(limit)?, limit)));
        Self { cancel, deadline }
    }

    async fn reason(&self) -> ChildFault {
        let late = async {
            match self.deadline {
                None => std::future::pending().await,
                Some((deadline, limit)) => {
                    sleep_until(deadline).await;
                    ChildFault::TimedOut { limit }
                }
            }
        };
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => ChildFault::Cancelled,
            fault = late => fault,
        }
    }
}
