//! The result of a validation, common to all tasks.

use serde_json::Value;

/// The result of a validation. `Display` gives the text for the progress output.
pub trait ValidationResult: std::fmt::Display {
    /// Score by which the best model is chosen; higher is better.
    fn score(&self) -> f64;

    /// The numbers by name, as a JSON object for the log.
    fn numbers(&self) -> Value;

    /// Describes what has become far worse than at the validation with score `best`, if anything.
    fn regression(&self, _best: f64) -> Option<String> {
        None
    }

    /// Whether training may roll back to this state if it diverges.
    fn is_sound(&self) -> bool {
        true
    }
}
