//! The server's shelf in the store's database. Writes go through the writer's thread, each in one
//! transaction; what fails there ends the store, as any failed write does.

use std::path::PathBuf;

use adjutant_actors::journal::JournalError;
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use serde_json::json;

use crate::server::shelf::{
    BLUEPRINTS_MAX, BlueprintVersion, ClaimedRun, DataKey, DataRecord, KEYS_MAX, KeptLogin, Put,
    Shelf, VERSIONS_MAX,
};
use crate::store::SqliteStore;
use crate::store::schema::{meta, set_meta};

/// Work on the store's connection, or the error that it is not done for.
pub(super) type Work =
    Box<dyn FnOnce(Result<&mut Connection, JournalError>) -> rusqlite::Result<()> + Send>;

/// The counter of the highest generation of a login.
const GENERATION: &str = "login_generation";

/// Folder of the bodies within that of the store.
const DATA: &str = "data";

impl SqliteStore {
    /// Changes the shelf in a transaction.
    fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, JournalError> {
        self.work(move |conn: &mut Connection| {
            let transaction = conn.transaction()?;
            let done = change(&transaction)?;
            transaction.commit()?;
            Ok(done)
        })
    }
}

fn count(text: usize) -> i64 {
    i64::try_from(text).unwrap_or(i64::MAX)
}

/// Columns of a version, its document apart.
const VERSION: &str = "v.id, v.hash, v.at, b.archived";

fn version(row: &Row<'_>) -> rusqlite::Result<BlueprintVersion> {
    Ok(BlueprintVersion {
        id: row.get(0)?,
        hash: row.get(1)?,
        at: row.get::<_, i64>(2)?.cast_unsigned(),
        archived: row.get(3)?,
        document: String::new(),
    })
}

fn whole(row: &Row<'_>) -> rusqlite::Result<BlueprintVersion> {
    Ok(BlueprintVersion { document: row.get(4)?, ..version(row)? })
}

/// Columns of a record of a body.
const RECORD: &str = "number, hash, name, media, bytes, at, scope";

fn record(row: &Row<'_>) -> rusqlite::Result<DataRecord> {
    Ok(DataRecord {
        number: row.get(0)?,
        hash: row.get(1)?,
        name: row.get(2)?,
        media: row.get(3)?,
        bytes: row.get::<_, i64>(4)?.cast_unsigned(),
        at: row.get::<_, i64>(5)?.cast_unsigned(),
        scope: row.get(6)?,
    })
}

fn claim(change: &Transaction<'_>, key: &str, run: &ClaimedRun, now: u64) -> rusqlite::Result<()> {
    change.execute(
        "INSERT OR REPLACE INTO run_keys (key, run, body, at) VALUES (?1, ?2, ?3, ?4)",
        params![key, run.run.to_string(), run.body, now.cast_signed()],
    )?;
    change.execute(
        "DELETE FROM run_keys WHERE key IN
         (SELECT key FROM run_keys ORDER BY at DESC, key LIMIT 16 OFFSET ?1)",
        [count(KEYS_MAX)],
    )?;
    Ok(())
}

fn put(change: &Transaction<'_>, version: &BlueprintVersion) -> rusqlite::Result<Put> {
    let known: Option<bool> = change
        .query_row("SELECT archived FROM blueprints WHERE id = ?1", [&version.id], |row| row.get(0))
        .optional()?;
    match known {
        Some(true) => return Ok(Put::Archived),
        Some(false) => {}
        None => {
            let all: i64 =
                change.query_row("SELECT count(*) FROM blueprints", [], |row| row.get(0))?;
            if all >= count(BLUEPRINTS_MAX) {
                return Ok(Put::Full);
            }
            change
                .execute("INSERT INTO blueprints (id, archived) VALUES (?1, 0)", [&version.id])?;
        }
    }
    let head = "SELECT hash FROM blueprint_versions WHERE id = ?1 ORDER BY number DESC LIMIT 1";
    let head: Option<String> =
        change.query_row(head, [&version.id], |row| row.get(0)).optional()?;
    if head.as_ref() == Some(&version.hash) {
        return Ok(Put::Same);
    }
    change.execute(
        "INSERT INTO blueprint_versions (id, hash, at, document) VALUES (?1, ?2, ?3, ?4)",
        params![version.id, version.hash, version.at.cast_signed(), version.document],
    )?;
    change.execute(
        "DELETE FROM blueprint_versions WHERE number IN (SELECT number FROM blueprint_versions
         WHERE id = ?1 ORDER BY number DESC LIMIT 16 OFFSET ?2)",
        params![version.id, count(VERSIONS_MAX)],
    )?;
    Ok(Put::New)
}

