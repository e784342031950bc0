//! Runs that are kept: what is resumed, what is not done again, what is refused.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use adjutant::blueprint::{
    Blueprint, Functions, Program, RunOptions, RunOutcome, RunReport, compile, resume, run,
};
use adjutant::{
    CancellationToken, Engine, EngineCfg, EngineError, LongHoldConfig, ResumeKey, Role, RunId,
    RunStatus, SeniorBridge, TaskId, TaskStatus, WorkerInvocation, WorkerResult, async_trait,
};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::world::{LONG, calm, eventually};

/// An engine, and functions that note their calls. A call that says `wait` waits for a permit.
struct Bench {
    engine: Engine,
    functions: Functions,
    calls: Arc<Mutex<Vec<String>>>,
    gate: Arc<Semaphore>,
    id: RunId,
}

impl Bench {
    fn new() -> Self {
        Self::with(calm())
    }

    fn with(cfg: EngineCfg) -> Self {
        let engine = Engine::new(cfg);
        let (calls, gate) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Semaphore::new(0)));
        let (noted, door) = (calls.clone(), gate.clone());
        let functions = Functions::new().with("do", move |call: WorkerInvocation| {
            noted.lock().unwrap().push(call.prompt.clone());
            let door = door.clone();
            async move {
                if call.prompt.starts_with("wait") {
                    door.acquire().await.unwrap().forget();
                }
                let ok = call.prompt != "refuse";
                Ok(WorkerResult { value: json!(format!("did {}", call.prompt)), ok })
            }
        });
        let id = engine.mint().run_id();
        Self { engine, functions, calls, gate, id }
    }

    async fn program(&self, flow: &Value) -> Arc<Program> {
        self.program_of(flow, json!({ "fn_id": "do" })).await
    }

    async fn program_of(&self, flow: &Value, spec: Value) -> Arc<Program> {
        let document = json!({
            "id": "kept",
            "agents": [
                { "name": "do", "kind": "rust_fn", "spec": spec },
                { "name": "ask", "kind": "ask", "spec": {} },
            ],
            "flow": flow,
        });
        let blueprint: Blueprint = serde_json::from_value(document).unwrap();
        Arc::new(compile(&self.engine, &blueprint, &self.functions).await.unwrap())
    }

    fn options(&self) -> RunOptions {
        RunOptions { id: Some(self.id), ..RunOptions::default() }
    }

    fn begin(&self, program: &Arc<Program>) -> JoinHandle<Result<RunReport, EngineError>> {
        let (engine, program, options) = (self.engine.clone(), program.clone(), self.options());
        tokio::spawn(async move { run(&engine, program, json!({}), options).await })
    }

    async fn resume(&self, program: &Arc<Program>) -> Result<RunReport, EngineError> {
        let resumed = resume(&self.engine, self.id, program.clone(), RunOptions::default());
        tokio::time::timeout(LONG, resumed).await.unwrap()
    }

    fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }

    async fn called(&self, wanted: &str) {
        let look = async {
            while !self.calls().iter().any(|call| call == wanted) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(LONG, look).await.unwrap();
    }

    /// Drops a run's future while `wanted` is at work, as a death of the process would.
    async fn drop_at(&self, running: JoinHandle<Result<RunReport, EngineError>>, wanted: &str) {
        self.called(wanted).await;
        running.abort();
        assert!(running.await.unwrap_err().is_cancelled());
    }

    async fn status(&self) -> RunStatus {
        self.engine.read_run(self.id).await.unwrap().unwrap().status
    }

    /// The one open question, once there is one.
    async fn question(&self) -> ResumeKey {
        let (engine, id) = (self.engine.clone(), self.id);
        let look = async {
            loop {
                let asked = engine.with_state("test", move |state| {
                    let steps = state.kept_steps(id, None, 100).into_iter();
                    let mut open = steps.filter(|step| step.status == TaskStatus::Suspended);
                    open.find_map(|step| step.question.map(|(key, _, _)| key))
                });
                match asked.await.unwrap() {
                    Some(key) => return key,
                    None => tokio::time::sleep(Duration::from_millis(2)).await,
                }
            }
        };
        tokio::time::timeout(LONG, look).await.unwrap()
    }
}

fn step(agent: &str, input: &str, out: &str) -> Value {
    let (input, out) = (json!({ "op": "lit", "value": input }), json!({ "op": "path", "at": out }));
    json!({ "kind": "step", "ref": agent, "in": input, "out": out })
}

fn seq(children: &[Value]) -> Value {
    json!({ "kind": "seq", "children": children })
}

