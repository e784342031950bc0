//! The program as a person runs it: real processes, real files, real signals.
#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]
#![cfg(feature = "cli")]

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

fn adjutant(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_adjutant"));
    command.args(args).stdin(Stdio::null()).current_dir(env!("CARGO_MANIFEST_DIR"));
    command.env("ADJUTANT_STORE", "none");
    command
}

fn run(args: &[&str]) -> Output {
    adjutant(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Writes a blueprint of one shell agent called `s` that gets the text `x`.
fn shell(folder: &Path, line: &str) -> String {
    let path = folder.join("one.json");
    let document = json!({
        "id": "one",
        "agents": [{ "name": "s", "kind": "subprocess", "spec": { "shell": line } }],
        "flow": { "kind": "step", "ref": "s", "in": { "op": "lit", "value": "x" },
                  "out": { "op": "path", "at": "$.out" } }
    });
    std::fs::write(&path, document.to_string()).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn the_census_counts_a_directory_and_writes_what_the_senior_approved() {
    let folder = tempfile::tempdir().unwrap();
    let sources = folder.path().join("src");
    std::fs::create_dir(&sources).unwrap();
    std::fs::write(sources.join("a.rs"), "one\ntwo TODO\n").unwrap();
    std::fs::write(sources.join("b \"quoted\".rs"), "x\n").unwrap();
    let report = folder.path().join("report.json");
    let input = json!({ "dir": sources, "report": report }).to_string();
    let census = "examples/blueprints/census.json";
    let done = run(&["run", census, "--input", &input, "--answer", "approve=true"]);
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    let printed: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(printed["totals"]["files"], 2);
    assert_eq!(printed["totals"]["lines"], 3);
    let written: Value = serde_json::from_slice(&std::fs::read(&report).unwrap()).unwrap();
    assert_eq!(written["totals"], printed["totals"]);
    assert!(text(&done.stderr).contains("6 passed, 0 blocked"), "{}", text(&done.stderr));
}

#[test]
fn a_refused_report_is_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report.json");
    let input = json!({ "dir": "examples", "report": report }).to_string();
    let census = "examples/blueprints/census.json";
    let done = run(&["run", census, "--input", &input, "--answer", "approve=false", "--quiet"]);
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    assert!(!report.exists());
}

#[test]
fn a_question_without_a_terminal_or_an_answer_fails_and_says_what_to_give() {
    let folder = tempfile::tempdir().unwrap();
    let input = json!({ "dir": "examples", "report": folder.path().join("r") }).to_string();
    let done = run(&["run", "examples/blueprints/census.json", "--input", &input]);
    assert_eq!(done.status.code(), Some(1));
    assert!(text(&done.stderr).contains("give --answer approve=JSON"), "{}", text(&done.stderr));
}

#[test]
fn the_verdict_loop_ends_when_the_checker_passes() {
    let input = json!({ "text": "pear Apple pear, fig", "limit": 12 }).to_string();
    let done = run(&["run", "examples/blueprints/verdict-loop.json", "--input", &input]);
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    let printed: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(printed["verdict"]["pass"], true, "{printed}");
}

#[test]
fn outcomes_have_their_exit_codes() {
    let folder = tempfile::tempdir().unwrap();
    let cases: [(&str, &[&str], i32, &str); 4] = [
        ("echo '{\"a\": 1}'", &[], 0, ""),
        ("echo no; exit 3", &[], 5, "step s was blocked"),
        ("sleep 60", &["--attempt-timeout", "1"], 6, "step s ran out of time"),
        ("sleep 60", &["--ttl", "1"], 6, "the run ran out of time"),
    ];
    for (line, flags, code, said) in cases {
        let path = shell(folder.path(), line);
        let done = run(&[&["run", path.as_str()], flags].concat());
        assert_eq!(done.status.code(), Some(code), "{line}: {}", text(&done.stderr));
        assert!(text(&done.stderr).contains(said), "{line}: {}", text(&done.stderr));
    }
}

#[test]
fn bad_arguments_and_bad_blueprints_are_usage_errors() {
    let folder = tempfile::tempdir().unwrap();
    let good = shell(folder.path(), "true");
    let bad = folder.path().join("bad.json");
    let document = json!({
        "id": "bad",
        "agents": [{ "name": "l", "kind": "lua" }, { "name": "p", "kind": "subprocess" }],
        "flow": { "kind": "step", "ref": "nobody", "in": { "op": "lit", "value": 1 },
                  "out": { "op": "path", "at": "$.x" } }
    });
    std::fs::write(&bad, document.to_string()).unwrap();
    let bad = bad.to_str().unwrap();
    let cases: [(&[&str], &[&str]); 6] = [
        (&["run", bad], &["`l`", "supported", "`p`", "nobody", "3"]),
        (&["check", bad], &["`l`", "`p`", "nobody"]),
        (&["run", "/nowhere.json"], &["/nowhere.json"]),
        (&["run", &good, "--input", "[1]"], &["must be a JSON object"]),
        (&["run", &good, "--input", "@/nowhere"], &["@/nowhere"]),
        (&["run", &good, "--answer", "t=1"], &["no step t"]),
    ];
    for (args, said) in cases {
        let done = run(args);
        assert_eq!(done.status.code(), Some(2), "{args:?}: {}", text(&done.stderr));
        for part in said {
            assert!(text(&done.stderr).contains(part), "{args:?}: {}", text(&done.stderr));
        }
    }
}

#[test]
fn json_prints_every_event_in_order_and_the_outcome_last() {
    let folder = tempfile::tempdir().unwrap();
    let path = shell(folder.path(), "echo hello");
    let done = run(&["run", &path, "--json"]);
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    let printed = text(&done.stdout);
    let lines: Vec<Value> =
        printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (last, events) = lines.split_last().unwrap();
    let numbers: Vec<_> = events.iter().map(|event| event["seq"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
    assert!(events.iter().any(|event| event["event"]["kind"] == "task_pass"));
    assert_eq!(
        (&last["kind"], &last["report"]["outcome"]),
        (&json!("run_finished"), &json!("pass"))
    );
}

#[test]
fn an_interrupt_cancels_everything_children_included() {
    let folder = tempfile::tempdir().unwrap();
    let pids = folder.path().join("pids");
    // The shell, and a grandchild that outlives it unless the whole group is stopped.
    let line = format!("sleep 300 & echo $$ $! > {}; wait", pids.display());
    let path = shell(folder.path(), &line);
    let child = adjutant(&["run", &path]).stderr(Stdio::piped()).spawn().unwrap();
    let written = || std::fs::read_to_string(&pids).ok().filter(|text| text.ends_with('\n'));
    let pids = wait_for("the child to start", written);
    let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    let done = child.wait_with_output().unwrap();
    assert_eq!(done.status.code(), Some(130), "{}", text(&done.stderr));
    for pid in pids.split_whitespace() {
        let gone = || (!is_running(pid)).then_some(());
        wait_for("the child to be gone", gone);
    }
}

/// Whether a process runs; a zombie that nobody has reaped yet does not.
fn is_running(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" Z")))
}

/// Waits for a condition, with a deadline that only a hang reaches.
fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(tokio::time::Instant::now() < deadline, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn schema_and_completions_are_printed() {
    let schema: Value = serde_json::from_slice(&run(&["schema"]).stdout).unwrap();
    assert!(schema["properties"]["flow"].is_object());
    for shell in ["bash", "zsh", "fish"] {
        assert!(text(&run(&["completions", shell]).stdout).contains("adjutant"), "{shell}");
    }
}
