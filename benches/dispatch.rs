//! Dispatch: whole lifecycles of tasks, in process and through real children.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use adjutant::{
    CapToken, DispatchOutcome, Engine, EngineCfg, HoldPolicy, InProcSpawner, ProcessSpawner, Role,
    SpawnerAdapter, TaskSpec, TaskStatus, WorkerInvocation, WorkerResult,
};
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort, SupervisionEvent};
use tokio::sync::{Mutex, mpsc, oneshot};

#[path = "harness.rs"]
mod harness;

use harness::{Report, Round, Scale, closed_loop, median, runtime};

/// Tasks that one session starts before the next one is attached.
const TASKS_PER_SESSION: u64 = 128;
const DAY: Duration = Duration::from_secs(24 * 3600);

/// One engine with a session that is renewed.
struct Client {
    engine: Engine,
    token: Mutex<CapToken>,
    tasks: AtomicU64,
    spawner: Arc<dyn SpawnerAdapter>,
}

impl Client {
    async fn new(spawner: Arc<dyn SpawnerAdapter>) -> Arc<Self> {
        let mut cfg = EngineCfg { hold_policy: HoldPolicy::Warn, ..EngineCfg::default() };
        cfg.retention.settled_tasks = 10_000;
        let engine = Engine::new(cfg);
        let token = engine.attach("bench", Role::Operator, DAY).await.expect("a session");
        Arc::new(Self { engine, token: Mutex::new(token), tasks: AtomicU64::new(0), spawner })
    }

    async fn session(&self) -> CapToken {
        let mut token = self.token.lock().await;
        if self.tasks.fetch_add(1, Ordering::Relaxed).is_multiple_of(TASKS_PER_SESSION) {
            *token = self.engine.attach("bench", Role::Operator, DAY).await.expect("a session");
        }
        token.clone()
    }

    /// Start, dispatch, pull, submit, pass, poll.
    async fn lifecycle(&self) -> bool {
        let token = self.session().await;
        let spec = TaskSpec::new("worker", "the directive");
        let Ok(task) = self.engine.start_task(&token, spec).await else { return false };
        let outcome = self.engine.dispatch_attempt_with(&token, &task, &self.spawner).await;
        let state = self.engine.poll_task(&token, &task, Duration::ZERO).await;
        matches!(outcome, Ok(DispatchOutcome::Pass(_)))
            && state.is_ok_and(|state| state.status == TaskStatus::Pass)
    }
}

fn in_process() -> Arc<dyn SpawnerAdapter> {
    let mut spawner = InProcSpawner::new();
    spawner.register("worker", |call: WorkerInvocation| async move {
        Ok(WorkerResult { value: call.prompt.into(), ok: true })
    });
    Arc::new(spawner)
}

/// Baseline: an actor that is called five times, as often as a lifecycle has turns.
struct Bare;

struct Tick(RpcReplyPort<()>);

impl Actor for Bare {
    type Msg = Tick;
    type State = u64;
    type Arguments = ();

    async fn pre_start(&self, _myself: ActorRef<Tick>, (): ()) -> Result<u64, ActorProcessingErr> {
        Ok(0)
    }

    async fn handle(
        &self,
        _myself: ActorRef<Tick>,
        Tick(reply): Tick,
        state: &mut u64,
    ) -> Result<(), ActorProcessingErr> {
        *state += 1;
        let _ = reply.send(());
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _myself: ActorRef<Tick>,
        _event: SupervisionEvent,
        _state: &mut u64,
    ) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
}

async fn five_calls(actor: ActorRef<Tick>) -> bool {
    for _ in 0..5 {
        if actor.call(Tick, None).await.is_err() {
            return false;
        }
    }
    true
}

async fn five_messages(channel: mpsc::UnboundedSender<oneshot::Sender<()>>) -> bool {
    for _ in 0..5 {
        let (reply, done) = oneshot::channel();
        if channel.send(reply).is_err() || done.await.is_err() {
            return false;
        }
    }
    true
}

async fn bare_child() -> bool {
    let child = tokio::process::Command::new("/bin/true").spawn();
    let Ok(mut child) = child else { return false };
    child.wait().await.is_ok_and(|status| status.success())
}

async fn in_process_rows(report: &mut Report, scale: Scale) {
    let client = Client::new(in_process()).await;
    let (actor, _) = Actor::spawn(None, Bare, ()).await.expect("an actor starts");
    let (channel, mut ticks) = mpsc::unbounded_channel::<oneshot::Sender<()>>();
    tokio::spawn(async move {
        while let Some(reply) = ticks.recv().await {
            let _ = reply.send(());
        }
    });
    for clients in [1, 8, 64, 512] {
        let group = format!("in process, {clients} clients");
        report.heading(&group);
        let mut rounds: [Vec<Round>; 3] = Default::default();
        for _ in 0..scale.rounds {
            let calls = {
                let actor = actor.clone();
                move || five_calls(actor.clone())
            };
            rounds[0].push(closed_loop(clients, scale.window, calls).await);
            let sends = {
                let channel = channel.clone();
                move || five_messages(channel.clone())
            };
            rounds[1].push(closed_loop(clients, scale.window, sends).await);
            let own = client.clone();
            let run = move || {
                let own = own.clone();
                async move { own.lifecycle().await }
            };
            rounds[2].push(closed_loop(clients, scale.window, run).await);
        }
        let [calls, sends, ours] = rounds.map(median);
        report.row(&group, "five bare ractor calls", &calls, calls.rate);
        report.row(&group, "five tokio mpsc + oneshot", &sends, calls.rate);
        report.row(&group, "lifecycle", &ours, calls.rate);
    }
}

async fn child_rows(report: &mut Report, scale: Scale) {
    let client = Client::new(Arc::new(ProcessSpawner::new("/bin/true"))).await;
    for clients in [1, 8] {
        let group = format!("child process, {clients} clients");
        report.heading(&group);
        let mut rounds: [Vec<Round>; 2] = Default::default();
        for _ in 0..scale.rounds {
            rounds[0].push(closed_loop(clients, scale.window, bare_child).await);
            let own = client.clone();
            let run = move || {
                let own = own.clone();
                async move { own.lifecycle().await }
            };
            rounds[1].push(closed_loop(clients, scale.window, run).await);
        }
        let [bare, ours] = rounds.map(median);
        report.row(&group, "spawn and wait for /bin/true", &bare, bare.rate);
        report.row(&group, "lifecycle with /bin/true", &ours, bare.rate);
    }
}

async fn bench() {
    let scale = Scale::from_env();
    let what = "start, dispatch, pull, submit, pass, poll; ratios to the group's first row";
    let mut report = Report::new("dispatch", what);
    in_process_rows(&mut report, scale).await;
    child_rows(&mut report, scale).await;
    report.write();
}

fn main() {
    runtime().block_on(bench());
}
