//! Anomaly-detection metrics (AUROC, per-region overlap, thresholds) from histograms of scores. The
//! memory does not depend on the number of scores, so that they can be computed over all pixels of
//! a data set.

use crate::shape::Size;

/// Number of leading bits of a score that select its bin: the sign, the exponent and eight bits of
/// the mantissa. Scores of a bin, which differ by less than 0.4 %, count as equal. The three
/// histograms of 2¹⁷ bins take 3 MiB.
const BITS: u32 = 17;

/// Histograms of the scores of normal and defective images or pixels.
#[derive(Clone, Debug)]
pub struct ScoreHistogram {
    /// Scores of what is normal.
    normal: Vec<f64>,
    /// Scores of defects.
    defects: Vec<f64>,
    /// Scores of defective pixels, each with the weight 1/(size of its region).
    regions: Vec<f64>,
}

impl Default for ScoreHistogram {
    fn default() -> Self {
        let empty = || vec![0.0; 1 << BITS];
        Self { normal: empty(), defects: empty(), regions: empty() }
    }
}

/// The bin of a score. Bins are in the order of the scores.
const fn bin(score: f32) -> usize {
    let bits = score.to_bits();
    let ordered = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
    (ordered >> (32 - BITS)) as usize
}

impl ScoreHistogram {
    /// Adds the score of something normal.
    pub fn add_normal(&mut self, score: f32) {
        self.normal[bin(score)] += 1.0;
    }

    /// Adds the score of a defect.
    pub fn add_defect(&mut self, score: f32) {
        self.defects[bin(score)] += 1.0;
    }

    /// Adds the scores of the pixels of an image. `regions[i]` is the number of the defective
    /// region of pixel i, or 0 if the pixel is normal; see [`regions`].
    pub fn add_pixels(&mut self, scores: &[f32], regions: &[u32]) {
        let mut sizes = vec![0_usize; regions.iter().max().map_or(0, |max| *max as usize) + 1];
        regions.iter().for_each(|region| sizes[*region as usize] += 1);
        for (score, region) in scores.iter().zip(regions) {
            if *region == 0 {
                self.add_normal(*score);
            } else {
                self.add_defect(*score);
                self.regions[bin(*score)] += 1.0 / sizes[*region as usize] as f64;
            }
        }
    }

    /// Area under the receiver operating characteristic: the probability that a random defect has a
    /// higher score than a random normal one; ties count one half. `None` without scores of either
    /// kind.
    pub fn auroc(&self) -> Option<f64> {
        let (n, p) = (self.normal.iter().sum::<f64>(), self.defects.iter().sum::<f64>());
        let (mut below, mut area) = (0.0, 0.0);
        for (normal, defects) in self.normal.iter().zip(&self.defects) {
            area += defects * (below + 0.5 * normal);
            below += normal;
        }
        (n > 0.0 && p > 0.0).then(|| area / (n * p))
    }

    /// Normalised area under the per-region overlap curve (PRO; Bergmann et al., "MVTec AD", CVPR
    /// 2019). The curve has the mean fraction of a region that is detected over the false positive
    /// rate of normal pixels. The area up to the rate `limit` (0.3 in the paper) is divided by
    /// `limit`. `None` without regions or normal pixels.
    pub fn pro(&self, limit: f64) -> Option<f64> {
        let (n, r) = (self.normal.iter().sum::<f64>(), self.regions.iter().sum::<f64>());
        if n == 0.0 || r == 0.0 {
            return None;
        }
        let (mut x, mut y, mut area) = (0.0, 0.0, 0.0);
        for (normal, region) in self.normal.iter().zip(&self.regions).rev() {
            let (next_x, next_y) = (x + normal / n, y + region / r);
            if next_x >= limit {
                // The last segment of the curve ends at the limit.
                let share = if next_x > x { (limit - x) / (next_x - x) } else { 0.0 };
                area += (limit - x) * (y + 0.5 * share * (next_y - y));
                return Some(area / limit);
            }
            area += (next_x - x) * 0.5 * (y + next_y);
            (x, y) = (next_x, next_y);
        }
        Some((area + (limit - x) * y) / limit)
    }

