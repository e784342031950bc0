//! The program in a process of its own, and what a test asks of it beside the browser.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use reqwest::Client;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Long enough that only a hang reaches it, on a loaded machine as well.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// A server; killed when dropped.
pub(crate) struct Served {
    child: Child,
    pub(crate) base: String,
    pub(crate) client: Client,
    admin: String,
    _folder: TempDir,
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Served {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("store");
        let mut command = Command::new(env!("CARGO_BIN_EXE_adjutant"));
        command.args(["serve", "--listen", "127.0.0.1:0", "--program", "sh", "--store"]);
        command.arg(&store).env_remove("RUST_LOG").stdin(Stdio::null()).stderr(Stdio::null());
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut base = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut base).unwrap();
        let admin = std::fs::read_to_string(store.join("admin-token")).unwrap().trim().to_owned();
        let base = base.trim().to_owned();
        Self { child, base, client: Client::new(), admin, _folder: folder }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let ask = self.client.get(self.url(path)).bearer_auth(&self.admin).timeout(LONG);
        ask.send().await.unwrap().json().await.unwrap()
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Value {
        let ask = self.client.post(self.url(path)).bearer_auth(&self.admin).timeout(LONG);
        let answer = ask.json(body).send().await.unwrap();
        assert!(answer.status().is_success(), "{path}: {}", answer.status());
        answer.json().await.unwrap()
    }

    /// A fresh link to the page.
    pub(crate) async fn link(&self) -> String {
        self.post("/v1/links", &json!({})).await["url"].as_str().unwrap().to_owned()
    }

    /// Starts a run, and gives its id.
    pub(crate) async fn run(&self, blueprint: &Value, input: Value) -> String {
        let body = json!({ "blueprint": blueprint, "input": input });
        self.post("/v1/runs", &body).await["run_id"].as_str().unwrap().to_owned()
    }

    /// Keeps a blueprint, so that its tasks can be tried again after their run, and runs it.
    pub(crate) async fn run_kept(&self, blueprint: &Value, input: Value) -> String {
        let id = blueprint["id"].as_str().unwrap();
        let keep = self.client.put(self.url(&format!("/v1/blueprints/{id}"))).json(blueprint);
        let kept = keep.bearer_auth(&self.admin).timeout(LONG).send().await.unwrap();
        assert!(kept.status().is_success(), "{}", kept.status());
        self.run(&json!({ "id": id, "version": "latest" }), input).await
    }

    /// The run once it has ended.
    pub(crate) async fn ended(&self, run: &str) -> Value {
        self.get(&format!("/v1/runs/{run}?hold=25")).await
    }
}

fn step(name: &str, input: &str, output: &str) -> Value {
    json!({
        "kind": "step", "ref": name,
        "in": { "op": "path", "at": input }, "out": { "op": "path", "at": output },
    })
}

/// Asks the senior what `$.ask` says, and repeats the answer.
pub(crate) fn asks(id: &str) -> Value {
    json!({
        "id": id,
        "agents": [
            { "name": "approve", "kind": "ask", "spec": {} },
            { "name": "repeat", "kind": "rust_fn", "spec": { "fn_id": "identity" } },
        ],
        "flow": { "kind": "seq", "children": [
            step("approve", "$.ask", "$.said"), step("repeat", "$.said", "$.done"),
        ] },
    })
}

/// Runs a shell line.
pub(crate) fn shell(id: &str, agent: &str, line: &str) -> Value {
    let spec = json!({ "program": "sh", "args": ["-c", line] });
    json!({
        "id": id, "agents": [{ "name": agent, "kind": "subprocess", "spec": spec }],
        "flow": step(agent, "$.x", "$.y"),
    })
}
