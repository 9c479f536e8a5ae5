//! Pictures for people: PNG files, tiles side by side, filters and atoms made visible.

use std::path::Path;

use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};

use crate::error::{Error, Result};
use crate::files;

/// The width that small tiles are enlarged towards, never past.
const MAX_WIDTH: usize = 1000;
/// The largest enlargement: a 1×1 filter need not fill the page.
const MAX_SCALE: usize = 32;
/// What lies between tiles.
const BACKGROUND: f32 = 0.92;
/// Gap between the two rows of a pair and between columns, in pixels of the picture.
const PAIR_GAP: usize = 2;
/// Gap between one pair of rows and the next.
const ROW_GAP: usize = 12;
/// Channels shown of a filter that is neither gray nor colour.
const FILTER_CHANNELS: usize = 8;

/// A picture of gray (1) or RGB (3) samples on the 0–1 scale, H,W,C.
#[derive(Clone, Debug, PartialEq)]
pub struct Picture {
    /// Height in pixels.
    pub h: usize,
    /// Width in pixels.
    pub w: usize,
    /// Channels.
    pub c: usize,
    /// The samples.
    pub pixels: Vec<f32>,
}

/// Tiles of one size, H,W,C, with the number of columns that suits them.
#[derive(Clone, Debug, PartialEq)]
pub struct Tiles {
    /// Height of a tile.
    pub h: usize,
    /// Width of a tile.
    pub w: usize,
    /// Channels of a tile.
    pub c: usize,
    /// Columns for [`grid`].
    pub columns: usize,
    /// The tiles.
    pub tiles: Vec<Vec<f32>>,
}

impl Tiles {
    /// The tiles in a grid, a few pixels apart.
    pub fn picture(&self) -> Picture {
        grid(&self.tiles, self.h, self.w, self.c, self.columns, 4)
    }

    /// Moran's I of a tile: how alike neighbouring pixels are, those that share an edge (Moran,
    /// "Notes on continuous stochastic phenomena", 1950). Near 1 where they are the same, 0 in
    /// noise, negative where they alternate; summed over channels, and none for a tile that is
    /// flat.
    pub fn moran(&self, tile: usize) -> Option<f64> {
        let (h, w, c, pixels) = (self.h, self.w, self.c, self.tiles.get(tile)?);
        let (mut among, mut variance) = (0.0, 0.0);
        for channel in 0..c {
            let of = |at: usize| f64::from(pixels[at * c + channel]);
            let mean = (0..h * w).map(of).sum::<f64>() / (h * w) as f64;
            let apart = |at: usize| of(at) - mean;
            variance += (0..h * w).map(|at| apart(at) * apart(at)).sum::<f64>();
            among += (0..h * w)
                .filter(|at| at % w + 1 < w)
                .map(|at| apart(at) * apart(at + 1))
                .sum::<f64>();
            among += (0..h * w - w).map(|at| apart(at) * apart(at + w)).sum::<f64>();
        }
        let pairs = h * (w - 1) + (h - 1) * w;
        // what rounding leaves of a flat tile is no variance
        (pairs > 0 && variance > 1e-9).then(|| among / variance * (h * w) as f64 / pairs as f64)
    }
}

impl Picture {
    /// Writes the picture as a PNG file; see [`save_png`].
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        save_png(path, &self.pixels, self.h, self.w, self.c)
    }

    fn blank(h: usize, w: usize, c: usize) -> Self {
        Self { h, w, c, pixels: vec![BACKGROUND; h * w * c] }
    }

    /// Paints a tile, each of its pixels as a square of `scale`.
    pub(crate) fn paint(
        &mut self,
        tile: &[f32],
        (h, w): (usize, usize),
        scale: usize,
        top: usize,
        left: usize,
    ) {
        for y in 0..h * scale {
            let start = ((top + y) * self.w + left) * self.c;
            for x in 0..w * scale {
                let from = ((y / scale) * w + x / scale) * self.c;
                self.pixels[start + x * self.c..][..self.c]
                    .copy_from_slice(&tile[from..from + self.c]);
            }
        }
    }
}

/// Writes H,W,C samples as an 8-bit PNG: 0–1 to 0–255, rounded, what lies outside is clipped and
/// NaN is black. One channel is gray, three are RGB; of two the first is shown, of more than three
/// the first three. The file is written beside under a temporary name and then renamed.
///
/// # Errors
/// When the file cannot be written; nothing is left behind then.
pub fn save_png(path: &Path, pixels: &[f32], h: usize, w: usize, c: usize) -> Result<()> {
    files::write_atomically(path, &png(pixels, h, w, c).map_err(|error| error.at(path.display()))?)
}

