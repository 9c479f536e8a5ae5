//! `csae anomaly`

mod eval;
mod fit;
mod paint;
mod score;

use std::path::Path;

use clap::Args;
use csae::bail_usage;
use csae::error::Result;
use csae::model::{self, Graph, Loaded};
use csae::tasks::anomaly::{Detector, Frames};

use super::{CommandArgs, Common, commands};

/// Find what is not normal in images, by a model that saw normal images only: heat maps, scores,
/// thresholds at a stated false-alarm rate.
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
        Paint(paint::SynthesisArgs),
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

/// A detector with the model that it is for.
struct Fitted {
    loaded: Loaded,
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
