//! Parquet files with a column of encoded images, as Hugging Face's data sets have them: `image` is
//! a structure of `bytes` and `path`, and `label` a number, whose names are in the metadata.
//!
//! The reader knows the encodings and compressions that such files have by default. It trusts no
//! declared length, which the general readers of the format do.

mod lz4;
mod page;
mod snappy;
mod thrift;

use std::ops::Range;

use serde_json::Value as Json;

use self::page::{Column, Page, Values};
use self::thrift::{Reader, Value};
use super::labels::{Label, classes};
use super::{Container, Format, Opening, Source, check_count, has_extension};
use crate::budget;
use crate::data::numbers::{Input, damaged, too_large};
use crate::error::{Error, Result};

pub(super) const FORMAT: Format = Format {
    name: "parquet",
    sniffs: |start, path| {
        start.starts_with(b"PAR1")
            || start.starts_with(b"PARE")
            || has_extension(path, &["parquet"])
    },
    open,
};

/// Maximum size of the description in bytes. Its tree takes about 40 times the memory.
const MAX_FOOTER: u64 = 16 << 20;
/// Memory for the name and the label of a row in bytes, without long texts.
const ROW: u64 = 96;
/// Physical types.
const INT32: i64 = 1;
const INT64: i64 = 2;
const BYTES: i64 = 6;

/// A column of the schema.
#[derive(Clone, Debug)]
struct Leaf {
    /// Its number among the columns of a row group.
    number: usize,
    path: Vec<String>,
    kind: i64,
    /// Number of optional levels.
    max_level: u32,
    is_repeated: bool,
}

impl Leaf {
    /// The name of the top-level column.
    fn top(&self) -> &str {
        self.path.first().map_or("", String::as_str)
    }

    /// Whether it can hold images: bytes at the top, or `bytes` of a structure.
    fn holds_images(&self) -> bool {
        self.kind == BYTES
            && !self.is_repeated
            && (self.path.len() == 1 || self.path.len() == 2 && self.path[1] == "bytes")
    }

    /// Whether it can hold labels.
    fn holds_labels(&self) -> bool {
        matches!(self.kind, INT32 | INT64 | BYTES) && !self.is_repeated && self.path.len() == 1
    }
}

/// What Hugging Face's metadata state about the columns.
#[derive(Default)]
struct Features {
    images: Vec<String>,
    /// Columns of classes, with their names.
    classes: Vec<(String, Vec<String>)>,
}

/// A part of a column: its pages, the first row of each, and the dictionary.
struct Part {
    dictionary: Option<Page>,
    pages: Vec<(u64, Page)>,
    codec: i64,
}

fn open(mut opening: Opening<'_>) -> Result<Container> {
    let description = describe(&mut opening)?;
    let leaves = leaves(&description)?;
    let features = features(&description);
    let image = image_column(&leaves, &features, opening.inside)?;
    let groups = description.list(4);
    let rows = |group: &Value| {
        let rows = group.integer(3).and_then(|rows| u64::try_from(rows).ok());
        rows.ok_or_else(|| damaged("a row group has no number of rows"))
    };
    let mut count = 0_u64;
    for group in groups {
        count = count.checked_add(rows(group)?).ok_or_else(|| damaged("it has too many rows"))?;
    }
    check_count(count)?;
    let needed = count * ROW;
    if needed > opening.limit {
        return Err(too_large(needed, opening.limit, "split the file"));
    }
    let mut notes = Vec::new();
    let others: Vec<&str> = leaves
        .iter()
        .filter(|leaf| leaf.holds_images() && features.images.iter().any(|name| name == leaf.top()))
        .map(Leaf::top)
        .filter(|name| *name != image.top())
        .collect();
    if !others.is_empty() {
        notes.push(format!("images of {}, not of {}", image.top(), others.join(", ")));
    }
    let mut parts = Vec::new();
    for (group, first) in groups.iter().zip(first_rows(groups, rows)?) {
        let part = part(&mut opening, group, image, first, rows(group)?)?;
        if !part.pages.is_empty() {
            parts.push(part);
        }
    }
    let mut names: Vec<String> = number_names(count as usize);
    let path = leaves.iter().find(|leaf| {
        image.path.len() == 2 && leaf.path == [image.path[0].as_str(), "path"] && leaf.kind == BYTES
    });
    if let Some(path) = path {
        for (index, value) in column(&mut opening, groups, path)?.into_iter().enumerate() {
            if let (Some(Label::Text(path)), Some(name)) = (value, names.get_mut(index)) {
                *name = path;
            }
        }
    }
    let label = label_column(&leaves, &features, image);
    let mut labels = None;
    if let Some((leaf, class_names)) = label {
        let values = column(&mut opening, groups, leaf)?;
        labels = classes(&values, class_names, &mut notes).map_err(|e| e.at(leaf.top()))?;
        if labels.is_some() {
            notes.push(format!("labels of the column {}", leaf.top()));
        }
    }
    let source = Images {
        file: opening.file,
        size: opening.size,
        limit: opening.limit,
        max_level: image.max_level,
        parts,
        last_dictionary: None,
        last: None,
    };
    Container::new(names, labels, notes, Box::new(source))
}

