//! What to start and within which limits: plain values. Secrets in them are never printed, and
//! never reach a child by its environment or its arguments.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use adjutant_actors::model::ids::TaskId;
use serde_json::json;

use super::parse::{LONGEST_DEFAULT, StreamMode};

/// The variables that a child inherits unless told otherwise. A star at the end stands for any
/// rest of a name.
pub const INHERITED_DEFAULT: [&str; 8] =
    ["PATH", "HOME", "LANG", "LC_*", "TZ", "TMPDIR", "USER", "LOGNAME"];

/// The most bytes of credentials: what fits into every pipe without a reader.
const CREDENTIALS_MAX: usize = 4096;

/// What is executed.
///
/// ```
/// use adjutant::spawner::process::ChildCommand;
///
/// let mut command = ChildCommand::shell("echo \"$1\"");
/// command.push_arg("never read as a part of the line: $(true)");
/// assert!(matches!(command, ChildCommand::Shell { args, .. } if args.len() == 1));
/// ```
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChildCommand {
    /// A program by name or path, with its arguments.
    Program {
        /// Name, looked up in the child's `PATH`, or path.
        program: OsString,
        /// Arguments after the name.
        args: Vec<OsString>,
    },
    /// A line for `sh -c`. Arguments are `$1` and so on inside the line.
    Shell {
        /// The line.
        line: OsString,
        /// Arguments of the line.
        args: Vec<OsString>,
    },
}

impl ChildCommand {
    /// A program without arguments.
    #[must_use]
    pub fn program(program: impl Into<OsString>) -> Self {
        Self::Program { program: program.into(), args: Vec::new() }
    }

    /// A shell line.
    #[must_use]
    pub fn shell(line: impl Into<OsString>) -> Self {
        Self::Shell { line: line.into(), args: Vec::new() }
    }

    /// Adds one argument.
    pub fn push_arg(&mut self, arg: impl Into<OsString>) -> &mut Self {
        match self {
            Self::Program { args, .. } | Self::Shell { args, .. } => args.push(arg.into()),
        }
        self
    }

    /// The program that is executed in the end.
    pub(super) fn executable(&self) -> OsString {
        match self {
            Self::Program { program, .. } => program.clone(),
            Self::Shell { .. } => "sh".into(),
        }
    }

    pub(super) fn arguments(&self) -> Vec<OsString> {
        match self {
            Self::Program { args, .. } => args.clone(),
            Self::Shell { line, args } => {
                let head = ["-c".into(), line.clone(), "sh".into()];
                head.into_iter().chain(args.iter().cloned()).collect()
            }
        }
    }
}

/// Shows the program alone: arguments may hold a prompt.
impl fmt::Debug for ChildCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Program { args, .. } | Self::Shell { args, .. }) = self;
        f.debug_struct("ChildCommand")
            .field("executable", &self.executable())
            .field("args", &args.len())
            .finish_non_exhaustive()
    }
}

/// What lets a child call back: its token, its handle and its task, as one JSON object
/// `{"token", "handle", "task_id"}`. It travels through a pipe that only this child inherits.
///
/// ```
/// use adjutant::{TaskId, spawner::process::{ChildCommand, ChildSpec, Credentials}};
///
/// let mut spec = ChildSpec::new(ChildCommand::program("my-agent"));
/// let task = TaskId::from_bits(1);
/// spec.credentials = Some(Credentials::new("token", "handle", &task));
/// spec.for_attempt(&task, 1, "build");
/// assert!(!format!("{spec:?}").contains("handle\""));
/// ```
#[derive(Clone)]
pub struct Credentials {
    json: Vec<u8>,
}

impl Credentials {
    /// The credentials of one attempt.
    #[must_use]
    pub fn new(token: &str, handle: &str, task: &TaskId) -> Self {
        let object = json!({ "token": token, "handle": handle, "task_id": task });
        Self { json: object.to_string().into_bytes() }
    }

    /// The object's bytes, if they fit into a pipe that nobody reads yet.
    pub(super) fn bytes(&self) -> Option<&[u8]> {
        Some(&*self.json).filter(|json| json.len() <= CREDENTIALS_MAX)
    }
}

/// Shows nothing of them.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(..)")
    }
}

