//! `csae anomaly`

mod eval;
mod fit;
mod paint;
mod score;

use std::path::Path;

use clap::{Args, Subcommand};
use csae::bail_usage;
use csae::error::Result;
use csae::model::{self, Graph, LoadedModel};
use csae::tasks::anomaly::{Detector, Frames};

use super::Common;

/// Find what is not normal in images, by a model that saw normal images only: heat maps, scores,
/// thresholds at a stated false-alarm rate.
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
    Paint(paint::SynthesisArgs),
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

/// A detector with the model that it is for.
struct Fitted {
    loaded: LoadedModel,
    detector: Detector,
    /// The model, and its layers up to the one that describes places, on tiles.
    frames: Frames,
}

impl Fitted {
    /// From the folder that `csae anomaly fit` made.
    fn load(folder: &Path) -> Result<Self> {
        let loaded = model::load(folder)?;
        let detector = Detector::load(folder, &loaded.hash)?;
        let spec = model::encoder(&loaded.graph, Some(&detector.calibration.layer), None)?;
        let encoder = Graph::new(&spec, loaded.graph.nodes[0].dims)?;
        let (values, depth) = (detector.bank.mean.len(), encoder.nodes[encoder.output].dims.c);
        if values != depth {
            bail_usage!(
                "{}: its bank has {values} values a descriptor, the layer {depth}; make a detector by `csae anomaly fit`",
                folder.display()
            );
        }
        let frames = Frames::new(&loaded, &spec, detector.calibration.tile)?;
        Ok(Self { loaded, detector, frames })
    }
}
