//! A run whose process is killed while a question is open: the answer comes after the restart.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use adjutant::blueprint::{
    Blueprint, Functions, Program, RunOptions, RunOutcome, compile, resume, run,
};
use adjutant::store::{SqliteStore, StoreCfg};
use adjutant::{
    Engine, EngineCfg, HoldPolicy, LayerRegistry, Role, RunStatus, TaskStatus, WorkerInvocation,
    WorkerResult,
};
use serde_json::json;

use crate::Folder;

const PLACE: &str = "ADJUTANT_TEST_RUN";
const LONG: Duration = Duration::from_secs(60);

async fn opened(place: &std::path::Path) -> Engine {
    let store = SqliteStore::open(place, StoreCfg::default()).unwrap();
    let cfg = EngineCfg {
        token_secret: store.secret().to_vec(),
        hold_policy: HoldPolicy::Warn,
        ..EngineCfg::default()
    };
    Engine::open(cfg, LayerRegistry::new(), Arc::new(store)).await.unwrap()
}

/// Works, asks, works, beside a worker that is at work when the process dies. Each piece of work
/// adds a line to the file `done` in the store's folder.
async fn program(engine: &Engine, place: &std::path::Path) -> Arc<Program> {
    let done = place.join("done");
    let functions = Functions::new().with("work", move |call: WorkerInvocation| {
        let done = done.clone();
        async move {
            let mut file = std::fs::File::options().append(true).create(true).open(done).unwrap();
            writeln!(file, "{}", call.prompt).unwrap();
            if call.prompt == "slow" && std::env::var_os(PLACE).is_some() {
                std::future::pending::<()>().await;
            }
            Ok(WorkerResult { value: json!(format!("did {}", call.prompt)), ok: true })
        }
    });
    let path = |at: &str| json!({ "op": "path", "at": at });
    let step = |agent: &str, word: &str, out: &str| {
        let input = json!({ "op": "lit", "value": word });
        json!({ "kind": "step", "ref": agent, "in": input, "out": path(out) })
    };
    let fork = json!({ "kind": "fanout", "items": { "op": "lit", "value": ["ask", "work"] },
        "bind": path("$.who"), "join": "all", "out": path("$.both"),
        "body": { "kind": "branch", "cond": { "op": "eq", "lhs": path("$.who"), "rhs": { "op": "lit", "value": "ask" } },
                  "then": step("ask", "really?", "$"), "else": step("work", "slow", "$") } });
    let flow = json!({ "kind": "seq", "children": [
        step("work", "first", "$.first"), fork, step("work", "last", "$.last"),
    ] });
    let document = json!({ "id": "asks", "flow": flow, "agents": [
        { "name": "work", "kind": "rust_fn", "spec": { "fn_id": "work" } },
        { "name": "ask", "kind": "ask", "spec": {} },
    ] });
    let blueprint: Blueprint = serde_json::from_value(document).unwrap();
    Arc::new(compile(engine, &blueprint, &functions).await.unwrap())
}

#[test]
fn a_run_in_a_process_of_its_own() {
    let Some(place) = std::env::var_os(PLACE).map(std::path::PathBuf::from) else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let engine = opened(&place).await;
        let program = program(&engine, &place).await;
        let options = RunOptions { id: Some(engine.mint().run_id()), ..RunOptions::default() };
        let carried_on = engine.clone();
        let running =
            tokio::spawn(async move { run(&carried_on, program, json!({}), options).await });
        let at_work = |state: &mut adjutant::EngineState| {
            let asked = !state.tasks_with(|status| status == TaskStatus::Suspended).is_empty();
            asked && state.live_attempts().len() == 1
        };
        let worked =
            || std::fs::read_to_string(place.join("done")).is_ok_and(|done| done.contains("slow"));
        while !(engine.with_state("test", at_work).await.unwrap() && worked()) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        println!("\nasked");
        running.await.unwrap().unwrap();
    });
}

#[test]
fn a_question_open_at_the_kill_is_answered_after_it_and_completes_the_run() {
    let folder = Folder::new(StoreCfg::default());
    std::fs::create_dir(folder.path()).unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "runs::a_run_in_a_process_of_its_own", "--nocapture"])
        .env(PLACE, folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line == "asked"), "the run gets to its question");
    child.kill().unwrap();
    child.wait().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(answered(folder.path()));
    let done = std::fs::read_to_string(folder.path().join("done")).unwrap();
    assert_eq!(done, "first\nslow\nslow\nlast\n", "only what was interrupted was done again");
}

async fn answered(place: std::path::PathBuf) {
    let engine = opened(&place).await;
    let runs = engine.list_runs().await.unwrap();
    let [(id, record)] = &runs[..] else { panic!("{runs:?}") };
    assert_eq!(record.status, RunStatus::Open);
    let id = *id;
    let open = engine.with_state("test", move |state| {
        let steps = state.kept_steps(id, None, 10).into_iter();
        steps.filter(|step| step.status == TaskStatus::Suspended).collect::<Vec<_>>()
    });
    let open = open.await.unwrap();
    let [asked] = &open[..] else { panic!("{open:?}") };
    let (key, question, _) = asked.question.clone().unwrap();
    assert_eq!(*question, json!("really?"));
    let senior = engine.attach("sam", Role::Senior, LONG).await.unwrap();
    let resumed = tokio::spawn({
        let (engine, program) = (engine.clone(), program(&engine, &place).await);
        async move { resume(&engine, id, program, RunOptions::default()).await }
    });
    engine.answer_query(&senior, key, json!("yes")).await.unwrap();
    let report = tokio::time::timeout(LONG, resumed).await.unwrap().unwrap().unwrap();
    assert_eq!(report.outcome, RunOutcome::Pass);
    assert_eq!(report.context["both"], json!(["yes", "did slow"]));
    engine.shutdown(Duration::from_secs(5)).await;
}
