//! What goes over a link: the frames of all three faces, what is dropped, and who gets no socket.

use std::sync::Arc;
use std::time::Duration;

use adjutant::server::{LinkCfg, ServerCfg};
use adjutant::{
    DispatchOutcome, EngineError, InProcSpawner, MainAIMiddleware, OperatorKind, Role,
    SeniorEscalationMiddleware, SpawnerAdapter, SpawnerStack, TaskSpec, WorkerResult,
};
use serde_json::{Value, json};
use std::collections::HashMap;
use tokio_tungstenite::connect_async;

use crate::desk::{Desk, LONG, calm};
use crate::line::{Line, Login, bearing, refusal, request};

/// An agent that says no, with hook and senior around it, in a session whose faces are a login's.
async fn watched(
    desk: &Desk,
    login: &Login,
) -> tokio::task::JoinHandle<Result<DispatchOutcome, EngineError>> {
    let sid = || Some(login.sid.clone());
    let none = HashMap::new;
    let kind = Some(OperatorKind::MainAi);
    let engine = desk.engine.clone();
    let attach = engine.attach_with_ids(
        "ann",
        Role::Operator,
        LONG,
        kind,
        sid(),
        sid(),
        sid(),
        none(),
        none(),
        None,
    );
    let token = attach.await.unwrap();
    let mut agents = InProcSpawner::new();
    agents.register("no", |_| async { Ok(WorkerResult { value: json!("no"), ok: false }) });
    let base: Arc<dyn SpawnerAdapter> = Arc::new(agents);
    let stack = SpawnerStack::new(base).layer(SeniorEscalationMiddleware).layer(MainAIMiddleware);
    let spawner = stack.build();
    let task = engine.start_task(&token, TaskSpec::new("no", "do")).await.unwrap();
    tokio::spawn(async move { engine.dispatch_attempt_with(&token, &task, &spawner).await })
}

#[tokio::test]
async fn one_login_is_hook_and_senior_at_once() {
    let desk = Desk::new().await;
    let login = desk.log_in(json!({})).await;
    let mut line = Line::open(&desk, &login).await;
    let outcome = watched(&desk, &login).await;
    let before = line.expect("hook_before").await;
    assert_eq!((&before["agent"], &before["attempt"]), (&json!("no"), &json!(1)));
    assert_eq!((&before["generation"], &before["seq"]), (&json!(login.generation), &json!(1)));
    let id = before["req_id"].as_str().unwrap();
    assert!(id.starts_with(&format!("{}-hb-", login.sid)), "{id}");
    line.reply(&before, "hook_ack", json!({ "ok": true })).await;
    let ask = line.expect("ask").await;
    assert_eq!(ask["question"]["value"], "no");
    assert_eq!(ask["task_id"], before["task_id"]);
    line.reply(&ask, "answer", json!({ "value": "yes" })).await;
    let after = line.expect("hook_after").await;
    let result = json!({ "original": "no", "senior_answer": "yes" });
    assert_eq!(after["result"], result);
    assert_eq!(outcome.await.unwrap().unwrap(), DispatchOutcome::Pass(result));
}

