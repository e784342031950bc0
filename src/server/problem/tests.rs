//! Tests of the problem documents, over every variant of the engine's error.

use std::collections::HashSet;

use adjutant_actors::journal::JournalError;
use adjutant_actors::model::ids::{RunId, TaskId};
use adjutant_actors::model::role::{Role, Verb};

use super::*;

/// Every variant, and whether it may be the caller's doing.
fn every_variant() -> Vec<(EngineError, bool)> {
    use EngineError as E;
    let (task, run, text) = (TaskId::from_bits(1), RunId::from_bits(2), || "text".to_owned());
    let (current, max) = (8, 7);
    vec![
        (E::LockBusy("op"), true),
        (E::LockBusyAfterRetry("op"), true),
        (E::BadSignature, true),
        (E::TokenExpired, true),
        (E::TokenUsesExhausted, true),
        (E::TokenRevoked, true),
        (E::TokenNotFound(text()), true),
        (E::RoleViolation { role: Role::Observer, verb: Verb::CancelTask }, true),
        (E::TokenTaskMismatch { bound: task, arg: task }, true),
        (E::TaskNotFound(text()), true),
        (E::SessionNotFound, true),
        (E::ResumeKeyNotFound, true),
        (E::RunNotFound(run), true),
        (E::RunState { run, state: "has ended" }, true),
        (E::RunChanged { run, differences: vec![text()] }, true),
        (E::ResourceNotFound(text()), true),
        (E::InvalidTransition(text()), true),
        (E::DispatchFailed(text()), true),
        (E::PollTimeout, true),
        (E::Cancelled, true),
        (E::SpawnDepthExceeded { current: 8, max: 7 }, true),
        (E::ChildLimitExceeded { current, max }, true),
        (E::TaskLimitExceeded { scope: "tree", current, max }, true),
        (E::TableFull { what: "tokens", current, max }, true),
        (E::OutputLimitExceeded { unit: "bytes", current, max }, true),
        (E::KeyConflict { key: text(), differs: vec!["agent"] }, true),
        (E::ValueTooLarge { what: "prompt", unit: "bytes", current, max }, true),
        (E::InvalidArgument(text()), true),
        (E::Stopped(text()), true),
        (E::Journal(Box::new(JournalError::Failed(text()))), true),
        (E::Internal(text()), false),
    ]
}

#[test]
fn only_an_internal_error_is_a_500() {
    for (error, of_caller) in every_variant() {
        let problem = Problem::from(error.clone());
        let status = problem.status.as_u16();
        assert_eq!(status != 500, of_caller, "{error:?}");
        assert!((400..=503).contains(&status), "{error:?} is a {status}");
    }
}

#[test]
fn every_variant_has_a_code_of_its_own() {
    let codes: HashSet<_> =
        every_variant().into_iter().map(|(error, _)| Problem::from(error).code).collect();
    assert_eq!(codes.len(), every_variant().len());
}

#[test]
fn what_the_engine_calls_retryable_stays_so_and_keeps_its_text() {
    for (error, _) in every_variant() {
        let problem = Problem::from(error.clone());
        assert!(problem.retryable || !error.is_retryable(), "{error:?}");
        assert_eq!(problem.detail, error.to_string());
    }
}

#[tokio::test]
async fn the_body_carries_the_members_and_the_fields_of_the_error() {
    let error = EngineError::TableFull { what: "tokens", current: 8, max: 7 };
    let response = Problem::from(error).respond("req-1");
    assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
    assert_eq!(response.headers()[RETRY_AFTER], "1");
    let body = axum::body::to_bytes(response.into_body(), 4096).await.unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap();
    let expected = json!({
        "type": "urn:adjutant:problem:table_full",
        "title": "Too Many Requests",
        "status": 429,
        "detail": "the engine holds 8 tokens, and 7 is the limit",
        "code": "table_full",
        "retryable": true,
        "hint": "try again once tasks are settled",
        "request_id": "req-1",
        "what": "tokens",
        "current": 8,
        "max": 7,
    });
    assert_eq!(body, expected);
}

#[test]
fn every_setting_that_a_refusal_may_name_is_there_and_stands_in_its_hint() {
    let page = include_str!("../../../docs/settings.md");
    for setting in Setting::ALL {
        let key = setting.key();
        assert!(page.contains(&format!("\n| `{key}` |")), "{key}");
        let problem = Problem::of_status(StatusCode::TOO_MANY_REQUESTS, "full");
        let told = problem.because_of(*setting).document();
        assert_eq!(told["setting"], key);
        assert!(told["hint"].as_str().is_some_and(|hint| hint.contains(key)), "{told:?}");
    }
}

#[test]
fn a_callers_text_is_shown_escaped_and_cut() {
    assert_eq!(shown("a.example:80"), "a.example:80");
    assert_eq!(shown("a\u{1b}[2J\n"), "a\\u{1b}[2J\\n");
    let cut = shown(&"é".repeat(10_000));
    assert_eq!(cut, format!("{}…", "é".repeat(100)));
}

#[test]
fn whoever_is_not_known_is_told_how_to_say_who_it_is() {
    let response = Problem::unauthenticated("no bearer").respond("req-1");
    assert_eq!(response.headers()[WWW_AUTHENTICATE], "Bearer");
}
