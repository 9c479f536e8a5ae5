//! Annotation files: Pascal VOC's XML, an image each, and COCO's JSON, all images in one.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::Path;

use roxmltree::{Document, Node, ParsingOptions};
use serde::Deserialize;

use crate::data::annotations::boxes::{Bounds, Detection};
use crate::error::{Error, Result};
use crate::files;

/// A thing in an image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Object {
    /// Which class.
    pub class: usize,
    /// Where.
    pub bounds: Bounds,
    /// It need not be found.
    pub difficult: bool,
    /// A box around many things of its class, which need not be found one by one.
    pub crowd: bool,
}

impl Object {
    /// Whether it need not be found.
    pub const fn ignored(&self) -> bool {
        self.difficult || self.crowd
    }
}

/// An object whose class is a name.
#[derive(Clone, Debug, PartialEq)]
pub struct Marked {
    /// The class.
    pub name: String,
    /// Where, as the file says.
    pub bounds: Bounds,
    /// It need not be found.
    pub difficult: bool,
    /// A box around many.
    pub crowd: bool,
}

/// Reads a Pascal VOC annotation. Its boxes are of pixels, counted from 1, both ends belonging to
/// them: edges are left − 1, top − 1, right and bottom.
///
/// # Errors
/// When it is no XML, or an object lacks its name or a side: a line without the file's name.
pub fn read_voc(path: &Path) -> Result<Vec<Marked>> {
    let bytes = files::read(path)?;
    let text = String::from_utf8(bytes).map_err(|_| Error::usage("no annotation: not UTF-8"))?;
    parse_voc(&text)
}

fn parse_voc(text: &str) -> Result<Vec<Marked>> {
    let options =
        ParsingOptions { allow_dtd: true, nodes_limit: 1 << 20, ..ParsingOptions::default() };
    let document = Document::parse_with_options(text, options)
        .map_err(|error| Error::usage(format!("no annotation: {error}")))?;
    let root = document.root_element();
    if !root.has_tag_name("annotation") {
        return Err(Error::usage(format!(
            "no annotation: its root is <{}>, not <annotation>",
            root.tag_name().name()
        )));
    }
    let objects = root.children().filter(|node| node.has_tag_name("object"));
    objects
        .enumerate()
        .map(|(i, object)| marked(object).map_err(|error| error.at(format!("object {}", i + 1))))
        .collect()
}

fn child<'a>(node: Node<'a, 'a>, name: &str) -> Option<Node<'a, 'a>> {
    node.children().find(|child| child.has_tag_name(name))
}

fn marked(object: Node<'_, '_>) -> Result<Marked> {
    let missing = |what: &str| Error::usage(format!("<{what}> is missing"));
    let text = |name: &str| {
        child(object, name)
            .and_then(|node| node.text())
            .map(str::trim)
            .filter(|text| !text.is_empty())
    };
    let name = text("name").ok_or_else(|| missing("name"))?.to_owned();
    let frame = child(object, "bndbox").ok_or_else(|| missing("bndbox"))?;
    let side = |name: &str| -> Result<f64> {
        let text = child(frame, name)
            .and_then(|node| node.text())
            .map(str::trim)
            .ok_or_else(|| missing(name))?;
        let value: f64 =
            text.parse().map_err(|_| Error::usage(format!("<{name}> is no number: {text:?}")))?;
        if value.is_finite() { Ok(value) } else { Err(Error::usage(format!("<{name}> is {text}"))) }
    };
    let bounds = Bounds {
        left: side("xmin")? - 1.0,
        top: side("ymin")? - 1.0,
        right: side("xmax")?,
        bottom: side("ymax")?,
    };
    Ok(Marked { name, bounds, difficult: text("difficult") == Some("1"), crowd: false })
}

