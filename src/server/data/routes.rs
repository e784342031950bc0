//! The routes of the data plane: who may, and the streams both ways.

use std::io::Read;
use std::sync::Arc;

use adjutant_actors::errors::EngineError;
use adjutant_actors::model::ids::{RunId, TaskId};
use adjutant_actors::model::measure::check_name;
use adjutant_actors::model::role::Verb;
use adjutant_actors::model::token::parse_handle;
use adjutant_actors::state::EngineState;
use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{FromRequestParts, Path, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderMap, HeaderName,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use utoipa::{IntoParams, ToSchema};

use crate::server::caller::{Authority, Bearer, Params};
use crate::server::data::{Arrived, Data, failed, file, id_of};
use crate::server::problem::Problem;
use crate::server::worker::Worker;
use crate::server::{App, Shared};

/// Bytes that are read of a file at once.
const CHUNK: usize = 64 << 10;

/// Media types that are told as they came. Anything else is octets, so that nothing that an agent
/// sent is ever a page of this server.
const MEDIA: [&str; 3] = ["application/json", "text/plain", "application/octet-stream"];

/// Who sends or reads a body: a worker, within its run, or an operator or the admin.
pub(crate) enum Holder {
    Worker(Worker),
    Other(Authority),
}

/// Looked up before the body is read: who is nobody sends none.
impl FromRequestParts<Shared> for Holder {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Shared) -> Result<Self, Problem> {
        let Bearer(bearer) = Bearer::from_request_parts(parts, app).await?;
        if parse_handle(&bearer).is_ok() {
            return Worker::from_request_parts(parts, app).await.map(Self::Worker);
        }
        let authority = Authority::from_request_parts(parts, app).await?;
        if authority.caller().is_worker() {
            return Worker::from_request_parts(parts, app).await.map(Self::Worker);
        }
        Ok(Self::Other(authority))
    }
}

impl Holder {
    /// Lets through who may, and gives the scope of a worker: its run, or its tree of tasks.
    async fn enter(&self, app: &App, worker: Verb, other: Verb) -> Result<Option<String>, Problem> {
        match self {
            Self::Other(authority) => {
                authority.may(app, other).await?;
                Ok(None)
            }
            Self::Worker(own) => {
                own.may(app, worker).await?;
                Ok(Some(tree(app, own.task()).await?))
            }
        }
    }

    /// Refuses who was let in and may no more.
    async fn still_may(&self, app: &App, worker: Verb, other: Verb) -> Result<(), Problem> {
        match self {
            Self::Other(authority) => authority.still_may(app, other).await,
            Self::Worker(own) => own.still_may(app, worker).await,
        }
    }
}

/// What the data of a task belongs to.
async fn tree(app: &App, task: TaskId) -> Result<String, Problem> {
    let look = move |state: &mut EngineState| state.tree_of(&task);
    let found = app.engine.with_state("tree_of", look).await?;
    let (root, run) = found.ok_or_else(|| EngineError::TaskNotFound(task.to_string()))?;
    Ok(run.map_or_else(|| root.to_string(), |run| run.to_string()))
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Of {
    /// The run that an operator's body is for; otherwise it is for everybody.
    #[param(value_type = Option<String>)]
    run: Option<RunId>,
    /// The task that it is for, with its run or tree.
    #[param(value_type = Option<String>)]
    task: Option<TaskId>,
}

/// A body that was taken.
#[derive(ToSchema)]
#[expect(dead_code, reason = "a shape for the document")]
struct Taken {
    /// Follows from the content; fit for the input layer.
    data_id: String,
    /// BLAKE3 of the body.
    hash: String,
    name: String,
    bytes: u64,
}

/// Takes a body under a name, and answers with its id, which follows from its content.
#[utoipa::path(post, path = "/v1/data/{key}", tag = "data",
    params(("key" = String, Path, description = "The name."), Of),
    request_body(content = String, content_type = "application/octet-stream"),
    responses((status = 201, body = Taken)))]
pub(crate) async fn emit(
    State(app): State<Shared>,
    holder: Holder,
    Path(name): Path<String>,
    Params(of): Params<Of>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<Value>), Problem> {
    check_name("name", &name)?;
    let mut scope = holder.enter(&app, Verb::EmitOutput, Verb::StartTask).await?;
    if scope.is_none() {
        scope = match (of.run, of.task) {
            (Some(run), _) => Some(run.to_string()),
            (None, Some(task)) => Some(tree(&app, task).await?),
            (None, None) => None,
        };
    }
    let _place = app.data.place()?;
    let max = app.cfg.data.body_bytes;
    let told = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if told.is_some_and(|length: u64| length > max) {
        return Err(too_large(max));
    }
    let file = receive(&app, body, max).await?;
    // The rights may have ended while the body came.
    holder.still_may(&app, Verb::EmitOutput, Verb::StartTask).await?;
    let arrived = Arrived { name, media: media(&headers), scope, file };
    // In a task of its own: a caller that goes away must not leave a body that is in no book.
    let own = app.clone();
    let kept = tokio::spawn(async move { own.data.keep(arrived).await }).await;
    let record = kept.map_err(|error| EngineError::Internal(error.to_string()))??;
    let shown = json!({
        "data_id": id_of(&record.hash),
        "hash": record.hash,
        "name": record.name,
        "bytes": record.bytes,
    });
    Ok((StatusCode::CREATED, Json(shown)))
}

