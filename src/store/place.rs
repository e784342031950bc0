//! The folder of a store: who may read it, and who holds it.
//!
//! Files are 0600 and folders 0700: prompts and outputs lie here, as private as those.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use adjutant_actors::journal::JournalError;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// Name of the database within the folder.
pub(super) const DATABASE: &str = "store.db";
const LOCK: &str = "lock";

/// The folder, held by this process until it is dropped.
#[derive(Debug)]
pub(super) struct Held {
    path: PathBuf,
    lock: File,
}

/// A store that cannot be used.
pub(super) fn unusable(
    path: &Path,
    what: &'static str,
    why: impl std::fmt::Display,
) -> JournalError {
    JournalError::Unusable { path: path.to_owned(), what, why: why.to_string() }
}

/// Files that nobody else may read.
pub(super) fn private(create: bool) -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(create).mode(0o600);
    options
}

impl Drop for Held {
    fn drop(&mut self) {
        // Closing alone does not do it: a child that another thread is starting has the file, too,
        // until it becomes its program.
        let _ = flock(&self.lock, FlockOperation::Unlock);
    }
}

impl Held {
    /// Makes the folder where there is none, takes its lock and sees to the rights of its files.
    pub(super) fn take(path: &Path) -> Result<Self, JournalError> {
        let cannot = |error: std::io::Error| unusable(path, "opened", error);
        if !path.exists() {
            DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(cannot)?;
        }
        let mut lock = private(true).open(path.join(LOCK)).map_err(cannot)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let mut text = String::new();
                let pid =
                    lock.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
                return Err(JournalError::Held { path: path.to_owned(), pid });
            }
            Err(error) => return Err(unusable(path, "opened", error)),
        }
        lock.set_len(0).map_err(cannot)?;
        lock.rewind().map_err(cannot)?;
        write!(lock, "{}", std::process::id()).map_err(cannot)?;
        // Log and index take the rights of the database, so that is made here and not by SQLite.
        let database = private(true).open(path.join(DATABASE)).map_err(cannot)?;
        database.set_permissions(Permissions::from_mode(0o600)).map_err(cannot)?;
        Ok(Self { path: path.to_owned(), lock })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}
