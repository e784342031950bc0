//! The keys of a signer: derived from roots, at most four at a time, the newest one signs.
//!
//! Roots are never kept. Keys are wiped when they are retired or dropped, and no type here
//! prints them.

use std::collections::BTreeMap;

use zeroize::{Zeroize, Zeroizing};

/// Separates the keys of signatures. Part of every signature in the field: never changes.
const MAC_CONTEXT: &str = "adjutant 2026-11-21 captoken v1 mac";

/// Separates the key under which handles are hashed for the state's table.
const HANDLE_CONTEXT: &str = "adjutant 2026-11-21 worker handle v1 table";

/// Most keys that verify at a time; each costs an unknown signature one more hash.
const KEYS_MAX: usize = 4;

/// Why a key could not be added or retired.
///
/// ```
/// use adjutant_actors::model::token::{KeyRingError, TokenSigner};
///
/// match TokenSigner::new([7; 32]).rotate(1, [8; 32]) {
///     Err(KeyRingError::NotNewer { kid, newest }) => assert_eq!((kid, newest), (1, 1)),
///     other => panic!("{other:?}"),
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyRingError {
    /// The root has no bytes.
    #[error("the secret of a signing key must not be empty")]
    EmptySecret,
    /// Four keys are live already.
    #[error("{KEYS_MAX} signing keys are live; retire one first")]
    Full,
    /// The id is not above every id that the ring has seen.
    #[error("signing key {kid} must have a higher id than {newest}, the newest so far")]
    NotNewer {
        /// The id that was given.
        kid: u32,
        /// The highest id so far.
        newest: u32,
    },
    /// The key signs at present.
    #[error("signing key {0} is the active one and cannot be retired")]
    Active(u32),
    /// No live key has the id.
    #[error("there is no live signing key {0}")]
    Unknown(u32),
}

/// The root of a signing key with its id, as a host keeps it. Wiped when dropped, never printed.
///
/// ```
/// use adjutant_actors::config::EngineCfg;
/// use adjutant_actors::model::token::SigningKey;
///
/// let keys = vec![SigningKey::new(1, "of last year".repeat(3)), SigningKey::new(2, [7; 32])];
/// assert!(keys[1].kid() == 2 && keys[1].secret() == [7; 32]);
/// let cfg = EngineCfg { token_keys: keys, ..EngineCfg::default() }; // the second signs
/// # let _ = cfg;
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct SigningKey {
    kid: u32,
    root: Zeroizing<Vec<u8>>,
}

impl SigningKey {
    /// A key of this id and secret. Later keys have higher ids.
    #[must_use]
    pub fn new(kid: u32, secret: impl Into<Vec<u8>>) -> Self {
        Self { kid, root: Zeroizing::new(secret.into()) }
    }

    /// Its id.
    #[must_use]
    pub fn kid(&self) -> u32 {
        self.kid
    }

    /// Its secret.
    #[must_use]
    pub fn secret(&self) -> &[u8] {
        &self.root
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey").field("kid", &self.kid).finish_non_exhaustive()
    }
}

/// A key that is wiped when dropped.
pub(super) struct MacKey(Zeroizing<[u8; 32]>);

impl MacKey {
    /// The key that signs tokens under this id.
    pub(super) fn for_tokens(kid: u32, root: &[u8]) -> Self {
        Self::derive(MAC_CONTEXT, kid, root)
    }

    /// The key that hashes handles.
    pub(super) fn for_handles(kid: u32, root: &[u8]) -> Self {
        Self::derive(HANDLE_CONTEXT, kid, root)
    }

    fn derive(context: &'static str, kid: u32, root: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(context);
        let len = u64::try_from(root.len()).expect("a length fits into 64 bits");
        hasher.update(&kid.to_be_bytes()).update(&len.to_be_bytes()).update(root);
        let mut hash = hasher.finalize();
        let key = Self(Zeroizing::new(*hash.as_bytes()));
        hash.zeroize();
        hasher.zeroize();
        key
    }

