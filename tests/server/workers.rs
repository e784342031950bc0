//! The worker's routes, with a token and with a handle, during its attempt and after it.

use std::sync::Arc;

use adjutant::server::ServerCfg;
use adjutant::{CancellationToken, WorkerError, WorkerId, async_trait};
use adjutant::{
    CapToken, Ctx, DispatchOutcome, Engine, EngineError, LayerRegistry, Role, RoleVerbGate,
    SpawnError, SpawnerAdapter, TaskId, Verb, Worker, default_role_verb_table,
};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::desk::{Desk, calm, problem};

/// What a worker elsewhere is given.
pub(crate) struct Given {
    pub(crate) task: TaskId,
    pub(crate) token: String,
    pub(crate) handle: String,
}

/// Hands out what its workers need, and lets them end with the attempt's Final.
struct Elsewhere {
    given: mpsc::UnboundedSender<Given>,
    done: Arc<tokio::sync::Semaphore>,
}

struct Remote {
    id: WorkerId,
    cancel: CancellationToken,
    done: Arc<tokio::sync::Semaphore>,
}

#[async_trait]
impl Worker for Remote {
    fn id(&self) -> &WorkerId {
        &self.id
    }

    fn cancel_token(&self) -> CancellationToken {
        self.cancel.clone()
    }

    async fn join(self: Box<Self>) -> Result<(), WorkerError> {
        tokio::select! {
            _ = self.done.acquire() => Ok(()),
            () = self.cancel.cancelled() => Err(WorkerError::Cancelled),
        }
    }
}

#[async_trait]
impl SpawnerAdapter for Elsewhere {
    async fn spawn(
        &self,
        engine: &Engine,
        ctx: &Ctx,
        task: TaskId,
        _attempt: u32,
        token: CapToken,
    ) -> Result<Box<dyn Worker>, SpawnError> {
        let handle = ctx.meta.runtime["worker_handle"].as_str().unwrap().to_owned();
        self.given.send(Given { task, token: token.encode(), handle }).unwrap();
        let id = engine.mint().worker_id();
        Ok(Box::new(Remote { id, cancel: CancellationToken::new(), done: self.done.clone() }))
    }
}

pub(crate) struct Attempt {
    pub(crate) given: Given,
    done: Arc<tokio::sync::Semaphore>,
    run: JoinHandle<Result<DispatchOutcome, EngineError>>,
}

/// Dispatches a task to a worker elsewhere.
pub(crate) async fn attempt(desk: &Desk) -> Attempt {
    let operator = CapToken::decode(&desk.session("operator").await).unwrap();
    let task = desk.task(&operator.encode()).await.parse().unwrap();
    let (given, mut taken) = mpsc::unbounded_channel();
    let done = Arc::new(tokio::sync::Semaphore::new(0));
    let spawner: Arc<dyn SpawnerAdapter> = Arc::new(Elsewhere { given, done: done.clone() });
    let engine = desk.engine.clone();
    let run =
        tokio::spawn(async move { engine.dispatch_attempt_with(&operator, &task, &spawner).await });
    Attempt { given: taken.recv().await.unwrap(), done, run }
}

impl Attempt {
    /// Lets the worker end, and gives the verdict.
    pub(crate) async fn end(&mut self) -> DispatchOutcome {
        self.done.add_permits(1);
        (&mut self.run).await.unwrap().unwrap()
    }
}

#[tokio::test]
async fn a_token_and_a_handle_pull_the_same_prompt() {
    let desk = Desk::new().await;
    let mut attempt = attempt(&desk).await;
    let given = &attempt.given;
    let by_token: Value = desk.get("/v1/worker/prompt", &given.token).await.json().await.unwrap();
    let path = format!("/v1/worker/prompt?task_id={}", given.task);
    let by_handle: Value = desk.get(&path, &given.handle).await.json().await.unwrap();
    assert_eq!(by_token, by_handle);
    assert_eq!((&by_token["prompt"], &by_token["attempt"]), (&json!("hello"), &json!(1)));
    let other = desk.task(&desk.session("operator").await).await;
    for (bearer, status) in [(&given.token, 403), (&given.handle, 400)] {
        let path = format!("/v1/worker/prompt?task_id={other}");
        problem(desk.get(&path, bearer).await, status, "token_task_mismatch").await;
    }
    let sent = desk.ask(Method::POST, "/v1/worker/submit", &given.token).body("12\n");
    assert_eq!(sent.send().await.unwrap().status(), 204);
    assert_eq!(attempt.end().await, DispatchOutcome::Pass(json!("12")));
}

#[tokio::test]
async fn a_result_decides_the_attempt_and_later_ones_are_gone() {
    let desk = Desk::new().await;
    let mut attempt = attempt(&desk).await;
    let task = attempt.given.task;
    let body = json!({ "task_id": task, "value": { "lines": 3 } });
    let posted = desk.post("/v1/worker/result", &attempt.given.token, &body).await;
    assert_eq!(posted.status(), 204);
    assert_eq!(attempt.end().await, DispatchOutcome::Pass(json!({ "lines": 3 })));
    for bearer in [&attempt.given.token, &attempt.given.handle] {
        problem(desk.get("/v1/worker/prompt", bearer).await, 410, "attempt_ended").await;
        let late = desk.post("/v1/worker/result", bearer, &body).await;
        problem(late, 410, "attempt_ended").await;
        let late = desk.ask(Method::POST, "/v1/worker/submit", bearer).body("late");
        problem(late.send().await.unwrap(), 410, "attempt_ended").await;
    }
}

