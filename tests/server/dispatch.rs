//! Dispatching a task over the wire with an agent of a blueprint, and again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use adjutant::blueprint::Functions;
use adjutant::server::ServerCfg;
use adjutant::{Role, WorkerInvocation, WorkerResult};
use reqwest::{Method, Response};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::desk::{Desk, LONG, calm, identity, one_step, problem};

/// A desk with the function `second`, which says no the first time and yes later.
async fn desk() -> Desk {
    let calls = Arc::new(AtomicU32::new(0));
    let functions = Functions::new().with("second", move |call| {
        let ok = calls.fetch_add(1, Ordering::Relaxed) > 0;
        async move { Ok(WorkerResult { value: call.prompt.into(), ok }) }
    });
    Desk::with(calm(), ServerCfg { functions, ..ServerCfg::default() }).await
}

/// A task that was dispatched with this blueprint, and what was said to it.
async fn dispatched(desk: &Desk, blueprint: &Value, agent: &str) -> (String, Response) {
    let task = desk.task(&desk.admin).await;
    let body = json!({ "blueprint": blueprint, "agent": agent });
    let told = desk.post(&format!("/v1/tasks/{task}/dispatch"), &desk.admin, &body).await;
    (task, told)
}

fn second() -> Value {
    json!({ "name": "second", "kind": "rust_fn", "spec": { "fn_id": "second" } })
}

async fn held(desk: &Desk, task: &str) -> Value {
    let path = format!("/v1/tasks/{task}?hold=25");
    desk.get(&path, &desk.admin).await.json().await.unwrap()
}

#[tokio::test]
async fn a_task_is_dispatched_with_an_agent_of_a_kept_or_a_given_blueprint() {
    let desk = desk().await;
    let operator = desk.session("operator").await;
    let put = desk.ask(Method::PUT, "/v1/blueprints/one", &operator).json(&one_step(&identity()));
    assert_eq!(put.send().await.unwrap().status(), 201);
    for blueprint in [json!({ "id": "one" }), one_step(&identity())] {
        // The task's own agent is called `echo`, as that of the blueprint is.
        let task = desk.task(&operator).await;
        let path = format!("/v1/tasks/{task}/dispatch");
        let sent = desk.post(&path, &operator, &json!({ "blueprint": blueprint })).await;
        assert_eq!(sent.status(), 202);
        let told: Value = sent.json().await.unwrap();
        assert_eq!((&told["agent"], &told["attempt"]), (&json!("echo"), &json!(1)));
        let task = held(&desk, &task).await;
        assert_eq!(
            (&task["status"], &task["last_result"]["echoed"]),
            (&json!("pass"), &json!("hello"))
        );
    }
}

#[tokio::test]
async fn a_blocked_task_is_retried_by_the_agent_of_before_and_a_passed_one_is_not() {
    let desk = desk().await;
    let task = desk.task(&desk.admin).await;
    let (dispatch, retry) =
        (format!("/v1/tasks/{task}/dispatch"), format!("/v1/tasks/{task}/retry"));
    problem(desk.post(&retry, &desk.admin, &json!({})).await, 409, "agent_unknown").await;
    let body = json!({ "blueprint": one_step(&second()), "agent": "second" });
    assert_eq!(desk.post(&dispatch, &desk.admin, &body).await.status(), 202);
    assert_eq!(held(&desk, &task).await["status"], "blocked");
    assert_eq!(desk.post(&retry, &desk.admin, &json!({})).await.status(), 202);
    let state = held(&desk, &task).await;
    assert_eq!((&state["status"], &state["attempt"]), (&json!("pass"), &json!(2)));
    problem(desk.post(&retry, &desk.admin, &json!({})).await, 409, "invalid_transition").await;
    problem(desk.post(&dispatch, &desk.admin, &body).await, 409, "invalid_transition").await;
}

#[tokio::test]
async fn the_task_of_an_ended_run_is_retried_by_the_kept_blueprint_of_its_content() {
    let desk = desk().await;
    let document = one_step(&second());
    let put = desk.ask(Method::PUT, "/v1/blueprints/one", &desk.admin).json(&document);
    assert_eq!(put.send().await.unwrap().status(), 201);
    let body = json!({ "blueprint": { "id": "one" }, "input": { "x": "again" } });
    let run: Value = desk.post("/v1/runs?wait=20", &desk.admin, &body).await.json().await.unwrap();
    assert_eq!(run["status"], "blocked");
    let task = run["tasks"][0].as_str().unwrap();
    let sent = desk.post(&format!("/v1/tasks/{task}/retry"), &desk.admin, &json!({})).await;
    assert_eq!(sent.status(), 202);
    assert_eq!(held(&desk, task).await["last_result"], "again");
}

#[tokio::test]
async fn what_cannot_be_dispatched_is_told() {
    let desk = desk().await;
    let task = desk.task(&desk.admin).await;
    let path = format!("/v1/tasks/{task}/dispatch");
    let other = json!({ "blueprint": one_step(&second()) });
    problem(desk.post(&path, &desk.admin, &other).await, 400, "invalid_argument").await;
    let ask = json!({ "name": "ask", "kind": "ask", "spec": {} });
    let asks = json!({ "blueprint": one_step(&ask), "agent": "ask" });
    problem(desk.post(&path, &desk.admin, &asks).await, 400, "invalid_argument").await;
    let none = json!({ "blueprint": { "id": "none" } });
    problem(desk.post(&path, &desk.admin, &none).await, 404, "blueprint_not_found").await;
    let path = format!("/v1/tasks/T-{}/dispatch", "0".repeat(32));
    problem(desk.post(&path, &desk.admin, &other).await, 404, "task_not_found").await;
    let observer = desk.session("observer").await;
    problem(desk.post(&path, &observer, &other).await, 403, "role_violation").await;
}

