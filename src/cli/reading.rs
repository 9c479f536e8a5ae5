//! Flags of commands that read data.

use clap::Args;
use csae::internals::budget::Budget;
use csae::internals::data::{Layout, LoadOptions, Normalization};
use csae::internals::error::Result;

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

    /// The options for loading data for a model with this normalization.
    pub fn options<'a>(
        &'a self,
        budget: &Budget,
        normalization: Option<&'a Normalization>,
    ) -> LoadOptions<'a> {
        LoadOptions {
            layout: self.layout.as_ref(),
            normalization,
            ..LoadOptions::new(self.strict, budget)
        }
    }
}
