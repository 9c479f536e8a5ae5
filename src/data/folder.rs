//! Folders of image files, and single ones.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufReader, Cursor, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};
use rayon::prelude::*;

use super::catalogue::{Catalogue, Places};
use super::images::{Images, Labels, gray_to_rgb, rgb_to_gray};
use super::{Opened, Pixels, Wanted, idx};
use crate::error::{Error, Result};

/// The file name endings that are taken for images.
pub const EXTENSIONS: [&str; 12] = ["png", "jpg", "jpeg", "bmp", "gif", "tif", "tiff", "webp", "pbm", "pgm", "ppm", "pnm"];

/// The most bytes one image may take, decoded and while it is decoded.
const MAX_IMAGE_BYTES: u64 = 512 << 20;

/// The largest image file that is read.
const MAX_FILE_BYTES: u64 = 1 << 30;

/// Files decoded at a time for each thread, before their pixels join the set: few, since photographs take tens of megabytes each.
const AT_ONCE: usize = 4;

/// A decoded image: gray (1) or RGB (3), H,W,C.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Height in pixels.
    pub h: usize,
    /// Width in pixels.
    pub w: usize,
    /// 1 where red, green and blue are equal everywhere, else 3.
    pub channels: usize,
    /// The samples.
    pub pixels: Vec<u8>,
}

/// Decodes one image file: PNG, JPEG, BMP, GIF (its first frame), TIFF, WebP or PNM, recognised by its content. The EXIF orientation is applied,
/// 16-bit and float samples are reduced to 8 bits, and what is transparent is laid over white.
///
/// # Errors
/// A line without the file's name: what is wrong and what to do.
pub fn decode_file(path: &Path) -> Result<Decoded> {
    let failed = |e: &std::io::Error| Error::failed(format!("cannot be read ({e}); check the file and its permissions"));
    // Before it is opened: a pipe would be waited for.
    let metadata = std::fs::metadata(path).map_err(|e| failed(&e))?;
    if !metadata.is_file() {
        return Err(Error::usage("is not a regular file"));
    }
    let file = File::open(path).map_err(|e| failed(&e))?;
    if metadata.len() > MAX_FILE_BYTES {
        return Err(Error::usage("is larger than 1 GiB; cut it into smaller images"));
    }
    let mut bytes = Vec::new();
    BufReader::new(file).take(MAX_FILE_BYTES).read_to_end(&mut bytes).map_err(|e| failed(&e))?;
    decode(&bytes)
}

/// Decodes an image in memory, as [`decode_file`].
///
/// # Errors
/// As [`decode_file`].
pub fn decode(bytes: &[u8]) -> Result<Decoded> {
    if bytes.is_empty() {
        return Err(Error::usage("the file is empty; remove it"));
    }
    // a decoder that panics on a hostile file must not take the program along
    let decoded = catch_unwind(AssertUnwindSafe(|| decode_unguarded(bytes)));
    decoded.unwrap_or_else(|_| Err(Error::usage("its decoder failed; the file is damaged: save it again or remove it")))
}

