//! Paths inside files: `file.h5:/images/x`, `arrays.npz:x`.

use std::path::Path;

/// Splits a source into the path of a file and the path inside it. A path that exists as a whole is
/// not split. Otherwise the first colon after an existing file separates the two.
pub fn split(source: &str) -> (&str, Option<&str>) {
    split_by(source, |path| path.exists(), |path| path.is_file(), cfg!(windows))
}

fn split_by(
    source: &str,
    exists: impl Fn(&Path) -> bool,
    is_file: impl Fn(&Path) -> bool,
    has_drives: bool,
) -> (&str, Option<&str>) {
    if exists(Path::new(source)) {
        return (source, None);
    }
    for (at, _) in source.match_indices(':') {
        // `C:\x`: the colon of a drive.
        let is_drive = has_drives && at == 1;
        if !is_drive && at > 0 && is_file(Path::new(&source[..at])) {
            return (&source[..at], Some(&source[at + 1..]));
        }
    }
    (source, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split_with<'a>(source: &'a str, files: &[&str], drives: bool) -> (&'a str, Option<&'a str>) {
        let known = |path: &Path| files.iter().any(|file| Path::new(file) == path);
        split_by(source, known, known, drives)
    }

    #[test]
    fn the_first_colon_after_a_file_separates() {
        assert_eq!(split_with("a.h5:/x/y", &["a.h5"], false), ("a.h5", Some("/x/y")));
        assert_eq!(split_with("a.h5:x:y", &["a.h5"], false), ("a.h5", Some("x:y")));
        assert_eq!(split_with("d/t:1.h5:x", &["d/t:1.h5"], false), ("d/t:1.h5", Some("x")));
        assert_eq!(split_with("a.h5:", &["a.h5"], false), ("a.h5", Some("")));
    }

    #[test]
    fn a_path_that_exists_as_a_whole_is_not_split() {
        assert_eq!(split_with("a.h5:x", &["a.h5", "a.h5:x"], false), ("a.h5:x", None));
        assert_eq!(split_with("none.h5:x", &[], false), ("none.h5:x", None));
    }

    #[test]
    fn drives_are_not_split() {
        let file = r"C:\data\a.h5";
        assert_eq!(split_with(r"C:\data\a.h5:/x", &[file, "C"], true), (file, Some("/x")));
        assert_eq!(split_with(r"C:\data\b.h5:/x", &["C"], true), (r"C:\data\b.h5:/x", None));
        assert_eq!(split_with("C:/x", &["C"], false), ("C", Some("/x")));
    }
}
