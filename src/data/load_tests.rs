//! Tests of loading folders and files, valid and invalid.

use image::{DynamicImage, GrayImage, ImageFormat, RgbImage, RgbaImage};

use super::{LoadOptions, LoadedImages, load};
use crate::advice::Advice;
use crate::data::formats::decode::decode;
use crate::shape::{Dims, Size};
use crate::testing::{Folder, encoded};

fn gray(h: u32, w: u32, value: u8) -> DynamicImage {
    GrayImage::from_fn(w, h, |x, y| image::Luma([value.wrapping_add((x + 3 * y) as u8)])).into()
}

fn colour(h: u32, w: u32, value: u8) -> DynamicImage {
    RgbImage::from_fn(w, h, |x, y| image::Rgb([value, x as u8, y as u8])).into()
}

fn png(image: &DynamicImage) -> Vec<u8> {
    encoded(image, ImageFormat::Png)
}

fn read(folder: &Folder, want: &LoadOptions) -> Result<LoadedImages, String> {
    load(folder.path.to_str().unwrap(), want).map_err(|e| e.to_string())
}

#[test]
fn a_folder_is_read_in_the_order_of_paths() {
    let folder = Folder::new("order");
    folder.write("b/z.png", &png(&gray(4, 6, 1)));
    folder.write("b.png", &png(&gray(5, 5, 2)));
    folder.write("a/deep/x.BMP", &encoded(&gray(3, 2, 3), ImageFormat::Bmp));
    folder.write("a/note.txt", b"not an image");
    folder.write(".hidden/y.png", b"never looked at");
    let loaded = read(&folder, &LoadOptions::default()).unwrap();
    assert_eq!(loaded.images.names, ["a/deep/x.BMP", "b/z.png", "b.png"]);
    assert_eq!(loaded.images.channels, 1);
    assert_eq!(loaded.images.image(1), gray(4, 6, 1).as_bytes());
    assert!(loaded.images.labels.is_none() && loaded.report.skipped.is_empty());
    assert!(loaded.description.ends_with("3 images of 2x3 to 6x5, gray"), "{}", loaded.description);
}

#[cfg(unix)]
#[test]
fn a_named_pipe_is_skipped_without_waiting() {
    let folder = Folder::new("pipe");
    folder.write("a.png", &png(&gray(4, 6, 1)));
    let made = std::process::Command::new("mkfifo").arg(folder.path.join("b.png")).status();
    if !made.is_ok_and(|status| status.success()) {
        eprintln!("skipped a_named_pipe_is_skipped_without_waiting: there is no `mkfifo` here");
        return;
    }
    let loaded = read(&folder, &LoadOptions::default()).unwrap();
    assert_eq!((loaded.images.len(), loaded.report.skipped.len()), (1, 1));
    assert!(
        loaded.report.skipped[0].1.contains("not a regular file"),
        "{:?}",
        loaded.report.skipped
    );
}

#[test]
fn one_colour_image_makes_the_set_rgb() {
    let folder = Folder::new("channels");
    for i in 0..200 {
        folder.write(format!("{i:03}.png"), &png(&gray(2, 3, i as u8)));
    }
    folder.write("zz.png", &png(&colour(2, 2, 9)));
    let images = read(&folder, &LoadOptions::default()).unwrap().images;
    assert_eq!((images.channels, images.len()), (3, 201));
    assert_eq!(images.image(150)[..6], [150, 150, 150, 151, 151, 151]);
    assert_eq!(images.image(200), colour(2, 2, 9).as_bytes());
}

#[test]
fn images_are_converted_to_the_given_channels() {
    let folder = Folder::new("given-channels");
    folder.write("a.png", &png(&gray(2, 3, 7)));
    folder.write("b.png", &png(&colour(2, 2, 9)));
    let images =
        read(&folder, &LoadOptions { channels: Some(1), strict: false, ..LoadOptions::default() })
            .unwrap()
            .images;
    assert_eq!((images.channels, images.image(0).len(), images.image(1).len()), (1, 6, 4));
    let message =
        read(&folder, &LoadOptions { channels: Some(2), strict: false, ..LoadOptions::default() })
            .unwrap_err();
    assert!(message.contains("not 2"), "{message}");
}

