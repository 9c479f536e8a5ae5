//! A masked autoencoder for distribution estimation (Germain et al., "MADE", 2015): a network with
//! a hidden layer whose outputs for a unit depend on the units before it alone, and on what is told
//! of the whole code, so that it says of each unit how it is distributed given those before.

use rayon::prelude::*;

use crate::linalg::gemm::{Matrix, gemm};
use crate::rng::Stream;

/// Rows whose gradients are summed in one piece: sums do not depend on the number of threads.
const PIECE: usize = 64;

/// Sizes of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Units.
    pub units: usize,
    /// Values that are told of the whole code; they come after those of units.
    pub told: usize,
    /// Hidden units.
    pub hidden: usize,
}

/// Values that a unit gives to those after it.
pub const GIVES: usize = 2;
/// Values that are said of a unit.
pub const SAYS: usize = 3;

impl Sizes {
    /// Values of an input: the first values of all units, the second values of all, and what is
    /// told.
    pub const fn input(self) -> usize {
        GIVES * self.units + self.told
    }

    /// Values of an output: the first of all units, the second of all, and so on.
    pub const fn output(self) -> usize {
        SAYS * self.units
    }

    /// The first unit that may not see an input is this many units after the first; what is told
    /// all may see.
    const fn input_degree(self, input: usize) -> usize {
        if input < GIVES * self.units { input % self.units + 1 } else { 0 }
    }

    /// The same of a hidden unit: evenly from the first unit on.
    const fn hidden_degree(self, hidden: usize) -> usize {
        hidden * self.units / self.hidden
    }

    const fn output_degree(self, output: usize) -> usize {
        output % self.units
    }
}

/// The parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct Masked {
    /// Their sizes.
    pub sizes: Sizes,
    /// To the hidden layer, a row for each input.
    pub into: Vec<f32>,
    /// Biases of the hidden layer.
    pub hidden: Vec<f32>,
    /// From the hidden layer, a row for each output.
    pub out: Vec<f32>,
    /// From inputs straight to outputs, a row for each output.
    pub direct: Vec<f32>,
    /// Biases of outputs.
    pub bias: Vec<f32>,
}

impl Masked {
    /// Weights drawn, so that outputs are the biases alone at first.
    pub fn new(sizes: Sizes, bias: Vec<f32>, stream: &mut Stream) -> Self {
        let (input, hidden, output) = (sizes.input(), sizes.hidden, sizes.output());
        let into = (0..input * hidden).map(|i| {
            let (from, to) = (i / hidden, i % hidden);
            let seen = GIVES * sizes.hidden_degree(to) + sizes.told;
            let drawn = stream.normal() / (seen.max(1) as f32).sqrt();
            if sizes.input_degree(from) <= sizes.hidden_degree(to) { drawn } else { 0.0 }
        });
        Self {
            into: into.collect(),
            hidden: vec![0.0; hidden],
            out: vec![0.0; output * hidden],
            direct: vec![0.0; output * input],
            bias,
            sizes,
        }
    }

    fn parts(&self) -> [&Vec<f32>; 5] {
        [&self.into, &self.hidden, &self.out, &self.direct, &self.bias]
    }

    fn parts_mut(&mut self) -> [&mut Vec<f32>; 5] {
        [&mut self.into, &mut self.hidden, &mut self.out, &mut self.direct, &mut self.bias]
    }

    /// Whether a weight of a part may be other than 0.
    fn is_open(sizes: Sizes, part: usize, at: usize) -> bool {
        let (input, hidden) = (sizes.input(), sizes.hidden);
        match part {
            0 => sizes.input_degree(at / hidden) <= sizes.hidden_degree(at % hidden),
            2 => sizes.hidden_degree(at % hidden) <= sizes.output_degree(at / hidden),
            3 => sizes.input_degree(at % input) <= sizes.output_degree(at / input),
            _ => true,
        }
    }

    /// Bytes of a network of these sizes while it learns from so many rows at a time: parameters,
    /// two moments, what is open, the best so far, and gradients of every piece.
    pub fn bytes(sizes: Sizes, rows: usize) -> u64 {
        let (input, hidden, output) =
            (sizes.input() as u64, sizes.hidden as u64, sizes.output() as u64);
        let parameters = input * hidden + hidden + output * hidden + output * input + output;
        4 * parameters * (5 + rows.div_ceil(PIECE) as u64)
    }

