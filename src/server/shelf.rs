//! What the server keeps beside the engine's state, behind one trait: keys of runs, blueprints,
//! logins of operators, and what is known of the bodies of the data plane.
//!
//! A shelf decides nothing about rights. Its calls block, so the server makes them away from its
//! own threads.

use std::path::PathBuf;

use adjutant_actors::journal::JournalError;
use adjutant_actors::model::ids::RunId;

mod memory;

pub use memory::MemoryShelf;

/// Keys of runs that are remembered; the oldest go first.
pub(crate) const KEYS_MAX: usize = 100_000;

/// Blueprints that are kept.
pub(crate) const BLUEPRINTS_MAX: usize = 10_000;

/// Versions of one blueprint that are kept; the oldest go first.
pub(crate) const VERSIONS_MAX: usize = 100;

/// The run that a key was used for.
///
/// ```
/// use adjutant::RunId;
/// use adjutant::server::{ClaimedRun, MemoryShelf, Shelf};
///
/// let shelf = MemoryShelf::default();
/// let run = ClaimedRun { run: RunId::from_bits(1), body: "hash".into() };
/// shelf.claim_run("first", &run, 0)?;
/// assert_eq!(shelf.claimed_run("first")?, Some(run)); // the same key gives the same run
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimedRun {
    /// The run.
    pub run: RunId,
    /// Hash of the body that it was asked for with.
    pub body: String,
}

/// One version of a blueprint.
///
/// ```
/// use adjutant::server::{BlueprintVersion, MemoryShelf, Put, Shelf};
///
/// let shelf = MemoryShelf::default();
/// let version = BlueprintVersion {
///     id: "echo".into(),
///     hash: "hash".into(),
///     at: 0,
///     document: "{}".into(),
///     archived: false,
/// };
/// assert_eq!(shelf.put_blueprint(&version)?, Put::New);
/// assert_eq!(shelf.put_blueprint(&version)?, Put::Same);
/// shelf.archive_blueprint("echo", true)?;
/// assert_eq!(shelf.put_blueprint(&version)?, Put::Archived);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlueprintVersion {
    /// The blueprint's id.
    pub id: String,
    /// Hash of the document.
    pub hash: String,
    /// When it was put, in Unix seconds.
    pub at: u64,
    /// The document as JSON; empty in lists.
    pub document: String,
    /// Whether the blueprint is archived.
    pub archived: bool,
}

/// What became of a document that was put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// It is the newest version of a blueprint.
    New,
    /// It was that before.
    Same,
    /// The blueprint is archived; nothing was changed.
    Archived,
    /// As many blueprints are kept as may be; nothing was changed.
    Full,
}

/// A login of an operator.
///
/// ```
/// use adjutant::server::{KeptLogin, MemoryShelf, Shelf};
///
/// let shelf = MemoryShelf::default();
/// let login = KeptLogin {
///     sid: "op-1".into(),
///     bearer: "0".repeat(64),
///     roles: vec!["desk".into()],
///     aliases: vec![],
///     generation: 7,
///     since: 0,
///     opener: None,
/// };
/// shelf.keep_logins(&[login], &[])?;
/// shelf.keep_logins(&[], &["op-1".into()])?;
/// assert_eq!(shelf.logins()?.1, 7); // the generation outlives its login
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptLogin {
    /// Its id.
    pub sid: String,
    /// BLAKE3 of its bearer, as 64 hex digits. The bearer itself is kept nowhere.
    pub bearer: String,
    /// The names that it holds.
    pub roles: Vec<String>,
    /// Ids of earlier logins under which it is reached as well.
    pub aliases: Vec<String>,
    /// Higher for each later login.
    pub generation: u64,
    /// When it was made, in Unix seconds.
    pub since: u64,
    /// Fingerprint of the token that it was opened with, and ends with, as 32 hex digits; none where
    /// the admin opened it.
    pub opener: Option<String>,
}

/// What is known of a body.
///
/// ```
/// use adjutant::server::{DataKey, DataRecord, MemoryShelf, Shelf};
///
/// let shelf = MemoryShelf::default();
/// let record = DataRecord {
///     number: 0,
///     hash: "ab".repeat(32),
///     name: "report".into(),
///     media: "text/plain".into(),
///     bytes: 3,
///     at: 0,
///     scope: None,
/// };
/// shelf.note_data(&record)?;
/// let found = shelf.find_data(&DataKey::Name("report".into()), None, 10)?;
/// assert_eq!((found.len(), shelf.data_totals()?), (1, (1, 3)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataRecord {
    /// Number of the record; given by the shelf.
    pub number: i64,
    /// BLAKE3 of the body, as 64 hex digits.
    pub hash: String,
    /// What it is called.
    pub name: String,
    /// Media type.
    pub media: String,
    /// Length of the body.
    pub bytes: u64,
    /// When it came, in Unix seconds.
    pub at: u64,
    /// The run, or the task at the top of the tree, that it belongs to; nothing for everybody's.
    pub scope: Option<String>,
}

