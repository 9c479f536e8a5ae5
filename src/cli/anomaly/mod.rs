//! `csae anomaly`: anomaly detection.

mod eval;
mod fit;
mod paint;
mod score;

use std::path::Path;

use clap::Args;

use super::{CommandArgs, Common, commands, not_a_model};
use crate::bail_usage;
use crate::device::Device;
use crate::error::Result;
use crate::model::{self, Graph, LoadedModel};
use crate::shape::Size;
use crate::tasks::anomaly::{Banks, Detector, ViewExtractor, descriptor_length, tiled};

/// Find anomalies in images with a detector that is fitted to normal images only: heat maps,
/// scores, and thresholds at a chosen false-alarm rate.
#[derive(Debug, Args)]
pub struct AnomalyArgs {
    #[command(subcommand)]
    command: AnomalyCommand,
}

commands! {
    enum AnomalyCommand {
        Fit(fit::FitArgs),
        Score(score::ScoreArgs),
        Eval(eval::EvalArgs),
        Paint(paint::PaintArgs),
    }
}

impl CommandArgs for AnomalyArgs {
    fn common(&self) -> Option<&Common> {
        self.command.common()
    }

    fn writes_files(&self) -> bool {
        self.command.writes_files()
    }

    fn run(self) -> anyhow::Result<()> {
        self.command.run()
    }
}

/// A detector with its network.
struct Fitted {
    loaded: LoadedModel,
    detector: Detector,
    /// The network, built for tiles.
    tiled: Graph,
}

impl Fitted {
    /// Loads the folder written by `csae anomaly fit`.
    fn load(folder: &Path) -> Result<Self> {
        let loaded = model::load(folder).map_err(|error| not_a_model::explain(folder, error))?;
        let detector = Detector::load(folder, &loaded.hash)?;
        let [h, w] = detector.calibration.tile;
        let tiled = tiled(&loaded.graph, Size { h, w })?;
        let Banks { filters, features } = &detector.banks;
        let pairs = [
            Some((filters.mean.len(), descriptor_length(tiled.nodes[0].dims.c))),
            features.as_ref().map(|bank| (bank.mean.len(), tiled.nodes[tiled.code].dims.c)),
        ];
        if let Some((values, depth)) = pairs.into_iter().flatten().find(|(a, b)| a != b) {
            bail_usage!(
                "{}: a bank has {values} values per descriptor, but the images have {depth}; make \
                 a detector with `csae anomaly fit`",
                folder.display()
            );
        }
        Ok(Self { loaded, detector, tiled })
    }

    /// Computes the views of images that occupy `data` bytes.
    fn extractor(&self, device: &mut Device, data: u64) -> Result<ViewExtractor<'_>> {
        if self.detector.banks.features.is_none() {
            return ViewExtractor::without_network(device, data);
        }
        ViewExtractor::open(device, &self.loaded, &self.tiled, data)
    }

    /// Number of channels of images.
    fn channels(&self) -> usize {
        self.loaded.graph.nodes[0].dims.c
    }
}