    /// The hidden layer of rows.
    fn hidden_of(&self, x: &[f32]) -> Vec<f32> {
        let (input, hidden) = (self.sizes.input(), self.sizes.hidden);
        let n = x.len() / input;
        let mut h: Vec<f32> = self.hidden.repeat(n);
        gemm(
            [n, hidden, input],
            &mut h,
            [hidden, 1],
            Matrix::rows(x, input),
            Matrix::rows(&self.into, hidden),
            true,
        );
        h.iter_mut().for_each(|v| *v = v.max(0.0));
        h
    }

    /// The outputs of rows, whose hidden layer is given.
    fn outputs_of(&self, x: &[f32], h: &[f32]) -> Vec<f32> {
        let (input, hidden, output) = (self.sizes.input(), self.sizes.hidden, self.sizes.output());
        let n = x.len() / input;
        let mut o: Vec<f32> = self.bias.repeat(n);
        gemm(
            [n, output, hidden],
            &mut o,
            [output, 1],
            Matrix::rows(h, hidden),
            Matrix::rows(&self.out, hidden).t(),
            true,
        );
        gemm(
            [n, output, input],
            &mut o,
            [output, 1],
            Matrix::rows(x, input),
            Matrix::rows(&self.direct, input).t(),
            true,
        );
        o
    }

    /// What is said of the units of rows.
    pub fn says(&self, x: &[f32]) -> Vec<f32> {
        self.outputs_of(x, &self.hidden_of(x))
    }

    /// Gradients of a loss of rows' outputs, which `loss` gives for (outputs) with the loss itself,
    /// summed.
    fn gradients(&self, x: &[f32], loss: impl Fn(&[f32]) -> (f64, Vec<f32>)) -> (f64, Self) {
        let (input, hidden, output) = (self.sizes.input(), self.sizes.hidden, self.sizes.output());
        let n = x.len() / input;
        let h = self.hidden_of(x);
        let (value, d) = loss(&self.outputs_of(x, &h));
        let mut dh = vec![0.0_f32; n * hidden];
        let (dm, xm, hm) =
            (Matrix::rows(&d, output), Matrix::rows(x, input), Matrix::rows(&h, hidden));
        gemm([n, hidden, output], &mut dh, [hidden, 1], dm, Matrix::rows(&self.out, hidden), false);
        dh.iter_mut().zip(&h).for_each(|(dh, h)| *dh = if *h > 0.0 { *dh } else { 0.0 });
        let sums = |values: &[f32], width: usize| {
            let mut sums = vec![0.0_f32; width];
            values
                .chunks_exact(width)
                .for_each(|row| sums.iter_mut().zip(row).for_each(|(sum, v)| *sum += v));
            sums
        };
        let mut into = vec![0.0_f32; input * hidden];
        gemm([input, hidden, n], &mut into, [hidden, 1], xm.t(), Matrix::rows(&dh, hidden), false);
        let mut out = vec![0.0_f32; output * hidden];
        gemm([output, hidden, n], &mut out, [hidden, 1], dm.t(), hm, false);
        let mut direct = vec![0.0_f32; output * input];
        gemm([output, input, n], &mut direct, [input, 1], dm.t(), xm, false);
        let gradients = Self {
            sizes: self.sizes,
            into,
            hidden: sums(&dh, hidden),
            out,
            direct,
            bias: sums(&d, output),
        };
        (value, gradients)
    }
}

/// Adam with decoupled weight decay (Loshchilov & Hutter 2019) for a network.
#[derive(Debug)]
pub struct Adam {
    moments: [Vec<[f32; 2]>; 5],
    open: [Vec<bool>; 5],
    step: i32,
}

const BETAS: [f32; 2] = [0.9, 0.99];
const DECAY: f32 = 0.01;

impl Adam {
    /// Before the first step.
    pub fn new(network: &Masked) -> Self {
        let sizes = network.sizes;
        let lengths = network.parts().map(Vec::len);
        let open = std::array::from_fn(|part| {
            (0..lengths[part]).map(|at| Masked::is_open(sizes, part, at)).collect()
        });
        Self { moments: lengths.map(|n| vec![[0.0; 2]; n]), open, step: 0 }
    }

