//! Annotation files as other programs write them: odd entries, encodings, paths, sizes and boxes.
//! Every test evaluates one detector on the same images with edited annotations.

use std::path::Path;

use serde_json::{Value, json};

use crate::detect::trained;
use crate::support::images::{Shapes, voc_annotation};
use crate::support::json::number;
use crate::support::{Command, TempFolder, bytes, text};

/// Evaluates the shared detector on images with COCO annotations.
fn eval(images: &str, coco: &str) -> Command {
    let command = Command::new("detect eval").arg(&trained().run).arg(images);
    command.option("--coco", coco).arg("--partial").on_cpu()
}

/// Evaluates the shared detector on images with Pascal VOC annotations.
fn eval_voc(root: &str) -> Command {
    Command::new("detect eval").arg(&trained().run).arg(root).arg("--partial").on_cpu()
}

/// The images of the shared detector, and its COCO file after a change.
fn edited(folder: &TempFolder, edit: impl FnOnce(&mut Value)) -> (&'static str, String) {
    let Shapes { images, coco, .. } = &trained().shapes;
    let mut file: Value = serde_json::from_str(&text(coco)).unwrap();
    edit(&mut file);
    (images, folder.write("edited.json", file.to_string()))
}

/// The report on the images with the unchanged annotations.
fn original() -> Value {
    let Shapes { images, coco, .. } = &trained().shapes;
    eval(images, coco).quiet().report()
}

/// Asserts that annotations have the same effect as the unchanged ones.
#[track_caller]
fn assert_as_original(command: &Command) {
    assert_eq!(command.clone().quiet().report(), original());
}

/// Copies a folder of images into another one.
fn copy_images(from: &str, to: &str) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, Path::new(to).join(path.file_name().unwrap())).unwrap();
    }
}

/// A folder in Pascal VOC's layout with the first image of the shared detector and an annotation.
fn voc(folder: &TempFolder, annotation: impl AsRef<[u8]>) -> String {
    let image = bytes(Path::new(&trained().shapes.images).join("00.png"));
    folder.create("voc/JPEGImages");
    folder.create("voc/Annotations");
    folder.write("voc/JPEGImages/00.png", image);
    folder.write("voc/Annotations/00.xml", annotation);
    folder.path("voc")
}

#[test]
fn odd_coco_annotations_are_skipped_and_an_error_with_strict() {
    let folder = TempFolder::new("annotations-odd");
    let (images, coco) = edited(&folder, |file| {
        let all = file["annotations"].as_array_mut().unwrap();
        all[0]["bbox"] = json!([]);
        all[1]["image_id"] = json!(999);
        all[2]["category_id"] = json!(null);
        all[3]["bbox"] = json!([1, 2, 3]);
        all[4]["bbox"] = json!(null);
    });
    eval(images, &coco).warns(&[
        "skipped 2 annotations without a box",
        "skipped 1 annotation with an invalid box",
        "skipped 1 annotation of an unknown image",
        "skipped 1 annotation of an unknown category",
        "annotation 1: \"bbox\" is empty",
        "43 objects",
    ]);
    eval(images, &coco).arg("--strict").quiet().fails(2, &["annotation 1", "\"bbox\""]);
}

#[test]
fn coco_ids_and_flags_of_other_types_are_read() {
    let folder = TempFolder::new("annotations-types");
    let (images, coco) = edited(&folder, |file| {
        for (i, one) in file["annotations"].as_array_mut().unwrap().iter_mut().enumerate() {
            one["iscrowd"] = [json!(false), json!(null), json!("0"), json!(0.0)][i % 4].clone();
            one["image_id"] = json!(one["image_id"].to_string());
            one["category_id"] = json!(number(one, "category_id"));
        }
        for one in file["categories"].as_array_mut().unwrap() {
            one["id"] = json!(one["id"].to_string());
        }
    });
    assert_as_original(&eval(images, &coco).arg("--strict"));
}

