//! Pictures: PNG files, grids of tiles, and tiles of filters and atoms.

use std::path::Path;

use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};

use crate::error::{Error, Result};
use crate::files;
use crate::shape::{Dims, Size};

/// Tiles are enlarged by the largest whole factor for which the picture is at most this wide, in
/// pixels. It fits on most screens.
const MAX_WIDTH: usize = 1000;
/// Maximum enlargement. Without it a single 1×1 filter would be 1000 pixels wide.
const MAX_SCALE: usize = 32;
/// The gray between tiles. It differs from white, the value of many images' background.
pub(super) const BACKGROUND: f32 = 0.92;
/// Gap in pixels between the two rows of a pair, and between columns.
const PAIR_GAP: usize = 2;
/// Gap in pixels between pairs of rows. It is larger than [`PAIR_GAP`] to show what belongs
/// together.
const ROW_GAP: usize = 12;
/// Maximum number of channels shown for a filter that is neither gray nor RGB. More make each of
/// them smaller.
pub(super) const FILTER_CHANNELS: usize = 8;

/// A gray (1 channel) or RGB (3 channels) picture on the 0–1 scale.
#[derive(Clone, Debug, PartialEq)]
pub struct Picture {
    /// Its size, with 1 or 3 channels.
    pub dims: Dims,
    /// The samples, H,W,C.
    pub pixels: Vec<f32>,
}

/// Tiles of one size (H,W,C, on the 0–1 scale) and the number of columns to arrange them in.
#[derive(Clone, Debug, PartialEq)]
pub struct TileGrid {
    /// Size of a tile.
    pub dims: Dims,
    /// Number of columns.
    pub columns: usize,
    /// The tiles, row by row.
    pub tiles: Vec<Vec<f32>>,
}

impl TileGrid {
    /// The picture of the grid, with gaps of four pixels.
    pub fn picture(&self) -> Picture {
        grid(&self.tiles, self.dims, self.columns, 4)
    }

    /// Moran's I of a tile: the spatial autocorrelation of pixels that share an edge (Moran, "Notes
    /// on continuous stochastic phenomena", 1950). It is near 1 for smooth tiles, near 0 for noise
    /// and negative for alternating pixels. Sums run over all channels. Returns `None` for a
    /// constant tile, and if there is no tile of this index.
    pub fn moran(&self, tile: usize) -> Option<f64> {
        let (Dims { c, h, w }, pixels) = (self.dims, self.tiles.get(tile)?);
        let (mut covariance, mut variance) = (0.0, 0.0);
        for channel in 0..c {
            let value = |at: usize| f64::from(pixels[at * c + channel]);
            let mean = (0..h * w).map(value).sum::<f64>() / (h * w) as f64;
            let centred = |at: usize| value(at) - mean;
            variance += (0..h * w).map(|at| centred(at) * centred(at)).sum::<f64>();
            covariance += (0..h * w)
                .filter(|at| at % w + 1 < w)
                .map(|at| centred(at) * centred(at + 1))
                .sum::<f64>();
            covariance += (0..h * w - w).map(|at| centred(at) * centred(at + w)).sum::<f64>();
        }
        let pairs = h * (w - 1) + (h - 1) * w;
        // A constant tile has a variance of at most rounding errors.
        (pairs > 0 && variance > 1e-9)
            .then(|| covariance / variance * (h * w) as f64 / pairs as f64)
    }
}

impl Picture {
    /// Writes the picture to a PNG file; see [`save_png`].
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        save_png(path, &self.pixels, self.dims)
    }

    /// The picture enlarged by the largest whole factor for which it is at most `width` wide, if it
    /// is smaller.
    pub(super) fn enlarged(self, width: usize) -> Self {
        let size = self.dims.size();
        let factor = width / size.w.max(1);
        if factor < 2 {
            return self;
        }
        let mut large = Self::blank(Dims::of(size.map(|side| side * factor), self.dims.c));
        large.paint(&self.pixels, size, factor, 0, 0);
        large
    }

    /// A picture of the background colour.
    pub(super) fn blank(dims: Dims) -> Self {
        Self { dims, pixels: vec![BACKGROUND; dims.len()] }
    }

    /// Draws a tile of `size` at (`top`, `left`), each of its pixels as a square of
    /// `scale`×`scale`. The tile has the channels of the picture.
    pub(crate) fn paint(
        &mut self,
        tile: &[f32],
        size: Size,
        scale: usize,
        top: usize,
        left: usize,
    ) {
        let Dims { c, w, .. } = self.dims;
        for y in 0..size.h * scale {
            let start = ((top + y) * w + left) * c;
            for x in 0..size.w * scale {
                let from = ((y / scale) * size.w + x / scale) * c;
                self.pixels[start + x * c..][..c].copy_from_slice(&tile[from..from + c]);
            }
        }
    }
}

