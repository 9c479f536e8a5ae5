//! The words of comments, documentation, messages and help: phrases that readers had to decode, and
//! words for which the field has others, do not come back. `.github/CONTRIBUTING.md` has the rules
//! that need a reader.

use std::path::{Path, PathBuf};

/// Phrases not to use, and what to write instead.
const PHRASES: &[(&str, &str)] = &[
    ("is none", "is not a …"),
    ("are none", "are not …"),
    ("is no number", "is not a number"),
    ("are no numbers", "are not numbers"),
    ("so many", "a number, or this many"),
    ("as many as", "the number of …"),
    ("is told", "is conditioned on, is passed, is reported"),
    ("are told", "are conditioned on, are passed, are reported"),
    ("told of", "conditioned on, passed, reported"),
    ("told apart", "distinguished"),
    ("telling apart", "classification"),
    ("says nothing", "has no effect, is constant"),
    ("say nothing", "have no effect, are constant"),
    ("says of", "describes, predicts"),
    ("say of", "describe, predict"),
    ("where there is one", "if it exists, or name the condition"),
    ("left alone", "unchanged"),
    ("taken back", "reverted"),
    ("lays", "puts, places"),
    ("may be", "can be, or must be"),
    ("judged", "evaluated"),
    ("judges", "evaluates"),
    ("exciter", "top-activating patch"),
    ("exciters", "top-activating patches"),
    ("revival", "resurrection"),
    ("diary", "training history"),
    ("lesson", "task"),
    ("painter", "synthesizer"),
    ("usual", "default, common"),
];

/// Names in files and of random numbers, which cannot change: (file, phrase).
const NAMES: [(&str, &str); 1] = [("src/cli/generate/judge.rs", "judged")];

/// Words that begin a sentence of the form "What is pooled is never stored", after `What`.
const VERBS: [&str; 5] = ["is", "are", "was", "has", "does"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file with prose that we write.
fn files() -> Vec<PathBuf> {
    let pages = ["README.md", "CHANGELOG.md", ".github/CONTRIBUTING.md", "benches/RESULTS.md"];
    let mut files: Vec<PathBuf> = pages.map(|name| root().join(name)).into();
    let mut folders: Vec<PathBuf> = ["src", "shaders", "tests", "benches", "assets/presets"]
        .map(|name| root().join(name))
        .into();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let extension = path.extension().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() {
                folders.push(path);
            } else if ["rs", "wgsl", "toml", "sh"].contains(&extension.as_str())
                || extension == "md" && path.starts_with(root().join("src"))
            {
                files.push(path);
            }
        }
    }
    // This file has the phrases.
    files.retain(|path| !path.ends_with("tests/suite/english.rs"));
    files.sort();
    files
}

/// The prose of a line: of source files the comment and the texts in quotation marks, of others the
/// whole line.
fn prose(path: &Path, line: &str) -> String {
    let extension = path.extension().unwrap_or_default();
    if extension != "rs" && extension != "wgsl" {
        return line.to_owned();
    }
    let comment = line.find("//").map_or("", |at| &line[at..]);
    let texts: Vec<&str> = line.split('"').skip(1).step_by(2).collect();
    let continued = line.trim_end().ends_with('\\') || line.trim_end().ends_with("\",");
    let continued = if continued && texts.is_empty() { line } else { "" };
    format!("{comment} {} {continued}", texts.join(" "))
}

