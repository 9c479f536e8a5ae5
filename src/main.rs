//! The `csae` program: parses the command line, runs the command, prints its error, and exits with
//! its status.

#[macro_use]
mod cli;

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: cli::allocator::Allocator = cli::allocator::Allocator;

/// The folder of Wayland's sockets. OpenGL's drivers look for a display there, and complain on
/// standard error if the variable is missing or names no absolute path: over SSH, in containers and
/// on clusters. `cli/drivers.rs` hides other messages, but with --verbose it does not.
#[cfg(unix)]
const DISPLAYS: &str = "XDG_RUNTIME_DIR";

/// Names a folder without displays if none is named, so that drivers find none in silence.
#[cfg(unix)]
fn without_displays() {
    if std::env::var_os(DISPLAYS).is_some_and(|folder| std::path::Path::new(&folder).is_absolute())
    {
        return;
    }
    // A temporary folder that is not absolute would bring the complaint back.
    let folder = Some(std::env::temp_dir()).filter(|folder| folder.is_absolute());
    // SAFETY: no other thread runs yet that could read the environment.
    #[allow(unsafe_code, reason = "the standard library has no safe way to set a variable")]
    unsafe {
        std::env::set_var(DISPLAYS, folder.unwrap_or_else(|| "/".into()));
    }
}

#[cfg(not(unix))]
const fn without_displays() {}

fn main() -> ExitCode {
    cli::allocator::share_heap();
    without_displays();
    let parsed = match cli::parse() {
        Ok(parsed) => parsed,
        Err(error) => return cli::refuse(&error),
    };
    match cli::run(parsed) {
        Ok(()) => ExitCode::SUCCESS,
        Err((error, status)) => {
            errln!("csae: {}", cli::with_flags(&format!("{error:#}")));
            ExitCode::from(status)
        }
    }
}
