//! The command line: raw flags, then validated arguments, then a run. One file a command.

mod bench;
mod devices;
mod eval;
mod reconstruct;
mod train;
mod verify;

use std::path::Path;

use clap::{Args, Parser, Subcommand};
use csae::device::Device;

use csae::error::{Error, Kind};

/// Convolutional sparse autoencoders on any GPU.
///
/// Train one on a folder of images, judge it, and restore images with it. `csae train` without a word trains on bundled photographs.
#[derive(Debug, Parser)]
#[command(name = "csae", version, arg_required_else_help = true, max_term_width = 110)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Train(train::TrainArgs),
    Eval(eval::EvalArgs),
    Reconstruct(reconstruct::ReconstructArgs),
    Devices(devices::DevicesArgs),
    Verify(verify::VerifyArgs),
    Bench(bench::BenchArgs),
}

/// Flags that every command takes.
#[derive(Clone, Debug, Args)]
pub struct Common {
    /// auto, cpu, gpu, any part of an adapter's name or driver, or its number in `csae devices`
    #[arg(long, default_value = "auto", value_name = "DEVICE", help_heading = "General")]
    pub device: String,
    /// Threads of the CPU path [default: all cores]
    #[arg(long, value_name = "N", help_heading = "General")]
    pub threads: Option<std::num::NonZeroUsize>,
    /// Report as JSON lines on standard output
    #[arg(long, help_heading = "General")]
    pub json: bool,
    /// Say only what was asked for, and errors
    #[arg(short, long, help_heading = "General")]
    pub quiet: bool,
    /// Say more: chosen kernels, compile times
    #[arg(short, long, help_heading = "General")]
    pub verbose: bool,
}

impl Common {
    /// Opens the device that is meant, and says which it is.
    pub fn open(&self) -> csae::error::Result<Device> {
        if let Some(threads) = self.threads {
            // Fails only if the pool exists already, which no command makes before this.
            let _ = rayon::ThreadPoolBuilder::new().num_threads(threads.get()).build_global();
        }
        let device = Device::open(&self.device)?;
        self.say(&format!("device: {}", device.label()));
        Ok(device)
    }

    /// Counts the files that were passed over and names some, or all with `-v`.
    pub fn say_skipped(&self, skipped: &[(String, String)]) {
        csae::data::tell_skipped(skipped, self.verbose).iter().for_each(|line| self.say(line));
    }

    /// A line for people on standard error.
    pub fn say(&self, line: &str) {
        if !self.quiet {
            eprintln!("{line}");
        }
    }
}

/// Runs the command. The exit status of a failure is 2 for what the caller got wrong, else 1.
pub fn run(cli: Cli) -> Result<(), (anyhow::Error, u8)> {
    let done = match cli.command {
        Command::Train(args) => train::run(args),
        Command::Eval(args) => eval::run(args),
        Command::Reconstruct(args) => reconstruct::run(args),
        Command::Devices(args) => devices::run(args),
        Command::Verify(args) => verify::run(args),
        Command::Bench(args) => bench::run(args),
    };
    done.map_err(|error| {
        let status = match error.downcast_ref::<Error>() {
            Some(error) if error.kind == Kind::Usage => 2,
            _ => 1,
        };
        (error, status)
    })
}

/// Refuses to write over what is there.
pub fn refuse_existing(path: &Path, force: bool) -> csae::error::Result<()> {
    if path.exists() && !force {
        return Err(Error::usage(format!(
            "{} is there already: name another place, or add --force to write over it",
            path.display()
        )));
    }
    Ok(())
}
