//! What is said of secrets and of callers' texts beyond the answers that are meant to show them:
//! nothing, in the log at its finest level, in refusals, in the metrics, in what is printed to debug.

use std::io::Read;
use std::path::Path;

use adjutant::server::{AdminToken, Server, ServerCfg};
use adjutant::{CapToken, Engine};
use futures::{SinkExt, StreamExt};
use reqwest::redirect::Policy;
use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::{Value, json};
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::desk::{LONG, calm, one_step};
use crate::verbs::Served;

/// Texts of callers: what a task is told, what a worker says, and what it keeps.
const TEXTS: [&str; 4] = ["canaryprompt", "canaryresult", "canarybody", "canarydirective"];

/// A server whose log is read as it comes, and what it showed that was to be seen by nobody else.
struct Watched {
    served: Served,
    log: std::thread::JoinHandle<String>,
    admin: String,
    client: Client,
    /// Refusals and other answers that show no secret and no text.
    told: Vec<String>,
}

fn text(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap_or_else(|| panic!("{name} {value}")).to_owned()
}

impl Watched {
    fn start(store: &Path) -> Self {
        let mut served = Served::start(store, &["--log", "json", "--log-level", "trace"]);
        let mut stderr = served.log.take().unwrap();
        // A full pipe would hold the server up.
        let log = std::thread::spawn(move || {
            let mut text = String::new();
            stderr.read_to_string(&mut text).unwrap();
            text
        });
        let admin = std::fs::read_to_string(store.join("admin-token")).unwrap();
        let admin = admin.trim().to_owned();
        let client = Client::builder().redirect(Policy::none()).timeout(LONG).build().unwrap();
        Self { served, log, admin, client, told: Vec::new() }
    }

    fn ask(&self, method: Method, path: &str, bearer: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.served.base)).bearer_auth(bearer)
    }

    /// Posts JSON, and gives the answer, which shows what it shows to its caller.
    async fn post(&self, path: &str, bearer: &str, body: &Value) -> Value {
        let answer = self.ask(Method::POST, path, bearer).json(body).send().await.unwrap();
        assert!(answer.status().is_success(), "{path} {}", answer.text().await.unwrap());
        answer.json().await.unwrap()
    }

    /// Keeps an answer that is to show nothing, with its head.
    async fn note(&mut self, answer: Response, status: u16) {
        let head = format!("{:?}", answer.headers());
        assert_eq!(answer.status(), status, "{head}");
        self.told.push(format!("{head}\n{}", answer.text().await.unwrap()));
    }

    async fn refuse(&mut self, ask: RequestBuilder, status: u16) {
        let answer = ask.send().await.unwrap();
        self.note(answer, status).await;
    }

    /// Opens the page by a link. Gives the link's key, the cookie and the page's key.
    async fn page(&mut self) -> [String; 3] {
        let link = self.post("/v1/links", &self.admin, &json!({})).await;
        let path = text(&link, "path");
        let url = format!("{}{path}", self.served.base);
        let entered = self.client.get(&url).send().await.unwrap();
        assert_eq!(entered.status(), 303);
        let head = |name| entered.headers()[name].to_str().unwrap().to_owned();
        let cookie = head("set-cookie").split(';').next().unwrap().to_owned();
        let key = head("location").split_once("key=").unwrap().1.to_owned();
        let metrics = self.client.get(format!("{}/metrics", self.served.base));
        let metrics = metrics.header("cookie", &cookie).header("x-adjutant", &key);
        self.refuse(metrics, 200).await;
        let bare = self.client.get(format!("{}/metrics", self.served.base));
        self.refuse(bare.header("cookie", &cookie), 403).await;
        // A link that was used shows the door.
        self.refuse(self.client.get(&url), 401).await;
        let link = path.split_once("key=").unwrap().1;
        [link, cookie.split_once('=').unwrap().1, &key].map(str::to_owned)
    }

    /// An operator works on a task of a run. Gives its worker's handle and token.
    async fn work(&mut self, login: &Value) -> [String; 2] {
        let agent = json!({ "name": "o", "kind": "operator", "spec": { "operator_ref": "desk" } });
        let run = json!({ "blueprint": one_step(&agent), "input": { "x": TEXTS[0] } });
        let run = self.post("/v1/runs", &self.admin, &run).await;
        let base = self.served.base.replace("http://", "ws://");
        let url = format!("{base}/v1/operators/{}/ws", text(login, "sid"));
        let mut request = url.into_client_request().unwrap();
        let offered = format!("adjutant, adjutant.bearer.{}", text(login, "token"));
        request.headers_mut().insert("sec-websocket-protocol", offered.parse().unwrap());
        let (mut socket, _) = connect_async(request).await.unwrap();
        let spawn = loop {
            let frame = tokio::time::timeout(LONG, socket.next()).await.unwrap().unwrap().unwrap();
            let Message::Text(frame) = frame else { continue };
            let frame: Value = serde_json::from_str(&frame).unwrap();
            if frame["type"] == "spawn" {
                break frame;
            }
            let ack = json!({ "type": "hook_ack", "req_id": frame["req_id"] });
            socket.send(Message::text(ack.to_string())).await.unwrap();
        };
        let given = [text(&spawn, "worker_handle"), text(&spawn, "capability_token")];
        for bearer in &given {
            let prompt = self.ask(Method::GET, "/v1/worker/prompt", bearer).send().await.unwrap();
            assert!(prompt.text().await.unwrap().contains(TEXTS[0]));
            let kept = self.ask(Method::POST, "/v1/data/notes", bearer).body(TEXTS[2]);
            assert_eq!(kept.send().await.unwrap().status(), 201);
            let read = self.ask(Method::GET, "/v1/data/notes", bearer).send().await.unwrap();
            assert_eq!(read.text().await.unwrap(), TEXTS[2]);
            let foreign = format!("/v1/worker/prompt?task_id=T-{:032x}", 7);
            let status = if bearer.starts_with("wh-") { 400 } else { 403 };
            self.refuse(self.ask(Method::GET, &foreign, bearer), status).await;
        }
        let sent = self.ask(Method::POST, "/v1/worker/submit", &given[0]).body(TEXTS[1]);
        assert_eq!(sent.send().await.unwrap().status(), 204);
        let ack = json!({ "type": "spawn_ack", "req_id": spawn["req_id"] });
        socket.send(Message::text(ack.to_string())).await.unwrap();
        let path = format!("/v1/runs/{}?hold=25", text(&run, "run_id"));
        let ended: Value =
            self.ask(Method::GET, &path, &self.admin).send().await.unwrap().json().await.unwrap();
        assert_eq!(ended["report"]["context"]["y"], TEXTS[1], "{ended}");
        for bearer in &given {
            let late = self.ask(Method::POST, "/v1/worker/submit", bearer).body(TEXTS[1]);
            self.refuse(late, 410).await;
        }
        given
    }

    /// Stops the server, and gives all that it logged.
    fn end(mut self) -> (String, Vec<String>) {
        self.served.signal("-TERM");
        assert_eq!(self.served.ended(), Some(0));
        (self.log.join().unwrap(), self.told)
    }
}

