//! The bytes that are signed.
//!
//! Every piece has its tag and its length before it, so no two tokens share their bytes. The
//! encoding is only ever written and hashed, never parsed. A change to it makes every token in
//! the field invalid; `tests/vectors/tokens.json` pins it.

use constant_time_eq::constant_time_eq;

use crate::model::token::CapToken;
use crate::model::token::digest::hash_of;

/// Names the use and the version at the head of every signed input.
const MAC_DOMAIN: &[u8; 17] = b"captoken/v1/base\0";

/// Keeps the digests of records apart from every other hash of the engine.
const RECORD_DOMAIN: &[u8] = b"captoken/v1/record\0";

/// Where the fields begin in a signed input: after the domain and the four bytes of the key id.
const FIELDS_AT: usize = MAC_DOMAIN.len() + 4;

/// Where an encoding goes: into a buffer, or against one.
trait Sink {
    fn put(&mut self, bytes: &[u8]);
}

impl Sink for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Compares an encoding with bytes. Pieces that may be secret take the same time when they differ.
struct Compared<'a> {
    rest: &'a [u8],
    same: bool,
}

impl Sink for Compared<'_> {
    fn put(&mut self, bytes: &[u8]) {
        match self.rest.split_at_checked(bytes.len()) {
            Some((piece, rest)) => {
                let short = bytes.len() < 16;
                self.same &= if short { piece == bytes } else { constant_time_eq(piece, bytes) };
                self.rest = rest;
            }
            None => self.same = false,
        }
    }
}

/// The signed input of a token: domain, key id, then the seven fields in their fixed order.
/// The signature is not part of it.
pub(super) fn mac_input(kid: u32, token: &CapToken) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(MAC_DOMAIN);
    out.extend_from_slice(&kid.to_be_bytes());
    put_fields(&mut out, token);
    out
}

/// Whether these are the encoded fields of the token.
pub(super) fn are_fields_of(fields: &[u8], token: &CapToken) -> bool {
    let mut compared = Compared { rest: fields, same: true };
    put_fields(&mut compared, token);
    compared.same && compared.rest.is_empty()
}

fn put_fields(out: &mut impl Sink, token: &CapToken) {
    field(out, 1, token.agent_id.as_bytes());
    field(out, 2, &[token.role.wire()]);
    list(out, 3, &token.scopes);
    field(out, 4, &token.issued_at.to_be_bytes());
    field(out, 5, &token.expire_at.to_be_bytes());
    match token.max_uses {
        Some(uses) => field(out, 6, &uses.to_be_bytes()),
        None => field(out, 6, &[]),
    }
    field(out, 7, token.nonce.as_bytes());
}

/// Writes another key id into a signed input, so that several keys share one encoding.
pub(super) fn set_kid(input: &mut [u8], kid: u32) {
    input[MAC_DOMAIN.len()..FIELDS_AT].copy_from_slice(&kid.to_be_bytes());
}

/// The encoded fields alone, without domain and key id.
pub(super) fn fields(input: &[u8]) -> &[u8] {
    &input[FIELDS_AT..]
}

/// What a record keeps of a token: an unkeyed hash of the same fields, without the key id, so
/// that a presented token can be compared with the minted one.
pub(super) fn record_digest(input: &[u8]) -> [u8; 32] {
    hash_of(&[RECORD_DOMAIN, fields(input)]).into()
}

fn field(out: &mut impl Sink, tag: u8, bytes: &[u8]) {
    put_head(out, tag, bytes.len());
    out.put(bytes);
}

fn list(out: &mut impl Sink, tag: u8, items: &[String]) {
    put_head(out, tag, items.len());
    for item in items {
        out.put(&len32(item.len()));
        out.put(item.as_bytes());
    }
}

fn put_head(out: &mut impl Sink, tag: u8, len: usize) {
    let [a, b, c, d] = len32(len);
    out.put(&[tag, a, b, c, d]);
}

fn len32(len: usize) -> [u8; 4] {
    u32::try_from(len).expect("a token's texts are shorter than 4 GiB").to_be_bytes()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::model::role::Role;

    fn token(agent_id: &str, scopes: &[&str], max_uses: Option<u32>) -> CapToken {
        CapToken {
            agent_id: agent_id.into(),
            role: Role::Observer,
            scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
            issued_at: 1,
            expire_at: 2,
            max_uses,
            nonce: "0".repeat(32),
            sig_hex: String::new(),
        }
    }

    #[test]
    fn fields_that_run_together_when_joined_stay_apart() {
        let lists: [&[&str]; 8] =
            [&[], &[""], &["", ""], &["a,b"], &["a", "b"], &["b", "a"], &["a,", "b"], &["\0"]];
        let agents = ["", "a", "alice|Operator|x", "alice", "*"];
        let limits = [None, Some(0), Some(1), Some(u32::MAX)];
        let mut seen = HashSet::new();
        for (scopes, agent) in lists.iter().flat_map(|l| agents.map(|a| (l, a))) {
            for limit in limits {
                assert!(seen.insert(mac_input(1, &token(agent, scopes, limit))));
            }
        }
        assert_eq!(seen.len(), 8 * 5 * 4);
    }

    #[test]
    fn the_digest_depends_on_the_fields_alone() {
        let token = token("a", &["*"], None);
        let mut input = mac_input(1, &token);
        let digest = record_digest(&input);
        set_kid(&mut input, 9);
        assert_eq!(input, mac_input(9, &token));
        assert_eq!(record_digest(&input), digest);
        assert_ne!(record_digest(&mac_input(1, &self::token("b", &["*"], None))), digest);
    }

    #[test]
    fn the_layout_is_the_written_one() {
        let input = mac_input(258, &token("al", &["x", ""], Some(7)));
        let mut expected = b"captoken/v1/base\0\x00\x00\x01\x02".to_vec();
        expected.extend_from_slice(b"\x01\x00\x00\x00\x02al\x02\x00\x00\x00\x01\x03");
        expected.extend_from_slice(b"\x03\x00\x00\x00\x02\x00\x00\x00\x01x\x00\x00\x00\x00");
        expected.extend_from_slice(b"\x04\x00\x00\x00\x08\0\0\0\0\0\0\0\x01");
        expected.extend_from_slice(b"\x05\x00\x00\x00\x08\0\0\0\0\0\0\0\x02");
        expected.extend_from_slice(b"\x06\x00\x00\x00\x04\0\0\0\x07");
        expected.extend_from_slice(b"\x07\x00\x00\x00\x2000000000000000000000000000000000");
        assert_eq!(input, expected);
    }
}
