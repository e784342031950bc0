//! The program as a client of a running server: finds it, finds the token, asks.
//!
//! HTTP without TLS on the connection library that the server has anyway. The token comes from a
//! file that nobody else may read, and goes nowhere but into the header.

use std::fmt::Display;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::handshake;
use hyper::http::request;
use hyper::http::uri::Authority;
use hyper::{Method, Request, Response, Uri};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::cli::args::RemoteArgs;
use crate::cli::code;
use crate::cli::place::{Place, holder};

/// Where a server of a store says how it is reached, within the store.
const CARD: &str = "server.json";
/// Longest time until a connection stands.
const CONNECT: Duration = Duration::from_secs(5);
/// Longest time until an answer is there.
const ANSWER: Duration = Duration::from_secs(60);
/// Bytes of an answer that is read whole, at most.
const BODY_MAX: usize = 64 << 20;

/// What a server says of itself in its store.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Card {
    pub(crate) url: String,
    pub(crate) pid: u32,
    pub(crate) token_file: PathBuf,
}

impl Card {
    /// Leaves the card in a store. It goes when the guard does.
    pub(crate) fn leave(&self, store: &Path) -> anyhow::Result<CardGuard> {
        let path = store.join(CARD);
        std::fs::write(&path, serde_json::to_vec(self)?)?;
        Ok(CardGuard(path))
    }

    /// The card of the server that holds a store. One that a killed server left behind is none:
    /// its address may be somebody else's, who must not be shown the token.
    pub(crate) fn of(store: &Path) -> Option<Self> {
        let card: Self = serde_json::from_slice(&std::fs::read(store.join(CARD)).ok()?).ok()?;
        (holder(store) == Some(card.pid)).then_some(card)
    }
}

/// Takes the card away.
pub(crate) struct CardGuard(PathBuf);

impl Drop for CardGuard {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// Nobody answers there.
    Unreachable(String),
    /// The server refused, and says why.
    Problem(u16, Value),
}

impl Refusal {
    pub(crate) fn code(&self) -> i32 {
        match self {
            Self::Unreachable(_) => code::UNREACHABLE,
            Self::Problem(404, _) => code::NOT_FOUND,
            Self::Problem(409, _) => code::CONFLICT,
            Self::Problem(400 | 422, _) => code::USAGE,
            Self::Problem(..) => code::FAILED,
        }
    }
}

impl Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unreachable(why) => f.write_str(why),
            Self::Problem(status, problem) => {
                let text = |name: &str| problem.get(name).and_then(Value::as_str);
                match text("detail") {
                    Some(detail) => f.write_str(detail)?,
                    None => write!(f, "the server answered {status}")?,
                }
                text("hint").map_or(Ok(()), |hint| write!(f, " ({hint})"))
            }
        }
    }
}

impl std::error::Error for Refusal {}

/// A server, and who asks it.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) base: String,
    authority: Authority,
    token: String,
}

