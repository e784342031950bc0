//! The server against its own document: schemathesis asks every operation with what the document
//! allows and forbids, and holds the answers against it.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use adjutant::server::ServerCfg;
use tokio::process::Command;

use crate::desk::Desk;

/// Long enough for a thousand requests on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(240);

/// A Python that has schemathesis: `.ci/run` makes it beforehand; where it did not, it is made here.
async fn python() -> PathBuf {
    let make = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python");
    let made = Command::new(make).arg("server").stderr(Stdio::piped()).output().await.unwrap();
    let told = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success(), "schemathesis cannot be installed: {told}");
    PathBuf::from(String::from_utf8(made.stdout).unwrap().trim())
}

#[tokio::test]
async fn no_request_is_answered_otherwise_than_the_document_says() {
    let folder = tempfile::tempdir().unwrap();
    let desk = Desk::on(&folder.path().join("store"), ServerCfg::default()).await;
    let mut command = Command::new(python().await);
    command.args(["-m", "schemathesis.cli", "run"]);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/openapi.json"));
    command.args(["--url", &desk.base, "--phases", "coverage,fuzzing"]);
    command.args(["--header", &format!("Authorization: Bearer {}", desk.admin)]);
    // A stream that does not end, and a socket.
    command.args(["--exclude-path", "/v1/events", "--exclude-path", "/v1/operators/{sid}/ws"]);
    // The document says less than the server knows: whether an id is one, a name is free, a run open.
    command.args(["--exclude-checks", "positive_data_acceptance,negative_data_rejection"]);
    command.args(["--seed", "1", "--max-examples", "5", "--generation-deterministic"]);
    command.args(["--request-timeout", "30", "--warnings", "off"]);
    command.current_dir(folder.path()).kill_on_drop(true);
    let ended = tokio::time::timeout(PATIENCE, command.output()).await.unwrap().unwrap();
    let told = String::from_utf8_lossy(&ended.stdout);
    let error = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{told}\n{error}");
    assert!(told.contains("No issues found"), "{told}");
    desk.end().await;
}
