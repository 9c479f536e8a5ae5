//! Training of an autoencoder: validation of its reconstructions, and pictures.

use super::checkpoint::Checkpoint;
use super::data::Prepared;
use super::folder::RunFolder;
use super::run::{Run, Task, ValidationResult};
use super::trainer::Trainer;
use crate::data::{Images, Patch, Pixels, patches};
use crate::device::Device;
use crate::error::Result;
use crate::hash::Hash;
use crate::infer::batches::Inference;
use crate::infer::evaluate::{EvaluationReport, evaluate};
use crate::infer::restore::Restorer;
use crate::infer::whole_images;
use crate::model::Graph;
use crate::report::gallery;
use crate::spec::Config;

/// Decibels that whole images may lose against the best validation before a restorer counts as
/// diverged. Ordinary fluctuations between validations stay below 1 dB.
const MAX_PSNR_DROP: f64 = 2.0;

/// Validation of an autoencoder.
#[derive(Debug)]
pub struct Reconstruction<'a> {
    config: &'a Config,
    prepared: &'a Prepared,
    graph: &'a Graph,
    inference: Inference<'a>,
    /// Restores whole images, for a restoration model.
    restorer: Option<Restorer>,
    /// Patches used for validation.
    chosen: Vec<Patch>,
}

/// Hash of the training and validation images; for streamed training images, of their sizes only.
fn data_hash(prepared: &Prepared) -> u64 {
    let whole = |hash: Hash, images: &Images| {
        hash.with(bytemuck::cast_slice(&images.table_words())).with(&images.bytes)
    };
    let hash = match &prepared.train {
        Pixels::Resident(images) => whole(Hash::default(), images),
        streamed @ Pixels::Streamed(_) => {
            let sizes: Vec<u64> =
                streamed.sizes().flat_map(|size| [size.h as u64, size.w as u64]).collect();
            Hash::default().with(bytemuck::cast_slice(&sizes))
        }
    };
    whole(hash, &prepared.validation).value()
}

impl<'a> Run<'a, Reconstruction<'a>> {
    /// Sets up the training of an autoencoder; `from` is the checkpoint to resume from.
    ///
    /// # Errors
    /// If configuration, model and data do not fit together, or training takes more memory than
    /// allowed.
    pub fn new(
        device: &mut Device,
        folder: &RunFolder,
        config: &'a Config,
        prepared: &'a Prepared,
        graph: &'a Graph,
        from: Option<&Checkpoint>,
    ) -> Result<Self> {
        let mut trainer = Trainer::new(device, config, graph, prepared)?;
        let chosen = patches::grid(
            &prepared.validation,
            prepared.dims.size(),
            config.data.validation_patches,
            config.seed,
        );
        let mut inference = Inference::new(graph, &trainer.store);
        inference.degradation =
            (!config.corruption.is_none()).then(|| (config.corruption.clone(), config.seed));
        // A model with a fixed input size is validated on patches.
        let restorer =
            whole_images::validation_restorer(config, graph, &trainer.store, &prepared.validation);
        trainer.memory.validation =
            prepared.validation.held_bytes() + inference.prepare(device, chosen.len())?;
        let task = Reconstruction { config, prepared, graph, inference, restorer, chosen };
        Self::begin(device, folder, config, (trainer, task), data_hash(prepared), from)
    }
}

impl Task for Reconstruction<'_> {
    type Validation = EvaluationReport;

    fn validate(&mut self, device: &mut Device) -> Result<EvaluationReport> {
        let mut report =
            evaluate(device, &mut self.inference, &self.prepared.validation, &self.chosen)?;
        if let Some(restorer) = &self.restorer {
            let corruption = (&self.config.corruption, self.config.seed);
            report.whole =
                Some(whole_images::score(device, restorer, &self.prepared.validation, corruption)?);
        }
        Ok(report)
    }

    fn pictures(
        &mut self,
        device: &mut Device,
        folder: &RunFolder,
        report: &EvaluationReport,
    ) -> Result<Vec<&'static str>> {
        let Self { prepared, inference, chosen, config, .. } = self;
        let (images, channels) = (&prepared.validation, &config.data.show_channels);
        let mut pictures =
            gallery::write(folder.path(), device, inference, (images, chosen), report, channels)?;
        if let Some(restorer) = &self.restorer {
            let corruption = (&config.corruption, config.seed);
            let path = folder.path();
            let restored = gallery::restored(path, device, restorer, images, corruption, channels)?;
            pictures.insert(0, restored);
            pictures.extend(gallery::codes(folder.path(), device, restorer, images, corruption)?);
        }
        Ok(pictures)
    }

    fn last_is_best(&self) -> bool {
        self.graph.competes_within_batch()
    }
}

impl ValidationResult for EvaluationReport {
    /// PSNR on whole images for restoration models, otherwise the negative loss.
    fn score(&self) -> f64 {
        self.whole.map_or(-self.sum_squares, |whole| whole.psnr)
    }

    fn numbers(&self) -> serde_json::Value {
        serde_json::to_value(self).expect("a report is JSON")
    }

    fn regression(&self, best: f64) -> Option<String> {
        let psnr = self.whole?.psnr;
        (psnr < best - MAX_PSNR_DROP)
            .then(|| format!("PSNR on whole images fell to {psnr:.2} dB from {best:.2} dB"))
    }

    fn is_sound(&self) -> bool {
        self.whole.is_none_or(|whole| whole.psnr > whole.psnr_before)
    }
}
