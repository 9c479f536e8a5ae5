//! `.github/CONTRIBUTING.md` agrees with the code: the files that it names exist, and the table of
//! a walk lists exactly the files that an addition of its kind touches.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// A walk: its heading, the names of its example in the code, and the largest number of files that
/// it lists.
struct Walk {
    heading: &'static str,
    names: &'static [&'static str],
    largest: usize,
}

const WALKS: [Walk; 4] = [
    Walk {
        heading: "An operation with a layer",
        names: &["pixel_shuffle", "PixelShuffle"],
        largest: 7,
    },
    Walk { heading: "An optimiser", names: &["Lion", "shaders/lion"], largest: 4 },
    // Other commands write CSV files.
    Walk { heading: "A data format", names: &["csv::FORMAT", "formats/csv"], largest: 2 },
    // A command's name is an ordinary word.
    Walk { heading: "A command", names: &["PresetsArgs"], largest: 2 },
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text() -> String {
    std::fs::read_to_string(root().join(".github/CONTRIBUTING.md")).unwrap()
}

/// The texts in backticks in a line.
fn quoted(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// The table of a section: each file with the lines that the table quotes from it.
fn table(text: &str, heading: &str) -> BTreeMap<String, Vec<String>> {
    let section = text.lines().skip_while(|line| *line != format!("## {heading}")).skip(1);
    let rows = section
        .take_while(|line| !line.starts_with("## "))
        .filter(|line| line.starts_with("| `"))
        .map(|row| row.trim_matches('|').split_once('|').expect("two columns"));
    rows.map(|(file, lines)| {
        let file = quoted(file).next().expect("a file").to_owned();
        (file, quoted(lines).map(str::to_owned).collect())
    })
    .collect()
}

/// A file's path and its code outside of tests, without comments. A shader has only its path.
fn code(path: &str, source: &str) -> String {
    let end = source.find("#[cfg(test)]\nmod tests {").unwrap_or(source.len());
    let end = if path.ends_with(".wgsl") { 0 } else { end };
    let lines = source[..end].lines().map(|line| line.split("//").next().unwrap_or_default());
    std::iter::once(path).chain(lines).collect::<Vec<_>>().join("\n")
}

/// Whether a name, or a longer one that begins with it, is in a text.
fn mentions(text: &str, name: &str) -> bool {
    let inside = |letter: char| letter.is_alphanumeric() || letter == '_';
    text.match_indices(name).any(|(at, _)| !text[..at].ends_with(inside))
}

/// The files that mention one of the names.
fn mentioning(files: &BTreeMap<String, String>, names: &[&str]) -> BTreeSet<String> {
    let mention = |(path, source): &(&String, &String)| {
        let code = code(path, source);
        names.iter().any(|name| mentions(&code, name))
    };
    files.iter().filter(mention).map(|(path, _)| path.clone()).collect()
}

/// Every source file of the library, the program and the kernels, except files of tests and pages
/// of the guide, by its path in the repository.
fn sources() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root().join("src"), root().join("shaders")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.to_string_lossy().into_owned();
            if path.is_dir() {
                folders.push(path);
            } else if !name.ends_with("_tests.rs") && !name.ends_with(".md") {
                let inside = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
                found.insert(inside, std::fs::read_to_string(&path).unwrap());
            }
        }
    }
    found
}

/// The faults of a walk.
fn wrong(text: &str, files: &BTreeMap<String, String>, walk: &Walk) -> Vec<String> {
    let table = table(text, walk.heading);
    let listed: BTreeSet<String> = table.keys().cloned().collect();
    let touched = mentioning(files, walk.names);
    let mut wrong = Vec::new();
    if listed != touched {
        wrong.push(format!("lists {listed:?}, but {touched:?} mention the example"));
    }
    if listed.is_empty() || listed.len() > walk.largest {
        wrong.push(format!("{} files, {} at most", listed.len(), walk.largest));
    }
    for (file, lines) in &table {
        let source = files.get(file).map_or("", String::as_str);
        let missing = lines.iter().filter(|line| !source.contains(line.as_str()));
        wrong.extend(missing.map(|line| format!("{file} has no {line:?}")));
    }
    wrong
}

/// The paths that a text names: quoted words that look like one.
fn paths(text: &str) -> BTreeSet<&str> {
    let words = text.lines().flat_map(quoted).filter_map(|quote| quote.split_whitespace().next());
    let is_path = |word: &&str| {
        word.contains('/')
            && word.chars().all(|letter| letter.is_alphanumeric() || "/._-".contains(letter))
    };
    words.filter(is_path).collect()
}

#[test]
fn every_path_exists() {
    let text = text();
    let missing: Vec<&str> =
        paths(&text).into_iter().filter(|path| !root().join(path).exists()).collect();
    assert!(missing.is_empty(), "{missing:?}");
    assert!(paths(&text).len() > 15, "{:?}", paths(&text));
}

#[test]
fn a_walk_lists_exactly_the_files_that_an_addition_touches() {
    let (text, files) = (text(), sources());
    for walk in &WALKS {
        let wrong = wrong(&text, &files, walk);
        assert!(wrong.is_empty(), "{}: {}", walk.heading, wrong.join("\n"));
    }
}

/// The check fails for a missing or surplus file, for a quoted line that the file does not have,
/// and for a path that does not exist.
#[test]
fn a_wrong_walk_is_found() {
    let (text, files) = (text(), sources());
    let fails = |text: &str, files: &BTreeMap<String, String>, what: &str| {
        let found = wrong(text, files, &WALKS[0]).join("\n");
        assert!(found.contains(what), "{what}: {found}");
    };
    let row = "| `src/ops/mod.rs` | `mod pixel_shuffle;`";
    fails(&text.replace(row, "| elsewhere |"), &files, "mention the example");
    fails(&text.replace(row, "| `src/ops/mod.rs` | `mod shuffle;`"), &files, "has no");
    let with = |path: &str, source: &str| {
        let mut files = files.clone();
        files.insert(path.to_owned(), source.to_owned());
        files
    };
    fails(&text, &with("src/a.rs", "fn f() { PixelShuffle::new() }"), "src/a.rs");
    fails(&text, &with("shaders/pixel_shuffle_more.wgsl", ""), "pixel_shuffle_more");
    let unseen = "// PixelShuffle\n#[cfg(test)]\nmod tests {\n    use super::PixelShuffle;\n}";
    assert!(wrong(&text, &with("src/a.rs", unseen), &WALKS[0]).is_empty());
    assert!(paths("`src/nowhere.rs` and `cargo fmt`").contains("src/nowhere.rs"));
    assert!(mentions("use a::PixelShuffleSpec;", "PixelShuffle"));
    assert!(!mentions("use a::NoPixelShuffle;", "PixelShuffle"));
}
