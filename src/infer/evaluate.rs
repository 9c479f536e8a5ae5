//! Evaluation of a model on images: quality of reconstructions and sparsity of codes.

use rayon::prelude::*;
use serde::Serialize;

use crate::data::{Images, Normalization, Patch, Sample, patches};
use crate::device::Device;
use crate::error::{Error, ErrorKind, Result};
use crate::infer::batches::Inference;
use crate::infer::top_patches::TopPatches;
use crate::infer::whole_images::WholeImageScores;
use crate::metrics::quality;
use crate::metrics::statistics::Statistics;

/// The result of an evaluation. Means are over images (or patches).
#[derive(Clone, Debug, Serialize)]
pub struct EvaluationReport {
    /// Number of images or patches.
    pub images: usize,
    /// Mean PSNR in dB of reconstructions clipped to 0…1. For a model of normalised data, the range
    /// of each channel in training becomes 0…1, and nothing is clipped. NaN (`null` in JSON) if the
    /// model reconstructs the output of a layer instead of an image.
    pub psnr: f64,
    /// Mean SSIM, of the same values as the PSNR, or NaN as for it.
    pub ssim: f64,
    /// Mean ‖x − x̂‖² of unclipped reconstructions.
    pub sum_squares: f64,
    /// Mean ‖z‖₁.
    pub l1: f64,
    /// Mean number of code units ≠ 0.
    pub l0: f64,
    /// Number of elements of the code.
    pub code: usize,
    /// Number of units of the code: its channels.
    pub units: usize,
    /// Number of dead units, which are 0 on every image.
    pub dead: usize,
    /// Share of dead units.
    pub dead_share: f64,
    /// 1 − Σ‖x − x̂‖² / Σ‖x − mean‖². Not finite if all images are equal.
    pub explained_variance: f64,
    /// Mean relative error ‖x − x̂‖ / ‖x‖ in the units of the data, for a model of normalised data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relative_error: Option<f64>,
    /// Scores on whole images, for a restoration model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub whole: Option<WholeImageScores>,
    /// Firing rate and strength of each unit.
    #[serde(skip)]
    pub statistics: Statistics,
}

/// Evaluates a model on patches of images in memory. The caller keeps `inference`, so that repeated
/// evaluations compile it once.
///
/// # Errors
/// When the device fails or the model's output is not finite.
pub fn evaluate(
    device: &mut Device,
    inference: &mut Inference,
    images: &Images,
    chosen: &[Patch],
) -> Result<EvaluationReport> {
    let mut evaluation = Evaluation::new(inference);
    evaluation.add(device, inference, images, chosen)?;
    evaluation.report()
}

/// Evaluates a model on a sample, part by part if its source is streamed.
///
/// # Errors
/// When an image cannot be read, the device fails or the model's output is not finite.
pub fn evaluate_sample(
    device: &mut Device,
    inference: &mut Inference,
    sample: &Sample,
) -> Result<EvaluationReport> {
    let mut evaluation = Evaluation::new(inference);
    sample.each_part(|images, chosen| evaluation.add(device, inference, images, chosen))?;
    evaluation.report()
}

/// A running evaluation, to which images are added part by part.
#[derive(Debug)]
pub struct Evaluation {
    statistics: Statistics,
    /// Σx of each element of the target.
    sum: Vec<f64>,
    /// Σx² of each element of the target.
    square: Vec<f64>,
    /// Number of values of each element of the target that were not missing.
    known: Vec<f64>,
    /// Sum of the PSNR over patches.
    psnr: f64,
    /// Sum of the SSIM over patches.
    ssim: f64,
    /// Sum of ‖x − x̂‖² over patches.
    errors: f64,
    /// Sum of the relative errors over patches.
    relative: f64,
    normalization: Option<Normalization>,
    /// Number of patches so far.
    seen: usize,
    /// Collects the top-activating patches of each unit, if set.
    pub top_patches: Option<TopPatches>,
}