impl Client {
    /// The server that the arguments mean, else the one that serves the user's own store.
    pub(crate) fn of(args: &RemoteArgs) -> anyhow::Result<Self> {
        let stores = Place::of(&args.store)?.stores().unwrap_or_default();
        let cards: Vec<_> = stores.iter().filter_map(|store| Card::of(store)).collect();
        let (base, beside) = match (&args.server, cards.as_slice()) {
            (Some(url), cards) => {
                let same = cards.iter().find(|card| same_url(&card.url, url));
                (url.clone(), same.map(|card| card.token_file.clone()))
            }
            (None, [card]) => (card.url.clone(), Some(card.token_file.clone())),
            (None, []) => {
                let why = "no server of yours is running; name one with --server URL";
                return Err(Refusal::Unreachable(why.to_owned()).into());
            }
            (None, cards) => {
                let urls: Vec<_> = cards.iter().map(|card| card.url.as_str()).collect();
                bail!("several servers are running; name one with --server: {}", urls.join(", "))
            }
        };
        let Some(file) = args.token_file.clone().or(beside) else {
            bail!("name the file of the token for {base} with --token-file");
        };
        let token = token_in(&file).with_context(|| format!("{}", file.display()))?;
        let uri: Uri = base.parse().with_context(|| format!("{base} is no address"))?;
        let authority = uri.authority().filter(|_| uri.scheme_str() == Some("http")).cloned();
        let authority = authority.with_context(|| format!("{base} does not begin with http://"))?;
        Ok(Self { base: base.trim_end_matches('/').to_owned(), authority, token })
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Value, Refusal> {
        json(self.ask(Method::GET, path, None, &[]).await?).await
    }

    pub(crate) async fn text(&self, path: &str) -> Result<String, Refusal> {
        let body = whole(self.ask(Method::GET, path, None, &[]).await?).await?;
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<Value, Refusal> {
        json(self.ask(Method::POST, path, Some(body), &[]).await?).await
    }

    /// Asks, and gives an answer that is no refusal, with its body unread.
    pub(crate) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        headers: &[(&str, &str)],
    ) -> Result<Response<Incoming>, Refusal> {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let bytes = match body {
            Some(body) => {
                request = request.header("content-type", "application/json");
                Bytes::from(body.to_string())
            }
            None => Bytes::new(),
        };
        let answer = timeout(ANSWER, self.send(request, bytes)).await;
        let answer = answer.map_err(|error| self.lost(&error))??;
        if answer.status().is_success() { Ok(answer) } else { Err(refusal(answer).await) }
    }

    fn lost(&self, error: &dyn Display) -> Refusal {
        Refusal::Unreachable(format!("{} does not answer: {error}", self.base))
    }

    /// Sends a request with the bearer, and gives whatever is answered, with its body unread. It
    /// waits as long as the server takes. Dropping the future or the body ends the connection.
    pub(crate) async fn send(
        &self,
        request: request::Builder,
        body: Bytes,
    ) -> Result<Response<Incoming>, Refusal> {
        let lost = |error: &dyn Display| self.lost(error);
        let port = self.authority.port_u16().unwrap_or(80);
        let address = format!("{}:{port}", self.authority.host());
        let socket = timeout(CONNECT, TcpStream::connect(address)).await;
        let socket = socket.map_err(|e| lost(&e))?.map_err(|e| lost(&e))?;
        let (mut sender, connection) =
            handshake(TokioIo::new(socket)).await.map_err(|e| lost(&e))?;
        // Ends with the sender and the body.
        tokio::spawn(connection);
        let request = request
            .header("host", self.authority.as_str())
            .header("authorization", format!("Bearer {}", self.token));
        let request = request.body(Full::new(body)).map_err(|e| lost(&e))?;
        sender.send_request(request).await.map_err(|e| lost(&e))
    }
}

/// Why an answer is none.
pub(crate) async fn refusal(answer: Response<Incoming>) -> Refusal {
    let status = answer.status().as_u16();
    match whole(answer).await {
        Ok(body) => Refusal::Problem(status, serde_json::from_slice(&body).unwrap_or_default()),
        Err(refusal) => refusal,
    }
}

/// The body of an answer.
pub(crate) async fn whole(answer: Response<Incoming>) -> Result<Bytes, Refusal> {
    let lost = |error: &dyn Display| Refusal::Unreachable(format!("the answer broke off: {error}"));
    let body = timeout(ANSWER, Limited::new(answer.into_body(), BODY_MAX).collect()).await;
    Ok(body.map_err(|e| lost(&e))?.map_err(|e| lost(&e))?.to_bytes())
}

async fn json(answer: Response<Incoming>) -> Result<Value, Refusal> {
    let body = whole(answer).await?;
    if body.is_empty() {
        return Ok(Value::Null);
    }
    let odd = |error| Refusal::Unreachable(format!("the answer is no JSON: {error}"));
    serde_json::from_slice(&body).map_err(odd)
}

fn same_url(a: &str, b: &str) -> bool {
    a.trim_end_matches('/') == b.trim_end_matches('/')
}

/// The bearer in a file that its owner alone may read.
fn token_in(path: &Path) -> anyhow::Result<String> {
    let file = File::open(path)?;
    if file.metadata()?.mode() & 0o077 != 0 {
        bail!("others may read the token; its mode must be 0600");
    }
    let mut text = String::new();
    file.take(64 << 10).read_to_string(&mut text)?;
    let token = text.trim();
    if token.is_empty() || token.contains(|c: char| c.is_whitespace() || c.is_control()) {
        bail!("the file holds no token");
    }
    Ok(token.to_owned())
}
