//! Data that no training takes, with the whole message of each, through the program.

use std::path::Path;

use crate::support::arrays::npy;
use crate::support::files::{config, exists};
use crate::support::{Command, TempFolder, bytes};

/// A small model for images of any size and number of channels.
const MODEL: &str = "[model]\ncode = \"code\"\n\
    [[model.layers]]\nname = \"code\"\nop = \"conv2d\"\nfilters = 4\nkernel = 4\nstride = 4\n\
    activation = \"relu\"\n\
    [[model.layers]]\nname = \"out\"\nop = \"conv_transpose2d\"\nfilters = \"input\"\nkernel = 4\n\
    stride = 4\n";

/// A file of `tests/data`.
fn library_file(name: &str) -> Vec<u8> {
    bytes(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name))
}

/// Floats in 0…1 of a shape (N,C,H,W), where one value can be another one.
fn floats(shape: [usize; 4], odd: Option<(usize, f32)>) -> Vec<u8> {
    let count: usize = shape.iter().product();
    let value = |i: usize| match odd {
        Some((at, value)) if at == i => value,
        _ => (i * 37 % 101) as f32 / 100.0,
    };
    let data: Vec<u8> = (0..count).flat_map(|i| value(i).to_le_bytes()).collect();
    npy("<f4", &shape.map(|side| side.to_string()).join(", "), &data)
}

/// A gray TIFF file of 4×4 pixels: `bits` 16 for integers, 32 for floats.
fn tiff(bits: u16, data: &[u8]) -> Vec<u8> {
    let format = if bits == 32 { 3 } else { 1 };
    let entries: [(u16, u32); 10] = [
        (256, 4),
        (257, 4),
        (258, u32::from(bits)),
        (259, 1),
        (262, 1),
        (273, 8),
        (277, 1),
        (278, 4),
        (279, data.len() as u32),
        (339, format),
    ];
    let mut file = b"II*\0".to_vec();
    file.extend((8 + data.len() as u32).to_le_bytes());
    file.extend(data);
    file.extend((entries.len() as u16).to_le_bytes());
    for (tag, value) in entries {
        let kind: u16 = if [273, 279].contains(&tag) { 4 } else { 3 };
        file.extend(tag.to_le_bytes());
        file.extend(kind.to_le_bytes());
        file.extend(1_u32.to_le_bytes());
        file.extend(value.to_le_bytes());
    }
    file.extend([0; 4]);
    file
}

fn of_floats(values: [f32; 16]) -> Vec<u8> {
    tiff(32, &values.map(f32::to_le_bytes).concat())
}

/// What a training says about data that it does not take, with the folder of the data as `DIR`.
fn message(folder: &TempFolder, data: &str, flags: &str) -> String {
    let run = folder.path("run");
    let config = folder.write("model.toml", MODEL);
    let train = Command::train(data).option("--config", config).steps(1).batch(4).on_cpu();
    let said = train.out(&run).quiet().flags(flags).fails(2, &["csae: "]);
    assert!(!exists(&run), "{data} left a run");
    said.trim_end().replace(&folder.path(""), "DIR/")
}

