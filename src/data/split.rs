//! Stratified random splits of labelled images: every class is represented in proportion.

use crate::error::{Error, Result};
use crate::rng::Stream;

/// The indices of the images of each class, in random order. `labels[i]` is the class of image i.
pub fn by_class(labels: &[u32], classes: usize, stream: &mut Stream) -> Vec<Vec<usize>> {
    let mut all = vec![Vec::new(); classes];
    for image in stream.permutation(labels.len()) {
        all[labels[image as usize] as usize].push(image as usize);
    }
    all
}

/// Splits images into a training set and a held-out set. Returns the indices of all images, the
/// training set first, and the size of the training set.
///
/// The held-out set gets the fraction `share` of each class, at least one image of each class that
/// has two or more. At least one image of each class is left for training.
pub fn held_out(labels: &[u32], classes: usize, share: f64, seed: u64) -> (Vec<usize>, usize) {
    let (mut fit, mut held) = (Vec::new(), Vec::<usize>::new());
    for images in by_class(labels, classes, &mut Stream::new(seed, "held out")) {
        let count = ((images.len() as f64 * share).round() as usize)
            .max(1)
            .min(images.len().saturating_sub(1));
        held.extend(&images[..count]);
        fit.extend(&images[count..]);
    }
    // Back to the order of the data, so that consecutive images are not all of one class.
    fit.sort_unstable();
    held.sort_unstable();
    let count = fit.len();
    fit.extend(held);
    (fit, count)
}

/// The indices of `count` random images of each class. `names` are the names of the classes.
///
/// # Errors
/// If a class has fewer images.
pub fn per_class(labels: &[u32], names: &[String], count: usize, seed: u64) -> Result<Vec<usize>> {
    let all = by_class(labels, names.len(), &mut Stream::new(seed, "labels"));
    if let Some((name, images)) = names.iter().zip(&all).find(|(_, images)| images.len() < count) {
        return Err(Error::usage(format!(
            "{count} labels per class are not available: class {name} has {} images",
            images.len()
        )));
    }
    Ok(all.iter().flat_map(|images| &images[..count]).copied().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_is_split_in_proportion() {
        let labels: Vec<u32> = (0..100).map(|i| u32::from(i % 10 == 0)).collect();
        let (order, fit) = held_out(&labels, 2, 0.2, 1);
        assert_eq!((order.len(), fit), (100, 80));
        let ones = |images: &[usize]| images.iter().filter(|image| labels[**image] == 1).count();
        assert_eq!((ones(&order[..fit]), ones(&order[fit..])), (8, 2));
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert!(sorted.iter().copied().eq(0..100));
        assert_ne!(order, held_out(&labels, 2, 0.2, 2).0, "the split depends on the seed");
    }

    #[test]
    fn a_class_of_one_image_is_trained_on() {
        assert_eq!(held_out(&[0, 0, 1], 2, 0.5, 0).1, 2);
    }

    #[test]
    fn per_class_takes_the_same_number_of_each() {
        let labels: Vec<u32> = (0..30).map(|i| i % 3).collect();
        let names = ["a", "b", "c"].map(String::from);
        let chosen = per_class(&labels, &names, 4, 7).unwrap();
        let count = |class| chosen.iter().filter(|image| labels[**image] == class).count();
        assert!((0..3).all(|class| count(class) == 4));
        assert_ne!(chosen, per_class(&labels, &names, 4, 8).unwrap());
    }

    #[test]
    fn a_class_with_too_few_images_is_refused() {
        let labels: Vec<u32> = (0..30).map(|i| i % 3).collect();
        let names = ["a", "b", "c"].map(String::from);
        let message = per_class(&labels, &names, 11, 7).unwrap_err().to_string();
        assert!(message.contains("class a has 10"), "{message}");
    }
}