#[test]
fn sub_folders_are_labels() {
    let folder = Folder::new("labels");
    folder.write("cat/1.png", &png(&gray(2, 2, 0)));
    folder.write("cat/more/2.png", &png(&gray(2, 2, 0)));
    folder.write("ant/1.png", b"broken");
    folder.write("ant/2.png", &png(&gray(2, 2, 0)));
    folder.write("bee/1.png", &png(&gray(2, 2, 0)));
    let loaded = read(&folder, &LoadOptions::default()).unwrap();
    let labels = loaded.images.labels.unwrap();
    assert_eq!(labels.classes, ["ant", "bee", "cat"]);
    assert_eq!(labels.of, [0, 1, 2, 2]);
    assert_eq!(loaded.report.skipped.len(), 1);
}

#[test]
fn a_gray_image_counts_as_gray() {
    // The header of an image of 20,000×20,000 pixels, with too few pixels.
    let message = decode(b"P5 20000 20000 255\n\0\0").unwrap_err().to_string();
    assert!(message.contains("cannot be decoded"), "{message}");
    let message = decode(b"P6 20000 20000 255\n\0\0").unwrap_err().to_string();
    let advice = format!("{}, or shrink it", Advice::RaiseMemoryLimit);
    for words in ["more than 512 MiB", &advice] {
        assert!(message.contains(words), "{message}");
    }
    let folder = Folder::new("large");
    folder.write("x.ppm", b"P6 20000 20000 255\n\0\0");
    let more = LoadOptions { memory: Some(8 << 30), ..LoadOptions::default() };
    let message = read(&folder, &more).unwrap_err();
    assert!(message.contains("cannot be decoded"), "{message}");
}

#[test]
fn there_are_no_labels_if_an_image_is_outside_the_sub_folders() {
    let folder = Folder::new("no-labels");
    folder.write("ant/1.png", &png(&gray(2, 2, 0)));
    folder.write("bee/1.png", &png(&gray(2, 2, 0)));
    assert!(read(&folder, &LoadOptions::default()).unwrap().images.labels.is_some());
    folder.write("top.png", &png(&gray(2, 2, 0)));
    assert!(read(&folder, &LoadOptions::default()).unwrap().images.labels.is_none());
}

#[test]
fn files_that_cannot_be_decoded_are_skipped_with_a_reason() {
    let folder = broken("broken");
    let loaded = read(&folder, &LoadOptions::default()).unwrap();
    assert_eq!(loaded.images.names, ["whole.png"]);
    let names: Vec<_> = loaded
        .report
        .skipped
        .iter()
        .map(|(path, _)| path.rsplit(['/', '\\']).next().unwrap())
        .collect();
    assert_eq!(names, ["cut.png", "empty.png", "text.jpg"]);
    for ((_, reason), expected) in
        loaded.report.skipped.iter().zip(["cannot be decoded", "empty", "known format"])
    {
        assert!(reason.contains(expected) && !reason.contains('\n'), "{reason}");
    }
}

#[test]
fn strict_refuses_files_that_cannot_be_decoded() {
    let folder = broken("broken-strict");
    let message =
        read(&folder, &LoadOptions { channels: None, strict: true, ..LoadOptions::default() })
            .unwrap_err();
    assert!(message.contains("cut.png: cannot be decoded"), "{message}");
}

#[test]
fn a_folder_without_valid_images_is_refused() {
    let folder = broken("broken-all");
    std::fs::remove_file(folder.path.join("whole.png")).unwrap();
    let message = read(&folder, &LoadOptions::default()).unwrap_err();
    assert!(
        message.contains("no image can be used")
            && message.contains("cut.png")
            && message.contains("and 2 other files failed"),
        "{message}"
    );
}

/// A folder with three broken images and a valid one.
fn broken(name: &str) -> Folder {
    let folder = Folder::new(name);
    let whole = png(&colour(40, 40, 3));
    folder.write("cut.png", &whole[..whole.len() / 2]);
    folder.write("empty.png", b"");
    folder.write("text.jpg", b"this is not an image");
    folder.write("whole.png", &whole);
    folder
}

#[test]
fn an_empty_folder_is_refused() {
    let message = read(&Folder::new("empty"), &LoadOptions::default()).unwrap_err();
    assert!(message.contains("no image found"), "{message}");
}

