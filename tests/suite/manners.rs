//! Manners: completions and manual pages, plain text outside of a terminal, and the output of `-q`,
//! `-v` and `--json`.

use crate::support::images::BRICK;
use crate::support::{Command, TempFolder, text};

/// Every command, as `csae --help` lists them: a line each below `Commands:`.
fn commands() -> Vec<String> {
    let help = Command::new("--help").succeed();
    let list = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let names = list
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help");
    let names: Vec<String> = names.map(str::to_owned).collect();
    for name in ["train", "segment", "man"] {
        assert!(names.iter().any(|known| known == name), "{name} is not in {help}");
    }
    names
}

#[test]
fn completions_name_every_command() {
    let mut words = commands();
    words.push("max-memory".to_owned());
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = Command::new("completions").arg(shell).succeed();
        for word in &words {
            assert!(script.contains(word), "{shell}: {word}");
        }
        assert!(!script.contains("no-such-command"));
    }
}

#[test]
fn an_unknown_shell_is_refused() {
    Command::new("completions tcl").fails(2, &["tcl", "zsh"]);
}

#[test]
fn every_command_has_a_manual_page() {
    let folder = TempFolder::new("man");
    let pages = folder.path("man1");
    let commands = commands();
    let written = Command::new("man").out(&pages).succeed();
    let own = written
        .lines()
        .filter(|line| line.rsplit('/').next().is_some_and(|name| name.matches('-').count() < 2));
    assert_eq!(own.count(), commands.len() + 1, "{written}");
    let all = Command::new("man").succeed();
    for command in &commands {
        let page = text(format!("{pages}/csae-{command}.1"));
        assert!(page.contains(&format!(".TH csae-{command} 1")), "{page}");
        assert!(page.contains(".SH OPTIONS"), "{page}");
        assert!(all.contains(&page), "{command}");
    }
    let page = text(format!("{pages}/csae.1"));
    assert!(commands.iter().all(|command| page.contains(command)) && all.starts_with(&page));
}

#[test]
fn commands_below_others_have_a_manual_page() {
    let folder = TempFolder::new("man-below");
    let written = Command::new("man").out(folder.path("man1")).succeed();
    for name in [
        "segment-train",
        "segment-predict",
        "segment-eval",
        "detect-train",
        "anomaly-fit",
        "anomaly-score",
    ] {
        assert!(written.contains(&format!("csae-{name}.1")), "{name}: {written}");
    }
}

#[test]
fn manual_pages_are_not_overwritten_without_force() {
    let folder = TempFolder::new("man-force");
    let man = Command::new("man").out(folder.path("man1"));
    man.succeed();
    man.fails(2, &["csae.1", "--force"]);
    man.force().succeed();
}

/// A training with a few lines of progress.
fn short(out: &str) -> Command {
    Command::train("digits").out(out).steps(6).batch(8).set("train.log_every=2").on_cpu()
}

#[test]
fn output_outside_of_a_terminal_has_no_escapes() {
    let folder = TempFolder::new("plain");
    for command in [
        Command::new("--help"),
        Command::new("train --help"),
        Command::new("--nonsense"),
        short(&folder.path("run")),
    ] {
        let output = command.output();
        assert!(!output.stdout.contains('\x1b') && !output.stderr.contains('\x1b'), "{output:?}");
    }
}

/// Whether a command writes escapes on a terminal, which util-linux's `script` makes. Skips the
/// test if there is no such program.
#[cfg(target_os = "linux")]
fn escapes_on_a_terminal(command: &Command, no_color: bool) -> Option<bool> {
    use std::process::Stdio;
    let process = command.process();
    let words = std::iter::once(process.get_program()).chain(process.get_args());
    let line = words.map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ");
    let mut script = std::process::Command::new("script");
    script
        .args(["-qec", &line, "/dev/null"])
        .env("TERM", "xterm")
        .env("CSAE_CACHE", "off")
        .env_remove("NO_COLOR")
        .stdin(Stdio::null());
    if no_color {
        script.env("NO_COLOR", "1");
    }
    let Ok(output) = script.output() else {
        crate::support::skip("there is no `script` here");
        return None;
    };
    assert!(!output.stdout.is_empty(), "{output:?}");
    Some(output.stdout.contains(&0x1b))
}

