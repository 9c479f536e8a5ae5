//! CIFAR's binary files: <https://www.cs.toronto.edu/~kriz/cifar.html>. A record of CIFAR-10 is a
//! label and 32×32 pixels, red, green, then blue; CIFAR-100 puts a coarse label (which is left out)
//! in front of the fine one.

use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::Format;
use crate::data::array::{Array, MAX_COUNT, Sample};
use crate::data::images::Labels;
use crate::data::records::{self, Arrays, reader};
use crate::data::{Opened, Wanted};
use crate::error::{Error, Result};

const SIDE: usize = 32;
const PIXELS: u64 = 3 * (SIDE * SIDE) as u64;

/// Which of the two sets it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One label of ten.
    Cifar10,
    /// A coarse label of twenty, a fine one of a hundred.
    Cifar100,
}

impl Kind {
    /// Number of classes.
    pub const fn classes(self) -> u32 {
        match self {
            Self::Cifar10 => 10,
            Self::Cifar100 => 100,
        }
    }

    const fn labels(self) -> u64 {
        match self {
            Self::Cifar10 => 1,
            Self::Cifar100 => 2,
        }
    }

    /// The text file beside the data that names the classes.
    const fn names(self) -> &'static str {
        match self {
            Self::Cifar10 => "batches.meta.txt",
            Self::Cifar100 => "fine_label_names.txt",
        }
    }
}

/// CIFAR's row in the table of formats.
pub(super) const FORMAT: Format = Format {
    sniffs: |_, path| named_cifar(path),
    open: |path, want, limit| open(path, &[path.to_owned()], want, limit),
    open_folder: |path, want, limit| {
        let batches = training_files(path);
        (!batches.is_empty()).then(|| open(path, &batches, want, limit))
    },
};

/// Whether a file is called as CIFAR's are.
fn named_cifar(path: &Path) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case("bin"))
}

/// The training files of a folder: `data_batch_*.bin` in the order of their numbers, or CIFAR-100's
/// `train.bin`.
fn training_files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<String> =
        entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    if names.iter().any(|name| name == "train.bin")
        && names.iter().any(|name| name == Kind::Cifar100.names())
    {
        return vec![folder.join("train.bin")];
    }
    names.retain(|name| name.starts_with("data_batch_") && name.ends_with(".bin"));
    // 10 comes after 9
    names.sort_by(|a, b| a.len().cmp(&b.len()).then_with(|| a.cmp(b)));
    names.into_iter().map(|name| folder.join(name)).collect()
}

/// The classes' names, from the file beside the data, else numbers.
fn classes(folder: &Path, kind: Kind) -> Vec<String> {
    let text = std::fs::read_to_string(folder.join(kind.names())).unwrap_or_default();
    let names: Vec<String> =
        text.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect();
    if names.len() == kind.classes() as usize {
        names
    } else {
        (0..kind.classes()).map(|class| class.to_string()).collect()
    }
}

/// Reads one or several files as one set.
fn open(source: &Path, files: &[PathBuf], want: &Wanted, limit: u64) -> Result<Opened> {
    let mut arrays = Arrays::new();
    let mut of = Vec::new();
    let mut found = None;
    for path in files {
        let (mut file, size) = reader(path)?;
        let (array, kind, labels) = array(&mut file, size).map_err(|e| e.at(path.display()))?;
        if found.is_some_and(|other| other != kind) {
            return Err(Error::usage(format!(
                "{}: {kind:?} beside another kind of CIFAR data; keep them apart",
                path.display()
            )));
        }
        found = Some(kind);
        of.extend(labels);
        arrays.push((path.clone(), array));
    }
    let kind = found.unwrap_or(Kind::Cifar10);
    let folder = if source.is_dir() { source } else { source.parent().unwrap_or(Path::new("")) };
    let labels = Labels { classes: classes(folder, kind), of };
    records::open(&source.display().to_string(), arrays, Some(labels), want, limit, "")
}

