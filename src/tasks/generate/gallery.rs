//! Drawn images on one page that works offline.

use std::fmt::Write;

use crate::error::Result;
use crate::metrics::frechet::Likeness;
use crate::report::page::{Sheet, escaped, page};

/// Pixels that the longer side of an image is shown with.
const SIDE: f64 = 84.0;

/// Images under a heading.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// The heading.
    pub title: String,
    /// What is to be said of it.
    pub says: String,
    /// The images, H,W,C each.
    pub images: Vec<Vec<f32>>,
    /// Below each image the one of these with the same number, such as the training image nearest
    /// to it.
    pub below: Option<Vec<Vec<f32>>>,
    /// What is to be said of each image; none, or as many as images.
    pub notes: Vec<String>,
    /// Images in a row; None: as many as there is room for.
    pub columns: Option<usize>,
}

/// How drawn images compare with real ones, by what they are drawn from.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// What is compared.
    pub name: String,
    /// The figures.
    pub likeness: Likeness,
}

/// The page: figures, if there are some, and parts.
///
/// # Errors
/// When there are too many pixels for a picture.
pub fn samples(
    title: &str,
    note: &str,
    rows: &[Row],
    parts: &[Part],
    size: [usize; 3],
) -> Result<String> {
    let mut body = format!("<h1>{}</h1>\n<p class=note>{}</p>\n", escaped(title), escaped(note));
    if !rows.is_empty() {
        body.push_str("<table>\n<tr><th><th>Fréchet distance<th>precision<th>recall</tr>\n");
        for Row { name, likeness: Likeness { distance, precision, recall } } in rows {
            let _ = writeln!(
                body,
                "<tr><td>{}<td>{distance:.2}<td>{:.1} %<td>{:.1} %</tr>",
                escaped(name),
                100.0 * precision,
                100.0 * recall
            );
        }
        body.push_str("</table>\n");
    }
    let (h, w, c) = (size[0], size[1], size[2]);
    let shown = if c >= 3 { 3 } else { 1 };
    let visible = |image: &Vec<f32>| -> Vec<f32> {
        image.chunks_exact(c).flat_map(|p| p[..shown].iter().copied()).collect()
    };
    let all = parts.iter().flat_map(|part| part.images.iter().chain(part.below.iter().flatten()));
    let tiles: Vec<Vec<f32>> = all.map(visible).collect();
    let Some(sheet) = Sheet::new("samples", &tiles, [h, w, shown], SIDE)? else {
        return Ok(page(title, &[], &body, false));
    };
    let mut at = 0;
    for part in parts {
        let grid = |columns: usize| {
            format!(" style=\"display:grid;grid-template-columns:repeat({columns},max-content)\"")
        };
        let grid = part.columns.map_or(String::new(), grid);
        let (title, says) = (escaped(&part.title), escaped(&part.says));
        let _ = write!(body, "<h2>{title}</h2>\n<p class=soft>{says}</p>\n<div class=row{grid}>\n");
        let count = part.images.len();
        for i in 0..count {
            let note = part.notes.get(i).map_or("", String::as_str);
            let below =
                if part.below.is_some() { sheet.tile(at + count + i, note) } else { String::new() };
            let _ = writeln!(body, "<figure>{}{below}</figure>", sheet.tile(at + i, note));
        }
        body.push_str("</div>\n");
        at += count + part.below.as_ref().map_or(0, Vec::len);
    }
    Ok(page(title, &[&sheet], &body, false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_show_images_and_figures() {
        let part = Part {
            title: "<mixture>".into(),
            says: "drawn".into(),
            images: vec![vec![0.5; 12]; 5],
            below: Some(vec![vec![0.2; 12]; 5]),
            notes: vec!["nearest: 7 & 8".into(); 5],
            columns: Some(3),
        };
        let row = Row {
            name: "a < b".into(),
            likeness: Likeness { distance: 12.345, precision: 0.5, recall: 0.25 },
        };
        let plain = Part { below: None, notes: Vec::new(), columns: None, ..part.clone() };
        let page = samples("Samples", "of 3", &[row], &[part, plain], [2, 3, 2]).unwrap();
        assert_eq!(page.matches("class=\"sheet samples\"").count(), 15);
        assert!(
            page.contains("12.35<td>50.0 %<td>25.0 %")
                && page.contains("a &lt; b")
                && page.contains("7 &amp; 8")
        );
        assert_eq!(page.matches("repeat(3,max-content)").count(), 1);
        assert!(!page.contains("<mixture>") && !page.contains("http"));
    }
}
