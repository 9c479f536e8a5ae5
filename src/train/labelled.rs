//! What trainings on labelled images share: the order of an epoch, and a loss for a head.

use crate::rng::Stream;

/// The samples of each epoch in random order, cut into batches. The last batch of an epoch is
/// filled up from the epoch's beginning.
#[derive(Clone, Debug)]
pub struct Epochs {
    samples: Vec<usize>,
    batch: usize,
    seed: u64,
    /// The epoch whose order is at hand, and the order.
    order: Option<(u64, Vec<u32>)>,
}

impl Epochs {
    /// Batches of `batch` of these samples; a sample may occur more than once.
    pub const fn new(samples: Vec<usize>, batch: usize, seed: u64) -> Self {
        Self { samples, batch, seed, order: None }
    }

    /// Steps of an epoch.
    pub const fn steps(&self) -> usize {
        self.samples.len().div_ceil(self.batch)
    }

    /// The samples of a step, from 0 on.
    pub fn batch(&mut self, step: u64) -> Vec<usize> {
        let steps = self.steps();
        let (epoch, at) = (step / steps as u64, (step % steps as u64) as usize);
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
        // A resumed run begins in the middle.
        assert_eq!(Epochs::new(vec![10, 11, 12, 13, 14], 2, 3).batch(4), epochs.batch(4));
    }
}
