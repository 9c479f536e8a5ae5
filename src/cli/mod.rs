//! The command line: parses flags, validates them, and runs one command. One file per command.

/// `println!` that ends the program quietly if the reader has closed the pipe (`csae … | head`).
macro_rules! outln {
    ($($arg:tt)*) => { crate::cli::out(format_args!($($arg)*)) };
}

/// `eprintln!` that does not panic if standard error is closed or its disk is full: work goes on
/// without messages.
macro_rules! errln {
    ($($arg:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($arg)*);
    }};
}

mod advice;
mod annotated;
mod anomaly;
mod bench;
mod classify;
mod completions;
mod detect;
mod devices;
mod eval;
mod features;
mod file_messages;
mod finetune;
mod generate;
mod inspect;
mod interrupt;
mod learning;
mod man;
mod presets;
mod probe;
mod reconstruct;
mod restore;
mod resume;
mod segment;
mod sweep;
mod synthesis;
mod targets;
mod threads;
mod train;
mod training;
mod verify;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::{Args, CommandFactory, FromArgMatches, Parser, ValueEnum};
use csae::internals::budget;
use csae::internals::budget::Budget;
use csae::internals::cache;
use csae::internals::device::Device;
use csae::internals::gpu::{Adapter, BuiltIn, Choice, Gpu, Matrices, Tuned};

use csae::internals::error::{Error, ErrorKind};
use csae::internals::spec::Precision;
use csae::internals::verify::check_units_once;

pub use advice::with_flags;

/// Convolutional sparse autoencoders on any GPU.
///
/// Train an autoencoder on a folder of images, evaluate it, restore images with it, and use what it
/// learned: features, classifiers, segmenters, detectors, anomaly maps, generated images, textures
/// and styles. `csae train` without arguments trains on bundled photographs.
#[derive(Debug, Parser)]
#[command(name = "csae", version, arg_required_else_help = true, max_term_width = 110)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// The arguments of a command, and how it runs.
trait CommandArgs {
    /// The flags shared with other commands. `None` for commands that use neither a model nor a
    /// device.
    fn common(&self) -> Option<&Common>;

    /// Whether the command writes files. Such a command continues after the reader of its output
    /// has closed the pipe.
    fn writes_files(&self) -> bool;

    /// Runs the command.
    fn run(self) -> anyhow::Result<()>;
}

/// Declares a set of commands. Each row has the name of a command and the struct of its arguments.
macro_rules! commands {
    (enum $set:ident { $($command:ident($args:ty)),* $(,)? }) => {
        #[derive(Debug, clap::Subcommand)]
        enum $set { $($command(Box<$args>)),* }

        impl crate::cli::CommandArgs for $set {
            fn common(&self) -> Option<&crate::cli::Common> {
                match self { $(Self::$command(args) => args.common()),* }
            }

            fn writes_files(&self) -> bool {
                match self { $(Self::$command(args) => args.writes_files()),* }
            }

            fn run(self) -> anyhow::Result<()> {
                match self { $(Self::$command(args) => (*args).run()),* }
            }
        }
    };
}
use commands;

// In the order in which `--help` lists them.
commands! {
    enum Command {
        Train(train::TrainArgs),
        Presets(presets::PresetsArgs),
        Resume(resume::ResumeArgs),
        Eval(eval::EvalArgs),
        Inspect(inspect::InspectArgs),
        Features(features::FeaturesArgs),
        Probe(probe::ProbeArgs),
        Sweep(sweep::SweepArgs),
        Finetune(finetune::FinetuneArgs),
        Classify(classify::ClassifyArgs),
        Reconstruct(reconstruct::ReconstructArgs),
        Segment(segment::SegmentArgs),
        Detect(detect::DetectArgs),
        Anomaly(anomaly::AnomalyArgs),
        Denoise(restore::denoise::DenoiseArgs),
        Inpaint(restore::inpaint::InpaintArgs),
        Upscale(restore::upscale::UpscaleArgs),
        Generate(generate::GenerateArgs),
        Texture(synthesis::texture::TextureArgs),
        Stylize(synthesis::stylize::StylizeArgs),
        Devices(devices::DevicesArgs),
        Verify(verify::VerifyArgs),
        Bench(bench::BenchArgs),
        Completions(completions::CompletionsArgs),
        Man(man::ManArgs),
    }
}

