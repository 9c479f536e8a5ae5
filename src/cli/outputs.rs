//! What `-o` names: a folder for results, or the file of a single result.

use std::path::{Path, PathBuf};

use crate::bail_usage;
use crate::data::formats::content::{self, Content, EXTENSIONS};
use crate::data::numbers;
use crate::error::Result;

/// The extension of a path in lower case if the path names a file and not a folder: the extension
/// is that of images, arrays, recordings, documents or archives, and there is no such folder.
fn file_ending(out: &Path) -> Option<String> {
    let ending = content::extension(out);
    let names_file = EXTENSIONS.contains(&ending.as_str())
        || Content::kind_named(out).is_some()
        || Content::is_other_by_name(out)
        || numbers::has_known_extension(out);
    (names_file && !out.is_dir()).then_some(ending)
}

/// Whether `-o` names a file, and not a folder.
pub fn names_file(out: &Path) -> bool {
    file_ending(out).is_some()
}

/// The file that `-o` names for the only one of `count` results. `None` if it names a folder.
/// `formats` are the extensions that the command writes.
///
/// # Errors
/// If it names a file and there are several results, or the command does not write this format.
pub fn single_file(out: &Path, count: usize, formats: &[&str]) -> Result<Option<PathBuf>> {
    let Some(ending) = file_ending(out) else { return Ok(None) };
    let place = out.display();
    if count != 1 {
        bail_usage!("-o {place}: names one file, but there are {count} results; name a folder");
    }
    if !formats.contains(&ending.as_str()) {
        let known = formats.iter().map(|format| format!(".{format}")).collect::<Vec<_>>();
        bail_usage!(
            "-o {place}: this command does not write .{ending}; use a name that ends in {}",
            known.join(" or ")
        );
    }
    Ok(Some(out.to_owned()))
}

/// Checks that `-o` names a folder, for a command that always writes several files.
///
/// # Errors
/// If it names a file.
pub fn check_folder(out: &Path) -> Result<()> {
    if file_ending(out).is_some() {
        bail_usage!(
            "-o {}: names a file, but this command writes several files; name a folder",
            out.display()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_name_is_the_file_of_a_single_result() {
        let file = |out: &str, count| {
            single_file(Path::new(out), count, &["png", "jpg"]).map_err(|error| error.to_string())
        };
        assert_eq!(file("a/out.png", 1), Ok(Some("a/out.png".into())));
        assert_eq!(file("out.JPG", 1), Ok(Some("out.JPG".into())));
        assert_eq!(file("out", 1), Ok(None));
        assert_eq!(file("v1.5", 3), Ok(None));
        assert!(file("out.png", 2).unwrap_err().contains("2 results; name a folder"));
        for name in ["out.tif", "out.wav", "out.NPY", "out.h5", "out.csv", "out.avif", "out.tar"] {
            assert!(file(name, 1).unwrap_err().contains("ends in .png or .jpg"), "{name}");
        }
    }

    #[test]
    fn a_folder_may_have_any_name_if_it_exists() {
        let folder = std::env::temp_dir().join(format!("csae-{}.png", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        assert!(single_file(&folder, 2, &["png"]).unwrap().is_none());
        check_folder(&folder).unwrap();
        std::fs::remove_dir(&folder).unwrap();
        assert!(check_folder(&folder).unwrap_err().to_string().contains("name a folder"));
        check_folder(Path::new("runs/001")).unwrap();
    }
}
