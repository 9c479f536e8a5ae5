//! Gaussians and mixtures of Gaussians with full covariances.

use nalgebra::DMatrix;
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::linalg::gemm::{Matrix, gemm};
use crate::priors::codes::{Codes, k_means};
use crate::rng::Stream;

/// Regularisation added to every variance, as a share of the mean variance of all codes. Units that
/// never fire in a component have variance 0 without it.
const RIDGE: f64 = 1e-3;
/// Maximum number of iterations of expectation maximisation. More of them cost time.
const MAX_ITERATIONS: usize = 30;
/// Expectation maximisation stops when the mean log-likelihood gains less than this, in nats. A
/// smaller value costs iterations for a small gain.
const MIN_GAIN: f64 = 0.02;
/// A component ignores rows with a smaller responsibility than this, which saves time.
const MIN_RESPONSIBILITY: f64 = 1e-6;
/// Rows in one matrix product, so that their copy stays in the cache.
const BLOCK: usize = 256;
/// Maximum number of components, unless the caller gives a number.
pub const MAX_COMPONENTS: usize = 64;

/// A Gaussian with a full covariance.
#[derive(Clone, Debug, PartialEq)]
pub struct Gaussian {
    /// The mean.
    pub mean: Vec<f32>,
    /// Cholesky factor L with LLᵀ = covariance: lower triangular, row by row.
    pub factor: Vec<f32>,
}

impl Gaussian {
    /// Fits to weighted rows of `depth` values. `ridge` is added to every variance.
    fn fit(rows: &[f32], weights: &[f64], depth: usize, ridge: f64) -> Result<Self> {
        let total: f64 = weights.iter().sum();
        let mut mean = vec![0.0_f64; depth];
        for (row, weight) in rows.chunks_exact(depth).zip(weights) {
            mean.iter_mut()
                .zip(row)
                .for_each(|(mean, value)| *mean += weight / total * f64::from(*value));
        }
        let mut covariance = DMatrix::<f64>::zeros(depth, depth);
        let mut product = vec![0.0_f32; depth * depth];
        for (rows, weights) in rows.chunks(BLOCK * depth).zip(weights.chunks(BLOCK)) {
            let centred = rows.chunks_exact(depth).zip(weights).flat_map(|(row, weight)| {
                let root = weight.sqrt();
                row.iter()
                    .zip(&mean)
                    .map(move |(value, mean)| ((f64::from(*value) - mean) * root) as f32)
            });
            let centred: Vec<f32> = centred.collect();
            let centred = Matrix::rows(&centred, depth);
            let sizes = [depth, depth, weights.len()];
            gemm(sizes, &mut product, [depth, 1], centred.t(), centred, false);
            covariance
                .iter_mut()
                .zip(&product)
                .for_each(|(sum, value)| *sum += f64::from(*value) / total);
        }
        (0..depth).for_each(|i| covariance[(i, i)] += ridge);
        let lower = covariance
            .cholesky()
            .ok_or_else(|| {
                Error::failed(
                    "the covariance of the codes is not positive definite: they are not finite, or \
                     too large; train the model again with a lower optimizer.lr",
                )
            })?
            .l();
        Ok(Self {
            mean: mean.iter().map(|v| *v as f32).collect(),
            // nalgebra stores columns: the columns of the transpose are the rows.
            factor: lower.transpose().iter().map(|v| *v as f32).collect(),
        })
    }

