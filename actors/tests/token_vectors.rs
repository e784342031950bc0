//! The golden tokens: bytes, tags and bearer texts that must never change.
//!
//! The encoding is written here once more, straight from its description, so that a slip in the
//! engine's own encoder cannot agree with itself. `vectors/crosscheck.mjs` does the same with
//! another hash implementation.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use adjutant_actors::model::mint::Mint;
use adjutant_actors::model::role::Role;
use adjutant_actors::model::token::{CapToken, TokenRequest, TokenSigner};
use serde::Deserialize;

#[derive(Deserialize)]
struct Vectors {
    roots: BTreeMap<u32, String>,
    tokens: Vec<Golden>,
    blake3_keyed: Official,
}

#[derive(Deserialize)]
struct Golden {
    name: String,
    kid: u32,
    token: Fields,
    input: String,
    tag: String,
    digest: String,
    fingerprint: String,
    bearer: String,
}

#[derive(Deserialize)]
struct Fields {
    agent_id: String,
    role: Role,
    scopes: Vec<String>,
    issued_at: String,
    expire_at: String,
    max_uses: Option<u32>,
    nonce: String,
}

#[derive(Deserialize)]
struct Official {
    key: String,
    cases: Vec<OfficialCase>,
}

#[derive(Deserialize)]
struct OfficialCase {
    input_len: usize,
    keyed_hash: String,
}

fn vectors() -> Vectors {
    serde_json::from_str(include_str!("vectors/tokens.json")).expect("the file holds vectors")
}

fn bytes_of(hex: &str) -> Vec<u8> {
    let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("the file holds hex");
    (0..hex.len()).step_by(2).map(byte).collect()
}

fn hex_of(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn len32(len: usize) -> [u8; 4] {
    u32::try_from(len).expect("golden texts are short").to_be_bytes()
}

fn sized(bytes: &[u8]) -> Vec<u8> {
    [&len32(bytes.len())[..], bytes].concat()
}

fn signed_input(kid: u32, fields: &Fields) -> Vec<u8> {
    let role = match fields.role {
        Role::Operator => 1,
        Role::Worker => 2,
        Role::Observer => 3,
        Role::Senior => 4,
        other => panic!("{other} has no golden number"),
    };
    let number = |text: &str| text.parse::<u64>().expect("times are whole numbers").to_be_bytes();
    let mut out = [&b"captoken/v1/base\0"[..], &kid.to_be_bytes()].concat();
    out.extend([&[1][..], &sized(fields.agent_id.as_bytes())].concat());
    out.extend([&[2][..], &sized(&[role])].concat());
    out.push(3);
    out.extend(len32(fields.scopes.len()));
    out.extend(fields.scopes.iter().flat_map(|scope| sized(scope.as_bytes())));
    out.extend([&[4][..], &sized(&number(&fields.issued_at))].concat());
    out.extend([&[5][..], &sized(&number(&fields.expire_at))].concat());
    let uses = fields.max_uses.map_or(Vec::new(), |uses| uses.to_be_bytes().to_vec());
    out.extend([&[6][..], &sized(&uses)].concat());
    out.extend([&[7][..], &sized(fields.nonce.as_bytes())].concat());
    out
}

#[test]
fn the_golden_inputs_and_tags_follow_from_the_description() {
    let vectors = vectors();
    assert!(vectors.tokens.len() >= 20);
    for golden in &vectors.tokens {
        let input = signed_input(golden.kid, &golden.token);
        assert_eq!(hex_of(&input), golden.input, "{}", golden.name);
        let root = bytes_of(&vectors.roots[&golden.kid]);
        let len = u64::try_from(root.len()).unwrap();
        let material = [&golden.kid.to_be_bytes()[..], &len.to_be_bytes(), &root].concat();
        let key = blake3::derive_key("adjutant 2026-11-21 captoken v1 mac", &material);
        let tag = blake3::keyed_hash(&key, &input).to_hex();
        assert_eq!(tag.as_str(), golden.tag, "{}", golden.name);
    }
}

#[test]
fn the_signer_mints_the_golden_tokens() {
    let vectors = vectors();
    for golden in vectors.tokens {
        let root = bytes_of(&vectors.roots[&golden.kid]);
        let signer = TokenSigner::with_key(golden.kid, &root, Arc::new(Mint::seeded(0))).unwrap();
        let issued_at: u64 = golden.token.issued_at.parse().unwrap();
        let expire_at: u64 = golden.token.expire_at.parse().unwrap();
        let (token, signed) = signer.mint_at(TokenRequest {
            agent_id: golden.token.agent_id,
            role: golden.token.role,
            scopes: golden.token.scopes,
            issued_at,
            ttl: Duration::from_secs(expire_at - issued_at),
            max_uses: golden.token.max_uses,
            nonce: golden.token.nonce,
        });
        let name = golden.name;
        assert_eq!(token.sig_hex, golden.tag, "{name}");
        assert_eq!(hex_of(&signed.digest), golden.digest, "{name}");
        assert_eq!(signed.fingerprint.to_string(), golden.fingerprint, "{name}");
        assert_eq!(signed.kid, golden.kid, "{name}");
        assert_eq!(token.encode(), golden.bearer, "{name}");
        assert_eq!(CapToken::decode(&golden.bearer).as_ref(), Ok(&token), "{name}");
        assert_eq!(signer.verify(&token), Some(signed), "{name}");
    }
}

#[test]
fn the_hash_gives_its_official_keyed_outputs() {
    let official = vectors().blake3_keyed;
    let key: [u8; 32] = official.key.as_bytes().try_into().unwrap();
    for case in official.cases {
        let input: Vec<u8> = (0..=250).cycle().take(case.input_len).collect();
        let hash = blake3::keyed_hash(&key, &input).to_hex();
        assert_eq!(hash.as_str(), case.keyed_hash, "{} bytes", case.input_len);
    }
}
