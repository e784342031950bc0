//! The database: its tables, its version, and how a connection to it is set up.
//!
//! The commit path writes `journal` and `bodies` only. The other tables are folded from the
//! journal; beside each image stand columns that are read out of it, for people who query.

use std::io::Read;
use std::path::Path;
use std::time::Duration;

use adjutant_actors::journal::JournalError;
use adjutant_actors::state::images::TableName;
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use crate::store::place::{DATABASE, unusable};

/// Says that a database is one of ours: `ADJ1`.
const APPLICATION: i64 = 0x4144_4a31;
/// The steps from an empty database to the present one. A step is never changed, only followed.
const STEPS: [fn() -> String; 4] = [first, second, third, fourth];
/// The version that this code reads and writes.
pub(super) const VERSION: u32 = STEPS.len() as u32;

/// The oldest version whose tables a reader of the journal needs.
const READABLE: u32 = 1;

/// How long a connection waits for another one's lock; the writing one waits on as [`wait`] says.
pub(super) const BUSY: Duration = Duration::from_secs(5);
/// The longest of the writer's pauses between two looks at a lock.
const PAUSE: Duration = Duration::from_millis(50);
/// Looks at a lock after which the writer warns, and warns again: about every five seconds.
const LOOKS_WARN: i32 = 100;
/// Looks at a lock after which the writer gives up: about a minute.
const LOOKS_MAX: i32 = 12 * LOOKS_WARN;

/// Columns that are read out of the image: their names and where they are.
fn columns(table: TableName) -> &'static [(&'static str, &'static str)] {
    match table {
        TableName::Tasks => &[
            ("status", "$.status"),
            ("attempt", "$.attempt"),
            ("created_at", "$.created_at"),
            ("updated_at", "$.updated_at"),
            ("parent", "$.parent"),
            ("session", "$.session"),
            ("question", "$.suspended_on"),
            ("run", "$.step.run"),
        ],
        TableName::Specs => &[("agent", "$.agent"), ("directive", "$.initial_directive")],
        TableName::Attempts => &[("output_bytes", "$.output_bytes")],
        TableName::Texts => &[("prompt", "$.prompt"), ("system", "$.system")],
        TableName::Outputs => {
            &[("type", "$.type"), ("name", "$.name"), ("stage", "$.stage"), ("ok", "$.ok")]
        }
        TableName::Sessions => &[
            ("operator", "$.operator_id"),
            ("role", "$.role"),
            ("attached", "$.attached"),
            ("attached_at", "$.attached_at"),
        ],
        TableName::Tokens => &[
            ("agent", "$.token.agent_id"),
            ("role", "$.token.role"),
            ("expire_at", "$.token.expire_at"),
            ("uses_left", "$.uses_left"),
            ("revoked", "$.revoked"),
            ("task", "$.task_id"),
        ],
        TableName::Runs => &[
            ("name", "$.name"),
            ("status", "$.status"),
            ("started_at", "$.started_at"),
            ("ended_at", "$.ended_at"),
            ("resumed", "$.resumed"),
        ],
        TableName::Resumes => {
            &[("task", "$.task_id"), ("asked_at", "$.asked_at"), ("closed", "$.closed")]
        }
        _ => &[],
    }
}

/// Rows that are short are kept in their index; long ones beside it.
fn is_short(table: TableName) -> bool {
    matches!(
        table,
        TableName::Tasks | TableName::Attempts | TableName::Sessions | TableName::Tokens
    )
}

fn first() -> String {
    let mut sql = String::from(
        "CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
         CREATE TABLE journal (number INTEGER PRIMARY KEY, frame BLOB NOT NULL) STRICT;
         CREATE TABLE bodies (key TEXT PRIMARY KEY, v INTEGER NOT NULL, image TEXT NOT NULL,
             bytes INTEGER GENERATED ALWAYS AS (length(image)) VIRTUAL) STRICT;
         CREATE TABLE events (seq INTEGER PRIMARY KEY, at INTEGER NOT NULL, sum INTEGER NOT NULL,
             image TEXT NOT NULL,
             kind TEXT GENERATED ALWAYS AS (image ->> '$.kind') VIRTUAL,
             task TEXT GENERATED ALWAYS AS (image ->> '$.task_id') VIRTUAL) STRICT;
         CREATE TABLE set_aside (id INTEGER PRIMARY KEY, source TEXT NOT NULL, key TEXT NOT NULL,
             why TEXT NOT NULL, data BLOB) STRICT;",
    );
    for table in folded() {
        let mut extra = String::new();
        for (name, place) in columns(table) {
            extra += &format!(", {name} ANY GENERATED ALWAYS AS (image ->> '{place}') VIRTUAL");
        }
        let kind = if is_short(table) { "STRICT, WITHOUT ROWID" } else { "STRICT" };
        sql += &format!(
            "CREATE TABLE {table} (key TEXT PRIMARY KEY, v INTEGER NOT NULL, \
             sum INTEGER NOT NULL, image TEXT NOT NULL{extra}) {kind};"
        );
    }
    sql
}

