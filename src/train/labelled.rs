//! The order of the samples in an epoch, for training on labelled images.

use crate::rng::Stream;

/// Splits each epoch's samples, in random order, into batches.
#[derive(Clone, Debug)]
pub struct Epochs {
    samples: Vec<usize>,
    batch: usize,
    seed: u64,
    /// Steps per epoch.
    steps: usize,
    /// The epoch whose order is cached, and the order.
    order: Option<(u64, Vec<u32>)>,
}

impl Epochs {
    /// Creates batches of size `batch` from `samples`; a sample may occur more than once. The last
    /// batch of an epoch is filled up with the first samples of the same epoch.
    pub const fn new(samples: Vec<usize>, batch: usize, seed: u64) -> Self {
        let steps = samples.len().div_ceil(batch);
        Self { samples, batch, seed, steps, order: None }
    }

    /// Creates batches without repeated samples: no sample comes twice in an epoch. Each epoch
    /// leaves out the samples that do not fill a batch. There must be at least `batch` samples.
    pub const fn of_whole_batches(samples: Vec<usize>, batch: usize, seed: u64) -> Self {
        let steps = samples.len() / batch;
        Self { samples, batch, seed, steps, order: None }
    }

    /// Number of steps per epoch.
    pub const fn steps(&self) -> usize {
        self.steps
    }

    /// Returns the samples of a step, counted from 0.
    pub fn batch(&mut self, step: u64) -> Vec<usize> {
        let (epoch, at) = (step / self.steps as u64, (step % self.steps as u64) as usize);
        if self.order.as_ref().is_none_or(|(known, _)| *known != epoch) {
            let order = Stream::new(self.seed, "order")
                .skip((epoch + 1) * self.samples.len() as u64)
                .permutation(self.samples.len());
            self.order = Some((epoch, order));
        }
        let (_, order) = self.order.as_ref().expect("it was just set");
        let all = order.iter().cycle().skip(at * self.batch).take(self.batch);
        all.map(|i| self.samples[*i as usize]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_has_every_sample_and_fills_its_last_batch_from_the_front() {
        let mut epochs = Epochs::new(vec![10, 11, 12, 13, 14], 2, 3);
        assert_eq!(epochs.steps(), 3);
        let epoch = |epochs: &mut Epochs, first: u64| -> Vec<usize> {
            (first..first + 3).flat_map(|step| epochs.batch(step)).collect()
        };
        let (one, two) = (epoch(&mut epochs, 0), epoch(&mut epochs, 3));
        for order in [&one, &two] {
            let mut sorted = order[..5].to_vec();
            sorted.sort_unstable();
            assert_eq!(sorted, [10, 11, 12, 13, 14]);
            assert_eq!(order[5], order[0]);
        }
        assert_ne!(one, two);
        // A resumed run starts in the middle of an epoch.
        assert_eq!(Epochs::new(vec![10, 11, 12, 13, 14], 2, 3).batch(4), epochs.batch(4));
    }

    #[test]
    fn an_epoch_of_whole_batches_has_no_sample_twice() {
        let mut epochs = Epochs::of_whole_batches(vec![10, 11, 12, 13, 14], 2, 3);
        assert_eq!(epochs.steps(), 2);
        let mut seen = std::collections::BTreeSet::new();
        for epoch in 0..20 {
            let mut order: Vec<usize> =
                (2 * epoch..2 * epoch + 2).flat_map(|step| epochs.batch(step)).collect();
            seen.extend(order.iter().copied());
            order.sort_unstable();
            order.dedup();
            assert_eq!(order.len(), 4);
        }
        assert_eq!(seen.len(), 5);
    }
}
