//! Overlapping tiles: they cut an image of any size into pieces that a model can process, and blend
//! the results strip by strip.
//!
//! All tiles have the same size, so that one recorded pass serves all. Their positions are
//! multiples of `align`, so that a model with strides sees every pixel in the same phase as in the
//! whole image. The outer `halo` pixels of a tile are discarded, except at the image's own border:
//! the model saw the border of the tile there instead of the image. Inside the halos, neighbouring
//! tiles are blended by a linear ramp.

use std::ops::Range;

use crate::error::{Error, Result};
use crate::shape::Size;

/// Width in pixels of the ramp between neighbours. A wider ramp hides more of a difference between
/// two tiles, but enlarges their overlap.
const RAMP: usize = 8;

/// The tiles along one side of the image.
#[derive(Clone, Debug)]
struct TileAxis {
    /// Side of the image.
    length: usize,
    /// Side of a tile.
    tile: usize,
    /// Positions of the tiles, ascending. The last tile ends at the end of the image, or up to
    /// `align` − 1 pixels after it.
    starts: Vec<usize>,
}

impl TileAxis {
    fn new(length: usize, tile: usize, halo: usize, align: usize) -> Self {
        let min_tile = (2 * halo + RAMP).next_multiple_of(align) + align;
        let tile = tile.next_multiple_of(align).max(min_tile).min(length.next_multiple_of(align));
        // `last` and `step` are in units of `align`, so that positions are multiples of it.
        let last = (length - length.min(tile)).div_ceil(align);
        let step = tile.saturating_sub(2 * halo + RAMP) / align;
        let gaps = last.div_ceil(step.max(1));
        Self { length, tile, starts: (0..=gaps).map(|i| i * last / gaps.max(1) * align).collect() }
    }

    /// The ramp between tiles `i` and `i + 1` at pixel `at`: it falls from 1 to 0. For the last
    /// tile it is 1 everywhere.
    fn ramp(&self, i: usize, at: usize) -> f32 {
        let Some(next) = self.starts.get(i + 1) else { return 1.0 };
        let middle = (next + self.starts[i] + self.tile) as f32 / 2.0;
        ((middle + RAMP as f32 / 2.0 - (at as f32 + 0.5)) / RAMP as f32).clamp(0.0, 1.0)
    }

    /// Weight of tile `i` at pixel `at`. The weights of all tiles telescope to 1, for any overlaps.
    fn weight(&self, i: usize, at: usize) -> f32 {
        let earlier = if i == 0 { 0.0 } else { self.ramp(i - 1, at) };
        self.ramp(i, at) - earlier
    }

    /// The pixels of the image that tile `i` covers.
    fn covered(&self, i: usize) -> Range<usize> {
        self.starts[i]..(self.starts[i] + self.tile).min(self.length)
    }

    /// How often each pixel occurs in the image with the mirrored part that the last tile covers.
    fn multiplicity(&self) -> Vec<f64> {
        let end = self.starts.last().map_or(0, |start| start + self.tile);
        let mut counts = vec![0.0; self.length];
        (0..end.max(self.length)).for_each(|at| counts[mirrored(at, self.length)] += 1.0);
        counts
    }

    /// The first pixel with a weight above 0 in tile `i`.
    fn first_used(&self, i: usize) -> usize {
        self.covered(i).find(|at| self.weight(i, *at) > 0.0).unwrap_or(self.length)
    }
}

/// The grid of tiles over an image.
#[derive(Clone, Debug)]
pub struct Tiles {
    rows: TileAxis,
    columns: TileAxis,
}

/// A tile. It can extend beyond the lower and right border of the image by less than the alignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageTile {
    /// Row in the grid.
    pub row: usize,
    /// Column in the grid.
    pub column: usize,
    /// First row in the image.
    pub top: usize,
    /// First column in the image.
    pub left: usize,
    /// Height and width, multiples of the alignment.
    pub size: Size,
}

impl Tiles {
    /// A grid of tiles of about `tile`×`tile` pixels over an image.
    ///
    /// `halo` is the number of pixels to discard at the border of a tile: the radius of the model's
    /// receptive field. `align` is the total stride of the model: sides and positions of tiles are
    /// multiples of it. A tile that its halo would fill is enlarged. An image smaller than a
    /// tile has one tile, of its size rounded up to the alignment.
    ///
    /// # Errors
    /// When the image has no pixels or the alignment is 0.
    pub fn new(image: Size, tile: usize, halo: usize, align: usize) -> Result<Self> {
        if image.area() == 0 || align == 0 {
            return Err(Error::usage(format!(
                "an image of {image} pixels cannot be cut into tiles aligned to {align}; both must \
                 be above 0"
            )));
        }
        Ok(Self {
            rows: TileAxis::new(image.h, tile, halo, align),
            columns: TileAxis::new(image.w, tile, halo, align),
        })
    }

