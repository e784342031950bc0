//! Sessions, tasks, questions and metrics, as a client does them.

use std::time::Duration;

use adjutant::{Engine, Role, TaskId, TaskSpec};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::desk::{Desk, LONG, identity, one_step, problem};
use crate::workers::attempt;

#[tokio::test]
async fn a_session_beats_until_it_is_detached_for_good() {
    let desk = Desk::new().await;
    let operator = desk.session("operator").await;
    let beat = desk.post("/v1/session/heartbeat", &operator, &json!({})).await;
    let beat: Value = beat.json().await.unwrap();
    assert_eq!(beat["drain"], false);
    let shown: Value = desk.get("/v1/session", &operator).await.json().await.unwrap();
    assert_eq!((&shown["attached"], &shown["role"]), (&json!(true), &json!("operator")));
    let gone = desk.ask(Method::DELETE, "/v1/session", &operator).send().await.unwrap();
    assert_eq!(gone.status(), 204);
    let refused = desk.post("/v1/session/heartbeat", &operator, &json!({})).await;
    problem(refused, 401, "token_revoked").await;
}

#[tokio::test]
async fn a_key_makes_a_start_happen_once() {
    let desk = Desk::new().await;
    let operator = desk.session("operator").await;
    let start = async |directive: &str| {
        let body = json!({ "agent": "echo", "directive": directive });
        let ask = desk.ask(Method::POST, "/v1/tasks", &operator).json(&body);
        ask.header("idempotency-key", "nightly").send().await.unwrap()
    };
    let first: Value = start("all").await.json().await.unwrap();
    let again: Value = start("all").await.json().await.unwrap();
    assert_eq!(first, again);
    let told = problem(start("half").await, 409, "key_conflict").await;
    assert_eq!(told["differs"], json!(["directive"]));
}

#[tokio::test]
async fn a_long_poll_ends_with_its_task() {
    let desk = Desk::new().await;
    let operator = desk.session("operator").await;
    let task = desk.task(&operator).await;
    let path = format!("/v1/tasks/{task}?hold=25");
    let turns = desk.engine.counts().turns;
    let poll = tokio::spawn(desk.ask(Method::GET, &path, &operator).send());
    while desk.engine.counts().turns == turns {
        tokio::task::yield_now().await;
    }
    let cancelled = desk.post(&format!("/v1/tasks/{task}/cancel"), &operator, &json!({})).await;
    assert_eq!(cancelled.status(), 204);
    let state: Value = poll.await.unwrap().unwrap().json().await.unwrap();
    assert_eq!(state["status"], "cancelled");
}

#[tokio::test]
async fn a_hold_that_runs_out_shows_the_task_as_it_is() {
    let desk = Desk::new().await;
    let operator = desk.session("operator").await;
    let task = desk.task(&operator).await;
    let state = desk.get(&format!("/v1/tasks/{task}?hold=1"), &operator).await;
    let state: Value = state.json().await.unwrap();
    assert_eq!((&state["status"], &state["id"]), (&json!("pending"), &json!(task)));
}

#[tokio::test]
async fn a_hold_that_runs_out_spends_one_use() {
    let desk = Desk::new().await;
    let worker = attempt(&desk).await;
    let operator = desk.engine.attach("host", Role::Operator, LONG).await.unwrap();
    let task = worker.given.task;
    let one = desk.engine.mint_worker_token(&operator, &task, LONG, Some(1)).await.unwrap();
    let path = format!("/v1/tasks/{task}?hold=1");
    let shown = desk.get(&path, &one.encode()).await;
    assert_eq!(shown.status(), 200, "{}", shown.text().await.unwrap());
    let shown: Value = shown.json().await.unwrap();
    assert_eq!((&shown["status"], &shown["id"]), (&json!("running"), &json!(task)));
    problem(desk.get(&path, &one.encode()).await, 401, "token_uses_exhausted").await;
}

#[tokio::test]
async fn a_hold_shows_nothing_to_who_lost_its_rights_meanwhile() {
    let desk = Desk::new().await;
    let operator = desk.session("operator").await;
    let task = desk.task(&operator).await;
    let path = format!("/v1/tasks/{task}?hold=1");
    let turns = desk.engine.counts().turns;
    let hold = tokio::spawn(desk.ask(Method::GET, &path, &operator).send());
    while desk.engine.counts().turns == turns {
        tokio::task::yield_now().await;
    }
    let gone = desk.ask(Method::DELETE, "/v1/session", &operator).send().await.unwrap();
    assert_eq!(gone.status(), 204);
    problem(hold.await.unwrap().unwrap(), 401, "token_revoked").await;
}

