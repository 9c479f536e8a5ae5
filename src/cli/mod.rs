//! The command line: raw flags, then validated arguments, then a run. One file a command.

/// `println!` to which a reader that has left (`csae … | head`) is no error: the program ends.
macro_rules! outln {
    ($($arg:tt)*) => { crate::cli::out(format_args!($($arg)*)) };
}

mod anomaly;
mod bench;
mod classify;
mod completions;
mod detect;
mod devices;
mod eval;
mod features;
mod finetune;
mod generate;
mod inspect;
mod interrupt;
mod learning;
mod man;
mod probe;
mod reconstruct;
mod restore;
mod resume;
mod segment;
mod sweep;
mod synthesis;
mod targets;
mod train;
mod training;
mod verify;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use csae::budget;
use csae::budget::Budget;
use csae::cache;
use csae::device::Device;
use csae::gpu::{Adapter, BuiltIn, Choice, Gpu, Matrices, Tuned};

use csae::error::{Error, ErrorKind};
use serde_json::json;

/// Convolutional sparse autoencoders on any GPU.
///
/// Train one on a folder of images, judge it, restore images with it, and use what it learned:
/// features, classifiers, segmenters, detectors, anomaly maps, new images, textures and styles.
/// `csae train` without a word trains on bundled photographs.
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
    Generate(Box<generate::GenerateArgs>),
    Texture(Box<synthesis::texture::TextureArgs>),
    Stylize(Box<synthesis::stylize::StylizeArgs>),
    Devices(devices::DevicesArgs),
    Verify(verify::VerifyArgs),
    Bench(bench::BenchArgs),
    Completions(completions::CompletionsArgs),
    Man(man::ManArgs),
}

impl Command {
    /// The flags that every command takes which works on a model or a device.
    const fn common(&self) -> Option<&Common> {
        match self {
            Self::Train(args) => Some(&args.common),
            Self::Resume(args) => Some(&args.common),
            Self::Eval(args) => Some(&args.common),
            Self::Inspect(args) => Some(&args.common),
            Self::Features(args) => Some(&args.common),
            Self::Probe(args) => Some(&args.common),
            Self::Sweep(args) => Some(&args.common),
            Self::Finetune(args) => Some(&args.common),
            Self::Classify(args) => Some(&args.common),
            Self::Reconstruct(args) => Some(&args.common),
            Self::Segment(args) => args.common(),
            Self::Detect(args) => args.common(),
            Self::Anomaly(args) => args.common(),
            Self::Denoise(args) => Some(&args.restore.common),
            Self::Inpaint(args) => Some(&args.restore.common),
            Self::Upscale(args) => Some(&args.restore.common),
            Self::Generate(args) => Some(&args.common),
            Self::Texture(args) => Some(&args.paint.common),
            Self::Stylize(args) => Some(&args.paint.common),
            Self::Devices(args) => Some(&args.common),
            Self::Verify(args) => Some(&args.common),
            Self::Bench(args) => Some(&args.common),
            Self::Completions(_) | Self::Man(_) => None,
        }
    }
}

impl Command {
    /// Whether what it makes are files, which are wanted though nobody reads its lines any more.
    const fn writes_files(&self) -> bool {
        match self {
            Self::Train(_) | Self::Resume(_) | Self::Inspect(_) | Self::Reconstruct(_) => true,
            Self::Features(_) | Self::Probe(_) | Self::Finetune(_) | Self::Sweep(_) => true,
            Self::Classify(args) => args.writes_files(),
            Self::Segment(args) => args.writes_files(),
            Self::Detect(args) => args.writes_files(),
            Self::Anomaly(args) => args.writes_files(),
            Self::Denoise(_) | Self::Inpaint(_) | Self::Upscale(_) => true,
            Self::Generate(_) | Self::Texture(_) | Self::Stylize(_) => true,
            Self::Bench(args) => args.writes_files(),
            _ => false,
        }
    }
}

