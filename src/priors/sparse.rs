//! A sparse autoregressive prior: it models which units fire, and how strongly if they fire.
//!
//! Units are ordered by their firing rate, from the highest to the lowest. A masked
//! network (`priors/masked.rs`) predicts each unit from the units before it and from the
//! cluster of the code: the probability that it fires, and mean and standard deviation of its
//! strength. This is a hurdle model (Cragg 1971) for every unit. So the probability of a code is
//! exact, and sampled codes have units that are exactly 0.

use crate::error::Result;
use crate::ops::{HURDLE_OUTPUTS, HURDLE_VALUES, Hurdle};
use crate::priors::codes::{Codes, k_means, nearest};
use crate::priors::masked::{Masked, Sampler, Sizes};
use crate::priors::mixture::sample_index;
use crate::priors::prior::check;
use crate::priors::training::{self, Rows};
use crate::rng::Stream;

/// Minimum mean number of codes in a cluster. With fewer, clusters fit single codes.
const CLUSTER_CODES: usize = 256;
/// Maximum number of clusters, which bounds the inputs of the network.
const MAX_CLUSTERS: usize = 160;
/// Hidden units of the network: (per unit of the code, maximum).
const HIDDEN: (usize, usize) = (4, 512);
/// The distribution of the standardised root of a unit. Logarithms of standard deviations are at
/// least −4, which keeps densities finite when a strength is predicted exactly, and at most 2, far
/// above the 0 of a prediction that knows nothing. The pull is weak against gradients of the
/// likelihood, which are of order 1.
pub(super) const HURDLE: Hurdle = Hurdle { log_std: (-4.0, 2.0), pull: 0.1 };

/// Number of statistics of a unit.
pub const UNIT: usize = 5;

/// The sparse autoregressive prior.
#[derive(Clone, Debug, PartialEq)]
pub struct SparsePrior {
    /// The units in the order in which they are predicted.
    pub order: Vec<u32>,
    /// Statistics of each unit in this order: the firing rate, then mean, standard deviation,
    /// minimum and maximum of the signed root of its value when it fires.
    pub units: Vec<[f32; UNIT]>,
    /// Probability of each cluster.
    pub weights: Vec<f32>,
    /// Class of each cluster; `None` for unlabelled codes.
    pub classes: Option<Vec<u32>>,
    /// Cluster centres of signed roots, with units in the order of the code.
    pub centres: Vec<f32>,
    /// The network that predicts the distribution of each unit.
    pub network: Masked,
}

/// Mean loss on held-out codes, in nats.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HeldOutLoss {
    /// Negative log-probability of which units fire.
    pub fires: f64,
    /// Negative log-density of the standardised roots of units that fire, without its constant.
    pub strength: f64,
}

/// The two network inputs of a unit: whether it fires, minus its firing rate, and its standardised
/// root.
pub(super) fn unit_values(value: f32, [rate, mean, std, ..]: [f32; UNIT]) -> [f32; HURDLE_VALUES] {
    if value == 0.0 { [-rate, 0.0] } else { [1.0 - rate, (root(value) - mean) / std] }
}

/// Signed root of a value. The distribution of strengths is skewed, that of their roots less.
fn root(value: f32) -> f32 {
    value.abs().sqrt().copysign(value)
}

fn roots(rows: &[f32]) -> Vec<f32> {
    rows.iter().map(|value| root(*value)).collect()
}

/// The cluster of each code; the probability and class of each cluster; the cluster centres.
type Clustering = (Vec<u32>, Vec<f32>, Option<Vec<u32>>, Vec<f32>);

/// Clusters codes, for each class separately if they are labelled.
fn cluster(codes: &Codes, stream: &mut Stream) -> Clustering {
    let n = codes.len();
    let max = (n / CLUSTER_CODES).clamp(1, MAX_CLUSTERS);
    let (mut of, mut weights, mut classes, mut centres) =
        (vec![0; n], Vec::new(), Vec::new(), Vec::new());
    for (class, numbers) in codes.by_class() {
        let rows = roots(&codes.rows(&numbers));
        let count = (max * numbers.len()).div_ceil(n).max(1);
        let found = k_means(&rows, codes.units, count, stream);
        let first = weights.len() as u32;
        let count = found.centres.len() / codes.units;
        weights.extend(std::iter::repeat_n(0.0, count));
        classes.extend(std::iter::repeat_n(class, count));
        centres.extend(found.centres);
        for (number, cluster) in numbers.iter().zip(found.of) {
            of[*number] = first + cluster;
            weights[(first + cluster) as usize] += 1.0 / n as f32;
        }
    }
    (of, weights, classes.into_iter().collect(), centres)
}