async fn question(engine: &Engine) -> TaskId {
    let asker = engine.attach("asker", Role::Operator, Duration::from_secs(60)).await.unwrap();
    let task = engine.start_task(&asker, TaskSpec::new("ask", "well?")).await.unwrap();
    engine.query_senior(&asker, &task, json!({ "may": "I" })).await.unwrap();
    task
}

#[tokio::test]
async fn an_open_question_is_listed_to_a_senior_and_answered_once() {
    let desk = Desk::new().await;
    let task = question(&desk.engine).await;
    let (senior, operator) = (desk.session("senior").await, desk.session("operator").await);
    problem(desk.get("/v1/questions", &operator).await, 403, "role_violation").await;
    let list: Value = desk.get("/v1/questions", &senior).await.json().await.unwrap();
    let open = &list["questions"][0];
    assert_eq!((&open["task_id"], &open["question"]), (&json!(task), &json!({ "may": "I" })));
    let path = format!("/v1/questions/{}/answer", open["key"].as_str().unwrap());
    let answer = json!({ "answer": "yes" });
    assert_eq!(desk.post(&path, &senior, &answer).await.status(), 204);
    problem(desk.post(&path, &senior, &answer).await, 409, "invalid_transition").await;
    let list: Value = desk.get("/v1/questions", &senior).await.json().await.unwrap();
    assert_eq!(list["questions"], json!([]));
}

#[tokio::test]
async fn the_metrics_count_outcomes_and_name_no_task() {
    let desk = Desk::new().await;
    let operator = desk.session("operator").await;
    let task = desk.task(&operator).await;
    desk.task(&operator).await;
    desk.post(&format!("/v1/tasks/{task}/cancel"), &operator, &json!({})).await;
    problem(desk.get("/metrics", &operator).await, 403, "role_violation").await;
    // The counts follow the events, so they are looked at until they are there.
    let begun = tokio::time::Instant::now();
    let metrics = loop {
        let metrics = desk.get("/metrics", &desk.admin).await.text().await.unwrap();
        if metrics.contains("adjutant_outcomes_total{outcome=\"cancelled\"} 1\n") {
            break metrics;
        }
        assert!(begun.elapsed() < crate::desk::LONG, "{metrics}");
        tokio::task::yield_now().await;
    };
    assert!(metrics.contains("adjutant_tasks_started_total 2\n"), "{metrics}");
    assert!(metrics.contains("adjutant_live_tasks 1\n"), "{metrics}");
    assert!(!metrics.contains(&task));
    let depth: Vec<_> =
        metrics.lines().filter(|l| l.starts_with("adjutant_mailbox_depth")).collect();
    let kinds = ["state", "sessions", "waiters", "attempts", "supervisors"];
    assert_eq!(depth.len(), kinds.len(), "{depth:?}");
    for kind in kinds {
        let label = format!("{{actors=\"{kind}\"}} ");
        assert!(depth.iter().any(|line| line.contains(&label)), "{kind} {depth:?}");
    }
    let tree: Value = desk.get("/v1/supervision", &desk.admin).await.json().await.unwrap();
    assert_eq!(tree["mailboxes"]["waiters"], 0);
}

#[tokio::test]
async fn second_names_do_what_the_first_ones_do() {
    let desk = Desk::new().await;
    let lives = desk.client.get(format!("{}/v1/healthz", desk.base)).send().await.unwrap();
    assert_eq!(lives.text().await.unwrap(), "ok");
    let operator = desk.session("operator").await;
    let document = one_step(&identity());
    let put = async || desk.post("/v1/blueprints/one", &operator, &document).await.status();
    assert_eq!((put().await, put().await), (StatusCode::CREATED, StatusCode::OK));
    let gone = desk.ask(Method::DELETE, "/v1/sessions", &operator).send().await.unwrap();
    assert_eq!(gone.status(), 204);
    problem(desk.get("/v1/session", &operator).await, 401, "token_revoked").await;
}
