//! What a worker sends while it works and when it is done, and the payload it pulls before.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::model::ids::TaskId;

/// One piece of a worker's output. JSON is tagged by `type`.
///
/// ```
/// use adjutant_actors::model::output::{ContentRef, OutputEvent};
/// use serde_json::json;
///
/// let content = ContentRef::inline(json!({ "lines": 12 }));
/// let event = serde_json::to_value(OutputEvent::Final { content, ok: true })?;
/// assert_eq!(event["type"], "final");
/// assert_eq!(event["content"], json!({ "kind": "inline", "value": { "lines": 12 } }));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum OutputEvent {
    /// The worker reached a stage; carries no payload.
    Progress {
        /// Name of the stage.
        stage: String,
        /// Free text about it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        note: Option<String>,
    },
    /// A streaming piece of text or data.
    Partial {
        /// The piece, in the order of sending.
        chunk: Value,
    },
    /// A named product.
    Artifact {
        /// Name of the product.
        name: String,
        /// The product itself.
        content: ContentRef,
    },
    /// The verdict. The last one that an attempt accepts decides it.
    Final {
        /// The result.
        content: ContentRef,
        /// Whether the attempt passed; all that the engine reads to decide.
        ok: bool,
    },
}

impl OutputEvent {
    /// The body that this event carries, if its kind has one.
    #[must_use]
    pub fn content(&self) -> Option<&ContentRef> {
        match self {
            Self::Artifact { content, .. } | Self::Final { content, .. } => Some(content),
            Self::Progress { .. } | Self::Partial { .. } => None,
        }
    }
}

/// Where a body is. JSON is tagged by `kind`.
///
/// ```
/// use adjutant_actors::model::output::{ContentRef, OutputEvent};
///
/// assert_eq!(ContentRef::inline_text("done").to_value(), "done");
/// let content = ContentRef::file_ref("report.pdf");
/// let event = OutputEvent::Artifact { name: "report".into(), content: content.clone() };
/// assert_eq!(event.content(), Some(&content));
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum ContentRef {
    /// The body itself.
    Inline {
        /// Any JSON.
        value: Value,
    },
    /// A file that the worker left behind.
    FileRef {
        /// Path as the worker wrote it.
        path: String,
        /// Media type, if told.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mime: Option<String>,
        /// Size in bytes, if told; a hint, never trusted.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        size_hint: Option<u64>,
    },
    /// A large body that is kept once under its content hash. Events carry it in place of the
    /// body; a worker cannot submit one.
    Stored {
        /// `b3-` and the 64 hex digits of the BLAKE3 hash of the body's JSON text.
        hash: String,
        /// Length of the body's JSON text in bytes.
        bytes: u64,
    },
}

impl ContentRef {
    /// A body that travels with the event.
    #[must_use]
    pub fn inline(value: Value) -> Self {
        Self::Inline { value }
    }

    /// A text body that travels with the event.
    #[must_use]
    pub fn inline_text(text: impl Into<String>) -> Self {
        Self::Inline { value: Value::String(text.into()) }
    }

    /// A file by its path, without media type or size.
    #[must_use]
    pub fn file_ref(path: impl Into<String>) -> Self {
        Self::FileRef { path: path.into(), mime: None, size_hint: None }
    }

    /// The body as a task's result: inline bodies as they are, references as small objects.
    #[must_use]
    pub fn to_value(&self) -> Value {
        match self {
            Self::Inline { value } => value.clone(),
            Self::FileRef { path, mime, size_hint } => {
                json!({ "file_ref": path, "mime": mime, "size_hint": size_hint })
            }
            Self::Stored { hash, bytes } => json!({ "stored": hash, "bytes": bytes }),
        }
    }
}

/// What a worker needs to start: its task, its prompt, and its system prompt if one was baked.
///
/// ```
/// use adjutant_actors::model::{ids::TaskId, output::WorkerPayload};
///
/// let payload = WorkerPayload {
///     task_id: TaskId::from_bits(1),
///     attempt: 1,
///     agent: "review".into(),
///     system: None,
///     prompt: "Read it.".into(),
/// };
/// assert_eq!(serde_json::to_value(&payload)?["prompt"], "Read it.");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkerPayload {
    /// The task that the worker is bound to.
    pub task_id: TaskId,
    /// The attempt that the worker is bound to, from 1.
    pub attempt: u32,
    /// Agent that the task names.
    pub agent: String,
    /// Rendered system prompt; absent when the agent has no profile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// The directive of this attempt.
    pub prompt: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(event: &OutputEvent, expected: &Value) {
        assert_eq!(&serde_json::to_value(event).unwrap(), expected);
        assert_eq!(&serde_json::from_value::<OutputEvent>(expected.clone()).unwrap(), event);
    }

    #[test]
    fn the_wire_form_is_tagged_by_type_and_kind() {
        check(
            &OutputEvent::Progress { stage: "read".into(), note: None },
            &json!({ "type": "progress", "stage": "read" }),
        );
        check(
            &OutputEvent::Final { content: ContentRef::inline(json!([1])), ok: true },
            &json!({ "type": "final", "content": { "kind": "inline", "value": [1] }, "ok": true }),
        );
        check(
            &OutputEvent::Artifact { name: "log".into(), content: ContentRef::file_ref("a.txt") },
            &json!({ "type": "artifact", "name": "log",
                     "content": { "kind": "file_ref", "path": "a.txt" } }),
        );
    }
}
