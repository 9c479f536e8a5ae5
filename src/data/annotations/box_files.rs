//! Annotation files: Pascal VOC's XML (one file per image) and COCO's JSON (one file for all
//! images).

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::Path;

use roxmltree::{Document, Node, ParsingOptions};
use serde::Deserialize;

use crate::data::annotations::boxes::{Bounds, Detection};
use crate::error::{Error, Result};
use crate::files;
use crate::shape::Dims;

/// An annotated object in an image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Object {
    /// The index of its class.
    pub class: usize,
    /// The bounding box.
    pub bounds: Bounds,
    /// Whether it is marked as difficult (Pascal VOC) and is ignored in training and evaluation.
    pub difficult: bool,
    /// Whether the box contains a crowd of objects (COCO), which are not annotated one by one.
    pub crowd: bool,
}

impl Object {
    /// Whether the object is neither required nor counted as an error in evaluation.
    pub const fn ignored(&self) -> bool {
        self.difficult || self.crowd
    }
}

/// An annotated object as in a file, with the name of its class.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedObject {
    /// The name of its class.
    pub name: String,
    /// The bounding box. It can be empty or exceed the image.
    pub bounds: Bounds,
    /// See [`Object::difficult`].
    pub difficult: bool,
    /// See [`Object::crowd`].
    pub crowd: bool,
}

/// Reads a Pascal VOC annotation file. Its coordinates are pixels counted from 1, and the box
/// includes both corners. The edges of [`Bounds`] are hence xmin − 1, ymin − 1, xmax and ymax.
///
/// # Errors
/// If the file is not a Pascal VOC annotation, or an object has no name or an incomplete box. The
/// message does not name the file.
pub fn read_voc(path: &Path) -> Result<Vec<NamedObject>> {
    let bytes = files::read(path)?;
    let text = String::from_utf8(bytes)
        .map_err(|_| Error::usage("not a Pascal VOC annotation: not UTF-8"))?;
    parse_voc(&text)
}

fn parse_voc(text: &str) -> Result<Vec<NamedObject>> {
    // The limit bounds the memory for hostile files; an object takes some ten nodes.
    let options =
        ParsingOptions { allow_dtd: true, nodes_limit: 1 << 20, ..ParsingOptions::default() };
    let document = Document::parse_with_options(text, options)
        .map_err(|error| Error::usage(format!("not a Pascal VOC annotation: {error}")))?;
    let root = document.root_element();
    if !root.has_tag_name("annotation") {
        return Err(Error::usage(format!(
            "not a Pascal VOC annotation: its root is <{}>, not <annotation>",
            root.tag_name().name()
        )));
    }
    let objects = root.children().filter(|node| node.has_tag_name("object"));
    objects
        .enumerate()
        .map(|(i, object)| {
            parse_object(object).map_err(|error| error.at(format!("object {}", i + 1)))
        })
        .collect()
}

fn child<'a>(node: Node<'a, 'a>, name: &str) -> Option<Node<'a, 'a>> {
    node.children().find(|child| child.has_tag_name(name))
}

fn parse_object(object: Node<'_, '_>) -> Result<NamedObject> {
    let missing = |what: &str| Error::usage(format!("<{what}> is missing"));
    let text = |name: &str| {
        child(object, name)
            .and_then(|node| node.text())
            .map(str::trim)
            .filter(|text| !text.is_empty())
    };
    let name = text("name").ok_or_else(|| missing("name"))?.to_owned();
    let bndbox = child(object, "bndbox").ok_or_else(|| missing("bndbox"))?;
    let side = |name: &str| -> Result<f64> {
        let text = child(bndbox, name)
            .and_then(|node| node.text())
            .map(str::trim)
            .ok_or_else(|| missing(name))?;
        let value: f64 = text
            .parse()
            .map_err(|_| Error::usage(format!("<{name}> is not a number: {text:?}")))?;
        if value.is_finite() { Ok(value) } else { Err(Error::usage(format!("<{name}> is {text}"))) }
    };
    let bounds = Bounds {
        left: side("xmin")? - 1.0,
        top: side("ymin")? - 1.0,
        right: side("xmax")?,
        bottom: side("ymax")?,
    };
    Ok(NamedObject { name, bounds, difficult: text("difficult") == Some("1"), crowd: false })
}

