//! Tests of finding images in folders: by content, of kinds that are not read, behind links, and in
//! folders that cannot be read.

use image::{DynamicImage, GrayImage, ImageFormat, RgbaImage};

use super::{LoadOptions, LoadedImages, load};
use crate::testing::{Folder, encoded};

fn gray(h: u32, w: u32, value: u8) -> DynamicImage {
    GrayImage::from_fn(w, h, |x, y| image::Luma([value.wrapping_add((x + 3 * y) as u8)])).into()
}

fn png(image: &DynamicImage) -> Vec<u8> {
    encoded(image, ImageFormat::Png)
}

fn read(folder: &Folder, want: &LoadOptions) -> Result<LoadedImages, String> {
    load(folder.path.to_str().unwrap(), want).map_err(|e| e.to_string())
}

#[test]
fn images_are_found_by_their_content_and_by_every_known_ending() {
    let folder = Folder::new("by-content");
    let (photo, bitmap) =
        (encoded(&gray(3, 4, 1), ImageFormat::Jpeg), encoded(&gray(3, 4, 1), ImageFormat::Bmp));
    for name in ["a.jfif", "b.JPE", "c", "d.001", "e.heic"] {
        folder.write(name, &photo);
    }
    folder.write("f.dib", &bitmap);
    folder.write("g.APNG", &png(&gray(3, 4, 1)));
    let pam = b"P7\nWIDTH 1\nHEIGHT 1\nDEPTH 1\nMAXVAL 255\nTUPLTYPE GRAYSCALE\nENDHDR\n\x07";
    folder.write("h.pam", pam);
    for name in ["notes", "data.bin", "list.txt", "values.npy", "boxes.json", ".DS_Store"] {
        folder.write(name, b"BMW P1 nothing");
    }
    let loaded = read(&folder, &LoadOptions::default()).unwrap();
    let names = ["a.jfif", "b.JPE", "c", "d.001", "e.heic", "f.dib", "g.APNG", "h.pam"];
    assert_eq!(loaded.images.names, names);
    assert!(loaded.report.skipped.is_empty() && loaded.report.unsupported.is_empty());
    let others = "1 without extension, 1 .bin, 1 .json, 1 .npy, 1 .txt";
    assert_eq!(loaded.report.other_kinds(), others);
}

#[test]
fn images_of_unsupported_kinds_are_counted_and_an_error_with_strict() {
    let folder = Folder::new("unsupported");
    let heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic";
    folder.write("a.heic", heic);
    folder.write("b.jpg.download", b"\0\0\0\x1cftypavif\0\0\0\0avifmif1");
    folder.write("c.nef", b"II*\0\x08\0\0\0");
    let message = read(&folder, &LoadOptions::default()).unwrap_err();
    for words in ["no image found", "1 HEIC, 1 AVIF, 1 camera raw", "convert them"] {
        assert!(message.contains(words), "{message}");
    }
    folder.write("d.png", &png(&gray(3, 4, 1)));
    let loaded = read(&folder, &LoadOptions::default()).unwrap();
    assert_eq!(loaded.report.unsupported_kinds(), "1 HEIC, 1 AVIF, 1 camera raw");
    let strict = LoadOptions { strict: true, ..LoadOptions::default() };
    let message = read(&folder, &strict).unwrap_err();
    assert!(message.contains("a.heic: HEIC images are not supported; convert"), "{message}");
    // Named alone, and with the ending of another format.
    let named = |name: &str, bytes: &[u8]| {
        let path = folder.write(name, bytes);
        load(path.to_str().unwrap(), &LoadOptions::default()).unwrap_err().to_string()
    };
    assert!(named("x.jpg", heic).contains("HEIC images are not supported"));
    assert!(named("x.npz", b"PK\x03\x04").contains("damaged"));
}

#[test]
fn only_the_first_of_several_images_is_read_and_this_is_said() {
    let folder = Folder::new("several");
    let mut bytes = Vec::new();
    let frame =
        |value| image::Frame::new(RgbaImage::from_pixel(4, 3, image::Rgba([value, 0, 0, 255])));
    let frames = [10, 200].map(frame);
    image::codecs::gif::GifEncoder::new(&mut bytes).encode_frames(frames).unwrap();
    folder.write("a.gif", &bytes);
    folder.write("b.png", &png(&gray(3, 4, 1)));
    let loaded = read(&folder, &LoadOptions::default()).unwrap();
    assert!(loaded.images.image(0)[0].abs_diff(10) < 8, "{:?}", loaded.images.image(0));
    let several: Vec<usize> = loaded.report.several.iter().map(|(_, n)| *n).collect();
    assert_eq!(several, [2]);
}

