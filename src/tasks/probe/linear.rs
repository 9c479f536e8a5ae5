//! Linear classifiers on standardised features: multinomial logistic regression, and one-vs-rest
//! support vector machines with squared hinge loss (L2-SVM). Both have a penalty λ/2·‖W‖² on the
//! weights, not on the biases.

use std::ops::Range;

use rayon::prelude::*;

use crate::linalg::gemm::{Matrix, gemm};
use crate::linalg::lbfgs::{Stop, minimise};

/// Rows in one matrix product: large enough for its speed, small enough for the cache.
const BLOCK: usize = 128;
/// Number of parts whose sums are computed in parallel. It does not depend on the number of
/// threads, so that rounding does not either.
const PARTS: usize = 16;
/// Share of the mean variance that is added to the variance of each feature. It keeps features that
/// are almost constant from being amplified.
const VARIANCE_FLOOR: f64 = 0.01;

/// Kind of a classifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClassifierKind {
    /// Multinomial logistic regression: the loss is the mean of −ln softmax.
    Logistic,
    /// One-vs-rest L2-SVM: the loss is the mean of Σₖ max(0, 1 − tₖ·sₖ)², tₖ = ±1.
    Svm,
}

impl ClassifierKind {
    /// Both kinds.
    pub const ALL: [Self; 2] = [Self::Logistic, Self::Svm];

    /// Display name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Logistic => "logistic regression",
            Self::Svm => "L2-SVM",
        }
    }

    /// Loss of a row of scores. Replaces the scores by the gradient.
    fn loss(self, scores: &mut [f32], class: usize) -> f64 {
        match self {
            Self::Logistic => {
                let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let own = scores[class] - max;
                scores.iter_mut().for_each(|score| *score = (*score - max).exp());
                let sum: f32 = scores.iter().sum();
                scores.iter_mut().for_each(|score| *score /= sum);
                scores[class] -= 1.0;
                f64::from(sum.ln() - own)
            }
            Self::Svm => {
                let mut loss = 0.0;
                for (k, score) in scores.iter_mut().enumerate() {
                    let sign = if k == class { 1.0 } else { -1.0 };
                    let hinge = (1.0 - sign * *score).max(0.0);
                    loss += f64::from(hinge) * f64::from(hinge);
                    *score = -2.0 * sign * hinge;
                }
                loss
            }
        }
    }
}

/// A design matrix: a row of features for each image, with its class.
#[derive(Clone, Debug)]
pub struct Design {
    /// Number of features in a row.
    pub width: usize,
    /// The features, row by row.
    pub values: Vec<f32>,
    /// The class of each row.
    pub of: Vec<u32>,
}

/// Standardisation: mean and inverse standard deviation of each feature.
#[derive(Clone, Debug)]
pub struct Scaling {
    mean: Vec<f32>,
    factor: Vec<f32>,
}

impl Design {
    /// A design matrix of zeros.
    pub fn new(width: usize, of: Vec<u32>) -> Self {
        Self { width, values: vec![0.0; width * of.len()], of }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.of.len()
    }

    /// The features of a row.
    pub fn row_mut(&mut self, row: usize) -> &mut [f32] {
        &mut self.values[row * self.width..][..self.width]
    }

    /// The rows with these indices, in this order.
    #[must_use]
    pub fn subset(&self, rows: &[usize]) -> Self {
        let values = rows
            .iter()
            .flat_map(|row| &self.values[row * self.width..][..self.width])
            .copied()
            .collect();
        Self { width: self.width, values, of: rows.iter().map(|row| self.of[*row]).collect() }
    }

