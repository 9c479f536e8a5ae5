//! The binary files of CIFAR: <https://www.cs.toronto.edu/~kriz/cifar.html>. A record of CIFAR-10
//! is a label and 32×32 pixels, as a red, a green and a blue plane. A record of CIFAR-100 has a
//! coarse label before the fine one; only the fine one is used.

use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::Format;
use crate::data::array::{Array, MAX_COUNT};
use crate::data::images::Labels;
use crate::data::records::{self, Arrays, reader};
use crate::data::{LoadOptions, Opened};
use crate::error::{Error, Result};
use crate::files;
use crate::shape::Dims;

/// Height and width of an image.
const SIDE: usize = 32;
/// Size of the pixels of an image in bytes.
const PIXELS: u64 = 3 * (SIDE * SIDE) as u64;

/// The two CIFAR data sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CifarSet {
    /// CIFAR-10: one label of ten.
    Cifar10,
    /// CIFAR-100: a coarse label of twenty, and a fine label of a hundred.
    Cifar100,
}

impl CifarSet {
    /// Number of classes.
    pub const fn classes(self) -> u32 {
        match self {
            Self::Cifar10 => 10,
            Self::Cifar100 => 100,
        }
    }

    /// Number of label bytes of a record.
    const fn labels(self) -> u64 {
        match self {
            Self::Cifar10 => 1,
            Self::Cifar100 => 2,
        }
    }

    /// The text file beside the data that has the names of the classes.
    const fn names(self) -> &'static str {
        match self {
            Self::Cifar10 => "batches.meta.txt",
            Self::Cifar100 => "fine_label_names.txt",
        }
    }
}

/// The entry in the table of formats.
pub(super) const FORMAT: Format = Format {
    sniffs: |_, path| named_cifar(path),
    open: |path, want, limit| open(path, &[path.to_owned()], want, limit),
    open_folder: |path, want, limit| {
        let batches = training_files(path);
        (!batches.is_empty()).then(|| open(path, &batches, want, limit))
    },
};

/// Whether a file has the extension of CIFAR's files.
fn named_cifar(path: &Path) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case("bin"))
}

/// The training files of a folder: `data_batch_*.bin` in the order of their numbers, or `train.bin`
/// of CIFAR-100. Empty if there are none.
fn training_files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<String> =
        entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    if names.iter().any(|name| name == "train.bin")
        && names.iter().any(|name| name == CifarSet::Cifar100.names())
    {
        return vec![folder.join("train.bin")];
    }
    names.retain(|name| name.starts_with("data_batch_") && name.ends_with(".bin"));
    // Shorter names first, so that 10 comes after 9.
    names.sort_by(|a, b| a.len().cmp(&b.len()).then_with(|| a.cmp(b)));
    names.into_iter().map(|name| folder.join(name)).collect()
}

/// The names of the classes, from the file beside the data. If it is missing or has the wrong
/// number of lines, the names are numbers.
fn classes(folder: &Path, set: CifarSet) -> Vec<String> {
    let text = files::read_text(&folder.join(set.names())).unwrap_or_default();
    let names: Vec<String> =
        text.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect();
    if names.len() == set.classes() as usize {
        names
    } else {
        (0..set.classes()).map(|class| class.to_string()).collect()
    }
}

/// Reads one or several files as one set.
fn open(source: &Path, files: &[PathBuf], want: &LoadOptions, limit: u64) -> Result<Opened> {
    let mut arrays = Arrays::new();
    let mut of = Vec::new();
    let mut found = None;
    for path in files {
        let (mut file, size) = reader(path)?;
        let (array, kind, labels) = array(&mut file, size).map_err(|e| e.at(path.display()))?;
        if found.is_some_and(|other| other != kind) {
            return Err(Error::usage(format!(
                "{}: this is {kind:?}, but another file here is not; use separate folders",
                path.display()
            )));
        }
        found = Some(kind);
        of.extend(labels);
        arrays.push((path.clone(), array));
    }
    let kind = found.unwrap_or(CifarSet::Cifar10);
    let folder = if source.is_dir() { source } else { source.parent().unwrap_or(Path::new("")) };
    let labels = Labels { classes: classes(folder, kind), of };
    records::open(&source.display().to_string(), arrays, Some(labels), want, limit, "")
}

