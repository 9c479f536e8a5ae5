//! A prior that respects sparsity: which units fire, and how strongly, given that they fire.
//!
//! Units come one after the other, those that fire most often first. Of each a [masked
//! network](crate::priors::masked) says, given the units before it and the group that the code is of, how
//! probable it is that it fires, and mean and spread of how strongly: a hurdle model (Cragg 1971)
//! for every unit. So a code's probability is exact, and codes are drawn with units that are just
//! 0.

use rayon::prelude::*;

use crate::priors::codes::{Codes, k_means, nearest};
use crate::priors::masked::{Adam, Masked, SAYS, Sizes, Walk};
use crate::priors::mixture::pick;
use crate::rng::Stream;

/// Codes of a group on average at least.
const OF_GROUP: usize = 256;
/// Clusters at most.
const GROUPS: usize = 160;
/// Hidden units of the network for each unit of the code, and at most.
const HIDDEN: (usize, usize) = (4, 512);
/// Codes of a step: a sixteenth of all, within these limits.
const BATCH: (usize, usize) = (64, 512);
/// Steps: few codes are seen as often as many, in smaller batches.
const STEPS: usize = 2400;
/// How often codes that are held out are looked at.
const LOOKS: usize = 16;
/// Share of the codes that are held out, and how many at most.
const HELD_OUT: (usize, usize) = (16, 4096);
/// Peak learning rate, reached after so many steps.
const RATE: (f32, usize) = (2e-3, 100);
/// Limits of the logarithm of a strength's spread.
const SPREADS: (f32, f32) = (-4.0, 2.0);

/// Numbers of a unit.
pub const UNIT: usize = 5;

/// The prior.
#[derive(Clone, Debug, PartialEq)]
pub struct SparsePrior {
    /// The units in the order in which they are drawn.
    pub order: Vec<u32>,
    /// Of each unit in this order: how often it fires, mean and spread of its strength's signed
    /// root then, and the least and the largest one.
    pub units: Vec<[f32; UNIT]>,
    /// How probable each group is.
    pub weights: Vec<f32>,
    /// The class of each group; none where codes have no classes.
    pub classes: Option<Vec<u32>>,
    /// The groups' centres, of roots in the codes' own order.
    pub centres: Vec<f32>,
    /// What says how units are distributed.
    pub network: Masked,
}

/// How well held-out codes are told, in nats.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HeldOutLoss {
    /// Which units fire: −ln of the probability.
    pub fires: f64,
    /// How strongly: −ln of the density of standardised roots, but for the constant.
    pub strength: f64,
}

/// What the network is given of a unit.
fn given(value: f32, [rate, mean, spread, ..]: [f32; UNIT]) -> [f32; 2] {
    if value == 0.0 { [-rate, 0.0] } else { [1.0 - rate, (root(value) - mean) / spread] }
}

/// Strengths are skewed; their roots are less so.
fn root(value: f32) -> f32 {
    value.abs().sqrt().copysign(value)
}

fn roots(rows: &[f32]) -> Vec<f32> {
    rows.iter().map(|value| root(*value)).collect()
}

/// Rows for the network.
struct Rows<'a> {
    codes: &'a Codes,
    prior: &'a SparsePrior,
    group: &'a [u32],
}

impl Rows<'_> {
    /// The inputs of some codes.
    fn inputs(&self, numbers: &[usize]) -> Vec<f32> {
        let Sizes { units, .. } = self.prior.network.sizes;
        let width = self.prior.network.sizes.input();
        let mut x = vec![0.0; numbers.len() * width];
        for (x, number) in x.chunks_exact_mut(width).zip(numbers) {
            let code = &self.codes.values[number * units..(number + 1) * units];
            for (i, (unit, numbers)) in self.prior.order.iter().zip(&self.prior.units).enumerate() {
                [x[i], x[units + i]] = given(code[*unit as usize], *numbers);
            }
            x[2 * units + self.group[*number] as usize] = 1.0;
        }
        x
    }
}

