//! Histories by chance: a seeded row of numbers, and steps that name things by small numbers.
//!
//! A step holds no id. What it names is found when it is played, among what is there then, so any
//! part of a history is a history too and a failing one can be cut down.

use adjutant_actors::model::ids::{ResumeKey, RunId, TaskId};
use adjutant_actors::model::role::Role;
use adjutant_actors::state::runs::RunStatus;
use adjutant_actors::state::verdicts::Marking;

use crate::call::{Call, End, Out, Reply, Said, TOKENS, Who};
use crate::oracle::Oracle;

/// A row of numbers that follows from its seed (SplitMix64).
#[derive(Debug, Clone)]
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

/// What is done in a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Attach,
    Beat,
    Detach,
    Session,
    Start,
    Step,
    Dispatch,
    Pull,
    Read,
    Cancel,
    Post,
    Output,
    Bake,
    Finish,
    Verdict,
    InterruptAll,
    Ask,
    Answer,
    Look,
    Mark,
    Inject,
    Pause,
    Mint,
    Verify,
    Revoke,
    Handle,
    Lapse,
    Sweep,
    OpenRun,
    EndRun,
    ResumeRun,
    SetResource,
    Fetch,
    Wait,
}

/// The kinds with how often they are drawn.
const OFTEN: [(Kind, usize); 34] = [
    (Kind::Attach, 5),
    (Kind::Beat, 3),
    (Kind::Detach, 2),
    (Kind::Session, 2),
    (Kind::Start, 12),
    (Kind::Step, 4),
    (Kind::Dispatch, 14),
    (Kind::Pull, 2),
    (Kind::Read, 2),
    (Kind::Cancel, 3),
    (Kind::Post, 2),
    (Kind::Output, 14),
    (Kind::Bake, 2),
    (Kind::Finish, 7),
    (Kind::Verdict, 2),
    (Kind::InterruptAll, 1),
    (Kind::Ask, 8),
    (Kind::Answer, 5),
    (Kind::Look, 1),
    (Kind::Mark, 5),
    (Kind::Inject, 3),
    (Kind::Pause, 2),
    (Kind::Mint, 3),
    (Kind::Verify, 2),
    (Kind::Revoke, 1),
    (Kind::Handle, 2),
    (Kind::Lapse, 2),
    (Kind::Sweep, 3),
    (Kind::OpenRun, 2),
    (Kind::EndRun, 1),
    (Kind::ResumeRun, 1),
    (Kind::SetResource, 3),
    (Kind::Fetch, 1),
    (Kind::Wait, 6),
];

/// One step of a history: a kind, and numbers that say who, what and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) kind: Kind,
    pub(crate) who: u8,
    pub(crate) what: u8,
    pub(crate) how: [u8; 3],
}

impl Step {
    pub(crate) fn draw(chance: &mut Chance) -> Self {
        let total: usize = OFTEN.iter().map(|(_, often)| often).sum();
        let mut at = chance.below(total);
        let found = OFTEN.iter().find(|(_, often)| {
            let here = at < *often;
            at = at.saturating_sub(if here { 0 } else { *often });
            here
        });
        let [who, what, a, b, c, ..] = chance.next().to_le_bytes();
        Self { kind: found.expect("the sum ends there").0, who, what, how: [a, b, c] }
    }
}

/// What a history has named so far, in the order of naming. What was forgotten stays in it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Names {
    tasks: Vec<TaskId>,
    tokens: Vec<usize>,
    sessions: Vec<usize>,
    questions: Vec<ResumeKey>,
    runs: Vec<RunId>,
    /// Ids and tokens that were drawn, also for calls that were refused.
    drawn: usize,
}

/// Ids that do not stand in the order of their making.
fn id(number: usize) -> u128 {
    (number as u128 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835) >> 1
}

/// The one that `pick` names, the newest ones most often; `other` where there is none.
fn newest<T: Copy>(all: &[T], pick: u8, other: T) -> T {
    let back = usize::from(pick).pow(2) * all.len() / (256 * 256);
    all.len().checked_sub(back + 1).map_or(other, |at| all[at])
}

const LIVES: [u64; 5] = [600, 4_000, 60_000, 60_000, 3_600_000];

fn life(pick: u8) -> u64 {
    LIVES[usize::from(pick) % LIVES.len()]
}

/// An optional small number, absent `of` - 2 times out of `of`.
fn maybe(pick: u8, of: u8) -> Option<u8> {
    Some(pick % of).filter(|small| *small < 2)
}

