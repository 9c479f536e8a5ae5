//! Statistics of the codes of a set of images: the L0 norm (number of elements ≠ 0) of each code,
//! and how often and how strongly each unit is active. A unit is an element of a vector code or a
//! channel of a convolutional code; the latter has one element per position.

use crate::shape::Dims;

/// Counts over the codes of a set of images.
#[derive(Clone, Debug, PartialEq)]
pub struct Statistics {
    /// Size of a code.
    pub code: Dims,
    /// The L0 norm of the code of each image, in the order of the images.
    pub l0: Vec<u32>,
    /// Number of elements ≠ 0 of each unit.
    active: Vec<u64>,
    /// Σ|z| of each unit.
    sums: Vec<f64>,
}

impl Statistics {
    /// Statistics of no image, for codes of size `code`.
    pub fn new(code: Dims) -> Self {
        Self { code, l0: Vec::new(), active: vec![0; code.c], sums: vec![0.0; code.c] }
    }

    /// Adds the codes of some images, with channels innermost.
    pub fn add(&mut self, codes: &[f32]) {
        for code in codes.chunks_exact(self.code.len()) {
            let mut l0 = 0;
            for (i, z) in code.iter().enumerate().filter(|(_, z)| **z != 0.0) {
                l0 += 1;
                self.active[i % self.code.c] += 1;
                self.sums[i % self.code.c] += f64::from(z.abs());
            }
            self.l0.push(l0);
        }
    }

    /// Number of images added.
    pub fn images(&self) -> usize {
        self.l0.len()
    }

    /// Number of units of the code.
    pub const fn units(&self) -> usize {
        self.code.c
    }

    /// Number of elements of one unit over all images.
    fn elements(&self) -> f64 {
        (self.images() * self.code.area()) as f64
    }

    /// Mean L0 norm of a code.
    pub fn mean_l0(&self) -> f64 {
        self.active.iter().sum::<u64>() as f64 / self.images() as f64
    }

    /// Mean L1 norm ‖z‖₁ of a code.
    pub fn mean_l1(&self) -> f64 {
        self.sums.iter().sum::<f64>() / self.images() as f64
    }

    /// Firing rate of a unit: the fraction (0…1) of its elements over all images that are ≠ 0.
    pub fn rate(&self, unit: usize) -> f64 {
        self.active[unit] as f64 / self.elements()
    }

    /// The firing rate of each unit.
    pub fn rates(&self) -> Vec<f64> {
        (0..self.units()).map(|unit| self.rate(unit)).collect()
    }

    /// Mean |z| of a unit over all its elements, including zeros.
    pub fn activity(&self, unit: usize) -> f64 {
        self.sums[unit] / self.elements()
    }

    /// Mean |z| of a unit over its elements ≠ 0; 0 for a dead unit.
    pub fn strength(&self, unit: usize) -> f64 {
        if self.active[unit] == 0 { 0.0 } else { self.sums[unit] / self.active[unit] as f64 }
    }

    /// Whether a unit is dead: 0 in every image.
    pub fn is_dead(&self, unit: usize) -> bool {
        self.active[unit] == 0
    }

    /// Number of dead units.
    pub fn dead(&self) -> usize {
        self.active.iter().filter(|active| **active == 0).count()
    }

    /// The units by decreasing firing rate; units with equal rates by increasing index.
    pub fn by_rate(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.units()).collect();
        order.sort_by_key(|unit| (std::cmp::Reverse(self.active[*unit]), *unit));
        order
    }
}

/// The quantiles of `values` at `shares` (0…1). Each quantile is one of the values (the nearest
/// rank, without interpolation). Returns `None` if there are no values.
pub fn quantiles<const N: usize>(
    values: impl IntoIterator<Item = f64>,
    shares: [f64; N],
) -> Option<[f64; N]> {
    let mut sorted: Vec<f64> = values.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().checked_sub(1)?;
    Some(shares.map(|share| sorted[(share * last as f64).round() as usize]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_equal_hand_counts() {
        // Two channels of 1×2 pixels, three images.
        let mut s = Statistics::new(Dims::new(2, 1, 2));
        s.add(&[1.0, 0.0, -3.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
        s.add(&[0.5, 0.0, 0.0, 0.0]);
        assert_eq!((s.images(), &s.l0, s.dead(), s.is_dead(1)), (3, &vec![2, 0, 1], 1, true));
        assert_eq!((s.mean_l0(), s.mean_l1()), (1.0, 1.5));
        assert_eq!((s.rate(0), s.rate(1)), (0.5, 0.0));
        assert_eq!((s.strength(0), s.strength(1), s.activity(0)), (1.5, 0.0, 0.75));
        assert_eq!(s.by_rate(), [0, 1]);
        // The rates, times the two positions, add up to L0.
        assert_eq!(s.rates().iter().sum::<f64>() * 2.0, s.mean_l0());
    }

    #[test]
    fn any_value_other_than_0_is_active() {
        let mut s = Statistics::new(Dims::flat(2));
        s.add(&[1.0, 1e-30, 1.0, 0.0]);
        assert_eq!((s.dead(), s.by_rate()[0]), (0, 0));
    }

    #[test]
    fn quantiles_are_elements() {
        let q = quantiles([4.0, 1.0, 3.0, 2.0, 5.0], [0.0, 0.5, 1.0]);
        assert_eq!(q, Some([1.0, 3.0, 5.0]));
        assert_eq!(quantiles([], [0.5]), None);
    }
}