#[tokio::test]
async fn a_dropped_run_goes_on_and_repeats_nothing() {
    let bench = Bench::new();
    let flow = seq(&[
        step("do", "one", "$.a"),
        step("do", "one", "$.b"),
        step("do", "wait", "$.c"),
        step("do", "last", "$.d"),
    ]);
    let program = bench.program(&flow).await;
    bench.drop_at(bench.begin(&program), "wait").await;
    assert_eq!(bench.status().await, RunStatus::Open);
    bench.gate.add_permits(1);
    let report = bench.resume(&program).await.unwrap();
    assert_eq!(report.outcome, RunOutcome::Pass);
    let context = json!({ "a": "did one", "b": "did one", "c": "did wait", "d": "did last" });
    assert_eq!(report.context, context);
    assert_eq!(bench.calls(), ["one", "one", "wait", "last"]);
    let record = bench.engine.read_run(bench.id).await.unwrap().unwrap();
    assert_eq!((record.status, record.resumed, record.document), (RunStatus::Pass, 1, None));
    assert_eq!(bench.resume(&program).await.unwrap(), report, "the report is kept");
    assert_eq!(bench.calls().len(), 4);
}

#[tokio::test]
async fn a_question_that_was_left_open_is_answered_later_and_asked_once() {
    let bench = Bench::new();
    let flow = seq(&[
        step("do", "one", "$.a"),
        step("ask", "really?", "$.answer"),
        step("do", "two", "$.b"),
    ]);
    let program = bench.program(&flow).await;
    let leave = CancellationToken::new();
    let (engine, options) =
        (bench.engine.clone(), RunOptions { leave: leave.clone(), ..bench.options() });
    let begun = program.clone();
    let running = tokio::spawn(async move { run(&engine, begun, json!({}), options).await });
    let key = bench.question().await;
    leave.cancel();
    assert_eq!(running.await.unwrap().unwrap().outcome, RunOutcome::Left);
    let senior = bench.engine.attach("sam", Role::Senior, LONG).await.unwrap();
    bench.engine.answer_query(&senior, key, json!("yes")).await.unwrap();
    let report = bench.resume(&program).await.unwrap();
    assert_eq!(report.context, json!({ "a": "did one", "answer": "yes", "b": "did two" }));
    assert_eq!(bench.calls(), ["one", "two"]);
}

#[tokio::test]
async fn a_step_that_said_no_and_was_caught_says_so_again_without_work() {
    let bench = Bench::new();
    let flow = seq(&[
        json!({ "kind": "try", "body": step("do", "refuse", "$.a"),
                "catch": step("do", "caught", "$.b"), "err_at": { "op": "path", "at": "$.why" } }),
        step("do", "wait", "$.c"),
    ]);
    let program = bench.program(&flow).await;
    bench.drop_at(bench.begin(&program), "wait").await;
    bench.gate.add_permits(1);
    let report = bench.resume(&program).await.unwrap();
    assert_eq!(report.outcome, RunOutcome::Pass);
    let why = report.context["why"].as_str().unwrap();
    assert!(why.contains("blocked: \"did refuse\""), "{why}");
    assert_eq!(bench.calls(), ["refuse", "caught", "wait"]);
}

#[tokio::test]
async fn the_loser_of_a_race_stays_the_loser() {
    let bench = Bench::new();
    let path = |at: &str| json!({ "op": "path", "at": at });
    let flow = seq(&[
        json!({ "kind": "fanout", "items": { "op": "lit", "value": ["wait a", "quick"] },
                "bind": path("$"), "join": "race", "out": path("$.first"),
                "body": { "kind": "step", "ref": "do", "in": path("$"), "out": path("$") } }),
        step("do", "wait b", "$.b"),
    ]);
    let program = bench.program(&flow).await;
    bench.drop_at(bench.begin(&program), "wait b").await;
    // Nothing but the last step waits for a permit: the loser was cancelled.
    bench.gate.add_permits(2);
    let report = bench.resume(&program).await.unwrap();
    assert_eq!(report.outcome, RunOutcome::Pass);
    assert_eq!(report.context["first"], "did quick");
    let mut calls = bench.calls();
    calls.sort();
    assert_eq!(calls, ["quick", "wait a", "wait b"]);
}

#[tokio::test]
async fn another_program_or_input_is_refused_with_what_differs() {
    let bench = Bench::new();
    let flow = seq(&[step("do", "wait", "$.a")]);
    let program = bench.program(&flow).await;
    bench.drop_at(bench.begin(&program), "wait").await;
    let other = bench.program(&seq(&[step("do", "work", "$.a")])).await;
    let Err(EngineError::RunChanged { run: changed, differences }) = bench.resume(&other).await
    else {
        panic!("another flow was taken")
    };
    assert_eq!(changed, bench.id);
    assert!(differences[0].contains("flow.children[0].in.value changed ("), "{differences:?}");
    let spec = json!({ "fn_id": "do", "max_concurrency": 3 });
    let other = bench.program_of(&flow, spec).await;
    let refused = bench.resume(&other).await.unwrap_err().to_string();
    assert!(refused.contains("agents.do.spec.max_concurrency was added ("), "{refused}");
    let other = json!({ "x": "secret" });
    let refused = run(&bench.engine, program.clone(), other, bench.options()).await.unwrap_err();
    assert!(refused.to_string().contains("the input: x was added ("), "{refused}");
    assert!(!refused.to_string().contains("secret"), "{refused}");
    assert_eq!(bench.status().await, RunStatus::Open, "a refusal changes nothing");
    bench.gate.add_permits(1);
    assert_eq!(bench.resume(&program).await.unwrap().outcome, RunOutcome::Pass);
}

