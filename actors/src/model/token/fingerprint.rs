//! The public name of a token: a one-way hash of its nonce.
//!
//! It finds a record and stands in logs; it never grants anything.

use crate::model::ids::SessionId;
use crate::model::token::digest::hash_of;
use crate::model::token::hex::hex_text;

/// Keeps the hashes of nonces apart from every other hash of the engine.
const DOMAIN: &[u8] = b"captoken/v1/fingerprint\0";

/// Names a token without giving it away. `Display` and serde: 32 hex digits; `Debug`: the
/// first eight.
///
/// ```
/// use adjutant_actors::model::token::TokenFingerprint;
///
/// let nonce = "0123456789abcdef0123456789abcdef";
/// let fingerprint = TokenFingerprint::of_nonce(nonce);
/// assert_ne!(fingerprint.to_string(), nonce);
/// assert_eq!(fingerprint.session_id(), TokenFingerprint::of_nonce(nonce).session_id());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TokenFingerprint([u8; 16]);

hex_text!(TokenFingerprint, 16, "a token fingerprint is 32 lower-case hex digits");

impl TokenFingerprint {
    /// The fingerprint of the token that has this nonce.
    #[must_use]
    pub fn of_nonce(nonce: &str) -> Self {
        let hash = hash_of(&[DOMAIN, nonce.as_bytes()]);
        Self(*hash.as_bytes().first_chunk().expect("a hash has more than 16 bytes"))
    }

    /// The session that a session token with this fingerprint opened.
    #[must_use]
    pub const fn session_id(self) -> SessionId {
        SessionId::from_bits(u128::from_be_bytes(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_reads_back_and_names_its_session_by_the_same_digits() {
        let print = TokenFingerprint::of_nonce("00000000000000000000000000000000");
        let json = serde_json::to_string(&print).unwrap();
        assert_eq!(serde_json::from_str::<TokenFingerprint>(&json).unwrap(), print);
        assert_eq!(print.session_id().to_string(), format!("S-{print}"));
        assert_eq!(format!("{print:?}"), print.to_string()[..8]);
    }

    #[test]
    fn another_nonce_has_another_fingerprint() {
        let prints = ["a", "b", ""].map(TokenFingerprint::of_nonce);
        assert!(prints[0] != prints[1] && prints[1] != prints[2] && prints[0] != prints[2]);
    }
}
