use image::{DynamicImage, ImageFormat};
use tiff::encoder::{Compression, TiffEncoder, colortype};

use crate::data::formats::decode::decode;
use crate::data::image_file::{Depth, ImageFile, Levels};
use crate::shape::Dims;
use crate::testing::Folder;

/// An entry of a directory: tag, type (3: 16 bits, 4: 32 bits) and values.
type Entry<'a> = (u16, u16, &'a [u32]);

/// A little-endian TIFF file of one strip, with the given size, bits per sample and more entries.
fn file(w: u32, h: u32, bits: &[u32], more: &[Entry], data: &[u8]) -> Vec<u8> {
    pages(&[&page(w, h, bits, more)], data)
}

/// The entries of an image of one strip at offset 8.
fn page(w: u32, h: u32, bits: &[u32], more: &[Entry]) -> Vec<(u16, u16, Vec<u32>)> {
    let samples = [bits.len() as u32];
    let own: [Entry; 7] = [
        (256, 4, &[w]),
        (257, 4, &[h]),
        (258, 3, bits),
        (273, 4, &[8]),
        (277, 3, &samples),
        (278, 4, &[h]),
        (279, 4, &[0]),
    ];
    let all = own.iter().filter(|(tag, ..)| more.iter().all(|(other, ..)| other != tag));
    let mut all: Vec<_> =
        all.chain(more).map(|(tag, kind, values)| (*tag, *kind, values.to_vec())).collect();
    all.sort_by_key(|(tag, ..)| *tag);
    all
}

/// A file of pages that share their pixels.
fn pages(all: &[&[(u16, u16, Vec<u32>)]], data: &[u8]) -> Vec<u8> {
    let mut bytes = b"II*\0\0\0\0\0".to_vec();
    bytes.extend(data);
    bytes.resize(bytes.len().next_multiple_of(2), 0);
    let mut link = 4;
    for entries in all {
        let mut table = (entries.len() as u16).to_le_bytes().to_vec();
        for (tag, kind, values) in *entries {
            let values = if *tag == 279 { &vec![data.len() as u32] } else { values };
            let raw: Vec<u8> = values
                .iter()
                .flat_map(|value| {
                    if *kind == 3 {
                        (*value as u16).to_le_bytes().to_vec()
                    } else {
                        value.to_le_bytes().to_vec()
                    }
                })
                .collect();
            table.extend(tag.to_le_bytes());
            table.extend(kind.to_le_bytes());
            table.extend((values.len() as u32).to_le_bytes());
            if raw.len() <= 4 {
                table.extend(&raw);
                table.resize(table.len() + 4 - raw.len(), 0);
            } else {
                table.extend((bytes.len() as u32).to_le_bytes());
                bytes.extend(&raw);
                bytes.resize(bytes.len().next_multiple_of(2), 0);
            }
        }
        let at = bytes.len() as u32;
        bytes[link..link + 4].copy_from_slice(&at.to_le_bytes());
        link = bytes.len() + table.len();
        bytes.extend(table);
        bytes.extend([0; 4]);
    }
    bytes
}

fn pixels(bytes: &[u8]) -> Vec<u8> {
    decode(bytes).unwrap().pixels
}

fn refusal(bytes: &[u8]) -> String {
    decode(bytes).unwrap_err().to_string()
}

const GRAY: Entry = (262, 3, &[1]);
const RGB: Entry = (262, 3, &[2]);
const FLOAT: Entry = (339, 3, &[3]);

/// Bytes of 32-bit floats.
fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

#[test]
fn floats_from_0_to_1_and_to_255_are_read() {
    let unit = file(2, 2, &[32], &[GRAY, FLOAT], &floats(&[0.0, 0.2, 0.4, 1.0]));
    assert_eq!(pixels(&unit), [0, 51, 102, 255]);
    let large = file(2, 2, &[32], &[GRAY, FLOAT], &floats(&[0.0, 51.0, 102.0, 255.0]));
    assert_eq!(pixels(&large), [0, 51, 102, 255]);
    let colour = file(1, 1, &[32; 3], &[RGB, (339, 3, &[3, 3, 3])], &floats(&[0.2, 0.4, 1.0]));
    assert_eq!(pixels(&colour), [51, 102, 255]);
    let double: Vec<u8> = [0.2_f64, 1.0].iter().flat_map(|value| value.to_le_bytes()).collect();
    assert_eq!(pixels(&file(2, 1, &[64], &[GRAY, FLOAT], &double)), [51, 255]);
    let half: Vec<u8> =
        [0.2, 1.0].iter().flat_map(|value| half::f16::from_f32(*value).to_le_bytes()).collect();
    assert_eq!(pixels(&file(2, 1, &[16], &[GRAY, FLOAT], &half)), [51, 255]);
}

#[test]
fn floats_stay_floats_for_restoration() {
    let folder = Folder::new("tiff-floats");
    let read = |values: &[f32]| {
        let bytes = file(2, 1, &[32], &[GRAY, FLOAT], &floats(values));
        ImageFile::read(&folder.write("x.tif", &bytes)).unwrap()
    };
    assert_eq!(read(&[0.1, 0.7]).pixels(), [0.1, 0.7]);
    // 256 and -1 are outside 0…255.
    let wide = read(&[-1.0, 256.0]);
    assert_eq!((wide.depth(), wide.levels()), (Depth::Float, Levels { black: -1.0, white: 256.0 }));
    assert_eq!(wide.pixels(), [0.0, 1.0]);
}

