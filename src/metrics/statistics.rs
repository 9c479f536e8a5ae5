//! What a pass over images tells about the code: how many elements of it are ≠ 0 for each image,
//! and how often and how strongly each unit fires. A unit is an element of a vector, a channel of
//! maps; a map's unit has as many elements as the map has places.

use crate::shape::Dims;

/// Counts over the codes of images.
#[derive(Clone, Debug, PartialEq)]
pub struct Statistics {
    /// Size of a code.
    pub code: Dims,
    /// Elements ≠ 0 of each image's code, in the order of the images.
    pub l0: Vec<u32>,
    /// Elements ≠ 0 of each unit.
    active: Vec<u64>,
    /// Σ|z| of each unit.
    sums: Vec<f64>,
}

impl Statistics {
    /// Before the first image.
    pub fn new(code: Dims) -> Self {
        Self { code, l0: Vec::new(), active: vec![0; code.c], sums: vec![0.0; code.c] }
    }

    /// Adds the codes of some images, channels innermost.
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

    /// Images counted.
    pub fn images(&self) -> usize {
        self.l0.len()
    }

    /// Units of the code.
    pub const fn units(&self) -> usize {
        self.code.c
    }

    /// Elements of one unit over all images.
    fn elements(&self) -> f64 {
        (self.images() * self.code.area()) as f64
    }

    /// Mean number of elements ≠ 0.
    pub fn mean_l0(&self) -> f64 {
        self.active.iter().sum::<u64>() as f64 / self.images() as f64
    }

    /// Mean ‖z‖₁.
    pub fn mean_l1(&self) -> f64 {
        self.sums.iter().sum::<f64>() / self.images() as f64
    }

    /// Share of a unit's elements that are ≠ 0: of the images for a vector, of images and places
    /// for maps.
    pub fn rate(&self, unit: usize) -> f64 {
        self.active[unit] as f64 / self.elements()
    }

    /// Every unit's rate.
    pub fn rates(&self) -> Vec<f64> {
        (0..self.units()).map(|unit| self.rate(unit)).collect()
    }

    /// Mean |z| of a unit, zeros counted.
    pub fn activity(&self, unit: usize) -> f64 {
        self.sums[unit] / self.elements()
    }

    /// Mean |z| of a unit where it is ≠ 0; 0 if it is nowhere.
    pub fn strength(&self, unit: usize) -> f64 {
        if self.active[unit] == 0 { 0.0 } else { self.sums[unit] / self.active[unit] as f64 }
    }

    /// Whether a unit is 0 everywhere.
    pub fn is_dead(&self, unit: usize) -> bool {
        self.active[unit] == 0
    }

    /// Units that are 0 everywhere.
    pub fn dead(&self) -> usize {
        self.active.iter().filter(|active| **active == 0).count()
    }

    /// The units from the one that fires most to the one that fires least, equals by number.
    pub fn by_rate(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.units()).collect();
        order.sort_by_key(|unit| (std::cmp::Reverse(self.active[*unit]), *unit));
        order
    }
}

/// The quantiles at `shares` (0…1) of some values, each the value of an element; none of no values.
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
    fn counts_by_hand() {
        // two maps of 1×2, three images; memory order: place by place, both channels
        let mut s = Statistics::new(Dims::new(2, 1, 2));
        s.add(&[1.0, 0.0, -3.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
        s.add(&[0.5, 0.0, 0.0, 0.0]);
        assert_eq!((s.images(), &s.l0, s.dead(), s.is_dead(1)), (3, &vec![2, 0, 1], 1, true));
        assert_eq!((s.mean_l0(), s.mean_l1()), (1.0, 1.5));
        assert_eq!((s.rate(0), s.rate(1)), (0.5, 0.0));
        assert_eq!((s.strength(0), s.strength(1), s.activity(0)), (1.5, 0.0, 0.75));
        assert_eq!(s.by_rate(), [0, 1]);
        // the rates add up to L0
        assert_eq!(s.rates().iter().sum::<f64>() * 2.0, s.mean_l0());
        let mut other = s.clone();
        other.add(&[0.0, 1e-30, 0.0, 0.0]);
        assert_eq!((other.dead(), other.by_rate()[0]), (0, 0), "any value that is not 0 counts");
    }

    #[test]
    fn quantiles_are_elements() {
        let q = quantiles([4.0, 1.0, 3.0, 2.0, 5.0], [0.0, 0.5, 1.0]);
        assert_eq!(q, Some([1.0, 3.0, 5.0]));
        assert_eq!(quantiles([], [0.5]), None);
    }
}
