//! The sets compiled into the program; sources and licences stand in `assets/LICENSES.md`.

use super::folder::{self, decode};
use super::idx;
use super::images::Images;

/// A picture's name and its file.
type File = (&'static str, &'static [u8]);

macro_rules! files {
    ($folder:literal: $($name:literal)*) => {
        &[$(($name, include_bytes!(concat!("../../assets/images/", $folder, "/", $name)))),*]
    };
}

/// Photographs to train on. Their pair below was chosen so that both sides hold colour and that both held-out pictures are known at a glance.
const PHOTOS: &[File] = files!("photos": "astronaut.png" "camera.png" "text.png");

/// Photographs that are never trained on.
const PHOTOS_HELD_OUT: &[File] = files!("photos": "chelsea.png" "coffee.png");

const TEXTURES: &[File] = files!("textures": "brick.png" "grass.png" "gravel.png");

const DIGITS: &[u8] = include_bytes!("../../assets/digits/digits-images-idx3-ubyte.gz");
const DIGIT_LABELS: &[u8] = include_bytes!("../../assets/digits/digits-labels-idx1-ubyte.gz");

/// The names of the bundled sets.
pub fn names() -> &'static [&'static str] {
    &["photos", "textures", "digits"]
}

/// A bundled set for training: `photos` (RGB, without the held-out ones), `textures` (gray) or `digits` (gray, 8×8, with labels).
pub fn load(name: &str) -> Option<Images> {
    match name {
        "photos" => Some(pictures(PHOTOS)),
        "textures" => Some(pictures(TEXTURES)),
        "digits" => Some(digits()),
        _ => None,
    }
}

/// The images held out of a bundled set, for those that fix them: the photographs. The others are split like any data.
pub fn validation_of(name: &str) -> Option<Images> {
    (name == "photos").then(|| pictures(PHOTOS_HELD_OUT))
}

fn pictures(files: &[File]) -> Images {
    let decoded: Vec<_> = files.iter().map(|(name, bytes)| (name, decode(bytes).expect("a bundled picture decodes"))).collect();
    let mut images = Images::new(decoded.iter().map(|(_, d)| d.channels).max().unwrap_or(1));
    for (name, picture) in decoded {
        let pixels = folder::to_channels(&picture, images.channels);
        images.push((*name).to_owned(), picture.h, picture.w, &pixels).expect("bundled sets are small");
    }
    images
}

fn digits() -> Images {
    let mut images = idx::images_from(DIGITS).expect("the bundled digits are an IDX file");
    images.labels = Some(idx::labels_from(DIGIT_LABELS).expect("the bundled labels are an IDX file"));
    images
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_set_loads() {
        for name in names() {
            let images = load(name).unwrap();
            assert!(!images.is_empty() && images.names.len() == images.len(), "{name}");
        }
        assert!(load("nothing").is_none() && validation_of("digits").is_none());
        let photos = load("photos").unwrap();
        let held_out = validation_of("photos").unwrap();
        assert_eq!((photos.channels, held_out.channels), (3, 3));
        assert!(held_out.len() >= 2 && held_out.names.iter().all(|name| !photos.names.contains(name)));
        assert_eq!(load("textures").unwrap().channels, 1);
        let digits = load("digits").unwrap();
        assert_eq!((digits.len(), digits.common_size(), digits.channels), (1797, Some((8, 8)), 1));
        let labels = digits.labels.unwrap();
        assert_eq!((labels.of.len(), labels.classes.len()), (1797, 10));
        assert_eq!(labels.of[..4], [0, 1, 2, 3]);
    }

    #[test]
    fn every_bundled_picture_is_in_a_set_and_in_the_licences() {
        let assets = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("assets");
        let licences = std::fs::read_to_string(assets.join("LICENSES.md")).unwrap();
        for (folder, files) in [("photos", [PHOTOS, PHOTOS_HELD_OUT].concat()), ("textures", TEXTURES.to_vec())] {
            let mut listed: Vec<String> = files.iter().map(|f| f.0.to_owned()).collect();
            let there = std::fs::read_dir(assets.join("images").join(folder)).unwrap();
            let mut there: Vec<String> = there.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
            listed.sort();
            there.sort();
            assert_eq!(listed, there, "{folder}");
            assert!(listed.iter().all(|name| licences.contains(name.as_str())));
        }
    }
}
