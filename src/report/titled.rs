//! Titles of pictures: a strip with text above a picture.

use super::chart::{DRAWN, INK, TEXT, fine, page, text};
use super::picture::{BACKGROUND, Picture};
use crate::shape::{Dims, Size};

/// Minimum width in pixels of a picture with a title. Shorter lines are hard to read.
const MIN_WIDTH: usize = 320;
/// Distance of the text from the edges, in pixels.
const MARGIN: usize = 8;
/// Height of a line in pixels.
const LINE: usize = 20;

/// Adds a strip with a title above a picture. The title wraps; a narrow picture becomes wider.
pub fn titled(picture: Picture, title: &str) -> Picture {
    below_title(widened(picture), title)
}

/// Adds a strip with a title above a picture, as wide as the picture.
pub fn below_title(mut picture: Picture, title: &str) -> Picture {
    let strip = strip(title, picture.dims.w, picture.dims.c);
    picture.dims.h += strip.len() / (picture.dims.w * picture.dims.c);
    picture.pixels.splice(0..0, strip);
    picture
}

/// The pixels (H,W,C) of a strip with a title, `w` pixels wide, for `c` channels.
pub fn strip(title: &str, w: usize, c: usize) -> Vec<f32> {
    let lines = wrapped(title, w.saturating_sub(2 * MARGIN));
    let size = Size::new(lines.len() * LINE + MARGIN, w);
    let drawn = page(size, |area| {
        for (i, line) in lines.iter().enumerate() {
            let top = fine(i * LINE + MARGIN / 2 + 3);
            area.draw_text(line, &text(TEXT, INK), (fine(MARGIN), top)).expect(DRAWN);
        }
    });
    // White becomes the gray between tiles.
    let pixels = drawn.pixels.chunks_exact(3);
    pixels.flat_map(|pixel| (0..c).map(|i| pixel[i % 3] * BACKGROUND)).collect()
}

/// The picture with background at its right, if it is too narrow for a title.
fn widened(picture: Picture) -> Picture {
    let Dims { c, h, w } = picture.dims;
    if w >= MIN_WIDTH {
        return picture;
    }
    let mut wide = Picture::blank(Dims::new(c, h, MIN_WIDTH));
    wide.paint(&picture.pixels, picture.dims.size(), 1, 0, 0);
    wide
}

/// The words of a text in lines of at most `width` pixels. A longer word has its own line.
fn wrapped(title: &str, width: usize) -> Vec<String> {
    let style = text(TEXT, INK);
    let fits = |line: &str| {
        let size = style.font.box_size(line).unwrap_or((0, 0));
        size.0 as usize <= fine(width) as usize
    };
    let mut lines: Vec<String> = Vec::new();
    for word in title.split_whitespace() {
        match lines.last_mut() {
            Some(line) if fits(&format!("{line} {word}")) => *line += &format!(" {word}"),
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    const TITLE: &str = "What the picture shows, in more words than fit into one line of it";

    #[test]
    fn the_picture_is_below_its_title() {
        for c in [1, 3] {
            let dims = Dims::new(c, 40, 400);
            let pixels = (0..dims.len()).map(|i| (i % 251) as f32 / 250.0).collect::<Vec<_>>();
            let picture = Picture { dims, pixels };
            let made = titled(picture.clone(), TITLE);
            let strip = made.pixels.len() - picture.pixels.len();
            assert_eq!(made.dims, Dims::new(c, 40 + strip / (400 * c), 400));
            assert_eq!(made.pixels[strip..], picture.pixels);
            let dark = made.pixels[..strip].iter().filter(|value| **value < 0.5).count();
            assert!(dark > 300, "{dark} dark values of the text");
            assert_ne!(made, titled(picture.clone(), "Another title"));
            let empty = titled(picture, "");
            assert!(empty.pixels[..400].iter().all(|value| *value == BACKGROUND));
        }
    }

    #[test]
    fn titles_wrap_and_keep_every_word() {
        let lines = wrapped(TITLE, 200);
        assert!(lines.len() > 2 && lines.join(" ") == TITLE, "{lines:?}");
        assert_eq!(wrapped(TITLE, 2000), [TITLE]);
        assert_eq!(wrapped("a verylongwordthatdoesnotfit b", 40).len(), 3);
    }

    #[test]
    fn narrow_pictures_become_wider() {
        let picture = Picture { dims: Dims::new(1, 2, 3), pixels: vec![0.1; 6] };
        let made = titled(picture, "Three words here");
        assert_eq!(made.dims, Dims::new(1, LINE + MARGIN + 2, MIN_WIDTH));
        let last = &made.pixels[made.pixels.len() - MIN_WIDTH..];
        assert_eq!(last[..4], [0.1, 0.1, 0.1, BACKGROUND]);
    }
}
