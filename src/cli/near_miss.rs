//! Unknown flags: the flag, the key or the argument that was meant. People bring flags of other
//! programs, and write the name of a key as a flag.

use clap::Command;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::spec::keys::meant;

/// What a word means here.
#[derive(Clone, Copy, Debug)]
enum Meant {
    /// A flag, and its value if the word determines it.
    Flag(&'static str, Option<&'static str>),
    /// An argument without a flag.
    Argument(&'static str),
}

use Meant::{Argument, Flag};

/// Words with what they mean, in the order of preference: a command may lack the first meaning.
/// Words for keys are in the table of the keys.
const WORDS: &[(&str, Meant)] = &[
    ("batch-size", Flag("batch", None)),
    ("bs", Flag("batch", None)),
    ("epoch", Flag("epochs", None)),
    ("num-epochs", Flag("epochs", None)),
    ("max-epochs", Flag("epochs", None)),
    ("max-steps", Flag("steps", None)),
    ("num-steps", Flag("steps", None)),
    ("iterations", Flag("steps", None)),
    ("learning-rate", Flag("lr", None)),
    ("grad-accum", Flag("accumulate", None)),
    ("gradient-accumulation-steps", Flag("accumulate", None)),
    ("fp16", Flag("precision", Some("f16"))),
    ("half", Flag("precision", Some("f16"))),
    ("amp", Flag("precision", Some("f16"))),
    ("gpu", Flag("device", Some("gpu"))),
    ("cuda", Flag("device", Some("gpu"))),
    ("cpu", Flag("device", Some("cpu"))),
    ("no-gpu", Flag("device", Some("cpu"))),
    ("no-cuda", Flag("device", Some("cpu"))),
    ("workers", Flag("threads", None)),
    ("num-workers", Flag("threads", None)),
    ("jobs", Flag("threads", None)),
    ("output", Flag("out", None)),
    ("output-dir", Flag("out", None)),
    ("out-dir", Flag("out", None)),
    ("save-dir", Flag("out", None)),
    ("dest", Flag("out", None)),
    ("model", Argument("model")),
    ("model", Flag("from", None)),
    ("checkpoint", Argument("model")),
    ("checkpoint", Flag("model", None)),
    ("checkpoint", Flag("from", None)),
    ("weights", Argument("model")),
    ("weights", Flag("model", None)),
    ("weights", Flag("from", None)),
    ("pretrained", Flag("from", None)),
    ("init-from", Flag("from", None)),
    ("data", Argument("data")),
    ("dataset", Argument("data")),
    ("input", Argument("data")),
    ("input", Argument("images")),
    ("images", Argument("images")),
    ("images", Argument("data")),
    ("random-seed", Flag("seed", None)),
    ("random-state", Flag("seed", None)),
    ("noise", Flag("sigma", None)),
    ("overwrite", Flag("force", None)),
    ("memory", Flag("max-memory", None)),
    ("max-mem", Flag("max-memory", None)),
    ("silent", Flag("quiet", None)),
];

/// Whether a command has a flag; `Some(true)` if it takes a value.
fn flag(command: &Command, name: &str) -> Option<bool> {
    let flag = command.get_arguments().find(|argument| argument.get_long() == Some(name))?;
    Some(flag.get_action().takes_values())
}

fn has_argument(command: &Command, name: &str) -> bool {
    command.get_positionals().any(|argument| argument.get_id() == name)
}

/// The command that a command line calls, such as `segment train`.
fn called(root: Command, arguments: &[String]) -> Command {
    let mut command = root;
    for argument in arguments {
        match command.find_subcommand(argument) {
            Some(inner) => command = inner.clone(),
            None => break,
        }
    }
    command
}

/// The value behind an unknown flag, as in `--lr 0.1` and `--lr=0.1`.
fn value<'a>(arguments: &'a [String], unknown: &str) -> Option<&'a str> {
    let own = |argument: &'a String| argument.strip_prefix(unknown)?.strip_prefix('=');
    if let Some(value) = arguments.iter().find_map(own) {
        return Some(value);
    }
    let at = arguments.iter().position(|argument| argument == unknown)?;
    arguments.get(at + 1).map(String::as_str).filter(|next| !next.starts_with('-'))
}

