//! Finetuning: training of an encoder with a classification head on labelled images, and learning
//! curves over the number of labels, pretrained and from scratch.

mod curve;
mod data;
mod tuner;

pub use curve::{Arm, Curve, Point, paired_t};
pub use data::{Augment, Labelled};
pub use tuner::{Classification, ClassificationResult, begin_training, best};

use crate::data::split::by_class;
use crate::error::{Error, Result};
use crate::rng::Stream;

/// Chooses `wanted` labelled images at random, evenly over the classes that occur. If they do not
/// divide evenly, the first classes have one more.
///
/// # Errors
/// When `wanted` is smaller than the number of classes, or a class has too few images.
pub fn draw(data: &Labelled, wanted: usize, seed: u64) -> Result<Vec<usize>> {
    let all = by_class(&data.of, data.classes.len(), &mut Stream::new(seed, "labels"));
    let classes = all.iter().filter(|images| !images.is_empty()).count();
    if wanted < classes {
        return Err(Error::usage(format!(
            "{wanted} labels for {classes} classes are too few; use at least {classes}"
        )));
    }
    let mut drawn = Vec::with_capacity(wanted);
    let occurring = all.iter().zip(&data.classes).filter(|(images, _)| !images.is_empty());
    for (i, (images, name)) in occurring.enumerate() {
        let count = wanted / classes + usize::from(i < wanted % classes);
        if images.len() < count {
            return Err(Error::usage(format!(
                "{wanted} labels need {count} images of class {name}, which has only {}; use \
                 fewer labels",
                images.len()
            )));
        }
        drawn.extend(&images[..count]);
    }
    Ok(drawn)
}

/// Splits images into training images and held-out images, with the same share of each class. The
/// only image of a class is a training image.
pub fn split(data: &Labelled, images: &[usize], share: f64, seed: u64) -> (Vec<usize>, Vec<usize>) {
    let of: Vec<u32> = images.iter().map(|image| data.of[*image]).collect();
    let (order, fit) = crate::data::split::held_out(&of, data.classes.len(), share, seed);
    let named = |places: &[usize]| places.iter().map(|place| images[*place]).collect();
    (named(&order[..fit]), named(&order[fit..]))
}
