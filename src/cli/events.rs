//! `adjutant events`: the events of a running server, and on through its absences.

use std::collections::VecDeque;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::Method;
use hyper::body::Incoming;
use serde_json::Value;
use tokio::time::{sleep, timeout};

use crate::cli::args::EventsArgs;
use crate::cli::client::{Client, Refusal};
use crate::cli::remote::{RemoteError, on_server};
use crate::cli::{code, put_line, say};

/// Silence after which a stream counts as lost; a live one beats more often.
const SILENCE: Duration = Duration::from_secs(60);
/// Waits before the stream is asked for again, the shortest and the longest.
const WAITS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// Longest frame.
const FRAME_MAX: usize = 64 << 20;

pub(crate) fn main(args: EventsArgs) -> anyhow::Result<i32> {
    on_server(&args.remote.clone(), async |client| follow(&client, &args).await)
}

async fn follow(client: &Client, args: &EventsArgs) -> Result<i32, RemoteError> {
    let mut last = args.after;
    // Without --follow it ends with what is there at the beginning.
    let end = match args.follow {
        true => None,
        false => client.get("/v1/doctor").await?["last_seq"].as_u64(),
    };
    if end.is_some() {
        last = last.or(Some(0));
    }
    if end.is_some_and(|end| last.unwrap_or(0) >= end) {
        return Ok(code::PASS);
    }
    let (mut wait, mut was_there) = (WAITS.0, false);
    loop {
        match open(client, args, last).await {
            Ok(mut stream) => {
                was_there = true;
                while let Some(frame) = stream.next().await {
                    wait = WAITS.0;
                    if let Some(seq) = frame.id {
                        last = Some(seq);
                    }
                    if show(&frame, args)? == Shown::Gone
                        || end.is_some_and(|end| last >= Some(end))
                    {
                        return Ok(code::PASS);
                    }
                }
            }
            // What was there may come back; what never was need not be waited for.
            Err(Refusal::Unreachable(_)) if was_there => {}
            Err(Refusal::Problem(503, _)) if was_there => {}
            Err(refusal) => return Err(refusal.into()),
        }
        if wait == WAITS.0 {
            say(&format!("adjutant: the stream of {} ended; asking for it again", client.base));
        }
        sleep(wait).await;
        wait = (wait * 2).min(WAITS.1);
    }
}

async fn open(client: &Client, args: &EventsArgs, last: Option<u64>) -> Result<Stream, Refusal> {
    let mut path = "/v1/events?".to_owned();
    let bodies = args.bodies.then_some("true");
    let named = [("task", args.task.as_deref()), ("run", args.run.as_deref()), ("bodies", bodies)];
    // Kinds are passed over here, so that the numbers of those not shown are seen too.
    for (name, value) in named {
        if let Some(value) = value {
            path.push_str(&format!("{name}={value}&"));
        }
    }
    let last = last.map(|seq| seq.to_string());
    let headers: Vec<_> = last.iter().map(|seq| ("last-event-id", seq.as_str())).collect();
    let path = path.trim_end_matches(['&', '?']);
    let answer = client.ask(Method::GET, path, None, &headers).await?;
    Ok(Stream { body: answer.into_body(), text: Vec::new(), ready: VecDeque::new() })
}

#[derive(PartialEq)]
enum Shown {
    Yes,
    /// Whoever read the output has gone.
    Gone,
}

/// Prints a frame, unless nobody wants it.
fn show(frame: &Frame, args: &EventsArgs) -> anyhow::Result<Shown> {
    let wanted = args.kinds.is_empty() || frame.kind == "gap" || args.kinds.contains(&frame.kind);
    if !wanted {
        return Ok(Shown::Yes);
    }
    let line = if args.remote.json {
        match frame.kind.as_str() {
            "gap" => format!("{{\"gap\":{}}}", frame.data),
            _ => frame.data.clone(),
        }
    } else {
        plain(frame)
    };
    Ok(if put_line(&line)? { Shown::Yes } else { Shown::Gone })
}

/// A frame in words.
fn plain(frame: &Frame) -> String {
    let data: Value = serde_json::from_str(&frame.data).unwrap_or_default();
    if frame.kind == "gap" {
        return format!("(events are gone: {})", frame.data);
    }
    let seconds = data["at"].as_i64().unwrap_or(0);
    let at = jiff::Timestamp::from_second(seconds).map(|at| at.to_string()).unwrap_or_default();
    let mut line = format!("{:>8} {at} {}", data["seq"], frame.kind);
    let fields = data["event"].as_object();
    for (name, value) in fields.into_iter().flatten().filter(|(name, _)| *name != "kind") {
        match value {
            Value::String(text) => line.push_str(&format!(" {name}={}", text.escape_debug())),
            other => line.push_str(&format!(" {name}={other}")),
        }
    }
    line
}

/// One event of a stream.
#[derive(Debug, Default, PartialEq)]
struct Frame {
    id: Option<u64>,
    kind: String,
    data: String,
}

struct Stream {
    body: Incoming,
    text: Vec<u8>,
    ready: VecDeque<Frame>,
}

impl Stream {
    /// The next frame; none where the stream ended, broke or fell silent.
    async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.ready.pop_front() {
                return Some(frame);
            }
            let part = timeout(SILENCE, self.body.frame()).await.ok()??.ok()?;
            if let Some(bytes) = part.data_ref() {
                self.text.extend_from_slice(bytes);
            }
            take_frames(&mut self.text, &mut self.ready);
            if self.text.len() > FRAME_MAX {
                return None;
            }
        }
    }
}

/// Moves the whole frames at the head of a text.
fn take_frames(text: &mut Vec<u8>, ready: &mut VecDeque<Frame>) {
    while let Some(end) = text.windows(2).position(|two| two == b"\n\n") {
        let head: Vec<u8> = text.drain(..end + 2).collect();
        let mut frame = Frame::default();
        for line in String::from_utf8_lossy(&head).lines() {
            match line.split_once(": ") {
                Some(("id", id)) => frame.id = id.parse().ok(),
                Some(("event", kind)) => frame.kind = kind.to_owned(),
                Some(("data", data)) => {
                    if !frame.data.is_empty() {
                        frame.data.push('\n');
                    }
                    frame.data.push_str(data);
                }
                // A comment: the stream is there.
                _ => {}
            }
        }
        if frame.id.is_some() {
            ready.push_back(frame);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_whole_and_comments_passed_over() {
        let (mut text, mut ready) = (b": beat\n\nid: 3\nevent: task_pa".to_vec(), VecDeque::new());
        take_frames(&mut text, &mut ready);
        assert!(ready.is_empty());
        text.extend_from_slice(b"ss\ndata: {\"a\":\ndata: 1}\n\nid: 4\n");
        take_frames(&mut text, &mut ready);
        let data = "{\"a\":\n1}".to_owned();
        assert_eq!(ready, [Frame { id: Some(3), kind: "task_pass".to_owned(), data }]);
        assert_eq!(text, b"id: 4\n");
    }

    #[test]
    fn what_an_agent_wrote_cannot_steer_the_terminal() {
        let data = r#"{"seq":1,"at":0,"event":{"kind":"x","note":"\u001b[2J"}}"#.to_owned();
        let line = plain(&Frame { id: Some(1), kind: "x".to_owned(), data });
        assert!(!line.contains('\u{1b}'), "{line:?}");
    }
}