/// Detects which data set a file of `size` bytes belongs to. Returns the layout of its records, the
/// data set and the labels.
///
/// # Errors
/// If the size is not a multiple of a record, there are too many records, or a label is out of
/// range.
pub fn array(file: &mut (impl Read + Seek), size: u64) -> Result<(Array, CifarSet, Vec<u32>)> {
    let fits = |set: &CifarSet| size > 0 && size.is_multiple_of(PIXELS + set.labels());
    let sets: Vec<CifarSet> =
        [CifarSet::Cifar10, CifarSet::Cifar100].into_iter().filter(fits).collect();
    let Some((last, others)) = sets.split_last() else {
        return Err(Error::usage(format!(
            "{size} bytes are not a multiple of 3073 (CIFAR-10) or 3074 (CIFAR-100); the file is \
             cut off or not CIFAR data: get it again"
        )));
    };
    // If the size fits both, the labels decide.
    for set in others {
        if let Ok(found) = labels(file, size, *set) {
            return Ok(found);
        }
    }
    labels(file, size, *last)
}

/// Reads the labels of a file as those of `set`; see [`array()`].
fn labels(
    file: &mut (impl Read + Seek),
    size: u64,
    set: CifarSet,
) -> Result<(Array, CifarSet, Vec<u32>)> {
    let record = PIXELS + set.labels();
    let count = size / record;
    if count > MAX_COUNT {
        return Err(Error::usage(format!(
            "{count} images; at most {MAX_COUNT} are supported: split the file"
        )));
    }
    let mut classes = Vec::new();
    for index in 0..count {
        let mut label = [0; 2];
        let label = &mut label[..set.labels() as usize];
        let read = file.seek(SeekFrom::Start(index * record)).and_then(|_| file.read_exact(label));
        read.map_err(|e| Error::failed(format!("image {index} cannot be read: {e}")))?;
        let fine = u32::from(label[label.len() - 1]);
        if fine >= set.classes() || (set == CifarSet::Cifar100 && label[0] >= 20) {
            let count = set.classes();
            return Err(Error::usage(format!(
                "image {index} has label {fine}, but there are {count} classes; the file is \
                 damaged or not CIFAR data"
            )));
        }
        classes.push(fine);
    }
    let skip = set.labels() as usize;
    let array = Array {
        start: 0,
        count: count as usize,
        skip,
        dims: Dims::new(3, SIDE, SIDE),
        planar: true,
    };
    Ok((array, set, classes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{LoadOptions, load};
    use crate::shape::Size;
    use crate::testing::Folder;
    use std::io::Cursor;

    /// The bytes of a file with one record per entry of `labels`.
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
    fn a_folder_is_read_in_the_order_of_its_batches_with_class_names() {
        let folder = Folder::new("cifar");
        folder.write("data_batch_2.bin", &records(&[&[3]]));
        folder.write("data_batch_10.bin", &records(&[&[9]]));
        folder.write("data_batch_1.bin", &records(&[&[7], &[0]]));
        folder.write("test_batch.bin", &records(&[&[1]]));
        folder.write(
            "batches.meta.txt",
            b"airplane\nautomobile\nbird\ncat\ndeer\ndog\nfrog\nhorse\nship\ntruck\n\n",
        );
        let loaded = load(folder.path.to_str().unwrap(), &LoadOptions::default()).unwrap();
        let labels = loaded.images.labels.clone().unwrap();
        assert_eq!((labels.of, labels.classes[7].as_str()), (vec![7, 0, 3, 9], "horse"));
        assert_eq!(
            (loaded.images.channels, loaded.images.common_size()),
            (3, Some(Size::new(32, 32)))
        );
        assert_eq!(loaded.images.image(1)[..6], [1, 101, 201, 2, 102, 202]);
        assert_eq!(loaded.images.names[3], "data_batch_10.bin/0");
    }

    #[test]
    fn a_single_batch_can_be_converted_to_gray() {
        let folder = Folder::new("cifar-gray");
        let test = folder.write("test_batch.bin", &records(&[&[1]]));
        let gray = load(
            test.to_str().unwrap(),
            &LoadOptions { channels: Some(1), strict: false, ..LoadOptions::default() },
        )
        .unwrap();
        assert_eq!((gray.images.len(), gray.images.channels), (1, 1));
    }

    #[test]
    fn the_size_and_the_labels_show_the_data_set() {
        let bytes = records(&[&[19, 99], &[0, 5]]);
        let (array, set, labels) = array(&mut Cursor::new(&bytes), bytes.len() as u64).unwrap();
        assert_eq!((array.count, array.skip, set, labels), (2, 2, CifarSet::Cifar100, vec![99, 5]));
    }

    #[test]
    fn damaged_files_are_refused() {
        let read = |bytes: &[u8]| array(&mut Cursor::new(bytes), bytes.len() as u64);
        for (bytes, expected) in [
            (vec![], "0 bytes are not a multiple"),
            (records(&[&[1]])[1..].to_vec(), "3072 bytes are not a multiple"),
            (records(&[&[1], &[10]]), "image 1 has label 10"),
            (records(&[&[20, 1]]), "image 0"),
        ] {
            let message = read(&bytes).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
