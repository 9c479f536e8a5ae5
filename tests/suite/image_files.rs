//! Image files of people: unusual names and formats, several frames, metadata, patterns, and
//! folders of which a part cannot be read.

use std::path::Path;

use image::{DynamicImage, Frame, ImageFormat, Rgba, RgbaImage};

use crate::detect::trained;
use crate::finetune::classifier;
use crate::support::files::{exists, list};
use crate::support::images::{SHAPES, patterns, plain};
use crate::support::json::{number, of_kind};
use crate::support::models::{pyramid, train_patterns};
use crate::support::{Command, TempFolder, bytes, is_file, model_bytes};

/// A gray picture with smooth bars, in a format.
fn picture(format: ImageFormat) -> Vec<u8> {
    let image = image::GrayImage::from_fn(24, 20, |x, y| image::Luma([(90 + 5 * x + 3 * y) as u8]));
    let image = DynamicImage::from(image);
    let image = match format {
        // GIF files have a palette of colours.
        ImageFormat::Gif => image.into_rgb8().into(),
        // PNG images in icons have colours and alpha.
        ImageFormat::Ico => image.into_rgba8().into(),
        _ => image,
    };
    encoded(&image, format)
}

fn encoded(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// An animation of 3 frames.
fn animation() -> Vec<u8> {
    let mut bytes = Vec::new();
    let frame = |value| Frame::new(RgbaImage::from_pixel(24, 20, Rgba([value, value, value, 255])));
    let frames = [10, 60, 200].map(frame);
    image::codecs::gif::GifEncoder::new(&mut bytes).encode_frames(frames).unwrap();
    bytes
}

/// The start of an image as phones take it.
const HEIC: &[u8] = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic";

/// Denoises images.
fn denoise(images: &str, out: &str) -> Command {
    Command::new("denoise --sigma 10").arg(images).out(out).on_cpu()
}

#[test]
fn a_folder_of_mixed_files_is_restored_and_the_rest_is_said() {
    let folder = TempFolder::new("mixed");
    folder.write("in/a.jfif", picture(ImageFormat::Jpeg));
    folder.write("in/b.JPE", picture(ImageFormat::Jpeg));
    folder.write("in/scan.001", picture(ImageFormat::Tiff));
    folder.write("in/c", picture(ImageFormat::Jpeg));
    folder.write("in/d.gif", picture(ImageFormat::Gif));
    folder.write("in/d.png", picture(ImageFormat::Png));
    folder.write("in/e.gif", animation());
    folder.write("in/f.heic", HEIC);
    folder.write("in/g.tga", picture(ImageFormat::Tga));
    folder.write("in/h.ico", picture(ImageFormat::Ico));
    folder.write("in/notes.txt", "hello");
    let (images, out) = (folder.path("in"), folder.path("out"));
    let messages = denoise(&images, &out).messages();
    for words in [
        "skipped 1 image file of kinds that are not supported: 1 HEIC; convert them",
        "e.gif has 3 frames or pages; only the first is read",
    ] {
        assert!(messages.contains(words), "{words:?} is not in {messages}");
    }
    assert!(!messages.contains("txt"), "{messages}");
    let names: Vec<String> = list(&out)
        .iter()
        .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
        .collect();
    let expected = [
        "a.jfif",
        "b.JPE",
        "c.jpg",
        "d.gif.png",
        "d.png",
        "e.png",
        "g.png",
        "h.png",
        "scan.001.tif",
    ];
    assert_eq!(names, expected);
    for (name, format) in [
        ("a.jfif", ImageFormat::Jpeg),
        ("c.jpg", ImageFormat::Jpeg),
        ("scan.001.tif", ImageFormat::Tiff),
    ] {
        let bytes = bytes(Path::new(&out).join(name));
        assert_eq!(image::guess_format(&bytes).unwrap(), format, "{name}");
    }
    let strict = denoise(&images, &out).force().arg("--strict").quiet();
    strict.fails(2, &["f.heic", "HEIC images are not supported"]);
}

/// The pixels that are read from TGA files and icons, with all kinds of pixels.
#[test]
fn tga_files_and_icons_have_the_pixels_of_their_images() {
    let folder = TempFolder::new("tga-ico");
    let colour = RgbaImage::from_fn(24, 20, |x, y| {
        Rgba([(10 * x) as u8, (12 * y) as u8, 90, if x > y { 255 } else { 40 }])
    });
    let colour = DynamicImage::from(colour);
    let tga = ("x.tga", ImageFormat::Tga);
    let kinds: [(DynamicImage, (&str, ImageFormat)); 4] = [
        (colour.to_luma8().into(), tga),
        (colour.to_rgb8().into(), tga),
        (colour.clone(), tga),
        (colour.clone(), ("x.ico", ImageFormat::Ico)),
    ];
    for (image, (name, format)) in kinds {
        let path = folder.write(name, encoded(&image, format));
        let out = folder.path("out");
        let denoise = Command::new("denoise --sigma 0").arg(&path).out(&out).force();
        denoise.on_cpu().quiet().succeed();
        let result = image::open(format!("{out}/x.png")).unwrap();
        assert_eq!(result.color(), image.color(), "{name}");
        assert_eq!(result.as_bytes(), image.as_bytes(), "{name} {:?}", image.color());
    }
    let cut = encoded(&colour, ImageFormat::Tga);
    let cut = folder.write("cut.tga", &cut[..cut.len() / 2]);
    denoise(&cut, &folder.path("out")).quiet().fails(2, &["cut.tga", "cannot be decoded"]);
}

#[test]
fn other_files_are_counted_with_verbose_only() {
    let folder = TempFolder::new("others");
    folder.write("in/a.png", picture(ImageFormat::Png));
    folder.write("in/notes.txt", "hello");
    folder.write("in/table.csv", "1,2");
    let words = "other files in the folders: 1 .csv, 1 .txt";
    let reconstruct = Command::reconstruct(pyramid(), folder.path("in")).on_cpu();
    let quiet = reconstruct.clone().out(folder.path("one")).messages();
    assert!(!quiet.contains("other files"), "{quiet}");
    reconstruct.out(folder.path("two")).arg("-v").warns(&[words]);
}

#[cfg(unix)]
#[test]
fn an_image_that_is_gone_does_not_end_the_run() {
    let folder = TempFolder::new("gone");
    let (images, out) = (folder.create("in"), folder.path("out"));
    folder.write("in/a.png", picture(ImageFormat::Png));
    folder.write("in/b.png", picture(ImageFormat::Png));
    std::os::unix::fs::symlink(folder.path("nowhere"), folder.path("in/aa.png")).unwrap();
    denoise(&images, &out).warns(&["skipped 1 file", "aa.png: cannot be read"]);
    assert!(is_file(&out, "a.png") && is_file(&out, "b.png"));
    let strict = denoise(&images, &out).force().arg("--strict").quiet();
    strict.fails(1, &["aa.png: cannot be read"]);
}

#[test]
fn a_transparent_png_that_is_named_as_a_jpeg_stays_transparent() {
    let folder = TempFolder::new("misnamed");
    let sprite = RgbaImage::from_fn(24, 20, |x, y| {
        Rgba([40, (90 + 5 * x) as u8, 200, if x + y < 20 { 0 } else { 255 }])
    });
    let image = folder.write("sprite.jpg", encoded(&sprite.into(), ImageFormat::Png));
    let out = folder.path("out");
    denoise(&image, &out).warns(&["1 file is named as JPEG", "sprite.jpg", "PNG"]);
    let result = image::open(format!("{out}/sprite.png")).unwrap().into_rgba8();
    assert!(result.get_pixel(0, 0)[3] == 0 && result.get_pixel(23, 19)[3] == 255);
    assert!(!is_file(&out, "sprite.jpg"));
}

#[test]
fn a_result_keeps_the_metadata_of_its_image() {
    let folder = TempFolder::new("metadata");
    // EXIF: the orientation is 6, and the maker is "Ada".
    let exif = b"Exif\0\0II*\0\x08\0\0\0\x02\0\
        \x0f\x01\x02\0\x04\0\0\0Ada\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
    let mut jpeg = picture(ImageFormat::Jpeg);
    // 300 dots per inch in the JFIF header, and EXIF after it.
    jpeg[13..18].copy_from_slice(&[1, 1, 44, 1, 44]);
    let segment = [&[0xff, 0xe1][..], &(exif.len() as u16 + 2).to_be_bytes(), exif].concat();
    jpeg.splice(20..20, segment);
    let image = folder.write("photo.jpg", &jpeg);
    let out = folder.path("out");
    Command::new("upscale").arg(&image).out(&out).on_cpu().quiet().succeed();
    let result = bytes(format!("{out}/photo.jpg"));
    // The image was turned, and has twice the size.
    let pixels = image::load_from_memory(&result).unwrap();
    assert_eq!((pixels.width(), pixels.height()), (40, 48));
    assert_eq!(result[13..18], [1, 1, 44, 1, 44]);
    let has = |words: &[u8]| result.windows(words.len()).any(|bytes| bytes == words);
    assert!(has(b"Ada\0\x12\x01\x03\0\x01\0\0\0\x01\0"), "the orientation is not reset");
}

#[test]
fn an_image_above_the_limit_is_refused_with_the_flag_that_raises_it() {
    let folder = TempFolder::new("limit");
    let image = folder.write("x.png", picture(ImageFormat::Png));
    let out = folder.path("out");
    let small = denoise(&image, &out).max_memory("900").quiet();
    small.fails(2, &["24x20 pixels need more than", "raise --max-memory"]);
    denoise(&image, &out).max_memory("64MiB").quiet().succeed();
}

#[test]
fn float_and_paged_tiff_files_are_read() {
    use tiff::encoder::{TiffEncoder, colortype};
    let folder = TempFolder::new("tiff");
    let mut bytes = std::io::Cursor::new(Vec::new());
    let mut encoder = TiffEncoder::new_big(&mut bytes).unwrap();
    let values: Vec<f32> = (0..24 * 20).map(|i| (i % 24) as f32 / 23.0).collect();
    for _ in 0..3 {
        encoder.write_image::<colortype::Gray32Float>(24, 20, &values).unwrap();
    }
    let image = folder.write("x.tif", bytes.get_ref());
    let out = folder.path("out");
    let denoise = Command::new("denoise --sigma 0").arg(&image).out(&out).on_cpu();
    denoise.warns(&["x.tif has 3 frames or pages"]);
    let file = std::fs::File::open(format!("{out}/x.tif")).unwrap();
    let result = tiff::decoder::Decoder::new(file).unwrap().read_image().unwrap();
    assert!(matches!(result, tiff::decoder::DecodingResult::F32(found) if found == values));
}

#[test]
fn every_command_takes_patterns_and_names_with_brackets() {
    let folder = TempFolder::new("patterns");
    let photos = patterns(&folder);
    let train = |data: &str, name: &str| {
        let run = folder.path(name);
        train_patterns(data).steps(3).batch(4).out(&run).succeed();
        model_bytes(&run)
    };
    assert!(train(&format!("{photos}/*.png"), "matches") == train(&photos, "folder"));
    let reconstruct = |images: &str, out: &str| {
        let reconstruct = Command::reconstruct(pyramid(), images).out(folder.path(out));
        reconstruct.on_cpu().quiet().succeed();
        list(folder.path(out)).len()
    };
    assert_eq!(reconstruct(&format!("{photos}/0[0-3].png"), "some"), 4);
    // A file of this name is taken literally.
    std::fs::copy(format!("{photos}/07.png"), folder.path("a[1].png")).unwrap();
    plain(&folder.path("a1.png"), 16, 9);
    assert_eq!(reconstruct(&folder.path("a[1].png"), "literal"), 1);
    assert!(is_file(folder.path("literal"), "a[1].png"));
    let none = Command::eval(pyramid(), format!("{photos}/x*.png")).on_cpu().quiet();
    none.fails(2, &["x*.png", "no file matches this pattern"]);
}

#[test]
fn images_of_unknown_classes_are_classified_and_not_counted() {
    let folder = TempFolder::new("classify-unknown");
    for (name, value) in [("3/a", 9), ("7/b", 90), ("mystery/c", 200), ("mystery/d", 30)] {
        plain(&folder.path(&format!("in/{name}.png")), 8, value);
    }
    let classify = |folder: &str| {
        Command::new("classify --resize").arg(&classifier().run).arg(folder).on_cpu()
    };
    let lines = classify(&folder.path("in")).json();
    assert_eq!(of_kind(&lines, "image").len(), 4);
    let rate = &of_kind(&lines, "classify")[0]["test"];
    assert_eq!(number(rate, "of"), 2.0);
    let note = "2 images of 1 class that the model does not have";
    classify(&folder.path("in")).warns(&[note, "not counted", "mystery (2)"]);
    std::fs::remove_dir_all(folder.path("in/3")).unwrap();
    std::fs::rename(folder.path("in/7"), folder.path("in/other")).unwrap();
    classify(&folder.path("in")).warns(&["there is no error rate"]);
    let confusion = classify(&folder.path("in")).option("--confusion", folder.path("x.png"));
    confusion.quiet().fails(2, &["--confusion", "none of their classes"]);
}

#[test]
fn an_image_beside_class_folders_is_named() {
    let folder = TempFolder::new("stray");
    for (i, name) in ["a/1", "a/2", "b/1", "b/2", "readme"].iter().enumerate() {
        plain(&folder.path(&format!("in/{name}.png")), 8, 40 * i as u8);
    }
    let finetune = Command::new("finetune --layer encoder.1 --grid 2 --resize");
    let finetune = finetune.arg(crate::support::models::sparse_digits()).arg(folder.path("in"));
    let finetune = finetune.out(folder.path("run")).on_cpu().quiet();
    finetune.fails(2, &["have no labels", "readme.png is not in one of the 2 folders", "move"]);
    assert!(!exists(folder.path("run/model.safetensors")));
}

#[test]
fn a_damaged_archive_of_arrays_is_refused() {
    let folder = TempFolder::new("npz");
    let data = folder.write("x.npz", b"PK\x03\x04\x14\0\0\0\0\0");
    let train = train_patterns(&data).steps(1).batch(1).out(folder.path("run"));
    train.fails(2, &["x.npz", "damaged"]);
}

/// The shapes of the shared detector as a YOLO data set: `images/test`, `labels/test`.
fn yolo(folder: &TempFolder, names: &str) -> String {
    let [h, w] = SHAPES;
    let voc = Path::new(&trained().shapes.root);
    let test = std::fs::read_to_string(voc.join("ImageSets/Main/test.txt")).unwrap();
    folder.write("yolo/data.yaml", names);
    for name in test.split_whitespace() {
        let image = bytes(voc.join(format!("JPEGImages/{name}.png")));
        folder.write(&format!("yolo/images/test/{name}.png"), image);
        let voc = csae::internals::annotations::box_files::read_voc(
            &voc.join(format!("Annotations/{name}.xml")),
        );
        let objects = voc.unwrap().objects;
        let lines = objects.iter().map(|object| {
            let class = usize::from(object.name == "square");
            let b = object.bounds;
            let (x, y) = ((b.left + b.right) / 2.0 / w as f64, (b.top + b.bottom) / 2.0 / h as f64);
            let (bw, bh) = ((b.right - b.left) / w as f64, (b.bottom - b.top) / h as f64);
            format!("{class} {x} {y} {bw} {bh}\n")
        });
        folder.write(&format!("yolo/labels/test/{name}.txt"), lines.collect::<String>());
    }
    folder.path("yolo")
}

#[test]
fn yolo_annotations_give_the_results_of_voc() {
    let folder = TempFolder::new("yolo");
    let root = yolo(&folder, "names:\n  0: disc\n  1: square\n");
    let eval = |data: &str| Command::new("detect eval").arg(&trained().run).arg(data).on_cpu();
    let voc = eval(&trained().shapes.root).flags("--split test").quiet().report();
    for data in [root.clone(), format!("{root}/images/test")] {
        let found = eval(&data).quiet().report();
        let same = (number(&found, "map") - number(&voc, "map")).abs() < 1e-9;
        assert!(same, "{data}: {found} instead of {voc}");
    }
    // A list of paths from its own folder, as YOLO writes them.
    let names = list(format!("{root}/images/test"));
    let lines = names
        .iter()
        .map(|path| format!("./images/test/{}\n", path.file_name().unwrap().to_string_lossy()));
    let listed = folder.write("yolo/test.txt", lines.collect::<String>());
    let found = eval(&format!("@{listed}")).quiet().report();
    assert!((number(&found, "map") - number(&voc, "map")).abs() < 1e-9, "{found}");
    let named = eval(&format!("{root}/images"));
    named.option("--annotations", format!("{root}/labels")).quiet().succeed();
}

#[test]
fn odd_lines_of_yolo_are_skipped_and_an_error_with_strict() {
    let folder = TempFolder::new("yolo-odd");
    let root = yolo(&folder, "names: [disc, square]\n");
    let odd = list(format!("{root}/labels/test"))[0].display().to_string();
    let text = std::fs::read_to_string(&odd).unwrap();
    std::fs::write(&odd, format!("{text}9 0.5 0.5 0.1 0.1\n0 12 14 20 20\n")).unwrap();
    let eval = Command::new("detect eval").arg(&trained().run).arg(&root).on_cpu();
    eval.warns(&[
        "skipped 1 annotation of an unknown category",
        "1 annotation with an invalid box",
    ]);
    eval.arg("--strict").quiet().fails(2, &[".txt: line 3: the class 9 is not one of the 2"]);
}