/// The bytes of a PNG file of H,W,C samples; see [`save_png`].
///
/// # Errors
/// When there are too many pixels for one.
pub fn png(pixels: &[f32], h: usize, w: usize, c: usize) -> Result<Vec<u8>> {
    assert!(pixels.len() == h * w * c && !pixels.is_empty(), "a picture of {h}x{w}x{c}");
    let shown = visible(pixels, c);
    let bytes: Vec<u8> = shown.iter().map(|&v| (v.clamp(0.0, 1.0) * 255.0).round() as u8).collect();
    let color =
        if shown_channels(c) == 1 { ExtendedColorType::L8 } else { ExtendedColorType::Rgb8 };
    let mut png = Vec::new();
    let encoded = PngEncoder::new(&mut png).write_image(&bytes, w as u32, h as u32, color);
    encoded
        .map_err(|error| Error::failed(format!("no PNG can be made of {w}x{h} pixels: {error}")))?;
    Ok(png)
}

fn shown_channels(c: usize) -> usize {
    if c >= 3 { 3 } else { 1 }
}

/// The channels that can be shown.
fn visible(pixels: &[f32], c: usize) -> Vec<f32> {
    let shown = shown_channels(c);
    pixels.chunks_exact(c).flat_map(|p| p[..shown].iter().copied()).collect()
}

/// How much tiles are enlarged so that `columns` of them nearly fill the width.
fn scale(w: usize, columns: usize, gap: usize) -> usize {
    let room = MAX_WIDTH.saturating_sub((columns + 1) * gap);
    (room / (columns * w)).clamp(1, MAX_SCALE)
}

/// Tiles (H,W,C each) row by row in `columns` columns, `gap` pixels of light background around
/// them. Small tiles are enlarged by a whole factor, so that the picture is up to 1000 pixels wide.
pub fn grid(
    tiles: &[Vec<f32>],
    h: usize,
    w: usize,
    c: usize,
    columns: usize,
    gap: usize,
) -> Picture {
    let columns = columns.clamp(1, tiles.len().max(1));
    let rows = tiles.len().div_ceil(columns).max(1);
    let scale = scale(w, columns, gap);
    let (step_y, step_x) = (h * scale + gap, w * scale + gap);
    let mut picture =
        Picture::blank(gap + rows * step_y, gap + columns * step_x, shown_channels(c));
    for (i, tile) in tiles.iter().enumerate() {
        picture.paint(
            &visible(tile, c),
            (h, w),
            scale,
            gap + (i / columns) * step_y,
            gap + (i % columns) * step_x,
        );
    }
    picture
}

/// Originals in a row, their reconstructions right below, then the next originals after a larger
/// gap.
pub fn pairs(
    originals: &[Vec<f32>],
    reconstructions: &[Vec<f32>],
    h: usize,
    w: usize,
    c: usize,
    columns: usize,
) -> Picture {
    assert_eq!(originals.len(), reconstructions.len(), "a reconstruction for each original");
    let columns = columns.clamp(1, originals.len().max(1));
    let rows = originals.len().div_ceil(columns).max(1);
    let scale = scale(w, columns, PAIR_GAP);
    let (tile_h, step_x) = (h * scale, w * scale + PAIR_GAP);
    let step_y = 2 * tile_h + PAIR_GAP + ROW_GAP;
    let height = rows * step_y - ROW_GAP + 2 * PAIR_GAP;
    let mut picture = Picture::blank(height, PAIR_GAP + columns * step_x, shown_channels(c));
    for (i, (original, reconstruction)) in originals.iter().zip(reconstructions).enumerate() {
        let (top, left) = (PAIR_GAP + (i / columns) * step_y, PAIR_GAP + (i % columns) * step_x);
        picture.paint(&visible(original, c), (h, w), scale, top, left);
        picture.paint(&visible(reconstruction, c), (h, w), scale, top + tile_h + PAIR_GAP, left);
    }
    picture
}

/// The columns of a grid of `count` tiles that is about half as wide again as it is high.
pub fn columns_for(count: usize, h: usize, w: usize) -> usize {
    let columns = (1.5 * count as f64 * h as f64 / w as f64).sqrt().round() as usize;
    columns.clamp(1, count.max(1))
}

/// Scales values around zero: 0 becomes middle gray, the value of largest magnitude black or white.
/// All zeros are middle gray throughout; what is not finite counts as zero.
pub fn centred(values: &[f32]) -> Vec<f32> {
    let finite = |v: f32| if v.is_finite() { v } else { 0.0 };
    let most = values.iter().fold(0.0f32, |most, &v| most.max(finite(v).abs()));
    // twice the magnitude may overflow where half of it may not
    let scaled = |v: f32| if most > 0.0 { 0.5 + 0.5 * (finite(v) / most) } else { 0.5 };
    values.iter().map(|&v| scaled(v)).collect()
}