/// What must not be found: secrets, their bare digits, and the texts of callers.
fn hidden(bearers: &[String]) -> Vec<String> {
    let mut all: Vec<_> = TEXTS.iter().map(|text| (*text).to_owned()).collect();
    for bearer in bearers {
        let bare = bearer.split_once('-').map_or(bearer.as_str(), |(_, digits)| digits);
        all.push(bare.to_owned());
        if let Ok(token) = CapToken::decode(bearer) {
            all.extend([token.nonce, token.sig_hex]);
        }
    }
    assert!(all.iter().all(|one| one.len() >= 10), "{all:?}");
    all
}

#[tokio::test]
async fn no_secret_and_no_text_is_in_a_log_a_refusal_or_the_metrics() {
    let folder = tempfile::tempdir().unwrap();
    let mut desk = Watched::start(&folder.path().join("store"));
    let admin = desk.admin.clone();
    let session = json!({ "operator_id": "ann", "role": "operator" });
    let operator = text(&desk.post("/v1/sessions", &admin, &session).await, "token");
    let login = desk.post("/v1/operators", &operator, &json!({ "roles": ["desk"] })).await;
    let bearer = text(&login, "token");
    let mut bearers = vec![admin.clone(), operator.clone(), bearer.clone()];
    bearers.extend(desk.work(&login).await);
    bearers.extend(desk.page().await);

    desk.refuse(desk.ask(Method::GET, "/v1/session", &admin), 401).await;
    desk.refuse(desk.ask(Method::GET, "/v1/doctor", &operator), 403).await;
    desk.refuse(desk.ask(Method::GET, "/v1/operators", &bearer), 401).await;
    let long = json!({ "agent": "echo", "directive": TEXTS[3].repeat(300_000) });
    desk.refuse(desk.ask(Method::POST, "/v1/tasks", &operator).json(&long), 413).await;
    let begun = json!({ "agent": "echo", "directive": TEXTS[3] });
    let begun = desk.post("/v1/tasks", &operator, &begun).await;
    let again = format!("/v1/tasks/{}/retry", text(&begun, "task_id"));
    desk.refuse(desk.ask(Method::POST, &again, &operator), 409).await;
    desk.refuse(desk.ask(Method::POST, "/mcp", &bearer).json(&json!({ "x": TEXTS[3] })), 401).await;
    desk.refuse(desk.ask(Method::DELETE, "/v1/session", &operator), 204).await;
    desk.refuse(desk.ask(Method::GET, "/v1/session", &operator), 401).await;
    for path in ["/metrics", "/v1/doctor", "/v1/supervision"] {
        desk.refuse(desk.ask(Method::GET, path, &admin), 200).await;
    }
    let (log, told) = desk.end();
    assert!(log.contains("\"level\":\"TRACE\"") && log.contains("/v1/worker/prompt"), "{log}");
    for hidden in hidden(&bearers) {
        let lines: Vec<_> = log.lines().filter(|line| line.contains(&hidden)).take(3).collect();
        assert!(lines.is_empty(), "{hidden} is in the log: {lines:#?}");
        let shown: Vec<_> = told.iter().filter(|answer| answer.contains(&hidden)).collect();
        assert!(shown.is_empty(), "{hidden} is in an answer: {shown:#?}");
    }
}

#[tokio::test]
async fn a_server_shows_no_secret_to_who_debugs_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin-token");
    let token = AdminToken::in_file(&path).unwrap();
    let admin = std::fs::read_to_string(&path).unwrap().trim().to_owned();
    let shown = format!("{token:?}");
    let address = "127.0.0.1:0".parse().unwrap();
    let engine = Engine::new(calm());
    let server = Server::bind(engine, address, token, ServerCfg::default()).await.unwrap();
    let link = server.page_link().unwrap();
    let shown = format!("{shown} {server:?}");
    let key = link.split_once("key=").unwrap().1;
    for secret in [admin.strip_prefix("adm-").unwrap(), key] {
        assert!(!shown.contains(secret) && !shown.contains(&secret[..16]), "{shown}");
    }
}
