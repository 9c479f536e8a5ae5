//! Textures and styles on one page that works offline.

use std::fmt::Write;

use crate::error::Result;
use crate::raster::crop;
use crate::report::page::{escaped, image, page};
use crate::report::picture::Picture;

/// Sides of pictures that are only to be recognised.
const SMALL: usize = 192;

/// A texture beside its exemplar.
#[derive(Clone, Debug)]
pub struct Woven {
    /// The exemplar's name.
    pub name: String,
    /// The exemplar.
    pub exemplar: Picture,
    /// The texture.
    pub texture: Picture,
    /// Whether it can be laid side by side: it is shown so, too.
    pub tiles: bool,
    /// What is to be said of it.
    pub says: String,
}

/// A content in a style.
#[derive(Clone, Debug)]
pub struct Painted {
    /// Names of the content and the style.
    pub names: [String; 2],
    /// The result.
    pub picture: Picture,
    /// What is to be said of it.
    pub says: String,
}

/// A picture with its longer side no longer than what is wanted: every so many pixels.
fn small(picture: &Picture) -> Picture {
    let by = picture.h.max(picture.w).div_ceil(SMALL);
    let (h, w) = (picture.h / by, picture.w / by);
    if by == 1 || h == 0 || w == 0 {
        return picture.clone();
    }
    let pixels = (0..h * w * picture.c).map(|at| {
        let (y, x, c) = (at / picture.c / w, at / picture.c % w, at % picture.c);
        let sum: f32 = (0..by * by)
            .map(|i| {
                picture.pixels[((y * by + i / by) * picture.w + x * by + i % by) * picture.c + c]
            })
            .sum();
        sum / (by * by) as f32
    });
    Picture { h, w, c: picture.c, pixels: pixels.collect() }
}

/// A picture twice along each side, about one of its corners.
fn laid(picture: &Picture) -> Picture {
    let Picture { h, w, c, pixels } = picture;
    let mut out = Vec::with_capacity(4 * pixels.len());
    for y in 0..2 * h {
        let row = crop(pixels, *w, *c, y % h..y % h + 1, 0..*w);
        out.extend_from_slice(&row);
        out.extend_from_slice(&row);
    }
    Picture { h: 2 * h, w: 2 * w, c: *c, pixels: out }
}

fn figure(picture: &Picture, name: &str, says: &str) -> Result<String> {
    Ok(format!(
        "<figure>{}<figcaption>{}<br><span class=soft>{}</span></figcaption></figure>\n",
        image(picture, name)?,
        escaped(name),
        escaped(says)
    ))
}

/// The page of textures.
///
/// # Errors
/// When a picture has too many pixels.
pub fn textures(all: &[Woven]) -> Result<String> {
    let mut body = String::from(
        "<h1>Textures</h1>\n<p class=note>Left the exemplar, right what was made of it.</p>\n",
    );
    for Woven { name, exemplar, texture, tiles, says } in all {
        body.push_str("<div class=row>\n");
        body.push_str(&figure(
            exemplar,
            name,
            &format!("exemplar, {}×{}", exemplar.w, exemplar.h),
        )?);
        body.push_str(&figure(texture, name, says)?);
        if *tiles {
            body.push_str(&figure(&laid(texture), name, "laid side by side")?);
        }
        body.push_str("</div>\n");
    }
    Ok(page("Textures", &[], &body, false))
}

/// The page of styles: contents and styles by name, and what was made of them.
///
/// # Errors
/// When a picture has too many pixels.
pub fn styles(
    contents: &[(String, Picture)],
    styles: &[(String, Picture)],
    all: &[Painted],
) -> Result<String> {
    let mut body = String::from("<h1>Styles</h1>\n<h2>Styles</h2>\n<div class=row>\n");
    for (name, picture) in styles {
        body.push_str(&figure(&small(picture), name, "")?);
    }
    body.push_str("</div>\n");
    for (name, picture) in contents {
        let _ = write!(body, "<h2>{}</h2>\n<div class=row>\n", escaped(name));
        body.push_str(&figure(&small(picture), name, "content")?);
        for painted in all.iter().filter(|painted| painted.names[0] == *name) {
            body.push_str(&figure(
                &painted.picture,
                &format!("in the style of {}", painted.names[1]),
                &painted.says,
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
        Picture { h, w, c: 3, pixels: (0..h * w * 3).map(|i| (i % 7) as f32 / 7.0).collect() }
    }

    #[test]
    fn pages_show_what_was_made() {
        let woven = Woven {
            name: "<bark>".into(),
            exemplar: picture(8, 8),
            texture: picture(16, 16),
            tiles: true,
            says: "good & quick".into(),
        };
        let page = textures(&[woven.clone(), Woven { tiles: false, ..woven }]).unwrap();
        assert_eq!(page.matches("<img ").count(), 5);
        assert!(
            page.contains("&lt;bark&gt;")
                && page.contains("good &amp; quick")
                && !page.contains("<bark>")
                && !page.contains("http")
        );
        let painted = Painted {
            names: ["a".into(), "b".into()],
            picture: picture(9, 4),
            says: String::new(),
        };
        let page = styles(
            &[("a".into(), picture(400, 300)), ("c".into(), picture(5, 5))],
            &[("b".into(), picture(3, 3))],
            &[painted],
        )
        .unwrap();
        assert_eq!(page.matches("<img ").count(), 4);
        assert!(page.contains("width=\"100\" height=\"133\""), "{}", &page[..3000]);
    }

    #[test]
    fn tiles_lie_side_by_side() {
        let one = picture(2, 3);
        let four = laid(&one);
        assert_eq!((four.h, four.w), (4, 6));
        let at = |p: &Picture, y: usize, x: usize| p.pixels[(y * p.w + x) * 3];
        assert!((0..4).all(|y| (0..6).all(|x| at(&four, y, x) == at(&one, y % 2, x % 3))));
    }
}
