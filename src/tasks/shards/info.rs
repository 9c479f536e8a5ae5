//! The description of a part of a table: what it is a part of. It is written beside the part, so
//! that parts of different runs are not joined.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Shard;
use crate::error::{Error, Result};
use crate::files;
use crate::hash::Hash;

/// Ending of the file of a description, behind the whole name of the part.
pub(super) const ENDING: &str = ".info.json";

/// The origin of a part. All parts of a table have the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Info {
    /// The command that writes the table.
    pub command: String,
    /// Hash of the model's values.
    pub model: String,
    /// What else the rows depend on, in words.
    pub settings: String,
    /// Number of images of all parts.
    pub images: usize,
    /// Hash of the names of all images, in order.
    pub list: String,
    /// Number of parts.
    pub parts: usize,
}

impl Info {
    /// The origin of a part, without the list of images.
    pub fn new(command: &str, model: &str, settings: String, of: Shard) -> Self {
        let own = Self {
            command: command.to_owned(),
            model: model.to_owned(),
            settings,
            images: 0,
            list: String::new(),
            parts: of.of,
        };
        own.of_list(&[])
    }

    /// The same origin with a list of images, by their names.
    #[must_use]
    pub fn of_list(&self, names: &[String]) -> Self {
        let list = names.iter().fold(Hash::default(), |hash, name| hash.with(name.as_bytes()));
        Self { images: names.len(), list: format!("{:016x}", list.value()), ..self.clone() }
    }

    /// The file of the description of a part.
    pub fn file(part: &Path) -> PathBuf {
        let mut name = part.as_os_str().to_os_string();
        name.push(ENDING);
        PathBuf::from(name)
    }

    /// Writes the description of a part. It must be written before the part, so that no part is
    /// without it. A part that is there is removed, because the description is not its own.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self, part: &Path) -> Result<()> {
        match std::fs::remove_file(part) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(files::not_written(part.display(), &error));
            }
            _ => {}
        }
        let text = serde_json::to_string_pretty(self).expect("texts and numbers") + "\n";
        files::write_atomically(&Self::file(part), text.as_bytes())
    }

    /// Reads the description of a part. `None` if it has none.
    ///
    /// # Errors
    /// If the file cannot be read, or is not a description.
    pub fn read(part: &Path) -> Result<Option<Self>> {
        let path = Self::file(part);
        if !path.is_file() {
            return Ok(None);
        }
        let info = serde_json::from_str(&files::read_text(&path)?);
        info.map(Some).map_err(|error| {
            Error::usage(format!(
                "{}: not the description of a part ({error}); write the part again",
                path.display()
            ))
        })
    }

    /// What differs between the origins of two parts.
    pub fn difference(&self, other: &Self) -> Option<String> {
        let differ = |what: &str, own: &str, others: &str| {
            (own != others).then(|| format!("{what} ({own} and {others})"))
        };
        differ("command", &self.command, &other.command)
            .or_else(|| {
                differ("number of parts", &self.parts.to_string(), &other.parts.to_string())
            })
            .or_else(|| differ("model", &self.model, &other.model))
            .or_else(|| differ("settings", &self.settings, &other.settings))
            .or_else(|| {
                let of = |info: &Self| format!("{} images, {}", info.images, info.list);
                differ("list of images", &of(self), &of(other))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Folder;

    #[test]
    fn a_description_is_read_back_and_differences_are_named() {
        let folder = Folder::new("shards-info");
        let part = folder.path.join("x.part-01-of-02.csv");
        assert_eq!(Info::read(&part).unwrap(), None);
        let names = ["a", "b"].map(String::from);
        let of = Shard { number: 1, of: 2 };
        let info = Info::new("classify", "abc", String::new(), of).of_list(&names);
        info.write(&part).unwrap();
        assert_eq!(Info::read(&part).unwrap(), Some(info.clone()));
        assert_eq!(info.difference(&info), None);
        let other = info.of_list(&["ab".to_owned()]);
        assert!(info.difference(&other).unwrap().starts_with("list of images"));
        let other = Info { model: "x".to_owned(), ..info.clone() };
        assert_eq!(info.difference(&other).unwrap(), "model (abc and x)");
        std::fs::write(Info::file(&part), "{}").unwrap();
        assert!(Info::read(&part).unwrap_err().to_string().contains("write the part again"));
    }
}
