//! IDX files, the format of MNIST: two zero bytes, a type, the number of dimensions, the dimensions
//! (big end first), the values. Also gzipped.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;

use super::{Format, no_folder};
use crate::data::array::{Array, MAX_COUNT, Sample};
use crate::data::images::{Entry, Images, Labels, MAX_BYTES, too_large};
use crate::data::pixels::Pixels;
use crate::data::records;
use crate::data::{Opened, Wanted};
use crate::error::{Error, Result};

/// What deflate can shrink at most; a header that promises more than this allows is refused before
/// anything is unpacked.
const MAX_DEFLATE_RATIO: u64 = 1032;

/// IDX's row in the table of formats.
pub(super) const FORMAT: Format = Format { sniffs: looks_like, open, open_folder: no_folder };

fn open(path: &Path, want: &Wanted, limit: u64) -> Result<Opened> {
    let source = path.display().to_string();
    if let Some((array, labels)) = to_stream(path, limit)? {
        return records::open(&source, vec![(path.to_owned(), array)], labels, want, limit, "");
    }
    let mut images = load(path)?;
    if let Some(channels) = want.channels {
        images.convert_channels(channels).map_err(|e| e.at(&source))?;
    }
    Ok(Opened::new(&source, Pixels::Resident(images), ""))
}

/// Whether a file that begins with these bytes is IDX or gzip.
fn looks_like(start: &[u8], path: &Path) -> bool {
    let magic = start.len() >= 4
        && start[..2] == [0, 0]
        && (0x08..=0x0e).contains(&start[2])
        && (1..=8).contains(&start[3]);
    magic || start.starts_with(&[0x1f, 0x8b]) || named_idx(path)
}

/// Whether a file is called like IDX data.
pub(crate) fn named_idx(path: &Path) -> bool {
    let name = path.file_name().map(|n| n.to_string_lossy().to_lowercase()).unwrap_or_default();
    ["idx1", "idx3", "idx4"].iter().any(|part| name.contains(part))
        || name.ends_with(".idx")
        || name.ends_with(".idx.gz")
}

/// Reads images (three dimensions N,H,W or four N,H,W,C, unsigned bytes) and, if a labels file lies
/// beside them, their labels. The images are named by their number. Labels are found by name:
/// `images` becomes `labels` and `idx3` (or `idx4`) `idx1`, with or without `.gz`.
///
/// # Errors
/// Anything that is not such a file, holds less or more than it promises, or has labels that do not
/// match.
pub fn load(path: &Path) -> Result<Images> {
    let read = || -> Result<Images> {
        let size = std::fs::metadata(path).map_err(|e| Error::io(path, &e))?.len();
        let file = File::open(path).map_err(|e| Error::io(path, &e))?;
        images(BufReader::new(file), size).map_err(|e| e.at(path.display()))
    };
    let mut images = read()?;
    images.labels = labels_for(path, images.len())?;
    Ok(images)
}

/// The array to stream from, with its labels, if its images take more than `limit` bytes.
///
/// # Errors
/// As [`load`]; and what is gzipped cannot be read by seeking.
fn to_stream(path: &Path, limit: u64) -> Result<Option<(Array, Option<Labels>)>> {
    let place = |e: Error| e.at(path.display());
    let size = std::fs::metadata(path).map_err(|e| Error::io(path, &e))?.len();
    let mut reader = BufReader::new(File::open(path).map_err(|e| Error::io(path, &e))?);
    let packed = reader.fill_buf().is_ok_and(|start| start.starts_with(&[0x1f, 0x8b]));
    let head = if packed {
        header(&mut MultiGzDecoder::new(reader), size.saturating_mul(MAX_DEFLATE_RATIO))
    } else {
        header(&mut reader, size)
    };
    // what is wrong with the file is said when it is read
    let Some((dims, promised)) = head.ok().filter(|(_, promised)| *promised > limit) else {
        return Ok(None);
    };
    if packed {
        return Err(place(Error::usage(format!(
            "its {promised} bytes are more than fit into memory, and gzip cannot be read in parts: unpack it (gunzip), or raise --max-memory"
        ))));
    }
    let start = 4 + 4 * dims.len() as u64;
    if size > start + promised {
        return Err(place(surplus(&shape_of(&dims))));
    }
    let (n, h, w, c) =
        sizes(&dims.iter().map(|&dim| dim as usize).collect::<Vec<_>>()).map_err(place)?;
    let array = Array { start, count: n, skip: 0, h, w, c, planar: false, sample: Sample::U8 };
    Ok(Some((array, labels_for(path, n)?)))
}