    /// Height and width of every tile.
    pub const fn size(&self) -> Size {
        Size { h: self.rows.tile, w: self.columns.tile }
    }

    /// Number of tiles.
    pub fn count(&self) -> usize {
        self.rows.starts.len() * self.columns.starts.len()
    }

    /// The tiles, row by row: the order that [`Blend`] needs.
    pub fn iter(&self) -> impl Iterator<Item = ImageTile> + '_ {
        let columns = self.columns.starts.len();
        (0..self.count()).map(move |number| {
            let (row, column) = (number / columns, number % columns);
            let (top, left) = (self.rows.starts[row], self.columns.starts[column]);
            ImageTile { row, column, top, left, size: self.size() }
        })
    }

    /// The pixels of a tile (H,W,C). Beyond the image they are mirrored; the edge pixel is
    /// repeated. `read(y, columns, out)` appends the given columns of row y of the image, C values
    /// a pixel, so that the image does not have to be in memory as f32.
    pub fn cut(
        &self,
        tile: &ImageTile,
        c: usize,
        mut read: impl FnMut(usize, Range<usize>, &mut Vec<f32>),
    ) -> Vec<f32> {
        let (rows, columns) = (self.rows.covered(tile.row), self.columns.covered(tile.column));
        let row_len = tile.size.w * c;
        let mut out: Vec<f32> = Vec::with_capacity(tile.size.h * row_len);
        for y in 0..tile.size.h {
            let from = mirrored(y, rows.len());
            if from < y {
                out.extend_from_within(from * row_len..(from + 1) * row_len);
                continue;
            }
            read(rows.start + y, columns.clone(), &mut out);
            assert_eq!(
                out.len(),
                y * row_len + columns.len() * c,
                "`read` must append the columns asked for"
            );
            for x in columns.len()..tile.size.w {
                let from = y * row_len + mirrored(x, columns.len()) * c;
                out.extend_from_within(from..from + c);
            }
        }
        out
    }

    /// Mean of each of `c` channels over the image with its mirrored part: what a model would
    /// average if the image were one tile. `read` is as in [`Tiles::cut`].
    pub fn mean(
        &self,
        c: usize,
        mut read: impl FnMut(usize, Range<usize>, &mut Vec<f32>),
    ) -> Vec<f32> {
        let (down, across) = (self.rows.multiplicity(), self.columns.multiplicity());
        let (mut sums, mut row) = (vec![0.0; c], Vec::new());
        for (y, down) in down.iter().enumerate() {
            row.clear();
            read(y, 0..across.len(), &mut row);
            for (pixel, across) in row.chunks_exact(c).zip(&across) {
                sums.iter_mut()
                    .zip(pixel)
                    .for_each(|(sum, v)| *sum += down * across * f64::from(*v));
            }
        }
        let count = down.iter().sum::<f64>() * across.iter().sum::<f64>();
        sums.into_iter().map(|sum| (sum / count) as f32).collect()
    }

    /// [`Tiles::cut`] from an image in memory (H,W,C).
    pub fn cut_from(&self, tile: &ImageTile, c: usize, pixels: &[f32]) -> Vec<f32> {
        self.cut(tile, c, rows_of(pixels, self.columns.length, c))
    }

    /// [`Tiles::mean`] of an image in memory (H,W,C).
    pub fn mean_of(&self, c: usize, pixels: &[f32]) -> Vec<f32> {
        self.mean(c, rows_of(pixels, self.columns.length, c))
    }
}

/// Reads parts of rows of an image in memory (H,W,C) of width `w`.
fn rows_of(pixels: &[f32], w: usize, c: usize) -> impl FnMut(usize, Range<usize>, &mut Vec<f32>) {
    move |y, columns, out| {
        out.extend_from_slice(&pixels[(y * w + columns.start) * c..(y * w + columns.end) * c]);
    }
}

/// The position in 0..side that position `at` mirrors, for a side that is mirrored repeatedly.
pub(crate) const fn mirrored(at: usize, side: usize) -> usize {
    let at = at % (2 * side);
    if at < side { at } else { 2 * side - 1 - at }
}

/// Finished rows of the result.
#[derive(Clone, Debug, PartialEq)]
pub struct Strip {
    /// Number of the first row.
    pub top: usize,
    /// The rows (H,W,C) in the full width of the image.
    pub pixels: Vec<f32>,
}

/// Blends the results of tiles. It holds only unfinished rows: at most the height of a tile.
#[derive(Clone, Debug)]
pub struct Blend {
    tiles: Tiles,
    c: usize,
    /// Number of the first unfinished row.
    top: usize,
    /// The unfinished rows.
    rows: Vec<f32>,
    /// Number of the next tile.
    next: usize,
}

