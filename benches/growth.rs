//! Growth: the longest turn while the tables grow by one record a turn, beside what the machine takes
//! from anybody.

use std::time::Duration;

use adjutant::{Engine, EngineState};

use crate::calm::calm;
use crate::fill::{self, Kind, Seed};
use crate::harness::report::{Bound, Report};
use crate::harness::{Scale, middle, runtime};

/// Callers that plant records.
const CALLERS: usize = 8;

/// Longest turn of one growth, in milliseconds, and the time that all its turns took together.
async fn growth(kind: Kind, count: usize) -> (f64, Duration) {
    let mut cfg = calm();
    cfg.retention.settled_tasks = u64::MAX;
    cfg.limits.sessions = u64::MAX;
    cfg.limits.tokens = u64::MAX;
    cfg.limits.live_tasks = u64::MAX;
    let engine = Engine::new(cfg);
    let now = fill::now();
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let engine = engine.clone();
            tokio::spawn(async move {
                let (mut longest, mut sum) = (Duration::ZERO, Duration::ZERO);
                for _ in 0..count / CALLERS {
                    let seed = Seed::new(&engine, kind, now);
                    let turn = move |state: &mut EngineState| {
                        let start = thread_time();
                        seed.plant(state, now);
                        thread_time().saturating_sub(start)
                    };
                    let held = engine.with_state("grow", turn).await.expect("the engine runs");
                    longest = longest.max(held);
                    sum += held;
                }
                (longest, sum)
            })
        })
        .collect();
    let (mut longest, mut sum) = (Duration::ZERO, Duration::ZERO);
    for caller in callers {
        let (one, all) = caller.await.expect("a caller does not panic");
        longest = longest.max(one);
        sum += all;
    }
    (longest.as_secs_f64() * 1e3, sum)
}

/// The longest that a step of a loop took which does nothing but read the clock, within `sum` of
/// its thread's time: what the machine takes from anybody and counts as the thread's own.
fn held_up(sum: Duration) -> f64 {
    let first = thread_time();
    let (mut longest, mut last) = (Duration::ZERO, first);
    while last.saturating_sub(first) < sum {
        let time = thread_time();
        longest = longest.max(time.saturating_sub(last));
        last = time;
    }
    longest.as_secs_f64() * 1e3
}

/// The longest time that a bare loop takes to allocate what one record holds, about a kilobyte in
/// eight pieces: what the allocator and the kernel cost anybody who keeps so much.
fn bare_growth(count: usize) -> f64 {
    let mut kept = Vec::with_capacity(count);
    let mut longest = Duration::ZERO;
    for at in 0..count {
        let start = thread_time();
        let pieces: [Box<[u8]>; 8] = std::array::from_fn(|_| vec![at as u8; 128].into());
        longest = longest.max(thread_time().saturating_sub(start));
        kept.push(pieces);
    }
    drop(std::hint::black_box(kept));
    longest.as_secs_f64() * 1e3
}

/// Time that this thread has run. While the kernel runs others in its place, it stands still, so
/// a loaded machine makes no turn longer.
fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).expect("a thread's time is not negative")
}

/// The kinds by their names.
const KINDS: [(&str, Kind); 4] = [
    ("finished tasks with attempt and output", Kind::Finished),
    ("live attempts with token and handle", Kind::Live),
    ("open questions with their tasks", Kind::Question),
    ("sessions with their tokens", Kind::Session),
];

/// Says to a process of this bench that it is one growth: the number of its kind, and of records.
const ASKED: &str = "ADJUTANT_BENCH_GROWTH";

/// One growth, where this process is to be that: prints the milliseconds of its longest turn, and
/// those that a bare loop was held up that ran as long as all turns did.
#[expect(clippy::print_stdout, reason = "the process that asked reads it")]
pub(crate) fn was_asked() -> bool {
    let Ok(asked) = std::env::var(ASKED) else { return false };
    let (kind, count) = asked.split_once(' ').expect("a kind and a number");
    let (_, kind) = KINDS[kind.parse::<usize>().expect("the number of a kind")];
    let (longest, sum) = runtime().block_on(growth(kind, count.parse().expect("a number")));
    println!("{longest} {}", held_up(sum));
    true
}

/// One growth in a process of its own: where another one let a million records go before, the
/// allocator's tidying of them would be counted for the turn in which it happens to be done.
fn alone(kind: usize, count: usize) -> (f64, f64) {
    let own = std::env::current_exe().expect("a bench knows its program");
    let child = std::process::Command::new(own).env(ASKED, format!("{kind} {count}")).output();
    let told = child.expect("a bench starts itself").stdout;
    let told = String::from_utf8(told).expect("figures are text");
    let figure = |text: &str| text.trim().parse::<f64>().expect("a figure");
    let (longest, idle) = told.split_once(' ').expect("two figures");
    (figure(longest), figure(idle))
}

/// The longest turn while each kind of record grows from none to a million, one a turn: the time
/// that its thread spent in the transitions, the growth of the tables included.
pub(crate) fn longest_turns(report: &mut Report, scale: Scale) {
    let count = scale.pick(1_000_000, 40_000);
    let group = format!("the longest turn while records grow to {count}, one a turn");
    report.heading(&group);
    let (mut worst, mut idle): (f64, Vec<f64>) = (0.0, Vec::new());
    for (kind, (name, _)) in KINDS.iter().enumerate() {
        let mut longest = Vec::new();
        for _ in 0..scale.pick(5, 2) {
            let (one, held_up) = alone(kind, count);
            longest.push(one);
            idle.push(held_up);
        }
        let median = middle(longest);
        report.figure(&group, name, median, "ms");
        worst = worst.max(median);
    }
    let longest = (0..scale.pick(3, 2)).map(|_| bare_growth(count)).collect();
    report.figure(
        &group,
        "floor: as many bytes allocated and kept in a bare loop",
        middle(longest),
        "ms",
    );
    report.figure(&group, "floor: a loop that only reads the clock, as long", middle(idle), "ms");
    let measure = format!("longest single turn, growth to {count} records of each kind");
    report.target(&measure, worst, Bound::AtMost, 5.0, Some(1.0), "ms");
}
