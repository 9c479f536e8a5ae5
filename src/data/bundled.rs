//! The image sets that are compiled into the program. `assets/LICENSES.md` has their sources and
//! licences.

use super::images::Images;
use crate::data::formats::decode::decode;
use crate::data::formats::idx;
use crate::raster::crop;
use crate::shape::{Dims, Size};

/// The name and the bytes of an image file.
type File = (&'static str, &'static [u8]);

macro_rules! files {
    ($folder:literal: $($name:literal)*) => {
        &[$(($name, include_bytes!(concat!("../../assets/images/", $folder, "/", $name)))),*]
    };
}

/// Photographs for training. Their right fifth is held out.
const PHOTOS: &[File] = files!("photos": "astronaut.webp" "camera.png" "coffee.webp" "text.png");

/// A photograph that is held out entirely.
const PHOTOS_HELD_OUT: &[File] = files!("photos": "chelsea.webp");

const TEXTURES: &[File] = files!("textures": "brick.png" "grass.png" "gravel.png");

const DIGITS: &[u8] = include_bytes!("../../assets/digits/digits-images-idx3-ubyte.gz");
const DIGIT_LABELS: &[u8] = include_bytes!("../../assets/digits/digits-labels-idx1-ubyte.gz");

/// The names of the bundled sets.
pub fn names() -> &'static [&'static str] {
    &["photos", "textures", "digits"]
}

/// A bundled set for training: `photos` (RGB, without the held-out parts), `textures` (gray) or
/// `digits` (gray, 8×8, with labels). Returns `None` for any other name.
pub fn load(name: &str) -> Option<Images> {
    match name {
        "photos" => Some(pictures(PHOTOS, |w| 0..w * 4 / 5)),
        "textures" => Some(pictures(TEXTURES, |w| 0..w)),
        "digits" => Some(digits()),
        _ => None,
    }
}

/// The held-out images of a bundled set. Only `photos` has some: one of the photographs, and the
/// right fifth of the others. The other sets are split like any data, and `None` is returned.
pub fn validation_of(name: &str) -> Option<Images> {
    if name != "photos" {
        return None;
    }
    let mut held_out = pictures(PHOTOS_HELD_OUT, |w| 0..w);
    let strips = pictures(PHOTOS, |w| w * 4 / 5..w);
    for (i, name) in strips.names.iter().enumerate() {
        held_out
            .push(name.clone(), strips.table[i].size, strips.image(i))
            .expect("bundled sets are small");
    }
    Some(held_out)
}

/// Decodes image files. All images get the largest number of channels among them. `columns` maps
/// the width of an image to the range of columns that are kept.
fn pictures(files: &[File], columns: impl Fn(usize) -> std::ops::Range<usize>) -> Images {
    let decoded: Vec<_> = files
        .iter()
        .map(|(name, bytes)| (name, decode(bytes).expect("a bundled picture decodes")))
        .collect();
    let mut images = Images::new(decoded.iter().map(|(_, d)| d.dims.c).max().unwrap_or(1));
    for (name, picture) in decoded {
        let Size { h, w } = picture.dims.size();
        let pixels = picture.into_channels(images.channels);
        let (kept, c) = (columns(w), images.channels);
        let size = Size::new(h, kept.len());
        let pixels = crop(&pixels, Dims::new(c, h, w), (0, kept.start), size);
        images.push((*name).to_owned(), size, &pixels).expect("bundled sets are small");
    }
    images
}

fn digits() -> Images {
    let mut images = idx::images_from(DIGITS).expect("the bundled digits are an IDX file");
    images.labels =
        Some(idx::labels_from(DIGIT_LABELS).expect("the bundled labels are an IDX file"));
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
        assert_eq!(load("textures").unwrap().channels, 1);
    }

    #[test]
    fn a_fifth_of_each_photo_is_held_out() {
        let photos = load("photos").unwrap();
        let held_out = validation_of("photos").unwrap();
        assert_eq!((photos.channels, held_out.channels), (3, 3));
        assert!(!photos.names.contains(&held_out.names[0]));
        for (i, name) in photos.names.iter().enumerate() {
            let strip = held_out.names.iter().position(|other| other == name).unwrap();
            let (left, right) = (photos.table[i].size, held_out.table[strip].size);
            assert!(left.h == right.h && right.w >= 32 && left.w > 3 * right.w, "{name}");
        }
    }

    #[test]
    fn digits_have_labels() {
        let digits = load("digits").unwrap();
        assert_eq!(
            (digits.len(), digits.common_size(), digits.channels),
            (1797, Some(Size::new(8, 8)), 1)
        );
        let labels = digits.labels.unwrap();
        assert_eq!((labels.of.len(), labels.classes.len()), (1797, 10));
        assert_eq!(labels.of[..4], [0, 1, 2, 3]);
    }

    #[test]
    fn every_image_file_is_in_a_set_and_has_a_licence() {
        let assets = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("assets");
        let licences = std::fs::read_to_string(assets.join("LICENSES.md")).unwrap();
        for (folder, files) in
            [("photos", [PHOTOS, PHOTOS_HELD_OUT].concat()), ("textures", TEXTURES.to_vec())]
        {
            let mut listed: Vec<String> = files.iter().map(|f| f.0.to_owned()).collect();
            let there = std::fs::read_dir(assets.join("images").join(folder)).unwrap();
            let mut there: Vec<String> =
                there.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
            listed.sort();
            there.sort();
            assert_eq!(listed, there, "{folder}");
            assert!(listed.iter().all(|name| licences.contains(name.as_str())));
        }
    }
}