/// Finds out which set a file of `size` bytes is, and reads its labels.
///
/// # Errors
/// When the size is no multiple of a record, or a label is none.
pub fn array(file: &mut (impl Read + Seek), size: u64) -> Result<(Array, Kind, Vec<u32>)> {
    let fits = |kind: &Kind| size > 0 && size.is_multiple_of(PIXELS + kind.labels());
    let kinds: Vec<Kind> = [Kind::Cifar10, Kind::Cifar100].into_iter().filter(fits).collect();
    let Some((last, others)) = kinds.split_last() else {
        return Err(Error::usage(format!(
            "{size} bytes are no multiple of 3073 (CIFAR-10) or 3074 (CIFAR-100); the file is cut off or something else: get it again"
        )));
    };
    // Where the size allows both, the labels decide.
    for kind in others {
        if let Ok(found) = labels(file, size, *kind) {
            return Ok(found);
        }
    }
    labels(file, size, *last)
}

fn labels(file: &mut (impl Read + Seek), size: u64, kind: Kind) -> Result<(Array, Kind, Vec<u32>)> {
    let record = PIXELS + kind.labels();
    let count = size / record;
    if count > MAX_COUNT {
        return Err(Error::usage(format!(
            "{count} images; at most {MAX_COUNT} are read: split the file"
        )));
    }
    let mut of = Vec::new();
    for index in 0..count {
        let mut label = [0; 2];
        let label = &mut label[..kind.labels() as usize];
        let read = file.seek(SeekFrom::Start(index * record)).and_then(|_| file.read_exact(label));
        read.map_err(|e| Error::failed(format!("image {index} cannot be read: {e}")))?;
        let fine = u32::from(label[label.len() - 1]);
        if fine >= kind.classes() || (kind == Kind::Cifar100 && label[0] >= 20) {
            let classes = kind.classes();
            return Err(Error::usage(format!(
                "image {index} has label {fine}, but there are {classes} classes; the file is damaged or no CIFAR data"
            )));
        }
        of.push(fine);
    }
    let skip = kind.labels() as usize;
    let array = Array {
        start: 0,
        count: count as usize,
        skip,
        h: SIDE,
        w: SIDE,
        c: 3,
        planar: true,
        sample: Sample::U8,
    };
    Ok((array, kind, of))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Wanted, load};
    use crate::testing::Folder;
    use std::io::Cursor;

    fn records(labels: &[&[u8]]) -> Vec<u8> {
        let pixels =
            |i: usize| (0..PIXELS as usize).map(move |p| (p / 1024 * 100 + p % 1024 % 7 + i) as u8);
        labels
            .iter()
            .enumerate()
            .flat_map(|(i, label)| label.iter().copied().chain(pixels(i)))
            .collect()
    }

    #[test]
    fn folders_take_all_batches_in_order_and_class_names() {
        let folder = Folder::new("cifar");
        folder.write("data_batch_2.bin", &records(&[&[3]]));
        folder.write("data_batch_10.bin", &records(&[&[9]]));
        folder.write("data_batch_1.bin", &records(&[&[7], &[0]]));
        let test = folder.write("test_batch.bin", &records(&[&[1]]));
        folder.write(
            "batches.meta.txt",
            b"airplane\nautomobile\nbird\ncat\ndeer\ndog\nfrog\nhorse\nship\ntruck\n\n",
        );
        let loaded = load(folder.path.to_str().unwrap(), &Wanted::default()).unwrap();
        let labels = loaded.images.labels.clone().unwrap();
        assert_eq!((labels.of, labels.classes[7].as_str()), (vec![7, 0, 3, 9], "horse"));
        assert_eq!((loaded.images.channels, loaded.images.common_size()), (3, Some((32, 32))));
        assert_eq!(loaded.images.image(1)[..6], [1, 101, 201, 2, 102, 202]);
        assert_eq!(loaded.images.names[3], "data_batch_10.bin/0");
        let gray = load(
            test.to_str().unwrap(),
            &Wanted { channels: Some(1), strict: false, memory: None },
        )
        .unwrap();
        assert_eq!((gray.images.len(), gray.images.channels), (1, 1));
    }

    #[test]
    fn the_two_sets_are_told_apart() {
        let read = |bytes: &[u8]| array(&mut Cursor::new(bytes), bytes.len() as u64);
        let (array, kind, of) = read(&records(&[&[19, 99], &[0, 5]])).unwrap();
        assert_eq!((array.count, array.skip, kind, of), (2, 2, Kind::Cifar100, vec![99, 5]));
        for (bytes, expected) in [
            (vec![], "0 bytes are no multiple"),
            (records(&[&[1]])[1..].to_vec(), "3072 bytes are no multiple"),
            (records(&[&[1], &[10]]), "image 1 has label 10"),
            (records(&[&[20, 1]]), "image 0"),
        ] {
            let message = read(&bytes).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
