//! Judging a model on images: quality of the reconstruction, sparsity of the code.

use serde::Serialize;

use super::infer::Inference;
use super::quality;
use crate::data::{Images, Patch, patches};
use crate::device::Device;
use crate::error::{Error, Result};

/// What an evaluation found. Means are over images (or patches).
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Images or patches looked at.
    pub images: usize,
    /// Mean PSNR in dB, reconstruction clipped to 0…1.
    pub psnr: f64,
    /// Mean SSIM.
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
    /// Mean activity of each unit.
    #[serde(skip)]
    pub activity: Vec<f64>,
}

/// Evaluates on patches of images. `inference` is kept by the caller, so that it is compiled once.
pub fn evaluate(device: &mut Device, inference: &mut Inference, images: &Images, chosen: &[Patch]) -> Result<Report> {
    let graph = inference.graph;
    let dims = graph.nodes[0].dims;
    let code = graph.nodes[graph.code].dims;
    let mut fired = vec![false; code.c];
    let mut activity = vec![0.0_f64; code.c];
    let (mut sum, mut square) = (vec![0.0_f64; dims.len()], vec![0.0_f64; dims.len()]);
    let (mut psnr, mut ssim, mut errors, mut l1, mut l0) = (0.0, 0.0, 0.0, 0.0, 0_usize);
    for batch in chosen.chunks(inference.batch(device)) {
        let x = patches::cut(images, batch, dims.h, dims.w);
        let passed = inference.run(device, &x)?;
        use rayon::prelude::*;
        let judged: Vec<(f64, f64, f64)> = x
            .par_chunks(dims.len())
            .zip(passed.y.par_chunks(dims.len()))
            .map(|(x, y)| {
                let clipped: Vec<f32> = y.iter().map(|y| y.clamp(0.0, 1.0)).collect();
                let error = x.iter().zip(y).map(|(x, y)| f64::from(x - y).powi(2)).sum::<f64>();
                (quality::psnr(x, &clipped), quality::ssim(x, &clipped, dims.h, dims.w, dims.c), error)
            })
            .collect();
        for (p, s, e) in judged {
            // An image without any error would make the mean infinite: 100 dB stands for it.
            psnr += if p > 100.0 { 100.0 } else { p };
            ssim += s;
            errors += e;
        }
        for x in x.chunks(dims.len()) {
            for ((sum, square), x) in sum.iter_mut().zip(&mut square).zip(x) {
                *sum += f64::from(*x);
                *square += f64::from(*x).powi(2);
            }
        }
        for (i, z) in passed.z.iter().enumerate() {
            if *z != 0.0 {
                fired[i % code.c] = true;
                l0 += 1;
                l1 += f64::from(z.abs());
                activity[i % code.c] += f64::from(z.abs());
            }
        }
    }
    let n = chosen.len() as f64;
    if !f64::is_finite(errors + l1) {
        return Err(Error::failed(
            "the model answers with NaN or infinity: its training diverged; lower optimizer.lr or set optimizer.clip_norm",
        ));
    }
    let variance: f64 = sum.iter().zip(&square).map(|(sum, square)| square - sum * sum / n).sum();
    let dead = fired.iter().filter(|fired| !**fired).count();
    activity.iter_mut().for_each(|a| *a /= n * code.area() as f64);
    Ok(Report {
        images: chosen.len(),
        psnr: psnr / n,
        ssim: ssim / n,
        sum_squares: errors / n,
        l1: l1 / n,
        l0: l0 as f64 / n,
        code: code.len(),
        units: code.c,
        dead,
        dead_share: dead as f64 / code.c as f64,
        explained_variance: 1.0 - errors / variance,
        activity,
    })
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "PSNR {:.2} dB, SSIM {:.4}, ‖x − x̂‖² {:.3}, L0 {:.1} of {}, dead {} of {} ({:.1} %), explained variance {:.4}",
            self.psnr,
            self.ssim,
            self.sum_squares,
            self.l0,
            self.code,
            self.dead,
            self.units,
            100.0 * self.dead_share,
            self.explained_variance
        )
    }
}
