//! The signing secrets beside a store, each in a file of its own that nobody else may read.
//!
//! The first is `secret`, and later ones have the number of their key as a suffix. They are made
//! and taken away by whoever holds the store, and never change.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use adjutant_actors::journal::JournalError;
use adjutant_actors::model::token::SigningKey;

use crate::store::place::{private, unusable};

const SECRET: &str = "secret";
/// A secret on its way to its place.
const SECRET_FRESH: &str = "secret.fresh";
const SECRET_LEN: usize = 32;
/// Most secrets that are kept; as many as keys verify at a time.
const SECRETS_MAX: usize = 4;
/// The key of the first secret.
const FIRST_KEY: u32 = 1;

/// The secrets of one store.
#[derive(Debug)]
pub(super) struct Secrets {
    path: PathBuf,
}

impl Secrets {
    pub(super) fn of(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// The secrets beside the store with the ids of their keys, oldest first; the first one is made
    /// of fresh random bytes where there is none yet.
    pub(super) fn keys(&self) -> Result<Vec<SigningKey>, JournalError> {
        let cannot = |error: std::io::Error| unusable(&self.path, "opened", error);
        let mut kids = Vec::new();
        for entry in std::fs::read_dir(&self.path).map_err(cannot)? {
            let name = entry.map_err(cannot)?.file_name();
            kids.extend(name.to_str().and_then(kid_of));
        }
        kids.sort_unstable();
        if kids.is_empty() {
            return Ok(vec![self.new_key(FIRST_KEY)?]);
        }
        kids.into_iter().map(|kid| self.key(kid)).collect()
    }

    /// Makes a secret for the next key, safe when this returns.
    pub(super) fn rotate(&self, keys: &[SigningKey]) -> Result<SigningKey, JournalError> {
        if keys.len() >= SECRETS_MAX {
            let why = format!("{SECRETS_MAX} signing keys are kept; retire one first");
            return Err(JournalError::Misuse(why));
        }
        let newest = keys.iter().map(SigningKey::kid).max().unwrap_or(0);
        self.new_key(newest + 1)
    }

    /// Takes a secret away, for good when this returns.
    pub(super) fn retire(&self, kid: u32) -> Result<(), JournalError> {
        let cannot = |error: std::io::Error| unusable(&self.path, "written", error);
        std::fs::remove_file(self.path.join(secret_name(kid))).map_err(cannot)?;
        self.sync().map_err(cannot)
    }

    fn key(&self, kid: u32) -> Result<SigningKey, JournalError> {
        let read = std::fs::read(self.path.join(secret_name(kid)));
        let secret = read.map_err(|error| unusable(&self.path, "opened", error))?;
        if secret.len() < SECRET_LEN {
            let why = format!("its secret has {} bytes of {SECRET_LEN}", secret.len());
            return Err(JournalError::Damaged { path: self.path.clone(), why });
        }
        Ok(SigningKey::new(kid, secret))
    }

    /// Writes a fresh secret beside its place and moves it there, so that none is ever half there.
    fn new_key(&self, kid: u32) -> Result<SigningKey, JournalError> {
        let cannot = |error: std::io::Error| unusable(&self.path, "given a secret", error);
        let mut secret = vec![0; SECRET_LEN];
        getrandom::fill(&mut secret)
            .map_err(|error| unusable(&self.path, "given a secret", error))?;
        let fresh = self.path.join(SECRET_FRESH);
        let mut file = private(true).truncate(true).open(&fresh).map_err(cannot)?;
        file.write_all(&secret).and_then(|()| file.sync_all()).map_err(cannot)?;
        std::fs::rename(&fresh, self.path.join(secret_name(kid))).map_err(cannot)?;
        self.sync().map_err(cannot)?;
        Ok(SigningKey::new(kid, secret))
    }

    fn sync(&self) -> std::io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}

fn secret_name(kid: u32) -> String {
    if kid == FIRST_KEY { SECRET.to_owned() } else { format!("{SECRET}.{kid}") }
}

/// The key whose secret a file of this name holds.
fn kid_of(name: &str) -> Option<u32> {
    let kid = match name.strip_prefix(SECRET)? {
        "" => FIRST_KEY,
        suffix => suffix.strip_prefix('.')?.parse().ok()?,
    };
    (secret_name(kid) == name).then_some(kid)
}
