//! One login takes another's roles: what was asked goes with them, the older holder is out.

use adjutant::DispatchOutcome;
use serde_json::{Value, json};

use crate::desk::{Desk, late, problem};
use crate::line::{Line, bearing, refusal};

#[tokio::test]
async fn a_role_has_one_holder_until_another_takes_over() {
    let desk = Desk::new().await;
    let first = desk.log_in(json!({ "roles": ["desk", "night"] })).await;
    let wish = json!({ "roles": ["desk"] });
    let told =
        problem(desk.post("/v1/operators", &desk.admin, &wish).await, 409, "roles_held").await;
    assert_eq!(told["holders"][0]["sid"], json!(first.sid));
    assert_eq!(told["holders"][0]["generation"], json!(first.generation));
    let second = desk.log_in(json!({ "roles": ["desk"], "take_over": true })).await;
    assert!(second.generation > first.generation);
    let list: Value = desk.get("/v1/operators", &desk.admin).await.json().await.unwrap();
    let sids: Vec<_> =
        list["operators"].as_array().unwrap().iter().map(|one| &one["sid"]).collect();
    assert_eq!(sids, [&json!(second.sid)], "the older login is no more, with all its roles");
    let shown = desk.shown(&first).await;
    assert_eq!((&shown["link"], &shown["reason"]), (&json!("torn_down"), &json!("taken_over")));
    assert_eq!(shown["taken_over_by_generation"], json!(second.generation));
    desk.log_in(json!({ "roles": ["night"] })).await;
}

#[tokio::test]
async fn what_was_asked_of_the_older_holder_is_asked_of_the_newer_one() {
    let desk = Desk::new().await;
    let first = desk.log_in(json!({ "roles": ["desk"] })).await;
    let mut line = Line::open(&desk, &first).await;
    let dispatch = desk.dispatch("desk", "count").await;
    let old = line.expect("spawn").await;
    let second = desk.log_in(json!({ "roles": ["desk"], "take_over": true })).await;

    let handle = old["worker_handle"].as_str().unwrap();
    problem(desk.submit(handle, "late").await, 410, "attempt_ended").await;
    let token = old["capability_token"].as_str().unwrap();
    problem(desk.submit(token, "late").await, 410, "attempt_ended").await;
    // A reply on the socket that is being closed settles nothing either.
    let _ = line.reply_unsure(&old, json!({ "value": "late" })).await;
    assert_eq!(line.close_code().await, 4001);
    let (status, code) = refusal(bearing(&desk, &first.sid, &first.token)).await;
    assert_eq!((status, code.as_str()), (410, "operator_gone"));

    let mut line = Line::open(&desk, &second).await;
    let spawn = line.expect("spawn").await;
    assert_eq!(spawn["task_id"], old["task_id"]);
    assert_eq!(spawn["generation"], json!(second.generation));
    for name in ["req_id", "worker_handle", "capability_token"] {
        assert_ne!(spawn[name], old[name], "{name}");
    }
    // The old request is none of this login's.
    line.reply(&old, "spawn_ack", json!({ "value": "late" })).await;
    let handle = spawn["worker_handle"].as_str().unwrap();
    assert_eq!(desk.submit(handle, "in time").await.status(), 204);
    line.reply(&spawn, "spawn_ack", json!({})).await;
    assert_eq!(dispatch.end().await.unwrap(), DispatchOutcome::Pass(json!("in time")));
}

#[tokio::test]
async fn a_post_that_was_under_way_when_another_login_took_over_does_not_count() {
    let desk = Desk::new().await;
    let first = desk.log_in(json!({ "roles": ["desk"] })).await;
    let mut line = Line::open(&desk, &first).await;
    let dispatch = desk.dispatch("desk", "count").await;
    let old = line.expect("spawn").await;
    let posts = [
        ("/v1/worker/submit", "worker_handle"),
        ("/v1/data/x", "worker_handle"),
        ("/v1/data/x", "capability_token"),
    ];
    let mut under_way = Vec::new();
    for (path, bearer) in posts {
        under_way.push(desk.awaited(path, old[bearer].as_str().unwrap()).await);
    }
    let second = desk.log_in(json!({ "roles": ["desk"], "take_over": true })).await;
    for (post, socket) in posts.iter().zip(under_way) {
        let answer = late(socket).await;
        assert!(answer.contains("HTTP/1.1 410 "), "{post:?}: {answer}");
    }
    problem(desk.get("/v1/data/x", &desk.admin).await, 404, "data_not_found").await;

    let mut line = Line::open(&desk, &second).await;
    let spawn = line.expect("spawn").await;
    line.reply(&spawn, "spawn_ack", json!({ "value": "in time" })).await;
    assert_eq!(dispatch.end().await.unwrap(), DispatchOutcome::Pass(json!("in time")));
}

#[tokio::test]
async fn what_names_an_older_login_reaches_who_took_over() {
    let desk = Desk::new().await;
    let first = desk.log_in(json!({ "roles": ["desk"] })).await;
    let take = json!({ "roles": ["desk"], "take_over": true });
    desk.log_in(take.clone()).await;
    let third = desk.log_in(take).await;
    let mut line = Line::open(&desk, &third).await;
    let dispatch = desk.dispatch(&first.sid, "count").await;
    let spawn = line.expect("spawn").await;
    line.reply(&spawn, "spawn_ack", json!({ "value": 1 })).await;
    assert_eq!(dispatch.end().await.unwrap(), DispatchOutcome::Pass(json!(1)));
}
