//! The settings: flag, else environment, else file, else default; each with where it came from.
//!
//! It names every mistake at once, and shows no secret.

use std::ffi::OsString;
use std::fmt::Display;
use std::path::{Path, PathBuf};

use serde_json::json;

pub(crate) use keys::Config;
use keys::{Key, keys};
use value::Value;

pub(crate) mod keys;
pub(crate) mod value;

/// Variables that are no settings of a server.
const OTHER_VARIABLES: [&str; 8] = [
    "ADJUTANT_CONFIG",
    "ADJUTANT_SERVER",
    "ADJUTANT_TOKEN_FILE",
    "ADJUTANT_CREDENTIALS_FD",
    "ADJUTANT_TASK_ID",
    "ADJUTANT_ATTEMPT",
    "ADJUTANT_AGENT",
    "ADJUTANT_DATA_SINK",
];

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    Flag(String),
    Variable(String),
    File(PathBuf),
    Default,
}

impl Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Flag(flag) => f.write_str(flag),
            Self::Variable(name) => f.write_str(name),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// What the command line says of one setting.
#[derive(Debug, Clone)]
pub(crate) struct Flag {
    /// As it is written there.
    pub(crate) flag: String,
    pub(crate) key: String,
    pub(crate) value: Given,
}

/// A value that is read already, or one that is to be read by its key.
#[derive(Debug, Clone)]
pub(crate) enum Given {
    Value(Value),
    Text(String),
}

/// Where settings are taken from.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    pub(crate) flags: Vec<Flag>,
    pub(crate) variables: Vec<(OsString, OsString)>,
    /// A file that must be there; otherwise the one in the user's own place may be.
    pub(crate) file: Option<PathBuf>,
}

/// All settings, each with its origin.
pub(crate) struct Settings {
    pub(crate) config: Config,
    origins: Vec<(&'static Key, Origin)>,
    /// What is odd and no mistake.
    pub(crate) notes: Vec<String>,
}

/// Everything that is wrong with the settings.
#[derive(Debug)]
pub(crate) struct Mistakes(Vec<String>);

impl Display for Mistakes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.join("\n  "))
    }
}

impl Settings {
    /// Reads all sources.
    pub(crate) fn load(sources: &Sources) -> Result<Self, Mistakes> {
        let mut mistakes = Vec::new();
        let file = File::read(sources.file.as_deref(), &mut mistakes);
        for flag in &sources.flags {
            if !keys().any(|key| key.name == flag.key) {
                mistakes.push(format!("{}: {}", flag.flag, unknown(&flag.key)));
            }
        }
        let (mut config, mut origins) = (Config::default(), Vec::new());
        for key in keys() {
            match sources.find(key, &file).and_then(|found| {
                let Some((value, origin)) = found else { return Ok(Origin::Default) };
                let set = (key.set)(&mut config, value);
                set.map(|()| origin.clone())
                    .map_err(|why| format!("{} ({origin}): {why}", key.name))
            }) {
                Ok(origin) => origins.push((key, origin)),
                Err(mistake) => mistakes.push(mistake),
            }
        }
        if !mistakes.is_empty() {
            return Err(Mistakes(mistakes));
        }
        Ok(Self { config, origins, notes: sources.strange_variables() })
    }

    /// Each setting: key, value as it may be shown, origin.
    pub(crate) fn shown(&self) -> impl Iterator<Item = (&'static Key, Value, &Origin)> {
        self.origins.iter().map(|(key, origin)| {
            let value = match (key.get)(&self.config) {
                Value::Absent => Value::Absent,
                _ if key.secret => Value::Text("(hidden)".to_owned()),
                value => value,
            };
            (*key, value, origin)
        })
    }

    /// Whether nobody said anything of a setting.
    pub(crate) fn is_default(&self, name: &str) -> bool {
        let mut all = self.origins.iter();
        all.any(|(key, origin)| key.name == name && *origin == Origin::Default)
    }

    /// As [`Self::shown`], for programs.
    pub(crate) fn json(&self) -> serde_json::Value {
        let shown = self.shown().map(|(key, value, origin)| {
            json!({ "key": key.name, "value": value.json(), "origin": origin.to_string() })
        });
        shown.collect()
    }
}

