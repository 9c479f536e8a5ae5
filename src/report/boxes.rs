//! Pictures with labelled boxes.

use super::chart::{DRAWN, INK, TEXT, fine, page, text};
use super::picture::Picture;
use crate::shape::{Dims, Size};

/// Small images are enlarged by a whole factor until their shorter side has at least this many
/// pixels, so that labels cover little of them.
const MIN_SIDE: usize = 320;
/// Maximum enlargement.
const MAX_SCALE: usize = 8;
/// Shorter side of a picture, in pixels, for each unit of the size of labels: pictures are looked
/// at in windows of about this size.
const WINDOW: usize = 800;
/// Height of a label in pixels, and the distance of its text from its edges.
const HEIGHT: usize = 18;
const MARGIN: usize = 4;

/// A box with its label.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelledBox {
    /// Left, top, right and bottom in pixels of the image.
    pub edges: [f64; 4],
    /// Colour of the frame and of the label's background, RGB on the 0–1 scale.
    pub colour: [f32; 3],
    /// Text of the label.
    pub label: String,
}

/// Draws boxes on a picture (3 channels), the last one on top. Each has its label above it, or
/// below or inside where there is no room. Small pictures are enlarged first.
pub fn with_boxes(picture: &Picture, boxes: &[LabelledBox]) -> Picture {
    let side = picture.dims.h.min(picture.dims.w).max(1);
    let scale = MIN_SIDE.div_ceil(side).clamp(1, MAX_SCALE);
    let mut out = enlarged(picture, scale);
    let size = (scale * side / WINDOW).max(1);
    let thick = (scale * side / 200).max(1);
    let Dims { h, w, .. } = out.dims;
    let placed: Vec<[usize; 4]> = boxes
        .iter()
        .map(|one| {
            let [left, top, right, bottom] =
                one.edges.map(|edge| (edge.max(0.0) * scale as f64).round() as usize);
            [left.min(w), top.min(h), right.min(w), bottom.min(h)]
        })
        .collect();
    for (one, [left, top, right, bottom]) in boxes.iter().zip(&placed) {
        for y in *top..*bottom {
            for x in *left..*right {
                let edge = (y - top).min(bottom - 1 - y).min(x - left).min(right - 1 - x);
                if edge < thick {
                    out.pixels[(y * w + x) * 3..][..3].copy_from_slice(&one.colour);
                }
            }
        }
    }
    // Labels after all frames, which would cross them.
    for (one, [left, top, _, bottom]) in boxes.iter().zip(placed) {
        let label = enlarged(&label(&one.label, one.colour), size);
        let top = match (top.checked_sub(label.dims.h), bottom + label.dims.h <= h) {
            (Some(above), _) => above,
            (None, true) => bottom,
            (None, false) => top,
        };
        paint(&mut out, &label, top, left.min(w.saturating_sub(label.dims.w)));
    }
    out
}

/// A picture whose pixels are squares of `scale` by `scale` pixels.
fn enlarged(picture: &Picture, scale: usize) -> Picture {
    let Dims { c, h, w } = picture.dims;
    let dims = Dims::new(c, h * scale, w * scale);
    let mut pixels = Vec::with_capacity(dims.len());
    for y in 0..dims.h {
        for x in 0..dims.w {
            let at = (y / scale * w + x / scale) * c;
            pixels.extend_from_slice(&picture.pixels[at..at + c]);
        }
    }
    Picture { dims, pixels }
}

/// A text on a background, in black or white, whichever contrasts more.
fn label(words: &str, background: [f32; 3]) -> Picture {
    let style = text(TEXT, INK);
    let width = style.font.box_size(words).map_or(0, |size| size.0 as usize);
    let size = Size::new(HEIGHT, width.div_ceil(fine(1) as usize) + 2 * MARGIN);
    let mut drawn = page(size, |area| {
        area.draw_text(words, &style, (fine(MARGIN), fine(4))).expect(DRAWN);
    });
    let [r, g, b] = background;
    let ink = if 0.299 * r + 0.587 * g + 0.114 * b > 0.5 { 0.0 } else { 1.0 };
    let lightest = f32::from(INK.0) / 255.0;
    for pixel in drawn.pixels.chunks_exact_mut(3) {
        let share = (1.0 - pixel[0]) / (1.0 - lightest);
        pixel.iter_mut().zip(background).for_each(|(v, under)| *v = under + share * (ink - under));
    }
    drawn
}

