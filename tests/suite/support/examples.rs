//! The files that the examples of guide and README name. All are small.

use std::io::Write;

use csae::internals::data::bundled;
use flate2::Compression;
use flate2::write::GzEncoder;
use image::{DynamicImage, GrayImage, Luma, imageops};

use super::TempFolder;
use super::arrays::idx;
use super::images::{CAT, voc_annotation};

/// Side of the images in pixels.
const SIDE: u32 = 64;
/// Files of colour images.
const COLOUR: [&str; 9] = [
    "noisy.png",
    "photo.jpg",
    "scratched.png",
    "painted.png",
    "small.png",
    "bark.png",
    "brick.png",
    "wave.jpg",
    "night.jpg",
];
/// Masks: white above, black below.
const MASKS: [&str; 3] = ["sky.png", "ground.png", "scratches.png"];
/// Folders of colour images: name, number, ending.
const FOLDERS: [(&str, u32, &str); 16] = [
    ("my-photos", 6, "png"),
    ("my-other-photos", 3, "png"),
    ("photos", 6, "jpg"),
    ("scans", 2, "png"),
    ("originals", 2, "png"),
    ("noisy", 2, "png"),
    ("normal", 8, "png"),
    ("new", 2, "png"),
    ("images", 4, "png"),
    ("VOC/JPEGImages", 6, "jpg"),
    ("test/good", 3, "png"),
    ("test/crack", 3, "png"),
    ("leaves/train/oak", 8, "png"),
    ("leaves/train/birch", 8, "png"),
    ("leaves/test/oak", 2, "png"),
    ("leaves/test/birch", 2, "png"),
];
/// Lists of a detection set.
const LISTS: [(&str, &str); 3] = [("train", "0\n1\n2\n"), ("val", "3\n"), ("test", "4\n5\n")];
/// Number of images of the published test set BSD68.
const BSD68: u32 = 68;

/// A part of a photograph, another one for every `i`.
fn part(cat: &DynamicImage, i: u32, side: u32) -> DynamicImage {
    let place = |i: u32, size: u32| i % (size - side);
    cat.crop_imm(place(37 * i, cat.width()), place(53 * i, cat.height()), side, side)
}

/// A picture with a rectangle of one value.
fn rectangle(left: u32, right: u32, top: u32, bottom: u32, value: u8) -> GrayImage {
    GrayImage::from_fn(SIDE, SIDE, |x, y| {
        Luma([if (left..right).contains(&x) && (top..bottom).contains(&y) { value } else { 0 }])
    })
}

/// Writes all files into a folder.
pub fn write(folder: &TempFolder) {
    let cat = image::open(CAT).unwrap();
    for (i, name) in (0..).zip(COLOUR) {
        part(&cat, i, SIDE).to_rgb8().save(folder.path(name)).unwrap();
    }
    for name in MASKS {
        rectangle(0, SIDE, 0, 20, 255).save(folder.path(name)).unwrap();
    }
    for (name, count, ending) in FOLDERS {
        folder.create(name);
        for i in 0..count {
            let path = folder.path(&format!("{name}/{i}.{ending}"));
            part(&cat, i, SIDE).to_rgb8().save(path).unwrap();
        }
    }
    folder.create("BSD68");
    for i in 0..BSD68 {
        part(&cat, i, 24).to_luma8().save(folder.path(&format!("BSD68/{i}.png"))).unwrap();
    }
    folder.write("list.txt", "photos/0.jpg\nphotos/1.jpg\n");
    labelled_pixels(folder, &cat);
    objects(folder);
    digits(folder);
    let colours: Vec<u8> = (0..40 * 3073_usize)
        .map(|i| if i % 3073 == 0 { i / 3073 % 10 } else { i % 251 } as u8)
        .collect();
    folder.write("cifar-10-batches-bin/data_batch_1.bin", colours);
}

/// Images with label images and a list of two of them, and masks of defects.
fn labelled_pixels(folder: &TempFolder, cat: &DynamicImage) {
    for name in ["cells/images", "cells/labels", "test/masks/crack"] {
        folder.create(name);
    }
    for i in 0..6 {
        let path = |part: &str| folder.path(&format!("cells/{part}/{i}.png"));
        part(cat, i, SIDE).to_luma8().save(path("images")).unwrap();
        rectangle(10, 40 + i, 10, 30, 1 + i as u8 % 2).save(path("labels")).unwrap();
    }
    for i in 0..3 {
        let path = folder.path(&format!("test/masks/crack/{i}.png"));
        rectangle(10, 30, 10, 30, 255).save(path).unwrap();
    }
    folder.write("test.txt", "cells/images/0.png\ncells/images/1.png\n");
}

/// Annotations of boxes in Pascal VOC's layout.
fn objects(folder: &TempFolder) {
    for i in 0..6 {
        let text = voc_annotation(&[("eye", [10, 10, 40, 40])]);
        folder.write(&format!("VOC/Annotations/{i}.xml"), text);
    }
    for (name, list) in LISTS {
        folder.write(&format!("VOC/ImageSets/Main/{name}.txt"), list);
    }
}

/// Bundled digits, enlarged to the size of MNIST's, under the names of MNIST's files.
fn digits(folder: &TempFolder) {
    let digits = bundled::load("digits").unwrap();
    let labels = digits.labels.as_ref().unwrap();
    let enlarged = |i: usize| {
        let small = GrayImage::from_raw(8, 8, digits.bytes[64 * i..][..64].to_vec()).unwrap();
        let mut large = GrayImage::new(28, 28);
        let digit = imageops::resize(&small, 24, 24, imageops::FilterType::Nearest);
        imageops::replace(&mut large, &digit, 2, 2);
        large
    };
    let write = |name: &str, dims: &[u32], values: Vec<u8>| {
        let mut file = GzEncoder::new(Vec::new(), Compression::fast());
        file.write_all(&[idx(dims, 0), values].concat()).unwrap();
        folder.write(&format!("{name}-ubyte.gz"), file.finish().unwrap());
    };
    for (name, range) in [("train", 0..200), ("t10k", 200..240)] {
        let count = range.len() as u32;
        let pixels = range.clone().flat_map(|i| enlarged(i).into_raw()).collect();
        write(&format!("{name}-images-idx3"), &[count, 28, 28], pixels);
        let classes = range.map(|i| labels.of[i] as u8).collect();
        write(&format!("{name}-labels-idx1"), &[count], classes);
    }
    enlarged(0).save(folder.path("digit.png")).unwrap();
    enlarged(9).save(folder.path("boot.png")).unwrap();
}