    /// Computes the standardisation of these rows.
    pub fn scaling(&self) -> Scaling {
        let rows = self.rows().max(1) as f64;
        let part = self.rows().div_ceil(PARTS).max(1) * self.width;
        let sums = |of: &(dyn Fn(usize, f32) -> f64 + Sync)| -> Vec<f64> {
            let parts: Vec<Vec<f64>> = self
                .values
                .par_chunks(part)
                .map(|part| {
                    let mut sums = vec![0.0; self.width];
                    for row in part.chunks_exact(self.width) {
                        sums.iter_mut()
                            .zip(row)
                            .enumerate()
                            .for_each(|(i, (sum, value))| *sum += of(i, *value));
                    }
                    sums
                })
                .collect();
            (0..self.width).map(|i| parts.iter().map(|part| part[i]).sum::<f64>() / rows).collect()
        };
        let mean = sums(&|_, value| f64::from(value));
        let variance = sums(&|i, value| (f64::from(value) - mean[i]).powi(2));
        let floor = VARIANCE_FLOOR * variance.iter().sum::<f64>() / self.width.max(1) as f64;
        let factor = |variance: &f64| {
            if variance + floor > 0.0 { (variance + floor).sqrt().recip() as f32 } else { 0.0 }
        };
        Scaling {
            mean: mean.iter().map(|mean| *mean as f32).collect(),
            factor: variance.iter().map(factor).collect(),
        }
    }

    /// Standardises the features by the scaling of these or other rows.
    pub fn scale(&mut self, by: &Scaling) {
        self.values.par_chunks_mut(self.width).for_each(|row| {
            row.iter_mut()
                .zip(by.mean.iter().zip(&by.factor))
                .for_each(|(value, (mean, factor))| *value = (*value - mean) * factor);
        });
    }
}

/// A linear classifier with scores Wᵀx + b.
#[derive(Clone, Debug)]
pub struct LinearClassifier {
    classes: usize,
    /// The weights, class by class, then the biases.
    w: Vec<f64>,
}

impl LinearClassifier {
    /// A classifier with weights and biases 0.
    pub fn new(width: usize, classes: usize) -> Self {
        Self { classes, w: vec![0.0; (width + 1) * classes] }
    }

    /// Fits to a range of rows, starting from the current weights. Returns the number of L-BFGS
    /// steps.
    pub fn fit(
        &mut self,
        design: &Design,
        rows: Range<usize>,
        kind: ClassifierKind,
        lambda: f64,
        stop: Stop,
    ) -> usize {
        let objective = PenalisedLoss { design, rows, kind, classes: self.classes, lambda };
        let mut gradient = vec![0.0; self.w.len()];
        // The gradient at 0 scales the stopping rule, so that it does not depend on the start.
        objective.at(&vec![0.0; self.w.len()], &mut gradient);
        let scale = gradient.iter().map(|g| g * g).sum::<f64>().sqrt();
        minimise(&mut self.w, scale, stop, |w, gradient| objective.at(w, gradient), |_, _| true)
    }

    /// The class with the highest score for each row of a range.
    pub fn classify(&self, design: &Design, rows: Range<usize>) -> Vec<u32> {
        let (w, biases) = single(&self.w, design.width, self.classes);
        let blocks: Vec<Range<usize>> = blocks(rows).collect();
        let classes = blocks.into_par_iter().map(|rows| {
            let count = rows.len();
            let scores = scores(design, rows, &w, &biases, &mut Vec::new());
            let best = |row: usize| {
                // Of equal scores the first class wins.
                (1..self.classes).fold(0, |best, k| {
                    if scores[k * count + row] > scores[best * count + row] { k } else { best }
                })
            };
            (0..count).map(|row| best(row) as u32).collect::<Vec<u32>>()
        });
        classes.collect::<Vec<_>>().concat()
    }

    /// Weights [classes, features] and biases of the equivalent classifier for features that are
    /// not standardised.
    pub fn unscaled(&self, scaling: &Scaling) -> (Vec<f32>, Vec<f32>) {
        let width = scaling.mean.len();
        let mut weights = Vec::with_capacity(width * self.classes);
        let mut biases = Vec::with_capacity(self.classes);
        for k in 0..self.classes {
            let mut bias = self.w[width * self.classes + k];
            for ((w, mean), factor) in
                self.w[k * width..][..width].iter().zip(&scaling.mean).zip(&scaling.factor)
            {
                let w = w * f64::from(*factor);
                bias -= w * f64::from(*mean);
                weights.push(w as f32);
            }
            biases.push(bias as f32);
        }
        (weights, biases)
    }
}

/// Splits a range of rows into blocks.
fn blocks(rows: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let end = rows.end;
    rows.step_by(BLOCK).map(move |start| start..end.min(start + BLOCK))
}

