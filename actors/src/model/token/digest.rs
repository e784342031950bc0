//! One hash over a few pieces, laid end to end on the stack where they fit.
//!
//! A streaming hasher carries two kilobytes of tree; the texts of a token are shorter than that.

/// Pieces up to this many bytes together are hashed in one go.
const ROOM: usize = 512;

/// BLAKE3 of the pieces, one after the other.
pub(super) fn hash_of(pieces: &[&[u8]]) -> blake3::Hash {
    let mut room = [0; ROOM];
    let mut end = 0;
    for piece in pieces {
        let Some(place) = room.get_mut(end..end + piece.len()) else {
            let mut hasher = blake3::Hasher::new();
            for piece in pieces {
                hasher.update(piece);
            }
            return hasher.finalize();
        };
        place.copy_from_slice(piece);
        end += piece.len();
    }
    blake3::hash(&room[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_and_short_pieces_hash_like_their_concatenation() {
        for len in [0, 1, 100, ROOM - 3, ROOM - 2, ROOM, 5_000] {
            let long = vec![7; len];
            assert_eq!(hash_of(&[b"ab", &long]), blake3::hash(&[b"ab", &*long].concat()), "{len}");
        }
    }
}