#[cfg(target_os = "linux")]
#[test]
fn a_terminal_shows_colours_and_a_progress_bar() {
    let folder = TempFolder::new("terminal");
    for command in [Command::new("--help"), short(&folder.path("run"))] {
        let Some(escapes) = escapes_on_a_terminal(&command, false) else { return };
        assert!(escapes, "{command:?}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn no_color_turns_escapes_off_on_a_terminal() {
    let folder = TempFolder::new("no-color");
    for command in [Command::new("--help"), Command::new("--nonsense"), short(&folder.path("run"))]
    {
        let Some(escapes) = escapes_on_a_terminal(&command, true) else { return };
        assert!(!escapes, "{command:?}");
    }
}

/// Trains a model and evaluates it on a folder with a good and a bad image.
fn eval_with_a_bad_file(folder: &TempFolder) -> Command {
    let photos = folder.create("photos");
    std::fs::copy(BRICK, format!("{photos}/good.png")).unwrap();
    folder.write("photos/bad.png", "no picture");
    Command::eval(model(folder), photos).on_cpu()
}

fn model(folder: &TempFolder) -> String {
    let model = folder.path("model");
    Command::train(BRICK)
        .out(&model)
        .steps(1)
        .batch(4)
        .set("model.layers.code.units=8")
        .set("data.crop=8")
        .on_cpu()
        .quiet()
        .succeed();
    model
}

#[test]
fn skipped_files_are_named() {
    let folder = TempFolder::new("skipped");
    eval_with_a_bad_file(&folder).warns(&["skipped 1 file ", "bad.png"]);
}

#[test]
fn skipped_files_are_counted_with_quiet() {
    let folder = TempFolder::new("skipped-quiet");
    assert_eq!(
        eval_with_a_bad_file(&folder).quiet().messages(),
        "skipped 1 file that cannot be used (--strict makes it an error)\n"
    );
}

#[test]
fn skipped_files_are_listed_in_json() {
    let folder = TempFolder::new("skipped-json");
    let eval = eval_with_a_bad_file(&folder).quiet();
    let line = eval.json().remove(0);
    assert!(line["kind"] == "skipped" && line["count"] == 1, "{line}");
    let file = &line["files"][0];
    assert!(file["file"].as_str().is_some_and(|file| file.ends_with("bad.png")), "{line}");
    assert!(
        file["reason"].as_str().is_some_and(|reason| reason.contains("not an image")),
        "{line}"
    );
    assert_eq!(eval.arg("--json").messages(), "");
}

#[test]
fn the_instructions_of_the_cpu_path_are_named_only_with_verbose() {
    let folder = TempFolder::new("verbose");
    let eval = eval_with_a_bad_file(&folder);
    assert!(!eval.messages().contains("matrix products with"));
    eval.arg("-v").warns(&["matrix products with"]);
    let reconstruct = Command::reconstruct(folder.path("model"), BRICK).out(folder.path("out"));
    reconstruct.on_cpu().arg("-v").warns(&["matrix products with"]);
}

/// Over SSH, in containers and on clusters the variable is missing. OpenGL's drivers complained.
#[cfg(unix)]
#[test]
fn a_missing_folder_of_displays_is_no_message() {
    for script in [
        "unset XDG_RUNTIME_DIR; exec \"$0\" \"$@\"",
        "XDG_RUNTIME_DIR=here exec \"$0\" \"$@\"",
        "unset XDG_RUNTIME_DIR; TMPDIR=here exec \"$0\" \"$@\"",
    ] {
        let output = Command::new("devices -v").through(script).output();
        assert!(output.succeeded(), "{script}: {output:?}");
        assert!(!output.stderr.contains("XDG_RUNTIME_DIR"), "{script}: {output:?}");
    }
}

/// A container without a home, a display or any variable but the path.
#[cfg(unix)]
const BARE: &str = "exec env -i PATH=\"$PATH\" CSAE_CACHE=off \"$0\" \"$@\"";

#[cfg(unix)]
#[test]
fn training_in_a_bare_container_prints_nothing_of_a_driver() {
    let folder = TempFolder::new("bare");
    let train = |device: &str, out: &str| {
        let train = Command::train("photos").flags("--preset w1 --batch 8 -q").steps(1);
        train.device(device).out(folder.path(out)).through(BARE)
    };
    for device in ["auto", "cpu"] {
        assert_eq!(train(device, device).messages(), "", "{device}");
    }
    train("no-such-adapter", "none").fails(2, &["no-such-adapter", "no such adapter"]);
    // Without an adapter, the message of the first look must not repeat.
    let gpu = train("gpu", "gpu").output();
    assert!(gpu.succeeded() || gpu.stderr.lines().count() == 1, "{gpu:?}");
    assert_eq!(Command::new("devices").through(BARE).messages(), "");
}

/// Mesa and the Vulkan loader print what they do if variables ask for it.
#[cfg(unix)]
#[test]
fn messages_of_drivers_are_shown_only_with_verbose() {
    let devices = |flags: &str| {
        let devices = Command::new("devices").flags(flags);
        devices.env("VK_LOADER_DEBUG", "all").env("EGL_LOG_LEVEL", "debug")
    };
    assert_eq!(devices("").messages(), "");
    // Standard error comes back for the error.
    Command::eval("denoise", "photos")
        .device("no-such-adapter")
        .env("VK_LOADER_DEBUG", "all")
        .quiet()
        .fails(2, &["no such adapter"]);
    let there = !devices("").succeed().starts_with("cpu");
    assert!(!there || !devices("-v").messages().is_empty());
}
