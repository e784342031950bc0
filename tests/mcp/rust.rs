//! The protocol's own Rust client, against both ways in.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use adjutant::server::{LinkCfg, ServerCfg};
use parking_lot::Mutex;
use rmcp::handler::client::ClientHandler;
use rmcp::model::{
    CallToolRequestParams, ClientCapabilities, ElicitRequestParams, ElicitResult,
    ElicitationAction, ProgressNotificationParam, ReadResourceRequestParams, ResourceContents,
};
use rmcp::service::{NotificationContext, RequestContext, RoleClient, RunningService};
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::transport::{StreamableHttpClientTransport, TokioChildProcess};
use rmcp::{ErrorData, ServiceExt};
use serde_json::{Value, json};

use crate::desk::{Desk, LONG, calm};

/// A client whose user answers every question with `true`, where it has a user at all.
#[derive(Clone, Default)]
pub(crate) struct Client {
    pub(crate) has_user: bool,
    pub(crate) asked: Arc<Mutex<Vec<String>>>,
    pub(crate) progress: Arc<AtomicUsize>,
}

impl ClientHandler for Client {
    fn get_info(&self) -> rmcp::model::ClientConfig {
        let mut config = rmcp::model::ClientConfig::default();
        if self.has_user {
            config.capabilities = ClientCapabilities::builder().enable_elicitation().build();
        }
        config
    }

    async fn create_elicitation(
        &self,
        request: ElicitRequestParams,
        _: RequestContext<RoleClient>,
    ) -> Result<ElicitResult, ErrorData> {
        if let ElicitRequestParams::FormElicitationParams { message, .. } = request {
            self.asked.lock().push(message);
        }
        Ok(ElicitResult::new(ElicitationAction::Accept).with_content(json!({ "answer": "true" })))
    }

    async fn on_progress(&self, _: ProgressNotificationParam, _: NotificationContext<RoleClient>) {
        self.progress.fetch_add(1, Ordering::Relaxed);
    }
}

pub(crate) type Session = RunningService<RoleClient, Client>;

/// The program with these arguments, and without what the machine says of it.
pub(crate) fn program(args: &[&str]) -> tokio::process::Command {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_adjutant"));
    command.args(args).env("XDG_CONFIG_HOME", "/nowhere");
    for name in ["RUST_LOG", "ADJUTANT_STORE", "ADJUTANT_CONFIG", "ADJUTANT_TOKEN_FILE"] {
        command.env_remove(name);
    }
    command
}

pub(crate) async fn over_stdio(client: Client, args: &[&str]) -> Session {
    client.serve(TokioChildProcess::new(program(args)).unwrap()).await.unwrap()
}

pub(crate) async fn over_http(desk: &Desk, client: Client, bearer: &str) -> Session {
    let config = StreamableHttpClientTransportConfig::with_uri(format!("{}/mcp", desk.base));
    let config = config.auth_header(bearer);
    client.serve(StreamableHttpClientTransport::from_config(config)).await.unwrap()
}

/// Calls a tool; its reply, or the problem document of its refusal.
pub(crate) async fn call(
    session: &Session,
    tool: &'static str,
    arguments: Value,
) -> Result<Value, Value> {
    let Value::Object(arguments) = arguments else { panic!("arguments are an object") };
    let request = CallToolRequestParams::new(tool).with_arguments(arguments);
    let result = tokio::time::timeout(LONG, session.call_tool(request)).await.unwrap().unwrap();
    if result.is_error == Some(true) {
        assert_eq!(result.structured_content, None);
        let document = result.content[1].as_text().unwrap();
        return Err(serde_json::from_str(&document.text).unwrap());
    }
    Ok(result.structured_content.unwrap())
}

pub(crate) fn asks() -> Value {
    json!({
        "id": "asks",
        "agents": [{ "name": "boss", "kind": "ask" }],
        "flow": { "kind": "step", "ref": "boss", "in": { "op": "lit", "value": "Ship it?" },
                  "out": { "op": "path", "at": "$.ship" } },
    })
}