impl Sources {
    /// The value of highest standing, if there is one.
    fn find(&self, key: &Key, file: &File) -> Result<Option<(Value, Origin)>, String> {
        let flagged = self.flags.iter().rev().find(|flag| flag.key == key.name);
        if let Some(Flag { flag, value, .. }) = flagged {
            let value = match value {
                Given::Value(value) => value.clone(),
                Given::Text(text) => key.kind.read(text).map_err(|why| format!("{flag}: {why}"))?,
            };
            return Ok(Some((value, Origin::Flag(flag.clone()))));
        }
        let name = key.variable();
        let variable = |name: &str| self.variables.iter().find(|(named, _)| named == name);
        if let Some((_, text)) = variable(&name) {
            let text = text.to_str().ok_or_else(|| format!("{name}: is no UTF-8"))?;
            let value = key.kind.read(text).map_err(|why| format!("{name}: {why}"))?;
            return Ok(Some((value, Origin::Variable(name))));
        }
        // The word that all programs of the house of tracing know.
        if key.name == "log.level"
            && let Some((_, text)) = variable("RUST_LOG")
        {
            let text = text.to_string_lossy().into_owned();
            return Ok(Some((Value::Text(text), Origin::Variable("RUST_LOG".to_owned()))));
        }
        let Some((path, value)) = file.value(key) else { return Ok(None) };
        let read = key.kind.of_file(value);
        let value = read.map_err(|why| format!("{}: {} {why}", path.display(), key.name))?;
        Ok(Some((value, Origin::File(path.to_owned()))))
    }

    /// Variables that look like settings and are none. Not a mistake: a host may have its own.
    fn strange_variables(&self) -> Vec<String> {
        let names = self.variables.iter().filter_map(|(name, _)| name.to_str());
        let known: Vec<_> = keys().map(Key::variable).collect();
        let strange = names.filter(|name| {
            name.starts_with("ADJUTANT_")
                && !OTHER_VARIABLES.contains(name)
                && !known.iter().any(|own| own == name)
        });
        let told = strange.map(|name| {
            let near = nearest(name, known.iter().map(String::as_str));
            format!("{name} is no setting; the nearest one is {near}")
        });
        told.collect()
    }
}

/// A file of settings, read.
#[derive(Default)]
struct File {
    path: PathBuf,
    table: toml::Table,
}

impl File {
    fn read(named: Option<&Path>, mistakes: &mut Vec<String>) -> Self {
        let Some(path) = named.map(Path::to_owned).or_else(own_file) else {
            return Self::default();
        };
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => {
                return Self::default();
            }
            Err(error) => {
                mistakes.push(format!("{}: {error}", path.display()));
                return Self::default();
            }
        };
        let table: toml::Table = match text.parse() {
            Ok(table) => table,
            Err(error) => {
                mistakes.push(format!("{}: {}", path.display(), error.to_string().trim_end()));
                return Self::default();
            }
        };
        for (section, inside) in &table {
            let Some(inside) = inside.as_table() else {
                mistakes.push(format!("{}: {}", path.display(), unknown(section)));
                continue;
            };
            for name in inside.keys().map(|name| format!("{section}.{name}")) {
                if !keys().any(|key| key.name == name) {
                    mistakes.push(format!("{}: {}", path.display(), unknown(&name)));
                }
            }
        }
        Self { path, table }
    }

    fn value(&self, key: &Key) -> Option<(&Path, &toml::Value)> {
        let (section, name) = key.name.split_once('.')?;
        Some((&self.path, self.table.get(section)?.get(name)?))
    }
}

/// Where the file of settings lies if none is named.
pub(crate) fn own_file() -> Option<PathBuf> {
    let absolute =
        |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute("XDG_CONFIG_HOME").or_else(|| Some(absolute("HOME")?.join(".config")))?;
    Some(base.join("adjutant/config.toml"))
}

fn unknown(name: &str) -> String {
    let near = nearest(name, keys().map(|key| key.name));
    format!("there is no setting {name}; the nearest one is {near}")
}

fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> &'a str {
    known.min_by_key(|known| strsim::damerau_levenshtein(name, known)).unwrap_or_default()
}

#[cfg(test)]
mod tests;
