//! `csae anomaly`: anomaly detection.

mod eval;
mod fit;
mod paint;
mod score;

use std::path::Path;

use clap::{Args, Subcommand};
use csae::bail_usage;
use csae::error::Result;
use csae::model::{self, Graph, Loaded};
use csae::tasks::anomaly::{Detector, TiledModel};

use super::Common;

/// Find anomalies in images with a model trained on normal images only: heat maps, scores, and
/// thresholds at a chosen false-alarm rate.
#[derive(Debug, Args)]
pub struct AnomalyArgs {
    #[command(subcommand)]
    command: AnomalyCommand,
}

#[derive(Debug, Subcommand)]
enum AnomalyCommand {
    Fit(fit::FitArgs),
    Score(score::ScoreArgs),
    Eval(eval::EvalArgs),
    Paint(paint::PaintArgs),
}

impl AnomalyArgs {
    pub(super) const fn common(&self) -> Option<&Common> {
        match &self.command {
            AnomalyCommand::Fit(args) => Some(&args.common),
            AnomalyCommand::Score(args) => Some(&args.common),
            AnomalyCommand::Eval(args) => Some(&args.common),
            AnomalyCommand::Paint(args) => Some(&args.common),
        }
    }

    pub(super) const fn writes_files(&self) -> bool {
        match &self.command {
            AnomalyCommand::Fit(_) | AnomalyCommand::Paint(_) => true,
            AnomalyCommand::Score(args) => args.out.is_some(),
            AnomalyCommand::Eval(_) => false,
        }
    }
}

pub fn run(args: AnomalyArgs) -> anyhow::Result<()> {
    match args.command {
        AnomalyCommand::Fit(args) => fit::run(args),
        AnomalyCommand::Score(args) => score::run(args),
        AnomalyCommand::Eval(args) => eval::run(args),
        AnomalyCommand::Paint(args) => paint::run(args),
    }
}

/// A detector with its model.
struct Fitted {
    loaded: Loaded,
    detector: Detector,
    /// The model and its encoder, built for tiles.
    tiled: TiledModel,
}

impl Fitted {
    /// Loads the folder written by `csae anomaly fit`.
    fn load(folder: &Path) -> Result<Self> {
        let loaded = model::load(folder)?;
        let detector = Detector::load(folder, &loaded.hash)?;
        let spec = model::encoder(&loaded.graph, Some(&detector.calibration.layer), None)?;
        let encoder = Graph::new(&spec, loaded.graph.nodes[0].dims)?;
        let (values, depth) = (detector.bank.mean.len(), encoder.nodes[encoder.output].dims.c);
        if values != depth {
            bail_usage!(
                "{}: the bank has {values} values per descriptor, but layer {} has {depth} \
                 channels; make a detector with `csae anomaly fit`",
                folder.display(),
                detector.calibration.layer
            );
        }
        let tiled = TiledModel::new(&loaded, &spec, detector.calibration.tile)?;
        Ok(Self { loaded, detector, tiled })
    }
}
