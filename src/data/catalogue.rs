//! Images that stay in their files: where each lies and what is to be made of it. What streaming
//! reads from. A file costs its path, a record or a patch next to nothing: what can be computed is
//! not listed.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;

use super::array::Array;
use super::folder::slashed;
use super::images::{
    Images, Labels, describe, enlarged, gray_to_rgb, resize, resized_len, rgb_to_gray, split,
};
use super::patches::{Patch, PatchGrid};
use crate::data::formats::decode::decode_file;
use crate::error::{Error, Result};

/// What images lie in.
#[derive(Clone, Debug, PartialEq)]
pub enum Places {
    /// Files of one image each: their paths below `root`, and heights and widths as decoded.
    Files {
        /// What the paths are relative to.
        root: PathBuf,
        /// The paths.
        files: Vec<PathBuf>,
        /// A size for each.
        sizes: Vec<[u32; 2]>,
        /// Bytes that decoding the most demanding of them takes.
        decoding: u64,
    },
    /// Files of many: the records of all of them, one file after the other.
    Records(Vec<(PathBuf, Array)>),
}

/// What size images are brought to when they are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum To {
    #[default]
    AsTheyAre,
    AtLeast(usize, usize),
    Exactly(usize, usize),
}

/// Which parts of the images are images of their own.
#[derive(Clone, Debug, Default)]
enum Cut {
    /// Each whole.
    #[default]
    Whole,
    /// Every patch of a grid: the first of each image, and the end.
    Grid { h: usize, w: usize, starts: Vec<u32> },
    /// Some patches.
    Windows { h: usize, w: usize, patches: Vec<Patch> },
}

/// Images in files.
#[derive(Clone, Debug)]
pub struct Catalogue {
    /// Where they lie, shared by what is made of one set.
    places: Arc<Places>,
    /// Which of them, in order; none: all.
    chosen: Option<Vec<u32>>,
    to: To,
    cut: Cut,
    /// Samples per pixel of what is read.
    pub channels: usize,
    /// Classes, where the data has them.
    pub labels: Option<Labels>,
}

/// Bytes for each pixel between the two passes of a resize.
const RESIZING: usize = 16;

/// A reader's open files, so that a record does not cost an opening each.
#[derive(Debug, Default)]
pub struct Handles {
    files: HashMap<usize, File>,
}

