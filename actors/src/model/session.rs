//! Sessions: who is attached, with which faces, and the cascade that picks an agent's kind.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::model::ids::{SessionId, TaskId};
use crate::model::role::Role;

/// Who does an agent's work: the operator itself, a machine, or both.
///
/// ```
/// use adjutant_actors::model::session::OperatorKind;
///
/// assert_eq!(serde_json::to_value(OperatorKind::MainAi)?, "main_ai");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum OperatorKind {
    /// An operator does the work.
    MainAi,
    /// A spawner does the work.
    #[default]
    Automate,
    /// A spawner does the work and an operator watches it.
    Composite,
}

/// Everything that `attach` stores of a new session beside its token.
///
/// ```
/// use adjutant_actors::model::session::{OperatorKind, SessionFaces};
///
/// let mut faces = SessionFaces { operator_kind: Some(OperatorKind::Composite), ..SessionFaces::default() };
/// faces.runtime_agent_kinds.insert("review".into(), OperatorKind::MainAi);
/// assert_eq!(faces.kind_for("review"), OperatorKind::MainAi);
/// assert_eq!(faces.kind_for("build"), OperatorKind::Composite);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionFaces {
    /// Kind that was asked for at launch; `None` leaves it to the blueprint.
    pub operator_kind: Option<OperatorKind>,
    /// Kinds given per agent at launch.
    pub runtime_agent_kinds: HashMap<String, OperatorKind>,
    /// Kinds given per agent by the blueprint.
    pub bp_agent_kinds: HashMap<String, OperatorKind>,
    /// Kind that the blueprint gives to all.
    pub bp_global_kind: Option<OperatorKind>,
    /// Registered senior bridge.
    pub bridge_id: Option<String>,
    /// Registered spawn hook.
    pub hook_id: Option<String>,
    /// Registered operator.
    pub operator_backend_id: Option<String>,
}

/// A snapshot of one session. Only ids are stored, never live objects.
///
/// ```
/// use adjutant_actors::model::session::OperatorSession;
///
/// /// The seconds since a session was seen.
/// fn silent_for(session: &OperatorSession, now: u64) -> u64 {
///     now.saturating_sub(session.last_seen)
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorSession {
    /// Its id.
    pub id: SessionId,
    /// Who attached.
    pub operator_id: String,
    /// What it may do.
    pub role: Role,
    /// Unix seconds.
    pub attached_at: u64,
    /// Unix seconds of the last heartbeat.
    pub last_seen: u64,
    /// Whether its heartbeats are within the threshold.
    pub attached: bool,
    /// Tasks that it started and that are still remembered, oldest id first.
    pub owned_task_ids: Vec<TaskId>,
    /// Fingerprint of the token's nonce; the nonce itself is never stored.
    pub token_nonce: String,
    /// Kind that was asked for at launch.
    pub operator_kind: Option<OperatorKind>,
    /// Kinds given per agent at launch.
    pub runtime_agent_kinds: HashMap<String, OperatorKind>,
    /// Kinds given per agent by the blueprint.
    pub bp_agent_kinds: HashMap<String, OperatorKind>,
    /// Kind that the blueprint gives to all.
    pub bp_global_kind: Option<OperatorKind>,
    /// Registered senior bridge.
    pub bridge_id: Option<String>,
    /// Registered spawn hook.
    pub hook_id: Option<String>,
    /// Registered operator.
    pub operator_backend_id: Option<String>,
}

/// Picks the kind for one agent; the first that is present wins: per agent at launch, at launch
/// for all, per agent in the blueprint, for all in the blueprint, else Automate.
///
/// ```
/// use adjutant_actors::model::session::{OperatorKind, collapse_operator_kind};
/// let kind = collapse_operator_kind(None, Some(OperatorKind::Automate), Some(OperatorKind::MainAi), None);
/// assert_eq!(kind, OperatorKind::Automate);
/// ```
#[must_use]
pub fn collapse_operator_kind(
    runtime_agent: Option<OperatorKind>,
    runtime_global: Option<OperatorKind>,
    bp_agent: Option<OperatorKind>,
    bp_global: Option<OperatorKind>,
) -> OperatorKind {
    runtime_agent.or(runtime_global).or(bp_agent).or(bp_global).unwrap_or_default()
}

impl SessionFaces {
    /// The kind of work that `agent` gets in a session with these faces.
    #[must_use]
    pub fn kind_for(&self, agent: &str) -> OperatorKind {
        collapse_operator_kind(
            self.runtime_agent_kinds.get(agent).copied(),
            self.operator_kind,
            self.bp_agent_kinds.get(agent).copied(),
            self.bp_global_kind,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_tier_that_is_present_wins() {
        use OperatorKind::{Automate, Composite, MainAi};
        let cases = [
            ((Some(Composite), Some(MainAi), Some(MainAi), Some(MainAi)), Composite),
            ((None, Some(Automate), Some(MainAi), Some(MainAi)), Automate),
            ((None, None, Some(MainAi), Some(Composite)), MainAi),
            ((None, None, None, Some(Composite)), Composite),
            ((None, None, None, None), Automate),
        ];
        for ((a, b, c, d), expected) in cases {
            assert_eq!(collapse_operator_kind(a, b, c, d), expected);
        }
    }
}