/// Tiles of convolution weights [K, C, R, S], each filter centred by itself. Three channels make
/// one colour tile a filter; one channel a gray tile; any other number up to eight gray tiles a
/// filter (its first channels, on one scale), each filter beginning a row.
pub fn filters(weights: &[f32], k: usize, c: usize, r: usize, s: usize) -> Tiles {
    assert_eq!(weights.len(), k * c * r * s, "weights of {k}x{c}x{r}x{s}");
    let area = r * s;
    let scaled = weights.chunks_exact((c * area).max(1)).map(centred);
    if c == 3 {
        let colour =
            |filter: Vec<f32>| (0..area * 3).map(|i| filter[(i % 3) * area + i / 3]).collect();
        return Tiles {
            h: r,
            w: s,
            c: 3,
            columns: columns_for(k, r, s),
            tiles: scaled.map(colour).collect(),
        };
    }
    let shown = c.min(FILTER_CHANNELS);
    let tiles: Vec<Vec<f32>> = scaled
        .flat_map(|filter| {
            filter.chunks_exact(area).take(shown).map(<[f32]>::to_vec).collect::<Vec<_>>()
        })
        .collect();
    // whole filters in a row, so that a filter's channels stay side by side
    let columns = if c == 1 { columns_for(k, r, s) } else { shown * columns_for(k, r, s * shown) };
    Tiles { h: r, w: s, c: 1, columns, tiles }
}

