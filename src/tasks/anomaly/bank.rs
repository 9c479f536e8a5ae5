//! Descriptors of normal images, and how far another one is from them.

use nalgebra::{DMatrix, DVector};
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::linalg::distances::{map_distances, squared_distance};
use crate::rng::Stream;

/// Neighbours whose mean distance is told.
const NEIGHBOURS: usize = 3;
/// What is added to every variance, as a share of their mean: directions in which normal places
/// hardly differ count little.
const RIDGE: f64 = 1.0;
/// Values of a descriptor at most: their covariance has the square of it.
pub const DEEPEST: usize = 2048;

/// Normal descriptors in coordinates in which they have equal variance and no correlation, but for
/// the ridge.
#[derive(Clone, Debug, PartialEq)]
pub struct Bank {
    /// Mean of a descriptor.
    pub mean: Vec<f32>,
    /// W in W(x − mean), lower triangular, row by row: the inverse of the covariance's Cholesky
    /// factor.
    pub whitening: Vec<f32>,
    /// Whitened descriptors, one after the other.
    pub members: Vec<f32>,
    /// How far each is from those nearest to it.
    pub apart: Vec<f32>,
}

/// Gathers descriptors, in memory that does not depend on how many there are.
#[derive(Debug)]
pub struct Gatherer {
    depth: usize,
    count: f64,
    mean: DVector<f64>,
    /// Sum of (x − mean)(x − mean)ᵀ.
    spread: DMatrix<f64>,
    /// A uniform sample (Vitter, "Random sampling with a reservoir", 1985).
    sample: Vec<f32>,
    size: usize,
    stream: Stream,
}