fn login(row: &Row<'_>) -> rusqlite::Result<KeptLogin> {
    let list = |at| {
        let text: String = row.get(at)?;
        let damaged =
            |error| rusqlite::Error::FromSqlConversionFailure(at, Type::Text, Box::new(error));
        serde_json::from_str(&text).map_err(damaged)
    };
    Ok(KeptLogin {
        sid: row.get(0)?,
        bearer: row.get(1)?,
        roles: list(2)?,
        aliases: list(3)?,
        generation: row.get::<_, i64>(4)?.cast_unsigned(),
        since: row.get::<_, i64>(5)?.cast_unsigned(),
        opener: row.get(6)?,
    })
}

fn keep_login(change: &Transaction<'_>, login: &KeptLogin) -> rusqlite::Result<usize> {
    let [roles, aliases] = [&login.roles, &login.aliases].map(|list| json!(list).to_string());
    let (generation, since) = (login.generation.cast_signed(), login.since.cast_signed());
    change.execute(
        "INSERT OR REPLACE INTO logins (sid, bearer, roles, aliases, generation, since, opener)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![login.sid, login.bearer, roles, aliases, generation, since, login.opener],
    )
}

impl Shelf for SqliteStore {
    fn claimed_run(&self, key: &str) -> Result<Option<ClaimedRun>, JournalError> {
        let sql = "SELECT run, body FROM run_keys WHERE key = ?1";
        let pair = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
        let held: Option<(String, String)> =
            self.read(|conn| conn.prepare_cached(sql)?.query_row([key], pair).optional())?;
        let damaged = |_| JournalError::Misuse("a key names no run".to_owned());
        let held =
            held.map(|(run, body)| Ok(ClaimedRun { run: run.parse().map_err(damaged)?, body }));
        held.transpose()
    }

    fn claim_run(&self, key: &str, run: &ClaimedRun, now: u64) -> Result<(), JournalError> {
        let (key, run) = (key.to_owned(), run.clone());
        self.change(move |change| claim(change, &key, &run, now))
    }

    fn put_blueprint(&self, version: &BlueprintVersion) -> Result<Put, JournalError> {
        let version = version.clone();
        self.change(move |change| put(change, &version))
    }

    fn blueprint(
        &self,
        id: &str,
        hash: Option<&str>,
    ) -> Result<Option<BlueprintVersion>, JournalError> {
        let sql = format!(
            "SELECT {VERSION}, v.document FROM blueprint_versions v JOIN blueprints b ON b.id = v.id
             WHERE v.id = ?1 AND (?2 IS NULL OR v.hash = ?2) ORDER BY v.number DESC LIMIT 1"
        );
        self.read(|conn| conn.prepare_cached(&sql)?.query_row((id, hash), whole).optional())
    }

    fn blueprint_by_hash(&self, hash: &str) -> Result<Option<BlueprintVersion>, JournalError> {
        let sql = format!(
            "SELECT {VERSION}, v.document FROM blueprint_versions v JOIN blueprints b ON b.id = v.id
             WHERE v.hash = ?1 LIMIT 1"
        );
        self.read(|conn| conn.prepare_cached(&sql)?.query_row([hash], whole).optional())
    }

    fn blueprints(&self, after: &str, limit: usize) -> Result<Vec<BlueprintVersion>, JournalError> {
        let sql = format!(
            "SELECT {VERSION} FROM blueprints b JOIN blueprint_versions v ON v.number =
             (SELECT max(number) FROM blueprint_versions WHERE id = b.id)
             WHERE b.id > ?1 ORDER BY b.id LIMIT ?2"
        );
        self.read(|conn| {
            conn.prepare_cached(&sql)?.query_map((after, count(limit)), version)?.collect()
        })
    }

