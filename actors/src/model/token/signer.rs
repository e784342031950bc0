//! The signer: mints tokens under the newest key and verifies them under every live one.
//!
//! It holds keys and nothing else: no record, no session, no use is counted here. Only the
//! shorthands without a time argument read the system's clock.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use crate::model::mint::{Mint, MintError};
use crate::model::role::Role;
use crate::model::token::handle::HandleKey;
use crate::model::token::keys::{KeyRing, KeyRingError, MacKey};
use crate::model::token::seen::SeenTokens;
use crate::model::token::{CapToken, Signed, TokenRequest, encode, hex, shape};

/// The key id of a signer that is made from one secret.
const FIRST_KID: u32 = 1;

/// Secrets below this length are accepted with a warning.
const SECRET_BYTES_ADVISED: usize = 32;

/// Why a signer could not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignerError {
    /// The secret has no bytes.
    #[error("the token secret must not be empty")]
    EmptySecret,
    /// The system gave no random bytes for the nonces.
    #[error(transparent)]
    Mint(#[from] MintError),
}

/// Mints and verifies tokens. Clones share one set of keys, so a rotation reaches them all.
///
/// ```
/// use std::time::Duration;
/// use adjutant_actors::model::role::Role;
/// use adjutant_actors::model::token::TokenSigner;
///
/// let signer = TokenSigner::new([7; 32]);
/// let mut token = signer.session("alice", Role::Observer, Duration::from_secs(60));
/// assert!(signer.verify_sig(&token));
/// token.role = Role::Operator;
/// assert!(!signer.verify_sig(&token));
/// ```
#[derive(Clone)]
pub struct TokenSigner {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    ring: RwLock<KeyRing>,
    pub(super) seen: SeenTokens,
    handles: MacKey,
    mint: Arc<Mint>,
}

impl TokenSigner {
    /// A signer with one key, made from the secret.
    ///
    /// # Panics
    ///
    /// When the secret is empty or the system gives no random bytes; [`TokenSigner::try_new`]
    /// returns these as errors.
    #[must_use]
    pub fn new(secret: impl AsRef<[u8]>) -> Self {
        match Self::try_new(secret) {
            Ok(signer) => signer,
            Err(error) => panic!("no token signer could be made: {error}"),
        }
    }

    /// A signer with one key, made from the secret. Warns of a secret under 32 bytes.
    ///
    /// # Errors
    ///
    /// [`SignerError`] when the secret is empty or the system gives no random bytes.
    pub fn try_new(secret: impl AsRef<[u8]>) -> Result<Self, SignerError> {
        Self::with_key(FIRST_KID, secret, Arc::new(Mint::from_os()?))
    }

    /// A signer whose first key has this id, and which draws its nonces from this mint.
    ///
    /// After a restart the id must be the one that the secret had before, because the id is
    /// signed too.
    ///
    /// ```
    /// use adjutant_actors::model::{mint::Mint, role::Role, token::{SignerError, TokenSigner}};
    ///
    /// let signer = TokenSigner::with_key(3, [7; 32], std::sync::Arc::new(Mint::seeded(7)))?;
    /// let thrice = signer.limited("ann", Role::Observer, vec![], Default::default(), 3);
    /// assert_eq!((signer.active_kid(), thrice.max_uses), (3, Some(3)));
    /// assert!(matches!(TokenSigner::try_new(""), Err(SignerError::EmptySecret)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`SignerError::EmptySecret`].
    pub fn with_key(
        kid: u32,
        secret: impl AsRef<[u8]>,
        mint: Arc<Mint>,
    ) -> Result<Self, SignerError> {
        let root = secret.as_ref();
        let ring = KeyRing::new(kid, root).map_err(|_| SignerError::EmptySecret)?;
        warn_of_short(root);
        let handles = MacKey::for_handles(kid, root);
        let (ring, seen) = (RwLock::new(ring), SeenTokens::new());
        Ok(Self { inner: Arc::new(Inner { ring, seen, handles, mint }) })
    }

    /// Mints a token from now on. It has no record, so an engine does not know it.
    ///
    /// # Panics
    ///
    /// When the system's clock stands before 1970.
    pub fn mint(
        &self,
        agent_id: impl Into<String>,
        role: Role,
        scopes: Vec<String>,
        ttl: Duration,
        max_uses: Option<u32>,
    ) -> CapToken {
        let request = TokenRequest {
            agent_id: agent_id.into(),
            role,
            scopes,
            issued_at: os_unix_now(),
            ttl,
            max_uses,
            nonce: self.inner.mint.nonce(),
        };
        self.mint_at(request).0
    }

