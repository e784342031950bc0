//! Who is refused at the door, and what a refusal looks like.

use std::time::Duration;

use adjutant::server::ServerCfg;
use adjutant::{ResumeKey, Role};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::api::operations;
use crate::desk::{Desk, LONG, calm, identity, one_step, problem};
use crate::workers::attempt;

/// Every route that needs a bearer, as the document says.
fn guarded() -> Vec<(Method, String)> {
    let guarded = operations().into_iter().filter(|operation| operation.guarded);
    guarded.map(|operation| (operation.method, operation.asked)).collect()
}

#[tokio::test]
async fn every_route_but_health_needs_a_bearer_that_is_one() {
    let desk = Desk::new().await;
    for (method, path) in guarded() {
        let bare = desk.client.request(method.clone(), format!("{}{path}", desk.base));
        let response = bare.send().await.unwrap();
        assert_eq!(response.headers()["www-authenticate"], "Bearer", "{path}");
        problem(response, 401, "unauthenticated").await;
        let wrong = desk.ask(method, &path, "nobody").send().await.unwrap();
        problem(wrong, 401, "unauthenticated").await;
    }
    let open: Vec<_> = operations().into_iter().filter(|operation| !operation.guarded).collect();
    let open: Vec<_> = open.iter().map(|operation| operation.asked.as_str()).collect();
    assert_eq!(open, ["/livez", "/openapi.json", "/readyz", "/v1/healthz"]);
    for path in open {
        let bare = desk.client.get(format!("{}{path}", desk.base));
        assert_eq!(bare.send().await.unwrap().status(), 200, "{path}");
    }
}

#[tokio::test]
async fn only_the_admin_attaches_sessions_and_none_of_workers() {
    let desk = Desk::new().await;
    let operator = desk.session("operator").await;
    let body = json!({ "operator_id": "ann", "role": "senior" });
    problem(desk.post("/v1/sessions", &operator, &body).await, 403, "admin_only").await;
    let body = json!({ "operator_id": "ann", "role": "worker" });
    problem(desk.post("/v1/sessions", &desk.admin, &body).await, 422, "unprocessable").await;
}

#[tokio::test]
async fn the_admins_token_is_no_session() {
    let desk = Desk::new().await;
    let refused = desk.get("/v1/session", &desk.admin).await;
    problem(refused, 401, "unauthenticated").await;
}

#[tokio::test]
async fn a_rebound_name_and_a_foreign_page_are_refused_on_every_route() {
    let desk = Desk::new().await;
    for (method, path) in guarded() {
        let rebound = desk.ask(method.clone(), &path, &desk.admin).header("host", "evil.example");
        let told = problem(rebound.send().await.unwrap(), 403, "host_refused").await;
        assert!(told["detail"].as_str().unwrap().contains("evil.example"), "{told}");
        for origin in ["http://evil.example", "null", "http://localhost:1"] {
            let page = desk.ask(method.clone(), &path, &desk.admin).header("origin", origin);
            let told = problem(page.send().await.unwrap(), 403, "origin_refused").await;
            assert!(told["detail"].as_str().unwrap().contains(origin), "{told}");
        }
    }
}

