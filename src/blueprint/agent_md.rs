//! Agents written as Markdown: front matter and a body that is the system prompt.
//!
//! The front matter is a small part of YAML: `key: value` lines, values as JSON or as plain text,
//! and lists as `- item` lines under a key or separated by commas. It reads no file itself.

use serde_json::{Map, Value, json};

/// Turns the text of an agent file into the JSON form of an agent.
///
/// `name`, `kind`, `spec` and `on_interrupt` are the agent's own; `operator_ref` goes into the spec; `version`
/// and `tags` into its meta; the fields of a profile into the profile; everything else into the
/// profile's extras. The body becomes the system prompt.
pub(crate) fn to_agent(text: &str) -> Result<Value, String> {
    let (front, body) = split(text)?;
    let mut agent = Map::new();
    let mut profile = Map::new();
    let mut meta = Map::new();
    let mut extras = Map::new();
    for (key, value) in pairs(&front)? {
        match key.as_str() {
            "name" | "kind" | "spec" | "on_interrupt" => drop(agent.insert(key, value)),
            "operator_ref" => {
                let spec = agent.entry("spec").or_insert_with(|| json!({}));
                let spec = spec.as_object_mut().ok_or("`spec` must be an object")?;
                spec.insert(key, value);
            }
            "version" => drop(meta.insert(key, value)),
            "tags" => drop(meta.insert(key, as_list(value))),
            "tools" => drop(profile.insert(key, as_list(value))),
            "model" | "effort" | "description" | "version_hash" | "worker_binding" => {
                profile.insert(key, value);
            }
            _ => drop(extras.insert(key, value)),
        }
    }
    if !body.is_empty() {
        profile.insert("system_prompt".into(), Value::String(body));
    }
    profile.insert("extras".into(), Value::Object(extras));
    agent.insert("profile".into(), Value::Object(profile));
    agent.insert("meta".into(), Value::Object(meta));
    Ok(Value::Object(agent))
}

/// The lines between the two `---` lines, and the text after them without blank ends.
fn split(text: &str) -> Result<(Vec<&str>, String), String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut lines = text.lines();
    if lines.next().map(str::trim_end) != Some("---") {
        return Err("must begin with a line `---`".into());
    }
    let mut front = Vec::new();
    for line in lines.by_ref() {
        if line.trim_end() == "---" {
            let body: Vec<_> = lines.collect();
            return Ok((front, body.join("\n").trim().to_owned()));
        }
        front.push(line);
    }
    Err("the front matter has no closing line `---`".into())
}

fn pairs(lines: &[&str]) -> Result<Vec<(String, Value)>, String> {
    let mut pairs: Vec<(String, Value)> = Vec::new();
    for line in lines.iter().map(|line| line.trim_end()) {
        let bare = line.trim_start();
        if bare.is_empty() || bare.starts_with('#') {
            continue;
        }
        if let Some(item) = bare.strip_prefix("- ") {
            let (key, list) = pairs.last_mut().ok_or("a list item stands before any key")?;
            match list {
                Value::Null => *list = json!([scalar(item)]),
                Value::Array(items) => items.push(scalar(item)),
                _ => return Err(format!("`{key}` has both a value and list items")),
            }
            continue;
        }
        let split = if bare == line { line.split_once(':') } else { None };
        let (key, value) = split.ok_or_else(|| format!("`{bare}` is not a `key: value` line"))?;
        if pairs.iter().any(|(other, _)| other == key.trim()) {
            return Err(format!("`{}` is given twice", key.trim()));
        }
        let value = value.trim();
        let value = if value.is_empty() { Value::Null } else { scalar(value) };
        pairs.push((key.trim().to_owned(), value));
    }
    Ok(pairs)
}

/// JSON where it reads as an object, a list or a quoted text; else the text as it stands.
fn scalar(text: &str) -> Value {
    let text = text.trim();
    if text.starts_with(['{', '[', '"'])
        && let Ok(value) = serde_json::from_str(text)
    {
        return value;
    }
    let quoted = text.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\''));
    let bare = quoted.or_else(|| text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')));
    Value::String(bare.unwrap_or(text).to_owned())
}

fn as_list(value: Value) -> Value {
    match value {
        Value::String(text) => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            items.map(scalar).collect()
        }
        Value::Null => json!([]),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn front_matter_and_body_become_an_agent() {
        let text = "---\nname: reviewer\nkind: operator\noperator_ref: main\ndescription: reads: all\n\
                    tools: Read, Grep\ntags:\n  - one\n  - \"two\"\ncolor: red\n---\n\nYou review.\n";
        assert_eq!(
            to_agent(text).unwrap(),
            json!({
                "name": "reviewer", "kind": "operator", "spec": {"operator_ref": "main"},
                "profile": {"description": "reads: all", "tools": ["Read", "Grep"],
                            "system_prompt": "You review.", "extras": {"color": "red"}},
                "meta": {"tags": ["one", "two"]},
            })
        );
    }

    #[test]
    fn a_spec_may_be_written_as_json() {
        let text = "---\nname: a\nkind: subprocess\nspec: {\"program\": \"wc\"}\n---\n";
        assert_eq!(to_agent(text).unwrap()["spec"], json!({"program": "wc"}));
    }

    #[test]
    fn broken_front_matter_is_refused_with_a_reason() {
        for text in ["name: a", "---\nname: a\n", "---\n- a\n---\n", "---\na: 1\na: 2\n---\n"] {
            assert!(to_agent(text).is_err(), "{text:?}");
        }
    }
}
