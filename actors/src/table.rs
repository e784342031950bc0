//! Tables that remember what a turn touched, and can undo it.
//!
//! A mutable access keeps the old value the first time a turn touches a record; `rollback` puts
//! the old values back, `commit` forgets them. The keys that were kept are the records that the
//! turn touched: what a journal has to write and which waiters have to be told.

use std::collections::BTreeSet;
use std::hash::Hash;
use std::ops::RangeBounds;

use crate::shards::ShardMap;

#[derive(Debug, Clone)]
struct Slot<V> {
    touched_in: u64,
    value: V,
}

/// Where a walk over a table goes on. Means nothing to another process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place<K> {
    /// Position of the small table.
    pub at: u32,
    /// The last key that was met there.
    pub after: Option<K>,
}

impl<K> Default for Place<K> {
    fn default() -> Self {
        Self { at: 0, after: None }
    }
}

/// A map from key to record with the memory of one turn.
///
/// ```
/// use adjutant_actors::table::{Place, Table};
///
/// let mut table = Table::default();
/// table.insert("a", 1);
/// table.commit();
///
/// if let Some(value) = table.get_mut(&"a") {
///     *value = 2;
/// }
/// table.insert("b", 3);
/// assert_eq!((table.len(), table.touched().count()), (2, 2));
/// table.rollback(); // the turn is undone as a whole
/// assert_eq!((table.get(&"a"), table.contains(&"b"), table.is_empty()), (Some(&1), false, false));
///
/// let (page, next) = table.page(&Place::default(), 100, 100, |key, _| Some(*key));
/// assert_eq!((page, next), (vec!["a"], None));
/// assert_eq!((table.iter().count(), table.remove(&"a")), (1, Some(1)));
/// ```
#[derive(Debug, Clone)]
pub struct Table<K, V> {
    map: ShardMap<K, Slot<V>>,
    undo: Vec<(K, Option<V>)>,
    turn: u64,
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self { map: ShardMap::default(), undo: Vec::new(), turn: 1 }
    }
}

/// Two tables are equal when their records are; the memory of a turn does not count.
impl<K: Eq + Hash, V: PartialEq> PartialEq for Table<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.map.len() == other.map.len()
            && self
                .map
                .iter()
                .all(|(key, slot)| other.map.get(key).is_some_and(|twin| twin.value == slot.value))
    }
}

impl<K: Eq + Hash + Clone, V: Clone> Table<K, V> {
    /// The record under `key`.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.map.get(key).map(|slot| &slot.value)
    }

    /// Whether a record stands under `key`.
    pub fn contains(&self, key: &K) -> bool {
        self.map.contains(key)
    }

    /// How many records there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.map.len() == 0
    }

    /// The record under `key` for change; the turn now touches it.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let slot = self.map.get_mut(key)?;
        if slot.touched_in != self.turn {
            slot.touched_in = self.turn;
            self.undo.push((key.clone(), Some(slot.value.clone())));
        }
        Some(&mut slot.value)
    }

    /// Puts a record under `key`, in place of one that stands there.
    pub fn insert(&mut self, key: K, value: V) {
        let slot = Slot { touched_in: self.turn, value };
        match self.map.insert(key.clone(), slot) {
            Some(old) if old.touched_in == self.turn => {}
            old => self.undo.push((key, old.map(|slot| slot.value))),
        }
    }

    /// Takes the record under `key` away. The turn touches it even if it made it itself.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let slot = self.map.remove(key)?;
        self.undo.push((key.clone(), Some(slot.value.clone())));
        Some(slot.value)
    }

    /// All records, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.map.iter().map(|(key, slot)| (key, &slot.value))
    }

    /// A page of what `show` gives for the records from a place on: at most `limit`, and after
    /// about `looks` records whatever was found; and where the next page begins. The order means
    /// nothing. A record that stays for the whole walk is met exactly once.
    pub fn page<T>(
        &self,
        from: &Place<K>,
        looks: usize,
        limit: usize,
        show: impl Fn(&K, &V) -> Option<T>,
    ) -> (Vec<T>, Option<Place<K>>)
    where
        K: Ord,
    {
        let (mut shown, mut looked, mut at) = (Vec::new(), 0, from.clone());
        loop {
            let (found, next) = self.map.scan(at.at);
            for (position, key, slot) in found {
                let before = at.after.as_ref().is_some_and(|after| key <= after);
                if position == at.at && before {
                    continue;
                }
                looked += 1;
                shown.extend(show(key, &slot.value));
                if shown.len() >= limit {
                    return (shown, Some(Place { at: position, after: Some(key.clone()) }));
                }
            }
            let Some(next) = next else { return (shown, None) };
            at = Place { at: next, after: None };
            if looked >= looks {
                return (shown, Some(at));
            }
        }
    }

    /// The keys that this turn touched; one key may come twice.
    pub fn touched(&self) -> impl Iterator<Item = &K> {
        self.undo.iter().map(|(key, _)| key)
    }

    /// Ends the turn and keeps its changes.
    #[inline]
    pub fn commit(&mut self) {
        if !self.undo.is_empty() {
            self.undo.clear();
            self.undo.shrink_to(64);
            self.turn += 1;
        }
    }

    /// Ends the turn and puts every record back as it was.
    pub fn rollback(&mut self) {
        self.turn += 1;
        while let Some((key, old)) = self.undo.pop() {
            match old {
                Some(value) => {
                    self.map.insert(key, Slot { touched_in: 0, value });
                }
                None => {
                    self.map.remove(&key);
                }
            }
        }
    }
}

