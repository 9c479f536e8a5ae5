//! A segmenter judged by label images.

use super::marks::Marks;
use super::segmenter::{Segmenter, most_likely};
use super::set::Set;
use crate::data::Handles;
use crate::device::Device;
use crate::error::Result;

/// Probabilities that are held at a time, about.
const VALUES: usize = 1 << 23;

/// What a segmenter makes of a set.
#[derive(Clone, Debug)]
pub struct Judged {
    /// Pixels of all images.
    pub marks: Marks,
    /// The mean over images of each one's `mean_dice`.
    pub image_dice: f64,
}

/// Judges by some images of a set, told apart by their numbers. `look` is called after each with how many are done.
///
/// # Errors
/// When a file cannot be read any more, or the device fails.
pub fn judge(
    device: &mut Device,
    segmenter: &Segmenter,
    set: &Set,
    numbers: &[usize],
    mut look: impl FnMut(usize),
) -> Result<Judged> {
    let classes = segmenter.classes().len();
    let mut marks = Marks::new(classes);
    let (mut dice, mut handles, mut done) = (0.0, Handles::default(), 0);
    // runs of images of one size share a pass
    for run in numbers.chunk_by(|a, b| set.size(*a) == set.size(*b)) {
        let (h, w) = set.size(run[0]);
        for part in run.chunks((VALUES / (h * w * classes).max(1)).clamp(1, 16)) {
            let mut images = Vec::with_capacity(part.len());
            for number in part {
                images.push(set.bytes(*number, &mut handles)?.iter().map(|byte| f32::from(*byte) / 255.0).collect());
            }
            for (number, probabilities) in part.iter().zip(segmenter.probabilities(device, &images, h, w)?) {
                let mut of_image = Marks::new(classes);
                of_image.add(&set.classes(*number)?, &most_likely(&probabilities, classes));
                dice += of_image.scores().mean_dice;
                marks.join(&of_image);
                done += 1;
                look(done);
            }
        }
    }
    Ok(Judged { marks, image_dice: dice / numbers.len().max(1) as f64 })
}
