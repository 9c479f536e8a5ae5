//! Patches of images on a regular grid, for evaluation and pictures.

use super::images::{Images, Labels};
use super::missing;
use crate::error::Result;
use crate::raster::crop;
use crate::rng::Stream;
use crate::shape::{Dims, Size};

/// The position of a patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patch {
    /// Index of the image.
    pub image: usize,
    /// First row.
    pub top: usize,
    /// First column.
    pub left: usize,
}

/// The non-overlapping patches of `size` of every image, in reading order. The grid is centred in
/// each image; an odd pixel is left at the end. An image that is too small has no patch.
///
/// If there are more than `limit` patches (0: no limit), they are subsampled evenly: the list is
/// divided into `limit` intervals of equal length (±1), and a random patch of each is taken. A
/// fixed step could select only some columns of the grid.
pub fn grid(images: &Images, size: Size, limit: usize, seed: u64) -> Vec<Patch> {
    grid_of(images.sizes(), size, limit, seed)
}

/// Like [`grid`], for images of the given sizes. The memory grows with `limit` and the number of
/// images, not with the number of patches.
pub fn grid_of(
    sizes: impl Iterator<Item = Size>,
    size: Size,
    limit: usize,
    seed: u64,
) -> Vec<Patch> {
    let grids: Vec<PatchGrid> = sizes.map(|whole| PatchGrid::new(whole, size)).collect();
    let count: usize = grids.iter().map(|grid| grid.count()).sum();
    let patches = grids.iter().enumerate().flat_map(|(image, grid)| {
        (0..grid.count()).map(move |index| {
            let (top, left) = grid.position(index);
            Patch { image, top, left }
        })
    });
    if limit == 0 || count <= limit {
        return patches.collect();
    }
    let mut stream = Stream::new(seed, "patches");
    let bound = |i: usize| (i as u128 * count as u128 / limit as u128) as usize;
    let mut chosen =
        (0..limit).map(|i| bound(i) + stream.below(bound(i + 1) - bound(i))).peekable();
    patches
        .enumerate()
        .filter(|(index, _)| chosen.next_if_eq(index).is_some())
        .map(|(_, patch)| patch)
        .collect()
}

impl Patch {
    /// The stored pixels (H,W,C) of a patch of `size`.
    fn cut(&self, images: &Images, size: Size) -> Vec<u8> {
        let pixel = images.encoding.pixel(images.channels);
        let dims = Dims::of(images.table[self.image].size, pixel);
        crop(images.image(self.image), dims, (self.top, self.left), size)
    }
}

/// The patch grid of one image.
#[derive(Clone, Copy, Debug)]
pub(super) struct PatchGrid {
    rows: u32,
    columns: u32,
    top: u32,
    left: u32,
    h: u32,
    w: u32,
}

impl PatchGrid {
    /// The grid of patches of `size` over an image of the size `whole`.
    pub(super) fn new(whole: Size, size: Size) -> Self {
        let Size { h, w } = size;
        assert!(h > 0 && w > 0, "a patch has pixels");
        let (rows, columns) = (whole.h / h, whole.w / w);
        let (top, left) = ((whole.h - rows * h) / 2, (whole.w - columns * w) / 2);
        let [rows, columns, top, left, h, w] =
            [rows, columns, top, left, h, w].map(|side| side as u32);
        Self { rows, columns, top, left, h, w }
    }

    /// Number of patches.
    pub(super) const fn count(self) -> usize {
        self.rows as usize * self.columns as usize
    }

    /// First row and first column of patch `index`, in reading order.
    pub(super) const fn position(self, index: usize) -> (usize, usize) {
        let (row, column) = (index / self.columns as usize, index % self.columns as usize);
        (self.top as usize + row * self.h as usize, self.left as usize + column * self.w as usize)
    }
}