/// Which kernel of a family is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kernels {
    /// What suits adapter and shape: by your table (`csae bench --tune`), else by a built-in one
    Auto,
    /// The plain ones, which take every shape
    Plain,
    /// Products of matrices by sums in the registers of each invocation
    Registers,
    /// Products by sums in registers, values exchanged within a subgroup
    Subgroup,
    /// Products by sums in registers, values exchanged in workgroup memory
    Tiled,
    /// Products in half precision by the adapter's cooperative matrices (tensor cores), an
    /// experimental feature; others as tiled
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
            Kernels::Matrix => Self::Matrix,
        }
    }
}

/// Flags that every command takes which works on a model or a device.
#[derive(Clone, Debug, Args)]
pub struct Common {
    /// auto, cpu, gpu, any part of an adapter's name or driver, or its number in `csae devices`
    /// [default: auto, or the run's in `resume`]
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
    /// Say only what was asked for, errors, and how many files were skipped
    #[arg(short, long, help_heading = "General")]
    pub quiet: bool,
    /// Say more: chosen kernels and compile times, every skipped file, every feature of an adapter
    #[arg(short, long, help_heading = "General")]
    pub verbose: bool,
}

impl Common {
    /// The device asked for.
    pub fn device(&self) -> &str {
        self.device.as_deref().unwrap_or("auto")
    }

    /// Opens the device that is meant, and says which it is. Its kernels are chosen by the user's
    /// table, if there is one, and what its driver compiles is kept.
    pub fn open(&self) -> csae::error::Result<Device> {
        let mut read = Ok(None);
        // Matrices are experimental: a device has them only if the command line or the table names
        // them.
        let mut device = Device::open_with(self.device(), |adapter| {
            read = self.table(adapter);
            let tuned = matches!(&read, Ok(Some(table)) if table.names(Choice::Matrix));
            if tuned || self.kernels == Kernels::Matrix {
                Matrices::Cooperative
            } else {
                Matrices::None
            }
        })?;
        if let Some(gpu) = device.as_gpu() {
            gpu.choose(self.kernels.into())?;
            if let Some(path) = cache::file("pipelines", &gpu.adapter().identity(), "bin") {
                gpu.keep_pipelines(path);
            }
            if gpu.choice == Choice::Auto {
                self.take_table(gpu, read, Tuned::path(&gpu.adapter().identity()));
            }
        }
        self.say(&format!("device: {}", device.label()));
        Ok(device)
    }

    /// Opens a device for which the user's cache does not count, with the matrices that are wanted
    /// of an adapter.
    pub fn open_untuned(
        &self,
        matrices: impl FnOnce(&Adapter) -> Matrices,
    ) -> csae::error::Result<Device> {
        let mut device = Device::open_with(self.device(), matrices)?;
        if let Some(gpu) = device.as_gpu() {
            gpu.choose(self.kernels.into())?;
            if gpu.choice == Choice::Auto {
                self.take_table(gpu, Ok(None), None);
            }
        }
        self.say(&format!("device: {}", device.label()));
        Ok(device)
    }

    /// The user's table of kernels for an adapter, where one may be taken.
    fn table(&self, adapter: &Adapter) -> csae::error::Result<Option<Tuned>> {
        let identity = adapter.identity();
        let path = Tuned::path(&identity).filter(|_| self.kernels == Kernels::Auto);
        path.map_or(Ok(None), |path| Tuned::read(&path, &identity))
    }

