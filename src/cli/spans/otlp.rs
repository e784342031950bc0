//! The exporter: batches of spans as protobuf over HTTP.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::handshake;
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use opentelemetry::trace::TracerProvider;
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tracing_subscriber::Layer;

use super::{Boxed, Config};

/// Longest that one batch may take.
const SEND: Duration = Duration::from_secs(5);
/// Bytes of an answer that is read, at most.
const ANSWER_MAX: usize = 64 << 10;

/// Sends until it is ended.
pub(crate) struct Sending(Option<SdkTracerProvider>);

impl Sending {
    /// Sends what is left.
    pub(crate) async fn end(self) {
        let Some(provider) = self.0 else { return };
        // It waits for its own thread.
        let ended = tokio::task::spawn_blocking(move || provider.shutdown()).await;
        if let Ok(Err(error)) = ended {
            tracing::warn!(error = error.to_string(), "the last spans were not sent");
        }
    }
}

/// Begins to send, where a collector is named. Needs the runtime, which carries the requests.
pub(crate) fn begin(config: &Config) -> anyhow::Result<(Option<Boxed>, Sending)> {
    let Some(endpoint) = &config.otlp_endpoint else { return Ok((None, Sending(None))) };
    let headers = config.otlp_headers.iter().flat_map(|headers| headers.split(','));
    let headers: HashMap<_, _> = headers
        .filter_map(|header| header.split_once('='))
        .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
        .collect();
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(Plain(Handle::current()))
        .with_endpoint(endpoint)
        .with_headers(headers)
        .with_timeout(SEND)
        .build()?;
    let provider = SdkTracerProvider::builder()
        .with_resource(Resource::builder().with_service_name("adjutant").build())
        .with_batch_exporter(exporter)
        .build();
    let filter = crate::cli::log::filter(&config.otlp_level)?;
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("adjutant"));
    Ok((Some(layer.with_filter(filter).boxed()), Sending(Some(provider))))
}

/// HTTP without TLS, on the runtime of the program: the exporter waits on a thread of its own.
#[derive(Debug)]
struct Plain(Handle);

#[async_trait]
impl HttpClient for Plain {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let sent = self.0.spawn(async move { tokio::time::timeout(SEND, send(request)).await });
        sent.await??
    }
}

async fn send(mut request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
    let authority = request.uri().authority().ok_or("the collector has no host")?.clone();
    if request.uri().scheme_str() != Some("http") {
        return Err("the collector's address does not begin with http://".into());
    }
    let port = authority.port_u16().unwrap_or(80);
    let socket = TcpStream::connect(format!("{}:{port}", authority.host())).await?;
    let (mut sender, connection) = handshake(TokioIo::new(socket)).await?;
    tokio::spawn(connection);
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    *request.uri_mut() = path.parse::<Uri>()?;
    request.headers_mut().insert("host", authority.as_str().parse()?);
    let (head, body) = sender.send_request(request.map(Full::new)).await?.into_parts();
    let body = Limited::new(body, ANSWER_MAX).collect().await?.to_bytes();
    Ok(Response::from_parts(head, body))
}
