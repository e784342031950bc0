//! The layer `sink`: workers are told where large outputs go, and what they send there is kept.

use adjutant::LayerRegistry;
use adjutant::server::{DataSink, ServerCfg};
use serde_json::{Value, json};

use crate::desk::{Desk, calm, one_step};
use crate::line::Line;

/// Sends its prompt to the sink with its own handle, as HTTP by hand, and prints the answer's body.
const WORKER: &str = r#"
prompt=$(cat)
handle=$(sed 's/.*"handle":"\([^"]*\)".*/\1/' <&"$ADJUTANT_CREDENTIALS_FD")
place=${ADJUTANT_DATA_SINK#http://}
address=${place%%/*}
exec 9<>"/dev/tcp/${address%:*}/${address#*:}"
printf 'POST /%s/report HTTP/1.1\r\nhost: %s\r\nauthorization: Bearer %s\r\n' "${place#*/}" "$address" "$handle" >&9
printf 'content-type: text/plain\r\nconnection: close\r\ncontent-length: %s\r\n\r\n%s' "${#prompt}" "$prompt" >&9
sed '1,/^\r$/d' <&9
"#;

async fn desk() -> Desk {
    let sink = DataSink::default();
    let layers = sink.layers(LayerRegistry::standard());
    let engine = adjutant::Engine::new_with_layers(calm(), layers);
    Desk::before(
        engine,
        ServerCfg { sink, programs: vec!["bash".to_owned()], ..ServerCfg::default() },
    )
    .await
}

fn with_sink(agent: &Value) -> Value {
    let mut blueprint = one_step(agent);
    blueprint["spawner_hints"] = json!({ "layers": ["sink"] });
    blueprint
}

#[tokio::test]
async fn a_child_sends_what_is_large_to_the_sink_and_passes_with_its_id() {
    let desk = desk().await;
    let agent = json!({ "name": "big", "kind": "subprocess", "spec": { "program": "bash", "args": ["-c", WORKER] } });
    let body = json!({ "blueprint": with_sink(&agent), "input": { "x": "much to tell" } });
    let run: Value = desk.post("/v1/runs?wait=25", &desk.admin, &body).await.json().await.unwrap();
    assert_eq!(run["status"], "pass", "{run}");
    let taken = &run["report"]["context"]["y"];
    let path = format!("/v1/data/{}", taken["data_id"].as_str().unwrap());
    assert_eq!(desk.get(&path, &desk.admin).await.text().await.unwrap(), "much to tell");
}

#[tokio::test]
async fn an_operator_is_told_of_the_sink_where_the_program_lists_it() {
    let desk = desk().await;
    let login = desk.log_in(json!({ "roles": ["desk"] })).await;
    let mut line = Line::open(&desk, &login).await;
    let agent = json!({ "name": "o", "kind": "operator", "spec": { "operator_ref": "desk" } });
    for (blueprint, told) in [
        (with_sink(&agent), json!(format!("{}/v1/data", desk.base))),
        (one_step(&agent), Value::Null),
    ] {
        let body = json!({ "blueprint": blueprint, "input": { "x": 1 } });
        let run: Value = desk.post("/v1/runs", &desk.admin, &body).await.json().await.unwrap();
        let spawn = line.expect("spawn").await;
        assert_eq!(spawn["data_sink_endpoint"], told);
        line.reply(&spawn, "spawn_ack", json!({ "value": 1 })).await;
        let path = format!("/v1/runs/{}?hold=25", run["run_id"].as_str().unwrap());
        let ended: Value = desk.get(&path, &desk.admin).await.json().await.unwrap();
        assert_eq!(ended["status"], "pass");
    }
}
