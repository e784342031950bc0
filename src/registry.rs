//! Named live objects: one type for bridges, hooks and operators.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

/// Objects of one kind by name. A later object takes an earlier one's name over.
pub(crate) struct Registry<T: ?Sized> {
    entries: RwLock<BTreeMap<String, Arc<T>>>,
}

impl<T: ?Sized> Default for Registry<T> {
    fn default() -> Self {
        Self { entries: RwLock::default() }
    }
}

impl<T: ?Sized> Registry<T> {
    pub(crate) fn insert(&self, id: String, entry: Arc<T>) {
        self.entries.write().unwrap_or_else(PoisonError::into_inner).insert(id, entry);
    }

    pub(crate) fn remove(&self, id: &str) {
        self.entries.write().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    pub(crate) fn get(&self, id: &str) -> Option<Arc<T>> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    pub(crate) fn ids(&self) -> Vec<String> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    /// The object under `id`; a name that resolves to nothing counts as absent, with a warning.
    pub(crate) fn resolve(&self, face: &'static str, id: Option<&String>) -> Option<Arc<T>> {
        let id = id?;
        let found = self.get(id);
        if found.is_none() {
            tracing::warn!(face, id, "a session names a face that nobody registered");
        }
        found
    }
}
