//! A colour bar: the colours of values, with ticks.

use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::chart::{DRAWN, INK, TEXT, fine, number, page, text, ticks};
use super::picture::{BACKGROUND, Picture};
use super::rendering::Mapping;
use crate::shape::{Dims, Size};

/// Width in pixels of the colours.
const WIDTH: usize = 16;
/// Gap in pixels between the picture and the colours.
const GAP: usize = 12;
/// Width in pixels of the values: up to nine characters.
const VALUES: usize = 84;
/// Minimum height in pixels of a picture with a colour bar.
const MIN_HEIGHT: usize = 120;
/// Maximum height in pixels of the colours. A longer bar is harder to compare with.
const MAX_HEIGHT: usize = 400;
/// Margin in pixels above and below the colours, for half a value.
const MARGIN: usize = 10;

/// Adds a colour bar at the right of a picture of three channels or of gray.
pub(super) fn with_bar(picture: Picture, mapping: &Mapping) -> Picture {
    let (map, ends) = mapping.bar();
    let Dims { c, h, w } = picture.dims;
    let height = h.max(MIN_HEIGHT);
    let size = Size::new(height, GAP + WIDTH + VALUES);
    let length = (height - 2 * MARGIN).min(MAX_HEIGHT);
    let [low, high] = ends.map(f64::from);
    let (low, high) = if high > low { (low, high) } else { (low - 0.5, low + 0.5) };
    let marks = ticks(low, high, (length / 30).clamp(3, 8));
    let apart = marks.windows(2).next().map_or(high - low, |pair| pair[1] - pair[0]);
    let row = |value: f64| MARGIN as f64 + (1.0 - (value - low) / (high - low)) * length as f64;
    let mut bar = page(size, |area| {
        let style = text(TEXT - 1, INK).pos(Pos::new(HPos::Left, VPos::Center));
        for value in &marks {
            let at = (fine(GAP + WIDTH + 8), (row(*value) * f64::from(fine(1))) as i32);
            area.draw_text(&number(*value, apart), &style, at).expect(DRAWN);
        }
    });
    bar.pixels.iter_mut().for_each(|value| *value *= BACKGROUND);
    let at = |y: usize, x: usize| (y * size.w + x) * 3;
    for y in 0..length {
        let colour = map.colour(1.0 - y as f32 / (length - 1).max(1) as f32);
        for x in GAP..GAP + WIDTH {
            bar.pixels[at(MARGIN + y, x)..][..3].copy_from_slice(&colour);
        }
    }
    for value in &marks {
        let y = (row(*value).round() as usize).min(MARGIN + length - 1);
        for x in GAP + WIDTH..GAP + WIDTH + 4 {
            bar.pixels[at(y, x)..][..3].fill(0.2);
        }
    }
    let mut whole = Picture::blank(Dims::new(3, height, w + size.w));
    let pixels: Vec<f32> = if c == 3 {
        picture.pixels
    } else {
        picture.pixels.iter().flat_map(|value| [*value; 3]).collect()
    };
    whole.paint(&pixels, Size::new(h, w), 1, 0, 0);
    whole.paint(&bar.pixels, size, 1, 0, w);
    whole
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Normalization;
    use crate::report::rendering::{Rendering, Source};
    use crate::sample_type::SampleType;

    fn shown(max: f32) -> Picture {
        let normalization = Normalization {
            samples: "32-bit float".to_owned(),
            offset: vec![0.0],
            divisor: vec![1.0],
            min: vec![0.0],
            max: vec![max],
        };
        let normalization = Some(&normalization);
        let dims = Dims::new(1, 200, 300);
        let source = Source { dims, sample: SampleType::F32, normalization };
        let rendering = Rendering::fit(&source, &[], []);
        let tile = rendering.tile(&vec![0.0; 200 * 300]);
        rendering.titled(Picture { dims: Dims::new(3, 200, 300), pixels: tile }, "A title")
    }

    #[test]
    fn the_bar_is_at_the_right_and_has_the_values_of_the_data() {
        let picture = shown(10.0);
        let Dims { h, w, .. } = picture.dims;
        assert_eq!(w, 300 + GAP + WIDTH + VALUES);
        let top = h - 200;
        let at = |y: usize, x: usize| &picture.pixels[((top + y) * w + x) * 3..][..3];
        use crate::report::colour_map::ColourMap;
        assert_eq!(at(0, 0), ColourMap::Viridis.colour(0.0));
        assert_eq!(at(MARGIN, 300 + GAP), ColourMap::Viridis.colour(1.0));
        assert_eq!(at(199 - MARGIN, 300 + GAP), ColourMap::Viridis.colour(0.0));
        // Other values of the data have other ticks.
        assert_ne!(picture, shown(7.0));
        assert_eq!(picture, shown(10.0));
    }
}
