//! The attempt: runs launch and join in a child task, hears stop and time-out, reports the verdict.
//!
//! Spawned by the turn that begins the attempt, under the root; never restarted. Every way out
//! goes through the turn `finish_attempt`, whose fence lets the first one decide; even when this
//! actor is killed, the drop of its state asks for that turn. So no way leaves a task running.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use std::panic::AssertUnwindSafe;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::launch::{Launch, WorkerError, panic_text};
use crate::messages::AttemptMsg;
use crate::model::ids::TaskId;
use crate::state::attempts::{AttemptEnd, Verdict};
use crate::system::Core;

/// Wait before a launch that panicked is tried again; doubled each time.
const RELAUNCH_BACKOFF: Duration = Duration::from_millis(20);

pub(crate) struct Attempt;

pub(crate) struct Arguments {
    pub(crate) core: Arc<Core>,
    pub(crate) task: TaskId,
    pub(crate) attempt: u32,
    pub(crate) launch: Arc<dyn Launch>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) verdict: oneshot::Sender<Verdict>,
    pub(crate) alive: TaskTrackerToken,
}

pub(crate) struct Run {
    core: Arc<Core>,
    task: TaskId,
    attempt: u32,
    verdict: Option<oneshot::Sender<Verdict>>,
    work: JoinHandle<()>,
    worker: Option<CancellationToken>,
    clock: AttemptClock,
    /// The attempt is over in the state and its worker was asked to stop; this is its verdict.
    stopping: Option<Verdict>,
    grace: Option<JoinHandle<()>>,
    decided: bool,
    /// A shutdown waits until this is dropped.
    _alive: TaskTrackerToken,
}

/// What is left of an attempt's time. Stands still while its task is suspended.
struct AttemptClock {
    left: Option<Duration>,
    since: Option<Instant>,
    timer: Option<JoinHandle<()>>,
    number: u64,
}

impl Actor for Attempt {
    type Msg = AttemptMsg;
    type State = Run;
    type Arguments = Arguments;

