//! The process spawner under a real engine: verdicts, credentials, cancellation.

use std::sync::Arc;
use std::time::Duration;

use adjutant::{
    CapToken, DispatchOptions, DispatchOutcome, Engine, EngineCfg, EngineError, OutputEvent,
    ProcessSpawner, Role, SpawnerAdapter, StreamMode, TaskId, TaskSpec, TaskStatus,
};
use serde_json::{Value, json};

use crate::census::alone;

struct World {
    engine: Engine,
    operator: CapToken,
}

impl World {
    async fn new() -> Self {
        let cfg = EngineCfg { cancel_grace: Duration::from_millis(400), ..EngineCfg::default() };
        let engine = Engine::new(cfg);
        let hour = Duration::from_secs(3600);
        let operator = engine.attach("operator", Role::Operator, hour).await.unwrap();
        Self { engine, operator }
    }

    async fn start(&self) -> TaskId {
        self.engine.start_task(&self.operator, TaskSpec::new("child", "the prompt")).await.unwrap()
    }

    async fn run(&self, spawner: ProcessSpawner) -> Result<DispatchOutcome, EngineError> {
        let task = self.start().await;
        let spawner: Arc<dyn SpawnerAdapter> = Arc::new(spawner);
        self.engine.dispatch_attempt_with(&self.operator, &task, &spawner).await
    }
}

fn shell(line: &str) -> ProcessSpawner {
    ProcessSpawner::run(line)
}

#[test]
fn plain_output_is_json_or_raw_and_the_exit_code_decides() {
    alone(async {
        let world = World::new().await;
        let pass = world.run(shell("printf ' {\"a\": 1}\\n'")).await.unwrap();
        assert_eq!(pass, DispatchOutcome::Pass(json!({ "a": 1 })));
        let raw = world.run(shell("cat; echo why >&2")).await.unwrap();
        assert_eq!(raw, DispatchOutcome::Pass(json!({ "raw": "the prompt", "stderr": "why" })));
        let blocked = world.run(shell("echo 7; exit 3")).await.unwrap();
        assert_eq!(blocked, DispatchOutcome::Blocked(json!(7)));
    });
}

#[test]
fn the_prompt_is_an_argument_where_stdin_is_not_used() {
    alone(async {
        let world = World::new().await;
        let spawner = ProcessSpawner::new("printf").arg("[\"%s\"]").use_stdin(false);
        assert_eq!(world.run(spawner).await.unwrap(), DispatchOutcome::Pass(json!(["the prompt"])));
    });
}

