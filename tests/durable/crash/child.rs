//! The engine that is killed: mixed load by some clients, each call with a mark of its own, and a
//! line on the pipe for each that was acknowledged.

use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use adjutant::journal::{Batch, Done, Head, Journal, JournalError};
use adjutant::store::{SqliteStore, StoreCfg};
use adjutant::{
    CapToken, ContentRef, DispatchOutcome, Engine, EngineCfg, EngineError, EventRecord, HoldPolicy,
    InProcSpawner, LayerRegistry, OutputEvent, Role, SpawnerAdapter, TaskId, TaskSpec, TaskStatus,
    WorkerError, WorkerInvocation, WorkerResult,
};
use adjutant_actors::state::images::{Row, SetAside};
use adjutant_actors::state::outputs::BodyHash;
use serde_json::json;

use super::ledger::Ack;
use crate::world::DAY;

/// Calls that go on at the same time.
const CLIENTS: u64 = 6;
/// Tasks of the process before that are taken up again.
const LEFTOVERS: usize = 12;

pub(super) fn cfg() -> EngineCfg {
    EngineCfg { hold_policy: HoldPolicy::Warn, ..EngineCfg::default() }
}

/// Folds and checkpoints often, so that kills meet these too.
pub(super) fn store_cfg() -> StoreCfg {
    StoreCfg { fold_bytes: 64 << 10, checkpoint_bytes: 256 << 10, ..StoreCfg::default() }
}

fn say(ack: &Ack) {
    let mut line = serde_json::to_vec(ack).unwrap();
    line.push(b'\n');
    // One write, so that no line comes in two.
    let mut out = std::io::stdout().lock();
    out.write_all(&line).unwrap();
    out.flush().unwrap();
}

/// What all clients share.
struct Load {
    engine: Engine,
    operator: CapToken,
    senior: CapToken,
    spawner: Arc<dyn SpawnerAdapter>,
    seed: u64,
    marks: Arc<AtomicU64>,
}

fn mark(seed: u64, marks: &AtomicU64) -> String {
    format!("{seed}.{}", marks.fetch_add(1, Ordering::Relaxed))
}

/// Works until it is killed.
pub(super) async fn work(place: &Path, seed: u64, hasty: bool) {
    // The harness has begun a line.
    std::io::stdout().write_all(b"\n").unwrap();
    std::panic::set_hook(Box::new(|panic| say(&Ack::Broke { why: panic.to_string() })));
    let store = SqliteStore::open(place, store_cfg()).unwrap();
    let cfg = EngineCfg { token_secret: store.secret().to_vec(), ..cfg() };
    let journal: Arc<dyn Journal> =
        if hasty { Arc::new(Hasty::around(store)) } else { Arc::new(store) };
    let engine = Engine::open(cfg, LayerRegistry::new(), journal).await.unwrap();
    let mut heard = engine.subscribe_records();
    let recovery = engine.recovery();
    say(&Ack::Opened { epoch: recovery.epoch, interrupted: recovery.interrupted.len() });
    tokio::spawn(async move {
        while let Ok(record) = heard.recv().await {
            let (kind, task) = (record.event.kind().to_owned(), record.event.task_id());
            say(&Ack::Heard { seq: record.seq, kind, task });
        }
    });
    let (operator, senior) = people(&engine, place).await;
    let marks = Arc::new(AtomicU64::new(0));
    let spawner = agents(&engine, &operator, &senior, seed, &marks);
    let load = Arc::new(Load { engine, operator, senior, spawner, seed, marks });
    tokio::spawn({
        let load = load.clone();
        async move { load.take_up().await }
    });
    let clients: Vec<_> = (0..CLIENTS)
        .map(|at| {
            let load = load.clone();
            tokio::spawn(async move {
                // More than any parent waits for.
                for step in at..100_000 {
                    load.step(step).await;
                }
            })
        })
        .collect();
    for client in clients {
        client.await.unwrap();
    }
}