#[test]
fn a_folder_of_idx_files_suggests_the_training_images() {
    let folder = Folder::new("idx-folder");
    folder.write("t10k-images-idx3-ubyte.gz", b"");
    folder.write("train-labels-idx1-ubyte.gz", b"");
    folder.write("train-images-idx3-ubyte.gz", b"");
    let message = read(&folder, &LoadOptions::default()).unwrap_err();
    assert!(
        message.contains("name the file") && message.ends_with("train-images-idx3-ubyte.gz"),
        "{message}"
    );
    let empty = folder.path.join("train-images-idx3-ubyte.gz");
    let message = load(empty.to_str().unwrap(), &LoadOptions::default()).unwrap_err().to_string();
    assert!(message.contains("empty"), "{message}");
}

#[test]
fn a_missing_source_is_refused_with_the_names_of_the_bundled_sets() {
    let message = load("no/such/place", &LoadOptions::default()).unwrap_err().to_string();
    assert!(
        message.contains("does not exist") && message.contains("photos, textures, digits"),
        "{message}"
    );
}

#[test]
fn the_format_of_an_image_file_is_detected_from_its_content() {
    let folder = Folder::new("misnamed");
    let path = folder.write("misnamed.jpg", &png(&colour(3, 4, 5)));
    let loaded = load(path.to_str().unwrap(), &LoadOptions::default()).unwrap();
    assert_eq!((loaded.images.names[0].as_str(), loaded.images.channels), ("misnamed.jpg", 3));
    let path = folder.write("notes.txt", b"hello");
    let message = load(path.to_str().unwrap(), &LoadOptions::default()).unwrap_err().to_string();
    assert!(message.contains("notes.txt: is not an image"), "{message}");
}

#[test]
fn idx_files_are_detected_by_content_or_name() {
    let folder = Folder::new("single-idx");
    let idx = [&[0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 2][..], &[5, 6]].concat();
    let path = folder.write("digits", &idx);
    let loaded = load(
        path.to_str().unwrap(),
        &LoadOptions { channels: Some(3), strict: true, ..LoadOptions::default() },
    )
    .unwrap();
    assert_eq!(loaded.images.bytes, [5, 5, 5, 6, 6, 6]);
    let path = folder.write("cut-idx3", &idx[..17]);
    let message = load(path.to_str().unwrap(), &LoadOptions::default()).unwrap_err().to_string();
    assert!(message.contains("cut-idx3: the header has the shape 1x1x2"), "{message}");
}

#[test]
fn bundled_sets_are_loaded_by_name() {
    assert_eq!(load("digits", &LoadOptions::default()).unwrap().images.len(), 1797);
    assert_eq!(
        load(
            "textures",
            &LoadOptions { channels: Some(3), strict: true, ..LoadOptions::default() }
        )
        .unwrap()
        .images
        .channels,
        3
    );
}

#[test]
fn every_format_is_decoded() {
    let picture = colour(5, 7, 200);
    for format in
        [ImageFormat::Png, ImageFormat::Bmp, ImageFormat::Tiff, ImageFormat::WebP, ImageFormat::Pnm]
    {
        let decoded = decode(&encoded(&picture, format)).unwrap();
        assert_eq!(decoded.dims, Dims::new(3, 5, 7), "{format:?}");
        assert_eq!(decoded.pixels, picture.as_bytes(), "{format:?}");
    }
    for format in [ImageFormat::Jpeg, ImageFormat::Gif] {
        let decoded = decode(&encoded(&picture, format)).unwrap();
        assert_eq!(decoded.dims, Dims::new(3, 5, 7), "{format:?}");
    }
}

#[test]
fn sixteen_bits_are_reduced_to_eight() {
    let deep = DynamicImage::ImageLuma16(image::ImageBuffer::from_fn(2, 1, |x, _| {
        image::Luma([[0, 65_535u16][x as usize]])
    }));
    assert_eq!(decode(&png(&deep)).unwrap().pixels, [0, 255]);
}

#[test]
fn gray_that_is_stored_as_rgb_is_gray() {
    let stored = DynamicImage::ImageRgb8(gray(2, 2, 50).into_rgb8());
    let decoded = decode(&png(&stored)).unwrap();
    assert_eq!((decoded.dims.c, decoded.pixels.as_slice()), (1, gray(2, 2, 50).as_bytes()));
}

