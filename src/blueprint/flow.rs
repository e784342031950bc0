//! The flow of a blueprint: where its steps are and what is wrong with it.
//!
//! Flows are evaluated by the crate `mlua-flow-ir`, which stops at the first fault it meets and
//! does not say where. The walk here finds every fault with its place, as a JSON pointer, before
//! anything runs. It evaluates nothing.

pub(crate) mod shape;

use mlua_flow_ir::Node;
use serde_json::{Map, Value};

use self::shape::{EXPRS, Field, Holds, JOINS, NODES, Shape};

/// A step or an extern call: what it names, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowRef {
    /// The place in the document, as a JSON pointer.
    pub place: String,
    /// The name.
    pub reference: String,
}

/// A note about one place of a flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowNote {
    /// The place in the document, as a JSON pointer.
    pub place: String,
    /// What is to be said about it.
    pub msg: String,
}

/// Everything that one walk over a flow finds.
///
/// ```
/// use adjutant::blueprint::flow::{FlowNote, FlowRef, Survey, survey};
/// # let text = r#"{"id": "echo", "agents": [{"name": "e", "kind": "rust_fn", "spec": {"fn_id": "identity"}}],
/// #     "flow": {"kind": "step", "ref": "e", "in": {"op": "path", "at": "$.in"}, "out": {"op": "path", "at": "$.out"}}}"#;
/// # let echo = adjutant::blueprint::parse_blueprint(text, None)?;
/// let Survey { steps, faults, .. } = survey(&echo.flow);
/// assert!(faults.iter().all(|FlowNote { place, .. }| place.starts_with("/flow")));
/// assert!(matches!(&steps[..], [FlowRef { place, .. }] if place == "/flow"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Survey {
    /// The steps, in the order of the document.
    pub steps: Vec<FlowRef>,
    /// The calls of host functions inside expressions.
    pub externs: Vec<FlowRef>,
    /// What keeps the flow from running.
    pub faults: Vec<FlowNote>,
    /// What can never run.
    pub unreachable: Vec<FlowNote>,
}

/// Walks a flow: its steps, its extern calls, its faults.
///
/// ```
/// let flow = serde_json::from_value(serde_json::json!({
///     "kind": "step", "ref": "count",
///     "in": {"op": "path", "at": "$"}, "out": {"op": "lit", "value": 1}
/// }))?;
/// let survey = adjutant::blueprint::flow::survey(&flow);
/// assert_eq!(survey.steps[0].reference, "count");
/// assert_eq!(survey.faults[0].place, "/flow/out");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[must_use]
pub fn survey(flow: &Node) -> Survey {
    match serde_json::to_value(flow) {
        Ok(value) => survey_value(&value),
        Err(error) => {
            let mut survey = Survey::default();
            survey.fault("/flow", error);
            survey
        }
    }
}

/// Every step of a flow, with its place.
///
/// ```
/// # let text = r#"{"id": "echo", "agents": [{"name": "e", "kind": "rust_fn", "spec": {"fn_id": "identity"}}],
/// #     "flow": {"kind": "step", "ref": "e", "in": {"op": "path", "at": "$.in"}, "out": {"op": "path", "at": "$.out"}}}"#;
/// # let echo = adjutant::blueprint::parse_blueprint(text, None)?;
/// assert_eq!(adjutant::blueprint::steps(&echo.flow)[0].reference, "e");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn steps(flow: &Node) -> Vec<FlowRef> {
    survey(flow).steps
}

/// Reads a flow from its document form.
///
/// ```
/// let flow = serde_json::json!({ "kind": "seq", "children": [{ "kind": "jump" }] });
/// let faults = adjutant::blueprint::flow::read(&flow).expect_err("no node is of that kind");
/// assert_eq!(faults[0].place, "/flow/children/0");
/// ```
///
/// # Errors
/// Every fault of it, each with its place.
pub fn read(value: &Value) -> Result<Node, Vec<FlowNote>> {
    let mut survey = survey_value(value);
    if !survey.faults.is_empty() {
        return Err(survey.faults);
    }
    serde_json::from_value(value.clone()).map_err(|error| {
        survey.fault("/flow", error);
        survey.faults
    })
}

