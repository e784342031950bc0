//! What an attacker may try with a token: every change must be refused.

use std::sync::Arc;
use std::time::Duration;

use adjutant_actors::model::mint::Mint;
use adjutant_actors::model::role::Role;
use adjutant_actors::model::token::{CapToken, CapTokenDecodeError, TokenRequest, TokenSigner};

fn signer(secret: u8) -> TokenSigner {
    let mint = Arc::new(Mint::seeded(1));
    TokenSigner::with_key(1, [secret; 32], mint).expect("the secret is not empty")
}

fn minted(signer: &TokenSigner, agent_id: &str, role: Role, scopes: &[&str]) -> CapToken {
    let request = TokenRequest {
        agent_id: agent_id.into(),
        role,
        scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
        issued_at: 1_800_000_000,
        ttl: Duration::from_secs(60),
        max_uses: Some(3),
        nonce: Mint::seeded(2).nonce(),
    };
    signer.mint_at(request).0
}

/// Whether the bearer text would be let in.
fn passes(signer: &TokenSigner, bearer: &[u8]) -> bool {
    let text = std::str::from_utf8(bearer);
    text.is_ok_and(|text| CapToken::decode(text).is_ok_and(|token| signer.verify_sig(&token)))
}

#[test]
fn fields_cannot_be_shifted_into_one_another() {
    // The agent id of a low token is chosen so that, joined by `|` and `,`, it reads as a high one.
    let corpus: [(&str, &[&str], &str, &[&str]); 6] = [
        ("alice|Operator|x", &["*"], "alice", &["x|Observer|*"]),
        ("alice|operator|x", &["*"], "alice", &["x|observer|*"]),
        ("alice|1|", &[], "alice", &["|3|"]),
        ("alice", &["a,b"], "alice", &["a", "b"]),
        ("alice", &["a", ""], "alice", &["a,"]),
        ("alice", &[], "alice", &[""]),
    ];
    let signer = signer(1);
    for (agent, scopes, as_agent, as_scopes) in corpus {
        let mut token = minted(&signer, agent, Role::Observer, scopes);
        assert!(signer.verify_sig(&token));
        token.agent_id = as_agent.into();
        token.scopes = as_scopes.iter().map(|scope| (*scope).to_owned()).collect();
        for role in Role::ALL {
            token.role = *role;
            assert!(!signer.verify_sig(&token), "{agent} {scopes:?} as {as_agent} {role}");
        }
    }
}

#[test]
fn every_bit_of_a_bearer_counts() {
    let signer = signer(1);
    let bearer = minted(&signer, "alice", Role::Worker, &["*", "a\"b"]).encode().into_bytes();
    assert!(passes(&signer, &bearer));
    for at in 0..bearer.len() * 8 {
        let mut flipped = bearer.clone();
        flipped[at / 8] ^= 1 << (at % 8);
        assert!(!passes(&signer, &flipped), "bit {at}");
    }
    for end in 0..bearer.len() {
        assert!(!passes(&signer, &bearer[..end]), "cut at {end}");
    }
}

#[test]
fn no_field_can_be_changed_or_swapped() {
    let signer = signer(1);
    let honest = minted(&signer, "alice", Role::Worker, &["bob", "carol"]);
    let changes: [fn(&mut CapToken); 14] = [
        |t| t.agent_id = "bob".into(),
        |t| std::mem::swap(&mut t.agent_id, &mut t.scopes[0]),
        |t| t.role = Role::Operator,
        |t| t.scopes.reverse(),
        |t| t.scopes.push("*".into()),
        |t| t.scopes.clear(),
        |t| std::mem::swap(&mut t.issued_at, &mut t.expire_at),
        |t| t.issued_at -= 1,
        |t| t.expire_at = u64::MAX,
        |t| t.max_uses = None,
        |t| t.max_uses = Some(0),
        |t| t.nonce.replace_range(..1, if t.nonce.starts_with('0') { "1" } else { "0" }),
        |t| t.sig_hex = t.nonce.repeat(2),
        |t| t.sig_hex = "0".repeat(64),
    ];
    for (at, change) in changes.iter().enumerate() {
        let mut token = honest.clone();
        change(&mut token);
        assert!(!signer.verify_sig(&token), "change {at}");
    }
    assert!(signer.verify_sig(&honest));
}

#[test]
fn the_signature_of_another_token_does_not_fit() {
    let signer = signer(1);
    let mut low = minted(&signer, "alice", Role::Observer, &["*"]);
    low.sig_hex = minted(&signer, "alice", Role::Operator, &["*"]).sig_hex;
    assert!(!signer.verify_sig(&low));
}

#[test]
fn a_signature_has_one_spelling() {
    let signer = signer(1);
    let mut token = minted(&signer, "alice", Role::Worker, &[]);
    token.sig_hex = token.sig_hex.to_uppercase();
    assert!(!signer.verify_sig(&token));
    assert!(matches!(CapToken::decode(&token.encode()), Err(CapTokenDecodeError::Shape(_))));
}

#[test]
fn old_keys_verify_until_they_are_retired() {
    let signer = signer(1);
    let shared = signer.clone();
    let old = minted(&signer, "alice", Role::Operator, &[]);
    let digest = signer.verify(&old).unwrap().digest;
    signer.rotate(2, [2; 32]).unwrap();
    assert_eq!(shared.active_kid(), 2);

    let new = minted(&signer, "alice", Role::Operator, &[]);
    assert_eq!(shared.verify(&old).map(|signed| signed.kid), Some(1));
    assert_eq!(shared.verify(&new).map(|signed| signed.kid), Some(2));
    assert_ne!(old.sig_hex, new.sig_hex);
    assert_eq!(shared.verify(&new).unwrap().digest, digest, "the key is no field of the token");

    signer.retire(1).unwrap();
    assert!(!shared.verify_sig(&old));
    assert!(shared.verify_sig(&new));
}

#[test]
fn another_engine_with_another_secret_or_key_id_refuses() {
    let token = minted(&signer(1), "alice", Role::Operator, &["*"]);
    assert!(signer(1).verify_sig(&token), "the same secret after a restart");
    assert!(!signer(2).verify_sig(&token));
    let renamed = TokenSigner::with_key(2, [1; 32], Arc::new(Mint::seeded(1))).unwrap();
    assert!(!renamed.verify_sig(&token));
}

#[test]
fn a_token_past_the_limits_never_verifies_even_when_signed() {
    let signer = signer(1);
    assert!(!signer.verify_sig(&minted(&signer, "a\nb", Role::Operator, &[])));
    assert!(!signer.verify_sig(&minted(&signer, "a", Role::Operator, &["x"; 65])));
}

#[test]
fn no_error_repeats_what_was_presented() {
    let canary = "deadbeefdeadbeefdeadbeefdeadbeef";
    let bearer = minted(&signer(1), canary, Role::Operator, &[]).encode();
    let texts = [canary.to_owned(), format!("{bearer}="), bearer[..bearer.len() - 4].to_owned()];
    for text in texts {
        let error = CapToken::decode(&text).unwrap_err();
        assert!(!format!("{error} {error:?}").contains(&text[..8]));
    }
}
