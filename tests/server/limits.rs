//! What the listener bounds: connections, the time for a head, and failed look-ups.

use std::time::Duration;

use adjutant::Mint;
use adjutant::server::ServerCfg;
use adjutant_actors::model::token::WorkerHandle;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::desk::{Desk, LONG, calm, problem};
use crate::line::Line;
use crate::workers::attempt;

async fn connect(desk: &Desk) -> TcpStream {
    TcpStream::connect(desk.base.strip_prefix("http://").unwrap()).await.unwrap()
}

/// What comes until the server closes.
async fn rest(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    tokio::time::timeout(LONG, stream.read_to_string(&mut text)).await.unwrap().unwrap();
    text
}

#[tokio::test]
async fn a_head_that_comes_too_slowly_is_cut() {
    let cfg = ServerCfg { header_time: Duration::from_millis(300), ..ServerCfg::default() };
    let desk = Desk::with(calm(), cfg).await;
    let mut slow = connect(&desk).await;
    let begin = tokio::time::Instant::now();
    slow.write_all(b"GET /livez HTTP/1.1\r\nHost: loc").await.unwrap();
    rest(&mut slow).await;
    assert!(begin.elapsed() < Duration::from_secs(20), "it is not waited for");
    let mut quick = connect(&desk).await;
    quick
        .write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    assert!(rest(&mut quick).await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn a_head_without_an_end_is_refused() {
    let desk = Desk::new().await;
    let mut endless = connect(&desk).await;
    endless.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX: ").await.unwrap();
    // The server closes in the middle of it.
    while endless.write_all(&[b'x'; 4096]).await.is_ok() {}
}

#[tokio::test]
async fn one_connection_too_many_is_told_so_and_finds_a_place_later() {
    let desk = Desk::with(calm(), ServerCfg { connections: 2, ..ServerCfg::default() }).await;
    let ask = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let (first, second) = (connect(&desk).await, connect(&desk).await);
    let told = loop {
        let mut third = connect(&desk).await;
        third.write_all(ask).await.unwrap();
        let told = rest(&mut third).await;
        // The first two may not have been accepted yet.
        if !told.starts_with("HTTP/1.1 200 ") {
            break told;
        }
    };
    assert!(told.starts_with("HTTP/1.1 503 "), "{told}");
    let body: Value = serde_json::from_str(told.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!((&body["code"], &body["retryable"]), (&json!("too_many_connections"), &json!(true)));
    drop((first, second));
    let again = async {
        loop {
            let mut fourth = connect(&desk).await;
            fourth.write_all(ask).await.unwrap();
            if rest(&mut fourth).await.starts_with("HTTP/1.1 200 ") {
                return;
            }
        }
    };
    tokio::time::timeout(LONG, again).await.unwrap();
}

#[tokio::test]
async fn a_socket_of_an_operator_counts_as_a_connection() {
    let desk = Desk::new().await;
    let login = desk.log_in(json!({})).await;
    let line = Line::open(&desk, &login).await;
    desk.until(&login, "connected", json!(true)).await;
    let open = desk.metric("connections").await;
    line.die();
    desk.until(&login, "connected", json!(false)).await;
    let gone = async {
        while desk.metric("connections").await >= open {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, gone).await.unwrap();
}

#[tokio::test]
async fn who_tries_bearers_is_throttled_for_a_while_and_good_ones_pass() {
    let heals = Duration::from_millis(400);
    let cfg = ServerCfg { failures: 8, failure_heals: heals, ..ServerCfg::default() };
    let desk = Desk::with(calm(), cfg).await;
    let (operator, login) = (desk.session("operator").await, desk.log_in(json!({})).await);
    let own = format!("/v1/operators/{}", login.sid);
    assert_eq!(desk.get(&own, &login.token).await.status(), 200);
    let mut looked_up = 0;
    let refused = loop {
        let guess = format!("guess-{looked_up}");
        // A route that looks no bearer up says nothing of one.
        assert_eq!(desk.get("/livez", &guess).await.status(), 200);
        let guess = desk.get("/v1/worker/prompt", &guess).await;
        if guess.status() == 429 {
            break guess;
        }
        problem(guess, 401, "unauthenticated").await;
        looked_up += 1;
        assert!(looked_up < 1000, "nobody stops it");
    };
    assert!(looked_up >= 8);
    let wait: u64 = refused.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    problem(refused, 429, "too_many_failures").await;
    assert!((1..=60).contains(&wait));
    assert_eq!(desk.get("/v1/session", &operator).await.status(), 200, "its signature is good");
    assert_eq!(desk.get("/metrics", &desk.admin).await.status(), 200);
    assert_eq!(desk.get(&own, &login.token).await.status(), 200, "it was good before");
    assert_eq!(desk.client.get(format!("{}/livez", desk.base)).send().await.unwrap().status(), 200);
    assert!(desk.metric("throttled_requests_total").await >= 1);
    let heal = async {
        while desk.get("/v1/worker/prompt", "guess").await.status() == 429 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LONG, heal).await.expect("it heals");
}

#[tokio::test]
async fn a_session_that_would_live_beyond_the_limit_is_refused() {
    let session_time = Duration::from_secs(90);
    let desk = Desk::with(calm(), ServerCfg { session_time, ..ServerCfg::default() }).await;
    let attach = |secs: u64| json!({ "operator_id": "a", "role": "operator", "ttl_secs": secs });
    assert_eq!(desk.post("/v1/sessions", &desk.admin, &attach(90)).await.status(), 201);
    let refused = desk.post("/v1/sessions", &desk.admin, &attach(91)).await;
    let told = problem(refused, 400, "invalid_argument").await;
    assert!(told["detail"].as_str().unwrap().contains("90 is the limit"), "{told}");
    assert_eq!(told["setting"], "limits.session_secs");
}

#[tokio::test]
async fn guessed_handles_are_throttled() {
    let heals = Duration::from_secs(3600);
    let cfg = ServerCfg { failures: 8, failure_heals: heals, ..ServerCfg::default() };
    let desk = Desk::with(calm(), cfg).await;
    let worker = attempt(&desk).await;
    let own = &worker.given.handle;
    assert_eq!(desk.get("/v1/worker/prompt", own).await.status(), 200);
    let (mint, mut looked_up) = (Mint::seeded(11), 0);
    let refused = loop {
        let handle = WorkerHandle::draw(&mint);
        // A route that is open to everybody makes no bearer good.
        desk.get("/v1/healthz", handle.expose()).await;
        let guess = desk.get("/v1/worker/prompt", handle.expose()).await;
        if guess.status() == 429 {
            break guess;
        }
        problem(guess, 410, "attempt_ended").await;
        looked_up += 1;
        assert!(looked_up < 100, "nobody stops it");
    };
    problem(refused, 429, "too_many_failures").await;
    assert_eq!(looked_up, 8);
    assert_eq!(desk.get("/v1/worker/prompt", own).await.status(), 200, "it was good before");
    assert_eq!(desk.get("/v1/worker/prompt", &worker.given.token).await.status(), 200);
}
