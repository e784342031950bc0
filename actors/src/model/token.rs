//! Capability tokens: what they hold, how they travel, how they are signed and recognized.
//!
//! The parts here know nothing of records, sessions or uses: a token that verifies was minted
//! by this engine and was not changed since, nothing more. No type here shows a nonce, a
//! signature, a handle or a key in its `Debug` text or in an error.

mod digest;
mod encode;
mod fingerprint;
mod handle;
mod hex;
mod keys;
mod seen;
mod shape;
mod signed;
mod signer;
mod wire;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use self::fingerprint::TokenFingerprint;
pub use self::handle::{HandleError, HandleKey, WorkerHandle, parse_handle};
pub(crate) use self::hex::bytes32;
pub use self::keys::{KeyRingError, SigningKey};
pub use self::shape::{
    AGENT_ID_BYTES_MAX, BEARER_BYTES_MAX, SCOPE_BYTES_MAX, SCOPES_MAX, TokenShapeError,
};
pub use self::signed::{Signed, TokenRequest};
pub use self::signer::{SignerError, TokenSigner};
pub use self::wire::CapTokenDecodeError;
use crate::model::role::Role;

/// A capability: who may act, as what, until when, and the signature over all of it.
///
/// Whoever holds it has its rights, so it is a secret as a whole. [`TokenFingerprint`] names it
/// in logs and tables.
///
/// ```
/// use adjutant_actors::model::{role::Role, token::TokenSigner};
/// use std::time::Duration;
///
/// let token = TokenSigner::new([7; 32]).session("ann", Role::Observer, Duration::from_secs(60));
/// assert!(token.is_expired(token.expire_at) && !token.is_expired(token.issued_at));
/// assert!(token.check_shape().is_ok());
/// assert!(!format!("{token:?}").contains(token.id())); // log its fingerprint
/// assert_eq!(token.fingerprint(), token.clone().fingerprint());
/// ```
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CapToken {
    /// Whom the token was minted for.
    pub agent_id: String,
    /// What the holder is to the engine.
    pub role: Role,
    /// Free texts for the host; `*` means unrestricted. The engine never reads them.
    pub scopes: Vec<String>,
    /// Unix seconds of the minting.
    pub issued_at: u64,
    /// Unix seconds from which on the token is refused.
    pub expire_at: u64,
    /// How often the token may be used; `None` is without limit.
    pub max_uses: Option<u32>,
    /// 32 lower-case hex digits at random; a secret.
    pub nonce: String,
    /// The signature over every other field: 64 lower-case hex digits.
    pub sig_hex: String,
}

impl CapToken {
    /// The token's own id, its nonce. A secret; log [`CapToken::fingerprint`] instead.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.nonce
    }

    /// Whether the token has run out at this Unix second.
    #[must_use]
    pub const fn is_expired(&self, now_unix: u64) -> bool {
        now_unix >= self.expire_at
    }

    /// The public name of the token: a one-way hash of its nonce.
    #[must_use]
    pub fn fingerprint(&self) -> TokenFingerprint {
        TokenFingerprint::of_nonce(&self.nonce)
    }

    /// Checks sizes and alphabets of all fields, without any key.
    ///
    /// # Errors
    ///
    /// [`TokenShapeError`] with the first limit that the token breaks.
    pub fn check_shape(&self) -> Result<(), TokenShapeError> {
        shape::check(self)
    }

    /// The bearer text: URL-safe base64, without padding, of the token's JSON.
    #[must_use]
    pub fn encode(&self) -> String {
        wire::encode(self)
    }

    /// Reads a bearer text. Each token has exactly one; nothing is verified here but the shape.
    ///
    /// ```
    /// use std::time::Duration;
    /// use adjutant_actors::model::role::Role;
    /// use adjutant_actors::model::token::{CapToken, TokenSigner};
    ///
    /// let token = TokenSigner::new([7; 32]).session("ann", Role::Observer, Duration::from_secs(60));
    /// assert_eq!(CapToken::decode(&token.encode())?, token);
    /// # Ok::<(), adjutant_actors::model::token::CapTokenDecodeError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`CapTokenDecodeError`]; none of its texts repeats what was read.
    pub fn decode(bearer: &str) -> Result<Self, CapTokenDecodeError> {
        wire::decode(bearer)
    }
}

impl fmt::Debug for CapToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CapToken")
            .field("agent_id", &self.agent_id)
            .field("role", &self.role)
            .field("fingerprint", &self.fingerprint())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_runs_out_at_its_very_second() {
        let signer = TokenSigner::new([7; 32]);
        let token = signer.session("alice", Role::Operator, std::time::Duration::from_secs(10));
        assert!(!token.is_expired(token.expire_at - 1));
        assert!(token.is_expired(token.expire_at));
        assert_eq!(token.id(), token.nonce);
        assert!(
            token.issued_at > 1_700_000_000,
            "the clock of the system, not {}",
            token.issued_at
        );
    }

    #[test]
    fn debug_shows_the_fingerprint_and_no_secret() {
        let signer = TokenSigner::new("the root of all keys, 32 bytes!!");
        let token = signer.session("alice", Role::Operator, std::time::Duration::from_secs(10));
        let shown = format!("{token:?} {signer:?} {:?}", signer.verify(&token));
        for secret in [&token.nonce[..8], &token.sig_hex[..8], "the root"] {
            assert!(!shown.contains(secret), "{shown}");
        }
        let signed = format!("{:?}", signer.verify(&token));
        for shown in [format!("{token:?}"), signed] {
            assert!(shown.contains(&token.fingerprint().to_string()[..8]), "{shown}");
        }
        assert!(format!("{token:?}").contains("alice"));
        assert!(format!("{signer:?}").starts_with("TokenSigner"));
    }
}
