//! Image sets with bounding boxes, for object detection.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::advice::Advice;
use crate::data::AnnotatedImages;
use crate::data::annotations::box_files::{NamedObject, Object, read_coco, read_voc};
use crate::data::{self, Handles, LoadOptions, Opened, Pixels};
use crate::error::{Error, Result};
use crate::files;
use crate::shape::Dims;

/// The image folder of a Pascal VOC data set.
const IMAGES: &str = "JPEGImages";
/// The annotation folder of a Pascal VOC data set.
const BOXES: &str = "Annotations";
/// The folder of a Pascal VOC data set with the lists of its splits.
const SPLITS: &str = "ImageSets/Main";
/// Boxes with a side below this, in pixels, are empty: it allows for rounding in their files.
const MIN_SIDE: f64 = 1e-6;

/// The location and format of the annotations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Annotations {
    /// Pascal VOC's XML files in the folder `Annotations` beside `JPEGImages`.
    #[default]
    Beside,
    /// Pascal VOC's XML files in this folder.
    Voc(PathBuf),
    /// This COCO JSON file.
    Coco(PathBuf),
}

/// A set of images with bounding boxes.
#[derive(Debug)]
pub struct DetectionSet {
    /// All images that can be decoded.
    pub images: Pixels,
    /// The images with annotations: the index of the image, and its objects.
    pub annotated: Vec<(usize, Vec<Object>)>,
    /// The names of the classes.
    pub classes: Vec<String>,
    /// Skipped files: path and reason.
    pub skipped: Vec<(String, String)>,
    /// The names of images without annotations.
    pub unannotated: Vec<String>,
    /// Number of boxes that exceeded their image by more than a pixel and were clipped.
    pub clipped: usize,
    /// Boxes that were dropped because they are empty or outside of their image: image and reason.
    pub dropped: Vec<String>,
    /// The number of objects of each class that was not requested. They are left out.
    pub other: BTreeMap<String, usize>,
    /// One line: the source, the number and size of the images, the classes.
    pub description: String,
}

impl AnnotatedImages for DetectionSet {
    fn count(&self) -> usize {
        self.len()
    }

    fn memory(&self) -> u64 {
        self.images.held_bytes() + self.images.reading_bytes()
    }
}

