//! Tokens that verified before, so that the same token is not hashed again at each call.
//!
//! It remembers what the signer found for exact bytes and grants nothing by itself: expiry,
//! revocation and uses are looked at elsewhere, at every call. A bounded number of places; a
//! token that falls on a taken one takes it over.

use std::sync::{Mutex, OnceLock, PoisonError};

use constant_time_eq::constant_time_eq_64;
use zeroize::Zeroizing;

use crate::model::token::{CapToken, Signed, encode};

/// Places for tokens, in rows that are laid out when the first token falls on them. A taken
/// place holds about 400 bytes.
const ROWS: usize = 64;
const ROW: usize = 256;

struct Seen {
    /// The encoded fields: equal bytes are equal tokens.
    fields: Zeroizing<Vec<u8>>,
    tag: Zeroizing<[u8; 64]>,
    signed: Signed,
}

/// The memory of one signer. The ring's lock orders it against the retirement of a key: who
/// remembers holds it for reading, who forgets for writing.
pub(super) struct SeenTokens {
    rows: Box<[OnceLock<Box<[Place]>>]>,
}

type Place = Mutex<Option<Box<Seen>>>;

impl SeenTokens {
    pub(super) fn new() -> Self {
        Self { rows: (0..ROWS).map(|_| OnceLock::new()).collect() }
    }

    /// What the signer found for exactly this token. Takes the same time for every wrong tag.
    pub(super) fn recall(&self, token: &CapToken) -> Option<Signed> {
        let tag: &[u8; 64] = token.sig_hex.as_bytes().try_into().ok()?;
        let place = self.place(token)?.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = place.as_ref()?;
        let same = encode::are_fields_of(&seen.fields, token) & constant_time_eq_64(&seen.tag, tag);
        same.then_some(seen.signed)
    }

    /// Remembers that a live key signed exactly this token. The caller holds the ring.
    pub(super) fn remember(&self, token: &CapToken, input: &[u8], signed: Signed) {
        let Ok(tag) = token.sig_hex.as_bytes().try_into() else { return };
        let fields = Zeroizing::new(encode::fields(input).to_vec());
        let Some(place) = self.place(token) else { return };
        let seen = Seen { fields, tag: Zeroizing::new(tag), signed };
        *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(seen));
    }

    /// Forgets everything. The caller holds the ring for writing.
    pub(super) fn forget(&self) {
        for place in self.rows.iter().filter_map(OnceLock::get).flatten() {
            *place.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }

    /// The place of a token, by the first digits of its nonce.
    fn place(&self, token: &CapToken) -> Option<&Place> {
        let digits = token.nonce.as_bytes().first_chunk::<8>()?;
        let value = |digit: u8| usize::from(digit & 15) + usize::from(digit >> 6) * 9;
        let at = digits.iter().fold(0, |at: usize, digit| at.wrapping_mul(16) ^ value(*digit));
        let row = self.rows.get(at / ROW % ROWS)?;
        row.get_or_init(|| (0..ROW).map(|_| Mutex::new(None)).collect()).get(at % ROW)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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

    fn minted(signer: &TokenSigner) -> (CapToken, crate::model::token::Signed) {
        let token = signer.session("alice", Role::Operator, Duration::from_secs(60));
        let signed = signer.verify(&token).unwrap();
        (token, signed)
    }
}