/// The loss of rows whose inputs and outputs these are, both parts, and its gradients.
fn loss(sizes: Sizes, x: &[f32], outputs: &[f32]) -> (HeldOutLoss, Vec<f32>) {
    let (units, width) = (sizes.units, sizes.input());
    let mut gradients = vec![0.0; outputs.len()];
    let (mut fires, mut strength) = (0.0_f64, 0.0_f64);
    for ((x, o), d) in x
        .chunks_exact(width)
        .zip(outputs.chunks_exact(sizes.output()))
        .zip(gradients.chunks_exact_mut(sizes.output()))
    {
        for i in 0..units {
            // inputs of units that do not fire are below 0, those of others above, however often
            // they fire
            let (on, y) = (x[i] > 0.0, x[units + i]);
            let logit = o[i];
            let probability = 1.0 / (1.0 + (-logit).exp());
            let wrong = if on { -logit } else { logit };
            fires += f64::from(wrong.max(0.0) + (-wrong.abs()).exp().ln_1p());
            d[i] = probability - f32::from(u8::from(on));
            if on {
                let free = o[2 * units + i];
                let spread = free.clamp(SPREADS.0, SPREADS.1);
                let apart = (y - o[units + i]) * (-spread).exp();
                strength += f64::from(spread + 0.5 * apart * apart);
                d[units + i] = -apart * (-spread).exp();
                // from beyond a limit it is drawn back, or it would stay there
                d[2 * units + i] =
                    if spread == free { 1.0 - apart * apart } else { 0.1 * (free - spread) };
            }
        }
    }
    (HeldOutLoss { fires, strength }, gradients)
}

/// Clusters of like codes, of each class for itself where they have classes: the group of each code,
/// and of each group its share and class.
type Grouped = (Vec<u32>, Vec<f32>, Option<Vec<u32>>, Vec<f32>);

fn grouped(codes: &Codes, stream: &mut Stream) -> Grouped {
    let n = codes.len();
    let most = (n / OF_GROUP).clamp(1, GROUPS);
    let (mut of, mut weights, mut classes, mut centres) =
        (vec![0; n], Vec::new(), Vec::new(), Vec::new());
    for (class, numbers) in codes.by_class() {
        let rows = roots(&codes.rows(&numbers));
        let count = (most * numbers.len()).div_ceil(n).max(1);
        let found = k_means(&rows, codes.units, count, stream);
        let first = weights.len() as u32;
        let count = found.centres.len() / codes.units;
        weights.extend(std::iter::repeat_n(0.0, count));
        classes.extend(std::iter::repeat_n(class, count));
        centres.extend(found.centres);
        for (number, group) in numbers.iter().zip(found.of) {
            of[*number] = first + group;
            weights[(first + group) as usize] += 1.0 / n as f32;
        }
    }
    (of, weights, classes.into_iter().collect(), centres)
}

impl SparsePrior {
    /// Sizes of the network for so many units and groups.
    fn sizes(units: usize, groups: usize) -> Sizes {
        Sizes { units, told: groups, hidden: (HIDDEN.0 * units).min(HIDDEN.1) }
    }

    /// Bytes that fitting takes beside the codes.
    pub fn bytes(units: usize, codes: usize) -> u64 {
        let sizes = Self::sizes(units, GROUPS);
        // roots of a class, and the groups' sums
        Masked::bytes(sizes, BATCH.1)
            + 4 * (codes * units) as u64
            + (4 * BATCH.1 * (sizes.input() + 2 * sizes.output())) as u64
    }

