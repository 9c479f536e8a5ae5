//! CPU twins of `ops/segmentation.rs`. Values are computed and summed in f64.

use rayon::prelude::*;

use crate::linalg::real::Real;
use crate::ops::reduce::cpu::put_scalar;
use crate::ops::{Dice, PixelCrossEntropy};
use crate::reference::{Memory, Reference};

/// Pixels in a partial sum. The number is fixed, so that sums do not depend on the number of
/// threads.
const PART: usize = 4096;

impl Reference for PixelCrossEntropy {
    fn run<T: Real>(&self, memory: &mut Memory<T>) {
        let (mut q, mut dy) = (memory.take(self.q), memory.take(self.dy));
        let (y, labels, weights) =
            (memory.real(self.y), memory.words(self.labels), memory.real(self.weights));
        let block = PART * self.classes;
        let parts = (
            q.par_chunks_mut(block),
            dy.par_chunks_mut(block),
            y.par_chunks(block),
            labels.par_chunks(PART),
            weights.par_chunks(PART),
        );
        let losses: Vec<f64> = parts
            .into_par_iter()
            .map(|(q, dy, y, labels, weights)| {
                let classes = self.classes;
                let mut sum = 0.0;
                for (i, (label, weight)) in labels.iter().zip(weights).enumerate() {
                    let at = i * classes..(i + 1) * classes;
                    let (y, weight) = (&y[at.clone()], weight.f64());
                    let max = y.iter().fold(f64::NEG_INFINITY, |max, y| max.max(y.f64()));
                    let total: f64 = y.iter().map(|y| (y.f64() - max).exp()).sum();
                    let label = if weight == 0.0 { classes } else { *label as usize };
                    for (class, y) in y.iter().enumerate() {
                        let probability = (y.f64() - max).exp() / total;
                        q[at.start + class] = T::of(probability);
                        dy[at.start + class] =
                            T::of(weight * (probability - if class == label { 1.0 } else { 0.0 }));
                    }
                    if label < classes {
                        sum += weight * (total.ln() + max - y[label].f64());
                    }
                }
                sum
            })
            .collect();
        memory.put(q);
        memory.put(dy);
        put_scalar(memory, self.scalars, self.width, self.index, losses.iter().sum());
    }
}

impl Reference for Dice {
    fn run<T: Real>(&self, memory: &mut Memory<T>) {
        let mut dy = memory.take(self.dy);
        let (q, labels, weights) =
            (memory.real(self.q), memory.words(self.labels), memory.real(self.weights));
        let classes = self.classes;
        let counted = |i: usize| weights[i].f64() != 0.0;
        // (Σqt, Σq + Σt) for each class, in parts.
        let sums: Vec<Vec<[f64; 2]>> = (0..self.pixels.div_ceil(PART))
            .into_par_iter()
            .map(|part| {
                let mut sums = vec![[0.0; 2]; classes];
                for i in (part * PART..((part + 1) * PART).min(self.pixels)).filter(|i| counted(*i))
                {
                    for (class, sums) in sums.iter_mut().enumerate() {
                        let (probability, is_label) = (
                            q[i * classes + class].f64(),
                            if labels[i] as usize == class { 1.0 } else { 0.0 },
                        );
                        sums[0] += probability * is_label;
                        sums[1] += probability + is_label;
                    }
                }
                sums
            })
            .collect();
        let terms: Vec<[f64; 3]> = (0..classes)
            .map(|class| {
                let sum = |of: usize| sums.iter().map(|part| part[class][of]).sum::<f64>();
                let (intersection, denominator) = (sum(0), sum(1) + self.smooth);
                let ratio = (2.0 * intersection + self.smooth) / denominator;
                [1.0 - ratio, ratio / denominator, 2.0 / denominator]
            })
            .collect();
        let scale = self.strength / classes as f64;
        dy.par_chunks_exact_mut(classes).enumerate().filter(|(i, _)| counted(*i)).for_each(
            |(i, dy)| {
                let q = &q[i * classes..(i + 1) * classes];
                let slope = |class: usize| {
                    terms[class][1]
                        - if labels[i] as usize == class { terms[class][2] } else { 0.0 }
                };
                let mean: f64 = q.iter().enumerate().map(|(class, q)| q.f64() * slope(class)).sum();
                for (class, (dy, q)) in dy.iter_mut().zip(q).enumerate() {
                    *dy = T::of(dy.f64() + scale * q.f64() * (slope(class) - mean));
                }
            },
        );
        memory.put(dy);
        put_scalar(
            memory,
            self.scalars,
            self.width,
            self.index,
            scale * terms.iter().map(|term| term[0]).sum::<f64>(),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::testing::Setup;

    #[test]
    fn losses_of_two_pixels_match_values_computed_by_hand() {
        let mut s = Setup::<f64>::new();
        // Softmax (0.75, 0.25) and (0.5, 0.5). The third pixel has weight 0: its label is ignored.
        let y = s.real(&[3.0_f64.ln(), 0.0, 0.0, 0.0, 5.0, -5.0]);
        let (labels, weights) = (s.words(&[0, 1, 77]), s.real(&[0.5, 0.25, 0.0]));
        let (scalars, q, dy, partials) =
            (s.real(&[0.0]), s.real(&[0.0; 6]), s.real(&[0.0; 6]), s.real(&[0.0; 256]));
        let entropy = PixelCrossEntropy {
            pixels: 3,
            classes: 2,
            width: 1,
            index: 0,
            y,
            labels,
            weights,
            scalars,
            q,
            dy,
            partials,
        };
        let found = s.run(&entropy, dy);
        assert!(
            found
                .iter()
                .zip([-0.125, 0.125, 0.125, -0.125, 0.0, 0.0])
                .all(|(a, b)| (a - b).abs() < 1e-12),
            "{found:?}"
        );
        let loss = s.get(scalars)[0];
        assert!((loss + 0.5 * 0.75_f64.ln() + 0.25 * 0.5_f64.ln()).abs() < 1e-12);
        let dice = Dice {
            pixels: 3,
            classes: 2,
            strength: 2.0,
            smooth: 1.0,
            width: 1,
            index: 0,
            q,
            labels,
            weights,
            dy,
            scalars,
            partials,
        };
        s.run(&dice, dy);
        // Σqt and Σq + Σt: 0.75 and 2.25 for class 0, 0.5 and 1.75 for class 1.
        let by_hand = (1.0 - 2.5 / 3.25) + (1.0 - 2.0 / 2.75);
        assert!((s.get(scalars)[0] - by_hand).abs() < 1e-12);
    }
}
