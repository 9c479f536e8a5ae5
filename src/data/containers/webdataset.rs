//! WebDataset archives (<https://github.com/webdataset/webdataset>): tar files whose members with
//! the same name up to the first dot are one sample, such as `0001.jpg` and `0001.cls`.

use std::collections::HashMap;
use std::io::SeekFrom;

use serde_json::Value;

use super::labels::{Label, classes};
use super::tar::{self, Member};
use super::{Container, Format, Opening, Source, bytes, check_count, has_extension};
use crate::budget;
use crate::data::numbers::{Input, read_error};
use crate::error::{Error, Result};

pub(super) const FORMAT: Format = Format {
    name: "WebDataset (.tar)",
    sniffs: |start, path| {
        tar::is_header(start)
            || has_extension(path, &["tar"])
            || has_extension(path, &["tgz"])
            || path.to_string_lossy().to_ascii_lowercase().ends_with(".tar.gz")
    },
    open,
};

/// Extensions of image files.
const IMAGES: [&str; 12] =
    ["jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff", "pgm", "ppm", "pnm", "pbm"];
/// Keys of labels in JSON.
const KEYS: [&str; 5] = ["label", "cls", "class", "class_id", "target"];
/// Maximum size of a label file in bytes: larger ones are captions or other annotations.
const MAX_LABEL: u64 = 1 << 16;
/// Maximum length of a text that is a label, and not a caption.
const MAX_TEXT: usize = 64;

/// The members of a sample.
#[derive(Default)]
struct Sample {
    key: String,
    image: Option<(String, Member)>,
    /// Images after the first one.
    others: usize,
    cls: Option<Member>,
    json: Option<Member>,
    txt: Option<Member>,
}

fn open(mut opening: Opening<'_>) -> Result<Container> {
    if opening.bytes(0, 2)? == [0x1f, 0x8b] {
        return Err(Error::usage("is compressed, so images cannot be found by seeking; gunzip it"));
    }
    if let Some(inside) = opening.inside {
        return Err(Error::usage(format!("has no columns; remove :{inside}")));
    }
    let mut samples: Vec<Sample> = Vec::new();
    let mut index: HashMap<String, usize> = HashMap::new();
    for member in tar::members(&mut opening)? {
        let name = member.name.trim_start_matches("./");
        let (folder, file) = name.rsplit_once('/').map_or(("", name), |(a, b)| (a, b));
        // Hidden files are those of file systems.
        let Some((stem, extension)) = file.split_once('.').filter(|(stem, _)| !stem.is_empty())
        else {
            continue;
        };
        let key = if folder.is_empty() { stem.to_owned() } else { format!("{folder}/{stem}") };
        let at = *index.entry(key.clone()).or_insert_with(|| {
            samples.push(Sample { key, ..Sample::default() });
            samples.len() - 1
        });
        let (sample, extension) = (&mut samples[at], extension.to_ascii_lowercase());
        let kind = extension.rsplit('.').next().unwrap_or_default();
        match extension.as_str() {
            "cls" => sample.cls = Some(member),
            "json" => sample.json = Some(member),
            "txt" => sample.txt = Some(member),
            _ if IMAGES.contains(&kind) => match sample.image {
                Some(_) => sample.others += 1,
                None => sample.image = Some((extension, member)),
            },
            _ => {}
        }
    }
    check_count(samples.len() as u64)?;
    let all = samples.len();
    samples.retain(|sample| sample.image.is_some());
    let mut notes = Vec::new();
    if samples.len() < all {
        notes.push(format!("{} samples without an image left out", all - samples.len()));
    }
    let others: usize = samples.iter().map(|sample| sample.others).sum();
    if others > 0 {
        notes.push(format!("{others} further images of the same samples left out"));
    }
    let labels = samples.iter().map(|sample| label(&mut opening, sample));
    let labels = labels.collect::<Result<Vec<_>>>()?;
    let labels = without_captions(labels, &samples, &mut notes);
    let labels = classes(&labels, None, &mut notes)?;
    let name = |sample: &Sample| match &sample.image {
        Some((extension, _)) => format!("{}.{extension}", sample.key),
        None => sample.key.clone(),
    };
    let names = samples.iter().map(name).collect();
    let members = samples.into_iter().filter_map(|sample| Some(sample.image?.1)).collect();
    let archive = Archive { file: opening.file, members, limit: opening.limit };
    Container::new(names, labels, notes, Box::new(archive))
}

/// The label of a sample: `.cls`, else a key of `.json`, else `.txt`.
fn label(opening: &mut Opening<'_>, sample: &Sample) -> Result<Option<Label>> {
    let mut read = |member: &Option<Member>| -> Result<Option<String>> {
        let Some(member) = member.as_ref().filter(|member| member.len <= MAX_LABEL) else {
            return Ok(None);
        };
        let bytes = bytes(&mut opening.file, opening.size, member.start, member.len as usize)?;
        Ok(Some(String::from_utf8_lossy(&bytes).trim().to_owned()))
    };
    let of_text = |text: String| text.parse().map_or(Label::Text(text), Label::Number);
    if let Some(text) = read(&sample.cls)? {
        return Ok(Some(of_text(text)));
    }
    if let Some(text) = read(&sample.json)? {
        let json: Value = serde_json::from_str(&text).map_err(|error| {
            Error::usage(format!("the JSON of {} is damaged: {error}; correct it", sample.key))
        })?;
        let label = KEYS.iter().find_map(|key| match json.get(key)? {
            Value::Number(number) => number.as_i64().map(Label::Number),
            Value::String(text) => Some(of_text(text.clone())),
            _ => None,
        });
        if label.is_some() {
            return Ok(label);
        }
    }
    let text = read(&sample.txt)?.filter(|text| !text.is_empty());
    Ok(text.map(of_text))
}

/// The labels, or none if they are captions: texts that are long, or nearly all different.
fn without_captions(
    labels: Vec<Option<Label>>,
    samples: &[Sample],
    notes: &mut Vec<String>,
) -> Vec<Option<Label>> {
    let texts: Vec<&String> = labels
        .iter()
        .zip(samples)
        .filter(|(_, sample)| sample.cls.is_none())
        .filter_map(|(label, _)| match label {
            Some(Label::Text(text)) => Some(text),
            Some(Label::Number(_)) | None => None,
        })
        .collect();
    let mut different = texts.clone();
    different.sort_unstable();
    different.dedup();
    let is_long = |text: &&&String| text.len() > MAX_TEXT || text.contains('\n');
    let are_captions = texts.iter().find(is_long).is_some()
        || texts.len() > 2 && different.len() * 10 > texts.len() * 9;
    if !are_captions {
        return labels;
    }
    notes.push("the texts are captions, not labels, and are left out".to_owned());
    vec![None; labels.len()]
}

/// The images of an archive.
struct Archive {
    file: Box<dyn Input>,
    members: Vec<Member>,
    limit: u64,
}

impl Source for Archive {
    fn read(&mut self, index: usize) -> Result<Vec<u8>> {
        let member = &self.members[index];
        if member.len > self.limit {
            return Err(crate::data::numbers::too_large(member.len, self.limit, "shrink it"));
        }
        let mut bytes = budget::zeroed(member.len as usize, "an image file")?;
        self.file
            .seek(SeekFrom::Start(member.start))
            .and_then(|_| self.file.read_exact(&mut bytes))
            .map_err(|e| read_error(&e))?;
        Ok(bytes)
    }
}
