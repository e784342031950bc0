//! Runs over the wire: what is refused, what survives the client, the key, the answer, the end.

use std::sync::Arc;
use std::time::Duration;

use adjutant::WorkerResult;
use adjutant::blueprint::Functions;
use adjutant::server::ServerCfg;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::sync::Semaphore;

use crate::desk::{Desk, LONG, ask, calm, held, identity, one_step, problem, until};

fn gated() -> Value {
    json!({ "name": "gate", "kind": "rust_fn", "spec": { "fn_id": "gate" } })
}

/// A desk with the function `gate`, which waits for a permit.
async fn gated_desk(cfg: ServerCfg) -> (Desk, Arc<Semaphore>) {
    let gate = Arc::new(Semaphore::new(0));
    let inside = gate.clone();
    let functions = Functions::new().with("gate", move |call| {
        let gate = inside.clone();
        async move {
            gate.acquire().await.unwrap().forget();
            Ok(WorkerResult { value: call.prompt.into(), ok: true })
        }
    });
    (Desk::with(calm(), ServerCfg { functions, ..cfg }).await, gate)
}

#[tokio::test]
async fn a_run_is_started_waited_for_and_shown_with_its_report() {
    let desk = Desk::new().await;
    let operator = desk.session("operator").await;
    let body = json!({ "blueprint": one_step(&identity()), "input": { "x": 7 } });
    let begun = desk.post("/v1/runs?wait=20", &operator, &body).await;
    assert_eq!(begun.status(), 200);
    let place = begun.headers()["location"].to_str().unwrap().to_owned();
    let run: Value = begun.json().await.unwrap();
    assert_eq!((&run["status"], &run["blueprint"]), (&json!("pass"), &json!("one")));
    assert_eq!(run["report"]["context"]["y"]["echoed"], 7);
    assert_eq!(run["tasks"].as_array().unwrap().len(), 1);
    let shown: Value = desk.get(&place, &desk.admin).await.json().await.unwrap();
    assert_eq!(shown, run);
}

