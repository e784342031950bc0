//! The arguments, and the help that teaches by example.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use clap_complete::Shell;

use crate::cli::log::Format;
pub(crate) use remote::{AnswerArgs, CancelArgs, DoctorArgs, EventsArgs, RemoteArgs, TopArgs};

mod remote;

const EXAMPLES: &str = "\
Examples:
  Count the sources of a directory, and approve the report without being asked:
    adjutant run examples/blueprints/census.json \\
      --input '{\"dir\": \"src\", \"report\": \"census-report.json\"}' --answer approve=true

  Go on with the run that a crash left open:
    adjutant resume

  Find every mistake in a blueprint before running it:
    adjutant check my.json

  Follow a run from another program:
    adjutant run my.json --json | jq -c 'select(.event.kind == \"task_blocked\")'

Exit codes: 0 passed, 1 failed, 2 bad arguments or blueprint, 3 what was named is not there, 4 left open for
`adjutant resume` (of `run` and `resume`) or against what is there (of the verbs that ask a server),
5 blocked, 6 out of time, 7 no server answers, 130 interrupted.";

const RUN_EXAMPLES: &str = "\
Examples:
  adjutant run my.json --input '{\"topic\": \"bees\"}'
  adjutant run my.json --input @input.json --json > events.ndjson
  adjutant run my.json --answer approve=true --answer 'budget={\"max\": 3}'

A question that no --answer covers is asked on the terminal; without a terminal the run is left open, for
`adjutant resume --answer`, or fails where it is not kept. Ctrl-C cancels everything, child processes
included; a second one exits at once. TERM stops the workers and leaves the run open.

Runs are kept in $XDG_STATE_HOME/adjutant (~/.local/state/adjutant), or where --store says.";

const RESUME_EXAMPLES: &str = "\
Examples:
  adjutant resume
  adjutant resume run-4f --answer approve=true
  adjutant resume run-4f --give-up

Steps that passed are not executed again; those that were interrupted are. The blueprint's file must be as it
was when the run was started; --recorded goes on with the blueprint as it was then.";

const SERVE_EXAMPLES: &str = "\
Examples:
  adjutant serve --store state
  curl -H \"Authorization: Bearer $(cat state/admin-token)\" http://127.0.0.1:7777/metrics

Settings: `adjutant config show`.

Prints its address on stdout once it answers. The admin's token is in a file that only its owner may read;
POST /v1/sessions with it gives tokens to everybody else. There is no TLS: for other machines, put a proxy in
front and name the host with --host.

TERM and Ctrl-C make it unready at once; attempts at work get --grace to end. A second one exits at once.";

const MCP_EXAMPLES: &str = "\
In the settings of a client:
  {\"mcpServers\": {\"adjutant\": {\"command\": \"adjutant\", \"args\": [\"mcp\", \"--program\", \"sh\"]}}}

Or beside everybody else on a running server, whose token is found as the other verbs find it:
  {\"mcpServers\": {\"adjutant\": {\"command\": \"adjutant\", \"args\": [\"mcp\", \"--server\", \"http://127.0.0.1:7777\"]}}}

The client starts the program, and may do with it what you may, apart from one thing: blueprints may run only
the programs that are named here. Those run as you, with any arguments.
Standard output carries the protocol alone; the log goes to standard error. When the client leaves, what runs
is stopped, and runs that are kept stay open for `adjutant resume`. With --server what runs goes on there.

Settings: those of `adjutant serve`, as far as no port is needed; `adjutant config show` lists them.";

/// Runs swarms of agents: child processes, functions and operators, under supervision.
#[derive(Debug, Parser)]
#[command(name = "adjutant", version, after_help = EXAMPLES, arg_required_else_help = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) log: LogArgs,
}

/// What is logged, on stderr.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct LogArgs {
    /// The form of the log: text or json.
    #[arg(long, global = true, value_name = "FORMAT", help_heading = "Log")]
    pub(crate) log: Option<Format>,
    /// error, warn, info, debug, trace, or a filter as in RUST_LOG.
    #[arg(long, global = true, value_name = "LEVEL", help_heading = "Log")]
    pub(crate) log_level: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a blueprint and print its final context.
    Run(RunArgs),
    /// Go on with a run that was left open: after a crash, TERM, or a question without an answer.
    Resume(ResumeArgs),
    /// List the runs that are kept.
    Runs(LookArgs),
    /// Show the life of a task, or the tasks of a run.
    Show(ShowArgs),
    /// Print a whole store as lines of JSON.
    Export(ExportArgs),
    /// Check a store: its structure, checksums, records and every rule between them. The exit code
    /// is 1 where anything is wrong.
    Fsck(LookArgs),
    /// Serve the engine over HTTP.
    Serve(ServeArgs),
    /// Show the settings of the server and where each came from.
    Config(ConfigArgs),
    /// Look for what is wrong with the settings, the stores and the running server.
    Doctor(DoctorArgs),
    /// Print the events of a running server.
    Events(EventsArgs),
    /// Print a link to the live page of a running server. It works once and within ten minutes, for
    /// whoever opens it, with the admin's rights.
    Link(RemoteArgs),
    /// List the open questions of a running server.
    Questions(RemoteArgs),
    /// Answer a question of a running server.
    Answer(AnswerArgs),
    /// Cancel a task or a run of a running server.
    Cancel(CancelArgs),
    /// Watch a running server.
    Top(TopArgs),
    /// Serve one client of the Model Context Protocol over standard input and output.
    Mcp(McpArgs),
    /// Check a blueprint and name all of its mistakes at once.
    Check(CheckArgs),
    /// Print the JSON Schema of blueprints.
    Schema,
    /// Print the OpenAPI document of the server.
    Openapi,
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: Shell,
    },
}