fn too_large(max: u64) -> Problem {
    let detail = format!("the body is longer than {max} bytes");
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", detail)
}

fn media(headers: &HeaderMap) -> String {
    let told = headers.get(CONTENT_TYPE).and_then(|media| media.to_str().ok()).unwrap_or_default();
    let told = told.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let known = MEDIA.iter().find(|media| **media == told).unwrap_or(&MEDIA[2]);
    (*known).to_owned()
}

/// Writes a body into a part, chunk by chunk: nothing holds the whole of it.
async fn receive(app: &App, body: Body, max: u64) -> Result<file::Part, Problem> {
    let end = Instant::now() + app.cfg.data.time;
    let folder = app.data.folder.clone();
    let mut part = blocking(move || folder.part()).await?;
    let mut chunks = body.into_data_stream();
    loop {
        let idle = Instant::now() + app.cfg.request_time;
        let chunk = tokio::time::timeout_at(end.min(idle), chunks.next()).await.map_err(|_| {
            Problem::of_status(StatusCode::REQUEST_TIMEOUT, "the body did not come in time")
        })?;
        let Some(chunk) = chunk else { return Ok(part) };
        let chunk = chunk.map_err(|_| {
            Problem::of_status(StatusCode::BAD_REQUEST, "the body ended before its end")
        })?;
        if part.bytes().saturating_add(chunk.len() as u64) > max {
            return Err(too_large(max));
        }
        part = blocking(move || part.write(&chunk).map(|()| part)).await?;
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, Problem> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(std::io::Error::other).flatten().map_err(failed)
}

/// Streams a body, by its id, its hash, or the newest of its name.
#[utoipa::path(get, path = "/v1/data/{key}", tag = "data",
    params(("key" = String, Path, description = "An id, a hash, or a name.")),
    responses((status = 200, body = String, content_type = "application/octet-stream")))]
pub(crate) async fn read(
    State(app): State<Shared>,
    holder: Holder,
    Path(key): Path<String>,
) -> Result<Response, Problem> {
    let scope = holder.enter(&app, Verb::FetchData, Verb::ReadTaskState).await?;
    let place = app.data.place()?;
    let record = app.data.find(&key, scope).await?;
    let (folder, hash) = (app.data.folder.clone(), record.hash.clone());
    let file = blocking(move || folder.body(&hash)).await?;
    let plain = |text: &str| HeaderValue::from_str(text).ok();
    let headers: [(HeaderName, Option<HeaderValue>); 6] = [
        (CONTENT_TYPE, plain(&record.media)),
        (CONTENT_LENGTH, Some(record.bytes.into())),
        (ETAG, plain(&format!("\"{}\"", record.hash))),
        (X_CONTENT_TYPE_OPTIONS, plain("nosniff")),
        (CONTENT_DISPOSITION, plain("attachment")),
        (CACHE_CONTROL, plain("private, no-store")),
    ];
    let mut response = Body::from_stream(send(&app.data, file, place)).into_response();
    for (name, value) in headers {
        if let Some(value) = value {
            response.headers_mut().insert(name, value);
        }
    }
    Ok(response)
}

/// A file that is being sent, and its place among the transfers.
struct Sending {
    file: Arc<std::fs::File>,
    end: Instant,
    _place: OwnedSemaphorePermit,
}

/// A file as a stream of chunks. One that takes too long is cut, which the client sees by its length.
fn send(
    data: &Data,
    file: std::fs::File,
    place: OwnedSemaphorePermit,
) -> impl futures::Stream<Item = std::io::Result<Bytes>> + use<> {
    let end = Instant::now() + data.cfg.data.time;
    let sending = Sending { file: Arc::new(file), end, _place: place };
    futures::stream::try_unfold(sending, async |sending| {
        if Instant::now() > sending.end {
            return Err(std::io::ErrorKind::TimedOut.into());
        }
        let file = sending.file.clone();
        let read = tokio::task::spawn_blocking(move || {
            let mut chunk = vec![0; CHUNK];
            let count = (&*file).read(&mut chunk)?;
            chunk.truncate(count);
            Ok::<_, std::io::Error>(chunk)
        });
        let chunk = read.await.map_err(std::io::Error::other)??;
        Ok((!chunk.is_empty()).then(|| (Bytes::from(chunk), sending)))
    })
}
