//! Images of any size through a model of bounded size: overlapping tiles, and their blending strip
//! by strip.
//!
//! All tiles have one size, so that one recorded pass serves all. They begin at multiples of
//! `align`, so that a model with strides sees every pixel in the phase that it would have in the
//! whole image. The outer `halo` pixels of a tile, where the model saw the tile's edge instead of
//! the image, are not used, except at the image's own edges; between the rest of a tile and of its
//! neighbour the result passes over in a linear ramp.

use std::ops::Range;

use crate::error::{Error, Result};

/// The width of the ramp between neighbours, in pixels.
const RAMP: usize = 8;

/// TileGrid along one side of the image.
#[derive(Clone, Debug)]
struct TileAxis {
    /// The image's side.
    length: usize,
    /// The side of a tile.
    tile: usize,
    /// Where tiles begin, ascending; the last one ends at the image's end or up to `align` − 1
    /// behind it.
    starts: Vec<usize>,
}

impl TileAxis {
    fn new(length: usize, tile: usize, halo: usize, align: usize) -> Self {
        let least = (2 * halo + RAMP).next_multiple_of(align) + align;
        let tile = tile.next_multiple_of(align).max(least).min(length.next_multiple_of(align));
        // In units of `align`, in which the starts are whole.
        let last = (length - length.min(tile)).div_ceil(align);
        let step = tile.saturating_sub(2 * halo + RAMP) / align;
        let gaps = last.div_ceil(step.max(1));
        Self { length, tile, starts: (0..=gaps).map(|i| i * last / gaps.max(1) * align).collect() }
    }

    /// How far pixel `at` lies before the ramp between tiles `i` and `i + 1`: 1 before it, 0 behind
    /// it. Of the last tile: 1 throughout.
    fn before(&self, i: usize, at: usize) -> f32 {
        let Some(next) = self.starts.get(i + 1) else { return 1.0 };
        let middle = (next + self.starts[i] + self.tile) as f32 / 2.0;
        ((middle + RAMP as f32 / 2.0 - (at as f32 + 0.5)) / RAMP as f32).clamp(0.0, 1.0)
    }

    /// A tile's weight at a pixel. The weights of all tiles telescope to 1, whatever their
    /// overlaps.
    fn weight(&self, i: usize, at: usize) -> f32 {
        let earlier = if i == 0 { 0.0 } else { self.before(i - 1, at) };
        self.before(i, at) - earlier
    }

    /// The pixels that tile `i` covers inside the image.
    fn covered(&self, i: usize) -> Range<usize> {
        self.starts[i]..(self.starts[i] + self.tile).min(self.length)
    }

    /// The pixels before this one get nothing from tile `i`.
    fn first_used(&self, i: usize) -> usize {
        self.covered(i).find(|at| self.weight(i, *at) > 0.0).unwrap_or(self.length)
    }
}

/// The tiles of an image.
#[derive(Clone, Debug)]
pub struct TileGrid {
    rows: TileAxis,
    columns: TileAxis,
}

/// One tile: `h`×`w` pixels from (`top`, `left`) on. It may reach beyond the image's lower and
/// right edge by less than the alignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageTile {
    /// Which tile from above.
    pub row: usize,
    /// Which tile from the left.
    pub column: usize,
    /// First row in the image.
    pub top: usize,
    /// First column in the image.
    pub left: usize,
    /// Height, a multiple of the alignment.
    pub h: usize,
    /// Width, a multiple of the alignment.
    pub w: usize,
}

impl TileGrid {
    /// TileGrid of about `tile`×`tile` pixels over an image of `h`×`w`. `halo`: pixels at a tile's
    /// edge that the model gets wrong, its receptive field's radius; `align`: what sides and starts
    /// of tiles are multiples of, the model's total stride. A tile that would leave nothing beside
    /// its halos is made larger; an image smaller than a tile has one tile, of its size rounded up
    /// to the alignment.
    ///
    /// # Errors
    /// When the image has no pixels, or the alignment is 0.
    pub fn new(h: usize, w: usize, tile: usize, halo: usize, align: usize) -> Result<Self> {
        if h * w == 0 || align == 0 {
            return Err(Error::usage(format!(
                "an image of {w}x{h} pixels has no tiles aligned to {align}; give it pixels"
            )));
        }
        Ok(Self {
            rows: TileAxis::new(h, tile, halo, align),
            columns: TileAxis::new(w, tile, halo, align),
        })
    }

