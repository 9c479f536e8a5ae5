//! Judging a model on images: quality of the reconstruction, sparsity of the code.

use rayon::prelude::*;
use serde::Serialize;

use crate::data::{Images, Patch, Sample, patches};
use crate::device::Device;
use crate::error::{Error, ErrorKind, Result};
use crate::infer::batches::Inference;
use crate::infer::top_patches::TopPatches;
use crate::infer::whole::Whole;
use crate::metrics::quality;
use crate::metrics::statistics::Statistics;

/// What an evaluation found. Means are over images (or patches).
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Images or patches looked at.
    pub images: usize,
    /// Mean PSNR in dB, reconstruction clipped to 0…1; no number (`null`) where what is
    /// reconstructed is no image but a layer's output.
    pub psnr: f64,
    /// Mean SSIM; likewise.
    pub ssim: f64,
    /// Mean ‖x − x̂‖², not clipped.
    pub sum_squares: f64,
    /// Mean ‖z‖₁.
    pub l1: f64,
    /// Mean number of code units ≠ 0.
    pub l0: f64,
    /// Elements of the code.
    pub code: usize,
    /// Units of the code (channels, where it is maps).
    pub units: usize,
    /// Units that are 0 on every image.
    pub dead: usize,
    /// Share of the units that are dead.
    pub dead_share: f64,
    /// 1 − Σ‖x − x̂‖² / Σ‖x − mean‖².
    pub explained_variance: f64,
    /// Where the model restores: whole images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub whole: Option<Whole>,
    /// How often and how strongly each unit fires.
    #[serde(skip)]
    pub statistics: Statistics,
}

/// Evaluates on patches of images. `inference` is kept by the caller, so that it is compiled once.
pub fn evaluate(
    device: &mut Device,
    inference: &mut Inference,
    images: &Images,
    chosen: &[Patch],
) -> Result<Report> {
    let mut evaluation = Evaluation::new(inference);
    evaluation.add(device, inference, images, chosen)?;
    evaluation.report()
}

/// Evaluates on the patches of a source, part by part where it is streamed.
pub fn evaluate_sample(
    device: &mut Device,
    inference: &mut Inference,
    sample: &Sample,
) -> Result<Report> {
    let mut evaluation = Evaluation::new(inference);
    sample.each_part(|images, chosen| evaluation.add(device, inference, images, chosen))?;
    evaluation.report()
}

/// An evaluation under way, where the images come part by part.
#[derive(Debug)]
pub struct Evaluation {
    statistics: Statistics,
    /// Σx and Σx² of each element of the input.
    sum: Vec<f64>,
    square: Vec<f64>,
    psnr: f64,
    ssim: f64,
    errors: f64,
    /// Patches looked at.
    seen: usize,
    /// What excites units, where that is wanted.
    pub top_patches: Option<TopPatches>,
}

impl Evaluation {
    /// Before the first image.
    pub fn new(inference: &Inference) -> Self {
        let graph = inference.graph;
        let len = graph.nodes[graph.target].dims.len();
        Self {
            statistics: Statistics::new(graph.nodes[graph.code].dims),
            sum: vec![0.0; len],
            square: vec![0.0; len],
            psnr: 0.0,
            ssim: 0.0,
            errors: 0.0,
            seen: 0,
            top_patches: None,
        }
    }

    /// Looks at patches of some images.
    pub fn add(
        &mut self,
        device: &mut Device,
        inference: &mut Inference,
        images: &Images,
        chosen: &[Patch],
    ) -> Result<()> {
        let dims = inference.graph.nodes[0].dims;
        for batch in chosen.chunks(inference.batch(device)) {
            let x = patches::cut(images, batch, dims.h, dims.w);
            let passed = inference.run_from(device, self.seen, &x)?;
            if let Some(top_patches) = &mut self.top_patches {
                top_patches.add(&x, &passed.z);
            }
            self.seen += batch.len();
            // What is no image has neither PSNR nor SSIM.
            let image = passed.target.is_none();
            let len = inference.graph.nodes[inference.graph.target].dims.len();
            let x = passed.target.unwrap_or(x);
            let judged: Vec<(f64, f64, f64)> = x
                .par_chunks(len)
                .zip(passed.y.par_chunks(len))
                .map(|(x, y)| {
                    let clipped: Vec<f32> = y.iter().map(|y| y.clamp(0.0, 1.0)).collect();
                    let error = x.iter().zip(y).map(|(x, y)| f64::from(x - y).powi(2)).sum::<f64>();
                    if !image {
                        return (f64::NAN, f64::NAN, error);
                    }
                    (
                        quality::psnr(x, &clipped),
                        quality::ssim(x, &clipped, dims.h, dims.w, dims.c),
                        error,
                    )
                })
                .collect();
            for (p, s, e) in judged {
                // An image without any error would make the mean infinite: 100 dB stands for it.
                self.psnr += if p > 100.0 { 100.0 } else { p };
                self.ssim += s;
                self.errors += e;
            }
            for x in x.chunks(len) {
                for ((sum, square), x) in self.sum.iter_mut().zip(&mut self.square).zip(x) {
                    *sum += f64::from(*x);
                    *square += f64::from(*x).powi(2);
                }
            }
            self.statistics.add(&passed.z);
        }
        Ok(())
    }

    /// What was found.
    ///
    /// # Errors
    /// When the model answers with what is not finite.
    pub fn report(self) -> Result<Report> {
        let Self { statistics, sum, square, psnr, ssim, errors, seen: _, top_patches: _ } = self;
        let n = statistics.images() as f64;
        let l1 = statistics.mean_l1();
        if !f64::is_finite(errors + l1) {
            return Err(Error::failed(
                "the model answers with NaN or infinity: its training diverged; lower optimizer.lr or set optimizer.clip_norm",
            )
            .of(ErrorKind::Diverged));
        }
        let variance: f64 =
            sum.iter().zip(&square).map(|(sum, square)| square - sum * sum / n).sum();
        let dead = statistics.dead();
        Ok(Report {
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
            whole: None,
            statistics,
        })
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(Whole { images, psnr_before, psnr, ssim }) = self.whole {
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
            self.told_variance()
        )
    }
}

impl Report {
    /// The explained variance; of images that do not differ there is none.
    pub fn told_variance(&self) -> String {
        if self.explained_variance.is_finite() {
            format!("{:.4}", self.explained_variance)
        } else {
            "undefined".to_owned()
        }
    }
}
