//! Public ids: what they look like, how they are parsed and printed.
//!
//! An id names a thing and grants nothing. Each is 128 random bits behind a prefix that tells
//! its kind, held as a number so that it is `Copy` and costs no allocation. Ids are drawn in
//! [`crate::model::mint`] and nowhere else.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Why a text is not an id of the kind that was asked for.
///
/// ```
/// use adjutant_actors::model::ids::{IdParseError, RunId, TaskId};
///
/// let task = TaskId::from_bits(7);
/// assert_eq!(task.to_string().parse::<TaskId>()?.bits(), 7);
/// let IdParseError { prefix, .. } = task.to_string().parse::<RunId>().expect_err("a task's id");
/// assert_eq!(prefix, RunId::PREFIX);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} must be `{prefix}` and 32 lower-case hex digits")]
pub struct IdParseError {
    /// The kind of id that was expected, such as `task id`.
    pub kind: &'static str,
    /// The prefix of that kind, such as `T-`.
    pub prefix: &'static str,
}

/// Parses exactly 32 lower-case hex digits; one spelling per number, so ids compare as text too.
fn parse_hex(text: &str) -> Option<u128> {
    let digits = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if text.len() == 32 && digits { u128::from_str_radix(text, 16).ok() } else { None }
}

/// The 32 lower-case hex digits of a number.
pub(crate) fn hex_digits(bits: u128) -> [u8; 32] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [0; 32];
    for (pair, byte) in text.chunks_exact_mut(2).zip(bits.to_be_bytes()) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    text
}

/// Digits as text.
pub(crate) fn as_text(digits: &[u8; 32]) -> &str {
    std::str::from_utf8(digits).expect("hex digits are ASCII")
}

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(u128);

        impl $name {
            /// The text before the digits.
            pub const PREFIX: &'static str = $prefix;

            /// Makes the id from its number. Use the engine's mint for fresh ones.
            #[must_use]
            pub const fn from_bits(bits: u128) -> Self {
                Self(bits)
            }

            /// The number behind the prefix.
            #[must_use]
            pub const fn bits(self) -> u128 {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str($prefix)?;
                f.write_str(as_text(&hex_digits(self.0)))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = IdParseError;

            fn from_str(text: &str) -> Result<Self, IdParseError> {
                text.strip_prefix($prefix)
                    .and_then(parse_hex)
                    .map(Self)
                    .ok_or(IdParseError { kind: $kind, prefix: $prefix })
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

id_type!(
    /// Names one task: `T-` and 32 hex digits.
    TaskId,
    "task id",
    "T-"
);
id_type!(
    /// Names one session: `S-` and 32 hex digits. Derived from the session token's nonce by a
    /// one-way hash, so a token finds its session without a look-up.
    SessionId,
    "session id",
    "S-"
);
id_type!(
    /// Names one worker: `W-` and 32 hex digits.
    WorkerId,
    "worker id",
    "W-"
);
id_type!(
    /// Names one question to a senior: `R-` and 32 hex digits. A public id: the right to answer
    /// is the `AnswerQuery` verb, not the knowledge of the key.
    ResumeKey,
    "resume key",
    "R-"
);

id_type!(
    /// Names one run of a program: `run-` and 32 hex digits.
    RunId,
    "run id",
    "run-"
);
id_type!(
    /// Names one call of a step within a run: `step-` and 32 hex digits. Not drawn: it follows from
    /// what the step is called with, so that the same call has the same key in every process.
    StepKey,
    "step key",
    "step-"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_what_it_prints() {
        let id = TaskId::from_bits(0x2a);
        assert_eq!(id.to_string(), "T-0000000000000000000000000000002a");
        assert_eq!(id.to_string().parse(), Ok(id));
        let json = serde_json::to_string(&id).unwrap();
        assert_eq!(serde_json::from_str::<TaskId>(&json).unwrap(), id);
    }

    #[test]
    fn only_one_spelling_is_an_id() {
        let texts = [
            "",
            "T-",
            "T-2a",
            "S-0000000000000000000000000000002a",
            "T-0000000000000000000000000000002A",
            "T-+000000000000000000000000000002a",
            " T-0000000000000000000000000000002a",
        ];
        for text in texts {
            assert!(text.parse::<TaskId>().is_err(), "{text:?} was taken for a task id");
        }
    }
}
