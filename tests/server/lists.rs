//! Lists of tasks and sessions: filters, pages that miss nothing, and no long hold of the state.

use std::collections::BTreeSet;
use std::time::Duration;

use adjutant::{Role, TaskOptions, TaskSpec};
use serde_json::{Value, json};

use crate::desk::{Desk, identity, one_step, problem};

async fn get(desk: &Desk, path: &str) -> Value {
    desk.get(path, &desk.admin).await.json().await.unwrap()
}

/// All entries of a list, page by page.
async fn all(desk: &Desk, path: &str, name: &str) -> Vec<Value> {
    let (mut found, mut after) = (Vec::new(), String::new());
    loop {
        let page = get(desk, &format!("{path}{after}")).await;
        found.extend(page[name].as_array().unwrap().clone());
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return found,
        }
    }
}

#[tokio::test]
async fn a_walk_in_pages_meets_each_task_once_and_filters_hold() {
    let desk = Desk::new().await;
    let life = Duration::from_secs(600);
    let operator = desk.engine.attach("ann", Role::Operator, life).await.unwrap();
    let mut started = BTreeSet::new();
    for number in 0..300 {
        let agent = if number % 3 == 0 { "build" } else { "test" };
        let task = desk.engine.start_task(&operator, TaskSpec::new(agent, "x")).await.unwrap();
        if number % 2 == 0 {
            desk.engine.cancel_task(&operator, &task).await.unwrap();
        }
        started.insert(task.to_string());
    }
    let listed = all(&desk, "/v1/tasks?limit=37", "tasks").await;
    assert_eq!(listed.len(), 300);
    let ids: BTreeSet<_> =
        listed.iter().map(|task| task["task_id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids, started);
    let fit = all(&desk, "/v1/tasks?limit=37&agent=build&status=cancelled,pass", "tasks").await;
    assert_eq!(fit.len(), 50);
    assert!(fit.iter().all(|task| task["agent"] == "build" && task["status"] == "cancelled"));
    assert_eq!(all(&desk, "/v1/tasks?until=1000", "tasks").await, Vec::<Value>::new());
    let since = listed[0]["started_at"].as_u64().unwrap() - 3_600_000;
    assert_eq!(all(&desk, &format!("/v1/tasks?limit=500&since={since}"), "tasks").await.len(), 300);
    problem(desk.get("/v1/tasks?status=odd", &desk.admin).await, 400, "invalid_argument").await;
    problem(desk.get("/v1/tasks?after=odd", &desk.admin).await, 400, "invalid_argument").await;
    problem(desk.get("/v1/tasks?after=1.0.", &desk.admin).await, 410, "cursor_expired").await;
}

#[tokio::test]
async fn the_tasks_of_a_run_and_the_sub_tasks_of_a_task_are_listed_alone() {
    let desk = Desk::new().await;
    let body = json!({ "blueprint": one_step(&identity()), "input": { "x": 1 } });
    let run = desk.post("/v1/runs?wait=20", &desk.admin, &body).await;
    let run: Value = run.json().await.unwrap();
    let path = format!("/v1/tasks?run={}", run["run_id"].as_str().unwrap());
    let steps = all(&desk, &path, "tasks").await;
    assert_eq!(steps.len(), 1);
    assert_eq!((&steps[0]["task_id"], &steps[0]["run"]), (&run["tasks"][0], &run["run_id"]));

    let life = Duration::from_secs(600);
    let operator = desk.engine.attach("ann", Role::Operator, life).await.unwrap();
    let whole = desk.engine.start_task(&operator, TaskSpec::new("plan", "x")).await.unwrap();
    for _ in 0..5 {
        let options = TaskOptions { parent: Some(whole), ..TaskOptions::default() };
        let part = TaskSpec::new("part", "x");
        desk.engine.start_task_with(&operator, part, options).await.unwrap();
    }
    let parts = all(&desk, &format!("/v1/tasks?limit=2&parent={whole}"), "tasks").await;
    assert_eq!(parts.len(), 5);
    assert!(parts.iter().all(|part| part["parent"] == json!(whole)));
}

#[tokio::test]
async fn sessions_are_listed_without_a_token() {
    let desk = Desk::new().await;
    let mut tokens = Vec::new();
    for role in ["operator", "observer", "senior"] {
        tokens.push(desk.session(role).await);
    }
    let listed = all(&desk, "/v1/sessions?limit=2", "sessions").await;
    assert_eq!(listed.len(), 3);
    let text = json!(listed).to_string();
    assert!(tokens.iter().all(|token| !text.contains(token)) && !text.contains("nonce"));
    let roles: BTreeSet<_> = listed.iter().map(|one| one["role"].as_str().unwrap()).collect();
    assert_eq!(roles, BTreeSet::from(["observer", "operator", "senior"]));
    assert!(listed.iter().all(|one| one["link"] == "attached"));
    problem(desk.get("/v1/sessions", &tokens[2]).await, 403, "role_violation").await;
}

#[tokio::test]
async fn a_page_that_finds_nothing_among_many_tasks_holds_no_turn_for_long() {
    let desk = Desk::new().await;
    let life = Duration::from_secs(600);
    let operator = desk.engine.attach("ann", Role::Operator, life).await.unwrap();
    let many: Vec<_> =
        (0..20_000).map(|_| desk.engine.start_task(&operator, TaskSpec::new("a", "x"))).collect();
    futures::future::try_join_all(many).await.unwrap();
    let turns = desk.engine.counts().turns;
    let page = get(&desk, "/v1/tasks?agent=none").await;
    assert_eq!(page["tasks"], json!([]));
    let looks = desk.engine.counts().turns - turns;
    assert!(looks >= 20, "{looks} turns looked at 20,000 tasks");
    assert_eq!(all(&desk, "/v1/tasks?agent=none", "tasks").await, Vec::<Value>::new());
}
