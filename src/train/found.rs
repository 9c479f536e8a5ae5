//! The result of a validation, whatever the task.

use serde_json::Value;

/// The result of a validation; its text is for people.
pub trait Found: std::fmt::Display {
    /// The number by which the best model is chosen: the higher, the better.
    fn score(&self) -> f64;

    /// Its numbers by name, as the log has them.
    fn numbers(&self) -> Value;

    /// What has become far worse since a validation with the best score, if anything has.
    fn fallen(&self, _best: f64) -> Option<String> {
        None
    }

    /// Whether training may go back to this state if it diverges.
    fn is_sound(&self) -> bool {
        true
    }
}
