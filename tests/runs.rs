//! Runs that survive their process, as a person sees them: real processes, real kills, and a count
//! of what the children really did.
#![expect(clippy::unwrap_used, reason = "a test fails by a panic, in its helpers too")]
#![cfg(feature = "cli")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use adjutant::store::{SqliteStore, StoreCfg};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Source files that the census counts.
const FILES: usize = 24;

/// A folder with a store, sources, and the census whose children note what they do.
struct Bench {
    folder: TempDir,
}

impl Bench {
    fn new() -> Self {
        let bench = Self { folder: tempfile::tempdir().unwrap() };
        fs::create_dir(bench.path("src")).unwrap();
        for number in 0..FILES {
            fs::write(bench.path(&format!("src/f{number:02}.rs")), "one\ntwo\n").unwrap();
        }
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/blueprints");
        fs::create_dir(bench.path("census")).unwrap();
        for name in ["census.json", "json.awk"] {
            fs::copy(examples.join(name), bench.path(name)).unwrap();
        }
        let log = bench.path("log");
        for step in ["list", "count", "reduce", "write"] {
            let script = fs::read_to_string(examples.join(format!("census/{step}.sh"))).unwrap();
            // The line is written at once, so that children at work do not mix theirs.
            let what = if step == "count" { "count $path" } else { step };
            let (log, hold) = (log.display(), bench.path("hold"));
            let hold = hold.display();
            // While the file `hold` is there, nothing is done beyond the number in it.
            let wait = format!(
                "while [ -e '{hold}' ] && [ $(wc -l < '{log}') -ge $(cat '{hold}') ]; do sleep 0.02; done"
            );
            let note = format!("\nsleep 0.02; {wait}; echo \"{what}\" >> '{log}'\n");
            fs::write(bench.path(&format!("census/{step}.sh")), script + &note).unwrap();
        }
        fs::write(&log, "").unwrap();
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_adjutant"));
        command.args(args).current_dir(self.folder.path()).stdin(Stdio::null());
        command.env("ADJUTANT_STORE", self.path("store")).env_remove("RUST_LOG");
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn adjutant(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    fn census(&self, more: &[&str]) -> Command {
        let input = json!({ "dir": "src", "report": "report.json" }).to_string();
        self.command(&[&["run", "census.json", "--input", &input], more].concat())
    }

    /// What the children did, by line, with how often.
    fn done(&self) -> BTreeMap<String, usize> {
        let mut done = BTreeMap::new();
        for line in fs::read_to_string(self.path("log")).unwrap().lines() {
            *done.entry(line.to_owned()).or_default() += 1;
        }
        done
    }

    /// The one run of the store, with its tasks.
    fn run(&self) -> Value {
        let runs = self.adjutant(&["runs", "--json"]);
        let run: Value = serde_json::from_slice(&runs.stdout).unwrap();
        let shown = self.adjutant(&["show", run["run"].as_str().unwrap(), "--json"]);
        serde_json::from_slice(&shown.stdout).unwrap()
    }

    /// What the steps that passed have noted, by the word of their agent.
    fn passed(&self) -> Vec<String> {
        let run = self.run();
        let tasks = run["tasks"].as_array().unwrap().iter();
        let passed = tasks.filter(|task| task["status"] == "pass");
        let named = passed.filter_map(|task| match task["spec"]["agent"].as_str().unwrap() {
            "count" => Some(format!("count {}", task["spec"]["initial_directive"].as_str()?)),
            "approve" => None,
            agent => Some(agent.to_owned()),
        });
        named.collect()
    }

    /// Starts the census and waits until its children have done so many things, and cannot end.
    fn held_after(&self, lines: usize) -> Child {
        fs::write(self.path("hold"), lines.to_string()).unwrap();
        let child = self.census(&["--answer", "approve=true"]).spawn().unwrap();
        let far = || (self.done().values().sum::<usize>() >= lines).then_some(());
        wait_for("the children to get that far", far);
        child
    }

    /// Starts the census and kills it once its children have done so many things.
    fn killed_after(&self, lines: usize) {
        let mut child = self.held_after(lines);
        child.kill().unwrap();
        child.wait().unwrap();
        fs::remove_file(self.path("hold")).unwrap();
    }
}

/// Waits for a condition, with a deadline that only a hang reaches.
fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(tokio::time::Instant::now() < deadline, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn ok(done: &Output) -> Value {
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    serde_json::from_slice(&done.stdout).unwrap()
}

#[test]
fn the_census_killed_half_way_goes_on_and_repeats_no_passed_step() {
    for lines in [1, 2, FILES / 2, FILES] {
        let bench = Bench::new();
        bench.killed_after(lines);
        let run = bench.run();
        assert_eq!(run["status"], "open", "killed after {lines}");
        let passed = bench.passed();
        assert!(lines < 3 || passed.len() > 1, "killed after {lines}: only {passed:?} passed");
        let printed = ok(&bench.adjutant(&["resume"]));
        assert_eq!(
            (&printed["totals"]["files"], &printed["totals"]["lines"]),
            (&json!(FILES), &json!(2 * FILES))
        );
        let done = bench.done();
        assert_eq!(done.len(), FILES + 3, "{done:?}");
        for step in &passed {
            assert_eq!(done[step], 1, "killed after {lines}: {step} had passed and was repeated");
        }
        let run = bench.run();
        assert_eq!((&run["status"], &run["resumed"]), (&json!("pass"), &json!(1)));
        let fsck = bench.adjutant(&["fsck"]);
        assert_eq!(fsck.status.code(), Some(0), "{}", text(&fsck.stdout));
        assert!(bench.path("report.json").exists());
    }
}

#[test]
fn a_run_killed_again_and_again_comes_to_its_end() {
    let bench = Bench::new();
    bench.killed_after(1);
    let mut kills = 0;
    for round in 1.. {
        let mut child = bench.command(&["resume"]).spawn().unwrap();
        // Any moment will do, and a later one in every round, so that some round comes to the end.
        std::thread::sleep(Duration::from_millis(60 + 40 * round));
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success(), "{}", text(&child.wait_with_output().unwrap().stderr));
            break;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
        if bench.run()["status"] != "open" {
            break;
        }
    }
    let run = bench.run();
    assert_eq!(run["status"], "pass", "after {kills} kills");
    assert_eq!(run["report"]["context"]["totals"]["files"], FILES);
    assert!(bench.adjutant(&["fsck"]).status.success());
}

#[test]
fn a_question_that_nobody_answers_leaves_the_run_open_until_somebody_does() {
    let bench = Bench::new();
    let left = bench.census(&[]).output().unwrap();
    assert_eq!(left.status.code(), Some(4), "{}", text(&left.stderr));
    let said = text(&left.stderr);
    assert!(said.contains("give --answer approve=JSON"), "{said}");
    assert!(said.contains("adjutant resume run-"), "{said}");
    let before = bench.done();
    let again = bench.adjutant(&["resume"]);
    assert_eq!(again.status.code(), Some(4), "{}", text(&again.stderr));
    ok(&bench.adjutant(&["resume", "--answer", "approve=true"]));
    let mut expected = before;
    expected.insert("write".to_owned(), 1);
    assert_eq!(bench.done(), expected);
    let questions = bench.run()["tasks"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|task| task["spec"]["agent"] == "approve")
        .count();
    assert_eq!(questions, 1, "it was asked once");
}

#[test]
fn term_leaves_a_run_open_and_the_next_run_says_so() {
    let bench = Bench::new();
    let mut child = bench.held_after(3);
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(said.any(|line| line.contains("interrupted; stopping")));
    fs::remove_file(bench.path("hold")).unwrap();
    let said: Vec<_> = said.collect();
    let left = child.wait_with_output().unwrap();
    assert_eq!(left.status.code(), Some(4), "{said:?}");
    assert!(said.iter().any(|line| line.contains("the run is open")), "{said:?}");
    let next = bench.command(&[
        "run",
        "census.json",
        "--input",
        "{\"dir\": \"census\"}",
        "--answer",
        "approve=false",
    ]);
    let next = { next }.output().unwrap();
    assert_eq!(next.status.code(), Some(0), "{}", text(&next.stderr));
    assert!(
        text(&next.stderr).contains("an earlier run of census is open"),
        "{}",
        text(&next.stderr)
    );
    ok(&bench.adjutant(&["resume"]));
    for (step, times) in bench.done() {
        assert!(times == 1 || !step.starts_with("count src/"), "{step}: {times} times");
    }
    let nothing = bench.adjutant(&["resume"]);
    assert_eq!(nothing.status.code(), Some(1));
    assert!(text(&nothing.stderr).contains("no run is open"), "{}", text(&nothing.stderr));
}

#[test]
fn a_changed_blueprint_or_input_is_refused_and_named() {
    let bench = Bench::new();
    bench.killed_after(2);
    let script = bench.path("census/count.sh");
    let before = fs::read_to_string(&script).unwrap();
    fs::write(&script, format!("# changed\n{before}")).unwrap();
    let refused = bench.adjutant(&["resume"]);
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused.stderr));
    let said = text(&refused.stderr);
    assert!(said.contains("the blueprint: agents.count.spec.args[1] changed ("), "{said}");
    assert!(said.contains(" -> ") && said.contains("--recorded"), "{said}");
    let other = bench.adjutant(&["resume", "--recorded", "--input", "{\"dir\": \"census\"}"]);
    assert_eq!(other.status.code(), Some(2), "{}", text(&other.stderr));
    let said = text(&other.stderr);
    assert!(
        said.contains("the input: dir changed (") && said.contains("report was removed"),
        "{said}"
    );
    ok(&bench.adjutant(&["resume", "--recorded"]));
    assert_eq!(bench.run()["status"], "pass");
}

