//! Serving one client over the standard streams.

use std::sync::Arc;
use std::time::Duration;

use adjutant_actors::system::ShutdownReport;
use rmcp::service::{ServerInitializeError, serve_server_with_ct};
use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::server::caller::Authority;
use crate::server::mcp::Mcp;
use crate::server::{AdminToken, App, ServerCfg};

/// Serves the Model Context Protocol on standard input and output, until the input ends or `stop`
/// is cancelled, then brings the engine down within `grace`.
///
/// The client may do what the admin may: it started the program. Nothing but the protocol may be
/// written to standard output meanwhile. Dropping the future leaves the engine as it is.
///
/// ```no_run
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use adjutant::server::{ServerCfg, serve_stdio};
/// use adjutant::{CancellationToken, Engine, EngineCfg};
/// use std::time::Duration;
///
/// let engine = Engine::new(EngineCfg::default());
/// let cfg = ServerCfg { programs: vec!["sh".into()], ..ServerCfg::default() };
/// serve_stdio(engine, cfg, CancellationToken::new(), Duration::from_secs(5)).await?;
/// # Ok(()) }
/// ```
///
/// # Errors
/// A client that speaks something else; those of the operating system; an engine that has stopped.
pub async fn serve_stdio(
    engine: Engine,
    cfg: ServerCfg,
    stop: CancellationToken,
    grace: Duration,
) -> std::io::Result<ShutdownReport> {
    let app = Arc::new(App::new(engine, AdminToken::of_nobody()?, cfg).await?);
    let _going_on = app.begin().await?;
    let handler = Mcp { app: app.clone(), own: Some(Arc::new(Authority::Admin)) };
    let streams = rmcp::transport::io::stdio_pipes();
    let served = match serve_server_with_ct(handler, streams, stop).await {
        Ok(service) => service.waiting().await.map(|_| ()).map_err(std::io::Error::other),
        // The client left, or was made to, before it said anything.
        Err(ServerInitializeError::ConnectionClosed(_) | ServerInitializeError::Cancelled) => {
            Ok(())
        }
        Err(error) => Err(std::io::Error::other(error)),
    };
    let report = app.end(grace).await;
    app.links.stop();
    app.closing.cancel();
    served.map(|()| report)
}