/// Which kernel variant to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kernels {
    /// Chosen by adapter and shape: from your table (`csae bench --tune`), else from a built-in one
    Auto,
    /// The plain variants, which support every shape
    Plain,
    /// Matrix products with sums in the registers of each invocation
    Registers,
    /// Matrix products with sums in registers; values are exchanged within a subgroup
    Subgroup,
    /// Matrix products with sums in registers; values are exchanged through workgroup memory
    Tiled,
    /// As tiled, with half as many sums in the registers of each invocation
    #[value(name = "tiled-8x4")]
    Tiled8x4,
    /// Matrix products on the adapter's cooperative matrices (tensor cores), an experimental
    /// feature: products in half precision, on Metal all; others as tiled
    Matrix,
}

impl From<Kernels> for Choice {
    fn from(kernels: Kernels) -> Self {
        match kernels {
            Kernels::Auto => Self::Auto,
            Kernels::Plain => Self::Plain,
            Kernels::Registers => Self::Registers,
            Kernels::Subgroup => Self::Subgroup,
            Kernels::Tiled => Self::Tiled,
            Kernels::Tiled8x4 => Self::Tiled8x4,
            Kernels::Matrix => Self::Matrix,
        }
    }
}

/// Flags shared by all commands that use a model or a device.
#[derive(Clone, Debug, Args)]
pub struct Common {
    /// Device: auto, cpu, gpu, part of an adapter's name or driver, or its number in `csae devices`
    /// [default: auto; for `resume` the run's device]
    #[arg(long, value_name = "DEVICE", help_heading = "General")]
    pub device: Option<String>,
    /// Number of CPU threads [default: all cores]
    #[arg(long, value_name = "N", help_heading = "General")]
    pub threads: Option<std::num::NonZeroUsize>,
    /// Kernel variant on a GPU
    #[arg(long, value_enum, default_value_t = Kernels::Auto, help_heading = "General")]
    pub kernels: Kernels,
    /// Print JSON lines on standard output
    #[arg(long, help_heading = "General")]
    pub json: bool,
    /// Print only results, errors and a count of skipped files
    #[arg(short, long, help_heading = "General")]
    pub quiet: bool,
    /// Print more: chosen kernels and compile times, every skipped file, every feature of an
    /// adapter
    #[arg(short, long, help_heading = "General")]
    pub verbose: bool,
}

impl Common {
    /// The device to use.
    pub fn device(&self) -> &str {
        self.device.as_deref().unwrap_or("auto")
    }

    /// Opens the device and prints its name. On a GPU, kernels are chosen by the user's table if
    /// there is one, and compiled pipelines are cached.
    ///
    /// # Errors
    /// If there is no such device, or it does not support the kernel variant.
    pub fn open(&self) -> csae::internals::error::Result<Device> {
        self.open_for(Precision::F32)
    }

    /// As [`Common::open`], for training in `precision`. For half precision the adapter's
    /// cooperative matrices are checked once for each driver, and used from then on if they compute
    /// correctly.
    ///
    /// # Errors
    /// As [`Common::open`].
    pub fn open_for(&self, precision: Precision) -> csae::internals::error::Result<Device> {
        let mut read = Ok(None);
        // Cooperative matrices are experimental, so they are enabled only if a flag or the table
        // asks for them, or in half precision, where a check comes first.
        let mut device = Device::open_with(self.device(), |adapter| {
            read = self.table(adapter);
            let tuned = matches!(&read, Ok(Some(table)) if table.names(Choice::Matrix));
            let could_use = self.kernels == Kernels::Auto && precision == Precision::F16;
            if tuned || could_use || self.kernels == Kernels::Matrix {
                adapter.matrices()
            } else {
                Matrices::None
            }
        })?;
        if let Some(gpu) = device.as_gpu() {
            gpu.choose(self.kernels.into())?;
            if let Some(path) = cache::file("pipelines", &gpu.adapter().identity(), "bin") {
                gpu.keep_pipelines(path);
            }
        }
        if self.kernels == Kernels::Auto && precision == Precision::F16 {
            self.check_units(&mut device)?;
        }
        if let Some(gpu) = device.as_gpu()
            && gpu.choice == Choice::Auto
        {
            self.take_table(gpu, read, Tuned::path(&gpu.adapter().identity()));
        }
        self.status(&format!("device: {}", device.label()));
        Ok(device)
    }

