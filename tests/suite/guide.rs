//! The text of the guide: flags, keys, notes and numbers that it names exist, links work, and it
//! fits a terminal.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use csae::guide::PAGES;
use csae::internals::spec::{Config, preset_names, preset_text};

use crate::support::markdown::{all_commands, command_name, quotes};
use crate::support::{Command, text};

fn readme() -> String {
    text(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md"))
}

/// The names of the flags in a text.
fn flags(text: &str) -> BTreeSet<&str> {
    let words = text.split([' ', '[', ']', '(', ')', ',', '|']);
    let name = |word: &str| -> Option<usize> {
        let rest = word.strip_prefix("--")?;
        let end = rest.find(|letter: char| !letter.is_ascii_lowercase() && letter != '-');
        Some(2 + end.unwrap_or(rest.len())).filter(|length| *length > 2)
    };
    words.filter_map(|word| name(word).map(|length| &word[..length])).collect()
}

/// The flags of every command, by its name, from the help. Those of the program are under "".
fn known_flags() -> BTreeMap<String, BTreeSet<String>> {
    let help = |name: &str| Command::new(name).arg("--help").succeed();
    let commands = |help: &str| -> Vec<String> {
        let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
        let rows =
            lines.take_while(|line| !line.is_empty()).filter(|line| !line.starts_with("   "));
        rows.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
    };
    let mut known = BTreeMap::new();
    let mut names = vec![String::new()];
    while let Some(name) = names.pop() {
        let text = help(&name);
        let below = commands(&text).into_iter().filter(|command| command != "help");
        names.extend(below.map(|command| format!("{name} {command}").trim().to_owned()));
        let mut all: BTreeSet<String> =
            flags(&text.replace('\n', " ")).into_iter().map(str::to_owned).collect();
        all.extend(["--help", "--version"].map(str::to_owned));
        known.insert(name, all);
    }
    known
}

/// The flags in a text that do not exist: of the command if the text begins with one, else of any.
fn unknown_flags(text: &str, known: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let command = command_name(text).map(|(name, _)| name).filter(|_| text.starts_with("csae "));
    let exists = |flag: &str| match command.and_then(|name| known.get(name)) {
        Some(flags) => flags.contains(flag),
        None => known.values().any(|flags| flags.contains(flag)),
    };
    let unknown = flags(text).into_iter().filter(|flag| !exists(flag));
    unknown.map(|flag| format!("{flag} in `{text}`")).collect()
}

#[test]
fn every_flag_exists() {
    let known = known_flags();
    assert!(known.contains_key("segment train"), "{:?}", known.keys());
    let readme = readme();
    let texts = PAGES.iter().map(|page| page.text).chain([readme.as_str()]);
    let mut unknown = Vec::new();
    for text in texts {
        let commands = all_commands(text).into_iter().filter(|line| line.starts_with("csae"));
        let quoted = quotes(text).into_iter().filter(|quote| !quote.starts_with("cargo"));
        for code in commands.chain(quoted) {
            unknown.extend(unknown_flags(&code, &known));
        }
    }
    assert!(unknown.is_empty(), "{}", unknown.join("\n"));
    // The check can fail.
    assert_eq!(
        unknown_flags("--sigma and --sigmma", &known),
        ["--sigmma in `--sigma and --sigmma`"]
    );
    assert_eq!(unknown_flags("csae probe --sigma 3", &known).len(), 1);
}

/// Whether a text is a key of the configuration, by its form.
fn looks_like_key(text: &str) -> bool {
    const TABLES: [&str; 8] =
        ["data", "model", "loss", "sparsity", "optimizer", "schedule", "train", "corruption"];
    const ENDINGS: [&str; 6] = ["txt", "yaml", "safetensors", "toml", "json", "png"];
    let mut parts = text.split('.');
    let (first, last) =
        (parts.next().unwrap_or_default(), text.rsplit('.').next().unwrap_or_default());
    TABLES.contains(&first)
        && text.contains('.')
        && !ENDINGS.contains(&last)
        && text.chars().all(|letter| letter.is_ascii_lowercase() || "._".contains(letter))
}

/// Whether a key is one of the configuration: some preset does not refuse its name.
fn is_key(key: &str) -> bool {
    preset_names().any(|preset| {
        let set = [format!("{key}=0")];
        let parsed = Config::parse(preset_text(preset).unwrap(), preset, &set);
        let message = parsed.err().map_or_else(String::new, |error| error.to_string());
        !message.contains("unknown field") && !message.contains("is not LAYER.KEY")
    })
}

#[test]
fn every_key_exists() {
    let mut keys = BTreeSet::new();
    for page in PAGES {
        let quoted = quotes(page.text);
        let names = quoted.iter().map(|quote| quote.split('=').next().unwrap_or_default());
        keys.extend(names.filter(|name| looks_like_key(name)).map(str::to_owned));
    }
    assert!(keys.len() > 20, "{keys:?}");
    let unknown: Vec<&String> = keys.iter().filter(|key| !is_key(key)).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
    // The check can fail.
    assert!(!is_key("train.epoch") && !is_key("model.layers.code.unit"));
    assert!(!looks_like_key("data.yaml") && looks_like_key("train.epochs"));
}

#[test]
fn every_page_is_listed_with_its_summary() {
    let index = text(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/guide/mod.rs"));
    let list = Command::new("guide").env("COLUMNS", "80").succeed();
    for page in PAGES {
        let module = page.name.replace('-', "_");
        let row = format!("//! | [{}][{module}] | {} |", page.title(), page.summary());
        assert!(index.contains(&row), "src/guide/mod.rs has no {row}");
        let link = format!("#[doc = \"[{}]: self::{module}\"]", page.title());
        assert!(index.contains(&link), "src/guide/mod.rs has no {link}");
        let row = |line: &str| line.starts_with(page.name) && line.ends_with(&page.summary());
        assert!(list.lines().any(row), "{}: {list}", page.name);
    }
    assert_eq!(list.lines().count(), PAGES.len());
    assert!(list.lines().all(|line| line.chars().count() <= 80), "{list}");
}

/// Links are references whose names are titles: rustdoc replaces their targets.
#[test]
fn links_name_pages_by_their_titles() {
    for page in PAGES {
        for line in page.text.lines().filter(|line| line.starts_with('[') && line.contains("]: ")) {
            let (title, target) = line[1..].split_once("]: ").unwrap();
            let other = PAGES.iter().find(|other| format!("{}.md", other.name) == target);
            assert_eq!(other.map(|other| other.title()), Some(title), "{}: {line}", page.name);
            let uses = page.text.matches(&format!("[{title}]")).count();
            assert!(uses > 1, "{}: {line} is not used", page.name);
        }
    }
}

#[test]
fn pages_are_printed_for_terminals_of_any_width() {
    for page in PAGES {
        for width in [40, 80] {
            let text =
                Command::new("guide").arg(page.name).env("COLUMNS", &width.to_string()).succeed();
            assert!(text.starts_with(page.title()), "{text}");
            // Code and long words keep their length.
            let prose = text.lines().filter(|line| !line.starts_with("    "));
            let mut long =
                prose.filter(|line| line.chars().count() > width && line.trim().contains(' '));
            let spaces = |line: &str| line.trim_start_matches("- ").trim().matches(' ').count();
            assert!(
                long.all(|line| line.contains('`') || spaces(line) == 0),
                "{}: {text}",
                page.name
            );
            assert!(!text.contains('\u{1b}') && !text.contains("<!--") && !text.contains("]: "));
        }
        let raw = Command::new("guide").arg(page.name).arg("--raw").succeed();
        assert_eq!(raw, page.text);
    }
    Command::new("guide fetures").fails(2, &["fetures", "did you mean features?"]);
}

/// The numbers in a text that a measurement could have given: with a decimal point, or of four and
/// more digits. Years are not measured.
fn numbers(text: &str) -> BTreeSet<String> {
    let parts = text.split(|letter: char| !letter.is_ascii_digit() && !".,".contains(letter));
    let plain = parts.map(|part| part.trim_matches(['.', ',']).replace(',', ""));
    let is_year = |number: &str| number.len() == 4 && ["19", "20"].contains(&&number[..2]);
    plain.filter(|number| number.contains('.') || number.len() > 3 && !is_year(number)).collect()
}

/// The numbers of a section that neither the notes that it names nor the table of results have.
fn unknown_numbers(section: &str, results: &str) -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let notes: Vec<String> =
        quotes(section).into_iter().filter(|quote| quote.ends_with(".md")).collect();
    if notes.is_empty() {
        return Vec::new();
    }
    let mut known = numbers(results);
    for note in notes {
        let path = root.join(&note);
        assert!(path.exists(), "{note} does not exist");
        known.extend(numbers(&text(path)));
    }
    // Fenced code shows output of an example.
    let prose: String = section.split("```").step_by(2).collect();
    numbers(&prose).difference(&known).cloned().collect()
}

#[test]
fn every_number_is_in_a_note_that_its_section_names() {
    let results = text(Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/RESULTS.md"));
    let mut unknown = Vec::new();
    for page in PAGES {
        for section in page.text.split("\n## ") {
            let numbers = unknown_numbers(section, &results).into_iter();
            unknown.extend(numbers.map(|number| format!("{}: {number}", page.name)));
        }
    }
    assert!(unknown.is_empty(), "{unknown:?}");
    // The check can fail.
    let section = "On the H200 12,345.6 (`benches/results/2026-11-29-h200.md`).";
    assert_eq!(unknown_numbers(section, &results), ["12345.6"]);
}

/// The reference of keys in the guide is the one that the program prints.
#[test]
fn the_reference_of_keys_is_current() {
    let page = PAGES.iter().find(|page| page.name == "configuration").expect("a page");
    let (_, rest) = page.text.split_once("<!-- keys -->\n").expect("it begins");
    let (written, _) = rest.split_once("<!-- /keys -->").expect("it ends");
    let printed = Command::new("keys --markdown").succeed();
    assert!(
        written.trim() == printed.trim(),
        "src/guide/configuration.md: write the output of `csae keys --markdown` between the \
         markers"
    );
}
