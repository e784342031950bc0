//! The page's door, and the pages of others: a rebound name, a neighbor's port, a frame.

use std::sync::{Arc, Mutex};

use fantoccini::Locator;
use reqwest::redirect::Policy;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::browser::Browser;
use crate::served::{Served, asks};

/// A server of somebody else on another port of this machine, with what it heard.
struct Neighbor {
    base: String,
    heads: Arc<Mutex<Vec<String>>>,
    serving: tokio::task::JoinHandle<()>,
}

impl Drop for Neighbor {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn neighbor() -> Neighbor {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let heads = Arc::new(Mutex::new(Vec::new()));
    let heard = heads.clone();
    let serving = tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut head = [0; 4096];
            let read = socket.read(&mut head).await.unwrap_or(0);
            heard.lock().unwrap().push(String::from_utf8_lossy(&head[..read]).into_owned());
            let page = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 15\r\n\
                        Connection: close\r\n\r\n<p>neighbor</p>";
            let _ = socket.write_all(page.as_bytes()).await;
        }
    });
    Neighbor { base, heads, serving }
}

/// The page's key, as its own scripts have it.
const KEY: &str = "return localStorage.getItem('adjutant key')";

#[tokio::test]
async fn a_link_lets_one_browser_in_once_and_logging_out_ends_it() {
    let served = Served::start();
    let browser = Browser::new().await;
    browser.client.goto(&served.base).await.unwrap();
    browser.see("main", "adjutant link").await;
    let link = served.link().await;
    let plain = reqwest::Client::builder().redirect(Policy::none()).build().unwrap();
    let ahead = plain.get(&link).header("sec-purpose", "prefetch;prerender").send().await.unwrap();
    assert_eq!(ahead.status(), 503);
    browser.client.goto(&link).await.unwrap();
    browser.wait("return document.querySelector('#link')?.className === 'live'").await;
    assert_eq!(browser.eval("return document.cookie").await, "");
    assert_eq!(browser.eval("return location.href").await, format!("{}/", served.base));
    // Another tab and a reload are let in as well.
    let tab = browser.client.new_window(true).await.unwrap();
    browser.client.switch_to_window(tab.handle).await.unwrap();
    browser.client.goto(&served.base).await.unwrap();
    browser.wait("return document.querySelector('#link')?.className === 'live'").await;
    browser.client.refresh().await.unwrap();
    browser.wait("return document.querySelector('#link')?.className === 'live'").await;
    let again = plain.get(&link).send().await.unwrap();
    assert_eq!(again.status(), 401);
    assert!(again.headers().get("set-cookie").is_none());

    browser.click("#leave").await;
    browser.click("#confirm-yes").await;
    browser.see("main", "adjutant link").await;
    assert_eq!(browser.eval(KEY).await, Value::Null);
}

#[tokio::test]
async fn a_link_that_another_site_shows_leads_to_the_door_and_from_there_in() {
    let served = Served::start();
    let browser = Browser::new().await;
    let other = neighbor().await;
    let other = other.base.replace("127.0.0.1", "evil.example");
    browser.client.goto(&other).await.unwrap();
    browser.see("p", "neighbor").await;
    let link = served.link().await;
    browser.eval(&format!("location.href = {}", json!(link))).await;
    // A strict cookie is not sent with what another site caused.
    browser.see("main", "Just opened a link?").await;
    browser.client.find(Locator::Css("main a")).await.unwrap().click().await.unwrap();
    browser.wait("return document.querySelector('#link')?.className === 'live'").await;
}

#[tokio::test]
async fn a_page_without_its_key_says_that_it_is_logged_out() {
    let served = Served::start();
    let browser = Browser::new().await;
    browser.enter(&served).await;
    browser.eval("localStorage.clear()").await;
    browser.client.refresh().await.unwrap();
    browser.see("#banners", "You are logged out").await;
}

#[tokio::test]
async fn a_neighbor_that_is_sent_the_cookie_can_do_nothing_with_it() {
    let served = Served::start();
    let browser = Browser::new().await;
    browser.enter(&served).await;
    let key = browser.eval(KEY).await.as_str().unwrap().to_owned();
    let other = neighbor().await;
    browser.client.goto(&other.base).await.unwrap();
    browser.see("p", "neighbor").await;
    let heads = other.heads.lock().unwrap().concat();
    assert!(key.len() == 64 && !heads.contains(&key), "the key stays with its origin");
    let lines = heads
        .lines()
        .find_map(|line| line.to_lowercase().strip_prefix("cookie: ").map(str::to_owned));
    let cookie = lines.expect("the browser sends the cookie to every port");
    let plain = reqwest::Client::new();
    let own = served.base.clone();
    for guess in [None, Some("1"), Some(cookie.split('=').nth(1).unwrap())] {
        for (method, path) in
            [("GET", "/v1/questions"), ("GET", "/v1/events"), ("POST", "/v1/runs")]
        {
            let mut ask = plain.request(method.parse().unwrap(), served.url(path));
            ask = ask.header("cookie", &cookie).header("origin", &own).json(&json!({}));
            ask = ask.header("sec-fetch-site", "same-origin");
            if let Some(guess) = guess {
                ask = ask.header("x-adjutant", guess);
            }
            let answer = ask.send().await.unwrap();
            assert_eq!(answer.status(), 403, "{method} {path} {guess:?}");
            let told: Value = answer.json().await.unwrap();
            assert_eq!(told["code"], "not_from_page");
        }
    }
}