/// Checks rows of a source, more flags, and the message.
fn check(folder: &TempFolder, rows: &[(&str, &str, &str)]) {
    let mut wrong = Vec::new();
    for (source, flags, expected) in rows {
        let flags = flags.replace("DIR/", &folder.path(""));
        let said = message(folder, &folder.path(source), &flags);
        if said != format!("csae: {expected}") {
            wrong.push(format!("{source} {flags}:\n  {said}\n  csae: {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn arrays_that_are_not_samples() {
    let folder = TempFolder::new("refused-arrays");
    for name in ["object.npy", "structured.npy", "none.npz"] {
        folder.write(name, library_file(&format!("numbers/{name}")));
    }
    let huge = "4294967296, 4294967296, 4294967296";
    folder.write("overflow.npy", npy("<f4", huge, &[0; 8]));
    folder.write("empty.npy", npy("|u1", "0, 8, 8", &[]));
    folder.write("nan.npy", floats([8, 2, 16, 16], Some((2 * 512 + 3 * 16 + 4, f32::NAN))));
    folder.write("three.npy", floats([8, 3, 16, 16], None));
    folder.write("four.npy", floats([8, 4, 16, 16], None));
    check(
        &folder,
        &[
            (
                "object.npy",
                "",
                "DIR/object.npy: dtype \"|O\" (Python objects) is not supported; convert with \
                 astype, for example to float32",
            ),
            (
                "structured.npy",
                "",
                "DIR/structured.npy: structured types are not supported; save each field as an \
                 array of its own",
            ),
            ("none.npz", "", "DIR/none.npz: contains no array of numbers"),
            (
                "overflow.npy",
                "",
                "DIR/overflow.npy: the file is cut off or damaged: its shape \
                 4294967296x4294967296x4294967296 is impossible; save it again",
            ),
            ("empty.npy", "", "DIR/empty.npy: the array is empty: its shape is 0x8x8"),
            (
                "nan.npy",
                "",
                "DIR/nan.npy: 2: the value at row 3, column 4, channel 0 is NaN; replace it, or \
                 use --nan zero or --nan mask",
            ),
            (
                "three.npy",
                "--set data.validation_source=DIR/four.npy",
                "data.validation_source: DIR/four.npy: images of 4 channels cannot be converted to \
                 3; only gray (1) and RGB (3) can be converted into each other",
            ),
            (
                "four.npy",
                "--set model.input=[3,16,16]",
                "DIR/four.npy: images of 4 channels cannot be converted to 3; only gray (1) and \
                 RGB (3) can be converted into each other",
            ),
        ],
    );
}

#[test]
fn images_of_types_that_do_not_fit_each_other() {
    let folder = TempFolder::new("refused-types");
    folder.write("mixed/a.tif", tiff(16, &[7; 32]));
    folder.write("mixed/b.tif", of_floats([0.5; 16]));
    folder.write("nan/a.tif", of_floats(std::array::from_fn(|i| [0.5, f32::NAN][i / 14])));
    check(
        &folder,
        &[
            (
                "mixed",
                "",
                "DIR/mixed/b.tif: has 32-bit float samples, but the images before it have 16-bit \
                 samples, and their values cannot be compared; convert all to one type",
            ),
            (
                "nan",
                "",
                "DIR/nan: no image can be used; DIR/nan/a.tif: the value at row 3, column 2, \
                 channel 0 is NaN; replace it, or use --nan zero or --nan mask",
            ),
        ],
    );
}

#[cfg(feature = "hdf5")]
#[test]
fn hdf5_files_without_the_array() {
    let folder = TempFolder::new("refused-hdf5");
    for name in ["chunked.h5", "filter.h5"] {
        folder.write(name, library_file(&format!("numbers/{name}")));
    }
    check(
        &folder,
        &[
            (
                "chunked.h5:/images",
                "",
                "DIR/chunked.h5: images is a group, not an array; it contains raw/filled (16-bit \
                 signed 4x3), raw/fletcher (32-bit float 3x3), raw/growing (8-bit unsigned 4x2), \
                 raw/gzip (16-bit unsigned 5x4x3), raw/lzf (16-bit unsigned 5x4x3)",
            ),
            (
                "filter.h5",
                "",
                "DIR/filter.h5: x: the filter Blosc is not supported; save it with gzip: h5repack \
                 -f GZIP=4 OLD NEW",
            ),
        ],
    );
}

#[test]
fn containers_without_images() {
    let folder = TempFolder::new("refused-containers");
    for name in ["none.parquet", "empty.parquet", "brotli.parquet"] {
        folder.write(name, library_file(&format!("containers/{name}")));
    }
    let whole = library_file("containers/cls.tar");
    folder.write("cut.tar", &whole[..2600]);
    check(
        &folder,
        &[
            (
                "none.parquet",
                "",
                "DIR/none.parquet: has no column of images, which are bytes of image files",
            ),
            ("empty.parquet", "", "DIR/empty.parquet: contains no image"),
            (
                "brotli.parquet",
                "",
                "DIR/brotli.parquet: the compression Brotli is not supported; save it with snappy, \
                 zstd or none",
            ),
            (
                "cut.tar",
                "",
                "DIR/cut.tar: the file is cut off or damaged: it ends before its last member does; \
                 save it again",
            ),
        ],
    );
}

/// Data that is odd and can be used: what is said about it.
#[test]
fn constant_channels_become_zero_and_this_is_said() {
    let folder = TempFolder::new("odd-constant");
    let data: Vec<u8> = (0..8 * 512)
        .flat_map(|i| if i / 256 % 2 == 1 { 7.0 } else { (i % 97) as f32 / 97.0 }.to_le_bytes())
        .collect();
    let data = folder.write("x.npy", npy("<f4", "8, 2, 16, 16", &data));
    let (run, model) = (folder.path("run"), folder.write("model.toml", MODEL));
    let train = Command::train(&data).option("--config", model).steps(2).batch(4).on_cpu();
    train.out(&run).warns(&["channel 1 is constant and becomes 0"]);
    Command::eval(&run, &data).on_cpu().quiet().succeed();
}

/// FITS stores unsigned 16-bit integers as signed ones with an offset.
#[test]
fn unsigned_integers_of_fits_are_read_right() {
    let folder = TempFolder::new("odd-fits");
    let cards = [
        "SIMPLE  =                    T",
        "BITPIX  =                   16",
        "NAXIS   =                    3",
        "NAXIS1  =                   16",
        "NAXIS2  =                   16",
        "NAXIS3  =                    8",
        "BZERO   =                32768",
        "END",
    ];
    let mut file: Vec<u8> =
        format!("{:2880}", cards.map(|card| format!("{card:80}")).concat()).into_bytes();
    // From 1000 to 3047.
    let value = |i: i32| (1000 + i - 32_768) as i16;
    file.extend((0..8 * 256).flat_map(|i| value(i).to_be_bytes()));
    file.resize(file.len().next_multiple_of(2880), 0);
    let data = folder.write("u16.fits", file);
    let (run, model) = (folder.path("run"), folder.write("model.toml", MODEL));
    let train = Command::train(&data).option("--config", model).steps(2).batch(4).on_cpu();
    train.set("data.validation=0").out(&run).warns(&["BZERO applied", "16-bit"]);
    let written = config(&run);
    assert!(written.contains("min = [1000.0]") && written.contains("max = [3047.0]"), "{written}");
}
