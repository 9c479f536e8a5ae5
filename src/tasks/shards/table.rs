//! Tables of results with rows for each image, which a killed process leaves so that another one
//! continues them.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{Info, Shard};
use crate::error::{Error, Result};
use crate::files;

/// Ending of the journal of a table, behind its whole name.
const JOURNAL: &str = ".journal";

/// The format of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Comma-separated values with a header.
    Csv,
    /// A JSON object on each line.
    JsonLines,
    /// A JSON array of objects.
    Json,
}

impl Format {
    /// The format of a table by the ending of its name: `.csv` or `.jsonl`.
    ///
    /// # Errors
    /// If it is another one.
    pub fn of(path: &Path) -> Result<Self> {
        match path.extension().and_then(|ending| ending.to_str()) {
            Some("csv") => Ok(Self::Csv),
            Some("jsonl") => Ok(Self::JsonLines),
            _ => Err(Error::usage(format!(
                "{}: unknown format of a table; use a name that ends in .csv or .jsonl",
                path.display()
            ))),
        }
    }
}

/// Quotes a field of comma-separated values if necessary (RFC 4180).
pub fn quoted(field: &str) -> String {
    if field.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.to_owned()
    }
}

/// The objects of a JSON array as text, as they stand in the array: indented, with commas between
/// them.
pub fn json_rows(objects: &[Value]) -> String {
    let text = serde_json::to_string_pretty(objects).expect("values are texts and numbers");
    inner(&text).unwrap_or_default().to_owned()
}

/// The text between the brackets of an indented JSON array, without its line breaks.
pub(super) fn inner(array: &str) -> Option<&str> {
    let inner = array.trim_end().strip_prefix('[')?.strip_suffix(']')?;
    Some(inner.trim_matches('\n'))
}

/// An indented JSON array of texts from [`inner`].
pub(super) fn array_of<'a>(inner: impl IntoIterator<Item = &'a str>) -> String {
    let parts: Vec<&str> = inner.into_iter().filter(|part| !part.is_empty()).collect();
    if parts.is_empty() { "[]\n".to_owned() } else { format!("[\n{}\n]\n", parts.join(",\n")) }
}

/// A table that is being written. It gets its name when it is complete. Until then a journal beside
/// it has the rows, if the command also writes files of each image.
#[derive(Debug)]
pub struct Table {
    path: PathBuf,
    format: Format,
    /// The first line of comma-separated values.
    head: String,
    /// What the rows depend on.
    info: Info,
    /// The rows of each image, with its place in the list.
    rows: Vec<(usize, String)>,
    /// Rows of an earlier process, by image.
    known: HashMap<String, String>,
    journal: Option<File>,
}

impl Table {
    /// A table without rows.
    pub fn new(path: &Path, format: Format, head: String, info: Info) -> Self {
        let (rows, known) = (Vec::new(), HashMap::new());
        Self { path: path.to_owned(), format, head, info, rows, known, journal: None }
    }

    /// Its format.
    pub const fn format(&self) -> Format {
        self.format
    }

    /// Whether the table is complete.
    pub fn exists(&self) -> bool {
        self.path.is_file()
    }

    fn journal_path(&self) -> PathBuf {
        let mut name = self.path.as_os_str().to_os_string();
        name.push(JOURNAL);
        PathBuf::from(name)
    }

    /// Reads the rows that an earlier process has written.
    ///
    /// # Errors
    /// If they cannot be read, or are from another model or other settings.
    pub fn read_known(&mut self) -> Result<()> {
        let other = |difference: String| {
            Error::usage(format!(
                "{}: its rows are from another {difference}; choose another folder, or remove the \
                 file",
                self.path.display()
            ))
        };
        // The origin without the list of images, which can have become longer.
        let origin = |info: &Info| info.of_list(&[]);
        let own = origin(&self.info);
        if let Some(info) = Info::read(&self.path)?
            && let Some(difference) = own.difference(&origin(&info))
        {
            return Err(other(difference));
        }
        let mut known = HashMap::new();
        if self.exists() {
            known = self.rows_of(&files::read_text(&self.path)?);
        }
        let path = self.journal_path();
        if path.is_file() {
            let text = String::from_utf8_lossy(&files::read(&path)?).into_owned();
            let mut lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
            let head: Option<Info> = lines.next().and_then(|line| serde_json::from_str(line).ok());
            if let Some(difference) = head.as_ref().and_then(|info| own.difference(&origin(info))) {
                return Err(other(difference));
            }
            // A process that was killed leaves a line without its end.
            let values = lines.filter_map(|line| serde_json::from_str::<Value>(line).ok());
            known.extend(values.filter(|_| head.is_some()).filter_map(|value| {
                Some((value["image"].as_str()?.to_owned(), value["rows"].as_str()?.to_owned()))
            }));
        }
        self.known = known;
        Ok(())
    }

