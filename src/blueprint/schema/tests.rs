//! Tests of the schema: it and the flow crate must accept and refuse the same flows.

use mlua_flow_ir::{Expr, Node};

use super::*;
use crate::blueprint::flow;

fn validator() -> jsonschema::Validator {
    jsonschema::validator_for(&json_schema()).unwrap()
}

fn with_flow(flow: &Value) -> Value {
    json!({"id": "x", "flow": flow})
}

fn path(at: &str) -> Value {
    json!({"op": "path", "at": at})
}

fn let_(value: &Value) -> Value {
    json!({"kind": "let", "at": "ctx.x", "value": value})
}

fn empty() -> Value {
    json!({"kind": "seq", "children": []})
}

/// One flow for each kind of node, made from the table of shapes with a sample in each field.
fn sample(tag: &str, shape: &Shape) -> Value {
    let mut value = json!({tag: shape.tag});
    for field in shape.fields {
        value[field.name] = match field.holds {
            Holds::Name => json!("name"),
            Holds::Any => json!({"free": [1, null]}),
            Holds::Expr | Holds::Target => path("$.a[\"b.c\"].d"),
            Holds::Exprs => json!([path("$"), {"op": "lit", "value": null}]),
            Holds::Path => json!("$.a.b"),
            Holds::Node => empty(),
            Holds::Nodes => json!([empty(), let_(&path("ctx"))]),
            Holds::Join => json!("all_settled"),
            Holds::Count => json!(3),
        };
    }
    value
}

fn samples() -> Vec<Value> {
    let nodes = NODES.iter().map(|shape| sample("kind", shape));
    let exprs = EXPRS.iter().map(|shape| let_(&sample("op", shape)));
    nodes.chain(exprs).collect()
}

#[test]
fn every_kind_and_every_operation_is_accepted_by_schema_and_crate() {
    let validator = validator();
    for flow in samples() {
        let node: Node = serde_json::from_value(flow.clone()).unwrap();
        assert!(validator.is_valid(&with_flow(&flow)), "{flow}");
        assert!(flow::read(&flow).is_ok(), "{flow}");
        let again = serde_json::to_value(&node).unwrap();
        assert!(validator.is_valid(&with_flow(&again)), "{again}");
        assert_eq!(serde_json::from_value::<Node>(again).unwrap(), node);
    }
}

#[test]
fn a_sample_with_a_field_too_few_or_too_many_is_refused_by_both() {
    let validator = validator();
    let refused = |flow: &Value, optional: bool| {
        assert_eq!(validator.is_valid(&with_flow(flow)), optional, "{flow}");
        assert_eq!(serde_json::from_value::<Node>(flow.clone()).is_ok(), optional, "{flow}");
        assert_eq!(flow::read(flow).is_ok(), optional, "{flow}");
    };
    for (shapes, tag) in [(&NODES[..], "kind"), (&EXPRS[..], "op")] {
        for shape in shapes {
            let whole = sample(tag, shape);
            let wrap = |value: Value| if tag == "op" { let_(&value) } else { value };
            let mut more = whole.clone();
            more["odd"] = json!(1);
            refused(&wrap(more), false);
            for field in shape.fields {
                let mut fewer = whole.clone();
                fewer.as_object_mut().unwrap().remove(field.name);
                refused(&wrap(fewer), !field.required);
            }
        }
    }
}

#[test]
fn paths_are_read_alike_by_the_pattern_and_the_crate() {
    let validator = validator();
    let paths = [
        "$",
        "ctx",
        "$.a",
        "ctx.a.b",
        "$[\"x.y\"]",
        "$.a[\"x\"][\"y\"].z",
        "$.[\"x\"]",
        "$.a]",
        "$.a\"b",
        "$.a.[\"x\"]",
        "$.a b",
        "$.\u{e9}",
        "",
        "$foo",
        "ctxfoo",
        "foo.bar",
        "$.",
        "$.a.",
        "$.a..b",
        "$.a[]",
        "$.a[\"\"]",
        "$.a[",
        "$.a[\"x",
        "$.a[p]",
        "$.a[\"x\"]b",
        "$.a[\"x\"].",
        "$..a",
        "$.a[\"x\"]]",
        "$[\"a\"\"]",
        "ctx[\"a\"]",
        "$ctx",
        "$.a[0]",
        "$.a\n",
    ];
    for text in paths {
        let parsed = serde_json::from_value::<Expr>(path(text)).is_ok();
        let valid = validator.is_valid(&with_flow(&let_(&path(text))));
        assert_eq!(parsed, valid, "{text:?}");
    }
}

