//! Files of numbers, written by the libraries that users have (`tests/data/numbers/make.py`): each
//! is read exactly, or refused in one clear line, also when it is cut off or damaged.
//!
//! The mutation tests obey `CSAE_FUZZ` and `CSAE_FUZZ_SEED` as those of `fuzz.rs` do; here the
//! count is that of each format. A long run, with bounded memory:
//!
//! ```text
//! export CSAE_FUZZ=2000000 CSAE_FUZZ_SEED=2
//! (ulimit -v 1300000; cargo test --release --test suite numbers::fuzz -- --nocapture)
//! ```

use std::io::{Cursor, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use csae::internals::data::numbers::y4m::Stream as Film;
use csae::internals::data::numbers::{self, Element, NumberFile};
use csae::internals::error::Error;
use csae::internals::rng::Stream;
use flate2::Compression;
use flate2::write::ZlibEncoder;
use serde_json::Value;

use crate::support::mutate::mutate;

/// Maximum memory for decoding in these tests.
const LIMIT: u64 = 16 << 20;

/// An input that takes longer hangs. The slowest take a tenth of a second on an idle machine.
const HANG: Duration = Duration::from_secs(10);

fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/numbers"))
}

/// A row of `expected.json`: an array of a file with its values, or the message that refuses it.
struct Row {
    file: String,
    inside: Option<String>,
    answer: Result<Values, String>,
}

