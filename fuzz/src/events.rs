//! Events and output as JSON: what is read is written and read again as the same.

use adjutant::{ContentRef, Event, EventRecord, OutputEvent, TaskSpec, WorkerPayload};
use serde::Serialize;
use serde::de::DeserializeOwned;

fn comes_back<T: DeserializeOwned + Serialize + PartialEq + std::fmt::Debug>(
    input: &[u8],
) -> Option<T> {
    let value: T = serde_json::from_slice(input).ok()?;
    let written = serde_json::to_vec(&value).expect("what was JSON can be written as JSON");
    let again: T = serde_json::from_slice(&written).expect("what was written can be read");
    assert_eq!(again, value);
    Some(value)
}

/// Reads a text as each of the shapes that travel.
pub fn check(input: &[u8]) {
    if let Some(event) = comes_back::<Event>(input) {
        let json = serde_json::to_value(&event).expect("it was written before");
        assert_eq!(json["kind"], event.kind());
        let task = event.task_id().map(|id| id.to_string());
        assert_eq!(json.get("task_id").and_then(|id| id.as_str()), task.as_deref());
    }
    comes_back::<EventRecord>(input);
    if let Some(event) = comes_back::<OutputEvent>(input) {
        assert!(event.content().is_none_or(|content| serde_json::to_value(content).is_ok()));
    }
    comes_back::<ContentRef>(input);
    comes_back::<TaskSpec>(input);
    comes_back::<WorkerPayload>(input);
}
