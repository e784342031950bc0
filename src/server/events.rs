//! The events as a stream (SSE) that goes on where it was cut.
//!
//! A frame's `id` is the number of its event. A client that comes back with the last one it saw
//! gets what came after, in order and once; where that is gone it is told so by one `gap` event.
//! Bodies are shown only to who asks for them and may read the trace.

use std::collections::HashSet;
use std::convert::Infallible;

use adjutant_actors::model::event::EventRecord;
use adjutant_actors::model::ids::TaskId;
use adjutant_actors::model::role::Verb;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{HeaderMap, HeaderName};
use axum::response::sse::{Event as Frame, Sse};
use futures::Stream;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Interval, MissedTickBehavior, interval_at};
use utoipa::IntoParams;

use crate::engine::{Delivery, EventFeed};
use crate::server::Shared;
use crate::server::caller::{Authority, Params};
use crate::server::problem::Problem;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Fields of an event that carry a body.
const BODIES: [&str; 4] = ["result", "question", "answer", "event"];

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Wish {
    /// The number of the last event that was seen; otherwise from now on.
    after: Option<u64>,
    /// Only this task.
    #[param(value_type = Option<String>)]
    task: Option<TaskId>,
    /// Words of kinds, with commas between.
    kind: Option<String>,
    /// Whether to show bodies, which takes the right to read the trace.
    #[serde(default)]
    bodies: bool,
}

/// One client's stream.
struct Follow {
    app: Shared,
    authority: Authority,
    feed: EventFeed,
    beat: Interval,
    task: Option<TaskId>,
    kinds: Option<HashSet<String>>,
    bodies: bool,
    /// What is said before the first delivery.
    first: Option<Frame>,
    _place: OwnedSemaphorePermit,
}

/// Streams the events, each with its number as `id:`. One `gap` event says that events are gone.
#[utoipa::path(get, path = "/v1/events", tag = "events",
    params(Wish, ("Last-Event-ID" = Option<u64>, Header, description = "As `after`, and before it.")),
    responses((status = 200, body = String, content_type = "text/event-stream")))]
pub(crate) async fn stream(
    State(app): State<Shared>,
    authority: Authority,
    headers: HeaderMap,
    Params(wish): Params<Wish>,
) -> Result<Sse<impl Stream<Item = Result<Frame, Infallible>>>, Problem> {
    app.engine.verify_as(authority.caller(), Verb::SubscribeEvents).await?;
    if wish.bodies {
        app.engine.verify_as(authority.caller(), Verb::ReadTrace).await?;
    }
    let Ok(place) = app.streams.clone().try_acquire_owned() else {
        let detail = "as many event streams are open as may be";
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too_many_streams", detail));
    };
    let last = app.engine.with_state("last_seq", |state| state.last_seq()).await?;
    let after = seen(&headers)?.or(wish.after).unwrap_or(last);
    // A number that was never given is of another life of the engine, whose events are gone.
    let first = (after > last).then(|| {
        let data = json!({ "reason": "reset", "after": after, "last": last });
        Frame::default().event("gap").id(last.to_string()).data(data.to_string())
    });
    let feed = app.engine.event_feed(after.min(last)).await?;
    let every = app.cfg.heartbeat;
    let mut beat = interval_at(tokio::time::Instant::now() + every, every);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let kinds = wish.kind.map(|kinds| kinds.split(',').map(str::to_owned).collect());
    let (task, bodies) = (wish.task, wish.bodies);
    let follow = Follow { app, authority, feed, beat, task, kinds, bodies, first, _place: place };
    Ok(Sse::new(futures::stream::unfold(follow, |mut follow| async move {
        let frame = follow.next().await?;
        Some((Ok(frame), follow))
    })))
}

/// The number in `Last-Event-ID`, if there is one.
fn seen(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let Some(header) = headers.get(LAST_EVENT_ID) else { return Ok(None) };
    let number = header.to_str().ok().and_then(|text| text.parse().ok());
    let detail = "Last-Event-ID is no number of an event";
    number.map(Some).ok_or_else(|| Problem::of_status(StatusCode::BAD_REQUEST, detail))
}

impl Follow {
    /// The next frame; none once the engine or the server ends, or the token stands no more.
    async fn next(&mut self) -> Option<Frame> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        let closing = self.app.closing.clone();
        loop {
            tokio::select! {
                delivery = self.feed.next() => {
                    if let Some(frame) = self.frame(delivery?) {
                        return Some(frame);
                    }
                }
                _ = self.beat.tick() => {
                    let caller = self.authority.caller();
                    self.app.engine.verify_as(caller, Verb::SubscribeEvents).await.ok()?;
                    return Some(Frame::default().comment("beat"));
                }
                () = closing.cancelled() => {
                    // What was recorded before the end is still shown, up to what it would have to
                    // read: the client comes back for that, and nothing of it is gone.
                    loop {
                        let Some(delivery @ Delivery::Record(_)) = self.feed.try_next() else {
                            return None;
                        };
                        if let Some(frame) = self.frame(delivery) {
                            return Some(frame);
                        }
                    }
                }
            }
        }
    }

    fn frame(&self, delivery: Delivery) -> Option<Frame> {
        match delivery {
            Delivery::Missed { from, to } => {
                let data = json!({ "reason": "gone", "from": from, "to": to });
                Some(Frame::default().event("gap").id(to.to_string()).data(data.to_string()))
            }
            Delivery::Record(record) => {
                let kind = record.event.kind();
                let wanted = self.task.is_none_or(|task| record.event.task_id() == Some(task))
                    && self.kinds.as_ref().is_none_or(|kinds| kinds.contains(kind));
                let shown = || shown(&record, self.bodies).to_string();
                wanted
                    .then(|| Frame::default().event(kind).id(record.seq.to_string()).data(shown()))
            }
        }
    }
}

/// An event as JSON, with or without its bodies.
fn shown(record: &EventRecord, bodies: bool) -> Value {
    let mut event = serde_json::to_value(&record.event).unwrap_or_default();
    if !bodies && let Value::Object(fields) = &mut event {
        for name in BODIES {
            fields.remove(name);
        }
    }
    json!({ "seq": record.seq, "at": record.at, "event": event })
}

#[cfg(test)]
mod tests {
    use adjutant_actors::model::event::Event;

    use super::*;

    #[test]
    fn without_bodies_an_event_says_what_happened_to_whom_only() {
        let event = Event::TaskPass { task_id: TaskId::from_bits(1), result: json!("secret") };
        let record = EventRecord { seq: 3, at: 5, event };
        let metadata = shown(&record, false);
        assert_eq!(metadata["event"]["kind"], "task_pass");
        assert!(!metadata.to_string().contains("secret"));
        assert_eq!(shown(&record, true)["event"]["result"], "secret");
    }
}
