//! The program's commands. Data goes to stdout, talk to stderr; exit codes are stable.

use std::io::Write;

use clap::{CommandFactory, Parser};

mod args;
mod board;
mod check;
mod client;
mod config;
mod doctor;
mod drive;
mod events;
mod log;
mod look;
mod mcp;
mod place;
mod remote;
mod resume;
mod run;
mod senior;
mod serve;
mod settings;
mod show;
mod spans;
mod top;

use args::{Args, Command, LogArgs};

/// Exit codes of the program.
pub(crate) mod code {
    /// It went well.
    pub(crate) const PASS: i32 = 0;
    /// Anything that has no code of its own.
    pub(crate) const FAILED: i32 = 1;
    /// Bad arguments or a bad blueprint.
    pub(crate) const USAGE: i32 = 2;
    /// What was named is not there.
    pub(crate) const NOT_FOUND: i32 = 3;
    /// What was asked of a server stands against what is there. The number is that of [`LEFT`],
    /// which `run` and `resume` give.
    pub(crate) const CONFLICT: i32 = 4;
    /// The run is open, and waits for somebody who resumes it.
    pub(crate) const LEFT: i32 = 4;
    /// A step was blocked.
    pub(crate) const BLOCKED: i32 = 5;
    /// A step or the run ran out of time.
    pub(crate) const TIMEOUT: i32 = 6;
    /// No server answers.
    pub(crate) const UNREACHABLE: i32 = 7;
    /// Interrupted from the keyboard.
    pub(crate) const INTERRUPTED: i32 = 130;
}

/// Runs the program and returns its exit code.
pub(crate) fn main() -> i32 {
    let Args { command, log } = Args::parse();
    match run(command, &log) {
        Ok(code) => code,
        Err(error) => {
            say(&format!("adjutant: {error:#}"));
            code::FAILED
        }
    }
}

fn run(command: Command, log: &LogArgs) -> anyhow::Result<i32> {
    // A server has settings for its log.
    if !matches!(command, Command::Serve(_) | Command::Mcp(_)) {
        log::start_plain(log)?;
    }
    match command {
        Command::Run(run) => run::main(run),
        Command::Resume(resume) => resume::main(resume),
        Command::Runs(look) => look::runs(&look),
        Command::Show(show) => show::main(&show),
        Command::Export(export) => look::export(&export),
        Command::Fsck(look) => look::check(&look),
        Command::Check(check) => check::main(&check),
        Command::Serve(serve) => serve::main(serve, log),
        Command::Mcp(mcp) => mcp::main(&mcp, log),
        Command::Config(config) => config::main(&config),
        Command::Doctor(doctor) => doctor::main(&doctor),
        Command::Events(events) => events::main(events),
        Command::Link(remote) => remote::link(&remote),
        Command::Questions(remote) => remote::questions(&remote),
        Command::Answer(answer) => remote::answer(&answer),
        Command::Cancel(cancel) => remote::cancel(&cancel),
        Command::Top(top) => top::main(&top),
        Command::Schema => print_line(&format!("{:#}", adjutant::blueprint::json_schema())),
        Command::Openapi => print_line(adjutant::server::openapi().trim_end()),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Args::command(), "adjutant", &mut script);
            print_line(String::from_utf8_lossy(&script).trim_end())
        }
    }
}

/// Prints a line of data. A reader that has gone away ends the program quietly, as `head` expects.
pub(crate) fn print_line(line: &str) -> anyhow::Result<i32> {
    put_line(line).map(|_| code::PASS)
}

/// Prints a line of data; false where nobody reads any more.
pub(crate) fn put_line(line: &str) -> anyhow::Result<bool> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
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
