//! The browser's way in: links that work once, and the cookie and the page's key that such a link
//! gives.
//!
//! The two together stand for the admin. A browser sends the cookie to every port of the host, so a
//! neighbor of the server may have it; the key is in the storage of the page's origin, which has one
//! port, and comes in a header that the page's script sets. Of links, cookies and keys the server
//! keeps hashes alone; none outlives it.

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

/// Links and browsers that are known at a time, at most; the oldest goes first.
const KNOWN_MAX: usize = 64;

/// Random bytes in a secret.
const RANDOM: usize = 32;

/// Name of the cookie, before the port: servers of one host would take each other's otherwise.
const NAME: &str = "adjutant";

/// What the page sends with every request: its key, in a header that no form and no link can send.
const PAGE: HeaderName = HeaderName::from_static("x-adjutant");

/// How the browser says which page caused a request.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// How the browser says that nobody asked for this yet.
const PURPOSE: HeaderName = HeaderName::from_static("sec-purpose");

/// Secrets by their hashes, each with what goes along with it, until its time.
struct Book<T>(Mutex<Vec<(blake3::Hash, T, Instant)>>);

impl<T> Default for Book<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Copy> Book<T> {
    /// A list is whole between any two of its changes, so a holder's panic leaves it usable.
    fn known(&self) -> MutexGuard<'_, Vec<(blake3::Hash, T, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a secret.
    fn add(&self, with: T, life: Duration) -> Result<String, getrandom::Error> {
        let secret = secret()?;
        let (now, mut known) = (Instant::now(), self.known());
        known.retain(|(_, _, until)| *until > now);
        if known.len() >= KNOWN_MAX {
            known.remove(0);
        }
        known.push((hash(&secret), with, now + life));
        Ok(secret)
    }

    /// What goes along with a secret that is known. Hashes compare in constant time.
    fn find(&self, secret: &str) -> Option<T> {
        let (now, hash) = (Instant::now(), hash(secret));
        let known = self.known();
        let mut known = known.iter().filter(|(_, _, until)| *until > now);
        known.find_map(|(known, with, _)| (*known == hash).then_some(*with))
    }

    /// Takes a secret out, and says whether it was known.
    fn take(&self, secret: &str) -> bool {
        let (now, hash) = (Instant::now(), hash(secret));
        let mut known = self.known();
        let at = known.iter().position(|(known, _, until)| *known == hash && *until > now);
        at.is_some_and(|at| {
            known.remove(at);
            true
        })
    }
}

fn secret() -> Result<String, getrandom::Error> {
    let mut random = [0; RANDOM];
    getrandom::fill(&mut random)?;
    Ok(blake3::Hash::from_bytes(random).to_hex().to_string())
}

fn hash(secret: &str) -> blake3::Hash {
    blake3::hash(secret.as_bytes())
}

/// The links that are not used yet, and the browsers that came by one.
#[derive(Default)]
pub(crate) struct Browsers {
    links: Book<()>,
    /// Cookies, each with the hash of its page's key.
    cookies: Book<blake3::Hash>,
}

impl Browsers {
    /// The path of a fresh link.
    pub(crate) fn link(&self) -> std::io::Result<String> {
        let key = self.links.add((), LINK_LIFE).map_err(std::io::Error::other)?;
        Ok(format!("/enter?key={key}"))
    }

    /// A cookie and a page's key for a browser.
    fn let_in(&self) -> Result<(String, String), getrandom::Error> {
        let key = secret()?;
        Ok((self.cookies.add(hash(&key), COOKIE_LIFE)?, key))
    }

    /// Whether a request has a cookie that is known. That alone lets nobody do anything.
    pub(crate) fn know(&self, headers: &HeaderMap) -> bool {
        cookies(headers).any(|cookie| self.cookies.find(cookie).is_some())
    }

    /// Whether a request has the key of the page that one of its cookies came with.
    fn is_from_page(&self, headers: &HeaderMap) -> bool {
        let Some(key) = headers.get(PAGE).and_then(|key| key.to_str().ok()) else { return false };
        let key = hash(key);
        cookies(headers).any(|cookie| self.cookies.find(cookie) == Some(key))
    }
}

/// The values of the cookie that a request brings.
fn cookies(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
    let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.split_once('='));
    let own = name(headers);
    pairs.filter(move |(name, _)| name.trim() == own).map(|(_, value)| value.trim())
}

/// What the cookie is called for the host and port that the request names.
fn name(headers: &HeaderMap) -> String {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let port = host.rsplit_once(':').map(|(_, port)| port);
    match port.filter(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit())) {
        Some(port) => format!("{NAME}-{port}"),
        None => NAME.to_owned(),
    }
}

