//! Every role with every verb, on its own task and on another's, during an attempt and after it:
//! each cell against one table, and what is refused changes nothing.

use std::sync::Arc;
use std::time::Duration;

use adjutant::{
    CapToken, Engine, EngineError, OutputEvent, ResumeKey, Role, SpawnerAdapter, TaskId,
    TaskOptions, TaskSpec, Verb,
};
use serde_json::json;

use crate::faulty::{Fault, faulty};
use crate::rights::{at_work, copy};
use crate::world::{Run, World};

/// One row a verb, one column a role; in each the outcome on the own task in its attempt, on
/// another's task in its attempt, on the own one after it, and on the other one after it.
///
/// `+` allowed, `r` the role may not, `t` another task than the token's, `g` the token ended with
/// its attempt, `s` not lawful as the task stands, `n` the token has no session of its own. What
/// names no task is the same on each.
const TABLE: &str = "\
                   operator worker observer senior
start_task         ++++     ++gg   rrrr     rrrr
dispatch_attempt   ss++     ttgg   rrrr     rrrr
mint_worker_token  ++ss     rrrr   rrrr     rrrr
read_task_state    ++++     +tgg   ++++     rrrr
cancel_task        ++++     +tgg   rrrr     rrrr
query_senior       ++ss     rrrr   rrrr     rrrr
mark_pass          ++ss     rrrr   rrrr     rrrr
mark_blocked       ++ss     rrrr   rrrr     rrrr
attach_session     ++++     rrrr   rrrr     rrrr
detach_session     ++++     nngg   ++++     ++++
heartbeat          ++++     nngg   ++++     ++++
poll_task          ++++     +tgg   rrrr     rrrr
fetch_prompt       rrrr     +tgg   rrrr     rrrr
fetch_data         rrrr     ++gg   rrrr     rrrr
post_result        rrrr     +tgg   rrrr     rrrr
verify_token       rrrr     ++gg   rrrr     rrrr
emit_output        rrrr     +tgg   rrrr     rrrr
subscribe_events   rrrr     rrrr   ++++     rrrr
read_trace         rrrr     rrrr   ++++     rrrr
answer_query       rrrr     rrrr   rrrr     ++ss
override_verdict   rrrr     rrrr   rrrr     ++++
pause_loop         rrrr     rrrr   rrrr     ++++
resume_loop        rrrr     rrrr   rrrr     ++++
inject_directive   rrrr     rrrr   rrrr     ++++
";

/// Two tasks of two operators, each with its attempt, and a worker's token for the first.
struct Scene {
    world: World,
    worker: CapToken,
    tasks: [TaskId; 2],
    keys: Vec<ResumeKey>,
    _runs: Vec<Run>,
}

impl Scene {
    /// With the attempts under way, or ended; where `asked`, each task has or had a question.
    async fn new(live: bool, asked: bool) -> Self {
        let world = World::new().await;
        let engine = &world.engine;
        let hour = Duration::from_secs(3600);
        let rival = engine.attach("rival", Role::Operator, hour).await.unwrap();
        let own = world.start("any").await;
        let other = engine.start_task(&rival, TaskSpec::new("any", "theirs")).await.unwrap();
        engine.set_resource("name", json!("value")).await.unwrap();
        let (worker, first) = at_work(&world, own).await;
        let (_, second) = at_work(&world, other).await;
        let (tasks, mut keys) = ([own, other], Vec::new());
        for task in tasks.iter().filter(|_| asked) {
            keys.push(engine.query_senior(&world.operator, task, json!("?")).await.unwrap());
        }
        let mut runs = vec![first, second];
        if !live {
            for task in &tasks {
                engine.override_verdict(&world.senior, task, false, json!("no")).await.unwrap();
            }
            for run in runs.drain(..) {
                run.await.unwrap().unwrap();
            }
        }
        Self { world, worker, tasks, keys, _runs: runs }
    }

    fn token(&self, role: Role) -> &CapToken {
        match role {
            Role::Operator => &self.world.operator,
            Role::Worker => &self.worker,
            Role::Observer => &self.world.observer,
            _ => &self.world.senior,
        }
    }

