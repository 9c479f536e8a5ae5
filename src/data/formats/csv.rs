//! Tables of pixels: each line of a CSV file is a gray image, as in the CSV versions of MNIST and
//! Fashion-MNIST (<https://www.kaggle.com/c/digit-recognizer>). Images are square; their pixels are
//! row by row, from 0 to 255. One column can have the label: in a file with a header, the column
//! called `label`, `class` or `target`; in a file without a header, the first column, if the other
//! columns fill a square.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use super::{Format, no_folder};
use crate::data::images::{Images, Labels, MAX_BYTES};
use crate::data::pixels::Pixels;
use crate::data::{LoadOptions, Opened};
use crate::error::{Error, Result};
use crate::shape::Size;

/// Maximum length of a line in bytes. A line of a 2048×2048 image has at most 16 MiB.
const MAX_LINE: u64 = 64 << 20;

/// Names of the column with the label.
const LABEL: [&str; 3] = ["label", "class", "target"];

/// The entry in the table of formats.
pub(super) const FORMAT: Format = Format {
    sniffs: |_, path| path.extension().is_some_and(|e| e.eq_ignore_ascii_case("csv")),
    open,
    open_folder: no_folder,
};

/// Where the values of a line are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Columns {
    count: usize,
    /// Index of the column with the label.
    label: Option<usize>,
    /// Height and width of an image.
    side: usize,
}

impl Columns {
    /// The columns of a file with this first line. Returns them, and whether the line is a header.
    fn of(first: &[&str]) -> Result<(Self, bool)> {
        let count = first.len();
        let side = |pixels: usize| Some(pixels.isqrt()).filter(|side| side * side == pixels);
        let named = first.iter().position(|name| LABEL.contains(&name.to_lowercase().as_str()));
        // A header has no number. The first column does not decide: it can be a label in words.
        // A line with only some numbers is damaged; as a header it would be dropped in silence.
        let is_header = count > 1 && first.iter().skip(1).all(|text| text.parse::<f64>().is_err());
        let (label, pixels) = match (is_header, named) {
            (true, Some(label)) => (Some(label), count - 1),
            (true, None) => (None, count),
            (false, _) if side(count).is_some() => (None, count),
            (false, _) => (Some(0), count - 1),
        };
        match side(pixels).filter(|side| *side > 0) {
            Some(side) => Ok((Self { count, label, side }, is_header)),
            None => Err(Error::usage(format!(
                "{count} columns: the pixels do not fill a square; each line must have the pixels \
                 of a square gray image, and perhaps a label"
            ))),
        }
    }
}

fn open(path: &Path, want: &LoadOptions, limit: u64) -> Result<Opened> {
    let file = File::open(path).map_err(|error| Error::io(path, &error))?;
    let place = path.display().to_string();
    let mut images = read(BufReader::new(file), limit).map_err(|error| error.at(place.as_str()))?;
    if let Some(channels) = want.channels {
        images.convert_channels(channels).map_err(|error| error.at(place.as_str()))?;
    }
    Ok(Opened::new(&place, Pixels::Resident(images), ""))
}

/// Reads the images of a table.
///
/// # Errors
/// If the pixels do not fill a square, a line has another number of columns than the first, a value
/// is not from 0 to 255, there is no image, or the images take more than `limit` bytes. The message
/// has the number of the line.
pub fn read(mut text: impl BufRead, limit: u64) -> Result<Images> {
    let mut images = Images::new(1);
    let (mut columns, mut names) = (None, Vec::new());
    let (mut line, mut number) = (Vec::new(), 0_usize);
    loop {
        line.clear();
        number += 1;
        let read = text.by_ref().take(MAX_LINE).read_until(b'\n', &mut line);
        read.map_err(|error| Error::failed(format!("line {number} cannot be read: {error}")))?;
        if line.is_empty() {
            break;
        }
        if line.len() as u64 == MAX_LINE {
            let most = MAX_LINE >> 20;
            return Err(Error::usage(format!("line {number} is longer than {most} MiB")));
        }
        let text = std::str::from_utf8(&line)
            .map_err(|_| Error::usage(format!("line {number} is not UTF-8 text")))?;
        let fields: Vec<&str> = text.trim_start_matches('\u{feff}').split(',').map(field).collect();
        if fields == [""] {
            continue;
        }
        let at = |error: Error| error.at(format!("line {number}"));
        let columns = match columns {
            Some(columns) => columns,
            None => {
                let (found, is_header) = Columns::of(&fields).map_err(at)?;
                columns = Some(found);
                if is_header {
                    continue;
                }
                found
            }
        };
        let (label, pixels) = image(&fields, columns).map_err(at)?;
        names.extend(label);
        images.push(number.to_string(), Size::new(columns.side, columns.side), &pixels)?;
        if images.held_bytes() > limit.min(MAX_BYTES as u64) {
            return Err(Error::usage(
                "the images do not fit into the memory allowed, and a CSV file cannot be streamed; \
                 use an .npy file, or allow more memory",
            ));
        }
    }
    if images.is_empty() {
        return Err(Error::usage("the file has no images; each line must be one"));
    }
    images.labels = (!names.is_empty()).then(|| labels(&names));
    Ok(images)
}

/// A field without spaces and quotation marks around it.
fn field(text: &str) -> &str {
    let text = text.trim();
    text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text)
}

