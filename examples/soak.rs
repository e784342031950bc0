//! A soak: a mixed load with faults for some minutes, and then the question whether everything
//! came back: tokens, handles, live attempts, actors, children, descriptors, and the memory.
//!
//! `cargo run --release --example soak -- --minutes 10`. Without an argument it takes seconds.
//! It ends with 1 where something did not return. Memory is judged only from two minutes on.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use adjutant::{
    CancellationToken, CapToken, Engine, EngineCfg, EngineError, EngineState, HoldPolicy,
    LongHoldConfig, Retention, Role, TaskStatus,
};
use adjutant_actors::state::images::{Image, TableName, Touched};
use tokio::task::JoinSet;
use tokio::time::Instant;

#[path = "soak/agents.rs"]
mod agents;
#[path = "soak/loads.rs"]
mod loads;
#[path = "soak/process.rs"]
mod process;

use process::Sample;

/// How long everything gets to come back after the load.
const SETTLE: Duration = Duration::from_secs(30);

/// The actors of the state and of the two sessions that stay.
const ACTORS_KEPT: usize = 3;

/// Growth that is called a leak.
const GROWTH_MAX: f64 = 512.0 * 1024.0;

/// A run of so many minutes has a second half that says something of the memory.
const JUDGED_FROM: f64 = 2.0;

/// What the loads share.
struct Soak {
    engine: Engine,
    operator: CapToken,
    senior: CapToken,
    stop: CancellationToken,
    done: [AtomicU64; loads::KINDS.len()],
    errors: AtomicU64,
    killed: AtomicU64,
}

impl Soak {
    fn count(&self, kind: usize) {
        if let Some(counter) = self.done.get(kind) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Short times, so that everything that runs out does so often.
fn cfg() -> EngineCfg {
    EngineCfg {
        hold_policy: HoldPolicy::Warn,
        attempt_timeout: Some(Duration::from_millis(300)),
        cancel_grace: Duration::from_millis(50),
        launch_restarts: 1,
        long_hold: LongHoldConfig {
            heartbeat_interval: Duration::from_millis(200),
            keepalive_on_idle: false,
            ..LongHoldConfig::default()
        },
        retention: Retention {
            settled_tasks: 2_000,
            settled_age: Duration::from_secs(2),
            session_age: Duration::from_millis(500),
            sweep_interval: Duration::from_millis(100),
            ..Retention::default()
        },
        ..EngineCfg::default()
    }
}

fn minutes() -> Result<f64, String> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [] => Ok(0.05),
        [flag, number] if flag == "--minutes" => {
            let minutes: f64 = number.parse().map_err(|_| format!("{number} is no number"))?;
            let fits = minutes.is_finite() && minutes > 0.0;
            fits.then_some(minutes).ok_or_else(|| format!("{number} is no time"))
        }
        _ => Err("usage: soak [--minutes NUMBER]".to_owned()),
    }
}

/// What must be as it was once nothing is at work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rest {
    open_tasks: usize,
    live_attempts: usize,
    handles: usize,
    tokens: usize,
    sessions: usize,
    queued: usize,
    actors: usize,
    children: usize,
    descriptors: usize,
}

/// Tokens that are not revoked; of the others the newest are remembered on purpose.
fn live_tokens(state: &EngineState) -> usize {
    let mut all = Touched::default();
    state.note_all(&mut all);
    let live = |image: &Image| {
        let mut json = Vec::new();
        let written = image.key().table() == TableName::Tokens && image.encode(&mut json).is_ok();
        written && String::from_utf8_lossy(&json).contains("\"revoked\":false")
    };
    state.images(&mut all).iter().filter(|image| live(image)).count()
}

async fn look(engine: &Engine) -> Result<Rest, EngineError> {
    let open = |status: TaskStatus| !status.is_settled();
    let (open_tasks, live_attempts, handles, tokens, sessions) = engine
        .with_state("look", move |state| {
            let open = state.tasks_with(open).len();
            let live = state.live_attempts().len();
            (open, live, state.handle_count(), live_tokens(state), state.session_count())
        })
        .await?;
    Ok(Rest {
        open_tasks,
        live_attempts,
        handles,
        tokens,
        sessions,
        queued: engine.queued_turns(),
        actors: engine.root_cell().map_or(0, |root| root.get_children().len()),
        children: process::children(),
        descriptors: process::descriptors(),
    })
}

