//! The data plane: streams both ways, ids that follow from the content, who may read what, bounds.

use std::time::Duration;

use adjutant::OutputRef;
use adjutant::server::{DataCfg, ServerCfg};
use futures::StreamExt;
use reqwest::{Body, Method, Response};
use serde_json::Value;

use crate::desk::{Desk, calm, problem};
use crate::workers::attempt;

async fn emit(desk: &Desk, path: &str, bearer: &str, body: impl Into<Body>) -> Response {
    desk.ask(Method::POST, path, bearer).body(body).send().await.unwrap()
}

async fn id(response: Response) -> String {
    assert_eq!(response.status(), 201);
    let told: Value = response.json().await.unwrap();
    told["data_id"].as_str().unwrap().to_owned()
}

fn data(data: DataCfg) -> ServerCfg {
    ServerCfg { data, ..ServerCfg::default() }
}

#[tokio::test]
async fn a_body_is_read_by_its_id_its_hash_and_its_name() {
    let desk = Desk::new().await;
    let admin = desk.admin.clone();
    let sent = desk.ask(Method::POST, "/v1/data/report", &admin).body("{\"lines\": 3}");
    let sent = sent.header("content-type", "application/json; charset=utf-8").send().await.unwrap();
    let told: Value = sent.json().await.unwrap();
    let hash = told["hash"].as_str().unwrap();
    let own = told["data_id"].as_str().unwrap();
    assert!(own.parse::<OutputRef>().is_ok(), "what the input layer takes");
    for key in [own, hash, "report"] {
        let read = desk.get(&format!("/v1/data/{key}"), &admin).await;
        assert_eq!(read.headers()["content-type"], "application/json");
        assert_eq!(read.headers()["x-content-type-options"], "nosniff");
        assert_eq!(read.headers()["etag"], format!("\"{hash}\""));
        assert_eq!(read.text().await.unwrap(), "{\"lines\": 3}");
    }
    let page = desk.ask(Method::POST, "/v1/data/page", &admin).body("<script>");
    let page = page.header("content-type", "text/html").send().await.unwrap();
    assert_eq!(page.status(), 201);
    let read = desk.get("/v1/data/page", &admin).await;
    assert_eq!(read.headers()["content-type"], "application/octet-stream");
    let told = problem(desk.get("/v1/data/none", &admin).await, 404, "data_not_found").await;
    assert_eq!(told["detail"], "no body none is kept");
}

#[tokio::test]
async fn the_same_content_has_the_same_id_and_the_newest_of_a_name_is_read() {
    let desk = Desk::new().await;
    let first = id(emit(&desk, "/v1/data/a", &desk.admin, "one").await).await;
    let again = id(emit(&desk, "/v1/data/b", &desk.admin, "one").await).await;
    assert_eq!(first, again);
    id(emit(&desk, "/v1/data/a", &desk.admin, "two").await).await;
    assert_eq!(desk.get("/v1/data/a", &desk.admin).await.text().await.unwrap(), "two");
    let by_id = desk.get(&format!("/v1/data/{first}"), &desk.admin).await;
    assert_eq!(by_id.text().await.unwrap(), "one");
}

#[tokio::test]
async fn a_worker_reads_what_is_its_runs_or_everybodys_and_nothing_else() {
    let desk = Desk::new().await;
    let (mut one, mut other) = (attempt(&desk).await, attempt(&desk).await);
    let own = id(emit(&desk, "/v1/data/own", &one.given.handle, "own").await).await;
    let foreign = id(emit(&desk, "/v1/data/own", &other.given.token, "foreign").await).await;
    let common = id(emit(&desk, "/v1/data/common", &desk.admin, "common").await).await;
    let path = format!("/v1/data/given?task={}", one.given.task);
    id(emit(&desk, &path, &desk.session("operator").await, "given").await).await;
    for bearer in [&one.given.token, &one.given.handle] {
        for (key, text) in [("own", "own"), (&own, "own"), (&common, "common"), ("given", "given")]
        {
            let read = desk.get(&format!("/v1/data/{key}"), bearer).await;
            assert_eq!(read.text().await.unwrap(), text, "{key}");
        }
        let refused = desk.get(&format!("/v1/data/{foreign}"), bearer).await;
        problem(refused, 404, "data_not_found").await;
    }
    let refused = desk.get("/v1/data/given", &other.given.token).await;
    problem(refused, 404, "data_not_found").await;
    assert_eq!(desk.get(&format!("/v1/data/{own}"), &desk.admin).await.status(), 200);
    assert_eq!(desk.get("/v1/data/own", &desk.session("observer").await).await.status(), 200);
    let refused = emit(&desk, "/v1/data/x", &desk.session("observer").await, "x").await;
    problem(refused, 403, "role_violation").await;
    for attempt in [&mut one, &mut other] {
        let done = emit(&desk, "/v1/worker/submit", &attempt.given.handle, "done").await;
        assert_eq!(done.status(), 204);
        attempt.end().await;
        for bearer in [&attempt.given.token, &attempt.given.handle] {
            problem(desk.get("/v1/data/own", bearer).await, 410, "attempt_ended").await;
            problem(emit(&desk, "/v1/data/x", bearer, "x").await, 410, "attempt_ended").await;
        }
    }
}