fn decode_unguarded(bytes: &[u8]) -> Result<Decoded> {
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|e| Error::failed(e.to_string()))?;
    let Some(format) = reader.format() else {
        return Err(Error::usage("is not an image of a known kind (PNG, JPEG, BMP, GIF, TIFF, WebP, PNM); convert or remove it"));
    };
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_IMAGE_BYTES);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(|e| unreadable(&e))?;
    let (w, h) = decoder.dimensions();
    if w == 0 || h == 0 {
        return Err(Error::usage(format!("has no pixels ({w}x{h}); remove it")));
    }
    // the RGB copy made below counts too
    if decoder.total_bytes().max(u64::from(w) * u64::from(h) * 3) > MAX_IMAGE_BYTES {
        return Err(Error::usage(format!(
            "{w}x{h} pixels need more than the 512 MiB that one image may take; shrink it or cut it into pieces"
        )));
    }
    // These decoders fill in what is missing, however much it is. A JPEG block of 64 pixels takes a bit at least, a GIF code stands for 4096
    // pixels at most; twice that is allowed.
    let most_per_byte = match format {
        ImageFormat::Jpeg => 2 * 64 * 8,
        ImageFormat::Gif => 2 * 4096,
        _ => u64::MAX,
    };
    if u64::from(w) * u64::from(h) > most_per_byte.saturating_mul(bytes.len() as u64) {
        let size = bytes.len();
        return Err(Error::usage(format!(
            "{size} bytes cannot hold its {w}x{h} pixels; it is cut off: get it again or remove it"
        )));
    }
    // a broken tag is no reason to refuse the picture
    let orientation = decoder.orientation().ok();
    let mut image = DynamicImage::from_decoder(decoder).map_err(|e| unreadable(&e))?;
    if let Some(orientation) = orientation {
        image.apply_orientation(orientation);
    }
    Ok(reduce(image))
}

fn unreadable(error: &ImageError) -> Error {
    // some decoders' messages run over several lines
    let detail = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
    match error {
        ImageError::Limits(_) => Error::usage(format!(
            "needs more than the 512 MiB that one image may take ({detail}); shrink it or cut it into pieces"
        )),
        ImageError::Unsupported(_) => Error::usage(format!("{detail}; convert it to PNG")),
        _ => Error::usage(format!("cannot be decoded ({detail}); save it again or remove it")),
    }
}

/// 8 bits, alpha over white, gray where it is gray.
fn reduce(image: DynamicImage) -> Decoded {
    let (h, w) = (image.height() as usize, image.width() as usize);
    let over_white = |value: u8, alpha: u8| {
        let (value, alpha) = (u32::from(value), u32::from(alpha));
        ((value * alpha + 255 * (255 - alpha) + 127) / 255) as u8
    };
    let color = image.color();
    let pixels = match (color.has_color(), color.has_alpha()) {
        (false, false) => image.into_luma8().into_raw(),
        (false, true) => image.into_luma_alpha8().into_raw().chunks_exact(2).map(|p| over_white(p[0], p[1])).collect(),
        (true, false) => image.into_rgb8().into_raw(),
        (true, true) => {
            let rgba = image.into_rgba8().into_raw();
            rgba.chunks_exact(4).flat_map(|p| [over_white(p[0], p[3]), over_white(p[1], p[3]), over_white(p[2], p[3])]).collect()
        }
    };
    if !color.has_color() {
        return Decoded { h, w, channels: 1, pixels };
    }
    if pixels.chunks_exact(3).all(|p| p[0] == p[1] && p[1] == p[2]) {
        return Decoded { h, w, channels: 1, pixels: pixels.into_iter().step_by(3).collect() };
    }
    Decoded { h, w, channels: 3, pixels }
}

/// Reads one image file as a set of one.
pub(super) fn load_file(path: &Path, want: &Wanted) -> Result<Images> {
    let place = |e: Error| e.at(path.display());
    let decoded = decode_file(path).map_err(place)?;
    let mut images = Images::new(decoded.channels);
    let name = path.file_name().map_or_else(|| path.display().to_string(), |n| n.to_string_lossy().into_owned());
    images.push(name, decoded.h, decoded.w, &decoded.pixels)?;
    if let Some(channels) = want.channels {
        images.convert_channels(channels).map_err(place)?;
    }
    Ok(images)
}

/// Reads every image below `root`, in the order of their paths. Hidden files and folders are passed over, as are files that are not called like
/// images.
pub(super) fn load(root: &Path, want: &Wanted, limit: u64) -> Result<Opened> {
    let found = find(root)?;
    if found.images.is_empty() {
        return Err(nothing_found(root, &found.idx));
    }
    gather(&Files { place: &root.display().to_string(), root, files: &found.images, labelled: true }, want, limit)
}