    /// The rows of each image in the text of a complete table.
    fn rows_of(&self, text: &str) -> HashMap<String, String> {
        let mut found: HashMap<String, String> = HashMap::new();
        match self.format {
            Format::Csv => {
                // A quoted field can have line breaks, so that a row ends outside of quotes.
                let mut quotes = false;
                let rows = text.split_inclusive(|letter| {
                    quotes ^= letter == '"';
                    letter == '\n' && !quotes
                });
                for row in rows.skip(1) {
                    if let Some(image) = first_field(row) {
                        found.insert(image, row.to_owned());
                    }
                }
            }
            Format::JsonLines => {
                for row in text.split_inclusive('\n') {
                    let value: Value = serde_json::from_str(row).unwrap_or_default();
                    if let Some(image) = value["image"].as_str() {
                        found.insert(image.to_owned(), row.to_owned());
                    }
                }
            }
            Format::Json => {
                let values: Vec<Value> = serde_json::from_str(text).unwrap_or_default();
                for same in values.chunk_by(|a, b| a["image"] == b["image"]) {
                    if let Some(image) = same[0]["image"].as_str() {
                        found.insert(image.to_owned(), json_rows(same));
                    }
                }
            }
        }
        found
    }

    /// Whether an earlier process has written the rows of an image.
    pub fn knows(&self, image: &str) -> bool {
        self.known.contains_key(image)
    }

    /// Uses the rows of an earlier process for an image.
    pub fn keep(&mut self, place: usize, image: &str) {
        if let Some(rows) = self.known.get(image) {
            self.rows.push((place, rows.clone()));
        }
    }

    /// Adds the rows of an image. If files of the image are written, too, this must come before
    /// them, so that no image has files without rows.
    ///
    /// # Errors
    /// If the journal cannot be written.
    pub fn push(&mut self, place: usize, image: &str, rows: String) -> Result<()> {
        let failed = |path: &Path, error| files::not_written(path.display(), &error);
        if let Some(journal) = &mut self.journal {
            let line = format!("{}\n", json!({"image": image, "rows": rows}));
            journal.write_all(line.as_bytes()).map_err(|e| failed(&self.path, e))?;
        }
        self.rows.push((place, rows));
        Ok(())
    }

    /// Starts a journal, with the rows that are kept. Its folder is created.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn start_journal(&mut self) -> Result<()> {
        let path = self.journal_path();
        files::make_folder(path.parent().unwrap_or(Path::new("")))?;
        let mut text = serde_json::to_string(&self.info).expect("texts and numbers") + "\n";
        for (image, rows) in &self.known {
            text += &format!("{}\n", json!({"image": image, "rows": rows}));
        }
        files::write_atomically(&path, text.as_bytes())?;
        let journal = File::options().append(true).open(&path);
        self.journal = Some(journal.map_err(|error| files::not_written(path.display(), &error))?);
        Ok(())
    }

    /// Writes the table, and its description if it is a part, and removes the journal. `names` are
    /// the names of the images of all parts.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn finish(mut self, names: &[String]) -> Result<()> {
        self.rows.sort_by_key(|(place, _)| *place);
        let rows = self.rows.iter().map(|(_, rows)| rows.as_str());
        let text = match self.format {
            Format::Csv => std::iter::once(self.head.as_str()).chain(rows).collect(),
            Format::JsonLines => rows.collect(),
            Format::Json => array_of(rows),
        };
        files::make_folder(self.path.parent().unwrap_or(Path::new("")))?;
        if Shard::of_part(&self.path).is_some() {
            self.info.of_list(names).write(&self.path)?;
        }
        files::write_atomically(&self.path, text.as_bytes())?;
        if self.journal.take().is_some() {
            // The table has all of it.
            let _ = std::fs::remove_file(self.journal_path());
        }
        Ok(())
    }
}