/// The text of a Pascal VOC annotation file with the detections in an image of this size. Each
/// object has a `<confidence>`.
pub fn to_voc(
    image: &str,
    Dims { c, h, w }: Dims,
    classes: &[String],
    detections: &[Detection],
) -> String {
    let escape = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let mut out = format!(
        "<annotation>\n  <filename>{}</filename>\n  \
         <size><width>{w}</width><height>{h}</height><depth>{c}</depth></size>\n",
        escape(image)
    );
    for one in detections {
        let Bounds { left, top, right, bottom } = one.bounds;
        let _ = writeln!(
            out,
            "  <object>\n    <name>{}</name>\n    <confidence>{:.4}</confidence>\n    \
             <bndbox><xmin>{:.1}</xmin><ymin>{:.1}</ymin>\
             <xmax>{right:.1}</xmax><ymax>{bottom:.1}</ymax></bndbox>\n  </object>",
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

/// Reads a COCO annotation file. Returns the objects of each image by its `file_name`.
///
/// # Errors
/// If the file is not a COCO annotation file, or an annotation refers to an unknown image or
/// category. The message names the file.
pub fn read_coco(path: &Path) -> Result<HashMap<String, Vec<NamedObject>>> {
    parse_coco(&files::read(path)?).map_err(|error| error.at(path.display()))
}

fn parse_coco(bytes: &[u8]) -> Result<HashMap<String, Vec<NamedObject>>> {
    let file: Coco = serde_json::from_slice(bytes)
        .map_err(|error| Error::usage(format!("not a COCO annotation file ({error})")))?;
    let images: HashMap<u64, String> =
        file.images.into_iter().map(|image| (image.id, image.file_name)).collect();
    let names: HashMap<u64, &str> =
        file.categories.iter().map(|category| (category.id, category.name.as_str())).collect();
    let mut objects: HashMap<String, Vec<NamedObject>> =
        images.values().map(|name| (name.clone(), Vec::new())).collect();
    for object in file.annotations {
        let image = images.get(&object.image_id).ok_or_else(|| {
            Error::usage(format!(
                "an annotation refers to image {}, which is not in \"images\"",
                object.image_id
            ))
        })?;
        let name = names.get(&object.category_id).ok_or_else(|| {
            Error::usage(format!(
                "an annotation refers to category {}, which is not in \"categories\"",
                object.category_id
            ))
        })?;
        let [left, top, w, h] = object.bbox;
        let bounds = Bounds { left, top, right: left + w, bottom: top + h };
        objects.entry(image.clone()).or_default().push(NamedObject {
            name: (*name).to_owned(),
            bounds,
            difficult: false,
            crowd: object.iscrowd != 0,
        });
    }
    Ok(objects)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { left: 3.0, top: 0.0, right: 9.0, bottom: 4.0 };

    #[test]
    fn voc_annotations_survive_a_round_trip() {
        let classes = ["a & b".to_owned()];
        let detection = Detection { class: 0, score: 0.5, bounds: BOUNDS };
        let text = to_voc("x<y>.png", Dims::new(3, 10, 20), &classes, &[detection]);
        assert_eq!(
            parse_voc(&text).unwrap(),
            [NamedObject {
                name: classes[0].clone(),
                bounds: BOUNDS,
                difficult: false,
                crowd: false
            }]
        );
    }

    #[test]
    fn difficult_voc_objects_are_marked() {
        let text = "<annotation><object><name>a</name><difficult>1</difficult><bndbox>\
                    <xmin>4</xmin><ymin>1</ymin><xmax>9</xmax><ymax>4</ymax></bndbox></object>\
                    </annotation>";
        let objects = parse_voc(text).unwrap();
        assert_eq!((objects[0].difficult, objects[0].bounds), (true, BOUNDS));
    }

    #[test]
    fn incomplete_voc_objects_are_refused() {
        for (object, expected) in [
            ("", "object 1: <name> is missing"),
            ("<name>a</name>", "object 1: <bndbox> is missing"),
            ("<name>a</name><bndbox><xmin>1</xmin></bndbox>", "<ymin> is missing"),
            (
                "<name>a</name><bndbox><xmin>1</xmin><ymin>x</ymin><xmax>3</xmax></bndbox>",
                "<ymin> is not a number: \"x\"",
            ),
            ("<name>a</name><bndbox><xmin>inf</xmin></bndbox>", "<xmin> is inf"),
        ] {
            let text = format!("<annotation><object>{object}</object></annotation>");
            let message = parse_voc(&text).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn other_files_are_not_voc_annotations() {
        for (text, expected) in [("<svg/>", "<svg>"), ("nothing", "not a Pascal VOC annotation")] {
            let message = parse_voc(text).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }

    /// A COCO file with one image, one category and the given annotations.
    fn coco(annotations: &str) -> Result<HashMap<String, Vec<NamedObject>>> {
        let text = format!(
            r#"{{"images": [{{"id": 7, "file_name": "a.png"}}, {{"id": 8, "file_name": "b.png"}}],
                "categories": [{{"id": 3, "name": "cat"}}], "annotations": [{annotations}]}}"#
        );
        parse_coco(text.as_bytes())
    }

    #[test]
    fn coco_boxes_have_a_corner_and_a_size() {
        let objects =
            coco(r#"{"image_id": 7, "category_id": 3, "bbox": [3, 0, 6, 4], "iscrowd": 1}"#)
                .unwrap();
        let cat =
            NamedObject { name: "cat".to_owned(), bounds: BOUNDS, difficult: false, crowd: true };
        assert_eq!(objects["a.png"], [cat]);
        assert_eq!(objects["b.png"], []);
    }

    #[test]
    fn coco_references_must_exist() {
        for (image, category, expected) in [(9, 3, "image 9"), (7, 4, "category 4")] {
            let annotation = format!(
                r#"{{"image_id": {image}, "category_id": {category}, "bbox": [0, 0, 1, 1]}}"#
            );
            let message = coco(&annotation).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn other_files_are_not_coco_annotations() {
        for text in ["", "[]", r#"{"images": []}"#] {
            let message = parse_coco(text.as_bytes()).unwrap_err().to_string();
            assert!(message.contains("not a COCO annotation file"), "{message}");
        }
    }
}