/// A sparse prior whose network is not trained yet.
#[derive(Clone, Debug)]
pub struct Untrained {
    order: Vec<u32>,
    units: Vec<[f32; UNIT]>,
    weights: Vec<f32>,
    classes: Option<Vec<u32>>,
    centres: Vec<f32>,
    /// The network before training.
    pub network: Masked,
    /// Cluster of each code.
    clusters: Vec<u32>,
    /// The codes in random order.
    shuffled: Vec<usize>,
}

impl Untrained {
    /// Fits everything but the network to codes.
    ///
    /// # Errors
    /// When there are fewer than 32 codes, or no unit fires.
    pub fn fit(codes: &Codes, seed: u64) -> Result<Self> {
        check(codes)?;
        let (n, units) = (codes.len(), codes.units);
        let mut stream = Stream::new(seed, "sparse prior");
        let (clusters, weights, classes, centres) = cluster(codes, &mut stream);
        // Firing count, then sum, sum of squares, minimum and maximum of the roots of each unit.
        let mut numbers = vec![[0.0, 0.0, 0.0, f64::INFINITY, f64::NEG_INFINITY]; units];
        for row in codes.values.chunks_exact(units) {
            for (numbers, value) in numbers.iter_mut().zip(row).filter(|(_, value)| **value != 0.0)
            {
                let root = f64::from(root(*value));
                let [fired, sum, squares, min, max] = *numbers;
                *numbers =
                    [fired + 1.0, sum + root, squares + root * root, min.min(root), max.max(root)];
            }
        }
        let mut order: Vec<u32> = (0..units as u32).collect();
        order.sort_by(|a, b| {
            numbers[*b as usize][0].total_cmp(&numbers[*a as usize][0]).then(a.cmp(b))
        });
        let of_unit = |unit: &u32| {
            let [fired, sum, squares, min, max] = numbers[*unit as usize];
            let mean = sum / fired.max(1.0);
            let std = (squares / fired.max(1.0) - mean * mean).max(0.0).sqrt();
            // Strictly between 0 and 1, so that `unit_values` distinguishes a unit that fires, and
            // the logit is finite.
            let rate = (fired / n as f64).clamp(1e-4, 1.0 - 1e-4);
            let [min, max] = if fired > 0.0 { [min as f32, max as f32] } else { [0.0; 2] };
            // A constant strength is not divided by its rounding error.
            [rate as f32, mean as f32, if std > 1e-6 { std as f32 } else { 1.0 }, min, max]
        };
        let of_units: Vec<[f32; UNIT]> = order.iter().map(of_unit).collect();
        let sizes = SparsePrior::sizes(units, weights.len());
        let mut bias = vec![0.0; HURDLE_OUTPUTS * units];
        bias.iter_mut()
            .zip(&of_units)
            .for_each(|(bias, [rate, ..])| *bias = (rate / (1.0 - rate)).ln());
        let network = Masked::new(sizes, bias, &mut stream);
        let shuffled: Vec<usize> =
            stream.permutation(n).into_iter().map(|code| code as usize).collect();
        Ok(Self { order, units: of_units, weights, classes, centres, network, clusters, shuffled })
    }

    /// Makes inputs of the network from the codes that this was fitted to.
    pub fn rows<'a>(&'a self, codes: &'a Codes) -> Rows<'a> {
        let Self { order, units, clusters, network, .. } = self;
        Rows { codes, order, units, clusters, sizes: network.sizes }
    }

    /// The numbers of the codes to fit to, and of the held-out codes. `share` is the share to hold
    /// out. With 0, the loss is measured on the codes that the network is fitted to.
    pub fn split(&self, share: f64) -> [&[usize]; 2] {
        let count = training::held_out_count(self.shuffled.len(), share);
        let (held_out, fit) = self.shuffled.split_at(count);
        [fit, if held_out.is_empty() { fit } else { held_out }]
    }

    /// The prior with a trained network.
    pub fn with_network(&self, network: Masked) -> SparsePrior {
        let Self { order, units, weights, classes, centres, .. } = self.clone();
        SparsePrior { order, units, weights, classes, centres, network }
    }
}