/// Cuts every patch of the grid and makes it an image with the name and the label of its original.
///
/// # Errors
/// If the patches exceed [`super::MAX_BYTES`], which cannot happen: they are not larger than the
/// images.
pub fn images(images: &Images, size: Size) -> Result<Images> {
    let patches = grid(images, size, 0, 0);
    let mut out = images.like();
    for patch in &patches {
        let pixels = patch.cut(images, size);
        out.push(images.names[patch.image].clone(), size, &pixels)?;
    }
    let labels = |l: &Labels| Labels {
        classes: l.classes.clone(),
        of: patches.iter().map(|p| l.of[p.image]).collect(),
    };
    out.labels = images.labels.as_ref().map(labels);
    Ok(out)
}

/// Cuts patches of `size`. Returns their values (N,H,W,C). Missing ones are filled
/// ([`missing::fill`]).
pub fn cut(images: &Images, patches: &[Patch], size: Size) -> Vec<f32> {
    cut_with_missing(images, patches, size).0
}

/// As [`cut`], and where values were missing (N,H,W,C), if they were.
pub fn cut_with_missing(
    images: &Images,
    patches: &[Patch],
    size: Size,
) -> (Vec<f32>, Option<Vec<bool>>) {
    let dims = Dims::of(size, images.channels);
    let mut out = Vec::with_capacity(patches.len() * dims.len());
    let mut missing: Option<Vec<bool>> = None;
    for (number, patch) in patches.iter().enumerate() {
        let start = out.len();
        images.encoding.decode_into(&patch.cut(images, size), images.channels, &mut out);
        if let Some(gaps) = missing::fill(&mut out[start..], dims) {
            let all = missing.get_or_insert_with(|| vec![false; patches.len() * dims.len()]);
            all[number * dims.len()..][..dims.len()].copy_from_slice(&gaps);
        }
    }
    (out, missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(h: usize, w: usize, channels: usize) -> Images {
        let mut images = Images::new(channels);
        let pixels: Vec<u8> = (0..h * w * channels).map(|i| i as u8).collect();
        images.push("a".into(), Size { h, w }, &pixels).unwrap();
        images
    }

    #[test]
    fn the_grid_is_centred() {
        let images = image(5, 9, 2);
        let at = |top, left| Patch { image: 0, top, left };
        let of = |h: usize, w: usize| grid(&images, Size { h, w }, 0, 1);
        assert_eq!(of(2, 4), [at(0, 0), at(0, 4), at(2, 0), at(2, 4)]);
        assert_eq!(of(3, 3)[0], at(1, 0));
        assert_eq!(of(6, 1), []);
    }

    #[test]
    fn a_patch_has_the_pixels_at_its_position() {
        let patch = Patch { image: 0, top: 0, left: 4 };
        let expected: Vec<f32> = (8..16).chain(26..34).map(|v| v as f32 / 255.0).collect();
        assert_eq!(cut(&image(5, 9, 2), &[patch], Size::new(2, 4)), expected);
    }

    #[test]
    fn images_of_the_patch_size_are_one_patch_each() {
        let (mut images, size) = (Images::new(1), Size::new(2, 2));
        for i in 0..7u8 {
            images.push(i.to_string(), size, &[i; 4]).unwrap();
        }
        let patches = grid(&images, size, 0, 3);
        assert_eq!(patches.iter().map(|p| p.image).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(cut(&images, &patches, size)[24], 6.0 / 255.0);
    }

    #[test]
    fn subsampling_is_even_and_repeatable() {
        let images = image(40, 40, 1);
        let of = |limit: usize, seed: u64| grid(&images, Size::new(4, 4), limit, seed);
        let all = of(100, 0);
        assert_eq!(all.len(), 100);
        let some = of(30, 5);
        assert_eq!(some, of(30, 5));
        assert_ne!(some, of(30, 6));
        let indices: Vec<usize> =
            some.iter().map(|p| all.iter().position(|q| q == p).unwrap()).collect();
        assert_eq!(indices.len(), 30);
        assert!(
            indices.iter().enumerate().all(|(i, &p)| p >= i * 100 / 30 && p < (i + 1) * 100 / 30)
        );
    }
}