    /// Natural logarithm of the density at each row.
    pub fn log_density(&self, rows: &[f32]) -> Vec<f64> {
        let depth = self.mean.len();
        let lower = DMatrix::from_fn(depth, depth, |i, j| f64::from(self.factor[i * depth + j]));
        let whitening = lower
            .solve_lower_triangular(&DMatrix::identity(depth, depth))
            .expect("a factor has no zero diagonal");
        // nalgebra stores columns: this is the transpose of the whitening matrix, row by row.
        let whitening: Vec<f32> = whitening.iter().map(|v| *v as f32).collect();
        // The logarithm of the normalisation constant.
        let log_norm: f64 = (0..depth).map(|i| lower[(i, i)].ln()).sum::<f64>()
            + 0.5 * depth as f64 * std::f64::consts::TAU.ln();
        let of_block = |rows: &[f32]| {
            let centred: Vec<f32> = rows
                .chunks_exact(depth)
                .flat_map(|row| row.iter().zip(&self.mean).map(|(x, m)| x - m))
                .collect();
            let mut white = vec![0.0_f32; rows.len()];
            let n = rows.len() / depth;
            gemm(
                [n, depth, depth],
                &mut white,
                [depth, 1],
                Matrix::rows(&centred, depth),
                Matrix::rows(&whitening, depth),
                false,
            );
            let density = |white: &[f32]| {
                -0.5 * white.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() - log_norm
            };
            white.chunks_exact(depth).map(density).collect::<Vec<f64>>()
        };
        rows.chunks(BLOCK * depth).flat_map(of_block).collect()
    }

    /// Samples a row around `centre`, with this covariance and standard deviations times `scale`.
    fn sample(&self, centre: &[f32], scale: f32, stream: &mut Stream, out: &mut [f32]) {
        let depth = self.mean.len();
        let noise: Vec<f32> = (0..depth).map(|_| scale * stream.normal()).collect();
        for (i, out) in out.iter_mut().enumerate() {
            let row = &self.factor[i * depth..=i * depth + i];
            *out = centre[i] + row.iter().zip(&noise).map(|(l, e)| l * e).sum::<f32>();
        }
    }
}

/// A mixture of Gaussians. With one component it is a single Gaussian.
#[derive(Clone, Debug, PartialEq)]
pub struct Mixture {
    /// Probability of each component.
    pub weights: Vec<f32>,
    /// The components.
    pub components: Vec<Gaussian>,
    /// Class of each component; `None` for unlabelled codes.
    pub classes: Option<Vec<u32>>,
}

/// How well a mixture fits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MixtureScore {
    /// Number of components.
    pub components: usize,
    /// Mean log-likelihood of a code, in nats.
    pub likelihood: f64,
    /// Bayesian information criterion (Schwarz 1978), −2 ln L + p ln n. Lower is better.
    pub bic: f64,
}

impl Mixture {
    /// Fits a single Gaussian to all codes.
    ///
    /// # Errors
    /// When the codes are not finite.
    pub fn single(codes: &Codes) -> Result<Self> {
        let weights = vec![1.0; codes.len()];
        let gaussian = Gaussian::fit(&codes.values, &weights, codes.units, ridge(codes))?;
        Ok(Self { weights: vec![1.0], components: vec![gaussian], classes: None })
    }

    /// Fits a mixture to the codes, for each class separately if they are labelled.
    ///
    /// With `count`, each class gets its share of that number of components. Without it, the number
    /// is doubled while the Bayesian information criterion falls. `progress` is called with the
    /// class and the score of each number tried.
    ///
    /// # Errors
    /// When the codes are not finite.
    pub fn fit(
        codes: &Codes,
        count: Option<usize>,
        seed: u64,
        mut progress: impl FnMut(Option<u32>, MixtureScore),
    ) -> Result<Self> {
        let (ridge, n) = (ridge(codes), codes.len());
        let mut all = Self {
            weights: Vec::new(),
            components: Vec::new(),
            classes: codes.labels.is_some().then(Vec::new),
        };
        for (class, numbers) in codes.by_class() {
            let rows = codes.rows(&numbers);
            let share = numbers.len() as f64 / n as f64;
            let mut stream = Stream::new(seed, "mixture");
            let mut try_count = |count: usize| -> Result<(Self, MixtureScore)> {
                let (mixture, score) =
                    expectation_maximisation(&rows, codes.units, count, ridge, &mut stream)?;
                progress(class, score);
                Ok((mixture, score))
            };
            let best = match count {
                Some(count) => {
                    try_count(((count as f64 * share).round() as usize).clamp(1, numbers.len()))?.0
                }
                None => {
                    let mut best = try_count(1)?;
                    for count in std::iter::successors(Some(2), |count| Some(2 * count)) {
                        // Fewer than 8 codes a component cannot determine its covariance.
                        if count > MAX_COMPONENTS || 8 * count > numbers.len() {
                            break;
                        }
                        let next = try_count(count)?;
                        if next.1.bic >= best.1.bic {
                            break;
                        }
                        best = next;
                    }
                    best.0
                }
            };
            if let (Some(classes), Some(class)) = (&mut all.classes, class) {
                classes.extend(std::iter::repeat_n(class, best.components.len()));
            }
            all.weights.extend(best.weights.iter().map(|weight| weight * share as f32));
            all.components.extend(best.components);
        }
        Ok(all)
    }

