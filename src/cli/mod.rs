//! The command line: parses flags, validates them, and runs one command. One file per command.

/// `println!` that ends the program quietly if the reader has closed the pipe (`csae … | head`).
macro_rules! outln {
    ($($arg:tt)*) => { crate::cli::out(format_args!($($arg)*)) };
}

/// `eprintln!` that does not panic if standard error is closed or its disk is full: work goes on
/// without messages.
macro_rules! errln {
    ($($arg:tt)*) => { crate::cli::err(format_args!($($arg)*)) };
}

mod advice;
mod allocator;
mod annotated;
mod anomaly;
mod bench;
mod classify;
mod common;
mod compare;
mod completions;
mod detect;
mod devices;
mod drivers;
mod dry_run;
mod eval;
mod export;
mod features;
mod file_messages;
mod finetune;
mod generate;
mod grid;
mod guide;
mod image_names;
mod import;
mod inspect;
mod interrupt;
mod join;
mod keys;
mod learning;
mod man;
mod members;
mod near_miss;
mod not_a_model;
mod outputs;
mod presets;
mod probe;
mod ranks;
mod reading;
mod reconstruct;
mod restore;
mod resume;
mod segment;
mod shard;
mod sweep;
mod synthesis;
mod targets;
mod threads;
mod to_classify;
mod train;
mod training;
mod verify;
mod watch;

use std::ffi::OsString;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::{CommandFactory, FromArgMatches, Parser};

use crate::budget;
use crate::budget::Budget;
use crate::error::{Error, ErrorKind};

pub use advice::with_flags;
pub use allocator::{Allocator, share_heap};
pub use common::{Common, Kernels};
pub use drivers::without_displays;

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

    /// The flag of a command that trains, and so can share its work with other processes.
    fn ranks(&self) -> Option<&ranks::RanksArgs> {
        None
    }

    /// Whether the command does only a part of its work, because other processes do the rest.
    fn is_shard(&self) -> bool {
        false
    }

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

            fn ranks(&self) -> Option<&crate::cli::ranks::RanksArgs> {
                match self { $(Self::$command(args) => args.ranks()),* }
            }

            fn is_shard(&self) -> bool {
                match self { $(Self::$command(args) => args.is_shard()),* }
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
        Keys(keys::KeysArgs),
        Resume(resume::ResumeArgs),
        Watch(watch::WatchArgs),
        Compare(compare::CompareArgs),
        Eval(eval::EvalArgs),
        Inspect(inspect::InspectArgs),
        Features(features::FeaturesArgs),
        Join(join::JoinArgs),
        Export(export::ExportArgs),
        Import(import::ImportArgs),
        Probe(probe::ProbeArgs),
        Grid(grid::GridArgs),
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
        Deblock(restore::deblock::DeblockArgs),
        Generate(generate::GenerateArgs),
        Texture(synthesis::texture::TextureArgs),
        Stylize(synthesis::stylize::StylizeArgs),
        Devices(devices::DevicesArgs),
        Verify(verify::VerifyArgs),
        Bench(bench::BenchArgs),
        Guide(guide::GuideArgs),
        Completions(completions::CompletionsArgs),
        Man(man::ManArgs),
    }
}

/// A number with its noun in the singular or plural.
fn counted(n: usize, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

/// Runs the program: parses the command line, runs the command, prints its error, and returns the
/// exit status. The first of the arguments is the name of the program.
///
/// A process can run it once, because it starts the threads of the CPU path.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let status = match parse(&arguments) {
        Err(error) => {
            // All processes of a launcher have the same command line, and one answer is enough.
            ranks::silence_followers();
            refuse(&error, &arguments)
        }
        Ok(parsed) => match run(parsed) {
            Ok(()) => ranks::conclude(0, None),
            Err((error, status)) if error.is::<ranks::Followed>() => ranks::conclude(status, None),
            Err((error, status)) => {
                let message = with_flags(&format!("{error:#}"));
                errln!("csae: {message}");
                ranks::conclude(status, Some(&message))
            }
        },
    };
    // In another program, such as Python, nothing else flushes it.
    let _ = std::io::Write::flush(&mut std::io::stdout());
    status
}