/// Writes samples (H,W,C, on the 0–1 scale) to an 8-bit PNG file. Values are rounded and clipped;
/// NaN becomes black. One channel is gray and three are RGB. Of two channels the first is written,
/// of more than three the first three. The write is atomic ([`files::write_atomically`]).
///
/// # Errors
/// If the file cannot be written.
pub fn save_png(path: &Path, pixels: &[f32], dims: Dims) -> Result<()> {
    files::write_atomically(path, &png(pixels, dims).map_err(|error| error.at(path.display()))?)
}

/// The bytes of a PNG file of samples (H,W,C); see [`save_png`].
///
/// # Errors
/// If there are too many pixels for a PNG file.
pub fn png(pixels: &[f32], dims: Dims) -> Result<Vec<u8>> {
    assert!(pixels.len() == dims.len() && !pixels.is_empty(), "a picture of {dims:?}");
    let (shown, size) = (shown_channels(dims.c), dims.size());
    let byte = |v: &f32| (v.clamp(0.0, 1.0) * 255.0).round() as u8;
    let mut bytes = Vec::with_capacity(shown * size.area());
    pixels.chunks_exact(dims.c).for_each(|pixel| bytes.extend(pixel[..shown].iter().map(byte)));
    let color = if shown == 1 { ExtendedColorType::L8 } else { ExtendedColorType::Rgb8 };
    let mut png = Vec::new();
    let encoded =
        PngEncoder::new(&mut png).write_image(&bytes, size.w as u32, size.h as u32, color);
    encoded
        .map_err(|error| Error::failed(format!("cannot encode {size} pixels as PNG: {error}")))?;
    Ok(png)
}

/// Writes values of 0 to 1 to a gray 16-bit PNG file. Values are rounded and clipped; NaN becomes
/// black.
///
/// # Errors
/// If there are too many pixels for a PNG file, or the file cannot be written.
pub fn save_gray16(path: &Path, values: &[f32], size: Size) -> Result<()> {
    let words: Vec<u16> =
        values.iter().map(|value| (value.clamp(0.0, 1.0) * 65_535.0).round() as u16).collect();
    let mut png = Vec::new();
    // The encoder takes words in the byte order of the machine.
    let encoded = PngEncoder::new(&mut png).write_image(
        bytemuck::cast_slice(&words),
        size.w as u32,
        size.h as u32,
        ExtendedColorType::L16,
    );
    encoded.map_err(|error| {
        Error::failed(format!("{}: cannot encode {size} pixels: {error}", path.display()))
    })?;
    files::write_atomically(path, &png)
}

/// Number of channels of the picture of `c` channels.
fn shown_channels(c: usize) -> usize {
    if c >= 3 { 3 } else { 1 }
}

/// The first one or three channels, see [`shown_channels`].
fn visible(pixels: &[f32], c: usize) -> Vec<f32> {
    let shown = shown_channels(c);
    pixels.chunks_exact(c).flat_map(|p| p[..shown].iter().copied()).collect()
}

/// The whole factor by which tiles of width `w` are enlarged, so that `columns` of them nearly fill
/// [`MAX_WIDTH`].
fn scale(w: usize, columns: usize, gap: usize) -> usize {
    let available = MAX_WIDTH.saturating_sub((columns + 1) * gap);
    (available / (columns * w)).clamp(1, MAX_SCALE)
}

/// Arranges tiles (H,W,C each) row by row in `columns` columns, with gaps of `gap` pixels. Small
/// tiles are enlarged by a whole factor until the picture is up to 1000 pixels wide.
pub fn grid(tiles: &[Vec<f32>], dims: Dims, columns: usize, gap: usize) -> Picture {
    let columns = columns.clamp(1, tiles.len().max(1));
    let rows = tiles.len().div_ceil(columns).max(1);
    let scale = scale(dims.w, columns, gap);
    let step = dims.size().map(|side| side * scale + gap);
    let size = Size::new(gap + rows * step.h, gap + columns * step.w);
    let mut picture = Picture::blank(Dims::of(size, shown_channels(dims.c)));
    for (i, tile) in tiles.iter().enumerate() {
        picture.paint(
            &visible(tile, dims.c),
            dims.size(),
            scale,
            gap + (i / columns) * step.h,
            gap + (i % columns) * step.w,
        );
    }
    picture
}

