//! The actor system in simulated time: clients, workers and faults by chance, at every hop.
//!
//! One thread, a paused clock, and one row of numbers, so a seed is a run. Each seed runs twice and
//! must leave the same trace; what the state actor ran is played again on the oracle of the model;
//! at the end nobody waits and nothing lives. `.ci/simulate` runs more seeds than this does by itself, or
//! one alone.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use adjutant_actors::config::{EngineCfg, HoldPolicy, LongHoldConfig, Retention};
use adjutant_actors::journal::memory::MemoryJournal;
use adjutant_actors::model::task::TaskState;
use adjutant_actors::state::Rules;
use adjutant_actors::system::{ActorSystem, Opening};

use crate::call::{Call, Who, plain};
use crate::clients::Client;
use crate::oracle::Oracle;
use crate::shared::{Hops, Shared, Turn};

#[path = "../model/call.rs"]
#[expect(dead_code, reason = "the model's own test makes more calls than a simulation")]
mod call;
mod clients;
#[path = "../model/oracle.rs"]
#[expect(dead_code, reason = "the model's own test compares more than a simulation can see")]
mod oracle;
mod shared;
mod worker;

/// Longer than anything here waits of its own accord.
const DAY: Duration = Duration::from_secs(24 * 3600);

/// How much happens in one run.
#[derive(Debug, Clone, Copy)]
struct Size {
    clients: usize,
    steps: usize,
}

/// What is different from seed to seed.
#[derive(Debug, Clone, Copy)]
struct Plan {
    seed: u64,
    size: Size,
    /// Whether actors are ended.
    faults: bool,
    /// Whether the root is ended too, and all with it.
    root_too: bool,
    /// Whether a journal is kept, and whether it fails on the way.
    journal: bool,
    fails: bool,
}

impl Plan {
    fn of(seed: u64, size: Size) -> Self {
        let journal = seed % 3 == 1;
        Self {
            seed,
            size,
            faults: seed.is_multiple_of(2),
            root_too: seed % 8 == 6,
            journal,
            fails: journal && seed % 4 == 3,
        }
    }
}

fn cfg(seed: u64) -> EngineCfg {
    EngineCfg {
        token_secret: vec![7; 32],
        hold_policy: HoldPolicy::Warn,
        cancel_grace: Duration::from_millis(50),
        cancel_subtasks: !seed.is_multiple_of(5),
        // Too few places now and then.
        queue_limit: if seed.is_multiple_of(7) { 2 } else { 1_000 },
        long_hold: LongHoldConfig {
            heartbeat_interval: Duration::from_secs(2),
            heartbeat_miss_threshold: 2,
            keepalive_on_idle: !seed.is_multiple_of(3),
            ..LongHoldConfig::default()
        },
        retention: Retention {
            settled_tasks: 20,
            settled_age: Duration::from_secs(20),
            session_age: Duration::from_secs(20),
            sweep_interval: Duration::from_secs(1),
            ..Retention::default()
        },
        ..EngineCfg::default()
    }
}

/// A run's trace, what its turns were, and the tasks at its end where that could be asked.
struct Outcome {
    trace: Vec<String>,
    turns: Vec<Turn>,
    tasks: Option<Vec<TaskState>>,
    rules: Rules,
}

/// Runs a plan once, from the first call to the last drop.
fn run(plan: Plan) -> Result<Outcome, (String, Vec<String>)> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let (shared, tasks) = runtime.block_on(async {
        let shared = Shared::new(plan.seed, Rules::from(&cfg(plan.seed)), plan.faults);
        adjutant_actors::hop::install(Some(Rc::new(Hops(shared.clone()))));
        let caught = futures::FutureExt::catch_unwind(AssertUnwindSafe(live(plan, &shared))).await;
        let text =
            |panic: Box<dyn std::any::Any + Send>| adjutant_actors::launch::panic_text(&*panic);
        (shared, caught.map_err(text))
    });
    drop(runtime);
    adjutant_actors::hop::install(None);
    let rules = shared.rules.clone();
    let (trace, turns) = shared.take();
    // The system, its actors and its workers hold the clock; the simulation holds it once.
    let held = Arc::strong_count(&shared.clock);
    match tasks {
        Err(why) => Err((why, trace)),
        Ok(_) if held > 1 => Err((format!("{held} hold the clock at the end"), trace)),
        Ok(tasks) => Ok(Outcome { trace, turns, tasks, rules }),
    }
}

