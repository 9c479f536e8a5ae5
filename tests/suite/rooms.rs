//! The rooms of the library: imports only point down the picture in `src/lib.rs`, no room holds too
//! much of the code, and only the command line names flags of the program.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The largest share of all lines that one room can have, in percent. The largest room once had 28
/// and had become the place for everything without a better one.
const LARGEST_SHARE: usize = 18;

/// The rooms from top to bottom, from the first `text` block of `src/lib.rs`.
fn picture(lib: &str) -> Vec<String> {
    lib.lines()
        .skip_while(|line| *line != "//! ```text")
        .skip(1)
        .take_while(|line| *line != "//! ```")
        .filter_map(|line| line.strip_prefix("//! ")?.split_whitespace().next())
        .map(str::to_owned)
        .collect()
}

/// Every source file of a folder, recursively.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The part of a source that is compiled outside of tests.
fn untested(source: &str) -> &str {
    source.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default()
}

/// The part of a source that is compiled outside of tests, without comments.
fn code(source: &str) -> String {
    untested(source)
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join("\n")
}

/// The rooms that a source names behind `crate::`: in imports, also grouped ones, and inline.
fn imports(code: &str) -> BTreeSet<String> {
    let name = |text: &str| -> String {
        text.trim_start()
            .chars()
            .take_while(|letter| letter.is_alphanumeric() || *letter == '_')
            .collect()
    };
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let (mut depth, mut start) = (0, true);
            for (i, letter) in group.char_indices() {
                match letter {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => start = true,
                    _ if start && letter.is_alphabetic() => {
                        found.insert(name(&group[i..]));
                        start = false;
                    }
                    _ => {}
                }
            }
        } else {
            found.insert(name(rest));
        }
    }
    found
}

/// Each import that does not point down: `file: room imports other`.
fn upward(order: &[String], files: &BTreeMap<PathBuf, (String, String)>) -> Vec<String> {
    let place = |room: &str| order.iter().position(|known| known == room);
    let mut wrong = Vec::new();
    for (file, (room, source)) in files {
        for other in imports(&code(source)) {
            let (Some(here), Some(there)) = (place(room), place(&other)) else { continue };
            if there < here {
                wrong.push(format!("{}: {room} imports {other}", file.display()));
            }
        }
    }
    wrong
}

fn library() -> (String, BTreeMap<PathBuf, (String, String)>) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = BTreeMap::new();
    for path in sources(&root) {
        let inside = path.strip_prefix(&root).unwrap().to_owned();
        let room = inside.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
        if !["lib", "main", "testing"].contains(&room) {
            let source = std::fs::read_to_string(&path).unwrap();
            files.insert(inside.clone(), (room.to_owned(), source));
        }
    }
    (std::fs::read_to_string(root.join("lib.rs")).unwrap(), files)
}

#[test]
fn imports_only_point_down() {
    let (lib, files) = library();
    let wrong = upward(&picture(&lib), &files);
    assert!(wrong.is_empty(), "upward imports:\n{}", wrong.join("\n"));
}

#[test]
fn the_picture_shows_every_room() {
    let (lib, files) = library();
    let shown: BTreeSet<String> = picture(&lib).into_iter().collect();
    let rooms: BTreeSet<String> = files.into_values().map(|(room, _)| room).collect();
    assert_eq!(shown, rooms);
}

#[test]
fn no_room_has_too_many_lines() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut lines: BTreeMap<String, usize> = BTreeMap::new();
    for path in sources(&root) {
        let room = path.strip_prefix(&root).unwrap().iter().next().unwrap().to_str().unwrap();
        let source = std::fs::read_to_string(&path).unwrap();
        *lines.entry(room.to_owned()).or_default() += source.lines().count();
    }
    let all: usize = lines.values().sum();
    let (room, largest) = lines.iter().max_by_key(|(_, count)| **count).unwrap();
    let share = largest * 100 / all;
    assert!(share <= LARGEST_SHARE, "{room} holds {share} % of all lines");
}

/// The check can fail: both spellings of an upward import are found. Comments and tests are not
/// imports.
#[test]
fn an_upward_import_is_found() {
    let order = ["top", "middle", "ground"].map(str::to_owned);
    let file = |room: &str, source: &str| {
        let entry = (room.to_owned(), source.to_owned());
        upward(&order, &BTreeMap::from([(PathBuf::from("a.rs"), entry)])).len()
    };
    assert_eq!(file("ground", "use crate::top::Thing;"), 1);
    assert_eq!(file("ground", "use crate::{middle::{A, B}, top};"), 2);
    assert_eq!(file("middle", "fn f() { crate::top::go() }"), 1);
    assert_eq!(file("top", "use crate::{middle::A, ground::B};"), 0);
    assert_eq!(file("ground", "// as crate::top does"), 0);
    assert_eq!(file("ground", "#[cfg(test)]\nmod tests {\n    use crate::top::A;\n}"), 0);
}

