//! The catalogue of streamed images: the location of each image in its file, and how it is resized
//! and cropped when it is read. A file takes the memory of its path. A record or a patch takes
//! almost none, because its location is computed and not stored.

use std::borrow::Cow;
use std::sync::Arc;

use rayon::prelude::*;

use super::encoding::Encoding;
use super::images::{Images, Labels, describe, enlarged, resized_len, split};
use super::patches::{Patch, PatchGrid};
pub use super::storage::{Handles, Storage};
use crate::error::{Error, Result};
use crate::raster::crop;
use crate::sample_type::SampleType;
use crate::shape::{Dims, Size};

/// How images are resized when they are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Resize {
    #[default]
    No,
    /// Enlarge to at least this size; the aspect ratio is kept.
    AtLeast(Size),
    /// Resize to exactly this size.
    Exactly(Size),
}

/// How the originals are cropped. Each crop is an image of the catalogue.
#[derive(Clone, Debug, Default)]
enum Crop {
    /// The whole original.
    #[default]
    Whole,
    /// Every patch of a grid. `starts` has the index of the first patch of each original, and the
    /// number of patches.
    Grid { size: Size, starts: Vec<u32> },
    /// The given patches.
    Windows { size: Size, patches: Vec<Patch> },
}

/// Images that are read from their files when they are needed.
///
/// An image is an *original* (a file or record, perhaps resized) or a patch of one. `image` is an
/// index of images, `original` an index of originals.
#[derive(Clone, Debug)]
pub struct Catalogue {
    /// Where the images are stored. Catalogues derived from one set share it.
    storage: Arc<Storage>,
    /// The indices of the originals in `storage`, in order. `None`: all.
    chosen: Option<Vec<u32>>,
    resize: Resize,
    crop: Crop,
    /// Number of channels of the images that are read.
    pub channels: usize,
    /// The type of the samples that are read, and what their values are.
    pub encoding: Encoding,
    /// The class of each image, if the data have labels.
    pub labels: Option<Labels>,
}

/// Memory in bytes per pixel for the intermediate image of a resize: four channels in f32.
const RESIZE_BYTES: usize = 16;

