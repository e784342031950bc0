//! The metrics as a scrape gets them (OpenMetrics text), without an id in any label.
//!
//! What the events tell lies in `tally.rs`; what the engine counts by itself, and what stands at
//! the moment, is read here at each scrape.

use adjutant_actors::model::role::Verb;
use adjutant_actors::system::{TIME_BOUNDS, Times};
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::server::caller::Authority;
use crate::server::problem::Problem;
use crate::server::{App, Shared};

/// Media type of the text form.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The metrics, for the admin or who may read the trace.
#[utoipa::path(get, path = "/metrics", tag = "health",
    responses((status = 200, body = String, content_type = OPEN_METRICS)))]
pub(crate) async fn metrics(
    State(app): State<Shared>,
    authority: Authority,
) -> Result<Response, Problem> {
    app.engine.verify_as(authority.caller(), Verb::ReadTrace).await?;
    let mut now = Registry::with_prefix("adjutant");
    counted(&app, &mut now);
    standing(&app, &mut now).await;
    let mut out = String::new();
    encode_registry(&mut out, app.tally.registry())
        .and_then(|()| encode_registry(&mut out, &now))
        .and_then(|()| encode_eof(&mut out))
        .map_err(|_| Problem::of_status(StatusCode::INTERNAL_SERVER_ERROR, "no metrics"))?;
    Ok(([(CONTENT_TYPE, OPEN_METRICS)], out).into_response())
}

/// What the engine and its processes counted.
fn counted(app: &App, now: &mut Registry) {
    let counts = app.engine.counts();
    for (name, help, value) in [
        ("turns", "Turns of the state", counts.turns),
        ("restarts", "Actors, workers and spawners started again", counts.restarts),
        ("state_restarts", "Starts of the state actor after its first", counts.state_restarts),
        ("actors_started", "Actors that were started", counts.actors_started),
        ("overlong_holds", "Turns that held the state too long", counts.overlong_holds),
        ("forced_stops", "Workers that were stopped by force", counts.forced_stops),
        ("lagged_subscribers", "Readers of events that fell behind", counts.lags),
        ("child_kills", "Process groups that were killed", crate::spawner::process::kills()),
    ] {
        now.register(name, help, ConstCounter::new(value));
    }
    let refused = [
        ("connections_refused_total", "Connections that had no place.", app.places.refused()),
        (
            "throttled_requests_total",
            "Requests refused after too many failed bearers.",
            app.throttle.refused(),
        ),
    ];
    for (name, help, value) in app.links.counters().into_iter().chain(refused) {
        // The suffix and the stop are added when it is written.
        let name = name.strip_suffix("_total").unwrap_or(name);
        now.register(name, help.trim_end_matches('.'), ConstCounter::new(value));
    }
    let held = ConstCounter::new(counts.held.as_secs_f64());
    now.register("turn_hold_seconds", "Time that turns held the state", held);
    now.register_collector(Box::new(Commits(counts.commits)));
    let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
    now.register("build", "What runs here", version);
}

/// What stands at the moment.
async fn standing(app: &App, now: &mut Registry) {
    let wide = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let streams = app.cfg.streams.saturating_sub(app.streams.available_permits());
    let supervision = app.engine.supervision().await;
    let standings = app.links.standings();
    let signed = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let mut gauges = vec![
        ("operators_connected", "Operators with a socket", signed(standings.connected)),
        ("operators_away", "Operators without a socket", signed(standings.away)),
        ("operator_parked_frames", "Frames that wait for a socket", signed(standings.parked)),
        ("operator_unanswered", "Requests that wait for a reply", signed(standings.unanswered)),
        ("connections", "Connections that are open", wide(app.places.open())),
        ("queued_turns", "Turns that wait", wide(app.engine.queued_turns())),
        ("live_runs", "Runs that are carried on", wide(app.runs.count())),
        ("event_streams", "Event streams that are open", wide(streams)),
        ("live_attempts", "Attempts in flight", wide(supervision.attempts)),
    ];
    let look = |state: &mut adjutant_actors::state::EngineState| {
        (state.live_tasks(), state.session_count())
    };
    // An engine that has stopped has none of these to show.
    if let Ok((live, sessions)) = app.engine.with_state("metrics", look).await {
        gauges.push(("live_tasks", "Tasks that are not settled", signed(live)));
        gauges.push(("sessions", "Sessions that are remembered", wide(sessions)));
    }
    for (name, help, value) in gauges {
        now.register(name, help, ConstGauge::new(value));
    }
    let depth = Family::<[(&'static str, &'static str); 1], Gauge>::default();
    for (kind, count) in supervision.mailboxes.by_kind() {
        depth.get_or_create(&[("actors", kind)]).set(wide(count));
    }
    let help = "Messages that actors did not take up yet, by the kind of actor";
    now.register("mailbox_depth", help, depth);
}

/// Times of commits. The engine counts them itself, since a commit ends on the journal's thread.
#[derive(Debug)]
struct Commits(Times);

impl Collector for Commits {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let bounds = TIME_BOUNDS.iter().map(|micros| *micros as f64 / 1e6);
        let bounds = bounds.chain([f64::INFINITY]);
        let buckets: Vec<_> = bounds.zip(self.0.buckets).collect();
        let help = "Time until the journal called a batch safe";
        encoder
            .encode_descriptor("commit_seconds", help, None, MetricType::Histogram)?
            .encode_histogram::<NoLabelSet>(
                self.0.sum.as_secs_f64(),
                self.0.count(),
                &buckets,
                None,
            )
    }
}
