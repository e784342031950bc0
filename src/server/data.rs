//! The data plane: bodies that a driving agent carries by id only, streamed in and out.
//!
//! A body lies in a file named by its hash (mode 0600, written beside its place, flushed, moved
//! there); what is known of it lies on the shelf. Both are within counted bounds: the oldest records
//! of what has ended go first, and what an open run or an unsettled task may need stays.

use std::sync::Arc;
use std::time::Duration;

use adjutant_actors::errors::EngineError;
use adjutant_actors::model::ids::{RunId, TaskId};
use adjutant_actors::state::EngineState;
use adjutant_actors::state::runs::RunStatus;
use axum::http::StatusCode;
use tokio::sync::{Mutex, Semaphore};

use crate::engine::Engine;
use crate::server::problem::{Problem, Setting, shown};
use crate::server::shelf::{DataKey, DataRecord, Shelf};
use crate::server::{ServerCfg, on_shelf};
use file::Folder;

mod file;
pub(crate) mod routes;

/// Records that are looked at at once, to find what may go.
const BATCH: usize = 64;

/// Digits of a hash that are an id: 128 bits, as every id has.
const ID_DIGITS: usize = 32;

/// What an id begins with, so that it is an [`OutputRef`](crate::OutputRef) as well.
const ID_PREFIX: &str = "out-";

/// Bounds of the data plane. Use the struct update syntax.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataCfg {
    /// Bytes of one body.
    pub body_bytes: u64,
    /// Bytes of all bodies.
    pub bytes: u64,
    /// Records.
    pub records: u64,
    /// Longest that a body is kept, once nothing that is open may need it.
    pub age: Duration,
    /// Bodies that are streamed at a time, at most.
    pub transfers: usize,
    /// Longest that one body may take.
    pub time: Duration,
}

impl Default for DataCfg {
    fn default() -> Self {
        Self {
            body_bytes: 256 << 20,
            bytes: 8 << 30,
            records: 100_000,
            age: Duration::from_secs(30 * 24 * 3600),
            transfers: 64,
            time: Duration::from_secs(600),
        }
    }
}

/// The bodies of a server.
pub(crate) struct Data {
    engine: Engine,
    cfg: Arc<ServerCfg>,
    folder: Arc<Folder>,
    transfers: Arc<Semaphore>,
    /// Held while a body is moved to its place or away, so that no file goes that a record needs.
    books: Mutex<()>,
}

/// A body that has come whole and has no record yet.
struct Arrived {
    name: String,
    media: String,
    scope: Option<String>,
    file: file::Part,
}

/// What names a body outside.
pub(crate) fn id_of(hash: &str) -> String {
    format!("{ID_PREFIX}{}", &hash[..hash.len().min(ID_DIGITS)])
}

/// The id, the whole hash, or the name that a path gives.
fn key_of(text: &str) -> DataKey {
    let hex = |text: &str| text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    match text.strip_prefix(ID_PREFIX) {
        Some(digits) if digits.len() == ID_DIGITS && hex(digits) => {
            DataKey::Hash(digits.to_owned())
        }
        _ if text.len() == 2 * ID_DIGITS && hex(text) => DataKey::Hash(text.to_owned()),
        _ => DataKey::Name(text.to_owned()),
    }
}

fn full(what: &str, setting: Setting) -> Problem {
    let detail = format!("the data plane has no room for more {what}");
    Problem::new(StatusCode::TOO_MANY_REQUESTS, "data_full", detail).because_of(setting)
}

impl Data {
    /// Opens the folder, and clears away what no record names.
    pub(crate) async fn open(engine: Engine, cfg: Arc<ServerCfg>) -> std::io::Result<Self> {
        let shelf = cfg.shelf.clone();
        let opened = tokio::task::spawn_blocking(move || {
            let folder = Folder::open(shelf.data_folder())?;
            for hash in folder.hashes()? {
                let known = shelf.find_data(&DataKey::Hash(hash.clone()), None, 1);
                if known.map_err(std::io::Error::other)?.is_empty() {
                    folder.remove(&hash)?;
                }
            }
            Ok::<_, std::io::Error>(folder)
        });
        let folder = Arc::new(opened.await.map_err(std::io::Error::other)??);
        let transfers = Arc::new(Semaphore::new(cfg.data.transfers));
        Ok(Self { engine, cfg, folder, transfers, books: Mutex::default() })
    }

    fn shelf(&self) -> &Arc<dyn Shelf> {
        &self.cfg.shelf
    }

    fn place(&self) -> Result<tokio::sync::OwnedSemaphorePermit, Problem> {
        self.transfers.clone().try_acquire_owned().map_err(|_| {
            let detail = "as many bodies are streamed as may be";
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too_many_transfers", detail)
        })
    }

