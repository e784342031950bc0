//! The files of bodies: parts that are being written, and whole ones under their hashes.
//!
//! All of it blocks. A part that is dropped removes its file.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Result, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// What the name of a part ends in.
const PART: &str = ".part";

/// The folder of the bodies.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// Whether it ends with the server.
    temporary: bool,
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.temporary {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

fn random() -> Result<String> {
    let mut bits = [0; 16];
    getrandom::fill(&mut bits).map_err(std::io::Error::other)?;
    Ok(format!("{:032x}", u128::from_be_bytes(bits)))
}

impl Folder {
    /// The folder at a path, or a fresh one that ends with this. Parts of a process that died go.
    pub(super) fn open(path: Option<PathBuf>) -> Result<Self> {
        let temporary = path.is_none();
        let path = match path {
            Some(path) => path,
            None => std::env::temp_dir().join(format!("adjutant-data-{}", random()?)),
        };
        match DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if temporary || error.kind() != ErrorKind::AlreadyExists => {
                return Err(error);
            }
            _ => {}
        }
        let folder = Self { path, temporary };
        for name in folder.names()? {
            if name.ends_with(PART) {
                std::fs::remove_file(folder.path.join(name))?;
            }
        }
        Ok(folder)
    }

    fn names(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    /// The hashes of the bodies that are there.
    pub(super) fn hashes(&self) -> Result<Vec<String>> {
        let mut names = self.names()?;
        names.retain(|name| blake3::Hash::from_hex(name).is_ok());
        Ok(names)
    }

    /// Begins a part.
    pub(super) fn part(&self) -> Result<Part> {
        let path = self.path.join(format!("{}{PART}", random()?));
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        Ok(Part { path: Some(path), file, hasher: blake3::Hasher::new() })
    }

    /// Opens a body.
    pub(super) fn body(&self, hash: &str) -> Result<File> {
        File::open(self.path.join(hash))
    }

    /// Removes a body; one that is not there is none.
    pub(super) fn remove(&self, hash: &str) -> Result<()> {
        match std::fs::remove_file(self.path.join(hash)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn path(&self) -> &Path {
        &self.path
    }
}

/// A body that is being written.
#[derive(Debug)]
pub(super) struct Part {
    path: Option<PathBuf>,
    file: File,
    hasher: blake3::Hasher,
}

impl Drop for Part {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Part {
    pub(super) fn write(&mut self, chunk: &[u8]) -> Result<()> {
        self.hasher.update(chunk);
        self.file.write_all(chunk)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.hasher.count()
    }

    pub(super) fn hash(&self) -> String {
        self.hasher.finalize().to_hex().to_string()
    }

    /// Flushes the body and moves it to its place. One that is there already is the same.
    pub(super) fn settle(mut self, folder: &Folder) -> Result<()> {
        self.file.sync_all()?;
        let place = folder.path().join(self.hash());
        if let Some(path) = self.path.take() {
            std::fs::rename(path, place)?;
        }
        File::open(folder.path())?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_body_is_private_and_a_part_that_is_dropped_leaves_nothing() {
        let home = tempfile::tempdir().unwrap();
        let folder = Folder::open(Some(home.path().join("data"))).unwrap();
        let mut part = folder.part().unwrap();
        part.write(b"bo").unwrap();
        part.write(b"dy").unwrap();
        let hash = part.hash();
        part.settle(&folder).unwrap();
        assert_eq!(folder.body(&hash).unwrap().metadata().unwrap().mode() & 0o777, 0o600);
        assert_eq!(folder.hashes().unwrap(), std::slice::from_ref(&hash));
        drop(folder.part().unwrap());
        assert_eq!(folder.names().unwrap(), std::slice::from_ref(&hash));
        // What a process that died was writing is gone with the next opening.
        let mut left = folder.part().unwrap();
        left.path = None;
        assert_eq!(folder.names().unwrap().len(), 2);
        let folder = Folder::open(Some(home.path().join("data"))).unwrap();
        assert_eq!(folder.names().unwrap(), [hash]);
    }

    #[test]
    fn a_temporary_folder_ends_with_its_server() {
        let folder = Folder::open(None).unwrap();
        let path = folder.path().to_owned();
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o700);
        drop(folder);
        assert!(!path.exists());
    }
}