    /// A step at a rate, for rows whose losses' sum is to fall. `loss` gives, for the number of the
    /// first row of a piece and the outputs of its rows, the sum of their losses and its gradients.
    /// Returns the mean loss before the step.
    pub fn step(
        &mut self,
        network: &mut Masked,
        rate: f32,
        x: &[f32],
        loss: impl Fn(usize, &[f32]) -> (f64, Vec<f32>) + Sync,
    ) -> f64 {
        let input = network.sizes.input();
        let n = (x.len() / input) as f32;
        let pieces: Vec<(f64, Masked)> = {
            let network = &*network;
            let piece =
                |(i, x): (usize, &[f32])| network.gradients(x, |outputs| loss(i * PIECE, outputs));
            x.par_chunks(PIECE * input).enumerate().map(piece).collect()
        };
        self.step += 1;
        let corrected = BETAS.map(|beta| 1.0 - beta.powi(self.step));
        for (part, weights) in network.parts_mut().into_iter().enumerate() {
            let decay = if matches!(part, 1 | 4) { 0.0 } else { DECAY };
            let gradients: Vec<&[f32]> =
                pieces.iter().map(|(_, piece)| &piece.parts()[part][..]).collect();
            let (moments, open) = (&mut self.moments[part], &self.open[part]);
            const AT_ONCE: usize = 1 << 14;
            let all =
                weights.par_chunks_mut(AT_ONCE).zip(moments.par_chunks_mut(AT_ONCE)).enumerate();
            all.for_each(|(chunk, (weights, moments))| {
                for (i, (weight, moments)) in weights.iter_mut().zip(moments).enumerate() {
                    let at = chunk * AT_ONCE + i;
                    if !open[at] {
                        continue;
                    }
                    let g = gradients.iter().map(|piece| piece[at]).sum::<f32>() / n;
                    moments[0] = BETAS[0] * moments[0] + (1.0 - BETAS[0]) * g;
                    moments[1] = BETAS[1] * moments[1] + (1.0 - BETAS[1]) * g * g;
                    let [first, second] = [0, 1].map(|k| moments[k] / corrected[k]);
                    *weight -= rate * (first / (second.sqrt() + 1e-8) + decay * *weight);
                }
            });
        }
        pieces.iter().map(|(value, _)| value).sum::<f64>() / f64::from(n)
    }
}

/// Rows that are drawn unit by unit: the hidden layer follows what was drawn so far.
#[derive(Debug)]
pub struct Walk<'a> {
    network: &'a Masked,
    /// The input so far.
    x: Vec<f32>,
    /// The hidden layer before its activation.
    h: Vec<f32>,
}

impl<'a> Walk<'a> {
    /// Before the first unit of a row, of which this is told.
    pub fn new(network: &'a Masked, told: &[f32]) -> Self {
        let sizes = network.sizes;
        let mut walk = Self { network, x: vec![0.0; sizes.input()], h: network.hidden.clone() };
        told.iter()
            .enumerate()
            .filter(|(_, value)| **value != 0.0)
            .for_each(|(i, v)| walk.set(GIVES * sizes.units + i, *v));
        walk
    }

    fn set(&mut self, input: usize, value: f32) {
        self.x[input] = value;
        let row = &self.network.into[input * self.h.len()..(input + 1) * self.h.len()];
        self.h.iter_mut().zip(row).for_each(|(h, w)| *h += value * w);
    }

    /// What is said of a unit, given those before it.
    pub fn says(&self, unit: usize) -> [f32; SAYS] {
        let Masked { sizes, out, direct, bias, .. } = self.network;
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        let active: Vec<f32> = self.h.iter().map(|h| h.max(0.0)).collect();
        std::array::from_fn(|k| {
            let output = k * sizes.units + unit;
            let from_hidden =
                dot(&out[output * sizes.hidden..(output + 1) * sizes.hidden], &active);
            from_hidden
                + dot(&direct[output * sizes.input()..(output + 1) * sizes.input()], &self.x)
                + bias[output]
        })
    }