impl Blend {
    /// A blend without results; `c` is the number of channels.
    pub fn new(tiles: &Tiles, c: usize) -> Self {
        Self { tiles: tiles.clone(), c, top: 0, rows: Vec::new(), next: 0 }
    }

    /// Adds the result of the next tile of [`Tiles::iter`] (H,W,C). After the last tile of a
    /// grid row it returns the rows that no later tile changes. All strips together are the image.
    ///
    /// # Panics
    /// When tiles come in another order, or after the last one.
    pub fn add(&mut self, tile: &ImageTile, y: &[f32]) -> Option<Strip> {
        let Self { tiles, c, .. } = self;
        let (row_len, c) = (tiles.columns.length * *c, *c);
        assert_eq!(Some(*tile), tiles.iter().nth(self.next), "tiles must come in order");
        assert_eq!(y.len(), tile.size.area() * c, "a tile has {} pixels", tile.size);
        self.next += 1;
        let (rows, columns) = (tiles.rows.covered(tile.row), tiles.columns.covered(tile.column));
        self.rows.resize((rows.end - self.top) * row_len, 0.0);
        let across: Vec<f32> =
            columns.clone().map(|x| tiles.columns.weight(tile.column, x)).collect();
        for at in rows.clone() {
            let down = tiles.rows.weight(tile.row, at);
            if down == 0.0 {
                continue;
            }
            let out = &mut self.rows[(at - self.top) * row_len + columns.start * c..]
                [..columns.len() * c];
            let from = &y[(at - rows.start) * tile.size.w * c..][..columns.len() * c];
            for ((out, from), across) in
                out.chunks_exact_mut(c).zip(from.chunks_exact(c)).zip(&across)
            {
                // A discarded pixel can be infinite or NaN, which a weight of 0 would not remove.
                if *across > 0.0 {
                    out.iter_mut().zip(from).for_each(|(out, v)| *out += down * across * v);
                }
            }
        }
        if tile.column + 1 < tiles.columns.starts.len() {
            return None;
        }
        let last = tile.row + 1 == tiles.rows.starts.len();
        let done = if last { tiles.rows.length } else { tiles.rows.first_used(tile.row + 1) };
        let rest = self.rows.split_off((done - self.top) * row_len);
        let strip = Strip { top: self.top, pixels: std::mem::replace(&mut self.rows, rest) };
        self.top = done;
        Some(strip)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::Dims;

    fn image(dims: Dims) -> Vec<f32> {
        (0..dims.len()).map(|i| ((i * 7919) % 1009) as f32 / 1009.0).collect()
    }

    /// Cuts an image into tiles, applies `f` to each, and blends the results. Returns the image,
    /// and the maximum number of values that the blend held.
    fn map_tiles(
        pixels: &[f32],
        dims: Dims,
        (tile, halo, align): (usize, usize, usize),
        f: impl Fn(&ImageTile, Vec<f32>) -> Vec<f32>,
    ) -> (Vec<f32>, usize) {
        let tiles = Tiles::new(dims.size(), tile, halo, align).unwrap();
        let mut blend = Blend::new(&tiles, dims.c);
        let (mut out, mut held) = (Vec::new(), 0);
        for tile in tiles.iter() {
            assert!(
                tile.top % align == 0
                    && tile.left % align == 0
                    && tile.size.h % align == 0
                    && tile.size.w % align == 0
            );
            let y = f(&tile, tiles.cut_from(&tile, dims.c, pixels));
            let strip = blend.add(&tile, &y);
            held = held.max(blend.rows.len());
            if let Some(strip) = strip {
                assert_eq!(strip.top * dims.w * dims.c, out.len(), "strips must be contiguous");
                out.extend(strip.pixels);
            }
        }
        (out, held)
    }

    const SIZES: [Dims; 9] = [
        Dims::new(1, 1, 1),
        Dims::new(3, 5, 3),
        Dims::new(1, 64, 64),
        Dims::new(1, 65, 63),
        Dims::new(3, 31, 200),
        Dims::new(1, 257, 129),
        Dims::new(3, 97, 101),
        Dims::new(1, 1, 300),
        Dims::new(1, 128, 40),
    ];
    /// (tile, halo, align).
    const GEOMETRIES: [(usize, usize, usize); 6] =
        [(32, 4, 1), (64, 8, 4), (48, 20, 8), (1, 0, 1), (40, 0, 2), (4096, 16, 16)];

    #[test]
    fn the_identity_reproduces_the_image() {
        for dims in SIZES {
            let pixels = image(dims);
            for geometry in GEOMETRIES {
                let (out, held) = map_tiles(&pixels, dims, geometry, |_, x| x);
                assert_eq!(out.len(), pixels.len(), "{dims} {geometry:?}");
                assert!(
                    out.iter().zip(&pixels).all(|(a, b)| (a - b).abs() <= 1e-6),
                    "{dims} {geometry:?}"
                );
                let (tile, halo, align) = geometry;
                let tiles = Tiles::new(dims.size(), tile, halo, align).unwrap();
                assert!(held <= tiles.size().h * dims.w * dims.c, "{held}");
            }
        }
        // Control: a function that changes one pixel of one tile is detected.
        let dims = Dims::new(1, 65, 63);
        let pixels = image(dims);
        let (out, _) = map_tiles(&pixels, dims, (32, 4, 1), |tile, mut x| {
            if tile.row == 1 && tile.column == 1 {
                x[16 * tile.size.w + 16] += 0.1;
            }
            x
        });
        assert!(out.iter().zip(&pixels).any(|(a, b)| (a - b).abs() > 1e-6));
    }

    /// Overwrites the halo of every tile with NaN, except at the image's border: no NaN may reach
    /// the result. Overwriting more than the halo must be detected.
    #[test]
    fn halos_are_discarded() {
        let survives_spoiled = |dims: Dims, geometry, halo: usize| {
            let pixels = image(dims);
            let (out, _) = map_tiles(&pixels, dims, geometry, |tile, mut x| {
                for y in 0..tile.size.h {
                    for z in 0..tile.size.w {
                        let inner = |at: usize, start: usize, side: usize, length: usize| {
                            (start == 0 || at >= halo)
                                && (start + side >= length || at < side - halo)
                        };
                        if !inner(y, tile.top, tile.size.h, dims.h)
                            || !inner(z, tile.left, tile.size.w, dims.w)
                        {
                            x[y * tile.size.w + z] = f32::NAN;
                        }
                    }
                }
                x
            });
            out.iter().zip(&pixels).all(|(a, b)| (a - b).abs() <= 1e-6)
        };
        for dims in [Dims::new(1, 200, 150), Dims::new(1, 97, 301), Dims::new(1, 65, 64)] {
            for geometry in [(32, 4, 1), (64, 8, 4), (48, 20, 8)] {
                assert!(survives_spoiled(dims, geometry, geometry.1), "{dims} {geometry:?}");
            }
        }
        assert!(
            !survives_spoiled(Dims::new(1, 200, 150), (32, 4, 1), 4 + RAMP),
            "spoiling more than the halo must change the result"
        );
    }

    /// A blur of tiles with a halo of its radius equals the blur of the whole image.
    #[test]
    fn a_local_filter_has_no_seams() {
        let (h, w, radius) = (150, 131, 3_usize);
        let dims = Dims::new(1, h, w);
        let pixels = image(dims);
        let blur = |x: &[f32], h: usize, w: usize| -> Vec<f32> {
            let at = |y: usize, z: usize| {
                let rows = y.saturating_sub(radius)..(y + radius + 1).min(h);
                rows.map(|r| {
                    x[r * w..][z.saturating_sub(radius)..(z + radius + 1).min(w)]
                        .iter()
                        .sum::<f32>()
                })
                .sum::<f32>()
            };
            (0..h * w).map(|i| at(i / w, i % w) / 49.0).collect()
        };
        let whole = blur(&pixels, h, w);
        let (good, _) =
            map_tiles(&pixels, dims, (40, radius, 1), |tile, x| blur(&x, tile.size.h, tile.size.w));
        assert!(good.iter().zip(&whole).all(|(a, b)| (a - b).abs() < 1e-5));
        // Control: without a halo the borders of tiles are visible.
        let (bad, _) =
            map_tiles(&pixels, dims, (24, 0, 1), |tile, x| blur(&x, tile.size.h, tile.size.w));
        let error = bad.iter().zip(&whole).fold(0.0_f32, |m, (a, b)| m.max((a - b).abs()));
        assert!(error > 1e-3, "{error}");
    }

    #[test]
    fn tiles_are_mirrored_beyond_the_image() {
        let tiles = Tiles::new(Size::new(1, 3), 8, 0, 8).unwrap();
        assert_eq!((tiles.size(), tiles.count()), (Size::new(8, 8), 1));
        let tile = tiles.iter().next().unwrap();
        let cut = tiles.cut_from(&tile, 1, &[1.0, 2.0, 3.0]);
        assert!(
            cut.chunks(8).all(|row| row == [1.0, 2.0, 3.0, 3.0, 2.0, 1.0, 1.0, 2.0]),
            "{cut:?}"
        );
        assert!(
            Tiles::new(Size::new(0, 3), 8, 0, 8).is_err()
                && Tiles::new(Size::new(3, 3), 8, 0, 0).is_err()
        );
    }

    #[test]
    fn the_overlap_of_tiles_is_small() {
        let tiles = Tiles::new(Size::new(10_000, 10_000), 512, 32, 8).unwrap();
        assert_eq!(tiles.size(), Size::new(512, 512));
        assert!(tiles.count() <= 24 * 24, "{}", tiles.count());
    }
}
