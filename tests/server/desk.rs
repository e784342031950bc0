//! A desk: an engine with a server in front of it, and clients that ask it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use adjutant::server::{AdminToken, Server, ServerCfg};
use adjutant::store::{SqliteStore, StoreCfg};
use adjutant::{CancellationToken, Engine, EngineCfg, HoldPolicy, LayerRegistry, ShutdownReport};
use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// Long enough that only a hang reaches it.
pub(crate) const LONG: Duration = Duration::from_secs(30);

pub(crate) struct Desk {
    pub(crate) engine: Engine,
    pub(crate) base: String,
    pub(crate) admin: String,
    pub(crate) client: Client,
    pub(crate) stop: CancellationToken,
    pub(crate) serving: JoinHandle<std::io::Result<ShutdownReport>>,
    _folder: TempDir,
}

/// Settings under which a loaded machine fails no test: holds are counted only.
pub(crate) fn calm() -> EngineCfg {
    EngineCfg { hold_policy: HoldPolicy::Warn, ..EngineCfg::default() }
}

/// An engine on a store.
pub(crate) async fn engine_on(store: &Path) -> (Engine, Arc<SqliteStore>) {
    let store = Arc::new(SqliteStore::open(store, StoreCfg::default()).unwrap());
    let keyed = EngineCfg { token_keys: store.keys(), ..calm() };
    let engine = Engine::open(keyed, LayerRegistry::standard(), store.clone()).await.unwrap();
    (engine, store)
}

impl Desk {
    pub(crate) async fn new() -> Self {
        Self::with(calm(), ServerCfg::default()).await
    }

    pub(crate) async fn with(engine: EngineCfg, cfg: ServerCfg) -> Self {
        let engine = Engine::new_with_layers(engine, LayerRegistry::standard());
        Self::before(engine, cfg).await
    }

    /// A desk on a store, which another one may have used before.
    pub(crate) async fn on(store: &Path, cfg: ServerCfg) -> Self {
        let (engine, store) = engine_on(store).await;
        Self::before(engine, ServerCfg { shelf: store, ..cfg }).await
    }

    pub(crate) async fn before(engine: Engine, cfg: ServerCfg) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin-token");
        let token = AdminToken::in_file(&path).unwrap();
        let admin = std::fs::read_to_string(&path).unwrap().trim().to_owned();
        let address = "127.0.0.1:0".parse().unwrap();
        let server = Server::bind(engine.clone(), address, token, cfg).await.unwrap();
        let base = format!("http://{}", server.local_addr().unwrap());
        let stop = CancellationToken::new();
        let serving = tokio::spawn(server.run(stop.clone(), Duration::ZERO, LONG));
        Self { engine, base, admin, client: Client::new(), stop, serving, _folder: folder }
    }

    /// Ends the server as TERM does, and the engine with it.
    pub(crate) async fn end(self) {
        self.stop.cancel();
        self.serving.await.unwrap().unwrap();
    }

    pub(crate) fn ask(&self, method: Method, path: &str, bearer: &str) -> RequestBuilder {
        self.client
            .request(method, format!("{}{path}", self.base))
            .bearer_auth(bearer)
            .timeout(LONG)
    }

    pub(crate) async fn get(&self, path: &str, bearer: &str) -> Response {
        self.ask(Method::GET, path, bearer).send().await.unwrap()
    }

    pub(crate) async fn post(&self, path: &str, bearer: &str, body: &Value) -> Response {
        self.ask(Method::POST, path, bearer).json(body).send().await.unwrap()
    }

    /// Begins a post, and comes back once the server asks for its body of four bytes: whoever sends
    /// it was looked up by then.
    pub(crate) async fn awaited(&self, path: &str, bearer: &str) -> TcpStream {
        let address = self.base.strip_prefix("http://").unwrap();
        let mut socket = TcpStream::connect(address).await.unwrap();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {bearer}\r\n\
             Content-Length: 4\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
        );
        socket.write_all(head.as_bytes()).await.unwrap();
        let mut first_line = [0; 12];
        socket.read_exact(&mut first_line).await.unwrap();
        assert_eq!(&first_line, b"HTTP/1.1 100", "the body is awaited");
        socket
    }

    /// Attaches a session by the admin's token.
    pub(crate) async fn session(&self, role: &str) -> String {
        let body = json!({ "operator_id": role, "role": role });
        let response = self.post("/v1/sessions", &self.admin, &body).await;
        assert_eq!(response.status(), 201);
        let session: Value = response.json().await.unwrap();
        session["token"].as_str().unwrap().to_owned()
    }

    /// Starts a task, and gives its id.
    pub(crate) async fn task(&self, operator: &str) -> String {
        let body = json!({ "agent": "echo", "directive": "hello" });
        let response = self.post("/v1/tasks", operator, &body).await;
        assert_eq!(response.status(), 201);
        let place = response.headers()["location"].to_str().unwrap().to_owned();
        let task: Value = response.json().await.unwrap();
        let id = task["task_id"].as_str().unwrap().to_owned();
        assert_eq!(place, format!("/v1/tasks/{id}"));
        id
    }
}

/// Sends the awaited body, and gives the answer.
pub(crate) async fn late(mut socket: TcpStream) -> String {
    socket.write_all(b"late").await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(LONG, socket.read_to_string(&mut answer)).await.unwrap().unwrap();
    answer
}

/// The problem document that a refusal must be.
pub(crate) async fn problem(response: Response, status: u16, code: &str) -> Value {
    assert_eq!(response.status(), status);
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
    let body: Value = response.json().await.unwrap();
    assert_eq!((&body["code"], &body["status"]), (&json!(code), &json!(status)), "{body}");
    assert_eq!(body["request_id"], json!(id));
    body
}

/// A blueprint with one step of an agent.
pub(crate) fn one_step(agent: &Value) -> Value {
    json!({
        "id": "one", "agents": [agent],
        "flow": {
            "kind": "step", "ref": agent["name"],
            "in": { "op": "path", "at": "$.x" }, "out": { "op": "path", "at": "$.y" }
        }
    })
}

/// An agent that gives its input back.
pub(crate) fn identity() -> Value {
    json!({ "name": "echo", "kind": "rust_fn", "spec": { "fn_id": "identity" } })
}

/// An agent that asks the senior.
pub(crate) fn ask() -> Value {
    json!({ "name": "ask", "kind": "ask", "spec": {} })
}

/// A run once it has ended, or after a while as it is then.
pub(crate) async fn held(desk: &Desk, id: &Value) -> Value {
    let path = format!("/v1/runs/{}?hold=25", id.as_str().unwrap());
    desk.get(&path, &desk.admin).await.json().await.unwrap()
}

/// Looks at a run until it stands so.
pub(crate) async fn until(desk: &Desk, id: &Value, status: &str) -> Value {
    let path = format!("/v1/runs/{}", id.as_str().unwrap());
    let begun = tokio::time::Instant::now();
    loop {
        let run: Value = desk.get(&path, &desk.admin).await.json().await.unwrap();
        if run["status"] == status {
            return run;
        }
        assert!(begun.elapsed() < LONG, "{run}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
