//! Image sets with label images, for segmentation.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::advice::Advice;
use crate::annotations::label_image::{IGNORED, LabelImage, Labelling, read_labels};
use crate::data::AnnotatedImages;
use crate::data::{self, FileReport, Handles, LoadOptions, Pixels};
use crate::error::{Error, Result};
use crate::shape::Size;

/// The image folder inside a source, if the label folder is not given.
const IMAGES: &str = "images";
/// The label folder inside a source, if it is not given.
const LABELS: [&str; 2] = ["labels", "masks"];
/// Suffixes of the name of a label image after the name of its image.
const SUFFIXES: [&str; 3] = ["", "_labels", "_mask"];

/// A set of images with label images.
#[derive(Debug)]
pub struct SegmentationSet {
    /// All images that can be decoded.
    pub images: Pixels,
    /// The images with valid label images.
    pub labelled: Vec<LabelledImage>,
    /// How the numbers of the label images map to classes.
    pub labelling: Labelling,
    /// Files that are not read, or not as a whole.
    pub report: FileReport,
    /// The names of images without a label image.
    pub unlabelled: Vec<String>,
    /// Number of classes that pixels have.
    occurring: usize,
    /// One line: the source, the number and size of the images, the classes.
    pub description: String,
}

/// An image with a label image.
#[derive(Clone, Debug)]
pub struct LabelledImage {
    /// Index of the image.
    pub image: usize,
    /// The label image.
    pub file: PathBuf,
    /// The class of each pixel, if it fits into memory.
    classes: Option<Vec<u8>>,
}

/// How label images are interpreted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelOptions {
    /// The names of the classes. Empty: every number up to the largest is a class.
    pub classes: Vec<String>,
    /// Whether the numbers identify instances; see [`Labelling::instances`].
    pub instances: bool,
    /// The number of pixels that are ignored.
    pub ignore: Option<u16>,
}

impl AnnotatedImages for SegmentationSet {
    fn count(&self) -> usize {
        self.len()
    }

    fn memory(&self) -> u64 {
        self.held_bytes()
    }
}