/// Weights and biases in single precision.
fn single(w: &[f64], width: usize, classes: usize) -> (Vec<f32>, Vec<f32>) {
    let mut w: Vec<f32> = w.iter().map(|w| *w as f32).collect();
    let biases = w.split_off(width * classes);
    (w, biases)
}

/// Scores of a range of rows: [classes, rows]. `reuse` provides the memory.
fn scores(
    design: &Design,
    rows: Range<usize>,
    w: &[f32],
    biases: &[f32],
    reuse: &mut Vec<f32>,
) -> Vec<f32> {
    let (count, width) = (rows.len(), design.width);
    let mut scores = std::mem::take(reuse);
    scores.resize(count * biases.len(), 0.0);
    scores.chunks_exact_mut(count).zip(biases).for_each(|(scores, bias)| scores.fill(*bias));
    let x = Matrix::rows(&design.values[rows.start * width..rows.end * width], width);
    gemm(
        [count, biases.len(), width],
        &mut scores,
        [1, count],
        x,
        Matrix::rows(w, width).t(),
        true,
    );
    scores
}

/// The objective of a fit: mean loss of a range of rows, plus the penalty.
struct PenalisedLoss<'a> {
    design: &'a Design,
    rows: Range<usize>,
    kind: ClassifierKind,
    classes: usize,
    lambda: f64,
}

