//! The span of a request, and the line that says how it was answered.
//!
//! Names and fields are those of OpenTelemetry's conventions for HTTP servers. The path is the
//! route's, without the ids in it; nothing of headers, query or body is recorded.

use std::time::Duration;

use axum::extract::{MatchedPath, Request};
use axum::response::Response;
use tracing::Span;
use tracing::field::Empty;

use crate::server::problem::Problem;

/// Opens the span of a request.
pub(crate) fn request(request: &Request, id: &str) -> Span {
    let route = request.extensions().get::<MatchedPath>().map_or("(none)", MatchedPath::as_str);
    let method = request.method();
    tracing::info_span!(
        target: "adjutant::request",
        parent: None,
        "request",
        otel.name = %format_args!("{method} {route}"),
        otel.kind = "server",
        http.request.method = %method,
        http.route = route,
        http.response.status_code = Empty,
        request_id = id,
    )
}

/// Notes how it was answered. A stream is answered when it begins.
pub(crate) fn answered(span: &Span, response: &Response, took: Duration) {
    let status = response.status().as_u16();
    span.record("http.response.status_code", status);
    let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    let code = response.extensions().get::<Problem>().map(Problem::code);
    if response.status().is_server_error() && code != Some("stopped") {
        tracing::warn!(target: "adjutant::request", parent: span, status, ms, code, "failed");
    } else {
        tracing::info!(target: "adjutant::request", parent: span, status, ms, code, "answered");
    }
}