/// A run within its runtime.
async fn live(plan: Plan, shared: &Arc<Shared>) -> Option<Vec<TaskState>> {
    let cfg = cfg(plan.seed);
    let journal = plan.journal.then(MemoryJournal::default);
    let system = match &journal {
        None => ActorSystem::new(cfg, shared.clock.clone()),
        Some(journal) => {
            let opening = Opening {
                journal: Arc::new(journal.clone()),
                clock: shared.clock.clone(),
                supervisor: None,
            };
            ActorSystem::open(cfg, opening).await.unwrap().0
        }
    };
    // It reads nothing until the end.
    let mut slow = system.subscribe_records();
    let disk = journal.map(|journal| tokio::spawn(disk(shared.clone(), journal, plan.fails)));
    let clients = (0..plan.size.clients).map(|_| {
        let (shared, system) = (shared.clone(), system.clone());
        let client = Client {
            shared,
            system,
            faults: plan.faults,
            root_too: plan.root_too,
            left: Vec::new(),
        };
        tokio::spawn(client.run(plan.size.steps))
    });
    let mut left = Vec::new();
    for client in clients.collect::<Vec<_>>() {
        let client = tokio::time::timeout(DAY, client).await.expect("a client hangs");
        left.extend(client.expect("a client panicked").left);
    }
    shared.stop_faults();
    let tasks = end(shared, &system, left).await;
    let report = system.shutdown(Duration::from_secs(1)).await;
    assert!(report.interrupted.is_empty() && report.killed == 0, "{report}");
    if let Some(disk) = disk {
        disk.abort();
        let _ = disk.await;
    }
    let mut last = None;
    loop {
        match slow.try_recv() {
            Ok(record) => {
                assert!(last.is_none_or(|last| record.seq == last + 1), "a gap in the events");
                last = Some(record.seq);
            }
            Err(tokio::sync::broadcast::error::TryRecvError::Lagged(_)) => last = None,
            Err(_) => break,
        }
    }
    tasks
}

/// A disk that is slow, and may fail.
async fn disk(shared: Arc<Shared>, journal: MemoryJournal, fails: bool) {
    journal.hold();
    loop {
        shared.linger(12).await;
        let released = journal.release();
        if released > 0 {
            shared.trace(format!("disk wrote {released}"));
            if fails && shared.chance(2) {
                shared.trace("disk fails".into());
                journal.fail("the disk is gone");
            }
        }
    }
}