impl Catalogue {
    /// All images of some places.
    pub fn new(places: Places, channels: usize, labels: Option<Labels>) -> Self {
        Self {
            places: Arc::new(places),
            chosen: None,
            to: To::AsTheyAre,
            cut: Cut::Whole,
            channels,
            labels,
        }
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        match &self.cut {
            Cut::Whole => self.count(),
            Cut::Grid { starts, .. } => starts.last().map_or(0, |end| *end as usize),
            Cut::Windows { patches, .. } => patches.len(),
        }
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of images before they are cut.
    fn count(&self) -> usize {
        match (&self.chosen, &*self.places) {
            (Some(chosen), _) => chosen.len(),
            (None, Places::Files { files, .. }) => files.len(),
            (None, Places::Records(arrays)) => arrays.iter().map(|(_, array)| array.count).sum(),
        }
    }

    /// The place of a whole image.
    fn place(&self, whole: usize) -> usize {
        self.chosen.as_ref().map_or(whole, |chosen| chosen[whole] as usize)
    }

    /// Height and width of a whole image as decoded.
    fn decoded(&self, whole: usize) -> (usize, usize) {
        match &*self.places {
            Places::Files { sizes, .. } => {
                let [h, w] = sizes[self.place(whole)];
                (h as usize, w as usize)
            }
            Places::Records(arrays) => {
                let (_, array) = &arrays[record(arrays, self.place(whole)).0];
                (array.h, array.w)
            }
        }
    }

    /// Height and width of a whole image as it is brought to.
    fn resized(&self, whole: usize) -> (usize, usize) {
        match self.to {
            To::AsTheyAre => self.decoded(whole),
            To::AtLeast(h, w) => enlarged(self.decoded(whole), h, w),
            To::Exactly(h, w) => (h, w),
        }
    }

    /// The name of a whole image: its path inside the folder, or its number inside a file.
    fn name_of(&self, whole: usize) -> String {
        let place = self.place(whole);
        match &*self.places {
            Places::Files { files, .. } => slashed(&files[place]),
            Places::Records(arrays) => {
                let (array, index) = record(arrays, place);
                name_of_record(arrays, array, index)
            }
        }
    }

    /// The whole image that an image is, or is cut from.
    fn whole(&self, image: usize) -> usize {
        match &self.cut {
            Cut::Whole => image,
            Cut::Grid { starts, .. } => {
                starts.partition_point(|start| *start as usize <= image) - 1
            }
            Cut::Windows { patches, .. } => patches[image].image,
        }
    }

    /// What is kept of the whole image: first row, first column, height, width.
    fn window(&self, image: usize) -> Option<[usize; 4]> {
        match &self.cut {
            Cut::Whole => None,
            Cut::Grid { h, w, starts } => {
                let whole = self.whole(image);
                let (top, left) = PatchGrid::new(self.resized(whole), *h, *w)
                    .position(image - starts[whole] as usize);
                Some([top, left, *h, *w])
            }
            Cut::Windows { h, w, patches } => {
                Some([patches[image].top, patches[image].left, *h, *w])
            }
        }
    }

    /// The name of an image; a patch has that of what it is cut from.
    pub fn name(&self, image: usize) -> String {
        self.name_of(self.whole(image))
    }

    /// Whether an image comes from the same file, or record, as the one before it.
    pub fn follows(&self, image: usize) -> bool {
        let (Some(before), whole) =
            (image.checked_sub(1).map(|before| self.whole(before)), self.whole(image))
        else {
            return false;
        };
        let same = |files: &[PathBuf]| files[self.place(before)] == files[self.place(whole)];
        before == whole || matches!(&*self.places, Places::Files { files, .. } if same(files))
    }

    /// Height and width of what is read.
    pub fn size(&self, image: usize) -> (usize, usize) {
        match self.cut {
            Cut::Whole => self.resized(image),
            Cut::Grid { h, w, .. } | Cut::Windows { h, w, .. } => (h, w),
        }
    }

    /// Heights and widths of what is read.
    pub fn sizes(&self) -> impl Iterator<Item = (usize, usize)> {
        (0..self.len()).map(|image| self.size(image))
    }

    /// The common size (height, width), if there is one.
    pub fn common_size(&self) -> Option<(usize, usize)> {
        let first = self.sizes().next()?;
        self.sizes().all(|size| size == first).then_some(first)
    }

    /// Bytes of all images, were they read at once.
    pub fn total(&self) -> u64 {
        self.sizes().map(|(h, w)| (h * w * self.channels) as u64).sum()
    }

    /// Bytes that the catalogue itself takes.
    pub fn held_bytes(&self) -> u64 {
        let places = match &*self.places {
            Places::Files { files, .. } => files
                .iter()
                .map(|file| file.as_os_str().len() + size_of::<PathBuf>() + size_of::<[u32; 2]>())
                .sum(),
            Places::Records(arrays) => size_of_val(&arrays[..]),
        };
        let cut = match &self.cut {
            Cut::Whole => 0,
            Cut::Grid { starts, .. } => size_of_val(&starts[..]),
            Cut::Windows { patches, .. } => size_of_val(&patches[..]),
        };
        let chosen = self.chosen.as_ref().map_or(0, |chosen| size_of_val(&chosen[..]));
        let labels = self.labels.as_ref().map_or(0, |labels| size_of_val(&labels.of[..]));
        (places + cut + chosen + labels) as u64
    }

    /// Bytes that reading one image takes at most: what is decoded and what is made of it on the
    /// way.
    pub fn reading_bytes(&self) -> u64 {
        let of = |whole: usize| {
            let (size, to) = (self.decoded(whole), self.resized(whole));
            let area = size.0 * size.1;
            let decoding = match &*self.places {
                Places::Files { decoding, .. } => *decoding,
                Places::Records(arrays) => {
                    let (_, array) = &arrays[record(arrays, self.place(whole)).0];
                    (array.record() + array.samples() + self.channels * area) as u64
                }
            };
            let resizing =
                if to == size { 0 } else { RESIZING * to.0 * size.1 + self.channels * to.0 * to.1 };
            decoding + resizing as u64
        };
        match (&*self.places, self.to) {
            // All records of a file are alike.
            (Places::Records(arrays), _) if arrays.len() == 1 && self.count() > 0 => of(0),
            _ => (0..self.count()).map(of).max().unwrap_or(0),
        }
    }

    /// One line, as [`Images::describe`].
    pub fn describe(&self) -> String {
        describe(self.sizes(), self.channels, self.labels.as_ref())
    }

    /// The images at `indices`, in that order. They are chosen before they are cut.
    pub fn subset(&self, indices: &[usize]) -> Self {
        assert!(matches!(self.cut, Cut::Whole), "images are chosen before they are cut");
        let labels = |l: &Labels| Labels {
            classes: l.classes.clone(),
            of: indices.iter().map(|&i| l.of[i]).collect(),
        };
        Self {
            places: Arc::clone(&self.places),
            chosen: Some(indices.iter().map(|&i| self.place(i) as u32).collect()),
            labels: self.labels.as_ref().map(labels),
            cut: Cut::Whole,
            ..*self
        }
    }

    /// As [`Images::split`].
    pub fn split(&self, fraction: f64, seed: u64) -> (Self, Self) {
        let (train, validation) = split(self.len(), fraction, seed);
        (self.subset(&train), self.subset(&validation))
    }

    /// As [`Images::ensure_at_least`], when the images are read.
    ///
    /// # Errors
    /// As there.
    pub fn ensure_at_least(&mut self, h: usize, w: usize) -> Result<()> {
        self.bring(To::AtLeast(h, w))
    }

    /// As [`Images::resize_all`], when the images are read.
    ///
    /// # Errors
    /// As there.
    pub fn resize_all(&mut self, h: usize, w: usize) -> Result<()> {
        self.bring(To::Exactly(h, w))
    }

    fn bring(&mut self, to: To) -> Result<()> {
        assert!(matches!(self.cut, Cut::Whole), "images are resized before they are cut");
        self.to = to;
        for whole in 0..self.count() {
            let (size, to) = (self.decoded(whole), self.resized(whole));
            if to != size {
                resized_len(size, to, self.channels).map_err(|e| e.at(self.name_of(whole)))?;
            }
        }
        Ok(())
    }

    fn cut(&self, cut: Cut, image_of: impl Iterator<Item = usize>) -> Self {
        assert!(matches!(self.cut, Cut::Whole), "what is cut stays as it is");
        let labels = |l: &Labels| Labels {
            classes: l.classes.clone(),
            of: image_of.map(|image| l.of[image]).collect(),
        };
        Self {
            places: Arc::clone(&self.places),
            chosen: self.chosen.clone(),
            labels: self.labels.as_ref().map(labels),
            cut,
            ..*self
        }
    }

    /// Parts of the images as images of their own.
    pub fn windows(&self, patches: &[Patch], h: usize, w: usize) -> Self {
        self.cut(
            Cut::Windows { h, w, patches: patches.to_vec() },
            patches.iter().map(|patch| patch.image),
        )
    }

    /// All patches of a grid over the images, as images of their own.
    ///
    /// # Errors
    /// When there are more than can be numbered.
    pub fn patches(&self, h: usize, w: usize) -> Result<Self> {
        let mut starts = vec![0_u32];
        for size in self.sizes() {
            let end = u32::try_from(PatchGrid::new(size, h, w).count())
                .ok()
                .and_then(|count| starts[starts.len() - 1].checked_add(count));
            starts.push(end.ok_or_else(|| {
                Error::usage(format!(
                    "the images have more than {} patches of {w}x{h}: use fewer, or data.fit = \"crop\"",
                    u32::MAX
                ))
            })?);
        }
        let counts = starts
            .clone()
            .into_iter()
            .zip(starts[1..].to_vec())
            .map(|(start, end)| (end - start) as usize);
        let image_of =
            counts.enumerate().flat_map(|(image, count)| std::iter::repeat_n(image, count));
        Ok(self.cut(Cut::Grid { h, w, starts }, image_of))
    }

    /// Reads one image: H,W,C.
    ///
    /// # Errors
    /// When its file does not give it (any more), with the file's name.
    pub fn read(&self, image: usize, handles: &mut Handles) -> Result<Vec<u8>> {
        let whole = self.decode(self.whole(image), handles)?;
        Ok(self.part(image, &whole).into_owned())
    }

    /// Gives images to `look`, with their places in `images`; those of one file that follow one
    /// another are decoded once.
    ///
    /// # Errors
    /// As [`Catalogue::read`].
    pub fn each(
        &self,
        images: &[usize],
        handles: &mut Handles,
        mut look: impl FnMut(usize, &[u8]),
    ) -> Result<()> {
        let mut at = 0;
        for of_a_file in images.chunk_by(|a, b| self.whole(*a) == self.whole(*b)) {
            let whole = self.decode(self.whole(of_a_file[0]), handles)?;
            for image in of_a_file {
                look(at, &self.part(*image, &whole));
                at += 1;
            }
        }
        Ok(())
    }

    /// A whole image.
    fn decode(&self, whole: usize, handles: &mut Handles) -> Result<Vec<u8>> {
        let (size, place) = (self.decoded(whole), self.place(whole));
        let pixels = match &*self.places {
            Places::Files { root, files, .. } => {
                let path = root.join(&files[place]);
                let decoded = decode_file(&path).map_err(|e| e.at(path.display()))?;
                if (decoded.h, decoded.w) != size {
                    return Err(Error::failed(format!(
                        "{}: its size has changed since it was first read",
                        path.display()
                    )));
                }
                decoded.into_channels(self.channels)
            }
            Places::Records(arrays) => {
                let (array, index) = record(arrays, place);
                let (path, of) = &arrays[array];
                let file = match handles.files.entry(array) {
                    std::collections::hash_map::Entry::Occupied(open) => open.into_mut(),
                    std::collections::hash_map::Entry::Vacant(closed) => {
                        closed.insert(File::open(path).map_err(|e| Error::io(path, &e))?)
                    }
                };
                let pixels = of.read(file, index).map_err(|e| e.at(path.display()))?;
                match (of.c, self.channels) {
                    (1, 3) => gray_to_rgb(&pixels),
                    (3, 1) => rgb_to_gray(&pixels),
                    _ => pixels,
                }
            }
        };
        let to = self.resized(whole);
        Ok(if to == size { pixels } else { resize(&pixels, size, to, self.channels) })
    }

    /// An image, of the whole that it is cut from.
    fn part<'p>(&self, image: usize, whole: &'p [u8]) -> Cow<'p, [u8]> {
        let Some([top, left, h, w]) = self.window(image) else { return Cow::Borrowed(whole) };
        let (width, c) = (self.resized(self.whole(image)).1, self.channels);
        let row = |y: usize| ((top + y) * width + left) * c;
        Cow::Owned((0..h).flat_map(|y| &whole[row(y)..row(y) + w * c]).copied().collect())
    }

    /// Reads all images into memory.
    ///
    /// # Errors
    /// As [`Catalogue::read`], or when there are too many bytes.
    pub fn collect(&self) -> Result<Images> {
        self.collect_at_once(256)
    }

    /// As [`Catalogue::collect`], so many files at a time.
    ///
    /// # Errors
    /// As there.
    pub fn collect_at_once(&self, files: usize) -> Result<Images> {
        let mut images = Images::new(self.channels);
        // patches of one image follow one another: it is decoded once for them
        let all: Vec<usize> = (0..self.len()).collect();
        let groups: Vec<&[usize]> = all.chunk_by(|a, b| self.whole(*a) == self.whole(*b)).collect();
        for part in groups.chunks(files) {
            let read = part.par_iter().map_init(
                Handles::default,
                |handles, group| -> Result<Vec<Vec<u8>>> {
                    let whole = self.decode(self.whole(group[0]), handles)?;
                    Ok(group.iter().map(|image| self.part(*image, &whole).into_owned()).collect())
                },
            );
            for group in read.collect::<Vec<_>>() {
                for pixels in group? {
                    let image = images.len();
                    let (h, w) = self.size(image);
                    images.push(self.name(image), h, w, &pixels)?;
                }
            }
        }
        images.labels.clone_from(&self.labels);
        Ok(images)
    }
}

/// Which array a record belongs to, and its number there.
fn record(arrays: &[(PathBuf, Array)], mut place: usize) -> (usize, usize) {
    for (at, (_, array)) in arrays.iter().enumerate() {
        if place < array.count {
            return (at, place);
        }
        place -= array.count;
    }
    unreachable!("a place is that of a record")
}

/// A record's name: its number, behind the name of its file where there are several.
pub(super) fn name_of_record(arrays: &[(PathBuf, Array)], array: usize, index: usize) -> String {
    let (path, of) = &arrays[array];
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if arrays.len() > 1 { format!("{}/{}", name(path), of.name(index)) } else { of.name(index) }
}
