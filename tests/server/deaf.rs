//! Peers that ask for much and read nothing of it: their connections end, and their places are free.
#![cfg(target_os = "linux")]

use std::time::Duration;

use adjutant::server::ServerCfg;
use adjutant::{EngineCfg, Role, TaskSpec};
use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::desk::{Desk, LONG, calm, problem};

/// Longer than all buffers between two sockets.
const BODY: usize = 32 << 20;

/// Asks for a path, hears that it is answered, and reads no further.
async fn deaf(desk: &Desk, path: &str) -> TcpStream {
    let address = desk.base.strip_prefix("http://").unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(address.parse().unwrap()).await.unwrap();
    let head = format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {}\r\n\r\n",
        desk.admin
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut first = [0; 15];
    stream.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200 OK");
    stream
}

fn short() -> ServerCfg {
    ServerCfg { deaf_time: Duration::from_secs(1), ..ServerCfg::default() }
}

#[tokio::test]
async fn who_reads_nothing_of_a_long_answer_loses_its_connection() {
    let desk = Desk::with(calm(), short()).await;
    let sent = desk.ask(Method::POST, "/v1/data/long", &desk.admin).body(vec![b'x'; BODY]);
    assert_eq!(sent.send().await.unwrap().status(), 201);
    let own = desk.metric("connections").await;
    let mut stream = deaf(&desk, "/v1/data/long").await;
    let gone = async {
        while desk.metric("connections").await > own {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LONG, gone).await.expect("its place is free");
    let (mut piece, mut read) = (vec![0; 1 << 16], 0);
    while let Ok(Ok(some)) = tokio::time::timeout(LONG, stream.read(&mut piece)).await
        && some > 0
    {
        read += some;
    }
    assert!(read < BODY, "it was cut before the end");
}

#[tokio::test]
async fn who_reads_nothing_of_its_events_loses_its_stream() {
    let mut cfg = EngineCfg { ..calm() };
    cfg.limits.inline_bytes = 1 << 20;
    let desk = Desk::with(cfg, ServerCfg { streams: 1, ..short() }).await;
    let operator = desk.engine.attach("ann", Role::Operator, LONG * 9).await.unwrap();
    let _stream = deaf(&desk, "/v1/events?after=0&bodies=true").await;
    let freed = async {
        loop {
            let task = desk.engine.start_task(&operator, TaskSpec::new("echo", "hello")).await;
            let large = json!("x".repeat(1 << 18));
            desk.engine.mark_pass(&operator, &task.unwrap(), large).await.unwrap();
            let other = desk.get("/v1/events", &desk.admin).await;
            if other.status() == 200 {
                return;
            }
            problem(other, 503, "too_many_streams").await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LONG, freed).await.expect("its place is free");
}