/// Arranges originals and reconstructions (H,W,C each) in pairs of rows: `columns` originals, their
/// reconstructions below them, and the next pair after a larger gap.
///
/// # Panics
/// If the numbers of originals and reconstructions differ.
pub fn pairs(
    originals: &[Vec<f32>],
    reconstructions: &[Vec<f32>],
    dims: Dims,
    columns: usize,
) -> Picture {
    assert_eq!(originals.len(), reconstructions.len(), "a reconstruction for each original");
    let columns = columns.clamp(1, originals.len().max(1));
    let rows = originals.len().div_ceil(columns).max(1);
    let scale = scale(dims.w, columns, PAIR_GAP);
    let (tile_h, step_x) = (dims.h * scale, dims.w * scale + PAIR_GAP);
    let step_y = 2 * tile_h + PAIR_GAP + ROW_GAP;
    let size = Size::new(rows * step_y - ROW_GAP + 2 * PAIR_GAP, PAIR_GAP + columns * step_x);
    let mut picture = Picture::blank(Dims::of(size, shown_channels(dims.c)));
    for (i, (original, reconstruction)) in originals.iter().zip(reconstructions).enumerate() {
        let (top, left) = (PAIR_GAP + (i / columns) * step_y, PAIR_GAP + (i % columns) * step_x);
        let mut paint = |tile: &[f32], top: usize| {
            picture.paint(&visible(tile, dims.c), dims.size(), scale, top, left);
        };
        paint(original, top);
        paint(reconstruction, top + tile_h + PAIR_GAP);
    }
    picture
}

/// The number of columns for which a grid of `count` tiles of `size` has an aspect ratio of about
/// 3:2.
pub fn columns_for(count: usize, size: Size) -> usize {
    let columns = (1.5 * count as f64 * size.h as f64 / size.w as f64).sqrt().round() as usize;
    columns.clamp(1, count.max(1))
}

/// Maps values to gray: 0 becomes 0.5, the largest magnitude becomes 0 (negative) or 1 (positive).
/// If all values are 0, the result is 0.5. Values that are not finite count as 0.
pub fn centred(values: &[f32]) -> Vec<f32> {
    let finite = |v: f32| if v.is_finite() { v } else { 0.0 };
    let max = values.iter().fold(0.0f32, |max, &v| max.max(finite(v).abs()));
    // Not v / (2·max): twice the magnitude can overflow.
    let scaled = |v: f32| if max > 0.0 { 0.5 + 0.5 * (finite(v) / max) } else { 0.5 };
    values.iter().map(|&v| scaled(v)).collect()
}

