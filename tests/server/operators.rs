//! Who may log operators in, what a login may ask for, and how it ends.

use adjutant::async_trait;
use reqwest::Method;
use serde_json::{Value, json};
use std::sync::Arc;

use crate::desk::{Desk, problem};
use crate::line::{Line, refusal, request};

#[tokio::test]
async fn the_admin_and_operators_log_in_and_nobody_else() {
    let desk = Desk::new().await;
    let operator = desk.session("operator").await;
    let response =
        desk.post("/v1/operators", &operator, &json!({ "roles": ["b", "a", "b"] })).await;
    assert_eq!(response.status(), 201);
    let told: Value = response.json().await.unwrap();
    assert_eq!(told["roles"], json!(["a", "b"]));
    assert!(told["token"].as_str().unwrap().len() > 64, "a bearer of 256 bits");
    for role in ["observer", "senior"] {
        let token = desk.session(role).await;
        let refused = desk.post("/v1/operators", &token, &json!({})).await;
        problem(refused, 403, "role_violation").await;
        problem(desk.get("/v1/operators", &token).await, 403, "role_violation").await;
    }
    let login = desk.log_in(json!({})).await;
    problem(desk.get("/v1/operators", &login.token).await, 401, "unauthenticated").await;
}

#[tokio::test]
async fn a_login_asks_for_names_that_it_may_have() {
    let desk = Desk::new().await;
    let wish = |roles: Value| json!({ "roles": roles });
    let refused = desk.post("/v1/operators", &desk.admin, &wish(json!(["op-1"]))).await;
    problem(refused, 422, "unprocessable").await;
    let refused = desk.post("/v1/operators", &desk.admin, &wish(json!([""]))).await;
    problem(refused, 400, "invalid_argument").await;
    let many: Vec<_> = (0..17).map(|number| format!("role {number}")).collect();
    let refused = desk.post("/v1/operators", &desk.admin, &wish(json!(many))).await;
    problem(refused, 422, "unprocessable").await;
    desk.engine.register_senior_bridge("the hosts", Arc::new(Never)).await;
    let refused = desk.post("/v1/operators", &desk.admin, &wish(json!(["the hosts"]))).await;
    problem(refused, 409, "role_reserved").await;
}

struct Never;

#[async_trait]
impl adjutant::SeniorBridge for Never {
    async fn ask(&self, _: &adjutant::TaskId, _: Value) -> Result<Value, String> {
        Err("never".to_owned())
    }
}

#[tokio::test]
async fn a_login_is_shown_to_its_holder_and_the_admin() {
    let desk = Desk::new().await;
    let (login, other) = (desk.log_in(json!({})).await, desk.log_in(json!({})).await);
    let path = format!("/v1/operators/{}", login.sid);
    assert_eq!(desk.get(&path, &login.token).await.status(), 200);
    let shown: Value = desk.get(&path, &desk.admin).await.json().await.unwrap();
    assert_eq!(shown["sid"], json!(login.sid));
    assert!(!shown.to_string().contains(&login.token));
    problem(desk.get(&path, &other.token).await, 403, "not_the_holder").await;
    problem(desk.get(&path, "opr-guess").await, 401, "unauthenticated").await;
    let told = desk.get("/v1/operators/op-1", &desk.admin).await;
    let told = problem(told, 404, "operator_not_found").await;
    assert_eq!(told["detail"], "there is no login op-1");
}

#[tokio::test]
async fn a_login_that_ends_closes_its_socket_and_refuses_what_was_asked() {
    let desk = Desk::new().await;
    let login = desk.log_in(json!({ "roles": ["desk"] })).await;
    let mut line = Line::open(&desk, &login).await;
    let dispatch = desk.dispatch("desk", "count").await;
    line.expect("spawn").await;
    let path = format!("/v1/operators/{}", login.sid);
    let out = || async { desk.ask(Method::DELETE, &path, &login.token).send().await.unwrap() };
    assert_eq!(out().await.status(), 204);
    assert_eq!(line.close_code().await, 1000);
    let why = dispatch.failure().await;
    assert!(why.contains("logged_out"), "{why}");
    let told = problem(out().await, 410, "operator_gone").await;
    assert_eq!(told["reason"], "logged_out");
    assert_eq!(desk.engine.list_operator_ids().await, Vec::<String>::new());
    assert_eq!(desk.metric("operators_torn_down_total").await, 1);
}

#[tokio::test]
async fn the_page_s_cookie_opens_no_socket_from_wherever_it_comes() {
    let desk = Desk::new().await;
    let login = desk.log_in(json!({})).await;
    let link = desk.ask(Method::POST, "/v1/links", &desk.admin).send().await.unwrap();
    let link: Value = link.json().await.unwrap();
    let plain = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
    let path = format!("{}{}", desk.base, link["path"].as_str().unwrap());
    let entered = plain.build().unwrap().get(path).send().await.unwrap();
    let cookie = entered.headers()["set-cookie"].to_str().unwrap().to_owned();
    let cookie = cookie.split(';').next().unwrap().to_owned();
    let page = |origin: Option<&str>, site: &str| {
        let mut request = request(&desk, &login.sid);
        let headers = request.headers_mut();
        headers.insert("cookie", cookie.parse().unwrap());
        headers.insert("sec-fetch-site", site.parse().unwrap());
        if let Some(origin) = origin {
            headers.insert("origin", origin.parse().unwrap());
        }
        request
    };
    assert_eq!(refusal(page(Some("http://evil.example"), "cross-site")).await.0, 403);
    for (origin, site) in [
        (Some(desk.base.as_str()), "same-site"),
        (None, "same-origin"),
        (Some(desk.base.as_str()), "same-origin"),
    ] {
        assert_eq!(refusal(page(origin, site)).await.1, "not_from_page", "{origin:?} {site}");
    }
}