#[cfg(unix)]
#[test]
fn links_that_lead_nowhere_are_skipped_and_an_error_with_strict() {
    use std::os::unix::fs::symlink;
    let folder = Folder::new("links");
    folder.write("a/x.png", &png(&gray(3, 4, 1)));
    let at = |name: &str| folder.path.join(name);
    // A cycle of links, a folder in itself, and a file that is gone.
    symlink(at("two"), at("one")).unwrap();
    symlink(at("one"), at("two")).unwrap();
    symlink(at("a"), at("a/a")).unwrap();
    symlink(at("gone"), at("gone.png")).unwrap();
    let loaded = read(&folder, &LoadOptions::default()).unwrap();
    assert_eq!(loaded.images.names, ["a/x.png"]);
    let skipped: Vec<&str> =
        loaded.report.skipped.iter().map(|(path, _)| path.rsplit('/').next().unwrap()).collect();
    assert_eq!(skipped, ["one", "two", "gone.png"]);
    let strict = LoadOptions { strict: true, ..LoadOptions::default() };
    assert!(read(&folder, &strict).unwrap_err().contains("one: cannot be read"));
}

/// Checks that a folder with `x.png` and something that cannot be read is loaded without it.
#[cfg(unix)]
fn is_loaded_in_part(folder: &Folder, words: &str) {
    let loaded = read(folder, &LoadOptions::default()).unwrap();
    assert_eq!((loaded.images.len(), loaded.report.skipped.len()), (1, 1));
    let reason = &loaded.report.skipped[0].1;
    assert!(reason.contains(words), "{reason}");
    let strict = LoadOptions { strict: true, ..LoadOptions::default() };
    assert!(read(folder, &strict).unwrap_err().contains(words));
}

#[cfg(unix)]
#[test]
fn a_folder_without_permission_is_skipped_and_an_error_with_strict() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new("no-permission");
    folder.write("x.png", &png(&gray(3, 4, 1)));
    folder.write("locked/y.png", &png(&gray(3, 4, 1)));
    let locked = folder.path.join("locked");
    let permit = |mode| {
        std::fs::set_permissions(&locked, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    permit(0o000);
    if std::fs::read_dir(&locked).is_ok() {
        eprintln!("skipped: permissions do not apply to an administrator");
    } else {
        is_loaded_in_part(&folder, "this folder cannot be read");
    }
    permit(0o755);
}

/// Permissions do not stop an administrator, but no one can open a path of more than 4096 bytes.
#[cfg(target_os = "linux")]
#[test]
fn a_folder_that_is_too_deep_is_skipped_and_an_error_with_strict() {
    let folder = Folder::new("too-deep");
    folder.write("x.png", &png(&gray(3, 4, 1)));
    let chain = |first: &str| {
        let name = "0".repeat(200);
        let path = (0..12).fold(folder.path.join(first), |path, _| path.join(&name));
        std::fs::create_dir_all(&path).unwrap();
        path
    };
    let end = chain("upper");
    chain("lower");
    std::fs::rename(folder.path.join("lower"), end.join("lower")).unwrap();
    is_loaded_in_part(&folder, "cannot be read");
}

#[test]
fn a_stray_image_beside_class_folders_is_named() {
    let folder = Folder::new("stray");
    for name in ["ant/1.png", "ant/2.png", "bee/1.png"] {
        folder.write(name, &png(&gray(2, 2, 0)));
    }
    folder.write("preview.png", &png(&gray(2, 2, 0)));
    let words = "no classes, since preview.png is not in one of the 2 folders";
    let described = read(&folder, &LoadOptions::default()).unwrap().description;
    assert!(described.contains(words), "{described}");
    // Many images are in no folder: these are hardly classes.
    for name in ["a.png", "b.png", "c.png"] {
        folder.write(name, &png(&gray(2, 2, 0)));
    }
    let described = read(&folder, &LoadOptions::default()).unwrap().description;
    assert!(!described.contains("no classes"), "{described}");
}