/// The names of images without a path: their numbers, with leading zeros.
fn number_names(count: usize) -> Vec<String> {
    let digits = count.saturating_sub(1).max(1).ilog10() as usize + 1;
    (0..count).map(|index| format!("{index:0digits$}")).collect()
}

/// The first row of each row group.
fn first_rows(groups: &[Value], rows: impl Fn(&Value) -> Result<u64>) -> Result<Vec<u64>> {
    let mut next = 0;
    let mut first = Vec::new();
    for group in groups {
        first.push(next);
        next += rows(group)?;
    }
    Ok(first)
}

/// Reads the description at the end of the file.
fn describe(opening: &mut Opening<'_>) -> Result<Value> {
    let Some(at) = opening.size.checked_sub(8).filter(|at| *at >= 4) else {
        return Err(damaged("it ends too early"));
    };
    let tail = opening.bytes(at, 8)?;
    if &tail[4..] == b"PARE" {
        return Err(Error::usage("is encrypted; save it without encryption"));
    }
    let len = tail.first_chunk().map_or(0, |len| u64::from(u32::from_le_bytes(*len)));
    if &tail[4..] != b"PAR1" || len > at {
        return Err(damaged("its end is missing"));
    }
    if len > MAX_FOOTER.min(opening.limit) {
        return Err(too_large(len, MAX_FOOTER.min(opening.limit), "split the file"));
    }
    let bytes = opening.bytes(at - len, len as usize)?;
    Reader::new(&bytes).structure()
}

/// The columns of the schema, which lists a tree depth first.
fn leaves(description: &Value) -> Result<Vec<Leaf>> {
    /// Maximum depth of the schema.
    const MAX_DEPTH: usize = 32;
    // Structures that are open: remaining children, name, optional levels, whether repeated.
    let mut open: Vec<(i64, String, u32, bool)> = Vec::new();
    let mut leaves = Vec::new();
    for (index, element) in description.list(2).iter().enumerate() {
        let name = element.text(4).unwrap_or_default();
        let repetition = element.integer(3).unwrap_or(0);
        while open.pop_if(|last| last.0 == 0).is_some() {}
        if let Some(last) = open.last_mut() {
            last.0 -= 1;
        }
        let (level, repeated) = open.last().map_or((0, false), |last| (last.2, last.3));
        // Optional or repeated elements add a level. The root has no repetition.
        let level = level + u32::from(index > 0 && repetition != 0);
        let repeated = repeated || index > 0 && repetition == 2;
        let children = element.integer(5).unwrap_or(0);
        if children > 0 {
            if open.len() >= MAX_DEPTH {
                return Err(damaged("its schema is nested too deeply"));
            }
            open.push((children, name, level, repeated));
        } else {
            let folders = open.iter().skip(1).map(|(_, name, ..)| name.clone());
            leaves.push(Leaf {
                number: leaves.len(),
                path: folders.chain([name]).collect(),
                kind: element.integer(1).unwrap_or(-1),
                max_level: level,
                is_repeated: repeated,
            });
        }
    }
    Ok(leaves)
}

/// Reads the features in Hugging Face's metadata.
fn features(description: &Value) -> Features {
    let entry =
        description.list(5).iter().find(|entry| entry.text(1).as_deref() == Some("huggingface"));
    let text = entry.and_then(|entry| entry.text(2)).unwrap_or_default();
    let json: Json = serde_json::from_str(&text).unwrap_or(Json::Null);
    let mut features = Features::default();
    for (name, feature) in json["info"]["features"].as_object().into_iter().flatten() {
        match feature["_type"].as_str() {
            Some("Image") => features.images.push(name.clone()),
            Some("ClassLabel") => {
                let names = feature["names"].as_array().into_iter().flatten();
                let names = names.map(|name| name.as_str().unwrap_or_default().to_owned());
                features.classes.push((name.clone(), names.collect()));
            }
            _ => {}
        }
    }
    features
}