/// An ordered set with the memory of one turn: deadlines, and edges that are listed by owner.
///
/// ```
/// use adjutant_actors::table::Index;
///
/// let mut deadlines = Index::default();
/// deadlines.insert((20, "b"));
/// deadlines.insert((10, "a"));
/// deadlines.commit();
/// assert_eq!((deadlines.first(), deadlines.len()), (Some(&(10, "a")), 2));
///
/// deadlines.remove(&(10, "a"));
/// assert_eq!(deadlines.range(..(15, "")).count(), 0);
/// deadlines.rollback();
/// assert!(deadlines.contains(&(10, "a")) && !deadlines.is_empty());
/// ```
#[derive(Debug, Clone)]
pub struct Index<K> {
    set: BTreeSet<K>,
    undo: Vec<(K, bool)>,
}

impl<K> Default for Index<K> {
    fn default() -> Self {
        Self { set: BTreeSet::new(), undo: Vec::new() }
    }
}

impl<K: PartialEq> PartialEq for Index<K> {
    fn eq(&self, other: &Self) -> bool {
        self.set == other.set
    }
}

impl<K: Ord + Clone> Index<K> {
    /// Adds `key`.
    pub fn insert(&mut self, key: K) {
        if self.set.insert(key.clone()) {
            self.undo.push((key, true));
        }
    }

    /// Takes `key` away.
    pub fn remove(&mut self, key: &K) {
        if let Some(key) = self.set.take(key) {
            self.undo.push((key, false));
        }
    }

    /// The smallest key.
    #[must_use]
    pub fn first(&self) -> Option<&K> {
        self.set.first()
    }

    /// The keys within `bounds`, in order.
    pub fn range<R: RangeBounds<K>>(&self, bounds: R) -> impl DoubleEndedIterator<Item = &K> {
        self.set.range(bounds)
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.set.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.set.is_empty()
    }

    /// Whether `key` is there.
    pub fn contains(&self, key: &K) -> bool {
        self.set.contains(key)
    }

    /// Ends the turn and keeps its changes.
    #[inline]
    pub fn commit(&mut self) {
        if !self.undo.is_empty() {
            self.undo.clear();
            self.undo.shrink_to(64);
        }
    }

    /// Ends the turn and undoes its changes.
    pub fn rollback(&mut self) {
        while let Some((key, inserted)) = self.undo.pop() {
            if inserted {
                self.set.remove(&key);
            } else {
                self.set.insert(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(records: &[(u8, u32)]) -> Table<u8, u32> {
        let mut table = Table::default();
        for (key, value) in records {
            table.insert(*key, *value);
        }
        table.commit();
        table
    }

    #[test]
    fn rollback_restores_changed_added_and_removed_records() {
        let before = table(&[(1, 10), (2, 20), (3, 30)]);
        let mut after = before.clone();
        *after.get_mut(&1).unwrap() = 11;
        *after.get_mut(&1).unwrap() = 12;
        after.remove(&2);
        after.insert(2, 99);
        after.remove(&2);
        after.insert(4, 40);
        after.remove(&4);
        after.insert(5, 50);
        assert_ne!(after, before);
        after.rollback();
        assert_eq!(after, before);
    }

    #[test]
    fn a_committed_turn_cannot_be_undone_by_the_next_one() {
        let mut table = table(&[(1, 10)]);
        *table.get_mut(&1).unwrap() = 11;
        table.commit();
        *table.get_mut(&1).unwrap() = 12;
        table.rollback();
        assert_eq!(table.get(&1), Some(&11));
    }

    #[test]
    fn an_index_rolls_back_in_reverse() {
        let mut index = Index::default();
        index.insert(1);
        index.commit();
        let before = index.clone();
        index.remove(&1);
        index.insert(1);
        index.remove(&1);
        index.insert(2);
        index.rollback();
        assert_eq!(index, before);
    }
}
