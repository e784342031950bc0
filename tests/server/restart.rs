//! What the next server on the same store goes on with.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use adjutant::WorkerResult;
use adjutant::blueprint::Functions;
use adjutant::server::ServerCfg;
use reqwest::{Client, Method};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::desk::{Desk, LONG, ask, held, identity, one_step, until};

async fn answer(desk: &Desk, answer: &Value) {
    let open: Value = desk.get("/v1/questions", &desk.admin).await.json().await.unwrap();
    let key = open["questions"][0]["key"].as_str().unwrap();
    let path = format!("/v1/questions/{key}/answer");
    let told = desk.post(&path, &desk.admin, &json!({ "answer": answer })).await;
    assert_eq!(told.status(), 204);
}

#[tokio::test]
async fn a_run_that_waits_is_left_by_one_server_and_goes_on_in_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let desk = Desk::on(folder.path(), ServerCfg::default()).await;
    let body = json!({ "blueprint": one_step(&ask()), "input": { "x": "well?" } });
    let begun: Value = desk.post("/v1/runs", &desk.admin, &body).await.json().await.unwrap();
    let id = begun["run_id"].clone();
    let waiting = until(&desk, &id, "waiting").await;
    desk.end().await;
    let desk = Desk::on(folder.path(), ServerCfg::default()).await;
    let again = until(&desk, &id, "waiting").await;
    assert_eq!((&again["tasks"], &again["resumed"]), (&waiting["tasks"], &json!(1)));
    answer(&desk, &json!("yes")).await;
    let ended = held(&desk, &id).await;
    assert_eq!(
        (&ended["status"], &ended["report"]["context"]["y"]),
        (&json!("pass"), &json!("yes"))
    );
    desk.end().await;
    let desk = Desk::on(folder.path(), ServerCfg::default()).await;
    let path = "/v1/runs?status=pass";
    let list: Value = desk.get(path, &desk.admin).await.json().await.unwrap();
    assert_eq!(list["runs"][0]["run_id"], id, "ended runs stay listed");
    desk.end().await;
}