/// Waits until all is as at first, or for as long as it may take; gives what was found last.
async fn settle(soak: &Soak, first: Rest) -> Result<Rest, EngineError> {
    let deadline = Instant::now() + SETTLE;
    loop {
        // What lost its caller in the middle of a question has nobody else to end it.
        let open = |status: TaskStatus| !status.is_settled();
        let left = soak.engine.with_state("left", move |state| state.tasks_with(open)).await?;
        for task in left {
            let _ = soak.engine.cancel_task(&soak.operator, &task).await;
        }
        // The two sessions that stay are kept from lapsing.
        soak.engine.heartbeat(&soak.operator).await?;
        soak.engine.heartbeat(&soak.senior).await?;
        let rest = look(&soak.engine).await?;
        if rest == first || Instant::now() >= deadline {
            return Ok(rest);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn soak(minutes: f64) -> Result<bool, EngineError> {
    let engine = Engine::new(cfg());
    engine.start_detach_loop();
    let week = Duration::from_secs(7 * 24 * 3600);
    let operator = engine.attach("soak", Role::Operator, week).await?;
    let senior = engine.attach("senior", Role::Senior, week).await?;
    let soak = Arc::new(Soak {
        engine,
        operator,
        senior,
        stop: CancellationToken::new(),
        done: Default::default(),
        errors: AtomicU64::new(0),
        killed: AtomicU64::new(0),
    });
    // The first child opens descriptors that the runtime keeps, and the first beat of a session
    // starts an actor.
    loads::warm_up(&soak).await?;
    soak.engine.heartbeat(&soak.operator).await?;
    soak.engine.heartbeat(&soak.senior).await?;
    let first = loop {
        let rest = look(&soak.engine).await?;
        if rest.actors >= ACTORS_KEPT {
            break rest;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    let mut running = JoinSet::new();
    loads::start(&soak, &mut running);
    let samples = process::watch(Duration::from_secs_f64(minutes * 60.0)).await;
    soak.stop.cancel();
    let mut broke = 0;
    while let Some(ended) = running.join_next().await {
        broke += u32::from(ended.is_err());
    }
    let under_load = look(&soak.engine).await?;
    let last = settle(&soak, first).await?;
    let audit = soak.engine.with_state("audit", |state| state.audit()).await?;
    let slope = process::slope(&samples);
    report(&soak, minutes, &samples, slope, [first, under_load, last]);
    let mut faults = Vec::new();
    if last != first {
        faults.push(format!("not everything returned: {first:?} became {last:?}"));
    }
    if let Err(broken) = audit {
        faults.push(format!("the state breaks a rule: {broken}"));
    }
    if broke > 0 {
        faults.push(format!("{broke} loads ended by a panic"));
    }
    if minutes >= JUDGED_FROM && slope > GROWTH_MAX {
        faults.push(format!("the memory grows by {slope:.0} bytes a minute"));
    }
    for fault in &faults {
        println!("FAULT {fault}");
    }
    println!("{}", if faults.is_empty() { "everything returned" } else { "faults were found" });
    soak.engine.shutdown(Duration::from_secs(5)).await;
    Ok(faults.is_empty())
}

fn report(
    soak: &Soak,
    minutes: f64,
    samples: &[Sample],
    slope: f64,
    [first, under_load, last]: [Rest; 3],
) {
    let counts = soak.engine.counts();
    println!("soaked for {minutes} minutes");
    for (name, done) in loads::KINDS.iter().zip(&soak.done) {
        println!("{:>12}  {name}", done.load(Ordering::Relaxed));
    }
    println!("{:>12}  refused or failed calls", soak.errors.load(Ordering::Relaxed));
    println!("{:>12}  actors killed", soak.killed.load(Ordering::Relaxed));
    println!("{:>12}  restarts of the state actor", counts.state_restarts);
    println!("{:>12}  turns", counts.turns);
    let peak = samples.iter().map(|sample| sample.bytes).max().unwrap_or(0);
    let end = samples.last().map_or(0, |sample| sample.bytes);
    println!("{:>12}  KiB of memory at most, {} at the end", peak / 1024, end / 1024);
    println!("{:>12.1}  KiB a minute over the second half", slope / 1024.0);
    println!("before {first:?}\nloaded {under_load:?}\nafter  {last:?}");
}

#[tokio::main]
async fn main() -> ExitCode {
    let minutes = match minutes() {
        Ok(minutes) => minutes,
        Err(why) => {
            println!("{why}");
            return ExitCode::from(2);
        }
    };
    match soak(minutes).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("the engine failed: {error}");
            ExitCode::FAILURE
        }
    }
}