impl SparsePrior {
    /// Sizes of the network for this number of units and clusters.
    fn sizes(units: usize, clusters: usize) -> Sizes {
        Sizes { units, conditions: clusters, hidden: (HIDDEN.0 * units).min(HIDDEN.1) }
    }

    /// Memory in bytes for fitting, besides the codes.
    pub fn bytes(units: usize, codes: usize) -> u64 {
        let sizes = Self::sizes(units, MAX_CLUSTERS);
        // The roots of the codes, for clustering, and training.
        4 * (codes * units) as u64 + training::bytes(sizes, codes)
    }

    /// Samples a code, of one class if given. A temperature below 1 gives more probable codes,
    /// nearer to the mean.
    pub fn sample(
        &self,
        class: Option<u32>,
        temperature: f32,
        stream: &mut Stream,
        out: &mut [f32],
    ) {
        let cluster = sample_index(&self.weights, self.classes.as_deref(), class, stream);
        self.sample_units(cluster, temperature, stream, out, |_, _| None);
    }

    /// A sampler of variations of a code. They belong to its cluster; each unit is resampled with
    /// probability `vary`, given the units before it.
    pub fn variations(
        &self,
        code: &[f32],
        vary: f32,
        temperature: f32,
    ) -> impl Fn(&mut Stream, &mut [f32]) {
        let cluster = nearest(&roots(code), &self.centres, code.len())[0] as usize;
        let code = code.to_vec();
        move |stream, out| {
            self.sample_units(cluster, temperature, stream, out, |unit, stream| {
                (stream.uniform() >= vary).then(|| code[unit])
            });
        }
    }

    /// Samples a code of a cluster, unit by unit. `given_value` can fix the value of a unit.
    fn sample_units(
        &self,
        cluster: usize,
        temperature: f32,
        stream: &mut Stream,
        out: &mut [f32],
        given_value: impl Fn(usize, &mut Stream) -> Option<f32>,
    ) {
        let mut conditions = vec![0.0; self.network.sizes.conditions];
        conditions[cluster] = 1.0;
        let mut sampler = Sampler::new(&self.network, &conditions);
        for (i, (unit, numbers)) in self.order.iter().zip(&self.units).enumerate() {
            let value = given_value(*unit as usize, stream).unwrap_or_else(|| {
                let [logit, mean, log_std] = sampler.predict(i);
                sample_unit(logit, mean, log_std, *numbers, temperature, stream)
            });
            out[*unit as usize] = value;
            sampler.set_unit(i, unit_values(value, *numbers));
        }
    }
}