impl SegmentationSet {
    /// Opens images (a folder, a file or a list) and their label images: PNG files with the names
    /// of the images in the folder `labels`. Without `labels`, the source is a folder that contains
    /// `images` and `labels` (or `masks`).
    ///
    /// Every label image is read once. Label images with another size than their image, or with
    /// numbers that are not classes, are skipped.
    ///
    /// # Errors
    /// If the images cannot be loaded, no image has a valid label image, or there are too many
    /// classes. With `wanted.strict` also if a label image is invalid.
    pub fn open(
        source: &str,
        labels: Option<&Path>,
        options: &LabelOptions,
        wanted: &LoadOptions,
        limit: u64,
    ) -> Result<Self> {
        let root = Path::new(source);
        let inside = LABELS
            .iter()
            .map(|name| root.join(name))
            .find(|folder| folder.is_dir())
            .filter(|_| root.join(IMAGES).is_dir());
        let (images, folder) = match (labels, inside) {
            (Some(labels), _) => (root.to_owned(), labels.to_owned()),
            (None, Some(folder)) => (root.join(IMAGES), folder),
            (None, None) => {
                return Err(Error::usage(format!(
                    "{source}: no label images found; {}, or use a folder with {IMAGES}/ and {}/",
                    Advice::LabelFolder,
                    LABELS[0]
                )));
            }
        };
        if !folder.is_dir() {
            return Err(Error::usage(format!(
                "{}: this folder of label images does not exist; {}",
                folder.display(),
                Advice::LabelFolder
            )));
        }
        let opened = data::open(&images.to_string_lossy(), wanted, limit)?;
        let (pixels, mut report) = (opened.pixels, opened.report);
        let label_of = |image| label_file(&folder, &images, &pixels.name(image));
        let mut files: Vec<Option<PathBuf>> = (0..pixels.len()).map(label_of).collect();
        let without = (0..pixels.len()).filter(|image| files[*image].is_none());
        let unlabelled: Vec<String> = without.map(|image| pixels.name(image)).collect();
        let shared = take_shared(&mut files, |image| pixels.name(image));
        if let Some((image, reason)) = shared.first().filter(|_| wanted.strict) {
            return Err(Error::usage(format!("{image}: {reason}")));
        }
        report.skipped.extend(shared);
        let pairs: Vec<(usize, PathBuf)> = files
            .into_iter()
            .enumerate()
            .filter_map(|(image, file)| Some((image, file?)))
            .collect();
        let labelling = options.labelling(&pairs)?;
        let available = limit.saturating_sub(pixels.held_bytes());
        let read: Vec<Result<Vec<u8>>> = pairs
            .par_iter()
            .map(|(image, file)| {
                let labels = read_labels(file)?;
                let (size, own) = (pixels.size(*image), labels.size);
                if own != size {
                    return Err(Error::usage(format!(
                        "the label image has {own} pixels, but its image has {size}"
                    )));
                }
                labelling.classes_of(&labels)
            })
            .collect();
        let (mut labelled, mut bytes) = (Vec::new(), 0_u64);
        let mut occurs = [false; 256];
        for ((image, file), classes) in pairs.into_iter().zip(read) {
            match classes {
                Ok(classes) => {
                    bytes += classes.len() as u64;
                    classes.iter().for_each(|class| occurs[usize::from(*class)] = true);
                    labelled.push(LabelledImage {
                        image,
                        file,
                        classes: (bytes <= available).then_some(classes),
                    });
                }
                Err(error) if wanted.strict => return Err(error.at(file.display())),
                Err(error) => report.skip(file.display(), error),
            }
        }
        if labelled.is_empty() {
            let reason = report
                .skipped
                .first()
                .map_or_else(String::new, |(file, reason)| format!(" ({file}: {reason})"));
            return Err(Error::usage(format!(
                "{source}: none of the {} images has a valid label image in {}{reason}; a label \
                 image has the name of its image and the extension png",
                pixels.len(),
                folder.display()
            )));
        }
        let named = labelling.classes.iter().zip(occurs);
        let absent: Vec<&str> =
            named.filter(|(_, occurs)| !occurs).map(|(name, _)| name.as_str()).collect();
        let without = match absent.len() {
            0 => String::new(),
            1 => format!("; no pixel is of class {}", absent[0]),
            n if n <= 8 => format!("; no pixel is of the classes {}", absent.join(", ")),
            n => format!("; no pixel is of {n} of these classes"),
        };
        let description = format!(
            "{}; {} with labels, classes {}{without}",
            opened.description,
            labelled.len(),
            labelling.classes.join(", ")
        );
        let occurring = labelling.classes.len() - absent.len();
        Ok(Self { images: pixels, labelled, labelling, report, unlabelled, occurring, description })
    }

    /// Checks that there is something to learn.
    ///
    /// # Errors
    /// If all pixels are of one class, or ignored.
    pub fn check_for_training(&self) -> Result<()> {
        if self.occurring > 1 {
            return Ok(());
        }
        let one = "all pixels of the label images are of one class";
        Err(Error::usage(match self.labelling.ignore {
            Some(number) => format!(
                "{one} where {number} is ignored, so there is nothing to learn: do not ignore it; \
                 for masks {}",
                Advice::Masks
            ),
            None => format!(
                "{one}, so there is nothing to learn: they need a number for each of two or more \
                 classes"
            ),
        }))
    }

    /// Number of images with labels. Methods that take `index` mean an index among these.
    pub fn len(&self) -> usize {
        self.labelled.len()
    }

    /// Whether no image has labels.
    pub fn is_empty(&self) -> bool {
        self.labelled.is_empty()
    }

