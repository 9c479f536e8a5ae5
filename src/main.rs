//! The `csae` program: parses the command line, runs the command, prints its error, and exits with
//! its status.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    let parsed = match cli::parse() {
        Ok(parsed) => parsed,
        Err(error) => return cli::refuse(&error),
    };
    match cli::run(parsed) {
        Ok(()) => ExitCode::SUCCESS,
        Err((error, status)) => {
            eprintln!("csae: {}", cli::with_flags(&format!("{error:#}")));
            ExitCode::from(status)
        }
    }
}
