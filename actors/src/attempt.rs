//! The attempt: runs launch and join in a child task, hears stop and time-out, reports the verdict.
//!
//! It lies in the slot of its actor (`desk`). Every way out goes through the turn `finish_attempt`,
//! whose fence lets the first one decide; even the drop of an undecided attempt asks for that turn.
//! So no way leaves a task running.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use ractor::ActorRef;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::Instrument;

use crate::desk::{Rest, Resting};
use crate::launch::{Launch, WorkerError, panic_text};
use crate::mail::Letter;
use crate::messages::AttemptMsg;
use crate::model::ids::TaskId;
use crate::outgoing::Outgoing;
use crate::state::attempts::{AttemptEnd, Verdict};
use crate::system::Core;

/// Wait before a launch that panicked is tried again; doubled each time.
const RELAUNCH_BACKOFF: Duration = Duration::from_millis(20);

/// Where an attempt's verdict is awaited.
pub(crate) type Answer = oneshot::Sender<(Verdict, Resting)>;

/// An attempt in flight. Dropping it before it was decided interrupts the attempt.
pub(crate) struct Run {
    core: Arc<Core>,
    task: TaskId,
    attempt: u32,
    launch: Option<Arc<dyn Launch>>,
    seat: Arc<Seat>,
    work: Option<JoinHandle<()>>,
    clock: AttemptClock,
    /// The attempt is over in the state and its worker was asked to stop; this is its verdict.
    stopping: Option<Verdict>,
    grace: Option<JoinHandle<()>>,
    decided: bool,
    /// Tells this attempt's messages from those of earlier ones of the same actor.
    number: u64,
    /// A shutdown waits until this is dropped.
    _alive: TaskTrackerToken,
}

/// What an attempt's actor and its work share: where to send the verdict, and the worker.
struct Seat {
    verdict: Mutex<Option<Answer>>,
    worker: Mutex<(Option<CancellationToken>, bool)>,
}

impl Seat {
    fn take_verdict(&self) -> Option<Answer> {
        self.verdict.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// A worker runs; if the attempt is over already, it is asked to stop.
    fn launched(&self, token: CancellationToken) {
        let mut worker = self.worker.lock().unwrap_or_else(PoisonError::into_inner);
        if worker.1 {
            token.cancel();
        }
        worker.0 = Some(token);
    }

    /// Asks the worker to stop, at once or as soon as there is one.
    fn stop(&self) {
        let mut worker = self.worker.lock().unwrap_or_else(PoisonError::into_inner);
        worker.1 = true;
        if let Some(token) = &worker.0 {
            token.cancel();
        }
    }
}

/// What is left of an attempt's time. Stands still while its task is suspended.
struct AttemptClock {
    left: Option<Duration>,
    since: Option<Instant>,
    timer: Option<JoinHandle<()>>,
    setting: u64,
}

/// Whether an attempt is over for its actor.
pub(crate) enum Over {
    Yes,
    No,
}

impl AttemptClock {
    fn stand(&mut self) -> Over {
        if let Some(timer) = self.timer.take() {
            timer.abort();
        }
        if let (Some(left), Some(since)) = (self.left.as_mut(), self.since.take()) {
            *left = left.saturating_sub(since.elapsed());
        }
        Over::No
    }
}

impl Run {
    /// An attempt that is about to begin. The receiver gets its verdict.
    pub(crate) fn new(
        core: Arc<Core>,
        (task, attempt): (TaskId, u32),
        launch: Arc<dyn Launch>,
        timeout: Option<Duration>,
        verdict: Answer,
    ) -> Self {
        let alive = core.attempts.token();
        let seat = Seat { verdict: Mutex::new(Some(verdict)), worker: Mutex::default() };
        Self {
            core,
            task,
            attempt,
            launch: Some(launch),
            seat: Arc::new(seat),
            work: None,
            clock: AttemptClock { left: timeout, since: None, timer: None, setting: 0 },
            stopping: None,
            grace: None,
            decided: false,
            number: 0,
            _alive: alive,
        }
    }

