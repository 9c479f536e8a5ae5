//! `csae import`: a model file from the values of a `state_dict` of PyTorch.

use std::path::PathBuf;

use crate::bail_usage;
use crate::device::Device;
use crate::error::Result;
use crate::files;
use crate::model::{self, Purpose};
use clap::Args;
use serde_json::json;

use super::{CommandArgs, Common};

/// Make a model file from values that PyTorch has changed.
///
/// The values come from a safetensors file with the `state_dict` of a module that
/// `csae.torch.load` made. The layers, the normalization and everything else are those of the model
/// after --like.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  python -c 'import csae.torch, safetensors.torch
  module = csae.torch.load(\"runs/001\")
  safetensors.torch.save_file(module.state_dict(), \"state.safetensors\")'
  csae import state.safetensors --like runs/001 -o changed.safetensors")]
pub struct ImportArgs {
    /// Safetensors file with the state_dict: floats of 16, 32 or 64 bits
    state: PathBuf,
    /// The model whose layers the values belong to: model file, run folder, or bundled model
    #[arg(long, value_name = "MODEL")]
    like: PathBuf,
    /// Model file to write: .safetensors
    #[arg(short, long, value_name = "FILE")]
    out: PathBuf,
    /// Overwrite an existing file
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    common: Common,
}

impl CommandArgs for ImportArgs {
    fn common(&self) -> Option<&Common> {
        Some(&self.common)
    }

    fn writes_files(&self) -> bool {
        true
    }

    fn run(self) -> anyhow::Result<()> {
        Ok(run(&self)?)
    }
}

fn run(args: &ImportArgs) -> Result<()> {
    let is_model = |ending: &std::ffi::OsStr| ending.eq_ignore_ascii_case("safetensors");
    if !args.out.extension().is_some_and(is_model) {
        bail_usage!("-o {}: use a name that ends in .safetensors", args.out.display());
    }
    super::refuse_existing(&args.out, args.force)?;
    let like = args.common.load_model(&args.like).map_err(|error| error.at("--like"))?;
    let bytes = files::read(&args.state)?;
    let loaded = like.with_state_dict(&bytes, &args.state.display().to_string())?;
    let mut device = Device::cpu();
    let store = loaded.place(&mut device, &loaded.graph, Purpose::Infer)?;
    model::save(&args.out, &mut device, &loaded.graph, &store)?;
    let (file, parameters) = (args.out.display(), loaded.graph.parameter_count());
    if args.common.json {
        outln!("{}", json!({"kind": "import", "file": file.to_string(), "parameters": parameters}));
    } else {
        args.common.report_written(format_args!("{file}  {parameters} parameters"));
    }
    Ok(())
}
