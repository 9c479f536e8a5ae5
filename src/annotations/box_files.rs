//! Objects in annotation files, and Pascal VOC's XML: one file per image.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::path::Path;

use roxmltree::{Document, Node, ParsingOptions};

use crate::annotations::boxes::{Bounds, Detection};
use crate::error::{Error, Result};
use crate::files;
use crate::shape::{Dims, Size};

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
    /// Whether the corners of the box were in the wrong order.
    pub swapped: bool,
}

/// The annotation of an image.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Annotation {
    /// The size of the image that the boxes refer to, if the file states one.
    pub size: Option<Size>,
    /// The objects.
    pub objects: Vec<NamedObject>,
    /// The range of the coordinates.
    pub range: Range,
    /// The name of the image file, if the annotation file states one.
    pub file_name: Option<String>,
    /// The ratio by which the boxes were scaled to their image, if they were.
    pub scale: Option<f64>,
}

/// What the coordinates of boxes, as they are in a file, have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// Whether all coordinates are from 0 to 1.
    pub in_unit: bool,
    /// Whether all coordinates are whole numbers.
    pub whole: bool,
}

impl Default for Range {
    /// The range of no coordinate.
    fn default() -> Self {
        Self { in_unit: true, whole: true }
    }
}

impl Range {
    /// Includes the corners of a box.
    pub fn include(&mut self, corners: [f64; 4]) {
        // The sum of a fraction and a width can exceed 1 by rounding.
        self.in_unit &= corners.iter().all(|value| (0.0..=1.0 + 1e-6).contains(value));
        self.whole &= corners.iter().all(|value| value.fract() == 0.0);
    }

    /// The range of the coordinates of both.
    pub const fn and(self, other: Self) -> Self {
        Self { in_unit: self.in_unit && other.in_unit, whole: self.whole && other.whole }
    }
}

/// Reads a Pascal VOC annotation file. Its coordinates are pixels counted from 1, and the box
/// includes both corners. The edges of [`Bounds`] are hence xmin − 1, ymin − 1, xmax and ymax. If
/// the edges are in the wrong order, left > right or top > bottom, they are exchanged, and
/// [`NamedObject::swapped`] is set.
///
/// # Errors
/// If the file is not a Pascal VOC annotation, or an object has no name or an incomplete box. The
/// message does not name the file.
pub fn read_voc(path: &Path) -> Result<Annotation> {
    voc_from(&files::read(path)?)
}

/// As [`read_voc`], from the bytes of a file.
///
/// # Errors
/// Those of [`read_voc`].
pub fn voc_from(bytes: &[u8]) -> Result<Annotation> {
    parse_voc(&decode_xml(bytes)?)
}

fn not_voc(reason: impl std::fmt::Display) -> Error {
    Error::usage(format!("not a Pascal VOC annotation: {reason}"))
}

/// Decodes an XML file in the encoding of its byte order mark or its declaration: UTF-8, UTF-16
/// with a mark, ISO-8859-1 or Windows-1252.
fn decode_xml(bytes: &[u8]) -> Result<Cow<'_, str>> {
    let declaration = bytes
        .starts_with(b"<?xml")
        .then(|| bytes.windows(2).position(|end| end == b"?>"))
        .flatten()
        .map_or("", |end| std::str::from_utf8(&bytes[..end]).unwrap_or_default());
    let encoding = declaration
        .split_once("encoding")
        .and_then(|(_, rest)| rest.split(['\'', '"']).nth(1))
        .unwrap_or("utf-8");
    match encoding.to_lowercase().as_str() {
        // The declaration was read byte by byte, so the file is not in UTF-16, whatever it says.
        "utf-8" | "utf8" | "us-ascii" | "ascii" | "utf-16" => {
            files::decode_text(bytes).map_err(|error| not_voc(format!("{error}; save it as UTF-8")))
        }
        // Programs use the second name for both. They differ in characters that ISO-8859-1 does not
        // have. See <https://encoding.spec.whatwg.org/#names-and-labels>.
        "windows-1252" | "cp1252" | "iso-8859-1" | "iso8859-1" | "iso_8859-1" | "latin1"
        | "latin-1" => Ok(bytes.iter().map(|byte| windows_1252(*byte)).collect::<String>().into()),
        _ => Err(not_voc(format!("the encoding {encoding} is not supported; save it as UTF-8"))),
    }
}

