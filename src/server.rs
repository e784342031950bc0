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
use axum::http::HeaderName;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::engine::Engine;
use browser::Browsers;
use data::Data;
pub use data::DataCfg;
use dispatch::Dispatched;
use guard::Guard;
use links::Links;
use listen::{Places, Times};
use problem::Problem;
use runs::Runs;
pub use shelf::{
    BlueprintVersion, ClaimedRun, DataKey, DataRecord, KeptLogin, MemoryShelf, Put, Shelf,
};
use tally::Tally;
use throttle::Throttle;

mod admin;
mod aliases;
mod blueprints;
mod browser;
mod caller;
mod cfg;
mod data;
mod dispatch;
mod doctor;
mod events;
mod guard;
mod health;
mod leases;
mod link;
mod links;
mod listen;
mod lists;
#[cfg(feature = "mcp")]
mod mcp;
mod metrics;
mod openapi;
mod operators;
mod page;
mod problem;
mod programs;
mod questions;
mod routes;
mod runs;
mod sessions;
pub(crate) mod shelf;
mod sink;
mod supervision;
mod tally;
mod tasks;
mod throttle;
mod trace;
mod worker;

pub use admin::AdminToken;
pub use cfg::{About, ServerCfg};
pub use doctor::{Finding, Level, RecentErrors, look_at_folder, look_at_process};
pub use link::LinkCfg;
pub use listen::raise_descriptor_limit;
#[cfg(feature = "mcp")]
pub use mcp::serve_stdio;
pub use openapi::openapi;
pub use sink::DataSink;

/// Longest that connections get to end once everything is done.
const CLOSE_GRACE: Duration = Duration::from_secs(2);

/// The header with a request's id.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What all routes share.
struct App {
    engine: Engine,
    admin: AdminToken,
    /// Who came by a link to the page.
    browsers: Browsers,
    guard: Guard,
    cfg: Arc<ServerCfg>,
    runs: Runs,
    dispatched: Arc<Dispatched>,
    data: Data,
    /// Tells this life of the server from others.
    epoch: u64,
    tally: Arc<Tally>,
    draining: AtomicBool,
    /// Ends the event streams.
    closing: CancellationToken,
    streams: Arc<Semaphore>,
    places: Arc<Places>,
    throttle: Throttle,
    links: Arc<Links>,
    /// The OpenAPI document, once it was asked for.
    document: OnceLock<String>,
}

type Shared = Arc<App>;

impl App {
    /// Starts what runs beside the engine. Needs a runtime.
    async fn new(engine: Engine, admin: AdminToken, cfg: ServerCfg) -> std::io::Result<Self> {
        let cfg = Arc::new(cfg);
        let runs = Runs::new(engine.clone(), cfg.clone()).await?;
        let data = Data::open(engine.clone(), cfg.clone()).await?;
        Ok(Self {
            runs,
            dispatched: Arc::new(Dispatched::new(cfg.dispatches, cfg.dispatch_bytes)),
            data,
            epoch: lists::epoch(&engine),
            guard: Guard::new(&cfg.hosts, &cfg.origins),
            streams: Arc::new(Semaphore::new(cfg.streams)),
            places: Arc::new(Places::new(cfg.connections)),
            throttle: Throttle::new(cfg.failures, cfg.failure_heals),
            links: Arc::new(Links::new(cfg.links.clone())),
            engine,
            admin,
            browsers: Browsers::default(),
            cfg,
            tally: Arc::default(),
            draining: AtomicBool::new(false),
            closing: CancellationToken::new(),
            document: OnceLock::new(),
        })
    }

    /// Begins what goes on by itself until the end: counting, and the runs that were left open.
    async fn begin(self: &Arc<Self>) -> std::io::Result<[AbortOnDropHandle<()>; 2]> {
        let tally = tally::follow(&self.engine, &self.tally).await;
        let tally = AbortOnDropHandle::new(tally.map_err(std::io::Error::other)?);
        let (resumed, later) = self.runs.resume_open().await.map_err(std::io::Error::other)?;
        tracing::info!(resumed, later = later.len(), "open runs go on");
        let app = self.clone();
        let resuming = tokio::spawn(async move { app.runs.resume_later(later).await });
        Ok([tally, AbortOnDropHandle::new(resuming)])
    }

    /// Takes nothing new, leaves the runs and brings the engine down.
    async fn end(&self, grace: Duration) -> ShutdownReport {
        self.draining.store(true, Ordering::Release);
        self.links.drain(&self.engine);
        // Runs get half of the grace, and their attempts what is left.
        let begun = tokio::time::Instant::now();
        self.runs.leave(grace / 2).await;
        self.engine.shutdown(grace.saturating_sub(begun.elapsed())).await
    }
}

