//! The program's commands. Data goes to stdout, talk to stderr; exit codes are stable.

use std::io::Write;

use clap::{CommandFactory, Parser};

mod args;
mod board;
mod check;
mod drive;
mod look;
mod mcp;
mod place;
mod resume;
mod run;
mod senior;
mod serve;
mod show;

use args::{Args, Command};

/// Exit codes of the program.
pub(crate) mod code {
    /// It went well.
    pub(crate) const PASS: i32 = 0;
    /// Anything that has no code of its own.
    pub(crate) const FAILED: i32 = 1;
    /// Bad arguments or a bad blueprint.
    pub(crate) const USAGE: i32 = 2;
    /// The run is open, and waits for somebody who resumes it.
    pub(crate) const LEFT: i32 = 4;
    /// A step was blocked.
    pub(crate) const BLOCKED: i32 = 5;
    /// A step or the run ran out of time.
    pub(crate) const TIMEOUT: i32 = 6;
    /// Interrupted from the keyboard.
    pub(crate) const INTERRUPTED: i32 = 130;
}

/// Runs the program and returns its exit code.
pub(crate) fn main() -> i32 {
    let args = Args::parse();
    log_to_stderr();
    let done = match args.command {
        Command::Run(run) => run::main(run),
        Command::Resume(resume) => resume::main(resume),
        Command::Runs(look) => look::runs(&look),
        Command::Show(show) => show::main(&show),
        Command::Export(export) => look::export(&export),
        Command::Fsck(look) => look::check(&look),
        Command::Check(check) => check::main(&check),
        Command::Serve(serve) => serve::main(serve),
        Command::Mcp(mcp) => mcp::main(mcp),
        Command::Schema => print_line(&format!("{:#}", adjutant::blueprint::json_schema())),
        Command::Openapi => print_line(adjutant::server::openapi().trim_end()),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Args::command(), "adjutant", &mut script);
            print_line(String::from_utf8_lossy(&script).trim_end())
        }
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            say(&format!("adjutant: {error:#}"));
            code::FAILED
        }
    }
}

/// Logs warnings to stderr, or what `RUST_LOG` asks for.
fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("error"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}

/// Prints a line of data. A reader that has gone away ends the program quietly, as `head` expects.
pub(crate) fn print_line(line: &str) -> anyhow::Result<i32> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
        Ok(()) => Ok(code::PASS),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(code::PASS),
        Err(error) => Err(error.into()),
    }
}

/// Says what is wrong with the arguments or the blueprint, and gives the exit code for that.
pub(crate) fn usage(text: &str) -> i32 {
    say(&format!("adjutant: {text}"));
    code::USAGE
}

/// Prints a line of talk.
pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}