/// Parses the command line. A negative number is always a value, never an unknown flag, so that the
/// flag it belongs to can name its range.
///
/// # Errors
/// If the command line is invalid, or asks for help or the version.
fn parse(arguments: &[OsString]) -> Result<Cli, clap::Error> {
    fn with_negative(command: clap::Command) -> clap::Command {
        command.mut_subcommands(with_negative).allow_negative_numbers(true)
    }
    let mut command = with_negative(Cli::command());
    let mut matches = command.try_get_matches_from_mut(arguments)?;
    Cli::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))
}

/// Prints clap's message: help and version unchanged, an error as one line. Returns the exit
/// status.
fn refuse(error: &clap::Error, arguments: &[OsString]) -> u8 {
    use clap::error::ErrorKind::{
        DisplayHelp, DisplayHelpOnMissingArgumentOrSubcommand, DisplayVersion,
    };
    if matches!(
        error.kind(),
        DisplayHelp | DisplayHelpOnMissingArgumentOrSubcommand | DisplayVersion
    ) {
        if !SILENT.load(Ordering::Relaxed) {
            // A closed pipe is not an error.
            let _ = error.print();
        }
    } else {
        let arguments: Vec<String> =
            arguments.iter().skip(1).map(|text| text.to_string_lossy().into_owned()).collect();
        let advice = near_miss::advice(error, Cli::command(), &arguments);
        errln!("csae: {}", in_one_line(&error.to_string(), advice.as_deref()));
    }
    error.exit_code() as u8
}

/// Joins clap's paragraphs (error, tips, usage, hint) into one line. `advice` replaces its tips.
fn in_one_line(text: &str, advice: Option<&str>) -> String {
    let paragraphs = text.trim().trim_start_matches("error: ").split("\n\n");
    let mut lines: Vec<String> =
        paragraphs.map(|text| text.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    if let Some(advice) = advice {
        lines.retain(|line| !line.starts_with("tip: "));
        lines.insert(1, advice.to_owned());
    }
    plain_numbers(&lines.join("; "))
        .replace("; Usage:", "; usage:")
        .replace("; For more information, try '--help'.", "; see --help")
}

/// A message with plainer words for the standard library's and clap's errors about numbers.
fn plain_numbers(text: &str) -> String {
    const WORDS: [(&str, &str); 7] = [
        ("number would be zero for non-zero type", "at least 1"),
        ("invalid digit found in string", "not a whole number"),
        ("cannot parse integer from empty string", "not a whole number"),
        ("number too large to fit in target type", "the number is too large"),
        ("number too small to fit in target type", "the number is too small"),
        ("invalid float literal", "not a number"),
        ("cannot parse float from empty string", "not a number"),
    ];
    let text = WORDS.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to));
    // clap writes ranges as Rust does: 2..=8, and 1..18446744073709551615 without an end.
    let Some((before, range)) = text.split_once(" is not in ") else { return text };
    let end = range.find(|letter: char| !letter.is_numeric() && !".=-".contains(letter));
    let (range, after) = range.split_at(end.unwrap_or(range.len()));
    match (range.split_once("..="), range.split_once("..")) {
        (Some((min, max)), _) => format!("{before} is not from {min} to {max}{after}"),
        (_, Some((min, _))) => format!("{before} is not at least {min}{after}"),
        _ => text,
    }
}

/// Runs the command.
///
/// # Errors
/// The error of the command with the exit status: 2 for a usage error, 128 and the number of the
/// signal after Ctrl-C and its like, and 1 otherwise.
fn run(cli: Cli) -> Result<(), (anyhow::Error, u8)> {
    if let Some(args) = cli.command.ranks() {
        ranks::join(args).map_err(|error| with_status(error.into()))?;
    } else if let Some(common) = cli.command.common()
        && !cli.command.is_shard()
    {
        ranks::note_copies(common);
    }
    // Without the flag a command that continues a run starts the threads of that run. Commands
    // that lack the flag compute nothing.
    let resumes = match &cli.command {
        Command::Resume(_) => true,
        Command::Train(args) => args.may_resume(),
        _ => false,
    };
    if let Some(common) = cli.command.common()
        && (common.threads.is_some() || !resumes)
    {
        threads::start(common.threads).map_err(|error| with_status(error.into()))?;
    }
    WRITES_FILES.store(cli.command.writes_files(), Ordering::Relaxed);
    cli.command.run().map_err(with_status)
}

