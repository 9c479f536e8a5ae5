//! COCO's JSON: one file with the boxes of all images.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::box_files::{Annotation, NamedObject};
use super::boxes::Bounds;
use super::findings::{Findings, Oddity};
use crate::error::{Error, Result};
use crate::files;
use crate::shape::Size;

/// The content of a COCO annotation file.
#[derive(Debug, Default)]
pub struct CocoFile {
    /// The `file_name` of each image, and its annotation.
    pub images: Vec<(String, Annotation)>,
    /// The entries that were skipped.
    pub findings: Findings,
}

#[derive(Deserialize)]
struct Coco {
    images: Vec<CocoImage>,
    annotations: Vec<CocoObject>,
    categories: Vec<CocoCategory>,
}

#[derive(Deserialize)]
struct CocoImage {
    #[serde(default)]
    id: Id,
    #[serde(default)]
    file_name: Option<String>,
    #[serde(default)]
    width: Number,
    #[serde(default)]
    height: Number,
}

#[derive(Deserialize)]
struct CocoObject {
    #[serde(default)]
    image_id: Id,
    #[serde(default)]
    category_id: Id,
    #[serde(default)]
    bbox: CocoBox,
    #[serde(default)]
    iscrowd: Number,
}

#[derive(Deserialize)]
struct CocoCategory {
    #[serde(default)]
    id: Id,
    name: String,
}

/// An id. Programs write a number, or the same number as a float or as text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(from = "Value")]
enum Id {
    #[default]
    Missing,
    Number(i64),
    Text(String),
}

impl From<Value> for Id {
    fn from(value: Value) -> Self {
        match value {
            Value::Number(number) => {
                let float = number.as_f64().filter(|float| float.fract() == 0.0);
                match number.as_i64().or(float.map(|float| float as i64)) {
                    Some(whole) => Self::Number(whole),
                    None => Self::Text(number.to_string()),
                }
            }
            Value::String(text) => {
                let number = text.trim().parse();
                number.map_or_else(|_| Self::Text(text), Self::Number)
            }
            _ => Self::Missing,
        }
    }
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing => f.write_str("null"),
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) => write!(f, "{text:?}"),
        }
    }
}

/// A number, which can also be written as text or as a bool. Anything else is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(from = "Value")]
struct Number(f64);

impl From<Value> for Number {
    fn from(value: Value) -> Self {
        let flag = value.as_bool().map(|flag| f64::from(u8::from(flag)));
        Self(flag.or_else(|| number(&value)).unwrap_or(0.0))
    }
}

/// A finite number, or a text with one.
fn number(value: &Value) -> Option<f64> {
    let text = || value.as_str().and_then(|text| text.trim().parse().ok());
    value.as_f64().or_else(text).filter(|number| number.is_finite())
}

/// A box: the left and upper edge, width and height.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(from = "Value")]
enum CocoBox {
    #[default]
    Missing,
    Empty,
    Invalid,
    Edges([f64; 4]),
}

impl From<Value> for CocoBox {
    fn from(value: Value) -> Self {
        let Value::Array(values) = value else {
            return if value.is_null() { Self::Missing } else { Self::Invalid };
        };
        if values.is_empty() {
            return Self::Empty;
        }
        let numbers: Option<Vec<f64>> = values.iter().map(number).collect();
        numbers.and_then(|numbers| numbers.try_into().ok()).map_or(Self::Invalid, Self::Edges)
    }
}

/// Reads a COCO annotation file. Annotations without a valid box, and those that refer to an
/// unknown image or category, are skipped and added to [`CocoFile::findings`]. A box of negative
/// width or height has its corners in the wrong order; they are exchanged.
///
/// # Errors
/// If the file is not a COCO annotation file. The message names it.
pub fn read_coco(path: &Path) -> Result<CocoFile> {
    coco_from(&files::read(path)?).map_err(|error| error.at(path.display()))
}

/// Replaces the numbers that Python writes and JSON does not have by `null`: `NaN`, `Infinity` and
/// `-Infinity`.
fn without_nan(text: &str) -> Cow<'_, str> {
    const WORDS: [&str; 3] = ["NaN", "-Infinity", "Infinity"];
    if !WORDS.iter().any(|word| text.contains(word)) {
        return Cow::Borrowed(text);
    }
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    let (mut in_string, mut escaped) = (false, false);
    while let Some(letter) = rest.chars().next() {
        let word = WORDS.iter().find(|word| !in_string && rest.starts_with(**word));
        if let Some(word) = word {
            out.push_str("null");
            rest = &rest[word.len()..];
            continue;
        }
        in_string ^= letter == '"' && !escaped;
        escaped = in_string && letter == '\\' && !escaped;
        out.push(letter);
        rest = &rest[letter.len_utf8()..];
    }
    Cow::Owned(out)
}

