//! The order of the samples in each epoch.
//!
//! Reading an image costs more than cutting a sample from it, so several samples of an image are
//! used together. These samples are a chunk.
//!
//! An epoch is a shuffled list of chunks, divided into groups; the samples of a group are shuffled.
//! A streaming thread reads one group at a time. Images in memory use the same order.

use std::ops::Range;

use crate::error::{Error, Result};
use crate::rng::Stream;
use crate::shape::Dims;

/// Maximum number of samples of a chunk.
const CHUNK: usize = 32;
/// Maximum number of chunks of a group.
const GROUP: usize = 64;
/// Number of epochs whose orders are cached: threads work at the end of one epoch and at the start
/// of the next.
pub(super) const ORDERS: usize = 2;

/// Number of samples of a chunk: at most 1 MiB.
fn chunk(dims: Dims) -> usize {
    ((1 << 20) / dims.len()).clamp(1, CHUNK)
}

/// Number of chunks of a group: about 32 MiB at most.
fn group(chunk: usize, dims: Dims) -> usize {
    ((32 << 20) / (chunk * dims.len())).clamp(GROUP / 2, GROUP)
}

/// The samples of an epoch before shuffling, and their division into chunks. Memory grows only with
/// the number of images and chunks.
#[derive(Clone, Debug)]
pub struct Samples {
    /// The first sample of each image, and the end; `None` if every image has one sample.
    starts: Option<Vec<u32>>,
    /// The first sample of each chunk, and the end.
    chunks: Vec<u32>,
    /// Number of samples of all images.
    per_round: usize,
    /// Number of times that each sample occurs in an epoch.
    rounds: usize,
    /// Number of chunks of a group.
    group: usize,
}

/// The order of an epoch.
#[derive(Debug, PartialEq, Eq)]
pub struct Order {
    /// The image of each sample.
    pub images: Vec<u32>,
    /// Index of the first sample of each group, and the end.
    pub(super) groups: Vec<usize>,
}

impl Samples {
    /// Lists samples of size `dims`. For each image, `images` yields its number of samples and
    /// whether it is in the same file as the previous image. The list is repeated until it has
    /// `min` samples.
    ///
    /// # Errors
    /// If the number of samples exceeds `u32::MAX`.
    pub fn new(
        images: impl Iterator<Item = (usize, bool)>,
        dims: Dims,
        min: usize,
    ) -> Result<Self> {
        let chunk = chunk(dims);
        let (mut starts, mut chunks, mut file, mut at) =
            (None::<Vec<u32>>, Vec::new(), 0_u32, 0_u32);
        for (image, (count, same_file)) in images.enumerate() {
            if !same_file {
                chunks.extend((file..at).step_by(chunk));
                file = at;
            }
            if count != 1 && starts.is_none() {
                starts = Some((0..=image as u32).collect());
            }
            let end = u32::try_from(count).ok().and_then(|count| at.checked_add(count));
            at = end.ok_or_else(|| {
                Error::usage(format!(
                    "the images give more than {} samples per epoch: use fewer or smaller images, \
                     or a lower data.crops_per_image",
                    u32::MAX
                ))
            })?;
            starts.iter_mut().for_each(|starts| starts.push(at));
        }
        chunks.extend((file..at).step_by(chunk));
        chunks.push(at);
        let per_round = at as usize;
        let rounds = if per_round == 0 { 0 } else { min.max(1).div_ceil(per_round) };
        Ok(Self { starts, chunks, per_round, rounds, group: group(chunk, dims) })
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.per_round * self.rounds
    }

    /// Whether there are no samples.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the image of a sample.
    fn image(&self, sample: usize) -> u32 {
        let sample = sample % self.per_round;
        self.starts
            .as_ref()
            .map_or(sample, |starts| starts.partition_point(|start| *start as usize <= sample) - 1)
            as u32
    }

    /// Number of chunks.
    fn chunks(&self) -> usize {
        (self.chunks.len() - 1) * self.rounds
    }

    /// Range of samples of a chunk.
    fn chunk(&self, chunk: usize) -> Range<usize> {
        let each = self.chunks.len() - 1;
        let (first, at) = (chunk / each * self.per_round, chunk % each);
        first + self.chunks[at] as usize..first + self.chunks[at + 1] as usize
    }