/// Copies a picture into another one, as far as it fits.
fn paint(onto: &mut Picture, picture: &Picture, top: usize, left: usize) {
    let (Dims { h, w, .. }, own) = (onto.dims, picture.dims);
    let width = own.w.min(w.saturating_sub(left));
    for y in 0..own.h.min(h.saturating_sub(top)) {
        let row = &picture.pixels[y * own.w * 3..][..width * 3];
        onto.pixels[((top + y) * w + left) * 3..][..width * 3].copy_from_slice(row);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RED: [f32; 3] = [0.9, 0.1, 0.1];
    const YELLOW: [f32; 3] = [1.0, 0.9, 0.2];

    fn drawn(size: Size, boxes: &[([f64; 4], [f32; 3], &str)]) -> Picture {
        let boxes: Vec<LabelledBox> = boxes
            .iter()
            .map(|(edges, colour, label)| LabelledBox {
                edges: *edges,
                colour: *colour,
                label: (*label).to_owned(),
            })
            .collect();
        let dims = Dims::of(size, 3);
        with_boxes(&Picture { dims, pixels: vec![0.5; dims.len()] }, &boxes)
    }

    /// Rows and columns of a picture that have this colour.
    fn area_of(picture: &Picture, colour: [f32; 3]) -> [usize; 4] {
        let w = picture.dims.w;
        let found = picture.pixels.chunks_exact(3).enumerate().filter(|(_, p)| **p == colour);
        found.fold([usize::MAX, usize::MAX, 0, 0], |[l, t, r, b], (at, _)| {
            [l.min(at % w), t.min(at / w), r.max(at % w + 1), b.max(at / w + 1)]
        })
    }

    #[test]
    fn labels_are_above_their_boxes_or_where_there_is_room() {
        let size = Size::new(400, 500);
        let above = drawn(size, &[([100.0, 50.0, 300.0, 200.0], RED, "cell 0.9")]);
        assert_eq!(above.dims, Dims::of(size, 3));
        assert_eq!(area_of(&above, RED), [100, 50 - HEIGHT, 300, 200]);
        let below = drawn(size, &[([100.0, 5.0, 300.0, 200.0], RED, "cell 0.9")]);
        assert_eq!(area_of(&below, RED), [100, 5, 300, 200 + HEIGHT]);
        let inside = drawn(size, &[([100.0, 5.0, 300.0, 395.0], RED, "cell 0.9")]);
        assert_eq!(area_of(&inside, RED), [100, 5, 300, 395]);
        // At the right edge the label moves to the left.
        let right = drawn(size, &[([480.0, 50.0, 500.0, 90.0], RED, "cell 0.9")]);
        let [left, _, end, _] = area_of(&right, RED);
        assert!(left < 460 && end == 500, "{left} {end}");
    }

    #[test]
    fn text_contrasts_with_its_background() {
        let ink = |colour| label("cell 0.9", colour).pixels.iter().copied().fold(0.0, f32::max);
        let dark = |colour| label("cell 0.9", colour).pixels.iter().copied().fold(1.0, f32::min);
        assert!(ink(RED) > 0.95 && dark(YELLOW) < 0.05, "{} {}", ink(RED), dark(YELLOW));
        assert_ne!(label("cell 0.9", RED), label("cell 0.8", RED));
    }

    #[test]
    fn small_images_are_enlarged_and_large_ones_have_larger_labels() {
        let small = drawn(Size::new(50, 90), &[([10.0, 20.0, 60.0, 40.0], RED, "x")]);
        assert_eq!(small.dims, Dims::new(3, 7 * 50, 7 * 90));
        assert_eq!(area_of(&small, RED), [70, 140 - HEIGHT, 420, 280]);
        let large = drawn(Size::new(1700, 2000), &[([500.0, 600.0, 900.0, 900.0], RED, "x")]);
        assert_eq!(area_of(&large, RED), [500, 600 - 2 * HEIGHT, 900, 900]);
    }
}