impl Evaluation {
    /// An evaluation without images.
    pub fn new(inference: &Inference) -> Self {
        let graph = inference.graph;
        let len = graph.nodes[graph.target].dims.len();
        Self {
            statistics: Statistics::new(graph.nodes[graph.code].dims),
            sum: vec![0.0; len],
            square: vec![0.0; len],
            known: vec![0.0; len],
            psnr: 0.0,
            ssim: 0.0,
            errors: 0.0,
            relative: 0.0,
            normalization: graph.spec.normalization.clone(),
            seen: 0,
            top_patches: None,
        }
    }

    /// Adds patches of images.
    ///
    /// # Errors
    /// When the device fails or has no memory for the buffers.
    pub fn add(
        &mut self,
        device: &mut Device,
        inference: &mut Inference,
        images: &Images,
        chosen: &[Patch],
    ) -> Result<()> {
        let dims = inference.graph.nodes[0].dims;
        for batch in chosen.chunks(inference.batch(device)) {
            let (x, missing) = patches::cut_with_missing(images, batch, dims.size());
            let output = inference.run_from(device, self.seen, &x)?;
            if let Some(top_patches) = &mut self.top_patches {
                match &self.normalization {
                    Some(normalization) => {
                        let mut unit = x.clone();
                        normalization.to_unit(&mut unit);
                        top_patches.add(&unit, &output.z);
                    }
                    None => top_patches.add(&x, &output.z),
                }
            }
            self.seen += batch.len();
            // PSNR and SSIM are defined for images only, not for the output of a layer.
            let is_image = output.target.is_none();
            let len = inference.graph.nodes[inference.graph.target].dims.len();
            // The target has a gap where its image has one, unless it is the output of a layer of
            // another shape.
            let missing = missing.filter(|missing| missing.len() == batch.len() * len);
            let x = output.target.unwrap_or(x);
            let mut y = output.y;
            let normalization = self.normalization.as_ref();
            if let Some(missing) = &missing {
                let gaps = y.iter_mut().zip(&x).zip(missing).filter(|(_, missing)| **missing);
                gaps.for_each(|((y, x), _)| *y = *x);
            }
            let gaps_of = |sample: usize| {
                missing.as_ref().map_or(&[][..], |missing| &missing[sample * len..][..len])
            };
            let scores: Vec<[f64; 4]> = x
                .par_chunks(len)
                .zip(y.par_chunks(len))
                .enumerate()
                .map(|(sample, (x, y))| {
                    let gaps = gaps_of(sample);
                    // The error of a gap is 0. The mean is over the other values.
                    let known = len - gaps.iter().filter(|gap| **gap).count();
                    let fewer = 10.0 * (known.max(1) as f64 / len as f64).log10();
                    let error = x.iter().zip(y).map(|(x, y)| f64::from(x - y).powi(2)).sum::<f64>();
                    if !is_image {
                        return [f64::NAN, f64::NAN, error, f64::NAN];
                    }
                    let Some(normalization) = normalization else {
                        let clipped: Vec<f32> = y.iter().map(|y| y.clamp(0.0, 1.0)).collect();
                        let ssim = quality::ssim(x, &clipped, dims);
                        return [quality::psnr(x, &clipped) + fewer, ssim, error, f64::NAN];
                    };
                    let both = [x, y].map(|values| {
                        let (mut unit, mut own) = (values.to_vec(), values.to_vec());
                        normalization.to_unit(&mut unit);
                        normalization.undo(&mut own);
                        own.iter_mut().zip(gaps).filter(|(_, gap)| **gap).for_each(|v| *v.0 = 0.0);
                        (unit, own)
                    });
                    let [(x, own_x), (y, own_y)] = both;
                    let relative = relative_error(&own_x, &own_y);
                    [quality::psnr(&x, &y) + fewer, quality::ssim(&x, &y, dims), error, relative]
                })
                .collect();
            for [p, s, e, relative] in scores {
                self.relative += relative;
                // A perfect reconstruction has an infinite PSNR; 100 dB keeps the mean finite. The
                // comparison lets NaN through.
                self.psnr += if p > 100.0 { 100.0 } else { p };
                self.ssim += s;
                self.errors += e;
            }
            for (sample, x) in x.chunks(len).enumerate() {
                for (i, x) in x.iter().enumerate() {
                    if !gaps_of(sample).get(i).is_some_and(|gap| *gap) {
                        self.sum[i] += f64::from(*x);
                        self.square[i] += f64::from(*x).powi(2);
                        self.known[i] += 1.0;
                    }
                }
            }
            self.statistics.add(&output.z);
        }
        Ok(())
    }