#[tokio::test]
async fn a_run_is_carried_on_by_one_at_a_time_and_can_be_given_up() {
    let bench = Bench::new();
    let program = bench.program(&seq(&[step("do", "wait", "$.a")])).await;
    let running = bench.begin(&program);
    bench.called("wait").await;
    let busy = EngineError::RunState { run: bench.id, state: "is carried on already" };
    assert_eq!(bench.resume(&program).await, Err(busy.clone()));
    assert_eq!(bench.engine.cancel_run(bench.id).await, Err(busy));
    bench.drop_at(running, "wait").await;
    bench.engine.cancel_run(bench.id).await.unwrap();
    assert_eq!(bench.status().await, RunStatus::Cancelled);
    assert_eq!(bench.resume(&program).await.unwrap().outcome, RunOutcome::Cancelled);
    let open = bench.engine.with_state("test", |state| state.live_tasks()).await.unwrap();
    assert_eq!(open, 0);
}

/// A senior who never answers.
struct Silent;

#[async_trait]
impl SeniorBridge for Silent {
    async fn ask(&self, _: &TaskId, _: Value) -> Result<Value, String> {
        std::future::pending().await
    }
}

/// How many operators and seniors are attached.
async fn attached(engine: &Engine) -> [usize; 2] {
    let look = |state: &mut adjutant::EngineState| {
        [Role::Operator, Role::Senior].map(|role| state.attached_sessions(role))
    };
    engine.with_state("test", look).await.unwrap()
}

#[tokio::test]
async fn a_run_that_is_dropped_leaves_no_bridge_and_no_session_that_nobody_ends() {
    let bench = Bench::new();
    let program = bench.program(&seq(&[step("do", "wait", "$.a")])).await;
    let engine = &bench.engine;
    // A kept run stays open when it is dropped, and with it its sessions.
    for (id, left) in [(None, [0, 0]), (Some(bench.id), [1, 1])] {
        let options = RunOptions { id, senior: Some(Arc::new(Silent)), ..RunOptions::default() };
        let (own, program) = (engine.clone(), program.clone());
        let running = tokio::spawn(async move { run(&own, program, json!({}), options).await });
        bench.called("wait").await;
        assert_eq!(attached(engine).await, [1, 1]);
        assert_eq!(engine.list_senior_bridge_ids().await.len(), 1);
        bench.drop_at(running, "wait").await;
        assert_eq!(engine.list_senior_bridge_ids().await, [""; 0]);
        eventually("their end", || async { attached(engine).await == left }).await;
        bench.calls.lock().unwrap().clear();
    }
    engine.cancel_run(bench.id).await.unwrap();
    assert_eq!(attached(engine).await, [0, 0]);
}

#[tokio::test]
async fn a_run_that_cannot_begin_leaves_no_bridge_and_no_session() {
    let mut cfg = calm();
    cfg.limits.sessions = 1;
    let bench = Bench::with(cfg);
    let program = bench.program(&seq(&[step("do", "work", "$.a")])).await;
    let engine = &bench.engine;
    let options = RunOptions { senior: Some(Arc::new(Silent)), ..RunOptions::default() };
    let refused = run(engine, program, json!({}), options).await;
    assert!(matches!(refused, Err(EngineError::TableFull { .. })), "{refused:?}");
    assert_eq!(engine.list_senior_bridge_ids().await, [""; 0]);
    eventually("the operator's end", || async { attached(engine).await == [0, 0] }).await;
}

#[tokio::test(start_paused = true)]
async fn a_run_that_takes_a_day_stays_attached_and_no_lapse_cancels_it() {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    for kept in [true, false] {
        let long_hold = LongHoldConfig { keepalive_on_idle: false, ..LongHoldConfig::default() };
        let bench = Bench::with(EngineCfg { long_hold, ..calm() });
        let _lapses = bench.engine.start_detach_loop();
        let program = bench.program(&seq(&[step("do", "wait", "$.a")])).await;
        let id = kept.then_some(bench.id);
        let options = RunOptions { id, ttl: Some(DAY * 2), ..RunOptions::default() };
        let engine = bench.engine.clone();
        let running = tokio::spawn(async move { run(&engine, program, json!({}), options).await });
        bench.called("wait").await;
        tokio::time::sleep(DAY).await;
        let attached =
            |role| bench.engine.with_state("test", move |state| state.attached_sessions(role));
        assert_eq!(attached(Role::Operator).await, Ok(1));
        assert_eq!(attached(Role::Senior).await, Ok(1));
        bench.gate.add_permits(1);
        assert_eq!(running.await.unwrap().unwrap().outcome, RunOutcome::Pass);
        assert_eq!(attached(Role::Operator).await, Ok(0), "it ends with the run");
    }
}