/// The sessions of the first process on this place, by their old tokens.
async fn people(engine: &Engine, place: &Path) -> (CapToken, CapToken) {
    let file = place.join("people.json");
    if let Some(people) = std::fs::read(&file).ok().and_then(|b| serde_json::from_slice(&b).ok()) {
        let people: (CapToken, CapToken) = people;
        engine.heartbeat(&people.0).await.unwrap();
        engine.heartbeat(&people.1).await.unwrap();
        return people;
    }
    let operator = engine.attach("operator", Role::Operator, DAY).await.unwrap();
    let senior = engine.attach("senior", Role::Senior, DAY).await.unwrap();
    let whole = place.join("people.whole");
    std::fs::write(&whole, serde_json::to_vec(&(&operator, &senior)).unwrap()).unwrap();
    std::fs::rename(whole, file).unwrap();
    (operator, senior)
}

impl Load {
    fn mark(&self) -> String {
        mark(self.seed, &self.marks)
    }

    /// Goes on with what the process before left: answers open questions, dispatches again.
    async fn take_up(&self) {
        let look = |state: &mut adjutant::EngineState| {
            let open = state.tasks_with(|status| {
                matches!(status, TaskStatus::Suspended | TaskStatus::Running | TaskStatus::Blocked)
            });
            let open = open.into_iter().rev().take(LEFTOVERS);
            open.filter_map(|task| state.task(&task)).collect::<Vec<_>>()
        };
        for task in self.engine.with_state("look", look).await.unwrap() {
            if let Some(key) = task.suspended_on {
                let mark = self.mark();
                self.engine.answer_query(&self.senior, key, json!(mark)).await.unwrap();
                say(&Ack::Answered { key, mark });
            }
            self.dispatch(task.id).await;
        }
    }

    async fn start(&self, agent: &str) -> TaskId {
        let directive = self.mark();
        let spec = TaskSpec::new(agent, directive.clone());
        let task = self.engine.start_task(&self.operator, spec).await.unwrap();
        say(&Ack::Started { task, directive });
        task
    }

    async fn dispatch(&self, task: TaskId) {
        let end = self.engine.dispatch_attempt_with(&self.operator, &task, &self.spawner).await;
        if let Ok(DispatchOutcome::Pass(value)) = end {
            let attempt = self.engine.task_attempt(&task).await.unwrap();
            say(&Ack::Passed { task, attempt, mark: value.as_str().unwrap().to_owned() });
        }
    }

    async fn step(&self, step: u64) {
        match step % 6 {
            0 => {
                let task = self.start("plain").await;
                self.engine.cancel_task(&self.operator, &task).await.unwrap();
                say(&Ack::Cancelled { task });
            }
            1 => self.dispatch(self.start("asks").await).await,
            2 => self.dispatch(self.start("parent").await).await,
            3 => self.dispatch(self.start("limited").await).await,
            4 => {
                let task = self.start("hangs").await;
                let cancel = async {
                    self.engine.cancel_task(&self.operator, &task).await.unwrap();
                    say(&Ack::Cancelled { task });
                };
                tokio::join!(self.dispatch(task), cancel);
            }
            _ => self.dispatch(self.start("plain").await).await,
        }
    }
}

/// What the workers of the load have.
#[derive(Clone)]
struct Hands {
    engine: Engine,
    operator: CapToken,
    senior: CapToken,
    seed: u64,
    marks: Arc<AtomicU64>,
}

fn agents(
    engine: &Engine,
    operator: &CapToken,
    senior: &CapToken,
    seed: u64,
    marks: &Arc<AtomicU64>,
) -> Arc<dyn SpawnerAdapter> {
    let hands = Hands {
        engine: engine.unanchored(),
        operator: operator.clone(),
        senior: senior.clone(),
        seed,
        marks: marks.clone(),
    };
    let mut spawner = InProcSpawner::new();
    for agent in ["plain", "asks", "parent", "limited", "hangs"] {
        let hands = hands.clone();
        spawner.register(agent, move |call| hands.clone().run(call));
    }
    Arc::new(spawner)
}

impl Hands {
    async fn run(self, call: WorkerInvocation) -> Result<WorkerResult, WorkerError> {
        say(&Ack::Begun { task: call.task_id, attempt: call.attempt });
        let done = match call.agent.as_str() {
            "asks" => self.ask(&call).await,
            "parent" => self.spawn(&call).await,
            "limited" => self.spend(&call).await,
            "hangs" if call.attempt == 1 => std::future::pending().await,
            _ => Ok(()),
        };
        done.map_err(|error| WorkerError::Failed(error.to_string()))?;
        self.send(&call).await.map_err(|error| WorkerError::Failed(error.to_string()))?;
        let value = json!(mark(self.seed, &self.marks));
        Ok(WorkerResult { value, ok: true })
    }