#[tokio::test]
async fn the_servers_own_page_is_let_in() {
    let desk = Desk::new().await;
    let page = desk.ask(Method::GET, "/metrics", &desk.admin).header("origin", &desk.base);
    assert_eq!(page.send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_callers_mistakes_are_told_as_problems() {
    let desk = Desk::new().await;
    let operator = desk.session("operator").await;
    let told = problem(desk.get("/nowhere?x=1", &operator).await, 404, "route_not_found").await;
    assert_eq!(told["detail"], "there is no route GET /nowhere");
    problem(desk.get("/v1/tasks/nonsense", &operator).await, 400, "invalid_argument").await;
    let key = ResumeKey::from_bits(7);
    let path = format!("/v1/questions/{key}/answer");
    let told = desk.post(&path, &desk.admin, &json!({ "answer": 1 })).await;
    let told = problem(told, 404, "question_not_found").await;
    assert_eq!(told["detail"], format!("no open question has the key {key}"));
    let wrong = desk.ask(Method::PUT, "/v1/tasks", &operator).send().await.unwrap();
    assert_eq!(wrong.headers()["allow"], "POST,GET,HEAD");
    problem(wrong, 405, "method_not_allowed").await;
    let typing = desk.ask(Method::POST, "/v1/tasks", &operator).json(&json!({ "agnet": "a" }));
    let told = problem(typing.send().await.unwrap(), 422, "unprocessable").await;
    assert!(told["detail"].as_str().unwrap().contains("agnet"), "{told}");
    let torn = desk.ask(Method::POST, "/v1/tasks", &operator).body("{");
    let torn = torn.header("content-type", "application/json").send().await.unwrap();
    problem(torn, 400, "bad_request").await;
    let plain = desk.ask(Method::POST, "/v1/tasks", &operator).body("{}").send().await.unwrap();
    problem(plain, 415, "unsupported_media_type").await;
}

#[tokio::test]
async fn a_body_over_the_cap_is_refused() {
    let desk = Desk::with(calm(), ServerCfg { body_bytes: 512, ..ServerCfg::default() }).await;
    let operator = desk.session("operator").await;
    let body = json!({ "agent": "echo", "directive": "x".repeat(600) });
    problem(desk.post("/v1/tasks", &operator, &body).await, 413, "body_too_large").await;
}

#[tokio::test]
async fn a_body_that_never_comes_is_not_waited_for() {
    let cfg = ServerCfg { request_time: Duration::from_millis(100), ..ServerCfg::default() };
    let desk = Desk::with(calm(), cfg).await;
    let address = desk.base.strip_prefix("http://").unwrap();
    let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST /v1/sessions HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {}\r\n\
         Content-Type: application/json\r\nContent-Length: 9\r\nConnection: close\r\n\r\n{{",
        desk.admin
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let read = tokio::time::timeout(LONG, socket.read_to_string(&mut answer)).await;
    read.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains("\"code\":\"request_timeout\""), "{answer}");
}

#[tokio::test]
async fn a_role_that_may_not_is_told_which_verb_it_lacks() {
    let desk = Desk::new().await;
    let observer = desk.session("observer").await;
    let body = json!({ "agent": "echo", "directive": "hello" });
    let told = desk.post("/v1/tasks", &observer, &body).await;
    let told = problem(told, 403, "role_violation").await;
    assert_eq!((&told["role"], &told["verb"]), (&json!("observer"), &json!("start_task")));
}

/// What the token of a live attempt is told on each route that is not a worker's: the method, the
/// path as the document has it, the status and the code.
const SHUT: [(&str, &str, u16, &str); 41] = [
    ("GET", "/metrics", 403, "role_violation"),
    ("GET", "/v1/blueprints", 403, "role_violation"),
    ("GET", "/v1/blueprints/id-1", 403, "role_violation"),
    ("PUT", "/v1/blueprints/id-1", 403, "role_violation"),
    ("POST", "/v1/blueprints/id-1", 403, "role_violation"),
    ("DELETE", "/v1/blueprints/id-1", 403, "role_violation"),
    ("GET", "/v1/blueprints/id-1/head", 403, "role_violation"),
    ("GET", "/v1/blueprints/id-1/history", 403, "role_violation"),
    ("POST", "/v1/blueprints/id-1/unarchive", 403, "role_violation"),
    ("GET", "/v1/doctor", 403, "admin_only"),
    ("GET", "/v1/events", 403, "role_violation"),
    ("POST", "/v1/links", 403, "admin_only"),
    ("GET", "/v1/operators", 403, "role_violation"),
    ("POST", "/v1/operators", 403, "role_violation"),
    ("GET", "/v1/operators/sid-1", 401, "unauthenticated"),
    ("DELETE", "/v1/operators/sid-1", 401, "unauthenticated"),
    ("GET", "/v1/operators/sid-1/ws", 401, "unauthenticated"),
    ("GET", "/v1/questions", 403, "role_violation"),
    ("POST", "/v1/questions/key-1/answer", 403, "role_violation"),
    ("GET", "/v1/runs", 403, "role_violation"),
    ("POST", "/v1/runs", 403, "role_violation"),
    ("GET", "/v1/runs/id-1", 403, "role_violation"),
    ("POST", "/v1/runs/id-1/cancel", 403, "role_violation"),
    ("GET", "/v1/session", 404, "session_not_found"),
    ("DELETE", "/v1/session", 404, "session_not_found"),
    ("POST", "/v1/session/heartbeat", 404, "session_not_found"),
    ("GET", "/v1/sessions", 403, "role_violation"),
    ("POST", "/v1/sessions", 403, "admin_only"),
    ("DELETE", "/v1/sessions", 404, "session_not_found"),
    ("GET", "/v1/supervision", 403, "admin_only"),
    ("GET", "/v1/tasks", 403, "role_violation"),
    ("POST", "/v1/tasks", 403, "token_task_mismatch"),
    ("GET", "/v1/tasks/id-1", 403, "token_task_mismatch"),
    ("GET", "/v1/tasks/id-1/attempts/attempt-1/output", 403, "role_violation"),
    ("POST", "/v1/tasks/id-1/cancel", 403, "token_task_mismatch"),
    ("POST", "/v1/tasks/id-1/dispatch", 403, "role_violation"),
    ("POST", "/v1/tasks/id-1/retry", 403, "role_violation"),
    ("GET", "/v1/tasks/id-1/trace", 403, "role_violation"),
    ("GET", "/mcp", 403, "role_violation"),
    ("POST", "/mcp", 403, "role_violation"),
    ("DELETE", "/mcp", 403, "role_violation"),
];

/// All that a caller may have changed, as the admin and an observer see it.
async fn seen(desk: &Desk) -> Vec<Value> {
    let observer = desk.engine.attach("eye", Role::Observer, LONG).await.unwrap();
    let trace = desk.engine.read_trace(&observer, None, 0, 1000).await.unwrap();
    let own = json!(format!("S-{}", observer.fingerprint()));
    let told = trace.iter().map(|record| serde_json::to_value(record).unwrap());
    let mut all: Vec<_> = told.filter(|told| told["event"]["session_id"] != own).collect();
    desk.engine.detach_and_revoke(&observer).await.unwrap();
    all.retain(|told| !told["event"]["kind"].as_str().unwrap().starts_with("session_"));
    for path in ["/v1/blueprints", "/v1/operators", "/v1/runs"] {
        all.push(desk.get(path, &desk.admin).await.json().await.unwrap());
    }
    all
}

#[tokio::test]
async fn a_worker_enters_no_route_of_operators() {
    let own = |path: &str| path.starts_with("/v1/worker/") || path.starts_with("/v1/data/");
    let all = guarded().into_iter().filter(|(_, path)| !own(path));
    let mut all: Vec<_> = all.map(|(method, path)| (method.to_string(), path)).collect();
    all.extend(["GET", "POST", "DELETE"].map(|method| (method.to_owned(), "/mcp".to_owned())));
    let mut shut: Vec<_> =
        SHUT.iter().map(|(method, path, ..)| ((*method).to_owned(), (*path).to_owned())).collect();
    all.sort_unstable();
    shut.sort_unstable();
    assert_eq!(shut, all, "every route is looked at");

    let desk = Desk::new().await;
    let (worker, other) = (attempt(&desk).await, desk.task(&desk.session("operator").await).await);
    let (token, handle) = (&worker.given.token, &worker.given.handle);
    assert_eq!(desk.get("/v1/worker/prompt", handle).await.status(), 200);
    // Of its own it may have, and below it a dispatch, were it not that blueprints are operators'.
    let below = desk.task(token).await;
    let login = desk.log_in(json!({ "roles": ["desk"] })).await;
    let document = one_step(&identity());
    let kept = desk.ask(Method::PUT, "/v1/blueprints/one", &desk.admin).json(&document);
    assert_eq!(kept.send().await.unwrap().status(), 201);
    let run = json!({ "blueprint": document, "input": { "x": 1 } });
    let run = desk.post("/v1/runs?wait=20", &desk.admin, &run).await;
    let run: Value = run.json().await.unwrap();
    let before = seen(&desk).await;
    for (method, path, status, code) in SHUT {
        let place = |path: &str| {
            let mine = path.ends_with("/dispatch") || path.ends_with("/retry");
            let task = if mine { &below } else { &other };
            path.replace("/v1/tasks/id-1", &format!("/v1/tasks/{task}"))
                .replace("/v1/runs/id-1", &format!("/v1/runs/{}", run["run_id"].as_str().unwrap()))
                .replace("/v1/blueprints/id-1", "/v1/blueprints/one")
                .replace("sid-1", &login.sid)
                .replace("key-1", &format!("R-{:032x}", 7))
                .replace("attempt-1", "1")
        };
        let body = match path {
            "/v1/tasks" => json!({ "agent": "echo", "directive": "hello", "parent": other }),
            "/v1/tasks/id-1/dispatch" => json!({ "blueprint": document, "agent": "echo" }),
            "/v1/runs" => json!({ "blueprint": document, "input": { "x": 1 } }),
            "/v1/questions/key-1/answer" => json!({ "answer": 1 }),
            "/v1/sessions" => json!({ "operator_id": "eve", "role": "operator" }),
            "/v1/operators" => json!({ "roles": ["desk"], "take_over": true }),
            _ => document.clone(),
        };
        let ask = |bearer| desk.ask(method.parse().unwrap(), &place(path), bearer).json(&body);
        let told = ask(token).send().await.unwrap();
        assert_eq!(told.status(), status, "{method} {path}");
        problem(told, status, code).await;
        problem(ask(handle).send().await.unwrap(), 401, "unauthenticated").await;
    }
    assert_eq!(seen(&desk).await, before);
}
