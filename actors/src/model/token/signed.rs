//! The two plain records around a signature: what is asked of the signer, and what it found.
//!
//! They hold no key and decide nothing.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::role::Role;
use crate::model::token::{TokenFingerprint, hex};

/// What a token is to say.
///
/// ```
/// use adjutant_actors::model::{role::Role, token::{Signed, TokenRequest, TokenSigner}};
///
/// let signer = TokenSigner::new([7; 32]);
/// signer.expect_tokens(1_000); // of which it remembers that they verify
/// let (token, signed): (_, Signed) = signer.mint_at(TokenRequest {
///     agent_id: "ann".into(),
///     role: Role::Observer,
///     scopes: vec!["*".into()],
///     issued_at: 1_000,
///     ttl: std::time::Duration::from_secs(60),
///     max_uses: None,
///     nonce: "0123456789abcdef0123456789abcdef".into(),
/// });
/// assert_eq!((token.expire_at, signed.fingerprint), (1_060, token.fingerprint()));
/// assert_eq!(signer.verify(&token).map(|signed| signed.kid), Some(1));
/// ```
#[derive(Clone)]
pub struct TokenRequest {
    /// Whom it is for.
    pub agent_id: String,
    /// What the holder is to the engine.
    pub role: Role,
    /// Free texts for the host; `*` means unrestricted.
    pub scopes: Vec<String>,
    /// Unix seconds of the minting.
    pub issued_at: u64,
    /// How long it is to live; parts of a second are cut off.
    pub ttl: Duration,
    /// How often it may be used; `None` is without limit.
    pub max_uses: Option<u32>,
    /// A fresh nonce of the mint.
    pub nonce: String,
}

/// What is known of a token whose signature stands. A record keeps it and is compared with
/// what is presented later.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed {
    /// The key that the token was signed under.
    pub kid: u32,
    /// The token's public name.
    pub fingerprint: TokenFingerprint,
    /// An unkeyed hash of every signed field; equal digests mean equal fields.
    #[serde(with = "hex::bytes32")]
    pub digest: [u8; 32],
}

impl fmt::Debug for Signed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signed")
            .field("kid", &self.kid)
            .field("fingerprint", &self.fingerprint)
            .finish_non_exhaustive()
    }
}
