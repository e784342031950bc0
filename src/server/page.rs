//! The live page, from the program itself: its files, and the headers that keep it to itself.
//!
//! The files are a fixed list in the program's text, so what is served is what was built, and no
//! path of a request ever becomes a path of a disk. They hold no data and no secret; what the page
//! shows it reads from the routes, as whoever the cookie and the page's key stand for.

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue,
    IF_NONE_MATCH, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};

use crate::server::problem::Problem;
use crate::server::{Shared, browser, health};

/// Nothing from elsewhere, nothing inline, no markup made by scripts, in nobody's frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
    require-trusted-types-for 'script'; trusted-types 'none'";

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

macro_rules! files {
    ($($name:literal: $kind:expr),* $(,)?) => {
        [$(($name, $kind, include_str!(concat!("page/", $name)))),*]
    };
}

/// What the page loads, by name.
const FILES: [(&str, &str, &str); 12] = files! {
    "page.css": "text/css; charset=utf-8",
    "icon.svg": "image/svg+xml",
    "page.js": SCRIPT,
    "key.js": SCRIPT,
    "dom.js": SCRIPT,
    "api.js": SCRIPT,
    "stream.js": SCRIPT,
    "model.js": SCRIPT,
    "tree.js": SCRIPT,
    "waiting.js": SCRIPT,
    "detail.js": SCRIPT,
    "side.js": SCRIPT,
};

/// What only a browser asks for: no part of the API, and not in its document.
pub(crate) fn routes() -> Router<Shared> {
    Router::new()
        .route("/", get(home))
        .route("/page/{name}", get(file))
        .route("/enter", get(browser::enter))
        .route("/leave", post(browser::leave))
}

/// The page, for a browser that came by a link; for others, how to get one.
async fn home(State(app): State<Shared>, headers: HeaderMap) -> Response {
    if app.browsers.know(&headers) {
        return respond(StatusCode::OK, HTML, include_str!("page/index.html"), "no-store");
    }
    door()
}

/// What a browser without a cookie is shown. One that came from another site by a link sends its cookie
/// with the next request only, so the door puts the page's key away as the page does.
pub(crate) fn door() -> Response {
    let text = include_str!("page/door.html");
    health::whole(respond(StatusCode::UNAUTHORIZED, HTML, text, "no-store"))
}

/// A file of the page. A browser asks each time whether the one that it has is the newest.
async fn file(Path(name): Path<String>, headers: HeaderMap) -> Result<Response, Problem> {
    let Some((_, kind, text)) = FILES.iter().find(|(known, ..)| *known == name) else {
        return Err(Problem::of_status(StatusCode::NOT_FOUND, "the page has no such file"));
    };
    let tag = format!("\"{}\"", &blake3::hash(text.as_bytes()).to_hex()[..32]);
    let has = headers.get(IF_NONE_MATCH).is_some_and(|has| has.as_bytes() == tag.as_bytes());
    let mut response = if has {
        respond(StatusCode::NOT_MODIFIED, kind, "", "no-cache")
    } else {
        respond(StatusCode::OK, kind, text, "no-cache")
    };
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(ETAG, tag);
    }
    Ok(response)
}

fn respond(
    status: StatusCode,
    kind: &'static str,
    text: &'static str,
    cache: &'static str,
) -> Response {
    let headers = [
        (CONTENT_TYPE, kind),
        (CACHE_CONTROL, cache),
        (CONTENT_SECURITY_POLICY, POLICY),
        (REFERRER_POLICY, "no-referrer"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    (status, headers, text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_brings_nothing_inline_and_nothing_from_elsewhere() {
        let pages = [include_str!("page/index.html"), include_str!("page/door.html")];
        for text in pages {
            for word in ["<style", "style=", "onclick", "http:", "https:", "<script>"] {
                assert!(!text.contains(word), "{word}");
            }
        }
        for (name, _, text) in FILES {
            for word in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("]
            {
                assert!(!text.contains(word), "{name}: {word}");
            }
            let elsewhere = text.replace("http://www.w3.org/2000/svg", "");
            assert!(!elsewhere.contains("http://") && !elsewhere.contains("https://"), "{name}");
        }
    }

    #[test]
    fn every_file_that_the_page_names_is_served() {
        let known = |name: &str| FILES.iter().any(|(known, ..)| *known == name);
        for page in [include_str!("page/index.html"), include_str!("page/door.html")] {
            let named = page.split("\"/page/").skip(1).filter_map(|rest| rest.split('"').next());
            assert!(named.clone().count() > 0);
            for name in named {
                assert!(known(name), "{name}");
            }
        }
        for (from, _, text) in FILES {
            let imported =
                text.split("from \"./").skip(1).filter_map(|rest| rest.split('"').next());
            for name in imported {
                assert!(known(name), "{from} imports {name}");
            }
        }
    }
}
