//! IDX files, the format of MNIST (<http://yann.lecun.com/exdb/mnist/>): two zero bytes, the type,
//! the number of dimensions, the dimensions (32-bit, big-endian), the values. They can be gzipped.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;

use super::{Format, no_folder};
use crate::advice::Advice;
use crate::data::array::{Array, MAX_COUNT};
use crate::data::images::{Entry, Images, Labels, MAX_BYTES, too_large};
use crate::data::pixels::Pixels;
use crate::data::records;
use crate::data::{LoadOptions, Opened};
use crate::error::{Error, Result};
use crate::shape::Dims;

/// Maximum compression ratio of deflate (<https://zlib.net/zlib_tech.html>). A header with more
/// values than this allows for the size of the file is refused before anything is unpacked.
const MAX_DEFLATE_RATIO: u64 = 1032;

/// The entry in the table of formats.
pub(super) const FORMAT: Format = Format { sniffs: looks_like, open, open_folder: no_folder };

/// Opens a file: streams it if it exceeds `limit` bytes, otherwise loads it.
fn open(path: &Path, want: &LoadOptions, limit: u64) -> Result<Opened> {
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

/// Whether a file starts like IDX or gzip, or has the name of an IDX file.
fn looks_like(start: &[u8], path: &Path) -> bool {
    let magic = start.len() >= 4
        && start[..2] == [0, 0]
        && (0x08..=0x0e).contains(&start[2])
        && (1..=8).contains(&start[3]);
    magic || start.starts_with(&[0x1f, 0x8b]) || named_idx(path)
}

/// Whether a file has the name of an IDX file.
pub fn named_idx(path: &Path) -> bool {
    let name = path.file_name().map(|n| n.to_string_lossy().to_lowercase()).unwrap_or_default();
    ["idx1", "idx3", "idx4"].iter().any(|part| name.contains(part))
        || name.ends_with(".idx")
        || name.ends_with(".idx.gz")
}

/// Loads images of unsigned bytes (N,H,W or N,H,W,C) and the labels beside them, if there are any.
/// The names of the images are their numbers.
///
/// The labels are in the file whose name has `labels` for `images` and `idx1` for `idx3` or `idx4`,
/// with or without `.gz`.
///
/// # Errors
/// If the file is not a valid IDX file of images, it is larger or smaller than its header says, or
/// the labels do not match. The message names the file.
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

/// Returns the layout of the records and the labels, for streaming, if the images take more than
/// `limit` bytes. Returns `None` if they take less, or if the header is invalid; [`load`] then
/// reports the error.
///
/// # Errors
/// If the file is gzipped, because it cannot be read by seeking; and those of [`load`].
fn to_stream(path: &Path, limit: u64) -> Result<Option<(Array, Option<Labels>)>> {
    let with_path = |e: Error| e.at(path.display());
    let size = std::fs::metadata(path).map_err(|e| Error::io(path, &e))?.len();
    let mut reader = BufReader::new(File::open(path).map_err(|e| Error::io(path, &e))?);
    let packed = reader.fill_buf().is_ok_and(|start| start.starts_with(&[0x1f, 0x8b]));
    let head = if packed {
        header(&mut MultiGzDecoder::new(reader), size.saturating_mul(MAX_DEFLATE_RATIO))
    } else {
        header(&mut reader, size)
    };
    let Some((dims, bytes)) = head.ok().filter(|(_, bytes)| *bytes > limit) else {
        return Ok(None);
    };
    if packed {
        return Err(with_path(Error::usage(format!(
            "{bytes} bytes of images do not fit into memory, and gzip cannot be streamed; unpack \
             the file (gunzip), or {}",
            Advice::RaiseMemoryLimit
        ))));
    }
    let start = 4 + 4 * dims.len() as u64;
    if size > start + bytes {
        return Err(with_path(too_long(&shape_text(&dims))));
    }
    let (n, dims) =
        sizes(&dims.iter().map(|&dim| dim as usize).collect::<Vec<_>>()).map_err(with_path)?;
    let array = Array { start, count: n, skip: 0, dims, planar: false };
    Ok(Some((array, labels_for(path, n)?)))
}

/// Reads the labels beside a file of `count` images, if there are any.
fn labels_for(path: &Path, count: usize) -> Result<Option<Labels>> {
    if let Some(beside) = labels_beside(path) {
        let size = std::fs::metadata(&beside).map_err(|e| Error::io(&beside, &e))?.len();
        let file = File::open(&beside).map_err(|e| Error::io(&beside, &e))?;
        let of = labels(BufReader::new(file), size).map_err(|e| e.at(beside.display()))?;
        if of.len() != count {
            return Err(Error::usage(format!(
                "{}: {} labels for the {} images of {}; rename this file if it does not belong to \
                 them",
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

/// Reads images from the bytes of a file.
///
/// # Errors
/// Those of [`load`]; the message names no file.
pub fn images_from(bytes: &[u8]) -> Result<Images> {
    images(bytes, bytes.len() as u64)
}

/// Reads labels from the bytes of a file. The names of the classes are their numbers.
///
/// # Errors
/// If the bytes are not a valid IDX file of labels.
pub fn labels_from(bytes: &[u8]) -> Result<Labels> {
    labels(bytes, bytes.len() as u64).map(with_classes)
}

fn with_classes(of: Vec<u8>) -> Labels {
    Labels::of_numbers(&of.into_iter().map(u32::from).collect::<Vec<_>>())
}

fn images(reader: impl BufRead, size: u64) -> Result<Images> {
    let (dims, bytes) = read(reader, size)?;
    let (n, dims) = sizes(&dims)?;
    let table = (0..n).map(|i| Entry { offset: i * dims.len(), size: dims.size() }).collect();
    let digits = (n - 1).to_string().len();
    let names = (0..n).map(|i| format!("{i:0digits$}")).collect();
    Ok(Images { bytes, table, names, ..Images::new(dims.c) })
}

/// Number and size of images with these dimensions.
fn sizes(dims: &[usize]) -> Result<(usize, Dims)> {
    let &[n, h, w, ref rest @ ..] = dims else {
        return Err(Error::usage(if dims.len() == 1 {
            "the file has 1 dimension, so it looks like labels; name the file of the images \
             instead"
                .to_owned()
        } else {
            format!("{} dimensions; images have 3 (N,H,W) or 4 (N,H,W,C)", dims.len())
        }));
    };
    let channels = match *rest {
        [] => 1,
        [c] if (1..=4).contains(&c) => c,
        [c] => {
            return Err(Error::usage(format!(
                "{c} channels; 1 to 4 are supported (the order of dimensions is N,H,W,C)"
            )));
        }
        _ => {
            return Err(Error::usage(format!(
                "{} dimensions; images have 3 (N,H,W) or 4 (N,H,W,C)",
                dims.len()
            )));
        }
    };
    Ok((n, Dims::new(channels, h, w)))
}

fn labels(reader: impl BufRead, size: u64) -> Result<Vec<u8>> {
    let (dims, bytes) = read(reader, size)?;
    if dims.len() == 1 {
        Ok(bytes)
    } else {
        Err(Error::usage(format!("{} dimensions; labels have 1", dims.len())))
    }
}

/// Reads dimensions and values, gzipped or not. `size` is the size of the file in bytes.
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

/// Reads dimensions and values that are not gzipped. `max` is the maximum size of the file
/// including the header, in bytes.
fn read_plain(mut reader: impl Read, max: u64) -> Result<(Vec<usize>, Vec<u8>)> {
    let (dims, expected) = header(&mut reader, max)?;
    if expected > MAX_BYTES as u64 {
        return Err(too_large());
    }
    let shape = shape_text(&dims);
    // At most 16 MiB are reserved in advance: a gzipped file can contain less than its header says.
    let mut bytes = Vec::with_capacity(expected.min(1 << 24) as usize);
    if let Err(error) = reader.by_ref().take(expected).read_to_end(&mut bytes) {
        return Err(match error.kind() {
            std::io::ErrorKind::UnexpectedEof => too_short(&shape, &bytes.len().to_string()),
            _ => Error::usage(format!(
                "cannot be read after {} of {expected} bytes: {error}; get it again",
                bytes.len()
            )),
        });
    }
    if (bytes.len() as u64) < expected {
        return Err(too_short(&shape, &bytes.len().to_string()));
    }
    if reader.read(&mut [0]).is_ok_and(|more| more > 0) {
        return Err(too_long(&shape));
    }
    Ok((dims.into_iter().map(|dim| dim as usize).collect(), bytes))
}

fn shape_text(dims: &[u64]) -> String {
    dims.iter().map(u64::to_string).collect::<Vec<_>>().join("x")
}

/// The error for a file with fewer values than its header says. `actual` is their number, or
/// "fewer".
fn too_short(shape: &str, actual: &str) -> Error {
    Error::usage(format!(
        "the header has the shape {shape}, but the file has {actual} bytes of values; the file is \
         cut off or damaged: get it again"
    ))
}

/// The error for a file with more values than its header says.
fn too_long(shape: &str) -> Error {
    Error::usage(format!(
        "the file has more bytes of values than the shape {shape} of its header; the file is \
         damaged: get it again"
    ))
}

/// Reads the header. Returns the dimensions and the number of bytes of values. `max` is the maximum
/// size of the file including the header, in bytes.
fn header(mut reader: &mut impl Read, max: u64) -> Result<(Vec<u64>, u64)> {
    let mut magic = [0; 4];
    read_exact(&mut reader, &mut magic)?;
    let [0, 0, value_type, rank] = magic else {
        return Err(Error::usage("not an IDX file (it does not start with two zero bytes)"));
    };
    if value_type != 0x08 {
        let name = match value_type {
            0x09 => "signed bytes",
            0x0b => "16-bit integers",
            0x0c => "32-bit integers",
            0x0d => "32-bit floats",
            0x0e => "64-bit floats",
            other => {
                return Err(Error::usage(format!("not an IDX file (unknown type 0x{other:02x})")));
            }
        };
        return Err(Error::usage(format!(
            "the file has {name}, but only unsigned bytes are supported: convert it"
        )));
    }
    if !(1..=4).contains(&rank) {
        return Err(Error::usage(format!("{rank} dimensions; images have 3 or 4, labels 1")));
    }
    let mut dims = Vec::new();
    for _ in 0..rank {
        let mut dim = [0; 4];
        read_exact(&mut reader, &mut dim)?;
        dims.push(u64::from(u32::from_be_bytes(dim)));
    }
    let shape = shape_text(&dims);
    if dims.contains(&0) {
        return Err(Error::usage(format!("the file is empty: its dimensions are {shape}")));
    }
    let product = dims.iter().try_fold(1u64, |product, &dim| product.checked_mul(dim));
    let header = 4 + 4 * u64::from(rank);
    let bytes = match product {
        Some(bytes) if bytes <= max.saturating_sub(header) => bytes,
        _ => return Err(too_short(&shape, "fewer")),
    };
    if dims[0] > MAX_COUNT {
        return Err(Error::usage(format!(
            "{} entries; at most {MAX_COUNT} are supported: split the file",
            dims[0]
        )));
    }
    Ok((dims, bytes))
}

/// Fills `bytes` with the next bytes of the header.
fn read_exact(reader: &mut impl Read, bytes: &mut [u8]) -> Result<()> {
    reader.read_exact(bytes).map_err(|error| match error.kind() {
        std::io::ErrorKind::UnexpectedEof => {
            Error::usage("the file ends inside the IDX header; it is cut off: get it again")
        }
        _ => Error::usage(format!("cannot be read: {error}; get it again")),
    })
}

/// The file of labels that belongs to a file of images, if it exists; see [`load`].
fn labels_beside(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    if !name.contains("images") {
        return None;
    }
    let labels = name.replace("images", "labels").replace("idx3", "idx1").replace("idx4", "idx1");
    let stem = labels.strip_suffix(".gz").unwrap_or(&labels);
    // The file with the same compression as the images comes first.
    let other = if stem.len() == labels.len() { format!("{stem}.gz") } else { stem.to_owned() };
    [labels.clone(), other]
        .into_iter()
        .map(|name| path.with_file_name(OsStr::new(&name)))
        .find(|p| p.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::Size;
    use crate::testing::Folder;
    use std::io::Write;

    fn idx(value_type: u8, dims: &[u32], values: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0, 0, value_type, dims.len() as u8];
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
    fn images_can_be_gzipped() {
        let values: Vec<u8> = (0..30).collect();
        let plain = idx(8, &[5, 2, 3], &values);
        let images = images_from(&plain).unwrap();
        assert_eq!(
            (images.len(), images.channels, images.common_size()),
            (5, 1, Some(Size::new(2, 3)))
        );
        assert_eq!(images.image(4), &values[24..]);
        assert_eq!(images.names[4], "4");
        assert_eq!(images_from(&gzip(&plain)).unwrap(), images);
    }

    #[test]
    fn four_dimensions_have_channels() {
        let values: Vec<u8> = (0..30).collect();
        let colour = images_from(&idx(8, &[2, 1, 5, 3], &values)).unwrap();
        assert_eq!(
            (colour.len(), colour.channels, colour.common_size()),
            (2, 3, Some(Size::new(1, 5)))
        );
    }

    #[test]
    fn classes_are_the_numbers_that_occur() {
        assert_eq!(labels_from(&idx(8, &[4], &[0, 3, 1, 3])).unwrap().classes, ["0", "1", "3"]);
    }

    #[test]
    fn invalid_files_are_refused_with_a_reason() {
        let values = vec![7; 12];
        let good = idx(8, &[3, 2, 2], &values);
        let max = u32::MAX;
        let uneven: Vec<u8> = (0..5_000_000u32).map(|i| (i.wrapping_mul(i) >> 9) as u8).collect();
        let cases: Vec<(Vec<u8>, &str)> = vec![
            (vec![], "empty"),
            (vec![0], "header"),
            (vec![0x1f, 0x8b], "cut off"),
            (vec![0x1f, 0x8b, 8, 0, 0, 0], "cut off"),
            (good[..10].to_vec(), "header"),
            (
                good[..good.len() - 1].to_vec(),
                "the header has the shape 3x2x2, but the file has fewer bytes",
            ),
            ([&good[..], &[1]].concat(), "more bytes of values than the shape 3x2x2"),
            (idx(8, &[max, max, max], &values), "the file has fewer bytes"),
            (idx(8, &[max, max, max, max], &values), "the file has fewer bytes"),
            (
                idx(8, &[60_000, 28, 28], &values),
                "the header has the shape 60000x28x28, but the file has fewer bytes",
            ),
            (idx(8, &[0, 28, 28], &[]), "the file is empty: its dimensions are 0x28x28"),
            (idx(8, &[12, 0, 1], &[]), "the file is empty: its dimensions are 12x0x1"),
            (idx(8, &[12], &values), "labels"),
            (idx(8, &[3, 4], &values), "2 dimension"),
            (idx(8, &[1, 1, 1, 12], &values), "12 channels"),
            (idx(8, &[1, 1, 1, 1, 12], &values), "5 dimensions"),
            (idx(8, &[], &values), "0 dimensions"),
            (idx(13, &[3, 2, 2], &[0; 48]), "32-bit floats"),
            (idx(7, &[3, 2, 2], &values), "unknown type 0x07"),
            (vec![0x89, b'P', b'N', b'G'], "not an IDX"),
            (
                gzip(&idx(8, &[30, 2, 2], &values)),
                "the header has the shape 30x2x2, but the file has 12 bytes",
            ),
            (gzip(&idx(8, &[max, max, 1], &values)), "the file has fewer bytes"),
            (gzip(&idx(8, &[11_000_000, 1, 1], &vec![0; 11_000_000])), "11000000 entries"),
            (gzip(&idx(8, &[1000, 100, 100], &uneven)), "the file has 5000000 bytes"),
            (gzip(b"hello, this is text"), "not an IDX"),
        ];
        for (bytes, expected) in cases {
            let message = images_from(&bytes).unwrap_err().to_string();
            assert!(
                message.contains(expected) && !message.contains('\n'),
                "{message} (expected {expected})"
            );
        }
    }

    #[test]
    fn damaged_gzip_files_are_refused_or_read_without_panic() {
        let good = idx(8, &[3, 2, 2], &[7; 12]);
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
        // The file with the same compression as the images takes precedence, and must match.
        folder.write("t10k-labels-idx1-ubyte.gz", &gzip(&idx(8, &[2], &[2, 0])));
        let message = load(&images).unwrap_err().to_string();
        assert!(message.contains("labels-idx1-ubyte.gz: 2 labels for the 3 images"), "{message}");
        let missing = load(&folder.path.join("nothing")).unwrap_err().to_string();
        assert!(missing.contains("nothing: "), "{missing}");
    }
}