    /// The threshold with a false positive rate of at most `rate` (0…1): that fraction of the
    /// normal scores is above it. It is exact to the width of a bin. `None` without normal scores,
    /// or if `rate` is 1 or more.
    pub fn threshold(&self, rate: f64) -> Option<f32> {
        let n = self.normal.iter().sum::<f64>();
        let mut above = 0.0;
        for (at, normal) in self.normal.iter().enumerate().rev() {
            if above + normal > rate * n {
                // The largest score of the bin.
                let ordered = ((at as u32 + 1) << (32 - BITS)).wrapping_sub(1);
                return Some(f32::from_bits(if ordered >> 31 == 1 {
                    ordered & !(1 << 31)
                } else {
                    !ordered
                }));
            }
            above += normal;
        }
        None
    }
}

/// Labels the connected components (8-connectivity) of a mask (H,W): returns the number of the
/// region of each pixel, from 1, and 0 outside the mask.
pub fn regions(mask: &[bool], size: Size) -> Vec<u32> {
    let Size { h, w } = size;
    let mut labels = vec![0_u32; size.area()];
    let (mut number, mut open) = (0, Vec::new());
    for first in 0..size.area() {
        if !mask[first] || labels[first] > 0 {
            continue;
        }
        number += 1;
        labels[first] = number;
        open.push(first);
        while let Some(at) = open.pop() {
            let (y, x) = (at / w, at % w);
            for y in y.saturating_sub(1)..(y + 2).min(h) {
                for x in x.saturating_sub(1)..(x + 2).min(w) {
                    let next = y * w + x;
                    if mask[next] && labels[next] == 0 {
                        labels[next] = number;
                        open.push(next);
                    }
                }
            }
        }
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auroc_counts_ordered_pairs() {
        let mut scores = ScoreHistogram::default();
        [0.1, 0.4, -3.0].into_iter().for_each(|score| scores.add_normal(score));
        [0.35, 0.8].into_iter().for_each(|score| scores.add_defect(score));
        // Five of six pairs are in order.
        assert!((scores.auroc().unwrap() - 5.0 / 6.0).abs() < 1e-12);
        // A tie counts one half.
        scores.add_defect(0.4);
        assert!((scores.auroc().unwrap() - 7.5 / 9.0).abs() < 1e-12);
        assert_eq!(ScoreHistogram::default().auroc(), None);
    }

    #[test]
    fn thresholds_keep_the_false_positive_rate() {
        let mut scores = ScoreHistogram::default();
        (0..1000).for_each(|i| scores.add_normal(i as f32 / 100.0 - 2.0));
        for (rate, about) in [(0.01, 7.895), (0.5, 2.995), (0.9, -1.005), (0.0, 7.99)] {
            let found = scores.threshold(rate).unwrap();
            let above =
                (0..1000).filter(|i| *i as f32 / 100.0 - 2.0 > found).count() as f64 / 1000.0;
            assert!(
                above <= rate && (found - about).abs() < 0.02,
                "{rate}: {found}, {above} above"
            );
        }
    }

    #[test]
    fn overlap_counts_regions_not_pixels() {
        // A region of 1 pixel with the highest score, and one of 4 pixels with the lowest.
        let mask = [true, false, true, true, false, false, true, true];
        let labels = regions(&mask, Size::new(2, 4));
        assert_eq!(labels, [1, 0, 2, 2, 0, 0, 2, 2]);
        let mut scores = ScoreHistogram::default();
        scores.add_pixels(&[9.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0], &labels);
        assert!((scores.pro(0.3).unwrap() - 0.5).abs() < 1e-12);
        assert!((scores.auroc().unwrap() - 0.2).abs() < 1e-12);
        let mut perfect = ScoreHistogram::default();
        perfect.add_pixels(&[9.0, 1.0, 9.0, 9.0, 1.0, 1.0, 9.0, 9.0], &labels);
        assert!((perfect.pro(0.3).unwrap() - 1.0).abs() < 1e-12);
    }

    #[test]
    fn diagonal_neighbours_are_one_region() {
        assert_eq!(regions(&[true, false, false, true], Size::new(2, 2)), [1, 0, 0, 1]);
    }
}