/// The labels beside a file of `count` images.
fn labels_for(path: &Path, count: usize) -> Result<Option<Labels>> {
    if let Some(beside) = labels_beside(path) {
        let size = std::fs::metadata(&beside).map_err(|e| Error::io(&beside, &e))?.len();
        let file = File::open(&beside).map_err(|e| Error::io(&beside, &e))?;
        let of = labels(BufReader::new(file), size).map_err(|e| e.at(beside.display()))?;
        if of.len() != count {
            return Err(Error::usage(format!(
                "{}: {} labels for the {} images of {}; rename it if it does not belong to them",
                beside.display(),
                of.len(),
                count,
                path.display()
            )));
        }
        return Ok(Some(with_classes(of)));
    }
    Ok(None)
}

/// Reads images from bytes in memory.
///
/// # Errors
/// As [`load`].
pub fn images_from(bytes: &[u8]) -> Result<Images> {
    images(bytes, bytes.len() as u64)
}

/// Reads labels from bytes in memory; the classes are called by their numbers.
///
/// # Errors
/// As [`load`].
pub fn labels_from(bytes: &[u8]) -> Result<Labels> {
    labels(bytes, bytes.len() as u64).map(with_classes)
}

fn with_classes(of: Vec<u8>) -> Labels {
    let count = of.iter().max().map_or(0, |&most| u32::from(most) + 1);
    Labels {
        classes: (0..count).map(|class| class.to_string()).collect(),
        of: of.into_iter().map(u32::from).collect(),
    }
}

fn images(reader: impl BufRead, size: u64) -> Result<Images> {
    let (dims, bytes) = read(reader, size)?;
    let (n, h, w, channels) = sizes(&dims)?;
    let each = h * w * channels;
    let table = (0..n).map(|i| Entry { offset: i * each, h, w }).collect();
    let digits = (n - 1).to_string().len();
    let names = (0..n).map(|i| format!("{i:0digits$}")).collect();
    Ok(Images { bytes, table, channels, names, labels: None })
}

/// Number, height, width and channels of images.
fn sizes(dims: &[usize]) -> Result<(usize, usize, usize, usize)> {
    let &[n, h, w, ref rest @ ..] = dims else {
        let what = if dims.len() == 1 {
            "looks like labels; name the images' file instead"
        } else {
            "is not a set of images"
        };
        return Err(Error::usage(format!(
            "{} dimension(s) where images have 3 (N,H,W) or 4 (N,H,W,C): this {what}",
            dims.len()
        )));
    };
    let channels = match *rest {
        [] => 1,
        [c] if (1..=4).contains(&c) => c,
        [c] => {
            return Err(Error::usage(format!(
                "{c} channels; 1 to 4 are possible (the order of dimensions is N,H,W,C)"
            )));
        }
        _ => {
            return Err(Error::usage(format!(
                "{} dimensions where images have 3 (N,H,W) or 4 (N,H,W,C)",
                dims.len()
            )));
        }
    };
    Ok((n, h, w, channels))
}

fn labels(reader: impl BufRead, size: u64) -> Result<Vec<u8>> {
    let (dims, bytes) = read(reader, size)?;
    if dims.len() == 1 {
        Ok(bytes)
    } else {
        Err(Error::usage(format!("{} dimensions where labels have 1", dims.len())))
    }
}

/// Reads dimensions and values, gzipped or not. `size` is that of the file.
fn read(mut reader: impl BufRead, size: u64) -> Result<(Vec<usize>, Vec<u8>)> {
    let start = reader.fill_buf().map_err(|e| Error::failed(e.to_string()))?;
    if start.is_empty() {
        return Err(Error::usage("the file is empty"));
    }
    if start.starts_with(&[0x1f, 0x8b]) {
        read_plain(MultiGzDecoder::new(reader), size.saturating_mul(MAX_DEFLATE_RATIO))
    } else {
        read_plain(reader, size)
    }
}

/// Reads dimensions and values; `most` is what the file can hold at most, header included.
fn read_plain(mut reader: impl Read, most: u64) -> Result<(Vec<usize>, Vec<u8>)> {
    let (dims, promised) = header(&mut reader, most)?;
    if promised > MAX_BYTES as u64 {
        return Err(too_large());
    }
    let shape = shape_of(&dims);
    // gzip may still hold less: memory grows with what is really there
    let mut bytes = Vec::with_capacity(promised.min(1 << 24) as usize);
    if let Err(error) = reader.by_ref().take(promised).read_to_end(&mut bytes) {
        return Err(match error.kind() {
            std::io::ErrorKind::UnexpectedEof => short(&shape, &bytes.len().to_string()),
            _ => Error::usage(format!(
                "cannot be read after {} of {promised} bytes: {error}; get it again",
                bytes.len()
            )),
        });
    }
    if (bytes.len() as u64) < promised {
        return Err(short(&shape, &bytes.len().to_string()));
    }
    if reader.read(&mut [0]).is_ok_and(|more| more > 0) {
        return Err(surplus(&shape));
    }
    Ok((dims.into_iter().map(|dim| dim as usize).collect(), bytes))
}

