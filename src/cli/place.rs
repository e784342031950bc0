//! Where the program keeps its stores: a named folder, none, or the user's own place.
//!
//! The user's own place is `adjutant` in the state folder of the user. It holds one store for each
//! program that runs at a time, `store-1` and so on, since a store has one holder.

use std::path::{Path, PathBuf};

use adjutant::journal::JournalError;
use adjutant::store::{SqliteStore, StoreCfg, View};
use anyhow::bail;

use crate::cli::args::StoreArg;
use crate::cli::say;
use crate::cli::settings::{Settings, Sources};

/// Stores in the user's own place, at most.
const STORES_MAX: usize = 64;

/// Which stores a command is about.
pub(crate) enum Place {
    /// Nothing is kept.
    None,
    /// This one.
    At(PathBuf),
    /// Those in the user's own place, if there is such a place.
    Own(Option<PathBuf>),
}

impl Place {
    /// What an argument means; without one, what the file of settings says.
    pub(crate) fn of(arg: &StoreArg) -> anyhow::Result<Self> {
        let named = match &arg.store {
            Some(named) => Some(named.clone()),
            None => store_in_settings()?,
        };
        Ok(Self::named(named))
    }

    /// What settings that are read already mean.
    pub(crate) fn named(store: Option<PathBuf>) -> Self {
        match store {
            Some(word) if word.as_os_str() == "none" => Self::None,
            Some(path) => Self::At(path),
            None => Self::Own(own_place()),
        }
    }

    /// The stores that are there.
    pub(crate) fn stores(&self) -> anyhow::Result<Vec<PathBuf>> {
        match self {
            Self::None => bail!("--store none names no store to look at"),
            Self::At(path) => Ok(vec![path.clone()]),
            Self::Own(None) => Ok(Vec::new()),
            Self::Own(Some(base)) => {
                let numbered = (1..=STORES_MAX).map(|number| numbered(base, number));
                Ok(numbered.filter(|path| path.join("store.db").exists()).collect())
            }
        }
    }

    /// The one store that a command is about.
    pub(crate) fn only(&self) -> anyhow::Result<PathBuf> {
        let mut stores = self.stores()?;
        match (stores.pop(), stores.is_empty()) {
            (Some(only), true) => Ok(only),
            (None, _) => bail!("there is no store yet; name one with --store DIR"),
            (Some(last), false) => {
                stores.push(last);
                let names: Vec<_> = stores.iter().map(|path| path.display().to_string()).collect();
                bail!("there are several stores; name one with --store: {}", names.join(", "))
            }
        }
    }

    /// Views of all stores that can be read; of one that was named, it is an error if it cannot.
    pub(crate) fn views(&self) -> anyhow::Result<Vec<View>> {
        let mut views = Vec::new();
        for path in self.stores()? {
            match View::open(&path) {
                Ok(view) => views.push(view),
                Err(error) if matches!(self, Self::At(_)) => return Err(error.into()),
                Err(error) => say(&format!("adjutant: {error}")),
            }
        }
        Ok(views)
    }

    /// Opens the store that a new run is kept in; nothing where it is not to be kept, or where the
    /// user's own place cannot be used, which is said.
    pub(crate) fn open_for_run(&self) -> anyhow::Result<Option<SqliteStore>> {
        self.open_with(StoreCfg::default())
    }

    /// As [`Self::open_for_run`], with settings.
    pub(crate) fn open_with(&self, cfg: StoreCfg) -> anyhow::Result<Option<SqliteStore>> {
        match self {
            Self::None => Ok(None),
            Self::At(path) => Ok(Some(SqliteStore::open(path, cfg)?)),
            Self::Own(base) => {
                let opened = match base {
                    Some(base) => open_free(base, cfg),
                    None => Err(anyhow::anyhow!("neither XDG_STATE_HOME nor HOME is set")),
                };
                if let Err(error) = &opened {
                    say(&format!("adjutant: nothing is kept: {error:#}"));
                }
                Ok(opened.ok())
            }
        }
    }
}

pub(crate) fn open(path: &Path) -> Result<SqliteStore, JournalError> {
    SqliteStore::open(path, StoreCfg::default())
}

/// The first store of the user's own that nobody holds.
fn open_free(base: &Path, cfg: StoreCfg) -> anyhow::Result<SqliteStore> {
    for number in 1..=STORES_MAX {
        match SqliteStore::open(numbered(base, number), cfg) {
            Err(JournalError::Held { .. }) => {}
            opened => return Ok(opened?),
        }
    }
    let base = base.display();
    bail!("all {STORES_MAX} stores in {base} are in use; name another one with --store DIR")
}

fn numbered(base: &Path, number: usize) -> PathBuf {
    base.join(format!("store-{number}"))
}

/// The store that the file of settings names, which stands below the argument.
fn store_in_settings() -> anyhow::Result<Option<PathBuf>> {
    let file = std::env::var_os("ADJUTANT_CONFIG").map(PathBuf::from);
    let sources = Sources { file, ..Sources::default() };
    let settings = Settings::load(&sources).map_err(|mistakes| anyhow::anyhow!("{mistakes}"))?;
    Ok(settings.config.store)
}

/// The process that holds a store, as the store says and as far as that process is there.
pub(crate) fn holder(store: &Path) -> Option<u32> {
    let text = std::fs::read_to_string(store.join("lock")).ok()?;
    let pid: u32 = text.trim().parse().ok()?;
    let known = rustix::process::Pid::from_raw(i32::try_from(pid).ok()?)?;
    rustix::process::test_kill_process(known).ok().map(|()| pid)
}

/// Whether a store is found without being named.
pub(crate) fn is_own(store: &Path) -> bool {
    std::env::var_os("ADJUTANT_STORE").map_or_else(
        || own_place().is_some_and(|base| store.starts_with(base)),
        |named| Path::new(&named) == store,
    )
}

fn own_place() -> Option<PathBuf> {
    let absolute =
        |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")));
    state.map(|state| state.join("adjutant"))
}
