//! An operator's socket: whatever frames come, the socket ends, the login stays, and what was
//! asked of the operator is settled or withdrawn.
//!
//! An input that begins with `T` is text frames, one a line, in which `REQ` stands for the id of
//! what was asked; others are the bytes that follow the upgrade.

use std::sync::Arc;

use adjutant::{Engine, OperatorSpawner, SpawnerAdapter, TaskId, TaskSpec};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::desk::{self, Desk, LONG};

const CLOSE: [u8; 6] = [0x88, 0x80, 0, 0, 0, 0];

/// A frame of a client's, under a mask that changes nothing.
fn text_frame(payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x81];
    match u16::try_from(payload.len()) {
        Ok(short @ 0..126) => frame.push(0x80 | short.to_be_bytes()[1]),
        Ok(middle) => {
            frame.push(0x80 | 126);
            frame.extend(middle.to_be_bytes());
        }
        Err(_) => {
            frame.push(0x80 | 127);
            frame.extend((payload.len() as u64).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend_from_slice(payload);
    frame
}

fn bytes_of(input: &[u8], asked: &str) -> Vec<u8> {
    let [b'T', lines @ ..] = input else { return input.to_vec() };
    let frames = lines.split(|byte| *byte == b'\n').flat_map(|line| {
        let text = String::from_utf8_lossy(line).replace("REQ", asked);
        text_frame(text.as_bytes())
    });
    frames.collect()
}

/// Reads frames of the server's up to one with a request, and gives the id of that.
async fn next_asked(socket: &mut TcpStream) -> String {
    let mut buffer = Vec::new();
    loop {
        while let Some((frame, length)) = first_frame(&buffer) {
            let parsed: Option<Value> = serde_json::from_slice(frame).ok();
            let id = parsed.as_ref().and_then(|frame| frame["req_id"].as_str()).map(str::to_owned);
            buffer.drain(..length);
            if let Some(id) = id {
                return id;
            }
        }
        let read = socket.read_buf(&mut buffer).await.unwrap_or(0);
        assert!(read > 0, "the socket ended before anything was asked");
    }
}

/// The payload of the first frame, and how long the whole of it is.
fn first_frame(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let (head, length) = match bytes {
        [_, 126, high, low, ..] => (4, usize::from(u16::from_be_bytes([*high, *low]))),
        [_, 127, ..] => (10, u64::from_be_bytes(*bytes.get(2..10)?.first_chunk()?) as usize),
        [_, 126, ..] => return None,
        [_, short, ..] => (2, usize::from(*short)),
        _ => return None,
    };
    Some((bytes.get(head..head + length)?, head + length))
}

async fn open(desk: &Desk, sid: &str) -> TcpStream {
    let mut socket = desk.connect().await;
    let request = format!(
        "GET /v1/operators/{sid}/ws HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\n\
         connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
        desk.address, desk.admin
    );
    socket.write_all(request.as_bytes()).await.expect("the server reads a head");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        // Byte by byte, so that no frame is taken for a part of the head.
        head.push(socket.read_u8().await.expect("the server answers"));
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    socket
}

async fn log_in(desk: &Desk) -> String {
    let body = "{}";
    let request = format!(
        "POST /v1/operators HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        desk.address,
        desk.admin,
        body.len()
    );
    let answer = desk.ask(request.as_bytes(), LONG).await.expect("a login is answered");
    let told: Value = serde_json::from_slice(&answer.body).expect("it is JSON");
    told["sid"].as_str().expect("a login has an id").to_owned()
}

/// Whether the login is still there; logs it out.
async fn log_out(desk: &Desk, sid: &str) -> u16 {
    let request = format!(
        "DELETE /v1/operators/{sid} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\n\
         connection: close\r\n\r\n",
        desk.address, desk.admin
    );
    desk.ask(request.as_bytes(), LONG).await.map_or(0, |answer| answer.status)
}

async fn dispatched(engine: Engine, desk: &Desk, sid: &str) -> (TaskId, Dispatch) {
    let task = engine.start_task(&desk.operator, TaskSpec::new("echo", "x")).await;
    let task = task.expect("the engine has room");
    let spawner: Arc<dyn SpawnerAdapter> = Arc::new(OperatorSpawner::named(sid));
    let token = desk.operator.clone();
    let run = tokio::spawn(async move {
        let _ = engine.dispatch_attempt_with(&token, &task, &spawner).await;
    });
    (task, run)
}

type Dispatch = tokio::task::JoinHandle<()>;

/// Opens a socket and sends what the input says.
pub fn check(input: &[u8]) {
    desk::with(async |desk: &Desk| {
        let sid = log_in(desk).await;
        let (task, run) = dispatched(desk.engine.clone(), desk, &sid).await;
        let mut socket = open(desk, &sid).await;
        let asked = timeout(LONG, next_asked(&mut socket)).await.expect("the spawn comes");
        // A server that refuses a frame does not read the rest.
        let _ = socket.write_all(&bytes_of(input, &asked)).await;
        let _ = socket.write_all(&CLOSE).await;
        let _ = socket.shutdown().await;
        let mut rest = Vec::new();
        let ended = timeout(LONG, socket.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "the socket does not end");
        let state = desk.engine.read_task_state(&desk.operator, &task).await;
        if !state.expect("it is the operator's").status.is_settled() {
            desk.engine.cancel_task(&desk.operator, &task).await.expect("it is not settled");
        }
        timeout(LONG, run).await.expect("the dispatch ends").expect("it does not panic");
        assert_eq!(log_out(desk, &sid).await, 204, "the login is gone");
    });
}
