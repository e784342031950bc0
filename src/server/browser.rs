//! The browser's way in: links that work once, and the cookie that such a link gives.
//!
//! The cookie stands for the admin, so it is believed only from the server's own page: a request
//! that another page caused is refused here, whatever cookie the browser sent with it. Of links and
//! cookies the server keeps hashes alone; neither outlives it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::header::{
    CACHE_CONTROL, COOKIE, HOST, HeaderMap, HeaderName, LOCATION, ORIGIN, REFERRER_POLICY,
    SET_COOKIE,
};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use utoipa::ToSchema;

use crate::server::caller::{Admin, Params};
use crate::server::guard::is_loopback;
use crate::server::problem::Problem;
use crate::server::{App, Shared, page};

/// Life of a link.
const LINK_LIFE: Duration = Duration::from_secs(600);

/// Life of a cookie, however much it is used.
const COOKIE_LIFE: Duration = Duration::from_secs(12 * 3600);

/// Links and cookies that are known at a time, at most; the oldest goes first.
const KNOWN_MAX: usize = 64;

/// Random bytes in a link or a cookie.
const RANDOM: usize = 32;

/// Name of the cookie.
const NAME: &str = "adjutant";

/// What the page sends with every change: a header that no form and no link can send.
const PAGE: HeaderName = HeaderName::from_static("x-adjutant");

/// How the browser says which page caused a request.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// How the browser says that nobody asked for this yet.
const PURPOSE: HeaderName = HeaderName::from_static("sec-purpose");

/// Secrets by their hashes, each until its time.
#[derive(Default)]
struct Book(Mutex<Vec<(blake3::Hash, Instant)>>);

impl Book {
    /// A list is whole between any two of its changes, so a holder's panic leaves it usable.
    fn known(&self) -> MutexGuard<'_, Vec<(blake3::Hash, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a secret.
    fn add(&self, life: Duration) -> Result<String, getrandom::Error> {
        let mut random = [0; RANDOM];
        getrandom::fill(&mut random)?;
        let secret = blake3::Hash::from_bytes(random).to_hex().to_string();
        let (now, mut known) = (Instant::now(), self.known());
        known.retain(|(_, until)| *until > now);
        if known.len() >= KNOWN_MAX {
            known.remove(0);
        }
        known.push((blake3::hash(secret.as_bytes()), now + life));
        Ok(secret)
    }

    /// Whether a secret is known. Hashes compare in constant time.
    fn knows(&self, secret: &str) -> bool {
        let (now, hash) = (Instant::now(), blake3::hash(secret.as_bytes()));
        self.known().iter().any(|(known, until)| *known == hash && *until > now)
    }

    /// Takes a secret out, and says whether it was known.
    fn take(&self, secret: &str) -> bool {
        let (now, hash) = (Instant::now(), blake3::hash(secret.as_bytes()));
        let mut known = self.known();
        let at = known.iter().position(|(known, until)| *known == hash && *until > now);
        at.is_some_and(|at| {
            known.remove(at);
            true
        })
    }
}

/// The links that are not used yet, and the browsers that came by one.
#[derive(Default)]
pub(crate) struct Browsers {
    links: Book,
    cookies: Book,
}

impl Browsers {
    /// The path of a fresh link.
    pub(crate) fn link(&self) -> std::io::Result<String> {
        let key = self.links.add(LINK_LIFE).map_err(std::io::Error::other)?;
        Ok(format!("/enter?key={key}"))
    }

    /// Whether a request has a cookie that is known.
    pub(crate) fn know(&self, headers: &HeaderMap) -> bool {
        cookies(headers).any(|cookie| self.cookies.knows(cookie))
    }
}

/// The values of the cookie that a request brings.
fn cookies(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
    let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.split_once('='));
    pairs.filter(|(name, _)| name.trim() == NAME).map(|(_, value)| value.trim())
}

