//! Tests that streamed images equal images in memory.

use image::{DynamicImage, GrayImage, ImageFormat, RgbImage};

use super::array::Array;
use super::patches::grid;
use super::{Catalogue, Handles, Images, LoadOptions, Pixels, Storage, open, patches};
use crate::sample_type::SampleType;
use crate::shape::{Dims, Size};
use crate::testing::{Folder, encoded};

/// A limit that every set of this file fits into.
const RESIDENT: u64 = 1 << 30;

/// A limit that no set of this file fits into.
const STREAMED: u64 = 100;

fn picture(i: u32, colour: bool) -> Vec<u8> {
    let (w, h) = (9 + i % 7, 8 + i % 5);
    let image: DynamicImage = if colour {
        RgbImage::from_fn(w, h, |x, y| image::Rgb([(x * 9 + i) as u8, (y * 7) as u8, 3])).into()
    } else {
        GrayImage::from_fn(w, h, |x, y| image::Luma([(x * 9 + y * 5 + i) as u8])).into()
    };
    encoded(&image, ImageFormat::Png)
}

/// A source, in memory and streamed.
fn both(source: &str, want: &LoadOptions) -> (Images, Catalogue) {
    let Pixels::Resident(images) = open(source, want, RESIDENT).unwrap().pixels else {
        panic!("{source}: not resident")
    };
    let Pixels::Streamed(catalogue) = open(source, want, STREAMED).unwrap().pixels else {
        panic!("{source}: not streamed")
    };
    (images, (*catalogue).clone())
}

/// The error of opening a source.
fn refusal(source: &str, want: &LoadOptions, limit: u64) -> String {
    open(source, want, limit).unwrap_err().to_string()
}

fn assert_equal(images: &Images, catalogue: &Catalogue) {
    let mut handles = Handles::default();
    assert_eq!(catalogue.len(), images.len());
    assert!((0..images.len()).all(|i| catalogue.name(i) == images.names[i]));
    let (streamed, resident) =
        (Pixels::Streamed(catalogue.clone().into()), Pixels::Resident(images.clone()));
    for i in 0..images.len() {
        assert_eq!(streamed.shares_file_with_previous(i), resident.shares_file_with_previous(i));
    }
    for i in (0..images.len()).rev() {
        assert_eq!(catalogue.size(i), images.table[i].size);
        assert!(catalogue.read(i, &mut handles).unwrap() == images.image(i), "image {i}");
    }
    assert!(catalogue.collect().unwrap() == *images);
    assert_eq!(catalogue.describe(), images.describe());
}

/// Compares a source in memory with the streamed source: unchanged, split, enlarged, as patches,
/// and resized.
fn assert_streams(source: &str, want: &LoadOptions) {
    let (images, catalogue) = both(source, want);
    assert_equal(&images, &catalogue);
    let ((train, validation), (train_of, validation_of)) =
        (images.clone().split(0.3, 5).unwrap(), catalogue.split(0.3, 5));
    assert_equal(&train, &train_of);
    assert_equal(&validation, &validation_of);
    let (mut large, mut large_of) = (images.clone(), catalogue.clone());
    large.ensure_at_least(Size::new(12, 10)).unwrap();
    large_of.ensure_at_least(Size::new(12, 10)).unwrap();
    assert_equal(&large, &large_of);
    let size = Size::new(5, 4);
    assert_equal(&patches::images(&large, size).unwrap(), &large_of.patches(size).unwrap());
    let chosen = grid(&large, size, 7, 3);
    let cut = large_of.windows(&chosen, size).collect().unwrap();
    assert_eq!(
        patches::cut(&cut, &grid(&cut, size, 7, 3), size),
        patches::cut(&large, &chosen, size)
    );
    let (mut exact, mut exact_of) = (images, catalogue);
    exact.resize_all(Size::new(6, 11)).unwrap();
    exact_of.resize_all(Size::new(6, 11)).unwrap();
    assert_equal(&exact, &exact_of);
}

/// A folder of two classes with 20 images, one of them RGB, and a broken file. Also returns the
/// names of the images in reverse order, one per line.
fn folder_of_images(name: &str) -> (Folder, String) {
    let folder = Folder::new(name);
    let mut list = String::new();
    for i in 0..20 {
        let name = format!("{}/{i:02}.png", if i % 2 == 0 { "even" } else { "odd" });
        folder.write(&name, &picture(i, i == 13));
        list = format!("{name}\n\n{list}");
    }
    folder.write("odd/broken.png", b"not an image");
    (folder, list)
}

