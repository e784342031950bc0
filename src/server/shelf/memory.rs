//! A shelf in memory: short lists, looked through. It ends with the process.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use adjutant_actors::journal::JournalError;

use crate::server::shelf::{
    BLUEPRINTS_MAX, BlueprintVersion, ClaimedRun, DataKey, DataRecord, KEYS_MAX, KeptLogin, Put,
    Shelf, VERSIONS_MAX,
};

/// A shelf that ends with the process.
///
/// ```
/// use adjutant::server::{MemoryShelf, Shelf};
///
/// let shelf = MemoryShelf::default();
/// assert!(shelf.blueprint("echo", None)?.is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Default)]
pub struct MemoryShelf {
    inner: Mutex<Inner>,
}

impl std::fmt::Debug for MemoryShelf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryShelf").finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Inner {
    keys: HashMap<String, ClaimedRun>,
    order: VecDeque<String>,
    /// The versions of each blueprint, the newest last, and whether it is archived.
    blueprints: BTreeMap<String, (Vec<BlueprintVersion>, bool)>,
    data: Vec<DataRecord>,
    last: i64,
    logins: BTreeMap<String, KeptLogin>,
    generation: u64,
}

impl MemoryShelf {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A version as a list shows it.
fn bare(version: &BlueprintVersion, archived: bool) -> BlueprintVersion {
    BlueprintVersion { document: String::new(), archived, ..version.clone() }
}

impl Shelf for MemoryShelf {
    fn claimed_run(&self, key: &str) -> Result<Option<ClaimedRun>, JournalError> {
        Ok(self.lock().keys.get(key).cloned())
    }

    fn claim_run(&self, key: &str, run: &ClaimedRun, _now: u64) -> Result<(), JournalError> {
        let mut inner = self.lock();
        if inner.keys.insert(key.to_owned(), run.clone()).is_none() {
            inner.order.push_back(key.to_owned());
        }
        while inner.order.len() > KEYS_MAX {
            if let Some(oldest) = inner.order.pop_front() {
                inner.keys.remove(&oldest);
            }
        }
        Ok(())
    }

    fn put_blueprint(&self, version: &BlueprintVersion) -> Result<Put, JournalError> {
        let mut inner = self.lock();
        let count = inner.blueprints.len();
        if !inner.blueprints.contains_key(&version.id) && count >= BLUEPRINTS_MAX {
            return Ok(Put::Full);
        }
        let (versions, archived) = inner.blueprints.entry(version.id.clone()).or_default();
        if *archived {
            return Ok(Put::Archived);
        }
        if versions.last().is_some_and(|head| head.hash == version.hash) {
            return Ok(Put::Same);
        }
        versions.push(version.clone());
        let extra = versions.len().saturating_sub(VERSIONS_MAX);
        versions.drain(..extra);
        Ok(Put::New)
    }

    fn blueprint(
        &self,
        id: &str,
        hash: Option<&str>,
    ) -> Result<Option<BlueprintVersion>, JournalError> {
        let inner = self.lock();
        let Some((versions, archived)) = inner.blueprints.get(id) else { return Ok(None) };
        let mut newest = versions.iter().rev();
        let found = newest.find(|version| hash.is_none_or(|hash| version.hash == hash));
        Ok(found.map(|version| BlueprintVersion { archived: *archived, ..version.clone() }))
    }

    fn blueprint_by_hash(&self, hash: &str) -> Result<Option<BlueprintVersion>, JournalError> {
        let inner = self.lock();
        let mut all = inner.blueprints.values().flat_map(|(versions, _)| versions);
        Ok(all.find(|version| version.hash == hash).cloned())
    }

    fn blueprints(&self, after: &str, limit: usize) -> Result<Vec<BlueprintVersion>, JournalError> {
        let inner = self.lock();
        let all = inner.blueprints.iter().filter(|(id, _)| id.as_str() > after);
        let heads = all.filter_map(|(_, (versions, old))| Some(bare(versions.last()?, *old)));
        Ok(heads.take(limit).collect())
    }

    fn blueprint_history(
        &self,
        id: &str,
        limit: usize,
    ) -> Result<Vec<BlueprintVersion>, JournalError> {
        let inner = self.lock();
        let Some((versions, old)) = inner.blueprints.get(id) else { return Ok(Vec::new()) };
        Ok(versions.iter().rev().take(limit).map(|version| bare(version, *old)).collect())
    }

    fn archive_blueprint(&self, id: &str, archived: bool) -> Result<bool, JournalError> {
        let mut inner = self.lock();
        let found = inner.blueprints.get_mut(id).map(|(_, own)| *own = archived);
        Ok(found.is_some())
    }

    fn keep_logins(&self, kept: &[KeptLogin], gone: &[String]) -> Result<(), JournalError> {
        let mut inner = self.lock();
        for login in kept {
            inner.generation = inner.generation.max(login.generation);
            inner.logins.insert(login.sid.clone(), login.clone());
        }
        inner.logins.retain(|sid, _| !gone.contains(sid));
        Ok(())
    }

    fn logins(&self) -> Result<(Vec<KeptLogin>, u64), JournalError> {
        let inner = self.lock();
        Ok((inner.logins.values().cloned().collect(), inner.generation))
    }

    fn data_folder(&self) -> Option<PathBuf> {
        None
    }

    fn note_data(&self, record: &DataRecord) -> Result<(), JournalError> {
        let mut inner = self.lock();
        inner.last += 1;
        let number = inner.last;
        inner.data.push(DataRecord { number, ..record.clone() });
        Ok(())
    }

    fn find_data(
        &self,
        key: &DataKey,
        scope: Option<&str>,
        limit: usize,
    ) -> Result<Vec<DataRecord>, JournalError> {
        let fits = |record: &&DataRecord| {
            let own = scope.is_none() || record.scope.is_none() || record.scope.as_deref() == scope;
            own && match key {
                DataKey::Hash(hash) => record.hash.starts_with(hash),
                DataKey::Name(name) => record.name == *name,
            }
        };
        let inner = self.lock();
        Ok(inner.data.iter().rev().filter(fits).take(limit).cloned().collect())
    }

    fn oldest_data(&self, after: i64, limit: usize) -> Result<Vec<DataRecord>, JournalError> {
        let inner = self.lock();
        let later = inner.data.iter().filter(|record| record.number > after);
        Ok(later.take(limit).cloned().collect())
    }

    fn forget_data(&self, record: &DataRecord) -> Result<bool, JournalError> {
        let mut inner = self.lock();
        inner.data.retain(|own| own.number != record.number);
        Ok(!inner.data.iter().any(|own| own.hash == record.hash))
    }

    fn data_totals(&self) -> Result<(u64, u64), JournalError> {
        let inner = self.lock();
        Ok((inner.data.len() as u64, inner.data.iter().map(|record| record.bytes).sum()))
    }
}
