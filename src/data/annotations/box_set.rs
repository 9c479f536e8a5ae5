//! Images with boxes.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::data::annotations::box_files::{Marked, Object, coco, read_voc};
use crate::data::{self, Handles, Opened, Pixels, Wanted};
use crate::error::{Error, Result};
use crate::files;

/// Folders of Pascal VOC's layout.
const IMAGES: &str = "JPEGImages";
const BOXES: &str = "Annotations";
const SPLITS: &str = "ImageSets/Main";
/// Boxes narrower or lower than this are of no area.
const LEAST: f64 = 1e-6;

/// Where boxes are written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Annotations {
    /// In the folder `Annotations` beside `JPEGImages`.
    #[default]
    Beside,
    /// Pascal VOC's XML files, in this folder.
    Voc(PathBuf),
    /// COCO's JSON.
    Coco(PathBuf),
}

/// Images and what is in them.
#[derive(Debug)]
pub struct Set {
    /// All images that decode.
    pub images: Pixels,
    /// Those that have annotations, each with its objects.
    pub answered: Vec<(usize, Vec<Object>)>,
    /// Names of the classes.
    pub classes: Vec<String>,
    /// Files passed over: path and reason.
    pub skipped: Vec<(String, String)>,
    /// Images without annotations.
    pub unmarked: Vec<String>,
    /// Boxes that reached beyond their image, and were clipped.
    pub clipped: usize,
    /// Boxes of no area, or wholly outside, and were dropped: image and reason.
    pub dropped: Vec<String>,
    /// Objects of classes that are not among those named, which are left out: the class, and how
    /// many.
    pub other: BTreeMap<String, usize>,
    /// What was found, for people.
    pub description: String,
}

impl Set {
    /// Opens images and their boxes. `split` names a list in `ImageSets/Main` of Pascal VOC's
    /// layout; `classes` are their names, empty where all that occur are meant, in alphabetical
    /// order.
    ///
    /// # Errors
    /// When no image has annotations, no object is of the classes that are named, or `strict` is
    /// wanted and a file or a box is not sound or of another class.
    pub fn open(
        source: &str,
        annotations: &Annotations,
        split: Option<&str>,
        classes: &[String],
        wanted: &Wanted,
        limit: u64,
    ) -> Result<Self> {
        let root = Path::new(source);
        let inside = root.join(IMAGES).is_dir();
        let images = if inside {
            root.join(IMAGES).to_string_lossy().into_owned()
        } else {
            source.to_owned()
        };
        let found = match split {
            None => data::open(&images, wanted, limit)?,
            Some(split) => listed(root, Path::new(&images), split, wanted, limit)?,
        };
        let (pixels, mut skipped) = (found.pixels, found.skipped);
        let stem = |image: usize| {
            Path::new(&pixels.name(image))
                .file_stem()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned()
        };
        let chosen: Vec<usize> = (0..pixels.len()).collect();
        let mut unmarked = Vec::new();
        let mut marked: Vec<(usize, Vec<Marked>)> = Vec::new();
        match annotations {
            Annotations::Coco(file) => {
                let mut of = coco(file)?;
                for image in chosen {
                    let name = pixels.name(image);
                    let last = Path::new(&name)
                        .file_name()
                        .unwrap_or_default()
                        .to_string_lossy()
                        .into_owned();
                    match of.remove(&name).or_else(|| of.remove(&last)) {
                        Some(objects) => marked.push((image, objects)),
                        None => unmarked.push(name),
                    }
                }
            }
            other => {
                let folder = match other {
                    Annotations::Voc(folder) => folder.clone(),
                    _ => root.join(BOXES),
                };
                if !folder.is_dir() {
                    return Err(Error::usage(format!(
                        "{source}: where are its boxes? No folder {}; name Pascal VOC's by --annotations, or COCO's file by --coco",
                        folder.display()
                    )));
                }
                let file = |image: usize| folder.join(format!("{}.xml", stem(image)));
                let read: Vec<Option<Result<Vec<Marked>>>> = chosen
                    .par_iter()
                    .map(|image| {
                        Some(file(*image)).filter(|file| file.is_file()).map(|file| read_voc(&file))
                    })
                    .collect();
                for (image, read) in chosen.into_iter().zip(read) {
                    match read {
                        None => unmarked.push(pixels.name(image)),
                        Some(Ok(objects)) => marked.push((image, objects)),
                        Some(Err(error)) if wanted.strict => {
                            return Err(error.at(file(image).display()));
                        }
                        Some(Err(error)) => {
                            skipped.push((file(image).display().to_string(), error.to_string()))
                        }
                    }
                }
            }
        }
        if marked.is_empty() {
            let why = skipped
                .first()
                .map_or_else(String::new, |(file, reason)| format!(" ({file}: {reason})"));
            return Err(Error::usage(format!(
                "{source}: no image has annotations that can be used{why}"
            )));
        }
        let classes = if classes.is_empty() { occurring(&marked) } else { classes.to_vec() };
        if classes.is_empty() {
            return Err(Error::usage(format!(
                "{source}: there is no box in any annotation; there is nothing to learn or to find"
            )));
        }
        let mut set = Self {
            description: format!(
                "{}; {} with annotations, classes {}",
                found.description,
                marked.len(),
                classes.join(", ")
            ),
            images: pixels,
            answered: Vec::new(),
            classes,
            skipped,
            unmarked,
            clipped: 0,
            dropped: Vec::new(),
            other: BTreeMap::new(),
        };
        for (image, objects) in marked {
            let objects = set.sound(image, objects);
            set.answered.push((image, objects));
        }
        if set.objects() == 0 {
            let other: Vec<&str> = set.other.keys().map(String::as_str).collect();
            let there = if other.is_empty() {
                String::new()
            } else {
                format!("; there are {}", other.join(", "))
            };
            return Err(Error::usage(format!(
                "{source}: no object is of the classes {}{there}",
                set.classes.join(", ")
            )));
        }
        match (set.dropped.first(), set.other.keys().next()) {
            (Some(dropped), _) if wanted.strict => Err(Error::usage(dropped.clone())),
            (None, Some(other)) if wanted.strict => Err(Error::usage(format!(
                "{source}: objects of class {other}, which is not among {}",
                set.classes.join(", ")
            ))),
            _ => Ok(set),
        }
    }