#[tokio::test]
async fn a_body_over_its_bound_is_refused_told_or_not_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let cfg = data(DataCfg { body_bytes: 1000, ..DataCfg::default() });
    let desk = Desk::on(folder.path(), cfg).await;
    let told = emit(&desk, "/v1/data/a", &desk.admin, vec![0; 1001]).await;
    problem(told, 413, "body_too_large").await;
    let chunks = futures::stream::iter((0..3).map(|_| Ok::<_, std::io::Error>(vec![0_u8; 400])));
    let told = emit(&desk, "/v1/data/a", &desk.admin, Body::wrap_stream(chunks)).await;
    problem(told, 413, "body_too_large").await;
    id(emit(&desk, "/v1/data/a", &desk.admin, vec![0; 1000]).await).await;
    let files = std::fs::read_dir(folder.path().join("data")).unwrap().count();
    assert_eq!(files, 1);
    desk.end().await;
}

#[tokio::test]
async fn a_body_larger_than_any_buffer_comes_back_whole() {
    let cfg = ServerCfg { body_bytes: 1024, ..ServerCfg::default() };
    let desk = Desk::with(calm(), cfg).await;
    let (chunk, count) = (vec![7_u8; 1 << 20], 24);
    let chunks = futures::stream::iter(vec![chunk; count]).map(Ok::<_, std::io::Error>);
    let own = id(emit(&desk, "/v1/data/big", &desk.admin, Body::wrap_stream(chunks)).await).await;
    let read = desk.get(&format!("/v1/data/{own}"), &desk.admin).await;
    assert_eq!(read.headers()["content-length"], (count << 20).to_string());
    let body = read.bytes().await.unwrap();
    assert!(body.len() == count << 20 && body.iter().all(|byte| *byte == 7));
}

#[tokio::test]
async fn the_oldest_goes_first_but_not_what_an_unsettled_task_may_need() {
    let cfg = data(DataCfg { bytes: 30, ..DataCfg::default() });
    let desk = Desk::with(calm(), cfg).await;
    let mut attempt = attempt(&desk).await;
    let needed = id(emit(&desk, "/v1/data/n", &attempt.given.handle, "0123456789").await).await;
    let old = id(emit(&desk, "/v1/data/o", &desk.admin, "abcdefghij").await).await;
    id(emit(&desk, "/v1/data/p", &desk.admin, "klmnopqrst").await).await;
    id(emit(&desk, "/v1/data/q", &desk.admin, "uvwxyz1234").await).await;
    let path = format!("/v1/data/{old}");
    problem(desk.get(&path, &desk.admin).await, 404, "data_not_found").await;
    let path = format!("/v1/data/{needed}");
    assert_eq!(desk.get(&path, &desk.admin).await.text().await.unwrap(), "0123456789");
    let told = emit(&desk, "/v1/data/r", &desk.admin, vec![1; 25]).await;
    let told = problem(told, 429, "data_full").await;
    assert_eq!(told["setting"], "data.bytes");
    emit(&desk, "/v1/worker/submit", &attempt.given.handle, "done").await;
    attempt.end().await;
    id(emit(&desk, "/v1/data/r", &desk.admin, vec![1; 25]).await).await;
    problem(desk.get(&path, &desk.admin).await, 404, "data_not_found").await;
}

#[tokio::test]
async fn a_body_that_stops_coming_is_not_waited_for() {
    let cfg = ServerCfg { request_time: Duration::from_millis(200), ..ServerCfg::default() };
    let desk = Desk::with(calm(), cfg).await;
    let stalled =
        futures::stream::iter([Ok::<_, std::io::Error>("x")]).chain(futures::stream::pending());
    let told = emit(&desk, "/v1/data/a", &desk.admin, Body::wrap_stream(stalled)).await;
    problem(told, 408, "request_timeout").await;
}

#[tokio::test]
async fn bodies_outlive_the_server_on_a_store() {
    let folder = tempfile::tempdir().unwrap();
    let desk = Desk::on(folder.path(), ServerCfg::default()).await;
    let own = id(emit(&desk, "/v1/data/a", &desk.admin, "kept").await).await;
    desk.end().await;
    // What no record names is cleared away.
    let stray = folder.path().join("data").join("0".repeat(64));
    std::fs::write(&stray, "stray").unwrap();
    let desk = Desk::on(folder.path(), ServerCfg::default()).await;
    let read = desk.get(&format!("/v1/data/{own}"), &desk.admin).await;
    assert_eq!(read.text().await.unwrap(), "kept");
    assert!(!stray.exists());
    desk.end().await;
}
