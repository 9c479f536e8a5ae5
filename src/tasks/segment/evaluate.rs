//! Evaluation of a segmenter with label images.

use super::segmenter::{Segmenter, most_likely};
use crate::annotations::label_set::SegmentationSet;
use crate::data::Handles;
use crate::device::Device;
use crate::error::Result;
use crate::metrics::segmentation::PixelConfusion;

/// Results of a segmenter on a set.
#[derive(Clone, Debug)]
pub struct SegmentationScores {
    /// Confusion of the classes over the pixels of all images.
    pub confusion: PixelConfusion,
    /// Mean over images of their `mean_dice`.
    pub image_dice: f64,
}

/// Evaluates a segmenter on the images of a set with these indices. `progress` is called after each
/// image with the number of images done.
///
/// # Errors
/// When a file cannot be read, or the device fails.
pub fn evaluate(
    device: &mut Device,
    segmenter: &Segmenter,
    set: &SegmentationSet,
    indices: &[usize],
    mut progress: impl FnMut(usize),
) -> Result<SegmentationScores> {
    let classes = segmenter.classes().len();
    let mut confusion = PixelConfusion::new(classes);
    let (mut dice, mut handles, mut done) = (0.0, Handles::default(), 0);
    // Images of the same size share a pass.
    for run in indices.chunk_by(|a, b| set.size(*a) == set.size(*b)) {
        let size = set.size(run[0]);
        let plan = segmenter.plan(device, size)?;
        let mut pass = plan.pass();
        for index in run {
            let pixels: Vec<f32> = set
                .bytes(*index, &mut handles)?
                .iter()
                .map(|byte| f32::from(*byte) / 255.0)
                .collect();
            let found = most_likely(&pass.probabilities(device, &pixels)?, classes);
            let mut of_image = PixelConfusion::new(classes);
            of_image.add(&set.classes(*index)?, &found);
            dice += of_image.scores().mean_dice;
            confusion.join(&of_image);
            done += 1;
            progress(done);
        }
    }
    Ok(SegmentationScores { confusion, image_dice: dice / indices.len().max(1) as f64 })
}