impl Catalogue {
    /// A catalogue of all images in `storage`.
    pub fn new(
        storage: Storage,
        channels: usize,
        sample: SampleType,
        labels: Option<Labels>,
    ) -> Self {
        Self {
            storage: Arc::new(storage),
            chosen: None,
            resize: Resize::No,
            crop: Crop::Whole,
            channels,
            encoding: Encoding::full_range(sample),
            labels,
        }
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        match &self.crop {
            Crop::Whole => self.originals(),
            Crop::Grid { starts, .. } => starts.last().map_or(0, |end| *end as usize),
            Crop::Windows { patches, .. } => patches.len(),
        }
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of originals.
    fn originals(&self) -> usize {
        self.chosen.as_ref().map_or_else(|| self.storage.len(), Vec::len)
    }

    /// The index of an original in [`Storage`].
    fn place(&self, original: usize) -> usize {
        self.chosen.as_ref().map_or(original, |chosen| chosen[original] as usize)
    }

    /// Height and width of an original as decoded.
    fn decoded_size(&self, original: usize) -> Size {
        self.storage.size(self.place(original))
    }

    /// Height and width of an original after resizing.
    fn resized_size(&self, original: usize) -> Size {
        match self.resize {
            Resize::No => self.decoded_size(original),
            Resize::AtLeast(min) => enlarged(self.decoded_size(original), min),
            Resize::Exactly(size) => size,
        }
    }

    /// The name of an original: its path inside the folder, or its number inside a file.
    fn original_name(&self, original: usize) -> String {
        self.storage.name(self.place(original))
    }

    /// The original of an image.
    fn original(&self, image: usize) -> usize {
        match &self.crop {
            Crop::Whole => image,
            Crop::Grid { starts, .. } => {
                starts.partition_point(|start| *start as usize <= image) - 1
            }
            Crop::Windows { patches, .. } => patches[image].image,
        }
    }

    /// First row, first column and size of an image inside its original. `None` if it is the whole
    /// original.
    fn window(&self, image: usize) -> Option<((usize, usize), Size)> {
        match &self.crop {
            Crop::Whole => None,
            Crop::Grid { size, starts } => {
                let original = self.original(image);
                let grid = PatchGrid::new(self.resized_size(original), *size);
                Some((grid.position(image - starts[original] as usize), *size))
            }
            Crop::Windows { size, patches } => {
                Some(((patches[image].top, patches[image].left), *size))
            }
        }
    }

    /// The name of an image. A patch has the name of its original.
    pub fn name(&self, image: usize) -> String {
        self.original_name(self.original(image))
    }

    /// Whether an image comes from the same file or record as the previous image.
    pub fn shares_file_with_previous(&self, image: usize) -> bool {
        let (Some(previous), original) =
            (image.checked_sub(1).map(|previous| self.original(previous)), self.original(image))
        else {
            return false;
        };
        previous == original || self.storage.share_file(self.place(previous), self.place(original))
    }

    /// Height and width of an image.
    pub fn size(&self, image: usize) -> Size {
        match self.crop {
            Crop::Whole => self.resized_size(image),
            Crop::Grid { size, .. } | Crop::Windows { size, .. } => size,
        }
    }

    /// Height and width of each image.
    pub fn sizes(&self) -> impl Iterator<Item = Size> {
        (0..self.len()).map(|image| self.size(image))
    }

    /// The size that all images have. `None` if sizes differ, or without images.
    pub fn common_size(&self) -> Option<Size> {
        let first = self.sizes().next()?;
        self.sizes().all(|size| size == first).then_some(first)
    }

    /// The size of all images in bytes, as if they were in memory.
    pub fn total(&self) -> u64 {
        let pixel = self.encoding.pixel(self.channels);
        self.sizes().map(|size| (size.area() * pixel) as u64).sum()
    }

    /// The memory of the catalogue itself, in bytes.
    pub fn held_bytes(&self) -> u64 {
        let storage = self.storage.held_bytes();
        let crop = match &self.crop {
            Crop::Whole => 0,
            Crop::Grid { starts, .. } => size_of_val(&starts[..]),
            Crop::Windows { patches, .. } => size_of_val(&patches[..]),
        };
        let chosen = self.chosen.as_ref().map_or(0, |chosen| size_of_val(&chosen[..]));
        let labels = self.labels.as_ref().map_or(0, |labels| size_of_val(&labels.of[..]));
        (storage + crop + chosen + labels) as u64
    }

    /// Maximum memory for reading one image, in bytes: decoding, converting and resizing.
    pub fn reading_bytes(&self) -> u64 {
        let pixel = self.encoding.pixel(self.channels);
        let bytes_of = |original: usize| {
            let (size, to) = (self.decoded_size(original), self.resized_size(original));
            let decoding = self.storage.decoding_bytes(self.place(original), pixel);
            let resizing = if to == size { 0 } else { self.resizing_bytes(size, to) };
            decoding + resizing as u64
        };
        let originals =
            if self.storage.is_uniform() { self.originals().min(1) } else { self.originals() };
        (0..originals).map(bytes_of).max().unwrap_or(0)
    }

    /// Memory in bytes for resizing an original: its values and an intermediate image.
    fn resizing_bytes(&self, size: Size, to: Size) -> usize {
        let values = match self.encoding.sample {
            SampleType::U8 => RESIZE_BYTES * to.h * size.w,
            _ => {
                4 * self.channels * (size.area() + to.h.max(size.h) * size.w.max(to.w) + to.area())
            }
        };
        values + self.encoding.pixel(self.channels) * to.area()
    }

    /// A one-line description; see [`Images::describe`].
    pub fn describe(&self) -> String {
        describe(self.sizes(), self.channels, self.encoding.sample, self.labels.as_ref())
    }

    /// The images at `indices`, in that order.
    ///
    /// # Panics
    /// If the images are patches.
    pub fn subset(&self, indices: &[usize]) -> Self {
        assert!(matches!(self.crop, Crop::Whole), "take a subset before cutting patches");
        let labels = |l: &Labels| Labels {
            classes: l.classes.clone(),
            of: indices.iter().map(|&i| l.of[i]).collect(),
        };
        Self {
            storage: Arc::clone(&self.storage),
            chosen: Some(indices.iter().map(|&i| self.place(i) as u32).collect()),
            labels: self.labels.as_ref().map(labels),
            crop: Crop::Whole,
            encoding: self.encoding.clone(),
            ..*self
        }
    }

    /// Splits into (training, validation) like [`Images::split`].
    pub fn split(&self, fraction: f64, seed: u64) -> (Self, Self) {
        let (train, validation) = split(self.len(), fraction, seed);
        (self.subset(&train), self.subset(&validation))
    }

    /// Enlarges the images when they are read, like [`Images::ensure_at_least`].
    ///
    /// # Errors
    /// If an enlarged image would be too large.
    pub fn ensure_at_least(&mut self, min: Size) -> Result<()> {
        self.set_resize(Resize::AtLeast(min))
    }

    /// Resizes the images when they are read, like [`Images::resize_all`].
    ///
    /// # Errors
    /// If a resized image would be too large.
    pub fn resize_all(&mut self, size: Size) -> Result<()> {
        self.set_resize(Resize::Exactly(size))
    }

    fn set_resize(&mut self, resize: Resize) -> Result<()> {
        assert!(matches!(self.crop, Crop::Whole), "resize before cutting patches");
        self.resize = resize;
        for original in 0..self.originals() {
            let (size, to) = (self.decoded_size(original), self.resized_size(original));
            if to != size {
                resized_len(Dims::of(size, self.channels), to, self.encoding.sample)
                    .map_err(|e| e.at(self.original_name(original)))?;
            }
        }
        Ok(())
    }

    /// This catalogue with crops. `originals` are the originals of the new images.
    fn with_crop(&self, crop: Crop, originals: impl Iterator<Item = usize>) -> Self {
        assert!(matches!(self.crop, Crop::Whole), "patches cannot be cut again");
        let labels = |l: &Labels| Labels {
            classes: l.classes.clone(),
            of: originals.map(|original| l.of[original]).collect(),
        };
        Self {
            storage: Arc::clone(&self.storage),
            chosen: self.chosen.clone(),
            labels: self.labels.as_ref().map(labels),
            crop,
            encoding: self.encoding.clone(),
            ..*self
        }
    }

    /// The given patches of `size` as images.
    ///
    /// # Panics
    /// If the images are patches already.
    pub fn windows(&self, patches: &[Patch], size: Size) -> Self {
        self.with_crop(
            Crop::Windows { size, patches: patches.to_vec() },
            patches.iter().map(|patch| patch.image),
        )
    }

    /// All patches of `size` of a grid as images; see [`super::patches::grid`].
    ///
    /// # Errors
    /// If there are more than 2³² − 1, which 32-bit indices cannot address.
    ///
    /// # Panics
    /// If the images are patches already.
    pub fn patches(&self, size: Size) -> Result<Self> {
        let mut starts = vec![0_u32];
        for whole in self.sizes() {
            let end = u32::try_from(PatchGrid::new(whole, size).count())
                .ok()
                .and_then(|count| starts[starts.len() - 1].checked_add(count));
            starts.push(end.ok_or_else(|| {
                Error::usage(format!(
                    "the images have more than {} patches of {size}; use fewer images, or \
                     data.fit = \"crop\"",
                    u32::MAX
                ))
            })?);
        }
        let counts = starts
            .clone()
            .into_iter()
            .zip(starts[1..].to_vec())
            .map(|(start, end)| (end - start) as usize);
        let originals =
            counts.enumerate().flat_map(|(original, count)| std::iter::repeat_n(original, count));
        Ok(self.with_crop(Crop::Grid { size, starts }, originals))
    }

    /// Reads one image. Returns its stored pixels (H,W,C).
    ///
    /// # Errors
    /// If its file cannot be read any more, or has changed. The message names the file.
    pub fn read(&self, image: usize, handles: &mut Handles) -> Result<Vec<u8>> {
        let original = self.read_original(self.original(image), handles)?;
        Ok(self.crop(image, &original).into_owned())
    }

    /// Reads `images` and calls `f` for each with its index in `images` and its pixels (H,W,C).
    /// Consecutive patches of one original decode it once.
    ///
    /// # Errors
    /// Those of [`Catalogue::read`].
    pub fn for_each(
        &self,
        images: &[usize],
        handles: &mut Handles,
        mut f: impl FnMut(usize, &[u8]),
    ) -> Result<()> {
        let mut index = 0;
        for patches in images.chunk_by(|a, b| self.original(*a) == self.original(*b)) {
            let original = self.read_original(self.original(patches[0]), handles)?;
            for image in patches {
                f(index, &self.crop(*image, &original));
                index += 1;
            }
        }
        Ok(())
    }

    /// Reads an original, converts its channels and resizes it.
    fn read_original(&self, original: usize, handles: &mut Handles) -> Result<Vec<u8>> {
        let size = self.decoded_size(original);
        let place = self.place(original);
        let pixels = self.storage.read(place, handles, &self.encoding, self.channels)?;
        let to = self.resized_size(original);
        Ok(if to == size {
            pixels
        } else {
            self.encoding.resize(&pixels, Dims::of(size, self.channels), to)
        })
    }

    /// Cuts an image out of the pixels of its original.
    fn crop<'p>(&self, image: usize, original: &'p [u8]) -> Cow<'p, [u8]> {
        let Some((start, size)) = self.window(image) else { return Cow::Borrowed(original) };
        let pixel = self.encoding.pixel(self.channels);
        let dims = Dims::of(self.resized_size(self.original(image)), pixel);
        Cow::Owned(crop(original, dims, start, size))
    }

    /// Reads all images into memory.
    ///
    /// # Errors
    /// Those of [`Catalogue::read`], or if the images exceed [`super::MAX_BYTES`].
    pub fn collect(&self) -> Result<Images> {
        // Enough for any number of threads; the images of these files are held twice.
        self.collect_in_parts(256)
    }

    /// Like [`Catalogue::collect`], with at most `files` originals decoded at a time.
    ///
    /// # Errors
    /// Those of [`Catalogue::collect`].
    pub fn collect_in_parts(&self, files: usize) -> Result<Images> {
        let mut images = Images::new(self.channels);
        images.encoding = self.encoding.clone();
        // Patches of one original are consecutive, so that each original is decoded once.
        let all: Vec<usize> = (0..self.len()).collect();
        let groups: Vec<&[usize]> =
            all.chunk_by(|a, b| self.original(*a) == self.original(*b)).collect();
        for part in groups.chunks(files) {
            let read = part.par_iter().map_init(
                Handles::default,
                |handles, group| -> Result<Vec<Vec<u8>>> {
                    let original = self.read_original(self.original(group[0]), handles)?;
                    Ok(group
                        .iter()
                        .map(|image| self.crop(*image, &original).into_owned())
                        .collect())
                },
            );
            for group in read.collect::<Vec<_>>() {
                for pixels in group? {
                    let image = images.len();
                    images.push(self.name(image), self.size(image), &pixels)?;
                }
            }
        }
        images.labels.clone_from(&self.labels);
        Ok(images)
    }
}
