//! The engine over HTTP: a listener, the layers around its routes, and its end.
//!
//! A route translates and never decides: each call goes to the engine with the caller's own token.
//! Nothing that an engine does lives in a request, so a client that goes away changes nothing.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use adjutant_actors::errors::EngineError;
use adjutant_actors::journal::JournalError;
use adjutant_actors::system::ShutdownReport;
use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower_http::limit::RequestBodyLimitLayer;
use tower_http::timeout::TimeoutLayer;
use tracing::Instrument;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::blueprint::Functions;
use crate::engine::Engine;
use browser::Browsers;
use data::Data;
pub use data::DataCfg;
use dispatch::Dispatched;
use guard::Guard;
use problem::Problem;
use runs::Runs;
pub use shelf::{BlueprintVersion, ClaimedRun, DataKey, DataRecord, MemoryShelf, Put, Shelf};
use tally::Tally;

mod admin;
mod blueprints;
mod browser;
mod caller;
mod data;
mod dispatch;
mod doctor;
mod events;
mod guard;
mod health;
mod lists;
mod metrics;
mod openapi;
mod page;
mod problem;
mod programs;
mod questions;
mod runs;
mod sessions;
pub(crate) mod shelf;
mod supervision;
mod tally;
mod tasks;
mod trace;
mod worker;

pub use admin::AdminToken;
pub use doctor::{Finding, Level, RecentErrors, look_at_folder, look_at_process};
pub use openapi::openapi;

/// Longest that connections get to end once everything is done.
const CLOSE_GRACE: Duration = Duration::from_secs(2);

/// The header with a request's id.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What may be said of a server. Use the struct update syntax.
#[derive(Clone)]
pub struct ServerCfg {
    /// Names, without a port, under which the server may be asked for, beside those of loopback.
    pub hosts: Vec<String>,
    /// Origins of pages, such as `https://desk.example`, that may ask, beside the server's own.
    pub origins: Vec<String>,
    /// Longest body of a request.
    pub body_bytes: usize,
    /// Longest that a request may take; a long poll and an event stream apart.
    pub request_time: Duration,
    /// How often an event stream without events shows that it is there.
    pub heartbeat: Duration,
    /// Event streams at a time, at most.
    pub streams: usize,
    /// Programs that the agents of a blueprint may run that comes over HTTP, as it names them: a
    /// bare name or an absolute path. `sh` allows shell lines. Who may start runs may give these
    /// programs any arguments.
    pub programs: Vec<String>,
    /// Functions that the agents of such a blueprint may be.
    pub functions: Functions,
    /// Runs that are carried on at a time, at most.
    pub runs: usize,
    /// Bounds of the data plane.
    pub data: DataCfg,
    /// Where the server keeps what is not the engine's; otherwise in memory.
    pub shelf: Arc<dyn Shelf>,
    /// What the doctor's route tells of the set-up.
    pub about: About,
}

/// What a server knows of its surroundings, for its doctor.
#[derive(Debug, Clone, Default)]
pub struct About {
    /// How it was set up, each setting with its origin. Never a secret.
    pub settings: serde_json::Value,
    /// The folder of its store.
    pub store: Option<std::path::PathBuf>,
    /// Errors and warnings of late.
    pub errors: RecentErrors,
}

impl std::fmt::Debug for ServerCfg {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerCfg")
            .field("hosts", &self.hosts)
            .field("origins", &self.origins)
            .field("programs", &self.programs)
            .field("runs", &self.runs)
            .finish_non_exhaustive()
    }
}

impl Default for ServerCfg {
    fn default() -> Self {
        Self {
            hosts: Vec::new(),
            origins: Vec::new(),
            body_bytes: 16 << 20,
            request_time: Duration::from_secs(30),
            heartbeat: Duration::from_secs(15),
            streams: 4096,
            about: About::default(),
            programs: Vec::new(),
            functions: Functions::new(),
            runs: 256,
            data: DataCfg::default(),
            shelf: Arc::new(MemoryShelf::default()),
        }
    }
}

