//! The store beside what the disk allows: durable batches a second against a raw append of the
//! same bytes with the same grouping, disk use, and the time to load what is kept.

#![expect(clippy::unwrap_used, reason = "a bench fails by panicking")]
#![expect(clippy::print_stdout, reason = "a bench prints what it measured")]

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use adjutant::journal::{Batch, Journal, frame, restore};
use adjutant::store::{SqliteStore, StoreCfg};
use adjutant::{Access, AttemptEnd, EngineCfg, EngineState, Mint, Role, TaskSpec, TokenRequest};
use adjutant::{ContentRef, Now, OutputEvent, TokenSigner};
use adjutant_actors::state::Rules;
use adjutant_actors::state::attempts::NewAttempt;
use adjutant_actors::state::auth::NewToken;
use adjutant_actors::state::images::Touched;
use adjutant_actors::state::outputs::NewOutput;
use adjutant_actors::state::tasks::NewTask;
use tokio::time::Instant;

/// Lifecycles of tasks, cut into batches.
struct Flow {
    state: EngineState,
    signer: TokenSigner,
    mint: Mint,
    now: Now,
    number: u64,
    epoch: u64,
}

impl Flow {
    fn new() -> Self {
        let mut rules = Rules::from(&EngineCfg::default());
        rules.retention.settled_tasks = u64::MAX;
        Self {
            state: EngineState::new(rules),
            signer: TokenSigner::new([7; 32]),
            mint: Mint::seeded(1),
            now: Now { unix: 1_700_000_000, ms: 0 },
            number: 0,
            epoch: 1,
        }
    }

    /// Runs `count` lifecycles, `finish` of which end, and cuts them into one batch.
    fn batch(&mut self, count: usize, finish: usize) -> Batch {
        let (mut touched, mut effects) = (Touched::default(), Vec::new());
        let limits = EngineCfg::default().limits;
        for at in 0..count {
            self.now.ms += 1;
            let now = self.now;
            let task = self.mint.task_id();
            let spec = Arc::new(TaskSpec::new("coder", "write the part, test it, report"));
            let new = NewTask::new(task, spec);
            self.turn(&mut touched, &mut effects, |state| {
                state.create_task(Access::Trusted, new, now).unwrap();
            });
            if at >= finish {
                continue;
            }
            let (token, signed) = self.signer.mint_at(TokenRequest {
                agent_id: "W-1".to_owned(),
                role: Role::Worker,
                scopes: vec!["*".to_owned()],
                issued_at: now.unix,
                ttl: Duration::from_secs(3600),
                max_uses: None,
                nonce: self.mint.nonce(),
            });
            let handle = self.signer.handle_key(&self.mint.nonce());
            let token = NewToken { token, signed, deadline_ms: now.ms + 3_600_000 };
            let new = NewAttempt { task, token, handle, prompt: None, key: None };
            self.turn(&mut touched, &mut effects, |state| {
                state.begin_attempt(Access::Trusted, new, now).unwrap();
            });
            let content = ContentRef::inline(serde_json::json!({ "answer": "x".repeat(100) }));
            let new =
                NewOutput::prepare(OutputEvent::Final { content, ok: true }, &limits).unwrap();
            self.turn(&mut touched, &mut effects, |state| {
                state.append_output(Access::Trusted, task, 1, new, now).unwrap();
            });
            self.turn(&mut touched, &mut effects, |state| {
                state.finish_attempt(task, 1, AttemptEnd::Done, now).unwrap();
            });
        }
        self.number += 1;
        Batch::cut(&self.state, &mut touched, &effects, self.number, self.epoch, self.now)
    }

    fn turn(
        &mut self,
        touched: &mut Touched,
        effects: &mut Vec<adjutant_actors::state::effect::Effect>,
        act: impl FnOnce(&mut EngineState),
    ) {
        act(&mut self.state);
        self.state.note_touched(touched);
        self.state.commit(effects);
    }
}

fn folder_bytes(path: &Path) -> u64 {
    std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
}

/// Appends batches of one lifecycle with `flight` on their way; beside it, the same frames to a
/// file, flushed in the same groups.
fn commits(flight: usize, count: usize) {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(dir.path().join("store"), StoreCfg::default()).unwrap();
    let mut flow = Flow::new();
    restore(&store, Rules::from(&EngineCfg::default())).unwrap();
    flow.epoch = store.lead().unwrap();
    let batches: Vec<Batch> = (0..count).map(|_| flow.batch(1, 1)).collect();
    let mut frames = Vec::new();
    for batch in &batches {
        let mut out = Vec::new();
        frame::write(batch, |_| true, &mut out).unwrap();
        frames.push(out);
    }
    let bytes: usize = frames.iter().map(Vec::len).sum();

    let mut raw = File::create(dir.path().join("raw")).unwrap();
    let start = Instant::now();
    for group in frames.chunks(flight) {
        for frame in group {
            raw.write_all(frame).unwrap();
        }
        raw.sync_data().unwrap();
    }
    let raw = count as f64 / start.elapsed().as_secs_f64();

    let (tell, told) = mpsc::channel();
    let start = Instant::now();
    let mut waits = Vec::with_capacity(count);
    for (at, batch) in batches.into_iter().enumerate() {
        if at >= flight {
            waits.push(told.recv().unwrap());
        }
        let (tell, sent) = (tell.clone(), Instant::now());
        store.append(
            batch,
            Box::new(move |result| {
                result.unwrap();
                let _ = tell.send(sent.elapsed());
            }),
        );
    }
    store.flush().unwrap();
    let took = count as f64 / start.elapsed().as_secs_f64();
    waits.sort_unstable();
    let at = |share: f64| waits[((waits.len() - 1) as f64 * share) as usize];
    store.close().unwrap();
    let disk = folder_bytes(&dir.path().join("store"));
    println!(
        "{flight:>4} on their way: {took:>8.0} lifecycles/s, raw append {raw:>8.0}, ratio {:.2}, \
         p50 {:?}, p99 {:?}, frame {} B, disk {} B per lifecycle",
        took / raw,
        at(0.5),
        at(0.99),
        bytes / count,
        disk / count as u64,
    );
}

/// Loads 100,000 finished and 10,000 open tasks.
fn recovery() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let store = SqliteStore::open(&path, StoreCfg::default()).unwrap();
    let mut flow = Flow::new();
    flow.epoch = store.lead().unwrap();
    for _ in 0..500 {
        store.append(flow.batch(220, 200), Box::new(|result| result.unwrap()));
        store.flush().unwrap();
    }
    store.close().unwrap();
    drop((store, flow));
    let bytes = std::fs::read(path.join("store.db")).unwrap().len();
    let start = Instant::now();
    let read = std::fs::read(path.join("store.db")).unwrap().len();
    let reading = start.elapsed();
    let start = Instant::now();
    let store = SqliteStore::open(&path, StoreCfg::default()).unwrap();
    let mut rules = Rules::from(&EngineCfg::default());
    rules.retention.settled_tasks = u64::MAX;
    let mut restored = restore(&store, rules).unwrap();
    restored.state.recover(Now { unix: 1_700_000_100, ms: 10_000_000 });
    let took = start.elapsed();
    assert_eq!((restored.state.task_count(), read), (110_000, bytes));
    println!(
        "recovery of 100000 finished and 10000 open tasks: {took:?} for {} MiB, which are read in \
         {reading:?}",
        bytes >> 20,
    );
}

fn main() {
    for (flight, count) in [(1, 1_000), (16, 8_000), (64, 16_000), (256, 24_000)] {
        commits(flight, count);
    }
    recovery();
}
