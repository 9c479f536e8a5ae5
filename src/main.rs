//! The `csae` program: the command line of the library, and what concerns the whole process.

use std::process::ExitCode;

use csae::internals::cli;

#[global_allocator]
static ALLOCATOR: cli::Allocator = cli::Allocator;

fn main() -> ExitCode {
    cli::share_heap();
    cli::without_displays();
    ExitCode::from(cli::main(std::env::args_os()))
}
