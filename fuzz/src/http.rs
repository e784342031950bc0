//! Requests: whatever is asked is answered within its time, and never with a 500.
//!
//! The first character of an input says who asks and as what the body comes; up to the first line
//! feed stand method and path, in which `TASK` is a task that is there and `OWN` that of a worker
//! who is at work; the rest is the body, in which they stand as well.

use std::time::Duration;

use serde_json::Value;

use super::desk::{self, Desk, LONG};

/// What a request that may be held gets: its answer is not waited for.
const HELD: Duration = Duration::from_millis(50);

/// What may be held, or streams without an end.
const HOLDS: [&str; 5] =
    ["GET /v1/tasks/", "GET /v1/runs/", "GET /v1/events", "GET /v1/operators/", "GET /mcp"];

fn head(desk: &Desk, way: u8, line: &[u8], length: usize) -> Vec<u8> {
    let bearer = match way & 0b1011 {
        0 => desk.admin.clone(),
        1 => desk.operator.encode(),
        2 => "wh-000000000000000000000000000000".to_owned(),
        3 => String::new(),
        8 => desk.worker.token.clone(),
        9 => desk.worker.handle.clone(),
        10 => desk.observer.encode(),
        _ => desk.senior.encode(),
    };
    let kind = if way & 4 == 0 { "application/json" } else { "text/plain" };
    let mut bytes = line.to_vec();
    let rest = format!(
        " HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {bearer}\r\ncontent-type: {kind}\r\n\
         content-length: {length}\r\nconnection: close\r\n\r\n",
        desk.address
    );
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}

/// Sends one request.
pub fn check(input: &[u8]) {
    let [way, rest @ ..] = input else { return };
    let mut parts = rest.splitn(2, |byte| *byte == b'\n');
    let (line, body) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    desk::with(async |desk: &Desk| {
        let (task, own) = (desk.task.to_string(), desk.worker.task.to_string());
        let named = |text: &str| text.replace("TASK", &task).replace("OWN", &own);
        let line = named(&String::from_utf8_lossy(line));
        let body = str::from_utf8(body).map_or(body.to_vec(), |text| named(text).into_bytes());
        let mut request = head(desk, *way, line.as_bytes(), body.len());
        request.extend_from_slice(&body);
        let held = HOLDS.iter().any(|start| line.starts_with(start));
        let Some(answer) = desk.ask(&request, if held { HELD } else { LONG }).await else {
            assert!(held, "{line} is not answered");
            return;
        };
        let body = String::from_utf8_lossy(&answer.body);
        assert!(answer.status != 500, "{line}: {body}");
        if answer.head.contains("application/problem+json") && !answer.body.is_empty() {
            let problem: Value = serde_json::from_slice(&answer.body).expect("a problem is JSON");
            assert_eq!(problem["status"], answer.status, "{line}: {body}");
            assert!(problem["code"].is_string(), "{line}: {body}");
        }
    });
}
