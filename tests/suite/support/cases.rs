//! Cases of the operations, stored and built in.

use std::path::PathBuf;

use csae::internals::verify::{self, Case, Outcome};

/// The folder of the stored cases.
pub fn stored_folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/cases")
}

/// The stored cases.
pub fn stored() -> Vec<Case> {
    verify::load_folder(&stored_folder()).expect("the stored cases can be read")
}

/// Failures of outcomes, one line an output.
pub fn failures(outcomes: &[Outcome]) -> Vec<String> {
    let mut lines = Vec::new();
    for outcome in outcomes.iter().filter(|outcome| !outcome.passed()) {
        let at = format!("{} ({})", outcome.id, outcome.kernels);
        lines.extend(outcome.failure.iter().map(|failure| format!("{at}: {failure}")));
        let bad = outcome.comparisons.iter().filter(|comparison| !comparison.passed);
        lines.extend(bad.map(|c| {
            format!("{at}: {} is off by {:.2e}, allowed are {:.0e}", c.output, c.error, c.tolerance)
        }));
        if outcome.failure.is_none() && outcome.comparisons.is_empty() {
            lines.push(format!("{at}: nothing was compared"));
        }
    }
    lines
}