/// The label and the pixels of a line.
fn image(fields: &[&str], columns: Columns) -> Result<(Option<String>, Vec<u8>)> {
    if fields.len() != columns.count {
        return Err(Error::usage(format!(
            "{} columns, but the first line has {}; the file is cut off or damaged",
            fields.len(),
            columns.count
        )));
    }
    let mut pixels = Vec::with_capacity(columns.side * columns.side);
    for (column, text) in fields.iter().enumerate() {
        if columns.label == Some(column) {
            continue;
        }
        match text.parse::<f64>() {
            Ok(value) if (0.0..=255.0).contains(&value) => pixels.push(value.round() as u8),
            _ => {
                return Err(Error::usage(format!(
                    "column {}: {text:?} is not a pixel; pixels are numbers from 0 to 255",
                    column + 1
                )));
            }
        }
    }
    Ok((columns.label.map(|label| fields[label].to_owned()), pixels))
}

/// Classes in the order of their numbers, or in alphabetical order if they are not all numbers.
fn labels(names: &[String]) -> Labels {
    let unique: BTreeSet<&String> = names.iter().collect();
    let mut classes: Vec<String> = unique.into_iter().cloned().collect();
    if classes.iter().all(|class| class.parse::<u64>().is_ok()) {
        classes.sort_by_key(|class| class.parse::<u64>().unwrap_or(0));
    }
    let class = |name: &String| classes.iter().position(|class| class == name).unwrap_or(0);
    let of = names.iter().map(|name| class(name) as u32).collect();
    Labels { classes, of }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::load;
    use crate::testing::Folder;

    fn images(text: &str) -> Result<Images> {
        read(text.as_bytes(), u64::MAX)
    }

    #[test]
    fn the_first_column_is_the_label_if_the_others_fill_a_square() {
        let found = images("7,0,1,2,255\n10,3,4,5,6\n7,9,9,9,9\n").unwrap();
        assert_eq!(
            (found.len(), found.channels, found.common_size()),
            (3, 1, Some(Size::new(2, 2)))
        );
        assert_eq!((found.image(0), found.image(1)), (&[0, 1, 2, 255][..], &[3, 4, 5, 6][..]));
        let labels = found.labels.unwrap();
        assert_eq!((labels.classes, labels.of), (vec!["7".to_owned(), "10".into()], vec![0, 1, 0]));
    }

    #[test]
    fn a_header_names_the_column_with_the_label() {
        let found = images("p0,p1,p2,p3,Class\r\n1,2,3,4,cat\r\n5,6,7,8,ant\r\n").unwrap();
        let labels = found.labels.clone().unwrap();
        assert_eq!((labels.classes, labels.of), (vec!["ant".to_owned(), "cat".into()], vec![1, 0]));
        assert_eq!(found.image(1), [5, 6, 7, 8]);
        let found = images("a,b,c,d\n1,2,3,4\n").unwrap();
        assert_eq!((found.image(0), found.labels.clone()), (&[1, 2, 3, 4][..], None));
    }

    #[test]
    fn numbers_without_a_header_and_a_label_are_images() {
        let found = images("1,2,3,4\n\n5.0,6.4,7.6,8\n").unwrap();
        assert_eq!((found.len(), &found.labels), (2, &None));
        assert_eq!(found.image(1), [5, 6, 8, 8]);
    }

    #[test]
    fn a_file_is_recognised_by_its_name() {
        let folder = Folder::new("csv");
        let path = folder.write("mnist_train.CSV", b"label,a,b,c,d\n3,0,0,0,9\n");
        let loaded = load(path.to_str().unwrap(), &LoadOptions::default()).unwrap();
        assert_eq!(loaded.images.labels.unwrap().classes, ["3"]);
        assert!(
            loaded.description.contains("1 image of 2x2, gray, 1 class"),
            "{}",
            loaded.description
        );
        let want = LoadOptions { channels: Some(3), ..LoadOptions::default() };
        assert_eq!(load(path.to_str().unwrap(), &want).unwrap().images.channels, 3);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        for (text, expected) in [
            ("", "no images"),
            ("a,b,c,d\n", "no images"),
            ("1,2,3\n", "line 1: 3 columns: the pixels do not fill a square"),
            ("1,2,3,4\n5,6,7\n", "line 2: 3 columns, but the first line has 4"),
            ("1,2,3,4\n5,6,256,7\n", "line 2: column 3: \"256\" is not a pixel"),
            ("1,x,3,4\n5,6,7,8\n", "line 1: column 2: \"x\" is not a pixel"),
            ("1,2,3,4\n5,6,,7\n", "line 2: column 3: \"\" is not a pixel"),
            ("1,2,3,4\n5,6,nan,7\n", "line 2: column 3: \"nan\" is not a pixel"),
        ] {
            let message = images(text).unwrap_err().to_string();
            assert!(message.contains(expected), "{text:?}: {message}");
        }
        let message = read(&b"\xff\xfe,1\n"[..], u64::MAX).unwrap_err().to_string();
        assert!(message.contains("line 1 is not UTF-8"), "{message}");
    }

    #[test]
    fn images_beyond_the_memory_limit_are_refused() {
        let message = read(&b"1,2,3,4\n5,6,7,8\n"[..], 10).unwrap_err().to_string();
        assert!(message.contains("allow more memory"), "{message}");
    }
}