#[tokio::test]
async fn a_client_that_is_cut_off_in_the_middle_changes_nothing() {
    let (desk, gate) = gated_desk(ServerCfg::default()).await;
    let body = json!({ "blueprint": one_step(&gated()), "input": { "x": "on" } }).to_string();
    let address = desk.base.strip_prefix("http://").unwrap();
    let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST /v1/runs?wait=20 HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        desk.admin,
        body.len()
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    let begun = tokio::time::Instant::now();
    let run = loop {
        let list: Value = desk.get("/v1/runs", &desk.admin).await.json().await.unwrap();
        if let Some(run) = list["runs"].get(0) {
            break run.clone();
        }
        assert!(begun.elapsed() < LONG, "{list}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    drop(socket);
    gate.add_permits(1);
    let ended = held(&desk, &run["run_id"]).await;
    assert_eq!(
        (&ended["status"], &ended["report"]["context"]["y"]),
        (&json!("pass"), &json!("on"))
    );
}

#[tokio::test]
async fn a_key_starts_one_run_and_refuses_another_body() {
    let desk = Desk::new().await;
    let start = async |bearer: &str, x: u32| {
        let body = json!({ "blueprint": one_step(&identity()), "input": { "x": x } });
        let ask = desk.ask(Method::POST, "/v1/runs?wait=20", bearer).json(&body);
        ask.header("idempotency-key", "nightly").send().await.unwrap()
    };
    let (one, other) = tokio::join!(start(&desk.admin, 1), start(&desk.admin, 1));
    let (one, other): (Value, Value) = (one.json().await.unwrap(), other.json().await.unwrap());
    assert_eq!(one, other);
    let told = problem(start(&desk.admin, 2).await, 409, "key_conflict").await;
    assert_eq!(told["run_id"], one["run_id"]);
    let operator = desk.session("operator").await;
    let own: Value = start(&operator, 2).await.json().await.unwrap();
    assert_ne!(own["run_id"], one["run_id"], "another's key is another key");
}

#[tokio::test]
async fn a_refused_start_leaves_its_key_free() {
    let desk = Desk::new().await;
    let start = async |operator: Value| {
        let blueprint = one_step(&identity());
        let body = json!({ "blueprint": blueprint, "input": { "x": 1 }, "operator": operator });
        let ask = desk.ask(Method::POST, "/v1/runs?wait=20", &desk.admin).json(&body);
        ask.header("idempotency-key", "nightly").send().await.unwrap()
    };
    let nobody = json!({ "operator_backend_id": "nobody" });
    problem(start(nobody).await, 400, "invalid_argument").await;
    let run: Value = start(json!({})).await.json().await.unwrap();
    assert_eq!(run["status"], "pass");
}

#[tokio::test]
async fn a_run_waits_for_its_answer_and_goes_on_with_it() {
    let desk = Desk::new().await;
    let body = json!({ "blueprint": one_step(&ask()), "input": { "x": "well?" } });
    let begun = desk.post("/v1/runs", &desk.admin, &body).await;
    assert_eq!(begun.status(), 202);
    let begun: Value = begun.json().await.unwrap();
    until(&desk, &begun["run_id"], "waiting").await;
    let open: Value = desk.get("/v1/questions", &desk.admin).await.json().await.unwrap();
    assert_eq!(open["questions"][0]["question"], "well?");
    let path = format!("/v1/questions/{}/answer", open["questions"][0]["key"].as_str().unwrap());
    let told = desk.post(&path, &desk.admin, &json!({ "answer": { "well": true } })).await;
    assert_eq!(told.status(), 204);
    let ended = held(&desk, &begun["run_id"]).await;
    assert_eq!(ended["report"]["context"]["y"], json!({ "well": true }));
}

#[tokio::test]
async fn a_cancelled_run_ends_with_its_tasks_and_stays_so() {
    let (desk, _gate) = gated_desk(ServerCfg::default()).await;
    let body = json!({ "blueprint": one_step(&gated()), "input": { "x": 1 } });
    let begun: Value = desk.post("/v1/runs", &desk.admin, &body).await.json().await.unwrap();
    let path = format!("/v1/runs/{}/cancel", begun["run_id"].as_str().unwrap());
    for _ in 0..2 {
        let cancelled = desk.post(&path, &desk.admin, &json!({})).await;
        assert_eq!(cancelled.status(), 200);
        let run: Value = cancelled.json().await.unwrap();
        assert_eq!(run["status"], "cancelled");
        for task in run["tasks"].as_array().unwrap() {
            let path = format!("/v1/tasks/{}", task.as_str().unwrap());
            let task: Value = desk.get(&path, &desk.admin).await.json().await.unwrap();
            assert_eq!(task["status"], "cancelled");
        }
    }
    let body = json!({ "blueprint": one_step(&identity()), "input": { "x": 1 } });
    let done: Value = desk.post("/v1/runs?wait=20", &desk.admin, &body).await.json().await.unwrap();
    let path = format!("/v1/runs/{}/cancel", done["run_id"].as_str().unwrap());
    problem(desk.post(&path, &desk.admin, &json!({})).await, 409, "run_state").await;
    problem(desk.post("/v1/runs/x/cancel", &desk.admin, &json!({})).await, 400, "invalid_argument")
        .await;
}

#[tokio::test]
async fn more_runs_than_may_be_are_refused_until_one_has_ended() {
    let (desk, gate) = gated_desk(ServerCfg { runs: 1, ..ServerCfg::default() }).await;
    let body = json!({ "blueprint": one_step(&gated()), "input": { "x": 1 } });
    let begun: Value = desk.post("/v1/runs", &desk.admin, &body).await.json().await.unwrap();
    let told = problem(desk.post("/v1/runs", &desk.admin, &body).await, 429, "too_many_runs").await;
    assert_eq!((&told["setting"], &told["retryable"]), (&json!("limits.live_runs"), &json!(true)));
    let hint = "try again once runs have ended, or raise the setting `limits.live_runs`";
    assert_eq!(told["hint"], hint);
    gate.add_permits(2);
    held(&desk, &begun["run_id"]).await;
    let next = desk.post("/v1/runs?wait=20", &desk.admin, &body).await;
    assert_eq!(next.status(), 200);
}

#[tokio::test]
async fn a_run_that_takes_longer_than_its_ttl_times_out() {
    let (desk, _gate) = gated_desk(ServerCfg::default()).await;
    let body = json!({ "blueprint": one_step(&gated()), "input": { "x": 1 }, "ttl_secs": 1 });
    let begun: Value =
        desk.post("/v1/runs?wait=20", &desk.admin, &body).await.json().await.unwrap();
    assert_eq!(begun["status"], "timeout");
    let never = json!({ "blueprint": one_step(&gated()), "ttl_secs": 0 });
    problem(desk.post("/v1/runs", &desk.admin, &never).await, 400, "invalid_argument").await;
}

#[tokio::test]
async fn all_faults_of_a_blueprint_are_told_at_once() {
    let desk = Desk::new().await;
    let mut wrong = one_step(&json!({ "name": "a", "kind": "lua", "spec": {} }));
    let other = json!({ "name": "b", "kind": "rust_fn", "spec": { "fn_id": "nobody" } });
    wrong["agents"].as_array_mut().unwrap().push(other);
    let body = json!({ "blueprint": wrong });
    let told = problem(desk.post("/v1/runs", &desk.admin, &body).await, 422, "invalid_blueprint");
    let told = told.await;
    let faults = told["faults"].as_array().unwrap();
    assert!(faults.len() >= 2, "{told}");
    assert!(faults[0].as_str().unwrap().contains("`a`") && told.to_string().contains("`b`"));
}

#[tokio::test]
async fn a_blueprint_over_the_wire_reads_no_file_and_runs_no_program_that_is_not_allowed() {
    let desk = Desk::new().await;
    let mut files = one_step(&identity());
    files["metadata"] = json!({ "description": { "$file": "/etc/passwd" } });
    files["agents"].as_array_mut().unwrap().push(json!({ "$agent_md": "a.md" }));
    let told = desk.post("/v1/runs", &desk.admin, &json!({ "blueprint": files })).await;
    let told = problem(told, 422, "invalid_blueprint").await;
    assert_eq!(told["faults"].as_array().unwrap().len(), 2, "{told}");
    for spec in [json!({ "program": "cat" }), json!({ "shell": "cat" })] {
        let agent = json!({ "name": "cat", "kind": "subprocess", "spec": spec });
        let body = json!({ "blueprint": one_step(&agent), "input": { "x": 1 } });
        let told = desk.post("/v1/runs", &desk.admin, &body).await;
        let told = problem(told, 403, "program_not_allowed").await;
        assert_eq!(
            (&told["setting"], &told["refused"][0]["agent"]),
            (&json!("programs.allow"), &json!("cat"))
        );
    }
    let programs = vec!["cat".to_owned()];
    let desk = Desk::with(calm(), ServerCfg { programs, ..ServerCfg::default() }).await;
    let agent = json!({ "name": "cat", "kind": "subprocess", "spec": { "program": "cat" } });
    let body = json!({ "blueprint": one_step(&agent), "input": { "x": { "a": 1 } } });
    let ran: Value = desk.post("/v1/runs?wait=20", &desk.admin, &body).await.json().await.unwrap();
    assert_eq!(ran["report"]["context"]["y"], json!({ "a": 1 }));
}

#[tokio::test]
async fn runs_are_listed_newest_first_by_filters_and_in_pages() {
    let (desk, gate) = gated_desk(ServerCfg::default()).await;
    let mut ids = Vec::new();
    for agent in [identity(), gated(), identity()] {
        let body = json!({ "blueprint": one_step(&agent), "input": { "x": 1 } });
        let begun: Value = desk.post("/v1/runs", &desk.admin, &body).await.json().await.unwrap();
        ids.push(begun["run_id"].clone());
    }
    held(&desk, &ids[0]).await;
    held(&desk, &ids[2]).await;
    let list = async |query: &str| -> Value {
        let path = format!("/v1/runs?{query}");
        desk.get(&path, &desk.admin).await.json().await.unwrap()
    };
    let (mut paged, mut after) = (Vec::new(), String::new());
    loop {
        let page = list(&format!("limit=2{after}")).await;
        assert!(page["runs"].as_array().unwrap().len() <= 2);
        paged.extend(page["runs"].as_array().unwrap().clone());
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    let listed = |runs: &[Value]| {
        let mut ids: Vec<_> = runs.iter().map(|run| run["run_id"].to_string()).collect();
        ids.sort_unstable();
        ids
    };
    let mut all: Vec<_> = ids.iter().map(ToString::to_string).collect();
    all.sort_unstable();
    assert_eq!(listed(&paged), all);
    let times: Vec<_> = paged.iter().map(|run| run["started_at"].as_u64().unwrap()).collect();
    assert!(times.is_sorted_by(|one, next| one >= next), "{times:?}");
    let open = list("status=open").await;
    assert_eq!(listed(open["runs"].as_array().unwrap()), [ids[1].to_string()]);
    assert_eq!(list("status=pass&agent=gate").await["runs"], json!([]));
    assert_eq!(list("agent=echo").await["runs"].as_array().unwrap().len(), 2);
    assert_eq!(list("until=1000").await["runs"], json!([]));
    problem(desk.get("/v1/runs?status=odd", &desk.admin).await, 400, "invalid_argument").await;
    problem(desk.get("/v1/runs?after=odd", &desk.admin).await, 400, "invalid_argument").await;
    gate.add_permits(1);
}

#[tokio::test]
async fn who_may_only_watch_starts_and_cancels_no_run() {
    let desk = Desk::new().await;
    let observer = desk.session("observer").await;
    let body = json!({ "blueprint": one_step(&identity()), "input": { "x": 1 } });
    problem(desk.post("/v1/runs", &observer, &body).await, 403, "role_violation").await;
    let run: Value = desk.post("/v1/runs", &desk.admin, &body).await.json().await.unwrap();
    let path = format!("/v1/runs/{}", run["run_id"].as_str().unwrap());
    assert_eq!(desk.get(&path, &observer).await.status(), 200);
    let refused = desk.post(&format!("{path}/cancel"), &observer, &json!({})).await;
    problem(refused, 403, "role_violation").await;
}
