//! The crash loop: an engine in a process of its own, under mixed load, is killed at random moments
//! again and again. Whatever it acknowledged on its pipe is there, and nothing is there twice.
//!
//! `ADJUTANT_CRASH_ROUNDS` asks for more rounds than the 200 of every run.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use adjutant::Mint;

use crate::world::Folder;

mod child;
mod ledger;

use self::ledger::{Ack, Ledger};

const PLACE: &str = "ADJUTANT_TEST_CRASH_PLACE";
const SEED: &str = "ADJUTANT_TEST_CRASH_SEED";
const HASTY: &str = "ADJUTANT_TEST_CRASH_HASTY";
/// Rounds on one store, so that it stays small enough to look at all of it after each.
const ROUNDS_A_STORE: u64 = 10;
/// Stores that are worked on at once.
const LANES: u64 = 2;

/// What the rounds of a lane came to.
#[derive(Debug, Default, Clone, Copy)]
struct Sum {
    rounds: u64,
    acks: usize,
    /// Rounds whose process was killed before it acknowledged anything, in its recovery mostly.
    silent: u64,
    /// Attempts that a later process found at work and ended.
    interrupted: usize,
}

#[test]
fn an_engine_in_a_process_of_its_own() {
    let Some(place) = std::env::var_os(PLACE) else { return };
    let seed = std::env::var(SEED).unwrap().parse().unwrap();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(child::work(Path::new(&place), seed, std::env::var_os(HASTY).is_some()));
}

fn spawn(place: &Path, seed: u64, hasty: bool) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "crash::an_engine_in_a_process_of_its_own", "--nocapture"]);
    command.env(PLACE, place).env(SEED, seed.to_string());
    if hasty {
        command.env(HASTY, "1");
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap()
}

/// Lets an engine work until a moment that the seed picks, kills it, and gives what it said.
fn round(place: &Path, seed: u64, hasty: bool) -> Vec<Ack> {
    let mut child = spawn(place, seed, hasty);
    let (tell, told) = mpsc::channel();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let reader = std::thread::spawn(move || {
        for ack in lines.map_while(Result::ok).filter_map(|line| Ack::parse(&line)) {
            let _ = tell.send(ack);
        }
    });
    let draw = Mint::seeded(seed).bits128();
    let some = |bits: u128, most: u64| Duration::from_micros((bits as u64) % most);
    let mut acks = Vec::new();
    if draw.is_multiple_of(8) {
        // Most likely while it starts or recovers.
        std::thread::sleep(some(draw >> 8, 60_000));
    } else {
        acks.push(told.recv_timeout(Duration::from_secs(60)).expect("the engine opens and works"));
        std::thread::sleep(some(draw >> 8, 200_000));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    reader.join().unwrap();
    acks.extend(told);
    acks
}

/// Crashes engines on fresh stores, and says what was lost, if anything was.
fn lane(lane: u64, rounds: u64, hasty: bool) -> Result<Sum, String> {
    let mut sum = Sum::default();
    while sum.rounds < rounds {
        let folder = Folder::new();
        let mut ledger = Ledger::default();
        for _ in 0..ROUNDS_A_STORE.min(rounds - sum.rounds) {
            let seed = lane * 1_000_000 + sum.rounds;
            let acks = round(&folder.path(), seed, hasty);
            sum.rounds += 1;
            sum.acks += acks.len();
            sum.silent += u64::from(acks.is_empty());
            sum.interrupted += ledger
                .check(&folder.path(), &acks)
                .map_err(|lost| format!("after the kill of round {seed}: {lost}"))?;
        }
    }
    Ok(sum)
}

#[test]
fn what_was_acknowledged_before_a_kill_is_there_after_it_and_nothing_is_there_twice() {
    let rounds = std::env::var("ADJUTANT_CRASH_ROUNDS").ok().and_then(|text| text.parse().ok());
    let rounds = rounds.unwrap_or(200_u64);
    let lanes: Vec<_> =
        (0..LANES).map(|at| std::thread::spawn(move || lane(at, rounds / LANES, false))).collect();
    let sums: Vec<Sum> = lanes.into_iter().map(|lane| lane.join().unwrap().unwrap()).collect();
    let all = |part: fn(&Sum) -> usize| sums.iter().map(part).sum::<usize>();
    println!("{sums:?}");
    // A loop in which nothing happens would prove nothing.
    let rounds = all(|sum| usize::try_from(sum.rounds).unwrap());
    assert!(all(|sum| sum.acks) > 20 * rounds, "{sums:?}");
    assert!(all(|sum| sum.interrupted) > rounds, "{sums:?}");
    assert!(all(|sum| usize::try_from(sum.silent).unwrap()) < rounds / 4, "{sums:?}");
}

#[test]
fn the_crash_loop_finds_a_journal_that_calls_batches_safe_too_early() {
    let found = lane(77, 60, true);
    let lost = found.expect_err("60 kills, and nothing that was acknowledged early was lost");
    assert!(lost.contains("was acknowledged"), "{lost}");
}