#[test]
fn a_byte_order_mark_and_line_ends_of_windows_are_read() {
    let folder = TempFolder::new("annotations-bom");
    let Shapes { images, coco, root } = &trained().shapes;
    let windows = |text: &str| format!("\u{feff}{}", text.replace('\n', "\r\n"));
    let value: Value = serde_json::from_str(&text(coco)).unwrap();
    let pretty = serde_json::to_string_pretty(&value).unwrap();
    let marked = folder.write("bom.json", windows(&pretty));
    assert_as_original(&eval(images, &marked));
    let wide: Vec<u8> = windows(&pretty).encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert_as_original(&eval(images, &folder.write("utf16.json", wide)));
    let names: String = (0..24).map(|i| format!("{images}/{i:02}.png\n")).collect();
    let list = folder.write("list.txt", windows(&names));
    assert_as_original(&eval(&format!("@{list}"), coco));
    // Lists of splits, and XML.
    let split = windows(&text(format!("{root}/ImageSets/Main/test.txt")));
    let copy = voc(&folder, windows(&text(format!("{root}/Annotations/00.xml"))));
    folder.create("voc/ImageSets/Main");
    folder.write("voc/ImageSets/Main/first.txt", windows("00\n"));
    assert_eq!(eval_voc(&copy).flags("--split first --strict").quiet().report()["objects"], 2);
    assert!(split.contains("\r\n"));
}

#[test]
fn xml_in_latin_1_is_read() {
    let folder = TempFolder::new("annotations-latin1");
    let boxes = voc_annotation(&[("disc", [5, 5, 20, 20])]);
    for encoding in ["ISO-8859-1", "windows-1252", "latin1"] {
        let text = format!("<?xml version='1.0' encoding='{encoding}'?>\n{boxes}");
        let mut latin: Vec<u8> = text.replace("<object>", "<owner>\u{1}</owner><object>").into();
        latin.iter_mut().filter(|byte| **byte == 1).for_each(|byte| *byte = 0xfc);
        let report = eval_voc(&voc(&folder, latin)).quiet().report();
        assert_eq!(report["objects"], 1, "{encoding}");
    }
    let wrong = format!("<?xml version='1.0' encoding='EBCDIC'?>{boxes}");
    eval_voc(&voc(&folder, wrong)).quiet().fails(2, &["00.xml", "EBCDIC", "save it as UTF-8"]);
    let wrong = [boxes.as_bytes(), b"<!-- \xfc -->"].concat();
    eval_voc(&voc(&folder, wrong)).quiet().fails(2, &["00.xml", "not UTF-8"]);
}

#[test]
fn coco_file_names_with_folders_and_back_slashes_are_found() {
    let folder = TempFolder::new("annotations-paths");
    for prefix in ["images/train/", "images\\train\\", "C:\\data\\", "./", "/home/a/"] {
        let (images, coco) = edited(&folder, |file| {
            for image in file["images"].as_array_mut().unwrap() {
                image["file_name"] =
                    json!(format!("{prefix}{}", image["file_name"].as_str().unwrap()));
            }
        });
        assert_as_original(&eval(images, &coco));
    }
}

/// Images of the same name in two folders.
#[test]
fn coco_file_names_are_matched_by_their_path() {
    let folder = TempFolder::new("annotations-same-names");
    copy_images(&trained().shapes.images, &folder.path("all/train"));
    std::fs::create_dir_all(folder.path("all/val")).unwrap();
    std::fs::copy(folder.path("all/train/01.png"), folder.path("all/val/00.png")).unwrap();
    let rename = |file: &mut Value, first: &str| {
        for (i, image) in file["images"].as_array_mut().unwrap().iter_mut().enumerate() {
            let name = image["file_name"].as_str().unwrap();
            image["file_name"] =
                if i == 0 { json!(first) } else { json!(format!("all\\train\\{name}")) };
        }
    };
    let (_, coco) = edited(&folder, |file| rename(file, "all\\train\\00.png"));
    assert_as_original(&eval(&folder.path("all"), &coco));
    // The source is the folder of one of them.
    assert_as_original(&eval(&folder.path("all/train"), &coco));
    let (_, coco) = edited(&folder, |file| rename(file, "00.png"));
    let eval = eval(&folder.path("all"), &coco);
    eval.warns(&[
        "skipped 2 images with several possible annotations",
        "train/00.png",
        "val/00.png",
    ]);
    eval.arg("--strict").quiet().fails(2, &["train/00.png", "00.png"]);
}

