//! The admin's token: made once, kept in a file that nobody else may read, compared by its hash.
//!
//! The token itself is in that file alone: not in the server's memory once it is read, not in a
//! log, not on the terminal.

use std::fs::{File, OpenOptions};
use std::io::{Error, ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// What an admin's bearer begins with, so that no other kind of bearer is taken for one.
const PREFIX: &str = "adm-";

/// Random bytes in a token.
const RANDOM: usize = 32;

/// Longest file that is read.
const FILE_BYTES_MAX: u64 = 1024;

/// What an admin's bearer is compared with.
#[derive(Clone)]
pub struct AdminToken {
    hash: blake3::Hash,
}

impl std::fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AdminToken").finish_non_exhaustive()
    }
}

impl AdminToken {
    /// The token in a file, which is made with mode 0600 where there is none.
    ///
    /// ```
    /// use adjutant::server::AdminToken;
    ///
    /// let dir = tempfile::tempdir()?;
    /// let file = dir.path().join("admin-token");
    /// let made = AdminToken::in_file(&file)?;
    /// let bearer = std::fs::read_to_string(&file)?; // what a client of the admin's sends
    /// assert!(!format!("{made:?}").contains(bearer.trim()));
    /// std::fs::write(&file, "short")?;
    /// assert!(AdminToken::in_file(&file).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Where the file cannot be read or made, may be read by others, or holds no such token.
    pub fn in_file(path: &Path) -> Result<Self, Error> {
        match File::open(path) {
            Ok(file) => Self::read(&file),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                make(path)?;
                Self::read(&File::open(path)?)
            }
            Err(error) => Err(error),
        }
    }

    fn read(file: &File) -> Result<Self, Error> {
        if file.metadata()?.mode() & 0o077 != 0 {
            let why = "others may read the file of the admin token; its mode must be 0600";
            return Err(Error::new(ErrorKind::PermissionDenied, why));
        }
        let mut text = String::new();
        file.take(FILE_BYTES_MAX).read_to_string(&mut text)?;
        let token = text.trim_end();
        if !token.starts_with(PREFIX) || token.len() != PREFIX.len() + 2 * RANDOM {
            let why = "the file holds no admin token; remove it for a fresh one";
            return Err(Error::new(ErrorKind::InvalidData, why));
        }
        Ok(Self { hash: blake3::hash(token.as_bytes()) })
    }

    /// A token that nobody holds, where the only caller needs none.
    #[cfg(feature = "mcp")]
    pub(crate) fn of_nobody() -> Result<Self, Error> {
        let mut hash = [0; RANDOM];
        getrandom::fill(&mut hash).map_err(|error| Error::other(error.to_string()))?;
        Ok(Self { hash: blake3::Hash::from_bytes(hash) })
    }

    /// Whether a bearer is the admin's. Takes the same time for every wrong one of a length.
    pub(crate) fn is(&self, bearer: &str) -> bool {
        // Hashes compare in constant time.
        blake3::hash(bearer.as_bytes()) == self.hash
    }
}

/// Writes a fresh token beside its place and moves it there, so that none is ever half there.
fn make(path: &Path) -> Result<(), Error> {
    let mut random = [0; RANDOM];
    getrandom::fill(&mut random).map_err(|error| Error::other(error.to_string()))?;
    let token = format!("{PREFIX}{}\n", blake3::Hash::from_bytes(random).to_hex());
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".fresh");
    let _ = std::fs::remove_file(&fresh);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
    file.write_all(token.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&fresh, path)
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_token_is_made_once_and_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin-token");
        let first = AdminToken::in_file(&path).unwrap();
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
        let text = std::fs::read_to_string(&path).unwrap();
        let second = AdminToken::in_file(&path).unwrap();
        assert!(first.is(text.trim()) && second.is(text.trim()));
        assert!(!first.is("adm-") && !first.is(""));
        assert!(!format!("{first:?}").contains(&text[4..12]));
    }

    #[test]
    fn a_file_that_others_may_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin-token");
        AdminToken::in_file(&path).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        assert_eq!(AdminToken::in_file(&path).unwrap_err().kind(), ErrorKind::PermissionDenied);
    }

    #[test]
    fn only_a_whole_token_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin-token");
        AdminToken::in_file(&path).unwrap();
        let whole = std::fs::read_to_string(&path).unwrap();
        for mode in [0o620, 0o602, 0o610, 0o601, 0o640, 0o604] {
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let refused = AdminToken::in_file(&path).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::PermissionDenied, "{mode:o}");
        }
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        let of_its_length = "x".repeat(whole.trim().len());
        for text in ["adm-", "adm-0", &of_its_length, &whole.trim()[..67]] {
            std::fs::write(&path, text).unwrap();
            let refused = AdminToken::in_file(&path).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::InvalidData, "{text}");
        }
        std::fs::write(&path, &whole).unwrap();
        assert!(AdminToken::in_file(&path).unwrap().is(whole.trim()));
    }

    #[test]
    fn a_file_without_a_token_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin-token");
        let mut options = OpenOptions::new();
        options.write(true).create(true).mode(0o600).open(&path).unwrap();
        assert_eq!(AdminToken::in_file(&path).unwrap_err().kind(), ErrorKind::InvalidData);
    }
}