    /// Decides whether products in half precision run on the adapter's cooperative matrices.
    fn check_units(&self, device: &mut Device) -> csae::internals::error::Result<()> {
        if device.as_gpu().is_none_or(|gpu| gpu.traits().matrices == Matrices::None) {
            return Ok(());
        }
        let start =
            || self.status("checking the matrix units of this adapter, once for its driver");
        let fault = check_units_once(device, &start)?;
        if let Some(fault) = &fault {
            self.status(&format!(
                "note: products run without the adapter's matrix units ({fault})"
            ));
        }
        if let Some(gpu) = device.as_gpu() {
            gpu.verified = fault.is_none();
        }
        Ok(())
    }

    /// Opens a device without the user's kernel table. `matrices` decides which cooperative
    /// matrices to enable on an adapter.
    ///
    /// # Errors
    /// If there is no such device, or it does not support the kernel variant.
    pub fn open_untuned(
        &self,
        matrices: impl FnOnce(&Adapter) -> Matrices,
    ) -> csae::internals::error::Result<Device> {
        let mut device = Device::open_with(self.device(), matrices)?;
        if let Some(gpu) = device.as_gpu() {
            gpu.choose(self.kernels.into())?;
            if gpu.choice == Choice::Auto {
                self.take_table(gpu, Ok(None), None);
            }
        }
        self.status(&format!("device: {}", device.label()));
        Ok(device)
    }

    /// The user's kernel table for an adapter, if it is enabled.
    fn table(&self, adapter: &Adapter) -> csae::internals::error::Result<Option<Tuned>> {
        let identity = adapter.identity();
        let path = Tuned::path(&identity).filter(|_| self.kernels == Kernels::Auto);
        path.map_or(Ok(None), |path| Tuned::read(&path, &identity))
    }

    /// Installs the user's kernel table. A table that is invalid or belongs to another adapter is
    /// ignored.
    fn take_table(
        &self,
        gpu: &mut Gpu,
        read: csae::internals::error::Result<Option<Tuned>>,
        path: Option<std::path::PathBuf>,
    ) {
        let (table, ignored) = match read {
            Ok(table) => (table, None),
            Err(error) => (None, Some(error)),
        };
        gpu.tuned = table.map(std::rc::Rc::new);
        if !self.verbose {
            return;
        }
        if let Some(error) = ignored {
            self.status(&format!(
                "ignored the kernel table: {error}; `csae bench --tune` writes a new one"
            ));
        }
        self.status(&match (&path, &gpu.tuned) {
            (Some(path), Some(table)) => {
                format!(
                    "kernels for matrix products: table {}, {} classes",
                    path.display(),
                    table.len()
                )
            }
            _ => format!(
                "kernels for matrix products: built-in table of {}",
                BuiltIn::of(&gpu.traits()).name
            ),
        });
    }

    /// Warns if the test images are the training images.
    pub fn warn_same_data(&self, training: &str, test: Option<&String>) {
        let canonical =
            |source: &str| Path::new(source).canonicalize().unwrap_or_else(|_| source.into());
        if test.is_some_and(|test| canonical(test) == canonical(training)) {
            self.status(
                "note: testing on the training images; these numbers do not measure generalization",
            );
        }
    }

    /// With `-v`, prints the GPU kernels that were compiled and how long each took, or the CPU
    /// path's instruction set.
    pub fn report_kernels(&self, device: &mut Device) {
        if !self.verbose {
            return;
        }
        let label = device.label();
        match device.as_gpu() {
            Some(gpu) => {
                for (kernel, time) in gpu.compile_log() {
                    errln!("pipeline {kernel}: {:.1} ms", time.as_secs_f64() * 1e3);
                }
            }
            None => {
                errln!(
                    "{label}: matrix products with {}",
                    csae::internals::linalg::gemm::instructions()
                );
            }
        }
    }

    /// Prints a status line on standard error, unless `--quiet` is set.
    pub fn status(&self, line: &str) {
        if !self.quiet {
            errln!("{line}");
        }
    }
}

/// A number with its noun in the singular or plural.
fn counted(n: usize, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

/// Parses the command line. A negative number is always a value, never an unknown flag, so that the
/// flag it belongs to can name its range.
///
/// # Errors
/// If the command line is invalid, or asks for help or the version.
pub fn parse() -> Result<Cli, clap::Error> {
    fn with_negative(command: clap::Command) -> clap::Command {
        command.mut_subcommands(with_negative).allow_negative_numbers(true)
    }
    let mut command = with_negative(Cli::command());
    let mut matches = command.try_get_matches_from_mut(std::env::args_os())?;
    Cli::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))
}

