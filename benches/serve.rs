//! Serve: 1,000 event streams and 200 operators at once on loopback, in another process than the
//! server, for a minute.
//!
//! It checks that no subscriber misses or doubles an event and that every spawn is answered once,
//! through swaps of sockets too, and shows what the server's memory does meanwhile.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use adjutant::server::raise_descriptor_limit;
use futures::{SinkExt, StreamExt};
use reqwest::Client;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

#[path = "calm.rs"]
mod calm;
#[path = "harness.rs"]
mod harness;
#[path = "serve/host.rs"]
mod host;

use harness::report::{Bound, Report};
use harness::{Scale, float, many, runtime};
use host::Host;

/// Longest that anything but the run itself may take.
const LONG: Duration = Duration::from_secs(120);
/// Spawns after which an operator swaps its socket, in the middle of one.
const SWAP_EVERY: u64 = 5;
/// How often the memory is looked at.
const LOOK: Duration = Duration::from_secs(2);

/// What all clients share.
struct Clients {
    base: String,
    admin: String,
    http: Client,
    /// Events that the streams have seen, all together.
    events: AtomicU64,
    /// Number of the last event, once the run is over.
    last: tokio::sync::watch::Sender<Option<u64>>,
}

impl Clients {
    async fn post(&self, path: &str, bearer: &str, body: &Value) -> Value {
        let request = self.http.post(format!("{}{path}", self.base)).bearer_auth(bearer).json(body);
        let response = request.send().await.expect("the server answers");
        assert!(response.status().is_success(), "{path}: {}", response.status());
        response.json().await.unwrap_or_default()
    }

    /// Reads events from the first one on until the last one of the run. Says how many were lost,
    /// and how many came twice or out of order.
    async fn subscribe(&self, bearer: &str, there: &AtomicU64) -> (u64, u64) {
        let request = self.http.get(format!("{}/v1/events?after=0", self.base)).bearer_auth(bearer);
        let mut stream = request.send().await.expect("the server answers");
        assert!(stream.status().is_success(), "an event stream: {}", stream.status());
        there.fetch_add(1, Ordering::Relaxed);
        let (mut seen, mut lost, mut doubled, mut text) = (0_u64, 0, 0, String::new());
        let mut last = self.last.subscribe();
        loop {
            if last.borrow().is_some_and(|last| seen >= last) {
                return (lost, doubled);
            }
            let piece = tokio::select! {
                piece = stream.chunk() => piece,
                _ = last.changed() => continue,
            };
            let piece = piece.expect("the stream stands").expect("the stream goes on");
            text.push_str(std::str::from_utf8(&piece).expect("ASCII"));
            while let Some(end) = text.find('\n') {
                let line: String = text.drain(..=end).collect();
                assert!(!line.starts_with("event: gap"), "events are gone");
                let Some(id) = line.strip_prefix("id: ") else { continue };
                let id: u64 = id.trim().parse().expect("a number");
                self.events.fetch_add(1, Ordering::Relaxed);
                if id <= seen {
                    doubled += 1;
                } else {
                    lost += id - seen - 1;
                    seen = id;
                }
            }
        }
    }

    async fn log_in(&self, number: usize) -> (String, String) {
        let wish = json!({ "roles": [host::role(number)] });
        let login = self.post("/v1/operators", &self.admin, &wish).await;
        let text = |name: &str| login[name].as_str().expect("a login").to_owned();
        (text("sid"), text("token"))
    }

    async fn connect(
        &self,
        login: &(String, String),
    ) -> WebSocketStream<MaybeTlsStream<TcpStream>> {
        let place = format!("{}/v1/operators/{}/ws", self.base.replace("http", "ws"), login.0);
        let mut request = place.into_client_request().expect("an address");
        let bearer = format!("Bearer {}", login.1).parse().expect("a header");
        request.headers_mut().insert("authorization", bearer);
        connect_async(request).await.expect("a socket").0
    }