    /// Height and width of every tile.
    pub fn size(&self) -> (usize, usize) {
        (self.rows.tile, self.columns.tile)
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
            ImageTile { row, column, top, left, h: self.rows.tile, w: self.columns.tile }
        })
    }

    /// A tile's pixels (H,W,C), mirrored where it reaches beyond the image, the edge pixel twice.
    /// `read` adds the given columns of a row of the image to the vector, C samples a pixel: the
    /// image need not be in memory as reals.
    pub fn cut(
        &self,
        tile: &ImageTile,
        c: usize,
        mut read: impl FnMut(usize, Range<usize>, &mut Vec<f32>),
    ) -> Vec<f32> {
        let (rows, columns) = (self.rows.covered(tile.row), self.columns.covered(tile.column));
        let row_len = tile.w * c;
        let mut out: Vec<f32> = Vec::with_capacity(tile.h * row_len);
        for y in 0..tile.h {
            let from = mirrored(y, rows.len());
            if from < y {
                out.extend_from_within(from * row_len..(from + 1) * row_len);
                continue;
            }
            read(rows.start + y, columns.clone(), &mut out);
            assert_eq!(
                out.len(),
                y * row_len + columns.len() * c,
                "the columns that were asked for"
            );
            for x in columns.len()..tile.w {
                let from = y * row_len + mirrored(x, columns.len()) * c;
                out.extend_from_within(from..from + c);
            }
        }
        out
    }

    /// [`TileGrid::cut`] from an image in memory (H,W,C).
    pub fn cut_from(&self, tile: &ImageTile, c: usize, pixels: &[f32]) -> Vec<f32> {
        let w = self.columns.length;
        self.cut(tile, c, |y, columns, out| {
            out.extend_from_slice(&pixels[(y * w + columns.start) * c..(y * w + columns.end) * c])
        })
    }
}

/// Where a place lies in a side that is mirrored at its end, again and again.
pub(crate) const fn mirrored(at: usize, side: usize) -> usize {
    let at = at % (2 * side);
    if at < side { at } else { 2 * side - 1 - at }
}

/// Rows of the result that are done.
#[derive(Clone, Debug, PartialEq)]
pub struct Strip {
    /// The first row.
    pub top: usize,
    /// The rows, W,C each, the image's width.
    pub pixels: Vec<f32>,
}

/// Joins what a model made of tiles. Only the rows that tiles in work reach are held, at most a
/// tile's height.
#[derive(Clone, Debug)]
pub struct Blend {
    tiles: TileGrid,
    c: usize,
    /// The first row that is held.
    top: usize,
    rows: Vec<f32>,
    next: usize,
}

impl Blend {
    /// Nothing joined yet; `c`: channels of the result.
    pub fn new(tiles: &TileGrid, c: usize) -> Self {
        Self { tiles: tiles.clone(), c, top: 0, rows: Vec::new(), next: 0 }
    }