/// What all routes share.
struct App {
    engine: Engine,
    admin: AdminToken,
    /// Who came by a link to the page.
    browsers: Browsers,
    guard: Guard,
    cfg: Arc<ServerCfg>,
    runs: Runs,
    dispatched: Dispatched,
    data: Data,
    /// Tells this life of the server from others.
    epoch: u64,
    tally: Arc<Tally>,
    draining: AtomicBool,
    /// Ends the event streams.
    closing: CancellationToken,
    streams: Arc<Semaphore>,
    /// The OpenAPI document, once it was asked for.
    document: OnceLock<String>,
}

type Shared = Arc<App>;

/// A server that has its address and does not answer yet.
pub struct Server {
    listener: TcpListener,
    app: Shared,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("cfg", &self.app.cfg).finish_non_exhaustive()
    }
}

impl Server {
    /// Takes an address for an engine.
    ///
    /// # Errors
    /// Where the address cannot be taken, or is not one of loopback while no host is named: such a
    /// server stands behind a proxy, which speaks TLS and has a name.
    pub async fn bind(
        engine: Engine,
        address: SocketAddr,
        admin: AdminToken,
        cfg: ServerCfg,
    ) -> std::io::Result<Self> {
        if !address.ip().is_loopback() && cfg.hosts.is_empty() {
            let why = "an address that is not loopback needs the names that the server has there";
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, why));
        }
        let listener = TcpListener::bind(address).await?;
        let cfg = Arc::new(cfg);
        let runs = Runs::new(engine.clone(), cfg.clone()).await?;
        let data = Data::open(engine.clone(), cfg.clone()).await?;
        let app = App {
            runs,
            dispatched: Dispatched::default(),
            data,
            epoch: lists::epoch(&engine),
            guard: Guard::new(&cfg.hosts, &cfg.origins),
            streams: Arc::new(Semaphore::new(cfg.streams)),
            engine,
            admin,
            browsers: Browsers::default(),
            cfg,
            tally: Arc::default(),
            draining: AtomicBool::new(false),
            closing: CancellationToken::new(),
            document: OnceLock::new(),
        };
        Ok(Self { listener, app: Arc::new(app) })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// A link to the live page that works once and within ten minutes. Whoever opens it first has
    /// the rights of the admin, so it is for a person's eyes and for no log.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn page_link(&self) -> std::io::Result<String> {
        let (address, path) = (self.local_addr()?, self.app.browsers.link()?);
        Ok(match self.app.cfg.hosts.first() {
            // Behind a proxy, which speaks TLS and has a name.
            Some(host) if !address.ip().is_loopback() => format!("https://{host}{path}"),
            _ => format!("http://{address}{path}"),
        })
    }

    /// Answers until `stop` is cancelled, then brings the engine down and ends.
    ///
    /// From the stop on it is not ready, and the engine takes nothing new. It goes on answering
    /// until the engine has shut down within `grace`, and for `linger` at least, so that a balancer
    /// sees it; then streams end and connections close. Dropping the future leaves the engine as it is.
    ///
    /// # Errors
    /// Those of the listener; an engine that has stopped.
    pub async fn run(
        self,
        stop: CancellationToken,
        linger: Duration,
        grace: Duration,
    ) -> std::io::Result<ShutdownReport> {
        let Self { listener, app } = self;
        let tally = tally::follow(&app).await.map_err(std::io::Error::other)?;
        let _end = tokio_util::task::AbortOnDropHandle::new(tally);
        let resumed = app.runs.resume_open().await.map_err(std::io::Error::other)?;
        tracing::info!(resumed, "open runs go on");
        let closing = app.closing.clone().cancelled_owned();
        let serving = axum::serve(listener, router(app.clone())).with_graceful_shutdown(closing);
        let mut serving = pin!(serving.into_future());
        tokio::select! {
            ended = &mut serving => return Err(ended.err().unwrap_or_else(closed)),
            () = stop.cancelled() => {}
        }
        app.draining.store(true, Ordering::Release);
        let down = async {
            let linger = tokio::time::sleep(linger);
            let ended = async {
                // Runs get half of the grace, and their attempts what is left.
                let begun = tokio::time::Instant::now();
                app.runs.leave(grace / 2).await;
                app.engine.shutdown(grace.saturating_sub(begun.elapsed())).await
            };
            tokio::join!(ended, linger).0
        };
        let report = tokio::select! {
            report = down => report,
            ended = &mut serving => return Err(ended.err().unwrap_or_else(closed)),
        };
        app.closing.cancel();
        // A client that reads slowly holds nobody up.
        let _ = tokio::time::timeout(CLOSE_GRACE, serving).await;
        Ok(report)
    }
}