#[test]
fn floats_that_are_no_image_are_refused() {
    let of = |values: &[f32]| refusal(&file(2, 2, &[32], &[GRAY, FLOAT], &floats(values)));
    assert!(of(&[0.0, 1.0, f32::NAN, 0.0]).contains("row 1, column 0 is NaN"));
    assert!(of(&[0.0, -1.0, 0.0, 0.0]).contains("the values are in -1…0"));
    assert!(of(&[0.0, 4000.0, 0.0, 0.0]).contains("rescale"));
}

#[test]
fn every_depth_of_gray_is_read() {
    assert_eq!(
        pixels(&file(3, 2, &[1], &[GRAY], &[0b1010_0000, 0b0110_0000])),
        [255, 0, 255, 0, 255, 255]
    );
    assert_eq!(pixels(&file(3, 1, &[2], &[GRAY], &[0b0001_1100])), [0, 85, 255]);
    assert_eq!(pixels(&file(3, 1, &[4], &[GRAY], &[0x0f, 0x30])), [0, 255, 51]);
    assert_eq!(pixels(&file(2, 1, &[16], &[GRAY], &[0, 0, 255, 255])), [0, 255]);
    // White is zero.
    assert_eq!(pixels(&file(3, 1, &[8], &[(262, 3, &[0])], &[0, 55, 255])), [255, 200, 0]);
    // An extra sample is alpha only if the file says so.
    let both = [40, 255, 0, 51];
    let alpha = file(2, 1, &[8, 8], &[GRAY, (338, 3, &[2])], &both);
    assert_eq!(pixels(&alpha), [40, 204]);
    assert_eq!(pixels(&file(2, 1, &[8, 8], &[GRAY, (338, 3, &[0])], &both)), [40, 0]);
}

#[test]
fn palettes_are_read() {
    let map: Vec<u32> = [[0, 65535, 257], [0, 0, 514], [0, 0, 771]]
        .iter()
        .flat_map(|channel| channel.iter().copied().chain([0; 13]))
        .collect();
    let entries: [Entry; 2] = [(262, 3, &[3]), (320, 3, &map)];
    assert_eq!(pixels(&file(3, 1, &[4], &entries, &[0x01, 0x20])), [0, 0, 0, 255, 0, 0, 1, 2, 3]);
    let short = file(3, 1, &[8], &entries, &[0, 1, 2]);
    assert!(refusal(&short).contains("damaged"));
}

#[test]
fn separate_planes_and_cmyk_are_read() {
    let planar: [Entry; 4] = [RGB, (284, 3, &[2]), (273, 4, &[8, 10, 12]), (279, 4, &[2, 2, 2])];
    // The byte counts of the strips are written by `pages` for one strip only.
    let mut bytes = file(2, 1, &[8; 3], &planar[..3], &[1, 4, 2, 5, 3, 6]);
    let count = bytes.windows(4).position(|entry| entry == [23, 1, 4, 0]).unwrap();
    let offsets = bytes.len() as u32;
    bytes[count + 4..count + 12]
        .copy_from_slice(&[3_u32.to_le_bytes(), offsets.to_le_bytes()].concat());
    bytes.extend([2_u32; 3].iter().flat_map(|length| length.to_le_bytes()));
    assert_eq!(pixels(&bytes), [1, 2, 3, 4, 5, 6]);
    let cmyk = file(2, 1, &[8; 4], &[(262, 3, &[5])], &[0, 255, 255, 0, 0, 0, 0, 255]);
    assert_eq!(pixels(&cmyk), [255, 0, 0, 0, 0, 0]);
}

#[test]
fn big_tiff_and_compression_are_read() {
    let values: Vec<u8> = (0..40 * 30).map(|i| (i % 251) as u8).collect();
    let deflate = Compression::Deflate(tiff::encoder::DeflateLevel::Fast);
    let all = [Compression::Uncompressed, Compression::Lzw, Compression::Packbits, deflate];
    for (number, compression) in all.into_iter().enumerate() {
        let mut bytes = std::io::Cursor::new(Vec::new());
        let mut encoder = TiffEncoder::new(&mut bytes).unwrap().with_compression(compression);
        encoder.write_image::<colortype::Gray8>(40, 30, &values).unwrap();
        assert_eq!(pixels(bytes.get_ref()), values, "compression {number}");
    }
    let mut bytes = std::io::Cursor::new(Vec::new());
    let mut encoder = TiffEncoder::new_big(&mut bytes).unwrap();
    encoder.write_image::<colortype::Gray8>(40, 30, &values).unwrap();
    let decoded = decode(bytes.get_ref()).unwrap();
    assert_eq!((decoded.dims, decoded.pixels), (Dims::new(1, 30, 40), values));
}

