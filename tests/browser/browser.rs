//! Headless Chromium behind its driver: one at a time, with waits for what the page shows.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Map, Value, json};
use tempfile::TempDir;
use tokio::sync::MutexGuard;
use tokio::time::Instant;

use crate::served::{LONG, Served};

/// One browser at a time: they are heavy, and a page that is starved shows nothing in time.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// How often the page is looked at.
const LOOK: Duration = Duration::from_millis(30);

/// How a browser is set up.
#[derive(Clone, Copy, Default)]
pub(crate) struct Setup {
    pub(crate) dark: bool,
    pub(crate) phone: bool,
}

/// A browser with its driver, which is killed when it is dropped, and the browser with it.
pub(crate) struct Browser {
    pub(crate) client: Client,
    driver: Mutex<Child>,
    port: String,
    session: String,
    _profile: TempDir,
    _turn: MutexGuard<'static, ()>,
}

impl Drop for Browser {
    fn drop(&mut self) {
        // A driver leaves its browser behind, unless the session is ended: then it waits for its end.
        let ended = end_session(&self.port, &self.session);
        let driver = self.driver.get_mut().unwrap();
        let _ = driver.kill();
        let _ = driver.wait();
        // A test that fails says why by itself.
        assert!(std::thread::panicking() || ended.is_ok(), "a browser may be left: {ended:?}");
    }
}

/// Ends a session of the driver, and with it the browser. Blocks, since it is for a drop.
fn end_session(port: &str, session: &str) -> std::io::Result<()> {
    let mut driver = TcpStream::connect(format!("127.0.0.1:{port}"))?;
    driver.set_read_timeout(Some(LONG))?;
    let line = format!("DELETE /session/{session} HTTP/1.1");
    write!(driver, "{line}\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    BufReader::new(driver).read_line(&mut answer)?;
    match answer.contains(" 200 ") {
        true => Ok(()),
        false => Err(std::io::Error::other(answer)),
    }
}

/// A driver and its port. One that found its port taken meanwhile ends, and another is started.
fn driver() -> (Child, String) {
    for _ in 0..5 {
        let mut command = Command::new("chromedriver");
        command.arg("--port=0").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child =
            command.spawn().expect("chromedriver is needed: apt-get install chromium-driver");
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port = lines.map_while(Result::ok).find_map(|line| {
            let (_, port) = line.split_once("started successfully on port ")?;
            Some(port.trim_end_matches('.').to_owned())
        });
        if let Some(port) = port {
            return (child, port);
        }
        let _ = child.wait();
    }
    panic!("no chromedriver names its port");
}

impl Browser {
    pub(crate) async fn new() -> Self {
        Self::with(Setup::default()).await
    }

    pub(crate) async fn with(setup: Setup) -> Self {
        let turn = TURN.lock().await;
        let profile = tempfile::tempdir().unwrap();
        let (driver, port) = driver();
        let mut args = vec![
            "--headless=new".to_owned(),
            "--no-sandbox".to_owned(),
            "--disable-gpu".to_owned(),
            "--disable-quic".to_owned(),
            "--disable-dev-shm-usage".to_owned(),
            "--no-first-run".to_owned(),
            "--disable-background-networking".to_owned(),
            "--disable-component-update".to_owned(),
            "--disable-sync".to_owned(),
            "--hide-scrollbars".to_owned(),
            "--window-size=1280,943".to_owned(),
            format!("--user-data-dir={}", profile.path().display()),
            // A name of somebody else that was made to point here.
            "--host-resolver-rules=MAP evil.example 127.0.0.1".to_owned(),
        ];
        if setup.dark {
            args.push("--force-dark-mode".to_owned());
        }
        let mut options = json!({ "args": args });
        if setup.phone {
            let metrics = json!({ "width": 390, "height": 844, "pixelRatio": 2, "touch": true });
            options["mobileEmulation"] = json!({ "deviceMetrics": metrics });
        }
        let mut wanted = Map::new();
        wanted.insert("goog:chromeOptions".to_owned(), options);
        let mut builder = ClientBuilder::new(HttpConnector::new());
        let driven = format!("http://127.0.0.1:{port}");
        let client = builder.capabilities(wanted).connect(&driven).await.unwrap();
        let session = client.session_id().await.unwrap().expect("a session is there");
        let driver = Mutex::new(driver);
        Self { client, driver, port, session, _profile: profile, _turn: turn }
    }

    /// Opens the page by a fresh link, and waits until it follows the events.
    pub(crate) async fn enter(&self, served: &Served) {
        self.client.goto(&served.link().await).await.unwrap();
        self.wait("return document.querySelector('#link')?.className === 'live'").await;
    }

    pub(crate) async fn eval(&self, script: &str) -> Value {
        self.client.execute(script, Vec::new()).await.unwrap()
    }

    /// Waits until a script says something that is not false, null or nothing, and gives it.
    pub(crate) async fn wait(&self, script: &str) -> Value {
        let until = Instant::now() + LONG;
        loop {
            let said = self.eval(script).await;
            if !matches!(said, Value::Null | Value::Bool(false)) {
                return said;
            }
            if Instant::now() > until {
                let text = self.eval("return document.body.innerText").await;
                panic!("never: {script}\n{}", text.as_str().unwrap_or_default());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits until the text of what a selector finds contains something.
    pub(crate) async fn see(&self, selector: &str, text: &str) {
        let found = json!([selector, text]);
        let script = format!(
            "const [s, t] = {found}; return [...document.querySelectorAll(s)].some((e) => e.innerText.includes(t))"
        );
        self.wait(&script).await;
    }

    pub(crate) async fn click(&self, selector: &str) {
        self.client.wait().at_most(LONG).for_element(Locator::Css(selector)).await.unwrap();
        self.client.find(Locator::Css(selector)).await.unwrap().click().await.unwrap();
    }

    pub(crate) async fn write(&self, selector: &str, text: &str) {
        let field = self.client.find(Locator::Css(selector)).await.unwrap();
        field.send_keys(text).await.unwrap();
    }

    /// Opens the row of an agent or a run in the tree, and waits for its details.
    pub(crate) async fn open(&self, name: &str) {
        let script = format!(
            "const row = [...document.querySelectorAll('#tree .row')].find((row) => \
             row.querySelector('.name').textContent === {}); \
             row?.querySelector('.name').click(); return Boolean(row)",
            json!(name)
        );
        self.wait(&script).await;
        self.see("#detail-name", name).await;
    }
}
