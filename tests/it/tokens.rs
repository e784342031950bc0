//! The edges of tokens: how far a verb reaches, other keys, tokens that are full or revoked.

use std::time::Duration;

use adjutant::{EngineError, Role, TaskId, TokenFingerprint, TokenRequest, Verb};
use adjutant_actors::model::mint::Mint;
use adjutant_actors::model::token::WorkerHandle;

use crate::rights::{Family, at_work};
use crate::world::World;

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn verifying_for_a_task_reaches_as_far_as_the_verb_does() {
    let family = Family::new().await;
    let (engine, worker) = (&family.world.engine, &family.worker);
    let own: &[&str] = &["own"];
    let tree: &[&str] = &["own", "child", "grandchild"];
    let below: &[&str] = &["child", "grandchild"];
    for (verb, allowed) in [
        (Verb::ReadTaskState, tree),
        (Verb::PollTask, tree),
        (Verb::CancelTask, tree),
        (Verb::DispatchAttempt, below),
        (Verb::PostResult, own),
        (Verb::FetchPrompt, own),
    ] {
        for (name, task) in family.tasks() {
            let said = engine.verify_token_for_task(worker, verb, &task).await;
            let mismatch = Err(EngineError::TokenTaskMismatch { bound: family.own, arg: task });
            let expected = if allowed.contains(&name) { Ok(()) } else { mismatch };
            assert_eq!(said, expected, "{verb:?} of {name}");
        }
    }
    let world = &family.world;
    let unknown: TaskId = engine.mint().task_id();
    let said = engine.verify_token_for_task(&world.operator, Verb::PollTask, &unknown).await;
    assert!(matches!(said, Err(EngineError::TaskNotFound(_))), "{said:?}");
    assert_eq!(engine.task_id_from_token(worker).await, Ok(family.own));
    let (role, verb) = (Role::Operator, Verb::VerifyToken);
    let said = engine.task_id_from_token(&world.operator).await;
    assert_eq!(said, Err(EngineError::RoleViolation { role, verb }));
}

#[tokio::test]
async fn a_handle_is_checked_and_looked_up_and_stands_for_its_attempt() {
    let world = World::new().await;
    let task = world.start("any").await;
    let (token, run) = at_work(&world, task).await;
    let engine = &world.engine;
    let turns = engine.counts().turns;
    let typo = engine.resolve_handle("wh-0000-0000").await;
    assert!(matches!(typo, Err(EngineError::InvalidArgument(_))), "{typo:?}");
    assert_eq!(engine.counts().turns, turns, "no look-up for what is no handle");
    let stranger = WorkerHandle::draw(&Mint::seeded(1));
    let unknown = engine.task_id_from_handle(stranger.expose()).await;
    assert!(matches!(unknown, Err(EngineError::TokenNotFound(_))), "{unknown:?}");
    drop((token, run));
}

#[tokio::test]
async fn a_token_that_does_not_verify_costs_no_turn() {
    let world = World::new().await;
    let mut forged = world.operator.clone();
    forged.expire_at += 1;
    let turns = world.engine.counts().turns;
    assert_eq!(world.engine.heartbeat(&forged).await, Err(EngineError::BadSignature));
    let role = Role::Observer;
    let said = world.engine.verify_token(&world.observer, Verb::CancelTask).await;
    assert_eq!(said, Err(EngineError::RoleViolation { role, verb: Verb::CancelTask }));
    assert_eq!(world.engine.counts().turns, turns);
}