/// What to write instead of an unknown flag in a command line without the program's name: `use
/// --set optimizer.lr=0.1`. `None` if the error is another one, or no flag or key is similar.
pub fn advice(error: &clap::Error, root: Command, arguments: &[String]) -> Option<String> {
    if error.kind() != ErrorKind::UnknownArgument {
        return None;
    }
    let Some(ContextValue::String(unknown)) = error.get(ContextKind::InvalidArg) else {
        return None;
    };
    let word = unknown.strip_prefix("--")?.split('=').next()?.replace('_', "-");
    let command = called(root, arguments);
    let value = value(arguments, unknown);
    let with_value = |flag: &str, takes: bool, own: Option<&str>| match own.or(value) {
        Some(value) if takes => format!("--{flag} {value}"),
        _ => format!("--{flag}"),
    };
    // A flag that is written with an underscore.
    if let Some(takes) = flag(&command, &word) {
        return Some(format!("use {}", with_value(&word, takes, None)));
    }
    for (_, meant) in WORDS.iter().filter(|(known, _)| *known == word) {
        match *meant {
            Flag(name, own) => {
                if let Some(takes) = flag(&command, name) {
                    return Some(format!("use {}", with_value(name, takes, own)));
                }
            }
            Argument(name) if has_argument(&command, name) => {
                return Some(format!("write {} without a flag", name.to_uppercase()));
            }
            Argument(_) => {}
        }
    }
    flag(&command, "set")?;
    let value = value.unwrap_or("VALUE");
    let keys: Vec<String> =
        meant(&word).iter().map(|key| format!("--set {}={value}", key.path())).collect();
    (!keys.is_empty()).then(|| format!("use {}", keys.join(" or ")))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::Cli;

    /// All commands, with those inside other commands.
    fn commands(command: &Command) -> Vec<Command> {
        let inner = command.get_subcommands().flat_map(commands);
        std::iter::once(command.clone()).chain(inner).collect()
    }

    #[test]
    fn every_word_means_something_that_exists() {
        let all = commands(&Cli::command());
        assert!(all.len() > 25);
        for (word, meant) in WORDS {
            let exists = match meant {
                Flag(name, own) => {
                    // The word itself must not be a flag of the same command.
                    all.iter().any(|command| {
                        let takes = flag(command, name);
                        flag(command, word).is_none()
                            && takes.is_some()
                            && (own.is_none() || takes == Some(true))
                    })
                }
                Argument(name) => all.iter().any(|command| has_argument(command, name)),
            };
            assert!(exists, "{word}: {meant:?}");
        }
    }

    fn advice_for(line: &str) -> Option<String> {
        let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let all = std::iter::once("csae").chain(arguments.iter().map(String::as_str));
        let error = Cli::command().try_get_matches_from(all).unwrap_err();
        advice(&error, Cli::command(), &arguments)
    }

    #[test]
    fn unknown_flags_are_answered_with_what_was_meant() {
        for (line, expected) in [
            ("train --lr 0.1", "use --set optimizer.lr=0.1"),
            ("train --lr=0.1", "use --set optimizer.lr=0.1"),
            ("train --learning-rate 0.1", "use --set optimizer.lr=0.1"),
            ("train --learning_rate", "use --set optimizer.lr=VALUE"),
            ("train --batch-size 8", "use --batch 8"),
            ("train --max_memory 1GiB", "use --max-memory 1GiB"),
            ("train --epoch 3", "use --epochs 3"),
            ("train --gpu", "use --device gpu"),
            ("train --workers 4", "use --threads 4"),
            ("train --output x", "use --out x"),
            ("train --model runs/1", "use --from runs/1"),
            ("train --overwrite", "use --force"),
            ("train --data photos", "write DATA without a flag"),
            ("train --lambda 0.1", "use --set sparsity.lambda=0.1"),
            (
                "train --warmup-steps 9",
                "use --set sparsity.warmup_steps=9 or --set \
                                        schedule.warmup_steps=9",
            ),
            ("eval --model runs/1", "write MODEL without a flag"),
            ("finetune --learning-rate 0.1", "use --lr 0.1"),
            ("segment train --momentum 0.5", "use --set optimizer.momentum=0.5"),
        ] {
            assert_eq!(advice_for(line).as_deref(), Some(expected), "{line}");
        }
        for line in ["train --zzz", "devices --lr 0.1", "train --epochs x", "zzz"] {
            assert_eq!(advice_for(line), None, "{line}");
        }
    }
}