#[test]
fn a_stream_is_sent_on_and_needs_a_passing_final_and_exit_zero() {
    alone(async {
        let world = World::new().await;
        let last = r#"{"type":"final","content":{"kind":"inline","value":"done"},"ok":true}"#;
        let line = format!(r#"echo '{{"type":"progress","stage":"one"}}'; echo '{last}'"#);
        let ndjson = |line: String| shell(&line).stream_mode(StreamMode::NdjsonLines);
        let pass = world.run(ndjson(line.clone())).await.unwrap();
        assert_eq!(pass, DispatchOutcome::Pass(json!("done")));
        let late = world.run(ndjson(format!("{line}; exit 4"))).await.unwrap();
        let DispatchOutcome::Blocked(value) = late else { panic!("{late:?}") };
        assert_eq!(value["exit_code"], 4);
        let none = world.run(ndjson("echo nothing".to_owned())).await.unwrap();
        let DispatchOutcome::Blocked(value) = none else { panic!("{none:?}") };
        assert_eq!((&value["exit_success"], &value["skipped"]), (&json!(true), &json!(1)));
        let refused = last.replace("true", "false");
        let refused = world.run(ndjson(format!("echo '{refused}'; exit 0"))).await.unwrap();
        assert_eq!(refused, DispatchOutcome::Blocked(json!("done")));
    });
}

#[test]
fn the_other_stream_modes_carry_the_same_events() {
    alone(async {
        let world = World::new().await;
        let last = r#"{"type":"final","content":{"kind":"inline","value":5},"ok":true}"#;
        let sse = format!("printf 'event: x\\ndata: %s\\n\\n' '{last}'");
        let framed = format!("printf '\\000\\000\\000\\{:03o}%s' '{last}'", last.len());
        for (line, mode) in [(sse, StreamMode::SseEvents), (framed, StreamMode::LengthPrefixed)] {
            let outcome = world.run(shell(&line).stream_mode(mode)).await.unwrap();
            assert_eq!(outcome, DispatchOutcome::Pass(json!(5)), "{mode:?}");
        }
    });
}

#[test]
fn credentials_come_by_a_pipe_and_end_with_the_attempt() {
    alone(async {
        let world = World::new().await;
        let line = r#"printf '{"given": %s, "environment": "' "$(cat <&"$ADJUTANT_CREDENTIALS_FD")"
        env | tr '"\\\n' '   '; printf '"}'"#;
        let outcome = world.run(shell(line)).await.unwrap();
        let DispatchOutcome::Pass(value) = outcome else { panic!("{outcome:?}") };
        let (token, handle) = (text(&value["given"]["token"]), text(&value["given"]["handle"]));
        let environment = text(&value["environment"]);
        assert!(environment.contains("ADJUTANT_TASK_ID"), "{environment}");
        assert!(!environment.contains(token) && !environment.contains(handle));
        let token = CapToken::decode(token).unwrap();
        assert_eq!(world.engine.task_id_from_token(&token).await, Err(EngineError::TokenRevoked));
        assert!(world.engine.task_id_from_handle(handle).await.is_err());
    });
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

#[test]
fn a_program_that_is_not_there_is_named() {
    alone(async {
        let world = World::new().await;
        let error = world.run(ProcessSpawner::new("/no/such/program")).await.unwrap_err();
        assert!(error.to_string().contains("/no/such/program"), "{error}");
    });
}

#[test]
fn cancelling_the_task_ends_the_whole_group() {
    alone(async {
        let world = World::new().await;
        let (engine, operator) = (world.engine.clone(), world.operator.clone());
        let task = world.start().await;
        // Ignores TERM, as does its grandchild; tells its pids as an event once both run.
        let line =
            r#"trap '' TERM; sleep 300 & echo '{"type":"partial","chunk":"'$$ $!'"}'; wait; wait"#;
        let spawner: Arc<dyn SpawnerAdapter> =
            Arc::new(shell(line).stream_mode(StreamMode::NdjsonLines));
        let mut feed = engine.event_feed(0).await.unwrap();
        let dispatch = {
            let (engine, operator) = (engine.clone(), operator.clone());
            tokio::spawn(
                async move { engine.dispatch_attempt_with(&operator, &task, &spawner).await },
            )
        };
        let pids = loop {
            if let Some(adjutant::Delivery::Record(record)) = feed.next().await
                && let adjutant::Event::WorkerOutput {
                    event: OutputEvent::Partial { chunk }, ..
                } = record.event
            {
                break text(&chunk).to_owned();
            }
        };
        engine.cancel_task(&operator, &task).await.unwrap();
        assert_eq!(dispatch.await.unwrap().unwrap(), DispatchOutcome::Cancelled);
        for pid in pids.split(' ') {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            assert!(stat.is_empty() || stat.contains(") Z"), "{pid} still runs: {stat}");
        }
        let state = engine.read_task_state(&operator, &task).await.unwrap();
        assert_eq!(state.status, TaskStatus::Cancelled);
    });
}

#[test]
fn hostile_children_are_blocked_within_their_limits() {
    alone(async {
        let world = World::new().await;
        let limit = Duration::from_millis(300);
        let small = |line| shell(line).max_stdout_bytes(100_000).time_limit(limit);
        let cases = [
            ("never exits", small("sleep 300"), "not done within"),
            ("floods stdout", small("yes"), "more than"),
            ("floods stderr", small("yes >&2"), "not done within"),
            (
                "huge length prefix",
                small("printf '\\377\\377\\377\\377x'; sleep 300")
                    .stream_mode(StreamMode::LengthPrefixed),
                "longer",
            ),
        ];
        for (name, spawner, said) in cases {
            let error = world.run(spawner).await.unwrap_err();
            let EngineError::DispatchFailed(reason) = &error else { panic!("{name}: {error}") };
            assert!(reason.contains(said), "{name}: {reason}");
        }
    });
}

#[test]
fn the_attempts_time_out_ends_the_child() {
    alone(async {
        let world = World::new().await;
        let task = world.start().await;
        let spawner: Arc<dyn SpawnerAdapter> = Arc::new(shell("sleep 300"));
        let options = DispatchOptions {
            timeout: Some(Duration::from_millis(200)),
            ..DispatchOptions::default()
        };
        let outcome =
            world.engine.dispatch_with(&world.operator, &task, &spawner, options).await.unwrap();
        assert_eq!(outcome, DispatchOutcome::Timeout);
    });
}
