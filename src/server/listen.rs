//! The listener: takes connections up to a number, gives each a time to say what it wants, and
//! brings them to an end.
//!
//! It speaks HTTP/1.1 and hands requests to the routes with the address that they come from. A
//! connection over the number is told so with a 503 and closed; its place counts until its socket
//! is gone, an upgraded one's too.

use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Longest that a connection gets to hear that there is no place for it.
const REFUSAL_TIME: Duration = Duration::from_secs(2);

/// Connections that are told so at a time, at most; others are closed without a word.
const REFUSALS: usize = 64;

/// Pause after an error of the system's that waiting may heal, such as no descriptor left.
const PAUSE: Duration = Duration::from_millis(100);

/// Longest head of a request; also what is read ahead of a body.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// Descriptors that stay free for files, children and outgoing connections.
const DESCRIPTORS_KEPT: u64 = 256;

/// What a connection over the number is told.
const REFUSAL: &str = "HTTP/1.1 503 Service Unavailable\r\n\
    content-type: application/problem+json\r\nretry-after: 1\r\nconnection: close\r\n\
    content-length: 194\r\n\r\n\
    {\"code\":\"too_many_connections\",\"detail\":\"as many connections are open as may be\",\
    \"retryable\":true,\"status\":503,\"title\":\"Service Unavailable\",\
    \"type\":\"urn:adjutant:problem:too_many_connections\"}\r\n";

/// Where a request comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// The places for connections.
#[derive(Debug)]
pub(crate) struct Places {
    most: usize,
    free: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
    refused: AtomicU64,
}

impl Places {
    /// As many as are wished for, and as the limit of descriptors leaves.
    pub(crate) fn new(wished: usize) -> Self {
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let left = limit.saturating_sub(DESCRIPTORS_KEPT).max(limit / 2);
        let most =
            wished.min(usize::try_from(left).unwrap_or(usize::MAX)).min(Semaphore::MAX_PERMITS);
        let free = Arc::new(Semaphore::new(most));
        Self {
            most,
            free,
            refusals: Arc::new(Semaphore::new(REFUSALS)),
            refused: AtomicU64::new(0),
        }
    }

    /// Connections that are open.
    pub(crate) fn open(&self) -> usize {
        self.most.saturating_sub(self.free.available_permits())
    }

    /// Connections that there was no place for.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Tells a connection that there is no place for it, without waiting for it.
    fn refuse(&self, mut stream: TcpStream) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        let Ok(place) = self.refusals.clone().try_acquire_owned() else { return };
        tokio::spawn(async move {
            let _place = place;
            let telling = async {
                stream.write_all(REFUSAL.as_bytes()).await?;
                stream.shutdown().await?;
                // What it sent is read, for a close before that would take the words back.
                let mut sink = [0; 1024];
                while stream.read(&mut sink).await? > 0 {}
                io::Result::Ok(())
            };
            let _ = tokio::time::timeout(REFUSAL_TIME, telling).await;
        });
    }
}

/// Raises the soft limit of descriptors of this process to its hard limit, and gives what it is.
///
/// ```
/// if let Some(limit) = adjutant::server::raise_descriptor_limit()? {
///     println!("{limit} descriptors");
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// Those of the operating system.
pub fn raise_descriptor_limit() -> io::Result<Option<u64>> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    Ok(limit.maximum)
}

/// What a connection gets of time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    /// To say the head of its next request.
    pub(crate) head: Duration,
    /// To take something of what is sent to it.
    pub(crate) deaf: Duration,
}

/// Answers connections until `closing`, and then until the last one has ended. Dropping the future
/// closes them.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    places: Arc<Places>,
    times: Times,
    closing: CancellationToken,
) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(times.head).max_buf_size(HEAD_BYTES_MAX);
    let service = TowerToHyperService::new(router);
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = closing.cancelled() => break,
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) if of_one_connection(&error) => continue,
            Err(error) => {
                tracing::warn!(error = error.to_string(), "no connection could be accepted");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let Ok(place) = places.free.clone().try_acquire_owned() else {
            places.refuse(stream);
            continue;
        };
        let _ = stream.set_nodelay(true);
        give_up_on_the_deaf(&stream, times.deaf);
        let counted = Counted { stream, _place: place };
        let service = Addressed { inner: service.clone(), peer: Peer(address) };
        let connection = http.serve_connection(TokioIo::new(counted), service).with_upgrades();
        let closing = closing.clone();
        connections.spawn(async move {
            let mut connection = pin!(connection);
            tokio::select! {
                // Errors are the peer's: it went, or it spoke no HTTP.
                _ = connection.as_mut() => return,
                () = closing.cancelled() => {}
            }
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        });
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Has the system end a connection whose peer takes nothing of what is sent to it for so long
/// (`TCP_USER_TIMEOUT` of tcp(7)). Where there is no such option such a peer keeps its place.
fn give_up_on_the_deaf(stream: &TcpStream, after: Duration) {
    #[cfg(target_os = "linux")]
    {
        // The system takes it as a signed number.
        let millis = u32::try_from(after.as_millis()).unwrap_or(u32::MAX).min(u32::MAX / 2);
        if let Err(error) = rustix::net::sockopt::set_tcp_user_timeout(stream, millis) {
            tracing::debug!(error = error.to_string(), "a peer that reads nothing is not given up");
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (stream, after);
}

/// Whether an error of accepting is of the one connection that was not.
fn of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::ConnectionRefused | Kind::ConnectionAborted | Kind::ConnectionReset
    )
}

/// The routes, for one peer.
struct Addressed {
    inner: TowerToHyperService<Router>,
    peer: Peer,
}

impl Service<Request<Incoming>> for Addressed {
    type Response = <TowerToHyperService<Router> as Service<Request<Incoming>>>::Response;
    type Error = <TowerToHyperService<Router> as Service<Request<Incoming>>>::Error;
    type Future = <TowerToHyperService<Router> as Service<Request<Incoming>>>::Future;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(self.peer);
        self.inner.call(request)
    }
}

/// A socket with its place among the connections.
struct Counted {
    stream: TcpStream,
    _place: OwnedSemaphorePermit,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refusal_is_as_long_as_it_says() {
        let (head, body) = REFUSAL.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}", body.len())), "{}", body.len());
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["code"], "too_many_connections");
    }
}
