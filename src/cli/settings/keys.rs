//! The table of all settings: name, meaning, and where each lies. Their defaults are those of the
//! structures that they are written into, so a number stands in one place.

use std::fmt::Display;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use adjutant::server::ServerCfg;
use adjutant::store::{Durability, StoreCfg};
use adjutant::{EngineCfg, HoldPolicy};

use crate::cli::log::Format;
use crate::cli::settings::value::{Kind, Value};

/// Everything that the program can be told.
#[derive(Clone)]
pub(crate) struct Config {
    pub(crate) listen: SocketAddr,
    pub(crate) admin_token_file: Option<PathBuf>,
    pub(crate) linger: Duration,
    pub(crate) grace: Duration,
    pub(crate) server: ServerCfg,
    pub(crate) store: Option<PathBuf>,
    pub(crate) kept: StoreCfg,
    pub(crate) engine: EngineCfg,
    pub(crate) log: Format,
    pub(crate) log_level: String,
    pub(crate) otlp_endpoint: Option<String>,
    pub(crate) otlp_headers: Option<String>,
    pub(crate) otlp_level: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 7777)),
            admin_token_file: None,
            linger: Duration::from_secs(1),
            grace: Duration::from_secs(30),
            server: ServerCfg::default(),
            store: None,
            kept: StoreCfg::default(),
            // A program that a loaded machine halts for a moment goes on.
            engine: EngineCfg { hold_policy: HoldPolicy::Warn, ..EngineCfg::default() },
            log: Format::Text,
            log_level: "warn".to_owned(),
            otlp_endpoint: None,
            otlp_headers: None,
            otlp_level: "info".to_owned(),
        }
    }
}

/// One setting.
pub(crate) struct Key {
    /// Section and name, with a dot between.
    pub(crate) name: &'static str,
    pub(crate) help: &'static str,
    pub(crate) kind: Kind,
    /// Whether its value is never shown.
    pub(crate) secret: bool,
    pub(crate) get: fn(&Config) -> Value,
    pub(crate) set: fn(&mut Config, Value) -> Result<(), String>,
}

impl Key {
    /// The variable that sets it: the section `server` and the word `path` go without saying.
    pub(crate) fn variable(&self) -> String {
        let name = self.name.strip_prefix("server.").unwrap_or(self.name);
        let name = name.strip_suffix(".path").unwrap_or(name);
        format!("ADJUTANT_{}", name.replace('.', "_").to_uppercase())
    }
}

fn parsed<T: std::str::FromStr<Err: Display>>(value: Value) -> Result<T, String> {
    let text = value.text()?;
    text.parse().map_err(|error| format!("{text:?}: {error}"))
}

fn wide<T: TryInto<u64>>(number: T) -> u64 {
    number.try_into().unwrap_or(u64::MAX)
}

macro_rules! key {
    ($name:literal, $kind:ident, $help:literal, $get:expr, $set:expr) => {
        Key { name: $name, help: $help, kind: Kind::$kind, secret: false, get: $get, set: $set }
    };
}

macro_rules! number {
    ($name:literal, $help:literal, $($field:ident).+) => {
        key!($name, Number, $help, |c| Value::Number(wide(c.$($field).+)), |c, value| {
            c.$($field).+ = value.number()?;
            Ok(())
        })
    };
}

macro_rules! secs {
    ($name:literal, $help:literal, $($field:ident).+) => {
        key!($name, Number, $help, |c| Value::Number(c.$($field).+.as_secs()), |c, value| {
            c.$($field).+ = Duration::from_secs(value.number()?);
            Ok(())
        })
    };
}

macro_rules! list {
    ($name:literal, $help:literal, $($field:ident).+) => {
        key!($name, List, $help, |c| Value::List(c.$($field).+.clone()), |c, value| {
            c.$($field).+ = value.list()?;
            Ok(())
        })
    };
}

