//! The bank: descriptors of normal images, and the distance of other descriptors from them.

use nalgebra::{DMatrix, DVector};
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::linalg::distances::{map_distances, nearest, squared_distance};
use crate::rng::Stream;

/// Ridge added to the variance of each value, as a share of it. It limits the weight of directions
/// in which normal positions hardly differ.
const RIDGE: f64 = 1.0;
/// Lower limit of the ridge, as a share of the mean variance. Otherwise values that are the same in
/// all normal images, such as colours of gray ones, would decide everything by rounding errors.
const MIN_RIDGE: f64 = 0.03;
/// Number of neighbours that a member's spacing is the mean distance of. Pixel AUROC of textures
/// was 0.952 with 8, 0.949 with 3 and 0.944 with 1 (`benches/results/2026-12-01-anomaly.md`).
const NEIGHBOURS: usize = 8;
/// Lower limit of a spacing, as a share of the mean spacing: an even image gives many members that
/// are equal.
const MIN_SPACING: f64 = 0.1;
/// Maximum length of a descriptor. The covariance matrix has the square of it in values: 32 MiB in
/// double precision.
pub const MAX_DEPTH: usize = 2048;

/// Descriptors of normal positions, whitened: up to the ridge, coordinates have equal variance and
/// no correlation.
#[derive(Clone, Debug, PartialEq)]
pub struct Bank {
    /// Mean descriptor.
    pub mean: Vec<f32>,
    /// W in W(x − mean): the inverse of the covariance's Cholesky factor, lower triangular,
    /// row-major.
    pub whitening: Vec<f32>,
    /// Whitened descriptors, one after the other.
    pub members: Vec<f32>,
    /// What distances from each member are divided by.
    pub spacing: Vec<f32>,
}

/// The banks of a detector.
#[derive(Clone, Debug, PartialEq)]
pub struct Banks {
    /// Descriptors from fixed filters.
    pub filters: Bank,
    /// Descriptors from the network's maps, if there is one.
    pub features: Option<Bank>,
}

/// What distances from a member of the bank are measured in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Units {
    /// Standard deviations of descriptors.
    Absolute,
    /// The member's own distance from its neighbours, as in local outlier factors (Breunig et al.,
    /// "LOF", 2000). Rare structure, which differs more from image to image, counts less.
    Spacing,
}

/// Collects descriptors in memory that does not depend on their number.
#[derive(Debug)]
pub struct BankBuilder {
    depth: usize,
    count: f64,
    mean: DVector<f64>,
    /// Sum of (x − mean)(x − mean)ᵀ.
    scatter: DMatrix<f64>,
    /// A uniform sample by reservoir sampling (Vitter, "Random sampling with a reservoir", 1985).
    sample: Vec<f32>,
    size: usize,
    stream: Stream,
}

impl BankBuilder {
    /// Starts an empty bank for descriptors of `depth` values, which keeps a sample of `size`.
    ///
    /// # Errors
    /// If `depth` is larger than [`MAX_DEPTH`].
    pub fn new(depth: usize, size: usize, seed: u64) -> Result<Self> {
        if depth > MAX_DEPTH {
            return Err(Error::usage(format!(
                "descriptors have {depth} values, but a bank can hold at most {MAX_DEPTH}"
            )));
        }
        let (mean, scatter) = (DVector::zeros(depth), DMatrix::zeros(depth, depth));
        Ok(Self {
            depth,
            count: 0.0,
            mean,
            scatter,
            sample: Vec::new(),
            size,
            stream: Stream::new(seed, "bank"),
        })
    }

    /// Adds descriptors, one after the other.
    pub fn add(&mut self, values: &[f32]) {
        let n = values.len() / self.depth;
        if n == 0 {
            return;
        }
        for (i, x) in values.chunks_exact(self.depth).enumerate() {
            let seen = self.count as usize + i;
            if self.sample.len() < self.size * self.depth {
                self.sample.extend_from_slice(x);
            } else {
                let at = self.stream.below(seen + 1);
                if at < self.size {
                    self.sample[at * self.depth..][..self.depth].copy_from_slice(x);
                }
            }
        }
        // Merge means and scatter matrices (Chan, Golub & LeVeque, "Algorithms for computing the
        // sample variance", 1983).
        let x = DMatrix::from_fn(self.depth, n, |row, column| {
            f64::from(values[column * self.depth + row])
        });
        let mean = x.column_mean();
        let centred = DMatrix::from_fn(self.depth, n, |row, column| x[(row, column)] - mean[row]);
        let between = &mean - &self.mean;
        let all = self.count + n as f64;
        self.scatter += &centred * centred.transpose()
            + &between * between.transpose() * (self.count * n as f64 / all);
        self.mean += between * (n as f64 / all);
        self.count = all;
    }

