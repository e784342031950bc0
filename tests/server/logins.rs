//! Operators that a server knows again after it was killed and started anew on its store.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use futures::{SinkExt, StreamExt};
use reqwest::{Method, Response};
use serde_json::{Value, json};
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::desk::{LONG, one_step, problem};

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

fn serve(store: &Path, more: &[&str]) -> Served {
    let mut command = Command::new(env!("CARGO_BIN_EXE_adjutant"));
    command.args(["serve", "--listen", "127.0.0.1:0", "--linger", "0", "--store"]).arg(store);
    command.args(more).env("XDG_CONFIG_HOME", "/nowhere").env_remove("RUST_LOG");
    command.stdin(Stdio::null()).stderr(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut base = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut base).unwrap();
    let admin = std::fs::read_to_string(store.join("admin-token")).unwrap();
    Served { child, base: base.trim().to_owned(), admin: admin.trim().to_owned() }
}

impl Served {
    async fn ask(&self, method: Method, path: &str, bearer: &str, body: Option<Value>) -> Response {
        let url = format!("{}{path}", self.base);
        let ask = reqwest::Client::new().request(method, url).bearer_auth(bearer).timeout(LONG);
        let ask = if let Some(body) = body { ask.json(&body) } else { ask };
        ask.send().await.unwrap()
    }

    async fn log_in(&self, wish: Value) -> Value {
        let told = self.ask(Method::POST, "/v1/operators", &self.admin, Some(wish)).await;
        assert_eq!(told.status(), 201);
        told.json().await.unwrap()
    }

    async fn shown(&self, login: &Value) -> Response {
        self.ask(Method::GET, &place(login), text(login, "token"), None).await
    }
}

fn text<'a>(login: &'a Value, name: &str) -> &'a str {
    login[name].as_str().unwrap()
}

fn place(login: &Value) -> String {
    format!("/v1/operators/{}", text(login, "sid"))
}

#[tokio::test]
async fn a_killed_server_knows_its_operators_again_and_only_those_that_were_there() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    let served = serve(&store, &[]);
    let (first, left) = (
        served.log_in(json!({ "roles": ["desk"] })).await,
        served.log_in(json!({ "roles": ["door"] })).await,
    );
    let second = served.log_in(json!({ "roles": ["desk"], "take_over": true })).await;
    let bare = served.log_in(json!({})).await;
    let gone = served.ask(Method::DELETE, &place(&left), text(&left, "token"), None).await;
    assert_eq!(gone.status(), 204);
    drop(served);

    let mut generation = bare["generation"].as_u64().unwrap();
    for _ in 0..2 {
        let served = serve(&store, &[]);
        for login in [&second, &bare] {
            let shown = served.shown(login).await;
            assert_eq!(shown.status(), 200);
            let shown: Value = shown.json().await.unwrap();
            assert_eq!((&shown["sid"], &shown["roles"]), (&login["sid"], &login["roles"]));
            assert_eq!(shown["link"], "away");
            let again = shown["generation"].as_u64().unwrap();
            assert!(again > generation, "{again} after {generation}");
            generation = again;
        }
        for login in [&first, &left] {
            problem(served.shown(login).await, 401, "unauthenticated").await;
        }
        let taken = json!({ "roles": ["desk"] });
        let taken = served.ask(Method::POST, "/v1/operators", &served.admin, Some(taken)).await;
        problem(taken, 409, "roles_held").await;
        let next = served.log_in(json!({ "roles": ["door"] })).await;
        assert!(next["generation"].as_u64().unwrap() > generation);
        generation = next["generation"].as_u64().unwrap();
        let out = served.ask(Method::DELETE, &place(&next), text(&next, "token"), None).await;
        assert_eq!(out.status(), 204);
    }
}

#[tokio::test]
async fn an_operator_works_on_with_its_old_bearer_for_a_run_that_was_interrupted() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    let served = serve(&store, &[]);
    let login = served.log_in(json!({ "roles": ["desk"] })).await;
    // Asked of the login by its sid, in a run that goes on with the next server.
    let mut agent = json!({ "name": "o", "kind": "operator", "spec": { "operator_ref": "desk" } });
    agent["on_interrupt"] = json!("retry");
    let body = json!({ "blueprint": one_step(&agent), "input": { "x": 1 },
                       "operator": { "operator_sid": login["sid"] } });
    let run = served.ask(Method::POST, "/v1/runs", &served.admin, Some(body)).await;
    assert_eq!(run.status(), 202, "{}", run.text().await.unwrap());
    let run: Value = run.json().await.unwrap();
    drop(served);

    let served = serve(&store, &[]);
    let url = format!("{}{}/ws", served.base.replace("http://", "ws://"), place(&login));
    let mut request = url.into_client_request().unwrap();
    let bearer = format!("Bearer {}", text(&login, "token"));
    request.headers_mut().insert("authorization", bearer.parse().unwrap());
    let (mut socket, _) = connect_async(request).await.unwrap();
    loop {
        let message = tokio::time::timeout(LONG, socket.next()).await.unwrap().unwrap().unwrap();
        let Message::Text(frame) = message else { continue };
        let frame: Value = serde_json::from_str(&frame).unwrap();
        let word = match text(&frame, "type") {
            "hook_before" => "hook_ack",
            "spawn" => "spawn_ack",
            _ => continue,
        };
        let reply = json!({ "type": word, "req_id": frame["req_id"], "value": "done" });
        socket.send(Message::text(reply.to_string())).await.unwrap();
        if word == "spawn_ack" {
            break;
        }
    }
    let path = format!("/v1/runs/{}?hold=25", text(&run, "run_id"));
    let ended = served.ask(Method::GET, &path, &served.admin, None).await;
    let ended: Value = ended.json().await.unwrap();
    assert_eq!(
        (&ended["status"], &ended["report"]["context"]["y"]),
        (&json!("pass"), &json!("done")),
        "{ended}"
    );
}

#[tokio::test]
async fn a_login_is_bounded_in_time_and_number_after_a_restart_too_and_no_bearer_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    let served = serve(&store, &[]);
    let mut logins = Vec::new();
    for _ in 0..3 {
        logins.push(served.log_in(json!({})).await);
    }
    drop(served);
    for entry in std::fs::read_dir(&store).unwrap() {
        let Ok(bytes) = std::fs::read(entry.unwrap().path()) else { continue };
        for login in &logins {
            let bearer = text(login, "token").strip_prefix("opr-").unwrap();
            assert!(!bytes.windows(bearer.len()).any(|part| part == bearer.as_bytes()));
        }
    }
    // Two may be there: the oldest is the one that goes, for good.
    let served = serve(&store, &["--set", "link.logins=2"]);
    assert_eq!(served.shown(&logins[2]).await.status(), 200);
    drop(served);
    let served = serve(&store, &["--set", "link.away_secs=1"]);
    problem(served.shown(&logins[0]).await, 401, "unauthenticated").await;
    let begun = tokio::time::Instant::now();
    loop {
        let shown: Value = served.shown(&logins[1]).await.json().await.unwrap();
        if shown["link"] == "torn_down" {
            assert_eq!(shown["reason"], "lapsed");
            break;
        }
        assert!(begun.elapsed() < LONG, "{shown}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}
