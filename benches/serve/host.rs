//! The server's side of the bench, in a process of its own, so that its memory is its own.
//!
//! It speaks with the other side in lines: it says where it is, waits for a word, dispatches for the
//! time, says what came of it, and ends with its standard input.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use adjutant::server::{AdminToken, Server, ServerCfg, raise_descriptor_limit};
use adjutant::{
    CancellationToken, CapToken, DispatchOutcome, Engine, OperatorSpawner, Role, SpawnerAdapter,
    TaskSpec,
};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::calm::calm;
use crate::harness::runtime;

/// How a process knows that it is the host: operators and seconds.
const VARIABLE: &str = "ADJUTANT_BENCH_SERVE_HOST";
/// Dispatches a second in a full run; each is four events, and each event a frame to each stream.
const RATE: &str = "ADJUTANT_BENCH_SERVE_RATE";
const RATE_DEFAULT: u32 = 8;
const DAY: Duration = Duration::from_secs(24 * 3600);

/// The role of an operator.
pub(crate) fn role(number: usize) -> String {
    format!("desk {number}")
}

/// Whether this process is the host.
pub(crate) fn is_host() -> bool {
    std::env::var_os(VARIABLE).is_some()
}

/// The host, as the other side has it.
pub(crate) struct Host {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Host {
    /// Starts it.
    pub(crate) fn start(operators: usize, seconds: u64) -> Self {
        let own = std::env::current_exe().expect("a bench has a path");
        let mut child = Command::new(own)
            .env(VARIABLE, format!("{operators} {seconds}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the host starts");
        let lines = BufReader::new(child.stdout.take().expect("it is piped"));
        Self { child, lines }
    }

    /// Its address and the admin's token.
    pub(crate) fn place(&mut self) -> (String, String) {
        let told = self.told();
        let text = |name: &str| told[name].as_str().expect("a text").to_owned();
        (text("base"), text("admin"))
    }

    /// What it says next.
    pub(crate) fn told(&mut self) -> Value {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("the host speaks");
        serde_json::from_str(&line).expect("a line of JSON")
    }

    /// Lets it dispatch.
    pub(crate) fn go(&mut self) {
        let stdin = self.child.stdin.as_mut().expect("it is piped");
        stdin.write_all(b"go\n").expect("the host listens");
    }

    /// Its resident memory in MiB.
    pub(crate) fn memory(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.expect("the host lives");
        let line =
            status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it is there");
        let kib: f64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
        kib / 1024.0
    }

    /// Ends it, and waits for its end.
    pub(crate) fn stop(mut self) {
        drop(self.child.stdin.take());
        assert!(self.child.wait().expect("the host ends").success(), "the host failed");
    }
}

#[expect(clippy::print_stdout, reason = "it is how the two sides speak")]
fn say(told: &Value) {
    println!("{told}");
}

fn heard() -> usize {
    std::io::stdin().lock().read_line(&mut String::new()).unwrap_or(0)
}

/// The host's own side.
pub(crate) fn main() {
    let asked = std::env::var(VARIABLE).expect("it is set");
    let (operators, seconds) = asked.split_once(' ').expect("two numbers");
    let operators: usize = operators.parse().expect("a number");
    let seconds: u64 = seconds.parse().expect("a number");
    raise_descriptor_limit().expect("the limit of descriptors can be raised");
    runtime().block_on(serve(operators, Duration::from_secs(seconds)));
}

async fn serve(operators: usize, time: Duration) {
    let folder = std::env::temp_dir().join(format!("adjutant-serve-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let file = folder.join("admin-token");
    let token = AdminToken::in_file(&file).expect("a token");
    let admin = std::fs::read_to_string(&file).expect("a token");
    std::fs::remove_dir_all(&folder).expect("the folder goes");
    let engine = Engine::new(calm());
    let address = "127.0.0.1:0".parse().expect("an address");
    let server = Server::bind(engine.clone(), address, token, ServerCfg::default());
    let server = server.await.expect("an address is free");
    let base = format!("http://{}", server.local_addr().expect("it has one"));
    let stop = CancellationToken::new();
    let serving = tokio::spawn(server.run(stop.clone(), Duration::ZERO, Duration::from_secs(5)));
    say(&json!({ "base": base, "admin": admin.trim() }));
    tokio::task::spawn_blocking(heard).await.expect("it is heard");
    let (dispatched, passed) = drive(&engine, operators, time).await;
    let last = engine.with_state("last_seq", |state| state.last_seq()).await.expect("it runs");
    say(&json!({ "dispatched": dispatched, "passed": passed, "last_event": last }));
    tokio::task::spawn_blocking(heard).await.expect("it is heard");
    stop.cancel();
    serving.await.expect("no panic").expect("an orderly end");
}

/// Dispatches at a steady rate, to one operator after the other, and waits for all.
async fn drive(engine: &Engine, operators: usize, time: Duration) -> (u64, u64) {
    let rate = std::env::var(RATE).ok().and_then(|rate| rate.parse().ok()).unwrap_or(RATE_DEFAULT);
    let session = engine.attach("host", Role::Operator, DAY).await.expect("a session");
    let desks: Vec<Arc<dyn SpawnerAdapter>> = (0..operators)
        .map(|number| Arc::new(OperatorSpawner::named(role(number))) as Arc<dyn SpawnerAdapter>)
        .collect();
    let (begin, mut ticks) = (Instant::now(), tokio::time::interval(Duration::from_secs(1) / rate));
    let (mut dispatched, mut passed, mut attempts) = (0_u64, 0_u64, JoinSet::new());
    for desk in desks.iter().cycle() {
        ticks.tick().await;
        if begin.elapsed() >= time {
            break;
        }
        let (engine, session, desk) = (engine.clone(), session.clone(), desk.clone());
        attempts.spawn(async move { attempt(&engine, &session, &desk).await });
        dispatched += 1;
    }
    while let Some(attempt) = attempts.join_next().await {
        passed += u64::from(attempt.expect("a dispatch does not panic"));
    }
    (dispatched, passed)
}

/// One task from its start to its verdict.
async fn attempt(engine: &Engine, session: &CapToken, desk: &Arc<dyn SpawnerAdapter>) -> bool {
    let spec = TaskSpec::new("desk", "say how it was done");
    let task = engine.start_task(session, spec).await.expect("a task");
    match engine.dispatch_attempt_with(session, &task, desk).await {
        Ok(DispatchOutcome::Pass(value)) => value == json!("by word") || value == json!("by post"),
        _ => false,
    }
}
