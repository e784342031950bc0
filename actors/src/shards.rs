//! A hash map in shards, so that no single insertion pays for the growth of the whole.
//!
//! A plain hash map that holds a million records moves them all in the one insertion that makes
//! it grow, which takes tens of milliseconds. Here each of the shards grows by itself, at another
//! moment than its neighbors, and moves its own 256th part. The hasher is fast and seeded, not
//! cryptographic: every key that is inserted is random or comes from the host, never from a
//! remote caller's choice.

use std::hash::{BuildHasher, Hash};

use hashbrown::{DefaultHashBuilder, HashTable};

/// How many parts a map has. A power of two.
const SHARDS: usize = 256;

/// Places that a shard keeps without a value in them.
const KEPT_ROOM: usize = 14;

/// A map whose longest insertion moves a 256th of its records.
#[derive(Debug, Clone)]
pub(crate) struct ShardMap<K, V> {
    /// Empty until the first insertion.
    shards: Vec<HashTable<(K, V)>>,
    hasher: DefaultHashBuilder,
    len: usize,
}

impl<K, V> Default for ShardMap<K, V> {
    fn default() -> Self {
        Self { shards: Vec::new(), hasher: DefaultHashBuilder::default(), len: 0 }
    }
}

/// The shard of a hash. Takes bits that the shards' own tables do not look at.
fn place(hash: u64) -> usize {
    usize::try_from(hash >> 32).unwrap_or(0) % SHARDS
}

impl<K: Eq + Hash, V> ShardMap<K, V> {
    /// The value under `key`.
    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        let hash = self.hasher.hash_one(key);
        let shard = self.shards.get(place(hash))?;
        shard.find(hash, |(own, _)| own == key).map(|(_, value)| value)
    }

    /// The value under `key`, for change.
    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let hash = self.hasher.hash_one(key);
        let shard = self.shards.get_mut(place(hash))?;
        shard.find_mut(hash, |(own, _)| own == key).map(|(_, value)| value)
    }

    /// Whether a value stands under `key`.
    pub(crate) fn contains(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    /// Puts a value under `key` and returns the one that stood there.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        if self.shards.is_empty() {
            self.shards.resize_with(SHARDS, HashTable::new);
        }
        let hash = self.hasher.hash_one(&key);
        let hasher = &self.hasher;
        let shard = self.shards.get_mut(place(hash))?;
        if let Some((_, old)) = shard.find_mut(hash, |(own, _)| *own == key) {
            return Some(std::mem::replace(old, value));
        }
        shard.insert_unique(hash, (key, value), |(own, _)| hasher.hash_one(own));
        self.len += 1;
        None
    }

    /// Takes the value under `key` away.
    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let hash = self.hasher.hash_one(key);
        let shard = self.shards.get_mut(place(hash))?;
        let entry = shard.find_entry(hash, |(own, _)| own == key).ok()?;
        let ((_, value), _) = entry.remove();
        self.len -= 1;
        if shard.capacity() > KEPT_ROOM && shard.len() * 8 < shard.capacity() {
            let hasher = &self.hasher;
            shard.shrink_to(shard.len() * 2, |(own, _)| hasher.hash_one(own));
        }
        Some(value)
    }

    /// Takes everything away.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// How many values there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// All entries, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.shards.iter().flatten().map(|(key, value)| (key, value))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn it_holds_what_a_plain_map_holds() {
        let mut ours = ShardMap::default();
        let mut plain = HashMap::new();
        let mut seed = 7_u64;
        for _ in 0..200_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let (key, value) = (seed >> 50, seed);
            if seed >> 40 & 3 == 0 {
                assert_eq!(ours.remove(&key), plain.remove(&key));
            } else {
                assert_eq!(ours.insert(key, value), plain.insert(key, value));
            }
            assert_eq!(ours.len(), plain.len());
        }
        assert!(plain.iter().all(|(key, value)| ours.get(key) == Some(value)));
        let mut all: Vec<_> = ours.iter().map(|(key, value)| (*key, *value)).collect();
        let mut expected: Vec<_> = plain.into_iter().collect();
        all.sort_unstable();
        expected.sort_unstable();
        assert_eq!(all, expected);
    }

    #[test]
    fn what_was_removed_gives_its_room_back() {
        let mut map = ShardMap::default();
        for key in 0..100_000_u64 {
            map.insert(key, [0_u8; 64]);
        }
        for key in 1..100_000_u64 {
            map.remove(&key);
        }
        let room: usize = map.shards.iter().map(HashTable::capacity).sum();
        assert!(room <= SHARDS * KEPT_ROOM, "{room} places are kept for one value");
        assert_eq!(map.get(&0), Some(&[0; 64]));
    }
}