#[tokio::test]
async fn a_hook_that_says_no_aborts_the_spawn_with_its_reason() {
    let desk = Desk::new().await;
    let login = desk.log_in(json!({})).await;
    let mut line = Line::open(&desk, &login).await;
    let outcome = watched(&desk, &login).await;
    let before = line.expect("hook_before").await;
    line.reply(&before, "hook_ack", json!({ "ok": false, "reason": "not today" })).await;
    match outcome.await.unwrap() {
        Err(EngineError::DispatchFailed(why)) => assert!(why.contains("not today"), "{why}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_worker_of_the_operator_pulls_and_posts_with_its_handle() {
    let desk = Desk::new().await;
    let login = desk.log_in(json!({ "roles": ["desk"] })).await;
    let mut line = Line::open(&desk, &login).await;
    let dispatch = desk.dispatch("desk", "say hello").await;
    let spawn = line.expect("spawn").await;
    assert_eq!(spawn["task_id"], json!(dispatch.task.to_string()));
    assert!(!spawn.to_string().contains("say hello"), "the prompt stays where it is");
    let handle = spawn["worker_handle"].as_str().unwrap();
    for bearer in [handle, spawn["capability_token"].as_str().unwrap()] {
        let payload: Value = desk.get("/v1/worker/prompt", bearer).await.json().await.unwrap();
        assert_eq!(payload["prompt"], "say hello", "{payload}");
    }
    assert_eq!(desk.submit(handle, "{\"said\": \"hello\"}").await.status(), 204);
    line.reply(&spawn, "spawn_ack", json!({ "value": "not this" })).await;
    let said = json!({ "said": "hello" });
    assert_eq!(dispatch.end().await.unwrap(), DispatchOutcome::Pass(said));
    assert_eq!(desk.submit(handle, "again").await.status(), 410);
    let old = desk.get("/v1/worker/prompt", spawn["capability_token"].as_str().unwrap()).await;
    assert_eq!(old.status(), 410);
}

#[tokio::test]
async fn an_ack_is_the_result_where_none_was_posted() {
    let desk = Desk::new().await;
    let login = desk.log_in(json!({})).await;
    let mut line = Line::open(&desk, &login).await;
    let acks =
        [json!({ "value": 7 }), json!({ "value": 8, "ok": false }), json!({ "error": "no way" })];
    let mut ends = Vec::new();
    for ack in acks {
        let dispatch = desk.dispatch(&login.sid, "count").await;
        let spawn = line.expect("spawn").await;
        line.reply(&spawn, "spawn_ack", ack).await;
        ends.push(dispatch.end().await);
    }
    assert_eq!(ends[0], Ok(DispatchOutcome::Pass(json!(7))));
    assert_eq!(ends[1], Ok(DispatchOutcome::Blocked(json!(8))));
    assert!(ends[2].as_ref().is_err_and(|error| error.to_string().contains("no way")));
}

#[tokio::test]
async fn a_task_that_is_cancelled_is_withdrawn() {
    let desk = Desk::new().await;
    let login = desk.log_in(json!({})).await;
    let mut line = Line::open(&desk, &login).await;
    let dispatch = desk.dispatch(&login.sid, "wait").await;
    let spawn = line.expect("spawn").await;
    desk.engine.cancel_task(&dispatch.token, &dispatch.task).await.unwrap();
    let withdrawn = line.expect("withdrawn").await;
    assert_eq!(withdrawn["withdrawn"], spawn["req_id"]);
    assert_eq!(dispatch.end().await.unwrap(), DispatchOutcome::Cancelled);
}

#[tokio::test]
async fn what_settles_nothing_is_dropped_and_counted() {
    let desk = Desk::new().await;
    let login = desk.log_in(json!({})).await;
    let mut line = Line::open(&desk, &login).await;
    let dispatch = desk.dispatch(&login.sid, "count").await;
    let spawn = line.expect("spawn").await;
    line.send(&json!("nonsense")).await;
    line.send(&json!({ "type": "spawn_ack", "req_id": "op-1-spawn-1", "value": 1 })).await;
    line.reply(&spawn, "answer", json!({ "value": 2 })).await;
    line.reply(&spawn, "spawn_ack", json!({ "value": 3, "generation": 0 })).await;
    line.reply(&spawn, "spawn_ack", json!({ "value": 4 })).await;
    line.reply(&spawn, "spawn_ack", json!({ "value": 5 })).await;
    assert_eq!(dispatch.end().await.unwrap(), DispatchOutcome::Pass(json!(4)));
    while desk.metric("operator_dropped_replies_total").await < 5 {
        tokio::task::yield_now().await;
    }
    assert_eq!(desk.shown(&login).await["unanswered"], 0);
}

#[tokio::test]
async fn a_frame_over_the_cap_costs_the_socket_and_nothing_else() {
    let links = LinkCfg { frame_bytes: 4096, ..LinkCfg::default() };
    let desk = Desk::with(calm(), ServerCfg { links, ..ServerCfg::default() }).await;
    let login = desk.log_in(json!({})).await;
    let mut line = Line::open(&desk, &login).await;
    let dispatch = desk.dispatch(&login.sid, "count").await;
    let spawn = line.expect("spawn").await;
    line.reply(&spawn, "spawn_ack", json!({ "value": "x".repeat(5000) })).await;
    desk.until(&login, "connected", json!(false)).await;
    let mut line = Line::open(&desk, &login).await;
    let again = line.expect("spawn").await;
    assert_eq!(again, spawn);
    line.reply(&again, "spawn_ack", json!({ "value": "short" })).await;
    assert_eq!(dispatch.end().await.unwrap(), DispatchOutcome::Pass(json!("short")));
}

#[tokio::test]
async fn a_socket_is_for_the_holder_from_an_own_page_only() {
    let desk = Desk::new().await;
    let (login, other) = (desk.log_in(json!({})).await, desk.log_in(json!({})).await);
    let sid = login.sid.as_str();
    let told = |status: u16, code: &str| (status, code.to_owned());
    for origin in ["http://evil.example", "null", "http://127.0.0.1:1"] {
        let mut page = bearing(&desk, sid, &login.token);
        page.headers_mut().insert("origin", origin.parse().unwrap());
        assert_eq!(refusal(page).await, told(403, "origin_refused"), "{origin}");
    }
    let mut rebound = bearing(&desk, sid, &login.token);
    rebound.headers_mut().insert("host", "evil.example".parse().unwrap());
    assert_eq!(refusal(rebound).await, told(403, "host_refused"));
    assert_eq!(refusal(request(&desk, sid)).await, told(401, "unauthenticated"));
    assert_eq!(refusal(bearing(&desk, sid, "opr-guess")).await, told(401, "unauthenticated"));
    assert_eq!(refusal(bearing(&desk, sid, &other.token)).await, told(403, "not_the_holder"));
    let operator = desk.session("operator").await;
    assert_eq!(refusal(bearing(&desk, sid, &operator)).await, told(401, "unauthenticated"));
    let nobody = bearing(&desk, "op-nobody", &desk.admin);
    assert_eq!(refusal(nobody).await, told(404, "operator_not_found"));
    let mut own = bearing(&desk, sid, &login.token);
    own.headers_mut().insert("origin", desk.base.parse().unwrap());
    connect_async(own).await.unwrap();
}

#[tokio::test]
async fn a_browser_brings_its_bearer_as_a_subprotocol() {
    let desk = Desk::new().await;
    let login = desk.log_in(json!({})).await;
    let offer = |bearer: &str, before: &str| {
        let mut request = request(&desk, &login.sid);
        let names = format!("{before}adjutant.bearer.{bearer}");
        request.headers_mut().insert("sec-websocket-protocol", names.parse().unwrap());
        request
    };
    assert_eq!(refusal(offer("opr-guess", "adjutant, ")).await.0, 401);
    let (_both, response) = connect_async(offer(&login.token, "adjutant, ")).await.unwrap();
    assert_eq!(response.headers()["sec-websocket-protocol"], "adjutant");
    connect_async(offer(&login.token, "")).await.unwrap();
}

#[tokio::test]
async fn a_request_that_is_no_upgrade_is_told_so() {
    let desk = Desk::new().await;
    let login = desk.log_in(json!({})).await;
    let plain = desk.get(&format!("/v1/operators/{}/ws", login.sid), &login.token).await;
    assert!(plain.status().is_client_error());
    assert_eq!(plain.headers()["content-type"], "application/problem+json");
}

#[tokio::test]
async fn the_end_of_the_server_is_told_first_and_then_closes_the_link() {
    let desk = Desk::new().await;
    let login = desk.log_in(json!({})).await;
    let mut line = Line::open(&desk, &login).await;
    desk.until(&login, "connected", json!(true)).await;
    desk.stop.cancel();
    line.expect("draining").await;
    assert_eq!(line.close_code().await, 1001);
    let ended = tokio::time::timeout(Duration::from_secs(20), desk.serving).await;
    ended.unwrap().unwrap().unwrap();
}