    /// Answers spawns until the server closes the link: every second one through a worker's post,
    /// and some only on the next socket. Gives the spawns it answered, each once.
    async fn operate(&self, login: (String, String)) -> u64 {
        let mut socket = self.connect(&login).await;
        let mut answered = HashSet::new();
        let mut held: HashMap<String, String> = HashMap::new();
        let mut spawns = 0_u64;
        while let Some(Ok(message)) = socket.next().await {
            let Message::Text(text) = message else { continue };
            let frame: Value = serde_json::from_str(&text).expect("JSON");
            if frame["type"] != "spawn" {
                continue;
            }
            let id = frame["req_id"].as_str().expect("an id").to_owned();
            if answered.contains(&id) {
                // It was on its way when the sockets were swapped: said again, done once.
                if let Some(ack) = held.get(&id) {
                    let _ = socket.send(Message::text(ack.clone())).await;
                }
                continue;
            }
            spawns += 1;
            if spawns.is_multiple_of(SWAP_EVERY) && !held.contains_key(&id) {
                held.insert(id, String::new());
                socket = self.connect(&login).await;
                continue;
            }
            let handle = frame["worker_handle"].as_str().expect("a handle");
            let ack = if spawns.is_multiple_of(2) {
                self.work(handle).await;
                json!({ "type": "spawn_ack", "req_id": id })
            } else {
                json!({ "type": "spawn_ack", "req_id": id, "value": "by word" })
            };
            answered.insert(id.clone());
            held.insert(id, ack.to_string());
            let _ = socket.send(Message::text(ack.to_string())).await;
        }
        answered.len() as u64
    }

    /// What a worker does.
    async fn work(&self, handle: &str) {
        let prompt = self.http.get(format!("{}/v1/worker/prompt", self.base)).bearer_auth(handle);
        let prompt = prompt.send().await.expect("the server answers");
        assert!(prompt.status().is_success(), "the prompt: {}", prompt.status());
        let submit = self.http.post(format!("{}/v1/worker/submit", self.base)).bearer_auth(handle);
        let submit = submit.body("by post").send().await.expect("the server answers");
        assert!(submit.status().is_success(), "the result: {}", submit.status());
    }
}

/// What a run came to.
struct Outcome {
    begin: f64,
    end: f64,
    slope: f64,
    dispatched: u64,
    passed: u64,
    answered: u64,
    events: u64,
    delivered: u64,
    lost: u64,
    doubled: u64,
    seconds: f64,
}

async fn run(streams: usize, operators: usize, seconds: u64) -> Outcome {
    let mut host = Host::start(operators, seconds);
    let (base, admin) = host.place();
    let (events, http) = (AtomicU64::new(0), Client::new());
    let last = tokio::sync::watch::channel(None).0;
    let clients = Arc::new(Clients { base, admin, http, events, last });
    let mut desks = JoinSet::new();
    for number in 0..operators {
        let (clients, login) = (clients.clone(), clients.log_in(number).await);
        desks.spawn(async move { clients.operate(login).await });
    }
    let observer = json!({ "operator_id": "bench", "role": "observer" });
    let observer = clients.post("/v1/sessions", &clients.admin, &observer).await;
    let observer: Arc<str> = observer["token"].as_str().expect("a token").into();
    let there = Arc::new(AtomicU64::new(0));
    let mut readers = JoinSet::new();
    for _ in 0..streams {
        let (clients, observer, there) = (clients.clone(), observer.clone(), there.clone());
        readers.spawn(async move { clients.subscribe(&observer, &there).await });
    }
    while there.load(Ordering::Relaxed) < streams as u64 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (begin, start) = (host.memory(), Instant::now());
    host.go();
    let looks = look(&host, Duration::from_secs(seconds)).await;
    let told = tokio::task::block_in_place(|| host.told());
    let number = |name: &str| told[name].as_u64().expect("a number");
    clients.last.send_replace(Some(number("last_event")));
    let (mut lost, mut doubled, mut answered) = (0, 0, 0);
    while let Some(reader) = timeout(LONG, readers.join_next()).await.expect("all events come") {
        let (own_lost, own_doubled) = reader.expect("a reader does not panic");
        (lost, doubled) = (lost + own_lost, doubled + own_doubled);
    }
    let (seconds, end) = (start.elapsed().as_secs_f64(), host.memory());
    host.stop();
    while let Some(desk) = timeout(LONG, desks.join_next()).await.expect("all operators end") {
        answered += desk.expect("an operator does not panic");
    }
    Outcome {
        begin,
        end,
        slope: slope(&looks),
        dispatched: number("dispatched"),
        passed: number("passed"),
        answered,
        events: number("last_event"),
        delivered: clients.events.load(Ordering::Relaxed),
        lost,
        doubled,
        seconds,
    }
}

