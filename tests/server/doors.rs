//! Who is refused at the door, and what a refusal looks like.

use std::time::Duration;

use adjutant::ResumeKey;
use adjutant::server::ServerCfg;
use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::api::operations;
use crate::desk::{Desk, LONG, calm, problem};

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