#[tokio::test]
async fn a_cookie_is_bound_and_changes_nothing_by_itself() {
    let served = Served::start();
    let plain = reqwest::Client::builder().redirect(Policy::none()).build().unwrap();
    let entered = plain.get(served.link().await).send().await.unwrap();
    assert_eq!(entered.status(), 303);
    let place = entered.headers()["location"].to_str().unwrap().to_owned();
    let key = place.strip_prefix("/#key=").unwrap();
    let line = entered.headers()["set-cookie"].to_str().unwrap().to_owned();
    for word in ["HttpOnly", "SameSite=Strict", "Path=/", "Max-Age="] {
        assert!(line.contains(word), "{line}");
    }
    let cookie = line.split(';').next().unwrap().to_owned();
    let list = async |cookie: &str, key: &str| {
        let ask = plain.get(served.url("/v1/questions"));
        let ask = ask.header("cookie", cookie).header("x-adjutant", key);
        ask.send().await.unwrap().status().as_u16()
    };
    assert_eq!(list(&cookie, key).await, 200);
    assert_eq!((list(&cookie, "").await, list("adjutant=1", key).await), (403, 401));
    // Each of what the page sends with a change is needed.
    let body = json!({ "blueprint": asks("x"), "input": { "ask": "?" } });
    let own = served.base.clone();
    for (header, origin, site, status) in [
        (None, Some(&own), None, 403),
        (Some("1"), Some(&own), None, 403),
        (Some(key), None, None, 403),
        (Some(key), Some(&own), Some("same-site"), 403),
        (Some(key), Some(&own), Some("cross-site"), 403),
        (Some(key), Some(&own), Some("same-origin"), 202),
    ] {
        let mut ask = plain.post(served.url("/v1/runs")).header("cookie", &cookie).json(&body);
        for (name, value) in [
            ("x-adjutant", header),
            ("origin", origin.map(String::as_str)),
            ("sec-fetch-site", site),
        ] {
            if let Some(value) = value {
                ask = ask.header(name, value);
            }
        }
        let answer = ask.send().await.unwrap();
        assert_eq!(answer.status(), status, "{header:?} {origin:?} {site:?}");
    }
    // Links are the bearer's alone to make.
    let mint = plain.post(served.url("/v1/links")).header("cookie", &cookie);
    let mint = mint.header("x-adjutant", key).header("origin", &own).send().await.unwrap();
    assert_eq!(mint.status(), 401);
}

#[tokio::test]
async fn a_name_that_was_made_to_point_here_is_refused() {
    let served = Served::start();
    let browser = Browser::new().await;
    browser.enter(&served).await;
    let rebound = served.base.replace("127.0.0.1", "evil.example");
    browser.client.goto(&format!("{rebound}/")).await.unwrap();
    browser.see("body", "host_refused").await;
    browser.client.goto(&format!("{rebound}/v1/questions")).await.unwrap();
    browser.see("body", "host_refused").await;
}

#[tokio::test]
async fn a_neighbors_page_reads_nothing_changes_nothing_and_frames_nothing() {
    let served = Served::start();
    let browser = Browser::new().await;
    browser.enter(&served).await;
    let other = neighbor().await;
    browser.client.goto(&other.base).await.unwrap();
    browser.see("p", "neighbor").await;
    // The browser sends the cookie along: another port is the same site to it.
    let attempts = format!(
        r#"const base = {base}, done = arguments[0], got = {{}};
        const attempt = async (name, does) => {{ try {{ got[name] = await does(); }} catch (error) {{ got[name] = "refused"; }} }};
        const body = JSON.stringify({{ blueprint: {{}}, input: {{}} }});
        const socket = () => new Promise((end) => {{
          const ws = new WebSocket(base.replace("http", "ws") + "/v1/operators/x/ws");
          ws.onopen = () => end("open"); ws.onerror = () => end("refused");
        }});
        const stream = () => new Promise((end) => {{
          const source = new EventSource(base + "/v1/events?after=0", {{ withCredentials: true }});
          source.onopen = () => end("open"); source.onerror = () => {{ source.close(); end("refused"); }};
        }});
        const frame = () => new Promise((end) => {{
          const frame = document.createElement("iframe");
          frame.src = base + "/";
          frame.onload = () => end(frame.contentDocument === null ? "closed" : "open");
          document.body.append(frame);
        }});
        (async () => {{
          await attempt("read", async () => (await fetch(base + "/v1/questions", {{ credentials: "include" }})).status);
          await attempt("blind", async () => (await fetch(base + "/v1/questions", {{ mode: "no-cors", credentials: "include" }})).type);
          await attempt("post", async () => (await fetch(base + "/v1/runs", {{ method: "POST", credentials: "include", headers: {{ "x-adjutant": "1", "content-type": "application/json" }}, body }})).status);
          await attempt("simple", async () => (await fetch(base + "/v1/runs", {{ method: "POST", mode: "no-cors", credentials: "include", body }})).type);
          await attempt("socket", socket);
          await attempt("stream", stream);
          await attempt("frame", frame);
          done(got);
        }})();"#,
        base = json!(served.base)
    );
    let got = browser.client.execute_async(&attempts, Vec::new()).await.unwrap();
    for name in ["read", "post", "socket", "stream"] {
        assert_eq!(got[name], "refused", "{name} of {got}");
    }
    // A request without CORS may be sent and shows the page nothing of its answer.
    for name in ["blind", "simple"] {
        assert!(matches!(got[name].as_str(), Some("opaque" | "refused")), "{got}");
    }
    assert_eq!(got["frame"], "closed", "{got}");
    let runs: Value = served.get("/v1/runs").await;
    assert_eq!(runs["runs"], json!([]));
}