    /// Builds the bank.
    ///
    /// # Errors
    /// If the descriptors are all the same or not finite.
    pub fn finish(self, units: Units) -> Result<Bank> {
        let mut covariance = self.scatter / self.count.max(1.0);
        let min_ridge = MIN_RIDGE * covariance.trace() / self.depth as f64;
        for i in 0..self.depth {
            covariance[(i, i)] += (RIDGE * covariance[(i, i)]).max(min_ridge);
        }
        let constant = || {
            Error::usage(
                "the normal images are all alike, so that there is nothing to learn from them; \
                 give images that vary as new normal images will",
            )
        };
        let lower = covariance.cholesky().filter(|_| min_ridge > 0.0).ok_or_else(constant)?.l();
        let inverse = lower
            .solve_lower_triangular(&DMatrix::identity(self.depth, self.depth))
            .ok_or_else(constant)?;
        let whitening = inverse.transpose().iter().map(|v| *v as f32).collect();
        let mut bank = Bank {
            mean: self.mean.iter().map(|v| *v as f32).collect(),
            whitening,
            members: Vec::new(),
            spacing: Vec::new(),
        };
        bank.members = bank.whiten(&self.sample);
        bank.spacing = match units {
            Units::Absolute => vec![1.0; bank.members.len() / self.depth],
            Units::Spacing => bank.spacings(),
        };
        Ok(bank)
    }
}

impl Bank {
    fn whiten(&self, values: &[f32]) -> Vec<f32> {
        let depth = self.mean.len();
        let mut out = vec![0.0_f32; values.len()];
        out.par_chunks_exact_mut(depth).zip(values.par_chunks_exact(depth)).for_each(|(out, x)| {
            let centred: Vec<f32> = x.iter().zip(&self.mean).map(|(x, mean)| x - mean).collect();
            for (i, out) in out.iter_mut().enumerate() {
                let row = &self.whitening[i * depth..i * depth + i + 1];
                *out = row.iter().zip(&centred).map(|(w, x)| w * x).sum();
            }
        });
        out
    }

    /// The mean distance of each member from its nearest others.
    fn spacings(&self) -> Vec<f32> {
        let depth = self.mean.len();
        let neighbours = NEIGHBOURS.min(self.members.len() / depth - 1);
        let mut spacings =
            map_distances(&self.members, &self.members, depth, |member, distances| {
                distances[member] = f32::INFINITY;
                if neighbours == 0 {
                    return 1.0;
                }
                let (near, last, _) =
                    distances.select_nth_unstable_by(neighbours - 1, f32::total_cmp);
                let sum: f32 = near.iter().map(|square| square.sqrt()).sum();
                (sum + last.sqrt()) / neighbours as f32
            });
        let mean = spacings.iter().map(|v| f64::from(*v)).sum::<f64>() / spacings.len() as f64;
        let min = ((MIN_SPACING * mean) as f32).max(f32::MIN_POSITIVE);
        spacings.iter_mut().for_each(|spacing| *spacing = spacing.max(min));
        spacings
    }

