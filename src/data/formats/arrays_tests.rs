//! Tests of sets of samples in files of numbers: valid, invalid and hostile files.

use std::io::Cursor;

use super::*;
use crate::data::images::Images;
use crate::data::numbers::npy_header;
use crate::data::{Pixels, SampleType};
use crate::shape::Size;
use crate::testing::Folder;

/// A file with the given header text.
fn npy(version: u8, dictionary: &str, values: &[u8]) -> Vec<u8> {
    let mut bytes = b"\x93NUMPY".to_vec();
    bytes.extend([version, 0]);
    match version {
        1 => bytes.extend((dictionary.len() as u16).to_le_bytes()),
        _ => bytes.extend((dictionary.len() as u32).to_le_bytes()),
    }
    bytes.extend(dictionary.as_bytes());
    bytes.extend(values);
    bytes
}

/// A file of version 1 in C order.
fn plain(descr: &str, shape: &str, values: &[u8]) -> Vec<u8> {
    npy(
        1,
        &format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}   \n"),
        values,
    )
}

fn read_as(bytes: &[u8], want: &LoadOptions) -> Result<(Images, String), String> {
    let folder = Folder::new("arrays");
    let path = folder.write("x.npy", bytes);
    let opened = open(&path, want, 1 << 30).map_err(|e| e.to_string())?;
    match opened.pixels {
        Pixels::Resident(images) => Ok((images, opened.description)),
        Pixels::Streamed(_) => Err("streamed".to_owned()),
    }
}

fn read(bytes: &[u8]) -> Result<Images, String> {
    read_as(bytes, &LoadOptions::default()).map(|(images, _)| images)
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}

#[test]
fn three_dimensions_are_gray_images() {
    let values: Vec<u8> = (0..160).collect();
    let gray = read(&plain("|u1", "(2, 8, 10)", &values)).unwrap();
    assert_eq!((gray.len(), gray.channels, gray.common_size()), (2, 1, Some(Size::new(8, 10))));
    assert_eq!(gray.image(1), &values[80..]);
}

#[test]
fn axes_can_be_stated() {
    let values: Vec<u8> = (0..24).collect();
    for (layout, c, size, first) in [
        ("NCHW", 3, Size::new(2, 2), [0, 4, 8, 1, 5, 9]),
        ("NHWC", 2, Size::new(3, 2), [0, 1, 2, 3, 4, 5]),
        ("CNHW", 2, Size::new(2, 2), [0, 12, 1, 13, 2, 14]),
    ] {
        let layout = layout.parse().unwrap();
        let want = LoadOptions { layout: Some(&layout), ..LoadOptions::default() };
        let (images, description) = read_as(&plain("|u1", "(2,3,2,2)", &values), &want).unwrap();
        assert_eq!((images.channels, images.common_size()), (c, Some(size)), "{layout}");
        assert_eq!(images.image(0)[..6], first, "{layout}");
        assert!(description.contains(&format!("axes 2x3x2x2 as {layout}")), "{description}");
    }
    let layout = "NCL".parse().unwrap();
    let want = LoadOptions { layout: Some(&layout), ..LoadOptions::default() };
    let message = read_as(&plain("|u1", "(2,3,2,2)", &values), &want).unwrap_err();
    assert!(message.contains("NCL has 3 axes, but the array has 4"), "{message}");
}

#[test]
fn elements_keep_their_type_or_become_floats() {
    let layout = "NHW".parse().unwrap();
    let want = LoadOptions { layout: Some(&layout), ..LoadOptions::default() };
    let read = |descr: &str, values: &[u8]| {
        let (images, description) = read_as(&plain(descr, "(1, 1, 2)", values), &want).unwrap();
        (images.encoding.sample, images.encoding.sample.values(&images.bytes), description)
    };
    let (sample, values, _) = read(">u2", &[1, 2, 255, 255]);
    assert_eq!((sample, values), (SampleType::U16, vec![258.0, 65535.0]));
    let (sample, values, _) = read("<f4", &floats(&[-2.5, 7e9]));
    assert_eq!((sample, values), (SampleType::F32, vec![-2.5, 7e9]));
    let (sample, values, _) = read("<i2", &[0xff, 0xff, 2, 0]);
    assert_eq!((sample, values), (SampleType::F32, vec![-1.0, 2.0]));
    let (sample, values, _) = read("<f2", &[0, 0x3c, 0, 0xc0]);
    assert_eq!((sample, values), (SampleType::F16, vec![1.0, -2.0]));
    let doubles: Vec<u8> = [1.0_f64, 254.6].iter().flat_map(|x| x.to_le_bytes()).collect();
    let (sample, values, description) = read("<f8", &doubles);
    assert_eq!((sample, values), (SampleType::F32, vec![1.0, 254.6]));
    assert!(description.contains("64-bit float numbers are stored as 32-bit float"));
}

