//! CPU twin of `ops/detection.rs`. Values are computed and summed in f64.

use rayon::prelude::*;

use crate::linalg::real::Real;
use crate::ops::reduce::cpu::put_scalar;
use crate::ops::{CELL, GridDetection, SIZES};
use crate::reference::{Memory, Reference};

/// ln(1 + eˣ).
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// The DIoU loss 1 − IoU + d²/c² of a predicted box (centre, ln of the size) and its target
/// (centre, size), and its gradient by the predicted box.
fn distance_iou(predicted: [f64; 4], target: [f64; 4]) -> (f64, [f64; 4]) {
    let size = [2, 3].map(|k| predicted[k].clamp(-SIZES, SIZES).exp());
    // Along each axis the ends of both boxes, then their overlap and the interval enclosing both.
    let ends = [0, 1].map(|k| {
        [
            predicted[k] - size[k] / 2.0,
            predicted[k] + size[k] / 2.0,
            target[k] - target[2 + k] / 2.0,
            target[k] + target[2 + k] / 2.0,
        ]
    });
    let overlap = ends.map(|[a, b, s, t]| b.min(t) - a.max(s));
    let hull = ends.map(|[a, b, s, t]| b.max(t) - a.min(s));
    let intersects = overlap.iter().all(|side| *side > 0.0);
    let intersection = if intersects { overlap[0] * overlap[1] } else { 0.0 };
    let union = size[0] * size[1] + target[2] * target[3] - intersection;
    let diagonal2: f64 = hull.iter().map(|side| side * side).sum();
    let offset = [0, 1].map(|k| predicted[k] - target[k]);
    let distance2: f64 = offset.iter().map(|side| side * side).sum();
    // Slopes by the intersection, the predicted area and c².
    let by_intersection = if intersects { -(union + intersection) / (union * union) } else { 0.0 };
    let by_area = intersection / (union * union);
    let by_diagonal2 = -distance2 / (diagonal2 * diagonal2);
    let is = |yes: bool| if yes { 1.0 } else { 0.0 };
    let mut gradient = [0.0; 4];
    for k in 0..2 {
        let [a, b, s, t] = ends[k];
        let (overlap, hull) = (by_intersection * overlap[1 - k], by_diagonal2 * 2.0 * hull[k]);
        let low = -overlap * is(a > s) - hull * is(a < s);
        let high = overlap * is(b < t) + hull * is(b > t);
        gradient[k] = low + high + 2.0 * offset[k] / diagonal2;
        gradient[2 + k] = is(predicted[2 + k].abs() < SIZES)
            * size[k]
            * ((high - low) / 2.0 + by_area * size[1 - k]);
    }
    (1.0 - intersection / union + distance2 / diagonal2, gradient)
}

impl GridDetection {
    /// Returns the loss of a cell and writes its gradient to `dy`.
    fn cell<T: Real>(&self, y: &[T], label: usize, target: [f64; 4], dy: &mut [f64]) -> f64 {
        let has_object = label < self.classes;
        // The logit x of the right answer, its probability q, and r = 1 − q without cancellation.
        let x = if has_object { y[0].f64() } else { -y[0].f64() };
        let (q, r) = (1.0 / (1.0 + (-x).exp()), 1.0 / (1.0 + x.exp()));
        let (focus, factor) =
            (r.powf(self.gamma), if has_object { self.positive } else { self.negative });
        let minus_ln = softplus(-x);
        let slope = -factor * focus * (self.gamma * q * minus_ln + r);
        dy.fill(0.0);
        dy[0] = if has_object { slope } else { -slope };
        let mut loss = factor * focus * minus_ln;
        if has_object {
            let predicted = std::array::from_fn(|k| y[1 + k].f64());
            let (box_loss, gradient) = distance_iou(predicted, target);
            loss += self.box_strength * box_loss;
            dy[1..CELL]
                .iter_mut()
                .zip(gradient)
                .for_each(|(dy, gradient)| *dy = self.box_strength * gradient);
            let logits = &y[CELL..];
            let max = logits.iter().fold(f64::NEG_INFINITY, |max, y| max.max(y.f64()));
            let total: f64 = logits.iter().map(|y| (y.f64() - max).exp()).sum();
            for (class, (dy, y)) in dy[CELL..].iter_mut().zip(logits).enumerate() {
                let probability = (y.f64() - max).exp() / total;
                *dy = self.class_strength * (probability - if class == label { 1.0 } else { 0.0 });
            }
            loss += self.class_strength * (total.ln() + max - logits[label].f64());
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
    fn box_losses_match_values_computed_by_hand() {
        // Equal boxes have loss 0.
        let (loss, gradient) =
            distance_iou([0.25, -0.5, 2.0_f64.ln(), 0.0], [0.25, -0.5, 2.0, 1.0]);
        assert!(
            loss.abs() < 1e-12 && gradient[..2].iter().all(|g| g.abs() < 1e-12),
            "{loss} {gradient:?}"
        );
        // Two 2×2 boxes, one shifted right by 1: IoU 2/6, d² = 1, enclosed by 3×2 with c² = 13.
        let (loss, gradient) =
            distance_iou([1.0, 0.0, 2.0_f64.ln(), 2.0_f64.ln()], [0.0, 0.0, 2.0, 2.0]);
        assert!((loss - (1.0 - 2.0 / 6.0 + 1.0 / 13.0)).abs() < 1e-12, "{loss}");
        assert!(gradient[0] > 0.0 && gradient[1] == 0.0);
        // Far apart: no overlap, but the gradient still pulls them together.
        let (loss, gradient) = distance_iou([9.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]);
        assert!(loss > 1.0 && gradient[0] > 0.0);
    }

    #[test]
    fn gradients_match_central_differences() {
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
