//! The verbs that ask a running server, and its end, with the program itself on both sides.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::desk::LONG;

fn program(store: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_adjutant"));
    command.args(args).env("ADJUTANT_STORE", store).stdin(Stdio::null());
    for name in ["RUST_LOG", "ADJUTANT_SERVER", "ADJUTANT_TOKEN_FILE", "ADJUTANT_CONFIG"] {
        command.env_remove(name);
    }
    command.env("XDG_CONFIG_HOME", store.join("no-settings"));
    command
}

/// Asks the server of a store.
fn ask(store: &Path, args: &[&str]) -> Output {
    program(store, args).output().unwrap()
}

fn json_of(output: &Output) -> Value {
    let error = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?} {error}"))
}

/// A server in a process of its own; killed when dropped.
struct Served {
    child: Child,
    base: String,
    store: PathBuf,
    log: Option<std::process::ChildStderr>,
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Served {
    fn start(store: &Path, more: &[&str]) -> Self {
        let mut args = vec!["serve", "--program", "sh"];
        for [flag, value] in [["--linger", "0"], ["--listen", "127.0.0.1:0"]] {
            if !more.contains(&flag) {
                args.extend([flag, value]);
            }
        }
        args.extend(more);
        let mut command = program(store, &args);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut base = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut base).unwrap();
        let log = child.stderr.take();
        Self { child, base: base.trim().to_owned(), store: store.to_owned(), log }
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }

    /// Waits for its end, and gives the exit code.
    fn ended(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    async fn post(&self, path: &str, body: &Value) -> Value {
        let admin = std::fs::read_to_string(self.store.join("admin-token")).unwrap();
        let ask = reqwest::Client::new().post(format!("{}{path}", self.base));
        let answer = ask.bearer_auth(admin.trim()).json(body).timeout(LONG).send().await.unwrap();
        assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
        answer.json().await.unwrap()
    }

    /// Starts a run of one agent.
    async fn run(&self, agent: &Value) -> String {
        let blueprint = crate::desk::one_step(agent);
        let body = json!({ "blueprint": blueprint, "input": { "x": "go on?" } });
        let run = self.post("/v1/runs", &body).await;
        run["run_id"].as_str().unwrap().to_owned()
    }

    async fn run_stands(&self, run: &str, status: &str) {
        let admin = std::fs::read_to_string(self.store.join("admin-token")).unwrap();
        let begun = Instant::now();
        loop {
            let ask = reqwest::Client::new().get(format!("{}/v1/runs/{run}", self.base));
            let shown: Value =
                ask.bearer_auth(admin.trim()).send().await.unwrap().json().await.unwrap();
            if shown["status"] == status {
                return;
            }
            assert!(begun.elapsed() < LONG, "{shown}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

fn asks() -> Value {
    json!({ "name": "ask", "kind": "ask", "spec": {} })
}

fn shell(line: &str) -> Value {
    json!({ "name": "s", "kind": "subprocess", "spec": { "shell": line } })
}

fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    (folder, store)
}

#[tokio::test]
async fn a_question_is_listed_and_answered_from_the_command_line() {
    let (_folder, store) = folder();
    let served = Served::start(&store, &[]);
    let run = served.run(&asks()).await;
    served.run_stands(&run, "waiting").await;
    let listed = json_of(&ask(&store, &["questions", "--json"]));
    assert_eq!(listed["question"], "go on?");
    let wrong = ask(&store, &["answer", "R-nothing", "yes"]);
    assert_eq!(wrong.status.code(), Some(3));
    let told = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert!(told.contains("no open question begins with R-nothing"), "{told}");
    let key = listed["key"].as_str().unwrap();
    let answered = ask(&store, &["answer", &key[..8], "{\"yes\": 1}", "--json"]);
    assert_eq!(json_of(&answered)["answer"], json!({ "yes": 1 }));
    served.run_stands(&run, "pass").await;
    assert_eq!(ask(&store, &["answer"]).status.code(), Some(3));
}

#[tokio::test]
async fn a_run_is_cancelled_by_its_id_and_others_are_not_there() {
    let (_folder, store) = folder();
    let served = Served::start(&store, &[]);
    let run = served.run(&asks()).await;
    served.run_stands(&run, "waiting").await;
    let cancelled = ask(&store, &["cancel", &run, "--json"]);
    assert_eq!(
        (cancelled.status.code(), &json_of(&cancelled)["cancelled"]),
        (Some(0), &json!(run))
    );
    served.run_stands(&run, "cancelled").await;
    let absent = format!("run-{:032x}", 7);
    let told = ask(&store, &["cancel", &absent, "--json"]);
    assert_eq!(told.status.code(), Some(3));
    let problem: Value = serde_json::from_slice(&told.stderr).unwrap();
    assert_eq!(problem["code"], "run_not_found");
}

#[tokio::test]
async fn top_shows_what_waits_once_and_as_json() {
    let (_folder, store) = folder();
    let served = Served::start(&store, &[]);
    let run = served.run(&asks()).await;
    served.run_stands(&run, "waiting").await;
    let shown = json_of(&ask(&store, &["top", "--once", "--json"]));
    assert_eq!(shown["questions"][0]["question"], "go on?");
    assert_eq!(shown["metrics"]["live_runs"], 1.0);
    assert_eq!(shown["metrics"]["suspended_tasks"], 1.0);
    assert!(shown["metrics"]["commit_seconds_count"].as_f64().unwrap() > 0.0, "{shown}");
    let text = ask(&store, &["top"]);
    let text = String::from_utf8_lossy(&text.stdout);
    assert!(text.contains("WAITING FOR A HUMAN (1)") && text.contains("go on?"), "{text}");
}

#[test]
fn without_a_server_the_verbs_say_so_and_the_doctor_works() {
    let (_folder, store) = folder();
    std::fs::create_dir(&store).unwrap();
    for verb in [&["questions"][..], &["top", "--once"], &["cancel", "T-1"], &["events"]] {
        let told = ask(&store, verb);
        assert_eq!(told.status.code(), Some(7), "{verb:?} {told:?}");
    }
    let file = store.join("token");
    std::fs::write(&file, "adm-x").unwrap();
    let named = ["questions", "--server", "http://127.0.0.1:9", "--token-file"];
    let named = [&named[..], &[file.to_str().unwrap()]].concat();
    // Others may read the file, so its token is not sent.
    assert_eq!(ask(&store, &named).status.code(), Some(2));
    assert!(Command::new("chmod").arg("600").arg(&file).status().unwrap().success());
    assert_eq!(ask(&store, &named).status.code(), Some(7));
}

#[tokio::test]
async fn the_doctor_looks_at_the_store_and_at_the_server() {
    let (_folder, store) = folder();
    let mut served = Served::start(&store, &["--set", "limits.live_tasks=77"]);
    let report = ask(&store, &["doctor", "--json"]);
    assert_eq!(report.status.code(), Some(0), "{report:?}");
    let report = json_of(&report);
    let places = report["places"].as_array().unwrap();
    assert_eq!(places.len(), 3, "{report}");
    let checks = |place: &Value| -> Vec<String> {
        let findings = place["findings"].as_array().unwrap().iter();
        findings.map(|finding| finding["check"].as_str().unwrap().to_owned()).collect()
    };
    for check in ["version", "disk", "fsync", "descriptors", "clock", "questions", "operators"] {
        assert!(checks(&places[2]).contains(&check.to_owned()), "{check}: {report}");
    }
    let settings = places[2]["settings"].as_array().unwrap();
    let set = settings.iter().find(|setting| setting["key"] == "limits.live_tasks").unwrap();
    assert_eq!((&set["value"], &set["origin"]), (&json!(77), &json!("--set limits.live_tasks")));
    let lock = places[1]["findings"][0]["found"].as_str().unwrap();
    assert_eq!(lock, format!("held by process {}", served.child.id()));
    served.signal("-TERM");
    assert_eq!(served.ended(), Some(0));
    let offline = json_of(&ask(&store, &["doctor", "--json"]));
    assert_eq!(offline["places"].as_array().unwrap().len(), 2, "{offline}");
    assert_eq!(offline["places"][1]["findings"][0]["found"], "nobody holds it");
}

/// Lines of a child, as they come.
fn lines(stdout: ChildStdout) -> tokio::sync::mpsc::UnboundedReceiver<Value> {
    let (tell, told) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let _ = tell.send(serde_json::from_str(&line).unwrap());
        }
    });
    told
}

#[tokio::test]
async fn events_are_followed_through_a_kill_of_the_server_without_a_gap_or_a_double() {
    let (_folder, store) = folder();
    let mut served = Served::start(&store, &[]);
    let follow = ["events", "--follow", "--json", "--after", "0", "--server", &served.base];
    let mut follower = program(&store, &follow);
    let mut follower = follower.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut seen = lines(follower.stdout.take().unwrap());
    let first = served.run(&asks()).await;
    served.run_stands(&first, "waiting").await;
    let (mut numbers, mut ends) = (Vec::new(), 0);
    let mut next = async |numbers: &mut Vec<u64>| {
        let line = tokio::time::timeout(LONG, seen.recv()).await.unwrap().unwrap();
        numbers.push(line["seq"].as_u64().unwrap_or_else(|| panic!("{line}")));
        line["event"]["kind"].as_str().unwrap().to_owned()
    };
    while next(&mut numbers).await != "senior_queried" {}
    served.child.kill().unwrap();
    served.ended();
    let address = served.base.strip_prefix("http://").unwrap().to_owned();
    let served = Served::start(&store, &["--listen", &address]);
    let second = served.run(&shell("echo done")).await;
    served.run_stands(&second, "pass").await;
    while ends == 0 {
        ends += u32::from(next(&mut numbers).await == "task_pass");
    }
    let expected: Vec<u64> = (1..=numbers.len() as u64).collect();
    assert_eq!(numbers, expected);
    let _ = follower.kill();
    let _ = follower.wait();
    // Without --follow it ends with what is there.
    let all = ask(&store, &["events", "--json"]);
    assert_eq!(all.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&all.stdout).lines().count() >= numbers.len());
}