/// The string literals of a source, as they are written, each with the number of its first line.
fn literals(source: &str) -> Vec<(usize, &str)> {
    // The end of what starts at `from` and ends with `end`; a backslash hides what follows it.
    let until = |from: usize, end: &str, escapes: bool| {
        let mut at = from;
        while at < source.len() && !source[at..].starts_with(end) {
            let skipped = if escapes && source[at..].starts_with('\\') { 2 } else { 1 };
            at += source[at..].chars().take(skipped).map(char::len_utf8).sum::<usize>();
        }
        at
    };
    let (mut found, mut at, mut word) = (Vec::new(), 0, false);
    while let Some(letter) = source[at..].chars().next() {
        let rest = &source[at..];
        let hashes = rest[1..].chars().take_while(|letter| *letter == '#').count();
        let raw = letter == 'r' && !word && rest[1 + hashes..].starts_with('"');
        word = letter.is_alphanumeric() || letter == '_';
        if rest.starts_with("//") {
            at = until(at, "\n", false);
        } else if raw || letter == '"' {
            let start = if raw { at + hashes + 2 } else { at + 1 };
            let end = if raw { format!("\"{}", "#".repeat(hashes)) } else { "\"".to_owned() };
            let last = until(start, &end, !raw);
            found.push((source[..at].matches('\n').count() + 1, &source[start..last]));
            at = last + end.len();
        } else if rest.starts_with("'\\") {
            at = until(at + 1, "'", true) + 1;
        } else if letter == '\'' && rest.chars().nth(2) == Some('\'') {
            at = until(at + 1 + rest[1..].chars().next().unwrap().len_utf8(), "'", false) + 1;
        } else {
            at += letter.len_utf8();
        }
    }
    found
}

/// Whether a text names a flag, such as `--resize`. Two dashes that are an operator do not count.
fn names_flag(text: &str) -> bool {
    text.match_indices("--").any(|(at, dashes)| {
        let before = text[..at].chars().next_back();
        let after = text[at + dashes.len()..].chars().next();
        before.is_none_or(|letter| !letter.is_alphanumeric() && letter != '-')
            && after.is_some_and(|letter| letter.is_ascii_lowercase())
    })
}

/// The literals of a source that name a flag, outside of tests.
fn flags(source: &str) -> Vec<(usize, &str)> {
    literals(untested(source)).into_iter().filter(|(_, text)| names_flag(text)).collect()
}

/// A user of the library cannot set a flag: only the command line names them. See `src/advice.rs`.
#[test]
fn no_text_of_the_library_names_a_flag() {
    let (lib, files) = library();
    let mut found: Vec<String> =
        flags(&lib).into_iter().map(|(line, text)| format!("lib.rs:{line}: {text}")).collect();
    for (file, (room, source)) in &files {
        if room == "cli" || file.to_string_lossy().ends_with("_tests.rs") {
            continue;
        }
        let named = flags(source).into_iter();
        found.extend(named.map(|(line, text)| format!("{}:{line}: {text}", file.display())));
    }
    assert!(found.is_empty(), "texts with flags:\n{}", found.join("\n"));
}

/// The check can fail: literals of every form are found, with their lines. Comments, tests and
/// operators are not texts with flags.
#[test]
fn a_text_with_a_flag_is_found() {
    let lines =
        |source: &str| -> Vec<usize> { flags(source).into_iter().map(|(line, _)| line).collect() };
    let none: [usize; 0] = [];
    assert_eq!(lines("fn f() {\n    g(\"--set a: no key\");\n}"), [2]);
    assert_eq!(lines("\"too large; \\\n    raise --max-memory\""), [1]);
    assert_eq!(lines("('\"', '\\'', \"a \\\" (--grid)\")"), [1]);
    assert_eq!(lines("let x: &'static str =\n\nr#\"say \"--out\"\"#;"), [3]);
    assert_eq!(lines("// --set\n/// \"--set\"\n\"a\" // --set"), none);
    assert_eq!(lines("\"for (; i--;) { a - -b } | --- | a--b\""), none);
    assert_eq!(lines("#[cfg(test)]\nmod tests {\n    \"--set\"\n}"), none);
}
