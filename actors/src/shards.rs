//! A hash map that grows a little at a time, so that no insertion pays for the growth of the whole.
//!
//! A plain hash map that holds a million records moves them all in the one insertion that makes
//! it grow, which takes tens of milliseconds, and frees megabytes in one piece, which lets the
//! allocator tidy up for as long. Here an insertion frees nothing at all: the table that a split
//! empties is the one that the next split fills. This is extendible hashing (Fagin, Nievergelt, Pippenger and
//! Strong, 1979): a directory of small tables, of which a full one is split in two, and two near
//! empty ones become one. The hasher is fast and seeded, not cryptographic: every key that is
//! inserted is random or comes from the host, or hashes what a caller chose by a keyed hash first.

use std::hash::{BuildHasher, Hash};

use hashbrown::{DefaultHashBuilder, HashTable};

/// Most entries of a table: what 128 buckets hold.
const FULL: usize = 112;
/// A table without a free bucket that holds so many entries is split rather than tidied, so that
/// tidying makes room for a good many insertions.
const CROWDED: usize = 84;
/// Two neighbors with so few entries together become one; below half of a full one, so that the
/// next insertions do not split it again.
const MERGED: usize = 40;
/// Most bits of the directory; tables grow beyond [`FULL`] after that.
const DEPTH_MAX: u32 = 24;

/// A map whose longest insertion moves as many entries as one small table holds.
#[derive(Debug, Clone)]
pub(crate) struct ShardMap<K, V> {
    /// Place of the table for each value of the lowest `depth` directory bits; empty at first.
    directory: Vec<u32>,
    tables: Vec<Shard<K, V>>,
    /// Places in `tables` that hold nothing.
    vacant: Vec<u32>,
    /// The table that the last split emptied.
    spare: HashTable<(K, V)>,
    /// How many bits the directory looks at.
    depth: u32,
    hasher: DefaultHashBuilder,
    len: usize,
}

/// A table, and how many directory bits all its entries have in common.
#[derive(Debug, Clone)]
struct Shard<K, V> {
    depth: u32,
    table: HashTable<(K, V)>,
}

impl<K, V> Default for ShardMap<K, V> {
    fn default() -> Self {
        Self {
            directory: Vec::new(),
            tables: Vec::new(),
            vacant: Vec::new(),
            spare: HashTable::new(),
            depth: 0,
            hasher: DefaultHashBuilder::default(),
            len: 0,
        }
    }
}

/// The bits of a hash that the directory looks at; others than the tables themselves use.
fn bits(hash: u64) -> usize {
    usize::try_from(hash >> 32 & u64::from(u32::MAX)).unwrap_or(0)
}

/// A place as the directory notes it.
fn place(index: usize) -> u32 {
    u32::try_from(index).expect("a directory has at most 2^24 places")
}

impl<K: Eq + Hash, V> ShardMap<K, V> {
    /// Place in the directory of a hash.
    fn at(&self, hash: u64) -> usize {
        bits(hash) & ((1 << self.depth) - 1)
    }

    fn shard(&self, hash: u64) -> Option<&Shard<K, V>> {
        let index = *self.directory.get(self.at(hash))?;
        self.tables.get(index as usize)
    }

    fn shard_mut(&mut self, hash: u64) -> Option<&mut Shard<K, V>> {
        let index = *self.directory.get(self.at(hash))?;
        self.tables.get_mut(index as usize)
    }