    async fn pre_start(
        &self,
        myself: ActorRef<AttemptMsg>,
        args: Arguments,
    ) -> Result<Run, ActorProcessingErr> {
        let Arguments { core, task, attempt, launch, timeout, verdict, alive } = args;
        let work = tokio::spawn(work(core.clone(), task, attempt, launch, myself.clone()));
        let mut clock = AttemptClock { left: timeout, since: None, timer: None, number: 0 };
        clock.run(&myself);
        Ok(Run {
            core,
            task,
            attempt,
            verdict: Some(verdict),
            work,
            worker: None,
            clock,
            stopping: None,
            grace: None,
            decided: false,
            _alive: alive,
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<AttemptMsg>,
        message: AttemptMsg,
        run: &mut Run,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            AttemptMsg::Launched(token) => run.launched(token),
            AttemptMsg::Ended(end) => run.ended(end, &myself),
            AttemptMsg::Stop(verdict) => run.stop(verdict, &myself),
            AttemptMsg::Clock(true) => run.clock.run(&myself),
            AttemptMsg::Clock(false) => run.clock.stand(),
            AttemptMsg::TimedOut(number) => run.timed_out(number, &myself),
            AttemptMsg::TimeDecided(Some(verdict)) => run.stop(verdict, &myself),
            AttemptMsg::TimeDecided(None) => {}
            AttemptMsg::GraceOver => run.grace_over(&myself),
            AttemptMsg::Decided => run.close(&myself),
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _myself: ActorRef<AttemptMsg>,
        _event: SupervisionEvent,
        _run: &mut Run,
    ) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
}

impl AttemptClock {
    fn run(&mut self, myself: &ActorRef<AttemptMsg>) {
        let Some(left) = self.left else { return };
        if self.since.is_some() {
            return;
        }
        self.number += 1;
        self.since = Some(Instant::now());
        let (number, myself) = (self.number, myself.clone());
        self.timer = Some(tokio::spawn(async move {
            tokio::time::sleep(left).await;
            let _ = myself.cast(AttemptMsg::TimedOut(number));
        }));
    }

    fn stand(&mut self) {
        if let Some(timer) = self.timer.take() {
            timer.abort();
        }
        if let (Some(left), Some(since)) = (self.left.as_mut(), self.since.take()) {
            *left = left.saturating_sub(since.elapsed());
        }
    }
}

impl Run {
    fn launched(&mut self, token: CancellationToken) {
        if self.stopping.is_some() {
            token.cancel();
        }
        self.worker = Some(token);
    }

    /// The worker ended by itself or because it was asked to.
    fn ended(&mut self, end: AttemptEnd, myself: &ActorRef<AttemptMsg>) {
        if self.stopping.is_some() {
            self.close(myself);
            return;
        }
        if self.decided {
            return;
        }
        self.clock.stand();
        self.decided = true;
        let Some(reply) = self.verdict.take() else { return };
        let (task, attempt) = (self.task, self.attempt);
        let core = self.core.clone();
        let myself = myself.clone();
        let done = move |verdict: Option<Verdict>| {
            let _ = reply.send(verdict.unwrap_or(Verdict::Cancelled));
            let _ = myself.cast(AttemptMsg::Decided);
        };
        core.finish_attempt(task, attempt, end, done);
    }

    fn timed_out(&mut self, number: u64, myself: &ActorRef<AttemptMsg>) {
        if number != self.clock.number || self.decided || self.stopping.is_some() {
            return;
        }
        let myself = myself.clone();
        let done = move |verdict| {
            let _ = myself.cast(AttemptMsg::TimeDecided(verdict));
        };
        self.core.finish_attempt(self.task, self.attempt, AttemptEnd::TimedOut, done);
    }

    /// The attempt is over in the state: ask the worker to stop, and stop it after the grace.
    fn stop(&mut self, verdict: Verdict, myself: &ActorRef<AttemptMsg>) {
        if self.stopping.is_some() || self.decided {
            return;
        }
        self.clock.stand();
        self.decided = true;
        self.stopping = Some(verdict);
        if let Some(worker) = &self.worker {
            worker.cancel();
        }
        if self.work.is_finished() {
            self.close(myself);
            return;
        }
        let (grace, myself) = (self.core.cfg.cancel_grace, myself.clone());
        self.grace = Some(tokio::spawn(async move {
            tokio::time::sleep(grace).await;
            let _ = myself.cast(AttemptMsg::GraceOver);
        }));
    }

    fn grace_over(&mut self, myself: &ActorRef<AttemptMsg>) {
        let (task, attempt) = (self.task, self.attempt);
        tracing::warn!(%task, attempt, "the worker ignored its cancel token and is stopped by force");
        self.core.count_forced_stop();
        self.close(myself);
    }

    /// Reports the verdict if that is still owed, and ends the actor.
    fn close(&mut self, myself: &ActorRef<AttemptMsg>) {
        self.work.abort();
        if let Some(reply) = self.verdict.take() {
            let _ = reply.send(self.stopping.take().unwrap_or(Verdict::Cancelled));
        }
        myself.stop(None);
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.clock.stand();
        self.work.abort();
        if let Some(grace) = self.grace.take() {
            grace.abort();
        }
        if let Some(verdict) = self.stopping.take()
            && let Some(reply) = self.verdict.take()
        {
            let _ = reply.send(verdict);
        }
        if self.decided {
            return;
        }
        let end = AttemptEnd::Interrupted("the attempt's supervisor died".to_owned());
        let reply = self.verdict.take();
        self.core.finish_attempt(self.task, self.attempt, end, move |verdict| {
            if let (Some(reply), Some(verdict)) = (reply, verdict) {
                let _ = reply.send(verdict);
            }
        });
    }
}

/// Launches the worker, again after a panic where that is allowed, and waits for its end.
async fn work(
    core: Arc<Core>,
    task: TaskId,
    attempt: u32,
    launch: Arc<dyn Launch>,
    supervisor: ActorRef<AttemptMsg>,
) {
    let mut restarts = launch.restarts();
    let mut backoff = RELAUNCH_BACKOFF;
    let end = loop {
        let panic = match AssertUnwindSafe(launch.launch()).catch_unwind().await {
            Ok(Ok(worker)) => {
                let _ = supervisor.cast(AttemptMsg::Launched(worker.cancel_token()));
                match AssertUnwindSafe(worker.join()).catch_unwind().await {
                    Ok(Ok(())) => break AttemptEnd::Done,
                    Ok(Err(WorkerError::Cancelled)) => {
                        break AttemptEnd::Failed("the worker was cancelled".to_owned());
                    }
                    Ok(Err(WorkerError::Failed(reason))) => break AttemptEnd::Failed(reason),
                    Err(panic) => panic,
                }
            }
            Ok(Err(reason)) => break AttemptEnd::Failed(reason),
            Err(panic) => panic,
        };
        let reason = panic_text(&*panic);
        let silent = core.is_silent(task, attempt).await;
        if restarts == 0 || !silent {
            break AttemptEnd::Failed(format!("the worker panicked: {reason}"));
        }
        tracing::warn!(%task, attempt, reason, "the worker panicked and is launched again");
        restarts -= 1;
        core.count_restart();
        tokio::time::sleep(backoff).await;
        backoff = backoff.saturating_mul(2);
    };
    let _ = supervisor.cast(AttemptMsg::Ended(end));
}