/// An XML file without a folder for images of the same name in two folders.
#[test]
fn voc_files_for_several_images_are_reported() {
    let folder = TempFolder::new("annotations-same-stems");
    let root = voc(&folder, text(format!("{}/Annotations/00.xml", trained().shapes.root)));
    for part in ["a", "b"] {
        std::fs::create_dir_all(folder.path(&format!("voc/JPEGImages/{part}"))).unwrap();
        let from = format!("{}/01.png", trained().shapes.images);
        std::fs::copy(from, folder.path(&format!("voc/JPEGImages/{part}/01.png"))).unwrap();
    }
    let annotation = text(format!("{}/Annotations/01.xml", trained().shapes.root));
    folder.write("voc/Annotations/01.xml", &annotation);
    eval_voc(&root).warns(&[
        "skipped 2 images with several possible annotations",
        "a/01.png",
        "2 objects",
    ]);
    eval_voc(&root).arg("--strict").quiet().fails(2, &["a/01.png", "01.xml"]);
    // With the folder's name, they are found.
    folder.create("voc/Annotations/a");
    folder.create("voc/Annotations/b");
    folder.write("voc/Annotations/a/01.xml", &annotation);
    folder.write("voc/Annotations/b/01.xml", &annotation);
    assert_eq!(eval_voc(&root).arg("--strict").quiet().report()["objects"], 6);
}

/// Sets the size of all images in a COCO file, and scales the boxes.
fn resized(file: &mut Value, [h, w]: [f64; 2], scale: f64) {
    for image in file["images"].as_array_mut().unwrap() {
        (image["width"], image["height"]) = (json!(w), json!(h));
    }
    for one in file["annotations"].as_array_mut().unwrap() {
        for value in one["bbox"].as_array_mut().unwrap() {
            *value = json!(value.as_f64().unwrap() * scale);
        }
    }
}

#[test]
fn boxes_for_images_of_another_size_are_scaled() {
    let folder = TempFolder::new("annotations-scaled");
    let (images, coco) = edited(&folder, |file| resized(file, [24.0, 32.0], 0.5));
    eval(images, &coco).warns(&["scaled the boxes of 24 images", "32x24", "64x48"]);
    assert_as_original(&eval(images, &coco));
    let size = "<size><width>128</width><height>96</height><depth>3</depth></size><object>";
    let annotation = voc_annotation(&[("disc", [9, 9, 40, 40]), ("disc", [101, 51, 128, 96])]);
    let root = voc(&folder, annotation.replacen("<object>", size, 1));
    // Without the scale, the second box is outside of the image.
    eval_voc(&root).arg("-v").warns(&["scaled the boxes of 1 image", "128x96", "2 objects"]);
}

#[test]
fn images_of_another_shape_than_their_annotation_are_skipped() {
    let folder = TempFolder::new("annotations-shape");
    let (images, coco) = edited(&folder, |file| {
        file["images"][0]["width"] = json!(64);
        file["images"][0]["height"] = json!(50);
    });
    let command = eval(images, &coco);
    command.warns(&[
        "skipped 1 image of another shape",
        "00.png: the annotation is for 64x50 pixels, but the image has 64x48",
        "46 objects",
    ]);
    command.arg("--strict").quiet().fails(2, &["00.png", "64x50", "64x48"]);
    // 0 and null are no sizes.
    let (images, coco) = edited(&folder, |file| {
        file["images"][0]["width"] = json!(0);
        file["images"][1]["width"] = json!(null);
    });
    assert_as_original(&eval(images, &coco).arg("--strict"));
}

/// A JPEG with the EXIF orientation 6: programs turn it clockwise to show it.
fn turned_jpeg(stored: image::GrayImage) -> Vec<u8> {
    let mut jpeg = std::io::Cursor::new(Vec::new());
    let encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut jpeg, 100);
    stored.write_with_encoder(encoder).unwrap();
    // The smallest EXIF block: one tag, orientation (0x0112) = 6.
    let tiff =
        [b'I', b'I', 42, 0, 8, 0, 0, 0, 1, 0, 0x12, 1, 3, 0, 1, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0];
    let exif = [&b"Exif\0\0"[..], &tiff].concat();
    let length = ((exif.len() + 2) as u16).to_be_bytes();
    let jpeg = jpeg.into_inner();
    [&jpeg[..2], &[0xff, 0xe1], &length, &exif, &jpeg[2..]].concat()
}