    /// Index of the most probable component of a code.
    fn component_of(&self, code: &[f32]) -> usize {
        let score =
            |i: usize| f64::from(self.weights[i]).ln() + self.components[i].log_density(code)[0];
        let scores = (0..self.components.len()).map(|i| (i, score(i)));
        scores.max_by(|a, b| a.1.total_cmp(&b.1)).map_or(0, |(i, _)| i)
    }

    /// Samples a code, of one class if given. Standard deviations are multiplied by `temperature`.
    pub fn sample(
        &self,
        class: Option<u32>,
        temperature: f32,
        stream: &mut Stream,
        out: &mut [f32],
    ) {
        let component =
            &self.components[sample_index(&self.weights, self.classes.as_deref(), class, stream)];
        component.sample(&component.mean, temperature, stream, out);
    }

    /// A sampler of variations of a code. They come from its most probable component, and correlate
    /// with the code so that a share `vary` of the variance is new.
    pub fn variations(
        &self,
        code: &[f32],
        vary: f32,
        temperature: f32,
    ) -> impl Fn(&mut Stream, &mut [f32]) {
        let component = &self.components[self.component_of(code)];
        let keep = (1.0 - vary).sqrt();
        let centre: Vec<f32> = component
            .mean
            .iter()
            .zip(code)
            .map(|(mean, value)| mean + keep * (value - mean))
            .collect();
        move |stream, out| component.sample(&centre, vary.sqrt() * temperature, stream, out)
    }
}

/// Samples an index by weights, among those of one class if given.
pub fn sample_index(
    weights: &[f32],
    classes: Option<&[u32]>,
    class: Option<u32>,
    stream: &mut Stream,
) -> usize {
    let fits =
        |i: usize| class.is_none_or(|class| classes.is_none_or(|classes| classes[i] == class));
    let total: f64 = (0..weights.len()).filter(|i| fits(*i)).map(|i| f64::from(weights[i])).sum();
    let mut left = f64::from(stream.uniform()) * total;
    let mut last = 0;
    for i in (0..weights.len()).filter(|i| fits(*i)) {
        last = i;
        left -= f64::from(weights[i]);
        if left < 0.0 {
            break;
        }
    }
    last
}

/// The regularisation added to variances: a share of the mean variance of the codes.
fn ridge(codes: &Codes) -> f64 {
    let n = codes.len() as f64;
    let (mut sums, mut squares) = (vec![0.0_f64; codes.units], vec![0.0_f64; codes.units]);
    for row in codes.values.chunks_exact(codes.units) {
        for ((sum, square), value) in sums.iter_mut().zip(&mut squares).zip(row) {
            *sum += f64::from(*value);
            *square += f64::from(*value).powi(2);
        }
    }
    let variance: f64 =
        sums.iter().zip(&squares).map(|(sum, square)| square / n - (sum / n).powi(2)).sum();
    // Equal codes have variance 0; the minimum keeps their covariance positive definite.
    (RIDGE * variance / codes.units as f64).max(1e-12)
}