    /// [`TokenSigner::mint`] for a single use.
    ///
    /// # Panics
    ///
    /// When the system's clock stands before 1970.
    pub fn one_time(
        &self,
        agent_id: impl Into<String>,
        role: Role,
        scopes: Vec<String>,
        ttl: Duration,
    ) -> CapToken {
        self.mint(agent_id, role, scopes, ttl, Some(1))
    }

    /// [`TokenSigner::mint`] for any number of uses and the scope `*`.
    ///
    /// # Panics
    ///
    /// When the system's clock stands before 1970.
    pub fn session(&self, agent_id: impl Into<String>, role: Role, ttl: Duration) -> CapToken {
        self.mint(agent_id, role, vec!["*".to_owned()], ttl, None)
    }

    /// [`TokenSigner::mint`] for `uses` uses.
    ///
    /// # Panics
    ///
    /// When the system's clock stands before 1970.
    pub fn limited(
        &self,
        agent_id: impl Into<String>,
        role: Role,
        scopes: Vec<String>,
        ttl: Duration,
        uses: u32,
    ) -> CapToken {
        self.mint(agent_id, role, scopes, ttl, Some(uses))
    }

    /// Mints the token that the request describes, under the active key, without a clock or
    /// chance of its own.
    ///
    /// A request outside the limits of [`CapToken::check_shape`] gives a token that never
    /// verifies; check names where they come in.
    #[must_use]
    pub fn mint_at(&self, request: TokenRequest) -> (CapToken, Signed) {
        let mut token = CapToken {
            agent_id: request.agent_id,
            role: request.role,
            scopes: request.scopes,
            issued_at: request.issued_at,
            expire_at: request.issued_at.saturating_add(request.ttl.as_secs()),
            max_uses: request.max_uses,
            nonce: request.nonce,
            sig_hex: String::new(),
        };
        let ring = self.read();
        let (kid, key) = ring.active();
        let input = encode::mac_input(kid, &token);
        token.sig_hex = key.tag(&input).to_hex().to_string();
        let signed = signed(kid, &token, &input);
        if token.check_shape().is_ok() {
            self.inner.seen.remember(&token, &input, signed);
        }
        (token, signed)
    }

    /// Whether a live key signed exactly this token. Takes the same time for every wrong tag.
    #[must_use]
    pub fn verify_sig(&self, token: &CapToken) -> bool {
        self.verify(token).is_some()
    }

    /// [`TokenSigner::verify_sig`], and what a record is compared with; `None` when the token
    /// breaks a limit or no live key signed it. Neither expiry nor revocation is looked at.
    #[must_use]
    pub fn verify(&self, token: &CapToken) -> Option<Signed> {
        if !shape::is_sized(token) {
            return None;
        }
        if let Some(signed) = self.inner.seen.recall(token) {
            return Some(signed);
        }
        token.check_shape().ok()?;
        let mut input = encode::mac_input(0, token);
        let ring = self.read();
        let presented = blake3::Hash::from_bytes(hex::read(&token.sig_hex)?);
        for (kid, key) in ring.newest_first() {
            encode::set_kid(&mut input, kid);
            if key.tag(&input) == presented {
                let signed = signed(kid, token, &input);
                self.inner.seen.remember(token, &input, signed);
                return Some(signed);
            }
        }
        None
    }

    /// Says how many tokens are live, so that about as many can be recognized without being hashed
    /// again. It grants nothing and bounds nothing: a token beyond that costs a hash at each call.
    pub fn expect_tokens(&self, live: usize) {
        self.inner.seen.expect(live);
    }

    /// Adds a key, which signs from now on; the others go on verifying.
    ///
    /// ```
    /// use adjutant_actors::model::{role::Role, token::TokenSigner};
    ///
    /// let signer = TokenSigner::new([7; 32]);
    /// let old = signer.one_time("ann", Role::Observer, vec![], std::time::Duration::from_secs(60));
    /// signer.rotate(2, [8; 32])?;
    /// assert!(signer.active_kid() == 2 && signer.verify_sig(&old));
    /// signer.retire(1)?;
    /// assert!(!signer.verify_sig(&old));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`KeyRingError`] when the secret is empty, the id is not higher than every one before,
    /// or four keys are live.
    pub fn rotate(&self, kid: u32, secret: impl AsRef<[u8]>) -> Result<(), KeyRingError> {
        self.write().rotate(kid, secret.as_ref())?;
        warn_of_short(secret.as_ref());
        Ok(())
    }