/// Whether a process runs. One that is dead and not yet reaped by its new parent does not.
fn is_there(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

#[tokio::test]
async fn term_is_shown_within_a_second_and_leaves_no_child_behind() {
    let (folder, store) = folder();
    let mut served = Served::start(&store, &["--grace", "2"]);
    let pids = folder.path().join("pids");
    // A child of a child that both ignore the request to end.
    let line = "trap '' TERM; (trap '' TERM; echo $$ >> PIDS; while :; do sleep 1; done) & \
                echo $! >> PIDS; while :; do sleep 1; done";
    let line = line.replace("PIDS", pids.to_str().unwrap());
    served.run(&shell(&line)).await;
    let begun = Instant::now();
    let found = loop {
        let text = std::fs::read_to_string(&pids).unwrap_or_default();
        if text.lines().count() == 2 {
            break text;
        }
        assert!(begun.elapsed() < LONG);
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert!(found.lines().all(is_there), "{found}");
    served.signal("-TERM");
    let asked = Instant::now();
    let client = reqwest::Client::new();
    while let Ok(ready) = client.get(format!("{}/readyz", served.base)).send().await
        && ready.status() != 503
    {
        assert!(asked.elapsed() < Duration::from_secs(1), "still ready");
    }
    assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    assert_eq!(served.ended(), Some(0));
    assert!(!found.lines().any(is_there), "{found}");
    assert!(!store.join("server.json").exists());
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let (_folder, store) = folder();
    let mut served = Served::start(&store, &["--linger", "600"]);
    served.signal("-TERM");
    let begun = Instant::now();
    loop {
        let ready = reqwest::get(format!("{}/readyz", served.base)).await.unwrap();
        if ready.status() == 503 {
            break;
        }
        assert!(begun.elapsed() < LONG);
    }
    served.signal("-TERM");
    assert_eq!(served.ended(), Some(130));
}

#[tokio::test]
async fn the_log_is_lines_of_json_with_the_route_and_without_ids() {
    let (_folder, store) = folder();
    let mut served = Served::start(&store, &["--log", "json", "--log-level", "info"]);
    let url = format!("{}/v1/tasks/T-{:032x}", served.base, 7);
    assert_eq!(reqwest::get(url).await.unwrap().status(), 401);
    served.signal("-TERM");
    assert_eq!(served.ended(), Some(0));
    let mut log = String::new();
    served.log.take().unwrap().read_to_string(&mut log).unwrap();
    let lines: Vec<Value> =
        log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let line = lines.iter().find(|line| line["message"] == "answered").unwrap();
    assert_eq!((&line["status"], &line["code"]), (&json!(401), &json!("unauthenticated")));
    assert_eq!(line["span"]["http.route"], "/v1/tasks/{id}");
    assert!(!log.contains("000007"), "{log}");
}

#[test]
fn settings_are_shown_with_their_origins_and_a_mistake_is_told() {
    let (folder, store) = folder();
    let file = folder.path().join("settings.toml");
    std::fs::write(&file, "[otlp]\nheaders = \"a=hush\"\n[server]\nstreams = 5\n").unwrap();
    let file = file.to_str().unwrap();
    let mut show = program(&store, &["config", "show", "--json", "--config", file]);
    let shown = json_of(&show.env("ADJUTANT_GRACE_SECS", "9").output().unwrap());
    let of = |key: &str| {
        let all = shown["settings"].as_array().unwrap();
        let found = all.iter().find(|setting| setting["key"] == key).unwrap();
        (found["value"].clone(), found["origin"].clone())
    };
    assert_eq!(of("server.streams"), (json!(5), json!(file)));
    assert_eq!(of("server.grace_secs"), (json!(9), json!("ADJUTANT_GRACE_SECS")));
    assert_eq!(of("server.listen"), (json!("127.0.0.1:7777"), json!("default")));
    assert_eq!(of("otlp.headers").0, "(hidden)");
    assert!(!shown.to_string().contains("hush"));
    let mistakes = [
        (&["serve", "--set", "server.straems=1"][..], "the nearest one is server.streams"),
        (&["serve", "--listen", "0.0.0.0:0"], "0.0.0.0:0 is not loopback"),
        (&["cancel", "run 1"], "an id has letters, digits and `-`"),
    ];
    for (args, why) in mistakes {
        let told = ask(&store, args);
        assert_eq!(told.status.code(), Some(2), "{args:?}");
        let told = String::from_utf8_lossy(&told.stderr).into_owned();
        assert!(told.contains(why), "{told}");
    }
}

#[test]
fn a_server_whose_place_for_stores_cannot_be_used_says_why_it_ends() {
    let (folder, store) = folder();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let mut serve = program(&store, &["serve", "--listen", "127.0.0.1:0"]);
    serve.env_remove("ADJUTANT_STORE").env("XDG_STATE_HOME", &file);
    let ended = serve.output().unwrap();
    assert_eq!(ended.status.code(), Some(1));
    let told = String::from_utf8_lossy(&ended.stderr).into_owned();
    let why = format!("nothing is kept: the store at {}", file.join("adjutant").display());
    assert!(told.contains(&why) && told.contains("--admin-token-file"), "{told}");
}
