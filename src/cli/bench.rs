//! `csae bench`
use clap::Args;
use super::Common;
/// Benchmarks.
#[derive(Debug, Args)]
pub struct BenchArgs {
    #[command(flatten)]
    common: Common,
}
pub fn run(args: BenchArgs) -> anyhow::Result<()> { let _ = args.common; Ok(()) }
