//! What can be wrong with a blueprint, and how it is said.
//!
//! Faults come in lists: whoever compiles a document sees all of them in one go, each with the
//! agent or the place and the field. Messages name what was written, never an environment value.

use std::fmt;

use super::document::AgentKind;

/// One fault of a blueprint.
///
/// ```
/// use adjutant::blueprint::{CompileError, Known, check_text};
///
/// let faults = check_text("{}", None, &Known::default()).expect_err("an empty document");
/// for fault in faults {
///     match fault {
///         CompileError::InvalidDocument { field, msg } => assert!(!msg.is_empty(), "{field}"),
///         other => panic!("{other}"),
///     }
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CompileError {
    /// The document's version is not one that this build reads.
    #[error("document: field `schema_version`: `{found}` is not supported, only `{supported}` is")]
    UnsupportedVersion {
        /// What the document says.
        found: String,
        /// What this build reads.
        supported: &'static str,
    },
    /// The document itself is at fault, outside its agents and its flow.
    #[error("document: {}{msg}", of_field(.field))]
    InvalidDocument {
        /// The field, empty where it is the whole document.
        field: String,
        /// What is wrong with it.
        msg: String,
    },
    /// A file that the document refers to cannot be used.
    #[error("{place}: file reference `{path}`: {msg}")]
    FileRef {
        /// Where in the document, as a JSON pointer.
        place: String,
        /// What was written.
        path: String,
        /// Why it cannot be used.
        msg: String,
    },
    /// An agent's record is at fault, outside its spec.
    #[error("agent `{agent}`: {}{msg}", of_field(.field))]
    InvalidAgent {
        /// The agent's name, or its place where it has none.
        agent: String,
        /// The field, empty where it is the whole record.
        field: String,
        /// What is wrong with it.
        msg: String,
    },
    /// An agent is of a kind that this build does not run.
    #[error("agent `{agent}`: field `kind`: {}", unsupported(.kind))]
    UnknownKind {
        /// The agent's name.
        agent: String,
        /// The kind as written.
        kind: AgentKind,
    },
    /// An agent's spec does not fit its kind.
    #[error("agent `{agent}`: field `{}`: {msg}", spec_field(.field))]
    InvalidSpec {
        /// The agent's name.
        agent: String,
        /// The field of the spec, empty where it is the whole spec.
        field: String,
        /// What is wrong with it.
        msg: String,
    },
    /// Two agents have one name.
    #[error("agent `{agent}`: field `name`: is given to {count} agents")]
    DuplicateAgent {
        /// The name.
        agent: String,
        /// How many agents have it.
        count: usize,
    },
    /// An agent names an operator that nobody declares.
    #[error(
        "agent `{agent}`: field `spec.operator_ref`: no operator `{reference}`; defined: {}",
        list(.defined)
    )]
    UnresolvedOperatorRef {
        /// The agent's name.
        agent: String,
        /// What it names.
        reference: String,
        /// What it could have named.
        defined: Vec<String>,
    },
    /// A step names an agent that does not exist.
    #[error("{place}: field `ref`: no agent `{reference}`{}; known: {}", meant(.nearest), list(.known))]
    UnresolvedRef {
        /// The step's place, as a JSON pointer.
        place: String,
        /// What it names.
        reference: String,
        /// The known name that looks most like it.
        nearest: Option<String>,
        /// What it could have named.
        known: Vec<String>,
    },
    /// A part of the flow is at fault.
    #[error("{place}: {msg}")]
    InvalidFlow {
        /// The place, as a JSON pointer.
        place: String,
        /// What is wrong there.
        msg: String,
    },
}

fn of_field(field: &str) -> String {
    if field.is_empty() { String::new() } else { format!("field `{field}`: ") }
}

fn spec_field(field: &str) -> String {
    match field {
        "" => "spec".to_owned(),
        _ if field.starts_with("profile.") => field.to_owned(),
        _ => format!("spec.{field}"),
    }
}

fn unsupported(kind: &AgentKind) -> String {
    let why = match kind {
        AgentKind::Unknown(_) => "is not a kind of agent",
        _ => "is a kind that this build does not run",
    };
    format!("`{kind}` {why}; supported: {}", AgentKind::SUPPORTED.join(", "))
}

fn meant(nearest: &Option<String>) -> String {
    nearest.as_ref().map(|name| format!(" (did you mean `{name}`?)")).unwrap_or_default()
}

/// A list for a message, cut where it would drown the message.
fn list(names: &[String]) -> String {
    const SHOWN: usize = 12;
    match names.len() {
        0 => "none".to_owned(),
        count if count > SHOWN => {
            format!("{} and {} more", names[..SHOWN].join(", "), count - SHOWN)
        }
        _ => names.join(", "),
    }
}

/// All faults of a blueprint, at least one.
///
/// It prints one numbered line a fault and a closing line that counts them.
///
/// ```
/// use adjutant::blueprint::{CompileError, CompileErrors};
///
/// assert!(CompileErrors::from_list(vec![]).is_ok());
/// let fault = CompileError::InvalidFlow { place: "/flow".into(), msg: "it is empty".into() };
/// let all = CompileErrors::from_list(vec![fault.clone()]).expect_err("there is one");
/// assert_eq!(all.errors(), [fault]);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompileErrors(Vec<CompileError>);

impl CompileErrors {
    /// Wraps a list of faults; `Ok` where it is empty.
    ///
    /// # Errors
    /// The faults, where there are any.
    pub fn from_list(errors: Vec<CompileError>) -> Result<(), Self> {
        if errors.is_empty() { Ok(()) } else { Err(Self(errors)) }
    }

    /// Wraps faults of which there is at least one.
    pub(crate) fn of(errors: Vec<CompileError>) -> Self {
        debug_assert!(!errors.is_empty(), "a failure has at least one fault");
        Self(errors)
    }

    /// The faults, in the order of the document.
    #[must_use]
    pub fn errors(&self) -> &[CompileError] {
        &self.0
    }
}

impl From<CompileError> for CompileErrors {
    fn from(error: CompileError) -> Self {
        Self(vec![error])
    }
}

impl IntoIterator for CompileErrors {
    type Item = CompileError;
    type IntoIter = std::vec::IntoIter<CompileError>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl fmt::Display for CompileErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            writeln!(f, "{}. {error}", index + 1)?;
        }
        match self.0.len() {
            1 => f.write_str("1 error in the blueprint"),
            count => write!(f, "{count} errors in the blueprint"),
        }
    }
}

impl std::error::Error for CompileErrors {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_faults_is_numbered_and_counted() {
        let errors = vec![
            CompileError::UnknownKind { agent: "a".into(), kind: AgentKind::Lua },
            CompileError::InvalidSpec {
                agent: "b".into(),
                field: "program".into(),
                msg: "is missing".into(),
            },
        ];
        let text = CompileErrors::from_list(errors).unwrap_err().to_string();
        assert_eq!(
            text,
            "1. agent `a`: field `kind`: `lua` is a kind that this build does not run; \
             supported: subprocess, rust_fn, operator, ask\n\
             2. agent `b`: field `spec.program`: is missing\n\
             2 errors in the blueprint"
        );
    }
}
