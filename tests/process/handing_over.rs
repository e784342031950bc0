//! What a child is given: a cleared environment, its attempt, and credentials that no other
//! process sees.

use adjutant::TaskId;
use adjutant::spawner::process::{
    ChildCommand, ChildError, ChildLimits, ChildSpec, Credentials, run_child,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::census::alone;

const TOKEN: &str = "canary-token";
const HANDLE: &str = "canary-handle";

fn spec(script: &str) -> ChildSpec {
    let task = TaskId::from_bits(7);
    let mut spec = ChildSpec::new(ChildCommand::shell(script));
    spec.for_attempt(&task, 2, "scout");
    spec.credentials = Some(Credentials::new(TOKEN, HANDLE, &task));
    spec
}

async fn stdout(spec: &ChildSpec) -> String {
    let (sink, _taken) = mpsc::channel(1);
    let limits = ChildLimits::default();
    let report = run_child(spec, None, &limits, sink, CancellationToken::new()).await.unwrap();
    assert!(report.ended_well(), "{report:?}: {}", String::from_utf8_lossy(&report.stderr_tail));
    String::from_utf8(report.stdout).unwrap()
}

#[test]
fn credentials_come_by_a_pipe_that_ends() {
    alone(async {
        let got = stdout(&spec("eval \"cat <&$ADJUTANT_CREDENTIALS_FD\"")).await;
        let object: serde_json::Value = serde_json::from_str(&got).unwrap();
        let expected = serde_json::json!({
            "token": TOKEN, "handle": HANDLE, "task_id": TaskId::from_bits(7),
        });
        assert_eq!(object, expected);
    });
}

#[test]
fn the_environment_is_the_allow_list_and_the_attempt() {
    alone(async {
        // Cargo sets variables for its tests, which makes them ones that a child must not see.
        assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
        let got = stdout(&spec("exec env")).await;
        assert!(!got.contains("canary"), "{got}");
        for line in ["ADJUTANT_ATTEMPT=2", "ADJUTANT_AGENT=scout", "ADJUTANT_CREDENTIALS_FD=3"] {
            assert!(got.lines().any(|found| found == line), "{line} in {got}");
        }
        let allowed =
            ["PATH", "HOME", "LANG", "TZ", "TMPDIR", "USER", "LOGNAME", "PWD", "SHLVL", "_"];
        for name in got.lines().filter_map(|line| Some(line.split_once('=')?.0)) {
            let known = allowed.contains(&name) || name.starts_with("LC_");
            assert!(known || name.starts_with("ADJUTANT_"), "{name} is inherited");
        }
    });
}

/// Many children start at the same time; none inherits another's pipe.
#[test]
fn no_child_inherits_a_pipe_of_another() {
    alone(async {
        // This process may have been started with pipes open that are nobody's secret.
        let table = std::fs::read_dir("/proc/self/fd").unwrap();
        let links = table.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
        let known: Vec<String> = links.map(|link| link.display().to_string()).collect();
        let with = spec("ls -l /proc/$$/fd");
        let mut without = with.clone();
        without.credentials = None;
        let start = |i: usize| {
            let (expected, spec) =
                if i.is_multiple_of(2) { (1, with.clone()) } else { (0, without.clone()) };
            tokio::spawn(async move { (expected, stdout(&spec).await) })
        };
        for run in (0..40).map(start).collect::<Vec<_>>() {
            let (expected, got) = run.await.unwrap();
            let open = got.lines().filter_map(|line| line.split_once(" -> "));
            let beyond = open.filter(|(head, link)| {
                let standard = [" 0", " 1", " 2"].iter().any(|number| head.ends_with(number));
                !standard && link.starts_with("pipe:") && !known.iter().any(|own| own == link)
            });
            assert_eq!(beyond.count(), expected, "{got}");
        }
    });
}

#[test]
fn credentials_that_no_pipe_holds_are_refused() {
    alone(async {
        let mut spec = spec("true");
        let task = TaskId::from_bits(7);
        spec.credentials = Some(Credentials::new(&"x".repeat(5000), HANDLE, &task));
        let (sink, _taken) = mpsc::channel(1);
        let limits = ChildLimits::default();
        let error =
            run_child(&spec, None, &limits, sink, CancellationToken::new()).await.unwrap_err();
        assert!(matches!(error, ChildError::CredentialsTooLong), "{error}");
    });
}
