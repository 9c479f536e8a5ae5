//! How well pixels are told apart.

use serde::Serialize;

use crate::data::annotations::label_image::NONE;

/// Pixels counted by their class and the one that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marks {
    classes: usize,
    /// Pixels of class i that were called j: `counts[i * classes + j]`.
    pub counts: Vec<u64>,
}

/// Shares, each between 0 and 1; None of a class that neither is nor was found anywhere.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Scores {
    /// Of each class: intersection over union of what it is and what was found.
    pub iou: Vec<Option<f64>>,
    /// Of each class: twice the intersection over the sum of both.
    pub dice: Vec<Option<f64>>,
    /// Mean of `iou`.
    pub mean_iou: f64,
    /// Mean of `dice`, without the first class where there are others: that is the background.
    pub mean_dice: f64,
    /// Pixels that were called what they are.
    pub pixel_accuracy: f64,
}

impl Marks {
    /// Nothing counted.
    pub fn new(classes: usize) -> Self {
        Self { classes, counts: vec![0; classes * classes] }
    }

    /// Counts an image's pixels; those whose class is [`NONE`] do not count.
    pub fn add(&mut self, truth: &[u8], found: &[u8]) {
        for (truth, found) in truth.iter().zip(found).filter(|(truth, _)| **truth != NONE) {
            self.counts[usize::from(*truth) * self.classes + usize::from(*found)] += 1;
        }
    }

    /// Adds another's counts.
    pub fn join(&mut self, other: &Self) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(all, count)| *all += count);
    }

    /// The scores.
    pub fn scores(&self) -> Scores {
        let n = self.classes;
        let count = |i: usize, j: usize| self.counts[i * n + j] as f64;
        let both: Vec<f64> = (0..n).map(|i| count(i, i)).collect();
        let sums: Vec<f64> =
            (0..n).map(|i| (0..n).map(|j| count(i, j) + count(j, i)).sum()).collect();
        let share = |part: f64, of: f64| (of > 0.0).then(|| part / of);
        let iou: Vec<Option<f64>> = (0..n).map(|i| share(both[i], sums[i] - both[i])).collect();
        let dice: Vec<Option<f64>> = (0..n).map(|i| share(2.0 * both[i], sums[i])).collect();
        let mean = |of: &[Option<f64>]| {
            let known: Vec<f64> = of.iter().flatten().copied().collect();
            known.iter().sum::<f64>() / known.len().max(1) as f64
        };
        let all: f64 = self.counts.iter().map(|count| *count as f64).sum();
        Scores {
            mean_iou: mean(&iou),
            mean_dice: mean(&dice[usize::from(n > 1)..]),
            pixel_accuracy: both.iter().sum::<f64>() / all.max(1.0),
            iou,
            dice,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_by_hand() {
        let mut marks = Marks::new(3);
        marks.add(&[0, 0, 1, 1, NONE], &[0, 1, 1, 1, 0]);
        let scores = marks.scores();
        assert_eq!(scores.iou, [Some(0.5), Some(2.0 / 3.0), None]);
        assert_eq!(scores.dice, [Some(2.0 / 3.0), Some(0.8), None]);
        assert_eq!([scores.mean_dice, scores.pixel_accuracy], [0.8, 0.75]);
        assert!((scores.mean_iou - 7.0 / 12.0).abs() < 1e-12);
        let mut twice = marks.clone();
        twice.join(&marks);
        assert_eq!(twice.scores(), scores);
        marks.add(&[2], &[0]);
        assert!(marks.scores() != scores);
    }
}
