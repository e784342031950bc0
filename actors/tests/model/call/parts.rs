//! What calls are made of: tokens, callers, outputs, ends and values by their numbers.

use std::sync::{Arc, LazyLock};

use adjutant_actors::model::ids::SessionId;
use adjutant_actors::model::output::{ContentRef, OutputEvent};
use adjutant_actors::model::task::TaskSpec;
use adjutant_actors::model::token::{HandleKey, Signed, TokenFingerprint, TokenSigner};
use adjutant_actors::state::attempts::AttemptEnd;
use adjutant_actors::state::auth::Access;
use serde_json::{Value, json};

/// Tokens that one history may use.
pub(crate) const TOKENS: usize = 160;

/// A token's public name and its handle, made once for all histories.
pub(crate) struct Made {
    pub(crate) signed: Signed,
    pub(crate) handle: HandleKey,
}

/// The tokens by their number. What the state compares is here; no signature is needed.
pub(crate) static POOL: LazyLock<Vec<Made>> = LazyLock::new(|| {
    let signer = TokenSigner::new([7; 32]);
    let made = |number: usize| {
        let fingerprint = TokenFingerprint::of_nonce(&format!("{number:032x}"));
        let digest = *blake3::hash(&number.to_be_bytes()).as_bytes();
        let handle = signer.handle_key(&format!("wh-{number}"));
        Made { signed: Signed { kid: 1, fingerprint, digest }, handle }
    };
    (0..TOKENS).map(made).collect()
});

/// The session that a token opens.
pub(crate) fn session_of(token: usize) -> SessionId {
    POOL[token].signed.fingerprint.session_id()
}

/// Who calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    Host,
    /// The holder of this token; the state may never have heard of it.
    Token(usize),
    /// One who changed a field of this token.
    Forger(usize),
}

impl Who {
    pub(crate) fn access(self) -> Access {
        match self {
            Self::Host => Access::Trusted,
            Self::Token(token) => Access::Token(POOL[token].signed),
            Self::Forger(token) => Access::Token(Signed { digest: [0; 32], ..POOL[token].signed }),
        }
    }
}

/// A piece of output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Out {
    Progress,
    Partial(u8),
    Artifact(u8),
    Final(u8, bool),
    File(bool),
}

impl Out {
    pub(crate) fn event(self) -> OutputEvent {
        match self {
            Self::Progress => OutputEvent::Progress { stage: "half".into(), note: None },
            Self::Partial(chunk) => OutputEvent::Partial { chunk: value(chunk) },
            Self::Artifact(body) => OutputEvent::Artifact {
                name: "part".into(),
                content: ContentRef::inline(value(body)),
            },
            Self::Final(body, ok) => {
                OutputEvent::Final { content: ContentRef::inline(value(body)), ok }
            }
            Self::File(ok) => OutputEvent::Final { content: ContentRef::file_ref("a/b"), ok },
        }
    }
}

/// How a worker ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    Done,
    Failed(String),
    TimedOut,
    Interrupted(String),
}

impl End {
    pub(crate) fn end(&self) -> AttemptEnd {
        match self.clone() {
            Self::Done => AttemptEnd::Done,
            Self::Failed(reason) => AttemptEnd::Failed(reason),
            Self::TimedOut => AttemptEnd::TimedOut,
            Self::Interrupted(reason) => AttemptEnd::Interrupted(reason),
        }
    }
}

/// The values with their JSON texts: small ones, the null, and two above the inline size of the rules.
static VALUES: LazyLock<[(Value, String); 5]> = LazyLock::new(|| {
    let values = [
        Value::Null,
        json!(1),
        json!({ "two": 2 }),
        json!("three, and longer than what is kept inline here"),
        json!(["four", "and longer than what is kept inline here"]),
    ];
    values.map(|value| (value.clone(), value.to_string()))
});

/// A value by its number.
pub(crate) fn value(number: u8) -> Value {
    VALUES[usize::from(number) % VALUES.len()].0.clone()
}

/// Its JSON text.
pub(crate) fn json_text(number: u8) -> &'static str {
    &VALUES[usize::from(number) % VALUES.len()].1
}

/// The spec of a task by the number of its agent.
pub(crate) fn spec(agent: u8) -> TaskSpec {
    TaskSpec::new(format!("agent-{agent}"), "do it")
}

pub(crate) fn text(number: u8) -> Arc<str> {
    format!("text-{number}").into()
}