/// The column of the images: the one that was asked for, that of the metadata, or the only one.
fn image_column<'a>(
    leaves: &'a [Leaf],
    features: &Features,
    inside: Option<&str>,
) -> Result<&'a Leaf> {
    let all: Vec<&Leaf> = leaves.iter().filter(|leaf| leaf.holds_images()).collect();
    let names = || all.iter().map(|leaf| leaf.top()).collect::<Vec<_>>().join(", ");
    if let Some(name) = inside {
        let found = all.iter().find(|leaf| leaf.top() == name).copied();
        return found.ok_or_else(|| {
            Error::usage(format!("has no column of images {name:?}; columns of bytes: {}", names()))
        });
    }
    let of_feature = |name: &String| all.iter().find(|leaf| leaf.top() == name).copied();
    if let Some(leaf) = features.images.iter().find_map(of_feature) {
        return Ok(leaf);
    }
    let mut structures = all.iter().filter(|leaf| leaf.path.len() == 2);
    if let (Some(leaf), None) = (structures.next(), structures.next()) {
        return Ok(leaf);
    }
    let known = ["image", "img", "jpg", "jpeg", "png", "webp", "bytes"];
    if let Some(leaf) = all.iter().find(|leaf| known.contains(&leaf.top())) {
        return Ok(leaf);
    }
    Err(match &all[..] {
        [] => Error::usage("has no column of images, which are bytes of image files"),
        _ => Error::usage(format!(
            "has no column that is known to hold images; append : and one of {}",
            names()
        )),
    })
}

/// The column of the labels, with the names of its classes.
fn label_column<'a>(
    leaves: &'a [Leaf],
    features: &Features,
    image: &Leaf,
) -> Option<(&'a Leaf, Option<Vec<String>>)> {
    let known = ["label", "labels", "fine_label", "cls", "class", "target"];
    let find = |name: &str| {
        leaves
            .iter()
            .find(|leaf| leaf.top() == name && leaf.holds_labels() && leaf.number != image.number)
    };
    let mut classes: Vec<&(String, Vec<String>)> = features.classes.iter().collect();
    let rank = |name: &str| known.iter().position(|known| *known == name).unwrap_or(known.len());
    classes.sort_by_key(|(name, _)| rank(name));
    if let Some((leaf, names)) =
        classes.into_iter().find_map(|(name, names)| Some((find(name)?, names)))
    {
        return Some((leaf, Some(names.clone())));
    }
    known.iter().find_map(|name| find(name)).map(|leaf| (leaf, None))
}

/// Finds the pages of a column in a row group whose first row is `first`.
fn part(
    opening: &mut Opening<'_>,
    group: &Value,
    leaf: &Leaf,
    first: u64,
    rows: u64,
) -> Result<Part> {
    let chunk = group.list(1).get(leaf.number).ok_or_else(|| damaged("a column is missing"))?;
    if chunk.field(1).is_some() {
        return Err(Error::usage("has columns in other files; save it as one file"));
    }
    let meta = chunk.field(3).ok_or_else(|| damaged("a column has no description"))?;
    let codec = meta.integer(4).unwrap_or(0);
    let offset = |number| meta.integer(number).and_then(|at| u64::try_from(at).ok());
    let data = offset(9).ok_or_else(|| damaged("a column has no position"))?;
    // Some writers set the offset of a dictionary that does not exist to 0.
    let mut at = offset(11).filter(|at| *at > 0 && *at < data).unwrap_or(data);
    let mut part = Part { dictionary: None, pages: Vec::new(), codec };
    let mut row = 0;
    while row < rows {
        let (page, next) = Page::read(&mut opening.file, opening.size, at)?;
        at = next;
        match page {
            Some(page) if page.is_dictionary() => part.dictionary = Some(page),
            Some(page) => {
                let count = page.count as u64;
                part.pages.push((first + row, page));
                row = row.saturating_add(count);
            }
            None => {}
        }
    }
    if row != rows { Err(damaged("a column has another number of rows")) } else { Ok(part) }
}