/// Whether a request without a bearer is the admin's by its cookie and its page's key.
///
/// # Errors
/// Where the cookie is known and the request is not from the page that it was given to.
pub(crate) fn is_admin(app: &App, method: &Method, headers: &HeaderMap) -> Result<bool, Problem> {
    if !app.browsers.know(headers) {
        return Ok(false);
    }
    // A neighbor on another port of this machine is the same site, and gets the cookie sent.
    let site = headers.get(FETCH_SITE).map(|site| site.as_bytes());
    let own = site.is_none_or(|site| matches!(site, b"same-origin" | b"none"));
    let reads = matches!(*method, Method::GET | Method::HEAD);
    // The origin, where it is told, was compared with the list at the door.
    if own && (reads || headers.contains_key(ORIGIN)) && app.browsers.is_from_page(headers) {
        return Ok(true);
    }
    let detail = "the cookie is good for requests of the server's own page only, with its key";
    Err(Problem::new(StatusCode::FORBIDDEN, "not_from_page", detail))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Key {
    key: String,
}

/// Spends a link: gives the browser its cookie and sends it to the page, with the page's key in the
/// part of the address that a browser sends to nobody.
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
    let (cookie, key) = app.browsers.let_in().map_err(|error| {
        Problem::of_status(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
    })?;
    let set = cookie_line(&headers, &cookie, COOKIE_LIFE);
    let place = format!("/#key={key}");
    let also = [
        (SET_COOKIE, set.as_str()),
        (LOCATION, place.as_str()),
        (CACHE_CONTROL, "no-store"),
        (REFERRER_POLICY, "no-referrer"),
    ];
    Ok((StatusCode::SEE_OTHER, also).into_response())
}

/// The header that sets the cookie. TLS ends at a proxy, which a name beyond loopback stands for.
fn cookie_line(headers: &HeaderMap, value: &str, life: Duration) -> String {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let secure = if is_loopback(host) { "" } else { "; Secure" };
    let (name, life) = (name(headers), life.as_secs());
    format!("{name}={value}; Path=/; Max-Age={life}; HttpOnly; SameSite=Strict{secure}")
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
        let (first, second) = (book.add((), LINK_LIFE).unwrap(), book.add((), LINK_LIFE).unwrap());
        assert!(first.len() == 2 * RANDOM && first != second);
        assert!(book.take(&first));
        assert!(!book.take(&first));
        tokio::time::advance(LINK_LIFE).await;
        assert!(book.find(&second).is_none() && !book.take(&second));
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_makes_room() {
        let book = Book::default();
        let first = book.add(1, LINK_LIFE).unwrap();
        let second = book.add(2, LINK_LIFE).unwrap();
        for _ in 0..KNOWN_MAX - 1 {
            book.add(3, LINK_LIFE).unwrap();
        }
        assert_eq!((book.find(&first), book.find(&second)), (None, Some(2)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_cookie_is_good_with_the_key_that_came_with_it_alone() {
        let browsers = Browsers::default();
        let (one, other) = (browsers.let_in().unwrap(), browsers.let_in().unwrap());
        let headers = |cookie: &str, key: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(COOKIE, format!("adjutant={cookie}").parse().unwrap());
            key.map(|key| headers.insert(PAGE, key.parse().unwrap()));
            headers
        };
        for (cookie, key) in [(&one.0, &one.1), (&other.0, &other.1)] {
            assert!(browsers.is_from_page(&headers(cookie, Some(key))));
            assert!(!browsers.is_from_page(&headers(cookie, None)));
        }
        for (cookie, key) in [(&one.0, &other.1), (&one.0, &one.0), (&one.1, &one.1)] {
            assert!(!browsers.is_from_page(&headers(cookie, Some(key))));
        }
        tokio::time::advance(COOKIE_LIFE).await;
        assert!(!browsers.is_from_page(&headers(&one.0, Some(&one.1))));
        assert!(!browsers.know(&headers(&one.0, None)));
    }

    #[test]
    fn the_cookie_is_found_by_its_whole_name() {
        let mut headers = HeaderMap::new();
        headers.append(COOKIE, "a=1; adjutant=x;my-adjutant=y".parse().unwrap());
        headers.append(COOKIE, "adjutant=z; adjutant-80=p".parse().unwrap());
        assert_eq!(cookies(&headers).collect::<Vec<_>>(), ["x", "z"]);
        headers.insert(HOST, "[::1]:80".parse().unwrap());
        assert_eq!(cookies(&headers).collect::<Vec<_>>(), ["p"]);
    }

    #[test]
    fn only_loopback_does_without_tls() {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, "localhost:7777".parse().unwrap());
        let line = cookie_line(&headers, "v", Duration::from_secs(9));
        assert_eq!(line, "adjutant-7777=v; Path=/; Max-Age=9; HttpOnly; SameSite=Strict");
        headers.insert(HOST, "desk.example".parse().unwrap());
        let line = cookie_line(&headers, "v", Duration::ZERO);
        assert!(line.starts_with("adjutant=v; ") && line.ends_with("; Secure"), "{line}");
    }
}