    pub(crate) fn begin(&mut self, number: u64, rest: Rest, myself: &ActorRef<Letter<AttemptMsg>>) {
        self.number = number;
        let Some(launch) = self.launch.take() else { return };
        let work = Work {
            core: self.core.clone(),
            task: self.task,
            attempt: self.attempt,
            seat: self.seat.clone(),
            rest,
        };
        let span = launch.span();
        self.work = Some(if span.is_disabled() {
            tokio::spawn(work.run(launch))
        } else {
            tokio::spawn(work.run(launch).instrument(span))
        });
        self.run_clock(myself);
    }

    pub(crate) fn is(&self, number: u64) -> bool {
        self.number == number
    }

    /// A message about this attempt; one about an earlier attempt changes nothing.
    pub(crate) fn hear(
        &mut self,
        message: AttemptMsg,
        myself: &ActorRef<Letter<AttemptMsg>>,
    ) -> Over {
        let number = self.number;
        match message {
            AttemptMsg::Stop(verdict) => self.stop(verdict, myself),
            AttemptMsg::Clock(true) => self.run_clock(myself),
            AttemptMsg::Clock(false) => self.clock.stand(),
            AttemptMsg::TimedOut(of, setting) if of == number => self.timed_out(setting, myself),
            AttemptMsg::TimeDecided(of, verdict) if of == number => self.stop(verdict, myself),
            AttemptMsg::GraceOver(of) if of == number => self.grace_over(),
            AttemptMsg::Finished(of, verdict) if of == number => self.finished(verdict),
            _ => Over::No,
        }
    }

    /// Its verdict was given: nothing is owed any more.
    pub(crate) fn put_away(&mut self) {
        self.decided = true;
    }

    fn run_clock(&mut self, myself: &ActorRef<Letter<AttemptMsg>>) -> Over {
        let Some(left) = self.clock.left else { return Over::No };
        if self.clock.since.is_some() || self.decided {
            return Over::No;
        }
        self.clock.setting += 1;
        self.clock.since = Some(Instant::now());
        let (number, setting, myself) = (self.number, self.clock.setting, myself.clone());
        let mail = self.core.mail.clone();
        self.clock.timer = Some(tokio::spawn(async move {
            tokio::time::sleep(left).await;
            let _ = myself.cast(mail.letter(AttemptMsg::TimedOut(number, setting)));
        }));
        Over::No
    }

    fn timed_out(&mut self, setting: u64, myself: &ActorRef<Letter<AttemptMsg>>) -> Over {
        if setting != self.clock.setting || self.decided {
            return Over::No;
        }
        let (number, myself) = (self.number, myself.clone());
        let told = move |verdict, out: &mut Vec<Outgoing>| {
            if let Some(verdict) = verdict {
                let decided = AttemptMsg::TimeDecided(number, verdict);
                out.push(Outgoing::ToAttempt(myself, decided));
            }
        };
        self.core.finish_attempt(self.task, self.attempt, AttemptEnd::TimedOut, told);
        Over::No
    }

    /// The attempt is over in the state: ask the worker to stop, and stop it after the grace.
    fn stop(&mut self, verdict: Verdict, myself: &ActorRef<Letter<AttemptMsg>>) -> Over {
        if self.decided {
            return Over::No;
        }
        self.clock.stand();
        self.decided = true;
        self.stopping = Some(verdict);
        self.seat.stop();
        if self.work.as_ref().is_none_or(JoinHandle::is_finished) {
            return self.close();
        }
        let (grace, number, myself) = (self.core.cfg.cancel_grace, self.number, myself.clone());
        let mail = self.core.mail.clone();
        self.grace = Some(tokio::spawn(async move {
            tokio::time::sleep(grace).await;
            let _ = myself.cast(mail.letter(AttemptMsg::GraceOver(number)));
        }));
        Over::No
    }