    /// Returns the order of an epoch.
    pub fn order(&self, seed: u64, epoch: u64) -> Order {
        let mut stream = Stream::new(seed, &format!("order of epoch {epoch}"));
        let chunks = stream.permutation(self.chunks());
        // If each chunk has one sample, shuffling the chunks is enough.
        let mixed = self.chunks() < self.len();
        let mut order = Order {
            images: Vec::with_capacity(self.len()),
            groups: Vec::with_capacity(self.groups() as usize + 1),
        };
        for group in chunks.chunks(self.group) {
            let start = order.images.len();
            order.groups.push(start);
            let samples: Vec<u32> = group
                .iter()
                .flat_map(|chunk| self.chunk(*chunk as usize))
                .map(|sample| self.image(sample))
                .collect();
            if mixed {
                order.images.extend(
                    stream.permutation(samples.len()).into_iter().map(|i| samples[i as usize]),
                );
            } else {
                order.images.extend(samples);
            }
        }
        order.groups.push(order.images.len());
        order
    }

    /// Number of groups.
    pub(super) fn groups(&self) -> u64 {
        self.chunks().div_ceil(self.group) as u64
    }

    /// Maximum number of samples of a group: that of the largest chunks.
    pub(super) fn max_group_len(&self) -> usize {
        let mut lengths: Vec<u32> = self.chunks.windows(2).map(|pair| pair[1] - pair[0]).collect();
        lengths.sort_unstable_by(|a, b| b.cmp(a));
        let all =
            lengths.iter().flat_map(|length| std::iter::repeat_n(*length as usize, self.rounds));
        all.take(self.group).sum()
    }

    /// Bytes of the stored lists.
    pub(super) fn bytes(&self) -> u64 {
        4 * (self.starts.as_ref().map_or(0, Vec::len) + self.chunks.len()) as u64
    }

    /// Bytes of [`ORDERS`] epochs' orders and of the permutation that an order is made from, for an
    /// epoch of at least `min` samples.
    pub(super) fn order_bytes(&self, min: usize) -> u64 {
        let rounds = min.max(1).div_ceil(self.per_round.max(1)) as u64;
        let chunks = (self.chunks.len() as u64 - 1).saturating_mul(rounds);
        let groups = chunks.div_ceil(self.group as u64) + 1;
        let order = (self.per_round as u64)
            .saturating_mul(rounds)
            .saturating_mul(4)
            .saturating_add(8 * groups);
        order.saturating_mul(ORDERS as u64).saturating_add(chunks.saturating_mul(4))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_has_every_sample_once_and_few_images_a_group() {
        let images: Vec<(usize, bool)> = (0..300).map(|i| (i % 70, false)).collect();
        let samples = Samples::new(images.iter().copied(), Dims::new(3, 16, 16), 1).unwrap();
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
            assert!(group[1] - group[0] <= samples.max_group_len());
        }
        assert!(order != samples.order(3, 6) && order == samples.order(3, 5));
    }

    #[test]
    fn single_samples_are_shuffled_as_a_whole_and_patches_by_their_file() {
        let alone = (0..1000).map(|_| (1, false));
        let samples = Samples::new(alone, Dims::new(1, 8, 8), 1).unwrap();
        assert_eq!((samples.chunks(), samples.max_group_len()), (1000, GROUP));
        assert_eq!(
            samples.order(1, 0).images,
            Stream::new(1, "order of epoch 0").permutation(1000)
        );
        // 40 patches per file.
        let patches = (0..1000).map(|i| (1, i % 40 > 0));
        let samples = Samples::new(patches, Dims::new(1, 8, 8), 2500).unwrap();
        assert_eq!((samples.chunks(), samples.len()), (3 * 50, 3000));
        let mut counts = [0; 1000];
        samples.order(1, 0).images.iter().for_each(|image| counts[*image as usize] += 1);
        assert_eq!(counts, [3; 1000]);
    }

    #[test]
    fn list_sizes_grow_with_chunks_and_too_many_samples_are_refused() {
        let dims = Dims::new(1, 8, 8);
        // A million patches from a thousand files, then a thousand images with 1000 crops each.
        let patches = Samples::new((0..1_000_000).map(|i| (1, i % 1000 > 0)), dims, 1).unwrap();
        assert_eq!(patches.bytes(), 4 * (32 * 1000 + 1));
        let crops = Samples::new((0..1000).map(|_| (1000, false)), dims, 1).unwrap();
        assert_eq!(crops.bytes(), 4 * (1001 + 32 * 1000 + 1));
        let order = crops.order(1, 0);
        let held = 4 * order.images.capacity() + 8 * order.groups.capacity();
        assert_eq!(crops.order_bytes(1), (ORDERS * held + 4 * crops.chunks()) as u64);
        // Planning a batch that exceeds any memory must not allocate a list.
        assert!(
            Samples::new((0..1000).map(|_| (1, false)), dims, 4_000_000_000)
                .unwrap()
                .order_bytes(4_000_000_000)
                > 32 << 30
        );
        let error =
            Samples::new((0..2).map(|_| (3_000_000_000, false)), dims, 1).unwrap_err().to_string();
        assert!(error.contains("data.crops_per_image"), "{error}");
    }
}
