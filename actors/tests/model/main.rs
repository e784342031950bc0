//! The synchronous core against an oracle: histories by chance, and all short ones of a small world.
//!
//! `ADJUTANT_MODEL_CASES` and `ADJUTANT_MODEL_STEPS` make it longer, `ADJUTANT_MODEL_SEED` plays one
//! history alone. What fails prints its seed, its shortest form and the command that plays it again.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::draw::{Kind, Step};
use crate::play::{Failure, Pair, changes, history, play, rules, shorten};

mod call;
mod draw;
mod edges;
mod oracle;
mod play;

fn number(name: &str, other: u64) -> u64 {
    std::env::var(name).ok().map_or(other, |text| text.parse().expect("the variable is a number"))
}

/// Fails with the shortest form of a history.
fn report(seed: u64, length: usize, failure: &Failure) -> ! {
    let rules = rules(seed);
    let short = shorten(&rules, history(seed, length)[..(failure.at + 1).min(length)].to_vec());
    let cut = play(&rules, &short).expect_err("a shortened history fails too");
    panic!(
        "seed {seed}, step {} of {length}: {}\n\nshortened to {} steps:\n  {}\n  => {}\n\nagain: \
         ADJUTANT_MODEL_SEED={seed} ADJUTANT_MODEL_STEPS={length} cargo test -p adjutant-actors \
         --test model histories\n",
        failure.at + 1,
        failure.why,
        short.len(),
        cut.calls.join("\n  "),
        cut.why,
    )
}

#[test]
fn histories_by_chance_are_answered_as_the_oracle_says() {
    let length = number("ADJUTANT_MODEL_STEPS", 50) as usize;
    if let Ok(seed) = std::env::var("ADJUTANT_MODEL_SEED") {
        let seed = seed.parse().unwrap();
        if let Err(failure) = play(&rules(seed), &history(seed, length)) {
            report(seed, length, &failure);
        }
        return;
    }
    let cases = number("ADJUTANT_MODEL_CASES", 20_000);
    let next = AtomicU64::new(0);
    let worst = || loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= cases {
            return None;
        }
        if let Err(failure) = play(&rules(seed), &history(seed, length)) {
            next.store(cases, Ordering::Relaxed);
            return Some((seed, failure));
        }
    };
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let failed = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(worst)).collect();
        threads.into_iter().filter_map(|thread| thread.join().unwrap()).min_by_key(|it| it.0)
    });
    if let Some((seed, failure)) = failed {
        report(seed, length, &failure);
    }
}

/// The first word of a value's debug text: the name of its variant.
fn variant(value: &impl std::fmt::Debug) -> String {
    let text = format!("{value:?}");
    text.split(|letter: char| !letter.is_alphanumeric()).next().unwrap().to_owned()
}

/// The generator is not blind: it meets each call done and refused, and each refusal there is.
#[test]
fn histories_reach_every_call_and_every_refusal() {
    let mut met = BTreeMap::<String, u32>::new();
    for seed in 0..600 {
        let mut pair = Pair::new(rules(seed));
        for step in history(seed, 50) {
            let (Some(call), Ok(reply)) = pair.step(&step) else { continue };
            let what = match &reply {
                Ok(said) => variant(said),
                Err(error) => variant(error),
            };
            *met.entry(what).or_default() += 1;
            *met.entry(format!("{} {}", variant(&call), reply.is_ok())).or_default() += 1;
        }
    }
    println!("{met:#?}");
    let calls = "Attach Beat Detach Session Start Step Dispatch Pull Read Cancel Post Output Bake Ask \
                 Answer Look Mark Inject Pause Mint Verify Revoke Handle OpenRun EndRun ResumeRun \
                 SetResource Fetch Verdict";
    let both =
        calls.split_whitespace().flat_map(|call| [format!("{call} true"), format!("{call} false")]);
    let said = "Known Paused BadSignature TokenExpired TokenUsesExhausted TokenRevoked TokenNotFound \
                TokenTaskMismatch TaskNotFound SessionNotFound ResumeKeyNotFound RunNotFound RunState \
                ResourceNotFound InvalidTransition SpawnDepthExceeded ChildLimitExceeded \
                TaskLimitExceeded TableFull OutputLimitExceeded KeyConflict";
    let all = both.chain(said.split_whitespace().map(str::to_owned));
    let never: Vec<_> = all.filter(|what| !met.contains_key(what)).collect();
    assert!(never.is_empty(), "never met: {never:?}");
}

/// Counts of an exhaustive search.
#[derive(Default)]
struct Searched {
    histories: u64,
    refused: u64,
}

/// Plays every history of `depth` more steps. What is refused changes nothing, so nothing below it
/// is new.
fn search(pair: &Pair, steps: &[Step], depth: u32, path: &mut Vec<Step>, count: &mut Searched) {
    for step in steps {
        let mut next = pair.clone();
        path.push(*step);
        count.histories += 1;
        let (_, played) = next.step(step);
        match played.and_then(|reply| next.compare_all().map(|()| reply)) {
            Ok(reply) if !changes(&reply) => count.refused += 1,
            Ok(_) if depth > 1 => search(&next, steps, depth - 1, path, count),
            Ok(_) => {}
            Err(why) => panic!("{path:#?}\n  => {why}"),
        }
        path.pop();
    }
}

/// A small world: one session, one task with its attempts, everything that can happen to it.
#[test]
fn every_short_history_of_one_task_is_answered_as_the_oracle_says() {
    let step = |kind, how| Step { kind, who: 0, what: 0, how };
    let steps = [
        step(Kind::Dispatch, [2, 2, 3]),
        step(Kind::Output, [1, 4, 1]),
        step(Kind::Output, [1, 6, 3]),
        step(Kind::Finish, [0, 0, 1]),
        step(Kind::Finish, [0, 3, 1]),
        step(Kind::Finish, [0, 4, 1]),
        step(Kind::Ask, [0, 1, 1]),
        step(Kind::Answer, [0, 0, 1]),
        step(Kind::Cancel, [1; 3]),
        step(Kind::Mark, [1, 1, 2]),
        step(Kind::Inject, [1; 3]),
        step(Kind::InterruptAll, [1; 3]),
        step(Kind::Wait, [5, 255, 0]),
        step(Kind::Sweep, [2, 1, 1]),
    ];
    let mut pair = Pair::new(rules(0));
    for first in [step(Kind::Attach, [0, 2, 5]), step(Kind::Start, [255, 2, 2])] {
        pair.step(&first).1.unwrap().unwrap();
    }
    let depth = number("ADJUTANT_MODEL_DEPTH", 5) as u32;
    let mut count = Searched::default();
    search(&pair, &steps, depth, &mut Vec::new(), &mut count);
    println!("{} histories of {depth} steps, {} refused", count.histories, count.refused);
    assert!(count.refused > 0 && count.histories > 10_000);
}