    /// Fits it to codes; tells the step, and how well held-out codes are told.
    pub fn fit(codes: &Codes, seed: u64, mut told: impl FnMut(usize, usize, HeldOutLoss)) -> Self {
        let (n, units) = (codes.len(), codes.units);
        let mut stream = Stream::new(seed, "sparse prior");
        let (group, weights, classes, centres) = grouped(codes, &mut stream);
        let mut numbers = vec![[0.0, 0.0, 0.0, f64::INFINITY, f64::NEG_INFINITY]; units];
        for row in codes.values.chunks_exact(units) {
            for (numbers, value) in numbers.iter_mut().zip(row).filter(|(_, value)| **value != 0.0)
            {
                let root = f64::from(root(*value));
                let [fired, sum, squares, least, most] = *numbers;
                *numbers = [
                    fired + 1.0,
                    sum + root,
                    squares + root * root,
                    least.min(root),
                    most.max(root),
                ];
            }
        }
        let mut order: Vec<u32> = (0..units as u32).collect();
        order.sort_by(|a, b| {
            numbers[*b as usize][0].total_cmp(&numbers[*a as usize][0]).then(a.cmp(b))
        });
        let of_unit = |unit: &u32| {
            let [fired, sum, squares, least, most] = numbers[*unit as usize];
            let mean = sum / fired.max(1.0);
            let spread = (squares / fired.max(1.0) - mean * mean).max(0.0).sqrt();
            // a unit that always fires is still told from one that never does
            let rate = (fired / n as f64).clamp(1e-4, 1.0 - 1e-4);
            let [least, most] = if fired > 0.0 { [least as f32, most as f32] } else { [0.0; 2] };
            [rate as f32, mean as f32, if spread > 1e-6 { spread as f32 } else { 1.0 }, least, most]
        };
        let of_units: Vec<[f32; UNIT]> = order.iter().map(of_unit).collect();
        let sizes = Self::sizes(units, weights.len());
        let mut bias = vec![0.0; SAYS * units];
        bias.iter_mut()
            .zip(&of_units)
            .for_each(|(bias, [rate, ..])| *bias = (rate / (1.0 - rate)).ln());
        let network = Masked::new(sizes, bias, &mut stream);
        let mut prior = Self { order, units: of_units, weights, classes, centres, network };
        prior.learn(codes, &group, &mut stream, &mut told);
        prior
    }

    /// Trains the network, and keeps it as it was when held-out codes were told best.
    fn learn(
        &mut self,
        codes: &Codes,
        group: &[u32],
        stream: &mut Stream,
        told: &mut impl FnMut(usize, usize, HeldOutLoss),
    ) {
        let n = codes.len();
        let order: Vec<usize> =
            stream.permutation(n).into_iter().map(|code| code as usize).collect();
        let (held, fit) = order.split_at((n / HELD_OUT.0).min(HELD_OUT.1));
        let sizes = self.network.sizes;
        let mut adam = Adam::new(&self.network);
        let mut best = (f64::INFINITY, self.network.clone());
        let mut queue: Vec<usize> = Vec::new();
        let batch = (n / 16).clamp(BATCH.0, BATCH.1).min(fit.len());
        for step in 1..=STEPS {
            while queue.len() < batch {
                queue.extend(stream.permutation(fit.len()).into_iter().map(|at| fit[at as usize]));
            }
            let chosen: Vec<usize> = queue.drain(..batch).collect();
            let x = Rows { codes, prior: self, group }.inputs(&chosen);
            let warm = (step as f32 / RATE.1 as f32).min(1.0);
            let rate = RATE.0
                * warm
                * 0.5
                * (1.0 + (std::f32::consts::PI * step as f32 / STEPS as f32).cos());
            let width = sizes.input();
            let of_piece = |first: usize, outputs: &[f32]| {
                let rows = outputs.len() / sizes.output();
                let (held, gradients) =
                    loss(sizes, &x[first * width..(first + rows) * width], outputs);
                (held.fires + held.strength, gradients)
            };
            let learned = adam.step(&mut self.network, rate, &x, of_piece);
            if step % (STEPS / LOOKS) == 0 {
                let found = if held.is_empty() {
                    HeldOutLoss { fires: learned, strength: 0.0 }
                } else {
                    self.judge(Rows { codes, prior: self, group }.inputs(held))
                };
                if found.fires + found.strength < best.0 {
                    best = (found.fires + found.strength, self.network.clone());
                }
                told(step, STEPS, found);
            }
        }
        self.network = best.1;
    }