#[test]
fn transparent_pixels_are_composed_over_white() {
    let clear =
        RgbaImage::from_raw(3, 1, vec![10, 20, 30, 255, 0, 0, 0, 0, 0, 0, 100, 128]).unwrap();
    assert_eq!(
        decode(&png(&clear.into())).unwrap().pixels,
        [10, 20, 30, 255, 255, 255, 127, 127, 177]
    );
    let veil = DynamicImage::ImageLumaA8(
        image::ImageBuffer::from_raw(2, 1, vec![40, 255, 0, 51]).unwrap(),
    );
    assert_eq!(decode(&png(&veil)).unwrap().pixels, [40, 204]);
}

#[test]
fn exif_orientation_is_applied() {
    let jpeg = encoded(&gray(8, 24, 0), ImageFormat::Jpeg);
    assert_eq!(decode(&jpeg).unwrap().dims.size(), Size::new(8, 24));
    // The smallest EXIF block: one tag, orientation (0x0112) = 6, a rotation by 90°.
    let tiff =
        [b'I', b'I', 42, 0, 8, 0, 0, 0, 1, 0, 0x12, 1, 3, 0, 1, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0];
    let body = [&b"Exif\0\0"[..], &tiff].concat();
    let mut rotated = vec![0xff, 0xd8, 0xff, 0xe1];
    rotated.extend(((body.len() + 2) as u16).to_be_bytes());
    rotated.extend(body);
    rotated.extend(&jpeg[2..]);
    assert_eq!(decode(&rotated).unwrap().dims.size(), Size::new(24, 8));
}

#[test]
fn huge_sizes_are_refused_before_memory_is_allocated() {
    let crc = |bytes: &[u8]| {
        let mut crc = flate2::Crc::new();
        crc.update(bytes);
        crc.sum()
    };
    let mut bytes = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut chunk = |kind: &[u8], data: &[u8]| {
        let body = [kind, data].concat();
        bytes.extend((data.len() as u32).to_be_bytes());
        bytes.extend(&body);
        bytes.extend(crc(&body).to_be_bytes());
    };
    chunk(
        b"IHDR",
        &[&60_000u32.to_be_bytes()[..], &60_000u32.to_be_bytes(), &[8, 2, 0, 0, 0]].concat(),
    );
    chunk(b"IDAT", &[0x78, 0x9c, 3, 0, 0, 0, 0, 1]);
    chunk(b"IEND", &[]);
    const GIF: &[u8] = b"GIF89a\xff\xff\xff\xff\x80\0\0\0\0\0\xff\xff\xff\
        ,\0\0\0\0\x01\0\x01\0\0\x02\x02\x4c\x01\0;";
    let cases: [(&[u8], &str); 4] = [
        (&bytes, "60000x60000 pixels need more than 512 MiB"),
        (b"P5 60000 60000 255\n\0\0", "512 MiB"),
        (GIF, "512 MiB"),
        (b"P6 0 4 255\n", ""),
    ];
    for (bytes, expected) in cases {
        let message = decode(bytes).unwrap_err().to_string();
        assert!(message.contains(expected) && !message.contains('\n'), "{message}");
    }
}

#[test]
fn a_jpeg_with_too_few_bytes_for_its_size_is_refused() {
    let mut jpeg = encoded(&gray(8, 8, 0), ImageFormat::Jpeg);
    let frame = jpeg.windows(2).position(|w| w == [0xff, 0xc0]).unwrap();
    jpeg[frame + 5..frame + 9].copy_from_slice(&[0x30, 0, 0x30, 0]);
    let message = decode(&jpeg).unwrap_err().to_string();
    assert!(message.contains("cannot contain 12288x12288 pixels"), "{message}");
}

#[test]
fn files_that_are_cut_off_do_not_cause_a_panic() {
    for format in [
        ImageFormat::Png,
        ImageFormat::Jpeg,
        ImageFormat::Gif,
        ImageFormat::Bmp,
        ImageFormat::Tiff,
        ImageFormat::WebP,
    ] {
        let whole = encoded(&colour(9, 9, 1), format);
        for end in (0..whole.len()).step_by(7) {
            let _ = decode(&whole[..end]);
        }
    }
}