/// The words of a line in lower case. Punctuation that ends a phrase is a word of its own.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for letter in line.chars() {
        if letter.is_alphanumeric() || "'_".contains(letter) {
            words.last_mut().expect("there is a word").extend(letter.to_lowercase());
        } else {
            words.push(if ".,:;()[]`".contains(letter) { ".".to_owned() } else { String::new() });
            words.push(String::new());
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// Whether a line begins with a relative clause as its subject.
fn begins_with_relative_clause(line: &str) -> bool {
    let start = line.trim_start().trim_start_matches(['/', '!', '#', ' ']);
    let mut first = start.split_whitespace();
    let relative = first.next() == Some("What") && first.next().is_some_and(|w| VERBS.contains(&w));
    relative && !line.contains('?')
}

/// What a text has that it should not, by line. Phrases are also found where a line ends within
/// them.
fn faults(path: &Path, text: &str) -> Vec<String> {
    let place = path.strip_prefix(root()).unwrap_or(path).display();
    let lines: Vec<&str> = text.lines().collect();
    let (mut all, mut of_line) = (Vec::new(), Vec::new());
    let mut faults = Vec::new();
    for (number, line) in lines.iter().enumerate() {
        let prose = prose(path, line);
        let words = words(&prose);
        of_line.extend(std::iter::repeat_n(number, words.len()));
        all.extend(words);
        if begins_with_relative_clause(&prose) {
            faults.push(format!("{place}:{}: begin with the subject: {line}", number + 1));
        }
    }
    for (phrase, instead) in PHRASES {
        let phrase: Vec<&str> = phrase.split(' ').collect();
        for (at, words) in all.windows(phrase.len()).enumerate() {
            // "There is none" is a plain sentence.
            let there = at > 0 && all[at - 1] == "there";
            let is_name = NAMES.iter().any(|name| path.ends_with(name.0) && phrase == [name.1]);
            if words == phrase && !there && !is_name {
                let (number, phrase) = (of_line[at], phrase.join(" "));
                let line = lines[number].trim();
                faults.push(format!("{place}:{}: {phrase:?}: {instead}: {line}", number + 1));
            }
        }
    }
    faults
}

#[test]
fn phrases_that_readers_had_to_decode_are_not_used() {
    let read = |path: &PathBuf| faults(path, &std::fs::read_to_string(path).unwrap());
    let all: Vec<String> = files().iter().flat_map(read).collect();
    assert!(all.is_empty(), "{} lines:\n{}", all.len(), all.join("\n"));
}

#[test]
fn a_phrase_is_found_in_prose_and_not_in_code() {
    let found = |line: &str| faults(Path::new("a.rs"), line).len();
    assert_eq!(found("/// Takes so many of them."), 1);
    assert_eq!(found("//! What is pooled is never stored."), 1);
    assert_eq!(found("    fail(\"the layer says nothing\");"), 1);
    assert_eq!(found("let so = many; // counts samples"), 0);
    assert_eq!(found("/// It takes so\n/// many of them."), 1);
    assert_eq!(found("/// Says what it is. None is left."), 0);
    assert_eq!(found("/// What is the size?"), 0);
    assert_eq!(found("/// Uses the default."), 0);
    assert_eq!(faults(Path::new("a.md"), "It may be slow.").len(), 1);
}

/// Lines of tables, which are read by column, can be longer than 100 columns: rows of test cases in
/// items with `#[rustfmt::skip]` or of layers, and tables and links of Markdown.
fn is_table(path: &Path, skipped: bool, line: &str) -> bool {
    let markdown = path.extension().is_some_and(|extension| extension == "md");
    skipped
        || line.trim_start().starts_with("LayerCase {")
        || markdown && (line.starts_with('|') || line.starts_with("    "))
        || line.contains("http")
        || line.starts_with("  csae ")
}

/// The lines of a text that are too long.
fn long_lines(path: &Path, text: &str) -> Vec<String> {
    let mut skipped = false;
    let mut long = Vec::new();
    for (number, line) in text.lines().enumerate() {
        skipped |= line.trim() == "#[rustfmt::skip]";
        if line.chars().count() > 100 && !is_table(path, skipped, line) {
            long.push(format!("{}:{}: {line}", path.display(), number + 1));
        }
        // An item ends with a closing bracket at the start of a line, or of a member.
        skipped &= !["}", "];", "    ];", "    }"].contains(&line);
    }
    long
}

#[test]
fn lines_have_at_most_100_columns() {
    let read = |path: &PathBuf| long_lines(path, &std::fs::read_to_string(path).unwrap());
    let all: Vec<String> = files().iter().flat_map(read).collect();
    assert!(all.is_empty(), "{} lines:\n{}", all.len(), all.join("\n"));
}

#[test]
fn a_long_line_is_found_outside_of_tables() {
    let long = format!("// {}", "x".repeat(100));
    let found = |path: &str, text: &str| long_lines(Path::new(path), text).len();
    assert_eq!(found("a.rs", &long), 1);
    assert_eq!(found("a.rs", &format!("#[rustfmt::skip]\nconst A: B = [\n{long}\n];\n{long}")), 1);
    assert_eq!(found("a.md", &format!("| {long} |")), 0);
    assert_eq!(found("a.md", &long), 1);
}
