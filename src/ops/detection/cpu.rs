//! Twin of `ops/detection.rs`. Values are computed and summed in f64.

use rayon::prelude::*;

use crate::linalg::real::Real;
use crate::ops::reduce::cpu::put_scalar;
use crate::ops::{CELL, GridDetection, SIZES};
use crate::reference::{Memory, Reference};

/// ln(1 + eˣ).
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// 1 − IoU + d²/c² of a box (middle, ln of the size) and its target (middle, size), and the
/// gradient by the box.
fn distance_iou(of: [f64; 4], to: [f64; 4]) -> (f64, [f64; 4]) {
    let size = [2, 3].map(|k| of[k].clamp(-SIZES, SIZES).exp());
    // along each side: ends of both, the overlap, what encloses them
    let ends = [0, 1].map(|k| {
        [
            of[k] - size[k] / 2.0,
            of[k] + size[k] / 2.0,
            to[k] - to[2 + k] / 2.0,
            to[k] + to[2 + k] / 2.0,
        ]
    });
    let overlap = ends.map(|[a, b, s, t]| b.min(t) - a.max(s));
    let around = ends.map(|[a, b, s, t]| b.max(t) - a.min(s));
    let meet = overlap.iter().all(|side| *side > 0.0);
    let common = if meet { overlap[0] * overlap[1] } else { 0.0 };
    let all = size[0] * size[1] + to[2] * to[3] - common;
    let diagonal: f64 = around.iter().map(|side| side * side).sum();
    let apart = [0, 1].map(|k| of[k] - to[k]);
    let distance: f64 = apart.iter().map(|side| side * side).sum();
    let by_common = if meet { -(all + common) / (all * all) } else { 0.0 };
    let by_area = common / (all * all);
    let by_diagonal = -distance / (diagonal * diagonal);
    let is = |yes: bool| if yes { 1.0 } else { 0.0 };
    let mut gradient = [0.0; 4];
    for k in 0..2 {
        let [a, b, s, t] = ends[k];
        let (overlap, around) = (by_common * overlap[1 - k], by_diagonal * 2.0 * around[k]);
        let low = -overlap * is(a > s) - around * is(a < s);
        let high = overlap * is(b < t) + around * is(b > t);
        gradient[k] = low + high + 2.0 * apart[k] / diagonal;
        gradient[2 + k] =
            is(of[2 + k].abs() < SIZES) * size[k] * ((high - low) / 2.0 + by_area * size[1 - k]);
    }
    (1.0 - common / all + distance / diagonal, gradient)
}

impl GridDetection {
    /// A cell's loss; its gradient goes to `dy`.
    fn cell<T: Real>(&self, y: &[T], label: usize, to: [f64; 4], dy: &mut [f64]) -> f64 {
        let here = label < self.classes;
        // of the right answer: its logit, its probability, the other's
        let x = if here { y[0].f64() } else { -y[0].f64() };
        let (q, r) = (1.0 / (1.0 + (-x).exp()), 1.0 / (1.0 + x.exp()));
        let (focus, factor) =
            (r.powf(self.gamma), if here { self.positive } else { self.negative });
        let minus_ln = softplus(-x);
        let slope = -factor * focus * (self.gamma * q * minus_ln + r);
        dy.fill(0.0);
        dy[0] = if here { slope } else { -slope };
        let mut loss = factor * focus * minus_ln;
        if here {
            let (apart, gradient) = distance_iou(std::array::from_fn(|k| y[1 + k].f64()), to);
            loss += self.box_strength * apart;
            dy[1..CELL]
                .iter_mut()
                .zip(gradient)
                .for_each(|(dy, gradient)| *dy = self.box_strength * gradient);
            let logits = &y[CELL..];
            let largest = logits.iter().fold(f64::NEG_INFINITY, |largest, y| largest.max(y.f64()));
            let total: f64 = logits.iter().map(|y| (y.f64() - largest).exp()).sum();
            for (class, (dy, y)) in dy[CELL..].iter_mut().zip(logits).enumerate() {
                let share = (y.f64() - largest).exp() / total;
                *dy = self.class_strength * (share - if class == label { 1.0 } else { 0.0 });
            }
            loss += self.class_strength * (total.ln() + largest - logits[label].f64());
        }
        loss
    }
}

impl Reference for GridDetection {
    fn run<T: Real>(&self, memory: &mut Memory<T>) {
        let mut dy = memory.take(self.dy);
        let (y, labels) = (memory.real(self.y), memory.words(self.labels));
        let (boxes, weights) = (memory.real(self.boxes), memory.real(self.weights));
        let channels = CELL + self.classes;
        let cells = (
            dy.par_chunks_exact_mut(channels),
            y.par_chunks_exact(channels),
            labels.par_iter(),
            boxes.par_chunks_exact(4),
            weights.par_iter(),
        );
        let losses: Vec<f64> = cells
            .into_par_iter()
            .map(|(dy, y, label, to, weight)| {
                let mut gradient = vec![0.0; channels];
                let weight = weight.f64();
                if weight == 0.0 {
                    dy.fill(T::ZERO);
                    return 0.0;
                }
                let loss = self.cell(
                    y,
                    *label as usize,
                    std::array::from_fn(|k| to[k].f64()),
                    &mut gradient,
                );
                dy.iter_mut()
                    .zip(gradient)
                    .for_each(|(dy, gradient)| *dy = T::of(weight * gradient));
                weight * loss
            })
            .collect();
        memory.put(dy);
        put_scalar(memory, self.scalars, self.width, self.index, losses.iter().sum());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_by_hand() {
        // the same box loses nothing
        let (loss, gradient) =
            distance_iou([0.25, -0.5, 2.0_f64.ln(), 0.0], [0.25, -0.5, 2.0, 1.0]);
        assert!(
            loss.abs() < 1e-12 && gradient[..2].iter().all(|g| g.abs() < 1e-12),
            "{loss} {gradient:?}"
        );
        // 2×2 beside 2×2, one to the right: a third in common; middles 1 apart, enclosed by 3×2
        let (loss, gradient) =
            distance_iou([1.0, 0.0, 2.0_f64.ln(), 2.0_f64.ln()], [0.0, 0.0, 2.0, 2.0]);
        assert!((loss - (1.0 - 2.0 / 6.0 + 1.0 / 13.0)).abs() < 1e-12, "{loss}");
        assert!(gradient[0] > 0.0 && gradient[1] == 0.0);
        // far away: nothing in common, but still drawn together
        let (loss, gradient) = distance_iou([9.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]);
        assert!(loss > 1.0 && gradient[0] > 0.0);
    }

    #[test]
    fn gradients_are_differences() {
        let to = [0.3, -0.2, 1.7, 2.4];
        for of in [
            [0.1, 0.4, 0.3, 0.9],
            [1.9, -0.3, 0.8, 0.1],
            [-4.0, 3.0, 0.2, -0.7],
            [0.3, -0.1, -0.5, -0.4],
        ] {
            let (_, gradient) = distance_iou(of, to);
            for k in 0..4 {
                let at = |delta: f64| {
                    let mut moved = of;
                    moved[k] += delta;
                    distance_iou(moved, to).0
                };
                let difference = (at(1e-6) - at(-1e-6)) / 2e-6;
                assert!(
                    (gradient[k] - difference).abs() < 1e-7,
                    "{of:?} {k}: {} and {difference}",
                    gradient[k]
                );
            }
        }
    }
}