#[test]
fn invalid_files_are_refused_with_a_reason() {
    let header = |text: &str| npy(1, text, &[0; 4]);
    let long = format!("({})", "1,".repeat(40));
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (vec![], "the file is empty"),
        (b"\x93NUMPY\x01".to_vec(), "ends inside"),
        (b"\x93NUMPY\x01\0\xff\xff{".to_vec(), "ends inside"),
        (b"\x93NUMPY\x02\0\xff\xff\xff\xff{".to_vec(), "the header has 4294967295 bytes"),
        (b"\x93NUMPY\x09\0\0\0".to_vec(), "version 9.0"),
        (b"PK\x03\x04 a zip file".to_vec(), "damaged: invalid Zip"),
        (header(""), "{ is missing"),
        (header("{'descr': '|u1', 'fortran_order': False, 'shape': (1, 2, 2)"), "comma or }"),
        (header("{'descr': '|u1', 'fortran_order': False}"), "is missing"),
        (header("{'descr': '|u1', 'descr': '|u1'}"), "twice"),
        (header("{'descr': '|u1', 'spare': 1}"), "unknown key"),
        (header("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}"), "structured"),
        (header("{'descr': '|u1"), "not closed"),
        (
            header("{'descr': '|u1', 'fortran_order': 0, 'shape': (1, 2, 2)}"),
            "neither True nor False",
        ),
        (header("{'descr': '|u1', 'fortran_order': False, 'shape': (1, 2, 2)} x"), "after the }"),
        (plain("|u1", "(1, -2, 2)", &[]), "negative"),
        (plain("|u1", "(1, 99999999999999999999999, 2)", &[]), "not a 64-bit number"),
        (plain("|u1", "(1 2 2)", &[]), "comma or )"),
        (plain("|u1", &long, &[]), "32 dimensions"),
        (plain("|u1", "(4294967296, 4294967296, 4294967296)", &[]), "impossible"),
        (plain("|u1", "(20000000, 1, 1)", &vec![0; 20_000_000]), "can be NHW (20000000 images"),
        (
            plain("|u1", "(2, 2, 2)", &[0; 7]),
            "the shape 2x2x2 of |u1 needs 8 bytes of values, and it has 7",
        ),
        (
            plain("|u1", "(2, 2, 2)", &[0; 9]),
            "the shape 2x2x2 of |u1 needs 8 bytes of values, and it has 9",
        ),
        (plain("|u1", "(0, 2, 2)", &[]), "the array is empty"),
        (plain("|u1", "(4,)", &[0; 4]), "if these are labels, name the file of the samples"),
        (plain("|u1", "()", &[0]), "single number"),
        (plain("|u1", "(1, 2, 2, 2)", &[0; 8]), "can be NCHW"),
        (plain("<c8", "(1, 1, 1)", &[0; 8]), "complex"),
    ];
    for (bytes, expected) in cases {
        let message = read(&bytes).unwrap_err();
        assert!(
            message.contains(expected) && !message.contains('\n'),
            "{message} (expected {expected})"
        );
    }
}

#[test]
fn a_file_that_is_cut_off_is_refused_wherever_it_is_cut() {
    let whole = plain("|u1", "(2, 2, 2)", &[0; 8]);
    for end in 0..whole.len() {
        read(&whole[..end]).unwrap_err();
    }
}

fn read_labels(bytes: &[u8]) -> Result<Labels, String> {
    let file = Box::new(Cursor::new(bytes.to_vec()));
    numbers::open_input(file, Path::new("labels.npy"), None, 1 << 30)
        .and_then(|mut file| labels(&mut file))
        .map_err(|e| e.to_string())
}

#[test]
fn labels_can_be_integers_of_any_type() {
    let long: Vec<u8> = [2_i64, 0].iter().flat_map(|x| x.to_le_bytes()).collect();
    let labels = read_labels(&plain("<i8", "(2,)", &long)).unwrap();
    // The classes are the numbers that occur.
    assert_eq!((labels.of, labels.classes), (vec![1, 0], vec!["0".to_owned(), "2".to_owned()]));
    let labels = read_labels(&plain(">u2", "(2, 1)", &[0, 1, 1, 0])).unwrap();
    assert_eq!(labels.classes, ["1", "256"]);
}

#[test]
fn invalid_labels_are_refused_with_a_reason() {
    for (bytes, expected) in [
        (plain("|i1", "(1,)", &[0xff]), "label 0 is -1"),
        (plain("<u8", "(1,)", &[0xff; 8]), "label 0 is"),
        (plain("<f4", "(1,)", &[0; 4]), "integers"),
        (plain("|u1", "(2, 2)", &[0; 4]), "one integer per sample"),
        (plain("|u1", "(3,)", &[0; 2]), "the shape 3 of |u1 needs 3 bytes of values, and it has 2"),
        (plain("", "(3,)", &[0; 2]), "unknown type"),
    ] {
        let message = read_labels(&bytes).unwrap_err();
        assert!(
            message.contains(expected) && !message.contains('\n'),
            "{message} (expected {expected})"
        );
    }
}

#[test]
fn headers_are_aligned_and_say_all() {
    for (dtype, shape) in [("<f4", vec![3, 4]), ("<f4", vec![60_000, 128, 7, 7]), ("<i8", vec![5])]
    {
        let header = npy_header::encode(dtype, &shape);
        assert!(header.len().is_multiple_of(64) && header.ends_with(b"\n"), "{}", header.len());
        let text = String::from_utf8_lossy(&header[10..]);
        let sizes: Vec<String> = shape.iter().map(usize::to_string).collect();
        assert!(
            text.contains(dtype) && text.contains(&format!("({},)", sizes.join(","))),
            "{text}"
        );
    }
}