pub(crate) fn survey_value(value: &Value) -> Survey {
    let mut survey = Survey::default();
    survey.node("/flow", value);
    survey
}

impl Survey {
    fn fault(&mut self, place: &str, msg: impl ToString) {
        self.faults.push(FlowNote { place: place.to_owned(), msg: msg.to_string() });
    }

    fn node(&mut self, place: &str, value: &Value) {
        let Some((shape, fields)) = self.tagged(place, value, "kind", &NODES) else { return };
        let name = |key: &str| fields.get(key).and_then(Value::as_str).map(str::to_owned);
        if shape.tag == "step"
            && let Some(reference) = name("ref")
        {
            self.steps.push(FlowRef { place: place.to_owned(), reference });
        }
        self.fields(place, shape, "kind", fields);
        self.dead_ends(place, shape.tag, fields);
    }

    fn expr(&mut self, place: &str, value: &Value) {
        let Some((shape, fields)) = self.tagged(place, value, "op", &EXPRS) else { return };
        if shape.tag == "call_extern"
            && let Some(Value::String(reference)) = fields.get("ref")
        {
            self.externs.push(FlowRef { place: place.to_owned(), reference: reference.clone() });
        }
        self.fields(place, shape, "op", fields);
    }

    /// Finds the shape that the tag names.
    fn tagged<'value>(
        &mut self,
        place: &str,
        value: &'value Value,
        tag: &str,
        shapes: &'static [Shape],
    ) -> Option<(&'static Shape, &'value Map<String, Value>)> {
        let Value::Object(fields) = value else {
            self.fault(place, format!("must be an object with a `{tag}`"));
            return None;
        };
        let Some(Value::String(name)) = fields.get(tag) else {
            self.fault(place, format!("field `{tag}` is missing or not a text"));
            return None;
        };
        let found = shapes.iter().find(|shape| shape.tag == name);
        if found.is_none() {
            let known: Vec<_> = shapes.iter().map(|shape| shape.tag).collect();
            self.fault(place, format!("unknown {tag} `{name}`; known: {}", known.join(", ")));
        }
        found.map(|shape| (shape, fields))
    }

    fn fields(&mut self, place: &str, shape: &Shape, tag: &str, fields: &Map<String, Value>) {
        for field in shape.fields {
            match fields.get(field.name) {
                None if field.required => {
                    self.fault(place, format!("{} lacks the field `{}`", shape.tag, field.name));
                }
                Some(Value::Null) if !field.required => {}
                None => {}
                Some(value) => self.field(&format!("{place}/{}", field.name), field, value),
            }
        }
        for key in fields.keys() {
            if key != tag && !shape.fields.iter().any(|field| field.name == key) {
                let known: Vec<_> = shape.fields.iter().map(|field| field.name).collect();
                let msg =
                    format!("{} has no field `{key}`; it has {}", shape.tag, known.join(", "));
                self.fault(place, msg);
            }
        }
    }

    fn field(&mut self, place: &str, field: &Field, value: &Value) {
        match field.holds {
            Holds::Any => {}
            Holds::Expr => self.expr(place, value),
            Holds::Node => self.node(place, value),
            Holds::Exprs => self.each(place, value, Self::expr),
            Holds::Nodes => self.each(place, value, Self::node),
            Holds::Path => self.path(place, value),
            Holds::Target => self.target(place, value),
            Holds::Name if value.as_str().is_some_and(|name| !name.is_empty()) => {}
            Holds::Name => self.fault(place, "must be a text that is not empty"),
            Holds::Join if value.as_str().is_some_and(|mode| JOINS.contains(&mode)) => {}
            Holds::Join => self.fault(place, format!("must be one of {}", JOINS.join(", "))),
            Holds::Count if is_count(value) => {}
            Holds::Count => self.fault(place, "must be a whole number from 1 to 4294967295"),
        }
    }

    fn each(&mut self, place: &str, value: &Value, visit: fn(&mut Self, &str, &Value)) {
        let Value::Array(items) = value else {
            self.fault(place, "must be a list");
            return;
        };
        for (index, item) in items.iter().enumerate() {
            visit(self, &format!("{place}/{index}"), item);
        }
    }

    fn path(&mut self, place: &str, value: &Value) {
        match value.as_str().map(str::parse::<mlua_flow_ir::Path>) {
            Some(Ok(_)) => {}
            Some(Err(error)) => self.fault(place, error),
            None => self.fault(place, "must be a path such as `$.name`"),
        }
    }

    fn target(&mut self, place: &str, value: &Value) {
        let before = self.faults.len();
        self.expr(place, value);
        if self.faults.len() == before && value.get("op").and_then(Value::as_str) != Some("path") {
            self.fault(place, "is written to, so it must be a path expression");
        }
    }

    /// Notes what a literal condition keeps from ever running.
    fn dead_ends(&mut self, place: &str, kind: &str, fields: &Map<String, Value>) {
        let literal = fields
            .get("cond")
            .filter(|cond| cond.get("op").and_then(Value::as_str) == Some("lit"))
            .and_then(|cond| cond.get("value"));
        let dead = match (kind, literal) {
            ("branch", Some(Value::Bool(true))) => "else",
            ("branch", Some(Value::Bool(false))) => "then",
            ("loop", Some(Value::Bool(false) | Value::Null)) => "body",
            _ => return,
        };
        let place = format!("{place}/{dead}");
        self.unreachable.push(FlowNote { place, msg: "never runs: its condition is fixed".into() });
    }
}

