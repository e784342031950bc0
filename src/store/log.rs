//! The write-ahead log: how much of it is not carried into the database, and when that is done.
//!
//! It writes no batch and reads no row. What readers hold up is carried over once they are gone.

use rusqlite::Connection;

use crate::store::StoreCfg;

/// The share of a threshold after which what was held up is tried again.
const AGAIN: u64 = 16;
/// Times the bytes of a checkpoint that a log has that somebody should know of.
const LARGE: u64 = 16;

/// What was written and not carried over, about.
#[derive(Debug, Default)]
pub(super) struct Log {
    /// Bytes since all of it was carried over.
    bytes: u64,
    /// Bytes before which what readers held up is not tried again.
    again: u64,
    /// Whether it was told that the log is large.
    told: bool,
}

impl Log {
    /// Notes bytes that were written.
    pub(super) fn grew(&mut self, bytes: u64) {
        self.bytes += bytes;
    }

    /// Carries the log into the database, as far as readers let it, where it has more than so many
    /// bytes.
    pub(super) fn carry_above(
        &mut self,
        bytes: u64,
        conn: &Connection,
        cfg: &StoreCfg,
    ) -> rusqlite::Result<()> {
        if self.bytes <= bytes || self.bytes < self.again {
            return Ok(());
        }
        let sql = "PRAGMA wal_checkpoint(PASSIVE)";
        let (busy, pages, carried): (bool, i64, i64) =
            conn.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        if !busy && carried >= pages {
            *self = Self::default();
            return Ok(());
        }
        self.again = self.bytes + bytes / AGAIN;
        let large = self.bytes > cfg.checkpoint_bytes.saturating_mul(LARGE);
        if large && !std::mem::replace(&mut self.told, true) {
            let bytes = self.bytes;
            tracing::warn!(bytes, "the store's write-ahead log grows: somebody reads it for long");
        }
        Ok(())
    }
}
