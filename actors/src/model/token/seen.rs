//! Tokens that verified before, so that the same token is not hashed again at each call.
//!
//! It remembers what the signer found for exact bytes and grants nothing by itself: expiry,
//! revocation and uses are looked at elsewhere, at every call. It has two places for each token
//! that is live, in sets of four; a token that finds its set full takes a place over. Retiring a key
//! empties it, under the lock of the keys.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use constant_time_eq::constant_time_eq_64;
use zeroize::Zeroizing;

use crate::model::token::{CapToken, Signed, encode};

/// Parts that are locked apart from each other.
const ROWS: usize = 64;
/// Places that share one address.
const WAYS: usize = 4;
/// Sets of a row that is in use, at least: so many tokens are remembered whatever is expected.
const SETS_MIN: usize = 32;
/// Tokens for which places are made at most. A taken place holds about 400 bytes.
const TOKENS_MAX: usize = 1 << 20;

struct Seen {
    /// What the token's places are found by.
    key: u64,
    /// The encoded fields: equal bytes are equal tokens.
    fields: Zeroizing<Vec<u8>>,
    tag: Zeroizing<[u8; 64]>,
    signed: Signed,
}

type Set = [Option<Box<Seen>>; WAYS];

/// The memory of one signer. The ring's lock orders it against the retirement of a key: who
/// remembers holds it for reading, who forgets for writing.
pub(super) struct SeenTokens {
    rows: Box<[Mutex<Vec<Set>>]>,
    /// Sets that a row is to have.
    sets: AtomicUsize,
}

/// The set of a key; none in a row that nothing fell on.
fn set_of(row: &mut [Set], key: u64) -> Option<&mut Set> {
    let at = usize::try_from(key >> 8).unwrap_or(0).checked_rem(row.len())?;
    row.get_mut(at)
}

/// Gives a row another number of sets. What finds no room is forgotten.
fn lay_out(row: &mut Vec<Set>, sets: usize) {
    let old = std::mem::take(row);
    row.resize_with(sets, Set::default);
    for seen in old.into_iter().flatten().flatten() {
        let free = set_of(row, seen.key).and_then(|set| set.iter_mut().find(|p| p.is_none()));
        if let Some(free) = free {
            *free = Some(seen);
        }
    }
}

impl SeenTokens {
    pub(super) fn new() -> Self {
        let rows = (0..ROWS).map(|_| Mutex::default()).collect();
        Self { rows, sets: AtomicUsize::new(SETS_MIN) }
    }

    /// Makes room for so many tokens, or gives room back, when the next ones are remembered.
    pub(super) fn expect(&self, tokens: usize) {
        let places = tokens.min(TOKENS_MAX) * 2;
        let sets = (places / (ROWS * WAYS)).next_power_of_two().max(SETS_MIN);
        self.sets.store(sets, Ordering::Relaxed);
    }

    /// What the signer found for exactly this token. Takes the same time for every wrong tag.
    pub(super) fn recall(&self, token: &CapToken) -> Option<Signed> {
        let tag: &[u8; 64] = token.sig_hex.as_bytes().try_into().ok()?;
        let key = key(token)?;
        let mut row = self.row(key)?;
        let mut places = set_of(&mut row, key)?.iter().flatten();
        let seen = places.find(|seen| seen.key == key)?;
        let same = encode::are_fields_of(&seen.fields, token) & constant_time_eq_64(&seen.tag, tag);
        same.then_some(seen.signed)
    }

    /// Remembers that a live key signed exactly this token. The caller holds the ring.
    pub(super) fn remember(&self, token: &CapToken, input: &[u8], signed: Signed) {
        let Ok(tag) = token.sig_hex.as_bytes().try_into() else { return };
        let fields = Zeroizing::new(encode::fields(input).to_vec());
        let Some(key) = key(token) else { return };
        let seen = Box::new(Seen { key, fields, tag: Zeroizing::new(tag), signed });
        let Some(mut row) = self.row(key) else { return };
        let sets = self.sets.load(Ordering::Relaxed);
        if row.len() < sets || row.len() > 4 * sets {
            lay_out(&mut row, sets);
        }
        let Some(set) = set_of(&mut row, key) else { return };
        let own = set.iter().position(|place| place.as_ref().is_some_and(|old| old.key == key));
        let free = || set.iter().position(Option::is_none);
        // The high bits of a nonce are as good as a die.
        let victim = usize::try_from(key >> 62).unwrap_or(0);
        set[own.or_else(free).unwrap_or(victim)] = Some(seen);
    }