/// Image files to read.
pub(super) struct Files<'a> {
    /// What names them, for people.
    pub place: &'a str,
    /// What their paths are relative to.
    pub root: &'a Path,
    /// The paths, in order.
    pub files: &'a [PathBuf],
    /// Whether sub-folders are classes.
    pub labelled: bool,
}

/// Decodes files. Their pixels are kept as long as they do not exceed `limit` bytes.
pub(super) fn gather(source: &Files, want: &Wanted, limit: u64) -> Result<Opened> {
    let Files { place, root, files, labelled } = *source;
    if let Some(channels) = want.channels.filter(|c| ![1, 3].contains(c)) {
        return Err(Error::usage(format!(
            "{place}: image files give 1 channel (gray) or 3 (RGB), not {channels}; change the model's channels"
        )));
    }
    let channels = want.channels.unwrap_or(1);
    let mut gathered = Gathered {
        images: Some(Images::new(channels)),
        channels,
        sizes: Vec::new(),
        grows: want.channels.is_none(),
        from: Vec::new(),
        limit,
    };
    let mut skipped = Vec::new();
    let at_once = AT_ONCE * rayon::current_num_threads();
    for (part, files) in files.chunks(at_once).enumerate() {
        // What is certain to exceed the limit is not held until its turn comes.
        let held = AtomicU64::new(gathered.images.as_ref().map_or(u64::MAX / 2, |images| images.bytes.len() as u64));
        let decode = |file: &PathBuf| -> Result<Decoded> {
            let mut decoded = decode_file(&root.join(file))?;
            let bytes = (decoded.h * decoded.w * want.channels.unwrap_or(decoded.channels)) as u64;
            if held.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes) > limit {
                decoded.pixels = Vec::new();
            }
            Ok(decoded)
        };
        let decoded: Vec<Result<Decoded>> = files.par_iter().map(decode).collect();
        for (i, (file, decoded)) in files.iter().zip(decoded).enumerate() {
            match decoded {
                Ok(decoded) => gathered.push(part * at_once + i, decoded)?,
                Err(error) if want.strict => return Err(error.at(root.join(file).display())),
                Err(error) => skipped.push((root.join(file).display().to_string(), error.to_string())),
            }
        }
    }
    let Gathered { images, channels, sizes, from, .. } = gathered;
    if from.is_empty() {
        let (first, why) = &skipped[0];
        let others = if skipped.len() == 1 { String::new() } else { format!(", nor can any of the other {}", skipped.len() - 1) };
        return Err(Error::usage(format!("{place}: no image can be used; {first}: {why}{others}")));
    }
    let labels = if labelled { labels(files, &from) } else { None };
    let pixels = match images {
        Some(mut images) => {
            (images.names, images.labels) = (from.iter().map(|index| slashed(&files[*index])).collect(), labels);
            Pixels::Resident(images)
        }
        None => {
            let mut files: Vec<PathBuf> = from.iter().map(|index| files[*index].clone()).collect();
            files.iter_mut().for_each(PathBuf::shrink_to_fit);
            Pixels::Streamed(Arc::new(Catalogue::new(Places::Files { root: root.to_owned(), files, sizes }, channels, labels)))
        }
    };
    Ok(Opened { skipped, ..Opened::new(place, pixels, "") })
}

struct Gathered {
    /// The pixels, while they fit.
    images: Option<Images>,
    channels: usize,
    /// Height and width of each.
    sizes: Vec<[u32; 2]>,
    /// Whether the first colour image makes the set RGB.
    grows: bool,
    /// Which of the found files each image is.
    from: Vec<usize>,
    limit: u64,
}

impl Gathered {
    /// Adds an image, whose pixels are left out where they are certain not to fit. The set stays gray until the first colour image, unless the channels are given.
    fn push(&mut self, index: usize, decoded: Decoded) -> Result<()> {
        let Decoded { h, w, .. } = decoded;
        let before = self.channels;
        if self.grows && decoded.channels > before {
            self.channels = decoded.channels;
        }
        let channels = self.channels;
        self.from.push(index);
        self.sizes.push([h as u32, w as u32]);
        let held = self.images.as_ref().map_or(0, |images| images.bytes.len() / before * channels);
        if decoded.pixels.is_empty() || (held + h * w * channels) as u64 > self.limit {
            self.images = None;
        }
        if let Some(images) = &mut self.images {
            images.convert_channels(channels)?;
            images.push(String::new(), h, w, &to_channels(decoded, channels))?;
        }
        Ok(())
    }
}