    /// The memory of images and labels, in bytes.
    pub fn held_bytes(&self) -> u64 {
        self.images.held_bytes()
            + self
                .labelled
                .iter()
                .filter_map(|labelled| labelled.classes.as_ref())
                .map(|classes| classes.len() as u64)
                .sum::<u64>()
    }

    /// Height and width of a labelled image.
    pub fn size(&self, index: usize) -> Size {
        self.images.size(self.labelled[index].image)
    }

    /// The class of each pixel of a labelled image (H,W); see [`Labelling::classes_of`].
    ///
    /// # Errors
    /// If the label image cannot be read any more. The message names it.
    pub fn classes(&self, index: usize) -> Result<Cow<'_, [u8]>> {
        let LabelledImage { file, classes, .. } = &self.labelled[index];
        match classes {
            Some(classes) => Ok(classes.into()),
            None => {
                let classes =
                    read_labels(file).and_then(|labels| self.labelling.classes_of(&labels));
                Ok(classes.map_err(|error| error.at(file.display()))?.into())
            }
        }
    }

    /// The pixels (H,W,C) of a labelled image.
    ///
    /// # Errors
    /// If its file cannot be read any more.
    pub fn bytes(&self, index: usize, handles: &mut Handles) -> Result<Cow<'_, [u8]>> {
        self.images.read(self.labelled[index].image, handles)
    }
}

impl LabelOptions {
    /// The mapping of numbers to classes. Without names of classes, the label images are read to
    /// find the largest number; it and all smaller numbers are classes.
    ///
    /// # Errors
    /// If there are too many classes, or instances have other than two.
    fn labelling(&self, pairs: &[(usize, PathBuf)]) -> Result<Labelling> {
        let Self { classes, instances, ignore } = self.clone();
        let classes = if !classes.is_empty() {
            if instances && classes.len() != 2 {
                return Err(Error::usage(
                    "classes with instances: give two names, of the background and of the objects",
                ));
            }
            classes
        } else if instances {
            vec!["background".to_owned(), "foreground".to_owned()]
        } else {
            let numbers = |image: LabelImage| -> BTreeSet<u16> {
                let kept = image.values.into_iter().filter(|value| ignore != Some(*value));
                kept.collect()
            };
            // `open` reports the files that cannot be read.
            let numbers = pairs
                .par_iter()
                .filter_map(|(_, file)| read_labels(file).ok())
                .map(numbers)
                .reduce(BTreeSet::new, |mut all, mut of_image| {
                    all.append(&mut of_image);
                    all
                });
            // A mask: 0 and one other number, mostly 255.
            if let [0, number @ 2..=u16::MAX] = numbers.iter().copied().collect::<Vec<_>>()[..] {
                return Err(Error::usage(format!(
                    "the label images hold only the numbers 0 and {number}, as masks do, so the \
                     classes between them do not occur; {}",
                    Advice::Masks
                )));
            }
            let max = numbers.last().copied().unwrap_or(0);
            if usize::from(max) >= usize::from(IGNORED) {
                return Err(Error::usage(format!(
                    "labels go up to {max}, but at most {IGNORED} classes are supported; {}",
                    Advice::LabelNumbers
                )));
            }
            (0..=max.max(1)).map(|class| class.to_string()).collect()
        };
        if classes.len() > usize::from(IGNORED) {
            return Err(Error::usage(format!(
                "{} classes, but at most {IGNORED} are supported",
                classes.len()
            )));
        }
        Ok(Labelling { classes, instances, ignore })
    }
}

/// The label image of an image: at its relative path below `folder`, or directly in `folder`. It is
/// never the image itself: `images` and `folder` can be the same, with `x.png` and `x_mask.png`.
fn label_file(folder: &Path, images: &Path, image: &str) -> Option<PathBuf> {
    let own = images.join(image);
    let own = own.canonicalize().unwrap_or(own);
    let other = |file: &Path| file.canonicalize().is_ok_and(|file| file != own);
    let stem = Path::new(image).with_extension("");
    let last = stem.file_name().map(PathBuf::from).unwrap_or_default();
    // The images of a list can have absolute paths.
    let stem = if stem.is_absolute() { last.clone() } else { stem };
    let find = |stem: &Path| {
        SUFFIXES
            .iter()
            .map(|suffix| folder.join(format!("{}{suffix}.png", stem.display())))
            .find(|file| file.is_file() && other(file))
    };
    find(&stem).or_else(|| find(&last))
}