#[test]
fn jpeg_in_tiff_is_read() {
    let image = image::RgbImage::from_fn(16, 16, |x, _| {
        image::Rgb(if x < 8 { [200, 30, 40] } else { [20, 60, 220] })
    });
    let jpeg = crate::testing::encoded(&DynamicImage::from(image), ImageFormat::Jpeg);
    let entries: [Entry; 3] = [(259, 3, &[7]), (262, 3, &[6]), (530, 3, &[1, 1])];
    let decoded = pixels(&file(16, 16, &[8; 3], &entries, &jpeg));
    for (at, expected) in [(0, [200, 30, 40]), (3 * 15, [20, 60, 220])] {
        let found = &decoded[at..at + 3];
        let near = found.iter().zip(expected).all(|(a, b): (&u8, u8)| a.abs_diff(b) < 12);
        assert!(near, "{found:?} instead of {expected:?}");
    }
}

#[test]
fn kinds_that_are_not_read_are_named() {
    let cases: [(Vec<u8>, &str); 9] = [
        (file(1, 1, &[32], &[GRAY], &[0; 4]), "integers of 32 bits"),
        (file(1, 1, &[16], &[GRAY, (339, 3, &[2])], &[0; 2]), "signed integers of 16 bits"),
        (file(1, 1, &[8; 5], &[GRAY], &[0; 5]), "5 samples per pixel of unknown meaning"),
        (file(1, 1, &[8], &[GRAY, (259, 3, &[34925])], &[0]), "the compression LZMA"),
        (file(1, 1, &[8], &[GRAY, (259, 3, &[6])], &[0]), "old-style JPEG"),
        (file(1, 1, &[8; 3], &[(262, 3, &[8])], &[0; 3]), "L*a*b* is not supported; save it"),
        (file(1, 1, &[64], &[GRAY, (339, 3, &[6])], &[0; 8]), "complex numbers"),
        (file(1, 1, &[16], &[(262, 3, &[32803])], &[0; 2]), "raw file of a camera"),
        (file(1, 1, &[8], &[GRAY, (254, 4, &[1])], &[0]), "raw file of a camera"),
    ];
    for (bytes, expected) in cases {
        let message = refusal(&bytes);
        assert!(message.contains(expected) && !message.contains("Unknown("), "{message}");
    }
}

/// A frame of Zstandard with one block that is not compressed.
#[cfg(feature = "cli")]
fn zstd(bytes: &[u8]) -> Vec<u8> {
    let len = bytes.len() as u32;
    let block = (len << 3 | 1).to_le_bytes();
    [&0xfd2f_b528_u32.to_le_bytes()[..], &[0x20, len as u8], &block[..3], bytes].concat()
}

#[cfg(feature = "cli")]
#[test]
fn zstandard_is_read_and_never_beyond_the_size_of_the_image() {
    let values: Vec<u8> = (0..12).collect();
    let entries: [Entry; 2] = [GRAY, (259, 3, &[50000])];
    assert_eq!(pixels(&file(4, 3, &[8], &entries, &zstd(&values))), values);
    // Some writers fill the last strip.
    assert_eq!(pixels(&file(4, 2, &[8], &entries, &zstd(&values))), values[..8]);
    let short = refusal(&file(5, 3, &[8], &entries, &zstd(&values)));
    assert!(short.contains("Zstandard data are cut off or damaged"), "{short}");
    // The header of the frame asks for a window of 96 MiB.
    let mut wide = zstd(&values);
    wide.splice(4..6, [0, 0x84]);
    let wide = refusal(&file(4, 3, &[8], &entries, &wide));
    assert!(wide.contains("need more memory"), "{wide}");
    // A palette and a compression are both replaced.
    let table: Vec<u32> = (0..768).map(|value| value % 256 * 257).collect();
    let entries: [Entry; 3] = [(262, 3, &[3]), (259, 3, &[34926]), (320, 3, &table)];
    assert_eq!(pixels(&file(4, 3, &[8], &entries, &zstd(&values))), values);
}

#[test]
fn pages_are_counted_without_previews() {
    let page = |kind: &[u32]| page(1, 1, &[8], &[GRAY, (254, 4, kind)]);
    let (whole, preview, mask) = (page(&[0]), page(&[1]), page(&[4]));
    let count = |all: &[&[(u16, u16, Vec<u32>)]]| decode(&pages(all, &[7])).unwrap().frames;
    assert_eq!(count(&[&whole]), 1);
    assert_eq!(count(&[&whole, &preview, &mask]), 1);
    assert_eq!(count(&[&whole, &whole, &preview, &whole]), 3);
}

#[test]
fn damaged_files_do_not_cause_a_panic_or_an_endless_loop() {
    let whole = pages(&[&page(2, 2, &[8], &[GRAY]), &page(2, 2, &[8], &[GRAY])], &[1, 2, 3, 4]);
    for end in 0..whole.len() {
        let _ = decode(&whole[..end]);
    }
    // The last directory refers to the first one.
    let mut cycle = whole.clone();
    let (first, end) = (whole[4..8].to_vec(), whole.len());
    cycle[end - 4..].copy_from_slice(&first);
    assert_eq!(decode(&cycle).unwrap().frames, 2);
}
