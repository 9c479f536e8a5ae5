//! Flags of commands that read data.

use clap::Args;

use crate::budget::Budget;
use crate::data::{Layout, LoadOptions, NanName};
use crate::error::Result;
use crate::model::ModelSpec;
use crate::report::rendering::check_channels;
use crate::shape::Dims;

/// How data are read.
#[derive(Args, Clone, Debug)]
pub struct ReadArgs {
    /// Fail on files that do not decode, instead of skipping them
    #[arg(long)]
    pub strict: bool,
    /// Axes of an array, outermost first: N samples, C channels, H rows, W columns, L signals;
    /// such as NCHW or NCL [default: inferred]
    #[arg(long, value_name = "AXES")]
    pub layout: Option<Layout>,
    /// Values that are not finite: error; zero (0 after normalisation); or mask (missing: filled
    /// for the model, left out of loss and evaluation)
    #[arg(long, value_name = "HOW", default_value = "error", value_parser = parse_nan)]
    pub nan: NanName,
    /// Memory budget, such as 512MiB or 2GiB; images that need more than half of it are read from
    /// their files as needed [default: the free memory]
    #[arg(long, value_name = "SIZE")]
    pub max_memory: Option<String>,
}

impl ReadArgs {
    /// The memory budget.
    pub fn budget(&self) -> Result<Budget> {
        super::budget(self.max_memory.as_deref())
    }

    /// The options for loading data, for a model if there is one.
    pub fn options<'a>(&'a self, budget: &Budget, model: Option<&'a ModelSpec>) -> LoadOptions<'a> {
        LoadOptions {
            layout: self.layout.as_ref(),
            nan: self.nan,
            normalization: model.and_then(|model| model.normalization.as_ref()),
            spectrogram: model.and_then(|model| model.spectrogram.as_ref()),
            ..LoadOptions::new(self.strict, budget)
        }
    }
}

/// What pictures show.
#[derive(Args, Clone, Debug)]
pub struct ShowArgs {
    /// Channels that pictures show, comma-separated and numbered from 0, such as 0,3,5: one with a
    /// colour bar, two or three as colours, of signals up to six as lines [default: one channel or
    /// RGB as it is, otherwise the first principal components]
    #[arg(long, value_name = "N,...", value_delimiter = ',')]
    pub show_channels: Vec<usize>,
}

impl ShowArgs {
    /// The channels to show of samples of a size, or those that a run recorded.
    ///
    /// # Errors
    /// If one does not exist, or there are too many.
    pub fn channels(&self, dims: Dims, recorded: Option<Vec<usize>>) -> Result<Vec<usize>> {
        check_channels(&self.show_channels, dims).map_err(|error| error.at("--show-channels"))?;
        if self.show_channels.is_empty() {
            return Ok(recorded.unwrap_or_default());
        }
        Ok(self.show_channels.clone())
    }
}

/// Parses the value of `--nan`.
pub fn parse_nan(text: &str) -> std::result::Result<NanName, String> {
    NanName::named(text)
        .ok_or_else(|| format!("use one of {}", NanName::names().collect::<Vec<_>>().join(", ")))
}
