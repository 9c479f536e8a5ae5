//! How well scores tell defects from what is normal, in memory that does not depend on how many
//! there are.

/// Bits of a score that are kept: sign, exponent and eight bits of the mantissa, so that scores
/// within a 250th of each other are taken for equal.
const BITS: u32 = 17;

/// Scores counted by value.
#[derive(Clone, Debug)]
pub struct Ranks {
    /// Normal ones.
    normal: Vec<f64>,
    /// Defects.
    defects: Vec<f64>,
    /// Defects, each pixel weighed by one over its region's size.
    regions: Vec<f64>,
}

impl Default for Ranks {
    fn default() -> Self {
        let none = || vec![0.0; 1 << BITS];
        Self { normal: none(), defects: none(), regions: none() }
    }
}

/// The bin of a score, in the order of scores.
const fn bin(score: f32) -> usize {
    let bits = score.to_bits();
    let ordered = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
    (ordered >> (32 - BITS)) as usize
}

impl Ranks {
    /// A score of something normal.
    pub fn normal(&mut self, score: f32) {
        self.normal[bin(score)] += 1.0;
    }

    /// A score of a defect.
    pub fn defect(&mut self, score: f32) {
        self.defects[bin(score)] += 1.0;
    }

    /// Scores of an image's pixels, and the region of each, 0 for normal ones; see [`regions`].
    pub fn pixels(&mut self, scores: &[f32], regions: &[u32]) {
        let mut sizes = vec![0_usize; regions.iter().max().map_or(0, |most| *most as usize) + 1];
        regions.iter().for_each(|region| sizes[*region as usize] += 1);
        for (score, region) in scores.iter().zip(regions) {
            if *region == 0 {
                self.normal(*score);
            } else {
                self.defect(*score);
                self.regions[bin(*score)] += 1.0 / sizes[*region as usize] as f64;
            }
        }
    }

    /// Area under the receiver operating characteristic: the chance that a defect scores above
    /// something normal, half of it where they are equal. None without either.
    pub fn auroc(&self) -> Option<f64> {
        let (n, p) = (self.normal.iter().sum::<f64>(), self.defects.iter().sum::<f64>());
        let (mut below, mut area) = (0.0, 0.0);
        for (normal, defects) in self.normal.iter().zip(&self.defects) {
            area += defects * (below + 0.5 * normal);
            below += normal;
        }
        (n > 0.0 && p > 0.0).then(|| area / (n * p))
    }

    /// Per-region overlap (Bergmann et al., "MVTec AD", 2019): the mean share of a region that is
    /// found, over the share of normal pixels that are too, up to `limit` of them, 0.3 as
    /// published; divided by `limit`. None without regions or normal pixels.
    pub fn pro(&self, limit: f64) -> Option<f64> {
        let (n, r) = (self.normal.iter().sum::<f64>(), self.regions.iter().sum::<f64>());
        if n == 0.0 || r == 0.0 {
            return None;
        }
        let (mut x, mut y, mut area) = (0.0, 0.0, 0.0);
        for (normal, region) in self.normal.iter().zip(&self.regions).rev() {
            let (next_x, next_y) = (x + normal / n, y + region / r);
            if next_x >= limit {
                // the last piece ends at the limit
                let share = if next_x > x { (limit - x) / (next_x - x) } else { 0.0 };
                area += (limit - x) * (y + 0.5 * share * (next_y - y));
                return Some(area / limit);
            }
            area += (next_x - x) * 0.5 * (y + next_y);
            (x, y) = (next_x, next_y);
        }
        Some((area + (limit - x) * y) / limit)
    }

    /// The score that at most a share `rate` of the normal ones lie above, within the width of a
    /// bin.
    pub fn threshold(&self, rate: f64) -> Option<f32> {
        let n = self.normal.iter().sum::<f64>();
        let mut above = 0.0;
        for (at, normal) in self.normal.iter().enumerate().rev() {
            if above + normal > rate * n {
                // the upper end of the bin
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

/// Numbers the regions of a mask from 1; pixels that touch, diagonally too, are of one. 0 where the
/// mask is off.
pub fn regions(mask: &[bool], h: usize, w: usize) -> Vec<u32> {
    let mut of = vec![0_u32; h * w];
    let (mut number, mut open) = (0, Vec::new());
    for first in 0..h * w {
        if !mask[first] || of[first] > 0 {
            continue;
        }
        number += 1;
        of[first] = number;
        open.push(first);
        while let Some(at) = open.pop() {
            let (y, x) = (at / w, at % w);
            for y in y.saturating_sub(1)..(y + 2).min(h) {
                for x in x.saturating_sub(1)..(x + 2).min(w) {
                    let next = y * w + x;
                    if mask[next] && of[next] == 0 {
                        of[next] = number;
                        open.push(next);
                    }
                }
            }
        }
    }
    of
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn areas_by_hand() {
        let mut ranks = Ranks::default();
        [0.1, 0.4, -3.0].into_iter().for_each(|score| ranks.normal(score));
        [0.35, 0.8].into_iter().for_each(|score| ranks.defect(score));
        // of six pairs five are in order
        assert!((ranks.auroc().unwrap() - 5.0 / 6.0).abs() < 1e-12);
        ranks.defect(0.4);
        assert!((ranks.auroc().unwrap() - 7.5 / 9.0).abs() < 1e-12);
        assert_eq!(Ranks::default().auroc(), None);
    }

    #[test]
    fn thresholds_leave_a_share_above() {
        let mut ranks = Ranks::default();
        (0..1000).for_each(|i| ranks.normal(i as f32 / 100.0 - 2.0));
        for (rate, about) in [(0.01, 7.895), (0.5, 2.995), (0.9, -1.005), (0.0, 7.99)] {
            let found = ranks.threshold(rate).unwrap();
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
        // a region of 1 pixel that is found at once, and one of 4 that is never before all normal
        // pixels
        let mask = [true, false, true, true, false, false, true, true];
        let of = regions(&mask, 2, 4);
        assert_eq!(of, [1, 0, 2, 2, 0, 0, 2, 2]);
        let mut ranks = Ranks::default();
        ranks.pixels(&[9.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0], &of);
        assert!((ranks.pro(0.3).unwrap() - 0.5).abs() < 1e-12);
        assert!((ranks.auroc().unwrap() - 0.2).abs() < 1e-12);
        let mut perfect = Ranks::default();
        perfect.pixels(&[9.0, 1.0, 9.0, 9.0, 1.0, 1.0, 9.0, 9.0], &of);
        assert!((perfect.pro(0.3).unwrap() - 1.0).abs() < 1e-12);
        // diagonal neighbours are of one region
        assert_eq!(regions(&[true, false, false, true], 2, 2), [1, 0, 0, 1]);
    }
}