/// A Pascal VOC annotation of what was found in an image; pixels are counted from 1.
pub fn voc(image: &str, [h, w, c]: [usize; 3], classes: &[String], found: &[Detection]) -> String {
    let escape = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let mut out = format!(
        "<annotation>\n  <filename>{}</filename>\n  <size><width>{w}</width><height>{h}</height><depth>{c}</depth></size>\n",
        escape(image)
    );
    for one in found {
        let Bounds { left, top, right, bottom } = one.bounds;
        let _ = writeln!(
            out,
            "  <object>\n    <name>{}</name>\n    <confidence>{:.4}</confidence>\n    <bndbox><xmin>{:.1}</xmin><ymin>{:.1}</ymin><xmax>{right:.1}</xmax><ymax>{bottom:.1}</ymax></bndbox>\n  </object>",
            escape(&classes[one.class]),
            one.score,
            left + 1.0,
            top + 1.0
        );
    }
    out + "</annotation>\n"
}

#[derive(Deserialize)]
struct Coco {
    images: Vec<CocoImage>,
    annotations: Vec<CocoObject>,
    categories: Vec<CocoCategory>,
}

#[derive(Deserialize)]
struct CocoImage {
    id: u64,
    file_name: String,
}

#[derive(Deserialize)]
struct CocoObject {
    image_id: u64,
    category_id: u64,
    bbox: [f64; 4],
    #[serde(default)]
    iscrowd: u8,
}

#[derive(Deserialize)]
struct CocoCategory {
    id: u64,
    name: String,
}

/// Reads COCO's JSON: the objects of each image, by its file's name.
///
/// # Errors
/// When it is no such file, or names an image or a category that it does not have.
pub fn coco(path: &Path) -> Result<HashMap<String, Vec<Marked>>> {
    let bad = |what: String| Error::usage(format!("{}: {what}", path.display()));
    let all: Coco = serde_json::from_slice(&files::read(path)?)
        .map_err(|error| bad(format!("no COCO annotations ({error})")))?;
    let images: HashMap<u64, String> =
        all.images.into_iter().map(|image| (image.id, image.file_name)).collect();
    let names: HashMap<u64, &str> =
        all.categories.iter().map(|category| (category.id, category.name.as_str())).collect();
    let mut found: HashMap<String, Vec<Marked>> =
        images.values().map(|name| (name.clone(), Vec::new())).collect();
    for object in all.annotations {
        let image = images.get(&object.image_id).ok_or_else(|| {
            bad(format!(
                "an annotation of image {}, which is not among its images",
                object.image_id
            ))
        })?;
        let name = names.get(&object.category_id).ok_or_else(|| {
            bad(format!(
                "an annotation of category {}, which is not among its categories",
                object.category_id
            ))
        })?;
        let [left, top, w, h] = object.bbox;
        let bounds = Bounds { left, top, right: left + w, bottom: top + h };
        let marked = Marked {
            name: (*name).to_owned(),
            bounds,
            difficult: false,
            crowd: object.iscrowd != 0,
        };
        found.entry(image.clone()).or_default().push(marked);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_come_back() {
        let classes = ["a & b".to_owned()];
        let bounds = Bounds { left: 3.0, top: 0.0, right: 9.0, bottom: 4.0 };
        let text =
            voc("x<y>.png", [10, 20, 3], &classes, &[Detection { class: 0, score: 0.5, bounds }]);
        assert_eq!(
            parse_voc(&text).unwrap(),
            [Marked { name: classes[0].clone(), bounds, difficult: false, crowd: false }]
        );
    }

    #[test]
    fn broken_ones_say_what_is_missing() {
        let object = |inside: &str| {
            parse_voc(&format!("<annotation><object>{inside}</object></annotation>"))
                .unwrap_err()
                .to_string()
        };
        let named = "<name>a</name>";
        assert!(object("").contains("object 1: <name> is missing"), "{}", object(""));
        assert!(object(named).contains("<bndbox> is missing"));
        let sides = "<xmin>1</xmin><ymin>x</ymin><xmax>3</xmax>";
        assert!(
            object(&format!("{named}<bndbox><xmin>1</xmin></bndbox>"))
                .contains("<ymin> is missing")
        );
        assert!(
            object(&format!("{named}<bndbox>{sides}</bndbox>")).contains("<ymin> is no number")
        );
        assert!(parse_voc("<svg/>").unwrap_err().to_string().contains("<svg>"));
        assert!(parse_voc("nothing").is_err());
    }
}