/// Prints clap's message: help and version unchanged, an error as one line.
pub fn refuse(error: &clap::Error) -> std::process::ExitCode {
    use clap::error::ErrorKind::{
        DisplayHelp, DisplayHelpOnMissingArgumentOrSubcommand, DisplayVersion,
    };
    if matches!(
        error.kind(),
        DisplayHelp | DisplayHelpOnMissingArgumentOrSubcommand | DisplayVersion
    ) {
        // A closed pipe is not an error.
        let _ = error.print();
    } else {
        errln!("csae: {}", in_one_line(&error.to_string()));
    }
    std::process::ExitCode::from(error.exit_code() as u8)
}

/// Joins clap's paragraphs (error, tips, usage, hint) into one line.
fn in_one_line(text: &str) -> String {
    let paragraphs = text.trim().trim_start_matches("error: ").split("\n\n");
    let lines: Vec<String> =
        paragraphs.map(|text| text.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    let plain = [
        ("; Usage:", "; usage:"),
        ("; For more information, try '--help'.", "; see --help"),
        // Plainer words for the standard library's errors about numbers.
        ("number would be zero for non-zero type", "at least 1"),
        ("0 is not in 1..18446744073709551615", "at least 1"),
        ("invalid digit found in string", "not a whole number"),
        ("invalid float literal", "not a number"),
    ];
    plain.iter().fold(lines.join("; "), |text, (from, to)| text.replace(from, to))
}

/// Runs the command.
///
/// # Errors
/// The error of the command with the exit status: 2 for a usage error, 128 and the number of the
/// signal after Ctrl-C and its like, and 1 otherwise.
pub fn run(cli: Cli) -> Result<(), (anyhow::Error, u8)> {
    // Without the flag `resume` starts the threads of its run. Commands without it compute nothing.
    let resumes = matches!(cli.command, Command::Resume(_));
    if let Some(common) = cli.command.common()
        && (common.threads.is_some() || !resumes)
    {
        threads::start(common.threads).map_err(|error| (error.into(), 2))?;
    }
    WRITES_FILES.store(cli.command.writes_files(), Ordering::Relaxed);
    cli.command.run().map_err(|error| {
        let status = match error.downcast_ref::<Error>() {
            Some(error) if error.kind == ErrorKind::Usage => 2,
            None if error.is::<interrupt::Interrupted>() => interrupt::status(),
            _ => 1,
        };
        (error, status)
    })
}

/// The memory budget of `--max-memory`.
fn budget(given: Option<&str>) -> csae::internals::error::Result<Budget> {
    let all =
        given.map(budget::parse_bytes).transpose().map_err(|error| error.at("--max-memory"))?;
    Ok(Budget::new(all))
}

/// Prints a line on standard output.
fn out(line: impl std::fmt::Display) {
    out_raw(format!("{line}\n").as_bytes());
}

/// [`CommandArgs::writes_files`] of the command that runs.
static WRITES_FILES: AtomicBool = AtomicBool::new(false);

/// Writes bytes to standard output. If that fails, a command that writes files goes on, and any
/// other ends: quietly if the reader has left.
fn out_raw(bytes: &[u8]) {
    use std::io::Write;
    let mut standard = std::io::stdout().lock();
    match standard.write_all(bytes).and_then(|()| standard.flush()) {
        Ok(()) => {}
        Err(_) if WRITES_FILES.load(Ordering::Relaxed) => {}
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => {
            errln!("csae: cannot write to standard output: {error}");
            std::process::exit(1);
        }
    }
}

/// Checks that a file can be written.
///
/// # Errors
/// If it exists and `force` is not set.
pub fn refuse_existing(path: &Path, force: bool) -> csae::internals::error::Result<()> {
    if path.exists() && !force {
        return Err(Error::usage(format!(
            "{} already exists; choose another path, or overwrite it with --force",
            path.display()
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// clap checks this in debug builds only. In a release build the second flag gets no value.
    #[test]
    fn no_command_has_a_flag_twice() {
        fn check(command: &clap::Command) {
            let mut known = std::collections::BTreeSet::new();
            for argument in command.get_arguments() {
                let id = argument.get_id().as_str();
                assert!(known.insert(id.to_owned()), "{}: {id}", command.get_name());
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }
}