    /// Removes a key: nothing that it signed verifies any more. The records of its tokens are
    /// the state's to revoke.
    ///
    /// # Errors
    ///
    /// [`KeyRingError`] when the key is the active one or is not live.
    pub fn retire(&self, kid: u32) -> Result<(), KeyRingError> {
        let mut ring = self.write();
        ring.retire(kid)?;
        self.inner.seen.forget();
        Ok(())
    }

    /// The id of the key that signs.
    #[must_use]
    pub fn active_kid(&self) -> u32 {
        self.read().active().0
    }

    /// Where the record of this handle is. The same for the life of the signer, whatever keys
    /// are rotated. Ask [`crate::model::token::parse_handle`] first.
    #[must_use]
    pub fn handle_key(&self, handle: &str) -> HandleKey {
        HandleKey::from_tag(self.inner.handles.tag(handle.as_bytes()))
    }

    // Every change of the ring is a single insert or remove, so a poisoned lock hides no half.
    fn read(&self) -> RwLockReadGuard<'_, KeyRing> {
        self.inner.ring.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, KeyRing> {
        self.inner.ring.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for TokenSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let live: Vec<_> = self.read().newest_first().map(|(kid, _)| kid).collect();
        f.debug_struct("TokenSigner").field("live_kids", &live).finish_non_exhaustive()
    }
}

fn signed(kid: u32, token: &CapToken, input: &[u8]) -> Signed {
    Signed { kid, fingerprint: token.fingerprint(), digest: encode::record_digest(input) }
}

fn warn_of_short(root: &[u8]) {
    if root.len() < SECRET_BYTES_ADVISED {
        tracing::warn!(bytes = root.len(), "the token secret is shorter than 32 bytes");
    }
}

#[expect(clippy::disallowed_methods, reason = "shorthands for hosts that bring no clock")]
fn os_unix_now() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("the system's clock stands before 1970, so no token can be dated")
        .as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(ttl: Duration) -> TokenRequest {
        TokenRequest {
            agent_id: "alice".into(),
            role: Role::Operator,
            scopes: vec!["*".into()],
            issued_at: 100,
            ttl,
            max_uses: None,
            nonce: "0".repeat(32),
        }
    }

    #[test]
    fn minting_and_verifying_tell_the_same() {
        let signer = TokenSigner::new([1; 32]);
        let (token, signed) = signer.mint_at(request(Duration::from_secs(5)));
        assert_eq!(token.expire_at, 105);
        assert_eq!(signer.verify(&token), Some(signed));
        let json = serde_json::to_string(&signed).unwrap();
        assert_eq!(serde_json::from_str::<Signed>(&json).unwrap(), signed);
    }

    #[test]
    fn an_endless_life_ends_at_the_last_second_instead_of_wrapping() {
        let (token, _) = TokenSigner::new([1; 32]).mint_at(request(Duration::MAX));
        assert_eq!(token.expire_at, u64::MAX);
    }

    #[test]
    fn the_shorthands_set_the_uses_and_fresh_nonces() {
        let signer = TokenSigner::new([1; 32]);
        let ttl = Duration::from_secs(5);
        let one = signer.one_time("a", Role::Worker, vec![], ttl);
        let some = signer.limited("a", Role::Worker, vec![], ttl, 3);
        let all = signer.session("a", Role::Worker, ttl);
        assert_eq!([one.max_uses, some.max_uses, all.max_uses], [Some(1), Some(3), None]);
        assert_eq!(all.scopes, ["*"]);
        assert!(one.nonce != some.nonce && some.nonce != all.nonce);
        assert!([one, some, all].iter().all(|token| signer.verify_sig(token)));
    }

    #[test]
    fn an_empty_secret_makes_no_signer() {
        assert_eq!(TokenSigner::try_new("").unwrap_err(), SignerError::EmptySecret);
    }

    #[test]
    #[should_panic(expected = "the token secret must not be empty")]
    fn the_short_constructor_panics_on_an_empty_secret() {
        let _ = TokenSigner::new([]);
    }

    #[test]
    fn a_handle_key_outlives_a_rotation_and_differs_between_engines() {
        let signer = TokenSigner::new([1; 32]);
        let before = signer.handle_key("wh-x");
        signer.rotate(2, [2; 32]).unwrap();
        assert_eq!(signer.handle_key("wh-x"), before);
        assert_ne!(signer.handle_key("wh-y"), before);
        assert_ne!(TokenSigner::new([2; 32]).handle_key("wh-x"), before);
    }
}