#[tokio::test]
async fn a_program_over_stdio_runs_asks_and_ends_with_its_client() {
    let client = Client { has_user: true, ..Client::default() };
    let session = over_stdio(client.clone(), &["mcp", "--store", "none"]).await;
    let run = call(&session, "run_blueprint", json!({ "blueprint": asks() })).await.unwrap();
    assert_eq!(
        (&run["status"], &run["report"]["context"]),
        (&json!("pass"), &json!({ "ship": true }))
    );
    assert_eq!(*client.asked.lock(), ["Ship it?"]);
    let uri = format!("adjutant://runs/{}", run["run_id"].as_str().unwrap());
    let read = session.read_resource(ReadResourceRequestParams::new(uri)).await.unwrap();
    let ResourceContents::TextResourceContents { text, .. } = &read.contents[0] else {
        panic!("a run is a text")
    };
    assert_eq!(serde_json::from_str::<Value>(text).unwrap()["run_id"], run["run_id"]);
    tokio::time::timeout(LONG, session.cancel()).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_run_outlives_the_client_that_began_it() {
    let desk = Desk::new().await;
    let first = over_http(&desk, Client::default(), &desk.admin).await;
    let run = call(&first, "run_blueprint", json!({ "blueprint": asks() })).await.unwrap();
    assert_eq!(run["status"], "waiting");
    first.cancel().await.unwrap();
    let second = over_http(&desk, Client::default(), &desk.admin).await;
    let open = call(&second, "list_questions", json!({})).await.unwrap();
    let answer = json!({ "key": open["questions"][0]["key"], "answer": false });
    call(&second, "answer_question", answer).await.unwrap();
    let which = json!({ "run_id": run["run_id"], "wait_secs": 30 });
    let ended = call(&second, "run_status", which).await.unwrap();
    assert_eq!(
        (&ended["status"], &ended["report"]["context"]["ship"]),
        (&json!("pass"), &json!(false))
    );
}

#[tokio::test]
async fn a_long_wait_tells_of_progress_and_says_that_it_goes_on() {
    let cfg = ServerCfg { heartbeat: Duration::from_millis(100), ..ServerCfg::default() };
    let desk = Desk::with(calm(), cfg).await;
    let client = Client::default();
    let session = over_http(&desk, client.clone(), &desk.admin).await;
    let run = call(&session, "run_blueprint", json!({ "blueprint": asks() })).await.unwrap();
    let before = client.progress.load(Ordering::Relaxed);
    let which = json!({ "run_id": run["run_id"], "wait_secs": 1 });
    let still = call(&session, "run_status", which).await.unwrap();
    assert_eq!((&still["still_running"], &still["run_id"]), (&json!(true), &run["run_id"]));
    assert!(client.progress.load(Ordering::Relaxed) >= before + 3, "nothing was heard meanwhile");
}

#[tokio::test]
async fn an_operator_shows_the_token_of_its_login_unless_it_is_the_admin() {
    let desk = Desk::new().await;
    let operator = desk.session("operator").await;
    let session = over_http(&desk, Client::default(), &operator).await;
    let login = call(&session, "operator_join", json!({ "roles": ["desk"] })).await.unwrap();
    let mut wait = json!({ "sid": login["sid"], "timeout_ms": 50 });
    for token in [Value::Null, json!("opr-0"), json!(operator)] {
        wait["token"] = token;
        let refused = call(&session, "operator_wait", wait.clone()).await.unwrap_err();
        assert_eq!(refused["code"], "not_the_holder");
    }
    wait["token"] = login["token"].clone();
    assert_eq!(call(&session, "operator_wait", wait.clone()).await.unwrap()["status"], "waiting");
    let admin = over_http(&desk, Client::default(), &desk.admin).await;
    wait["token"] = Value::Null;
    assert_eq!(call(&admin, "operator_wait", wait.clone()).await.unwrap()["status"], "waiting");
    wait["sid"] = json!("op-nobody");
    let refused = call(&admin, "operator_wait", wait).await.unwrap_err();
    assert_eq!(refused["code"], "operator_not_found");
}

#[tokio::test]
async fn an_operator_that_calls_is_not_away_and_one_that_stopped_is_torn_down() {
    let links = LinkCfg { away: Duration::from_millis(400), ..LinkCfg::default() };
    let desk = Desk::with(calm(), ServerCfg { links, ..ServerCfg::default() }).await;
    let admin = over_http(&desk, Client::default(), &desk.admin).await;
    let login = call(&admin, "operator_join", json!({})).await.unwrap();
    // Longer than it may be away.
    let wait = json!({ "sid": login["sid"], "timeout_ms": 900 });
    assert_eq!(call(&admin, "operator_wait", wait.clone()).await.unwrap()["status"], "waiting");
    let quick = json!({ "sid": login["sid"], "timeout_ms": 1 });
    assert_eq!(call(&admin, "operator_wait", quick).await.unwrap()["status"], "waiting");
    let path = format!("/v1/operators/{}", login["sid"].as_str().unwrap());
    let begun = tokio::time::Instant::now();
    loop {
        let shown: Value = desk.get(&path, &desk.admin).await.json().await.unwrap();
        if shown["link"] == "torn_down" {
            assert_eq!(shown["reason"], "lapsed");
            break;
        }
        assert!(begun.elapsed() < LONG, "it is still there: {shown}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let refused = call(&admin, "operator_wait", wait).await.unwrap_err();
    assert_eq!(refused["code"], "operator_gone");
}

#[tokio::test]
async fn a_caller_may_do_what_its_role_may() {
    let desk = Desk::new().await;
    let operator = desk.session("operator").await;
    let session = over_http(&desk, Client::default(), &operator).await;
    let refused = call(&session, "list_questions", json!({})).await.unwrap_err();
    assert_eq!(
        (&refused["code"], &refused["role"]),
        (&json!("role_violation"), &json!("operator"))
    );
    let senior = over_http(&desk, Client::default(), &desk.session("senior").await).await;
    let open = call(&senior, "list_questions", json!({})).await.unwrap();
    assert_eq!(open["questions"], json!([]));
}