impl Names {
    /// Takes note of what a call made.
    pub(crate) fn learn(&mut self, call: &Call, reply: &Reply) {
        let Ok(said) = reply else { return };
        match (call, said) {
            (Call::Attach { token, .. }, _) => {
                self.tokens.push(*token);
                self.sessions.push(*token);
            }
            (Call::Dispatch { token, .. }, Said::Begun(..)) | (Call::Mint { token, .. }, _) => {
                self.tokens.push(*token);
            }
            (Call::Start { id, .. } | Call::Step { id, .. }, Said::Task(task)) if id == task => {
                self.tasks.push(*id);
            }
            (Call::Ask { key, .. }, _) => self.questions.push(*key),
            (Call::OpenRun { run, .. }, _) => self.runs.push(*run),
            _ => {}
        }
    }

    fn fresh(&mut self) -> usize {
        self.drawn = (self.drawn + 1).min(TOKENS - 1);
        self.drawn - 1
    }

    fn who(&self, pick: u8, oracle: &Oracle) -> Who {
        let token = |pick: u8| newest(&self.tokens, pick, TOKENS - 1);
        let usable = |token: &usize| oracle.is_usable(*token);
        let usable = |all: &[usize]| all.iter().copied().filter(usable).collect::<Vec<_>>();
        match pick {
            0..112 => Who::Host,
            112..176 => Who::Token(newest(&usable(&self.tokens), (pick - 112) * 4, TOKENS - 1)),
            176..232 => {
                let sessions = usable(&self.sessions);
                sessions.last().copied().map_or(Who::Host, Who::Token)
            }
            232..240 => Who::Token(token((pick - 232) * 32)),
            240..248 => Who::Token(token(pick % 8 * 32)),
            248..252 => Who::Forger(token(pick % 8 * 32)),
            _ => Who::Token(TOKENS - 1),
        }
    }

    /// Who calls about a live attempt: its worker more often than not.
    fn worker(&self, pick: u8, task: TaskId, oracle: &Oracle) -> Who {
        let own = oracle.worker_tokens(task);
        if !pick.is_multiple_of(4) && !own.is_empty() {
            return Who::Token(own[usize::from(pick / 4) % own.len()]);
        }
        self.who(pick, oracle)
    }

    /// A task that is remembered, most often.
    fn task(&self, pick: u8, oracle: &Oracle) -> TaskId {
        let missing = TaskId::from_bits(0);
        let known = |id: &TaskId| oracle.remembers(*id);
        let known: Vec<_> = self.tasks.iter().copied().filter(known).collect();
        match pick {
            255 => missing,
            240..255 => newest(&self.tasks, pick, missing),
            _ => newest(&known, pick, missing),
        }
    }

    /// One of those that a kind of step can do something with, more often than not.
    fn fit(&self, pick: u8, fit: &[TaskId], oracle: &Oracle) -> TaskId {
        if pick % 8 != 7 && !fit.is_empty() {
            return fit[usize::from(pick / 8) % fit.len()];
        }
        self.task(pick, oracle)
    }

    /// The task that a step is about.
    fn task_of(&self, step: &Step, oracle: &Oracle) -> TaskId {
        let fit: Vec<TaskId> = match step.kind {
            Kind::Pull | Kind::Post | Kind::Output | Kind::Bake | Kind::Finish | Kind::Mint => {
                oracle.live_attempts().into_iter().map(|(task, _)| task).collect()
            }
            Kind::Dispatch => oracle.ready(),
            _ => return self.task(step.what, oracle),
        };
        self.fit(step.what, &fit, oracle)
    }

    /// An attempt of a task: the live one most often.
    fn attempt(task: TaskId, pick: u8, oracle: &Oracle) -> u32 {
        let newest = oracle.state_of(task).map_or(1, |task| task.attempt);
        if pick < 224 { newest.max(1) } else { u32::from(pick % 4) }
    }

