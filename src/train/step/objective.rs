//! What a step minimises: the reconstruction loss of an autoencoder, or the loss of a head.

use crate::ops::{Augment, GatherBatch, LossKind};
use crate::record::Builder;
use crate::sample_type::SampleType;
use crate::shape::Dims;
use crate::spec::{CorruptionSpec, SparsitySpec};
use crate::view::View;

/// Number of scalars that one step reserves in the ring of scalars.
pub const WIDTH: usize = 8;
/// Index of the reconstruction loss.
pub const RECONSTRUCTION: usize = 0;
/// Index of the sparsity penalty, including λ and its warm-up.
pub const SPARSITY: usize = 1;
/// Index of the mean number of code units ≠ 0 per sample.
pub const L0: usize = 2;
/// Index of the global gradient norm before clipping.
pub const GRAD_NORM: usize = 3;
/// Index of the auxiliary loss of dead units, without its weight.
pub const AUXILIARY: usize = 4;

/// Data on the device that batches are gathered from.
#[derive(Clone, Copy, Debug)]
pub struct Resident {
    /// Packed bytes of all images.
    pub bytes: View,
    /// Offset, height and width of each image.
    pub table: View,
    /// Offset and divisor of each channel.
    pub scales: View,
    /// Order of the samples in the epoch.
    pub order: View,
    /// Type of the stored samples.
    pub sample: SampleType,
    /// Random crops and flips.
    pub augment: Augment,
}

impl Resident {
    /// Gathers `n` samples of size `dims`.
    pub(super) const fn gather(self, n: usize, dims: Dims, x: View) -> GatherBatch {
        let Self { bytes, table, scales, order, sample, augment } = self;
        GatherBatch { n, dims, augment, sample, bytes, table, order, scales, x }
    }
}

/// What a step minimises.
#[derive(Debug)]
pub enum Objective<'a> {
    /// Reconstruction loss of an autoencoder, plus the sparsity penalty on its code.
    Reconstruction(Reconstruction<'a>),
    /// Loss of a head against labels.
    Labels(&'a dyn LabelLoss),
}

/// The objective of an autoencoder.
#[derive(Clone, Debug)]
pub struct Reconstruction<'a> {
    /// Corruption of the samples before the model sees them.
    pub corruption: &'a CorruptionSpec,
    /// Reconstruction loss.
    pub loss: LossKind,
    /// Sparsity penalty, and resurrection of dead units.
    pub sparsity: &'a SparsitySpec,
    /// Data that batches are gathered from; without it the host writes batches into `x`.
    pub resident: Option<Resident>,
    /// Compressed images and their levels, for [`CorruptionSpec::quality`]. Without them the step
    /// can be planned, but not run.
    pub compressed: Option<Box<[Resident; 2]>>,
    /// Whether L0 is counted.
    pub count_code: bool,
    /// Whether samples can have missing values, which are filled and left out of the loss.
    pub masks_missing: bool,
}

/// A loss against labels, which the host writes for each batch, or against the input.
pub trait LabelLoss: std::fmt::Debug {
    /// Records the loss of a part of `n` samples. It reads `output.y` and the labels, and writes
    /// `output.dy` and its terms, from index 0 of `output.scalars` on. Returns the views of the
    /// labels in the order in which the host writes them; none if the target is the input.
    fn record(&self, b: &mut Builder, output: Output, n: usize) -> Vec<View>;

    /// Names of the loss terms, which come first among a step's scalars.
    fn terms(&self) -> &'static [&'static str];

    /// Records constraints on the parameters after the update, besides those of the layers.
    fn constrain(&self, _: &mut Builder) {}

    /// Approximate divisor of the loss over a batch of `n` samples. It is the default scale of
    /// half-precision gradients.
    fn divisor(&self, n: usize) -> f64;
}

/// Buffers that a loss against labels reads and writes.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    /// The model's output.
    pub y: View,
    /// Gradient of the loss with respect to `y`.
    pub dy: View,
    /// Ring of scalars, [`WIDTH`] per step.
    pub scalars: View,
}