    fn grace_over(&mut self) -> Over {
        let (task, attempt) = (self.task, self.attempt);
        tracing::warn!(%task, attempt, "the worker ignored its cancel token and is stopped by force");
        self.core.count_forced_stop();
        self.close()
    }

    /// The worker ended, and the state was told. Where something else had ended the attempt
    /// before, its verdict is the one that was to be reported after the worker's end.
    fn finished(&mut self, verdict: Option<Verdict>) -> Over {
        if self.stopping.is_none() {
            self.stopping = verdict;
        }
        self.close()
    }

    /// Reports the verdict if that is still owed.
    fn close(&mut self) -> Over {
        self.decided = true;
        if let Some(reply) = self.seat.take_verdict() {
            let verdict = self.stopping.take().unwrap_or(Verdict::Cancelled);
            let _ = reply.send((verdict, Resting::default()));
        }
        Over::Yes
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.clock.stand();
        if let Some(work) = self.work.take() {
            work.abort();
        }
        if let Some(grace) = self.grace.take() {
            grace.abort();
        }
        if self.decided {
            self.close();
            return;
        }
        let end = AttemptEnd::Interrupted("the attempt's supervisor died".to_owned());
        let seat = self.seat.clone();
        self.core.finish_attempt(self.task, self.attempt, end, move |verdict, out| {
            if let Some((reply, verdict)) = seat.take_verdict().zip(verdict) {
                out.push(Outgoing::Verdict(reply, verdict, Resting::default()));
            }
        });
    }
}

/// The child task of one attempt.
struct Work {
    core: Arc<Core>,
    task: TaskId,
    attempt: u32,
    seat: Arc<Seat>,
    rest: Rest,
}

impl Work {
    /// Runs the worker to its end, and asks the state to decide the attempt by it.
    async fn run(self, launch: Arc<dyn Launch>) {
        crate::hop::hop("work").await;
        let end = self.end(launch).await;
        crate::hop::hop("end of work").await;
        tracing::Span::current().record("end", end.word());
        let Self { core, task, attempt, seat, rest } = self;
        core.finish_attempt(task, attempt, end, move |verdict, out| {
            let answer = verdict.is_some().then(|| seat.take_verdict()).flatten();
            match (answer, verdict) {
                (Some(answer), Some(verdict)) => {
                    out.push(Outgoing::Verdict(answer, verdict, rest.into()));
                }
                (_, verdict) => {
                    let (actor, message) = rest.finished(verdict);
                    out.push(Outgoing::ToAttempt(actor, message));
                }
            }
        });
    }

    /// Launches the worker, again after a panic where that is allowed, and waits for its end.
    async fn end(&self, launch: Arc<dyn Launch>) -> AttemptEnd {
        let (task, attempt) = (self.task, self.attempt);
        let mut restarts = launch.restarts();
        let mut backoff = RELAUNCH_BACKOFF;
        loop {
            let panic = match AssertUnwindSafe(launch.launch()).catch_unwind().await {
                Ok(Ok(worker)) => {
                    self.seat.launched(worker.cancel_token());
                    match AssertUnwindSafe(worker.join()).catch_unwind().await {
                        Ok(Ok(())) => return AttemptEnd::Done,
                        Ok(Err(WorkerError::Cancelled)) => {
                            return AttemptEnd::Failed("the worker was cancelled".to_owned());
                        }
                        Ok(Err(WorkerError::Failed(reason))) => return AttemptEnd::Failed(reason),
                        Err(panic) => panic,
                    }
                }
                Ok(Err(reason)) => return AttemptEnd::Failed(reason),
                Err(panic) => panic,
            };
            let reason = panic_text(&*panic);
            let silent = self.core.is_silent(task, attempt).await;
            if restarts == 0 || !silent {
                return AttemptEnd::Failed(format!("the worker panicked: {reason}"));
            }
            tracing::warn!(%task, attempt, reason, "the worker panicked and is launched again");
            restarts -= 1;
            self.core.count_restart();
            tokio::time::sleep(backoff).await;
            backoff = backoff.saturating_mul(2);
        }
    }
}
