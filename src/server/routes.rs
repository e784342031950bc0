//! The routes, the layers around them, and what every request passes: its id, the looks at Host and
//! Origin, the form of a refusal. What a route does is in the file of its theme.

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, Uri};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use tower_http::limit::RequestBodyLimitLayer;
use tower_http::timeout::TimeoutLayer;
use tracing::Instrument;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

#[cfg(feature = "mcp")]
use crate::server::mcp;
use crate::server::problem::{Problem, shown};
use crate::server::{
    REQUEST_ID, Shared, aliases, blueprints, browser, data, dispatch, doctor, events, health,
    lists, metrics, openapi, operators, page, questions, runs, sessions, supervision, tasks,
    throttle, trace, worker,
};

/// What answers within the time limit of requests.
pub(crate) fn quick() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(health::live))
        .routes(routes!(aliases::healthz))
        .routes(routes!(health::ready))
        .routes(routes!(metrics::metrics))
        .routes(routes!(supervision::read))
        .routes(routes!(doctor::read))
        .routes(routes!(openapi::document))
        .routes(routes!(browser::link))
        .routes(routes!(sessions::attach, lists::sessions, aliases::detach_session))
        .routes(routes!(sessions::detach, sessions::read))
        .routes(routes!(sessions::heartbeat))
        .routes(routes!(tasks::start, lists::tasks))
        .routes(routes!(dispatch::dispatch))
        .routes(routes!(dispatch::retry))
        .routes(routes!(runs::routes::start, runs::routes::list))
        .routes(routes!(runs::routes::cancel))
        .routes(routes!(blueprints::list))
        .routes(routes!(
            blueprints::put,
            blueprints::read,
            blueprints::archive,
            aliases::put_blueprint
        ))
        .routes(routes!(blueprints::head))
        .routes(routes!(blueprints::history))
        .routes(routes!(blueprints::unarchive))
        .routes(routes!(tasks::cancel))
        .routes(routes!(tasks::trace))
        .routes(routes!(tasks::output))
        .routes(routes!(worker::prompt))
        .routes(routes!(worker::result))
        .routes(routes!(worker::submit))
        .routes(routes!(operators::log_in, operators::list))
        .routes(routes!(operators::read, operators::log_out))
        .routes(routes!(questions::list))
        .routes(routes!(questions::answer))
}

/// What may stay open for longer.
pub(crate) fn held() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(tasks::read))
        .routes(routes!(runs::routes::read))
        .routes(routes!(events::stream))
        .routes(routes!(operators::attach))
}

/// What streams bodies, within bounds of its own.
pub(crate) fn streamed() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(data::routes::emit, data::routes::read))
}

pub(crate) fn router(app: Shared) -> Router {
    let quick = Router::from(quick()).merge(page::routes());
    let held = Router::from(held());
    #[cfg(feature = "mcp")]
    let held = held.merge(mcp::routes(&app));
    let own = RequestBodyLimitLayer::new(app.cfg.body_bytes);
    // The data plane counts the bytes of its bodies itself, as they come.
    let data = Router::from(streamed());
    quick
        .layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, app.cfg.request_time))
        .merge(held)
        .layer(own)
        .merge(data)
        .fallback(no_route)
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn_with_state(app.clone(), enter))
        .with_state(app)
}

async fn no_route(method: Method, uri: Uri) -> Problem {
    let detail = format!("there is no route {} {}", shown(method.as_str()), shown(uri.path()));
    Problem::of_status(StatusCode::NOT_FOUND, detail)
}

/// The outermost layer: gives the request its id, looks at Host and Origin, and turns whatever was
/// refused into a problem document.
async fn enter(State(app): State<Shared>, request: Request, next: Next) -> Response {
    let id = format!("req-{:032x}", app.engine.mint().bits128());
    let span = trace::request(&request, &id);
    let asked = tokio::time::Instant::now();
    let mut response = match app.guard.check(request.uri(), request.headers()) {
        Ok(()) => throttle::pass(&app, request, next).instrument(span.clone()).await,
        Err(problem) => problem.into_response(),
    };
    trace::answered(&span, &response, asked.elapsed());
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        response = problem.respond(&id);
    } else if response.status().as_u16() >= 400 && !health::is_whole(&response) {
        let status = response.status();
        let text = status.canonical_reason().unwrap_or("refused").to_lowercase();
        let allow = response.headers_mut().remove(axum::http::header::ALLOW);
        response = Problem::of_status(status, text).respond(&id);
        if let Some(allow) = allow {
            response.headers_mut().insert(axum::http::header::ALLOW, allow);
        }
    }
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}
