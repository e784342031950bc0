//! Spans on their way to a collector: the program sends them to a real listener.
#![expect(clippy::unwrap_used, reason = "a test fails by a panic, in its helpers too")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// A request as it came.
struct Got {
    head: String,
    body: Vec<u8>,
}

fn read(stream: TcpStream) -> Got {
    let mut reader = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if line.trim().is_empty() {
            break;
        }
        let lower = line.to_ascii_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        head.push_str(&lower);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    reader.into_inner().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
    Got { head, body }
}

fn holds(body: &[u8], text: &str) -> bool {
    body.windows(text.len()).any(|part| part == text.as_bytes())
}

#[tokio::test]
async fn spans_of_requests_attempts_and_turns_reach_a_collector() {
    let collector = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}/v1/traces", collector.local_addr().unwrap());
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in collector.incoming() {
            if tell.send(read(stream.unwrap())).is_err() {
                return;
            }
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    let mut child = Command::new(env!("CARGO_BIN_EXE_adjutant"))
        .args(["serve", "--listen", "127.0.0.1:0", "--linger", "0", "--program", "sh", "--store"])
        .arg(&store)
        .env("ADJUTANT_OTLP_ENDPOINT", &endpoint)
        .env("ADJUTANT_OTLP_LEVEL", "info,adjutant::turn=trace")
        .env("ADJUTANT_OTLP_HEADERS", "x-key=hush")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut base = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut base).unwrap();
    let answer = reqwest::get(format!("{}/livez", base.trim())).await.unwrap();
    assert_eq!(answer.status(), 200);
    let admin = std::fs::read_to_string(store.join("admin-token")).unwrap();
    let run = serde_json::json!({ "blueprint": {
        "id": "one",
        "agents": [{ "name": "sheller", "kind": "subprocess", "spec": { "shell": "echo done" } }],
        "flow": { "kind": "step", "ref": "sheller", "in": { "op": "lit", "value": "x" },
                  "out": { "op": "path", "at": "$.out" } }
    }});
    let start = reqwest::Client::new().post(format!("{}/v1/runs?wait=20", base.trim()));
    let ran = start.bearer_auth(admin.trim()).json(&run).send().await.unwrap();
    assert_eq!(ran.status(), 200, "{}", ran.text().await.unwrap());
    let term = Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
    assert!(term.unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let got = told.recv_timeout(Duration::from_secs(30)).unwrap();
    assert!(got.head.starts_with("post /v1/traces "), "{}", got.head);
    assert!(got.head.contains("x-key: hush"), "{}", got.head);
    assert!(got.head.contains("content-type: application/x-protobuf"), "{}", got.head);
    let mut body = got.body;
    // The child has ended, so all that it sent is there.
    body.extend(told.try_iter().flat_map(|got| got.body));
    for text in [
        "service.name",
        "GET /livez",
        "POST /v1/runs",
        "http.response.status_code",
        "attempt",
        "sheller",
        "finish_attempt",
    ] {
        assert!(holds(&body, text), "{text} is missing");
    }
    assert!(!holds(&body, admin.trim()));
}