/// The first field of a row of comma-separated values.
fn first_field(row: &str) -> Option<String> {
    let Some(rest) = row.strip_prefix('"') else {
        return row.split_once(',').map(|(field, _)| field.to_owned());
    };
    let text = rest.replace("\"\"", "\0");
    text.split_once('"').map(|(field, _)| field.replace('\0', "\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Folder;

    fn info(settings: &str) -> Info {
        Info::new("detect", "abc", settings.to_owned(), Shard { number: 1, of: 2 })
    }

    fn table(folder: &Folder, format: Format) -> Table {
        Table::new(&folder.path.join("t"), format, "image,score\n".to_owned(), info("s"))
    }

    #[test]
    fn rows_are_in_the_order_of_the_list_and_read_back() {
        let row = |format: Format, image: &str| match format {
            Format::Csv => format!("{},1\n", quoted(image)),
            Format::JsonLines => format!("{}\n", json!({"image": image})),
            Format::Json => json_rows(&[json!({"image": image, "score": 0.25})]),
        };
        for format in [Format::Csv, Format::JsonLines, Format::Json] {
            let folder = Folder::new("shards-table");
            let mut first = table(&folder, format);
            let images = ["a", "b,\"c\"\n", "d"];
            for place in [2, 0, 1] {
                first.push(place, images[place], row(format, images[place])).unwrap();
            }
            first.finish(&[]).unwrap();
            let text = files::read_text(&folder.path.join("t")).unwrap();
            let mut again = table(&folder, format);
            again.read_known().unwrap();
            for (place, image) in images.iter().enumerate() {
                assert!(again.knows(image), "{format:?} {image}");
                again.keep(place, image);
            }
            again.finish(&[]).unwrap();
            assert_eq!(files::read_text(&folder.path.join("t")).unwrap(), text, "{format:?}");
        }
    }

    #[test]
    fn an_array_of_parts_is_the_array_of_all() {
        let objects: Vec<Value> = (0..5).map(|i| json!({"image": "a", "bbox": [i, 1]})).collect();
        let whole = serde_json::to_string_pretty(&objects).unwrap() + "\n";
        let parts = [&objects[..2], &[], &objects[2..]].map(json_rows);
        assert_eq!(array_of(parts.iter().map(String::as_str)), whole);
        assert_eq!(array_of([""]), serde_json::to_string_pretty(&[0; 0]).unwrap() + "\n");
    }

    #[test]
    fn a_journal_that_is_cut_off_keeps_its_whole_lines() {
        let folder = Folder::new("shards-journal");
        let mut first = table(&folder, Format::Csv);
        first.start_journal().unwrap();
        first.push(0, "a", "a,1\n".to_owned()).unwrap();
        first.push(1, "b", "b,2\n".to_owned()).unwrap();
        drop(first);
        let path = folder.path.join("t.journal");
        let whole = files::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 3]).unwrap();
        let mut again = table(&folder, Format::Csv);
        again.read_known().unwrap();
        assert!(again.knows("a") && !again.knows("b") && !again.exists());
        again.start_journal().unwrap();
        again.keep(0, "a");
        again.push(1, "b", "b,2\n".to_owned()).unwrap();
        again.finish(&[]).unwrap();
        let text = files::read_text(&folder.path.join("t")).unwrap();
        assert_eq!(text, "image,score\na,1\nb,2\n");
        assert!(!path.exists());
    }

    #[test]
    fn rows_of_other_settings_are_refused() {
        let folder = Folder::new("shards-other");
        let mut first = table(&folder, Format::Csv);
        first.start_journal().unwrap();
        drop(first);
        let mut other = table(&folder, Format::Csv);
        other.info = info("another");
        let message = other.read_known().unwrap_err().to_string();
        assert!(message.contains("settings (another and s)"), "{message}");
    }
}
