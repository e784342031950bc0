//! Plays a history on the state and on the oracle, compares after each step, and cuts a failing
//! history down to what is needed.

use std::collections::HashMap;
use std::time::Duration;

use adjutant_actors::config::{EngineCfg, Limits, LongHoldConfig, Retention};
use adjutant_actors::model::ids::TaskId;
use adjutant_actors::model::task::TaskStatus;
use adjutant_actors::state::effect::{Effect, Now};
use adjutant_actors::state::{EngineState, Rules};

use crate::call::{Call, Reply, Said, carry_out, plain};
use crate::draw::{Chance, Kind, Names, Step};
use crate::oracle::{Oracle, Sizes, Told};

/// The rules of a history: limits that are met often, and every switch both ways.
pub(crate) fn rules(seed: u64) -> Rules {
    let roomy = seed.is_multiple_of(3);
    let pick = |tight: u64, wide: u64| if roomy { wide } else { tight };
    let limits = Limits {
        inline_bytes: 24,
        attempts_per_task: pick(3, 50),
        outputs_per_attempt: pick(3, 50),
        output_bytes_per_attempt: pick(120, 10_000),
        children_per_task: pick(2, 50),
        live_tasks_per_tree: pick(3, 50),
        live_tasks: pick(6, 50),
        sessions: pick(3, 50),
        tokens: pick(40, 500),
        resources: 2,
        open_runs: pick(1, 3),
        event_tail: 16,
        ..Limits::default()
    };
    let retention = Retention {
        settled_tasks: pick(1 + seed / 3 % 4, 50),
        settled_age: Duration::from_secs(5),
        session_age: Duration::from_secs(3),
        ended_runs: pick(1, 10),
        ..Retention::default()
    };
    let long_hold = LongHoldConfig {
        heartbeat_interval: Duration::from_secs(1),
        heartbeat_miss_threshold: 2,
        keepalive_on_idle: (seed / 12).is_multiple_of(2),
        ..LongHoldConfig::default()
    };
    let cfg = EngineCfg {
        max_spawn_depth: 3,
        cancel_subtasks: !(seed / 24).is_multiple_of(4),
        limits,
        retention,
        long_hold,
        token_secret: vec![7; 32],
        ..EngineCfg::default()
    };
    Rules::from(&cfg)
}

/// A state and the oracle beside it.
#[derive(Clone)]
pub(crate) struct Pair {
    rules: Rules,
    state: EngineState,
    oracle: Oracle,
    names: Names,
    now: Now,
    /// Status and revision of each task after the step before.
    seen: HashMap<TaskId, (TaskStatus, u64)>,
}

fn differ<T: PartialEq + std::fmt::Debug>(what: &str, state: &T, oracle: &T) -> Result<(), String> {
    if state == oracle {
        return Ok(());
    }
    Err(format!("{what}:\n   the state  says {state:?}\n   the oracle says {oracle:?}"))
}

impl Pair {
    pub(crate) fn new(rules: Rules) -> Self {
        Self {
            state: EngineState::new(rules.clone()),
            oracle: Oracle::new(rules.clone()),
            rules,
            names: Names::default(),
            now: Now { unix: 1_000_000, ms: 1_000 },
            seen: HashMap::new(),
        }
    }

    /// Plays one step. Returns the call that it made, unless it was a wait, and the reply.
    pub(crate) fn step(&mut self, step: &Step) -> (Option<Call>, Result<Reply, String>) {
        let call = self.names.call(step, &self.oracle);
        let Some(call) = call else {
            self.wait(step);
            return (None, Ok(Ok(Said::Nothing)));
        };
        let played = self.play(&call, step.how[2].is_multiple_of(8));
        (Some(call), played)
    }

    /// Time passes; the wall clock may be set in either direction meanwhile.
    fn wait(&mut self, step: &Step) {
        let [a, b, c] = step.how;
        let long = if b >= 224 { 30_000 } else { 300 };
        self.now.ms += [0, 1, 100, 700, 2_000, 6_000, long][usize::from(a % 7)];
        let jump = if b < 16 { u64::from(c) } else { 0 };
        self.now.unix += if b < 8 { jump * 3_600 } else { u64::from(a % 7) };
        self.now.unix -= if (8..16).contains(&b) { jump } else { 0 };
    }

    /// Makes one call on both; `twice` undoes it once before it stands.
    fn play(&mut self, call: &Call, twice: bool) -> Result<Reply, String> {
        let (expected, told) = self.oracle.hear(call, self.now);
        let changes = changes(&expected);
        let before = (!changes || twice).then(|| self.state.clone());
        let reply = self.carry_out(call);
        differ("reply", &reply, &expected)?;
        if let Some(before) = before {
            if !changes && self.state != before {
                return Err("a refused call changed the state".into());
            }
            self.state.rollback();
            if self.state != before {
                return Err("a turn was undone, and the state is another".into());
            }
            if changes {
                differ("reply to the same call again", &self.carry_out(call), &expected)?;
            }
        }
        let mut effects = Vec::new();
        if changes {
            self.state.commit(&mut effects);
        }
        self.compare(effects, told)?;
        self.names.learn(call, &reply);
        Ok(reply)
    }

    fn carry_out(&mut self, call: &Call) -> Reply {
        carry_out(&mut self.state, call, &self.rules, self.now).map_err(plain)
    }

