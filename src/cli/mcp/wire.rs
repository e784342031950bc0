//! The protocol's HTTP, as the library that speaks it wants it, over the client that all verbs use:
//! no second library of connections, and the bearer goes nowhere but to the server.

use std::collections::HashMap;
use std::sync::Arc;

use futures::StreamExt;
use futures::stream::BoxStream;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::http::request;
use hyper::{Method, Request, Response, StatusCode};
use rmcp::model::{ClientJsonRpcMessage, ServerJsonRpcMessage};
use rmcp::transport::streamable_http_client::{
    SseError, StreamableHttpClient, StreamableHttpError, StreamableHttpPostResponse,
};
use sse_stream::{Sse, SseStream};

use crate::cli::client::{Client, Refusal, refusal, whole};

/// Where a server has the protocol.
const PATH: &str = "/mcp";
const SESSION: &str = "mcp-session-id";
const LAST_EVENT: &str = "last-event-id";
const STREAM: &str = "text/event-stream";

type Headers = HashMap<HeaderName, HeaderValue>;
type Failure = StreamableHttpError<Refusal>;

/// The way to one server.
#[derive(Clone)]
pub(super) struct Wire(pub(super) Client);

impl Wire {
    async fn send(
        &self,
        method: Method,
        body: Bytes,
        session: Option<&str>,
        headers: Headers,
        more: impl FnOnce(request::Builder) -> request::Builder,
    ) -> Result<Response<Incoming>, Failure> {
        let mut request = Request::builder().method(method).uri(PATH);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        if let Some(session) = session {
            request = request.header(SESSION, session);
        }
        self.0.send(more(request), body).await.map_err(StreamableHttpError::Client)
    }
}

/// What is known of a session of the protocol that the server does not know.
fn is_expired(answer: &Response<Incoming>, session: Option<&Arc<str>>) -> bool {
    answer.status() == StatusCode::NOT_FOUND && session.is_some()
}

fn events(answer: Response<Incoming>) -> BoxStream<'static, Result<Sse, SseError>> {
    SseStream::new(answer.into_body()).boxed()
}

/// A refusal: the protocol's own where it is one, under the id of what was asked; else the server's.
async fn refused(
    answer: Response<Incoming>,
    message: &ClientJsonRpcMessage,
) -> Result<StreamableHttpPostResponse, Failure> {
    let refusal = refusal(answer).await;
    if let (ClientJsonRpcMessage::Request(request), Refusal::Problem(_, body)) = (message, &refusal)
        && let Ok(ServerJsonRpcMessage::Error(told)) = serde_json::from_value(body.clone())
    {
        let told = ServerJsonRpcMessage::error(told.error, Some(request.id.clone()));
        return Ok(StreamableHttpPostResponse::Json(told, None));
    }
    Err(StreamableHttpError::Client(refusal))
}

impl StreamableHttpClient for Wire {
    type Error = Refusal;

    async fn post_message(
        &self,
        _uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session: Option<Arc<str>>,
        _auth: Option<String>,
        headers: Headers,
    ) -> Result<StreamableHttpPostResponse, Failure> {
        let body = Bytes::from(serde_json::to_vec(&message)?);
        let both = |request: request::Builder| {
            let accept = format!("application/json, {STREAM}");
            request.header(ACCEPT, accept).header(CONTENT_TYPE, "application/json")
        };
        let answer = self.send(Method::POST, body, session.as_deref(), headers, both).await?;
        if is_expired(&answer, session.as_ref()) {
            return Err(StreamableHttpError::SessionExpired);
        }
        if !answer.status().is_success() {
            return refused(answer, &message).await;
        }
        let header = |name: &str| answer.headers().get(name)?.to_str().ok().map(str::to_owned);
        let (opened, kind) = (header(SESSION), header(CONTENT_TYPE.as_str()).unwrap_or_default());
        if kind.starts_with(STREAM) {
            return Ok(StreamableHttpPostResponse::Sse(events(answer), opened));
        }
        let body = whole(answer).await.map_err(StreamableHttpError::Client)?;
        if body.is_empty() {
            return Ok(StreamableHttpPostResponse::Accepted);
        }
        Ok(StreamableHttpPostResponse::Json(serde_json::from_slice(&body)?, opened))
    }

    async fn delete_session(
        &self,
        _uri: Arc<str>,
        session: Arc<str>,
        _auth: Option<String>,
        headers: Headers,
    ) -> Result<(), Failure> {
        let nothing = Bytes::new();
        let answer = self.send(Method::DELETE, nothing, Some(&session), headers, |r| r).await?;
        if answer.status().is_success() || is_expired(&answer, Some(&session)) {
            return Ok(());
        }
        Err(StreamableHttpError::Client(refusal(answer).await))
    }

    async fn get_stream(
        &self,
        _uri: Arc<str>,
        session: Option<Arc<str>>,
        last_event: Option<String>,
        _auth: Option<String>,
        headers: Headers,
    ) -> Result<BoxStream<'static, Result<Sse, SseError>>, Failure> {
        let stream = |mut request: request::Builder| {
            if let Some(last) = last_event {
                request = request.header(LAST_EVENT, last);
            }
            request.header(ACCEPT, STREAM)
        };
        let session = session.as_deref();
        let answer = self.send(Method::GET, Bytes::new(), session, headers, stream).await?;
        match answer.status() {
            status if status.is_success() => Ok(events(answer)),
            StatusCode::METHOD_NOT_ALLOWED => Err(StreamableHttpError::ServerDoesNotSupportSse),
            _ => Err(StreamableHttpError::Client(refusal(answer).await)),
        }
    }
}
