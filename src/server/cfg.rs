//! What may be said of a server: its bounds, its lists, and what it knows of its surroundings.

use std::sync::Arc;
use std::time::Duration;

use crate::blueprint::Functions;
use crate::server::data::DataCfg;
use crate::server::doctor::RecentErrors;
use crate::server::link::LinkCfg;
use crate::server::shelf::{MemoryShelf, Shelf};
use crate::server::sink::DataSink;

/// What may be said of a server. Use the struct update syntax.
///
/// ```
/// use adjutant::server::{LinkCfg, ServerCfg};
/// use std::time::Duration;
///
/// let cfg = ServerCfg {
///     hosts: vec!["desk.example".into()],
///     programs: vec!["wc".into()],
///     links: LinkCfg { ping: Duration::from_secs(5), ..LinkCfg::default() },
///     ..ServerCfg::default()
/// };
/// assert!(cfg.origins.is_empty());
/// ```
#[derive(Clone)]
pub struct ServerCfg {
    /// Names, without a port, under which the server may be asked for, beside those of loopback.
    pub hosts: Vec<String>,
    /// Origins of pages, such as `https://desk.example`, that may ask, beside the server's own.
    pub origins: Vec<String>,
    /// Longest body of a request.
    pub body_bytes: usize,
    /// Longest that a request may take; a long poll and an event stream apart.
    pub request_time: Duration,
    /// How often an event stream without events shows that it is there.
    pub heartbeat: Duration,
    /// Event streams at a time, at most.
    pub streams: usize,
    /// Connections at a time, at most, as far as the limit of descriptors allows.
    pub connections: usize,
    /// Longest that a connection may take to say the head of its next request.
    pub header_time: Duration,
    /// Longest that a peer may take nothing of what is sent to it; on Linux only. 0 leaves it to the
    /// system, which tries for many minutes.
    pub deaf_time: Duration,
    /// Bearers in a row that may turn out to be none, for one caller; all callers together have
    /// ten times as many.
    pub failures: u32,
    /// Time in which one of these failures is forgiven.
    pub failure_heals: Duration,
    /// The links of operators.
    pub links: LinkCfg,
    /// Programs that the agents of a blueprint may run that comes over HTTP, as it names them: a
    /// bare name or an absolute path. `sh` allows shell lines. Who may start runs may give these
    /// programs any arguments.
    pub programs: Vec<String>,
    /// Functions that the agents of such a blueprint may be.
    pub functions: Functions,
    /// Runs that are carried on at a time, at most.
    pub runs: usize,
    /// Longest life of a session that is attached over HTTP.
    pub session_time: Duration,
    /// Dispatches of single tasks that wait for a place at their agent, at most.
    pub dispatches: usize,
    /// Bytes of the documents and prompts that such dispatches keep, at most.
    pub dispatch_bytes: usize,
    /// Bounds of the data plane.
    pub data: DataCfg,
    /// What the layer `sink` of the engine was given, so that it learns the server's address.
    pub sink: DataSink,
    /// Where the server keeps what is not the engine's; otherwise in memory.
    pub shelf: Arc<dyn Shelf>,
    /// What the doctor's route tells of the set-up.
    pub about: About,
}

/// What a server knows of its surroundings, for its doctor.
///
/// ```
/// use adjutant::server::{About, ServerCfg};
///
/// let about = About { store: Some("state".into()), ..About::default() };
/// let cfg = ServerCfg { about, ..ServerCfg::default() };
/// # let _ = cfg;
/// ```
#[derive(Debug, Clone, Default)]
pub struct About {
    /// How it was set up, each setting with its origin. Never a secret.
    pub settings: serde_json::Value,
    /// The folder of its store.
    pub store: Option<std::path::PathBuf>,
    /// Errors and warnings of late.
    pub errors: RecentErrors,
}

impl std::fmt::Debug for ServerCfg {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerCfg")
            .field("hosts", &self.hosts)
            .field("origins", &self.origins)
            .field("programs", &self.programs)
            .field("runs", &self.runs)
            .finish_non_exhaustive()
    }
}

impl Default for ServerCfg {
    fn default() -> Self {
        Self {
            hosts: Vec::new(),
            origins: Vec::new(),
            body_bytes: 16 << 20,
            request_time: Duration::from_secs(30),
            heartbeat: Duration::from_secs(15),
            streams: 4096,
            connections: 8192,
            header_time: Duration::from_secs(30),
            deaf_time: Duration::from_secs(60),
            failures: 64,
            failure_heals: Duration::from_secs(1),
            links: LinkCfg::default(),
            about: About::default(),
            programs: Vec::new(),
            functions: Functions::new(),
            runs: 256,
            session_time: Duration::from_secs(365 * 24 * 3600),
            dispatches: 1024,
            dispatch_bytes: 64 << 20,
            data: DataCfg::default(),
            sink: DataSink::default(),
            shelf: Arc::new(MemoryShelf::default()),
        }
    }
}