    /// The call that a verb stands for, on the own task (0) or the other one (1).
    async fn call(&self, token: &CapToken, verb: Verb, at: usize) -> Result<(), EngineError> {
        let (engine, task) = (&self.world.engine, &self.tasks[at]);
        let event = OutputEvent::Partial { chunk: json!(1) };
        match verb {
            Verb::StartTask => {
                engine.start_task(token, TaskSpec::new("any", "sub")).await.map(drop)
            }
            Verb::DispatchAttempt => {
                let none: Arc<dyn SpawnerAdapter> = faulty(Fault::SpawnError).0;
                match engine.dispatch_attempt_with(token, task, &none).await {
                    // It began, which is all that is asked here.
                    Err(EngineError::DispatchFailed(_)) => Ok(()),
                    other => other.map(drop),
                }
            }
            Verb::MintWorkerToken => {
                let minute = Duration::from_secs(60);
                engine.mint_worker_token(token, task, minute, None).await.map(drop)
            }
            Verb::ReadTaskState => engine.read_task_state(token, task).await.map(drop),
            Verb::CancelTask => engine.cancel_task(token, task).await,
            Verb::QuerySenior => engine.query_senior(token, task, json!("?")).await.map(drop),
            Verb::MarkPass => engine.mark_pass(token, task, json!(1)).await,
            Verb::MarkBlocked => engine.mark_blocked(token, task, json!(1)).await,
            Verb::DetachSession => engine.detach(token).await,
            Verb::Heartbeat => engine.heartbeat(token).await,
            Verb::PollTask => engine.poll_task(token, task, Duration::ZERO).await.map(drop),
            Verb::FetchPrompt => engine.fetch_prompt(token, task).await.map(drop),
            Verb::FetchData => engine.fetch_data(token, "name").await.map(drop),
            Verb::PostResult => engine.post_result(token, task, json!(1)).await,
            Verb::EmitOutput => engine.submit_output(token, task, 1, event).await,
            Verb::SubscribeEvents => engine.subscribe_with(token).await.map(drop),
            Verb::ReadTrace => engine.read_trace(token, Some(task), 0, 9).await.map(drop),
            Verb::AnswerQuery => engine.answer_query(token, self.keys[at], json!("!")).await,
            Verb::OverrideVerdict => engine.override_verdict(token, task, true, json!(1)).await,
            Verb::PauseLoop => engine.pause_dispatch(token).await,
            Verb::ResumeLoop => engine.resume_dispatch(token).await,
            Verb::InjectDirective => engine.inject_directive(token, task, "next").await,
            // No call of its own takes a token for these.
            _ => engine.verify_token(token, verb).await,
        }
    }
}

fn letter(outcome: &Result<(), EngineError>) -> char {
    match outcome {
        Ok(()) => '+',
        Err(EngineError::RoleViolation { .. }) => 'r',
        Err(EngineError::TokenTaskMismatch { .. }) => 't',
        Err(EngineError::TokenRevoked) => 'g',
        Err(EngineError::SessionNotFound) => 'n',
        Err(EngineError::InvalidTransition(_)) => 's',
        Err(_) => '?',
    }
}

#[tokio::test]
async fn each_role_may_with_each_verb_what_the_table_says() {
    let mut wrong = Vec::new();
    let mut rows = TABLE.lines().skip(1);
    for verb in Verb::ALL {
        let mut row = rows.next().unwrap_or_default().split_whitespace();
        assert_eq!(row.next(), Some(verb.as_str()));
        for (role, expected) in Role::ALL.iter().zip(row) {
            let mut found = String::new();
            for live in [true, false] {
                for at in [0, 1] {
                    let scene = Scene::new(live, *verb == Verb::AnswerQuery).await;
                    let engine = &scene.world.engine;
                    let before = copy(engine).await;
                    let outcome = scene.call(scene.token(*role), *verb, at).await;
                    found.push(letter(&outcome));
                    let kept = outcome.is_ok() || copy(engine).await == before;
                    assert!(kept, "{role} {verb}: {outcome:?} changed the state");
                    scene.world.audit().await;
                }
            }
            if found != expected {
                wrong.push(format!("{verb} as {role}: {found}, the table says {expected}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(rows.next(), None);
}

/// Everything that takes a worker's token and names a task: one that is not there is refused as
/// one of somebody else's is, so that nobody learns which tasks there are.
#[tokio::test]
async fn a_worker_learns_nothing_of_tasks_that_are_not_its_own() {
    let mut scene = Scene::new(true, false).await;
    let theirs = scene.tasks[1];
    let nowhere = scene.world.engine.mint().task_id();
    for verb in Verb::ALL.iter().filter(|verb| names_a_task(**verb)) {
        let refused = scene.call(&scene.worker, *verb, 1).await;
        scene.tasks[1] = nowhere;
        let missing = scene.call(&scene.worker, *verb, 1).await;
        scene.tasks[1] = theirs;
        let bound = scene.tasks[0];
        let mismatch = |arg| Err(EngineError::TokenTaskMismatch { bound, arg });
        if letter(&refused) != 'r' {
            assert_eq!((refused, missing), (mismatch(theirs), mismatch(nowhere)), "{verb}");
        }
    }
    let parent = |task| TaskOptions { parent: Some(task), ..TaskOptions::default() };
    for task in [theirs, nowhere] {
        let started = start_below(&scene.world.engine, &scene.worker, parent(task)).await;
        let bound = scene.tasks[0];
        assert_eq!(started, Err(EngineError::TokenTaskMismatch { bound, arg: task }));
    }
}

async fn start_below(
    engine: &Engine,
    token: &CapToken,
    options: TaskOptions,
) -> Result<TaskId, EngineError> {
    engine.start_task_with(token, TaskSpec::new("any", "sub"), options).await
}

fn names_a_task(verb: Verb) -> bool {
    matches!(
        verb,
        Verb::DispatchAttempt
            | Verb::ReadTaskState
            | Verb::CancelTask
            | Verb::PollTask
            | Verb::FetchPrompt
            | Verb::PostResult
            | Verb::EmitOutput
    )
}
