//! The limits that a token must keep before anything is hashed or looked up.
//!
//! They bound the work that an unsigned token can cause. They say nothing about its rights.

use crate::model::token::{CapToken, hex};

/// Longest bearer text that is read, in bytes.
pub const BEARER_BYTES_MAX: usize = 4096;
/// Longest agent id, in bytes.
pub const AGENT_ID_BYTES_MAX: usize = 256;
/// Most scopes of a token.
pub const SCOPES_MAX: usize = 64;
/// Longest scope, in bytes.
pub const SCOPE_BYTES_MAX: usize = 256;

/// Which limit a token breaks.
///
/// ```
/// use adjutant_actors::model::{role::Role, token::{TokenShapeError, TokenSigner}};
///
/// let signer = TokenSigner::new([7; 32]);
/// let mut token = signer.mint("ann", Role::Observer, vec![], Default::default(), None);
/// token.agent_id = "a\nb".into();
/// assert_eq!(token.check_shape(), Err(TokenShapeError::AgentIdControl));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenShapeError {
    /// The agent id is too long.
    #[error("the token's agent id is longer than {AGENT_ID_BYTES_MAX} bytes")]
    AgentIdTooLong,
    /// The agent id holds a control character.
    #[error("the token's agent id holds a control character")]
    AgentIdControl,
    /// There are too many scopes.
    #[error("the token has more than {SCOPES_MAX} scopes")]
    TooManyScopes,
    /// A scope is too long.
    #[error("a scope of the token is longer than {SCOPE_BYTES_MAX} bytes")]
    ScopeTooLong,
    /// The nonce is not 32 lower-case hex digits.
    #[error("the token's nonce must be 32 lower-case hex digits")]
    Nonce,
    /// The signature is not 64 lower-case hex digits.
    #[error("the token's signature must be 64 lower-case hex digits")]
    Signature,
}

pub(super) fn check(token: &CapToken) -> Result<(), TokenShapeError> {
    let agent_id = &token.agent_id;
    let rules = [
        (agent_id.len() <= AGENT_ID_BYTES_MAX, TokenShapeError::AgentIdTooLong),
        (!agent_id.chars().any(char::is_control), TokenShapeError::AgentIdControl),
        (token.scopes.len() <= SCOPES_MAX, TokenShapeError::TooManyScopes),
        (
            token.scopes.iter().all(|scope| scope.len() <= SCOPE_BYTES_MAX),
            TokenShapeError::ScopeTooLong,
        ),
        (hex::is_digits(&token.nonce, 32), TokenShapeError::Nonce),
        (hex::is_digits(&token.sig_hex, 64), TokenShapeError::Signature),
    ];
    rules.into_iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, broken)| Err(broken))
}

/// Whether every length is within its limit; what bounds the work of encoding a token.
pub(super) fn is_sized(token: &CapToken) -> bool {
    token.agent_id.len() <= AGENT_ID_BYTES_MAX
        && token.scopes.len() <= SCOPES_MAX
        && token.scopes.iter().all(|scope| scope.len() <= SCOPE_BYTES_MAX)
        && token.nonce.len() == 32
        && token.sig_hex.len() == 64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::role::Role;

    /// A token whose every part is as long as it may be.
    fn full() -> CapToken {
        CapToken {
            agent_id: "é".repeat(AGENT_ID_BYTES_MAX / 2),
            role: Role::Worker,
            scopes: vec!["s".repeat(SCOPE_BYTES_MAX); SCOPES_MAX],
            issued_at: 0,
            expire_at: u64::MAX,
            max_uses: None,
            nonce: "0".repeat(32),
            sig_hex: "f".repeat(64),
        }
    }

    fn check_with(change: impl FnOnce(&mut CapToken)) -> Result<(), TokenShapeError> {
        let mut token = full();
        change(&mut token);
        token.check_shape()
    }

    #[test]
    fn each_limit_holds_up_to_its_edge_and_not_past_it() {
        use TokenShapeError as E;
        assert_eq!(check_with(|_| ()), Ok(()));
        assert_eq!(check_with(|t| t.agent_id.push('a')), Err(E::AgentIdTooLong));
        assert_eq!(check_with(|t| t.agent_id = "a\nb".into()), Err(E::AgentIdControl));
        assert_eq!(check_with(|t| t.agent_id = "a\u{9b}b".into()), Err(E::AgentIdControl));
        assert_eq!(check_with(|t| t.scopes.push(String::new())), Err(E::TooManyScopes));
        assert_eq!(check_with(|t| t.scopes[63].push('s')), Err(E::ScopeTooLong));
        assert_eq!(check_with(|t| t.nonce.push('0')), Err(E::Nonce));
        assert_eq!(check_with(|t| t.nonce = "A".repeat(32)), Err(E::Nonce));
        assert_eq!(check_with(|t| t.sig_hex = "F".repeat(64)), Err(E::Signature));
        assert_eq!(check_with(|t| t.sig_hex.clear()), Err(E::Signature));
    }

    #[test]
    fn each_length_bounds_the_work_by_itself() {
        let sized = |change: fn(&mut CapToken)| {
            let mut token = full();
            change(&mut token);
            is_sized(&token)
        };
        assert!(sized(|_| ()));
        assert!(!sized(|t| t.agent_id.push('a')));
        assert!(!sized(|t| t.scopes.push(String::new())));
        assert!(!sized(|t| t.scopes[63].push('s')));
        assert!(!sized(|t| t.nonce.push('0')));
        assert!(!sized(|t| t.sig_hex.push('0')));
    }
}
