//! The order of every epoch's samples.
//!
//! Reading an image costs more than cutting a sample from it, so samples of one image are taken several at a time: a visit. An epoch is a shuffled
//! list of visits, taken in groups; within a group samples are shuffled. A group is what a streaming thread reads at once; images in memory come in the
//! same order.

use std::ops::Range;

use crate::rng::Stream;
use crate::shape::Dims;

/// Samples of a visit, where they are small.
const VISIT: usize = 32;
/// Visits of a group, where they are small.
const GROUP: usize = 64;

/// Samples of a visit: no more than 1 MiB.
fn visit(dims: Dims) -> usize {
    ((1 << 20) / dims.len()).clamp(1, VISIT)
}

/// Visits of a group: about 32 MiB at most.
fn group(visit: usize, dims: Dims) -> usize {
    ((32 << 20) / (visit * dims.len())).clamp(GROUP / 2, GROUP)
}

/// Samples of a group at most.
pub(super) fn most_samples(dims: Dims) -> usize {
    let visit = visit(dims);
    group(visit, dims) * visit
}

/// The samples of an epoch before they are shuffled, and how they are taken.
#[derive(Clone, Debug)]
pub struct Samples {
    /// The image of each.
    images: Vec<u32>,
    visits: Vec<Range<usize>>,
    /// Visits of a group.
    group: usize,
}

/// The order of an epoch.
#[derive(Debug, PartialEq, Eq)]
pub struct Order {
    /// The image of each sample.
    pub images: Vec<u32>,
    /// Where each group begins, and the end.
    pub(super) groups: Vec<usize>,
}

impl Samples {
    /// Samples of the size `dims` of images in order, each with its number of samples and the file that it comes from; the whole list again until there
    /// are `least`.
    pub fn new(images: &[(usize, u32)], dims: Dims, least: usize) -> Self {
        let visit = visit(dims);
        let group = group(visit, dims);
        let mut out = Self { images: Vec::new(), visits: Vec::new(), group };
        let once: usize = images.iter().map(|(count, _)| count).sum();
        while once > 0 && out.images.len() < least.max(1) {
            let mut image = 0;
            for of_a_file in images.chunk_by(|a, b| a.1 == b.1) {
                let start = out.images.len();
                for (count, _) in of_a_file {
                    out.images.extend(std::iter::repeat_n(image, *count));
                    image += 1;
                }
                let end = out.images.len();
                out.visits.extend((start..end).step_by(visit).map(|at| at..(at + visit).min(end)));
            }
        }
        out
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.images.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.images.is_empty()
    }

    /// The order of an epoch.
    pub fn order(&self, seed: u64, epoch: u64) -> Order {
        let mut stream = Stream::new(seed, &format!("order of epoch {epoch}"));
        let visits = stream.permutation(self.visits.len());
        // Alone in their visits, samples are shuffled already.
        let mixed = self.visits.len() < self.images.len();
        let mut order = Order { images: Vec::with_capacity(self.len()), groups: Vec::new() };
        for group in visits.chunks(self.group) {
            let start = order.images.len();
            order.groups.push(start);
            let samples: Vec<u32> =
                group.iter().flat_map(|visit| &self.images[self.visits[*visit as usize].clone()]).copied().collect();
            if mixed {
                order.images.extend(stream.permutation(samples.len()).into_iter().map(|i| samples[i as usize]));
            } else {
                order.images.extend(samples);
            }
        }
        order.groups.push(order.images.len());
        order
    }

    /// Number of groups.
    pub(super) fn groups(&self) -> u64 {
        self.visits.len().div_ceil(self.group) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_has_every_sample_once_and_few_images_a_group() {
        let images: Vec<(usize, u32)> = (0..300).map(|i| (i % 70, i as u32)).collect();
        let samples = Samples::new(&images, Dims::new(3, 16, 16), 1);
        let order = samples.order(3, 5);
        let mut counts = vec![0; 300];
        order.images.iter().for_each(|image| counts[*image as usize] += 1);
        assert!(counts.iter().zip(&images).all(|(found, (wanted, _))| found == wanted));
        assert_eq!(order.groups.len() as u64, samples.groups() + 1);
        for group in order.groups.windows(2) {
            let mut inside = order.images[group[0]..group[1]].to_vec();
            let runs = inside.chunk_by(|a, b| a == b).count();
            assert!(runs > inside.len() / 2, "a group is shuffled");
            inside.sort_unstable();
            inside.dedup();
            assert!((2..=GROUP).contains(&inside.len()));
        }
        assert!(order != samples.order(3, 6) && order == samples.order(3, 5));
    }

    #[test]
    fn single_samples_are_shuffled_as_a_whole_and_patches_by_their_file() {
        let alone: Vec<(usize, u32)> = (0..1000).map(|i| (1, i)).collect();
        let samples = Samples::new(&alone, Dims::new(1, 8, 8), 1);
        assert_eq!(samples.visits.len(), 1000);
        assert_eq!(samples.order(1, 0).images, Stream::new(1, "order of epoch 0").permutation(1000));
        // 40 patches a file.
        let patches: Vec<(usize, u32)> = (0..1000).map(|i| (1, i / 40)).collect();
        let samples = Samples::new(&patches, Dims::new(1, 8, 8), 2500);
        assert_eq!((samples.visits.len(), samples.len()), (3 * 50, 3000));
    }
}