    /// Keeps a body that has come.
    async fn keep(&self, arrived: Arrived) -> Result<DataRecord, Problem> {
        let _books = self.books.lock().await;
        let now = self.engine.now()?.unix;
        self.make_room(arrived.file.bytes(), now).await?;
        let record = DataRecord {
            number: 0,
            hash: arrived.file.hash(),
            name: arrived.name,
            media: arrived.media,
            bytes: arrived.file.bytes(),
            at: now,
            scope: arrived.scope,
        };
        let (folder, file) = (self.folder.clone(), arrived.file);
        let moved = tokio::task::spawn_blocking(move || file.settle(&folder)).await;
        moved.map_err(std::io::Error::other).flatten().map_err(failed)?;
        let noted = record.clone();
        on_shelf(self.shelf(), move |shelf| shelf.note_data(&noted)).await?;
        Ok(record)
    }

    /// Forgets what is too old, and as many of the oldest that nothing open may need as it takes.
    async fn make_room(&self, bytes: u64, now: u64) -> Result<(), Problem> {
        let bounds = self.cfg.data;
        let (mut records, mut held) = on_shelf(self.shelf(), |shelf| shelf.data_totals()).await?;
        let mut after = i64::MIN;
        loop {
            let page = on_shelf(self.shelf(), move |shelf| shelf.oldest_data(after, BATCH)).await?;
            let needed = self.needed(&page).await?;
            for (record, needed) in page.iter().zip(needed) {
                let fits = records < bounds.records && held.saturating_add(bytes) <= bounds.bytes;
                let old = record.at.saturating_add(bounds.age.as_secs()) <= now;
                if fits && !old {
                    return Ok(());
                }
                after = record.number;
                if !needed {
                    self.forget(record.clone()).await?;
                    (records, held) = (records - 1, held.saturating_sub(record.bytes));
                }
            }
            if page.len() < BATCH {
                break;
            }
        }
        match (records < bounds.records, held.saturating_add(bytes) <= bounds.bytes) {
            (true, true) => Ok(()),
            (false, _) => Err(full("bodies", Setting::DataRecords)),
            (true, false) => Err(full("bytes", Setting::DataBytes)),
        }
    }

    /// Which of these records belong to a run that is open or a task that is not settled.
    async fn needed(&self, page: &[DataRecord]) -> Result<Vec<bool>, EngineError> {
        let scopes: Vec<_> = page.iter().map(|record| record.scope.clone()).collect();
        let look = move |state: &mut EngineState| {
            let open = |scope: &String| {
                let run = scope.parse::<RunId>().ok().and_then(|run| state.run(run));
                let task = scope.parse::<TaskId>().ok().and_then(|task| state.glance(&task));
                run.is_some_and(|run| run.status == RunStatus::Open)
                    || task.is_some_and(|(status, _)| !status.is_settled())
            };
            scopes.iter().map(|scope| scope.as_ref().is_some_and(open)).collect()
        };
        self.engine.with_state("data_needed", look).await
    }

    async fn forget(&self, record: DataRecord) -> Result<(), Problem> {
        let hash = record.hash.clone();
        if on_shelf(self.shelf(), move |shelf| shelf.forget_data(&record)).await? {
            let folder = self.folder.clone();
            let gone = tokio::task::spawn_blocking(move || folder.remove(&hash)).await;
            gone.map_err(std::io::Error::other).flatten().map_err(failed)?;
        }
        Ok(())
    }

    /// The newest body that is meant, within a scope and what is everybody's; or of all.
    async fn find(&self, text: &str, scope: Option<String>) -> Result<DataRecord, Problem> {
        let key = key_of(text);
        let found =
            on_shelf(self.shelf(), move |shelf| shelf.find_data(&key, scope.as_deref(), 1)).await?;
        found.into_iter().next().ok_or_else(|| {
            let detail = format!("no body {} is kept", shown(text));
            Problem::new(StatusCode::NOT_FOUND, "data_not_found", detail)
        })
    }
}

/// A fault of the disk. Its text may name folders, so it stays in the log.
fn failed(error: std::io::Error) -> Problem {
    tracing::error!(error = error.to_string(), "a body could not be kept");
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "data_failed", "the body could not be kept")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::OutputRef;

    #[test]
    fn an_id_is_an_output_reference_and_names_the_hash() {
        let hash = blake3::hash(b"body").to_hex().to_string();
        let id = id_of(&hash);
        assert_eq!(id.parse::<OutputRef>().unwrap().to_string(), id);
        assert_eq!(key_of(&id), DataKey::Hash(hash[..32].to_owned()));
        assert_eq!(key_of(&hash), DataKey::Hash(hash));
        for name in ["report", "out-1", "out-XYZ", "*"] {
            assert_eq!(key_of(name), DataKey::Name(name.to_owned()));
        }
    }
}