    /// Sends a small and a large output.
    async fn send(&self, call: &WorkerInvocation) -> Result<(), EngineError> {
        let (task, attempt) = (call.task_id, call.attempt);
        let sink = call.sink.clone().unwrap();
        let stage = mark(self.seed, &self.marks);
        sink.emit(OutputEvent::Progress { stage: stage.clone(), note: None }).await?;
        say(&Ack::Output { task, attempt, mark: stage });
        let name = mark(self.seed, &self.marks);
        let content = ContentRef::inline(json!(name.repeat(4_000)));
        sink.emit(OutputEvent::Artifact { name: name.clone(), content }).await?;
        say(&Ack::Output { task, attempt, mark: name });
        Ok(())
    }

    /// Asks a question; one in four stays open until a later process answers it.
    async fn ask(&self, call: &WorkerInvocation) -> Result<(), EngineError> {
        let task = call.task_id;
        let mark = mark(self.seed, &self.marks);
        let key = self.engine.query_senior(&self.operator, &task, json!(mark)).await?;
        say(&Ack::Asked { task, key });
        if call.attempt == 1 && mark.ends_with(['3', '7']) {
            return std::future::pending().await;
        }
        self.engine.answer_query(&self.senior, key, json!(mark)).await?;
        say(&Ack::Answered { key, mark: mark.clone() });
        assert_eq!(self.engine.await_resume(key, DAY).await?, json!(mark));
        Ok(())
    }

    async fn spawn(&self, call: &WorkerInvocation) -> Result<(), EngineError> {
        let parent = call.task_id;
        let directive = mark(self.seed, &self.marks);
        let spec = TaskSpec::new("plain", directive.clone());
        let child = self.engine.start_task(&call.token, spec).await?;
        say(&Ack::Started { task: child, directive });
        say(&Ack::SubTask { parent, child });
        Ok(())
    }

    async fn spend(&self, call: &WorkerInvocation) -> Result<(), EngineError> {
        let task = call.task_id;
        let limited = self.engine.mint_worker_token(&self.operator, &task, DAY, Some(4)).await?;
        let token = limited.fingerprint();
        say(&Ack::Used { token, left: 4 });
        for left in (0..4).rev() {
            self.engine.fetch_prompt(&limited, &task).await?;
            say(&Ack::Used { token, left });
        }
        assert!(self.engine.fetch_prompt(&limited, &task).await.is_err());
        Ok(())
    }
}

/// A journal that calls every batch safe at once, and writes it a little later.
struct Hasty {
    store: Arc<SqliteStore>,
    later: mpsc::Sender<Batch>,
}

impl Hasty {
    fn around(store: SqliteStore) -> Self {
        let store = Arc::new(store);
        let (later, batches) = mpsc::channel();
        let writer = store.clone();
        std::thread::spawn(move || {
            for batch in batches {
                std::thread::sleep(Duration::from_millis(1));
                writer.append(batch, Box::new(|_| {}));
            }
        });
        Self { store, later }
    }
}

impl Journal for Hasty {
    fn load(&self, tail: usize, row: &mut dyn FnMut(Row<'_>)) -> Result<Head, JournalError> {
        self.store.load(tail, row)
    }

    fn set_aside(&self, rows: &[SetAside]) -> Result<(), JournalError> {
        self.store.set_aside(rows)
    }

    fn lead(&self) -> Result<u64, JournalError> {
        self.store.lead()
    }

    fn append(&self, batch: Batch, done: Done) {
        self.later.send(batch).unwrap();
        done(Ok(()));
    }

    fn events_after(&self, after: u64, limit: usize) -> Result<Vec<EventRecord>, JournalError> {
        self.store.events_after(after, limit)
    }

    fn body(&self, hash: &BodyHash) -> Result<Option<Vec<u8>>, JournalError> {
        self.store.body(hash)
    }

    fn flush(&self) -> Result<(), JournalError> {
        self.store.flush()
    }

    fn close(&self) -> Result<(), JournalError> {
        self.store.close()
    }
}
