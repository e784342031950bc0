//! Worker handles: short bearer secrets that a person can copy.
//!
//! A handle is `wh-`, 26 characters of chance (130 bits) and 4 check characters. The check part
//! is public arithmetic: it catches typing errors before any look-up and proves nothing. The
//! state's table is keyed by [`HandleKey`], so it holds no handle.

use std::fmt;

use zeroize::ZeroizeOnDrop;

use crate::model::mint::Mint;
use crate::model::token::digest::hash_of;
use crate::model::token::hex::hex_text;

const PREFIX: &str = "wh-";
const RANDOM_LEN: usize = 26;
const CHECK_LEN: usize = 4;

/// Digits and letters without the four that are easily misread.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// Keeps the check hashes apart from every other hash of the engine.
const CHECK_DOMAIN: &[u8] = b"worker handle/v1/check\0";

/// Why a text is not a handle. No variant repeats the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandleError {
    /// Length, prefix or alphabet is wrong.
    #[error("a worker handle is `wh-` and 30 lower-case base-32 characters")]
    Form,
    /// The check characters do not fit the others.
    #[error("the worker handle has a typing error: its check characters do not fit")]
    Checksum,
}

/// The sole bearer secret of one attempt. `Debug` hides it; there is no `Display`.
#[derive(Clone, PartialEq, Eq, ZeroizeOnDrop)]
pub struct WorkerHandle(String);

impl WorkerHandle {
    /// Draws a fresh handle.
    #[must_use]
    pub fn draw(mint: &Mint) -> Self {
        let random = mint.handle_bits().map(symbol);
        let mut text = String::with_capacity(PREFIX.len() + RANDOM_LEN + CHECK_LEN);
        text.push_str(PREFIX);
        text.extend(random.map(char::from));
        text.extend(check_part(&random).map(char::from));
        Self(text)
    }

    /// The secret text, for the one worker that it is meant for.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The secret text; the same as [`WorkerHandle::expose`].
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.expose()
    }
}

impl fmt::Debug for WorkerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WorkerHandle(..)")
    }
}

/// Where a handle's record is: a keyed hash of the handle. Names a record and grants nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HandleKey([u8; 32]);

hex_text!(HandleKey, 32, "a handle key is 64 lower-case hex digits");

impl HandleKey {
    pub(super) fn from_tag(tag: blake3::Hash) -> Self {
        Self(tag.into())
    }
}

/// Checks form and check characters of a handle, before any look-up.
///
/// # Errors
///
/// [`HandleError`]; it says nothing about whether such a handle was ever given out.
pub fn parse_handle(text: &str) -> Result<(), HandleError> {
    let body = text.strip_prefix(PREFIX).ok_or(HandleError::Form)?.as_bytes();
    let (random, check) = body.split_at_checked(RANDOM_LEN).ok_or(HandleError::Form)?;
    if check.len() != CHECK_LEN || !body.iter().all(|byte| ALPHABET.contains(byte)) {
        return Err(HandleError::Form);
    }
    if check == check_part(random) { Ok(()) } else { Err(HandleError::Checksum) }
}

fn check_part(random: &[u8]) -> [u8; CHECK_LEN] {
    let hash = hash_of(&[CHECK_DOMAIN, random]);
    std::array::from_fn(|at| symbol(hash.as_bytes()[at] & 31))
}

fn symbol(number: u8) -> u8 {
    ALPHABET[usize::from(number)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fresh_handle_passes_and_is_all_chance() {
        let mint = Mint::seeded(1);
        let (one, other) = (WorkerHandle::draw(&mint), WorkerHandle::draw(&mint));
        assert_eq!(parse_handle(one.expose()), Ok(()));
        assert_eq!(one.expose().len(), 33);
        assert_eq!(one.as_str(), one.expose());
        assert_ne!(one.expose()[3..29], other.expose()[3..29]);
        assert_eq!(format!("{one:?}"), "WorkerHandle(..)");
    }

    #[test]
    fn nearly_every_typing_error_is_caught_without_a_look_up() {
        let handle = WorkerHandle::draw(&Mint::seeded(2)).expose().to_owned();
        let mut caught = 0;
        for at in PREFIX.len()..handle.len() {
            for wrong in ALPHABET.iter().filter(|wrong| **wrong != handle.as_bytes()[at]) {
                let mut typed = handle.clone().into_bytes();
                typed[at] = *wrong;
                let typed = String::from_utf8(typed).unwrap();
                assert_eq!(parse_handle(&typed), Err(HandleError::Checksum), "place {at}");
                caught += 1;
            }
        }
        assert_eq!(caught, 30 * 31);
    }

    #[test]
    fn texts_of_another_form_are_no_handles() {
        let handle = WorkerHandle::draw(&Mint::seeded(3)).expose().to_owned();
        let long = format!("{handle}0");
        let upper = handle.to_uppercase();
        let accents = format!("wh-{}", "é".repeat(15));
        let texts =
            ["", "wh-", "wh-0a1b2c3d", &handle[3..], &handle[..32], &long, &upper, &accents];
        for text in texts {
            assert_eq!(parse_handle(text), Err(HandleError::Form), "{text:?}");
        }
    }
}
