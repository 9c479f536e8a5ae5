//! Images that stay in their files: a list of where each lies and what is to be made of it. What streaming reads from.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use rayon::prelude::*;

use super::array::Array;
use super::folder::{decode_file, to_channels};
use super::images::{Images, Labels, describe, enlarged, gray_to_rgb, resize, resized_len, rgb_to_gray, split};
use super::patches::{Patch, grid_of};
use crate::error::{Error, Result};

/// Where an image lies.
#[derive(Clone, Debug, PartialEq)]
pub enum Place {
    /// A file of its own.
    File(PathBuf),
    /// A record of [`Catalogue::arrays`].
    Record {
        /// Which array.
        array: usize,
        /// Which record.
        index: usize,
    },
}

/// An image and what is made of it: decoded, resized to `to`, then cut to `window`.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// Where it lies.
    pub place: Place,
    /// Height and width as decoded.
    pub size: (usize, usize),
    /// Height and width that it is resized to.
    pub to: (usize, usize),
    /// The part kept: first row, first column, height, width.
    pub window: Option<[usize; 4]>,
}

impl Item {
    /// An image taken as it is.
    pub fn new(place: Place, h: usize, w: usize) -> Self {
        Self { place, size: (h, w), to: (h, w), window: None }
    }

    /// Whether one decoding serves both.
    fn same_file(&self, other: &Self) -> bool {
        self.place == other.place && self.to == other.to
    }

    /// Height and width of what is read.
    pub fn result(&self) -> (usize, usize) {
        self.window.map_or(self.to, |[_, _, h, w]| (h, w))
    }
}

/// Images in files.
#[derive(Clone, Debug, Default)]
pub struct Catalogue {
    /// The images.
    pub items: Vec<Item>,
    /// Samples per pixel of what is read.
    pub channels: usize,
    /// A name for each image.
    pub names: Vec<String>,
    /// Classes, where the data has them.
    pub labels: Option<Labels>,
    /// Files of many images.
    pub arrays: Arc<Vec<(PathBuf, Array)>>,
}

/// A reader's open files, so that a record does not cost an opening each.
#[derive(Debug, Default)]
pub struct Handles {
    files: HashMap<usize, File>,
}

impl Catalogue {
    /// Number of images.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Heights and widths of what is read.
    pub fn sizes(&self) -> impl Iterator<Item = (usize, usize)> {
        self.items.iter().map(Item::result)
    }

    /// The common size (height, width), if there is one.
    pub fn common_size(&self) -> Option<(usize, usize)> {
        let first = self.items.first()?.result();
        self.sizes().all(|size| size == first).then_some(first)
    }

    /// Bytes of all images, were they read at once.
    pub fn total(&self) -> u64 {
        self.sizes().map(|(h, w)| (h * w * self.channels) as u64).sum()
    }

    /// One line, as [`Images::describe`].
    pub fn describe(&self) -> String {
        describe(self.sizes(), self.channels, self.labels.as_ref())
    }

