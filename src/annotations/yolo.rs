//! YOLO's annotations: a text file per image, with a line per object. A line has the number of the
//! class and the box as fractions of the image size: centre x and y, width and height. Instead of
//! the box it can have the corners of a polygon. See
//! <https://docs.ultralytics.com/datasets/detect/>.

use std::path::{Path, PathBuf};

use super::box_files::{Annotation, NamedObject};
use super::boxes::Bounds;
use super::findings::Oddity;
use crate::error::{Error, Result};
use crate::files;
use crate::shape::Size;

/// Fractions can exceed 0 and 1 by rounding.
const TOLERANCE: f64 = 1e-3;

/// Files with the names of the classes, one per line.
const NAME_LISTS: [&str; 2] = ["classes.txt", "obj.names"];

/// Reads the annotation of an image of `size`. Returns it with the odd lines, which are left out:
/// the kind, and what is wrong in which line. `names` are those of the classes; without them, the
/// names are numbers.
///
/// # Errors
/// If the file cannot be read or is not text. The message does not name the file.
pub fn read_yolo(
    path: &Path,
    size: Size,
    names: Option<&[String]>,
) -> Result<(Annotation, Vec<(Oddity, String)>)> {
    yolo_from(&files::read(path)?, size, names)
}

/// As [`read_yolo`], from the bytes of a file.
///
/// # Errors
/// If the file is not text.
pub fn yolo_from(
    bytes: &[u8],
    size: Size,
    names: Option<&[String]>,
) -> Result<(Annotation, Vec<(Oddity, String)>)> {
    Ok(parse(&files::decode_text(bytes)?, size, names))
}

fn parse(text: &str, size: Size, names: Option<&[String]>) -> (Annotation, Vec<(Oddity, String)>) {
    let (mut annotation, mut odd) = (Annotation::default(), Vec::new());
    let lines = text.lines().map(str::trim).enumerate().filter(|(_, line)| !line.is_empty());
    for (number, line) in lines {
        match object(line, size, names) {
            Ok(object) => annotation.objects.push(object),
            Err((oddity, reason)) => odd.push((oddity, format!("line {}: {reason}", number + 1))),
        }
    }
    (annotation, odd)
}

/// The object of a line.
fn object(
    line: &str,
    size: Size,
    names: Option<&[String]>,
) -> Result<NamedObject, (Oddity, String)> {
    let invalid = |reason: &str| (Oddity::InvalidBox, reason.to_owned());
    let values: Option<Vec<f64>> = line
        .split_whitespace()
        .map(|word| word.parse().ok().filter(|v: &f64| v.is_finite()))
        .collect();
    let values = values.ok_or_else(|| invalid("a value is not a number"))?;
    let Some((class, values)) = values.split_first() else {
        return Err(invalid("the line is empty"));
    };
    // A box can be followed by a confidence.
    let is_polygon = values.len() >= 6 && values.len() % 2 == 0;
    let sides = match *values {
        [x, y, w, h] | [x, y, w, h, _] => [x - w / 2.0, y - h / 2.0, x + w / 2.0, y + h / 2.0],
        _ if is_polygon => {
            let range = |first: usize| {
                let values = values.iter().skip(first).step_by(2).copied();
                (values.clone().fold(f64::INFINITY, f64::min), values.fold(f64::MIN, f64::max))
            };
            let ((left, right), (top, bottom)) = (range(0), range(1));
            [left, top, right, bottom]
        }
        _ => return Err(invalid("it has no box: the class, and x, y, width and height")),
    };
    // The centre and the size, or the corners, are inside of the image.
    let count = if is_polygon { values.len() } else { 4 };
    if values[..count].iter().any(|value| !(-TOLERANCE..=1.0 + TOLERANCE).contains(value)) {
        return Err(invalid("a coordinate is not from 0 to 1; divide pixels by the image size"));
    }
    let known = names.map_or(usize::MAX, <[String]>::len);
    if class.fract() != 0.0 || *class < 0.0 || *class >= known as f64 {
        let reason = format!("the class {class} is not one of the {known} classes");
        return Err((Oddity::UnknownCategory, reason));
    }
    let name = names.map_or_else(|| class.to_string(), |names| names[*class as usize].clone());
    let (w, h) = (size.w as f64, size.h as f64);
    let [left, top, right, bottom] = sides;
    let bounds = Bounds { left: left * w, top: top * h, right: right * w, bottom: bottom * h };
    Ok(NamedObject { name, bounds, difficult: false, crowd: false, swapped: false })
}

/// The names of the classes, from a list or a YAML file in the folder of annotations or up to two
/// folders above it. `None` if no such file exists.
///
/// # Errors
/// If such a file cannot be read.
pub fn class_names(folder: &Path) -> Result<Option<Vec<String>>> {
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    for folder in folder.ancestors().take(3) {
        for name in NAME_LISTS {
            let file = folder.join(name);
            if file.is_file() {
                let lines = text(&file)?;
                let names = lines.lines().map(str::trim).filter(|line| !line.is_empty());
                return Ok(Some(names.map(str::to_owned).collect()));
            }
        }
        for file in yaml_files(folder) {
            if let Some(names) = names_in_yaml(&text(&file)?) {
                return Ok(Some(names));
            }
        }
    }
    Ok(None)
}

fn text(file: &Path) -> Result<String> {
    let bytes = files::read(file)?;
    let text = files::decode_text(&bytes).map_err(|error: Error| error.at(file.display()))?;
    Ok(text.into_owned())
}

