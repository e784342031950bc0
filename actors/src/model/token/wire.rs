//! The bearer text of a token: strict base64 of its JSON, one spelling for each token.
//!
//! It parses and checks the shape; it holds no key and verifies nothing.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::model::token::{BEARER_BYTES_MAX, CapToken, TokenShapeError};

/// Why a text is not a bearer token. No variant repeats the text.
///
/// ```
/// use adjutant_actors::model::token::{CapToken, CapTokenDecodeError};
///
/// match CapToken::decode("not a bearer") {
///     Err(CapTokenDecodeError::NotBase64) => {}
///     other => panic!("{other:?}"),
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CapTokenDecodeError {
    /// The text is not URL-safe base64 without padding.
    #[error("the bearer token is not URL-safe base64 without padding")]
    NotBase64,
    /// The bytes are not the JSON of a token.
    #[error("the bearer token does not hold a token")]
    NotToken,
    /// The text is longer than any token that is read.
    #[error("the bearer token is longer than {BEARER_BYTES_MAX} bytes")]
    TooLong,
    /// The bytes hold a token, spelled in another way than the engine spells it.
    #[error("the bearer token is not in the engine's own spelling")]
    NotCanonical,
    /// A field breaks a limit.
    #[error(transparent)]
    Shape(#[from] TokenShapeError),
}

pub(super) fn encode(token: &CapToken) -> String {
    URL_SAFE_NO_PAD.encode(json(token))
}

pub(super) fn decode(bearer: &str) -> Result<CapToken, CapTokenDecodeError> {
    if bearer.len() > BEARER_BYTES_MAX {
        return Err(CapTokenDecodeError::TooLong);
    }
    let bytes = URL_SAFE_NO_PAD.decode(bearer).map_err(|_| CapTokenDecodeError::NotBase64)?;
    let token: CapToken =
        serde_json::from_slice(&bytes).map_err(|_| CapTokenDecodeError::NotToken)?;
    token.check_shape()?;
    // White space, escapes and the order of fields leave JSON many spellings of one token.
    if json(&token) != bytes {
        return Err(CapTokenDecodeError::NotCanonical);
    }
    Ok(token)
}

fn json(token: &CapToken) -> Vec<u8> {
    serde_json::to_vec(token).expect("a token has only texts and numbers, which are all JSON")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::role::Role;

    fn token() -> CapToken {
        CapToken {
            agent_id: "ann".into(),
            role: Role::Observer,
            scopes: vec!["*".into()],
            issued_at: 1,
            expire_at: u64::MAX,
            max_uses: None,
            nonce: "0".repeat(32),
            sig_hex: "f".repeat(64),
        }
    }

    /// The error for a bearer whose JSON has `from` replaced by `to`.
    fn spelled(from: &str, to: &str) -> CapTokenDecodeError {
        let text = String::from_utf8(json(&token())).unwrap();
        assert!(text.contains(from), "{text}");
        decode(&URL_SAFE_NO_PAD.encode(text.replacen(from, to, 1))).unwrap_err()
    }

    #[test]
    fn a_token_reads_back_what_it_writes() {
        assert_eq!(CapToken::decode(&token().encode()), Ok(token()));
    }

    #[test]
    fn other_spellings_of_the_same_token_are_refused() {
        use CapTokenDecodeError as E;
        assert_eq!(spelled(":1,", ": 1,"), E::NotCanonical);
        assert_eq!(spelled("ann", "\\u0061nn"), E::NotCanonical);
        assert_eq!(spelled("\"max_uses\":null,", ""), E::NotCanonical);
        assert_eq!(spelled("{", " {"), E::NotCanonical);
    }

    #[test]
    fn what_is_no_token_is_refused() {
        use CapTokenDecodeError as E;
        assert_eq!(spelled("{", "{\"kid\":1,"), E::NotToken);
        assert_eq!(spelled("{", "{\"agent_id\":\"bob\","), E::NotToken);
        assert_eq!(spelled("observer", "Observer"), E::NotToken);
        assert_eq!(spelled("\"ann\"", "null"), E::NotToken);
        assert_eq!(spelled(":1,", ":-1,"), E::NotToken);
        assert_eq!(spelled("ann", "a\\u0000n"), E::Shape(TokenShapeError::AgentIdControl));
        assert_eq!(spelled("}", "} "), E::NotCanonical);
        assert_eq!(spelled("}", "}{}"), E::NotToken);
        assert_eq!(decode(""), Err(E::NotToken));
    }

    #[test]
    fn base64_is_strict() {
        use CapTokenDecodeError as E;
        let good = token().encode();
        for bad in [format!("{good}="), format!(" {good}"), format!("{good}\n"), "a+b/".into()] {
            assert_eq!(decode(&bad), Err(E::NotBase64), "{bad}");
        }
        assert_eq!(decode(&"A".repeat(BEARER_BYTES_MAX + 1)), Err(E::TooLong));
        assert_eq!(decode(&"A".repeat(BEARER_BYTES_MAX)), Err(E::NotToken));
    }
}
