//! Carries what a client says on the standard streams to a running server, and back what that says.
//!
//! It understands nothing but who waits for a reply: tools, resources, progress, questions to the
//! user and cancellation pass as they are. Sessions, streams that break and a server that was
//! started anew are the matter of the library's own client.

use std::collections::HashSet;
use std::task::Poll;
use std::time::Duration;

use adjutant::CancellationToken;
use anyhow::anyhow;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use rmcp::model::{
    ClientJsonRpcMessage, ClientNotification, ErrorData, RequestId, ServerJsonRpcMessage,
};
use rmcp::transport::Transport;
use rmcp::transport::async_rw::AsyncRwTransport;
use rmcp::transport::streamable_http_client::{
    StreamableHttpClientTransportConfig, StreamableHttpClientWorker, StreamableHttpError,
};
use rmcp::transport::worker::WorkerTransport;
use tokio::time::{Instant, sleep_until, timeout};

use crate::cli::client::{Client, Refusal};
use crate::cli::mcp::wire::Wire;
use crate::cli::remote::RemoteError;

/// Longest that the end of the protocol's session may take.
const CLOSE: Duration = Duration::from_secs(2);

type Remote = WorkerTransport<StreamableHttpClientWorker<Wire>>;

/// The request that was sent, if it was one, and whether it could be.
type Sent = (Option<RequestId>, Result<(), StreamableHttpError<Refusal>>);

/// Carries messages until the client has left, or `stop` is cancelled. What was asked for by then
/// gets `grace` to be answered.
///
/// # Errors
/// Where the server is lost for good, or took nothing of late when the client left.
pub(super) async fn carry(
    server: Client,
    stop: CancellationToken,
    grace: Duration,
) -> Result<(), RemoteError> {
    let (read, write) = rmcp::transport::io::stdio_pipes();
    let mut here = AsyncRwTransport::new_server(read, write);
    let mut there = to(server);
    let (mut waiting, mut sending) = (Waiting::default(), FuturesUnordered::new());
    let (mut failure, mut end, mut is_lost) = (None, None, false);
    let carried = loop {
        if end.is_some() && waiting.0.is_empty() && sending.is_empty() {
            break failure.map_or(Ok(()), Err);
        }
        if is_lost && sending.is_empty() {
            break Err(failure.unwrap_or_else(lost));
        }
        let wanted = tokio::select! {
            biased;
            () = stop.cancelled() => break Ok(()),
            () = at(end), if end.is_some() => break Ok(()),
            Some((id, sent)) = sending.next() => {
                let Err(error) = sent else { continue };
                let error = failed(error);
                let reply = waiting.give_up(id, &error);
                failure = Some(error);
                reply
            }
            message = there.receive(), if !is_lost => {
                let Some(message) = message else {
                    // What could not be sent is told first.
                    is_lost = true;
                    continue;
                };
                failure = None;
                waiting.answered(&message);
                Some(message)
            }
            message = here.receive(), if end.is_none() && !is_lost => {
                let Some(message) = message else {
                    end = Some(Instant::now() + grace);
                    continue;
                };
                let id = waiting.asked(&message);
                sending.push(line_up(&mut there, id, message).await);
                None
            }
        };
        // A client that reads no more has left.
        if let Some(message) = wanted
            && here.send(message).await.is_err()
        {
            break Ok(());
        }
    };
    drop(sending);
    // Ends the protocol's session, where there is one; half an opening is waited for in vain.
    let _ = timeout(CLOSE, there.close()).await;
    carried
}

/// Sends a message. When this returns it stands in the line of what is sent, before the next one.
async fn line_up(
    there: &mut Remote,
    id: Option<RequestId>,
    message: ClientJsonRpcMessage,
) -> BoxFuture<'static, Sent> {
    let mut sent = Box::pin(there.send(message));
    match futures::poll!(&mut sent) {
        Poll::Ready(sent) => Box::pin(async move { (id, sent) }),
        Poll::Pending => Box::pin(async move { (id, sent.await) }),
    }
}

/// The library's client of a server. It starts at once, on a task of its own.
fn to(server: Client) -> Remote {
    let config = StreamableHttpClientTransportConfig::with_uri(server.base.as_str());
    WorkerTransport::spawn(StreamableHttpClientWorker::new(Wire(server), config))
}

async fn at(end: Option<Instant>) {
    match end {
        Some(end) => sleep_until(end).await,
        None => std::future::pending().await,
    }
}

fn failed(error: StreamableHttpError<Refusal>) -> RemoteError {
    match error {
        StreamableHttpError::Client(refusal) => RemoteError::Refused(refusal),
        other => RemoteError::Other(other.into()),
    }
}

fn lost() -> RemoteError {
    RemoteError::Other(anyhow!("the connection to the server ended"))
}

/// The requests of the client that are not answered yet.
#[derive(Default)]
struct Waiting(HashSet<RequestId>);

impl Waiting {
    /// Notes a request, and gives its id. One that is called off waits no longer.
    fn asked(&mut self, message: &ClientJsonRpcMessage) -> Option<RequestId> {
        match message {
            ClientJsonRpcMessage::Request(request) => {
                self.0.insert(request.id.clone());
                Some(request.id.clone())
            }
            ClientJsonRpcMessage::Notification(told) => {
                if let ClientNotification::CancelledNotification(told) = &told.notification
                    && let Some(id) = &told.params.request_id
                {
                    self.0.remove(id);
                }
                None
            }
            _ => None,
        }
    }

    fn answered(&mut self, message: &ServerJsonRpcMessage) {
        let id = match message {
            ServerJsonRpcMessage::Response(response) => Some(&response.id),
            ServerJsonRpcMessage::Error(error) => error.id.as_ref(),
            _ => None,
        };
        id.map(|id| self.0.remove(id));
    }

    /// The reply to a request that could not be sent, if it still wants one.
    fn give_up(
        &mut self,
        id: Option<RequestId>,
        error: &RemoteError,
    ) -> Option<ServerJsonRpcMessage> {
        let id = id.filter(|id| self.0.remove(id))?;
        let why = match error {
            RemoteError::Refused(refusal) => refusal.to_string(),
            RemoteError::Other(error) => format!("{error:#}"),
        };
        Some(ServerJsonRpcMessage::error(ErrorData::internal_error(why, None), Some(id)))
    }
}