#[tokio::test]
async fn a_run_in_the_middle_of_its_step_ends_within_the_grace() {
    let gate = Arc::new(Semaphore::new(0));
    let inside = gate.clone();
    let functions = Functions::new().with("gate", move |call| {
        let gate = inside.clone();
        async move {
            gate.acquire().await.unwrap().forget();
            Ok(WorkerResult { value: call.prompt.into(), ok: true })
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let cfg = ServerCfg { functions, ..ServerCfg::default() };
    let desk = Desk::on(folder.path(), cfg).await;
    let agent = json!({ "name": "gate", "kind": "rust_fn", "spec": { "fn_id": "gate" } });
    let body = json!({ "blueprint": one_step(&agent), "input": { "x": 1 } });
    let begun: Value = desk.post("/v1/runs", &desk.admin, &body).await.json().await.unwrap();
    let open = desk.stop.clone();
    open.cancel();
    // No new one is taken from now on.
    let since = tokio::time::Instant::now();
    let refused = loop {
        let refused = desk.post("/v1/runs", &desk.admin, &body).await;
        if refused.status() == 503 {
            break refused;
        }
        assert!(since.elapsed() < LONG, "it takes runs on: {refused:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    crate::desk::problem(refused, 503, "stopped").await;
    gate.add_permits(8);
    desk.end().await;
    let desk = Desk::on(folder.path(), ServerCfg::default()).await;
    let ended = held(&desk, &begun["run_id"]).await;
    assert_eq!(ended["status"], "pass");
    desk.end().await;
}

#[tokio::test]
async fn an_open_run_that_finds_no_place_goes_on_once_there_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let desk = Desk::on(folder.path(), ServerCfg::default()).await;
    let body = json!({ "blueprint": one_step(&ask()), "input": { "x": "well?" } });
    let mut runs = Vec::new();
    for _ in 0..2 {
        let begun: Value = desk.post("/v1/runs", &desk.admin, &body).await.json().await.unwrap();
        until(&desk, &begun["run_id"], "waiting").await;
        runs.push(begun["run_id"].clone());
    }
    desk.end().await;
    let desk = Desk::on(folder.path(), ServerCfg { runs: 1, ..ServerCfg::default() }).await;
    for _ in 0..2 {
        let asked = async {
            loop {
                let open: Value =
                    desk.get("/v1/runs?status=waiting", &desk.admin).await.json().await.unwrap();
                if let Some(run) = open["runs"].get(0) {
                    break run["run_id"].clone();
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let run = tokio::time::timeout(LONG, asked).await.expect("it goes on");
        let path = format!("/v1/runs/{}/cancel", run.as_str().unwrap());
        assert!(desk.post(&path, &desk.admin, &json!({})).await.status().is_success());
        runs.retain(|open| *open != run);
    }
    assert!(runs.is_empty());
    desk.end().await;
}

#[tokio::test]
async fn a_key_gives_its_run_after_a_restart_too() {
    let folder = tempfile::tempdir().unwrap();
    let mut runs = Vec::new();
    for _ in 0..2 {
        let desk = Desk::on(folder.path(), ServerCfg::default()).await;
        let body = json!({ "blueprint": one_step(&identity()), "input": { "x": 1 } });
        let ask = desk.ask(Method::POST, "/v1/runs?wait=20", &desk.admin).json(&body);
        let run = ask.header("idempotency-key", "nightly").send().await.unwrap();
        assert_eq!(run.status(), 200);
        runs.push(run.json::<Value>().await.unwrap());
        let other = json!({ "blueprint": one_step(&identity()), "input": { "x": 2 } });
        let ask = desk.ask(Method::POST, "/v1/runs?wait=20", &desk.admin).json(&other);
        let refused = ask.header("idempotency-key", "nightly").send().await.unwrap();
        assert_eq!(refused.status(), 409);
        desk.end().await;
    }
    assert_eq!(runs[0], runs[1]);
}

/// A server in a process of its own; killed when dropped.
struct Served {
    child: Child,
    base: String,
    admin: String,
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn serve(store: &Path) -> Served {
    let mut command = Command::new(env!("CARGO_BIN_EXE_adjutant"));
    command.args(["serve", "--listen", "127.0.0.1:0", "--program", "tee", "--store"]).arg(store);
    command.env_remove("RUST_LOG").stdin(Stdio::null()).stderr(Stdio::null());
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut base = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut base).unwrap();
    let admin = std::fs::read_to_string(store.join("admin-token")).unwrap();
    Served { child, base: base.trim().to_owned(), admin: admin.trim().to_owned() }
}

impl Served {
    async fn ask(&self, method: Method, path: &str, body: &Value) -> Value {
        let ask = Client::new().request(method, format!("{}{path}", self.base)).timeout(LONG);
        let told = ask.bearer_auth(&self.admin).json(body).send().await.unwrap();
        assert!(told.status().is_success(), "{path}: {}", told.text().await.unwrap());
        let text = told.text().await.unwrap();
        serde_json::from_str(&text).unwrap_or_default()
    }
}

#[tokio::test]
async fn a_killed_servers_run_repeats_no_passed_step_and_its_question_is_answered_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let (store, notes) = (folder.path().join("store"), folder.path().join("notes"));
    let tee = json!({ "name": "tee", "kind": "subprocess",
        "spec": { "program": "tee", "args": ["-a", notes] } });
    let step = |name: &str, from: &str, to: &str| {
        json!({ "kind": "step", "ref": name, "in": { "op": "path", "at": from },
            "out": { "op": "path", "at": to } })
    };
    let children = [step("tee", "$.x", "$.y"), step("ask", "$.x", "$.z")];
    let blueprint = json!({ "id": "two", "agents": [tee, ask()],
        "flow": { "kind": "seq", "children": children } });
    let served = serve(&store);
    let body = json!({ "blueprint": blueprint, "input": { "x": "once;" } });
    let run = served.ask(Method::POST, "/v1/runs", &body).await;
    let path = format!("/v1/runs/{}", run["run_id"].as_str().unwrap());
    while served.ask(Method::GET, &path, &json!(null)).await["status"] != "waiting" {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    drop(served);
    let served = serve(&store);
    while served.ask(Method::GET, &path, &json!(null)).await["status"] != "waiting" {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let open = served.ask(Method::GET, "/v1/questions", &json!(null)).await;
    let key = open["questions"][0]["key"].as_str().unwrap();
    served.ask(Method::POST, &format!("/v1/questions/{key}/answer"), &json!({ "answer": 1 })).await;
    let ended = served.ask(Method::GET, &format!("{path}?hold=25"), &json!(null)).await;
    assert_eq!((&ended["status"], &ended["report"]["context"]["z"]), (&json!("pass"), &json!(1)));
    assert_eq!(std::fs::read_to_string(&notes).unwrap(), "once;");
}
