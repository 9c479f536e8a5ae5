//! The command line: raw flags, then validated arguments, then a run. One file a command.

/// `println!` to which a reader that has left (`csae … | head`) is no error: the program ends.
macro_rules! outln {
    ($($arg:tt)*) => { crate::cli::out(format_args!($($arg)*)) };
}

mod bench;
mod devices;
mod eval;
mod inspect;
mod interrupt;
mod reconstruct;
mod resume;
mod train;
mod training;
mod verify;

use std::path::Path;

use clap::{Args, Parser, Subcommand, ValueEnum};
use csae::device::Device;
use csae::gpu::Choice;

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
    Resume(resume::ResumeArgs),
    Eval(eval::EvalArgs),
    Inspect(inspect::InspectArgs),
    Reconstruct(reconstruct::ReconstructArgs),
    Devices(devices::DevicesArgs),
    Verify(verify::VerifyArgs),
    Bench(bench::BenchArgs),
}

impl Command {
    const fn common(&self) -> &Common {
        match self {
            Self::Train(args) => &args.common,
            Self::Resume(args) => &args.common,
            Self::Eval(args) => &args.common,
            Self::Inspect(args) => &args.common,
            Self::Reconstruct(args) => &args.common,
            Self::Devices(args) => &args.common,
            Self::Verify(args) => &args.common,
            Self::Bench(args) => &args.common,
        }
    }
}

/// Which kernel of a family is taken.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Kernels {
    /// The fastest that takes the shape
    Auto,
    /// The plain ones, which take every shape
    Plain,
}

impl From<Kernels> for Choice {
    fn from(kernels: Kernels) -> Self {
        match kernels {
            Kernels::Auto => Self::Auto,
            Kernels::Plain => Self::Plain,
        }
    }
}

/// Flags that every command takes.
#[derive(Clone, Debug, Args)]
pub struct Common {
    /// auto, cpu, gpu, any part of an adapter's name or driver, or its number in `csae devices` [default: auto, or the run's in `resume`]
    #[arg(long, value_name = "DEVICE", help_heading = "General")]
    pub device: Option<String>,
    /// Threads of the CPU path [default: all cores]
    #[arg(long, value_name = "N", help_heading = "General")]
    pub threads: Option<std::num::NonZeroUsize>,
    /// Kernels on a GPU
    #[arg(long, value_enum, default_value_t = Kernels::Auto, help_heading = "General")]
    pub kernels: Kernels,
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
    /// The device asked for.
    pub fn device(&self) -> &str {
        self.device.as_deref().unwrap_or("auto")
    }

    /// Opens the device that is meant, and says which it is.
    pub fn open(&self) -> csae::error::Result<Device> {
        let mut device = Device::open(self.device())?;
        if let Some(gpu) = device.as_gpu() {
            gpu.choice = self.kernels.into();
        }
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

/// Runs the command. The exit status of a failure is 2 for what the caller got wrong, 130 after Ctrl-C, else 1.
pub fn run(cli: Cli) -> Result<(), (anyhow::Error, u8)> {
    if let Some(threads) = cli.command.common().threads {
        use_threads(threads).map_err(|error| (error.into(), 1))?;
    }
    let done = match cli.command {
        Command::Train(args) => train::run(args),
        Command::Resume(args) => resume::run(args),
        Command::Eval(args) => eval::run(args),
        Command::Inspect(args) => inspect::run(args),
        Command::Reconstruct(args) => reconstruct::run(args),
        Command::Devices(args) => devices::run(args),
        Command::Verify(args) => verify::run(args),
        Command::Bench(args) => bench::run(args),
    };
    done.map_err(|error| {
        let status = match error.downcast_ref::<Error>() {
            Some(error) if error.kind == Kind::Usage => 2,
            None if error.is::<interrupt::Interrupted>() => interrupt::STATUS,
            _ => 1,
        };
        (error, status)
    })
}

/// Sets the number of threads of the CPU path, before anything has run on them.
fn use_threads(threads: std::num::NonZeroUsize) -> csae::error::Result<()> {
    let made = rayon::ThreadPoolBuilder::new().num_threads(threads.get()).build_global();
    made.map_err(|error| Error::failed(format!("--threads {threads}: {error}")))
}

/// A line on standard output.
fn out(line: impl std::fmt::Display) {
    use std::io::Write;
    if writeln!(std::io::stdout(), "{line}").is_err() {
        std::process::exit(0);
    }
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
