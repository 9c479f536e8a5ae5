//! The run of an autoencoder, from its configuration to its results, shared by `csae train` and
//! `csae resume`.

use std::path::Path;

use super::Common;
use super::interrupt::{self, Interrupted};
use super::ranks;
use crate::budget::Budget;
use crate::device::Device;
use crate::error::{ErrorKind, Result};
use crate::files::Lock;
use crate::infer::evaluate::EvaluationReport;
use crate::infer::reconstruct::encodes_whole_images;
use crate::model::{Graph, ParamRole};
use crate::report::rendering::check_channels;
use crate::spec::Config;
use crate::train::checkpoint::Checkpoint;
use crate::train::data::{self, Prepared};
use crate::train::reconstruction::Reconstruction;
use crate::train::{Log, Outcome, Run, RunFolder, Summary, Trainer};

/// The checked data and model of a run.
pub struct Job {
    pub config: Config,
    prepared: Prepared,
    /// The model.
    pub graph: Graph,
    /// The memory budget. It is stored with the run, so that a resume has the same.
    pub budget: Budget,
    /// Whether to write event files for TensorBoard.
    pub tensorboard: bool,
}

impl Job {
    /// Opens the data and checks the model against them. Data that are larger than their part of
    /// the budget are streamed. Completes the configuration's model with all sizes.
    pub fn new(mut config: Config, budget: Budget) -> Result<Self> {
        let prepared = data::prepare_within(&config, budget)?;
        check_channels(&config.data.show_channels, prepared.dims)
            .map_err(|error| error.at("data.show_channels"))?;
        config.model.undoes = config.corruption.clone();
        config.model.normalization.clone_from(&prepared.normalization);
        config.model.spectrogram.clone_from(&prepared.spectrogram);
        let graph = Graph::new(&config.model, prepared.dims).map_err(|error| {
            if prepared.dims.h == 1 {
                error.and("the data are signals; --preset signals is for them")
            } else {
                error
            }
        })?;
        graph.check_autoencoder()?;
        config.model = graph.spec.clone();
        Ok(Self { config, prepared, graph, budget, tensorboard: false })
    }

    /// Why `data.crop` has no effect, if it has none.
    pub fn without_crop(&self) -> Option<&String> {
        self.prepared.without_crop.as_ref()
    }

    /// Prints what the data are, and the files that are left out.
    pub fn report_data(&self, common: &Common) {
        common.status(&format!("data: {}", self.prepared.description));
        common.report_files(&self.prepared.report);
    }

    fn report_start(&self, common: &Common, device: &mut Device, trainer: &Trainer) {
        self.report_data(common);
        common.status(&format!(
            "model: {} parameters, code of {}{}; {} steps of {} images, {} per epoch",
            self.graph.parameter_count(),
            self.graph.nodes[self.graph.code].dims,
            if encodes_whole_images(&self.graph) { ", for images of any size" } else { "" },
            trainer.total,
            self.config.train.batch,
            trainer.steps_per_epoch
        ));
        if let (Some(from), Some([copied, total])) = (&self.config.train.from, trainer.copied) {
            common.status(&format!(
                "from {from}: copied {copied} of {total} parameters and states, by name and shape"
            ));
        } else if self.graph.params.iter().any(|param| param.role == ParamRole::Frozen) {
            common.status(
                "note: frozen layers keep their random weights; --from MODEL copies the weights of \
                 another model",
            );
        }
        if self.graph.competes_within_batch() {
            common.status(
                "note: units compete within a batch during training only (lifetime \
                 winner-take-all), so validation results and pictures do not measure the quality \
                 of the model, and best.safetensors is the last validated model; evaluate its \
                 features with `csae probe`",
            );
        }
        common.status(&format!("memory: {}", trainer.memory));
        if common.verbose && device.as_gpu().is_some() {
            errln!("step: {} dispatches", trainer.dispatches());
        }
        common.report_kernels(device);
    }

    /// Sets up everything before the first step, within the memory budget. Writes nothing.
    pub fn set_up(
        &self,
        device: &mut Device,
        folder: &RunFolder,
        from: Option<&Checkpoint>,
    ) -> Result<Run<'_, Reconstruction<'_>>> {
        device.limit_memory(self.budget.all);
        let run = Run::new(device, folder, &self.config, &self.prepared, &self.graph, from);
        run.map_err(|error| match error.kind {
            ErrorKind::Adapter => error.at("before the first step"),
            _ => error,
        })
    }

    /// Trains the model. `begin` prepares and locks the run's folder after all checks of the
    /// training have passed. It returns another folder than `folder` if another process has taken
    /// that one meanwhile.
    pub fn run(
        &self,
        common: &Common,
        device: &mut Device,
        folder: &RunFolder,
        from: Option<&Checkpoint>,
        begin: impl FnOnce(&Device) -> Result<(RunFolder, Lock)>,
    ) -> anyhow::Result<()> {
        let mut run = self.set_up(device, folder, from)?;
        if !run.join(device)? {
            return Err(ranks::follow(&mut run, device));
        }
        self.report_start(common, device, &run.trainer);
        let (folder, _lock) = begin(device)?;
        run.set_folder(&folder);
        if self.tensorboard {
            run.write_events();
        }
        let mut log = Log::new(
            Some(&folder.file("metrics.jsonl")),
            run.trainer.total,
            common.quiet,
            common.json,
        )?;
        interrupt::watch();
        match run.train(device, &mut log, &interrupt::requested)? {
            Outcome::Finished(summary) => report_results(common, folder.path(), &summary),
            Outcome::Stopped(step) => {
                let (total, folder) = (run.trainer.total, folder.path().display());
                return Err(Interrupted(format!(
                    "stopped after step {step} of {total}; continue with: csae resume {folder}"
                ))
                .into());
            }
        }
        Ok(())
    }
}

/// Prints the results of a finished run.
fn report_results(common: &Common, folder: &Path, summary: &Summary<EvaluationReport>) {
    let (report, finished, folder) = (&summary.found, &summary.finished, folder.display());
    if common.json {
        let mut line = serde_json::to_value(report).unwrap_or_default();
        line["kind"] = "run".into();
        line["images_per_s"] = finished.images_per_s.round().into();
        line["seconds"] = finished.seconds.into();
        line["waited_s"] = finished.waited.into();
        line["folder"] = folder.to_string().into();
        outln!("{line}");
    } else {
        let waited = match finished.waited {
            0.0 => String::new(),
            waited => format!(" ({waited:.1} s waiting for files)"),
        };
        let quality = match report.psnr {
            psnr if psnr.is_nan() => {
                format!("explained variance {}", report.explained_variance_text())
            }
            psnr => format!("PSNR {psnr:.2} dB, SSIM {:.4}", report.ssim),
        };
        outln!(
            "{quality}, L0 {:.1} of {}, dead {:.1} %, {:.0} images/s in {:.0} s{waited}; {folder}: \
             model.safetensors, {}",
            report.l0,
            report.code,
            100.0 * report.dead_share,
            finished.images_per_s,
            finished.seconds,
            summary.files.join(", ")
        );
    }
}
