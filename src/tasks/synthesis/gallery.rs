//! A self-contained HTML page that shows textures or styled pictures.

use std::fmt::Write;

use crate::error::Result;
use crate::raster::crop;
use crate::report::page::{escaped, image, page};
use crate::report::picture::Picture;
use crate::shape::{Dims, Size};

/// Maximum side of thumbnails, in pixels: enough to recognise a picture, and it keeps the page
/// small.
const THUMBNAIL: usize = 192;

/// A texture beside its exemplar.
#[derive(Clone, Debug)]
pub struct TextureEntry {
    /// The exemplar's name.
    pub name: String,
    /// The exemplar.
    pub exemplar: Picture,
    /// The synthesized texture.
    pub texture: Picture,
    /// Whether the texture tiles. If so, the page also shows it repeated twice along each side.
    pub tiles: bool,
    /// Caption of the texture.
    pub caption: String,
}

/// A content picture in a style.
#[derive(Clone, Debug)]
pub struct StyleEntry {
    /// Names of the content and the style.
    pub names: [String; 2],
    /// The result.
    pub picture: Picture,
    /// Caption of the result.
    pub caption: String,
}

/// Shrinks a picture by an integer factor (box filter) until its longer side is at most
/// [`THUMBNAIL`].
fn thumbnail(picture: &Picture) -> Picture {
    let from = picture.dims;
    let by = from.h.max(from.w).div_ceil(THUMBNAIL);
    let to = Dims::of(from.size().map(|side| side / by), from.c);
    if by == 1 || to.area() == 0 {
        return picture.clone();
    }
    let pixels = (0..to.len()).map(|at| {
        let (y, x, c) = (at / to.c / to.w, at / to.c % to.w, at % to.c);
        let sum: f32 = (0..by * by)
            .map(|i| picture.pixels[from.offset(c, y * by + i / by, x * by + i % by)])
            .sum();
        sum / (by * by) as f32
    });
    Picture { dims: to, pixels: pixels.collect() }
}

/// Repeats a picture twice along each side.
fn tiled(picture: &Picture) -> Picture {
    let Dims { c, h, w } = picture.dims;
    let mut pixels = Vec::with_capacity(4 * picture.pixels.len());
    for y in 0..2 * h {
        let row = crop(&picture.pixels, picture.dims, (y % h, 0), Size::new(1, w));
        pixels.extend_from_slice(&row);
        pixels.extend_from_slice(&row);
    }
    Picture { dims: Dims::new(c, 2 * h, 2 * w), pixels }
}

fn figure(picture: &Picture, name: &str, caption: &str) -> Result<String> {
    Ok(format!(
        "<figure>{}<figcaption>{}<br><span class=soft>{}</span></figcaption></figure>\n",
        image(picture, name)?,
        escaped(name),
        escaped(caption)
    ))
}

/// The page of textures.
///
/// # Errors
/// If a picture is too large to encode.
pub fn textures(all: &[TextureEntry]) -> Result<String> {
    let mut body = String::from(
        "<h1>Textures</h1>\n<p class=note>Left: the exemplar. Right: the texture synthesized \
         from it.</p>\n",
    );
    for TextureEntry { name, exemplar, texture, tiles, caption } in all {
        body.push_str("<div class=row>\n");
        let Size { h, w } = exemplar.dims.size();
        body.push_str(&figure(exemplar, name, &format!("exemplar, {w}×{h}"))?);
        body.push_str(&figure(texture, name, caption)?);
        if *tiles {
            body.push_str(&figure(&tiled(texture), name, "repeated twice along each side")?);
        }
        body.push_str("</div>\n");
    }
    Ok(page("Textures", &[], &body, false))
}

/// The page of styled pictures: the styles, then each content with its results.
///
/// # Errors
/// If a picture is too large to encode.
pub fn styles(
    contents: &[(String, Picture)],
    styles: &[(String, Picture)],
    all: &[StyleEntry],
) -> Result<String> {
    let mut body = String::from("<h1>Styles</h1>\n<h2>Styles</h2>\n<div class=row>\n");
    for (name, picture) in styles {
        body.push_str(&figure(&thumbnail(picture), name, "")?);
    }
    body.push_str("</div>\n");
    for (name, picture) in contents {
        let _ = write!(body, "<h2>{}</h2>\n<div class=row>\n", escaped(name));
        body.push_str(&figure(&thumbnail(picture), name, "content")?);
        for entry in all.iter().filter(|entry| entry.names[0] == *name) {
            body.push_str(&figure(
                &entry.picture,
                &format!("in the style of {}", entry.names[1]),
                &entry.caption,
            )?);
        }
        body.push_str("</div>\n");
    }
    Ok(page("Styles", &[], &body, false))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(h: usize, w: usize) -> Picture {
        let dims = Dims::new(3, h, w);
        Picture { dims, pixels: (0..dims.len()).map(|i| (i % 7) as f32 / 7.0).collect() }
    }

    #[test]
    fn pages_show_every_picture_and_escape_text() {
        let entry = TextureEntry {
            name: "<bark>".into(),
            exemplar: picture(8, 8),
            texture: picture(16, 16),
            tiles: true,
            caption: "good & quick".into(),
        };
        let page = textures(&[entry.clone(), TextureEntry { tiles: false, ..entry }]).unwrap();
        assert_eq!(page.matches("<img ").count(), 5);
        assert!(
            page.contains("&lt;bark&gt;")
                && page.contains("good &amp; quick")
                && !page.contains("<bark>")
                && !page.contains("http")
        );
        let entry = StyleEntry {
            names: ["a".into(), "b".into()],
            picture: picture(9, 4),
            caption: String::new(),
        };
        let page = styles(
            &[("a".into(), picture(400, 300)), ("c".into(), picture(5, 5))],
            &[("b".into(), picture(3, 3))],
            &[entry],
        )
        .unwrap();
        assert_eq!(page.matches("<img ").count(), 4);
        assert!(page.contains("width=\"100\" height=\"133\""), "{}", &page[..3000]);
    }

    #[test]
    fn tiled_repeats_the_picture() {
        let one = picture(2, 3);
        let four = tiled(&one);
        assert_eq!(four.dims, Dims::new(3, 4, 6));
        let at = |p: &Picture, y: usize, x: usize| p.pixels[p.dims.offset(0, y, x)];
        assert!((0..4).all(|y| (0..6).all(|x| at(&four, y, x) == at(&one, y % 2, x % 3))));
    }
}
