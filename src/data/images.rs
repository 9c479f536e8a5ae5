//! A set of images in memory: pixels, a table of their positions, names and labels.

use half::f16;
use image::imageops::{self, FilterType};
use image::{ImageBuffer, Pixel};
use rayon::prelude::*;

use super::encoding::Encoding;
use super::missing;
use crate::budget;
use crate::error::{Error, Result};
use crate::rng::Stream;
use crate::sample_type::SampleType;
use crate::shape::{Dims, Size};

/// Maximum size of a set in bytes: offsets are 32-bit words on the device.
pub const MAX_BYTES: usize = u32::MAX as usize;

/// Maximum size of an enlarged image in bytes (256 MiB). It refuses extremely narrow images, whose
/// enlargement would take gigabytes.
const MAX_ENLARGED: usize = 1 << 28;

/// The position and size of an image in [`Images::bytes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Offset of the first sample, counted in samples.
    pub offset: usize,
    /// Height and width.
    pub size: Size,
}

/// The class of each image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels {
    /// The names of the classes.
    pub classes: Vec<String>,
    /// The class of each image, an index into `classes`.
    pub of: Vec<u32>,
}

impl Labels {
    /// Labels from the class number of each image. The classes are the numbers that occur, in
    /// order, and have them as names.
    pub(super) fn of_numbers(numbers: &[u32]) -> Self {
        let mut known = numbers.to_vec();
        known.sort_unstable();
        known.dedup();
        let index = |number: &u32| known.binary_search(number).map_or(0, |i| i as u32);
        Self {
            of: numbers.iter().map(index).collect(),
            classes: known.iter().map(u32::to_string).collect(),
        }
    }
}

/// Images of any sizes with the same number of channels and the same type of samples.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Images {
    /// The stored pixels of all images (H,W,C each, samples in little-endian order), in the order
    /// of `table`.
    pub bytes: Vec<u8>,
    /// The type of the samples, and what their values are.
    pub encoding: Encoding,
    /// The position and size of each image.
    pub table: Vec<Entry>,
    /// Number of channels.
    pub channels: usize,
    /// The name of each image: its path inside the folder, or its number inside a file.
    pub names: Vec<String>,
    /// The class of each image, if the data have labels.
    pub labels: Option<Labels>,
}

impl Images {
    /// An empty set of 8-bit images with a number of channels.
    pub fn new(channels: usize) -> Self {
        Self { channels, ..Self::default() }
    }

    /// An empty set of images with a number of channels and a type of samples.
    pub fn of_type(channels: usize, sample: SampleType) -> Self {
        Self { channels, encoding: Encoding::full_range(sample), ..Self::default() }
    }

    /// An empty set of images with the channels and the encoding of these images.
    pub fn like(&self) -> Self {
        Self { channels: self.channels, encoding: self.encoding.clone(), ..Self::default() }
    }