/// Tiles of convolution weights [K, C, R, S], each filter scaled by [`centred`]. With three
/// channels a filter is one RGB tile, with one channel a gray tile. Otherwise a filter is up to
/// eight gray tiles (its first channels, on one scale), and no filter is divided between rows.
pub fn filters(weights: &[f32], k: usize, c: usize, r: usize, s: usize) -> TileGrid {
    assert_eq!(weights.len(), k * c * r * s, "weights of {k}x{c}x{r}x{s}");
    let area = r * s;
    let scaled = weights.chunks_exact((c * area).max(1)).map(centred);
    if c == 3 {
        let colour =
            |filter: Vec<f32>| (0..area * 3).map(|i| filter[(i % 3) * area + i / 3]).collect();
        return TileGrid {
            dims: Dims::new(3, r, s),
            columns: columns_for(k, Size::new(r, s)),
            tiles: scaled.map(colour).collect(),
        };
    }
    let shown = c.min(FILTER_CHANNELS);
    let tiles: Vec<Vec<f32>> = scaled
        .flat_map(|filter| {
            filter.chunks_exact(area).take(shown).map(<[f32]>::to_vec).collect::<Vec<_>>()
        })
        .collect();
    // A row has a whole number of filters, so that the channels of a filter stay side by side.
    let columns = shown * columns_for(k, Size::new(r, s * shown));
    TileGrid { dims: Dims::new(1, r, s), columns, tiles }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::formats::decode::decode_file;
    use crate::testing::Folder;

    #[test]
    fn moran_distinguishes_waves_from_noise() {
        let (h, w) = (8, 8);
        let tile = |f: &dyn Fn(usize, usize) -> f32| {
            (0..h * w).map(|at| f(at / w, at % w)).collect::<Vec<f32>>()
        };
        let wave = tile(&|y, _| (y as f32 / 4.0).sin());
        let board = tile(&|y, x| ((y + x) % 2) as f32);
        let noise =
            tile(&|y, x| crate::rng::word(y as u32, x as u32, 1, 2) as f32 / u32::MAX as f32);
        let constant = vec![0.3; h * w];
        let grid = TileGrid {
            dims: Dims::new(1, h, w),
            columns: 4,
            tiles: vec![wave, board, noise, constant],
        };
        let found: Vec<Option<f64>> = (0..5).map(|i| grid.moran(i)).collect();
        assert!(found[0].unwrap() > 0.8, "{found:?}");
        assert!((found[1].unwrap() + 1.0).abs() < 1e-9, "{found:?}");
        assert!(found[2].unwrap().abs() < 0.3, "{found:?}");
        assert_eq!((found[3], found[4]), (None, None));
    }

    #[test]
    fn moran_equals_a_hand_computation() {
        // 0 0 1 has the mean 1/3: products of pairs 1/9 − 2/9, variance 6/9, 3 pixels, 2 pairs.
        let row =
            TileGrid { dims: Dims::new(1, 1, 3), columns: 1, tiles: vec![vec![0.0, 0.0, 1.0]] };
        assert!((row.moran(0).unwrap() + 0.25).abs() < 1e-9);
    }

    #[test]
    fn saved_pictures_are_rounded_and_clipped() {
        let folder = Folder::new("png");
        let path = folder.path.join("a.png");
        for (c, expected) in [
            (1, vec![0, 255, 128, 0]),
            (3, vec![0, 255, 128, 0]),
            (2, vec![0, 255, 128, 0]),
            (5, vec![0, 255, 128, 0]),
        ] {
            // Values below, above and inside the scale, and NaN; the other channels differ.
            let first = [-0.5, 1.5, 0.5, f32::NAN];
            let pixels: Vec<f32> = first
                .iter()
                .flat_map(|&v| (0..c).map(move |i| if i == 0 { v } else { 0.2 }))
                .collect();
            save_png(&path, &pixels, Dims::new(c, 2, 2)).unwrap();
            let decoded = decode_file(&path).unwrap();
            assert_eq!(decoded.dims, Dims::new(if c < 3 { 1 } else { 3 }, 2, 2));
            assert_eq!(
                decoded.pixels.iter().step_by(decoded.dims.c).copied().collect::<Vec<u8>>(),
                expected
            );
        }
        assert_eq!(std::fs::read_dir(&folder.path).unwrap().count(), 1);
    }

    #[test]
    fn a_picture_that_cannot_be_saved_leaves_no_file() {
        let folder = Folder::new("png-failed");
        let save = |path: &Path| save_png(path, &[0.0], Dims::flat(1));
        let message = save(&folder.path.join("none/a.png")).unwrap_err().to_string();
        assert!(message.contains("a.png could not be written"), "{message}");
        // A folder has the name.
        std::fs::create_dir(folder.path.join("taken.png")).unwrap();
        assert!(save(&folder.path.join("taken.png")).is_err());
        assert_eq!(std::fs::read_dir(&folder.path).unwrap().count(), 1);
        assert!(save(Path::new("/")).is_err());
    }

    #[test]
    fn tiles_are_enlarged_and_in_order() {
        let tiles: Vec<Vec<f32>> = (0..5).map(|i| vec![i as f32 / 10.0; 64]).collect();
        let picture = grid(&tiles, Dims::new(1, 8, 8), 3, 4);
        let Size { h, w } = picture.dims.size();
        assert!((600..=1000).contains(&w), "{w}");
        assert_eq!((w - 4) % 3, 0);
        let step = (w - 4) / 3;
        assert_eq!(h, 4 + 2 * step);
        let at = |y: usize, x: usize| picture.pixels[y * w + x];
        for (i, tile) in tiles.iter().enumerate() {
            let (top, left) = (4 + i / 3 * step, 4 + i % 3 * step);
            assert_eq!((at(top, left), at(top + step - 5, left + step - 5)), (tile[0], tile[0]));
            assert_eq!((at(top - 1, left), at(top, left - 1)), (BACKGROUND, BACKGROUND));
        }
        assert_eq!(at(4 + step, 4 + 2 * step), BACKGROUND);
    }

    #[test]
    fn enlargement_is_limited() {
        let (large, small) = (vec![vec![0.0; 300 * 700 * 3]], vec![vec![0.0]]);
        assert_eq!(grid(&large, Dims::new(3, 300, 700), 9, 1).dims.w, 702);
        assert_eq!(grid(&small, Dims::flat(1), 1, 0).dims.w, MAX_SCALE);
        assert_eq!(grid(&[], Dims::new(1, 8, 8), 4, 1).dims.c, 1);
        for side in [28, 32, 64, 96, 128] {
            let dims = Dims::new(1, side, side);
            let w = grid(&vec![vec![0.0; dims.len()]; 16], dims, 8, 2).dims.w;
            assert!((500..=1042).contains(&w), "{side}: {w}");
        }
    }

    #[test]
    fn small_pictures_are_enlarged() {
        let small = Picture { dims: Dims::new(1, 1, 2), pixels: vec![0.1, 0.2] };
        let large = small.clone().enlarged(5);
        assert_eq!(
            (large.dims, &large.pixels[2..]),
            (Dims::new(1, 2, 4), &[0.2, 0.2, 0.1, 0.1, 0.2, 0.2][..])
        );
        assert_eq!(small.clone().enlarged(3), small);
    }

    #[test]
    fn reconstructions_are_below_their_originals() {
        let originals = vec![vec![0.1; 4], vec![0.2; 4], vec![0.3; 4]];
        let reconstructions = vec![vec![0.4; 4], vec![0.5; 4], vec![0.6; 4]];
        let Picture { dims, pixels } = pairs(&originals, &reconstructions, Dims::new(1, 2, 2), 2);
        let mut column: Vec<f32> = (0..dims.h).map(|y| pixels[y * dims.w + PAIR_GAP]).collect();
        let gaps: Vec<usize> =
            column.split(|&v| v != BACKGROUND).map(<[f32]>::len).filter(|&n| n > 0).collect();
        assert_eq!(gaps, [PAIR_GAP, PAIR_GAP, ROW_GAP, PAIR_GAP, PAIR_GAP]);
        column.dedup();
        assert_eq!(
            column,
            [BACKGROUND, 0.1, BACKGROUND, 0.4, BACKGROUND, 0.3, BACKGROUND, 0.6, BACKGROUND]
        );
    }

    #[test]
    fn zero_becomes_middle_gray() {
        assert_eq!(centred(&[-2.0, 0.0, 1.0, f32::NAN, f32::INFINITY]), [0.0, 0.5, 0.75, 0.5, 0.5]);
        assert_eq!(centred(&[0.0; 3]), [0.5; 3]);
        assert_eq!(centred(&[f32::MAX, -f32::MAX]), [1.0, 0.0]);
    }

    #[test]
    fn filters_of_three_channels_are_in_colour() {
        // [2, 3, 1, 2]
        let weights: Vec<f32> = vec![1.0, 2.0, 3.0, 4.0, 0.0, -4.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.5];
        let colour = filters(&weights, 2, 3, 1, 2);
        assert_eq!((colour.tiles.len(), colour.dims.c), (2, 3));
        assert_eq!(colour.tiles[0], [0.625, 0.875, 0.5, 0.75, 1.0, 0.0]);
        assert_eq!(colour.tiles[1], [0.5, 0.5, 0.5, 0.5, 0.5, 1.0]);
    }

    #[test]
    fn other_filters_are_gray_tiles_side_by_side() {
        let weights = [0.5; 12];
        let gray = filters(&weights, 12, 1, 1, 1);
        assert_eq!((gray.tiles.len(), gray.dims.c), (12, 1));
        let two = filters(&weights, 3, 2, 1, 2);
        assert_eq!((two.tiles.len(), two.columns % 2), (6, 0));
        let many = filters(&vec![1.0; 4 * 20 * 9], 4, 20, 3, 3);
        assert_eq!((many.tiles.len(), many.columns % 8), (32, 0));
        assert!(many.picture().dims.w > 500);
    }
}