    /// The images at `indices`, in that order.
    pub fn subset(&self, indices: &[usize]) -> Self {
        let labels = |l: &Labels| Labels { classes: l.classes.clone(), of: indices.iter().map(|&i| l.of[i]).collect() };
        Self {
            items: indices.iter().map(|&i| self.items[i].clone()).collect(),
            channels: self.channels,
            names: indices.iter().map(|&i| self.names[i].clone()).collect(),
            labels: self.labels.as_ref().map(labels),
            arrays: Arc::clone(&self.arrays),
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
        self.resize(|size| enlarged(size, h, w))
    }

    /// As [`Images::resize_all`], when the images are read.
    ///
    /// # Errors
    /// As there.
    pub fn resize_all(&mut self, h: usize, w: usize) -> Result<()> {
        self.resize(|_| (h, w))
    }

    fn resize(&mut self, to: impl Fn((usize, usize)) -> (usize, usize)) -> Result<()> {
        for (item, name) in self.items.iter_mut().zip(&self.names) {
            item.to = to(item.size);
            if item.to != item.size {
                resized_len(item.size, item.to, self.channels).map_err(|e| e.at(name))?;
            }
        }
        Ok(())
    }

    /// Parts of the images as images of their own.
    pub fn windows(&self, patches: &[Patch], h: usize, w: usize) -> Self {
        let mut out = self.subset(&patches.iter().map(|p| p.image).collect::<Vec<_>>());
        for (item, patch) in out.items.iter_mut().zip(patches) {
            item.window = Some([patch.top, patch.left, h, w]);
        }
        out
    }

    /// All patches of a grid over the images, as images of their own.
    pub fn patches(&self, h: usize, w: usize) -> Self {
        self.windows(&grid_of(self.sizes(), h, w, 0, 0), h, w)
    }

    /// Reads one image: H,W,C.
    ///
    /// # Errors
    /// When its file does not give it (any more), with the file's name.
    pub fn read(&self, index: usize, handles: &mut Handles) -> Result<Vec<u8>> {
        let item = &self.items[index];
        Ok(cut(item, &self.decode(item, handles)?, self.channels).into_owned())
    }

    /// Gives images to `look`, with their places in `images`; those of one file that follow one another are decoded once.
    ///
    /// # Errors
    /// As [`Catalogue::read`].
    pub fn each(&self, images: &[usize], handles: &mut Handles, mut look: impl FnMut(usize, &[u8])) -> Result<()> {
        let mut at = 0;
        for of_a_file in images.chunk_by(|a, b| self.items[*a].same_file(&self.items[*b])) {
            let whole = self.decode(&self.items[of_a_file[0]], handles)?;
            for image in of_a_file {
                look(at, &cut(&self.items[*image], &whole, self.channels));
                at += 1;
            }
        }
        Ok(())
    }

    /// The image, whole.
    fn decode(&self, item: &Item, handles: &mut Handles) -> Result<Vec<u8>> {
        let pixels = match &item.place {
            Place::File(path) => {
                let decoded = decode_file(path).map_err(|e| e.at(path.display()))?;
                if (decoded.h, decoded.w) != item.size {
                    return Err(Error::failed(format!("{}: its size has changed since it was first read", path.display())));
                }
                to_channels(&decoded, self.channels).into_owned()
            }
            &Place::Record { array, index } => {
                let (path, array_of) = &self.arrays[array];
                let file = match handles.files.entry(array) {
                    std::collections::hash_map::Entry::Occupied(open) => open.into_mut(),
                    std::collections::hash_map::Entry::Vacant(closed) => {
                        closed.insert(File::open(path).map_err(|e| Error::io(path, &e))?)
                    }
                };
                let pixels = array_of.read(file, index).map_err(|e| e.at(path.display()))?;
                match (array_of.c, self.channels) {
                    (1, 3) => gray_to_rgb(&pixels),
                    (3, 1) => rgb_to_gray(&pixels),
                    _ => pixels,
                }
            }
        };
        Ok(if item.to == item.size { pixels } else { resize(&pixels, item.size, item.to, self.channels) })
    }

    /// Reads all images into memory.
    ///
    /// # Errors
    /// As [`Catalogue::read`], or when there are too many bytes.
    pub fn collect(&self) -> Result<Images> {
        const AT_ONCE: usize = 256;
        let mut images = Images::new(self.channels);
        // patches of one image follow one another: it is decoded once for them
        let groups: Vec<&[Item]> = self.items.chunk_by(Item::same_file).collect();
        for part in groups.chunks(AT_ONCE) {
            let read = part.par_iter().map_init(Handles::default, |handles, group| -> Result<Vec<Vec<u8>>> {
                let whole = self.decode(&group[0], handles)?;
                Ok(group.iter().map(|item| cut(item, &whole, self.channels).into_owned()).collect())
            });
            for group in read.collect::<Vec<_>>() {
                for pixels in group? {
                    let i = images.len();
                    let (h, w) = self.items[i].result();
                    images.push(self.names[i].clone(), h, w, &pixels)?;
                }
            }
        }
        images.labels.clone_from(&self.labels);
        Ok(images)
    }
}

fn cut<'p>(item: &Item, pixels: &'p [u8], channels: usize) -> Cow<'p, [u8]> {
    let Some([top, left, h, w]) = item.window else { return Cow::Borrowed(pixels) };
    let row = |y: usize| ((top + y) * item.to.1 + left) * channels;
    (0..h).flat_map(|y| &pixels[row(y)..row(y) + w * channels]).copied().collect()
}

/// Images in memory, or in their files.
#[derive(Clone, Debug)]
pub enum Pixels {
    /// All in memory.
    Resident(Images),
    /// Read when they are needed.
    Streamed(Arc<Catalogue>),
}

impl Pixels {
    /// Number of images.
    pub fn len(&self) -> usize {
        match self {
            Self::Resident(images) => images.len(),
            Self::Streamed(catalogue) => catalogue.len(),
        }
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Channels of every image.
    pub fn channels(&self) -> usize {
        match self {
            Self::Resident(images) => images.channels,
            Self::Streamed(catalogue) => catalogue.channels,
        }
    }

    /// Bytes of the pixels in memory.
    pub fn resident_bytes(&self) -> u64 {
        match self {
            Self::Resident(images) => images.bytes.len() as u64,
            Self::Streamed(_) => 0,
        }
    }

    /// Heights and widths.
    pub fn sizes(&self) -> Vec<(usize, usize)> {
        match self {
            Self::Resident(images) => images.table.iter().map(|e| (e.h, e.w)).collect(),
            Self::Streamed(catalogue) => catalogue.sizes().collect(),
        }
    }

    /// A name for each image; patches have that of their image.
    pub fn names(&self) -> &[String] {
        match self {
            Self::Resident(images) => &images.names,
            Self::Streamed(catalogue) => &catalogue.names,
        }
    }

    /// The common size (height, width), if there is one.
    pub fn common_size(&self) -> Option<(usize, usize)> {
        match self {
            Self::Resident(images) => images.common_size(),
            Self::Streamed(catalogue) => catalogue.common_size(),
        }
    }
}
