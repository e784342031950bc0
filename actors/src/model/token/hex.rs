//! Lower-case hex, one spelling for each row of bytes.
//!
//! It knows no meaning: nonces, signatures, fingerprints and keys are told apart by their types.

use std::fmt;

/// Writes the bytes as lower-case digits.
pub(super) fn write(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

/// Whether the text is exactly so many lower-case digits.
pub(super) fn is_digits(text: &str, len: usize) -> bool {
    text.len() == len && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Reads exactly `N` bytes, or nothing.
pub(super) fn read<const N: usize>(text: &str) -> Option<[u8; N]> {
    if !is_digits(text, 2 * N) {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = digit(pair[0]) << 4 | digit(pair[1]);
    }
    Some(bytes)
}

const fn digit(byte: u8) -> u8 {
    if byte.is_ascii_digit() { byte - b'0' } else { byte - b'a' + 10 }
}

/// Gives a newtype over `[u8; N]` its text forms: all digits as `Display` and in serde, the
/// first eight as `Debug`.
macro_rules! hex_text {
    ($name:ident, $len:literal, $expected:literal) => {
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                $crate::model::token::hex::write(f, &self.0)
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                $crate::model::token::hex::write(f, &self.0[..4])
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(from)?;
                let bytes = $crate::model::token::hex::read::<$len>(&text);
                bytes.map(Self).ok_or_else(|| serde::de::Error::custom($expected))
            }
        }
    };
}
pub(super) use hex_text;

/// Serde form of a plain `[u8; 32]` field: 64 digits.
pub(crate) mod bytes32 {
    use std::borrow::Cow;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(
        bytes: &[u8; 32],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(blake3::Hash::from_bytes(*bytes).to_hex().as_str())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<[u8; 32], D::Error> {
        let text = Cow::<'de, str>::deserialize(from)?;
        super::read(&text).ok_or_else(|| serde::de::Error::custom("64 hex digits expected"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lower_case_digits_of_the_right_length_are_read() {
        assert_eq!(read::<2>("0fa9"), Some([0x0f, 0xa9]));
        for text in ["", "0fa", "0fa9f", "0FA9", "0fg9", "+fa9", "é9"] {
            assert_eq!(read::<2>(text), None, "{text:?}");
        }
    }
}