#[test]
fn a_run_can_be_given_up() {
    let bench = Bench::new();
    bench.killed_after(2);
    let given_up = bench.adjutant(&["resume", "--give-up"]);
    assert_eq!(given_up.status.code(), Some(0), "{}", text(&given_up.stderr));
    let run = bench.run();
    assert_eq!(run["status"], "cancelled");
    let open = run["tasks"].as_array().unwrap().iter().filter(|task| task["status"] == "running");
    assert_eq!(open.count(), 0);
}

#[test]
fn a_store_is_looked_at_shown_and_exported() {
    let bench = Bench::new();
    ok(&bench.census(&["--answer", "approve=true"]).output().unwrap());
    let run = bench.run();
    let listed = text(&bench.adjutant(&["runs"]).stdout);
    assert!(listed.contains("pass") && listed.contains("28 passed, 0 open"), "{listed}");
    let mut tasks = run["tasks"].as_array().unwrap().iter();
    let task = tasks.find(|task| task["spec"]["agent"] == "list").unwrap();
    let task = task["id"].as_str().unwrap().to_owned();
    let shown = text(&bench.adjutant(&["show", &task]).stdout);
    for part in [
        "agent list",
        "attempt 1 dispatched",
        "attempt 1 ended after",
        "passed: ",
        "by adjutant-run",
    ] {
        assert!(shown.contains(part), "{part} is not in {shown}");
    }
    let shown: Value =
        serde_json::from_slice(&bench.adjutant(&["show", &task[..14], "--json"]).stdout).unwrap();
    assert_eq!(shown["attempts"][0]["attempt"], 1);
    assert_eq!(shown["timeline"][0]["event"]["kind"], "task_created");
    let exported = text(&bench.adjutant(&["export", "--json"]).stdout);
    let lines: Vec<Value> =
        exported.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().any(|line| line["table"] == "runs"));
    assert_eq!(lines.iter().filter(|line| line["table"] == "tasks").count(), FILES + 4);
}

