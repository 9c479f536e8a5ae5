//! What users do with a model, one folder a task.

#[cfg(feature = "cli")]
pub mod anomaly;
#[cfg(feature = "cli")]
pub mod compare;
#[cfg(feature = "cli")]
pub mod detect;
#[cfg(feature = "cli")]
pub mod features;
#[cfg(feature = "cli")]
pub mod finetune;
#[cfg(feature = "cli")]
pub mod generate;
#[cfg(feature = "cli")]
pub mod inspect;
#[cfg(feature = "cli")]
pub mod probe;
pub mod restore;
#[cfg(feature = "cli")]
pub mod segment;
#[cfg(feature = "cli")]
pub mod sweep;
#[cfg(feature = "cli")]
pub mod synthesis;
#[cfg(feature = "cli")]
pub mod watch;
