//! An operator in some twenty lines: it logs in under a role, hears of attempts over a WebSocket, and
//! has each done by a worker that pulls its prompt and posts its result over HTTP.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use adjutant::server::{AdminToken, Server, ServerCfg};
use adjutant::{
    CancellationToken, Engine, EngineCfg, OperatorSpawner, Role, SpawnerAdapter, TaskSpec,
};
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest};

type Done = Result<(), Box<dyn Error + Send + Sync>>;

/// The operator: all that another program, in whatever language, has to do.
async fn operate(base: String, bearer: String) -> Done {
    let http = reqwest::Client::new();
    let login = http.post(format!("{base}/v1/operators")).bearer_auth(bearer);
    let login = login.json(&json!({ "roles": ["desk"] })).send().await?.error_for_status()?;
    let login: Value = login.json().await?;
    let (sid, own) = (login["sid"].as_str().ok_or("sid")?, login["token"].as_str().ok_or("token")?);
    let link = format!("{}/v1/operators/{sid}/ws", base.replace("http", "ws"));
    let mut link = link.into_client_request()?;
    link.headers_mut().insert("authorization", format!("Bearer {own}").parse()?);
    let (mut link, _) = connect_async(link).await?;
    while let Some(message) = link.next().await {
        let Message::Text(text) = message? else { continue };
        let frame: Value = serde_json::from_str(&text)?;
        if frame["type"] != "spawn" {
            continue;
        }
        let handle = frame["worker_handle"].as_str().unwrap_or_default();
        let work = http.get(format!("{base}/v1/worker/prompt")).bearer_auth(handle).send().await?;
        let work: Value = work.json().await?;
        let result = work["prompt"].as_str().unwrap_or_default().to_uppercase();
        let submit = http.post(format!("{base}/v1/worker/submit")).bearer_auth(handle);
        submit.body(result).send().await?.error_for_status()?;
        let ack = json!({ "type": "spawn_ack", "req_id": frame["req_id"] });
        link.send(Message::text(ack.to_string())).await?;
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Done {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("admin-token");
    let admin = AdminToken::in_file(&file)?;
    let engine = Engine::new(EngineCfg::default());
    let address = "127.0.0.1:0".parse()?;
    let server = Server::bind(engine.clone(), address, admin, ServerCfg::default()).await?;
    let base = format!("http://{}", server.local_addr()?);
    let stop = CancellationToken::new();
    let grace = Duration::from_secs(5);
    let serving = tokio::spawn(server.run(stop.clone(), Duration::ZERO, grace));
    let operating = tokio::spawn(operate(base, std::fs::read_to_string(file)?.trim().to_owned()));

    while engine.find_operator("desk").is_none() && !operating.is_finished() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let host = engine.attach("host", Role::Operator, Duration::from_secs(60)).await?;
    let desk: Arc<dyn SpawnerAdapter> = Arc::new(OperatorSpawner::named("desk"));
    let task = engine.start_task(&host, TaskSpec::new("shout", "hello")).await?;
    println!("{:?}", engine.dispatch_attempt_with(&host, &task, &desk).await?);
    stop.cancel();
    operating.await??;
    serving.await??;
    Ok(())
}