/// The server's memory over a time: seconds and MiB.
async fn look(host: &Host, time: Duration) -> Vec<(f64, f64)> {
    let (start, mut looks) = (Instant::now(), Vec::new());
    while start.elapsed() < time {
        tokio::time::sleep(LOOK.min(time / 4)).await;
        looks.push((start.elapsed().as_secs_f64(), host.memory()));
    }
    looks
}

/// MiB a minute over the second half of the looks, by least squares: the first one fills buffers.
fn slope(looks: &[(f64, f64)]) -> f64 {
    let half = &looks[looks.len() / 2..];
    let mean = |of: fn(&(f64, f64)) -> f64| half.iter().map(of).sum::<f64>() / many(half.len());
    let (time, memory) = (mean(|look| look.0), mean(|look| look.1));
    let over = half.iter().map(|(at, mib)| (at - time) * (mib - memory)).sum::<f64>();
    let under = half.iter().map(|(at, _)| (at - time).powi(2)).sum::<f64>();
    60.0 * over / under.max(f64::MIN_POSITIVE)
}

fn main() {
    if host::is_host() {
        return host::main();
    }
    let scale = Scale::from_env();
    raise_descriptor_limit().expect("the limit of descriptors can be raised");
    let (streams, operators, seconds) = scale.pick((1000, 200, 60), (50, 10, 3));
    let what = format!("{streams} event streams and {operators} operators for {seconds} s");
    let mut report = Report::new("serve", "a server under its clients", scale);
    let outcome = runtime().block_on(run(streams, operators, seconds));
    let group = what.as_str();
    report.heading(group);
    for (row, value, unit) in [
        ("dispatches through operators", float(outcome.dispatched) / outcome.seconds, "/s"),
        ("events delivered", float(outcome.delivered) / outcome.seconds, "/s"),
        ("events", float(outcome.events), ""),
        ("memory of the server with all clients connected", outcome.begin, "MiB"),
        ("memory of the server after the run", outcome.end, "MiB"),
        ("its slope in the second half", outcome.slope, "MiB/min"),
    ] {
        report.figure(group, row, value, unit);
    }
    let unanswered = outcome.dispatched.abs_diff(outcome.passed);
    let miscounted = outcome.dispatched.abs_diff(outcome.answered);
    for (measure, value) in [
        ("events lost, of all streams", outcome.lost),
        ("events doubled, of all streams", outcome.doubled),
        ("dispatches that did not pass", unanswered),
        ("spawns not answered exactly once", miscounted),
    ] {
        report.target(measure, float(value), Bound::AtMost, 0.0, None, "");
    }
    let growth = outcome.end - outcome.begin;
    report.target("growth of the server's memory", growth, Bound::AtMost, 256.0, None, "MiB");
    report.write(|_| Ok(()));
    let faults = outcome.lost + outcome.doubled + unanswered + miscounted;
    assert_eq!(faults, 0, "something was lost or doubled");
    assert_eq!(outcome.delivered, outcome.events * streams as u64, "each stream had each event");
}
