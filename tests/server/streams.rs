//! The event stream: from a number on, once each, with a gap where events are gone.

use std::time::Duration;

use adjutant::server::ServerCfg;
use adjutant::{Role, TaskSpec};
use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::desk::{Desk, LONG, calm, problem};

/// A client that reads frames.
struct Reader {
    response: Response,
    text: String,
}

impl Reader {
    async fn open(desk: &Desk, path: &str, bearer: &str, last: Option<&str>) -> Self {
        let mut ask = desk.ask(Method::GET, path, bearer);
        if let Some(last) = last {
            ask = ask.header("last-event-id", last);
        }
        let response = ask.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { response, text: String::new() }
    }

    /// The next block of lines; none at the end of the stream.
    async fn block(&mut self) -> Option<String> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.text = rest;
                return Some(block);
            }
            let piece = tokio::time::timeout(LONG, self.response.chunk()).await.unwrap();
            self.text.push_str(std::str::from_utf8(&piece.unwrap()?).unwrap());
        }
    }

    /// The next event as id, kind and data; comments are passed over.
    async fn event(&mut self) -> Option<(String, String, Value)> {
        loop {
            let block = self.block().await?;
            let field = |name: &str| {
                block
                    .lines()
                    .find_map(|line| line.strip_prefix(name))
                    .map(|text| text.trim().to_owned())
            };
            if let (Some(id), Some(kind), Some(data)) =
                (field("id:"), field("event:"), field("data:"))
            {
                return Some((id, kind, serde_json::from_str(&data).unwrap()));
            }
        }
    }
}

#[tokio::test]
async fn a_stream_that_was_cut_goes_on_after_the_last_id() {
    let desk = Desk::new().await;
    let (operator, observer) = (desk.session("operator").await, desk.session("observer").await);
    let mut reader = Reader::open(&desk, "/v1/events?after=0", &observer, None).await;
    desk.task(&operator).await;
    for id in ["1", "2", "3"] {
        assert_eq!(reader.event().await.unwrap().0, id);
    }
    drop(reader);
    desk.task(&operator).await;
    let mut again = Reader::open(&desk, "/v1/events?after=0", &observer, Some("3")).await;
    let (id, kind, data) = again.event().await.unwrap();
    assert_eq!((id.as_str(), kind.as_str(), &data["seq"]), ("4", "task_created", &json!(4)));
}

#[tokio::test]
async fn what_is_gone_is_one_gap() {
    let mut cfg = calm();
    cfg.limits.event_tail = 4;
    let desk = Desk::with(cfg, ServerCfg::default()).await;
    let observer = desk.session("observer").await;
    let operator = desk.engine.attach("ann", Role::Operator, LONG).await.unwrap();
    for _ in 0..20 {
        desk.engine.start_task(&operator, TaskSpec::new("echo", "hello")).await.unwrap();
    }
    let mut reader = Reader::open(&desk, "/v1/events?after=1", &observer, None).await;
    let (id, kind, data) = reader.event().await.unwrap();
    assert_eq!((kind.as_str(), &data["from"]), ("gap", &json!(2)));
    let mut expected: u64 = id.parse().unwrap();
    assert_eq!(data["to"], json!(expected));
    while expected < 22 {
        expected += 1;
        let (id, kind, _) = reader.event().await.unwrap();
        assert_eq!((id, kind.as_str()), (expected.to_string(), "task_created"));
    }
}

#[tokio::test]
async fn a_number_from_another_life_is_a_gap_and_nothing_is_waited_for() {
    let desk = Desk::new().await;
    let (operator, observer) = (desk.session("operator").await, desk.session("observer").await);
    let mut reader = Reader::open(&desk, "/v1/events", &observer, Some("900")).await;
    let (id, kind, data) = reader.event().await.unwrap();
    assert_eq!((id.as_str(), kind.as_str()), ("2", "gap"));
    assert_eq!(data, json!({ "reason": "reset", "after": 900, "last": 2 }));
    desk.task(&operator).await;
    assert_eq!(reader.event().await.unwrap().0, "3");
}

