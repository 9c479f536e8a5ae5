//! Which annotation belongs to which image: by the path, otherwise by the file name.

use std::collections::HashMap;
use std::path::Path;

/// The annotation of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    /// The image has no annotation.
    None,
    /// Its index.
    Found(usize),
    /// This annotation is for the image or for another one, or the image has several.
    Ambiguous(usize),
}

/// The parts of a path. Both kinds of slashes separate them.
pub fn parts(path: &str) -> Vec<&str> {
    path.split(['/', '\\']).filter(|part| !["", ".", ".."].contains(part)).collect()
}

/// Finds the annotation of each image. `images` are paths below `folder`, and `annotated` are the
/// paths that the annotations give for their images. No two of these have the same parts.
///
/// An annotation belongs to an image if one of the paths ends with the other, even if it has to
/// include the parts of `folder`. Equal paths have priority, then those with more common parts. An
/// annotation or an image without such a path is matched by the file name, if this is unique.
pub fn match_paths(folder: &Path, images: &[String], annotated: &[String]) -> Vec<Match> {
    let folder = folder.to_string_lossy();
    let folder = parts(&folder);
    let annotated: Vec<Vec<&str>> = annotated.iter().map(|path| parts(path)).collect();
    let mut by_name: HashMap<&str, Vec<usize>> = HashMap::new();
    for (i, path) in annotated.iter().enumerate() {
        by_name.entry(path.last().copied().unwrap_or_default()).or_default().push(i);
    }
    let images: Vec<Vec<&str>> = images.iter().map(|path| parts(path)).collect();
    let same_name = |image: &[&str]| {
        by_name.get(image.last().copied().unwrap_or_default()).map_or(&[][..], Vec::as_slice)
    };
    // The priority of an annotation for an image.
    let rank = |image: &[&str], path: &[&str]| -> Option<usize> {
        let whole = image.iter().rev().chain(folder.iter().rev());
        let common = whole.zip(path.iter().rev()).take_while(|(a, b)| a == b).count();
        if image == path {
            Some(usize::MAX)
        } else {
            (common == path.len() || common >= image.len()).then_some(common)
        }
    };
    // The best annotations of each image, and the images of each annotation.
    let mut matches = vec![Match::None; images.len()];
    let mut claims: Vec<Vec<(usize, usize)>> = vec![Vec::new(); annotated.len()];
    let mut unranked: Vec<usize> = Vec::new();
    for (i, image) in images.iter().enumerate() {
        let ranked =
            same_name(image).iter().filter_map(|&at| Some((rank(image, &annotated[at])?, at)));
        let ranked: Vec<(usize, usize)> = ranked.collect();
        let Some(&(best, at)) = ranked.iter().max_by_key(|(rank, _)| *rank) else {
            unranked.push(i);
            continue;
        };
        if ranked.iter().filter(|(rank, _)| *rank == best).count() > 1 {
            matches[i] = Match::Ambiguous(at);
        }
        claims[at].push((best, i));
    }
    for (at, claims) in claims.iter().enumerate() {
        let best = claims.iter().map(|(rank, _)| *rank).max();
        let owners: Vec<usize> =
            claims.iter().filter(|(rank, _)| Some(*rank) == best).map(|(_, i)| *i).collect();
        for &i in &owners {
            if matches[i] == Match::None {
                let is_only = owners.len() == 1;
                matches[i] = if is_only { Match::Found(at) } else { Match::Ambiguous(at) };
            }
        }
    }
    // File names of the images that are left.
    let mut count: HashMap<&str, usize> = HashMap::new();
    let name = |i: usize| images[i].last().copied().unwrap_or_default();
    unranked.iter().for_each(|&i| *count.entry(name(i)).or_default() += 1);
    for i in unranked {
        let free: Vec<usize> =
            same_name(&images[i]).iter().copied().filter(|at| claims[*at].is_empty()).collect();
        matches[i] = match free[..] {
            [] => Match::None,
            [at] if count[name(i)] == 1 => Match::Found(at),
            [at, ..] => Match::Ambiguous(at),
        };
    }
    matches
}

#[cfg(test)]
mod tests {
    use super::Match::{Ambiguous, Found, None};
    use super::*;

    fn matches(images: &[&str], annotated: &[&str]) -> Vec<Match> {
        let owned =
            |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect::<Vec<_>>();
        match_paths(Path::new("data/val"), &owned(images), &owned(annotated))
    }

    #[test]
    fn paths_match_if_one_ends_with_the_other() {
        for path in ["x.png", "a/x.png", "val/a/x.png", "C:\\all\\a\\x.png", "./a/x.png"] {
            assert_eq!(matches(&["a/x.png"], &[path]), [Found(0)], "{path}");
        }
        assert_eq!(matches(&["a/x.png"], &["a/y.png"]), [None]);
    }

    #[test]
    fn the_longest_common_path_is_used() {
        assert_eq!(matches(&["x.png"], &["train/x.png", "val/x.png"]), [Found(1)]);
        let images = ["a/x.png", "b/x.png", "x.png"];
        assert_eq!(matches(&images, &["x.png", "b/x.png"]), [None, Found(1), Found(0)]);
    }

    #[test]
    fn ambiguous_paths_are_found() {
        assert_eq!(matches(&["a/x.png", "b/x.png"], &["x.png"]), [Ambiguous(0); 2]);
        assert_eq!(matches(&["x.png"], &["c/x.png", "d/x.png"]).len(), 1);
        assert!(matches!(matches(&["x.png"], &["c/x.png", "d/x.png"])[0], Ambiguous(_)));
        assert_eq!(matches(&["a/x.png"], &["c/x.png", "d/x.png"]), [Ambiguous(0)]);
    }

    #[test]
    fn unique_file_names_are_enough() {
        assert_eq!(matches(&["a/x.png", "b/y.png"], &["c/x.png", "c/y.png"]), [Found(0), Found(1)]);
    }
}
