//! The arguments of the verbs that ask a running server.

use std::path::PathBuf;

use crate::cli::args::{SettingsArgs, StoreArg};

const FIND: &str = "\
The server is the one named with --server, else the one that serves the user's own store (or that of --store). \
Its token is found beside that store.

Exit codes: 3 what was named is not there, 4 what was asked stands against what is there (of `run` and `resume`, 4 is \
a run that is left open), 7 no server answers.";

/// Which server, and who asks.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = FIND)]
pub(crate) struct RemoteArgs {
    /// The server, such as http://127.0.0.1:7777.
    #[arg(long, value_name = "URL", env = "ADJUTANT_SERVER")]
    pub(crate) server: Option<String>,
    /// The file of the token, with mode 0600.
    #[arg(long, value_name = "FILE", env = "ADJUTANT_TOKEN_FILE")]
    pub(crate) token_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) store: StoreArg,
    /// Print lines of JSON; refusals are the server's problem documents, on stderr.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Clone, clap::Args)]
#[command(after_help = FIND)]
pub(crate) struct EventsArgs {
    /// Go on with what comes, also after the server was away; otherwise end with what is there.
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// The number of the last event that was seen; otherwise from now on, or from the first one
    /// without --follow.
    #[arg(long, value_name = "SEQ")]
    pub(crate) after: Option<u64>,
    /// Only this task.
    #[arg(long, value_name = "TASK", value_parser = id)]
    pub(crate) task: Option<String>,
    /// Only the tasks of this run.
    #[arg(long, value_name = "RUN", value_parser = id)]
    pub(crate) run: Option<String>,
    /// Only this kind, such as task_blocked; may be given several times.
    #[arg(long = "kind", value_name = "KIND")]
    pub(crate) kinds: Vec<String>,
    /// Show bodies too: results, questions, answers.
    #[arg(long)]
    pub(crate) bodies: bool,
    #[command(flatten)]
    pub(crate) remote: RemoteArgs,
}

#[derive(Debug, Clone, clap::Args)]
#[command(after_help = FIND)]
pub(crate) struct AnswerArgs {
    /// The key of the question or its task, or the start of one; otherwise the only one there is.
    pub(crate) key: Option<String>,
    /// The answer: JSON, or a word that is none; otherwise from the keyboard or the pipe.
    pub(crate) value: Option<String>,
    #[command(flatten)]
    pub(crate) remote: RemoteArgs,
}

#[derive(Debug, Clone, clap::Args)]
#[command(after_help = FIND)]
pub(crate) struct CancelArgs {
    /// The task or the run.
    #[arg(value_parser = id)]
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) remote: RemoteArgs,
}

#[derive(Debug, Clone, clap::Args)]
#[command(after_help = FIND)]
pub(crate) struct TopArgs {
    /// Look once.
    #[arg(long)]
    pub(crate) once: bool,
    /// Seconds between two looks.
    #[arg(long, value_name = "SECS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) interval: u64,
    #[command(flatten)]
    pub(crate) remote: RemoteArgs,
}

#[derive(Debug, Clone, clap::Args)]
#[command(after_help = FIND)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    pub(crate) settings: SettingsArgs,
    #[command(flatten)]
    pub(crate) remote: RemoteArgs,
}

/// An id, which goes into a path as it is.
fn id(text: &str) -> Result<String, &'static str> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    plain.then(|| text.to_owned()).ok_or("an id has letters, digits and `-`, such as T-… or run-…")
}