    /// An image's objects whose boxes are sound.
    fn sound(&mut self, image: usize, objects: Vec<Marked>) -> Vec<Object> {
        let (h, w) = self.images.size(image);
        let mut kept = Vec::new();
        for Marked { name, bounds, difficult, crowd } in objects {
            let Some(class) = self.classes.iter().position(|class| *class == name) else {
                *self.other.entry(name).or_default() += 1;
                continue;
            };
            let inside = bounds.clipped(h, w);
            if inside.right - inside.left < LEAST || inside.bottom - inside.top < LEAST {
                let why = if bounds.area() > 0.0 {
                    format!("outside of {w}x{h} pixels")
                } else {
                    "of no area".to_owned()
                };
                self.dropped.push(format!("{}: a box of {name} {why}", self.images.name(image)));
                continue;
            }
            // VOC counts pixels from 1, some programs from 0: a pixel beyond is no fault
            let beyond = (bounds.left - inside.left).abs().max((bounds.top - inside.top).abs());
            let beyond = beyond
                .max((bounds.right - inside.right).abs())
                .max((bounds.bottom - inside.bottom).abs());
            self.clipped += usize::from(beyond > 1.0);
            kept.push(Object { class, bounds: inside, difficult, crowd });
        }
        kept
    }

    /// The number of images with annotations.
    pub fn len(&self) -> usize {
        self.answered.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.answered.is_empty()
    }

    /// Objects in all.
    pub fn objects(&self) -> usize {
        self.answered.iter().map(|(_, objects)| objects.len()).sum()
    }

    /// Height, width and channels of the one of this number that has annotations.
    pub fn size(&self, number: usize) -> [usize; 3] {
        let (h, w) = self.images.size(self.answered[number].0);
        [h, w, self.images.channels()]
    }

    /// The image itself, as bytes (H,W,C).
    ///
    /// # Errors
    /// When it cannot be read any more.
    pub fn bytes(
        &self,
        number: usize,
        handles: &mut Handles,
    ) -> Result<std::borrow::Cow<'_, [u8]>> {
        self.images.read(self.answered[number].0, handles)
    }
}

/// Names of the classes that occur, in alphabetical order.
fn occurring(marked: &[(usize, Vec<Marked>)]) -> Vec<String> {
    let mut names: Vec<String> = marked
        .iter()
        .flat_map(|(_, objects)| objects.iter().map(|object| object.name.clone()))
        .collect();
    names.sort();
    names.dedup();
    names
}

/// The images of a folder that a split names, without their endings.
fn listed(root: &Path, images: &Path, split: &str, wanted: &Wanted, limit: u64) -> Result<Opened> {
    let file = root.join(SPLITS).join(format!("{split}.txt"));
    if !file.is_file() {
        return Err(Error::usage(format!("split {split}: no file {}", file.display())));
    }
    let text = String::from_utf8_lossy(&files::read(&file)?).into_owned();
    // a class's list has 1, 0 or −1 behind each name
    let mut names: HashSet<&str> =
        text.lines().filter_map(|line| line.split_whitespace().next()).collect();
    if names.is_empty() {
        return Err(Error::usage(format!("split {split}: {} is empty", file.display())));
    }
    let stem = |image: &Path| image.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let found =
        data::open_filtered(images, |image| names.contains(stem(image).as_str()), wanted, limit)?;
    let mut found = found.ok_or_else(|| {
        Error::usage(format!("split {split}: none of its images is in {}", images.display()))
    })?;
    for image in 0..found.pixels.len() {
        names.remove(stem(Path::new(&found.pixels.name(image))).as_str());
    }
    let skipped: HashSet<String> =
        found.skipped.iter().map(|(file, _)| stem(Path::new(file))).collect();
    let mut missing: Vec<&str> =
        names.into_iter().filter(|name| !skipped.contains(*name)).collect();
    missing.sort_unstable();
    found.skipped.extend(missing.into_iter().map(|name| {
        (name.to_owned(), format!("named by {}, but there is no such image", file.display()))
    }));
    Ok(found)
}
