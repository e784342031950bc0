//! The example blueprints, run with real children under the flow crate's own evaluator.
//!
//! What is tested here are the documents and their scripts, without the engine: a few lines of
//! dispatcher start the child of each step by the rules of plain output.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::cell::RefCell;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use adjutant::blueprint::{AgentSpec, Blueprint, Known, check_file, json_schema};
use mlua_flow_ir::EvalError;
use serde_json::{Value, json};

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/blueprints").join(name)
}

/// Starts the child of a subprocess agent and reads its output as plain output.
fn run_child(spec: &adjutant::blueprint::SubprocessSpec, input: &Value) -> Result<Value, String> {
    let mut command = match (&spec.program, &spec.shell) {
        (Some(program), _) => Command::new(program),
        (None, line) => {
            let mut command = Command::new("sh");
            command.args(["-c", line.as_deref().unwrap(), "sh"]);
            command
        }
    };
    let input = input.as_str().map_or_else(|| input.to_string(), str::to_owned);
    let piped = Stdio::piped;
    let mut child =
        command.args(&spec.args).stdin(piped()).stdout(piped()).stderr(piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let feeder = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    // A child may leave without reading; that is its own affair.
    let _ = feeder.join().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let value = serde_json::from_str(stdout.trim())
        .unwrap_or_else(|_| json!({"raw": stdout, "stderr": stderr}));
    if output.status.success() { Ok(value) } else { Err(value.to_string()) }
}

/// Runs an example; every question gets `answer`. Gives the outcome and the refs of its steps.
fn run(name: &str, input: Value, answer: &Value) -> (Result<Value, String>, Vec<String>) {
    let (blueprint, warnings) = check_file(&example(name), &Known::default()).unwrap();
    assert_eq!(warnings, []);
    let steps = RefCell::new(Vec::new());
    let dispatch = |reference: &str, input: Value| {
        steps.borrow_mut().push(reference.to_owned());
        match spec_of(&blueprint, reference) {
            AgentSpec::Subprocess(spec) => run_child(&spec, &input)
                .map_err(|msg| EvalError::DispatcherError { ref_: reference.to_owned(), msg }),
            _ => Ok(answer.clone()),
        }
    };
    let outcome = mlua_flow_ir::eval(&blueprint.flow, input, &dispatch);
    (outcome.map_err(|error| error.to_string()), steps.into_inner())
}

fn spec_of(blueprint: &Blueprint, name: &str) -> AgentSpec {
    let agent = blueprint.agent(name).unwrap();
    agent.typed_spec(&blueprint.kind_of(agent, None)).unwrap()
}

/// A folder with names that break careless scripts.
fn sources() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("a b.rs", "one\ntwo\n");
    write("quo\"te.rs", concat!("// TO", "DO and FIX", "ME\nno end of line"));
    write("back\\slash.py", "");
    write("new\nline.c", "x\n");
    write("-dash.sh", "tab\there\n");
    write("deep/\u{e9}t\u{e9}.rs", &format!("{}\n", "y".repeat(300)));
    write("a=b.rs", "\n");
    write("target/out.rs", "built\n");
    write(".hidden/no.rs", "hidden\n");
    write("notes.txt", "no source\n");
    folder
}

#[test]
fn the_census_counts_every_source_file_and_writes_the_approved_report() {
    let folder = sources();
    let report = folder.path().join("the report.json");
    let input = json!({"dir": folder.path(), "report": report});
    let (outcome, steps) = run("census.json", input, &json!(true));
    let census = outcome.unwrap();
    let deep = folder.path().join("deep/\u{e9}t\u{e9}.rs");
    assert_eq!(
        census["totals"],
        json!({"files": 7, "lines": 8, "todo": 2, "longest_line": 300, "longest_in": deep})
    );
    let row = |name: &str| {
        let path = json!(folder.path().join(name));
        census["files"].as_array().unwrap().iter().find(|row| row["path"] == path).unwrap().clone()
    };
    assert_eq!((&row("quo\"te.rs")["lines"], &row("quo\"te.rs")["todo"]), (&json!(2), &json!(2)));
    assert_eq!(row("new\nline.c")["lines"], 1);
    assert_eq!(row("back\\slash.py")["longest_line"], 0);
    assert_eq!(row("-dash.sh")["longest_line"], 8);
    assert_eq!(census["written"]["path"], json!(report));
    let written: Value = serde_json::from_str(&fs::read_to_string(&report).unwrap()).unwrap();
    assert_eq!(written["totals"], census["totals"]);
    assert_eq!(written["files"], census["files"]);
    assert_eq!(steps.iter().filter(|step| *step == "count").count(), 7);
}

#[test]
fn a_census_that_is_not_approved_is_not_written() {
    let folder = sources();
    let report = folder.path().join("report.json");
    let input = json!({"dir": folder.path(), "report": report});
    let (outcome, steps) = run("census.json", input, &json!("not yet"));
    assert_eq!(outcome.unwrap()["written"], Value::Null);
    assert!(!steps.contains(&"write".to_owned()) && !report.exists());
}

#[test]
fn an_empty_directory_has_an_empty_census_and_a_missing_one_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let input = |dir: &Path| json!({"dir": dir, "report": folder.path().join("r.json")});
    let (outcome, _) = run("census.json", input(folder.path()), &json!(true));
    assert_eq!(outcome.unwrap()["files"], json!([]));
    let (outcome, steps) = run("census.json", input(&folder.path().join("none")), &json!(true));
    assert!(outcome.is_err());
    assert_eq!(steps, ["list"]);
}

#[test]
fn the_verdict_loop_ends_when_the_checker_passes() {
    let text = "The quick brown fox, the lazy dog; \"the\" Extraordinarily lazy dog \\ fox!";
    let (outcome, steps) = run("verdict-loop.json", json!({"text": text, "limit": 40}), &json!(0));
    let context = outcome.unwrap();
    assert_eq!(context["list"], "brown\ndog\nfox\nlazy\nquick\nthe");
    // One word a line, lower case, order, repeats, size: five directives, five tries.
    assert_eq!(context["tries"], 5);
    assert_eq!(steps.len(), 10);
}

#[test]
fn the_verdict_loop_gives_up_at_its_limit() {
    let (outcome, steps) = run("verdict-loop.json", json!({"text": "a b", "limit": 0}), &json!(0));
    assert!(outcome.unwrap_err().contains("the list is empty"));
    assert_eq!(steps.len(), 17);
    assert_eq!(steps.last().unwrap(), "give-up");
}

#[test]
fn the_examples_fit_the_schema() {
    let validator = jsonschema::validator_for(&json_schema()).unwrap();
    for name in ["census.json", "verdict-loop.json"] {
        let document = serde_json::from_str(&fs::read_to_string(example(name)).unwrap()).unwrap();
        let faults: Vec<_> = validator.iter_errors(&document).map(|e| e.to_string()).collect();
        assert!(faults.is_empty(), "{name}: {faults:#?}");
    }
}