#[tokio::test]
async fn filters_leave_the_numbers_as_they_are() {
    let desk = Desk::new().await;
    let (operator, observer) = (desk.session("operator").await, desk.session("observer").await);
    let (one, other) = (desk.task(&operator).await, desk.task(&operator).await);
    for task in [&one, &other] {
        desk.post(&format!("/v1/tasks/{task}/cancel"), &operator, &json!({})).await;
    }
    let path = format!("/v1/events?after=0&task={other}&kind=task_cancelled");
    let mut reader = Reader::open(&desk, &path, &observer, None).await;
    let (id, kind, data) = reader.event().await.unwrap();
    assert_eq!((id.as_str(), kind.as_str()), ("6", "task_cancelled"));
    assert_eq!(data["event"]["task_id"], json!(other));
}

#[tokio::test]
async fn bodies_are_shown_to_who_asks() {
    let desk = Desk::new().await;
    let observer = desk.session("observer").await;
    let operator = desk.engine.attach("ann", Role::Operator, LONG).await.unwrap();
    let task = desk.engine.start_task(&operator, TaskSpec::new("echo", "hello")).await.unwrap();
    desk.engine.mark_pass(&operator, &task, json!("canary")).await.unwrap();
    for (more, shown) in [("", false), ("&bodies=true", true)] {
        let path = format!("/v1/events?after=0&kind=task_pass{more}");
        let mut reader = Reader::open(&desk, &path, &observer, None).await;
        let (_, _, data) = reader.event().await.unwrap();
        assert_eq!(data.to_string().contains("canary"), shown);
    }
}

#[tokio::test]
async fn a_quiet_stream_beats_until_its_token_is_revoked() {
    let cfg = ServerCfg { heartbeat: Duration::from_millis(20), ..ServerCfg::default() };
    let desk = Desk::with(calm(), cfg).await;
    let observer = desk.session("observer").await;
    let mut reader = Reader::open(&desk, "/v1/events?kind=task_pass", &observer, None).await;
    assert_eq!(reader.block().await.unwrap().trim(), ": beat");
    desk.ask(Method::DELETE, "/v1/session", &observer).send().await.unwrap();
    while let Some(block) = reader.block().await {
        assert_eq!(block.trim(), ": beat");
    }
}

#[tokio::test]
async fn a_stream_too_many_is_refused_and_its_place_comes_back() {
    let desk = Desk::with(calm(), ServerCfg { streams: 1, ..ServerCfg::default() }).await;
    let observer = desk.session("observer").await;
    let reader = Reader::open(&desk, "/v1/events", &observer, None).await;
    let told = problem(desk.get("/v1/events", &observer).await, 503, "too_many_streams").await;
    assert_eq!(told["retryable"], true);
    drop(reader);
    while desk.get("/v1/events", &observer).await.status() != 200 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_stop_ends_streams_and_parked_polls_after_the_last_event() {
    let desk = Desk::new().await;
    let (operator, observer) = (desk.session("operator").await, desk.session("observer").await);
    let mut reader = Reader::open(&desk, "/v1/events?after=0", &observer, None).await;
    let path = format!("/v1/tasks/{}?hold=25", desk.task(&operator).await);
    let turns = desk.engine.counts().turns;
    let poll = tokio::spawn(desk.ask(Method::GET, &path, &operator).send());
    while desk.engine.counts().turns == turns {
        tokio::task::yield_now().await;
    }
    desk.stop.cancel();
    let mut last = 0;
    while let Some((id, ..)) = reader.event().await {
        last = id.parse().unwrap();
    }
    assert!(last >= 3, "{last}");
    problem(poll.await.unwrap().unwrap(), 503, "stopped").await;
    let report = desk.serving.await.unwrap().unwrap();
    assert_eq!(report.waiting.len(), 1);
}