    /// The tag of the input. Its `==` takes the same time wherever two tags differ.
    pub(super) fn tag(&self, input: &[u8]) -> blake3::Hash {
        blake3::keyed_hash(&self.0, input)
    }
}

/// The live keys. **Invariant:** `active` is a live key and the highest id ever added, since ids
/// only grow and the active key is never retired.
pub(super) struct KeyRing {
    active: u32,
    keys: BTreeMap<u32, MacKey>,
}

impl KeyRing {
    pub(super) fn new(kid: u32, root: &[u8]) -> Result<Self, KeyRingError> {
        if root.is_empty() {
            return Err(KeyRingError::EmptySecret);
        }
        Ok(Self { active: kid, keys: BTreeMap::from([(kid, MacKey::for_tokens(kid, root))]) })
    }

    pub(super) fn active(&self) -> (u32, &MacKey) {
        (self.active, &self.keys[&self.active])
    }

    /// The live keys, newest first.
    pub(super) fn newest_first(&self) -> impl Iterator<Item = (u32, &MacKey)> {
        self.keys.iter().rev().map(|(kid, key)| (*kid, key))
    }

    pub(super) fn rotate(&mut self, kid: u32, root: &[u8]) -> Result<(), KeyRingError> {
        if root.is_empty() {
            return Err(KeyRingError::EmptySecret);
        }
        if kid <= self.active {
            return Err(KeyRingError::NotNewer { kid, newest: self.active });
        }
        if self.keys.len() >= KEYS_MAX {
            return Err(KeyRingError::Full);
        }
        self.keys.insert(kid, MacKey::for_tokens(kid, root));
        self.active = kid;
        Ok(())
    }

    pub(super) fn retire(&mut self, kid: u32) -> Result<(), KeyRingError> {
        if kid == self.active {
            return Err(KeyRingError::Active(kid));
        }
        self.keys.remove(&kid).map(drop).ok_or(KeyRingError::Unknown(kid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_keeps_its_id_and_secret_and_shows_the_id_alone() {
        let key = SigningKey::new(7, *b"a root");
        assert_eq!((key.kid(), key.secret()), (7, &b"a root"[..]));
        assert_eq!(format!("{key:?}"), "SigningKey { kid: 7, .. }");
    }

    #[test]
    fn a_ring_holds_four_keys_whose_ids_only_grow() {
        let mut ring = KeyRing::new(1, b"root").unwrap();
        assert_eq!(ring.rotate(1, b"root"), Err(KeyRingError::NotNewer { kid: 1, newest: 1 }));
        assert_eq!(ring.rotate(2, b""), Err(KeyRingError::EmptySecret));
        for kid in 2..=4 {
            ring.rotate(kid, b"root").unwrap();
        }
        assert_eq!(ring.rotate(5, b"root"), Err(KeyRingError::Full));
        assert_eq!(ring.retire(4), Err(KeyRingError::Active(4)));
        assert_eq!(ring.retire(5), Err(KeyRingError::Unknown(5)));
        ring.retire(2).unwrap();
        ring.rotate(5, b"root").unwrap();
        let live: Vec<_> = ring.newest_first().map(|(kid, _)| kid).collect();
        assert_eq!(live, [5, 4, 3, 1]);
        assert_eq!(ring.active().0, 5);
    }

    #[test]
    fn id_root_and_use_each_make_another_key() {
        let tag = |key: MacKey| key.tag(b"input");
        let base = tag(MacKey::for_tokens(1, b"root"));
        assert_eq!(base, tag(MacKey::for_tokens(1, b"root")));
        assert_ne!(base, tag(MacKey::for_tokens(2, b"root")));
        assert_ne!(base, tag(MacKey::for_tokens(1, b"roof")));
        assert_ne!(base, tag(MacKey::for_handles(1, b"root")));
    }
}
