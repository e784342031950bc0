//! The state actor: owns the cell, runs one turn at a time, then settles what the turns asked for.
//!
//! Spawned and always restarted by the root; ends with it. It awaits no other actor and no I/O:
//! where a journal is kept, it hands over what turns touched and goes on, and what is to be heard
//! of them waits in `commits`. When it dies, the batch in flight gets an error and the queue waits
//! for the next incarnation; the state is in the cell and loses nothing.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::time::Instant;

use crate::commits::{Commits, Growth, Release};
use crate::config::HoldPolicy;
use crate::errors::EngineError;
use crate::journal::JournalError;
use crate::messages::{AttemptMsg, Change, SessionMsg, StateMsg, Until, WaiterMsg};
use crate::model::ids::TaskId;
use crate::outgoing::Outgoing;
use crate::queue::Queued;
use crate::state::EngineState;
use crate::state::effect::Effect;
use crate::system::{Core, Links, TreeGuard};
use crate::turn::{Ran, Turn};

/// Turns that one message runs at most, so that stops and supervision events are served between.
const BATCH_TURNS: usize = 64;
/// Time that one message takes at most, apart from its last turn.
const BATCH_TIME: Duration = Duration::from_micros(100);

pub(crate) struct StateActor;

pub(crate) struct Arguments {
    pub(crate) core: Arc<Core>,
    pub(crate) guard: Arc<TreeGuard>,
}

pub(crate) struct Incarnation {
    number: u64,
    core: Arc<Core>,
    /// Turns that were taken from the queue and did not run yet, in their order.
    held: VecDeque<Queued>,
    /// Turns that ran and wait for their release. Only a panic of our own code leaves some here.
    batch: Vec<Arc<dyn Turn>>,
    effects: Vec<Effect>,
    out: Vec<Outgoing>,
    /// What waited for the journal and is safe.
    ready: Release,
    _guard: Arc<TreeGuard>,
}

impl Actor for StateActor {
    type Msg = StateMsg;
    type State = Incarnation;
    type Arguments = Arguments;

    async fn pre_start(
        &self,
        myself: ActorRef<StateMsg>,
        args: Arguments,
    ) -> Result<Incarnation, ActorProcessingErr> {
        let core = args.core;
        let number = core.queue.open_port(Arc::new(move || myself.cast(StateMsg::Drain).is_ok()));
        Ok(Incarnation {
            number,
            core,
            held: VecDeque::new(),
            batch: Vec::new(),
            effects: Vec::new(),
            out: Vec::new(),
            ready: Release::default(),
            _guard: args.guard,
        })
    }

    async fn handle(
        &self,
        _myself: ActorRef<StateMsg>,
        message: StateMsg,
        state: &mut Incarnation,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            StateMsg::Drain => {
                crate::hop::hop("state").await;
                state.drain();
            }
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _myself: ActorRef<StateMsg>,
        _event: SupervisionEvent,
        _state: &mut Incarnation,
    ) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
}

impl Incarnation {
    /// Runs a batch of turns, settles it, sends what is safe to be heard, and asks to be woken for
    /// the rest.
    fn drain(&mut self) {
        let core = self.core.clone();
        let commits = core.commits();
        // First, since it takes the word of news down: news that come after it wake the actor again,
        // and news that came before it are heard below.
        core.queue.take(BATCH_TURNS, &mut self.held, &core);
        if let Some(commits) = commits
            && let Err(error) = self.hear(commits)
        {
            // The flag stays up: nobody wakes this incarnation again, and the tree ends. What it
            // took goes back when it is dropped, before the burial.
            return core.journal_failed(&error);
        }
        let mut batch = None;
        {
            let mut state = core.lock_state();
            let mut links = core.lock_links();
            let mut growth = commits.map(Commits::lock);
            self.run_turns(&mut state, &mut links, growth.as_deref_mut());
            self.settle(&state, &mut links, growth.as_deref_mut());
            std::mem::swap(&mut self.out, &mut links.out);
            if let (Some(commits), Some(growth)) = (commits, growth.as_deref_mut()) {
                growth.keep_back(&mut self.out, &mut self.batch);
                batch = commits.cut(growth, &state, || core.now_or_last());
            }
        }
        if let Some(batch) = batch {
            core.append(batch);
        }
        self.release();
        core.queue.batch_done(self.held.len());
    }

    /// Takes what is safe by what the journal said since.
    fn hear(&mut self, commits: &Commits) -> Result<(), JournalError> {
        if commits.failure().is_some() {
            return Err(JournalError::Closed);
        }
        commits.hear(&mut commits.lock(), &mut self.ready)
    }

    /// Runs turns until the batch is full or its time is over.
    fn run_turns(
        &mut self,
        state: &mut EngineState,
        links: &mut Links,
        mut growth: Option<&mut Growth>,
    ) {
        let start = Instant::now();
        let mut before = start;
        let mut turns = 0;
        while turns < BATCH_TURNS
            && let Some(queued) = self.held.pop_front()
        {
            turns += 1;
            self.run(state, links, growth.as_deref_mut(), queued.turn);
            let now = Instant::now();
            self.guard_hold(now.saturating_duration_since(before));
            before = now;
            if now.saturating_duration_since(start) >= BATCH_TIME {
                break;
            }
        }
        self.core.count_turns(turns as u64, before.saturating_duration_since(start));
    }

    /// Sends what was safe before, then what the present batch sends, if that is safe as it is.
    fn release(&mut self) {
        for record in self.ready.events.drain(..) {
            self.core.announce(&record);
        }
        for message in self.ready.out.drain(..).chain(self.out.drain(..)) {
            message.send(&self.core);
        }
        for turn in self.ready.turns.drain(..).chain(self.batch.drain(..)) {
            turn.release();
        }
    }

