//! On whose behalf a call is made: a holder of a token, or the host itself.
//!
//! Methods that both may call take this and are not public; their public twins take a token.

use adjutant_actors::model::role::Role;
use adjutant_actors::model::token::CapToken;

/// Who calls.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Caller<'a> {
    /// Trusted code of the host, which has proven by other means who asks it. No gate, no use.
    #[cfg_attr(
        not(feature = "server"),
        expect(dead_code, reason = "only the server's admin is one")
    )]
    Host,
    /// The holder of a token.
    Token(&'a CapToken),
}

impl<'a> From<&'a CapToken> for Caller<'a> {
    fn from(token: &'a CapToken) -> Self {
        Self::Token(token)
    }
}

impl Caller<'_> {
    pub(crate) fn is_worker(self) -> bool {
        matches!(self, Self::Token(token) if token.role == Role::Worker)
    }
}