impl PenalisedLoss<'_> {
    /// The value at `parameters`; writes the gradient.
    fn at(&self, parameters: &[f64], gradient: &mut [f64]) -> f64 {
        let (width, classes, count) = (self.design.width, self.classes, self.rows.len());
        let (w, biases) = single(parameters, width, classes);
        let part = count.div_ceil(PARTS).next_multiple_of(BLOCK);
        let parts: Vec<Range<usize>> = (0..PARTS)
            .map(|i| {
                self.rows.start + count.min(i * part)..self.rows.start + count.min((i + 1) * part)
            })
            .collect();
        let sums: Vec<(f64, Vec<f32>)> = parts
            .into_par_iter()
            .filter(|rows| !rows.is_empty())
            .map(|rows| self.part(rows, &w, &biases))
            .collect();
        let mean = 1.0 / count.max(1) as f64;
        gradient.fill(0.0);
        let mut value = 0.0;
        for (loss, sum) in &sums {
            value += loss;
            gradient.iter_mut().zip(sum).for_each(|(gradient, sum)| *gradient += f64::from(*sum));
        }
        gradient.iter_mut().for_each(|gradient| *gradient *= mean);
        value *= mean;
        for (gradient, w) in gradient.iter_mut().zip(parameters).take(width * classes) {
            *gradient += self.lambda * w;
            value += 0.5 * self.lambda * w * w;
        }
        value
    }

    /// Sum of the losses of a range of rows, and sum of their gradients.
    fn part(&self, rows: Range<usize>, w: &[f32], biases: &[f32]) -> (f64, Vec<f32>) {
        let (width, classes) = (self.design.width, self.classes);
        let mut sum = vec![0.0_f32; (width + 1) * classes];
        let (mut loss, mut all, mut one) = (0.0, Vec::new(), vec![0.0_f32; classes]);
        for rows in blocks(rows) {
            let (count, start) = (rows.len(), rows.start);
            all = scores(self.design, rows, w, biases, &mut all);
            for row in 0..count {
                (0..classes).for_each(|k| one[k] = all[k * count + row]);
                loss += self.kind.loss(&mut one, self.design.of[start + row] as usize);
                for k in 0..classes {
                    all[k * count + row] = one[k];
                    sum[width * classes + k] += one[k];
                }
            }
            let x =
                Matrix::rows(&self.design.values[start * width..(start + count) * width], width);
            gemm(
                [width, classes, count],
                &mut sum,
                [1, width],
                x.t(),
                Matrix::rows(&all, count).t(),
                true,
            );
        }
        (loss, sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Stream;

    /// Three clouds around the corners of a triangle in `width` dimensions. The other dimensions
    /// are noise.
    fn clouds(rows: usize, width: usize, spread: f32, seed: u64) -> Design {
        let mut stream = Stream::new(seed, "clouds");
        let mut design = Design::new(width, (0..rows).map(|row| (row % 3) as u32).collect());
        for row in 0..rows {
            let class = design.of[row] as usize;
            for (i, value) in design.row_mut(row).iter_mut().enumerate() {
                *value = f32::from(i == class) * 3.0 + spread * stream.normal() + 5.0;
            }
        }
        design
    }

    const STOP: Stop = Stop { steps: 300, gradient: 1e-5 };

    #[test]
    fn gradients_equal_differences_of_the_objective() {
        let design = clouds(150, 4, 2.0, 1);
        for kind in ClassifierKind::ALL {
            let objective =
                PenalisedLoss { design: &design, rows: 3..150, kind, classes: 3, lambda: 0.3 };
            let mut stream = Stream::new(2, "w");
            let w: Vec<f64> = (0..15).map(|_| f64::from(stream.normal()) * 0.1).collect();
            let mut gradient = vec![0.0; 15];
            objective.at(&w, &mut gradient);
            for i in 0..15 {
                let at = |by: f64| {
                    let mut w = w.clone();
                    w[i] += by;
                    objective.at(&w, &mut [0.0; 15])
                };
                let wanted = (at(1e-2) - at(-1e-2)) / 2e-2;
                assert!(
                    (gradient[i] - wanted).abs() < 1e-2 * (1.0 + wanted.abs()),
                    "{kind:?} {i}: {} {wanted}",
                    gradient[i]
                );
            }
        }
    }

    #[test]
    fn separable_classes_are_separated() {
        let (mut train, mut test) = (clouds(600, 6, 0.5, 3), clouds(300, 6, 0.5, 4));
        let scaling = train.scaling();
        let unscaled = test.clone();
        train.scale(&scaling);
        test.scale(&scaling);
        for kind in ClassifierKind::ALL {
            let mut linear = LinearClassifier::new(6, 3);
            linear.fit(&train, 0..600, kind, 1e-3, STOP);
            let found = linear.classify(&test, 0..300);
            let wrong = found.iter().zip(&test.of).filter(|(a, b)| a != b).count();
            assert!(wrong < 5, "{kind:?}: {wrong}");
            assert_eq!(linear.classify(&test, 7..9), found[7..9]);
            // The unscaled classifier gives the same classes on unscaled features.
            let (weights, biases) = linear.unscaled(&scaling);
            for (row, found) in found.iter().enumerate() {
                let x = &unscaled.values[row * 6..][..6];
                let score = |k: usize| {
                    biases[k] + weights[k * 6..][..6].iter().zip(x).map(|(w, x)| w * x).sum::<f32>()
                };
                let best = (0..3).max_by(|a, b| score(*a).total_cmp(&score(*b))).unwrap();
                assert_eq!(best as u32, *found);
            }
            // Control: random labels cannot be learned.
            let mut shuffled = train.clone();
            let order = Stream::new(5, "shuffle").permutation(600);
            shuffled.of = order.iter().map(|row| train.of[*row as usize]).collect();
            let mut linear = LinearClassifier::new(6, 3);
            linear.fit(&shuffled, 0..600, kind, 1e-3, STOP);
            let wrong =
                linear.classify(&test, 0..300).iter().zip(&test.of).filter(|(a, b)| a != b).count();
            assert!(wrong > 100, "{kind:?}: {wrong}");
        }
    }

    #[test]
    fn the_gradient_vanishes_at_the_optimum() {
        let mut design = clouds(90, 3, 1.5, 6);
        let scaling = design.scaling();
        design.scale(&scaling);
        for kind in ClassifierKind::ALL {
            let mut linear = LinearClassifier::new(3, 3);
            let steps = linear.fit(&design, 0..90, kind, 0.1, STOP);
            let mut gradient = vec![0.0; 12];
            PenalisedLoss { design: &design, rows: 0..90, kind, classes: 3, lambda: 0.1 }
                .at(&linear.w, &mut gradient);
            let norm = gradient.iter().map(|g| g * g).sum::<f64>().sqrt();
            assert!(steps < 300 && norm < 1e-4, "{kind:?}: {steps} steps, {norm}");
        }
    }
}
