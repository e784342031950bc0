//! Who is let through to the routes: Host and Origin on their lists, and the admin's token.
//!
//! It looks at headers only. A page of another site reaches a server on loopback with the name of
//! that site as Host (after rebinding it) or as Origin, so both are compared with lists; what is on
//! none is refused before any route is chosen.

use axum::http::header::{HOST, HeaderMap, ORIGIN};
use axum::http::{StatusCode, Uri};

use crate::server::problem::{Problem, shown};

/// Names under which a machine calls itself.
const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

/// The allow-lists.
#[derive(Debug, Clone)]
pub(crate) struct Guard {
    hosts: Vec<String>,
    origins: Vec<String>,
}

impl Guard {
    /// Loopback names are allowed always; hosts are names without a port, origins have their scheme.
    pub(crate) fn new(hosts: &[String], origins: &[String]) -> Self {
        let lower = |texts: &[String]| texts.iter().map(|text| text.to_ascii_lowercase()).collect();
        Self { hosts: lower(hosts), origins: lower(origins) }
    }

    /// Refuses a request for another host, or from a page of another origin.
    pub(crate) fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Problem> {
        let host = authority(uri, headers)?;
        let name = host_name(&host);
        if !is_loopback(&host) && !self.hosts.iter().any(|allowed| allowed == name) {
            let detail =
                format!("the request names the host {}, which is not on the list", shown(name));
            return Err(Problem::new(StatusCode::FORBIDDEN, "host_refused", detail));
        }
        for origin in headers.get_all(ORIGIN) {
            let origin = origin.to_str().unwrap_or_default().to_ascii_lowercase();
            let own = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
            if own != Some(host.as_str()) && !self.origins.contains(&origin) {
                let page = shown(&origin);
                let detail =
                    format!("the request comes from a page of {page}, which is not on the list");
                return Err(Problem::new(StatusCode::FORBIDDEN, "origin_refused", detail));
            }
        }
        Ok(())
    }
}

/// Whether a host, with or without its port, is this machine to itself.
pub(crate) fn is_loopback(host: &str) -> bool {
    let name = host_name(host);
    LOOPBACK.iter().any(|known| known.eq_ignore_ascii_case(name))
}

/// Host and port as the request names them, in lower case.
fn authority(uri: &Uri, headers: &HeaderMap) -> Result<String, Problem> {
    let mut named = headers.get_all(HOST).iter();
    let (first, second) = (named.next(), named.next());
    let header = first.and_then(|host| host.to_str().ok()).filter(|_| second.is_none());
    let Some(host) = header else {
        return Err(Problem::of_status(StatusCode::BAD_REQUEST, "the request names no one host"));
    };
    // A request line with a whole address must not say something else than the header.
    if uri.authority().is_some_and(|told| !told.as_str().eq_ignore_ascii_case(host)) {
        let detail = "the request names two hosts";
        return Err(Problem::of_status(StatusCode::BAD_REQUEST, detail));
    }
    Ok(host.to_ascii_lowercase())
}

/// The name without its port.
fn host_name(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn check(host: &str, origin: Option<&str>) -> bool {
        let guard = Guard::new(&["Desk.example".to_owned()], &["https://page.example".to_owned()]);
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_str(host).unwrap());
        if let Some(origin) = origin {
            headers.insert(ORIGIN, HeaderValue::from_str(origin).unwrap());
        }
        guard.check(&Uri::from_static("/livez"), &headers).is_ok()
    }

    #[test]
    fn loopback_and_named_hosts_pass_and_no_others() {
        for host in ["localhost", "LOCALHOST:80", "127.0.0.1:7777", "[::1]:1", "desk.example:443"] {
            assert!(check(host, None), "{host}");
        }
        for host in ["evil.example", "localhost.evil.example", "127.0.0.2", "", "::1", "a:b"] {
            assert!(!check(host, None), "{host}");
        }
    }

    #[test]
    fn a_page_passes_only_from_the_same_host_and_port_or_the_list() {
        assert!(check("localhost:80", Some("http://localhost:80")));
        assert!(check("localhost:80", Some("https://page.example")));
        for origin in ["http://localhost:81", "http://page.example", "null", "http://evil.example"]
        {
            assert!(!check("localhost:80", Some(origin)), "{origin}");
        }
    }

    #[test]
    fn a_request_names_one_host() {
        let guard = Guard::new(&[], &[]);
        let mut headers = HeaderMap::new();
        assert!(guard.check(&Uri::from_static("/"), &headers).is_err());
        headers.append(HOST, HeaderValue::from_static("localhost"));
        assert!(guard.check(&Uri::from_static("/"), &headers).is_ok());
        assert!(guard.check(&Uri::from_static("http://evil.example/"), &headers).is_err());
        headers.append(HOST, HeaderValue::from_static("evil.example"));
        assert!(guard.check(&Uri::from_static("/"), &headers).is_err());
    }
}
