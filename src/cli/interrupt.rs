//! Ctrl-C and other requests to end the program. The first request lets the step finish and write a
//! checkpoint; the second ends the program at once.

use std::sync::atomic::{AtomicBool, Ordering};

static REQUESTED: AtomicBool = AtomicBool::new(false);

/// Exit status after Ctrl-C: 128 + SIGINT, as in shells.
pub const STATUS: u8 = 130;

/// A command that stopped because of Ctrl-C.
#[derive(Debug)]
pub struct Interrupted(pub String);

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Interrupted {}

/// Handles Ctrl-C: the first request only sets [`requested`], the second one ends the program.
pub fn watch() {
    let handled = ctrlc::set_handler(|| {
        if REQUESTED.swap(true, Ordering::SeqCst) {
            std::process::exit(i32::from(STATUS));
        }
        eprintln!("finishing this step and saving; press Ctrl-C again to stop at once");
    });
    if let Err(error) = handled {
        eprintln!("note: Ctrl-C will lose the steps since the last checkpoint: {error}");
    }
}

/// Whether the program was asked to end.
pub fn requested() -> bool {
    REQUESTED.load(Ordering::SeqCst)
}