/// The YAML files in a folder, sorted.
fn yaml_files(folder: &Path) -> Vec<PathBuf> {
    let is_yaml = |path: &PathBuf| {
        path.extension().is_some_and(|end| end == "yaml" || end == "yml") && path.is_file()
    };
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(is_yaml).collect();
    found.sort();
    found
}

/// The names in a YAML file: the value of its key `names`, a list or a table by number, in a line
/// or in a block.
fn names_in_yaml(text: &str) -> Option<Vec<String>> {
    let mut lines = text.lines().skip_while(|line| !line.starts_with("names:"));
    let first = without_comment(lines.next()?.strip_prefix("names:")?);
    let items: Vec<String> = if first.starts_with(['[', '{']) {
        let mut flow = first.to_owned();
        while !flow.ends_with([']', '}']) {
            flow.push_str(without_comment(lines.next()?));
        }
        flow[1..flow.len() - 1].split(',').map(str::to_owned).collect()
    } else {
        let is_inside = |line: &&str| line.starts_with([' ', '\t', '-', '#']) || line.is_empty();
        let block = lines.take_while(is_inside).map(without_comment);
        block.map(|line| line.strip_prefix("- ").unwrap_or(line).to_owned()).collect()
    };
    let items = items.iter().map(|item| item.trim()).filter(|item| !item.is_empty());
    // In a table, the numbers are in front of the names.
    let mut names: Vec<(usize, String)> = Vec::new();
    for (at, item) in items.enumerate() {
        let entry = item.split_once(':');
        let numbered = entry.and_then(|(number, name)| Some((number.trim().parse().ok()?, name)));
        let (number, name) = numbered.unwrap_or((at, item));
        names.push((number, name.trim().trim_matches(['\'', '"']).to_owned()));
    }
    names.sort_by_key(|(number, _)| *number);
    let is_complete = names.iter().enumerate().all(|(at, (number, _))| at == *number);
    (!names.is_empty() && is_complete).then(|| names.into_iter().map(|(_, name)| name).collect())
}

/// A line of YAML without spaces around it and without a comment.
fn without_comment(line: &str) -> &str {
    let line = line.trim();
    if line.starts_with('#') { "" } else { line.split(" #").next().unwrap_or(line).trim() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Folder;

    const SIZE: Size = Size::new(50, 200);

    #[test]
    fn boxes_and_polygons_are_read_in_pixels() {
        let text = "1 0.5 0.5 0.25 0.4\r\n\n0 0 0 0.5 0.2 0.1 1\n7 0.5 0.5 1 1 0.9\n";
        let (annotation, odd) = parse(text, SIZE, None);
        assert!(odd.is_empty(), "{odd:?}");
        let found: Vec<(&str, [f64; 4])> = annotation
            .objects
            .iter()
            .map(|object| {
                let Bounds { left, top, right, bottom } = object.bounds;
                (object.name.as_str(), [left, top, right, bottom])
            })
            .collect();
        assert_eq!(
            found,
            [
                ("1", [75.0, 15.0, 125.0, 35.0]),
                ("0", [0.0, 0.0, 100.0, 50.0]),
                ("7", [0.0, 0.0, 200.0, 50.0]),
            ]
        );
    }

    #[test]
    fn odd_lines_are_left_out_with_a_reason() {
        let names = ["a".to_owned(), "b".to_owned()];
        for (line, oddity, words) in [
            ("0 0.5 0.5", Oddity::InvalidBox, "has no box"),
            ("0 0.5 x 1 1", Oddity::InvalidBox, "not a number"),
            ("0 0.5 nan 1 1", Oddity::InvalidBox, "not a number"),
            ("0 50 60 10 10", Oddity::InvalidBox, "divide pixels by the image size"),
            ("2 0.5 0.5 1 1", Oddity::UnknownCategory, "the class 2 is not one of the 2"),
            ("0.5 0.5 0.5 1 1", Oddity::UnknownCategory, "the class 0.5"),
        ] {
            let text = format!("1 0.5 0.5 0.1 0.1\n{line}\n");
            let (annotation, odd) = parse(&text, SIZE, Some(&names));
            assert_eq!(annotation.objects.len(), 1, "{line}");
            assert_eq!(odd[0].0, oddity, "{line}");
            assert!(odd[0].1.starts_with("line 2: ") && odd[0].1.contains(words), "{odd:?}");
        }
    }

    #[test]
    fn every_way_to_write_names_in_yaml_is_read() {
        for text in [
            "path: x\nnames: ['cat', \"big dog\"]\nnc: 2\n",
            "nc: 2\nnames:\n  - cat # small\n  - big dog\n",
            "names:\n- cat\n- big dog\ntrain: images\n",
            "names:\n  # all\n  0: cat\n  1: big dog\n\ntrain: x\n",
            "names: {1: big dog, 0: cat}\n",
            "names: [\n  cat,\n  big dog\n]\n",
        ] {
            assert_eq!(names_in_yaml(text).unwrap(), ["cat", "big dog"], "{text}");
        }
        assert_eq!(names_in_yaml("train: x\nnc: 3\n"), None);
    }

    #[test]
    fn names_are_found_beside_and_above_the_annotations() {
        let folder = Folder::new("yolo-names");
        folder.write("labels/train/x.txt", b"");
        let labels = folder.path.join("labels/train");
        assert_eq!(class_names(&labels).unwrap(), None);
        folder.write("data.yaml", b"names: [a]\n");
        assert_eq!(class_names(&labels).unwrap().unwrap(), ["a"]);
        folder.write("labels/classes.txt", b"b\r\nc\r\n");
        assert_eq!(class_names(&labels).unwrap().unwrap(), ["b", "c"]);
    }
}