/// Samples the value of a unit from the logit of firing and from mean and logarithmic standard
/// deviation of its standardised root.
fn sample_unit(
    logit: f32,
    mean: f32,
    log_std: f32,
    numbers: [f32; UNIT],
    temperature: f32,
    stream: &mut Stream,
) -> f32 {
    let [_, centre, scale, min, max] = numbers;
    // Always uses two random numbers, so that the numbers of later units do not depend on whether
    // this one fires.
    let (uniform, normal) = (stream.uniform(), stream.normal());
    let fires = if temperature > 0.0 {
        uniform < 1.0 / (1.0 + (-logit / temperature).exp())
    } else {
        logit > 0.0
    };
    if !fires {
        return 0.0;
    }
    let std = log_std.clamp(HURDLE.log_std.0 as f32, HURDLE.log_std.1 as f32).exp();
    let root = centre + scale * (mean + temperature * std * normal);
    // Within the range of the training codes: the network has not seen other values.
    let root = root.clamp(min, max);
    if root == 0.0 { f32::MIN_POSITIVE } else { root * root.abs() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Labels;

    /// Codes of five units. The second fires if and only if the first does not. The third has twice
    /// the value of the first. The fourth fires for one of two classes. The fifth never fires.
    fn codes(n: usize) -> Codes {
        let mut stream = Stream::new(2, "units");
        let mut of = Vec::new();
        let values = (0..n).flat_map(|_| {
            let class = stream.below(2);
            of.push(class as u32);
            let strength = 1.0 + 0.2 * stream.normal().abs();
            let first = stream.uniform() < 0.7;
            let [a, b] = if first { [strength, 0.0] } else { [0.0, 3.0] };
            [a, b, 2.0 * a, if class == 1 { -1.0 } else { 0.0 }, 0.0]
        });
        let values = values.collect();
        Codes {
            units: 5,
            values,
            labels: Some(Labels { classes: vec!["no".into(), "yes".into()], of }),
        }
    }

    #[test]
    fn samples_have_the_dependencies_of_the_codes() {
        let all = codes(2000);
        let (prior, validations) = training::fit_for_test(&all, "hash").unwrap();
        assert_eq!(validations, 16);
        assert_eq!(prior, training::fit_for_test(&all, "hash").unwrap().0);
        let prior = prior.sparse;
        let mut stream = Stream::new(1, "draws");
        let samples: Vec<[f32; 5]> = (0..1000)
            .map(|_| {
                let mut code = [0.0; 5];
                prior.sample(None, 1.0, &mut stream, &mut code);
                code
            })
            .collect();
        let share = |of: &dyn Fn(&[f32; 5]) -> bool| {
            samples.iter().filter(|code| of(code)).count() as f64 / 1000.0
        };
        assert!((share(&|z| z[0] != 0.0) - 0.7).abs() < 0.06);
        assert!(share(&|z| (z[0] != 0.0) != (z[1] != 0.0)) > 0.97, "one of two fires");
        assert!(
            share(&|z| z[0] == 0.0 || (z[2] / z[0] - 2.0).abs() < 0.25) > 0.95,
            "as strongly as the other one"
        );
        assert!(
            share(&|z| z[3] == 0.0 || (z[3] + 1.0).abs() < 0.2) > 0.95
                && share(&|z| z[3] > 0.0) == 0.0
        );
        assert_eq!(share(&|z| z[4] != 0.0), 0.0);
        // Samples of one class.
        for class in [0, 1] {
            let mut code = [0.0; 5];
            let right = (0..200).filter(|_| {
                prior.sample(Some(class), 1.0, &mut stream, &mut code);
                (code[3] != 0.0) == (class == 1)
            });
            assert!(right.count() > 190, "{class}");
        }
    }

    #[test]
    fn temperature_scales_firing_odds_and_strengths() {
        let (logit, numbers) = (3.0_f32.ln(), [0.0, 2.0, 0.5, 0.0, 9.0]);
        let mut stream = Stream::new(6, "unit");
        for (temperature, fires) in [(1.0, 0.75), (0.5, 0.9), (2.0, 0.634), (0.0, 1.0)] {
            let values: Vec<f32> = (0..4000)
                .map(|_| sample_unit(logit, 1.0, -0.5, numbers, temperature, &mut stream))
                .collect();
            let roots: Vec<f64> =
                values.iter().filter(|v| **v != 0.0).map(|v| f64::from(*v).sqrt()).collect();
            let n = roots.len() as f64;
            assert!((n / 4000.0 - fires).abs() < 0.03, "{temperature}: {n}");
            let mean = roots.iter().sum::<f64>() / n;
            let std = (roots.iter().map(|root| (root - mean).powi(2)).sum::<f64>() / n).sqrt();
            let expected = 0.5 * f64::from(temperature) * (-0.5_f64).exp();
            assert!(
                (mean - 2.5).abs() < 0.05 && (std - expected).abs() < 0.03,
                "{temperature}: {mean} ± {std}"
            );
        }
        // At temperature 0 a unit with odds below 1 never fires.
        assert_eq!(sample_unit(-0.1, 1.0, -0.5, numbers, 0.0, &mut stream), 0.0);
    }

    #[test]
    fn variations_keep_units() {
        let all = codes(1000);
        let prior = training::fit_for_test(&all, "hash").unwrap().0.sparse;
        let code = [1.3, 0.0, 2.6, -1.0, 0.0];
        let (mut stream, mut out) = (Stream::new(1, "like"), [0.0; 5]);
        prior.variations(&code, 0.0, 1.0)(&mut stream, &mut out);
        assert_eq!(out, code);
        // With all units resampled: the same cluster, other strengths.
        let resampled = prior.variations(&code, 1.0, 1.0);
        let similar = (0..100).filter(|_| {
            resampled(&mut stream, &mut out);
            out[0] > 0.5 && out[0] != 1.3 && out[1] == 0.0 && out[3] < -0.5
        });
        assert!(similar.count() > 90);
    }
}