macro_rules! path {
    ($name:literal, $help:literal, $field:ident) => {
        key!(
            $name,
            Text,
            $help,
            |c| Value::of(c.$field.as_ref().map(|path| path.display())),
            |c, value| {
                c.$field = Some(value.text()?.into());
                Ok(())
            }
        )
    };
}

mod engine;

/// Every setting, in the order in which they are shown.
pub(crate) const KEYS: &[&[Key]] =
    &[SERVER, LINK, DATA, PROGRAMS, STORE, engine::LIMITS, engine::RETENTION, LOG];

const SERVER: &[Key] = &[
    key!(
        "server.listen",
        Text,
        "Where to listen; port 0 takes a free one.",
        |c| Value::Text(c.listen.to_string()),
        |c, value| {
            c.listen = parsed(value)?;
            Ok(())
        }
    ),
    path!(
        "server.admin_token_file",
        "The file of the admin's token; otherwise `admin-token` in the store.",
        admin_token_file
    ),
    list!(
        "server.hosts",
        "Names under which it may be asked for, beside those of loopback.",
        server.hosts
    ),
    list!("server.origins", "Origins of pages that may ask, beside its own.", server.origins),
    number!("server.body_bytes", "Longest body of a request.", server.body_bytes),
    secs!(
        "server.request_secs",
        "Longest time of a request that is not held.",
        server.request_time
    ),
    secs!(
        "server.heartbeat_secs",
        "How often a quiet event stream shows that it is there.",
        server.heartbeat
    ),
    number!("server.streams", "Event streams at a time, at most.", server.streams),
    number!(
        "server.connections",
        "Connections at a time, as far as the limit of descriptors allows.",
        server.connections
    ),
    secs!(
        "server.header_secs",
        "Longest that a connection may take to say the head of a request.",
        server.header_time
    ),
    secs!(
        "server.deaf_secs",
        "Longest that a peer may take nothing of what is sent to it; 0 leaves it to the system.",
        server.deaf_time
    ),
    number!(
        "server.failures",
        "Bearers in a row that may be none, for one caller.",
        server.failures
    ),
    secs!(
        "server.failure_heals_secs",
        "Time in which one of these is forgiven.",
        server.failure_heals
    ),
    secs!(
        "server.linger_secs",
        "How long it shows at least that it is unready after TERM.",
        linger
    ),
    secs!("server.grace_secs", "Longest that attempts get to end after TERM.", grace),
];

const LINK: &[Key] = &[
    secs!(
        "link.ping_secs",
        "How often a connected operator is pinged, and the token behind its login looked at.",
        server.links.ping
    ),
    number!(
        "link.missed_pings",
        "Pings without a sign of life after which a socket is given up.",
        server.links.missed_pings
    ),
    secs!(
        "link.away_secs",
        "Longest time without a socket after which a link is torn down.",
        server.links.away
    ),
    number!("link.kept_frames", "Frames that one link keeps.", server.links.kept_frames),
    number!("link.kept_bytes", "Bytes of these.", server.links.kept_bytes),
    number!("link.frame_bytes", "Longest frame, either way.", server.links.frame_bytes),
    number!("link.logins", "Operators that are logged in at a time.", server.links.logins),
];

const DATA: &[Key] = &[
    number!("data.body_bytes", "Bytes of one body of the data plane.", server.data.body_bytes),
    number!("data.bytes", "Bytes of all of these.", server.data.bytes),
    number!("data.records", "How many there may be.", server.data.records),
    secs!("data.age_secs", "Longest that one is kept which nothing needs.", server.data.age),
    number!("data.transfers", "Bodies that are streamed at a time.", server.data.transfers),
    secs!("data.transfer_secs", "Longest that one transfer may take.", server.data.time),
];

const PROGRAMS: &[Key] = &[list!(
    "programs.allow",
    "Programs that agents of blueprints may run that come over HTTP; `sh` for shell lines.",
    server.programs
)];