    /// Takes the user's table of kernels as it was read from a file. One that is broken or
    /// another's is passed over.
    fn take_table(
        &self,
        gpu: &mut Gpu,
        read: csae::error::Result<Option<Tuned>>,
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
            self.say(&format!("ignored: {error}; `csae bench --tune` writes a new one"));
        }
        self.say(&match (&path, &gpu.tuned) {
            (Some(path), Some(table)) => {
                format!("products of matrices by {}, {} classes", path.display(), table.len())
            }
            _ => format!(
                "products of matrices by the built-in table of {}",
                BuiltIn::of(&gpu.traits()).name
            ),
        });
    }

    /// Says so where images to judge by are those that were learned from.
    pub fn say_same(&self, learned: &str, judged: Option<&String>) {
        let whole =
            |source: &str| Path::new(source).canonicalize().unwrap_or_else(|_| source.into());
        if judged.is_some_and(|judged| whole(judged) == whole(learned)) {
            self.say("note: the test images are those that it learns from, so that figures of them say nothing of others");
        }
    }

    /// Counts the files that were passed over and names some, all with `-v` or `--json`. That there
    /// are any is said even with `-q`.
    pub fn say_skipped(&self, skipped: &[(String, String)]) {
        if self.json && !skipped.is_empty() {
            let files: Vec<_> = skipped
                .iter()
                .map(|(file, reason)| json!({"file": file, "reason": reason}))
                .collect();
            outln!("{}", json!({"kind": "skipped", "count": skipped.len(), "files": files}));
        }
        let named = match (self.quiet, self.verbose) {
            (true, _) if self.json => return,
            (true, _) => 0,
            (false, true) => usize::MAX,
            (false, false) => 5,
        };
        csae::data::describe_skipped(skipped, named).iter().for_each(|line| eprintln!("{line}"));
    }

    /// With `-v`: the kernels that were made on a GPU and how long each took, or what the CPU path
    /// computes with.
    pub fn say_kernels(&self, device: &mut Device) {
        if !self.verbose {
            return;
        }
        let label = device.label();
        match device.as_gpu() {
            Some(gpu) => {
                for (kernel, time) in gpu.compile_log() {
                    eprintln!("pipeline {kernel}: {:.1} ms", time.as_secs_f64() * 1e3);
                }
            }
            None => eprintln!("{label}: matrix products by {}", csae::linalg::gemm::instructions()),
        }
    }

    /// Says `what` is so of some files, the first five by name, all with `-v`; nothing of none.
    pub fn say_names(&self, what: impl Fn(usize) -> String, names: &[String]) {
        if names.is_empty() {
            return;
        }
        let shown = if self.verbose { names.len() } else { names.len().min(5) };
        let more = if names.len() > shown { ", … (-v names all)" } else { "" };
        self.say(&format!("{}: {}{more}", what(names.len()), names[..shown].join(", ")));
    }

    /// A line for people on standard error.
    pub fn say(&self, line: &str) {
        if !self.quiet {
            eprintln!("{line}");
        }
    }
}

/// A number with what is counted.
fn counted(n: usize, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

/// The command line. A number below 0 is a value everywhere, not a flag that nobody knows: what
/// takes it says what it may be.
pub fn parse() -> Result<Cli, clap::Error> {
    fn with_negative(command: clap::Command) -> clap::Command {
        command.mut_subcommands(with_negative).allow_negative_numbers(true)
    }
    let mut command = with_negative(Cli::command());
    let mut matches = command.try_get_matches_from_mut(std::env::args_os())?;
    Cli::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))
}

/// What clap has to say: help and version as they are, a wrong command line as one line.
pub fn refuse(error: &clap::Error) -> std::process::ExitCode {
    use clap::error::ErrorKind::{
        DisplayHelp, DisplayHelpOnMissingArgumentOrSubcommand, DisplayVersion,
    };
    if matches!(
        error.kind(),
        DisplayHelp | DisplayHelpOnMissingArgumentOrSubcommand | DisplayVersion
    ) {
        // A reader that has left is no error.
        let _ = error.print();
    } else {
        eprintln!("csae: {}", in_one_line(&error.to_string()));
    }
    std::process::ExitCode::from(error.exit_code() as u8)
}

