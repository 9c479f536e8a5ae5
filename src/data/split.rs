//! Which labelled images are learned from, and which are held out: evenly over the classes, by the
//! seed.

use crate::error::{Error, Result};
use crate::rng::Stream;

/// The images of each class, in a random order.
pub fn by_class(of: &[u32], classes: usize, stream: &mut Stream) -> Vec<Vec<usize>> {
    let mut all = vec![Vec::new(); classes];
    for image in stream.permutation(of.len()) {
        all[of[image as usize] as usize].push(image as usize);
    }
    all
}

/// All images, those to fit to first, then those held out, a share of each class (one at least
/// where a class has two); and how many are to fit to.
pub fn held_out(of: &[u32], classes: usize, share: f64, seed: u64) -> (Vec<usize>, usize) {
    let (mut fit, mut held) = (Vec::new(), Vec::<usize>::new());
    for images in by_class(of, classes, &mut Stream::new(seed, "held out")) {
        let count = ((images.len() as f64 * share).round() as usize)
            .max(1)
            .min(images.len().saturating_sub(1));
        held.extend(&images[..count]);
        fit.extend(&images[count..]);
    }
    // in the data's order, so that neighbours in memory are of all classes
    fit.sort_unstable();
    held.sort_unstable();
    let count = fit.len();
    fit.extend(held);
    (fit, count)
}

/// So many images of each class, drawn by the seed.
///
/// # Errors
/// When a class has fewer.
pub fn per_class(of: &[u32], names: &[String], wanted: usize, seed: u64) -> Result<Vec<usize>> {
    let all = by_class(of, names.len(), &mut Stream::new(seed, "labels"));
    if let Some((name, images)) = names.iter().zip(&all).find(|(_, images)| images.len() < wanted) {
        return Err(Error::usage(format!(
            "{wanted} labels a class: class {name} has {} images",
            images.len()
        )));
    }
    Ok(all.iter().flat_map(|images| &images[..wanted]).copied().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_split_alike() {
        let of: Vec<u32> = (0..100).map(|i| u32::from(i % 10 == 0)).collect();
        let (order, fit) = held_out(&of, 2, 0.2, 1);
        assert_eq!((order.len(), fit), (100, 80));
        let ones = |images: &[usize]| images.iter().filter(|image| of[**image] == 1).count();
        assert_eq!((ones(&order[..fit]), ones(&order[fit..])), (8, 2));
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert!(sorted.iter().copied().eq(0..100));
        assert_ne!(order, held_out(&of, 2, 0.2, 2).0);
        // a class of one is fitted to
        assert_eq!(held_out(&[0, 0, 1], 2, 0.5, 0).1, 2);
    }

    #[test]
    fn labels_are_drawn_evenly() {
        let of: Vec<u32> = (0..30).map(|i| i % 3).collect();
        let names = ["a", "b", "c"].map(String::from);
        let drawn = per_class(&of, &names, 4, 7).unwrap();
        assert!((0..3).all(|class| drawn.iter().filter(|image| of[**image] == class).count() == 4));
        assert_ne!(drawn, per_class(&of, &names, 4, 8).unwrap());
        assert!(per_class(&of, &names, 11, 7).unwrap_err().to_string().contains("class a has 10"));
    }
}