    /// Computes the report.
    ///
    /// # Errors
    /// When the model's output is not finite.
    pub fn report(self) -> Result<EvaluationReport> {
        let Self { statistics, sum, square, known, psnr, ssim, errors, relative, .. } = self;
        let n = statistics.images() as f64;
        let l1 = statistics.mean_l1();
        if !f64::is_finite(errors + l1) {
            return Err(Error::failed(
                "the model's output is NaN or infinite: its training diverged; lower optimizer.lr \
                 or set optimizer.clip_norm",
            )
            .of(ErrorKind::Diverged));
        }
        let elements = sum.iter().zip(&square).zip(&known);
        let variance: f64 = elements
            .filter(|(_, known)| **known > 0.0)
            .map(|((sum, square), known)| square - sum * sum / known)
            .sum();
        let dead = statistics.dead();
        Ok(EvaluationReport {
            images: statistics.images(),
            psnr: psnr / n,
            ssim: ssim / n,
            sum_squares: errors / n,
            l1,
            l0: statistics.mean_l0(),
            code: statistics.code.len(),
            units: statistics.units(),
            dead,
            dead_share: dead as f64 / statistics.units() as f64,
            explained_variance: 1.0 - errors / variance,
            relative_error: relative.is_finite().then_some(relative / n),
            whole: None,
            statistics,
        })
    }
}

/// ‖x − y‖ / ‖x‖. It is 0 for equal values, also if all are 0.
fn relative_error(x: &[f32], y: &[f32]) -> f64 {
    let square = |sum: f64, value: f64| sum + value * value;
    let error = x.iter().zip(y).map(|(x, y)| f64::from(*x) - f64::from(*y)).fold(0.0, square);
    let norm = x.iter().map(|x| f64::from(*x)).fold(0.0, square);
    if error == 0.0 { 0.0 } else { (error / norm).sqrt() }
}

impl std::fmt::Display for EvaluationReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(WholeImageScores { images, psnr_before, psnr, ssim }) = self.whole {
            write!(
                f,
                "{images} whole images {psnr_before:.2} → {psnr:.2} dB, SSIM {ssim:.4}; patches "
            )?;
        }
        if !self.psnr.is_nan() {
            write!(f, "PSNR {:.2} dB, SSIM {:.4}, ", self.psnr, self.ssim)?;
        }
        write!(
            f,
            "‖x − x̂‖² {:.3}, L0 {:.1} of {}, dead {} of {} ({:.1} %), explained variance {}",
            self.sum_squares,
            self.l0,
            self.code,
            self.dead,
            self.units,
            100.0 * self.dead_share,
            self.explained_variance_text()
        )?;
        match self.relative_error {
            Some(error) => write!(f, ", relative error {error:.4}"),
            None => Ok(()),
        }
    }
}

impl EvaluationReport {
    /// The explained variance as text; "undefined" if all images are equal.
    pub fn explained_variance_text(&self) -> String {
        if self.explained_variance.is_finite() {
            format!("{:.4}", self.explained_variance)
        } else {
            "undefined".to_owned()
        }
    }
}
