//! What is streamed is what would have been in memory.

use image::{DynamicImage, GrayImage, ImageFormat, RgbImage};

use super::array::{Array, Sample};
use super::patches::grid;
use super::{Catalogue, Handles, Images, Pixels, Places, Wanted, describe_skipped, open, patches};
use crate::testing::{Folder, encoded};

const MUCH: u64 = 1 << 30;

fn picture(i: u32, colour: bool) -> Vec<u8> {
    let (w, h) = (9 + i % 7, 8 + i % 5);
    let image: DynamicImage = if colour {
        RgbImage::from_fn(w, h, |x, y| image::Rgb([(x * 9 + i) as u8, (y * 7) as u8, 3])).into()
    } else {
        GrayImage::from_fn(w, h, |x, y| image::Luma([(x * 9 + y * 5 + i) as u8])).into()
    };
    encoded(&image, ImageFormat::Png)
}

fn both(source: &str, want: &Wanted) -> (Images, Catalogue) {
    let Pixels::Resident(images) = open(source, want, MUCH).unwrap().pixels else {
        panic!("{source}: not resident")
    };
    let Pixels::Streamed(catalogue) = open(source, want, 100).unwrap().pixels else {
        panic!("{source}: not streamed")
    };
    (images, (*catalogue).clone())
}

fn same(images: &Images, catalogue: &Catalogue) {
    let mut handles = Handles::default();
    assert_eq!(catalogue.len(), images.len());
    assert!((0..images.len()).all(|i| catalogue.name(i) == images.names[i]));
    let (streamed, resident) =
        (Pixels::Streamed(catalogue.clone().into()), Pixels::Resident(images.clone()));
    assert!((0..images.len()).all(|i| streamed.shares_file_with_previous(i) == resident.shares_file_with_previous(i)));
    for i in (0..images.len()).rev() {
        assert_eq!(catalogue.size(i), (images.table[i].h, images.table[i].w));
        assert!(catalogue.read(i, &mut handles).unwrap() == images.image(i), "image {i}");
    }
    assert!(catalogue.collect().unwrap() == *images);
    assert_eq!(catalogue.describe(), images.describe());
}

/// In memory and streamed, as they are and in every fit.
fn same_in_every_fit(source: &str, want: &Wanted) {
    let (images, catalogue) = both(source, want);
    same(&images, &catalogue);
    let ((train, validation), (train_of, validation_of)) =
        (images.clone().split(0.3, 5), catalogue.split(0.3, 5));
    same(&train, &train_of);
    same(&validation, &validation_of);
    let (mut large, mut large_of) = (images.clone(), catalogue.clone());
    large.ensure_at_least(12, 10).unwrap();
    large_of.ensure_at_least(12, 10).unwrap();
    same(&large, &large_of);
    same(&patches::images(&large, 5, 4).unwrap(), &large_of.patches(5, 4).unwrap());
    let chosen = grid(&large, 5, 4, 7, 3);
    let cut = large_of.windows(&chosen, 5, 4).collect().unwrap();
    assert_eq!(
        patches::cut(&cut, &grid(&cut, 5, 4, 7, 3), 5, 4),
        patches::cut(&large, &chosen, 5, 4)
    );
    let (mut exact, mut exact_of) = (images, catalogue);
    exact.resize_all(6, 11).unwrap();
    exact_of.resize_all(6, 11).unwrap();
    same(&exact, &exact_of);
}

#[test]
fn folders_and_lists_stream() {
    let folder = Folder::new("stream_folder");
    let mut list = String::new();
    for i in 0..20 {
        let name = format!("{}/{i:02}.png", if i % 2 == 0 { "even" } else { "odd" });
        folder.write(&name, &picture(i, i == 13));
        list = format!("{name}\n\n{list}");
    }
    folder.write("odd/broken.png", b"no picture");
    let source = folder.path.to_str().unwrap();
    for channels in [None, Some(1), Some(3)] {
        same_in_every_fit(source, &Wanted { channels, strict: false, memory: None });
    }
    let opened = open(source, &Wanted::default(), 100).unwrap();
    assert_eq!((opened.skipped.len(), opened.pixels.channels()), (1, 3));
    assert!(
        open(source, &Wanted { channels: None, strict: true, memory: None }, 100)
            .unwrap_err()
            .to_string()
            .contains("broken.png")
    );
    let path = folder.write("list.txt", list.as_bytes());
    let source = format!("@{}", path.display());
    same_in_every_fit(&source, &Wanted::default());
    let (images, _) = both(&source, &Wanted::default());
    assert!(images.names[0] == "odd/19.png" && images.labels.is_none());
    folder.write("list.txt", b"\n \n");
    assert!(
        open(&source, &Wanted::default(), MUCH)
            .unwrap_err()
            .to_string()
            .contains("the list is empty")
    );
    folder.write("list.txt", b"\xff\xfe");
    assert!(
        open(&source, &Wanted::default(), MUCH)
            .unwrap_err()
            .to_string()
            .contains("byte 0 is not UTF-8")
    );
    folder.write("list.txt", b"nowhere.png\neven/00.png\n");
    assert_eq!(open(&source, &Wanted::default(), MUCH).unwrap().skipped.len(), 1);
}

