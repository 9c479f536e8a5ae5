//! Masks of missing pixels as programs write them: white, coloured, 0 and 1, 16 bits, transparent,
//! inverted.

use image::{DynamicImage, GrayImage, ImageBuffer, Luma, LumaA, Rgb, RgbImage};

use crate::support::json::number;
use crate::support::{Command, TempFolder};

const SIDE: u32 = 40;

/// Whether a pixel is missing: a bar of one in ten columns.
fn is_missing(x: u32) -> bool {
    (12..16).contains(&x)
}

/// Inpaints an image with this mask.
fn inpaint(folder: &TempFolder, mask: impl Into<DynamicImage>) -> Command {
    let (image, file) = (folder.path("image.png"), folder.path("mask.png"));
    GrayImage::from_fn(SIDE, SIDE, |x, y| Luma([(60 + 3 * x + y) as u8])).save(&image).unwrap();
    mask.into().save(&file).unwrap();
    let out = folder.path("out");
    Command::new("inpaint").arg(image).option("--mask", file).out(out).force().on_cpu().quiet()
}

/// A gray mask with one value at missing pixels and 0 elsewhere.
fn gray(value: u8) -> GrayImage {
    GrayImage::from_fn(SIDE, SIDE, |x, _| Luma([if is_missing(x) { value } else { 0 }]))
}

/// A mask of 16 bits.
fn deep(value: u16) -> DynamicImage {
    let of = |x: u32, _: u32| Luma([if is_missing(x) { value } else { 0 }]);
    DynamicImage::ImageLuma16(ImageBuffer::from_fn(SIDE, SIDE, of))
}

/// A coloured mask.
fn colour(rgb: [u8; 3]) -> RgbImage {
    RgbImage::from_fn(SIDE, SIDE, |x, _| Rgb(if is_missing(x) { rgb } else { [0; 3] }))
}

#[test]
fn masks_of_one_value_mark_the_same_pixels() {
    let folder = TempFolder::new("masks-values");
    let masks: [(&str, DynamicImage); 9] = [
        ("white", gray(255).into()),
        ("gray", gray(128).into()),
        ("1 of 255", gray(1).into()),
        ("16 bits", deep(65535)),
        ("1 of 65535", deep(1)),
        ("255 of 65535", deep(255)),
        ("red", colour([255, 0, 0]).into()),
        // The first class in the palette of PASCAL VOC.
        ("dark red", colour([128, 0, 0]).into()),
        ("1 in three channels", colour([1; 3]).into()),
    ];
    for (name, mask) in masks {
        let report = inpaint(&folder, mask).report();
        assert_eq!(number(&report, "missing"), 0.1, "{name}");
    }
}

#[test]
fn masks_that_could_mark_other_pixels_are_refused() {
    let folder = TempFolder::new("masks-refused");
    // Numbers of classes.
    let classes = GrayImage::from_fn(SIDE, SIDE, |x, _| Luma([(x / 10) as u8]));
    inpaint(&folder, classes).fails(2, &["mask.png", "1.2 % of white", "white"]);
    // Strokes of black on a transparent ground.
    let strokes = |x: u32, _: u32| LumaA([0, if is_missing(x) { 255 } else { 0_u8 }]);
    let strokes = DynamicImage::ImageLumaA8(ImageBuffer::from_fn(SIDE, SIDE, strokes));
    inpaint(&folder, strokes).fails(2, &["transparency marks nothing", "white and opaque"]);
    inpaint(&folder, GrayImage::from_pixel(SIDE, SIDE, Luma([255])))
        .fails(2, &["every pixel is missing", "invert it"]);
}

#[test]
fn white_strokes_on_a_transparent_ground_mark_pixels() {
    let folder = TempFolder::new("masks-alpha");
    let strokes = |x: u32, _: u32| LumaA([255, if is_missing(x) { 255 } else { 0_u8 }]);
    let strokes = DynamicImage::ImageLumaA8(ImageBuffer::from_fn(SIDE, SIDE, strokes));
    assert_eq!(number(&inpaint(&folder, strokes).report(), "missing"), 0.1);
}

#[test]
fn masks_that_are_probably_inverted_are_said() {
    let folder = TempFolder::new("masks-inverted");
    let inverted = |x: u32, _: u32| Luma([if is_missing(x) { 0 } else { 255_u8 }]);
    let inverted = GrayImage::from_fn(SIDE, SIDE, inverted);
    let output = inpaint(&folder, inverted.clone());
    assert_eq!(output.messages(), "", "-q prints no notes");
    let (image, mask) = (folder.path("image.png"), folder.path("mask.png"));
    let loud = Command::new("inpaint").arg(image).option("--mask", mask).force().on_cpu();
    loud.out(folder.path("out")).warns(&["90 % of the pixels are missing", "invert it"]);
}