fn is_count(value: &Value) -> bool {
    value.as_u64().is_some_and(|count| (1..=u64::from(u32::MAX)).contains(&count))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn places(notes: &[FlowNote]) -> Vec<&str> {
        notes.iter().map(|note| note.place.as_str()).collect()
    }

    #[test]
    fn every_step_is_listed_with_its_place() {
        let at = json!({"op": "path", "at": "$.x"});
        let step = |name: &str| json!({"kind": "step", "ref": name, "in": at, "out": at});
        let flow = json!({"kind": "seq", "children": [
            step("a"),
            {"kind": "try", "body": step("b"), "catch": {"kind": "loop", "counter": at,
                "cond": at, "max": 2, "body": {"kind": "fanout", "items": at, "bind": at,
                "join": "all", "out": at, "body": {"kind": "branch", "cond": at,
                "then": step("c"), "else": step("d")}}}},
        ]});
        let found: Vec<_> = steps(&read(&flow).unwrap())
            .into_iter()
            .map(|step| format!("{} {}", step.reference, step.place))
            .collect();
        assert_eq!(
            found,
            [
                "a /flow/children/0",
                "b /flow/children/1/body",
                "c /flow/children/1/catch/body/body/then",
                "d /flow/children/1/catch/body/body/else",
            ]
        );
    }

    #[test]
    fn every_fault_is_found_and_not_only_the_first() {
        let flow = json!({"kind": "seq", "children": [
            {"kind": "step", "ref": "", "in": {"op": "path", "at": "x"},
             "out": {"op": "lit", "value": 1}},
            {"kind": "assign", "at": "$.x", "value": {"op": "lit", "value": 1}},
            {"kind": "loop", "counter": {"op": "path", "at": "$.n"},
             "cond": {"op": "not", "arg": {"op": "nand"}}, "body": {"kind": "seq"}, "max": 0},
        ]});
        assert_eq!(
            places(&read(&flow).unwrap_err()),
            [
                "/flow/children/0/ref",
                "/flow/children/0/in/at",
                "/flow/children/0/out",
                "/flow/children/1",
                "/flow/children/2/cond/arg",
                "/flow/children/2/body",
                "/flow/children/2/max",
            ]
        );
    }

    #[test]
    fn a_flow_built_in_code_is_surveyed_like_a_read_one() {
        // Such a flow has never met the walk over the document, so a bad target must show here.
        let lit = mlua_flow_ir::Expr::Lit { value: json!(1) };
        let flow = Node::Step { ref_: "a".into(), in_: lit.clone(), out: lit };
        assert_eq!(places(&survey(&flow).faults), ["/flow/out"]);
    }

    #[test]
    fn what_a_fixed_condition_shuts_out_is_noted() {
        let flow = json!({"kind": "branch", "cond": {"op": "lit", "value": true},
            "then": {"kind": "seq", "children": []}, "else": {"kind": "seq", "children": []}});
        assert_eq!(places(&survey(&read(&flow).unwrap()).unreachable), ["/flow/else"]);
    }
}