    /// What the unit gives to those after it.
    pub fn give(&mut self, unit: usize, values: [f32; GIVES]) {
        let units = self.network.sizes.units;
        values
            .into_iter()
            .enumerate()
            .filter(|(_, value)| *value != 0.0)
            .for_each(|(k, v)| self.set(k * units + unit, v));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: Sizes = Sizes { units: 5, told: 2, hidden: 11 };

    /// A network with every open weight drawn.
    fn network() -> Masked {
        let mut stream = Stream::new(4, "test");
        let bias = (0..SIZES.output()).map(|_| stream.normal()).collect();
        let mut network = Masked::new(SIZES, bias, &mut stream);
        for (part, weights) in network.parts_mut().into_iter().enumerate() {
            for (at, weight) in weights.iter_mut().enumerate() {
                *weight =
                    if Masked::is_open(SIZES, part, at) { 0.5 * stream.normal() } else { 0.0 };
            }
        }
        network
    }

    fn row(stream: &mut Stream) -> Vec<f32> {
        (0..SIZES.input()).map(|_| stream.normal()).collect()
    }

    #[test]
    fn a_unit_sees_those_before_it_and_what_is_told() {
        let network = network();
        let mut stream = Stream::new(9, "row");
        let x = row(&mut stream);
        let before = network.says(&x);
        for input in 0..SIZES.input() {
            let mut changed = x.clone();
            changed[input] += 1.0;
            let after = network.says(&changed);
            for output in 0..SIZES.output() {
                let (unit, sees) = (
                    output % SIZES.units,
                    input >= GIVES * SIZES.units || input % SIZES.units < output % SIZES.units,
                );
                assert_eq!(before[output] != after[output], sees, "input {input}, unit {unit}");
            }
        }
    }

    #[test]
    fn walks_say_what_the_network_says() {
        let network = network();
        let mut stream = Stream::new(10, "row");
        let x = row(&mut stream);
        let all = network.says(&x);
        let mut walk = Walk::new(&network, &x[GIVES * SIZES.units..]);
        for unit in 0..SIZES.units {
            let said = walk.says(unit);
            assert!(
                (0..SAYS).all(|k| (said[k] - all[k * SIZES.units + unit]).abs() < 1e-4),
                "{unit}: {said:?}"
            );
            walk.give(unit, [x[unit], x[SIZES.units + unit]]);
        }
    }

    #[test]
    fn gradients_are_those_of_differences() {
        let network = network();
        let mut stream = Stream::new(11, "row");
        let x: Vec<f32> = (0..3).flat_map(|_| row(&mut stream)).collect();
        // Σ sin(o): smooth, and other for each output
        let loss = |o: &[f32]| {
            (
                o.iter().map(|o| f64::from(*o).sin()).sum::<f64>(),
                o.iter().map(|o| o.cos()).collect(),
            )
        };
        let (_, gradients) = network.gradients(&x, loss);
        for part in 0..5 {
            for at in 0..network.parts()[part].len() {
                let at_step = |step: f32| {
                    let mut moved = network.clone();
                    moved.parts_mut()[part][at] += step;
                    loss(&moved.says(&x)).0
                };
                let by_differences = (at_step(2e-3) - at_step(-2e-3)) / 4e-3;
                let found = f64::from(gradients.parts()[part][at]);
                assert!(
                    (found - by_differences).abs() < 2e-2 * (1.0 + found.abs()),
                    "{part}, {at}: {found} {by_differences}"
                );
            }
        }
    }

    #[test]
    fn steps_go_down_and_keep_the_masks() {
        let mut network = network();
        let mut adam = Adam::new(&network);
        let mut stream = Stream::new(12, "rows");
        let x: Vec<f32> = (0..150).flat_map(|_| row(&mut stream)).collect();
        let loss = |_: usize, o: &[f32]| {
            (o.iter().map(|o| f64::from(o * o)).sum(), o.iter().map(|o| 2.0 * o).collect())
        };
        let losses: Vec<f64> = (0..60).map(|_| adam.step(&mut network, 0.02, &x, loss)).collect();
        assert!(losses[59] < 0.2 * losses[0], "{} {}", losses[0], losses[59]);
        for (part, weights) in network.parts().into_iter().enumerate() {
            assert!(
                weights
                    .iter()
                    .enumerate()
                    .all(|(at, w)| *w == 0.0 || Masked::is_open(SIZES, part, at))
            );
        }
    }
}
