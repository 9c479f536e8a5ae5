//! `csae presets`: lists and prints configurations.

use clap::Args;
use serde_json::json;

use super::{CommandArgs, Common};
use crate::bail_usage;
use crate::error::{Result, did_you_mean};
use crate::spec::{Expectation, HeadKind, preset_expectation, preset_names, preset_text};

/// List the presets, or print one: a configuration to start from.
///
/// Presets of models are for `csae train --preset`. The presets `classify`, `segment` and `detect`
/// have the training settings of `csae finetune`, `csae segment train` and `csae detect train`,
/// without a model. To change a preset, write it to a file, edit it, and pass it with --config.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  csae presets
  csae presets sparse > my.toml && csae train --config my.toml
  csae presets segment")]
pub struct PresetsArgs {
    /// Preset to print [default: list all]
    name: Option<String>,
    #[command(flatten)]
    common: Common,
}

impl CommandArgs for PresetsArgs {
    fn common(&self) -> Option<&Common> {
        Some(&self.common)
    }

    fn writes_files(&self) -> bool {
        false
    }

    fn run(self) -> anyhow::Result<()> {
        Ok(run(&self)?)
    }
}

/// A preset: its name, the command that uses it, and its text.
struct Preset {
    name: &'static str,
    command: String,
    text: &'static str,
    expectation: Expectation,
}

impl Preset {
    /// The command without `csae` and without flags that follow from the name.
    fn used_by(&self) -> &str {
        let command = self.command.trim_start_matches("csae ");
        command.split(" --preset").next().unwrap_or(command)
    }

    /// The columns of the list.
    fn columns(&self) -> [&str; 5] {
        let Expectation { data, time, result } = self.expectation;
        [self.name, self.used_by(), data, time, result]
    }
}

fn presets() -> Result<Vec<Preset>> {
    const TASKS: [(HeadKind, &str); 4] = [
        (HeadKind::Classify, "csae finetune"),
        (HeadKind::Segment, "csae segment train"),
        (HeadKind::Detect, "csae detect train"),
        (HeadKind::Prior, "csae generate --fit"),
    ];
    let of_models = preset_names().map(|name| {
        Ok(Preset {
            name,
            command: format!("csae train --preset {name}"),
            text: preset_text(name)?,
            expectation: preset_expectation(name)?,
        })
    });
    let of_tasks = TASKS.iter().map(|(kind, command)| {
        Ok(Preset {
            name: kind.name(),
            command: (*command).to_owned(),
            text: kind.preset(),
            expectation: kind.expectation(),
        })
    });
    of_models.chain(of_tasks).collect()
}

/// The first sentence of a preset's comment. A sentence ends with a full stop before a capital
/// letter: "et al. 2022" goes on.
fn summary(text: &str) -> String {
    let comment: Vec<&str> = text.lines().map_while(|line| line.strip_prefix("# ")).collect();
    let comment = comment.join(" ");
    let ends = |at: &usize| comment[at + 2..].starts_with(char::is_uppercase);
    let end = comment.match_indices(". ").map(|(at, _)| at).find(ends).unwrap_or(comment.len());
    comment[..end].trim_end_matches('.').to_owned()
}

fn run(args: &PresetsArgs) -> Result<()> {
    let presets = presets()?;
    if let Some(name) = &args.name {
        let Some(preset) = presets.iter().find(|preset| preset.name == name) else {
            let names: Vec<&str> = presets.iter().map(|preset| preset.name).collect();
            bail_usage!(
                "preset {name:?} is unknown: use one of {}{}",
                names.join(", "),
                did_you_mean(name, names.iter().copied())
            );
        };
        if args.common.json {
            outln!("{}", json!({"kind": "preset", "name": preset.name, "toml": preset.text}));
        } else {
            super::out_raw(preset.text.as_bytes());
        }
        return Ok(());
    }
    list(args, &presets);
    Ok(())
}

/// Prints a line for each preset, and what the columns are on standard error.
fn list(args: &PresetsArgs, presets: &[Preset]) {
    if args.common.json {
        for Preset { name, command, text, expectation } in presets {
            let Expectation { data, time, result } = expectation;
            outln!(
                "{}",
                json!({
                    "kind": "preset", "name": name, "command": command, "summary": summary(text),
                    "data": data, "time": time, "result": result
                })
            );
        }
        return;
    }
    let head = ["preset", "used by", "for", "time", "result"];
    let mut width = head.map(str::len);
    for preset in presets {
        for (width, column) in width.iter_mut().zip(preset.columns()) {
            *width = (*width).max(column.chars().count());
        }
    }
    let line = |[name, command, data, time, result]: [&str; 5]| {
        let [a, b, c, d, _] = width;
        format!("{name:a$}  {command:b$}  {data:c$}  {time:>d$}  {result}")
    };
    args.common.status(&line(head));
    presets.iter().for_each(|preset| outln!("{}", line(preset.columns())));
    args.common.status(
        "Times are of two CPU cores without a GPU, for the result beside them. `csae presets NAME` \
         prints a preset.",
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_is_the_first_sentence() {
        assert_eq!(
            summary("# One (A et al. 2022; B\n# et al. 2008). Two.\n\n[model]\n"),
            "One (A et al. 2022; B et al. 2008)"
        );
        assert_eq!(summary("# One only.\n[model]\n# not this\n"), "One only");
        assert_eq!(summary("[model]\n"), "");
    }
}