#[test]
fn a_seeded_fault_is_found() {
    let bench = Bench::new();
    ok(&bench.census(&["--answer", "approve=true"]).output().unwrap());
    assert_eq!(bench.adjutant(&["fsck"]).status.code(), Some(0));
    let conn = rusqlite::Connection::open(bench.path("store/store.db")).unwrap();
    let task: String =
        conn.query_row("SELECT key FROM tasks LIMIT 1", [], |row| row.get(0)).unwrap();
    let changed =
        "UPDATE tasks SET image = replace(image, '\"pass\"', '\"running\"') WHERE key = ?1";
    assert_eq!(conn.execute(changed, [&task]).unwrap(), 1);
    drop(conn);
    let found = bench.adjutant(&["fsck"]);
    assert_eq!(found.status.code(), Some(1));
    let said = text(&found.stdout);
    assert!(said.contains(&format!("tasks {task}: ")) && said.contains("NOT SOUND"), "{said}");
    let found = ok_json(&bench.adjutant(&["fsck", "--json"]).stdout);
    assert_eq!(found["sound"], false);
}

fn ok_json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

#[test]
fn without_a_named_store_runs_are_kept_in_the_users_own_place() {
    let bench = Bench::new();
    let own = bench.path("state");
    let at_home = |mut command: Command| {
        command.env_remove("ADJUTANT_STORE").env("XDG_STATE_HOME", &own).output().unwrap()
    };
    let left = at_home(bench.census(&[]));
    assert_eq!(left.status.code(), Some(4), "{}", text(&left.stderr));
    assert!(own.join("adjutant/store-1/store.db").exists());
    ok(&at_home(bench.command(&["resume", "--answer", "approve=true"])));
    // A store has one holder; a second program at the same time takes the next one.
    let held = SqliteStore::open(own.join("adjutant/store-1"), StoreCfg::default()).unwrap();
    ok(&at_home(bench.census(&["--answer", "approve=true"])));
    drop(held);
    let runs = text(&at_home(bench.command(&["runs"])).stdout);
    assert_eq!(runs.lines().filter(|line| line.contains(" pass ")).count(), 2, "{runs}");
    // A place that cannot be used keeps nothing, says so, and stops nobody.
    fs::write(bench.path("file"), "").unwrap();
    let mut command = bench.census(&["--answer", "approve=true"]);
    command.env_remove("ADJUTANT_STORE").env("XDG_STATE_HOME", bench.path("file"));
    let done = command.output().unwrap();
    ok(&done);
    let told = text(&done.stderr);
    assert!(told.contains("nothing is kept: the store at "), "{told}");
}