/// A server that has its address and does not answer yet.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use adjutant::server::{AdminToken, Server, ServerCfg};
/// use adjutant::{CancellationToken, Engine, EngineCfg};
/// use std::time::Duration;
///
/// let dir = tempfile::tempdir()?;
/// let admin = AdminToken::in_file(&dir.path().join("admin-token"))?;
/// let (engine, address) = (Engine::new(EngineCfg::default()), "127.0.0.1:0".parse()?);
/// let server = Server::bind(engine, address, admin, ServerCfg::default()).await?;
/// assert!(server.page_link()?.contains(&server.local_addr()?.to_string()));
///
/// let stop = CancellationToken::new();
/// stop.cancel(); // in earnest on a signal
/// let report = server.run(stop, Duration::ZERO, Duration::from_secs(5)).await?;
/// assert!(report.waiting.is_empty());
/// # Ok(()) }
/// ```
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
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use adjutant::server::{AdminToken, Server, ServerCfg};
    /// # let dir = tempfile::tempdir()?;
    /// # let admin = AdminToken::in_file(&dir.path().join("admin-token"))?;
    /// # let engine = adjutant::Engine::new(adjutant::EngineCfg::default());
    /// let refused = Server::bind(engine, "0.0.0.0:0".parse()?, admin, ServerCfg::default()).await;
    /// assert!(refused.is_err()); // every interface, and no name in `ServerCfg::hosts`
    /// # Ok(()) }
    /// ```
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
        let server = Self { listener, app: Arc::new(App::new(engine, admin, cfg).await?) };
        server.app.cfg.sink.is_at(&server.base()?);
        Ok(server)
    }

    /// Where others find it.
    fn base(&self) -> std::io::Result<String> {
        let address = self.local_addr()?;
        Ok(match self.app.cfg.hosts.first() {
            // Behind a proxy, which speaks TLS and has a name.
            Some(host) if !address.ip().is_loopback() => format!("https://{host}"),
            _ => format!("http://{address}"),
        })
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
        Ok(format!("{}{}", self.base()?, self.app.browsers.link()?))
    }

    /// Answers until `stop` is cancelled, then brings the engine down and ends.
    ///
    /// From the stop on it is not ready, and the engine takes nothing new. It goes on answering
    /// until the engine has shut down within `grace`, and for `linger` at least, so that a balancer
    /// sees it; then streams end and connections close. Dropping the future leaves the engine as it is.
    ///
    /// ```no_run
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use adjutant::server::{AdminToken, Server, ServerCfg};
    /// use adjutant::{CancellationToken, Engine, EngineCfg};
    /// use std::time::Duration;
    ///
    /// let admin = AdminToken::in_file("state/admin-token".as_ref())?;
    /// let (engine, address) = (Engine::new(EngineCfg::default()), "127.0.0.1:7777".parse()?);
    /// let server = Server::bind(engine, address, admin, ServerCfg::default()).await?;
    /// let stop = CancellationToken::new();
    /// let seconds = Duration::from_secs;
    /// let serving = tokio::spawn(server.run(stop.clone(), seconds(1), seconds(30)));
    /// tokio::signal::ctrl_c().await?;
    /// stop.cancel();
    /// println!("left: {:?}", serving.await??);
    /// # Ok(()) }
    /// ```
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
        // Before the runs that may ask them go on.
        let known = app.links.take_up(&app.engine, &app.cfg.shelf).await;
        let known = known.map_err(|problem| std::io::Error::other(problem.detail().to_owned()))?;
        tracing::info!(known, "operators are known again");
        let _going_on = app.begin().await?;
        let _links = EndOfLinks(app.links.clone());
        let times = Times { head: app.cfg.header_time, deaf: app.cfg.deaf_time };
        let routes = routes::router(app.clone());
        let places = app.places.clone();
        let serving = listen::serve(listener, routes, places, times, app.closing.clone());
        let mut serving = pin!(serving);
        tokio::select! {
            () = &mut serving => return Err(closed()),
            () = stop.cancelled() => {}
        }
        let down = async { tokio::join!(app.end(grace), tokio::time::sleep(linger)).0 };
        let report = tokio::select! {
            report = down => report,
            () = &mut serving => return Err(closed()),
        };
        app.links.stop();
        app.closing.cancel();
        // A client that reads slowly holds nobody up.
        let _ = tokio::time::timeout(CLOSE_GRACE, serving).await;
        Ok(report)
    }
}

/// Ends all links when the server does, however that is.
struct EndOfLinks(Arc<Links>);

impl Drop for EndOfLinks {
    fn drop(&mut self) {
        self.0.stop();
    }
}

fn closed() -> std::io::Error {
    std::io::Error::other("the listener ended")
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