impl DetectionSet {
    /// Opens images and their boxes. `split` is the name of a list in `ImageSets/Main` of a Pascal
    /// VOC data set. `classes` are the names of the classes to use; if it is empty, all that occur
    /// are used, in alphabetical order.
    ///
    /// # Errors
    /// If the images cannot be loaded, no image has annotations, or no object belongs to the
    /// classes. With `wanted.strict` also if an annotation or box is invalid or of another class.
    pub fn open(
        source: &str,
        annotations: &Annotations,
        split: Option<&str>,
        classes: &[String],
        wanted: &LoadOptions,
        limit: u64,
    ) -> Result<Self> {
        let root = Path::new(source);
        let images = if root.join(IMAGES).is_dir() {
            root.join(IMAGES).to_string_lossy().into_owned()
        } else {
            source.to_owned()
        };
        let opened = match split {
            None => data::open(&images, wanted, limit)?,
            Some(split) => open_split(root, Path::new(&images), split, wanted, limit)?,
        };
        let (pixels, mut skipped) = (opened.pixels, opened.skipped);
        let stem = |image: usize| {
            Path::new(&pixels.name(image))
                .file_stem()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned()
        };
        let all: Vec<usize> = (0..pixels.len()).collect();
        let mut unannotated = Vec::new();
        let mut annotated: Vec<(usize, Vec<NamedObject>)> = Vec::new();
        match annotations {
            Annotations::Coco(file) => {
                let mut by_name = read_coco(file)?;
                for image in all {
                    let name = pixels.name(image);
                    // A file name in COCO can lack the folders.
                    let last = Path::new(&name)
                        .file_name()
                        .unwrap_or_default()
                        .to_string_lossy()
                        .into_owned();
                    match by_name.remove(&name).or_else(|| by_name.remove(&last)) {
                        Some(objects) => annotated.push((image, objects)),
                        None => unannotated.push(name),
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
                        "{source}: no annotations found, the folder {} does not exist; {}",
                        folder.display(),
                        Advice::AnnotationFiles
                    )));
                }
                let file = |image: usize| folder.join(format!("{}.xml", stem(image)));
                let read: Vec<Option<Result<Vec<NamedObject>>>> = all
                    .par_iter()
                    .map(|image| {
                        Some(file(*image)).filter(|file| file.is_file()).map(|file| read_voc(&file))
                    })
                    .collect();
                for (image, read) in all.into_iter().zip(read) {
                    match read {
                        None => unannotated.push(pixels.name(image)),
                        Some(Ok(objects)) => annotated.push((image, objects)),
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
        if annotated.is_empty() {
            let reason = skipped
                .first()
                .map_or_else(String::new, |(file, reason)| format!(" ({file}: {reason})"));
            return Err(Error::usage(format!("{source}: no image has valid annotations{reason}")));
        }
        let classes = if classes.is_empty() { class_names(&annotated) } else { classes.to_vec() };
        if classes.is_empty() {
            return Err(Error::usage(format!(
                "{source}: the annotations contain no box; at least one is needed"
            )));
        }
        let mut set = Self {
            description: format!(
                "{}; {} with annotations, classes {}",
                opened.description,
                annotated.len(),
                classes.join(", ")
            ),
            images: pixels,
            annotated: Vec::new(),
            classes,
            skipped,
            unannotated,
            clipped: 0,
            dropped: Vec::new(),
            other: BTreeMap::new(),
        };
        for (image, objects) in annotated {
            let objects = set.validate(image, objects);
            set.annotated.push((image, objects));
        }
        if set.objects() == 0 {
            let other: Vec<&str> = set.other.keys().map(String::as_str).collect();
            let found = if other.is_empty() {
                String::new()
            } else {
                format!("; the annotations have {}", other.join(", "))
            };
            return Err(Error::usage(format!(
                "{source}: no object belongs to the classes {}{found}",
                set.classes.join(", ")
            )));
        }
        match (set.dropped.first(), set.other.keys().next()) {
            (Some(dropped), _) if wanted.strict => Err(Error::usage(dropped.clone())),
            (None, Some(other)) if wanted.strict => Err(Error::usage(format!(
                "{source}: there are objects of class {other}, which is not among {}",
                set.classes.join(", ")
            ))),
            _ => Ok(set),
        }
    }

    /// Returns the objects of an image with a known class and a valid box, clipped to the image.
    /// Records the others in `clipped`, `dropped` and `other`.
    fn validate(&mut self, image: usize, objects: Vec<NamedObject>) -> Vec<Object> {
        let size = self.images.size(image);
        let mut kept = Vec::new();
        for NamedObject { name, bounds, difficult, crowd } in objects {
            let Some(class) = self.classes.iter().position(|class| *class == name) else {
                *self.other.entry(name).or_default() += 1;
                continue;
            };
            let inside = bounds.clipped(size);
            if inside.right - inside.left < MIN_SIDE || inside.bottom - inside.top < MIN_SIDE {
                let reason = if bounds.area() > 0.0 {
                    format!("is outside of the {size} pixels")
                } else {
                    "has no area".to_owned()
                };
                self.dropped.push(format!("{}: a box of {name} {reason}", self.images.name(image)));
                continue;
            }
            // Pascal VOC counts pixels from 1, but some programs write them from 0, so a box can
            // exceed the image by one pixel.
            let beyond = (bounds.left - inside.left).abs().max((bounds.top - inside.top).abs());
            let beyond = beyond
                .max((bounds.right - inside.right).abs())
                .max((bounds.bottom - inside.bottom).abs());
            self.clipped += usize::from(beyond > 1.0);
            kept.push(Object { class, bounds: inside, difficult, crowd });
        }
        kept
    }

    /// Number of images with annotations. Methods that take `index` mean an index among these.
    pub fn len(&self) -> usize {
        self.annotated.len()
    }

    /// Whether no image has annotations.
    pub fn is_empty(&self) -> bool {
        self.annotated.is_empty()
    }

    /// Number of objects in all images.
    pub fn objects(&self) -> usize {
        self.annotated.iter().map(|(_, objects)| objects.len()).sum()
    }

    /// Height, width and channels of an annotated image.
    pub fn dims(&self, index: usize) -> Dims {
        Dims::of(self.images.size(self.annotated[index].0), self.images.channels())
    }

    /// The pixels (H,W,C) of an annotated image.
    ///
    /// # Errors
    /// If its file cannot be read any more.
    pub fn bytes(&self, index: usize, handles: &mut Handles) -> Result<Cow<'_, [u8]>> {
        self.images.read(self.annotated[index].0, handles)
    }
}

/// The names of the classes that occur, in alphabetical order.
fn class_names(annotated: &[(usize, Vec<NamedObject>)]) -> Vec<String> {
    let mut names: Vec<String> = annotated
        .iter()
        .flat_map(|(_, objects)| objects.iter().map(|object| object.name.clone()))
        .collect();
    names.sort();
    names.dedup();
    names
}

/// Opens the images of the folder `images` that belong to a split. Its list names them without
/// extensions.
fn open_split(
    root: &Path,
    images: &Path,
    split: &str,
    wanted: &LoadOptions,
    limit: u64,
) -> Result<Opened> {
    let file = root.join(SPLITS).join(format!("{split}.txt"));
    if !file.is_file() {
        return Err(Error::usage(format!(
            "split {split}: the file {} does not exist; check the name of the split",
            file.display()
        )));
    }
    let text = String::from_utf8_lossy(&files::read(&file)?).into_owned();
    // The list of a class has 1, 0 or −1 after each name.
    let mut names: HashSet<&str> =
        text.lines().filter_map(|line| line.split_whitespace().next()).collect();
    if names.is_empty() {
        return Err(Error::usage(format!("split {split}: {} is empty", file.display())));
    }
    let stem = |image: &Path| image.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let opened =
        data::open_filtered(images, |image| names.contains(stem(image).as_str()), wanted, limit)?;
    let mut opened = opened.ok_or_else(|| {
        Error::usage(format!("split {split}: none of its images is in {}", images.display()))
    })?;
    for image in 0..opened.pixels.len() {
        names.remove(stem(Path::new(&opened.pixels.name(image))).as_str());
    }
    let skipped: HashSet<String> =
        opened.skipped.iter().map(|(file, _)| stem(Path::new(file))).collect();
    let mut missing: Vec<&str> =
        names.into_iter().filter(|name| !skipped.contains(*name)).collect();
    missing.sort_unstable();
    opened.skipped.extend(missing.into_iter().map(|name| {
        (name.to_owned(), format!("listed in {}, but there is no such image", file.display()))
    }));
    Ok(opened)
}