    fn compare(&mut self, effects: Vec<Effect>, mut told: Told) -> Result<(), String> {
        let (mut heard, mut changed) = (Told::default(), Vec::new());
        let mut seq = self.oracle.sizes().last_seq - told.events.len() as u64;
        for effect in effects {
            match effect {
                Effect::Announce(record) => {
                    seq += 1;
                    differ(
                        "number and time of an event",
                        &(record.seq, record.at),
                        &(seq, self.now.unix),
                    )?;
                    heard.events.push(record.event.clone());
                }
                Effect::Changed(task) => changed.push(task),
                other => heard.effects.push(other),
            }
        }
        // No order is promised between tasks within one turn, nor between effects.
        for told in [&mut heard, &mut told] {
            told.events.sort_by_key(|event| event.task_id());
            if told.effects.len() > 1 {
                told.effects.sort_by_key(|effect| format!("{effect:?}"));
            }
        }
        differ("told", &heard, &told)?;
        differ("sizes", &self.sizes(), &self.oracle.sizes())?;
        if changed.is_empty() && heard.events.is_empty() {
            // Such as a refused call, whose state was compared as a whole.
            return Ok(());
        }
        for task in changed {
            self.compare_task(task)?;
        }
        self.state.audit().map_err(|broken| format!("the audit says {broken}"))
    }

    fn compare_task(&mut self, id: TaskId) -> Result<(), String> {
        differ("task", &self.state.task(&id), &self.oracle.state_of(id))?;
        let Some((status, revision)) = self.state.glance(&id) else {
            self.seen.remove(&id);
            return Ok(());
        };
        match self.seen.insert(id, (status, revision)) {
            Some((before, was)) if before != status && was >= revision => {
                Err(format!("{id} went from {before} to {status} and its revision stays {was}"))
            }
            _ => Ok(()),
        }
    }

    /// Compares every task and every live attempt.
    pub(crate) fn compare_all(&mut self) -> Result<(), String> {
        for id in self.oracle.known_tasks().collect::<Vec<_>>() {
            self.compare_task(id)?;
        }
        let mut live = self.state.live_attempts();
        live.sort_unstable();
        differ("live attempts", &live, &self.oracle.live_attempts())
    }

    fn sizes(&self) -> Sizes {
        let state = &self.state;
        Sizes {
            tasks: state.task_count(),
            live: state.live_tasks(),
            sessions: state.session_count(),
            tokens: state.token_count(),
            handles: state.handle_count(),
            outputs: state.output_count(),
            bodies: state.body_count(),
            last_seq: state.last_seq(),
            paused: state.is_paused(),
        }
    }
}

/// Whether a call that is answered like this may have changed anything.
pub(crate) fn changes(reply: &Reply) -> bool {
    !matches!(reply, Err(_) | Ok(Said::Known(_) | Said::Paused))
}

/// What went wrong in a history, and where.
pub(crate) struct Failure {
    pub(crate) at: usize,
    pub(crate) why: String,
    pub(crate) calls: Vec<String>,
}

/// Plays a whole history; a panic of the state is a failure like any other.
pub(crate) fn play(rules: &Rules, steps: &[Step]) -> Result<(), Failure> {
    let mut pair = Pair::new(rules.clone());
    let mut calls = Vec::new();
    for (at, step) in steps.iter().enumerate() {
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let (call, played) = pair.step(step);
            let whole = |_| if at % 16 == 15 { pair.compare_all() } else { Ok(()) };
            (call, played.and_then(whole))
        }));
        let (call, played) = caught.unwrap_or_else(|_| (None, Err("it panicked".into())));
        calls.push(call);
        if let Err(why) = played {
            let shown = |(call, step): (&Option<Call>, &Step)| match call {
                Some(call) => format!("{call:?}"),
                None => format!("{:?} {:?}", step.kind, step.how),
            };
            let calls = calls.iter().zip(steps).map(shown).collect();
            return Err(Failure { at, why, calls });
        }
    }
    let why = pair.compare_all().err();
    why.map_or(Ok(()), |why| Err(Failure { at: steps.len(), why, calls: Vec::new() }))
}

/// The steps of a seed.
pub(crate) fn history(seed: u64, length: usize) -> Vec<Step> {
    let mut chance = Chance::new(seed);
    let mut steps: Vec<_> = (0..length).map(|_| Step::draw(&mut chance)).collect();
    // Most begin with something to be done.
    if !seed.is_multiple_of(4) {
        let first = [Kind::Attach, Kind::Start, Kind::Dispatch];
        steps.iter_mut().zip(first).for_each(|(step, kind)| step.kind = kind);
    }
    steps
}

/// Cuts a failing history down: drops runs of steps, long ones first, then lowers numbers.
pub(crate) fn shorten(rules: &Rules, mut steps: Vec<Step>) -> Vec<Step> {
    let fails = |steps: &[Step]| play(rules, steps).is_err();
    let mut size = steps.len().div_ceil(2).max(1);
    loop {
        let mut at = 0;
        while at < steps.len() {
            let mut fewer = steps.clone();
            fewer.drain(at..(at + size).min(steps.len()));
            if fails(&fewer) {
                steps = fewer;
            } else {
                at += size;
            }
        }
        if size == 1 {
            break;
        }
        size /= 2;
    }
    for at in 0..steps.len() {
        let old = steps[at];
        let lower = Step { who: 0, what: 0, how: [255; 3], ..old };
        for simple in [lower, Step { who: 0, ..old }, Step { how: [254; 3], ..old }] {
            let mut simpler = steps.clone();
            simpler[at] = simple;
            if simple.kind != Kind::Wait && fails(&simpler) {
                steps = simpler;
                break;
            }
        }
    }
    steps
}