/// Whether a request without a bearer is the admin's by its cookie.
///
/// # Errors
/// Where the cookie is known and the request is not from the server's own page.
pub(crate) fn is_admin(app: &App, method: &Method, headers: &HeaderMap) -> Result<bool, Problem> {
    if !app.browsers.know(headers) {
        return Ok(false);
    }
    // A neighbor on another port of this machine is the same site, and gets the cookie sent.
    let site = headers.get(FETCH_SITE).map(|site| site.as_bytes());
    let own = site.is_none_or(|site| matches!(site, b"same-origin" | b"none"));
    let reads = matches!(*method, Method::GET | Method::HEAD);
    // The origin, where it is told, was compared with the list at the door.
    let meant = headers.get(PAGE).is_some_and(|word| word == "1") && headers.contains_key(ORIGIN);
    if own && (reads || meant) {
        return Ok(true);
    }
    let detail = "the cookie is good for requests of the server's own page only";
    Err(Problem::new(StatusCode::FORBIDDEN, "not_from_page", detail))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Key {
    key: String,
}

/// Spends a link: gives the browser its cookie and sends it to the page.
pub(crate) async fn enter(
    State(app): State<Shared>,
    method: Method,
    headers: HeaderMap,
    Params(Key { key }): Params<Key>,
) -> Result<Response, Problem> {
    let ahead = headers.get(PURPOSE).is_some_and(|purpose| purpose.as_bytes().starts_with(b"pre"));
    if ahead || method != Method::GET {
        let detail = "the link is kept for the one who opens it";
        return Err(Problem::of_status(StatusCode::SERVICE_UNAVAILABLE, detail));
    }
    if !app.browsers.links.take(&key) {
        return Ok(page::door());
    }
    let cookie = app.browsers.cookies.add(COOKIE_LIFE).map_err(|error| {
        Problem::of_status(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
    })?;
    let set = cookie_line(&headers, &cookie, COOKIE_LIFE);
    let also = [
        (SET_COOKIE, set.as_str()),
        (LOCATION, "/"),
        (CACHE_CONTROL, "no-store"),
        (REFERRER_POLICY, "no-referrer"),
    ];
    Ok((StatusCode::SEE_OTHER, also).into_response())
}

/// The header that sets the cookie. TLS ends at a proxy, which a name beyond loopback stands for.
fn cookie_line(headers: &HeaderMap, value: &str, life: Duration) -> String {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let secure = if is_loopback(host) { "" } else { "; Secure" };
    let life = life.as_secs();
    format!("{NAME}={value}; Path=/; Max-Age={life}; HttpOnly; SameSite=Strict{secure}")
}

/// Ends the browser's cookie.
pub(crate) async fn leave(
    State(app): State<Shared>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    if !is_admin(&app, &method, &headers)? {
        return Err(Problem::unauthenticated("the request has no cookie that is known"));
    }
    for cookie in cookies(&headers) {
        app.browsers.cookies.take(cookie);
    }
    let gone = cookie_line(&headers, "", Duration::ZERO);
    Ok((StatusCode::NO_CONTENT, [(SET_COOKIE, gone)]).into_response())
}

/// A link to the page.
#[derive(Serialize, ToSchema)]
pub(crate) struct Link {
    /// The whole link, for the host that the request named.
    url: String,
    /// The link without that host.
    path: String,
    /// How long it works.
    expires_in_secs: u64,
}

/// Makes a link to the live page. It works once, and whoever opens it has the admin's rights there;
/// takes the admin's bearer only.
#[utoipa::path(post, path = "/v1/links", tag = "page", responses((status = 201, body = Link)))]
pub(crate) async fn link(
    State(app): State<Shared>,
    _: Admin,
    headers: HeaderMap,
) -> Result<(StatusCode, Json<Link>), Problem> {
    let path = app.browsers.link().map_err(|error| {
        Problem::of_status(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
    })?;
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let scheme = if is_loopback(host) { "http" } else { "https" };
    let url = format!("{scheme}://{host}{path}");
    let expires_in_secs = LINK_LIFE.as_secs();
    Ok((StatusCode::CREATED, Json(Link { url, path, expires_in_secs })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_link_works_once_and_not_after_its_time() {
        let book = Book::default();
        let (first, second) = (book.add(LINK_LIFE).unwrap(), book.add(LINK_LIFE).unwrap());
        assert!(first.len() == 2 * RANDOM && first != second);
        assert!(book.take(&first));
        assert!(!book.take(&first));
        tokio::time::advance(LINK_LIFE).await;
        assert!(!book.knows(&second) && !book.take(&second));
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_makes_room() {
        let book = Book::default();
        let first = book.add(LINK_LIFE).unwrap();
        let second = book.add(LINK_LIFE).unwrap();
        for _ in 0..KNOWN_MAX - 1 {
            book.add(LINK_LIFE).unwrap();
        }
        assert!(!book.knows(&first) && book.knows(&second));
    }

    #[test]
    fn the_cookie_is_found_by_its_whole_name() {
        let mut headers = HeaderMap::new();
        headers.append(COOKIE, "a=1; adjutant=x;my-adjutant=y".parse().unwrap());
        headers.append(COOKIE, "adjutant=z".parse().unwrap());
        assert_eq!(cookies(&headers).collect::<Vec<_>>(), ["x", "z"]);
    }

    #[test]
    fn only_loopback_does_without_tls() {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, "localhost:7777".parse().unwrap());
        let line = cookie_line(&headers, "v", Duration::from_secs(9));
        assert_eq!(line, "adjutant=v; Path=/; Max-Age=9; HttpOnly; SameSite=Strict");
        headers.insert(HOST, "desk.example".parse().unwrap());
        assert!(cookie_line(&headers, "v", Duration::ZERO).ends_with("; Secure"));
    }
}