    /// Size of a sample in bytes.
    fn sample_size(&self) -> usize {
        self.encoding.sample.size()
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// The stored pixels of image `i` (H,W,C).
    pub fn image(&self, i: usize) -> &[u8] {
        let Entry { offset, size } = self.table[i];
        let bytes = self.sample_size();
        &self.bytes[offset * bytes..(offset + size.area() * self.channels) * bytes]
    }

    /// The values of image `i` (H,W,C). Missing ones are filled ([`missing::fill`]).
    pub fn image_f32(&self, i: usize) -> Vec<f32> {
        let mut values = self.encoding.decode(self.image(i), self.channels);
        missing::fill(&mut values, Dims::of(self.table[i].size, self.channels));
        values
    }

    /// Stores floats of 32 bits as floats of 16 bits: the values after normalisation, rounded.
    ///
    /// # Errors
    /// If a value is too large. The message names the image.
    ///
    /// # Panics
    /// If the samples are not floats of 32 bits.
    pub fn store_as_f16(&mut self) -> Result<()> {
        assert_eq!(self.encoding.sample, SampleType::F32, "samples of 32 bits");
        let mut bytes = budget::reserved(self.bytes.len() / 2, "the images")?;
        let mut table = Vec::with_capacity(self.len());
        for image in 0..self.len() {
            table.push(Entry { offset: bytes.len() / 2, size: self.table[image].size });
            for (at, sample) in self.image(image).chunks_exact(4).enumerate() {
                let sample = SampleType::F32.value(sample);
                let [low, divisor] = self.encoding.scale(at % self.channels).map(f64::from);
                let value = f16::from_f64((f64::from(sample) - low) / divisor);
                if sample.is_finite() && !value.is_finite() {
                    return Err(Error::usage(format!(
                        "{}: the value {sample} is {:.0} after normalisation, and the largest \
                         16-bit float is {}; remove data.storage, or set data.normalize",
                        self.names[image],
                        (f64::from(sample) - low) / divisor,
                        f16::MAX
                    )));
                }
                bytes.extend(value.to_le_bytes());
            }
        }
        (self.bytes, self.table) = (bytes, table);
        let nan = self.encoding.nan;
        self.encoding = Encoding::full_range(SampleType::F16);
        self.encoding.nan = nan;
        Ok(())
    }

    /// The memory of the set in bytes: pixels, table, names and labels.
    pub fn held_bytes(&self) -> u64 {
        let names: usize = self.names.iter().map(|name| size_of::<String>() + name.len()).sum();
        let labels = self.labels.as_ref().map_or(0, |labels| size_of_val(&labels.of[..]));
        (self.bytes.len() + size_of_val(&self.table[..]) + names + labels) as u64
    }

    /// Adds an image (H,W,C with the channels and the sample type of the set).
    ///
    /// # Errors
    /// If the set would exceed [`MAX_BYTES`], or there is not enough memory.
    ///
    /// # Panics
    /// If the number of samples does not match the size.
    pub fn push(&mut self, name: String, size: Size, pixels: &[u8]) -> Result<()> {
        assert_eq!(
            pixels.len(),
            size.area() * self.encoding.pixel(self.channels),
            "pixels of {name}"
        );
        if self.bytes.len() + pixels.len() > MAX_BYTES {
            return Err(too_large().at(name));
        }
        budget::grow(&mut self.bytes, pixels.len(), "the images")?;
        self.table.push(Entry { offset: self.bytes.len() / self.sample_size(), size });
        self.bytes.extend_from_slice(pixels);
        self.names.push(name);
        Ok(())
    }

    /// Height and width of each image.
    pub fn sizes(&self) -> impl Iterator<Item = Size> {
        self.table.iter().map(|entry| entry.size)
    }

    /// The size that all images have. `None` if sizes differ, or without images.
    pub fn common_size(&self) -> Option<Size> {
        let first = self.table.first()?.size;
        self.sizes().all(|size| size == first).then_some(first)
    }

    /// A one-line description such as `400 images of 180x180, gray, 10 classes`.
    pub fn describe(&self) -> String {
        describe(self.sizes(), self.channels, self.encoding.sample, self.labels.as_ref())
    }

    /// The images at `indices`, in that order, with their names and labels.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub fn subset(&self, indices: &[usize]) -> Result<Images> {
        let mut out = self.like();
        let bytes = indices.iter().map(|&i| self.image(i).len()).sum();
        out.bytes = budget::reserved(bytes, "a part of the images")?;
        for &i in indices {
            out.table.push(Entry { offset: out.bytes.len() / self.sample_size(), ..self.table[i] });
            out.bytes.extend_from_slice(self.image(i));
            out.names.push(self.names[i].clone());
        }
        out.labels = self.labels.as_ref().map(|l| Labels {
            classes: l.classes.clone(),
            of: indices.iter().map(|&i| l.of[i]).collect(),
        });
        Ok(out)
    }