    /// Adds the result of the next tile of [`TileGrid::iter`] (H,W,C); with the last of a row of
    /// tiles, returns the rows of the image that no later tile changes. All strips together are the
    /// image.
    ///
    /// # Panics
    /// When tiles come in another order, or more than there are.
    pub fn add(&mut self, tile: &ImageTile, y: &[f32]) -> Option<Strip> {
        let Self { tiles, c, .. } = self;
        let (row_len, c) = (tiles.columns.length * *c, *c);
        assert_eq!(Some(*tile), tiles.iter().nth(self.next), "tiles in their order");
        assert_eq!(y.len(), tile.h * tile.w * c, "the result of a tile of {}x{}", tile.w, tile.h);
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
            let from = &y[(at - rows.start) * tile.w * c..][..columns.len() * c];
            for ((out, from), across) in
                out.chunks_exact_mut(c).zip(from.chunks_exact(c)).zip(&across)
            {
                // What weighs nothing is not multiplied: it may be infinite.
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

    fn image(h: usize, w: usize, c: usize) -> Vec<f32> {
        (0..h * w * c).map(|i| ((i * 7919) % 1009) as f32 / 1009.0).collect()
    }

    /// TileGrid through a function and together again; the most samples held at once.
    fn through(
        pixels: &[f32],
        (h, w, c): (usize, usize, usize),
        (tile, halo, align): (usize, usize, usize),
        f: impl Fn(&ImageTile, Vec<f32>) -> Vec<f32>,
    ) -> (Vec<f32>, usize) {
        let tiles = TileGrid::new(h, w, tile, halo, align).unwrap();
        let mut blend = Blend::new(&tiles, c);
        let (mut out, mut held) = (Vec::new(), 0);
        for tile in tiles.iter() {
            assert!(
                tile.top % align == 0
                    && tile.left % align == 0
                    && tile.h % align == 0
                    && tile.w % align == 0
            );
            let y = f(&tile, tiles.cut_from(&tile, c, pixels));
            let strip = blend.add(&tile, &y);
            held = held.max(blend.rows.len());
            if let Some(strip) = strip {
                assert_eq!(strip.top * w * c, out.len(), "strips follow one another");
                out.extend(strip.pixels);
            }
        }
        (out, held)
    }

    const SIZES: [(usize, usize, usize); 9] = [
        (1, 1, 1),
        (5, 3, 3),
        (64, 64, 1),
        (65, 63, 1),
        (31, 200, 3),
        (257, 129, 1),
        (97, 101, 3),
        (1, 300, 1),
        (128, 40, 1),
    ];
    const PLANS: [(usize, usize, usize); 6] =
        [(32, 4, 1), (64, 8, 4), (48, 20, 8), (1, 0, 1), (40, 0, 2), (4096, 16, 16)];

    #[test]
    fn identity_gives_the_image_back() {
        for size in SIZES {
            let pixels = image(size.0, size.1, size.2);
            for plan in PLANS {
                let (out, held) = through(&pixels, size, plan, |_, x| x);
                assert_eq!(out.len(), pixels.len(), "{size:?} {plan:?}");
                assert!(
                    out.iter().zip(&pixels).all(|(a, b)| (a - b).abs() <= 1e-6),
                    "{size:?} {plan:?}"
                );
                let tiles = TileGrid::new(size.0, size.1, plan.0, plan.1, plan.2).unwrap();
                assert!(held <= tiles.size().0 * size.1 * size.2, "{held}");
            }
        }
        // A restorer that changes one pixel of one tile shows.
        let pixels = image(65, 63, 1);
        let (out, _) = through(&pixels, (65, 63, 1), (32, 4, 1), |tile, mut x| {
            if tile.row == 1 && tile.column == 1 {
                x[16 * tile.w + 16] += 0.1;
            }
            x
        });
        assert!(out.iter().zip(&pixels).any(|(a, b)| (a - b).abs() > 1e-6));
    }

    /// The halo's contents never reach the result: a restorer that spoils it, except at the image's
    /// edges, does no harm. One pixel more and it does.
    #[test]
    fn halos_are_not_used() {
        let spoil = |size: (usize, usize, usize), plan, halo: usize| {
            let pixels = image(size.0, size.1, 1);
            let (out, _) = through(&pixels, size, plan, |tile, mut x| {
                for y in 0..tile.h {
                    for z in 0..tile.w {
                        let inner = |at: usize, start: usize, side: usize, length: usize| {
                            (start == 0 || at >= halo)
                                && (start + side >= length || at < side - halo)
                        };
                        if !inner(y, tile.top, tile.h, size.0)
                            || !inner(z, tile.left, tile.w, size.1)
                        {
                            x[y * tile.w + z] = f32::NAN;
                        }
                    }
                }
                x
            });
            out.iter().zip(&pixels).all(|(a, b)| (a - b).abs() <= 1e-6)
        };
        for size in [(200, 150, 1), (97, 301, 1), (65, 64, 1)] {
            for plan in [(32, 4, 1), (64, 8, 4), (48, 20, 8)] {
                assert!(spoil(size, plan, plan.1), "{size:?} {plan:?}");
            }
        }
        assert!(
            !spoil((200, 150, 1), (32, 4, 1), 4 + RAMP),
            "a restorer that spoils more than the halo is seen"
        );
    }

    /// A blur in tiles with a halo of its radius is the blur of the whole image.
    #[test]
    fn a_local_restorer_has_no_seams() {
        let (h, w, radius) = (150, 131, 3_usize);
        let pixels = image(h, w, 1);
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
            through(&pixels, (h, w, 1), (40, radius, 1), |tile, x| blur(&x, tile.h, tile.w));
        assert!(good.iter().zip(&whole).all(|(a, b)| (a - b).abs() < 1e-5));
        // Without a halo the tiles' edges show.
        let (bad, _) = through(&pixels, (h, w, 1), (24, 0, 1), |tile, x| blur(&x, tile.h, tile.w));
        let off = bad.iter().zip(&whole).fold(0.0_f32, |m, (a, b)| m.max((a - b).abs()));
        assert!(off > 1e-3, "{off}");
    }

    #[test]
    fn what_lies_beyond_is_mirrored() {
        let tiles = TileGrid::new(1, 3, 8, 0, 8).unwrap();
        assert_eq!((tiles.size(), tiles.count()), ((8, 8), 1));
        let tile = tiles.iter().next().unwrap();
        let cut = tiles.cut_from(&tile, 1, &[1.0, 2.0, 3.0]);
        assert!(
            cut.chunks(8).all(|row| row == [1.0, 2.0, 3.0, 3.0, 2.0, 1.0, 1.0, 2.0]),
            "{cut:?}"
        );
        assert!(TileGrid::new(0, 3, 8, 0, 8).is_err() && TileGrid::new(3, 3, 8, 0, 0).is_err());
    }

    #[test]
    fn a_large_image_needs_a_strip() {
        let tiles = TileGrid::new(10_000, 10_000, 512, 32, 8).unwrap();
        assert_eq!(tiles.size(), (512, 512));
        assert!(tiles.count() <= 24 * 24, "{}", tiles.count());
    }
}