    /// How well rows are told, on average.
    fn judge(&self, x: Vec<f32>) -> HeldOutLoss {
        let sizes = self.network.sizes;
        let n = (x.len() / sizes.input()) as f64;
        let each: Vec<HeldOutLoss> = x
            .par_chunks(64 * sizes.input())
            .map(|x| loss(sizes, x, &self.network.says(x)).0)
            .collect();
        let sum = |of: fn(&HeldOutLoss) -> f64| each.iter().map(of).sum::<f64>() / n;
        HeldOutLoss { fires: sum(|held| held.fires), strength: sum(|held| held.strength) }
    }

    /// A code, of `class` where one is wanted; at a temperature below 1 likelier ones, nearer to
    /// the mean.
    pub fn draw(&self, class: Option<u32>, temperature: f32, stream: &mut Stream, out: &mut [f32]) {
        let group = pick(&self.weights, self.classes.as_deref(), class, stream);
        self.walk(group, temperature, stream, out, |_, _| None);
    }

    /// Codes like one: of its group, each unit with the chance `vary` drawn anew, given the units
    /// before it. One way of drawing them, many times.
    pub fn like(
        &self,
        code: &[f32],
        vary: f32,
        temperature: f32,
    ) -> impl Fn(&mut Stream, &mut [f32]) {
        let group = nearest(&roots(code), &self.centres, code.len())[0] as usize;
        let code = code.to_vec();
        move |stream, out| {
            self.walk(group, temperature, stream, out, |unit, stream| {
                (stream.uniform() >= vary).then(|| code[unit])
            });
        }
    }

    /// Draws a code of a group, unit by unit, but for those whose value is given.
    fn walk(
        &self,
        group: usize,
        temperature: f32,
        stream: &mut Stream,
        out: &mut [f32],
        given_value: impl Fn(usize, &mut Stream) -> Option<f32>,
    ) {
        let mut told = vec![0.0; self.network.sizes.told];
        told[group] = 1.0;
        let mut walk = Walk::new(&self.network, &told);
        for (i, (unit, numbers)) in self.order.iter().zip(&self.units).enumerate() {
            let value = given_value(*unit as usize, stream).unwrap_or_else(|| {
                let [logit, mean, spread] = walk.says(i);
                draw_unit(logit, mean, spread, *numbers, temperature, stream)
            });
            out[*unit as usize] = value;
            walk.give(i, given(value, *numbers));
        }
    }
}

