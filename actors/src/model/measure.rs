//! Measures a JSON value at the door: bytes of its text and levels of its nesting, without
//! building the text.

use std::io;

use serde_json::Value;

use crate::errors::EngineError;

/// Deepest nesting that is accepted. A JSON reader takes 127 levels by default; the difference is
/// for the records and events that a value travels in.
pub const NESTING_MAX: u64 = 100;

struct Counter {
    bytes: u64,
    max: u64,
}

impl io::Write for Counter {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.bytes += buf.len() as u64;
        if self.bytes > self.max { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(buf.len()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Levels of nesting; looks no deeper than one past the limit.
fn levels(value: &Value, left: u64) -> u64 {
    match value {
        Value::Array(_) | Value::Object(_) if left == 0 => 1,
        Value::Array(items) => {
            1 + items.iter().map(|item| levels(item, left - 1)).max().unwrap_or(0)
        }
        Value::Object(map) => {
            1 + map.values().map(|item| levels(item, left - 1)).max().unwrap_or(0)
        }
        _ => 0,
    }
}

/// Bytes of the JSON text of `value`.
///
/// ```
/// use adjutant_actors::model::measure::measure;
///
/// assert_eq!(measure("result", &serde_json::json!([1, 2]), 100)?, 5);
/// assert!(measure("result", &serde_json::json!("far too long"), 5).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// `ValueTooLarge` above `max` bytes or above [`NESTING_MAX`] levels.
pub fn measure(what: &'static str, value: &Value, max: u64) -> Result<u64, EngineError> {
    let depth = levels(value, NESTING_MAX);
    if depth > NESTING_MAX {
        return Err(EngineError::ValueTooLarge {
            what,
            unit: "levels",
            current: depth,
            max: NESTING_MAX,
        });
    }
    let mut counter = Counter { bytes: 0, max };
    match serde_json::to_writer(&mut counter, value) {
        Ok(()) => Ok(counter.bytes),
        Err(_) => {
            Err(EngineError::ValueTooLarge { what, unit: "bytes", current: counter.bytes, max })
        }
    }
}

/// Checks the length of a text.
///
/// ```
/// assert!(adjutant_actors::model::measure::measure_text("prompt", "hello", 4).is_err());
/// ```
///
/// # Errors
/// `ValueTooLarge` above `max` bytes.
pub fn measure_text(what: &'static str, text: &str, max: u64) -> Result<u64, EngineError> {
    let bytes = text.len() as u64;
    if bytes > max {
        return Err(EngineError::ValueTooLarge { what, unit: "bytes", current: bytes, max });
    }
    Ok(bytes)
}

/// Checks a name that people and logs will read: not empty, not long, no control characters.
///
/// ```
/// use adjutant_actors::model::measure::check_name;
///
/// assert!(check_name("agent", "review").is_ok());
/// assert!(check_name("agent", "").is_err() && check_name("agent", "a\nb").is_err());
/// ```
///
/// # Errors
/// `InvalidArgument`, `ValueTooLarge`.
pub fn check_name(what: &'static str, name: &str) -> Result<(), EngineError> {
    measure_text(what, name, 256)?;
    if name.is_empty() {
        return Err(EngineError::InvalidArgument(format!("the {what} is empty")));
    }
    if name.chars().any(char::is_control) {
        return Err(EngineError::InvalidArgument(format!("the {what} has a control character")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_measure_is_the_length_of_the_text() {
        let value = json!({ "a": [1, "x\n", null], "b": { "c": true } });
        assert_eq!(measure("value", &value, 1000), Ok(value.to_string().len() as u64));
    }

    #[test]
    fn one_byte_over_is_refused() {
        let value = json!("12345");
        assert!(measure("value", &value, 7).is_ok());
        assert!(matches!(
            measure("value", &value, 6),
            Err(EngineError::ValueTooLarge { unit: "bytes", max: 6, .. })
        ));
    }

    #[test]
    fn deep_nesting_is_refused() {
        let nested = |levels: usize| (0..levels).fold(json!(0), |inner, _| json!([inner]));
        assert!(measure("value", &nested(100), 10_000).is_ok());
        assert!(matches!(
            measure("value", &nested(101), 10_000),
            Err(EngineError::ValueTooLarge { unit: "levels", .. })
        ));
    }
}
