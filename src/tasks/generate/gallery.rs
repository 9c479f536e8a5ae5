//! A self-contained HTML page that shows sampled images.

use std::fmt::Write;

use crate::error::Result;
use crate::metrics::frechet::Likeness;
use crate::report::page::{Page, Sheet, escaped};
use crate::shape::Dims;

/// Displayed length of an image's longer side, in CSS pixels.
const SIDE: f64 = 84.0;

/// Images under a heading.
#[derive(Clone, Debug, PartialEq)]
pub struct Section {
    /// The heading.
    pub title: String,
    /// Text below the heading.
    pub text: String,
    /// The images, H,W,C each.
    pub images: Vec<Vec<f32>>,
    /// Images shown below the images with the same index, such as the nearest training images.
    pub below: Option<Vec<Vec<f32>>>,
    /// Tooltips, one per image, or empty.
    pub notes: Vec<String>,
    /// Images per row; `None` fills the width of the page.
    pub columns: Option<usize>,
}

/// How close samples of a prior are to real images.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Name of the prior, or of the real images.
    pub name: String,
    /// Fréchet distance, precision and recall.
    pub likeness: Likeness,
}

/// The page: a table of `rows`, if there are any, and the sections. `facts` are those of its
/// heading, see [`Page::facts`].
///
/// # Errors
/// If there are too many pixels for a picture.
pub fn samples(
    (title, note): (&str, &str),
    facts: &[(&str, String)],
    rows: &[Row],
    sections: &[Section],
    dims: Dims,
) -> Result<String> {
    let mut page = Page::new(title).facts(facts).intro(note);
    if !rows.is_empty() {
        page = page.section("Likeness to test images", table(rows));
    }
    let channels = if dims.c >= 3 { 3 } else { 1 };
    let visible = |image: &Vec<f32>| -> Vec<f32> {
        image.chunks_exact(dims.c).flat_map(|p| p[..channels].iter().copied()).collect()
    };
    let all = sections
        .iter()
        .flat_map(|section| section.images.iter().chain(section.below.iter().flatten()));
    let tiles: Vec<Vec<f32>> = all.map(visible).collect();
    let shown = Dims { c: channels, ..dims };
    let Some(sheet) = Sheet::new("samples", &tiles, shown, SIDE)? else {
        return Ok(page.html());
    };
    let mut at = 0;
    for section in sections {
        let columns = section.columns.map_or(String::new(), |columns| {
            format!(" columns\" style=\"grid-template-columns:repeat({columns},max-content)")
        });
        let mut html = match section.text.as_str() {
            "" => String::new(),
            text => format!("<p class=\"soft\">{}</p>\n", escaped(text)),
        };
        let _ = writeln!(html, "<div class=\"tiles{columns}\">");
        let count = section.images.len();
        for i in 0..count {
            let note = section.notes.get(i).map_or("", String::as_str);
            let below = if section.below.is_some() {
                sheet.tile(at + count + i, note)
            } else {
                String::new()
            };
            let _ = writeln!(html, "<figure>{}{below}</figure>", sheet.tile(at + i, note));
        }
        page = page.section(&section.title, html + "</div>\n");
        at += count + section.below.as_ref().map_or(0, Vec::len);
    }
    Ok(page.sheet(&sheet).html())
}

/// The table of likenesses.
fn table(rows: &[Row]) -> String {
    let mut table = String::from(
        "<div class=\"wide\"><table>\n<tr><th>images<th class=n>Fréchet distance\
         <th class=n>precision<th class=n>recall</tr>\n",
    );
    for Row { name, likeness: Likeness { distance, precision, recall } } in rows {
        let _ = writeln!(
            table,
            "<tr><td>{}<td class=n>{distance:.2}<td class=n>{:.1} %<td class=n>{:.1} %</tr>",
            escaped(name),
            100.0 * precision,
            100.0 * recall
        );
    }
    table.push_str(
        "</table></div>\n<p class=\"soft\">Fréchet distance: lower is better. Precision: share of \
         samples that are like test images. Recall: share of test images that samples are \
         like.</p>\n",
    );
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_show_images_and_numbers() {
        let section = Section {
            title: "<mixture>".into(),
            text: "drawn".into(),
            images: vec![vec![0.5; 12]; 5],
            below: Some(vec![vec![0.2; 12]; 5]),
            notes: vec!["nearest: 7 & 8".into(); 5],
            columns: Some(3),
        };
        let row = Row {
            name: "a < b".into(),
            likeness: Likeness { distance: 12.345, precision: 0.5, recall: 0.25 },
        };
        let plain = Section { below: None, notes: Vec::new(), columns: None, ..section.clone() };
        let page = samples(("Samples", "of 3"), &[], &[row], &[section, plain], Dims::new(2, 2, 3))
            .unwrap();
        assert_eq!(page.matches("class=\"sheet samples\"").count(), 15);
        assert!(
            page.contains("12.35<td class=n>50.0 %<td class=n>25.0 %")
                && page.contains("a &lt; b")
                && page.contains("7 &amp; 8")
        );
        assert_eq!(page.matches("repeat(3,max-content)").count(), 1);
        assert!(!page.contains("<mixture>") && !page.replace("http-equiv", "").contains("http"));
    }
}