#[tokio::test]
async fn a_dispatch_too_many_is_refused_until_those_before_it_have_begun() {
    let gate = Arc::new(Semaphore::new(0));
    let inside = gate.clone();
    let functions = Functions::new().with("gate", move |call| {
        let gate = inside.clone();
        async move {
            gate.acquire().await.unwrap().forget();
            Ok(WorkerResult { value: call.prompt.into(), ok: true })
        }
    });
    let cfg = ServerCfg { functions, dispatches: 1, ..ServerCfg::default() };
    let desk = Desk::with(calm(), cfg).await;
    let spec = json!({ "fn_id": "gate", "max_concurrency": 1 });
    let blueprint = one_step(&json!({ "name": "gate", "kind": "rust_fn", "spec": spec }));
    let (first, told) = dispatched(&desk, &blueprint, "gate").await;
    assert_eq!(told.json::<Value>().await.unwrap()["attempt"], 1);
    // The same content is the same program, so its agent's limit holds for both.
    let (second, told) = dispatched(&desk, &blueprint, "gate").await;
    assert_eq!(told.json::<Value>().await.unwrap()["attempt"], Value::Null, "it is queued");
    let (_, told) = dispatched(&desk, &blueprint, "gate").await;
    let told = problem(told, 429, "too_many_dispatches").await;
    assert_eq!(
        (&told["retryable"], &told["setting"]),
        (&json!(true), &json!("limits.waiting_dispatches"))
    );
    gate.add_permits(1);
    assert_eq!(held(&desk, &first).await["status"], "pass");
    let third = loop {
        let (third, told) = dispatched(&desk, &blueprint, "gate").await;
        if told.status() == 202 {
            break third;
        }
        problem(told, 429, "too_many_dispatches").await;
    };
    gate.add_permits(2);
    for task in [second, third] {
        assert_eq!(held(&desk, &task).await["status"], "pass");
    }
}

#[tokio::test]
async fn a_dispatch_that_waits_for_a_resume_holds_its_place_and_is_known_though_its_client_left() {
    let cfg = ServerCfg { dispatches: 1, dispatch_bytes: 20_000, ..ServerCfg::default() };
    let calls = Arc::new(AtomicU32::new(0));
    let functions = Functions::new().with("second", move |call| {
        let ok = calls.fetch_add(1, Ordering::Relaxed) > 0;
        async move { Ok(WorkerResult { value: call.prompt.into(), ok }) }
    });
    let desk = Desk::with(calm(), ServerCfg { functions, ..cfg }).await;
    let senior = desk.engine.attach("sam", Role::Senior, LONG).await.unwrap();
    desk.engine.pause_dispatch(&senior).await.unwrap();
    let (first, other) = (desk.task(&desk.admin).await, desk.task(&desk.admin).await);
    let body = json!({ "blueprint": one_step(&second()), "agent": "second" });
    let path = format!("/v1/tasks/{first}/dispatch");
    let client = tokio::spawn(desk.ask(Method::POST, &path, &desk.admin).json(&body).send());
    // Refused in any case: for its prompt as long as there is a place.
    let mut long = body.clone();
    long["prompt"] = "x".repeat(30_000).into();
    let path = format!("/v1/tasks/{other}/dispatch");
    loop {
        let told = desk.post(&path, &desk.admin, &long).await;
        if problem(told, 429, "too_many_dispatches").await["setting"] == "limits.waiting_dispatches"
        {
            break;
        }
        assert!(!client.is_finished(), "its client was answered and the place is free");
    }
    client.abort();
    desk.engine.resume_dispatch(&senior).await.unwrap();
    assert_eq!(held(&desk, &first).await["status"], "blocked");
    let path = format!("/v1/tasks/{first}/retry");
    assert_eq!(desk.post(&path, &desk.admin, &json!({})).await.status(), 202);
    assert_eq!(held(&desk, &first).await["status"], "pass");
}

#[tokio::test]
async fn whatever_documents_come_what_is_kept_of_them_is_bounded() {
    let functions = Functions::new().with("no", async |call: WorkerInvocation| {
        Ok(WorkerResult { value: call.prompt.into(), ok: false })
    });
    let cfg = ServerCfg { functions, dispatch_bytes: 20_000, ..ServerCfg::default() };
    let desk = Desk::with(calm(), cfg).await;
    let document = |number: usize, bytes: usize| {
        let mut document =
            one_step(&json!({ "name": "no", "kind": "rust_fn", "spec": { "fn_id": "no" } }));
        document["flow"]["in"] = json!({ "op": "lit", "value": [number, "x".repeat(bytes)] });
        document
    };
    let mut tasks = Vec::new();
    for number in 0..4 {
        // What is still at work makes no room yet.
        let task = loop {
            let (task, told) = dispatched(&desk, &document(number, 8_000), "no").await;
            if told.status() == 202 {
                break task;
            }
            problem(told, 429, "too_many_dispatches").await;
        };
        assert_eq!(held(&desk, &task).await["status"], "blocked");
        tasks.push(task);
    }
    let retry = async |task: &str| {
        desk.post(&format!("/v1/tasks/{task}/retry"), &desk.admin, &json!({})).await
    };
    assert_eq!(retry(&tasks[3]).await.status(), 202);
    problem(retry(&tasks[0]).await, 409, "agent_unknown").await;
    problem(retry(&tasks[1]).await, 409, "agent_unknown").await;
    let (_, told) = dispatched(&desk, &document(4, 30_000), "no").await;
    let told = problem(told, 429, "too_many_dispatches").await;
    assert_eq!(told["setting"], "limits.dispatch_bytes");
}