/// A TIFF file of gray pages with 16 bits. The value of a pixel tells its page.
fn stack(pages: u16, [w, h]: [u32; 2]) -> Vec<u8> {
    use tiff::encoder::{TiffEncoder, colortype::Gray16};
    let mut bytes = std::io::Cursor::new(Vec::new());
    let mut encoder = TiffEncoder::new(&mut bytes).unwrap();
    for page in 0..pages {
        let values: Vec<u16> = (0..w * h).map(|i| 1000 * page + i as u16).collect();
        encoder.write_image::<Gray16>(w, h, &values).unwrap();
    }
    bytes.into_inner()
}

#[test]
fn pages_of_tiff_files_are_streamed() {
    let folder = Folder::new("stream_pages");
    folder.write("a/stack.tif", &stack(11, [7, 9]));
    folder.write("b/other.tif", &stack(2, [8, 6]));
    folder.write("b/plain.png", &picture(3, false));
    let source = folder.path.to_str().unwrap();
    assert_streams(source, &LoadOptions::default());
    let (images, _) = both(source, &LoadOptions::default());
    let names = ["a/stack_page01.tif", "a/stack_page11.tif", "b/other_page2.tif", "b/plain.png"];
    assert_eq!([0, 10, 12, 13].map(|i| images.names[i].as_str()), names);
    assert_eq!(images.labels.as_ref().unwrap().of[10..12], [0, 1]);
    let first = |image: usize| u16::from_le_bytes([images.image(image)[2], images.image(image)[3]]);
    assert_eq!([first(0), first(10), first(12)], [1, 10_001, 1001]);
    // Beside annotations, only the first page of each file is read, and 16 bits are reduced.
    let want = LoadOptions { eight_bits: true, ..LoadOptions::default() };
    let opened = open(source, &want, RESIDENT).unwrap();
    assert_eq!(
        (opened.pixels.len(), opened.report.several.len(), opened.report.reduced),
        (3, 2, 2)
    );
}

#[test]
fn folders_are_streamed() {
    let (folder, _) = folder_of_images("stream_folder");
    let source = folder.path.to_str().unwrap();
    for channels in [None, Some(1), Some(3)] {
        assert_streams(source, &LoadOptions { channels, strict: false, ..LoadOptions::default() });
    }
}

#[test]
fn broken_files_are_found_when_a_stream_is_opened() {
    let (folder, _) = folder_of_images("stream_broken");
    let source = folder.path.to_str().unwrap();
    let opened = open(source, &LoadOptions::default(), STREAMED).unwrap();
    assert_eq!((opened.report.skipped.len(), opened.pixels.channels()), (1, 3));
    let message = refusal(
        source,
        &LoadOptions { channels: None, strict: true, ..LoadOptions::default() },
        STREAMED,
    );
    assert!(message.contains("broken.png"), "{message}");
}

#[test]
fn lists_are_streamed_in_their_order() {
    let (folder, list) = folder_of_images("stream_list");
    let source = format!("@{}", folder.write("list.txt", list.as_bytes()).display());
    assert_streams(&source, &LoadOptions::default());
    let (images, _) = both(&source, &LoadOptions::default());
    assert!(images.names[0] == "odd/19.png" && images.labels.is_none());
}

#[test]
fn invalid_lists_are_refused() {
    let folder = Folder::new("stream_bad_list");
    for (list, expected) in
        [(&b"\n \n"[..], "the list is empty"), (b"\xff\xff", "byte 0 is not UTF-8")]
    {
        let source = format!("@{}", folder.write("list.txt", list).display());
        let message = refusal(&source, &LoadOptions::default(), RESIDENT);
        assert!(message.contains("list.txt") && message.contains(expected), "{message}");
    }
}

#[test]
fn missing_files_of_a_list_are_skipped() {
    let (folder, _) = folder_of_images("stream_missing");
    let list = folder.write("list.txt", b"nowhere.png\neven/00.png\n");
    let source = format!("@{}", list.display());
    assert_eq!(open(&source, &LoadOptions::default(), RESIDENT).unwrap().report.skipped.len(), 1);
}

/// An IDX file of 12 gray images of 10×10 pixels.
fn idx() -> Vec<u8> {
    let values: Vec<u8> = (0..1200u32).map(|i| ((i * i) >> 3) as u8).collect();
    [&[0, 0, 8, 3, 0, 0, 0, 12, 0, 0, 0, 10, 0, 0, 0, 10][..], &values].concat()
}

/// Checks that a file of records is streamed with every number of channels, and refuses two.
fn assert_records_stream(source: &str) {
    for channels in [None, Some(1), Some(3)] {
        assert_streams(source, &LoadOptions { channels, strict: false, ..LoadOptions::default() });
    }
    let message = refusal(
        source,
        &LoadOptions { channels: Some(2), strict: false, ..LoadOptions::default() },
        STREAMED,
    );
    assert!(message.contains("cannot be converted to 2"), "{message}");
}

