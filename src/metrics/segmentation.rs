//! Segmentation metrics: intersection over union, Dice and pixel accuracy.

use serde::Serialize;

use crate::annotations::label_image::IGNORED;

/// The confusion matrix of pixels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PixelConfusion {
    classes: usize,
    /// Number of pixels of class i that were predicted as j: `counts[i * classes + j]`.
    pub counts: Vec<u64>,
}

/// Segmentation scores, each between 0 and 1. A class that occurs neither in the ground truth nor
/// in the predictions has `None`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Scores {
    /// Intersection over union of ground truth and prediction, for each class.
    pub iou: Vec<Option<f64>>,
    /// Dice coefficient, for each class: twice the intersection over the sum of both areas.
    pub dice: Vec<Option<f64>>,
    /// Mean of `iou`.
    pub mean_iou: f64,
    /// Mean of `dice`. The first class, the background, is left out unless it is the only one.
    pub mean_dice: f64,
    /// Fraction of the pixels that were predicted correctly.
    pub pixel_accuracy: f64,
}

impl PixelConfusion {
    /// The matrix of no pixels.
    pub fn new(classes: usize) -> Self {
        Self { classes, counts: vec![0; classes * classes] }
    }

    /// Adds the pixels of an image. Pixels whose true class is [`IGNORED`] do not count.
    pub fn add(&mut self, truth: &[u8], predicted: &[u8]) {
        for (truth, predicted) in
            truth.iter().zip(predicted).filter(|(truth, _)| **truth != IGNORED)
        {
            self.counts[usize::from(*truth) * self.classes + usize::from(*predicted)] += 1;
        }
    }

    /// Adds the counts of another matrix with the same classes.
    pub fn join(&mut self, other: &Self) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(all, count)| *all += count);
    }

    /// The scores of all pixels so far.
    pub fn scores(&self) -> Scores {
        let n = self.classes;
        let count = |i: usize, j: usize| self.counts[i * n + j] as f64;
        let intersections: Vec<f64> = (0..n).map(|i| count(i, i)).collect();
        let sums: Vec<f64> =
            (0..n).map(|i| (0..n).map(|j| count(i, j) + count(j, i)).sum()).collect();
        let ratio = |part: f64, whole: f64| (whole > 0.0).then(|| part / whole);
        let iou: Vec<Option<f64>> =
            (0..n).map(|i| ratio(intersections[i], sums[i] - intersections[i])).collect();
        let dice: Vec<Option<f64>> =
            (0..n).map(|i| ratio(2.0 * intersections[i], sums[i])).collect();
        let mean = |scores: &[Option<f64>]| {
            let defined: Vec<f64> = scores.iter().flatten().copied().collect();
            defined.iter().sum::<f64>() / defined.len().max(1) as f64
        };
        let all: f64 = self.counts.iter().map(|count| *count as f64).sum();
        Scores {
            mean_iou: mean(&iou),
            mean_dice: mean(&dice[usize::from(n > 1)..]),
            pixel_accuracy: intersections.iter().sum::<f64>() / all.max(1.0),
            iou,
            dice,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_equal_hand_counts() {
        let mut confusion = PixelConfusion::new(3);
        confusion.add(&[0, 0, 1, 1, IGNORED], &[0, 1, 1, 1, 0]);
        let scores = confusion.scores();
        assert_eq!(scores.iou, [Some(0.5), Some(2.0 / 3.0), None]);
        assert_eq!(scores.dice, [Some(2.0 / 3.0), Some(0.8), None]);
        assert_eq!([scores.mean_dice, scores.pixel_accuracy], [0.8, 0.75]);
        assert!((scores.mean_iou - 7.0 / 12.0).abs() < 1e-12);
    }

    #[test]
    fn joined_counts_are_sums() {
        let mut confusion = PixelConfusion::new(3);
        confusion.add(&[0, 0, 1, 1], &[0, 1, 1, 1]);
        let scores = confusion.scores();
        let mut twice = confusion.clone();
        twice.join(&confusion);
        assert_eq!(twice.counts, [2, 2, 0, 0, 4, 0, 0, 0, 0]);
        assert_eq!(twice.scores(), scores);
        confusion.add(&[2], &[0]);
        assert!(confusion.scores() != scores);
    }
}
