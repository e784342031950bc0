//! The official Python client, in an environment of its own, against both ways in.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;
use std::time::Duration;

use tokio::process::Command;

use crate::bridge::token_file;
use crate::desk::Desk;

const PROGRAM: &str = env!("CARGO_BIN_EXE_adjutant");

/// Long enough for all that `client.py` does, on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(150);

fn here(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mcp").join(file)
}

/// A Python that has the client: `.ci/run` makes it beforehand; where it did not, it is made here.
fn python() -> &'static Path {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    PYTHON.get_or_init(|| {
        let mut make = std::process::Command::new(here("../python"));
        let made = make.arg("mcp").stderr(Stdio::piped()).output().unwrap();
        let told = String::from_utf8_lossy(&made.stderr);
        assert!(made.status.success(), "the Python client cannot be installed: {told}");
        PathBuf::from(String::from_utf8(made.stdout).unwrap().trim())
    })
}

async fn drive(args: &[&str], bearer: &str) {
    let python = tokio::task::spawn_blocking(python).await.unwrap();
    let mut command = Command::new(python);
    command.arg(here("client.py")).args(args).env("ADJUTANT_BEARER", bearer).kill_on_drop(true);
    let ended = tokio::time::timeout(PATIENCE, command.output()).await.unwrap().unwrap();
    let (told, error) =
        (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    assert!(ended.status.success(), "{args:?}\n{told}\n{error}");
    assert_eq!(told.lines().filter(|line| line.starts_with("seen: ")).count(), 12, "{told}");
}

#[tokio::test]
async fn the_python_client_does_everything_over_stdio() {
    drive(&["auto", "stdio", PROGRAM, "mcp", "--store", "none"], "").await;
}

#[tokio::test]
async fn the_python_client_of_an_older_revision_does_everything_over_stdio() {
    drive(&["legacy", "stdio", PROGRAM, "mcp", "--store", "none"], "").await;
}

#[tokio::test]
async fn the_python_client_does_everything_over_http() {
    let desk = Desk::new().await;
    drive(&["auto", "http", &format!("{}/mcp", desk.base)], &desk.admin).await;
}

#[tokio::test]
async fn the_python_client_of_an_older_revision_does_everything_over_http() {
    let desk = Desk::new().await;
    drive(&["legacy", "http", &format!("{}/mcp", desk.base)], &desk.admin).await;
}

/// The program in between, from standard streams to a server.
async fn drive_over_a_bridge(mode: &str) {
    let desk = Desk::new().await;
    let file = token_file(&desk);
    let token = file.path().to_str().unwrap();
    let to = ["mcp", "--server", &desk.base, "--token-file", token];
    drive(&[&[mode, "stdio", PROGRAM], to.as_slice()].concat(), "").await;
}

#[tokio::test]
async fn the_python_client_does_everything_over_a_bridge_to_a_server() {
    drive_over_a_bridge("auto").await;
}

#[tokio::test]
async fn the_python_client_of_an_older_revision_does_everything_over_a_bridge_to_a_server() {
    drive_over_a_bridge("legacy").await;
}