#[tokio::test]
async fn the_same_fields_under_another_key_are_not_that_token() {
    let world = World::new().await;
    let (engine, token) = (&world.engine, &world.observer);
    engine.signer().rotate(2, "a second root, long enough to be one").unwrap();
    let (twin, _) = engine.signer().mint_at(TokenRequest {
        agent_id: token.agent_id.clone(),
        role: token.role,
        scopes: token.scopes.clone(),
        issued_at: token.issued_at,
        ttl: Duration::from_secs(token.expire_at - token.issued_at),
        max_uses: token.max_uses,
        nonce: token.nonce.clone(),
    });
    assert_ne!(twin.sig_hex, token.sig_hex);
    assert!(engine.signer().verify_sig(&twin), "the key is live");
    assert_eq!(engine.heartbeat(&twin).await, Err(EngineError::BadSignature));
    assert!(engine.heartbeat(token).await.is_ok());
}

#[tokio::test]
async fn a_retired_key_ends_what_was_not_ended_before() {
    let world = World::new().await;
    let engine = &world.engine;
    engine.revoke_token(world.observer.fingerprint()).await.unwrap();
    engine.signer().rotate(2, "a second root, long enough to be one").unwrap();
    let fresh = engine.attach("fresh", Role::Observer, MINUTE).await.unwrap();
    assert_eq!(engine.retire_key(1).await, Ok(2), "the operator's and the senior's");
    assert!(matches!(engine.retire_key(1).await, Err(EngineError::InvalidArgument(_))));
    assert!(matches!(engine.retire_key(2).await, Err(EngineError::InvalidArgument(_))));
    assert!(engine.heartbeat(&fresh).await.is_ok());
    world.audit().await;
}

#[tokio::test]
async fn so_many_revoked_tokens_are_remembered_as_revoked() {
    let world = World::new().await;
    let engine = &world.engine;
    let mut tokens = Vec::new();
    for _ in 0..=4_096 {
        let token = engine.attach("guest", Role::Observer, MINUTE).await.unwrap();
        engine.revoke_token(token.fingerprint()).await.unwrap();
        tokens.push(token);
    }
    let known = |fingerprint: TokenFingerprint| async move {
        engine.with_state("look", move |state| state.token_record(fingerprint)).await.unwrap()
    };
    assert_eq!(known(tokens[0].fingerprint()).await, None);
    assert!(known(tokens[1].fingerprint()).await.is_some_and(|record| record.revoked));
    let oldest = engine.heartbeat(&tokens[0]).await;
    assert!(matches!(oldest, Err(EngineError::TokenNotFound(_))), "{oldest:?}");
    assert_eq!(engine.heartbeat(&tokens[1]).await, Err(EngineError::TokenRevoked));
    let again = engine.revoke_token(tokens[0].fingerprint()).await;
    assert!(matches!(again, Err(EngineError::TokenNotFound(_))), "{again:?}");
    assert_eq!(engine.revoke_token(tokens[1].fingerprint()).await, Ok(()), "twice is as once");
    world.audit().await;
}

#[tokio::test]
async fn an_attempt_has_so_many_usable_tokens_and_a_revoked_one_makes_room() {
    let world = World::new().await;
    let task = world.start("any").await;
    let engine = &world.engine;
    let (first, run) = at_work(&world, task).await;
    let mint = |uses| engine.mint_worker_token(&world.operator, &task, MINUTE, uses);
    for _ in 1..64 {
        mint(None).await.unwrap();
    }
    let full = mint(None).await;
    let what = "tokens of one attempt";
    assert_eq!(full, Err(EngineError::TableFull { what, current: 65, max: 64 }));
    engine.revoke_token(first.fingerprint()).await.unwrap();
    let last = mint(Some(1)).await.unwrap();
    let whose = format!("worker-of-{task}");
    assert_eq!((&first.agent_id, &last.agent_id), (&whose, &whose));
    assert_eq!((last.role, first.max_uses, last.max_uses), (Role::Worker, None, Some(1)));
    assert!(mint(None).await.is_err());
    assert!(matches!(mint(Some(0)).await, Err(EngineError::InvalidArgument(_))));
    engine.cancel_task(&world.operator, &task).await.unwrap();
    assert_eq!(engine.read_task_state(&last, &task).await, Err(EngineError::TokenRevoked));
    world.audit().await;
    drop(run);
}