#[derive(Clone, Debug, PartialEq)]
struct Values {
    element: String,
    shape: Vec<usize>,
    bytes: Vec<u8>,
    axes: Option<Vec<String>>,
    note: Option<String>,
    rate: Option<u32>,
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn unhex(text: &str) -> Vec<u8> {
    let pairs = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

/// The rows whose format this build reads.
fn rows() -> Vec<Row> {
    let json = std::fs::read_to_string(folder().join("expected.json")).unwrap();
    let rows: Vec<Value> = serde_json::from_str(&json).unwrap();
    let is_hdf5 = |file: &str| [".h5", ".nc", "v73.mat"].iter().any(|end| file.ends_with(end));
    rows.iter()
        .filter(|row| cfg!(feature = "hdf5") || !is_hdf5(row["file"].as_str().unwrap()))
        .map(|row| Row {
            file: text(&row["file"]).unwrap(),
            inside: text(&row["inside"]),
            answer: match text(&row["refused"]) {
                Some(message) => Err(message),
                None => Ok(Values {
                    element: text(&row["element"]).unwrap(),
                    shape: serde_json::from_value(row["shape"].clone()).unwrap(),
                    bytes: unhex(row["values"].as_str().unwrap()),
                    axes: serde_json::from_value(row["axes"].clone()).unwrap(),
                    note: text(&row["note"]),
                    rate: serde_json::from_value(row["rate"].clone()).unwrap(),
                }),
            },
        })
        .collect()
}

/// All elements, at most 2 MiB of them: a damaged file can declare any number.
fn read_all(file: &mut NumberFile) -> Result<Vec<u8>, Error> {
    let count = file.len().min((2 << 20) / file.element().size() as u64) as usize;
    let mut bytes = Vec::new();
    file.read(0, count, &mut bytes)?;
    Ok(bytes)
}

fn open_bytes(bytes: &[u8], name: &str, inside: Option<&str>) -> Result<NumberFile, Error> {
    let file = Box::new(Cursor::new(bytes.to_vec()));
    numbers::open_input(file, Path::new(name), inside, LIMIT)
}

/// The first difference between an opened file and what it should be.
fn difference(file: &mut NumberFile, want: &Values) -> Option<String> {
    let (element, shape) = (file.element().name(), file.shape().to_vec());
    if element != want.element || shape != want.shape {
        return Some(format!("{element} {shape:?}, not {} {:?}", want.element, want.shape));
    }
    if want.axes.as_ref().is_some_and(|axes| axes != file.axes()) {
        return Some(format!("axes {:?}, not {:?}", file.axes(), want.axes));
    }
    let noted = |note: &String| file.notes().iter().any(|found| found.contains(note));
    if !want.note.as_ref().is_none_or(noted) {
        return Some(format!("notes {:?}, without {:?}", file.notes(), want.note));
    }
    if want.rate.is_some() && want.rate != file.sample_rate() {
        return Some(format!("rate {:?}", file.sample_rate()));
    }
    match read_all(file) {
        Ok(bytes) if bytes == want.bytes => None,
        Ok(bytes) => Some(format!("values {bytes:02x?}, not {:02x?}", want.bytes)),
        Err(error) => Some(error.to_string()),
    }
}

#[test]
fn files_are_read_exactly_or_refused() {
    let mut wrong = Vec::new();
    for row in rows() {
        let place = format!("{} {:?}", row.file, row.inside);
        let path = folder().join(&row.file);
        match (numbers::open(&path, row.inside.as_deref(), LIMIT), row.answer) {
            (Ok(mut file), Ok(want)) => {
                wrong.extend(difference(&mut file, &want).map(|what| format!("{place}: {what}")));
            }
            (Err(error), Err(message)) => {
                let error = error.to_string();
                let is_clear = error.contains(&message) && error.contains(&row.file);
                if !is_clear || error.contains('\n') {
                    wrong.push(format!("{place}: {error:?}, not {message:?}"));
                }
            }
            (Ok(_), Err(message)) => wrong.push(format!("{place}: not refused: {message}")),
            (Err(error), Ok(_)) => wrong.push(format!("{place}: {error}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The comparison can fail: by a value, a shape, a type, an axis, a note.
#[test]
fn a_difference_is_found() {
    let row = rows().into_iter().find(|row| row.file == "uint16_big.npy").unwrap();
    let want = row.answer.unwrap();
    let found = |want: &Values| {
        let mut file = numbers::open(&folder().join("uint16_big.npy"), None, LIMIT).unwrap();
        difference(&mut file, want)
    };
    assert_eq!(found(&want), None);
    let mut other = want.clone();
    other.bytes[3] ^= 1;
    assert!(found(&other).is_some_and(|what| what.starts_with("values")));
    let others = [
        Values { shape: vec![3, 2, 2], ..want.clone() },
        Values { element: "16-bit signed".to_owned(), ..want.clone() },
        Values { axes: Some(vec!["Y".to_owned()]), ..want.clone() },
        Values { note: Some("scaled".to_owned()), ..want.clone() },
        Values { rate: Some(8000), ..want },
    ];
    assert!(others.iter().all(|other| found(other).is_some()));
}

/// Any range of elements is the same part of the whole.
#[test]
fn parts_are_those_of_the_whole() {
    let mut draw = Stream::new(1, "parts");
    for row in rows() {
        let Ok(want) = row.answer else { continue };
        let path = folder().join(&row.file);
        let mut file = numbers::open(&path, row.inside.as_deref(), LIMIT).unwrap();
        let (size, len) = (file.element().size(), file.len() as usize);
        for _ in 0..20 {
            let first = draw.below(len);
            let count = draw.below(len - first + 1);
            let mut bytes = vec![7];
            file.read(first as u64, count, &mut bytes).unwrap();
            let part = &want.bytes[first * size..(first + count) * size];
            assert!(bytes[0] == 7 && &bytes[1..] == part, "{} {first} {count}", row.file);
        }
        assert!(file.read(1, len, &mut Vec::new()).is_err(), "{}: beyond the end", row.file);
    }
}

/// A file that is cut off is refused in one line, or what is read of it is right: the end of some
/// formats is padding, a film has fewer frames, and a recording without a length is shorter.
#[test]
fn files_that_are_cut_off_are_refused() {
    let mut refused = 0;
    let mut last = String::new();
    for row in rows() {
        let Ok(want) = row.answer else { continue };
        let bytes = std::fs::read(folder().join(&row.file)).unwrap();
        // Every length for the first array of a file, some for the others.
        let step = if row.file == last { 61 } else { 1 };
        last.clone_from(&row.file);
        for len in (0..bytes.len()).step_by(step) {
            let opened = open_bytes(&bytes[..len], &row.file, row.inside.as_deref());
            match opened.and_then(|mut file| read_all(&mut file)) {
                Ok(read) => assert!(
                    read == want.bytes
                        || row.file.ends_with("y4m") && want.bytes.starts_with(&read)
                        || row.file == "open.wav" && read.len() < want.bytes.len(),
                    "{} cut off at {len}",
                    row.file
                ),
                Err(error) => {
                    refused += 1;
                    assert!(!error.to_string().contains('\n'), "{error}");
                }
            }
        }
    }
    assert!(refused > 1000);
}

#[test]
fn the_size_of_each_type_is_that_of_its_name() {
    for row in rows() {
        let Ok(want) = row.answer else { continue };
        let count: usize = want.shape.iter().product();
        let bits = want.element.split('-').next().unwrap().parse().unwrap_or(8);
        assert_eq!(want.bytes.len() * 8, count * bits, "{}", row.file);
    }
    assert_eq!(Element::I16.value(&[0xfe, 0xff]), -2.0);
    assert_eq!(Element::F16.value(&[0, 0x3c]), 1.0);
}

/// A version 1 file of NumPy with this header.
fn npy(descr: &str, fortran: &str, shape: &str, values: usize) -> Vec<u8> {
    let header = format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}");
    let len = (header.len() as u16).to_le_bytes();
    [b"\x93NUMPY\x01\x00", &len[..], header.as_bytes(), &vec![0; values]].concat()
}

/// A message that refuses a file, which takes no time and no memory.
fn refusal(bytes: &[u8], name: &str, inside: Option<&str>) -> String {
    let start = Instant::now();
    let opened = open_bytes(bytes, name, inside);
    let message = opened.and_then(|mut file| read_all(&mut file)).unwrap_err().to_string();
    assert!(start.elapsed() < HANG, "{message}");
    message
}

#[test]
fn impossible_shapes_are_refused() {
    let axes = format!("({})", "1, ".repeat(33));
    for (shape, values, message) in [
        ("(4294967296, 4294967296, 4294967296)", 8, "impossible"),
        ("(9223372036854775807,)", 8, "impossible"),
        ("(1000000000000,)", 8, "needs 4000000000000 bytes of values, and it has 8"),
        ("(1,)", 8, "needs 4 bytes of values, and it has 8"),
        ("(3, 0)", 0, "the array is empty: its shape is 3x0"),
        (&axes, 4, "more than 32 dimensions"),
        ("()", 4, "a single number"),
    ] {
        let found = refusal(&npy("<f4", "False", shape, values), "a.npy", None);
        assert!(found.contains(message), "{found}");
    }
    let large = npy("|u1", "True", "(4096, 4096)", 1 << 24);
    let found = refusal(&large, "a.npy", None);
    assert!(found.contains("needs 32 MiB in memory, more than the limit of 16 MiB"), "{found}");
    let cards = |naxis: &str| {
        let keys = ["SIMPLE  =  T", "BITPIX  = 16", "NAXIS   = 2", naxis, "NAXIS2  = 4294967296"];
        let cards: Vec<String> = keys.iter().chain(&["END"]).map(|c| format!("{c:80}")).collect();
        format!("{:2880}", cards.concat()).into_bytes()
    };
    for (axis, message) in [
        ("NAXIS1  = 9223372036854775807", "impossible"),
        ("NAXIS1  = 99999999999999999999", "NAXIS1"),
        ("NAXIS1  = 1000", "ends before"),
        ("NAXIS1  = 0", "the array is empty"),
    ] {
        let found = refusal(&cards(axis), "a.fits", None);
        assert!(found.contains(message), "{found}");
    }
}

/// Small files that are large when they are decompressed.
#[test]
fn bombs_are_refused() {
    const LARGE: usize = 1 << 26;
    let array = npy("|u1", "False", "(67108864,)", LARGE);
    let packed = |bytes: &[u8]| {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
    archive.start_file("x.npy", zip::write::SimpleFileOptions::default()).unwrap();
    archive.write_all(&array).unwrap();
    let archive = archive.finish().unwrap().into_inner();
    assert!(archive.len() < LARGE / 100);
    let found = refusal(&archive, "a.npz", None);
    assert!(found.contains("more than the limit of 16 MiB"), "{found}");
    // The declared length is 100, in the local and in the central header.
    let mut lying = archive.clone();
    let size = (array.len() as u32).to_le_bytes();
    let places: Vec<usize> = (0..lying.len() - 4).filter(|&i| lying[i..i + 4] == size).collect();
    places.iter().for_each(|&i| lying[i..i + 4].copy_from_slice(&100_u32.to_le_bytes()));
    assert!(!places.is_empty());
    let found = refusal(&lying, "a.npz", None);
    assert!(found.contains("another length than it declares"), "{found}");
    let tag = |kind: u32, len: usize| [kind.to_le_bytes(), (len as u32).to_le_bytes()].concat();
    let matrix = [
        tag(14, LARGE + 56),
        tag(6, 8),
        vec![9, 0, 0, 0, 0, 0, 0, 0],
        tag(5, 8),
        [1, LARGE as u32].map(u32::to_le_bytes).concat(),
        tag(1, 1),
        b"x\0\0\0\0\0\0\0".to_vec(),
        tag(2, LARGE),
        vec![0; LARGE],
    ];
    let matrix = packed(&matrix.concat());
    let mut header = [b"MATLAB 5.0 MAT-file".to_vec(), vec![b' '; 128]].concat();
    header.truncate(128);
    header[124..].copy_from_slice(b"\0\x01IM");
    let found = refusal(&[header, tag(15, matrix.len()), matrix].concat(), "a.mat", None);
    assert!(found.contains("x: needs 192 MiB in memory"), "{found}");
}

/// A film from a pipe has the frames of the file.
#[test]
fn a_film_is_read_from_a_stream() {
    for row in rows().into_iter().filter(|row| row.file.ends_with("y4m")) {
        let Ok(want) = row.answer else { continue };
        let bytes = std::fs::read(folder().join(&row.file)).unwrap();
        let mut stream = Film::new(&bytes[..], row.inside.is_some(), LIMIT).unwrap();
        let mut read = Vec::new();
        while stream.next(&mut read).unwrap() {}
        assert_eq!(read, want.bytes, "{}", row.file);
        assert_eq!(stream.frames().element().name(), want.element);
        let mut cut = Film::new(&bytes[..bytes.len() - 1], false, LIMIT).unwrap();
        assert!(cut.next(&mut read).unwrap());
        let error = cut.next(&mut read).unwrap_err().to_string();
        assert!(error.contains("ends inside frame 2"), "{error}");
        assert!(Film::new(&bytes[..], false, 20).is_err(), "the limit is kept");
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// Opens and reads mutated files of one format.
fn fuzz(extensions: &[&str]) {
    let (inputs, seed) = (number("CSAE_FUZZ", 400), number("CSAE_FUZZ_SEED", 1));
    let mut seeds: Vec<(Row, Vec<u8>)> = Vec::new();
    for row in rows() {
        let extension = row.file.rsplit('.').next().unwrap();
        if extensions.contains(&extension) {
            let bytes = std::fs::read(folder().join(&row.file)).unwrap();
            seeds.push((row, bytes));
        }
    }
    let mut draw = Stream::new(seed, extensions[0]);
    let (mut accepted, mut slowest) = (0, Duration::ZERO);
    for i in 0..inputs {
        let (row, bytes) = &seeds[draw.below(seeds.len())];
        let mut bytes = bytes.clone();
        mutate(&mut bytes, &mut draw);
        let start = Instant::now();
        let answer = catch_unwind(AssertUnwindSafe(|| {
            open_bytes(&bytes, &row.file, row.inside.as_deref())
                .and_then(|mut file| read_all(&mut file))
        }));
        let seconds = start.elapsed();
        slowest = slowest.max(seconds);
        let what = match answer {
            Err(_) => Some("panicked".to_owned()),
            _ if seconds > HANG => Some(format!("took {seconds:?}")),
            Ok(Err(error)) if error.to_string().contains('\n') => Some(format!("said {error}")),
            Ok(answer) => {
                accepted += u64::from(answer.is_ok());
                None
            }
        };
        if let Some(what) = what {
            let file = std::env::temp_dir().join(format!("found_{seed}_{i}_{}", row.file));
            std::fs::write(&file, &bytes).unwrap();
            panic!("{} {:?} {what} on {}", row.file, row.inside, file.display());
        }
    }
    println!("{extensions:?}: {inputs} inputs, {accepted} accepted, slowest {slowest:?}");
    // A mutation that breaks every file at once would test only the first check of a reader.
    assert!(inputs < 400 || accepted > 0);
}

#[test]
fn fuzz_npy() {
    fuzz(&["npy"]);
}

#[test]
fn fuzz_npz() {
    fuzz(&["npz"]);
}

#[cfg(feature = "hdf5")]
#[test]
fn fuzz_hdf5() {
    fuzz(&["h5", "nc"]);
}

#[test]
fn fuzz_mat() {
    fuzz(&["mat"]);
}

#[test]
fn fuzz_fits() {
    fuzz(&["fits"]);
}

#[test]
fn fuzz_wav() {
    fuzz(&["wav"]);
}

#[test]
fn fuzz_tiff() {
    fuzz(&["tif"]);
}

#[test]
fn fuzz_y4m() {
    fuzz(&["y4m"]);
}