fn closed() -> std::io::Error {
    std::io::Error::other("the listener ended")
}

/// What answers within the time limit of requests.
fn quick() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(health::live))
        .routes(routes!(health::ready))
        .routes(routes!(metrics::metrics))
        .routes(routes!(supervision::read))
        .routes(routes!(doctor::read))
        .routes(routes!(openapi::document))
        .routes(routes!(browser::link))
        .routes(routes!(sessions::attach, lists::sessions))
        .routes(routes!(sessions::detach, sessions::read))
        .routes(routes!(sessions::heartbeat))
        .routes(routes!(tasks::start, lists::tasks))
        .routes(routes!(dispatch::dispatch))
        .routes(routes!(dispatch::retry))
        .routes(routes!(runs::routes::start, runs::routes::list))
        .routes(routes!(runs::routes::cancel))
        .routes(routes!(blueprints::list))
        .routes(routes!(blueprints::put, blueprints::read, blueprints::archive))
        .routes(routes!(blueprints::head))
        .routes(routes!(blueprints::history))
        .routes(routes!(blueprints::unarchive))
        .routes(routes!(tasks::cancel))
        .routes(routes!(tasks::trace))
        .routes(routes!(tasks::output))
        .routes(routes!(worker::prompt))
        .routes(routes!(worker::result))
        .routes(routes!(worker::submit))
        .routes(routes!(questions::list))
        .routes(routes!(questions::answer))
}

/// What may stay open for longer.
fn held() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(tasks::read))
        .routes(routes!(runs::routes::read))
        .routes(routes!(events::stream))
}

/// What streams bodies, within bounds of its own.
fn streamed() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(data::routes::emit, data::routes::read))
}

fn router(app: Shared) -> Router {
    let quick = Router::from(quick()).merge(page::routes());
    let held = Router::from(held());
    let own = RequestBodyLimitLayer::new(app.cfg.body_bytes);
    // The data plane counts the bytes of its bodies itself, as they come.
    let data = Router::from(streamed());
    quick
        .layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, app.cfg.request_time))
        .merge(held)
        .layer(own)
        .merge(data)
        .fallback(async || Problem::of_status(StatusCode::NOT_FOUND, "there is no such route"))
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn_with_state(app.clone(), enter))
        .with_state(app)
}

/// The outermost layer: gives the request its id, looks at Host and Origin, and turns whatever was
/// refused into a problem document.
async fn enter(State(app): State<Shared>, request: Request, next: Next) -> Response {
    let id = format!("req-{:032x}", app.engine.mint().bits128());
    let span = trace::request(&request, &id);
    let asked = tokio::time::Instant::now();
    let mut response = match app.guard.check(request.uri(), request.headers()) {
        Ok(()) => next.run(request).instrument(span.clone()).await,
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

/// Does something on the shelf, away from the runtime's own threads.
async fn on_shelf<T: Send + 'static>(
    shelf: &Arc<dyn Shelf>,
    work: impl FnOnce(&dyn Shelf) -> Result<T, JournalError> + Send + 'static,
) -> Result<T, Problem> {
    let shelf = shelf.clone();
    let done = tokio::task::spawn_blocking(move || work(&*shelf)).await;
    let done = done.map_err(|error| EngineError::Internal(error.to_string()))?;
    done.map_err(|error| EngineError::Journal(Box::new(error)).into())
}

/// An id in a path or a query.
fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, Problem> {
    text.parse().map_err(|error: T::Err| EngineError::InvalidArgument(error.to_string()).into())
}
