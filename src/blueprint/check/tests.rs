//! Tests of the check: which faults it finds, and that it finds all of them.

use serde_json::{Value, json};

use super::*;

fn step(name: &str) -> Value {
    let at = json!({"op": "path", "at": "$.x"});
    json!({"kind": "step", "ref": name, "in": at, "out": at})
}

fn document(agents: Value, steps: &[&str]) -> Value {
    let children: Vec<_> = steps.iter().map(|name| step(name)).collect();
    json!({"id": "x", "agents": agents, "flow": {"kind": "seq", "children": children}})
}

fn outcome(document: Value) -> Result<Vec<String>, Vec<String>> {
    let blueprint: Blueprint = serde_json::from_value(document).unwrap();
    match check(&blueprint, &Known::default()) {
        Ok(warnings) => Ok(warnings.iter().map(ToString::to_string).collect()),
        Err(errors) => Err(errors.errors().iter().map(ToString::to_string).collect()),
    }
}

#[test]
fn a_sound_document_passes_without_a_warning() {
    let agents = json!([{"name": "a", "kind": "rust_fn", "spec": {"fn_id": "identity"}}]);
    assert_eq!(outcome(document(agents, &["a"])), Ok(vec![]));
}

#[test]
fn all_faults_are_reported_at_once_with_agent_and_field() {
    let agents = json!([
        {"name": "a", "kind": "subprocess", "spec": {"args": [1], "progam": "x"}},
        {"name": "b", "kind": "agent_block"},
        {"name": "c", "kind": "teapot"},
        {"name": "d", "kind": "rust_fn", "spec": {"fn_id": "nope"}},
        {"name": "e", "spec": {"operator_ref": "boss"}},
        {"name": "e", "kind": "ask"},
        {"name": " ", "kind": "ask"},
    ]);
    let mut value = document(agents, &["a", "counter"]);
    value["schema_version"] = json!("9");
    value["operators"] = json!([{"name": "main"}, {"name": "main"}]);
    let kinds = "supported: subprocess, rust_fn, operator, ask";
    let expected = [
        "document: field `schema_version`: `9` is not supported, only `0.1.0` is".to_owned(),
        "document: field `operators/1/name`: `main` is given twice".to_owned(),
        "agent `agents/6`: field `name`: must not be empty".to_owned(),
        "agent `e`: field `name`: is given to 2 agents".to_owned(),
        "agent `a`: field `spec.args`: invalid type: integer `1`, expected a string".to_owned(),
        "agent `a`: field `spec.progam`: unknown field `progam`".to_owned(),
        format!(
            "agent `b`: field `kind`: `agent_block` is a kind that this build does not run; {kinds}"
        ),
        format!("agent `c`: field `kind`: `teapot` is not a kind of agent; {kinds}"),
        "agent `d`: field `spec.fn_id`: no function `nope` is registered; registered: identity"
            .to_owned(),
        "agent `e`: field `spec.operator_ref`: no operator `boss`; defined: main".to_owned(),
        "/flow/children/1: field `ref`: no agent `counter`".to_owned(),
    ];
    let errors = outcome(value).unwrap_err();
    assert_eq!(errors.len(), expected.len(), "{errors:#?}");
    for (error, expected) in errors.iter().zip(&expected) {
        assert!(error.starts_with(expected), "{error}\nis not\n{expected}");
    }
}

#[test]
fn a_misspelled_ref_is_answered_with_the_nearest_name() {
    let agents = json!([{"name": "reduce", "kind": "ask"}, {"name": "count", "kind": "ask"}]);
    let errors = outcome(document(agents, &["cuont", "zzzzz"])).unwrap_err();
    assert!(errors[0].contains("did you mean `count`?"), "{errors:?}");
    assert!(!errors[1].contains("did you mean"), "{errors:?}");
}

#[test]
fn loose_strategies_turn_faults_into_warnings() {
    let mut value = document(json!([{"name": "a", "kind": "lua"}]), &["a"]);
    value["strategy"] = json!({"strict_kind": false});
    let errors = outcome(value.clone()).unwrap_err();
    assert!(errors[0].starts_with("/flow/children/0: field `ref`: no agent `a`"), "{errors:?}");
    value["strategy"]["strict_refs"] = json!(false);
    assert_eq!(outcome(value).unwrap().len(), 2);
}

#[test]
fn a_default_route_takes_steps_that_name_no_agent() {
    let blueprint = serde_json::from_value(document(json!([]), &["a"])).unwrap();
    let known = Known { default_route: true, ..Known::default() };
    assert_eq!(check(&blueprint, &known), Ok(vec![]));
}

#[test]
fn slips_are_warned_about() {
    let mut value = document(json!([{"name": "a", "kind": "ask"}]), &[]);
    value["hints"] = json!({"per_agent": {"b": 1}});
    let warnings = outcome(value).unwrap();
    assert_eq!(
        warnings,
        ["agent `a` is named by no step", "hints.per_agent: there is no agent `b`"]
    );
}

#[test]
fn a_layer_that_the_host_does_not_have_is_warned_about() {
    let mut value = document(json!([]), &[]);
    value["spawner_hints"] = json!({"layers": ["audit", "sink"]});
    let blueprint = serde_json::from_value(value).unwrap();
    let known = Known { layers: Some(["audit".to_owned()].into()), ..Known::default() };
    let layer = "sink".to_owned();
    assert_eq!(check(&blueprint, &known), Ok(vec![Warning::UnknownLayer { layer }]));
    assert_eq!(check(&blueprint, &Known::default()), Ok(vec![]), "nobody said what there is");
}

#[test]
fn an_extern_that_nobody_registered_is_a_fault() {
    let mut value = document(json!([]), &[]);
    value["flow"] = json!({"kind": "let", "at": "$.x",
        "value": {"op": "call_extern", "ref": "sqrt", "args": []}});
    let errors = outcome(value).unwrap_err();
    assert_eq!(errors, ["/flow/value: field `ref`: no extern `sqrt` is registered"]);
}

#[test]
fn edits_are_counted_as_insertions_deletions_and_replacements() {
    assert_eq!(edits("kitten", "sitting"), 3);
    assert_eq!(edits("", "abc"), 3);
    assert_eq!(edits("same", "same"), 0);
}

#[test]
fn a_question_is_never_retried() {
    let agents = json!([
        {"name": "a", "kind": "ask", "on_interrupt": "retry"},
        {"name": "b", "kind": "rust_fn", "spec": {"fn_id": "identity"}, "on_interrupt": "retry"},
        {"name": "c", "kind": "ask", "on_interrupt": "block"},
    ]);
    let expected =
        "agent `a`: field `on_interrupt`: is `retry`, but a question stays open by itself";
    assert_eq!(outcome(document(agents, &["a", "b", "c"])), Err(vec![expected.to_owned()]));
}