/// Removes label images that several images would use, such as `1.png` for `a/1.jpg` and `b/1.jpg`:
/// it can only be of one of them. Returns these images with the reason.
fn take_shared(
    files: &mut [Option<PathBuf>],
    name: impl Fn(usize) -> String,
) -> Vec<(String, String)> {
    let mut users: BTreeMap<PathBuf, Vec<usize>> = BTreeMap::new();
    for (image, file) in files.iter().enumerate() {
        if let Some(file) = file {
            users.entry(file.clone()).or_default().push(image);
        }
    }
    let mut shared = Vec::new();
    for (file, images) in users {
        let names: Vec<String> = images.iter().map(|image| name(*image)).collect();
        // A list can name an image twice.
        let Some(other) = names.iter().find(|name| **name != names[0]) else { continue };
        for (image, name) in images.into_iter().zip(&names) {
            let other = if *name == names[0] { other } else { &names[0] };
            let reason = format!(
                "{} could be its label image or that of {other}; name label images after the \
                 path of their image",
                file.display()
            );
            shared.push((name.clone(), reason));
            files[image] = None;
        }
    }
    shared
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Folder;

    #[test]
    fn a_label_image_of_two_images_is_of_none() {
        let names = ["a/1.jpg", "b/1.jpg", "2.jpg", "2.jpg", "3.jpg"];
        let file = |name: &str| Some(PathBuf::from(name));
        let mut files = vec![file("1.png"), file("1.png"), file("2.png"), file("2.png"), None];
        let shared = take_shared(&mut files, |image| names[image].to_owned());
        let images: Vec<&str> = shared.iter().map(|(image, _)| image.as_str()).collect();
        assert_eq!(images, ["a/1.jpg", "b/1.jpg"]);
        assert!(shared[0].1.contains("1.png could be") && shared[0].1.contains("b/1.jpg"));
        assert_eq!(files, [None, None, file("2.png"), file("2.png"), None]);
    }

    #[test]
    fn label_images_are_found_by_path_name_and_suffix() {
        let folder = Folder::new("label-file");
        let elsewhere = Path::new("/elsewhere");
        let nested = folder.write("a/1.png", b"");
        let flat = folder.write("2_mask.png", b"");
        assert_eq!(label_file(&folder.path, elsewhere, "a/1.jpg"), Some(nested));
        assert_eq!(label_file(&folder.path, elsewhere, "b/2.jpg"), Some(flat.clone()));
        assert_eq!(label_file(&folder.path, elsewhere, "/elsewhere/2.jpg"), Some(flat));
        assert_eq!(label_file(&folder.path, elsewhere, "3.jpg"), None);
        // In a folder of images and label images.
        folder.write("2.png", b"");
        let beside = label_file(&folder.path, &folder.path, "2.png");
        assert_eq!(beside, Some(folder.path.join("2_mask.png")));
    }

    #[test]
    fn instances_need_two_class_names() {
        let options = |classes: &[&str]| LabelOptions {
            classes: classes.iter().map(|name| (*name).to_owned()).collect(),
            instances: true,
            ignore: None,
        };
        assert_eq!(options(&[]).labelling(&[]).unwrap().classes, ["background", "foreground"]);
        assert_eq!(options(&["sky", "bird"]).labelling(&[]).unwrap().classes, ["sky", "bird"]);
        let message = options(&["a"]).labelling(&[]).unwrap_err().to_string();
        assert!(message.contains("give two names"), "{message}");
    }
}