/// The samples as gray (1) or RGB (3).
pub(super) fn to_channels(decoded: Decoded, channels: usize) -> Vec<u8> {
    match (decoded.channels, channels) {
        (1, 3) => gray_to_rgb(&decoded.pixels),
        (3, 1) => rgb_to_gray(&decoded.pixels),
        _ => decoded.pixels,
    }
}

/// Sub-folders are classes where there are at least two and no image lies beside them.
fn labels(files: &[PathBuf], from: &[usize]) -> Option<Labels> {
    let class = |file: &PathBuf| {
        let mut parts = file.components();
        let first = parts.next()?;
        parts.next().map(|_| first.as_os_str().to_string_lossy().into_owned())
    };
    let of: Vec<String> = files.iter().map(class).collect::<Option<_>>()?;
    let mut classes = of.clone();
    classes.sort();
    classes.dedup();
    if classes.len() < 2 {
        return None;
    }
    let number = |name: &String| classes.binary_search(name).map_or(0, |i| i as u32);
    let of = from.iter().map(|&i| number(&of[i])).collect();
    Some(Labels { classes, of })
}

/// The path with slashes on every system, so that names are the same everywhere.
pub(super) fn slashed(path: &Path) -> String {
    path.components().map(|part| part.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/")
}

fn nothing_found(root: &Path, idx: &[PathBuf]) -> Error {
    // the training images, if the folder is one of the usual sets
    let name = |path: &&PathBuf| path.to_string_lossy().to_lowercase();
    let suggested = idx.iter().find(|p| name(p).contains("train") && name(p).contains("images"));
    let suggested = suggested.or_else(|| idx.iter().find(|p| name(p).contains("images"))).or_else(|| idx.first());
    Error::usage(match suggested {
        Some(file) => {
            format!("{}: no image files here, but IDX data: name the file, {}", root.display(), root.join(file).display())
        }
        None => format!("{}: no image found in this folder or below (looked for {})", root.display(), EXTENSIONS.join(", ")),
    })
}

#[derive(Default)]
struct Found {
    /// Image files, relative to the root, sorted.
    images: Vec<PathBuf>,
    /// IDX files, likewise.
    idx: Vec<PathBuf>,
}

fn find(root: &Path) -> Result<Found> {
    let mut found = Found::default();
    let mut seen = HashSet::new();
    let mut open = vec![PathBuf::new()];
    while let Some(folder) = open.pop() {
        let path = root.join(&folder);
        // links may lead in circles
        if !seen.insert(path.canonicalize().map_err(|e| Error::io(&path, &e))?) {
            continue;
        }
        for entry in std::fs::read_dir(&path).map_err(|e| Error::io(&path, &e))? {
            let entry = entry.map_err(|e| Error::io(&path, &e))?;
            let name = entry.file_name();
            if name.to_string_lossy().starts_with('.') || name == "__MACOSX" {
                continue;
            }
            let relative = folder.join(&name);
            let extension = relative.extension().map(|e| e.to_string_lossy().to_lowercase()).unwrap_or_default();
            // follows links; a dangling one called like an image is named later, when it cannot be read
            let metadata = std::fs::metadata(entry.path());
            if metadata.is_ok_and(|m| m.is_dir()) {
                open.push(relative);
            } else if EXTENSIONS.contains(&extension.as_str()) {
                found.images.push(relative);
            } else if idx::named_idx(&relative) {
                found.idx.push(relative);
            }
        }
    }
    found.images.sort();
    found.idx.sort();
    Ok(found)
}