    /// Forgets everything. The caller holds the ring for writing.
    pub(super) fn forget(&self) {
        for row in &self.rows {
            row.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
    }

    fn row(&self, key: u64) -> Option<MutexGuard<'_, Vec<Set>>> {
        let row = self.rows.get(usize::try_from(key).unwrap_or(0) % ROWS)?;
        Some(row.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The first half of a token's nonce, as a number. Another text gives any number.
fn key(token: &CapToken) -> Option<u64> {
    let digits = token.nonce.as_bytes().first_chunk::<16>()?;
    let value = |digit: &u8| u64::from(digit & 15) + u64::from(digit >> 6) * 9;
    Some(digits.iter().fold(0, |key: u64, digit| key << 4 ^ value(digit)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{ROWS, SETS_MIN, WAYS};
    use crate::model::role::Role;
    use crate::model::token::{CapToken, TokenSigner};

    #[test]
    fn a_token_that_verified_before_is_still_looked_at_whole() {
        let signer = TokenSigner::new([1; 32]);
        let (token, signed) = minted(&signer);
        for _ in 0..2 {
            assert_eq!(signer.verify(&token), Some(signed));
        }
        let forgeries: [fn(&mut CapToken); 8] = [
            |t| t.agent_id.push('x'),
            |t| t.role = Role::Senior,
            |t| t.scopes.clear(),
            |t| t.issued_at += 1,
            |t| t.expire_at += 1,
            |t| t.max_uses = Some(1),
            |t| t.nonce.replace_range(31.., if t.nonce.ends_with('0') { "1" } else { "0" }),
            |t| t.sig_hex.replace_range(..1, if t.sig_hex.starts_with('0') { "1" } else { "0" }),
        ];
        for forge in forgeries {
            let mut forged = token.clone();
            forge(&mut forged);
            assert_eq!(signer.verify(&forged), None, "{forged:?}");
        }
        assert_eq!(signer.verify(&token), Some(signed));
    }

    #[test]
    fn a_retired_key_is_forgotten_with_all_that_verified_under_it() {
        let signer = TokenSigner::new([1; 32]);
        let (token, _) = minted(&signer);
        assert!(signer.verify_sig(&token));
        signer.rotate(2, [2; 32]).unwrap();
        assert!(signer.verify_sig(&token));
        signer.retire(1).unwrap();
        assert!(!signer.verify_sig(&token));
    }

    #[test]
    fn so_many_tokens_as_are_expected_are_remembered() {
        let signer = TokenSigner::new([1; 32]);
        let remembered = |tokens: &[CapToken]| {
            let seen = &signer.inner.seen;
            tokens.iter().filter(|token| seen.recall(token).is_some()).count()
        };
        let mint = |_| minted(&signer).0;
        signer.expect_tokens(50_000);
        let many: Vec<_> = (0..50_000).map(mint).collect();
        assert!(remembered(&many) > 45_000, "only {}", remembered(&many));
        signer.expect_tokens(10);
        let few: Vec<_> = (0..2_000).map(mint).collect();
        assert!(remembered(&few) > 1_700, "only {}", remembered(&few));
        let places = signer.inner.seen.rows.iter().map(|row| row.lock().unwrap().len() * WAYS);
        assert_eq!(places.sum::<usize>(), ROWS * SETS_MIN * WAYS);
    }

    fn minted(signer: &TokenSigner) -> (CapToken, crate::model::token::Signed) {
        let token = signer.session("alice", Role::Operator, Duration::from_secs(60));
        let signed = signer.verify(&token).unwrap();
        (token, signed)
    }
}
