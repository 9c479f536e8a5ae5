//! What users do with a model, one folder a task.

pub mod anomaly;
pub mod detect;
pub mod features;
pub mod finetune;
pub mod generate;
pub mod inspect;
pub mod probe;
pub mod restore;
pub mod segment;
pub mod sweep;
pub mod synthesis;
