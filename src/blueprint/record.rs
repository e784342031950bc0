//! Reading one record so that every wrong field is named, not only the first.
//!
//! serde stops at the first fault. When a record does not read, each of its fields is tried alone
//! in a smallest valid record of the kind, and each field that fails there is reported. It knows
//! nothing of what the records mean.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// What is said of a record that is not even an object.
pub(crate) const NOT_AN_OBJECT: &str = "must be an object";

/// A field and what is wrong with it. The field is empty where the whole record is at fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FieldFault {
    pub(crate) field: String,
    pub(crate) msg: String,
}

impl FieldFault {
    pub(crate) fn new(field: &str, msg: impl ToString) -> Self {
        Self { field: field.to_owned(), msg: msg.to_string() }
    }
}

/// Reads `value` as a `T`; `smallest` holds exactly the fields that a `T` cannot do without.
pub(crate) fn read<T: DeserializeOwned>(
    value: &Value,
    smallest: &Value,
) -> Result<T, Vec<FieldFault>> {
    let (Value::Object(fields), Value::Object(required)) = (value, smallest) else {
        return Err(vec![FieldFault::new("", NOT_AN_OBJECT)]);
    };
    serde_json::from_value(value.clone()).map_err(|whole| {
        let mut faults = faulty_fields::<T>(fields, required);
        if faults.is_empty() {
            faults.push(FieldFault::new("", whole));
        }
        faults
    })
}

fn faulty_fields<T: DeserializeOwned>(
    fields: &Map<String, Value>,
    required: &Map<String, Value>,
) -> Vec<FieldFault> {
    let missing = required
        .keys()
        .filter(|key| !fields.contains_key(*key))
        .map(|key| FieldFault::new(key, "is missing"));
    let wrong = fields.iter().filter_map(|(key, value)| {
        let mut probe = required.clone();
        probe.insert(key.clone(), value.clone());
        let outcome = serde_json::from_value::<T>(Value::Object(probe));
        outcome.err().map(|error| FieldFault::new(key, error))
    });
    missing.chain(wrong).collect()
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Pair {
        #[serde(rename = "left")]
        _left: u8,
        #[serde(default, rename = "right")]
        _right: Option<String>,
    }

    fn faulty(value: &Value) -> Vec<String> {
        let faults = read::<Pair>(value, &json!({"left": 1})).unwrap_err();
        faults.into_iter().map(|fault| fault.field).collect()
    }

    #[test]
    fn every_wrong_field_is_named_and_not_only_the_first() {
        assert_eq!(faulty(&json!({"left": "x", "right": 5, "up": 1})), ["left", "right", "up"]);
        assert_eq!(faulty(&json!({"right": 5})), ["left", "right"]);
        assert_eq!(faulty(&json!([1])), [""]);
    }

    #[test]
    fn a_valid_record_reads() {
        assert!(read::<Pair>(&json!({"left": 3}), &json!({"left": 1})).is_ok());
    }
}