    /// The call that a step makes where things stand as the oracle says; `None` for a wait.
    pub(crate) fn call(&mut self, step: &Step, oracle: &Oracle) -> Option<Call> {
        let Step { kind, who, what, how: [a, b, c] } = *step;
        let task = self.task_of(step, oracle);
        let who = match kind {
            Kind::Pull | Kind::Post | Kind::Output => self.worker(who, task, oracle),
            _ => self.who(who, oracle),
        };
        let value = b;
        Some(match kind {
            Kind::Start | Kind::Step | Kind::Dispatch | Kind::Mint | Kind::Attach => {
                self.start(step, who, task)
            }
            Kind::Beat => Call::Beat { who },
            Kind::Detach => Call::Detach { who, revoke: a.is_multiple_of(2) },
            Kind::Session => Call::Session { who },
            Kind::Pull => Call::Pull { who, task },
            Kind::Read => Call::Read { who, task },
            Kind::Cancel => Call::Cancel { who, task },
            Kind::Post => Call::Post { who, task, value },
            Kind::Output => {
                let attempt = Self::attempt(task, a, oracle);
                Call::Output { who, task, attempt, out: out(b, c), result: a.is_multiple_of(8) }
            }
            Kind::Bake => {
                let attempt = Self::attempt(task, a, oracle);
                Call::Bake { task, attempt, text: maybe(b, 3) }
            }
            Kind::Finish => {
                let attempt = Self::attempt(task, a, oracle);
                Call::Finish { task, attempt, end: end(b) }
            }
            Kind::Verdict => Call::Verdict { task, attempt: Self::attempt(task, a, oracle) },
            Kind::InterruptAll => Call::InterruptAll { reason: "lost".into() },
            Kind::Ask => {
                let key = ResumeKey::from_bits(id(self.fresh()));
                Call::Ask { who, task, key, value }
            }
            Kind::Answer => {
                let open = oracle.open_questions();
                let open = open.get(usize::from(what / 4) % open.len().max(1)).copied();
                let key = open.filter(|_| !what.is_multiple_of(4)).unwrap_or(self.question(what));
                Call::Answer { who, key, value }
            }
            Kind::Look => Call::Look { key: self.question(what) },
            Kind::Mark => {
                let marking = if a.is_multiple_of(2) { Marking::Operator } else { Marking::Senior };
                Call::Mark { who, marking, task, ok: c.is_multiple_of(2), value }
            }
            Kind::Inject => Call::Inject { who, task, text: b },
            Kind::Pause => Call::Pause { who, on: a.is_multiple_of(4) },
            Kind::Verify => Call::Verify { who },
            Kind::Revoke => Call::Revoke { token: newest(&self.tokens, what, TOKENS - 1) },
            Kind::Handle => Call::Handle { token: newest(&self.tokens, what, TOKENS - 1) },
            Kind::Lapse => Call::Lapse { budget: [1, 2, 1_000][usize::from(a % 3)] },
            Kind::Sweep => Call::Sweep { budget: [1, 3, 1_000, 1_000][usize::from(a % 4)] },
            Kind::OpenRun | Kind::EndRun | Kind::ResumeRun => self.run(kind, what, a),
            Kind::SetResource => Call::SetResource { name: what % 3, value },
            Kind::Fetch => Call::Fetch { who, name: what % 3 },
            Kind::Wait => return None,
        })
    }

    fn question(&self, pick: u8) -> ResumeKey {
        newest(&self.questions, pick, ResumeKey::from_bits(0))
    }

    fn run(&mut self, kind: Kind, what: u8, a: u8) -> Call {
        let session = Some(newest(&self.sessions, a, TOKENS - 1)).filter(|_| !a.is_multiple_of(4));
        let run = newest(&self.runs, what, RunId::from_bits(0));
        let ends = [RunStatus::Pass, RunStatus::Cancelled, RunStatus::Open];
        match kind {
            Kind::OpenRun if a < 224 => {
                Call::OpenRun { run: RunId::from_bits(id(self.fresh())), session }
            }
            Kind::OpenRun => Call::OpenRun { run, session },
            Kind::EndRun => Call::EndRun { run, status: ends[usize::from(a % 3)] },
            _ => Call::ResumeRun { run, session },
        }
    }

    fn start(&mut self, step: &Step, who: Who, task: TaskId) -> Call {
        let Step { kind, what, how: [a, b, c], .. } = *step;
        match kind {
            Kind::Attach => {
                let role = Role::ALL[usize::from(a % 8).saturating_sub(4)];
                let token = self.fresh();
                let uses = maybe(c, 6).map(|uses| u32::from(uses) + 1);
                Call::Attach { token, role, operator: b % 2, life: life(b), uses }
            }
            Kind::Start => {
                let parent = (a < 96).then_some(task);
                let (agent, retry) = (c % 2, c % 8 < 3);
                Call::Start {
                    who,
                    id: TaskId::from_bits(id(self.fresh())),
                    agent,
                    parent,
                    key: maybe(b, 6),
                    retry,
                }
            }
            Kind::Step => {
                let run = newest(&self.runs, what, RunId::from_bits(0));
                let id = TaskId::from_bits(id(self.fresh()));
                Call::Step { who, run, step: a % 3, id, agent: c % 2 }
            }
            Kind::Dispatch => {
                let token = self.fresh();
                let (key, prompt) = (maybe(a, 6), maybe(b, 4));
                Call::Dispatch { who, task, token, key, prompt, life: life(c) }
            }
            _ => {
                let uses = maybe(b, 4).map(|uses| u32::from(uses) + 1);
                Call::Mint { who, task, token: self.fresh(), life: life(c), uses }
            }
        }
    }
}

fn end(pick: u8) -> End {
    match pick % 5 {
        0 | 1 => End::Done,
        2 => End::Failed("broke".into()),
        3 => End::TimedOut,
        _ => End::Interrupted("lost".into()),
    }
}

fn out(pick: u8, value: u8) -> Out {
    match pick % 8 {
        0 => Out::Progress,
        1 => Out::Partial(value),
        2 => Out::Artifact(value),
        3 => Out::File(value.is_multiple_of(2)),
        _ => Out::Final(value, !pick.is_multiple_of(3)),
    }
}
