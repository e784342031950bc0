//! The page's door, and the pages of others: a rebound name, a neighbor's port, a frame.

use reqwest::redirect::Policy;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::browser::Browser;
use crate::served::{Served, asks};

/// A page of somebody else on another port of this machine.
async fn neighbor() -> (String, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let serving = tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut head = [0; 4096];
            let _ = socket.read(&mut head).await;
            let page = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 15\r\n\
                        Connection: close\r\n\r\n<p>neighbor</p>";
            let _ = socket.write_all(page.as_bytes()).await;
        }
    });
    (base, serving)
}

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
    let again = plain.get(&link).send().await.unwrap();
    assert_eq!(again.status(), 401);
    assert!(again.headers().get("set-cookie").is_none());

    browser.click("#leave").await;
    browser.click("#confirm-yes").await;
    browser.see("main", "adjutant link").await;
}

#[tokio::test]
async fn a_cookie_is_bound_and_changes_nothing_by_itself() {
    let served = Served::start();
    let plain = reqwest::Client::builder().redirect(Policy::none()).build().unwrap();
    let entered = plain.get(served.link().await).send().await.unwrap();
    assert_eq!(
        (entered.status().as_u16(), &entered.headers()["location"]),
        (303, &"/".parse().unwrap())
    );
    let line = entered.headers()["set-cookie"].to_str().unwrap().to_owned();
    for word in ["HttpOnly", "SameSite=Strict", "Path=/", "Max-Age="] {
        assert!(line.contains(word), "{line}");
    }
    let cookie = line.split(';').next().unwrap().to_owned();
    let listed = plain.get(served.url("/v1/questions")).header("cookie", &cookie);
    assert_eq!(listed.send().await.unwrap().status(), 200);
    // Each of what the page sends with a change is needed.
    let body = json!({ "blueprint": asks("x"), "input": { "ask": "?" } });
    let own = served.base.clone();
    for (header, origin, site, status) in [
        (None, Some(&own), None, 403),
        (Some("1"), None, None, 403),
        (Some("1"), Some(&own), Some("same-site"), 403),
        (Some("1"), Some(&own), Some("cross-site"), 403),
        (Some("1"), Some(&own), Some("same-origin"), 202),
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
    let mint = mint.header("x-adjutant", "1").header("origin", &own).send().await.unwrap();
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
    let (other, serving) = neighbor().await;
    browser.client.goto(&other).await.unwrap();
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
    serving.abort();
}
