//! Names that distinguish images of several sources.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use crate::data::pattern;

/// The path of an image.
#[derive(Debug)]
pub struct ImagePath {
    /// The names of its folders and of its file.
    parts: Vec<String>,
    /// The number of the last parts that are its name without its source.
    own: usize,
    /// The image's file, if it has a file of its own.
    pub file: PathBuf,
}

impl ImagePath {
    /// The path of the image `name` of a source.
    pub fn new(source: &str, name: &str) -> Self {
        let (path, name) = (Path::new(source), Path::new(name));
        let is_list = source == "-" || source.starts_with('@');
        let is_source = path.file_name() == name.file_name() && path.is_file();
        let own = if path.is_dir() { parts(name).len() } else { 1 };
        let is_pattern = !is_list && pattern::is_pattern(source) && !path.exists();
        let file = if is_source {
            path.to_owned()
        } else if is_list {
            let list = source.strip_prefix('@').and_then(|list| Path::new(list).parent());
            list.unwrap_or(Path::new("")).join(name)
        } else if is_pattern {
            pattern::root(source).join(name)
        } else {
            path.join(name)
        };
        let parts = if is_list { parts(name) } else { parts(&file) };
        Self { own: own.min(parts.len()), parts, file }
    }

    /// Whether the image's name has parts of its source.
    pub const fn is_extended(&self, name: &Name) -> bool {
        name.parts > self.own
    }
}

/// The names of the folders and the file of a path.
fn parts(path: &Path) -> Vec<String> {
    path.components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
            _ => None,
        })
        .collect()
}

/// The name of an image among others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// The last parts of its path, with slashes between them.
    pub text: String,
    /// The number of parts.
    pub parts: usize,
}

/// Names that distinguish images: without their sources, or with more of the last parts of their
/// paths as long as others have the same name. Images with the same path have the same name.
pub fn distinct_names(paths: &[&ImagePath]) -> Vec<Name> {
    let mut lengths: Vec<usize> = paths.iter().map(|path| path.own).collect();
    let text = |i: usize, length: usize| {
        let parts = &paths[i].parts;
        parts[parts.len() - length..].join("/")
    };
    loop {
        let mut same: HashMap<String, Vec<usize>> = HashMap::new();
        for (i, length) in lengths.iter().enumerate() {
            same.entry(text(i, *length)).or_default().push(i);
        }
        let mut extended = false;
        for same in same.values() {
            if same.iter().all(|i| paths[*i].parts == paths[same[0]].parts) {
                continue;
            }
            for &i in same {
                if lengths[i] < paths[i].parts.len() {
                    lengths[i] += 1;
                    extended = true;
                }
            }
        }
        if !extended {
            break;
        }
    }
    let name = |(i, parts): (usize, &usize)| Name { text: text(i, *parts), parts: *parts };
    lengths.iter().enumerate().map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(images: &[(&str, &str)]) -> Vec<String> {
        let paths: Vec<ImagePath> =
            images.iter().map(|(source, name)| ImagePath::new(source, name)).collect();
        let names = distinct_names(&paths.iter().collect::<Vec<_>>());
        names.into_iter().map(|name| name.text).collect()
    }

    #[test]
    fn names_have_the_folders_that_distinguish_them() {
        let list = |name: &'static str| ("@list.txt", name);
        assert_eq!(names(&[list("a/1/x.png"), list("b/1/x.png")]), ["a/1/x.png", "b/1/x.png"]);
        assert_eq!(names(&[list("a/x.png"), list("b/y.png")]), ["x.png", "y.png"]);
        assert_eq!(names(&[list("x.png"), list("b/x.png")]), ["x.png", "b/x.png"]);
        assert_eq!(names(&[list("a/x.png"), list("a/x.png")]), ["x.png", "x.png"]);
        assert_eq!(names(&[("a.npy", "0"), ("b.npy", "0")]), ["a.npy/0", "b.npy/0"]);
    }
}
