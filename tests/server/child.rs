//! The program itself: its address, its file, its end.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use reqwest::Client;
use serde_json::{Value, json};

use crate::desk::LONG;

/// A server in a process of its own; killed when dropped.
struct Served {
    child: Child,
    base: String,
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn serve(store: &Path, linger: &str) -> Served {
    let mut command = Command::new(env!("CARGO_BIN_EXE_adjutant"));
    command.args(["serve", "--listen", "127.0.0.1:0", "--linger", linger, "--store"]).arg(store);
    command.env_remove("RUST_LOG").stdin(Stdio::null()).stderr(Stdio::null());
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut base = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut base).unwrap();
    Served { child, base: base.trim().to_owned() }
}

impl Served {
    fn term(&self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// Waits for its end, and gives the exit code.
    async fn ended(mut self) -> Option<i32> {
        let wait = tokio::task::spawn_blocking(move || self.child.wait());
        tokio::time::timeout(LONG, wait).await.unwrap().unwrap().unwrap().code()
    }
}

#[tokio::test]
async fn term_makes_it_unready_at_once_and_end_well() {
    let folder = tempfile::tempdir().unwrap();
    let served = serve(&folder.path().join("store"), "3");
    let client = Client::new();
    let ready = client.get(served.url("/readyz")).send().await.unwrap();
    assert_eq!(ready.status(), 200);
    served.term();
    let asked = tokio::time::Instant::now();
    loop {
        let ready = client.get(served.url("/readyz")).send().await.unwrap();
        if ready.status() == 503 {
            let body: Value = ready.json().await.unwrap();
            assert_eq!(body, json!({ "ready": false, "reasons": ["draining"] }));
            break;
        }
        assert!(asked.elapsed().as_secs() < 1, "still ready");
    }
    assert_eq!(client.get(served.url("/livez")).send().await.unwrap().status(), 200);
    assert_eq!(served.ended().await, Some(0));
}

#[tokio::test]
async fn a_session_and_its_task_outlive_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    let served = serve(&store, "0");
    let file = store.join("admin-token");
    assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o600);
    let admin = std::fs::read_to_string(&file).unwrap();
    let client = Client::new();
    let attach = client.post(served.url("/v1/sessions")).bearer_auth(admin.trim());
    let attach = attach.json(&json!({ "operator_id": "ann", "role": "operator" }));
    let session: Value = attach.send().await.unwrap().json().await.unwrap();
    let token = session["token"].as_str().unwrap();
    let start = client.post(served.url("/v1/tasks")).bearer_auth(token);
    let start = start.json(&json!({ "agent": "echo", "directive": "hello" }));
    let task: Value = start.send().await.unwrap().json().await.unwrap();
    served.term();
    assert_eq!(served.ended().await, Some(0));

    let served = serve(&store, "0");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), admin);
    let path = format!("/v1/tasks/{}", task["task_id"].as_str().unwrap());
    let read = client.get(served.url(&path)).bearer_auth(token).send().await.unwrap();
    assert_eq!(read.json::<Value>().await.unwrap()["status"], "pending");
}

#[tokio::test]
async fn a_named_file_of_settings_stands_in_place_of_the_users_own() {
    let folder = tempfile::tempdir().unwrap();
    let own = folder.path().join("config/adjutant");
    std::fs::create_dir_all(&own).unwrap();
    let elsewhere = folder.path().join("elsewhere");
    std::fs::write(own.join("config.toml"), format!("[store]\npath = {elsewhere:?}\n")).unwrap();
    let named = folder.path().join("named.toml");
    std::fs::write(&named, "[log]\nlevel = \"error\"\n").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_adjutant"));
    command.args(["serve", "--listen", "127.0.0.1:0", "--config"]).arg(&named);
    command.env_remove("RUST_LOG").env_remove("ADJUTANT_STORE").stdin(Stdio::null());
    command.env("XDG_CONFIG_HOME", folder.path().join("config"));
    command.env("XDG_STATE_HOME", folder.path().join("state"));
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut base = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut base).unwrap();
    let served = Served { child, base: base.trim().to_owned() };
    assert!(folder.path().join("state/adjutant/store-1/store.db").exists());
    assert!(!elsewhere.exists(), "the store of the user's own file was opened");
    drop(served);
}
