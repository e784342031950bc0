//! Children that behave, and the edges of one run: pipes, limits, cancelling, leaving a group.

use std::time::Duration;

use adjutant::OutputEvent;
use adjutant::spawner::process::{
    ChildCommand, ChildError, ChildFault, ChildLimits, ChildReport, ChildSpec, StreamMode,
    run_child,
};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::census::{alone, children, eventually, marked};

async fn plain(script: &str, input: Option<Vec<u8>>, limits: &ChildLimits) -> ChildReport {
    let spec = ChildSpec::new(ChildCommand::shell(script));
    let (sink, _taken) = mpsc::channel(1);
    let run = run_child(&spec, input, limits, sink, CancellationToken::new());
    timeout(Duration::from_secs(30), run).await.unwrap().unwrap()
}

#[test]
fn all_pipes_move_at_once() {
    alone(async {
        // Echoes more than every pipe holds to both streams while it is still being fed.
        let input: Vec<u8> = b"0123456789abcde\n".repeat(256 * 1024);
        let report = plain("tee /dev/stderr", Some(input.clone()), &ChildLimits::default()).await;
        assert!(report.ended_well(), "{report:?}");
        assert!(report.stdout == input, "{} bytes came back", report.stdout.len());
        assert_eq!(report.stderr_tail, input[input.len() - 64 * 1024..]);
    });
}

#[test]
fn exit_codes_and_arguments_come_through() {
    alone(async {
        let mut spec = ChildSpec::new(ChildCommand::shell("printf '%s' \"$1\"; exit 3"));
        spec.command.push_arg("two words");
        let (sink, _taken) = mpsc::channel(1);
        let cancel = CancellationToken::new();
        let report = run_child(&spec, None, &ChildLimits::default(), sink, cancel).await.unwrap();
        assert_eq!((report.status.code(), &*report.stdout), (Some(3), &b"two words"[..]));
        assert!(!report.ended_well() && report.fault.is_none());
    });
}

#[test]
fn a_plain_flood_is_cut_at_the_limit() {
    alone(async {
        let limits = ChildLimits { stdout_bytes: 100_001, ..ChildLimits::default() };
        let report = plain("yes", None, &limits).await;
        assert_eq!(report.fault, Some(ChildFault::StdoutTooLong { limit: 100_001 }));
        assert_eq!(report.stdout.len(), 100_001);
        assert!(report.truncated());
    });
}

#[test]
fn a_program_that_is_missing_is_an_error_with_its_name() {
    alone(async {
        let spec = ChildSpec::new(ChildCommand::program("no-such-program-here"));
        let (sink, _taken) = mpsc::channel(1);
        let limits = ChildLimits::default();
        let result = run_child(&spec, None, &limits, sink, CancellationToken::new()).await;
        let error = result.unwrap_err();
        assert!(matches!(error, ChildError::Spawn { .. }));
        assert!(error.to_string().contains("no-such-program-here"), "{error}");
    });
}

/// The shell dies at once; the worker under it needs a moment and writes its last words.
#[test]
fn a_cancelled_group_has_its_grace_even_after_its_leader() {
    alone(async {
        let worker =
            r#"trap "sleep 0.1; echo last words; exit 0" TERM; echo up; sleep 1000 & wait"#;
        let spec = ChildSpec::new(ChildCommand::shell(format!("sh -c '{worker}' & wait")));
        let (sink, _taken) = mpsc::channel(1);
        let cancel = CancellationToken::new();
        let limits = ChildLimits { grace: Duration::from_secs(20), ..ChildLimits::default() };
        let run = run_child(&spec, None, &limits, sink, cancel.clone());
        let begun = Instant::now();
        let later = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            cancel.cancel();
        };
        let (report, ()) = tokio::join!(run, later);
        let report = report.unwrap();
        assert_eq!(report.fault, Some(ChildFault::Cancelled));
        assert_eq!(String::from_utf8_lossy(&report.stdout), "up\nlast words\n");
        assert!(begun.elapsed() < Duration::from_secs(15), "the grace ends with the group");
    });
}

#[test]
fn a_slow_taker_holds_the_child_up_and_loses_nothing() {
    alone(async {
        let line = r#"{\"type\":\"partial\",\"chunk\":%d}\n"#;
        let script =
            format!(r#"i=0; while [ $i -lt 5000 ]; do printf "{line}" $i; i=$((i+1)); done"#);
        let mut spec = ChildSpec::new(ChildCommand::shell(script));
        spec.mode = Some(StreamMode::NdjsonLines);
        let limits = ChildLimits { linger: Duration::from_millis(10), ..ChildLimits::default() };
        let (sink, mut taken) = mpsc::channel(1);
        let run = run_child(&spec, None, &limits, sink, CancellationToken::new());
        let take = async {
            let mut count = 0;
            while let Some(event) = taken.recv().await {
                assert_eq!(event, OutputEvent::Partial { chunk: count.into() });
                if count % 1000 == 999 {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                count += 1;
            }
            count
        };
        let (report, count) = tokio::join!(run, take);
        assert!(report.unwrap().ended_well());
        assert_eq!(count, 5000);
    });
}

#[test]
fn a_child_ends_when_nobody_takes_its_events() {
    alone(async {
        let script = r#"printf '{"type":"partial","chunk":1}\n'; sleep 1000"#;
        let mut spec = ChildSpec::new(ChildCommand::shell(script));
        spec.mode = Some(StreamMode::NdjsonLines);
        let (sink, taken) = mpsc::channel(1);
        drop(taken);
        let limits = ChildLimits::default();
        let run = run_child(&spec, None, &limits, sink, CancellationToken::new());
        let report = timeout(Duration::from_secs(20), run).await.unwrap().unwrap();
        assert_eq!(report.fault, Some(ChildFault::SinkClosed));
    });
}

/// A process in a session of its own is out of reach, but holds the call up only for so long.
#[test]
fn a_pipe_held_by_a_process_that_left_the_group_is_given_up() {
    alone(async {
        let mark = format!("left-{}", std::process::id());
        let mut spec = ChildSpec::new(ChildCommand::shell("setsid sleep 3 & echo done"));
        spec.set_var("ADJUTANT_MARK", &mark);
        let limits = ChildLimits { linger: Duration::from_millis(100), ..ChildLimits::default() };
        let (sink, _taken) = mpsc::channel(1);
        let begun = Instant::now();
        let run =
            run_child(&spec, Some(vec![b'x'; 1 << 20]), &limits, sink, CancellationToken::new());
        let report = run.await.unwrap();
        assert!(begun.elapsed() < Duration::from_millis(2500), "{:?}", begun.elapsed());
        assert_eq!((report.fault, &*report.stdout), (None, &b"done\n"[..]));
        eventually("the process that left ends", || marked(&mark) == 0).await;
        assert_eq!(children(), Vec::<char>::new());
    });
}