/// One child, described.
///
/// ```
/// use adjutant::spawner::process::{ChildCommand, ChildSpec, StreamMode};
///
/// let mut spec = ChildSpec::new(ChildCommand::shell("my-agent --stream"));
/// spec.mode = Some(StreamMode::NdjsonLines);
/// spec.set_var("MODEL", "small");
/// ```
#[derive(Clone)]
pub struct ChildSpec {
    /// What is executed.
    pub command: ChildCommand,
    /// Folder to start in; else that of this process.
    pub cwd: Option<PathBuf>,
    /// Names of the variables that the child inherits; `LC_*` stands for each that starts so.
    /// Everything else is cleared.
    pub inherit: Vec<String>,
    /// Variables set for the child, over inherited ones.
    pub vars: Vec<(String, String)>,
    /// What it needs to call back. The child finds the number of an open descriptor in
    /// `ADJUTANT_CREDENTIALS_FD` and reads it to its end.
    pub credentials: Option<Credentials>,
    /// How it writes events; `None` is plain mode, whose whole stdout is the result.
    pub mode: Option<StreamMode>,
}

impl ChildSpec {
    /// A child in plain mode with the default environment.
    #[must_use]
    pub fn new(command: ChildCommand) -> Self {
        Self {
            command,
            cwd: None,
            inherit: INHERITED_DEFAULT.map(String::from).to_vec(),
            vars: Vec::new(),
            credentials: None,
            mode: None,
        }
    }

    /// Sets one variable.
    pub fn set_var(&mut self, name: impl Into<String>, value: impl Into<String>) -> &mut Self {
        self.vars.push((name.into(), value.into()));
        self
    }

    /// Tells the child which attempt it works on: `ADJUTANT_TASK_ID`, `ADJUTANT_ATTEMPT` and
    /// `ADJUTANT_AGENT`.
    pub fn for_attempt(&mut self, task: &TaskId, attempt: u32, agent: &str) -> &mut Self {
        self.set_var("ADJUTANT_TASK_ID", task.to_string())
            .set_var("ADJUTANT_ATTEMPT", attempt.to_string())
            .set_var("ADJUTANT_AGENT", agent)
    }

    /// Whether the child inherits a variable of this name.
    pub(super) fn inherits(&self, name: &str) -> bool {
        self.inherit.iter().any(|allowed| match allowed.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => name == allowed,
        })
    }
}

/// Shows names, never values: they may be secrets.
impl fmt::Debug for ChildSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let vars: Vec<&str> = self.vars.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("ChildSpec")
            .field("command", &self.command)
            .field("cwd", &self.cwd)
            .field("inherit", &self.inherit)
            .field("vars", &vars)
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}

/// How much a child may take.
///
/// ```
/// use adjutant::spawner::process::ChildLimits;
///
/// let limits = ChildLimits { stdout_bytes: 1 << 20, ..ChildLimits::default() };
/// assert!(limits.wall.is_none() && limits.longest == 16 << 20);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildLimits {
    /// The longest it may run, its output read; `None` leaves that to whoever cancels.
    pub wall: Option<Duration>,
    /// The most bytes of stdout in all: 64 MiB. Plain mode holds them in memory.
    pub stdout_bytes: u64,
    /// The longest line or frame: 16 MiB.
    pub longest: usize,
    /// How much of the end of stderr is kept: 64 KiB. The rest is read and dropped.
    pub stderr_tail: usize,
    /// How long the group has between the request to end and the kill: 2 s.
    pub grace: Duration,
    /// How long a pipe may stay silent after the child's end before it is given up: 1 s. It
    /// matters when a process that left the group holds the pipe.
    pub linger: Duration,
}

impl Default for ChildLimits {
    fn default() -> Self {
        Self {
            wall: None,
            stdout_bytes: 64 * 1024 * 1024,
            longest: LONGEST_DEFAULT,
            stderr_tail: 64 * 1024,
            grace: Duration::from_secs(2),
            linger: Duration::from_secs(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_secret_is_shown() {
        let task = TaskId::from_bits(1);
        let mut spec = ChildSpec::new(ChildCommand::shell("echo canary"));
        spec.command.push_arg("canary");
        spec.set_var("KEY", "canary");
        spec.credentials = Some(Credentials::new("canary", "canary", &task));
        let shown = format!("{spec:?} {:?}", spec.credentials);
        assert!(!shown.contains("canary"), "{shown}");
    }

    #[test]
    fn a_star_allows_every_name_that_starts_so() {
        let spec = ChildSpec::new(ChildCommand::program("true"));
        assert!(spec.inherits("LC_ALL") && spec.inherits("PATH"));
        assert!(!spec.inherits("LC") && !spec.inherits("PATHS") && !spec.inherits("AWS_SECRET"));
    }
}