#[test]
fn wrong_values_are_refused_by_schema_and_walk() {
    let validator = validator();
    let step = |out: Value| json!({"kind": "step", "ref": "a", "in": path("$"), "out": out});
    let counted = |max: Value| json!({"kind": "loop", "counter": path("$.n"), "cond": path("$.c"), "body": empty(), "max": max});
    let flows = [
        json!(null),
        json!([]),
        json!({}),
        json!(["seq", []]),
        json!({"kind": "assign", "at": "$.x", "value": path("$")}),
        json!({"kind": "let", "at": path("$.x"), "value": path("$")}),
        json!({"kind": "seq", "children": [empty(), {"kind": "odd"}]}),
        json!({"kind": "try", "body": empty(), "catch": empty(), "err_at": "$.e"}),
        let_(&json!({"op": "ge", "lhs": path("$"), "rhs": path("$")})),
        let_(&json!({"op": "and", "args": path("$")})),
        let_(&json!({"op": "not", "arg": {"op": "len"}})),
        step(json!("$.x")),
        step(json!({"op": "lit", "value": "$.x"})),
        counted(json!(0)),
        counted(json!(-1)),
        counted(json!(1.5)),
        counted(json!(4_294_967_296_u64)),
        counted(json!("3")),
    ];
    for flow in &flows {
        assert!(!validator.is_valid(&with_flow(flow)), "{flow}");
        assert!(flow::read(flow).is_err(), "{flow}");
    }
    for mode in JOINS.into_iter().chain(["some"]) {
        let flow = json!({"kind": "fanout", "items": path("$"), "bind": path("$"), "body": empty(),
            "join": mode, "out": path("$")});
        let parsed = serde_json::from_value::<Node>(flow.clone()).is_ok();
        assert_eq!(validator.is_valid(&with_flow(&flow)), parsed, "{flow}");
    }
}

#[test]
fn the_rest_of_the_document_is_held_to_its_records() {
    let validator = validator();
    let with = |agent: Value| json!({"id": "x", "flow": empty(), "agents": [agent]});
    let accepted = [
        json!({"name": "a", "kind": "subprocess", "spec": {"program": "sh", "args": [{"$file": "x"}]}}),
        json!({"name": "a", "kind": "subprocess", "spec": {"shell": {"$file": "x"}, "stream_mode": null}}),
        json!({"name": "a", "kind": "rust_fn", "spec": {"fn_id": "identity"}}),
        json!({"name": "a", "kind": "ask", "profile": {"system_prompt": {"$file": "p.md"}}}),
        json!({"$agent_md": "a.md"}),
    ];
    for agent in accepted {
        assert!(validator.is_valid(&with(agent.clone())), "{agent}");
    }
    let refused = [
        json!({"name": "a", "kind": "lua"}),
        json!({"name": "a", "kind": "rust_fn", "spec": {}}),
        json!({"name": "a", "kind": "subprocess", "spec": {"progam": "sh"}}),
        json!({"name": "a", "kind": "subprocess", "spec": {"stream_mode": "lines"}}),
        json!({"name": "a", "odd": 1}),
        json!({"kind": "ask"}),
    ];
    for agent in refused {
        assert!(!validator.is_valid(&with(agent.clone())), "{agent}");
    }
    assert!(!validator.is_valid(&json!({"id": "x", "flow": empty(), "odd": 1})));
}

#[test]
fn what_becomes_of_an_interrupted_agent_is_one_of_two_words() {
    let validator = validator();
    for (word, fits) in [("block", true), ("retry", true), ("maybe", false)] {
        let mut value = with_flow(&empty());
        value["agents"] = json!([{"name": "a", "kind": "ask", "on_interrupt": word}]);
        assert_eq!(validator.is_valid(&value), fits, "{word}");
        assert_eq!(serde_json::from_value::<Blueprint>(value).is_ok(), fits, "{word}");
    }
}

#[test]
fn descriptions_hold_no_examples_for_embedders() {
    let text = json_schema().to_string();
    assert!(text.contains("A function that the host registered"), "descriptions are there");
    assert!(!text.contains("```"), "{text}");
}