/// Clap's paragraphs (what is wrong, tips, usage, where to find more) one after the other.
fn in_one_line(text: &str) -> String {
    let paragraphs = text.trim().trim_start_matches("error: ").split("\n\n");
    let lines: Vec<String> =
        paragraphs.map(|text| text.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    let plain = [
        ("; Usage:", "; usage:"),
        ("; For more information, try '--help'.", "; see --help"),
        // what the standard library says of numbers
        ("number would be zero for non-zero type", "at least 1"),
        ("0 is not in 1..18446744073709551615", "at least 1"),
        ("invalid digit found in string", "no whole number from 0 on"),
        ("invalid float literal", "no number"),
    ];
    plain.iter().fold(lines.join("; "), |text, (from, to)| text.replace(from, to))
}

/// Runs the command. The exit status of a failure is 2 for what the caller got wrong, 130 after
/// Ctrl-C, else 1.
pub fn run(cli: Cli) -> Result<(), (anyhow::Error, u8)> {
    if let Some(threads) = cli.command.common().and_then(|common| common.threads) {
        use_threads(threads).map_err(|error| (error.into(), 2))?;
    }
    WRITES_FILES.store(cli.command.writes_files(), Ordering::Relaxed);
    let done = match cli.command {
        Command::Train(args) => train::run(args),
        Command::Resume(args) => resume::run(args),
        Command::Eval(args) => eval::run(args),
        Command::Inspect(args) => inspect::run(args),
        Command::Features(args) => features::run(args),
        Command::Probe(args) => probe::run(args),
        Command::Sweep(args) => sweep::run(args),
        Command::Finetune(args) => finetune::run(args),
        Command::Classify(args) => classify::run(args),
        Command::Reconstruct(args) => reconstruct::run(args),
        Command::Segment(args) => segment::run(args),
        Command::Detect(args) => detect::run(args),
        Command::Anomaly(args) => anomaly::run(args),
        Command::Denoise(args) => restore::denoise::run(args),
        Command::Inpaint(args) => restore::inpaint::run(args),
        Command::Upscale(args) => restore::upscale::run(args),
        Command::Generate(args) => generate::run(*args),
        Command::Texture(args) => synthesis::texture::run(*args),
        Command::Stylize(args) => synthesis::stylize::run(*args),
        Command::Devices(args) => devices::run(args),
        Command::Verify(args) => verify::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Completions(args) => {
            completions::run(&args);
            Ok(())
        }
        Command::Man(args) => man::run(&args),
    };
    done.map_err(|error| {
        let status = match error.downcast_ref::<Error>() {
            Some(error) if error.kind == ErrorKind::Usage => 2,
            None if error.is::<interrupt::Interrupted>() => interrupt::STATUS,
            _ => 1,
        };
        (error, status)
    })
}

/// Sets the number of threads of the CPU path, before anything has run on them.
fn use_threads(threads: std::num::NonZeroUsize) -> csae::error::Result<()> {
    // More only get in each other's way.
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    let most = (4 * cores).max(64);
    if threads.get() > most {
        return Err(Error::usage(format!(
            "--threads {threads}: this machine has {cores} cores; give at most {most}"
        )));
    }
    let made = rayon::ThreadPoolBuilder::new().num_threads(threads.get()).build_global();
    made.map_err(|error| Error::failed(format!("--threads {threads}: {error}")))
}

/// What `--max-memory` allows.
fn budget(given: Option<&str>) -> csae::error::Result<Budget> {
    let all =
        given.map(budget::parse_bytes).transpose().map_err(|error| error.at("--max-memory"))?;
    Ok(Budget::new(all))
}

/// A line on standard output.
fn out(line: impl std::fmt::Display) {
    out_raw(format!("{line}\n").as_bytes());
}

/// [`Command::writes_files`] of the one that runs.
static WRITES_FILES: AtomicBool = AtomicBool::new(false);

/// Bytes on standard output. Where its reader has left, a command whose lines are all that it makes
/// ends.
fn out_raw(bytes: &[u8]) {
    use std::io::Write;
    let mut standard = std::io::stdout().lock();
    match standard.write_all(bytes).and_then(|()| standard.flush()) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            if !WRITES_FILES.load(Ordering::Relaxed) {
                std::process::exit(0);
            }
        }
        Err(error) => {
            eprintln!("csae: standard output could not be written: {error}");
            std::process::exit(1);
        }
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