/// Fits a mixture by expectation maximisation (Dempster, Laird & Rubin 1977), initialised by
/// k-means. Empty components are dropped, so that it can have fewer than `count`.
fn expectation_maximisation(
    rows: &[f32],
    depth: usize,
    count: usize,
    ridge: f64,
    stream: &mut Stream,
) -> Result<(Mixture, MixtureScore)> {
    let n = rows.len() / depth;
    let of = k_means(rows, depth, count, stream).of;
    let mut count = of.iter().max().map_or(1, |max| *max as usize + 1);
    // Responsibility of each component for each row.
    let mut shares: Vec<Vec<f64>> = (0..count)
        .map(|cluster| of.iter().map(|of| f64::from(u8::from(*of as usize == cluster))).collect())
        .collect();
    let mut last = f64::NEG_INFINITY;
    loop {
        for iteration in 0.. {
            let fitted = shares.par_iter().map(|shares| {
                let members: Vec<usize> =
                    (0..n).filter(|row| shares[*row] > MIN_RESPONSIBILITY).collect();
                let own: Vec<f32> = members
                    .iter()
                    .flat_map(|row| &rows[row * depth..(row + 1) * depth])
                    .copied()
                    .collect();
                let weights: Vec<f64> = members.iter().map(|row| shares[*row]).collect();
                Ok((
                    weights.iter().sum::<f64>() / n as f64,
                    Gaussian::fit(&own, &weights, depth, ridge)?,
                ))
            });
            let (weights, components): (Vec<f64>, Vec<Gaussian>) =
                fitted.collect::<Result<Vec<_>>>()?.into_iter().unzip();
            let mut scores: Vec<Vec<f64>> = components
                .par_iter()
                .zip(&weights)
                .map(|(component, weight)| {
                    component.log_density(rows).into_iter().map(|d| d + weight.ln()).collect()
                })
                .collect();
            let mut sum = 0.0;
            for row in 0..n {
                let max = scores.iter().map(|scores| scores[row]).fold(f64::NEG_INFINITY, f64::max);
                let total =
                    max + scores.iter().map(|scores| (scores[row] - max).exp()).sum::<f64>().ln();
                scores.iter_mut().for_each(|scores| scores[row] = (scores[row] - total).exp());
                sum += total;
            }
            let likelihood = sum / n as f64;
            shares = scores;
            // Components with a total responsibility below one row are dropped.
            let alive = shares.iter().filter(|shares| shares.iter().sum::<f64>() >= 1.0).count();
            if alive < count {
                shares.retain(|shares| shares.iter().sum::<f64>() >= 1.0);
                count = alive;
                break;
            }
            if iteration + 1 >= MAX_ITERATIONS || likelihood - last < MIN_GAIN {
                let parameters = (count * (depth + depth * (depth + 1) / 2) + count - 1) as f64;
                let bic = parameters * (n as f64).ln() - 2.0 * sum;
                let weights = weights.into_iter().map(|weight| weight as f32).collect();
                let mixture = Mixture { weights, components, classes: None };
                return Ok((mixture, MixtureScore { components: count, likelihood, bic }));
            }
            last = likelihood;
        }
        last = f64::NEG_INFINITY;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Labels;

    /// Three clouds in a plane: around (0, 0), (8, 0), and an elongated one around (0, 9).
    fn codes(n: usize) -> Codes {
        let mut stream = Stream::new(1, "clouds");
        let of: Vec<u32> = (0..n as u32).map(|i| [0, 0, 1, 2][i as usize % 4]).collect();
        let values = of.iter().flat_map(|cloud| {
            let (a, b) = (stream.normal(), stream.normal());
            match cloud {
                0 => [a, b],
                1 => [8.0 + 0.5 * a, 0.5 * b],
                _ => [2.0 * a, 9.0 + 1.8 * a + 0.3 * b],
            }
        });
        Codes {
            units: 2,
            values: values.collect(),
            labels: Some(Labels { classes: ["a", "b", "c"].map(String::from).to_vec(), of }),
        }
    }

    #[test]
    fn mean_and_covariance_are_those_of_weighted_rows() {
        let (n, ridge) = (BLOCK + 3, 0.25);
        let mut stream = Stream::new(4, "rows");
        let rows: Vec<f32> =
            (0..n).flat_map(|_| [stream.normal(), 3.0 + 2.0 * stream.normal()]).collect();
        // The last row weighs as much as all others.
        let weights: Vec<f64> = (0..n).map(|i| if i + 1 == n { n as f64 } else { 1.0 }).collect();
        let fitted = Gaussian::fit(&rows, &weights, 2, ridge).unwrap();
        let mean_of = |of: &dyn Fn(&[f32]) -> f64| {
            let sum: f64 =
                rows.chunks_exact(2).zip(&weights).map(|(row, weight)| weight * of(row)).sum();
            sum / weights.iter().sum::<f64>()
        };
        let mean = [0, 1].map(|k| mean_of(&|row| f64::from(row[k])));
        assert!((0..2).all(|k| (f64::from(fitted.mean[k]) - mean[k]).abs() < 1e-5));
        for (i, j) in [(0, 0), (0, 1), (1, 1)] {
            let expected =
                mean_of(&|row| (f64::from(row[i]) - mean[i]) * (f64::from(row[j]) - mean[j]));
            let found: f64 = (0..2)
                .map(|k| f64::from(fitted.factor[2 * i + k]) * f64::from(fitted.factor[2 * j + k]))
                .sum();
            let expected = expected + if i == j { ridge } else { 0.0 };
            assert!(
                (found - expected).abs() < 1e-4 * expected.abs().max(1.0),
                "{i}, {j}: {found}, {expected}"
            );
        }
    }

    #[test]
    fn densities_are_those_of_the_formula() {
        let gaussian = Gaussian { mean: vec![1.0, -1.0], factor: vec![2.0, 0.0, 1.0, 0.5] };
        // Σ = [4 2; 2 1.25], |Σ| = 1, Σ⁻¹ = [1.25 -2; -2 4]
        let at = |x: f64, y: f64| {
            let (x, y) = (x - 1.0, y + 1.0);
            -0.5 * (1.25 * x * x - 4.0 * x * y + 4.0 * y * y) - std::f64::consts::TAU.ln()
        };
        let found = gaussian.log_density(&[1.0, -1.0, 0.0, 2.0, 3.5, 0.25]);
        for (found, expected) in found.iter().zip([at(1.0, -1.0), at(0.0, 2.0), at(3.5, 0.25)]) {
            assert!((found - expected).abs() < 1e-4, "{found} {expected}");
        }
    }

    #[test]
    fn samples_have_the_moments_of_the_codes() {
        let all = codes(4000);
        let moments = |values: &[f32]| {
            let n = values.len() as f64 / 2.0;
            let mean = [0, 1]
                .map(|i| values.iter().skip(i).step_by(2).map(|v| f64::from(*v)).sum::<f64>() / n);
            let of = |i: usize, j: usize| {
                values
                    .chunks_exact(2)
                    .map(|v| (f64::from(v[i]) - mean[i]) * (f64::from(v[j]) - mean[j]))
                    .sum::<f64>()
                    / n
            };
            [mean[0], mean[1], of(0, 0), of(0, 1), of(1, 1)]
        };
        for mixture in
            [Mixture::single(&all).unwrap(), Mixture::fit(&all, Some(8), 0, |_, _| {}).unwrap()]
        {
            let mut stream = Stream::new(2, "draws");
            let mut values = vec![0.0; 2 * 20_000];
            values.chunks_exact_mut(2).for_each(|out| mixture.sample(None, 1.0, &mut stream, out));
            for (found, expected) in moments(&values).iter().zip(moments(&all.values)) {
                assert!((found - expected).abs() < 0.35, "{found} {expected}");
            }
            // Temperature 0 samples the means.
            let means: Vec<&[f32]> =
                mixture.components.iter().map(|component| &component.mean[..]).collect();
            let mut out = [0.0; 2];
            mixture.sample(None, 0.0, &mut stream, &mut out);
            assert!(means.contains(&&out[..]));
        }
    }

    #[test]
    fn the_information_criterion_chooses_the_number_of_components() {
        let all = Codes { labels: None, ..codes(4000) };
        let mut tried = Vec::new();
        let mixture = Mixture::fit(&all, None, 0, |_, score| tried.push(score)).unwrap();
        // It tries 1, 2, 4 and 8 components: the likelihood rises, the criterion has a minimum.
        assert!(
            tried[..3].windows(2).all(|pair| pair[1].likelihood > pair[0].likelihood),
            "{tried:?}"
        );
        let best = tried.iter().min_by(|a, b| a.bic.total_cmp(&b.bic)).unwrap();
        assert_eq!(best.components, 4, "{tried:?}");
        assert_eq!(mixture.components.len(), 4);
        assert!((mixture.weights.iter().sum::<f32>() - 1.0).abs() < 1e-5);
        let parameters = |count: f64| count * 5.0 + count - 1.0;
        let by_hand = parameters(4.0) * 4000.0_f64.ln() - 2.0 * 4000.0 * best.likelihood;
        assert!((best.bic - by_hand).abs() < 1e-6);
        // With three components it finds the three clouds.
        let three = Mixture::fit(&all, Some(3), 0, |_, score| tried.push(score)).unwrap();
        let mut sizes = three.weights.clone();
        sizes.sort_by(f32::total_cmp);
        assert!((sizes[2] - 0.5).abs() < 0.03 && (sizes[0] - 0.25).abs() < 0.03, "{sizes:?}");
    }

    #[test]
    fn classes_have_components_of_their_own() {
        let mixture = Mixture::fit(&codes(2000), None, 0, |_, _| {}).unwrap();
        let classes = mixture.classes.clone().unwrap();
        assert!((0..3).all(|class| classes.contains(&class)));
        let mut stream = Stream::new(5, "draws");
        let mut out = [0.0; 2];
        for _ in 0..200 {
            mixture.sample(Some(1), 1.0, &mut stream, &mut out);
            assert!((out[0] - 8.0).abs() < 3.0 && out[1].abs() < 3.0, "{out:?}");
        }
        // With vary = 0 a variation is the code itself.
        let same = mixture.variations(&[8.0, 0.5], 0.0, 1.0);
        same(&mut stream, &mut out);
        assert!((out[0] - 8.0).abs() < 1e-5 && (out[1] - 0.5).abs() < 1e-5);
        // With vary = 0.5 the distance to the mean shrinks by √0.5, and new variance replaces it.
        let half = mixture.variations(&[8.0, 1.5], 0.5, 0.0);
        half(&mut stream, &mut out);
        let component = &mixture.components[mixture.component_of(&[8.0, 1.5])];
        assert!(
            (out[1] - component.mean[1] - 0.5_f32.sqrt() * (1.5 - component.mean[1])).abs() < 1e-5
        );
        // With vary = 1 a variation is a new code of the same component.
        let new = mixture.variations(&[8.0, 0.5], 1.0, 1.0);
        new(&mut stream, &mut out);
        assert!((out[0] - 8.0).abs() < 3.0 && (out[1] - 0.5).abs() > 1e-3);
    }

    #[test]
    fn equal_codes_can_be_fitted() {
        let codes = Codes { units: 2, values: [3.0, 0.0].repeat(20), labels: None };
        let mixture = Mixture::fit(&codes, None, 0, |_, _| {}).unwrap();
        let mut out = [0.0; 2];
        mixture.sample(None, 1.0, &mut Stream::new(0, "x"), &mut out);
        assert!((out[0] - 3.0).abs() < 1e-3 && out[1].abs() < 1e-3, "{out:?}");
    }
}
