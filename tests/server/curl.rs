//! The lines of the README that ask a server with `curl`, run as they stand there by a shell.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

/// The README's block of shell in which a server is started and asked.
fn block() -> String {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = std::fs::read_to_string(readme).unwrap();
    let mut blocks = readme.split("\n```sh\n").skip(1).map(|rest| rest.split("\n```").next());
    let found = blocks.find(|block| block.is_some_and(|block| block.contains("curl -")));
    found.flatten().expect("the README asks a server with curl").to_owned()
}

/// A port that was free a moment ago.
fn port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn the_lines_of_the_readme_start_a_task_and_a_run_with_curl() {
    let (folder, own) = (tempfile::tempdir().unwrap(), format!("127.0.0.1:{}", port()));
    let block = block();
    assert!(block.contains("adjutant serve --store state &"), "{block}");
    let lines = block
        .replace("adjutant serve ", &format!("adjutant serve --listen {own} "))
        .replace("127.0.0.1:7777", &own);
    let program = Path::new(env!("CARGO_BIN_EXE_adjutant")).parent().unwrap();
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
    let mut shell = Command::new("timeout");
    shell.args(["60", "bash", "-euc", &format!("{lines}\nwait")]).current_dir(folder.path());
    let shell = shell.env("PATH", path).env("HOME", folder.path()).stdin(Stdio::null());
    let done = shell.output().unwrap();
    let told = String::from_utf8_lossy(&done.stdout);
    let wrong = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{told}\n{wrong}");
    let bodies = serde_json::Deserializer::from_str(told.get(told.find('{').unwrap()..).unwrap());
    let bodies: Vec<Value> = bodies.into_iter().map(Result::unwrap).collect();
    assert!(bodies[0]["task_id"].is_string(), "{told}");
    let run = &bodies[1];
    let echoed = &run["report"]["context"]["y"]["echoed"];
    assert_eq!((&run["status"], echoed), (&"pass".into(), &"hello".into()));
}
