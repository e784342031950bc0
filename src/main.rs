//! The `adjutant` program: parses its arguments, runs one command, and exits with its code.

mod cli;

fn main() {
    std::process::exit(cli::main());
}
