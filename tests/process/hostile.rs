//! Children that misbehave, each many times: whatever they do, the call comes back with the
//! right report and nothing of them is left. `ADJUTANT_HOSTILE_ROUNDS` sets how many times.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use adjutant::OutputEvent;
use adjutant::spawner::process::{
    ChildCommand, ChildFault, ChildLimits, ChildReport, ChildSpec, StreamFault, StreamMode,
    run_child,
};
use futures::StreamExt;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::census::{alone, children, eventually, marked, open_descriptors};

const ROUNDS_DEFAULT: usize = 20;
const AT_ONCE: usize = 5;
const WALL: Duration = Duration::from_millis(250);
/// For children that end by themselves: far beyond what they need.
const AMPLE: Duration = Duration::from_secs(20);
/// The longest line or frame.
const LONGEST: usize = 256 * 1024;
const STDOUT_MAX: u64 = 1024 * 1024;
const TAIL_MAX: usize = 1000;

const PASS: &str =
    r#"printf '%s\n' '{"type":"final","content":{"kind":"inline","value":1},"ok":true}'"#;
const FAIL: &str =
    r#"printf '%s\n' '{"type":"final","content":{"kind":"inline","value":1},"ok":false}'"#;

/// A script, what it may take, and what must come of it.
struct Hostile {
    name: &'static str,
    script: String,
    mode: StreamMode,
    wall: Duration,
    fault: Option<ChildFault>,
    check: fn(&ChildReport, &[OutputEvent]),
}

impl Hostile {
    fn new(name: &'static str, script: impl Into<String>) -> Self {
        Self {
            name,
            script: script.into(),
            mode: StreamMode::NdjsonLines,
            wall: AMPLE,
            fault: None,
            check: |_, _| {},
        }
    }

    fn times_out(mut self) -> Self {
        self.wall = WALL;
        self.fault = Some(ChildFault::TimedOut { limit: WALL });
        self
    }

    fn fault(mut self, fault: ChildFault) -> Self {
        self.fault = Some(fault);
        self
    }

    fn mode(mut self, mode: StreamMode) -> Self {
        self.mode = mode;
        self
    }

    fn check(mut self, check: fn(&ChildReport, &[OutputEvent])) -> Self {
        self.check = check;
        self
    }
}

fn hostile() -> Vec<Hostile> {
    let too_long = ChildFault::Stream(StreamFault::TooLong { limit: LONGEST });
    vec![
        Hostile::new("never exits", "sleep 1000")
            .times_out()
            .check(|report, _| assert_eq!(report.status.signal(), Some(15))),
        Hostile::new("leaves a grandchild", format!("sleep 1000 & sleep 1000 & {PASS}"))
            .check(|report, events| assert!(report.ended_well() && events.len() == 1)),
        Hostile::new("floods stdout", "yes")
            .fault(ChildFault::StdoutTooLong { limit: STDOUT_MAX })
            .check(|report, events| {
                assert_eq!((report.skipped, events.len()), (STDOUT_MAX / 2, 0));
            }),
        Hostile::new("floods stderr", "yes >&2")
            .times_out()
            .check(|report, _| assert_eq!(report.stderr_tail.len(), TAIL_MAX)),
        Hostile::new("writes a line without end", "tr '\\0' x </dev/zero").fault(too_long),
        Hostile::new(
            "writes bad UTF-8",
            r#"printf '\377\376\n{"type":"partial","chunk":"\200"}\n'"#,
        )
        .check(|report, events| {
            assert_eq!(events, [OutputEvent::Partial { chunk: "\u{fffd}".into() }]);
            assert_eq!((report.skipped, report.ended_well()), (1, true));
        }),
        Hostile::new("closes stdin early", format!("exec <&-; {PASS}"))
            .check(|report, _| assert!(report.ended_well() && report.final_ok == Some(true))),
        Hostile::new("announces four gigabytes", r"printf '\377\377\377\377'; sleep 1000")
            .mode(StreamMode::LengthPrefixed)
            .fault(too_long),
        Hostile::new("ignores TERM", "trap '' TERM; while :; do sleep 0.05; done")
            .times_out()
            .check(|report, _| assert_eq!(report.status.signal(), Some(9))),
        Hostile::new("exits 0 after it failed", format!("{PASS}; {FAIL}; exit 0")).check(
            |report, events| {
                assert!(report.status.success() && !report.ended_well());
                assert_eq!((report.final_ok, events.len()), (Some(false), 2));
            },
        ),
    ]
}

async fn round(hostile: &Hostile, mark: &str) {
    let mut spec = ChildSpec::new(ChildCommand::shell(&hostile.script));
    spec.mode = Some(hostile.mode);
    spec.set_var("ADJUTANT_MARK", mark);
    let limits = ChildLimits {
        wall: Some(hostile.wall),
        stdout_bytes: STDOUT_MAX,
        longest: LONGEST,
        stderr_tail: TAIL_MAX,
        grace: Duration::from_millis(100),
        ..ChildLimits::default()
    };
    // More than a pipe holds, so that a child that does not read holds the writer up.
    let input = vec![b'p'; 300 * 1024];
    let (sink, mut taken) = mpsc::channel(4);
    let run = run_child(&spec, Some(input), &limits, sink, CancellationToken::new());
    let take = async {
        let mut events = Vec::new();
        while let Some(event) = taken.recv().await {
            events.push(event);
        }
        events
    };
    let both = timeout(AMPLE + AMPLE, async { tokio::join!(run, take) });
    let (report, events) = both.await.unwrap_or_else(|_| panic!("{}: hangs", hostile.name));
    let report = report.unwrap();
    assert_eq!(report.fault, hostile.fault, "{}: {report:?}", hostile.name);
    (hostile.check)(&report, &events);
}

/// The whole table in one test, so that the counts before and after are of the same things.
#[test]
fn no_hostile_child_hangs_or_leaves_anything_behind() {
    alone(async {
        let rounds = std::env::var("ADJUTANT_HOSTILE_ROUNDS");
        let rounds = rounds.map_or(ROUNDS_DEFAULT, |rounds| rounds.parse().unwrap());
        let table = hostile();
        let mark = format!("hostile-{}", std::process::id());
        // What the runtime opens at the first child and keeps is not the children's doing.
        round(&table[0], &mark).await;
        let before = open_descriptors();
        for hostile in &table {
            let rounds = futures::stream::iter(0..rounds).map(|_| round(hostile, &mark));
            rounds.buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
            assert_eq!(marked(&mark), 0, "{}: processes are left", hostile.name);
            assert_eq!(children(), Vec::<char>::new(), "{}: children are left", hostile.name);
            eventually(hostile.name, || open_descriptors() <= before).await;
        }
    });
}

/// The future is dropped at points all along a child's life.
#[test]
fn a_dropped_call_kills_the_group_and_leaves_no_zombie() {
    alone(async {
        let mark = format!("dropped-{}", std::process::id());
        let script = format!("trap '' TERM; sleep 1000 & {PASS}; while :; do sleep 0.01; done");
        let stubborn = Hostile::new("stubborn", script).times_out();
        // What the runtime opens at the first child and keeps is not the children's doing.
        round(&stubborn, &mark).await;
        let before = open_descriptors();
        for at_ms in (0..400).step_by(20) {
            let _ = timeout(Duration::from_millis(at_ms), round(&stubborn, &mark)).await;
        }
        eventually("the groups are dead", || marked(&mark) == 0).await;
        eventually("the children are reaped", || children().is_empty()).await;
        eventually("the pipes are closed", || open_descriptors() <= before).await;
    });
}
