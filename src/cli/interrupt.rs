//! Ctrl-C, and what else asks a program to end: the first time the step is finished and a
//! checkpoint written, the second time it ends at once.

use std::sync::atomic::{AtomicBool, Ordering};

static ASKED: AtomicBool = AtomicBool::new(false);

/// Exit status after Ctrl-C.
pub const STATUS: u8 = 130;

/// A run that stopped because it was asked to.
#[derive(Debug)]
pub struct Interrupted(pub String);

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Interrupted {}

/// From now on the first request to end only sets [`asked`].
pub fn watch() {
    let handled = ctrlc::set_handler(|| {
        if ASKED.swap(true, Ordering::SeqCst) {
            std::process::exit(i32::from(STATUS));
        }
        eprintln!("finishing the step and writing what there is; Ctrl-C again stops at once");
    });
    if let Err(error) = handled {
        eprintln!("Ctrl-C will lose the steps since the last checkpoint: {error}");
    }
}

/// Whether the program was asked to end.
pub fn asked() -> bool {
    ASKED.load(Ordering::SeqCst)
}
