//! Who is let in at `/mcp`.

use adjutant::server::ServerCfg;
use adjutant::{EngineCfg, Role};
use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::desk::{Desk, calm, problem};

fn hello() -> Value {
    json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-06-18", "capabilities": {},
        "clientInfo": { "name": "test", "version": "1" },
    } })
}

async fn greet(desk: &Desk, bearer: &str, header: Option<(&str, &str)>) -> Response {
    let mut request = desk.ask(Method::POST, "/mcp", bearer).json(&hello());
    request = request.header("Accept", "application/json, text/event-stream");
    if let Some((name, value)) = header {
        request = request.header(name, value);
    }
    request.send().await.unwrap()
}

#[tokio::test]
async fn nobody_enters_without_a_bearer_that_the_engine_knows() {
    let desk = Desk::new().await;
    let bare = desk.client.post(format!("{}/mcp", desk.base)).json(&hello()).send().await.unwrap();
    problem(bare, 401, "unauthenticated").await;
    problem(greet(&desk, "adm-0000", None).await, 401, "unauthenticated").await;
    // A token of another engine is well formed and unknown here.
    let other = adjutant::Engine::new(EngineCfg::default());
    let stranger = other.attach("eve", Role::Operator, crate::desk::LONG).await.unwrap();
    problem(greet(&desk, &stranger.encode(), None).await, 401, "bad_signature").await;
    for bearer in [desk.admin.clone(), desk.session("operator").await, desk.session("senior").await]
    {
        assert_eq!(greet(&desk, &bearer, None).await.status(), 200);
    }
}

#[tokio::test]
async fn a_session_that_was_detached_is_let_in_no_more() {
    let desk = Desk::new().await;
    let bearer = desk.session("operator").await;
    let opened = greet(&desk, &bearer, None).await;
    let session = opened.headers()["mcp-session-id"].to_str().unwrap().to_owned();
    let left = desk.ask(Method::DELETE, "/v1/session", &bearer).send().await.unwrap();
    assert_eq!(left.status(), 204);
    let again = greet(&desk, &bearer, Some(("Mcp-Session-Id", &session))).await;
    assert_eq!(again.status(), 401);
}

#[tokio::test]
async fn foreign_hosts_and_pages_are_refused() {
    let desk = Desk::new().await;
    let rebound = greet(&desk, &desk.admin, Some(("Host", "evil.example"))).await;
    problem(rebound, 403, "host_refused").await;
    let page = greet(&desk, &desk.admin, Some(("Origin", "http://evil.example"))).await;
    problem(page, 403, "origin_refused").await;
    let own = desk.base.clone();
    assert_eq!(greet(&desk, &desk.admin, Some(("Origin", &own))).await.status(), 200);
}

#[tokio::test]
async fn sessions_of_the_protocol_are_capped_and_go_with_their_clients() {
    let desk = Desk::with(calm(), ServerCfg { streams: 1, ..ServerCfg::default() }).await;
    let opened = greet(&desk, &desk.admin, None).await;
    let session = opened.headers()["mcp-session-id"].to_str().unwrap().to_owned();
    problem(greet(&desk, &desk.admin, None).await, 503, "too_many_streams").await;
    let newest = Some(("Mcp-Protocol-Version", "2026-07-28"));
    problem(greet(&desk, &desk.admin, newest).await, 503, "too_many_streams").await;
    let left = desk.ask(Method::DELETE, "/mcp", &desk.admin).header("Mcp-Session-Id", session);
    assert!(left.send().await.unwrap().status().is_success());
    assert_eq!(greet(&desk, &desk.admin, None).await.status(), 200);
}

#[tokio::test]
async fn a_refusal_of_the_protocol_keeps_its_own_form() {
    let desk = Desk::new().await;
    let unknown = greet(&desk, &desk.admin, Some(("Mcp-Session-Id", "nothing"))).await;
    assert!(unknown.status().is_client_error());
    let kind = unknown.headers().get("content-type");
    assert!(kind.is_none_or(|kind| kind != "application/problem+json"), "{kind:?}");
}

#[tokio::test]
async fn a_session_is_nobody_s_but_its_opener_s() {
    let desk = Desk::new().await;
    let (ann, eve) = (desk.session("operator").await, desk.session("senior").await);
    let opened = greet(&desk, &ann, None).await;
    let session = opened.headers()["mcp-session-id"].to_str().unwrap().to_owned();
    let ask = async |method: Method, bearer: &str, id: &str| {
        let list = json!({ "jsonrpc": "2.0", "id": 2, "method": "tools/list" });
        let request = desk.ask(method.clone(), "/mcp", bearer).header("Mcp-Session-Id", id);
        let request = request.header("Accept", "application/json, text/event-stream");
        let request = if method == Method::POST { request.json(&list) } else { request };
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        (status, if status == 404 { answer.text().await.unwrap() } else { String::new() })
    };
    for method in [Method::POST, Method::GET, Method::DELETE] {
        let unknown = ask(method.clone(), &eve, "nothing").await;
        assert_eq!(unknown.0, 404);
        for other in [&eve, &desk.admin] {
            assert_eq!(ask(method.clone(), other, &session).await, unknown, "{method}");
        }
    }
    // It is still there for its opener, who may come with another token of the same name and role.
    let again = desk.session("operator").await;
    for bearer in [&ann, &again] {
        assert_eq!(ask(Method::POST, bearer, &session).await.0, 200);
    }
    assert_eq!(ask(Method::DELETE, &ann, &session).await.0, 202);
    assert_eq!(ask(Method::POST, &ann, &session).await.0, 404);
}