    /// Splits the images at random into (training, validation). The validation set gets the
    /// fraction `fraction`. If there are two or more images, both sets get at least one. If the
    /// fraction is 0 or there is one image, the validation set is empty. Both sets keep the order
    /// of the images.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub fn split(self, fraction: f64, seed: u64) -> Result<(Images, Images)> {
        let (train, validation) = split(self.len(), fraction, seed);
        if validation.is_empty() {
            let none = self.like();
            return Ok((self, none));
        }
        Ok((self.subset(&train)?, self.subset(&validation)?))
    }

    /// Packs bytes into words for the device: four per word, little-endian. The last word is padded
    /// with zeros.
    pub fn words_of(bytes: &[u8]) -> Vec<u32> {
        let word = |four: &[u8]| {
            let mut bytes = [0; 4];
            bytes[..four.len()].copy_from_slice(four);
            u32::from_le_bytes(bytes)
        };
        bytes.chunks(4).map(word).collect()
    }

    /// The table for the device: three words per image (offset in samples, height, width).
    ///
    /// # Panics
    /// If the set exceeds [`MAX_BYTES`], which [`Images::push`] prevents.
    pub fn table_words(&self) -> Vec<u32> {
        let word = |value: usize| u32::try_from(value).expect("a set within MAX_BYTES");
        let words = |e: &Entry| [word(e.offset), word(e.size.h), word(e.size.w)];
        self.table.iter().flat_map(words).collect()
    }

    /// Enlarges each image that is smaller than `min` until it has at least that size, with
    /// Catmull–Rom interpolation. The aspect ratio is kept. Returns the number of enlarged images.
    ///
    /// # Errors
    /// If an enlarged image would exceed 256 MiB, or the set [`MAX_BYTES`].
    pub fn ensure_at_least(&mut self, min: Size) -> Result<usize> {
        let sizes: Vec<Size> = self.sizes().map(|size| enlarged(size, min)).collect();
        let enlarged = sizes.iter().zip(self.sizes()).filter(|(to, size)| *to != size).count();
        if enlarged > 0 {
            self.resize_to(&sizes)?;
        }
        Ok(enlarged)
    }

    /// Resizes every image to exactly `size`, with Catmull–Rom interpolation (antialiased when
    /// shrinking). The aspect ratio is not kept.
    ///
    /// # Errors
    /// If a resized image would be empty or exceed 256 MiB, or the set [`MAX_BYTES`].
    pub fn resize_all(&mut self, size: Size) -> Result<()> {
        self.resize_to(&vec![size; self.len()])
    }

    /// Resizes each image to its size in `sizes`.
    fn resize_to(&mut self, sizes: &[Size]) -> Result<()> {
        let mut total = 0usize;
        for (i, &to) in sizes.iter().enumerate() {
            let len =
                resized_len(Dims::of(self.table[i].size, self.channels), to, self.encoding.sample)
                    .map_err(|e| e.at(&self.names[i]))?;
            total = total.saturating_add(len);
        }
        if total > MAX_BYTES {
            return Err(too_large());
        }
        // Number of images resized in parallel. Only these are in memory twice.
        const PART: usize = 256;
        let mut bytes = budget::reserved(total, "the resized images")?;
        for start in (0..sizes.len()).step_by(PART) {
            let part: Vec<Vec<u8>> = (start..sizes.len().min(start + PART))
                .into_par_iter()
                .map(|i| {
                    let from = Dims::of(self.table[i].size, self.channels);
                    self.encoding.resize(self.image(i), from, sizes[i])
                })
                .collect();
            part.iter().for_each(|pixels| bytes.extend_from_slice(pixels));
        }
        let mut offset = 0;
        for (entry, &size) in self.table.iter_mut().zip(sizes) {
            *entry = Entry { offset, size };
            offset += size.area() * self.channels;
        }
        self.bytes = bytes;
        Ok(())
    }

    /// Converts 8-bit samples to 16 bits: 0…255 becomes 0…65535.
    ///
    /// # Errors
    /// If the set would exceed [`MAX_BYTES`].
    pub(super) fn widen(&mut self) -> Result<()> {
        if self.bytes.len() > MAX_BYTES / 2 {
            return Err(too_large());
        }
        let mut bytes = budget::reserved(2 * self.bytes.len(), "the images")?;
        bytes.extend(self.bytes.iter().flat_map(|v| [*v; 2]));
        self.bytes = bytes;
        self.encoding = Encoding::full_range(SampleType::U16);
        Ok(())
    }

    /// Converts between gray (1 channel) and RGB (3 channels). Gray is repeated. RGB becomes the
    /// full-range luma of BT.601, 0.299 R + 0.587 G + 0.114 B, rounded.
    ///
    /// # Errors
    /// If the channels differ and are not 1 and 3, or the set would exceed [`MAX_BYTES`].
    pub fn convert_channels(&mut self, channels: usize) -> Result<()> {
        let from = self.channels;
        if from == channels {
            return Ok(());
        }
        if channels > from && self.bytes.len() > MAX_BYTES / channels {
            return Err(too_large());
        }
        let bytes = std::mem::take(&mut self.bytes);
        self.bytes = self.encoding.convert_channels(bytes, from, channels)?;
        self.table.iter_mut().for_each(|e| e.offset = e.offset / from * channels);
        self.channels = channels;
        Ok(())
    }
}

/// Says which classes occur if their names are numbers with gaps between them. A number without
/// images is often a mistake.
fn gaps(classes: &[String]) -> Option<String> {
    let mut numbers: Vec<u32> =
        classes.iter().map(|name| name.parse().ok()).collect::<Option<_>>()?;
    // Folders are in the order of letters: 1, 10, 2.
    numbers.sort_unstable();
    let (first, last) = (*numbers.first()?, *numbers.last()?);
    if u64::from(last - first) + 1 == numbers.len() as u64 && first <= 1 {
        return None;
    }
    let shown = if numbers.len() <= 8 {
        format!(" ({})", classes.join(", "))
    } else {
        format!(" (numbers from {first} to {last}, some without images)")
    };
    Some(shown)
}