impl Gatherer {
    /// Nothing gathered; of all descriptors `size` are kept.
    pub fn new(depth: usize, size: usize, seed: u64) -> Result<Self> {
        if depth > DEEPEST {
            return Err(Error::usage(format!(
                "the layer describes a place by {depth} values, more than the {DEEPEST} that are compared; name one with fewer channels by --layer"
            )));
        }
        let (mean, spread) = (DVector::zeros(depth), DMatrix::zeros(depth, depth));
        Ok(Self {
            depth,
            count: 0.0,
            mean,
            spread,
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
        // Chan, Golub & LeVeque's pairwise update
        let x = DMatrix::from_fn(self.depth, n, |row, column| {
            f64::from(values[column * self.depth + row])
        });
        let mean = x.column_mean();
        let apart = DMatrix::from_fn(self.depth, n, |row, column| x[(row, column)] - mean[row]);
        let between = &mean - &self.mean;
        let all = self.count + n as f64;
        self.spread += &apart * apart.transpose()
            + &between * between.transpose() * (self.count * n as f64 / all);
        self.mean += between * (n as f64 / all);
        self.count = all;
    }

    /// The bank.
    ///
    /// # Errors
    /// When the descriptors say nothing: all are the same, or some are no numbers.
    pub fn finish(self) -> Result<Bank> {
        let mut covariance = self.spread / self.count.max(1.0);
        let ridge = RIDGE * covariance.trace() / self.depth as f64;
        (0..self.depth).for_each(|i| covariance[(i, i)] += ridge);
        let nothing = || {
            Error::usage(
                "the layer says the same of every place of every normal image; name another one by --layer",
            )
        };
        let lower = covariance.cholesky().filter(|_| ridge > 0.0).ok_or_else(nothing)?.l();
        let inverse = lower
            .solve_lower_triangular(&DMatrix::identity(self.depth, self.depth))
            .ok_or_else(nothing)?;
        let whitening = inverse.transpose().iter().map(|v| *v as f32).collect();
        let mut bank = Bank {
            mean: self.mean.iter().map(|v| *v as f32).collect(),
            whitening,
            members: Vec::new(),
            apart: Vec::new(),
        };
        bank.members = bank.whiten(&self.sample);
        bank.measure();
        // distances are relative to these
        if !bank.apart.iter().any(|apart| *apart > 0.0) {
            return Err(nothing());
        }
        Ok(bank)
    }
}

impl Bank {
    fn whiten(&self, values: &[f32]) -> Vec<f32> {
        let depth = self.mean.len();
        let mut out = vec![0.0_f32; values.len()];
        out.par_chunks_exact_mut(depth).zip(values.par_chunks_exact(depth)).for_each(|(out, x)| {
            let apart: Vec<f32> = x.iter().zip(&self.mean).map(|(x, mean)| x - mean).collect();
            for (i, out) in out.iter_mut().enumerate() {
                let row = &self.whitening[i * depth..i * depth + i + 1];
                *out = row.iter().zip(&apart).map(|(w, x)| w * x).sum();
            }
        });
        out
    }

    /// Distance of each descriptor to the members nearest to it, the mean over three, relative to
    /// how far those are from their own neighbours and members are on average (after Breunig et
    /// al., "LOF: Identifying Density-Based Local Outliers", 2000): about ½ for a normal one.
    pub fn distances(&self, values: &[f32]) -> Vec<f32> {
        let typical = self.apart.iter().sum::<f32>() / self.apart.len().max(1) as f32;
        let far = |found: Vec<(f32, usize)>| {
            let ratio = found
                .iter()
                .map(|(d, member)| d / (self.apart[*member] + typical).max(f32::MIN_POSITIVE));
            ratio.sum::<f32>() / found.len().max(1) as f32
        };
        self.nearest(&self.whiten(values), false).into_iter().map(far).collect()
    }

    /// How far each member is from those nearest to it.
    fn measure(&mut self) {
        let far = |found: Vec<(f32, usize)>| {
            found.iter().map(|(d, _)| d).sum::<f32>() / found.len().max(1) as f32
        };
        self.apart = self.nearest(&self.members, true).into_iter().map(far).collect();
    }

    /// The members nearest to each descriptor, by distance and number; where these are the members
    /// themselves, each without itself.
    fn nearest(&self, white: &[f32], themselves: bool) -> Vec<Vec<(f32, usize)>> {
        let depth = self.mean.len();
        map_distances(white, &self.members, depth, |row, distances| {
            let mut nearest = [(f32::INFINITY, usize::MAX); NEIGHBOURS];
            for (i, distance) in distances.iter().enumerate() {
                if *distance < nearest[NEIGHBOURS - 1].0 && !(themselves && i == row) {
                    nearest[NEIGHBOURS - 1] = (*distance, i);
                    nearest.sort_by(|a, b| a.0.total_cmp(&b.0));
                }
            }
            let x = &white[row * depth..(row + 1) * depth];
            // measured again: as a difference of large numbers they are rounded
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
        let mut gatherer = Gatherer::new(2, 500, 1).unwrap();
        values.chunks(values.len() / parts).for_each(|part| gatherer.add(part));
        gatherer.finish().unwrap()
    }

    #[test]
    fn members_are_white_however_they_come() {
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
    fn members_that_are_all_the_same_say_nothing() {
        let finished = |values: &[f32], size: usize| {
            let mut gatherer = Gatherer::new(2, size, 1).unwrap();
            gatherer.add(values);
            gatherer.finish().map(|bank| bank.members.len())
        };
        assert_eq!(finished(&[0.0, 1.0, 2.0, 3.0, 5.0, 4.0], 3).unwrap(), 6);
        assert!(finished(&[0.0, 1.0, 2.0, 3.0, 5.0, 4.0], 1).is_err());
        assert!(finished(&[1.0, 2.0, 1.0, 2.0], 2).is_err());
    }

    #[test]
    fn neighbours_are_those_of_a_plain_search() {
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
    fn what_breaks_a_correlation_is_far() {
        let bank = gathered(4);
        // both values are common, but not together
        let distances = bank.distances(&[0.5, 5.5, 0.2, 9.0]);
        assert!(distances[0] < 0.6 && distances[1] > 5.0, "{distances:?}");
        assert!(Gatherer::new(DEEPEST + 1, 1, 0).is_err());
        let mut same = Gatherer::new(2, 4, 0).unwrap();
        same.add(&[1.0; 8]);
        assert!(same.finish().unwrap_err().to_string().contains("--layer"));
    }
}