#[test]
fn boxes_of_the_image_as_stored_are_turned() {
    let folder = TempFolder::new("annotations-turned");
    let photos = folder.create("photos");
    for i in 0..24 {
        let shown = image::open(format!("{}/{i:02}.png", trained().shapes.images)).unwrap();
        let stored = shown.rotate270().to_luma8();
        folder.write(&format!("photos/{i:02}.jpg"), turned_jpeg(stored));
    }
    let jpegs = |file: &mut Value, size: [usize; 2]| {
        for image in file["images"].as_array_mut().unwrap() {
            let name = image["file_name"].as_str().unwrap().replace("png", "jpg");
            image["file_name"] = json!(name);
            (image["width"], image["height"]) = (json!(size[0]), json!(size[1]));
        }
    };
    let (_, shown) = edited(&folder, |file| jpegs(file, [64, 48]));
    let shown = eval(&photos, &shown).arg("--strict").quiet().report();
    assert!(number(&shown, "map50") > 0.7, "{shown}");
    let (_, stored) = edited(&folder, |file| {
        jpegs(file, [48, 64]);
        for one in file["annotations"].as_array_mut().unwrap() {
            let [x, y, w, h] = [0, 1, 2, 3].map(|i| one["bbox"][i].as_f64().unwrap());
            one["bbox"] = json!([y, 64.0 - x - w, h, w]);
        }
    });
    eval(&photos, &stored).warns(&["turned the boxes of 24 images", "48x64", "64x48"]);
    assert_eq!(eval(&photos, &stored).arg("--strict").quiet().report(), shown);
}

#[test]
fn swapped_corners_are_put_in_order_and_an_error_with_strict() {
    let folder = TempFolder::new("annotations-swapped");
    let (images, coco) = edited(&folder, |file| {
        for one in file["annotations"].as_array_mut().unwrap() {
            let [x, y, w, h] = [0, 1, 2, 3].map(|i| one["bbox"][i].as_f64().unwrap());
            one["bbox"] = json!([x + w, y, -w, h]);
        }
    });
    eval(images, &coco).warns(&["put the corners of 48 boxes in order", "00.png: a box of"]);
    assert_as_original(&eval(images, &coco));
    eval(images, &coco).arg("--strict").quiet().fails(2, &["00.png", "corners", "swapped"]);
    let root = voc(&folder, voc_annotation(&[("disc", [30, 9, 10, 20])]));
    eval_voc(&root).warns(&["put the corners of 1 box in order", "1 objects"]);
    eval_voc(&root).arg("--strict").quiet().fails(2, &["00.png", "swapped"]);
}

#[test]
fn boxes_in_fractions_of_the_image_are_refused() {
    let folder = TempFolder::new("annotations-fractions");
    let (images, coco) = edited(&folder, |file| {
        for one in file["annotations"].as_array_mut().unwrap() {
            let [x, y, w, h] = [0, 1, 2, 3].map(|i| one["bbox"][i].as_f64().unwrap());
            one["bbox"] = json!([x / 64.0, y / 48.0, w / 64.0, h / 48.0]);
        }
    });
    let words = ["fractions of the image size", "multiply"];
    eval(images, &coco).quiet().fails(2, &words);
    let box_text =
        "<bndbox><xmin>0.25</xmin><ymin>0.1</ymin><xmax>0.5</xmax><ymax>1</ymax></bndbox>";
    let object = format!("<object><name>disc</name>{box_text}</object>");
    let root = voc(&folder, format!("<annotation>{object}</annotation>"));
    eval_voc(&root).quiet().fails(2, &words);
}

#[test]
fn difficult_objects_alone_have_no_precision() {
    let folder = TempFolder::new("annotations-difficult");
    let annotation = voc_annotation(&[("disc", [5, 5, 20, 20])]);
    let root = voc(&folder, annotation.replace("<difficult>0", "<difficult>1"));
    let report = eval_voc(&root).quiet().report();
    assert_eq!([&report["map50"], &report["map"]], [&Value::Null, &Value::Null], "{report}");
    let printed = eval_voc(&root).quiet().succeed();
    let last = printed.lines().last().unwrap();
    assert!(last.contains("no objects"), "{printed}");
}