#[test]
fn idx_files_are_streamed_with_their_labels() {
    let folder = Folder::new("stream_idx");
    let images = folder.write("train-images-idx3-ubyte", &idx());
    folder.write(
        "train-labels-idx1-ubyte",
        &[0, 0, 8, 1, 0, 0, 0, 12, 0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2],
    );
    let source = images.to_str().unwrap();
    assert_records_stream(source);
    assert_eq!(both(source, &LoadOptions::default()).1.labels.unwrap().of.len(), 12);
}

#[test]
fn npy_files_are_streamed() {
    let folder = Folder::new("stream_npy");
    let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (4, 3, 10, 10), }";
    let mut npy =
        [b"\x93NUMPY\x01\0", &(header.len() as u16).to_le_bytes()[..], header.as_bytes()].concat();
    npy.extend(idx()[16..].iter().flat_map(|v| (f32::from(*v) / 255.0).to_le_bytes()));
    let npy = folder.write("x.npy", &npy);
    let source = npy.to_str().unwrap();
    assert_records_stream(source);
    let description = open(source, &LoadOptions::default(), RESIDENT).unwrap().description;
    assert!(description.contains("axes 4x3x10x10 as NCHW"), "{description}");
}

#[test]
fn cifar_files_and_folders_are_streamed() {
    let folder = Folder::new("stream_cifar");
    let records: Vec<u8> = (0..3 * 3073u32)
        .map(|i| if i % 3073 == 0 { (i / 3073) as u8 } else { ((i * i) >> 4) as u8 })
        .collect();
    let file = folder.write("data_batch_1.bin", &records);
    folder.write("data_batch_2.bin", &records);
    assert_records_stream(file.to_str().unwrap());
    assert_records_stream(folder.path.to_str().unwrap());
}

#[test]
fn idx_files_of_the_wrong_size_are_not_streamed() {
    let folder = Folder::new("stream_idx_size");
    for (bytes, expected) in [
        ([&idx()[..], &[0]].concat(), "more bytes of values than"),
        (idx()[..900].to_vec(), "has fewer bytes"),
    ] {
        let file = folder.write("images-idx3-ubyte", &bytes);
        let message = refusal(file.to_str().unwrap(), &LoadOptions::default(), STREAMED);
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn gzipped_files_are_not_streamed() {
    let folder = Folder::new("stream_gzip");
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut packed, &idx()).unwrap();
    let packed = folder.write("packed-idx3.gz", &packed.finish().unwrap());
    let message = refusal(packed.to_str().unwrap(), &LoadOptions::default(), STREAMED);
    assert!(message.contains("gunzip"), "{message}");
}

#[test]
fn a_million_patches_take_no_memory() {
    let storage = Storage::Files {
        root: "photos".into(),
        files: vec!["a/one.png".into()],
        sizes: vec![[4000, 4002]],
        decoding: 0,
        pages: Vec::new(),
    };
    let file = Catalogue::new(storage, 1, SampleType::U8, None);
    let patches = file.patches(Size::new(4, 4)).unwrap();
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
        file.patches(Size::new(4000, 4001)).unwrap().len() == 1
            && file.patches(Size::new(1, 1)).unwrap().len() == 4000 * 4002
    );
}

#[test]
fn ten_million_records_take_no_memory() {
    let array =
        Array { start: 8, count: 10_000_000, skip: 0, dims: Dims::new(1, 9, 9), planar: false };
    let records =
        Catalogue::new(Storage::Records(vec![("x.npy".into(), array)]), 1, SampleType::U8, None);
    assert!(records.held_bytes() < 200, "{}", records.held_bytes());
    assert_eq!(
        (records.name(42).as_str(), records.len(), records.size(7)),
        ("0000042", 10_000_000, Size::new(9, 9))
    );
    // A split stores a 32-bit index per record.
    let (train, validation) = records.split(0.1, 1);
    assert_eq!(
        (train.held_bytes() - records.held_bytes(), validation.len()),
        (4 * 9_000_000, 1_000_000)
    );
}

#[test]
fn more_patches_than_32_bit_indices_are_refused() {
    let many = Storage::Files {
        root: "".into(),
        files: vec!["a.png".into(); 300],
        sizes: vec![[4000, 4000]; 300],
        decoding: 0,
        pages: Vec::new(),
    };
    let many = Catalogue::new(many, 1, SampleType::U8, None);
    let message = many.patches(Size::new(1, 1)).unwrap_err().to_string();
    assert!(message.contains("patches of 1x1"), "{message}");
}
