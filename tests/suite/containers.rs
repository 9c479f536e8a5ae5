//! Containers of encoded images, written by the libraries that users have
//! (`tests/data/containers/make.py`): names, labels and images are read exactly, or the file is
//! refused in one clear line, also when it is cut off or damaged.
//!
//! The mutation tests obey `CSAE_FUZZ` and `CSAE_FUZZ_SEED`, see `numbers.rs`.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use csae::internals::data::containers::{self, Container};
use csae::internals::error::Error;
use csae::internals::rng::Stream;
use serde::Deserialize;

use crate::support::mutate::mutate;

/// Maximum memory for decoding in these tests.
const LIMIT: u64 = 16 << 20;

/// An input that takes longer hangs. The slowest take half a second on a busy machine.
const HANG: Duration = Duration::from_secs(10);

fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/containers"))
}

/// A row of `expected.json`.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct Row {
    file: String,
    inside: Option<String>,
    names: Vec<String>,
    classes: Option<Vec<String>>,
    labels: Option<Vec<u32>>,
    /// In hexadecimal digits.
    images: Vec<String>,
    note: Option<String>,
    /// A part of the message that refuses the file.
    refused: Option<String>,
}

fn rows() -> Vec<Row> {
    let json = std::fs::read_to_string(folder().join("expected.json")).unwrap();
    serde_json::from_str(&json).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// All images, at most those that fit the limit.
fn read_all(file: &mut Container) -> Result<Vec<String>, Error> {
    (0..file.len().min(1000)).map(|index| file.read(index).map(|bytes| hex(&bytes))).collect()
}

fn open_bytes(bytes: &[u8], row: &Row) -> Result<Container, Error> {
    let file = Box::new(Cursor::new(bytes.to_vec()));
    containers::open_input(file, Path::new(&row.file), row.inside.as_deref(), LIMIT)
}

/// The first difference between an opened file and what it should be.
fn difference(file: &mut Container, want: &Row) -> Option<String> {
    if file.names() != want.names {
        return Some(format!("names {:?}, not {:?}", file.names(), want.names));
    }
    let (classes, of) = file.labels().map(|l| (l.classes.clone(), l.of.clone())).unzip();
    if classes != want.classes || of != want.labels {
        return Some(format!(
            "labels {classes:?} {of:?}, not {:?} {:?}",
            want.classes, want.labels
        ));
    }
    let noted = |note: &String| file.notes().iter().any(|found| found.contains(note));
    if !want.note.as_ref().is_none_or(noted) {
        return Some(format!("notes {:?}, without {:?}", file.notes(), want.note));
    }
    match read_all(file) {
        Ok(images) if images == want.images => None,
        Ok(images) => Some(format!("images {images:?}, not {:?}", want.images)),
        Err(error) => Some(error.to_string()),
    }
}

#[test]
fn containers_are_read_exactly_or_refused() {
    let mut wrong = Vec::new();
    for row in rows() {
        let place = format!("{} {:?}", row.file, row.inside);
        let opened = containers::open(&folder().join(&row.file), row.inside.as_deref(), LIMIT);
        let read = opened.and_then(|mut file| Ok((read_all(&mut file)?, file)));
        match (read, &row.refused) {
            (Ok((_, mut file)), None) => {
                wrong.extend(difference(&mut file, &row).map(|what| format!("{place}: {what}")));
            }
            (Err(error), Some(message)) => {
                let error = error.to_string();
                if !error.contains(message) || error.contains('\n') {
                    wrong.push(format!("{place}: {error:?}, not {message:?}"));
                }
            }
            (Ok(_), Some(message)) => wrong.push(format!("{place}: not refused: {message}")),
            (Err(error), None) => wrong.push(format!("{place}: {error}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The comparison can fail: by a name, a label, a class, a remark, an image.
#[test]
fn a_difference_is_found() {
    let want = rows().into_iter().find(|row| row.file == "hub.parquet").unwrap();
    let found = |want: &Row| {
        let mut file = containers::open(&folder().join(&want.file), None, LIMIT).unwrap();
        difference(&mut file, want)
    };
    assert_eq!(found(&want), None);
    let mut others = vec![want.clone(); 5];
    others[0].names[1].push('x');
    others[1].labels.as_mut().unwrap().swap(0, 1);
    others[2].classes.as_mut().unwrap().swap(0, 1);
    others[3].note = Some("nothing of the kind".to_owned());
    others[4].images.swap(0, 1);
    assert!(others.iter().all(|other| found(other).is_some()));
}

/// Images are found in any order.
#[test]
fn images_are_read_by_their_index() {
    let mut draw = Stream::new(1, "order");
    for row in rows().into_iter().filter(|row| row.refused.is_none()) {
        let path = folder().join(&row.file);
        let mut file = containers::open(&path, row.inside.as_deref(), LIMIT).unwrap();
        for _ in 0..30 {
            let index = draw.below(file.len());
            assert_eq!(hex(&file.read(index).unwrap()), row.images[index], "{}", row.file);
        }
        assert!(file.read(file.len()).is_err(), "{}: beyond the end", row.file);
    }
}

/// A container that is cut off is refused in one line, or what is read of it is right: the end of
/// an archive is padding.
#[test]
fn containers_that_are_cut_off_are_refused() {
    let mut refused = 0;
    for row in rows().into_iter().filter(|row| row.refused.is_none()) {
        let bytes = std::fs::read(folder().join(&row.file)).unwrap();
        for len in 0..bytes.len() {
            match open_bytes(&bytes[..len], &row).and_then(|mut file| read_all(&mut file)) {
                Ok(read) => assert!(
                    row.file.ends_with("tar") && row.images.starts_with(&read),
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
    assert!(refused > 10_000);
}

#[test]
fn an_image_beyond_the_limit_is_refused() {
    for (name, limit) in [("cls.tar", 64), ("plain.parquet", 64), ("plain.parquet", 1 << 10)] {
        let bytes = std::fs::read(folder().join(name)).unwrap();
        let read = |limit| {
            let file = Box::new(Cursor::new(bytes.clone()));
            containers::open_input(file, Path::new(name), None, limit)?.read(0)
        };
        assert!(read(1 << 20).is_ok());
        let message = read(limit).unwrap_err().to_string();
        assert!(message.contains("more than the limit"), "{message}");
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// Opens and reads mutated files of one format.
fn fuzz(extension: &str) {
    let (inputs, seed) = (number("CSAE_FUZZ", 400), number("CSAE_FUZZ_SEED", 1));
    let rows = rows().into_iter().filter(|row| row.file.ends_with(extension));
    let seeds: Vec<(Row, Vec<u8>)> = rows
        .map(|row| {
            let bytes = std::fs::read(folder().join(&row.file)).unwrap();
            (row, bytes)
        })
        .collect();
    let mut draw = Stream::new(seed, extension);
    let (mut accepted, mut slowest) = (0, Duration::ZERO);
    for i in 0..inputs {
        let (row, bytes) = &seeds[draw.below(seeds.len())];
        let mut bytes = bytes.clone();
        // The description of a parquet file is at its end, where few mutations are.
        let turned = extension == "parquet" && draw.below(2) == 0;
        if turned {
            bytes.reverse();
        }
        mutate(&mut bytes, &mut draw);
        if turned {
            bytes.reverse();
        }
        let start = Instant::now();
        let answer = catch_unwind(AssertUnwindSafe(|| {
            open_bytes(&bytes, row).and_then(|mut file| read_all(&mut file))
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
    println!("{extension}: {inputs} inputs, {accepted} accepted, slowest {slowest:?}");
    // A mutation that breaks every file at once would test only the first check of a reader.
    assert!(inputs < 400 || accepted > 0);
}

#[test]
fn fuzz_parquet() {
    fuzz("parquet");
}

#[test]
fn fuzz_tar() {
    fuzz("tar");
}