/// Tiles of decoder atoms (what one code unit adds to the image, H,W,C), each centred by itself.
pub fn atoms(atoms: &[Vec<f32>], h: usize, w: usize, c: usize) -> Tiles {
    let tiles = atoms.iter().map(|atom| centred(&visible(atom, c))).collect();
    Tiles { h, w, c: shown_channels(c), columns: columns_for(atoms.len(), h, w), tiles }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::formats::decode::decode_file;
    use crate::testing::Folder;

    #[test]
    fn neighbours_are_alike_in_waves_and_not_in_noise() {
        let (h, w) = (8, 8);
        let tile = |of: &dyn Fn(usize, usize) -> f32| {
            (0..h * w).map(|at| of(at / w, at % w)).collect::<Vec<f32>>()
        };
        let wave = tile(&|y, _| (y as f32 / 4.0).sin());
        let board = tile(&|y, x| ((y + x) % 2) as f32);
        let noise =
            tile(&|y, x| crate::rng::word(y as u32, x as u32, 1, 2) as f32 / u32::MAX as f32);
        let tiles =
            Tiles { h, w, c: 1, columns: 4, tiles: vec![wave, board, noise, vec![0.3; h * w]] };
        let found: Vec<Option<f64>> = (0..5).map(|i| tiles.moran(i)).collect();
        assert!(found[0].unwrap() > 0.8, "{found:?}");
        assert!((found[1].unwrap() + 1.0).abs() < 1e-9, "{found:?}");
        assert!(found[2].unwrap().abs() < 0.3, "{found:?}");
        assert_eq!((found[3], found[4]), (None, None));
        // by hand: 0 0 1, mean 1/3: pairs 1/9 - 2/9, variance 6/9, three pixels to two pairs
        let row = Tiles { h: 1, w: 3, c: 1, columns: 1, tiles: vec![vec![0.0, 0.0, 1.0]] };
        assert!((row.moran(0).unwrap() + 0.25).abs() < 1e-9);
    }

    #[test]
    fn png_files_round_trip_and_replace_whole() {
        let folder = Folder::new("png");
        let path = folder.path.join("a.png");
        for (c, expected) in [
            (1, vec![0, 255, 128, 0]),
            (3, vec![0, 255, 128, 0]),
            (2, vec![0, 255, 128, 0]),
            (5, vec![0, 255, 128, 0]),
        ] {
            // values below, above and inside the scale, and NaN; the other channels differ
            let first = [-0.5, 1.5, 0.5, f32::NAN];
            let pixels: Vec<f32> = first
                .iter()
                .flat_map(|&v| (0..c).map(move |i| if i == 0 { v } else { 0.2 }))
                .collect();
            save_png(&path, &pixels, 2, 2, c).unwrap();
            let decoded = decode_file(&path).unwrap();
            assert_eq!((decoded.h, decoded.w, decoded.channels), (2, 2, if c < 3 { 1 } else { 3 }));
            assert_eq!(
                decoded.pixels.iter().step_by(decoded.channels).copied().collect::<Vec<u8>>(),
                expected
            );
        }
        assert_eq!(std::fs::read_dir(&folder.path).unwrap().count(), 1);
        let message =
            save_png(&folder.path.join("none/a.png"), &[0.0], 1, 1, 1).unwrap_err().to_string();
        assert!(message.contains("a.png could not be written"), "{message}");
        // a name that is taken by a folder: the temporary file goes away
        std::fs::create_dir(folder.path.join("taken.png")).unwrap();
        assert!(save_png(&folder.path.join("taken.png"), &[0.0], 1, 1, 1).is_err());
        assert_eq!(std::fs::read_dir(&folder.path).unwrap().count(), 2);
        assert!(save_png(Path::new("/"), &[0.0], 1, 1, 1).is_err());
    }

    #[test]
    fn grids_are_visible_and_in_order() {
        let tiles: Vec<Vec<f32>> = (0..5).map(|i| vec![i as f32 / 10.0; 64]).collect();
        let picture = grid(&tiles, 8, 8, 1, 3, 4);
        assert!((600..=1000).contains(&picture.w), "{}", picture.w);
        assert_eq!((picture.w - 4) % 3, 0);
        let step = (picture.w - 4) / 3;
        assert_eq!(picture.h, 4 + 2 * step);
        let at = |y: usize, x: usize| picture.pixels[y * picture.w + x];
        for (i, tile) in tiles.iter().enumerate() {
            let (top, left) = (4 + i / 3 * step, 4 + i % 3 * step);
            assert_eq!((at(top, left), at(top + step - 5, left + step - 5)), (tile[0], tile[0]));
            assert_eq!((at(top - 1, left), at(top, left - 1)), (BACKGROUND, BACKGROUND));
        }
        assert_eq!(at(4 + step, 4 + 2 * step), BACKGROUND);
        let (large, small) = (vec![vec![0.0; 300 * 700 * 3]], vec![vec![0.0]]);
        assert_eq!(grid(&large, 300, 700, 3, 9, 1).w, 702);
        assert_eq!(grid(&small, 1, 1, 1, 1, 0).w, MAX_SCALE);
        assert_eq!(grid(&[], 8, 8, 1, 4, 1).c, 1);
        for w in [28, 32, 64, 96, 128] {
            let picture = grid(&vec![vec![0.0; w * w]; 16], w, w, 1, 8, 2);
            assert!((500..=1042).contains(&picture.w), "{w}: {}", picture.w);
        }
    }

    #[test]
    fn pairs_stand_one_above_the_other() {
        let originals = vec![vec![0.1; 4], vec![0.2; 4], vec![0.3; 4]];
        let reconstructions = vec![vec![0.4; 4], vec![0.5; 4], vec![0.6; 4]];
        let picture = pairs(&originals, &reconstructions, 2, 2, 1, 2);
        let mut column: Vec<f32> =
            (0..picture.h).map(|y| picture.pixels[y * picture.w + PAIR_GAP]).collect();
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
    fn filters_are_centred_and_arranged() {
        assert_eq!(centred(&[-2.0, 0.0, 1.0, f32::NAN, f32::INFINITY]), [0.0, 0.5, 0.75, 0.5, 0.5]);
        assert_eq!(centred(&[0.0; 3]), [0.5; 3]);
        assert_eq!(centred(&[f32::MAX, -f32::MAX]), [1.0, 0.0]);
        // [2, 3, 1, 2]: colour, channels last
        let weights: Vec<f32> = vec![1.0, 2.0, 3.0, 4.0, 0.0, -4.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.5];
        let colour = filters(&weights, 2, 3, 1, 2);
        assert_eq!((colour.tiles.len(), colour.c), (2, 3));
        assert_eq!(colour.tiles[0], [0.625, 0.875, 0.5, 0.75, 1.0, 0.0]);
        assert_eq!(colour.tiles[1], [0.5, 0.5, 0.5, 0.5, 0.5, 1.0]);
        let gray = filters(&weights, 12, 1, 1, 1);
        assert_eq!((gray.tiles.len(), gray.c), (12, 1));
        let two = filters(&weights, 3, 2, 1, 2);
        assert_eq!((two.tiles.len(), two.columns % 2), (6, 0));
        let many = filters(&vec![1.0; 4 * 20 * 9], 4, 20, 3, 3);
        assert_eq!((many.tiles.len(), many.columns % 8), (32, 0));
        assert!(many.picture().w > 500);
        let atoms = atoms(&[vec![1.0, 9.0, -2.0, 9.0]], 2, 1, 2);
        assert_eq!((atoms.c, atoms.tiles[0].clone()), (1, vec![0.75, 0.0]));
    }
}
