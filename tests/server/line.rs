//! An operator as a client: its login, and its line, which is a real WebSocket.

use std::sync::Arc;
use std::time::Duration;

use adjutant::{
    CapToken, DispatchOutcome, EngineError, OperatorSpawner, Role, SpawnerAdapter, TaskId, TaskSpec,
};
use futures::{SinkExt, StreamExt};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::Request;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::desk::{Desk, LONG};

/// Who is logged in.
pub(crate) struct Login {
    pub(crate) sid: String,
    pub(crate) token: String,
    pub(crate) generation: u64,
}

impl Desk {
    pub(crate) async fn log_in(&self, wish: Value) -> Login {
        let response = self.post("/v1/operators", &self.admin, &wish).await;
        assert_eq!(response.status(), 201);
        let place = response.headers()["location"].to_str().unwrap().to_owned();
        let told: Value = response.json().await.unwrap();
        let text = |name: &str| told[name].as_str().unwrap().to_owned();
        assert_eq!(place, format!("/v1/operators/{}", text("sid")));
        let generation = told["generation"].as_u64().unwrap();
        Login { sid: text("sid"), token: text("token"), generation }
    }

    /// What its holder is shown of a login.
    pub(crate) async fn shown(&self, login: &Login) -> Value {
        let response = self.get(&format!("/v1/operators/{}", login.sid), &login.token).await;
        assert_eq!(response.status(), 200);
        response.json().await.unwrap()
    }

    /// Waits until a login is shown like this.
    pub(crate) async fn until(&self, login: &Login, name: &str, value: Value) -> Value {
        let looking = async {
            loop {
                let shown = self.shown(login).await;
                if shown[name] == value {
                    return shown;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(LONG, looking).await.expect("it comes to be")
    }

    /// A counter or gauge.
    pub(crate) async fn metric(&self, name: &str) -> u64 {
        let text = self.get("/metrics", &self.admin).await.text().await.unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("adjutant_{name} ")));
        line.expect("it is there").parse().unwrap()
    }

    /// Dispatches an attempt of a fresh task to the operator of this name.
    pub(crate) async fn dispatch(&self, name: &str, directive: &str) -> Dispatch {
        let token = self.engine.attach("host", Role::Operator, LONG).await.unwrap();
        let task = self.engine.start_task(&token, TaskSpec::new("echo", directive)).await.unwrap();
        let spawner: Arc<dyn SpawnerAdapter> = Arc::new(OperatorSpawner::named(name));
        let (engine, own) = (self.engine.clone(), token.clone());
        let outcome =
            tokio::spawn(async move { engine.dispatch_attempt_with(&own, &task, &spawner).await });
        Dispatch { task, token, outcome }
    }

    /// Posts a raw body as a worker does.
    pub(crate) async fn submit(&self, handle: &str, body: &'static str) -> reqwest::Response {
        self.ask(Method::POST, "/v1/worker/submit", handle).body(body).send().await.unwrap()
    }
}

/// An attempt that is under way.
pub(crate) struct Dispatch {
    pub(crate) task: TaskId,
    pub(crate) token: CapToken,
    outcome: JoinHandle<Result<DispatchOutcome, EngineError>>,
}

impl Dispatch {
    pub(crate) async fn end(self) -> Result<DispatchOutcome, EngineError> {
        tokio::time::timeout(LONG, self.outcome).await.expect("it ends").unwrap()
    }

    /// Why it failed.
    pub(crate) async fn failure(self) -> String {
        match self.end().await {
            Err(EngineError::DispatchFailed(why)) => why,
            other => panic!("{other:?}"),
        }
    }
}

/// One socket.
pub(crate) struct Line {
    pub(crate) socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

/// The request for a socket, without a bearer.
pub(crate) fn request(desk: &Desk, sid: &str) -> Request<()> {
    let base = desk.base.replace("http://", "ws://");
    format!("{base}/v1/operators/{sid}/ws").into_client_request().unwrap()
}

/// The status and the code with which a socket is refused.
pub(crate) async fn refusal(request: Request<()>) -> (u16, String) {
    match connect_async(request).await {
        Err(Error::Http(response)) => {
            let body: Value =
                serde_json::from_slice(response.body().as_deref().unwrap_or_default())
                    .unwrap_or_default();
            (response.status().as_u16(), body["code"].as_str().unwrap_or_default().to_owned())
        }
        other => panic!("{:?}", other.map(|_| "it was let in")),
    }
}

/// The request with a bearer in its header.
pub(crate) fn bearing(desk: &Desk, sid: &str, bearer: &str) -> Request<()> {
    let mut request = request(desk, sid);
    request.headers_mut().insert("authorization", format!("Bearer {bearer}").parse().unwrap());
    request
}

impl Line {
    pub(crate) async fn open(desk: &Desk, login: &Login) -> Self {
        let (socket, _) = connect_async(bearing(desk, &login.sid, &login.token)).await.unwrap();
        Self { socket }
    }

    /// The next message; pings and pongs too.
    pub(crate) async fn message(&mut self) -> Option<Result<Message, Error>> {
        tokio::time::timeout(LONG, self.socket.next()).await.expect("something comes")
    }

    /// The next frame.
    pub(crate) async fn frame(&mut self) -> Value {
        loop {
            if let Message::Text(text) = self.message().await.unwrap().unwrap() {
                return serde_json::from_str(&text).unwrap();
            }
        }
    }

    /// The next frame, which is of this type.
    pub(crate) async fn expect(&mut self, word: &str) -> Value {
        let frame = self.frame().await;
        assert_eq!(frame["type"], word, "{frame}");
        frame
    }

    pub(crate) async fn send(&mut self, frame: &Value) {
        self.socket.send(Message::text(frame.to_string())).await.unwrap();
    }

    /// Replies to a frame.
    pub(crate) async fn reply(&mut self, to: &Value, word: &str, mut fields: Value) {
        fields["type"] = json!(word);
        fields["req_id"] = to["req_id"].clone();
        self.send(&fields).await;
    }

    /// Replies to a spawn on a socket that the server may have closed meanwhile.
    pub(crate) async fn reply_unsure(
        &mut self,
        to: &Value,
        mut fields: Value,
    ) -> Result<(), Error> {
        fields["type"] = json!("spawn_ack");
        fields["req_id"] = to["req_id"].clone();
        self.socket.send(Message::text(fields.to_string())).await
    }

    /// The code with which the server closes the socket; what comes before is passed over.
    pub(crate) async fn close_code(&mut self) -> u16 {
        loop {
            match self.message().await {
                Some(Ok(Message::Close(Some(frame)))) => return frame.code.into(),
                Some(Ok(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// The client dies without a word: the socket is gone in the middle of whatever it was at.
    pub(crate) fn die(self) {
        drop(self.socket);
    }
}