    fn blueprint_history(
        &self,
        id: &str,
        limit: usize,
    ) -> Result<Vec<BlueprintVersion>, JournalError> {
        let sql = format!(
            "SELECT {VERSION} FROM blueprint_versions v JOIN blueprints b ON b.id = v.id
             WHERE v.id = ?1 ORDER BY v.number DESC LIMIT ?2"
        );
        self.read(|conn| {
            conn.prepare_cached(&sql)?.query_map((id, count(limit)), version)?.collect()
        })
    }

    fn archive_blueprint(&self, id: &str, archived: bool) -> Result<bool, JournalError> {
        let id = id.to_owned();
        self.change(move |change| {
            let sql = "UPDATE blueprints SET archived = ?2 WHERE id = ?1";
            Ok(change.execute(sql, params![id, archived])? > 0)
        })
    }

    fn keep_logins(&self, kept: &[KeptLogin], gone: &[String]) -> Result<(), JournalError> {
        let (kept, gone) = (kept.to_vec(), gone.to_vec());
        self.change(move |change| {
            let mut newest = meta(change, GENERATION)?;
            for login in &kept {
                keep_login(change, login)?;
                newest = newest.max(login.generation);
            }
            for sid in &gone {
                change.execute("DELETE FROM logins WHERE sid = ?1", [sid])?;
            }
            set_meta(change, GENERATION, newest)
        })
    }

    fn logins(&self) -> Result<(Vec<KeptLogin>, u64), JournalError> {
        let sql = "SELECT sid, bearer, roles, aliases, generation, since, opener FROM logins";
        self.read(|conn| {
            let all = conn.prepare_cached(sql)?.query_map([], login)?.collect::<Result<_, _>>()?;
            Ok((all, meta(conn, GENERATION)?))
        })
    }

    fn data_folder(&self) -> Option<PathBuf> {
        Some(self.path().join(DATA))
    }

    fn note_data(&self, new: &DataRecord) -> Result<(), JournalError> {
        let new = new.clone();
        self.change(move |change| {
            let sql = "INSERT INTO data (hash, name, media, bytes, at, scope)
                       VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
            let (bytes, at) = (new.bytes.cast_signed(), new.at.cast_signed());
            change.execute(sql, params![new.hash, new.name, new.media, bytes, at, new.scope])?;
            Ok(())
        })
    }

    fn find_data(
        &self,
        key: &DataKey,
        scope: Option<&str>,
        limit: usize,
    ) -> Result<Vec<DataRecord>, JournalError> {
        // Hex digits hold nothing that GLOB reads otherwise.
        let (term, text) = match key {
            DataKey::Hash(hash) => ("hash GLOB ?1", format!("{hash}*")),
            DataKey::Name(name) => ("name = ?1", name.clone()),
        };
        let sql = format!(
            "SELECT {RECORD} FROM data WHERE {term} AND (?2 IS NULL OR scope IS NULL OR scope = ?2)
             ORDER BY number DESC LIMIT ?3"
        );
        self.read(|conn| {
            conn.prepare_cached(&sql)?.query_map((text, scope, count(limit)), record)?.collect()
        })
    }

    fn oldest_data(&self, after: i64, limit: usize) -> Result<Vec<DataRecord>, JournalError> {
        let sql = format!("SELECT {RECORD} FROM data WHERE number > ?1 ORDER BY number LIMIT ?2");
        self.read(|conn| {
            conn.prepare_cached(&sql)?.query_map((after, count(limit)), record)?.collect()
        })
    }

    fn forget_data(&self, record: &DataRecord) -> Result<bool, JournalError> {
        let (number, hash) = (record.number, record.hash.clone());
        self.change(move |change| {
            change.execute("DELETE FROM data WHERE number = ?1", [number])?;
            let sql = "SELECT NOT EXISTS (SELECT 1 FROM data WHERE hash = ?1)";
            change.query_row(sql, [hash], |row| row.get(0))
        })
    }

    fn data_totals(&self) -> Result<(u64, u64), JournalError> {
        let sql = "SELECT count(*), coalesce(sum(bytes), 0) FROM data";
        self.read(|conn| {
            conn.query_row(sql, [], |row| {
                let number = |at| row.get::<_, i64>(at).map(i64::cast_unsigned);
                Ok((number(0)?, number(1)?))
            })
        })
    }
}