/// A unit's value.
fn draw_unit(
    logit: f32,
    mean: f32,
    spread: f32,
    numbers: [f32; UNIT],
    temperature: f32,
    stream: &mut Stream,
) -> f32 {
    let [_, centre, scale, least, most] = numbers;
    // two numbers of the stream, whether it fires or not: a change of one unit leaves what is drawn
    // for others
    let (uniform, normal) = (stream.uniform(), stream.normal());
    let fires = if temperature > 0.0 {
        uniform < 1.0 / (1.0 + (-logit / temperature).exp())
    } else {
        logit > 0.0
    };
    if !fires {
        return 0.0;
    }
    let root =
        centre + scale * (mean + temperature * spread.clamp(SPREADS.0, SPREADS.1).exp() * normal);
    // no stronger and no weaker than it ever was: units that come later never saw it otherwise
    let root = root.clamp(least, most);
    if root == 0.0 { f32::MIN_POSITIVE } else { root * root.abs() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Labels;

    /// Units of which the second fires just when the first does not, the third as strongly as the
    /// first, and the fourth by class; the fifth never.
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
    fn codes_are_drawn_as_they_occur() {
        let all = codes(2000);
        let mut looks = 0;
        let prior = SparsePrior::fit(&all, 0, |_, _, _| looks += 1);
        assert_eq!(looks, LOOKS);
        assert_eq!(prior, SparsePrior::fit(&all, 0, |_, _, _| {}));
        let mut stream = Stream::new(1, "draws");
        let drawn: Vec<[f32; 5]> = (0..1000)
            .map(|_| {
                let mut code = [0.0; 5];
                prior.draw(None, 1.0, &mut stream, &mut code);
                code
            })
            .collect();
        let share = |of: &dyn Fn(&[f32; 5]) -> bool| {
            drawn.iter().filter(|code| of(code)).count() as f64 / 1000.0
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
        // of a class
        for class in [0, 1] {
            let mut code = [0.0; 5];
            let right = (0..200).filter(|_| {
                prior.draw(Some(class), 1.0, &mut stream, &mut code);
                (code[3] != 0.0) == (class == 1)
            });
            assert!(right.count() > 190, "{class}");
        }
    }

    #[test]
    fn temperature_is_of_what_fires_and_of_how_strongly() {
        let (logit, numbers) = (3.0_f32.ln(), [0.0, 2.0, 0.5, 0.0, 9.0]);
        let mut stream = Stream::new(6, "unit");
        for (temperature, fires) in [(1.0, 0.75), (0.5, 0.9), (2.0, 0.634), (0.0, 1.0)] {
            let values: Vec<f32> = (0..4000)
                .map(|_| draw_unit(logit, 1.0, -0.5, numbers, temperature, &mut stream))
                .collect();
            let roots: Vec<f64> =
                values.iter().filter(|v| **v != 0.0).map(|v| f64::from(*v).sqrt()).collect();
            let n = roots.len() as f64;
            assert!((n / 4000.0 - fires).abs() < 0.03, "{temperature}: {n}");
            let mean = roots.iter().sum::<f64>() / n;
            let deviation =
                (roots.iter().map(|root| (root - mean).powi(2)).sum::<f64>() / n).sqrt();
            let expected = 0.5 * f64::from(temperature) * (-0.5_f64).exp();
            assert!(
                (mean - 2.5).abs() < 0.05 && (deviation - expected).abs() < 0.03,
                "{temperature}: {mean} ± {deviation}"
            );
        }
        // where it is unlikely it does not fire at all
        assert_eq!(draw_unit(-0.1, 1.0, -0.5, numbers, 0.0, &mut stream), 0.0);
    }

    #[test]
    fn what_is_like_a_code_keeps_units() {
        let all = codes(1000);
        let prior = SparsePrior::fit(&all, 0, |_, _, _| {});
        let code = [1.3, 0.0, 2.6, -1.0, 0.0];
        let (mut stream, mut out) = (Stream::new(1, "like"), [0.0; 5]);
        prior.like(&code, 0.0, 1.0)(&mut stream, &mut out);
        assert_eq!(out, code);
        // all anew: of the same group, other strengths
        let anew = prior.like(&code, 1.0, 1.0);
        let alike = (0..100).filter(|_| {
            anew(&mut stream, &mut out);
            out[0] > 0.5 && out[0] != 1.3 && out[1] == 0.0 && out[3] < -0.5
        });
        assert!(alike.count() > 90);
    }

    #[test]
    fn losses_fall_along_their_gradients() {
        let sizes = Sizes { units: 3, told: 1, hidden: 4 };
        let x = [0.6, -0.4, 0.1, 1.2, 0.0, -0.7, 1.0];
        let outputs = [0.3, -1.2, 2.0, 0.4, 0.0, -0.5, 0.2, 0.1, -0.6];
        let of = |o: &[f32]| {
            let held = loss(sizes, &x, o).0;
            held.fires + held.strength
        };
        let gradients = loss(sizes, &x, &outputs).1;
        for at in 0..9 {
            let moved = |by: f32| {
                let mut moved = outputs;
                moved[at] += by;
                of(&moved)
            };
            let by_differences = (moved(1e-2) - moved(-1e-2)) / 2e-2;
            assert!(
                (f64::from(gradients[at]) - by_differences).abs() < 2e-3,
                "{at}: {} {by_differences}",
                gradients[at]
            );
        }
        // by hand: the first unit fires
        let one = loss(Sizes { units: 1, ..sizes }, &[0.5, 2.0, 1.0], &[0.0, 1.0, 0.0]).0;
        assert!((one.fires - 2.0_f64.ln()).abs() < 1e-6 && (one.strength - 0.5).abs() < 1e-6);
    }
}