/// Which bodies are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DataKey {
    /// Those whose hash begins so.
    Hash(String),
    /// Those of a name.
    Name(String),
}

/// A place for what the server keeps. All calls block, and each is one step.
///
/// ```
/// use adjutant::server::{MemoryShelf, ServerCfg, Shelf};
/// use std::sync::Arc;
///
/// let shelf: Arc<dyn Shelf> = Arc::new(MemoryShelf::default()); // or a `SqliteStore`
/// assert!(shelf.blueprints("", 10)?.is_empty() && shelf.data_folder().is_none());
/// let cfg = ServerCfg { shelf, ..ServerCfg::default() };
/// # let _ = cfg;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Shelf: Send + Sync {
    /// The run that has a key.
    ///
    /// # Errors
    /// Those of the place.
    fn claimed_run(&self, key: &str) -> Result<Option<ClaimedRun>, JournalError>;

    /// Gives a key to a run, whoever had it.
    ///
    /// # Errors
    /// Those of the place.
    fn claim_run(&self, key: &str, run: &ClaimedRun, now: u64) -> Result<(), JournalError>;

    /// Makes a document the newest version of its blueprint.
    ///
    /// # Errors
    /// Those of the place.
    fn put_blueprint(&self, version: &BlueprintVersion) -> Result<Put, JournalError>;

    /// The newest version of a blueprint, or that of a hash.
    ///
    /// # Errors
    /// Those of the place.
    fn blueprint(
        &self,
        id: &str,
        hash: Option<&str>,
    ) -> Result<Option<BlueprintVersion>, JournalError>;

    /// The version of a hash, whatever its blueprint.
    ///
    /// # Errors
    /// Those of the place.
    fn blueprint_by_hash(&self, hash: &str) -> Result<Option<BlueprintVersion>, JournalError>;

    /// The newest versions of the blueprints after an id, in the order of their ids, without their
    /// documents.
    ///
    /// # Errors
    /// Those of the place.
    fn blueprints(&self, after: &str, limit: usize) -> Result<Vec<BlueprintVersion>, JournalError>;

    /// The versions of a blueprint, the newest first, without their documents.
    ///
    /// # Errors
    /// Those of the place.
    fn blueprint_history(
        &self,
        id: &str,
        limit: usize,
    ) -> Result<Vec<BlueprintVersion>, JournalError>;

    /// Archives a blueprint, or takes it back. Tells whether it is there.
    ///
    /// # Errors
    /// Those of the place.
    fn archive_blueprint(&self, id: &str, archived: bool) -> Result<bool, JournalError>;

    /// Keeps logins, each in place of what was kept under its id, and forgets those of the ids that
    /// are gone.
    ///
    /// # Errors
    /// Those of the place.
    fn keep_logins(&self, kept: &[KeptLogin], gone: &[String]) -> Result<(), JournalError>;

    /// The logins that are kept, and the highest generation that any login ever had. The server
    /// bounds how many there are.
    ///
    /// # Errors
    /// Those of the place.
    fn logins(&self) -> Result<(Vec<KeptLogin>, u64), JournalError>;

    /// The folder of the bodies; none where they are not to outlive the process.
    fn data_folder(&self) -> Option<PathBuf>;

    /// Notes a body; its number is given by the shelf.
    ///
    /// # Errors
    /// Those of the place.
    fn note_data(&self, record: &DataRecord) -> Result<(), JournalError>;

    /// The records that are meant, the newest first, within a scope and without one; of all scopes
    /// where `scope` is `None`. At most `limit`.
    ///
    /// # Errors
    /// Those of the place.
    fn find_data(
        &self,
        key: &DataKey,
        scope: Option<&str>,
        limit: usize,
    ) -> Result<Vec<DataRecord>, JournalError>;

    /// The oldest records after a number.
    ///
    /// # Errors
    /// Those of the place.
    fn oldest_data(&self, after: i64, limit: usize) -> Result<Vec<DataRecord>, JournalError>;

    /// Forgets a record. Tells whether the body has no other.
    ///
    /// # Errors
    /// Those of the place.
    fn forget_data(&self, record: &DataRecord) -> Result<bool, JournalError>;

    /// How many records there are, and the bytes of all their bodies.
    ///
    /// # Errors
    /// Those of the place.
    fn data_totals(&self) -> Result<(u64, u64), JournalError>;
}
