//! `adjutant mcp --server`: a client on standard streams, a server over HTTP, the program between.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::Duration;

use adjutant::server::ServerCfg;
use rmcp::model::{CallToolRequest, CallToolRequestParams, ClientRequest};
use rmcp::service::PeerRequestOptions;
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use crate::desk::{Desk, LONG, calm};
use crate::rust::{Client, Session, asks, call, over_http, over_stdio, program};

/// The admin's token in a file that its owner alone may read.
pub(crate) fn token_file(desk: &Desk) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(desk.admin.as_bytes()).unwrap();
    file
}

async fn over_bridge(desk: &Desk, client: Client) -> Session {
    let file = token_file(desk);
    let token = file.path().to_str().unwrap();
    over_stdio(client, &["mcp", "--server", &desk.base, "--token-file", token]).await
}

#[tokio::test]
async fn questions_and_progress_pass_and_what_was_begun_outlives_the_bridge() {
    let cfg = ServerCfg { heartbeat: Duration::from_millis(100), ..ServerCfg::default() };
    let desk = Desk::with(calm(), cfg).await;
    let client = Client { has_user: true, ..Client::default() };
    let session = over_bridge(&desk, client.clone()).await;
    let run = call(&session, "run_blueprint", json!({ "blueprint": asks() })).await.unwrap();
    assert_eq!(
        (&run["status"], &run["report"]["context"]),
        (&json!("pass"), &json!({ "ship": true }))
    );
    assert_eq!(*client.asked.lock(), ["Ship it?"]);
    session.cancel().await.unwrap();

    let quiet = Client::default();
    let session = over_bridge(&desk, quiet.clone()).await;
    let run = call(&session, "run_blueprint", json!({ "blueprint": asks() })).await.unwrap();
    let wait = json!({ "run_id": run["run_id"], "wait_secs": 1 });
    assert_eq!(call(&session, "run_status", wait).await.unwrap()["still_running"], true);
    assert!(quiet.progress.load(Ordering::Relaxed) >= 3, "nothing was heard meanwhile");
    session.cancel().await.unwrap();
    let beside = over_http(&desk, Client::default(), &desk.admin).await;
    let which = json!({ "run_id": run["run_id"] });
    assert_eq!(call(&beside, "run_status", which).await.unwrap()["status"], "waiting");
}

#[tokio::test]
async fn a_call_that_is_called_off_ends_at_the_server() {
    let desk = Desk::new().await;
    let session = over_bridge(&desk, Client::default()).await;
    let login = call(&session, "operator_join", json!({})).await.unwrap();
    let path = format!("/v1/operators/{}", login["sid"].as_str().unwrap());
    // An operator is there as long as one of its calls is.
    let stands = async |connected: bool| {
        let begun = tokio::time::Instant::now();
        loop {
            let shown: Value = desk.get(&path, &desk.admin).await.json().await.unwrap();
            if shown["connected"] == connected {
                return;
            }
            assert!(begun.elapsed() < LONG, "{shown}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let wait = json!({ "sid": login["sid"], "timeout_ms": 3_600_000 });
    let Value::Object(arguments) = wait else { unreachable!() };
    let params = CallToolRequestParams::new("operator_wait").with_arguments(arguments);
    let request = ClientRequest::CallToolRequest(CallToolRequest::new(params));
    let options = PeerRequestOptions::no_options();
    let waiting = session.peer().send_cancellable_request(request, options).await.unwrap();
    stands(true).await;
    waiting.cancel(None).await.unwrap();
    stands(false).await;
    let quick = json!({ "sid": login["sid"], "timeout_ms": 1 });
    assert_eq!(call(&session, "operator_wait", quick).await.unwrap()["status"], "waiting");
}

/// A server in a process of its own; killed when dropped.
struct Served(Child, String);

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn serve(store: &Path, listen: &str) -> Served {
    let mut command = Command::new(env!("CARGO_BIN_EXE_adjutant"));
    command.args(["serve", "--listen", listen, "--store"]).arg(store);
    command.env_remove("RUST_LOG").stdin(Stdio::null()).stderr(Stdio::null());
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut base = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut base).unwrap();
    Served(child, base.trim().to_owned())
}

#[tokio::test]
async fn a_server_that_was_killed_and_started_anew_is_found_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    let served = serve(&store, "127.0.0.1:0");
    let base = served.1.clone();
    // The token is found beside the store.
    let args = ["mcp", "--server", &base, "--store", store.to_str().unwrap()];
    let session = over_stdio(Client::default(), &args).await;
    assert_eq!(call(&session, "doctor", json!({})).await.unwrap()["ok"], true);
    drop(served);
    let params = CallToolRequestParams::new("doctor");
    let lost = tokio::time::timeout(LONG, session.call_tool(params)).await.unwrap().unwrap_err();
    assert!(lost.to_string().contains("does not answer"), "{lost}");
    let _served = serve(&store, base.strip_prefix("http://").unwrap());
    assert_eq!(call(&session, "doctor", json!({})).await.unwrap()["ok"], true);
}

/// What the program says to one line, and its exit code.
async fn say(args: &[&str], line: &str) -> (Option<i32>, String, String) {
    let mut command = program(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut input, line.as_bytes()).await.unwrap();
    drop(input);
    let ended = tokio::time::timeout(LONG, child.wait_with_output()).await.unwrap().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (ended.status.code(), text(&ended.stdout), text(&ended.stderr))
}

fn hello() -> String {
    let hello = json!({ "jsonrpc": "2.0", "id": 7, "method": "initialize", "params": {
        "protocolVersion": "2025-06-18", "capabilities": {},
        "clientInfo": { "name": "test", "version": "1" },
    } });
    format!("{hello}\n")
}

#[tokio::test]
async fn what_was_asked_before_the_input_ended_is_answered() {
    let desk = Desk::new().await;
    let file = token_file(&desk);
    let args = ["mcp", "--server", &desk.base, "--token-file", file.path().to_str().unwrap()];
    let (code, out, error) = say(&args, &hello()).await;
    assert_eq!(code, Some(0), "{error}");
    let reply: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (&reply["id"], &reply["result"]["serverInfo"]["name"]),
        (&json!(7), &json!("adjutant"))
    );
}

#[tokio::test]
async fn a_client_learns_why_there_is_no_server_for_it() {
    let desk = Desk::new().await;
    let file = token_file(&desk);
    let token = file.path().to_str().unwrap().to_owned();
    std::fs::write(&token, "adm-0000").unwrap();
    let (code, out, _) =
        say(&["mcp", "--server", &desk.base, "--token-file", &token], &hello()).await;
    let reply: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &reply["id"]), (Some(1), &json!(7)));
    assert!(reply["error"]["message"].as_str().unwrap().contains("bearer"), "{reply}");

    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let nobody = format!("http://{nobody}");
    let (code, out, error) =
        say(&["mcp", "--server", &nobody, "--token-file", &token], &hello()).await;
    assert_eq!(code, Some(7), "{error}");
    let reply: Value = serde_json::from_str(&out).unwrap();
    assert!(reply["error"]["message"].as_str().unwrap().contains("does not answer"), "{reply}");
    assert!(error.contains("does not answer"), "{error}");

    let (code, out, error) =
        say(&["mcp", "--server", &nobody, "--store", "/nowhere"], &hello()).await;
    assert_eq!((code, out.as_str()), (Some(2), ""));
    assert!(error.contains("--token-file"), "{error}");
}
