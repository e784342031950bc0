//! Where `adjutant mcp` has its settings from: flag, variable, file, default, as a server has.

use rmcp::ServiceExt;
use rmcp::transport::TokioChildProcess;
use serde_json::{Value, json};

use crate::rust::{Client, Session, call, program};

const FILE: &str = "\
[programs]
allow = [\"sh\"]
[limits]
prompt_bytes = 64
sessions = 70
tokens = 71
[log]
level = \"error\"
";

/// The value and the origin of a setting, as the doctor tells them.
fn setting(doctor: &Value, key: &str) -> (Value, String) {
    let all = doctor["settings"].as_array().unwrap();
    let one = all.iter().find(|one| one["key"] == key).unwrap();
    (one["value"].clone(), one["origin"].as_str().unwrap().to_owned())
}

fn shell(prompt: &str) -> Value {
    json!({ "blueprint": {
        "id": "shell",
        "agents": [{ "name": "s", "kind": "subprocess", "spec": { "shell": "cat >/dev/null; echo 1" } }],
        "flow": { "kind": "step", "ref": "s", "in": { "op": "lit", "value": prompt },
                  "out": { "op": "path", "at": "$.out" } },
    } })
}

async fn doctor(session: &Session) -> Value {
    call(session, "doctor", json!({})).await.unwrap()
}

#[tokio::test]
async fn a_flag_stands_above_a_variable_and_that_above_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let (file, store) = (folder.path().join("settings.toml"), folder.path().join("store"));
    std::fs::write(&file, FILE).unwrap();
    let (file, store) = (file.to_str().unwrap(), store.to_str().unwrap());
    let mut command = program(&["mcp", "--config", file, "--set", "limits.tokens=73"]);
    command.env("ADJUTANT_STORE", store).env("ADJUTANT_LIMITS_SESSIONS", "72");
    command.env("ADJUTANT_LIMITS_TOKENS", "72");
    let child = TokioChildProcess::new(command).unwrap();
    let session = Client::default().serve(child).await.unwrap();
    let told = doctor(&session).await;
    for (key, value, origin) in [
        ("limits.prompt_bytes", json!(64), file),
        ("limits.sessions", json!(72), "ADJUTANT_LIMITS_SESSIONS"),
        ("limits.tokens", json!(73), "--set limits.tokens"),
        ("store.path", json!(store), "ADJUTANT_STORE"),
        ("limits.live_runs", json!(256), "default"),
    ] {
        assert_eq!(setting(&told, key), (value, origin.to_owned()), "{key}");
    }
    // They are not only shown.
    let run = call(&session, "run_blueprint", shell("short")).await.unwrap();
    assert_eq!((&run["status"], &run["report"]["context"]["out"]), (&json!("pass"), &json!(1)));
    let run = call(&session, "run_blueprint", shell(&"long".repeat(20))).await.unwrap();
    assert_eq!(run["status"], "failed");
    assert!(folder.path().join("store/store.db").exists());
    session.cancel().await.unwrap();
}

#[tokio::test]
async fn a_named_file_stands_in_place_of_the_users_own_and_a_wrong_key_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let own = folder.path().join("config/adjutant");
    std::fs::create_dir_all(&own).unwrap();
    let elsewhere = folder.path().join("elsewhere");
    let text = format!("[store]\npath = {:?}\n", elsewhere.to_str().unwrap());
    std::fs::write(own.join("config.toml"), text).unwrap();
    let named = folder.path().join("named.toml");
    std::fs::write(&named, "[log]\nlevel = \"error\"\n").unwrap();
    let with = |args: &[&str]| {
        let mut command = program(args);
        command.env("XDG_CONFIG_HOME", folder.path().join("config"));
        command.env("XDG_STATE_HOME", folder.path().join("state"));
        command
    };
    let child =
        TokioChildProcess::new(with(&["mcp", "--config", named.to_str().unwrap()])).unwrap();
    let session = Client::default().serve(child).await.unwrap();
    assert_eq!(setting(&doctor(&session).await, "store.path").1, "default");
    session.cancel().await.unwrap();
    assert!(folder.path().join("state/adjutant/store-1/store.db").exists());
    assert!(!elsewhere.exists(), "the store of the user's own file was opened");

    let ended = with(&["mcp", "--set", "limits.tokns=1"]).output().await.unwrap();
    assert_eq!(ended.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&ended.stderr).contains("the nearest one is limits.tokens"));
}
