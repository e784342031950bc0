//! The same workloads on adjutant, on its known peer, and on bare actors, as one table.
//!
//! All run in this one process and on one runtime of two workers, one after the other within a
//! round, so that what the machine does meanwhile falls on all of them. Each is started anew for
//! its part of a round and has ended before the next one begins. Nobody listens to spans.

use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;

mod closed_loop;
mod peer;
mod records;
mod report;

use closed_loop::{Round, Scale, closed_loop, median};
use peer::{ActixActor, Adjutant, KameoActor, MluaSwarm, Peer, RactorActor, Work};
use report::Row;

/// A contender as the table needs it: its names, and how it does one part of a round.
struct Contender {
    name: &'static str,
    floor: bool,
    part: fn(Work, usize, Duration) -> BoxFuture<'static, Round>,
}

fn contender<P: Peer>() -> Contender {
    Contender {
        name: P::NAME,
        floor: P::FLOOR,
        part: |work, callers, window| part::<P>(work, callers, window).boxed(),
    }
}

async fn part<P: Peer>(work: Work, callers: usize, window: Duration) -> Round {
    let peer = P::start(work).await;
    let round = closed_loop(&peer, work, callers, window).await;
    peer.stop().await;
    round
}

/// One work at one number of callers: every contender in turn, as many rounds as asked for.
async fn group(work: Work, callers: usize, contenders: &[Contender], scale: Scale) -> Vec<Row> {
    let name = match work {
        Work::Turns => "turns",
        Work::Lifecycle => "lifecycle",
        Work::Owned => "owned",
    };
    report::under_way(name, callers);
    let mut rounds: Vec<Vec<Round>> = contenders.iter().map(|_| Vec::new()).collect();
    for _ in 0..scale.rounds {
        for (contender, own) in contenders.iter().zip(&mut rounds) {
            own.push((contender.part)(work, callers, scale.window).await);
        }
    }
    let medians: Vec<_> = rounds.into_iter().map(median).collect();
    let rate_of = |wanted: &str| {
        let mut both = contenders.iter().zip(&medians);
        both.find(|(contender, _)| contender.name == wanted).map(|(_, round)| round.rate)
    };
    let adjutant = rate_of(Adjutant::NAME).expect("adjutant is a contender of every work");
    let ractor = rate_of(RactorActor::NAME).filter(|_| work == Work::Turns);
    let row = |(contender, round): (&Contender, Round)| {
        let is_floor = contender.floor && work != Work::Turns;
        let what = if is_floor { "floor: five times " } else { "" };
        let contender = format!("{what}{}", contender.name);
        Row { work: name, callers, contender, round, adjutant, ractor }
    };
    contenders.iter().zip(medians.clone()).map(row).collect()
}

async fn bench() {
    let scale = Scale::from_env();
    let engines = || vec![contender::<Adjutant>(), contender::<MluaSwarm>()];
    let mut all = engines();
    all.extend([contender::<KameoActor>(), contender::<ActixActor>(), contender::<RactorActor>()]);
    let mut rows = Vec::new();
    for callers in [1, 8, 64, 512] {
        rows.extend(group(Work::Turns, callers, &all, scale).await);
    }
    for callers in [1, 64, 512] {
        rows.extend(group(Work::Lifecycle, callers, &all, scale).await);
    }
    for callers in [1, 64, 512] {
        rows.extend(group(Work::Owned, callers, &engines(), scale).await);
    }
    report::print(&rows);
    report::write(&rows, scale);
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime can be built");
    runtime.block_on(bench());
}