    /// The distance of each descriptor from its nearest member. A single neighbour, because a mark
    /// that only a few normal images have is then normal, too.
    pub fn distances(&self, values: &[f32]) -> Vec<f32> {
        let depth = self.mean.len();
        let white = self.whiten(values);
        let nearest = nearest(&white, &self.members, depth);
        let rows = white.par_chunks_exact(depth).zip(nearest);
        rows.map(|(x, member)| {
            let at = &self.members[member * depth..(member + 1) * depth];
            squared_distance(x, at).sqrt() / self.spacing[member]
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gathered(parts: usize) -> Bank {
        let mut stream = Stream::new(7, "test");
        let values: Vec<f32> = (0..2000)
            .flat_map(|_| {
                let (a, b) = (stream.uniform(), stream.uniform());
                [a, 10.0 * a + b]
            })
            .collect();
        let mut builder = BankBuilder::new(2, 500, 1).unwrap();
        values.chunks(values.len() / parts).for_each(|part| builder.add(part));
        builder.finish(Units::Absolute).unwrap()
    }

    #[test]
    fn whitening_does_not_depend_on_batches() {
        let (bank, again) = (gathered(1), gathered(20));
        assert!(
            bank.whitening
                .iter()
                .zip(&again.whitening)
                .all(|(a, b)| (a - b).abs() < 1e-3 * (1.0 + a.abs()))
        );
        // L⁻¹CL⁻ᵀ + L⁻¹RL⁻ᵀ = I, of the variances of uniform values
        let ridges = [1.0 / 12.0, 101.0 / 12.0]
            .map(|variance| (RIDGE * variance).max(MIN_RIDGE * (1.0 + 101.0) / 24.0));
        assert_eq!(bank.members.len(), 1000);
        for (i, j) in [(0, 0), (0, 1), (1, 1)] {
            let members: f32 =
                bank.members.chunks_exact(2).map(|x| x[i] * x[j]).sum::<f32>() / 500.0;
            let rows = |k: usize| {
                f64::from(bank.whitening[2 * i + k]) * f64::from(bank.whitening[2 * j + k])
            };
            let sum = f64::from(members) + ridges[0] * rows(0) + ridges[1] * rows(1);
            assert!((sum - f64::from(u8::from(i == j))).abs() < 0.1, "{i}, {j}: {sum}");
        }
    }

    #[test]
    fn constant_descriptors_are_refused() {
        let finished = |values: &[f32]| {
            let mut builder = BankBuilder::new(2, 3, 1).unwrap();
            builder.add(values);
            builder.finish(Units::Spacing).map(|bank| bank.members.len())
        };
        assert_eq!(finished(&[0.0, 1.0, 2.0, 3.0, 5.0, 4.0]).unwrap(), 6);
        assert!(finished(&[1.0; 8]).unwrap_err().to_string().contains("all alike"));
    }

    #[test]
    fn distances_match_a_brute_force_search() {
        let bank = gathered(1);
        let values: Vec<f32> =
            (0..2 * 150_u16).map(|i| f32::from(i * 37 % 101) / 30.0 - 1.5).collect();
        let white = bank.whiten(&values);
        for (x, found) in white.chunks_exact(2).zip(bank.distances(&values)) {
            let all = bank.members.chunks_exact(2).map(|member| squared_distance(x, member).sqrt());
            let expected = all.fold(f32::INFINITY, f32::min);
            assert!((found - expected).abs() < 1e-3, "{found} {expected}");
        }
    }

    #[test]
    fn breaking_a_correlation_gives_a_large_distance() {
        let bank = gathered(4);
        // each value is common, but not the combination
        let distances = bank.distances(&[0.5, 5.5, 0.2, 9.0]);
        assert!(distances[1] > 5.0 * distances[0], "{distances:?}");
        assert!(BankBuilder::new(MAX_DEPTH + 1, 1, 0).is_err());
    }

    #[test]
    fn spacing_makes_sparse_parts_of_the_bank_count_less() {
        let mut stream = Stream::new(3, "test");
        // A dense and a sparse cloud, far apart.
        let values: Vec<f32> = (0..400)
            .flat_map(|i| {
                let (centre, spread) = if i % 2 == 0 { (0.0, 0.1) } else { (20.0, 2.0) };
                [centre + spread * stream.normal(), spread * stream.normal()]
            })
            .collect();
        let found = |units| {
            let mut builder = BankBuilder::new(2, 400, 1).unwrap();
            builder.add(&values);
            let distances = builder.finish(units).unwrap().distances(&[0.0, 1.0, 20.0, 9.0]);
            distances[0] / distances[1]
        };
        let [absolute, spaced] = [Units::Absolute, Units::Spacing].map(found);
        assert!(absolute < 0.5 && spaced > 1.0, "{absolute} {spaced}");
    }
}
