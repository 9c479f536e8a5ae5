//! Pictures in pages: one picture, or a sheet that combines many small tiles (a CSS sprite sheet).

use super::{data_uri, escaped};
use crate::error::Result;
use crate::report::picture;
use crate::report::picture::Picture;
use crate::shape::{Dims, Size};

/// Number of tiles in a row of a sheet. More columns make the picture wider, fewer make it taller;
/// browsers limit both sides.
const COLUMNS: usize = 48;

/// A CSS sprite sheet: one picture that contains many tiles of one size.
#[derive(Clone, Debug)]
pub struct Sheet {
    /// The CSS class of its tiles.
    pub class: &'static str,
    /// Size of a tile.
    size: Size,
    /// CSS pixels per pixel of a tile.
    scale: f64,
    css: String,
}

impl Sheet {
    /// Creates a sheet of tiles (H,W,C with C 1 or 3, on the 0–1 scale). The longer side of a tile
    /// is shown `side` CSS pixels long. Returns `None` if there are no tiles.
    ///
    /// # Errors
    /// If the picture has too many pixels for a PNG file.
    pub fn new(
        class: &'static str,
        tiles: &[Vec<f32>],
        dims: Dims,
        side: f64,
    ) -> Result<Option<Self>> {
        if tiles.is_empty() {
            return Ok(None);
        }
        let (columns, rows) = (COLUMNS.min(tiles.len()), tiles.len().div_ceil(COLUMNS));
        let Dims { c, h, w } = dims;
        let sheet = Dims::new(c, rows * h, columns * w);
        let mut pixels = vec![0.0; sheet.len()];
        for (i, tile) in tiles.iter().enumerate() {
            let (top, left) = (i / COLUMNS * h, i % COLUMNS * w);
            for (y, row) in tile.chunks_exact(w * c).enumerate() {
                pixels[sheet.offset(0, top + y, left)..][..w * c].copy_from_slice(row);
            }
        }
        let scale = side / h.max(w) as f64;
        let css_length = |pixels: usize| format!("{:.2}px", pixels as f64 * scale);
        let css = format!(
            ".{class}{{width:{};height:{};background-size:{} {};background-image:url({})}}\n",
            css_length(w),
            css_length(h),
            css_length(sheet.w),
            css_length(sheet.h),
            data_uri(&picture::png(&pixels, sheet)?)
        );
        Ok(Some(Self { class, size: dims.size(), scale, css }))
    }

    /// The CSS of its tiles, with the picture.
    pub(super) fn css(&self) -> &str {
        &self.css
    }

    /// The HTML element that shows tile `index`. `title` is its tooltip; it can be empty.
    pub fn tile(&self, index: usize, title: &str) -> String {
        let offset = |place: usize, side: usize| -((place * side) as f64 * self.scale);
        let (x, y) = (offset(index % COLUMNS, self.size.w), offset(index / COLUMNS, self.size.h));
        let title =
            if title.is_empty() { String::new() } else { format!(" title=\"{}\"", escaped(title)) };
        format!(
            "<div class=\"sheet {}\" style=\"background-position:{x:.2}px {y:.2}px\"{title}></div>",
            self.class
        )
    }
}

/// The HTML element that shows a picture. `alt` is its alternative text, `title` its tooltip.
///
/// # Errors
/// If the picture has too many pixels for a PNG file.
pub fn image(picture: &Picture, alt: &str, title: &str) -> Result<String> {
    let png = picture::png(&picture.pixels, picture.dims)?;
    Ok(format!(
        "<img src=\"{}\" width=\"{}\" height=\"{}\" alt=\"{}\" title=\"{}\">\n",
        data_uri(&png),
        picture.dims.w,
        picture.dims.h,
        escaped(alt),
        escaped(title)
    ))
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    #[test]
    fn tiles_are_at_their_positions_in_the_sheet() {
        let tiles: Vec<Vec<f32>> = (0..60).map(|i| vec![i as f32 / 255.0; 6]).collect();
        let sheet = Sheet::new("a", &tiles, Dims::new(1, 2, 3), 6.0).unwrap().unwrap();
        let (_, encoded) = sheet.css.split_once("base64,").unwrap();
        let png = STANDARD.decode(encoded.split_once(')').unwrap().0).unwrap();
        let decoded = crate::data::formats::decode::decode(&png).unwrap();
        assert_eq!(decoded.dims.size(), Size::new(4, 144));
        assert!(
            sheet.css.contains("width:6.00px;height:4.00px;background-size:288.00px 8.00px"),
            "{}",
            &sheet.css[..90]
        );
        for index in [0, 5, 47, 48, 59] {
            let tile = sheet.tile(index, "");
            let place =
                tile.split_once("background-position:").unwrap().1.split_once('"').unwrap().0;
            let [x, y] = [0, 1].map(|i| {
                (-place.split(' ').nth(i).unwrap().trim_end_matches("px").parse::<f64>().unwrap()
                    / 2.0)
                    .round() as usize
            });
            assert_eq!(usize::from(decoded.pixels[y * 144 + x]), index);
        }
    }

    #[test]
    fn there_is_no_sheet_without_tiles() {
        assert!(Sheet::new("a", &[], Dims::new(1, 2, 3), 6.0).unwrap().is_none());
    }
}