#[derive(Debug, clap::Args)]
#[command(after_help = RUN_EXAMPLES)]
pub(crate) struct RunArgs {
    /// The blueprint, a JSON file.
    pub(crate) blueprint: PathBuf,
    /// The flow's initial context: a JSON object, or @FILE with one.
    #[arg(long, value_name = "JSON|@FILE", default_value = "{}")]
    pub(crate) input: String,
    #[command(flatten)]
    pub(crate) store: StoreArg,
    #[command(flatten)]
    pub(crate) how: HowArgs,
}

/// Where runs are kept.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct StoreArg {
    /// The folder of the store; `none` keeps nothing. Otherwise the user's own place.
    #[arg(long, value_name = "DIR", env = "ADJUTANT_STORE")]
    pub(crate) store: Option<PathBuf>,
}

/// How a run is carried out and shown.
#[derive(Debug, clap::Args)]
pub(crate) struct HowArgs {
    /// Answers the question of the step REF; a word that is no JSON is taken as text. Where a step
    /// asks several times, the answers are used in order, and the last one again.
    #[arg(long = "answer", value_name = "REF=JSON")]
    pub(crate) answers: Vec<String>,
    /// Print each event as a line of JSON on stdout, and the outcome as the last line.
    #[arg(long)]
    pub(crate) json: bool,
    /// Show no progress.
    #[arg(long, short)]
    pub(crate) quiet: bool,
    /// Longest life of the run, in seconds; otherwise the blueprint's, else 1800.
    #[arg(long, value_name = "SECS", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) ttl: Option<u64>,
    /// Longest life of one attempt, in seconds; otherwise without a limit of its own.
    #[arg(long, value_name = "SECS", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) attempt_timeout: Option<u64>,
}

#[derive(Debug, clap::Args)]
#[command(after_help = RESUME_EXAMPLES)]
pub(crate) struct ResumeArgs {
    /// The run, or the start of its id; otherwise the newest open one.
    pub(crate) run: Option<String>,
    /// Refuses unless the run was started with this.
    #[arg(long, value_name = "JSON|@FILE")]
    pub(crate) input: Option<String>,
    /// Goes on with the blueprint as it was, whatever its file says.
    #[arg(long)]
    pub(crate) recorded: bool,
    /// Ends the run as cancelled instead.
    #[arg(long)]
    pub(crate) give_up: bool,
    #[command(flatten)]
    pub(crate) store: StoreArg,
    #[command(flatten)]
    pub(crate) how: HowArgs,
}