/// A one-line description of images; see [`Images::describe`].
pub(super) fn describe(
    sizes: impl Iterator<Item = Size>,
    channels: usize,
    sample: SampleType,
    labels: Option<&Labels>,
) -> String {
    let (mut count, mut min, mut max) = (0, Size::new(usize::MAX, usize::MAX), Size::new(0, 0));
    for size in sizes {
        count += 1;
        (min, max) = (min.at_most(size), max.at_least(size));
    }
    let are_signals = max.h == 1;
    let what = if are_signals { "signal" } else { "image" };
    let s = if count == 1 { "" } else { "s" };
    let side = |size: Size| if are_signals { size.w.to_string() } else { size.to_string() };
    let size = if min == max { side(max) } else { format!("{} to {}", side(min), side(max)) };
    let of = if are_signals { "of length" } else { "of" };
    let classes = labels.map_or(String::new(), |l| {
        format!(", {} classes{}", l.classes.len(), gaps(&l.classes).unwrap_or_default())
    });
    let depth = match sample {
        SampleType::U8 => String::new(),
        sample => format!(" {}", sample.name()),
    };
    let channels = match channels {
        1 if are_signals => "1 channel".to_owned(),
        c if are_signals => format!("{c} channels"),
        c => channels_name(c),
    };
    format!("{count} {what}{s} {of} {size}, {channels}{depth}{classes}")
}

/// Splits the indices 0…n − 1 into (training, validation); see [`Images::split`].
pub(super) fn split(n: usize, fraction: f64, seed: u64) -> (Vec<usize>, Vec<usize>) {
    if n < 2 || fraction.is_nan() || fraction <= 0.0 {
        return ((0..n).collect(), Vec::new());
    }
    let count = ((n as f64 * fraction).round() as usize).clamp(1, n - 1);
    let mut held_out = vec![false; n];
    for &i in &Stream::new(seed, "validation split").permutation(n)[..count] {
        held_out[i as usize] = true;
    }
    (0..n).partition(|&i| !held_out[i])
}

/// The size of an image of `size` after [`Images::ensure_at_least`].
pub(super) fn enlarged(size: Size, min: Size) -> Size {
    let scale = (min.h as f64 / size.h as f64).max(min.w as f64 / size.w as f64);
    if scale <= 1.0 {
        return size;
    }
    size.map(|side| (side as f64 * scale).round() as usize).at_least(min)
}

/// The size in bytes of an image resized from one size to another.
///
/// # Errors
/// If it is 0, or exceeds both [`MAX_ENLARGED`] and the size of the original.
pub(super) fn resized_len(from: Dims, to: Size, sample: SampleType) -> Result<usize> {
    let pixel = from.c * sample.size();
    let len = to.h.checked_mul(to.w).and_then(|area| area.checked_mul(pixel));
    len.filter(|&len| len > 0 && len <= MAX_ENLARGED.max(from.area() * pixel)).ok_or_else(|| {
        let from = from.size();
        Error::usage(format!("{from} pixels cannot be resized to {to}; crop or remove this image"))
    })
}

fn channels_name(channels: usize) -> String {
    match channels {
        1 => "gray".to_owned(),
        3 => "RGB".to_owned(),
        c => format!("{c} channels"),
    }
}

/// The error for a set that exceeds [`MAX_BYTES`].
pub(super) fn too_large() -> Error {
    Error::usage("the images together exceed 4 GiB of pixels; use fewer or smaller ones")
}

/// Resizes an 8-bit image (H,W,C) from one size to another with Catmull–Rom interpolation.
pub(super) fn resize(pixels: &[u8], from: Dims, to: Size) -> Vec<u8> {
    let size = from.size();
    if size == to {
        return pixels.to_vec();
    }
    match from.c {
        1 => resize_as::<image::Luma<u8>>(pixels, size, to),
        3 => resize_as::<image::Rgb<u8>>(pixels, size, to),
        // Each channel separately, so that none is treated as alpha.
        c => {
            let mut out = vec![0; to.area() * c];
            for channel in 0..c {
                let plane: Vec<u8> = pixels.iter().skip(channel).step_by(c).copied().collect();
                let resized = resize_as::<image::Luma<u8>>(&plane, size, to);
                out.iter_mut().skip(channel).step_by(c).zip(resized).for_each(|(o, v)| *o = v);
            }
            out
        }
    }
}

/// [`resize`] for the pixel type `P`.
fn resize_as<P: Pixel<Subpixel = u8> + 'static>(pixels: &[u8], from: Size, to: Size) -> Vec<u8> {
    let image = ImageBuffer::<P, &[u8]>::from_raw(from.w as u32, from.h as u32, pixels)
        .expect("the bytes match the size");
    imageops::resize(&image, to.w as u32, to.h as u32, FilterType::CatmullRom).into_raw()
}

#[cfg(test)]
#[path = "images_tests.rs"]
mod tests;