    /// The value under `key`.
    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        let hash = self.hasher.hash_one(key);
        self.shard(hash)?.table.find(hash, |(own, _)| own == key).map(|(_, value)| value)
    }

    /// The value under `key`, for change.
    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let hash = self.hasher.hash_one(key);
        self.shard_mut(hash)?.table.find_mut(hash, |(own, _)| own == key).map(|(_, value)| value)
    }

    /// Whether a value stands under `key`.
    pub(crate) fn contains(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    /// Puts a value under `key` and returns the one that stood there.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        let hash = self.hasher.hash_one(&key);
        if let Some(old) = self.get_mut(&key) {
            return Some(std::mem::replace(old, value));
        }
        if self.directory.is_empty() {
            self.directory.push(0);
            self.tables.push(Shard { depth: 0, table: HashTable::new() });
        }
        self.make_room(hash);
        let hasher = self.hasher.clone();
        let shard = self.shard_mut(hash)?;
        shard.table.insert_unique(hash, (key, value), |(own, _)| hasher.hash_one(own));
        self.len += 1;
        None
    }

    /// Sees to it that an insertion does not make the table of a hash grow beyond a full one.
    fn make_room(&mut self, hash: u64) {
        while let Some(shard) = self.shard(hash) {
            // Buckets that a removal left behind count as taken.
            let taken = shard.table.len() == shard.table.capacity();
            let bound = if taken { CROWDED } else { FULL };
            if shard.table.len() < bound {
                // Below half of a full one it finds the room by itself.
                if taken && shard.table.len() >= FULL / 2 {
                    self.tidy(hash);
                }
                return;
            }
            if !self.split(hash) {
                return;
            }
        }
    }

    /// Moves the entries of the table of a hash into the spare one, which has no used up bucket.
    fn tidy(&mut self, hash: u64) {
        let mut fresh = std::mem::take(&mut self.spare);
        fresh.reserve(FULL, |(own, _)| self.hasher.hash_one(own));
        let hasher = self.hasher.clone();
        let Some(shard) = self.shard_mut(hash) else { return };
        std::mem::swap(&mut shard.table, &mut fresh);
        for entry in fresh.drain() {
            let own = hasher.hash_one(&entry.0);
            shard.table.insert_unique(own, entry, |(own, _)| hasher.hash_one(own));
        }
        self.spare = fresh;
    }

    /// Splits the table of a hash in two. Returns whether that is possible.
    fn split(&mut self, hash: u64) -> bool {
        let at = self.at(hash);
        let Some(&index) = self.directory.get(at) else { return false };
        let Some(shard) = self.tables.get_mut(index as usize) else { return false };
        if shard.depth >= DEPTH_MAX {
            return false;
        }
        let bit = 1 << shard.depth;
        shard.depth += 1;
        let depth = shard.depth;
        let mut low = std::mem::take(&mut self.spare);
        low.reserve(FULL, |(own, _)| self.hasher.hash_one(own));
        let mut high = HashTable::with_capacity(FULL);
        std::mem::swap(&mut shard.table, &mut low);
        for entry in low.drain() {
            let own = self.hasher.hash_one(&entry.0);
            let half = if bits(own) & bit == 0 { &mut shard.table } else { &mut high };
            half.insert_unique(own, entry, |(own, _)| self.hasher.hash_one(own));
        }
        self.spare = low;
        let high = Shard { depth, table: high };
        let new = match self.vacant.pop() {
            Some(vacant) => {
                self.tables[vacant as usize] = high;
                vacant
            }
            None => {
                self.tables.push(high);
                place(self.tables.len() - 1)
            }
        };
        if depth > self.depth {
            self.directory.extend_from_within(..);
            self.depth = depth;
        }
        self.direct(at & (bit - 1) | bit, depth, new);
        true
    }

    /// Points every place of the directory that ends in these `depth` bits to a table.
    fn direct(&mut self, low: usize, depth: u32, index: u32) {
        for place in self.directory.iter_mut().skip(low).step_by(1 << depth) {
            *place = index;
        }
    }

    /// Takes the value under `key` away.
    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let hash = self.hasher.hash_one(key);
        let shard = self.shard_mut(hash)?;
        let entry = shard.table.find_entry(hash, |(own, _)| own == key).ok()?;
        let ((_, value), _) = entry.remove();
        let few = shard.table.len() < MERGED;
        self.len -= 1;
        if few {
            self.merge(hash);
        }
        Some(value)
    }

    /// Makes the table of a hash one with its neighbor, if both have few entries.
    fn merge(&mut self, hash: u64) {
        let at = self.at(hash);
        let Some(shard) = self.shard(hash).filter(|shard| shard.depth > 0) else { return };
        let (depth, len) = (shard.depth, shard.table.len());
        let low = at & ((1 << depth) - 1);
        let other = low ^ (1 << (depth - 1));
        let (index, neighbor) = (self.directory[low], self.directory[other]);
        let other = &self.tables[neighbor as usize];
        if other.depth != depth || other.table.len() + len > MERGED {
            return;
        }
        let empty = Shard { depth: 0, table: HashTable::new() };
        let gone = std::mem::replace(&mut self.tables[neighbor as usize], empty);
        self.vacant.push(neighbor);
        let kept = &mut self.tables[index as usize];
        kept.depth -= 1;
        for entry in gone.table {
            let own = self.hasher.hash_one(&entry.0);
            kept.table.insert_unique(own, entry, |(own, _)| self.hasher.hash_one(own));
        }
        kept.table.shrink_to(MERGED, |(own, _)| self.hasher.hash_one(own));
        self.direct(low & ((1 << (depth - 1)) - 1), depth - 1, index);
    }

    /// Takes everything away.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// How many values there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The entries of the small table at a position, with their positions, in order; and where the
    /// next table begins. An entry keeps its position however the map grows and shrinks, so a walk
    /// from 0 on meets each one that stays exactly once, at the cost of one small table a step.
    pub(crate) fn scan(&self, from: u32) -> (Vec<(u32, &K, &V)>, Option<u32>)
    where
        K: Ord,
    {
        let low = (from << (32 - DEPTH_MAX)).reverse_bits() as usize & ((1 << self.depth) - 1);
        let index = self.directory.get(low).copied();
        let Some(shard) = index.and_then(|index| self.tables.get(index as usize)) else {
            return (Vec::new(), None);
        };
        let position = |key: &K| {
            let low = bits(self.hasher.hash_one(key)) & ((1 << DEPTH_MAX) - 1);
            place(low).reverse_bits() >> (32 - DEPTH_MAX)
        };
        let all = shard.table.iter().map(|(key, value)| (position(key), key, value));
        let mut found: Vec<_> = all.filter(|(at, _, _)| *at >= from).collect();
        found.sort_unstable_by(|one, other| (one.0, one.1).cmp(&(other.0, other.1)));
        let low = place(low & ((1 << shard.depth) - 1));
        let begin = low.reverse_bits() >> (32 - DEPTH_MAX);
        let end = begin + (1 << (DEPTH_MAX - shard.depth));
        (found, (end < 1 << DEPTH_MAX).then_some(end))
    }

    /// All entries, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.tables.iter().flat_map(|shard| &shard.table).map(|(key, value)| (key, value))
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
    fn a_walk_meets_each_entry_that_stays_once_while_the_map_grows_and_shrinks() {
        let mut map = ShardMap::default();
        for key in 0..3_000_u64 {
            map.insert(key, ());
        }
        let (mut met, mut from, mut fresh) = (Vec::new(), Some(0), 1_000_000);
        while let Some(at) = from {
            let (found, next) = map.scan(at);
            met.extend(found.into_iter().map(|(_, key, ())| *key).filter(|key| *key < 1_000));
            from = next;
            if fresh < 1_020_000 {
                // First the map grows, and later it shrinks to a third of what it was.
                for _ in 0..200 {
                    map.insert(fresh, ());
                    fresh += 1;
                }
            } else {
                for key in (1_000..3_000).chain(1_000_000..fresh) {
                    map.remove(&key);
                }
            }
        }
        met.sort_unstable();
        assert_eq!(met, (0..1_000).collect::<Vec<_>>());
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
        let room: usize = map.tables.iter().map(|shard| shard.table.capacity()).sum();
        assert!(room <= FULL, "{room} places are kept for one value");
        assert_eq!(map.tables.len() - map.vacant.len(), 1);
        assert_eq!(map.get(&0), Some(&[0; 64]));
    }

    #[test]
    fn no_table_grows_beyond_its_bound_while_entries_come_and_go() {
        let mut map = ShardMap::default();
        for key in 0..1_000_000_u64 {
            map.insert(key, ());
            if key >= 2_000 {
                map.remove(&(key - 2_000));
            }
        }
        let most = map.tables.iter().map(|shard| shard.table.num_buckets()).max();
        assert_eq!(most, Some(128), "buckets for at most {FULL} entries");
        assert!((998_000..1_000_000).all(|key| map.contains(&key)));
        assert_eq!(map.len(), 2_000);
    }

    #[test]
    fn no_table_grows_beyond_its_bound() {
        let mut map = ShardMap::default();
        for key in 0..300_000_u64 {
            map.insert(key, ());
        }
        assert!(map.tables.iter().all(|shard| shard.table.len() <= FULL));
        assert!((0..300_000).all(|key| map.contains(&key)));
        let places = map.directory.iter().enumerate();
        for (low, index) in places {
            let shard = &map.tables[*index as usize];
            let mask = (1 << shard.depth) - 1;
            let strange =
                |(key, ()): &&(u64, ())| bits(map.hasher.hash_one(key)) & mask != low & mask;
            assert_eq!(shard.table.iter().filter(strange).count(), 0);
        }
    }
}