    /// Gives what was taken and did not run back to the queue.
    fn put_back(&mut self) {
        if !self.held.is_empty() {
            self.core.queue.push_front(self.held.drain(..));
        }
    }

    fn run(
        &mut self,
        state: &mut EngineState,
        links: &mut Links,
        growth: Option<&mut Growth>,
        turn: Arc<dyn Turn>,
    ) {
        // Costs a comparison unless somebody asks for it.
        let span = tracing::trace_span!(target: "adjutant::turn", "turn", op = turn.op());
        let ran =
            if span.is_disabled() { turn.run(state) } else { span.in_scope(|| turn.run(state)) };
        match ran {
            Ran::Keep { follows } => {
                if let Some(growth) = growth {
                    growth.note(state);
                }
                state.commit(&mut self.effects);
                if follows {
                    turn.follow(links, &self.core);
                }
                self.batch.push(turn);
            }
            Ran::Undo => {
                state.rollback();
                self.batch.push(turn);
            }
            Ran::Deferred(task) => {
                state.rollback();
                self.line_up(links, task, turn);
            }
            Ran::Abandoned => {}
        }
    }

    /// Has a dispatch wait for a resume, or refuses it where too many do.
    fn line_up(&self, links: &mut Links, task: TaskId, turn: Arc<dyn Turn>) {
        let limit = self.core.cfg.queue_limit.max(1);
        if let Err(turn) = links.line.push(task, turn, limit) {
            let (what, max) = ("dispatches that wait for a resume", limit as u64);
            turn.fail(EngineError::TableFull { what, current: max, max });
        }
    }

    /// Reports a turn that held the state for too long: in its caller, or in the log.
    fn guard_hold(&mut self, held: Duration) {
        // The common case, without a division.
        if held < Duration::from_millis(1) || held.as_millis() <= self.core.cfg.max_hold_ms {
            return;
        }
        let Some(turn) = self.batch.last() else { return };
        let hold_ms = crate::state::millis(held);
        self.core.count_hold();
        tracing::warn!(op = turn.op(), hold_ms, "a turn held the state for too long");
        if turn.is_hosts() && self.core.cfg.hold_policy == HoldPolicy::Panic {
            turn.overheld(held);
        }
    }

    /// Carries out what the batch asked of the outside, in one order: the only place that tells
    /// waiters, attempts and sessions. Where a journal is kept, its events wait for that.
    fn settle(&mut self, state: &EngineState, links: &mut Links, growth: Option<&mut Growth>) {
        if self.effects.is_empty() {
            return;
        }
        let journaled = growth.is_some();
        if let Some(growth) = growth {
            growth.note_events(&self.effects);
        }
        for effect in self.effects.drain(..) {
            match effect {
                Effect::Announce(record) if !journaled => self.core.announce(&record),
                Effect::Announce(_) => {}
                Effect::Changed(task) => tell_waiter(&self.core, links, state, task),
                Effect::Stop(task, attempt, verdict) => {
                    links.tell_attempt(task, attempt, AttemptMsg::Stop(verdict));
                    links.attempts.remove(&(task, attempt));
                }
                Effect::Clock(task, attempt, runs) => {
                    links.tell_attempt(task, attempt, AttemptMsg::Clock(runs));
                }
                Effect::SessionClosed(session) => {
                    if let Some(actor) = self.core.lock_sessions().remove(&session) {
                        let _ = actor.cast(self.core.mail.letter(SessionMsg::Closed));
                    }
                }
                Effect::Dispatching(true) => {
                    self.core.queue.push_front(self.held.drain(..));
                    self.core.queue.push_front(links.line.take().map(without_place));
                }
                Effect::Dispatching(false) => {}
            }
        }
    }
}

/// A turn that had to wait gave its place back when it was taken.
fn without_place(turn: Arc<dyn Turn>) -> Queued {
    Queued { turn, holds_place: false }
}

/// Tells a task's waiter of a change, and lets a deferred dispatch of a settled task go on.
fn tell_waiter(core: &Arc<Core>, links: &mut Links, state: &EngineState, task: TaskId) {
    #[cfg(debug_assertions)]
    if let Err(broken) = state.audit_task(task) {
        tracing::error!(%task, broken, "a turn broke a rule of the state");
        debug_assert!(false, "a turn broke a rule of the state: {broken}");
    }
    if !links.line.is_empty() && state.glance(&task).is_none_or(|(status, _)| status.is_final()) {
        let gone = links.line.take_of(task);
        core.queue.push_front(gone.into_iter().map(without_place));
    }
    if !links.waiters.contains(&task) {
        return;
    }
    let change = change_of(state, task);
    if change.satisfies(Until::Ended) {
        if let Some(link) = links.waiters.remove(&task) {
            links.out.push(Outgoing::Ended(link, change));
        }
    } else if let Some(link) = links.waiters.get(&task) {
        let changed = WaiterMsg::Changed(change);
        links.out.push(Outgoing::ToWaiter(link.actor.clone(), changed));
    }
}

/// What a waiter is told of a task.
pub(crate) fn change_of(state: &EngineState, task: TaskId) -> Change {
    let revision = state.glance(&task).map_or(u64::MAX, |(_, revision)| revision);
    Change { task: state.task(&task).map(Arc::new), revision }
}

impl Drop for Incarnation {
    fn drop(&mut self) {
        self.core.queue.close_port(self.number);
        self.put_back();
        if let Some(commits) = self.core.commits() {
            // What ran before a panic of our own code stands, so its events do.
            commits.lock().note_events(&self.effects);
        }
        for turn in self.ready.turns.drain(..).chain(self.batch.drain(..)) {
            turn.fail(EngineError::Internal("the state actor ended within its batch".to_owned()));
        }
    }
}
