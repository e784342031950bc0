//! What goes over an operator's link: text frames of JSON, told apart by `type`.
//!
//! Each frame to the operator has `req_id`, the `generation` of its login and a `seq` that rises
//! within it. A frame that was not settled is sent again on the next socket, unchanged; so an
//! operator that remembers the `req_id` of what it has seen does nothing twice.

use adjutant_actors::model::ids::TaskId;
use serde::Deserialize;
use serde_json::{Map, Value};

/// What is asked of an operator, or told to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A question to the senior.
    Ask,
    /// May this attempt start?
    HookBefore,
    /// An attempt ended. Wants no reply.
    HookAfter,
    /// Have this attempt's work done.
    Spawn,
    /// What was asked under this id is of no use any more. Wants no reply.
    Withdrawn,
    /// The server is going down: nothing new comes. Wants no reply.
    Draining,
}

impl Kind {
    /// The frame's `type`.
    fn word(self) -> &'static str {
        match self {
            Self::Ask => "ask",
            Self::HookBefore => "hook_before",
            Self::HookAfter => "hook_after",
            Self::Spawn => "spawn",
            Self::Withdrawn => "withdrawn",
            Self::Draining => "draining",
        }
    }

    /// How an id of this kind is recognized by eye.
    pub(crate) fn mark(self) -> &'static str {
        match self {
            Self::Ask => "ask",
            Self::HookBefore => "hb",
            Self::HookAfter => "ha",
            Self::Spawn => "spawn",
            Self::Withdrawn | Self::Draining => "note",
        }
    }

    /// The `type` of its reply; none where none is wanted.
    pub(crate) fn reply(self) -> Option<&'static str> {
        match self {
            Self::Ask => Some("answer"),
            Self::HookBefore => Some("hook_ack"),
            Self::Spawn => Some("spawn_ack"),
            Self::HookAfter | Self::Withdrawn | Self::Draining => None,
        }
    }
}

/// What every frame to the operator carries.
pub(crate) struct Stamp<'a> {
    pub(crate) kind: Kind,
    pub(crate) req_id: &'a str,
    pub(crate) generation: u64,
    pub(crate) seq: u64,
}

/// The text of a frame.
pub(crate) fn text(stamp: &Stamp<'_>, task: Option<&TaskId>, fields: Map<String, Value>) -> String {
    let mut frame = fields;
    frame.insert("type".to_owned(), stamp.kind.word().into());
    frame.insert("req_id".to_owned(), stamp.req_id.into());
    frame.insert("generation".to_owned(), stamp.generation.into());
    frame.insert("seq".to_owned(), stamp.seq.into());
    if let Some(task) = task {
        frame.insert("task_id".to_owned(), task.to_string().into());
    }
    Value::Object(frame).to_string()
}

/// What an operator said to a request. Fields that it does not know are passed over.
#[derive(Debug, Deserialize, PartialEq)]
pub(crate) struct Reply {
    #[serde(rename = "type")]
    pub(crate) word: String,
    pub(crate) req_id: String,
    /// The login that answers, if it says so.
    pub(crate) generation: Option<u64>,
    #[serde(default)]
    pub(crate) value: Option<Value>,
    #[serde(default = "yes")]
    pub(crate) ok: bool,
    pub(crate) reason: Option<String>,
    pub(crate) error: Option<String>,
}

fn yes() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_reply_is_read_with_the_defaults_of_the_contract() {
        let reply: Reply =
            serde_json::from_str(r#"{"type": "spawn_ack", "req_id": "r", "more": 1}"#).unwrap();
        assert!(reply.ok && reply.value.is_none() && reply.error.is_none());
        let reply: Reply =
            serde_json::from_str(r#"{"type": "answer", "req_id": "r", "value": {"a": 1}}"#)
                .unwrap();
        assert_eq!(reply.value, Some(json!({ "a": 1 })));
        assert!(serde_json::from_str::<Reply>(r#"{"type": "answer"}"#).is_err());
    }

    #[test]
    fn a_body_cannot_change_what_a_frame_says_of_itself() {
        let mut fields = Map::new();
        fields.insert("type".to_owned(), "spawn".into());
        let stamp = Stamp { kind: Kind::Ask, req_id: "r", generation: 3, seq: 7 };
        let text = text(&stamp, Some(&TaskId::from_bits(1)), fields);
        let frame: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&frame["type"], &frame["seq"]), (&json!("ask"), &json!(7)));
    }
}
