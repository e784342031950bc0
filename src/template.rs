//! Strict templates: an unknown variable is an error, nothing is escaped.

use minijinja::{Environment, UndefinedBehavior};
use serde_json::{Map, Value};

/// Renders `template`. Its variables are the top-level keys of `input` where that is a JSON object
/// (or the text of one), else the one variable `directive`.
pub(crate) fn render(name: &str, template: &str, input: &Value) -> Result<String, String> {
    let mut environment = Environment::empty();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment
        .render_named_str(name, template, slots(input))
        .map_err(|error| format!("render the template of {name}: {error:#}"))
}

fn slots(input: &Value) -> Map<String, Value> {
    let parsed = match input {
        Value::String(text) => serde_json::from_str(text).ok(),
        other => Some(other.clone()),
    };
    match parsed {
        Some(Value::Object(slots)) => slots,
        _ => Map::from_iter([("directive".to_owned(), input.clone())]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn slots_are_the_keys_or_the_directive() {
        let check = |template, input: Value| render("t", template, &input);
        assert_eq!(check("{{ a }}<b>", json!({ "a": "<x>" })), Ok("<x><b>".to_owned()));
        assert_eq!(check("{{ a }}", json!("{\"a\": 1}")), Ok("1".to_owned()));
        assert_eq!(check("{{ directive }}!", json!("go")), Ok("go!".to_owned()));
    }

    #[test]
    fn an_unknown_variable_is_an_error_that_names_the_template() {
        let error = render("greeter", "{{ nobody }}", &json!({})).unwrap_err();
        assert!(error.contains("greeter"), "{error}");
    }
}
