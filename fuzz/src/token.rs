//! Bearer texts: each token has one spelling, and none verifies that was not signed.

use std::collections::HashSet;
use std::sync::{Arc, OnceLock};

use adjutant_actors::model::mint::Mint;
use adjutant_actors::model::token::{CapToken, TokenSigner};
use serde::Deserialize;

#[derive(Deserialize)]
struct Vectors {
    roots: std::collections::BTreeMap<u32, String>,
    tokens: Vec<Golden>,
}

#[derive(Deserialize)]
struct Golden {
    bearer: String,
}

struct Keys {
    signers: Vec<TokenSigner>,
    signed: HashSet<String>,
}

/// The golden tokens, which alone are signed, and their keys.
fn keys() -> &'static Keys {
    static KEYS: OnceLock<Keys> = OnceLock::new();
    KEYS.get_or_init(|| {
        let text = include_str!("../../actors/tests/vectors/tokens.json");
        let vectors: Vectors = serde_json::from_str(text).expect("the file holds vectors");
        let bytes = |hex: &str| -> Vec<u8> {
            let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("it is hex");
            (0..hex.len()).step_by(2).map(byte).collect()
        };
        let signer = |(kid, root): (u32, String)| {
            let mint = Arc::new(Mint::seeded(0));
            TokenSigner::with_key(kid, bytes(&root), mint).expect("no golden root is empty")
        };
        Keys {
            signers: vectors.roots.into_iter().map(signer).collect(),
            signed: vectors.tokens.into_iter().map(|golden| golden.bearer).collect(),
        }
    })
}

/// Reads a bearer and verifies it.
pub fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Ok(token) = CapToken::decode(text) else { return };
    assert_eq!(token.encode(), text, "a token has two spellings");
    assert_eq!(token.check_shape(), Ok(()));
    let keys = keys();
    for signer in &keys.signers {
        // Twice: the second time it may be known by its bytes.
        let verified = [signer.verify(&token), signer.verify(&token)];
        assert_eq!(verified[0], verified[1]);
        assert!(verified[0].is_none() || keys.signed.contains(text), "nobody signed this");
    }
}