fn shape_of(dims: &[u64]) -> String {
    dims.iter().map(u64::to_string).collect::<Vec<_>>().join("x")
}

fn short(shape: &str, held: &str) -> Error {
    Error::usage(format!(
        "promises {shape} bytes but holds {held}; the file is cut off or damaged: get it again"
    ))
}

fn surplus(shape: &str) -> Error {
    Error::usage(format!(
        "holds more than the {shape} bytes that it promises; the header or the file is damaged: get it again"
    ))
}

/// Reads the dimensions, and how many bytes of values they promise; `most` is what the file can
/// hold at most, header included.
fn header(mut reader: &mut impl Read, most: u64) -> Result<(Vec<u64>, u64)> {
    let mut magic = [0; 4];
    exact(&mut reader, &mut magic)?;
    let [0, 0, kind, rank] = magic else {
        return Err(Error::usage("not an IDX file (it does not begin with two zero bytes)"));
    };
    if kind != 0x08 {
        let name = match kind {
            0x09 => "signed bytes",
            0x0b => "16-bit integers",
            0x0c => "32-bit integers",
            0x0d => "32-bit floats",
            0x0e => "64-bit floats",
            _ => return Err(Error::usage(format!("not an IDX file (unknown type 0x{kind:02x})"))),
        };
        return Err(Error::usage(format!(
            "holds {name}; only unsigned bytes are read: convert it"
        )));
    }
    if !(1..=4).contains(&rank) {
        return Err(Error::usage(format!("{rank} dimensions; images have 3 or 4, labels 1")));
    }
    let mut dims = Vec::new();
    for _ in 0..rank {
        let mut dim = [0; 4];
        exact(&mut reader, &mut dim)?;
        dims.push(u64::from(u32::from_be_bytes(dim)));
    }
    let shape = shape_of(&dims);
    if dims.contains(&0) {
        return Err(Error::usage(format!("holds nothing: its dimensions are {shape}")));
    }
    let promised = dims.iter().try_fold(1u64, |product, &dim| product.checked_mul(dim));
    let header = 4 + 4 * u64::from(rank);
    let promised = match promised {
        Some(bytes) if bytes <= most.saturating_sub(header) => bytes,
        _ => return Err(short(&shape, "fewer")),
    };
    if dims[0] > MAX_COUNT {
        return Err(Error::usage(format!(
            "{} entries; at most {MAX_COUNT} are read: split the file",
            dims[0]
        )));
    }
    Ok((dims, promised))
}

fn exact(reader: &mut impl Read, into: &mut [u8]) -> Result<()> {
    reader.read_exact(into).map_err(|error| match error.kind() {
        std::io::ErrorKind::UnexpectedEof => {
            Error::usage("ends inside the IDX header; the file is cut off: get it again")
        }
        _ => Error::usage(format!("cannot be read: {error}; get it again")),
    })
}

