//! Image sets with bounding boxes, for object detection.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

use crate::advice::Advice;
use crate::annotations::box_files::{Annotation, NamedObject, Object, Range};
use crate::annotations::coco::read_coco;
use crate::annotations::file_per_image::{self, ambiguous};
use crate::annotations::findings::{Findings, Oddity};
use crate::annotations::fit::Fit;
use crate::annotations::matching::{Match, match_paths, parts};
use crate::data::AnnotatedImages;
use crate::data::formats::decode;
use crate::data::{self, FileReport, Handles, LoadOptions, Opened, Pixels, pattern};
use crate::error::{Error, Result};
use crate::files;
use crate::shape::{Dims, Size};

/// The image folder of a Pascal VOC data set.
const IMAGES: &str = "JPEGImages";
/// The annotation folder of a Pascal VOC data set.
const BOXES: &str = "Annotations";
/// The folders of images and of annotations of a YOLO data set.
const YOLO_IMAGES: &str = "images";
const YOLO_BOXES: &str = "labels";
/// The folder of a Pascal VOC data set with the lists of its splits.
const SPLITS: &str = "ImageSets/Main";
/// Boxes with a side below this, in pixels, are empty: it allows for rounding in their files.
const MIN_SIDE: f64 = 1e-6;

/// The location and format of the annotations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Annotations {
    /// Pascal VOC's XML files in the folder `Annotations` beside `JPEGImages`, or YOLO's text files
    /// in `labels` beside `images`.
    #[default]
    Beside,
    /// Pascal VOC's XML files or YOLO's text files in this folder.
    Folder(PathBuf),
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
    /// Files that are not read, or not as a whole.
    pub report: FileReport,
    /// The names of images without annotations.
    pub unannotated: Vec<String>,
    /// Number of boxes that exceeded their image by more than a pixel and were clipped.
    pub clipped: usize,
    /// Boxes that were dropped because they are empty or outside of their image: image and reason.
    pub dropped: Vec<String>,
    /// Odd annotations that were skipped or corrected.
    pub findings: Findings,
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
        let inside = if root.join(YOLO_BOXES).is_dir() { YOLO_IMAGES } else { IMAGES };
        let images =
            [IMAGES, inside].map(|name| root.join(name)).into_iter().find(|dir| dir.is_dir());
        let images =
            images.map_or_else(|| source.to_owned(), |dir| dir.to_string_lossy().into_owned());
        let opened = match split {
            None => data::open(&images, wanted, limit)?,
            Some(split) => open_split(root, Path::new(&images), split, wanted, limit)?,
        };
        let (pixels, mut report) = (opened.pixels, opened.report);
        let names: Vec<String> = (0..pixels.len()).map(|image| pixels.name(image)).collect();
        let mut unannotated = Vec::new();
        let mut findings = Findings::default();
        let mut annotated: Vec<(usize, Annotation)> = Vec::new();
        match annotations {
            Annotations::Coco(file) => {
                let coco = read_coco(file)?;
                if wanted.strict {
                    coco.findings.refuse_faults().map_err(|error| error.at(file.display()))?;
                }
                findings = coco.findings;
                let (paths, mut read) = merged(coco.images);
                let matches = match_paths(&folder_of(&images), &names, &paths);
                for ((image, name), found) in names.iter().enumerate().zip(matches) {
                    match found {
                        Match::None => unannotated.push(name.clone()),
                        Match::Found(at) => annotated.push((image, std::mem::take(&mut read[at]))),
                        Match::Ambiguous(at) => {
                            findings.add(Oddity::Ambiguous, ambiguous(name, &paths[at]));
                        }
                    }
                }
            }
            other => {
                let folder = match other {
                    Annotations::Folder(folder) => folder.clone(),
                    _ => beside(root, &images),
                };
                if !folder.is_dir() {
                    return Err(Error::usage(format!(
                        "{source}: no annotations found, the folder {} does not exist; {}",
                        folder.display(),
                        Advice::AnnotationFiles
                    )));
                }
                let sizes: Vec<Size> = pixels.sizes().collect();
                let read = file_per_image::read(&folder, &names, &sizes, wanted.strict)?;
                (annotated, unannotated) = (read.annotated, read.unannotated);
                read.skipped.into_iter().for_each(|(file, reason)| report.skip(file, reason));
                read.findings.into_iter().for_each(|(oddity, place)| findings.add(oddity, place));
            }
        }
        let range = annotated.iter().fold(Range::default(), |all, (_, one)| all.and(one.range));
        if range.in_unit && !range.whole {
            return Err(Error::usage(format!(
                "{source}: the boxes look like fractions of the image size: all coordinates are \
                 between 0 and 1; multiply them by the width and height of the image"
            )));
        }
        annotated.retain_mut(|(image, annotation)| {
            let file = || image_file(&images, &names[*image]);
            fit(annotation, pixels.size(*image), &names[*image], file, &mut findings)
        });
        if wanted.strict {
            findings.refuse_faults()?;
        }
        if annotated.is_empty() {
            let skipped = report.skipped.first().map(|(file, reason)| format!("{file}: {reason}"));
            let odd = || findings.iter().next().map(|finding| finding.places[0].clone());
            let reason = skipped.or_else(odd).map_or_else(String::new, |why| format!(" ({why})"));
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
            report,
            unannotated,
            clipped: 0,
            dropped: Vec::new(),
            findings,
            other: BTreeMap::new(),
        };
        for (image, annotation) in annotated {
            let tolerance = annotation.scale.unwrap_or(1.0);
            let objects = set.validate(image, annotation.objects, tolerance);
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
        if wanted.strict {
            set.findings.refuse_faults()?;
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
    /// Records the others in `clipped`, `dropped`, `findings` and `other`. `pixel` is the size of
    /// a pixel of the annotation in pixels of the image.
    fn validate(&mut self, image: usize, objects: Vec<NamedObject>, pixel: f64) -> Vec<Object> {
        let size = self.images.size(image);
        let mut kept: Vec<Object> = Vec::new();
        for NamedObject { name, bounds, difficult, crowd, swapped } in objects {
            let Some(class) = self.classes.iter().position(|class| *class == name) else {
                *self.other.entry(name).or_default() += 1;
                continue;
            };
            let place = |what: &str| format!("{}: a box of {name} {what}", self.images.name(image));
            if swapped {
                let place =
                    place("has swapped corners: its right or lower edge is the smaller one");
                self.findings.add(Oddity::SwappedCorners, place);
            }
            let inside = bounds.clipped(size);
            if inside.right - inside.left < MIN_SIDE || inside.bottom - inside.top < MIN_SIDE {
                let reason = if bounds.area() > 0.0 {
                    format!("is outside of the {size} pixels")
                } else {
                    "has no area".to_owned()
                };
                self.dropped.push(place(&reason));
                continue;
            }
            // Pascal VOC counts pixels from 1, but some programs write them from 0, so a box can
            // exceed the image by one pixel.
            let beyond = (bounds.left - inside.left).abs().max((bounds.top - inside.top).abs());
            let beyond = beyond
                .max((bounds.right - inside.right).abs())
                .max((bounds.bottom - inside.bottom).abs());
            // Detections match one of two equal objects, so the other would count as missed.
            let same = |other: &&mut Object| {
                (other.class, other.bounds, other.crowd) == (class, inside, crowd)
            };
            if let Some(other) = kept.iter_mut().find(same) {
                other.difficult &= difficult;
                self.findings.add(Oddity::Repeated, place("occurs twice"));
                continue;
            }
            // Scaling rounds the edges.
            self.clipped += usize::from(beyond > pixel * (1.0 + 1e-9));
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

    /// Number of images that were left out, since their annotation is unclear or does not fit.
    pub fn images_left_out(&self) -> usize {
        let of_images = [Oddity::Ambiguous, Oddity::OtherShape];
        let found = self.findings.iter().filter(|finding| of_images.contains(&finding.oddity));
        found.map(|finding| finding.places.len()).sum()
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

/// The images of a COCO file. Those with the same path become one.
fn merged(images: Vec<(String, Annotation)>) -> (Vec<String>, Vec<Annotation>) {
    let (mut paths, mut annotations) = (Vec::new(), Vec::<Annotation>::new());
    let mut indices: HashMap<String, usize> = HashMap::new();
    for (path, annotation) in images {
        match indices.get(&parts(&path).join("/")) {
            Some(at) => {
                let own = &mut annotations[*at];
                own.range = own.range.and(annotation.range);
                own.objects.extend(annotation.objects);
            }
            None => {
                indices.insert(parts(&path).join("/"), paths.len());
                paths.push(path);
                annotations.push(annotation);
            }
        }
    }
    (paths, annotations)
}

/// The folder of annotations that belongs to a data set `root` with the images `images`: Pascal
/// VOC's, or YOLO's `labels/train` for `images/train`, or `labels` beside a list.
fn beside(root: &Path, images: &str) -> PathBuf {
    let folder = folder_of(images);
    let parts: Vec<_> = folder.components().map(Component::as_os_str).collect();
    let yolo = parts.iter().rposition(|part| *part == YOLO_IMAGES).map(|at| {
        let replaced = [&parts[..at], &[OsStr::new(YOLO_BOXES)], &parts[at + 1..]];
        replaced.concat().into_iter().collect::<PathBuf>()
    });
    let of_list = images.starts_with('@').then(|| folder.join(YOLO_BOXES));
    let voc = root.join(BOXES);
    let all = [Some(voc.clone()), yolo, of_list];
    all.into_iter().flatten().find(|folder| folder.is_dir()).unwrap_or(voc)
}

/// The folder that the names of images are relative to: that of a list, above the first wildcard of
/// a pattern, or the source itself.
fn folder_of(source: &str) -> PathBuf {
    if source == "-" {
        return PathBuf::new();
    }
    if let Some(list) = source.strip_prefix('@') {
        return Path::new(list).parent().unwrap_or(Path::new("")).to_owned();
    }
    let is_pattern = pattern::is_pattern(source) && !Path::new(source).exists();
    if is_pattern { pattern::root(source) } else { PathBuf::from(source) }
}

/// The file of an image of a source: the source itself, or in its folder.
fn image_file(source: &str, name: &str) -> PathBuf {
    let folder = folder_of(source);
    if folder.is_file() { folder } else { folder.join(name) }
}

/// Brings the boxes of an annotation to the pixels of its image, which has the size `size` and is
/// read from `file`. Returns whether they fit.
fn fit(
    annotation: &mut Annotation,
    size: Size,
    name: &str,
    file: impl FnOnce() -> PathBuf,
    findings: &mut Findings,
) -> bool {
    let Some(from) = annotation.size.filter(|from| *from != size) else { return true };
    let place = format!("{name}: the annotation is for {from} pixels, but the image has {size}");
    let Some(fit) = Fit::new(from, size, || decode::orientation(&file())) else {
        findings.add(Oddity::OtherShape, place);
        return false;
    };
    for object in &mut annotation.objects {
        object.bounds = fit.apply(object.bounds);
    }
    annotation.scale = Some(fit.scale);
    let oddity = if fit.turn.is_some() { Oddity::Turned } else { Oddity::OtherSize };
    findings.add(oddity, place);
    true
}

/// The names of the classes that occur, in alphabetical order.
fn class_names(annotated: &[(usize, Annotation)]) -> Vec<String> {
    let mut names: Vec<String> = annotated
        .iter()
        .flat_map(|(_, annotation)| annotation.objects.iter().map(|object| object.name.clone()))
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
    let bytes = files::read(&file)?;
    let text = files::decode_text(&bytes).unwrap_or_else(|_| String::from_utf8_lossy(&bytes));
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
        opened.report.skipped.iter().map(|(file, _)| stem(Path::new(file))).collect();
    let mut missing: Vec<&str> =
        names.into_iter().filter(|name| !skipped.contains(*name)).collect();
    missing.sort_unstable();
    for name in missing {
        let reason = format!("listed in {}, but there is no such image", file.display());
        opened.report.skip(name, reason);
    }
    Ok(opened)
}
