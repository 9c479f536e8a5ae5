//! Tests of the `.npy` parser with valid, invalid and hostile files.

use std::io::Cursor;

use super::*;
use crate::data::images::Images;
use crate::shape::Size;

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

fn read(bytes: &[u8]) -> Result<Images, String> {
    let mut file = Cursor::new(bytes);
    let array = array(&mut file, bytes.len() as u64).map_err(|e| e.to_string())?;
    array.read_all(&mut file).map_err(|e| e.to_string())
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}

#[test]
fn three_dimensions_are_gray_images() {
    let values: Vec<u8> = (0..24).collect();
    let gray = read(&plain("|u1", "(2, 3, 4)", &values)).unwrap();
    assert_eq!((gray.len(), gray.channels, gray.common_size()), (2, 1, Some(Size::new(3, 4))));
    assert_eq!(gray.image(1), &values[12..]);
}

#[test]
fn channels_can_be_first_or_last() {
    let values: Vec<u8> = (0..24).collect();
    let planes = read(&plain("|u1", "(2,3,2,2)", &values)).unwrap();
    assert_eq!((planes.channels, &planes.image(1)[..6]), (3, &[12, 16, 20, 13, 17, 21][..]));
    let pixels = read(&plain("|u1", "(2, 2, 2, 3)", &values)).unwrap();
    assert_eq!((pixels.channels, pixels.image(1)), (3, &values[12..]));
}

#[test]
fn newer_versions_are_read() {
    for version in [2, 3] {
        let dictionary = "{\"shape\":(1,1,2), \"descr\":\"<f8\",'fortran_order':False}";
        let values: Vec<u8> = [1.0_f64, 254.6].iter().flat_map(|x| x.to_le_bytes()).collect();
        assert_eq!(read(&npy(version, dictionary, &values)).unwrap().bytes, [1, 255]);
    }
}

#[test]
fn the_largest_float_decides_the_scale() {
    assert_eq!(
        read(&plain("<f4", "(1, 1, 3)", &floats(&[0.0, 0.5, 1.0]))).unwrap().bytes,
        [0, 128, 255]
    );
    assert_eq!(
        read(&plain("<f4", "(1, 1, 3)", &floats(&[0.0, 0.5, 2.0]))).unwrap().bytes,
        [0, 1, 2]
    );
}

#[test]
fn big_endian_floats_are_read() {
    let big: Vec<u8> = [0.2_f32, 1.0].iter().flat_map(|x| x.to_be_bytes()).collect();
    assert_eq!(read(&plain(">f4", "(1, 1, 2)", &big)).unwrap().bytes, [51, 255]);
}

#[test]
fn invalid_files_are_refused_with_a_reason() {
    let header = |text: &str| npy(1, text, &[0; 4]);
    let long = format!("({})", "1,".repeat(40));
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (vec![], "ends inside"),
        (b"\x93NUMPY\x01".to_vec(), "ends inside"),
        (b"\x93NUMPY\x01\0\xff\xff{".to_vec(), "ends inside"),
        (b"\x93NUMPY\x02\0\xff\xff\xff\xff{".to_vec(), "the header has 4294967295 bytes"),
        (b"\x93NUMPY\x09\0\0\0".to_vec(), "version 9.0"),
        (b"PK\x03\x04 a zip file".to_vec(), "not an npy"),
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
        (
            plain("|u1", "(4294967296, 4294967296, 4294967296)", &[]),
            "but the file has 0 bytes of values",
        ),
        (plain("|u1", "(20000000, 1, 1)", &vec![0; 20_000_000]), "at most 10000000"),
        (
            plain("|u1", "(2, 2, 2)", &[0; 7]),
            "the header has the shape 2x2x2 of |u1, but the file has 7 bytes",
        ),
        (plain("|u1", "(2, 2, 2)", &[0; 9]), "9 bytes of values, more than the shape 2x2x2"),
        (plain("|u1", "(0, 2, 2)", &[]), "the array is empty"),
        (plain("|u1", "(4,)", &[0; 4]), "labels"),
        (plain("|u1", "()", &[0]), "N×H×W"),
        (plain("|u1", "(1, 2, 2, 2)", &[0; 8]), "1 or 3 channels"),
        (plain("<i4", "(1, 1, 1)", &[0; 4]), "dtype \"<i4\""),
        (plain("<f4", "(1, 2, 1)", &floats(&[0.0, f32::NAN])), "the value at [0, 1, 0] is NaN"),
        (
            plain("<f4", "(2, 1, 1)", &floats(&[0.0, f32::INFINITY])),
            "the value at [1, 0, 0] is inf",
        ),
        (plain("<f4", "(2, 1, 1)", &floats(&[-1.0, 1.0])), "the values are in -1…1"),
        (plain("<f4", "(2, 1, 1)", &floats(&[0.0, 256.0])), "the values are in 0…256"),
        (
            npy(1, "{'descr': '|u1', 'fortran_order': True, 'shape': (1, 2, 2)}", &[0; 4]),
            "ascontiguousarray",
        ),
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
    labels(&mut Cursor::new(bytes), bytes.len() as u64).map_err(|e| e.to_string())
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
        (plain("|u1", "(2, 2)", &[0; 4]), "one integer per image"),
        (plain("|u1", "(3,)", &[0; 2]), "the header has the shape 3"),
        (plain("", "(3,)", &[0; 2]), "integers"),
    ] {
        let message = read_labels(&bytes).unwrap_err();
        assert!(message.contains(expected), "{message} (expected {expected})");
    }
}

#[test]
fn headers_are_aligned_and_say_all() {
    for (dtype, shape) in [("<f4", vec![3, 4]), ("<f4", vec![60_000, 128, 7, 7]), ("<i8", vec![5])]
    {
        let header = encode_header(dtype, &shape);
        assert!(header.len().is_multiple_of(64) && header.ends_with(b"\n"), "{}", header.len());
        let text = String::from_utf8_lossy(&header[10..]);
        let sizes: Vec<String> = shape.iter().map(usize::to_string).collect();
        assert!(
            text.contains(dtype) && text.contains(&format!("({},)", sizes.join(","))),
            "{text}"
        );
    }
}
