//! The bank: descriptors of normal images, and the distance of other descriptors from them.

use nalgebra::{DMatrix, DVector};
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::linalg::distances::{map_distances, squared_distance};
use crate::rng::Stream;

/// Number of nearest neighbours whose distances are averaged. More smooth over outliers in the
/// bank; fewer keep rare kinds of normal positions.
const NEIGHBOURS: usize = 3;
/// Ridge added to every variance, as a share of the mean variance. It limits the weight of
/// directions in which normal positions hardly differ. Pixel AUROC by the code alone was 0.885 with
/// 1 and 0.856 with 0.001 (`benches/results/2026-11-28-anomaly.md`).
const RIDGE: f64 = 1.0;
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
    /// Mean distance of each member to its nearest neighbours.
    pub neighbour_distances: Vec<f32>,
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
                "the layer has {depth} channels, but anomaly detection supports at most \
                 {MAX_DEPTH}; choose a layer with fewer channels"
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
    pub fn finish(self) -> Result<Bank> {
        let mut covariance = self.scatter / self.count.max(1.0);
        let ridge = RIDGE * covariance.trace() / self.depth as f64;
        (0..self.depth).for_each(|i| covariance[(i, i)] += ridge);
        let constant = || {
            Error::usage(
                "the layer's features are constant or not finite over the normal images; choose \
                 another layer",
            )
        };
        let lower = covariance.cholesky().filter(|_| ridge > 0.0).ok_or_else(constant)?.l();
        let inverse = lower
            .solve_lower_triangular(&DMatrix::identity(self.depth, self.depth))
            .ok_or_else(constant)?;
        let whitening = inverse.transpose().iter().map(|v| *v as f32).collect();
        let mut bank = Bank {
            mean: self.mean.iter().map(|v| *v as f32).collect(),
            whitening,
            members: Vec::new(),
            neighbour_distances: Vec::new(),
        };
        bank.members = bank.whiten(&self.sample);
        bank.measure_neighbours();
        // distances are divided by these, so they must not all be 0
        if !bank.neighbour_distances.iter().any(|distance| *distance > 0.0) {
            return Err(constant());
        }
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

    /// The mean distance of each descriptor to its nearest members, relative to the members' own
    /// neighbour distances and their average over the bank (after Breunig et al., "LOF: Identifying
    /// Density-Based Local Outliers", 2000). About ½ for a normal descriptor.
    pub fn distances(&self, values: &[f32]) -> Vec<f32> {
        let typical = self.neighbour_distances.iter().sum::<f32>()
            / self.neighbour_distances.len().max(1) as f32;
        let far = |found: Vec<(f32, usize)>| {
            let ratio = found.iter().map(|(d, member)| {
                d / (self.neighbour_distances[*member] + typical).max(f32::MIN_POSITIVE)
            });
            ratio.sum::<f32>() / found.len().max(1) as f32
        };
        self.nearest(&self.whiten(values), false).into_iter().map(far).collect()
    }

    /// Computes each member's mean distance to its nearest neighbours.
    fn measure_neighbours(&mut self) {
        let far = |found: Vec<(f32, usize)>| {
            found.iter().map(|(d, _)| d).sum::<f32>() / found.len().max(1) as f32
        };
        self.neighbour_distances = self.nearest(&self.members, true).into_iter().map(far).collect();
    }

    /// The nearest members of each descriptor: distance and index. With `exclude_self`, the
    /// descriptors are the members themselves, and each is excluded from its own neighbours.
    fn nearest(&self, white: &[f32], exclude_self: bool) -> Vec<Vec<(f32, usize)>> {
        let depth = self.mean.len();
        map_distances(white, &self.members, depth, |row, distances| {
            let mut nearest = [(f32::INFINITY, usize::MAX); NEIGHBOURS];
            for (i, distance) in distances.iter().enumerate() {
                if *distance < nearest[NEIGHBOURS - 1].0 && !(exclude_self && i == row) {
                    nearest[NEIGHBOURS - 1] = (*distance, i);
                    nearest.sort_by(|a, b| a.0.total_cmp(&b.0));
                }
            }
            let x = &white[row * depth..(row + 1) * depth];
            // Recomputed, because `map_distances` subtracts large numbers, which loses digits.
            let exact = |member: usize| {
                squared_distance(x, &self.members[member * depth..(member + 1) * depth]).sqrt()
            };
            nearest
                .into_iter()
                .filter(|(_, i)| *i != usize::MAX)
                .map(|(_, i)| (exact(i), i))
                .collect()
        })
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
        builder.finish().unwrap()
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
        // L⁻¹CL⁻ᵀ + ρL⁻¹L⁻ᵀ = I, of the variances of uniform values
        let ridge = RIDGE * (1.0 / 12.0 + 101.0 / 12.0) / 2.0;
        assert_eq!(bank.members.len(), 1000);
        for (i, j) in [(0, 0), (0, 1), (1, 1)] {
            let members: f32 =
                bank.members.chunks_exact(2).map(|x| x[i] * x[j]).sum::<f32>() / 500.0;
            let rows = |k: usize| {
                f64::from(bank.whitening[2 * i + k]) * f64::from(bank.whitening[2 * j + k])
            };
            let sum = f64::from(members) + ridge * (rows(0) + rows(1));
            assert!((sum - f64::from(u8::from(i == j))).abs() < 0.1, "{i}, {j}: {sum}");
        }
    }

    #[test]
    fn constant_descriptors_are_refused() {
        let finished = |values: &[f32], size: usize| {
            let mut builder = BankBuilder::new(2, size, 1).unwrap();
            builder.add(values);
            builder.finish().map(|bank| bank.members.len())
        };
        assert_eq!(finished(&[0.0, 1.0, 2.0, 3.0, 5.0, 4.0], 3).unwrap(), 6);
        assert!(finished(&[0.0, 1.0, 2.0, 3.0, 5.0, 4.0], 1).is_err());
        assert!(finished(&[1.0, 2.0, 1.0, 2.0], 2).is_err());
    }

    #[test]
    fn neighbours_match_a_brute_force_search() {
        let bank = gathered(1);
        let white: Vec<f32> =
            (0..2 * 150_u16).map(|i| f32::from(i * 37 % 101) / 30.0 - 1.5).collect();
        for (x, found) in white.chunks_exact(2).zip(bank.nearest(&white, false)) {
            let mut all: Vec<f32> = bank
                .members
                .chunks_exact(2)
                .map(|member| squared_distance(x, member).sqrt())
                .collect();
            all.sort_by(f32::total_cmp);
            assert!(
                found.iter().zip(&all).all(|((d, _), expected)| (d - expected).abs() < 1e-3),
                "{found:?} {:?}",
                &all[..3]
            );
        }
        // a member is not its own neighbour
        assert!(
            bank.nearest(&bank.members, true)
                .iter()
                .enumerate()
                .all(|(i, found)| found.len() == 3 && found.iter().all(|(_, other)| *other != i))
        );
    }

    #[test]
    fn breaking_a_correlation_gives_a_large_distance() {
        let bank = gathered(4);
        // each value is common, but not the combination
        let distances = bank.distances(&[0.5, 5.5, 0.2, 9.0]);
        assert!(distances[0] < 0.6 && distances[1] > 5.0, "{distances:?}");
        assert!(BankBuilder::new(MAX_DEPTH + 1, 1, 0).is_err());
        let mut same = BankBuilder::new(2, 4, 0).unwrap();
        same.add(&[1.0; 8]);
        assert!(same.finish().unwrap_err().to_string().contains("another layer"));
    }
}