/// What a server keeps beside the journal: keys of runs, blueprints, what is known of bodies.
fn second() -> String {
    "CREATE TABLE run_keys (key TEXT PRIMARY KEY, run TEXT NOT NULL, body TEXT NOT NULL,
         at INTEGER NOT NULL) STRICT, WITHOUT ROWID;
     CREATE INDEX run_keys_at ON run_keys (at);
     CREATE TABLE blueprints (id TEXT PRIMARY KEY, archived INTEGER NOT NULL)
         STRICT, WITHOUT ROWID;
     CREATE TABLE blueprint_versions (number INTEGER PRIMARY KEY, id TEXT NOT NULL,
         hash TEXT NOT NULL, at INTEGER NOT NULL, document TEXT NOT NULL) STRICT;
     CREATE INDEX blueprint_versions_id ON blueprint_versions (id, number);
     CREATE INDEX blueprint_versions_hash ON blueprint_versions (hash);
     CREATE TABLE data (number INTEGER PRIMARY KEY, hash TEXT NOT NULL, name TEXT NOT NULL,
         media TEXT NOT NULL, bytes INTEGER NOT NULL, at INTEGER NOT NULL, scope TEXT) STRICT;
     CREATE INDEX data_hash ON data (hash);
     CREATE INDEX data_name ON data (name, number);"
        .to_owned()
}

/// Logins of operators, each with the hash of its bearer.
fn third() -> String {
    "CREATE TABLE logins (sid TEXT PRIMARY KEY, bearer TEXT NOT NULL, roles TEXT NOT NULL,
         aliases TEXT NOT NULL, generation INTEGER NOT NULL, since INTEGER NOT NULL)
         STRICT, WITHOUT ROWID;"
        .to_owned()
}

/// With a login, the token that it was opened with and ends with.
fn fourth() -> String {
    "ALTER TABLE logins ADD COLUMN opener TEXT;".to_owned()
}

/// The tables that are folded from the journal, each with the columns key, v, sum and image.
pub(super) fn folded() -> impl Iterator<Item = TableName> {
    TableName::ALL.into_iter().filter(|table| *table != TableName::Bodies)
}

/// What an error of SQLite means for the store.
pub(super) fn broken(path: &Path, what: &'static str, error: &rusqlite::Error) -> JournalError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            JournalError::Damaged { path: path.to_owned(), why: error.to_string() }
        }
        _ => unusable(path, what, error),
    }
}

fn number(conn: &Connection, pragma: &str) -> rusqlite::Result<i64> {
    conn.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get(0))
}

/// Opens the database and asks whose it is and of which version.
fn open(folder: &Path, flags: OpenFlags) -> rusqlite::Result<(Connection, i64, i64)> {
    let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(folder.join(DATABASE), flags)?;
    conn.busy_timeout(BUSY)?;
    let application = number(&conn, "application_id")?;
    let version = number(&conn, "user_version")?;
    Ok((conn, application, version))
}

/// The writing connection: checks what the file is, brings it to the present version.
pub(super) fn writer(folder: &Path) -> Result<Connection, JournalError> {
    check_length(folder)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE;
    let (mut conn, application, found) =
        open(folder, flags).map_err(|error| broken(folder, "opened", &error))?;
    let found = check(folder, &conn, application, found)?;
    set_up(&mut conn, found).map_err(|error| broken(folder, "opened", &error))?;
    // A lock is waited for by who has none, so each transaction takes its own at its begin.
    conn.set_transaction_behavior(TransactionBehavior::Immediate);
    conn.busy_handler(Some(wait)).map_err(|error| broken(folder, "opened", &error))?;
    Ok(conn)
}

/// Has the writer wait for somebody's lock, since nothing is written and nothing lost meanwhile.
/// Says whether to look again.
fn wait(looks: i32) -> bool {
    if looks > 0 && looks % LOOKS_WARN == 0 {
        let secs = looks / LOOKS_WARN * 5;
        tracing::warn!(secs, "somebody else has locked the store's database; it waits");
    }
    std::thread::sleep(PAUSE.min(Duration::from_millis(1 << looks.clamp(0, 8))));
    looks < LOOKS_MAX
}

