//! Patches cut from images at fixed places, for evaluation and pictures.

use super::images::{Images, Labels};
use crate::error::Result;
use crate::rng::Stream;

/// Where a patch lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patch {
    /// The image's index.
    pub image: usize,
    /// The first row.
    pub top: usize,
    /// The first column.
    pub left: usize,
}

/// The non-overlapping `h`×`w` patches of every image, in reading order, the grid centred in each
/// image (the odd pixel goes to the end). Images that are too small give none; images of just this
/// size one each.
///
/// If there are more than `limit` (0: no limit), they are thinned evenly: the list is cut into
/// `limit` stretches of equal length (±1) and each gives one patch, drawn from the seed, so that no
/// regular step falls in with the rows of the grid.
pub fn grid(images: &Images, h: usize, w: usize, limit: usize, seed: u64) -> Vec<Patch> {
    grid_of(images.table.iter().map(|e| (e.h, e.w)), h, w, limit, seed)
}

/// [`grid`] over images of which only the sizes (height, width) are known. No more patches are
/// listed than are wanted.
pub fn grid_of(
    sizes: impl Iterator<Item = (usize, usize)>,
    h: usize,
    w: usize,
    limit: usize,
    seed: u64,
) -> Vec<Patch> {
    let tilings: Vec<Tiling> = sizes.map(|size| Tiling::of(size, h, w)).collect();
    let count: usize = tilings.iter().map(|tiling| tiling.count()).sum();
    let patches = tilings.iter().enumerate().flat_map(|(image, tiling)| {
        (0..tiling.count()).map(move |number| {
            let (top, left) = tiling.place(number);
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
        .filter(|(number, _)| chosen.next_if_eq(number).is_some())
        .map(|(_, patch)| patch)
        .collect()
}

/// The patches of a grid over one image.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tiling {
    rows: u32,
    columns: u32,
    top: u32,
    left: u32,
    h: u32,
    w: u32,
}

impl Tiling {
    /// Over an image of a size (height, width); sides fit into 32 bits.
    pub(super) fn of(size: (usize, usize), h: usize, w: usize) -> Self {
        assert!(h > 0 && w > 0, "a patch has pixels");
        let (rows, columns) = (size.0 / h, size.1 / w);
        let (top, left) = ((size.0 - rows * h) / 2, (size.1 - columns * w) / 2);
        let [rows, columns, top, left, h, w] =
            [rows, columns, top, left, h, w].map(|side| side as u32);
        Self { rows, columns, top, left, h, w }
    }

    /// Number of patches.
    pub(super) const fn count(self) -> usize {
        self.rows as usize * self.columns as usize
    }

    /// First row and first column of a patch, in reading order.
    pub(super) const fn place(self, number: usize) -> (usize, usize) {
        let (row, column) = (number / self.columns as usize, number % self.columns as usize);
        (self.top as usize + row * self.h as usize, self.left as usize + column * self.w as usize)
    }
}

/// Every patch of the grid as an image of its own, with the name and the label of the image that it
/// comes from.
///
/// # Errors
/// Never in practice: patches hold no more bytes than their images.
pub fn images(images: &Images, h: usize, w: usize) -> Result<Images> {
    let (patches, c) = (grid(images, h, w, 0, 0), images.channels);
    let mut out = Images::new(c);
    for patch in &patches {
        let width = images.table[patch.image].w;
        let pixels = images.image(patch.image);
        let rows = (patch.top..patch.top + h)
            .flat_map(|row| &pixels[(row * width + patch.left) * c..][..w * c]);
        out.push(images.names[patch.image].clone(), h, w, &rows.copied().collect::<Vec<u8>>())?;
    }
    let of = |l: &Labels| Labels {
        classes: l.classes.clone(),
        of: patches.iter().map(|p| l.of[p.image]).collect(),
    };
    out.labels = images.labels.as_ref().map(of);
    Ok(out)
}

/// The patches one after the other, N,H,W,C, on the 0–1 scale (byte/255).
pub fn cut(images: &Images, patches: &[Patch], h: usize, w: usize) -> Vec<f32> {
    let c = images.channels;
    let mut out = Vec::with_capacity(patches.len() * h * w * c);
    for patch in patches {
        let width = images.table[patch.image].w;
        let pixels = images.image(patch.image);
        for row in patch.top..patch.top + h {
            let start = (row * width + patch.left) * c;
            out.extend(pixels[start..start + w * c].iter().map(|&byte| f32::from(byte) / 255.0));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(h: usize, w: usize, channels: usize) -> Images {
        let mut images = Images::new(channels);
        let pixels: Vec<u8> = (0..h * w * channels).map(|i| i as u8).collect();
        images.push("a".into(), h, w, &pixels).unwrap();
        images
    }

    #[test]
    fn the_grid_is_centred() {
        let images = image(5, 9, 2);
        let patches = grid(&images, 2, 4, 0, 1);
        let at = |top, left| Patch { image: 0, top, left };
        assert_eq!(patches, [at(0, 0), at(0, 4), at(2, 0), at(2, 4)]);
        let cut = cut(&images, &patches[1..2], 2, 4);
        let expected: Vec<f32> = (8..16).chain(26..34).map(|v| v as f32 / 255.0).collect();
        assert_eq!(cut, expected);
        assert_eq!(grid(&images, 3, 3, 0, 1)[0], at(1, 0));
        assert_eq!(grid(&images, 6, 1, 0, 1), []);
    }

    #[test]
    fn images_of_the_patch_size_come_whole_and_in_order() {
        let mut images = Images::new(1);
        for i in 0..7u8 {
            images.push(i.to_string(), 2, 2, &[i; 4]).unwrap();
        }
        let patches = grid(&images, 2, 2, 0, 3);
        assert_eq!(patches.iter().map(|p| p.image).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(cut(&images, &patches, 2, 2)[24], 6.0 / 255.0);
    }

    #[test]
    fn thinning_is_even_and_repeatable() {
        let images = image(40, 40, 1);
        let all = grid(&images, 4, 4, 100, 0);
        assert_eq!(all.len(), 100);
        let some = grid(&images, 4, 4, 30, 5);
        assert_eq!(some, grid(&images, 4, 4, 30, 5));
        assert_ne!(some, grid(&images, 4, 4, 30, 6));
        let places: Vec<usize> =
            some.iter().map(|p| all.iter().position(|q| q == p).unwrap()).collect();
        assert_eq!(places.len(), 30);
        assert!(
            places.iter().enumerate().all(|(i, &p)| p >= i * 100 / 30 && p < (i + 1) * 100 / 30)
        );
    }
}