/// What a look at stores takes.
#[derive(Debug, clap::Args)]
pub(crate) struct LookArgs {
    #[command(flatten)]
    pub(crate) store: StoreArg,
    /// Print lines of JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ShowArgs {
    /// The task or the run, or the start of its id.
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) store: StoreArg,
    /// Print a line of JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ExportArgs {
    #[command(flatten)]
    pub(crate) store: StoreArg,
    /// Lines of JSON, which is the one form there is.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, clap::Args)]
#[command(after_help = SERVE_EXAMPLES)]
pub(crate) struct ServeArgs {
    /// Where to listen; port 0 takes a free one. Otherwise 127.0.0.1:7777.
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) listen: Option<String>,
    /// The folder of the store; `none` keeps nothing. Otherwise the user's own place.
    #[arg(long, value_name = "DIR")]
    pub(crate) store: Option<String>,
    /// The file of the admin's token, made where there is none; otherwise `admin-token` in the store.
    #[arg(long, value_name = "FILE")]
    pub(crate) admin_token_file: Option<String>,
    /// A name, without a port, under which the server may be asked for, beside those of loopback.
    #[arg(long = "host", value_name = "NAME")]
    pub(crate) hosts: Vec<String>,
    /// The origin of a page, such as https://desk.example, that may ask, beside the server's own.
    #[arg(long = "origin", value_name = "ORIGIN")]
    pub(crate) origins: Vec<String>,
    /// A program that agents of blueprints may run that come over HTTP, as these name it; `sh` for
    /// shell lines. Give it once for each.
    #[arg(long = "program", value_name = "NAME|PATH")]
    pub(crate) programs: Vec<String>,
    /// Runs that are carried on at a time, at most. Otherwise 256.
    #[arg(long, value_name = "COUNT")]
    pub(crate) runs: Option<u64>,
    /// Longest that attempts at work get to end after TERM, in seconds. Otherwise 30.
    #[arg(long, value_name = "SECS")]
    pub(crate) grace: Option<u64>,
    /// How long it shows that it is unready after TERM at least, in seconds. Otherwise 1.
    #[arg(long, value_name = "SECS")]
    pub(crate) linger: Option<u64>,
    #[command(flatten)]
    pub(crate) settings: SettingsArgs,
}

/// Where settings come from, beside a command's own flags.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct SettingsArgs {
    /// The file of settings; otherwise adjutant/config.toml in the user's own place.
    #[arg(long, value_name = "FILE", env = "ADJUTANT_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Sets one setting, such as limits.live_tasks=1000; `adjutant config show` lists all.
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    pub(crate) command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print every setting, its value and where that came from. Secrets are hidden.
    Show {
        #[command(flatten)]
        settings: SettingsArgs,
        /// Print one object of JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print the page of all settings.
    Keys,
}

#[derive(Debug, clap::Args)]
#[command(after_help = MCP_EXAMPLES)]
pub(crate) struct McpArgs {
    /// Carries the client to this running server, such as http://127.0.0.1:7777, instead of being
    /// one.
    #[arg(long, value_name = "URL", conflicts_with = "programs")]
    pub(crate) server: Option<String>,
    /// With --server: the file of the token, with mode 0600; otherwise that beside the store.
    #[arg(long, value_name = "FILE", env = "ADJUTANT_TOKEN_FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// The folder of the store; `none` keeps nothing. Otherwise the user's own place. With --server
    /// where the server's token is looked for.
    #[arg(long, value_name = "DIR")]
    pub(crate) store: Option<String>,
    /// A program that the agents of a blueprint may run, a bare name or an absolute path; `sh`
    /// allows shell lines. Without any, none may.
    #[arg(long = "program", value_name = "NAME|PATH")]
    pub(crate) programs: Vec<String>,
    /// Longest that what is at work gets to end once the client has left, in seconds. Otherwise
    /// `server.grace_secs` where that is set, else 8.
    #[arg(long, value_name = "SECS")]
    pub(crate) grace: Option<u64>,
    #[command(flatten)]
    pub(crate) settings: SettingsArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct CheckArgs {
    /// The blueprint, a JSON file.
    pub(crate) blueprint: PathBuf,
    /// Print the findings as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_fit_together() {
        use clap::CommandFactory;
        Args::command().debug_assert();
    }
}
