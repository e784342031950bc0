//! Handles, ids and the keys of rows: each has one spelling, and nothing else is taken for one.

use std::fmt::Display;
use std::str::FromStr;

use adjutant::{OutputRef, ResumeKey, Role, RunId, SessionId, TaskId, TokenFingerprint, WorkerId};
use adjutant_actors::model::token::parse_handle;
use adjutant_actors::state::images::{Key, TableName};

fn one_spelling<T: FromStr + Display>(text: &str) {
    if let Ok(id) = text.parse::<T>() {
        assert_eq!(id.to_string(), text, "an id has two spellings");
    }
}

/// Reads a text as everything that has a name.
pub fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    one_spelling::<TaskId>(text);
    one_spelling::<SessionId>(text);
    one_spelling::<RunId>(text);
    one_spelling::<WorkerId>(text);
    one_spelling::<ResumeKey>(text);
    one_spelling::<OutputRef>(text);
    one_spelling::<Role>(text);
    for table in TableName::ALL {
        if let Some(key) = Key::parse(table, text) {
            assert_eq!((key.table(), key.text().as_str()), (table, text));
        }
    }
    let quoted = serde_json::Value::from(text);
    if let Ok(print) = serde_json::from_value::<TokenFingerprint>(quoted) {
        assert_eq!(print.to_string(), text);
    }
    if parse_handle(text).is_ok() {
        assert!(text.len() == 33 && text.starts_with("wh-") && text.is_ascii());
        assert!(parse_handle(&text.to_uppercase()).is_err());
    }
}
