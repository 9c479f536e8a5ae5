//! A segmenter judged by label images.

use super::segmenter::{Segmenter, most_likely};
use crate::data::Handles;
use crate::data::annotations::label_set::SegmentationSet;
use crate::device::Device;
use crate::error::Result;
use crate::metrics::segmentation::PixelConfusion;

/// What a segmenter makes of a set.
#[derive(Clone, Debug)]
pub struct Judged {
    /// Pixels of all images.
    pub marks: PixelConfusion,
    /// The mean over images of each one's `mean_dice`.
    pub image_dice: f64,
}

/// Judges by some images of a set, told apart by their numbers. `look` is called after each with
/// how many are done.
///
/// # Errors
/// When a file cannot be read any more, or the device fails.
pub fn judge(
    device: &mut Device,
    segmenter: &Segmenter,
    set: &SegmentationSet,
    numbers: &[usize],
    mut look: impl FnMut(usize),
) -> Result<Judged> {
    let classes = segmenter.classes().len();
    let mut marks = PixelConfusion::new(classes);
    let (mut dice, mut handles, mut done) = (0.0, Handles::default(), 0);
    // images of one size share a pass
    for run in numbers.chunk_by(|a, b| set.size(*a) == set.size(*b)) {
        let (h, w) = set.size(run[0]);
        let laid = segmenter.laid(device, h, w)?;
        let mut pass = laid.pass();
        for number in run {
            let pixels: Vec<f32> = set
                .bytes(*number, &mut handles)?
                .iter()
                .map(|byte| f32::from(*byte) / 255.0)
                .collect();
            let found = most_likely(&pass.probabilities(device, &pixels)?, classes);
            let mut of_image = PixelConfusion::new(classes);
            of_image.add(&set.classes(*number)?, &found);
            dice += of_image.scores().mean_dice;
            marks.join(&of_image);
            done += 1;
            look(done);
        }
    }
    Ok(Judged { marks, image_dice: dice / numbers.len().max(1) as f64 })
}
