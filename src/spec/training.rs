//! The sections `[schedule]` and `[train]`: learning rate, length and intervals.

use serde::{Deserialize, Serialize};

use super::{Precision, is_zero_usize};
use crate::names::names;

names! {
    /// Shape of the learning-rate schedule.
    pub enum ScheduleName {
        /// Constant.
        Constant = "constant",
        /// Drops by a factor at regular intervals.
        Step = "step",
        /// Falls along half a cosine after the warm-up.
        Cosine = "cosine",
        /// Falls along half a cosine from the first step; the warm-up multiplies it.
        HalfCosine = "half_cosine",
        /// Rises, then falls (Smith 2018).
        OneCycle = "one_cycle",
    }
}

/// The learning-rate schedule: a factor on `optimizer.lr` over time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScheduleSpec {
    /// `constant`, `step`, `cosine`, `half_cosine` or `one_cycle`. `cosine` falls after the
    /// warm-up; `half_cosine` falls from the first step, and the warm-up multiplies it.
    pub kind: ScheduleName,
    /// Epochs of linear growth from 0 at the start.
    pub warmup_epochs: f64,
    /// Warm-up in steps. A value above 0 replaces `warmup_epochs`.
    pub warmup_steps: u64,
    /// `step`: epochs between two drops.
    pub every_epochs: f64,
    /// `step`: factor of each drop.
    pub gamma: f64,
    /// `cosine` and `one_cycle`: the factor at the end.
    pub floor: f64,
    /// `one_cycle`: share of the training in which the rate rises, in (0, 1).
    pub rise: f64,
}

impl Default for ScheduleSpec {
    fn default() -> Self {
        Self {
            kind: ScheduleName::Constant,
            warmup_epochs: 0.0,
            warmup_steps: 0,
            every_epochs: 10.0,
            gamma: 0.1,
            floor: 0.0,
            rise: 0.3,
        }
    }
}

/// Length of a training, and intervals of logging, validation and checkpoints.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainSpec {
    /// Samples (images or crops) in a step.
    pub batch: usize,
    /// Gradient accumulation: number of equal parts of a batch that run one after the other. Their
    /// gradients are averaged before the update. More parts need less memory; the result is the
    /// same within rounding.
    pub accumulate: usize,
    /// Number format of maps (layer outputs and their gradients): `f32` or `f16`. `f16` halves
    /// their memory and traffic on adapters that support it. Sums, weights and optimiser state are
    /// always f32.
    pub precision: Precision,
    /// Loss scale for f16: gradients are multiplied by it so that they stay in the range of f16.
    /// 0 chooses the divisor of the loss, so that the gradient of a pixel has the scale of pixels.
    pub loss_scale: f64,
    /// Number of epochs.
    pub epochs: f64,
    /// Number of steps. A value above 0 replaces `epochs`.
    pub steps: u64,
    /// Steps between log lines.
    pub log_every: u64,
    /// Epochs between validations. One always runs at the end.
    pub validate_every: f64,
    /// Steps between checkpoints; 0 turns this trigger off. One is always written at the end.
    pub checkpoint_every: u64,
    /// Minutes between checkpoints; 0 turns this trigger off.
    pub checkpoint_minutes: f64,
    /// Number of checkpoints kept.
    pub keep: usize,
    /// Early stopping: validations without improvement after which training stops; 0 turns it off.
    #[serde(skip_serializing_if = "is_zero_usize")]
    pub patience: usize,
    /// Pretrained model to start from: a file, a run folder, or the name of a bundled model. Every
    /// parameter with the same name and shape is copied from it; the others are initialised.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// How often a training that diverges goes back to its best validation (or its start) and
    /// continues with half the learning rate. It diverges when a loss is not finite, or when the
    /// whole images of a restoration model are 2 dB below their best PSNR. 0: it stops at once.
    #[serde(skip_serializing_if = "is_zero")]
    pub retries: u32,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde passes a reference
pub(crate) const fn is_zero(count: &u32) -> bool {
    *count == 0
}

impl Default for TrainSpec {
    fn default() -> Self {
        Self {
            batch: 128,
            accumulate: 1,
            precision: Precision::F32,
            loss_scale: 0.0,
            epochs: 10.0,
            steps: 0,
            log_every: 50,
            validate_every: 1.0,
            checkpoint_every: 0,
            checkpoint_minutes: 5.0,
            keep: 1,
            patience: 0,
            from: None,
            retries: 0,
        }
    }
}