/// Ends all work that still goes on, and checks that all comes back to where it began.
async fn end(
    shared: &Arc<Shared>,
    system: &ActorSystem,
    left: Vec<(String, tokio::task::JoinHandle<()>)>,
) -> Option<Vec<TaskState>> {
    let host = |call: Call| system.transact("end", shared.turn(call));
    let _ = host(Call::Pause { who: Who::Host, on: false }).await;
    // Whatever ends by itself has ended after this; the rest hangs, each under its supervisor.
    tokio::time::sleep(Duration::from_secs(60)).await;
    if let Ok(live) = system.with_state("live", |state| state.live_attempts()).await {
        let workers = shared.known(|known| known.workers);
        assert_eq!(live.len(), workers, "live attempts {live:?} and workers");
    }
    // An actor that was ended at its hop may take a call with it, so each is made again.
    for _ in 0..20 {
        let open = system.with_state("open", |state| state.unsettled_tasks()).await;
        let mut open = open.unwrap_or_default();
        open.sort_unstable();
        for (task, _) in open {
            let _ = host(Call::Cancel { who: Who::Host, task }).await;
        }
    }
    for (what, handle) in left {
        match tokio::time::timeout(DAY, handle).await {
            Err(_) => panic!("it hangs: {what}"),
            Ok(Err(error)) if error.is_panic() => panic!("it panicked: {what}: {error}"),
            Ok(_) => {}
        }
    }
    // Nobody beats any more, and that is seen; then, longer than a session is remembered.
    let _ = host(Call::Lapse { budget: 1_000 }).await;
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(shared.known(|known| known.workers), 0, "workers live on");
    // A sweep may be in the queue just now; the next one is far away.
    let mut looks = 0;
    while system.queued_turns() > 0 {
        looks += 1;
        assert!(looks < 500, "{} turns stay in the queue", system.queued_turns());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let look = |state: &mut adjutant_actors::state::EngineState| {
        // Whether it would have run out by itself does not count.
        let records =
            call::POOL.iter().filter_map(|made| state.token_record(made.signed.fingerprint));
        let tokens = records.filter(|token| !token.revoked).count();
        let counts = (state.handle_count(), state.live_tasks(), state.session_count(), tokens);
        (state.audit(), state.live_attempts(), counts)
    };
    let looked = system.with_state("look", look).await;
    if let Ok(looked) = looked {
        assert_eq!(looked, (Ok(()), vec![], (0, 0, 0, 0)), "handles, tasks, sessions, tokens");
        let below = system.root_cell().map(|root| root.get_children()).unwrap_or_default();
        let names: Vec<_> = below.iter().map(|actor| actor.get_type_id()).collect();
        assert_eq!(below.len(), 1, "actors live on: {names:?}");
    }
    let known = shared.known(|known| known.tasks.clone());
    let list = move |state: &mut adjutant_actors::state::EngineState| {
        known.iter().filter_map(|id| state.task(id)).collect::<Vec<_>>()
    };
    system.with_state("list", list).await.ok()
}

/// Plays what the state actor ran on the oracle.
fn replay(outcome: &Outcome) -> Result<(), String> {
    let mut oracle = Oracle::new(outcome.rules.clone());
    for (at, Turn { call, now, reply }) in outcome.turns.iter().enumerate() {
        let (expected, _) = oracle.hear(call, *now);
        if let Some(reply) = reply
            && *reply != expected.clone().map_err(plain)
        {
            return Err(format!("turn {at}, {call:?}:\n  {reply:?}\n  the oracle: {expected:?}"));
        }
    }
    let Some(tasks) = &outcome.tasks else { return Ok(()) };
    for task in tasks {
        let expected = oracle.state_of(task.id);
        if expected.as_ref() != Some(task) {
            return Err(format!("at the end {task:?}\n  the oracle: {expected:?}"));
        }
    }
    let known = oracle.known_tasks().count();
    if known == tasks.len() {
        Ok(())
    } else {
        Err(format!("{} tasks, the oracle: {known}", tasks.len()))
    }
}

/// What has to be met in the traces of many seeds, or they prove nothing.
const MET: [&str; 14] = [
    "hop state Panic",
    "hop waiter Panic",
    "hop attempt Panic",
    "hop session Panic",
    "end of actor",
    "the attempt's supervisor died",
    "the actor tree ended",
    "disk fails",
    "the spawner's own panic",
    "end: TimedOut",
    "SpawnHang",
    "Stubborn",
    "known before",
    "Ok(Paused)",
];

/// Runs a seed twice and on the oracle.
fn check(plan: Plan, met: &mut [usize; MET.len()]) -> Result<usize, (String, Vec<String>)> {
    let (first, second) = (run(plan)?, run(plan)?);
    for (count, what) in met.iter_mut().zip(MET) {
        *count += first.trace.iter().filter(|line| line.contains(what)).count();
    }
    // A root that ends, also by a failed journal, stops what is below it in the order of a random
    // hash of the substrate's, so such runs may differ from there on; all else holds for both.
    let same = |one: &Outcome| replay(one).map_err(|why| (why, one.trace.clone()));
    if plan.root_too || plan.fails {
        return same(&first).and_then(|()| same(&second)).map(|()| first.turns.len());
    }
    let differs = first.trace.iter().zip(&second.trace).position(|(one, two)| one != two);
    let differs = differs.or((first.trace.len() != second.trace.len())
        .then_some(first.trace.len().min(second.trace.len())));
    if let Some(at) = differs {
        let other = second.trace.get(at);
        let why = format!("the second run differs from line {at} on: {other:?}");
        return Err((why, first.trace[..(at + 1).min(first.trace.len())].to_vec()));
    }
    same(&first)?;
    Ok(first.turns.len())
}

fn number(name: &str, other: u64) -> u64 {
    std::env::var(name).ok().map_or(other, |text| text.parse().unwrap())
}

/// Fails with the smallest size of the seed that fails too, and the end of its trace.
fn report(seed: u64, size: Size, failure: (String, Vec<String>)) -> ! {
    let mut found = (size, failure);
    for clients in 1..=size.clients {
        for steps in [1, 2, 3, 5, 8, 12, 18, size.steps] {
            let smaller = Size { clients, steps };
            if clients * steps < found.0.clients * found.0.steps
                && let Err(failure) = check(Plan::of(seed, smaller), &mut [0; MET.len()])
            {
                found = (smaller, failure);
            }
        }
    }
    let (size, (why, trace)) = found;
    drop(std::panic::take_hook());
    let tail = trace[trace.len().saturating_sub(60)..].join("\n  ");
    panic!(
        "seed {seed}, {:?}: {why}\n\nthe end of its trace:\n  {tail}\n\nagain: .ci/simulate --seed {seed}\n",
        Plan::of(seed, size),
    )
}

#[test]
fn every_seed_leaves_the_same_trace_twice_agrees_with_the_oracle_and_comes_to_rest() {
    // Panics are part of the plan; those that count are reported.
    std::panic::set_hook(Box::new(|_| {}));
    let size = Size { clients: 4, steps: 25 };
    let one = std::env::var("ADJUTANT_SIM_SEED").ok().map(|seed| seed.parse().unwrap());
    let seeds = one.map_or(0..number("ADJUTANT_SIM_SEEDS", 300), |seed| seed..seed + 1);
    let began = tokio::time::Instant::now();
    let (mut turns, mut met) = (0, [0; MET.len()]);
    for seed in seeds.clone() {
        match check(Plan::of(seed, size), &mut met) {
            Ok(count) => turns += count,
            Err(failure) => report(seed, size, failure),
        }
    }
    let seeds = seeds.count();
    let met: Vec<_> = MET.iter().zip(met).collect();
    let rate = 2.0 * turns as f64 / began.elapsed().as_secs_f64();
    println!("{seeds} seeds, {turns} turns, each twice, {rate:.0} a second; met: {met:?}");
    assert!(seeds < 300 || met.iter().all(|(_, count)| *count > 0), "never met: {met:?}");
}