/// As [`read_coco`], from the bytes of a file.
///
/// # Errors
/// Those of [`read_coco`]. The message does not name the file.
pub fn coco_from(bytes: &[u8]) -> Result<CocoFile> {
    let invalid = |error: String| Error::usage(format!("not a COCO annotation file ({error})"));
    let text = files::decode_text(bytes).map_err(|error| invalid(error.to_string()))?;
    let file: Coco =
        serde_json::from_str(&without_nan(&text)).map_err(|error| invalid(error.to_string()))?;
    let mut read = CocoFile::default();
    let mut indices: HashMap<Id, usize> = HashMap::new();
    for (i, image) in file.images.into_iter().enumerate() {
        match image {
            CocoImage { id, file_name: Some(name), width, height } if id != Id::Missing => {
                // A later image with the same id replaces the earlier one.
                let place = format!("image {} of \"images\": id {id} has", i + 1);
                if let Some(earlier) = indices.insert(id, read.images.len()) {
                    let (other, _): &(String, Annotation) = &read.images[earlier];
                    if *other != name {
                        let place = format!("{place} the names {other} and {name}");
                        read.findings.add(Oddity::RepeatedId, place);
                    }
                }
                let [h, w] = [height, width].map(|side| side.0.max(0.0) as usize);
                let size = (h > 0 && w > 0).then_some(Size { h, w });
                read.images.push((name, Annotation { size, ..Annotation::default() }));
            }
            _ => {
                let place =
                    format!("image {} of \"images\": \"id\" or \"file_name\" is missing", i + 1);
                read.findings.add(Oddity::UnnamedImage, place);
            }
        }
    }
    let names: HashMap<&Id, &str> =
        file.categories.iter().map(|category| (&category.id, category.name.as_str())).collect();
    for (i, object) in file.annotations.into_iter().enumerate() {
        let CocoObject { image_id, category_id, bbox, iscrowd } = object;
        let mut skip = |oddity: Oddity, reason: String| {
            read.findings.add(oddity, format!("annotation {}: {reason}", i + 1));
        };
        let Some(&image) = indices.get(&image_id) else {
            let reason = format!("it refers to image {image_id}, which is not in \"images\"");
            skip(Oddity::UnknownImage, reason);
            continue;
        };
        let Some(name) = names.get(&category_id).filter(|_| category_id != Id::Missing) else {
            let reason =
                format!("it refers to category {category_id}, which is not in \"categories\"");
            skip(Oddity::UnknownCategory, reason);
            continue;
        };
        let [left, top, w, h] = match bbox {
            CocoBox::Edges(edges) => edges,
            CocoBox::Missing => {
                skip(Oddity::NoBox, "\"bbox\" is missing".to_owned());
                continue;
            }
            CocoBox::Empty => {
                skip(Oddity::NoBox, "\"bbox\" is empty".to_owned());
                continue;
            }
            CocoBox::Invalid => {
                skip(Oddity::InvalidBox, "\"bbox\" is not a list of four numbers".to_owned());
                continue;
            }
        };
        let annotation = &mut read.images[image].1;
        annotation.range.include([left, top, left + w, top + h]);
        let bounds = Bounds {
            left: left.min(left + w),
            top: top.min(top + h),
            right: left.max(left + w),
            bottom: top.max(top + h),
        };
        annotation.objects.push(NamedObject {
            name: (*name).to_owned(),
            bounds,
            difficult: false,
            crowd: iscrowd.0 != 0.0,
            swapped: w < 0.0 || h < 0.0,
        });
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { left: 3.0, top: 0.0, right: 9.0, bottom: 4.0 };

    /// A COCO file with two images, one category and the given annotations.
    fn coco(annotations: &str) -> CocoFile {
        let text = format!(
            r#"{{"images": [{{"id": 7, "file_name": "a.png"}}, {{"id": 8, "file_name": "b.png"}}],
                "categories": [{{"id": 3, "name": "cat"}}], "annotations": [{annotations}]}}"#
        );
        coco_from(text.as_bytes()).unwrap()
    }

    #[test]
    fn coco_boxes_have_a_corner_and_a_size() {
        let file = coco(r#"{"image_id": 7, "category_id": 3, "bbox": [3, 0, 6, 4], "iscrowd": 1}"#);
        let cat = NamedObject {
            name: "cat".to_owned(),
            bounds: BOUNDS,
            difficult: false,
            crowd: true,
            swapped: false,
        };
        assert_eq!(file.images[0].1.objects, [cat]);
        assert_eq!(file.images[1], ("b.png".to_owned(), Annotation::default()));
    }

    #[test]
    fn unknown_images_and_categories_are_skipped() {
        for (image, category, expected) in [("9", "3", "image 9"), ("7", "null", "category null")] {
            let annotation = format!(
                r#"{{"image_id": {image}, "category_id": {category}, "bbox": [0, 0, 1, 1]}}"#
            );
            let file = coco(&annotation);
            let message = file.findings.refuse_faults().unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
            assert_eq!(file.images[0].1.objects, []);
        }
    }

    #[test]
    fn ids_are_equal_as_numbers_and_as_text() {
        let id = |text: &str| Id::from(serde_json::from_str::<Value>(text).unwrap());
        assert_eq!([id("7"), id("7.0"), id("\"7\"")], [const { Id::Number(7) }; 3]);
        assert_eq!([id("\"a7\""), id("null")], [Id::Text("a7".to_owned()), Id::Missing]);
        assert_ne!(id("7.5"), id("7"));
    }

    #[test]
    fn numbers_that_are_not_finite_are_skipped() {
        let file = coco(
            r#"{"image_id": 7, "category_id": 3, "bbox": [NaN, 0, -Infinity, 1], "a": "\\\"NaN"},
               {"image_id": 7, "category_id": 3, "bbox": [3, 0, 6, 4], "area": Infinity}"#,
        );
        assert_eq!(file.images[0].1.objects.len(), 1);
        assert_eq!(file.findings.iter().next().unwrap().oddity, Oddity::InvalidBox);
        let text = r#"["a \" NaN", "\\", NaN]"#;
        assert_eq!(without_nan(text), r#"["a \" NaN", "\\", null]"#);
    }

    #[test]
    fn other_files_are_not_coco_annotations() {
        for text in ["", "[]", r#"{"images": []}"#] {
            let message = coco_from(text.as_bytes()).unwrap_err().to_string();
            assert!(message.contains("not a COCO annotation file"), "{message}");
        }
    }
}