/// The character of a byte in Windows-1252. It differs from ISO-8859-1 in the bytes 0x80 to 0x9f.
fn windows_1252(byte: u8) -> char {
    const SPECIAL: [char; 32] = [
        '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž',
        '\u{8f}', '\u{90}', '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9d}',
        'ž', 'Ÿ',
    ];
    match byte {
        0x80..=0x9f => SPECIAL[usize::from(byte - 0x80)],
        _ => char::from(byte),
    }
}

fn parse_voc(text: &str) -> Result<Annotation> {
    // The limit bounds the memory for hostile files; an object takes some ten nodes.
    let options =
        ParsingOptions { allow_dtd: true, nodes_limit: 1 << 20, ..ParsingOptions::default() };
    let document = Document::parse_with_options(text, options).map_err(not_voc)?;
    let root = document.root_element();
    if !root.has_tag_name("annotation") {
        let name = root.tag_name().name();
        return Err(not_voc(format!("its root is <{name}>, not <annotation>")));
    }
    let side = |name: &str| -> Option<usize> {
        let text = child(child(root, "size")?, name)?.text()?;
        // Some programs write a float.
        text.trim().parse::<f64>().ok().map(|side| side as usize).filter(|side| *side > 0)
    };
    let size = side("height").zip(side("width")).map(|(h, w)| Size { h, w });
    let file_name = child(root, "filename").and_then(|node| node.text());
    let file_name = file_name.map(|name| name.trim().to_owned());
    let mut annotation = Annotation { size, file_name, ..Annotation::default() };
    let objects = root.children().filter(|node| node.has_tag_name("object"));
    for (i, object) in objects.enumerate() {
        let object = parse_object(object, &mut annotation.range)
            .map_err(|error| error.at(format!("object {}", i + 1)))?;
        annotation.objects.push(object);
    }
    Ok(annotation)
}

fn child<'a>(node: Node<'a, 'a>, name: &str) -> Option<Node<'a, 'a>> {
    node.children().find(|child| child.has_tag_name(name))
}

fn parse_object(object: Node<'_, '_>, range: &mut Range) -> Result<NamedObject> {
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
    let [xmin, ymin, xmax, ymax] = [side("xmin")?, side("ymin")?, side("xmax")?, side("ymax")?];
    range.include([xmin, ymin, xmax, ymax]);
    // A box with xmin = xmax + 1 is empty.
    let edges = |min: f64, max: f64| {
        let is_swapped = min - 1.0 > max;
        if is_swapped { (max - 1.0, min, true) } else { (min - 1.0, max, false) }
    };
    let ((left, right, swapped_x), (top, bottom, swapped_y)) =
        (edges(xmin, xmax), edges(ymin, ymax));
    Ok(NamedObject {
        name,
        bounds: Bounds { left, top, right, bottom },
        difficult: text("difficult") == Some("1"),
        crowd: false,
        swapped: swapped_x || swapped_y,
    })
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
            parse_voc(&text).unwrap().objects,
            [NamedObject {
                name: classes[0].clone(),
                bounds: BOUNDS,
                difficult: false,
                crowd: false,
                swapped: false
            }]
        );
    }

    #[test]
    fn difficult_voc_objects_are_marked() {
        let text = "<annotation><object><name>a</name><difficult>1</difficult><bndbox>\
                    <xmin>4</xmin><ymin>1</ymin><xmax>9</xmax><ymax>4</ymax></bndbox></object>\
                    </annotation>";
        let objects = parse_voc(text).unwrap().objects;
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

    #[test]
    fn latin_1_is_decoded() {
        let text = b"<?xml version=\"1.0\" encoding=\"ISO-8859-1\"?>\xfc\x80";
        assert!(decode_xml(text).unwrap().ends_with("?>ü€"));
        assert_eq!(decode_xml("\u{feff}<a>ü".as_bytes()).unwrap(), "<a>ü");
    }
}