/// The labels' file that belongs to an images' file, if there is one.
fn labels_beside(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    if !name.contains("images") {
        return None;
    }
    let labels = name.replace("images", "labels").replace("idx3", "idx1").replace("idx4", "idx1");
    let stem = labels.strip_suffix(".gz").unwrap_or(&labels);
    // what is packed like the images comes first
    let other = if stem.len() == labels.len() { format!("{stem}.gz") } else { stem.to_owned() };
    [labels.clone(), other]
        .into_iter()
        .map(|name| path.with_file_name(OsStr::new(&name)))
        .find(|p| p.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Folder;
    use std::io::Write;

    fn idx(kind: u8, dims: &[u32], values: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0, 0, kind, dims.len() as u8];
        dims.iter().for_each(|d| bytes.extend(d.to_be_bytes()));
        bytes.extend(values);
        bytes
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn plain_and_gzipped_read_the_same() {
        let values: Vec<u8> = (0..30).collect();
        let plain = idx(8, &[5, 2, 3], &values);
        let images = images_from(&plain).unwrap();
        assert_eq!((images.len(), images.channels, images.common_size()), (5, 1, Some((2, 3))));
        assert_eq!(images.image(4), &values[24..]);
        assert_eq!(images.names[4], "4");
        assert_eq!(images_from(&gzip(&plain)).unwrap(), images);
        let colour = images_from(&idx(8, &[2, 1, 5, 3], &values)).unwrap();
        assert_eq!((colour.len(), colour.channels, colour.common_size()), (2, 3, Some((1, 5))));
        assert_eq!(
            labels_from(&idx(8, &[4], &[0, 3, 1, 3])).unwrap().classes,
            ["0", "1", "2", "3"]
        );
    }

    #[test]
    fn hostile_files_are_refused_in_words() {
        let values = vec![7; 12];
        let good = idx(8, &[3, 2, 2], &values);
        let most = u32::MAX;
        let uneven: Vec<u8> = (0..5_000_000u32).map(|i| (i.wrapping_mul(i) >> 9) as u8).collect();
        let cases: Vec<(Vec<u8>, &str)> = vec![
            (vec![], "empty"),
            (vec![0], "header"),
            (vec![0x1f, 0x8b], "cut off"),
            (vec![0x1f, 0x8b, 8, 0, 0, 0], "cut off"),
            (good[..10].to_vec(), "header"),
            (good[..good.len() - 1].to_vec(), "promises 3x2x2 bytes but holds fewer"),
            ([&good[..], &[1]].concat(), "more than the 3x2x2"),
            (idx(8, &[most, most, most], &values), "holds fewer"),
            (idx(8, &[most, most, most, most], &values), "holds fewer"),
            (idx(8, &[60_000, 28, 28], &values), "promises 60000x28x28 bytes but holds fewer"),
            (idx(8, &[0, 28, 28], &[]), "holds nothing"),
            (idx(8, &[12, 0, 1], &[]), "holds nothing"),
            (idx(8, &[12], &values), "labels"),
            (idx(8, &[3, 4], &values), "2 dimension"),
            (idx(8, &[1, 1, 1, 12], &values), "12 channels"),
            (idx(8, &[1, 1, 1, 1, 12], &values), "5 dimensions"),
            (idx(8, &[], &values), "0 dimensions"),
            (idx(13, &[3, 2, 2], &[0; 48]), "32-bit floats"),
            (idx(7, &[3, 2, 2], &values), "unknown type 0x07"),
            (vec![0x89, b'P', b'N', b'G'], "not an IDX"),
            (gzip(&idx(8, &[30, 2, 2], &values)), "promises 30x2x2 bytes but holds 12"),
            (gzip(&idx(8, &[most, most, 1], &values)), "holds fewer"),
            (gzip(&idx(8, &[11_000_000, 1, 1], &vec![0; 11_000_000])), "11000000 entries"),
            (gzip(&idx(8, &[1000, 100, 100], &uneven)), "holds 5000000"),
            (gzip(b"hello, this is text"), "not an IDX"),
        ];
        for (bytes, expected) in cases {
            let message = images_from(&bytes).unwrap_err().to_string();
            assert!(
                message.contains(expected) && !message.contains('\n'),
                "{message} (expected {expected})"
            );
        }
        let cut = gzip(&good);
        for end in 2..cut.len() - 9 {
            let _ = images_from(&cut[..end]).unwrap_err();
        }
        let mut flipped = gzip(&good);
        let crc = flipped.len() - 6;
        flipped[crc] ^= 1;
        let _ = images_from(&flipped);
    }

    #[test]
    fn labels_are_found_by_name() {
        let folder = Folder::new("idx_labels");
        let images =
            folder.write("t10k-images-idx3-ubyte.gz", &gzip(&idx(8, &[3, 1, 1], &[1, 2, 3])));
        assert_eq!(load(&images).unwrap().labels, None);
        folder.write("t10k-labels-idx1-ubyte", &idx(8, &[3], &[2, 0, 1]));
        let loaded = load(&images).unwrap();
        assert_eq!(
            loaded.labels.unwrap(),
            Labels { classes: vec!["0".into(), "1".into(), "2".into()], of: vec![2, 0, 1] }
        );
        // the one packed like the images wins, and must match
        folder.write("t10k-labels-idx1-ubyte.gz", &gzip(&idx(8, &[2], &[2, 0])));
        let message = load(&images).unwrap_err().to_string();
        assert!(message.contains("labels-idx1-ubyte.gz: 2 labels for the 3 images"), "{message}");
        let missing = load(&folder.path.join("nothing")).unwrap_err().to_string();
        assert!(missing.contains("nothing: "), "{missing}");
    }
}
