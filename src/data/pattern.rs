//! Patterns of file names such as `scans/*.png`, for shells that do not expand them.

use std::path::{Component, Path, PathBuf};

use glob::MatchOptions;

use super::FileReport;
use super::find;
use crate::error::{Error, Result};
use crate::files::PARTIAL;

/// The files that a pattern stands for.
#[derive(Debug)]
pub struct Matches {
    /// The folder above the first part of the pattern with a wildcard.
    pub root: PathBuf,
    /// The files, relative to `root` and sorted: those that match, and the images below folders
    /// that match.
    pub files: Vec<PathBuf>,
    /// Files below these folders that are left out.
    pub report: FileReport,
}

/// Whether a source that does not exist is a pattern.
pub fn is_pattern(source: &str) -> bool {
    source.contains(['*', '?', '['])
}

/// The folder above the first part of a pattern with a wildcard.
pub fn root(pattern: &str) -> PathBuf {
    let literal = |part: &Component| !is_pattern(&part.as_os_str().to_string_lossy());
    Path::new(pattern).components().take_while(literal).collect()
}

/// The files that match a pattern. Hidden files do not match wildcards.
///
/// # Errors
/// If it is not a valid pattern, or nothing matches.
pub fn expand(pattern: &str) -> Result<Matches> {
    let options = MatchOptions { require_literal_leading_dot: true, ..MatchOptions::new() };
    let found = glob::glob_with(pattern, options)
        .map_err(|error| Error::usage(format!("{pattern}: not a valid pattern ({error})")))?;
    let root = root(pattern);
    let (mut files, mut report) = (Vec::new(), FileReport::default());
    for path in found {
        let path = match path {
            Ok(path) => path,
            Err(error) => {
                report.skip(error.path().display(), format!("cannot be read ({})", error.error()));
                continue;
            }
        };
        // Folders of runs, whose pictures are results.
        let below = path.ancestors().take_while(|folder| *folder != root);
        let run = below.filter(|folder| folder.is_dir() && find::is_run(folder)).last();
        if let Some(run) = run {
            let run = run.display().to_string();
            if !report.runs.contains(&run) {
                report.runs.push(run);
            }
        } else if !path.is_dir() {
            // The rest of a write that was killed is not an image.
            if path.extension().is_none_or(|extension| extension != PARTIAL) {
                files.push(path);
            }
        } else if let Ok(found) = find::find(&path) {
            files.extend(found.images.into_iter().map(|image| path.join(image)));
            report.extend(found.report);
        }
    }
    if files.is_empty() {
        let runs = match report.runs.first() {
            Some(run) => {
                format!(" but the pictures of runs such as {run}; name a folder of images")
            }
            None => String::new(),
        };
        return Err(Error::usage(format!("{pattern}: no file matches this pattern{runs}")));
    }
    for file in &mut files {
        if let Ok(inside) = file.strip_prefix(&root) {
            *file = inside.to_owned();
        }
    }
    files.sort();
    Ok(Matches { root, files, report })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Folder;

    #[test]
    fn files_and_images_in_folders_match() {
        let folder = Folder::new("pattern");
        for file in
            ["a1.png", "a2.png", "b.png", ".a3.png", "a/x.png", "a/notes.txt", "a4.png.partial"]
        {
            folder.write(file, b"");
        }
        let files = |pattern: &str| -> Vec<String> {
            let found = expand(&folder.path.join(pattern).to_string_lossy()).unwrap();
            assert_eq!(found.root, folder.path);
            found.files.iter().map(|file| file.display().to_string()).collect()
        };
        assert_eq!(files("a?.png"), ["a1.png", "a2.png"]);
        assert_eq!(files("[ab]*.png"), ["a1.png", "a2.png", "b.png"]);
        assert_eq!(files("a*"), ["a/x.png", "a1.png", "a2.png"]);
        assert_eq!(files("*/*.png"), ["a/x.png"]);
    }

    #[test]
    fn pictures_of_runs_do_not_match() {
        let folder = Folder::new("pattern-run");
        for file in ["a.png", "run/train.png", "run/config.toml", "run/inspect/b.png", "x/c.png"] {
            folder.write(file, b"");
        }
        let files = |pattern: &str| -> (usize, usize) {
            let found = expand(&folder.path.join(pattern).to_string_lossy()).unwrap();
            (found.files.len(), found.report.runs.len())
        };
        assert_eq!((files("**/*.png"), files("*")), ((4, 0), (4, 0)));
        folder.write("run/run.json", b"");
        assert_eq!((files("**/*.png"), files("*")), ((2, 1), (2, 1)));
        let message = expand(&folder.path.join("run/*.png").to_string_lossy());
        // The folder is named itself.
        assert_eq!(message.unwrap().files.len(), 1);
    }

    #[test]
    fn patterns_without_a_match_are_refused() {
        let message = expand("no/such/*.png").unwrap_err().to_string();
        assert!(message.contains("no file matches"), "{message}");
        let message = expand("a[.png").unwrap_err().to_string();
        assert!(message.contains("not a valid pattern"), "{message}");
    }
}