const STORE: &[Key] = &[
    path!("store.path", "The folder of the store; `none` keeps nothing.", store),
    key!(
        "store.durability",
        Text,
        "`sync` survives a loss of power, `none` the death of the process; a number is the seconds \
         that a loss of power may take.",
        |c| Value::Text(match c.kept.durability {
            Durability::Sync => "sync".to_owned(),
            Durability::Interval(every) => every.as_secs_f64().to_string(),
            _ => "none".to_owned(),
        }),
        |c, value| {
            let text = value.text()?;
            c.kept.durability = match text.as_str() {
                "sync" => Durability::Sync,
                "none" => Durability::None,
                secs => {
                    let secs = secs.parse().ok().and_then(|s| Duration::try_from_secs_f64(s).ok());
                    Durability::Interval(secs.ok_or("is sync, none or a number of seconds")?)
                }
            };
            Ok(())
        }
    ),
    number!("store.event_count", "Events that the log keeps, at most.", kept.events.count),
    secs!("store.event_age_secs", "Longest that the log keeps an event.", kept.events.age),
    number!("store.event_bytes", "Bytes of events that the log keeps, at most.", kept.events.bytes),
];

const LOG: &[Key] = &[
    key!(
        "log.format",
        Text,
        "`text` or `json`.",
        |c| Value::Text(c.log.word().to_owned()),
        |c, value| {
            c.log = parsed(value)?;
            Ok(())
        }
    ),
    key!(
        "log.level",
        Text,
        "error, warn, info, debug, trace, or a filter as in RUST_LOG, which comes before the file.",
        |c| Value::Text(c.log_level.clone()),
        |c, value| {
            c.log_level = value.text()?;
            Ok(())
        }
    ),
    key!(
        "otlp.endpoint",
        Text,
        "Where spans are sent, such as http://127.0.0.1:4318/v1/traces; needs the feature `otlp`.",
        |c| Value::of(c.otlp_endpoint.as_ref()),
        |c, value| {
            c.otlp_endpoint = Some(value.text()?);
            Ok(())
        }
    ),
    key!(
        "otlp.level",
        Text,
        "Which spans are sent; `adjutant::turn=trace` adds each turn of the state.",
        |c| Value::Text(c.otlp_level.clone()),
        |c, value| {
            c.otlp_level = value.text()?;
            Ok(())
        }
    ),
    Key {
        name: "otlp.headers",
        help: "Headers for the collector, as name=value with commas between.",
        kind: Kind::Text,
        secret: true,
        get: |c| Value::of(c.otlp_headers.as_ref()),
        set: |c, value| {
            c.otlp_headers = Some(value.text()?);
            Ok(())
        },
    },
];

/// All keys in one row.
pub(crate) fn keys() -> impl Iterator<Item = &'static Key> {
    KEYS.iter().copied().flatten()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_setting_takes_what_it_shows_and_changes_nothing_else() {
        for key in keys() {
            let (before, mut after) = (Config::default(), Config::default());
            let shown = (key.get)(&before);
            if shown != Value::Absent {
                (key.set)(&mut after, shown.clone()).unwrap();
            }
            for other in keys() {
                assert_eq!(
                    (other.get)(&before),
                    (other.get)(&after),
                    "{} {}",
                    key.name,
                    other.name
                );
            }
        }
    }

    #[test]
    fn a_number_that_is_set_has_an_effect() {
        for key in keys().filter(|key| key.kind == Kind::Number) {
            let mut cfg = Config::default();
            (key.set)(&mut cfg, Value::Number(77)).unwrap();
            assert_eq!((key.get)(&cfg), Value::Number(77), "{}", key.name);
        }
    }

    #[test]
    fn names_and_variables_are_there_once() {
        let (mut names, mut variables) = (HashSet::new(), HashSet::new());
        for key in keys() {
            assert!(names.insert(key.name), "{}", key.name);
            assert!(variables.insert(key.variable()), "{}", key.name);
        }
    }
}