#[test]
fn files_of_records_stream() {
    let folder = Folder::new("stream_records");
    let values: Vec<u8> = (0..1200u32).map(|i| ((i * i) >> 3) as u8).collect();
    let idx = [&[0, 0, 8, 3, 0, 0, 0, 12, 0, 0, 0, 10, 0, 0, 0, 10][..], &values].concat();
    let images = folder.write("train-images-idx3-ubyte", &idx);
    folder.write(
        "train-labels-idx1-ubyte",
        &[0, 0, 8, 1, 0, 0, 0, 12, 0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2],
    );
    let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (4, 3, 10, 10), }";
    let mut npy =
        [b"\x93NUMPY\x01\0", &(header.len() as u16).to_le_bytes()[..], header.as_bytes()].concat();
    npy.extend(values.iter().flat_map(|v| (f32::from(*v) / 255.0).to_le_bytes()));
    let npy = folder.write("x.npy", &npy);
    let records: Vec<u8> = (0..3 * 3073u32)
        .map(|i| if i % 3073 == 0 { (i / 3073) as u8 } else { ((i * i) >> 4) as u8 })
        .collect();
    let cifar = folder.write("cifar/data_batch_1.bin", &records);
    folder.write("cifar/data_batch_2.bin", &records);
    for source in [&images, &npy, &cifar, &folder.path.join("cifar")] {
        for channels in [None, Some(1), Some(3)] {
            same_in_every_fit(
                source.to_str().unwrap(),
                &Wanted { channels, strict: false, memory: None },
            );
        }
        let wrong = open(
            source.to_str().unwrap(),
            &Wanted { channels: Some(2), strict: false, memory: None },
            100,
        );
        assert!(wrong.unwrap_err().to_string().contains("cannot be turned into 2"));
    }
    assert_eq!(both(images.to_str().unwrap(), &Wanted::default()).1.labels.unwrap().of.len(), 12);
    assert!(
        open(npy.to_str().unwrap(), &Wanted::default(), MUCH)
            .unwrap()
            .description
            .contains("rounded to 8 bits")
    );
    folder.write("train-images-idx3-ubyte", &[&idx[..], &[0]].concat());
    assert!(
        open(images.to_str().unwrap(), &Wanted::default(), 100)
            .unwrap_err()
            .to_string()
            .contains("more than")
    );
    folder.write("train-images-idx3-ubyte", &idx[..900]);
    assert!(
        open(images.to_str().unwrap(), &Wanted::default(), 100)
            .unwrap_err()
            .to_string()
            .contains("holds fewer")
    );
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut packed, &idx).unwrap();
    let packed = folder.write("packed-idx3.gz", &packed.finish().unwrap());
    assert!(
        open(packed.to_str().unwrap(), &Wanted::default(), 100)
            .unwrap_err()
            .to_string()
            .contains("gunzip")
    );
}

#[test]
fn patches_and_records_are_not_listed() {
    // A million patches of one file, of which the size is enough.
    let places = Places::Files {
        root: "photos".into(),
        files: vec!["a/one.png".into()],
        sizes: vec![[4000, 4002]],
        decoding: 0,
    };
    let file = Catalogue::new(places, 1, None);
    let patches = file.patches(4, 4).unwrap();
    assert_eq!((patches.len(), patches.held_bytes() - file.held_bytes()), (1_000_000, 8));
    assert_eq!(
        (
            patches.name(999_999).as_str(),
            patches.shares_file_with_previous(999_999),
            patches.shares_file_with_previous(0)
        ),
        ("a/one.png", true, false)
    );
    assert!(
        file.patches(4000, 4001).unwrap().len() == 1
            && file.patches(1, 1).unwrap().len() == 4000 * 4002
    );
    // Ten million records, of which a tenth is held out.
    let array = Array {
        start: 8,
        count: 10_000_000,
        skip: 0,
        h: 9,
        w: 9,
        c: 1,
        planar: false,
        sample: Sample::U8,
    };
    let records = Catalogue::new(Places::Records(vec![("x.npy".into(), array)]), 1, None);
    assert!(records.held_bytes() < 200, "{}", records.held_bytes());
    assert_eq!(
        (records.name(42).as_str(), records.len(), records.size(7)),
        ("0000042", 10_000_000, (9, 9))
    );
    let (train, validation) = records.split(0.1, 1);
    assert_eq!(
        (train.held_bytes() - records.held_bytes(), validation.len()),
        (4 * 9_000_000, 1_000_000)
    );
    let many = Places::Files {
        root: "".into(),
        files: vec!["a.png".into(); 300],
        sizes: vec![[4000, 4000]; 300],
        decoding: 0,
    };
    let refused = Catalogue::new(many, 1, None).patches(1, 1).unwrap_err().to_string();
    assert!(refused.contains("patches of 1x1"), "{refused}");
}

#[test]
fn what_was_skipped_is_counted_and_named() {
    let skipped: Vec<_> = (0..7).map(|i| (format!("{i}.png"), "is broken".to_owned())).collect();
    let lines = describe_skipped(&skipped, 5);
    assert!(
        lines.len() == 6 && lines[0].starts_with("skipped 7 files") && lines[0].contains("first 5"),
        "{lines:?}"
    );
    assert_eq!(describe_skipped(&skipped, usize::MAX).len(), 8);
    assert_eq!(
        describe_skipped(&skipped, 0),
        ["skipped 7 files that cannot be used (--strict makes it an error)"]
    );
    assert!(
        describe_skipped(&[], 5).is_empty()
            && describe_skipped(&skipped[..1], 5)[0].contains("skipped 1 file that")
    );
}