/// All values of a column of numbers or of text.
fn column(opening: &mut Opening<'_>, groups: &[Value], leaf: &Leaf) -> Result<Vec<Option<Label>>> {
    let mut labels = Vec::new();
    // A text in a dictionary can stand for many rows.
    let mut text = 0;
    for group in groups {
        let rows = group.integer(3).and_then(|rows| u64::try_from(rows).ok()).unwrap_or(0);
        let part = part(opening, group, leaf, 0, rows)?;
        let mut column = Column {
            file: &mut opening.file,
            size: opening.size,
            codec: part.codec,
            max_level: leaf.max_level,
            limit: opening.limit,
            width: match leaf.kind {
                INT32 => Some(4),
                INT64 => Some(8),
                _ => None,
            },
        };
        let dictionary = part.dictionary.map(|page| column.values(&page, None)).transpose()?;
        for (_, page) in &part.pages {
            let values = column.values(page, dictionary.as_ref())?;
            let bytes = match &dictionary {
                Some(dictionary) if values.of_dictionary => &dictionary.bytes,
                _ => &values.bytes,
            };
            let ranges = values.ranges.iter().flatten();
            text += ranges.map(|range| range.len() as u64).sum::<u64>();
            if text > opening.limit {
                return Err(too_large(text, opening.limit, "split the file"));
            }
            let label = |range: Range<usize>| {
                let bytes = &bytes[range];
                match leaf.kind {
                    INT32 | INT64 => {
                        let mut number =
                            [if bytes[bytes.len() - 1] >> 7 == 0 { 0 } else { 0xff }; 8];
                        number[..bytes.len()].copy_from_slice(bytes);
                        Label::Number(i64::from_le_bytes(number))
                    }
                    _ => Label::Text(String::from_utf8_lossy(bytes).into_owned()),
                }
            };
            labels.extend(values.ranges.iter().map(|range| range.clone().map(label)));
        }
    }
    Ok(labels)
}

/// The images of a file. The last page and dictionary are kept.
struct Images {
    file: Box<dyn Input>,
    size: u64,
    limit: u64,
    max_level: u32,
    parts: Vec<Part>,
    last_dictionary: Option<(usize, Values)>,
    last: Option<(usize, usize, Values)>,
}

impl Source for Images {
    fn read(&mut self, index: usize) -> Result<Vec<u8>> {
        let row = index as u64;
        let missing = || damaged("the image is missing");
        let starts_at_or_before = |part: &Part| part.pages.first().is_none_or(|p| p.0 <= row);
        let part = self.parts.partition_point(starts_at_or_before).checked_sub(1);
        let part = part.ok_or_else(missing)?;
        let pages = &self.parts[part].pages;
        let number = pages.partition_point(|page| page.0 <= row).checked_sub(1);
        let number = number.ok_or_else(missing)?;
        if self.last.as_ref().is_none_or(|last| (last.0, last.1) != (part, number)) {
            self.last = None;
            let values = self.page(part, number)?;
            self.last = Some((part, number, values));
        }
        let Some((_, _, values)) = &self.last else { return Err(missing()) };
        let first = self.parts[part].pages[number].0;
        let range = values.ranges.get((row - first) as usize).ok_or_else(missing)?;
        let Some(range) = range else {
            return Err(Error::usage("the image is null: the file has only its path"));
        };
        let bytes = match &self.last_dictionary {
            Some((_, dictionary)) if values.of_dictionary => &dictionary.bytes,
            _ => &values.bytes,
        };
        budget::copied(bytes.get(range.clone()).ok_or_else(missing)?, "an image file")
    }
}

impl Images {
    /// The values of a page. Its dictionary is kept.
    fn page(&mut self, part: usize, number: usize) -> Result<Values> {
        let Part { dictionary, pages, codec } = &self.parts[part];
        let mut column = Column {
            file: &mut self.file,
            size: self.size,
            codec: *codec,
            max_level: self.max_level,
            limit: self.limit,
            width: None,
        };
        if self.last_dictionary.as_ref().is_none_or(|(last, _)| *last != part) {
            self.last_dictionary = None;
            if let Some(dictionary) = dictionary {
                self.last_dictionary = Some((part, column.values(dictionary, None)?));
            }
        }
        let dictionary = self.last_dictionary.as_ref().map(|(_, dictionary)| dictionary);
        column.values(&pages[number].1, dictionary)
    }
}