/// Sets the connection up and takes the steps that the database lacks, all or none.
fn set_up(conn: &mut Connection, found: u32) -> rusqlite::Result<()> {
    conn.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 0;
         PRAGMA cache_size = -8000; PRAGMA temp_store = MEMORY;",
    )?;
    let missing = STEPS.iter().skip(usize::try_from(found).unwrap_or(usize::MAX));
    if missing.len() == 0 {
        return Ok(());
    }
    let change = conn.transaction()?;
    for step in missing {
        change.execute_batch(&step())?;
    }
    change.execute_batch(&format!("PRAGMA application_id = {APPLICATION};"))?;
    change.execute_batch(&format!("PRAGMA user_version = {VERSION};"))?;
    change.commit()
}

/// Refuses a database that is shorter than it says of itself. SQLite would find out only when it
/// reads a page that is not there.
fn check_length(folder: &Path) -> Result<(), JournalError> {
    let cannot = |error: std::io::Error| unusable(folder, "opened", error);
    let log = folder.join(format!("{DATABASE}-wal"));
    if std::fs::metadata(log).is_ok_and(|log| log.len() > 0) {
        // The log may hold the missing pages: the process died while it carried them over.
        return Ok(());
    }
    let mut file = std::fs::File::open(folder.join(DATABASE)).map_err(cannot)?;
    let (len, mut header) = (file.metadata().map_err(cannot)?.len(), [0; 32]);
    if len == 0 {
        return Ok(());
    }
    let why = if file.read_exact(&mut header).is_err() {
        format!("{DATABASE} ends within its header")
    } else {
        let size = u64::from(u16::from_be_bytes([header[16], header[17]]));
        let size = if size == 1 { 65_536 } else { size };
        let pages = u32::from_be_bytes([header[28], header[29], header[30], header[31]]);
        let whole = size * u64::from(pages);
        if !header.starts_with(b"SQLite format 3\0") || len >= whole {
            return Ok(());
        }
        format!("{DATABASE} has {len} bytes of {whole}")
    };
    Err(JournalError::Damaged { path: folder.to_owned(), why })
}

/// Refuses a database that is not ours or of a later version; gives its version otherwise.
fn check(
    folder: &Path,
    conn: &Connection,
    application: i64,
    version: i64,
) -> Result<u32, JournalError> {
    let tables = conn
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0))
        .map_err(|error| broken(folder, "opened", &error))?;
    let fresh = application == 0 && version == 0 && tables == 0;
    if application != APPLICATION && !fresh {
        let why = format!("{DATABASE} is a database, and not one of this program");
        return Err(JournalError::Damaged { path: folder.to_owned(), why });
    }
    let found = u32::try_from(version).unwrap_or(u32::MAX);
    if found > VERSION {
        return Err(JournalError::TooNew { path: folder.to_owned(), found, known: VERSION });
    }
    Ok(found)
}

/// A connection that only reads; beside the writer, or on a store that nobody holds.
pub(super) fn reader(folder: &Path) -> Result<Connection, JournalError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
    let (conn, application, version) =
        open(folder, flags).map_err(|error| broken(folder, "opened", &error))?;
    if check(folder, &conn, application, version)? < READABLE {
        return Err(unusable(folder, "read", "it has no tables of the present version yet"));
    }
    Ok(conn)
}

/// A counter of the table `meta`; 0 where it was never set.
pub(super) fn meta(conn: &Connection, name: &str) -> rusqlite::Result<u64> {
    let mut statement = conn.prepare_cached("SELECT value FROM meta WHERE name = ?1")?;
    let mut rows = statement.query([name])?;
    match rows.next()? {
        Some(row) => row.get::<_, i64>(0).map(|value| value.cast_unsigned()),
        None => Ok(0),
    }
}

/// Sets a counter of the table `meta`.
pub(super) fn set_meta(conn: &Connection, name: &str, value: u64) -> rusqlite::Result<()> {
    let mut statement =
        conn.prepare_cached("INSERT OR REPLACE INTO meta (name, value) VALUES (?1, ?2)")?;
    statement.execute((name, value.cast_signed())).map(drop)
}

/// What stands beside a row, so that a flipped bit in it is found.
pub(super) fn sum(table: &str, key: &[u8], version: u8, image: &[u8]) -> i64 {
    let mut hasher = blake3::Hasher::new();
    for part in [table.as_bytes(), key, &[version], image] {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
    }
    let mut first = [0; 8];
    first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    i64::from_le_bytes(first)
}