#[test]
fn repeated_annotations_are_dropped_and_an_error_with_strict() {
    let folder = TempFolder::new("annotations-repeated");
    let (images, coco) = edited(&folder, |file| {
        let all = file["annotations"].as_array_mut().unwrap();
        all.extend(all.clone());
    });
    eval(images, &coco).warns(&["dropped 48 boxes that occur twice", "48 objects"]);
    assert_as_original(&eval(images, &coco));
    eval(images, &coco).arg("--strict").quiet().fails(2, &["00.png", "twice"]);
}

#[test]
fn results_over_a_part_of_the_images_need_consent() {
    let folder = TempFolder::new("annotations-part");
    let (images, coco) = edited(&folder, |file| {
        for image in file["images"].as_array_mut().unwrap().iter_mut().take(3) {
            image["file_name"] = json!("elsewhere.png");
        }
    });
    let command = Command::new("detect eval").arg(&trained().run).arg(images);
    let command = command.option("--coco", &coco).on_cpu().quiet();
    command.fails(2, &["only 21 of 24 images", "--partial"]);
    eval(images, &coco).quiet().succeed();
}

/// `x.xml` could be for `x.jpg` or `x.png`. Its `<filename>` says which.
#[test]
fn a_voc_file_is_for_the_image_that_it_names() {
    let folder = TempFolder::new("annotations-named");
    let boxes = text(format!("{}/Annotations/00.xml", trained().shapes.root));
    let root = voc(&folder, &boxes);
    let image = image::open(folder.path("voc/JPEGImages/00.png")).unwrap().into_luma8();
    image.save(folder.path("voc/JPEGImages/00.bmp")).unwrap();
    eval_voc(&root).output().assert_failed_with(2, &["no image has valid annotations"]);
    let named = |name: &str| boxes.replacen('>', &format!("><filename>{name}</filename>"), 1);
    folder.write("voc/Annotations/00.xml", named("photos\\00.PNG"));
    let report = eval_voc(&root).quiet().report();
    assert_eq!((&report["images"], &report["objects"]), (&json!(1), &json!(2)));
    eval_voc(&root).warns(&["no annotations for 1 image", "00.bmp"]);
    folder.write("voc/Annotations/00.xml", named("01.png"));
    eval_voc(&root).output().assert_failed_with(2, &["no image has valid annotations"]);
}

#[test]
fn repeated_coco_ids_are_said_and_an_error_with_strict() {
    let folder = TempFolder::new("annotations-ids");
    let (images, coco) = edited(&folder, |file| {
        let id = file["images"][0]["id"].clone();
        file["images"][1]["id"] = id;
    });
    eval(images, &coco).warns(&["1 id of several images", "00.png", "01.png"]);
    eval(images, &coco).arg("--strict").quiet().fails(2, &["image 2", "00.png", "01.png"]);
    // The same image twice loses nothing.
    let (images, coco) = edited(&folder, |file| {
        let first = file["images"][0].clone();
        file["images"].as_array_mut().unwrap().push(first);
    });
    assert_as_original(&eval(images, &coco).arg("--strict"));
}

/// Boxes may exceed their image by a pixel of the annotation, not of the image.
#[test]
fn the_tolerance_of_clipping_is_scaled_with_the_boxes() {
    let folder = TempFolder::new("annotations-tolerance");
    for (scale, beyond, is_clipped) in
        [(0.5, 1.0, false), (0.5, 1.5, true), (2.0, 1.0, false), (2.0, 1.5, true)]
    {
        let (images, coco) = edited(&folder, |file| {
            resized(file, [48.0 * scale, 64.0 * scale], scale);
            file["annotations"][0]["bbox"] = json!([4.0, 4.0, 64.0 * scale - 4.0 + beyond, 10.0]);
        });
        let messages = eval(images, &coco).messages();
        assert_eq!(messages.contains("clipped 1 box"), is_clipped, "{scale} {beyond}: {messages}");
    }
}
