//! Manners: completions and manual pages, plain text where there is no terminal, what `-q`, `-v`
//! and `--json` say.

use std::path::Path;
use std::process::{Command, Stdio};

use super::commands::{Place, csae, fail, succeed};

/// Every command, as `csae --help` lists them: a line each below `Commands:`.
pub fn commands() -> Vec<String> {
    let help = succeed(&["--help"]);
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
        let script = succeed(&["completions", shell]);
        for word in &words {
            assert!(script.contains(word), "{shell}: {word}");
        }
        assert!(!script.contains("no-such-command"));
    }
    fail(&["completions", "tcl"], 2, &["tcl", "zsh"]);
}

#[test]
fn a_manual_page_for_every_command() {
    let place = Place::new("man");
    let commands = commands();
    let folder = place.path("man1");
    let written = succeed(&["man", "--out", &folder]);
    let all = succeed(&["man"]);
    // of commands below others too
    let below = [
        "segment-train",
        "segment-predict",
        "segment-eval",
        "detect-train",
        "anomaly-fit",
        "anomaly-score",
    ];
    assert!(below.iter().all(|name| written.contains(&format!("csae-{name}.1"))), "{written}");
    let own = written
        .lines()
        .filter(|line| line.rsplit('/').next().is_some_and(|name| name.matches('-').count() < 2));
    assert_eq!(own.count(), commands.len() + 1, "{written}");
    for command in &commands {
        let page =
            std::fs::read_to_string(Path::new(&folder).join(format!("csae-{command}.1"))).unwrap();
        assert!(
            page.contains(&format!(".TH csae-{command} 1")) && page.contains(".SH OPTIONS"),
            "{page}"
        );
        assert!(all.contains(&page), "{command}");
    }
    let page = std::fs::read_to_string(Path::new(&folder).join("csae.1")).unwrap();
    assert!(commands.iter().all(|command| page.contains(command)) && all.starts_with(&page));
    fail(&["man", "--out", &folder], 2, &["csae.1", "--force"]);
    succeed(&["man", "--out", &folder, "--force"]);
}

fn short(out: &str) -> Vec<&str> {
    vec![
        "train",
        "digits",
        "--device",
        "cpu",
        "--steps",
        "6",
        "--set=train.log_every=2",
        "--batch",
        "8",
        "--out",
        out,
    ]
}

#[test]
fn there_is_no_escape_off_a_terminal() {
    let place = Place::new("plain");
    for arguments in
        [vec!["--help"], vec!["train", "--help"], vec!["--nonsense"], short(&place.path("run"))]
    {
        let output = csae(&arguments);
        assert!(!output.stdout.contains(&0x1b) && !output.stderr.contains(&0x1b), "{arguments:?}");
    }
}

/// What a command says on a terminal, which util-linux's `script` makes; none where there is no
/// such program.
#[cfg(target_os = "linux")]
fn on_a_terminal(arguments: &[&str], no_color: bool) -> Option<Vec<u8>> {
    let line = [&[env!("CARGO_BIN_EXE_csae")], arguments].concat().join(" ");
    let mut command = Command::new("script");
    command
        .args(["-qec", &line, "/dev/null"])
        .env("TERM", "xterm")
        .env("CSAE_CACHE", "off")
        .env_remove("NO_COLOR")
        .stdin(Stdio::null());
    if no_color {
        command.env("NO_COLOR", "1");
    }
    let output = command.output().ok()?;
    assert!(!output.stdout.is_empty(), "{arguments:?}: {output:?}");
    Some(output.stdout)
}

#[cfg(target_os = "linux")]
#[test]
fn no_color_is_plain_on_a_terminal_too() {
    let place = Place::new("terminal");
    let escapes = |arguments: &[&str], no_color| {
        on_a_terminal(arguments, no_color).map(|said| said.contains(&0x1b))
    };
    let Some(coloured) = escapes(&["--help"], false) else {
        eprintln!("skipped no_color_is_plain_on_a_terminal_too: there is no `script` here");
        return;
    };
    assert!(
        coloured && escapes(&short(&place.path("a")), false) == Some(true),
        "a terminal gets colours and a bar"
    );
    for arguments in [vec!["--help"], vec!["--nonsense"], short(&place.path("b"))] {
        assert_eq!(escapes(&arguments, true), Some(false), "{arguments:?}");
    }
}

#[test]
fn skipped_files_are_never_kept_quiet() {
    let place = Place::new("skipped");
    let photos = place.path("photos");
    std::fs::create_dir_all(&photos).unwrap();
    let good = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/images/textures/brick.png");
    std::fs::copy(good, place.path("photos/good.png")).unwrap();
    std::fs::write(place.path("photos/bad.png"), "no picture").unwrap();
    let model = place.path("model");
    let small = ["--batch=4", "--steps=1", "--set=model.layers.code.units=8", "--set=data.crop=8"];
    succeed(&[&["train", good, "--device", "cpu", "-q", "--out", &model], &small[..]].concat());
    let said = |more: &[&str]| {
        let output = csae(&[&["eval", &model, &photos, "--device", "cpu"], more].concat());
        assert!(output.status.success(), "{output:?}");
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (_, normal) = said(&[]);
    assert!(normal.contains("skipped 1 file ") && normal.contains("bad.png"), "{normal}");
    assert_eq!(
        said(&["-q"]).1,
        "skipped 1 file that cannot be used (--strict makes it an error)\n"
    );
    let (json, quiet) = said(&["-q", "--json"]);
    let line: serde_json::Value = serde_json::from_str(json.lines().next().unwrap()).unwrap();
    assert!(line["kind"] == "skipped" && line["count"] == 1 && quiet.is_empty(), "{json}{quiet}");
    assert!(
        line["files"][0]["file"].as_str().is_some_and(|file| file.ends_with("bad.png")),
        "{line}"
    );
    assert!(
        line["files"][0]["reason"].as_str().is_some_and(|reason| reason.contains("not an image")),
        "{line}"
    );
    // What the CPU path computes with is told with -v alone.
    assert!(
        said(&["-v"]).1.contains("matrix products with")
            && !normal.contains("matrix products with")
    );
    let output = csae(
        &[&["reconstruct", &model, good, "-v", "--device", "cpu", "-o", &place.path("out")][..]]
            .concat(),
    );
    assert!(String::from_utf8_lossy(&output.stderr).contains("matrix products with"));
}