#[tokio::test]
async fn a_fenced_body_that_is_submitted_by_handle_is_folded() {
    let desk = Desk::new().await;
    let mut attempt = attempt(&desk).await;
    let path = "/v1/worker/submit?ok=false";
    let body = "```json\n{\"why\": \"no\"}\n```\n";
    let sent = desk.ask(Method::POST, path, &attempt.given.handle).body(body).send().await.unwrap();
    assert_eq!(sent.status(), 204);
    assert_eq!(attempt.end().await, DispatchOutcome::Blocked(json!({ "why": "no" })));
}

#[tokio::test]
async fn json_within_a_text_is_folded_unless_that_is_not_wanted_and_a_scalar_stays_text() {
    let sent = [
        (json!({ "value": "```\n[1]\n```" }), json!([1])),
        (json!({ "value": "{\"a\": 1}" }), json!({ "a": 1 })),
        (json!({ "value": "{\"a\": 1}", "fold": false }), json!("{\"a\": 1}")),
        (json!({ "value": "12" }), json!("12")),
    ];
    for (mut body, verdict) in sent {
        let desk = Desk::new().await;
        let mut attempt = attempt(&desk).await;
        body["task_id"] = json!(attempt.given.task);
        let posted = desk.post("/v1/worker/result", &attempt.given.handle, &body).await;
        assert_eq!(posted.status(), 204);
        assert_eq!(attempt.end().await, DispatchOutcome::Pass(verdict));
    }
    let desk = Desk::new().await;
    let mut attempt = attempt(&desk).await;
    let raw = desk.ask(Method::POST, "/v1/worker/submit?fold=false", &attempt.given.handle);
    assert_eq!(raw.body("[1]\n").send().await.unwrap().status(), 204);
    assert_eq!(attempt.end().await, DispatchOutcome::Pass(json!("[1]")));
}

#[tokio::test]
async fn what_a_worker_sent_is_read_by_observers_alone() {
    let desk = Desk::new().await;
    let mut attempt = attempt(&desk).await;
    let task = attempt.given.task;
    let sent = desk.ask(Method::POST, "/v1/worker/submit", &attempt.given.token).body("done");
    assert_eq!(sent.send().await.unwrap().status(), 204);
    attempt.end().await;
    let (operator, observer) = (desk.session("operator").await, desk.session("observer").await);
    let path = format!("/v1/tasks/{task}/attempts/1/output");
    let output: Value = desk.get(&path, &observer).await.json().await.unwrap();
    assert_eq!(output["output"][0]["content"]["value"], "done");
    problem(desk.get(&path, &operator).await, 403, "role_violation").await;
    let path = format!("/v1/tasks/{task}/trace");
    let trace: Value = desk.get(&path, &observer).await.json().await.unwrap();
    let events = trace["events"].as_array().unwrap();
    let kinds: Vec<_> = events.iter().map(|record| &record["event"]["kind"]).collect();
    assert_eq!(kinds.first().unwrap(), &"task_created");
    assert_eq!(kinds.last().unwrap(), &"task_pass");
    problem(desk.get(&path, &operator).await, 403, "role_violation").await;
    let path = format!("/v1/tasks/{task}/trace?after={}&limit=1", events[0]["seq"]);
    let page: Value = desk.get(&path, &observer).await.json().await.unwrap();
    assert_eq!(page["events"], json!([events[1]]));
}

#[tokio::test]
async fn an_operators_token_is_no_workers() {
    let desk = Desk::new().await;
    let operator = desk.session("operator").await;
    problem(desk.get("/v1/worker/prompt", &operator).await, 403, "role_violation").await;
}

/// The default gate, without one verb of workers.
fn gate_without(verb: Verb) -> RoleVerbGate {
    let whole = default_role_verb_table();
    let mut gate = RoleVerbGate::new();
    for role in Role::ALL.iter().copied() {
        let own = Verb::ALL.iter().copied().filter(|verb| whole.is_allowed(role, *verb));
        let stays: Vec<_> = own.filter(|own| (role, *own) != (Role::Worker, verb)).collect();
        gate = gate.allow(role, &stays);
    }
    gate
}

#[tokio::test]
async fn a_narrower_gate_binds_a_handle_as_it_binds_a_token() {
    let routes = [
        (Method::GET, "/v1/worker/prompt", Verb::FetchPrompt),
        (Method::POST, "/v1/worker/submit", Verb::EmitOutput),
        (Method::POST, "/v1/data/x", Verb::EmitOutput),
        (Method::GET, "/v1/data/x", Verb::FetchData),
    ];
    for withheld in [Verb::FetchPrompt, Verb::EmitOutput, Verb::FetchData] {
        let engine = Engine::new_with_layers(calm(), LayerRegistry::standard());
        let engine = engine.with_gate(gate_without(withheld));
        let desk = Desk::before(engine, ServerCfg::default()).await;
        let kept = desk.ask(Method::POST, "/v1/data/x", &desk.admin).body("x").send().await;
        assert_eq!(kept.unwrap().status(), 201);
        let attempt = attempt(&desk).await;
        for (method, path, verb) in &routes {
            for bearer in [&attempt.given.token, &attempt.given.handle] {
                let ask = desk.ask(method.clone(), path, bearer).body("x");
                let answer = ask.send().await.unwrap();
                if *verb == withheld {
                    let told = problem(answer, 403, "role_violation").await;
                    assert_eq!(told["verb"], withheld.as_str(), "{path} {bearer}");
                } else {
                    assert!(answer.status().is_success(), "{path} {}", answer.status());
                }
            }
        }
    }
}