/// An error with the exit status of the program, see [`run`].
fn with_status(error: anyhow::Error) -> (anyhow::Error, u8) {
    let status = match error.downcast_ref::<Error>() {
        Some(error) if error.kind == ErrorKind::Usage => 2,
        None if error.is::<interrupt::Interrupted>() => interrupt::status(),
        None if error.is::<ranks::Followed>() => {
            error.downcast_ref::<ranks::Followed>().map_or(1, |followed| followed.0)
        }
        _ => 1,
    };
    (error, status)
}

/// The memory budget of `--max-memory`.
fn budget(given: Option<&str>) -> crate::error::Result<Budget> {
    let all =
        given.map(budget::parse_bytes).transpose().map_err(|error| error.at("--max-memory"))?;
    Ok(Budget::new(all))
}

/// Whether this process prints nothing, because it follows another one that does.
static SILENT: AtomicBool = AtomicBool::new(false);

/// Prints a line on standard error. If that is closed or its disk is full, nothing happens.
fn err(line: std::fmt::Arguments) {
    use std::io::Write;
    if !SILENT.load(Ordering::Relaxed) {
        let _ = writeln!(std::io::stderr(), "{line}");
    }
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
    if SILENT.load(Ordering::Relaxed) {
        return;
    }
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

/// Checks that `used` images, which were not skipped, are at least nine tenths of `all`.
///
/// # Errors
/// If they are not, and `partial` does not allow it.
pub fn require_most(used: usize, all: usize, partial: bool) -> crate::error::Result<()> {
    if partial || 10 * used >= 9 * all {
        return Ok(());
    }
    Err(Error::usage(format!(
        "only {used} of {all} images can be evaluated, and results over a part of them can \
         mislead; mend the files that are skipped, or add --partial to evaluate the others"
    )))
}

/// Checks that a file can be written.
///
/// # Errors
/// If it exists and `force` is not set.
pub fn refuse_existing(path: &Path, force: bool) -> crate::error::Result<()> {
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

    /// A wrong value of any flag is refused in people's words.
    #[test]
    fn values_are_refused_without_the_names_of_types() {
        const JARGON: [&str; 12] = [
            "digit", "literal", "type", "integer", "float", "parse", "string", "boolean", "u64",
            "usize", "f64", "..",
        ];
        let mut refused = 0;
        fn check(command: &clap::Command, path: &[&str], refused: &mut usize) {
            for argument in command.get_arguments().filter(|one| one.get_action().takes_values()) {
                let Some(flag) = argument.get_long() else { continue };
                for value in ["", "abc", "-1", "0", "1.5", "1e999", "99999999999999999999999"] {
                    let own = format!("--{flag}={value}");
                    let line = path.iter().copied().chain([own.as_str()]);
                    let Err(error) = Cli::command().try_get_matches_from(line) else { continue };
                    if error.kind() != clap::error::ErrorKind::ValueValidation {
                        continue;
                    }
                    *refused += 1;
                    let text = in_one_line(&error.to_string(), None);
                    let reason = text.split("': ").nth(1).unwrap_or_default().to_owned();
                    let word = JARGON.iter().find(|word| reason.contains(*word));
                    assert_eq!(word, None, "{path:?} {own}: {text}");
                }
            }
            for inner in command.get_subcommands() {
                let path: Vec<&str> = path.iter().copied().chain([inner.get_name()]).collect();
                check(inner, &path, refused);
            }
        }
        check(&Cli::command(), &["csae"], &mut refused);
        assert!(refused > 100, "{refused}");
    }

    /// Help that lists values with spaces between them suggests a command line that is refused.
    #[test]
    fn help_of_lists_says_that_commas_separate_them() {
        fn check(command: &clap::Command) {
            for argument in command.get_arguments() {
                if argument.get_value_delimiter().is_none() {
                    continue;
                }
                let place = format!("{} {}", command.get_name(), argument.get_id());
                let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.contains("comma-separated"), "{place}: {help}");
                let names = argument.get_value_names().unwrap_or_default();
                assert!(names.iter().any(|name| name.contains(',')), "{place}: {names:?}");
                assert!(argument.get_default_values().len() <= 1, "{place}: {argument:?}");
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }
}
