//! A self-contained HTML page that shows textures or styled pictures.

use crate::error::Result;
use crate::raster::crop;
use crate::report::page::{self, Page, image};
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

/// A picture with its name and a caption, and the name of its file as a tooltip.
fn figure(picture: &Picture, (name, file): (&str, &str), caption: &str) -> Result<String> {
    let separator = if caption.is_empty() { "" } else { ": " };
    let picture = image(picture, name, file)?;
    Ok(page::figure(&picture, &format!("{name}{separator}{caption}")))
}

/// The page of textures. `facts` are those of its heading, see [`Page::facts`].
///
/// # Errors
/// If a picture is too large to encode.
pub fn textures(all: &[TextureEntry], facts: &[(&str, String)]) -> Result<String> {
    let mut page = Page::new("Textures").facts(facts).intro(
        "Each exemplar, and the texture that was synthesized from it. The distance is that of \
         their feature statistics.",
    );
    for TextureEntry { name, exemplar, texture, tiles, caption } in all {
        let Size { h, w } = exemplar.dims.size();
        let file = format!("{name}.png");
        let mut html = String::from("<div class=\"pictures\">\n");
        html += &figure(exemplar, ("exemplar", name), &format!("{w}×{h} pixels"))?;
        html += &figure(texture, ("texture", &file), caption)?;
        if *tiles {
            html += &figure(&tiled(texture), ("texture", &file), "repeated twice along each side")?;
        }
        page = page.section(name, html + "</div>\n");
    }
    Ok(page.html())
}

/// The page of styled pictures: the styles, then each content with its results. `facts` are those
/// of its heading, see [`Page::facts`].
///
/// # Errors
/// If a picture is too large to encode.
pub fn styles(
    contents: &[(String, Picture)],
    styles: &[(String, Picture)],
    all: &[StyleEntry],
    facts: &[(&str, String)],
) -> Result<String> {
    let mut html = String::from("<div class=\"pictures\">\n");
    for (name, picture) in styles {
        html += &figure(&thumbnail(picture), (name, name), "")?;
    }
    let mut page = Page::new("Styles").facts(facts).section("Styles", html + "</div>\n");
    for (name, picture) in contents {
        let mut html = String::from("<div class=\"pictures\">\n");
        html += &figure(&thumbnail(picture), ("content", name), "")?;
        for entry in all.iter().filter(|entry| entry.names[0] == *name) {
            let title = format!("in the style of {}", entry.names[1]);
            html += &figure(&entry.picture, (&title, &entry.names.join(", ")), &entry.caption)?;
        }
        page = page.section(name, html + "</div>\n");
    }
    Ok(page.html())
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
        let page = textures(&[entry.clone(), TextureEntry { tiles: false, ..entry }], &[]).unwrap();
        assert_eq!(page.matches("<img ").count(), 5);
        assert!(
            page.contains("&lt;bark&gt;")
                && page.contains("good &amp; quick")
                && !page.contains("<bark>")
                && !page.replace("http-equiv", "").contains("http")
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
            &[],
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
