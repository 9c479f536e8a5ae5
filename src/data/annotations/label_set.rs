//! Images with label images.

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::data::annotations::label_image::{LabelImage, Labelling, read_labels};
use crate::data::{self, Handles, Pixels, Wanted};
use crate::error::{Error, Result};

/// Folders of images and of labels, where none is named.
const IMAGES: &str = "images";
const LABELS: [&str; 2] = ["labels", "masks"];
/// What may stand behind an image's name in that of its labels.
const TAILS: [&str; 3] = ["", "_labels", "_mask"];

/// Images, and which of them have labels that can be used.
#[derive(Debug)]
pub struct Set {
    /// All images that decode.
    pub images: Pixels,
    /// Those that have labels, and where these lie.
    pub answered: Vec<Answered>,
    /// What is known of the numbers in them.
    pub labelling: Labelling,
    /// Files passed over: path and reason.
    pub skipped: Vec<(String, String)>,
    /// Images without a label file.
    pub unlabelled: Vec<String>,
    /// What was found, for people.
    pub description: String,
}

/// An image with labels.
#[derive(Clone, Debug)]
pub struct Answered {
    /// Which of the images.
    pub image: usize,
    /// The file of its labels.
    pub file: PathBuf,
    /// The class of each pixel, where there was room to keep them.
    held: Option<Vec<u8>>,
}

/// What is known of the numbers before they are read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meaning {
    /// Names of the classes; empty: as many as there are numbers.
    pub classes: Vec<String>,
    /// Whether numbers are those of instances.
    pub instances: bool,
    /// The number of pixels that do not count.
    pub ignore: Option<u16>,
}

impl Set {
    /// Opens images (a folder, a file, a list) and their labels: files of the same names in the
    /// folder `labels`, or, of a folder that has `images` and `labels` (or `masks`) in it, those.
    /// Every label image is read once: those of another size than their image, or with numbers that
    /// are no class, are passed over.
    ///
    /// # Errors
    /// When no image has labels, `strict` is wanted and one is passed over, or there are too many
    /// classes.
    pub fn open(
        source: &str,
        labels: Option<&Path>,
        meaning: &Meaning,
        wanted: &Wanted,
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
                    "{source}: where are its labels? Name their folder by --labels, or lay out {IMAGES}/ and {}/",
                    LABELS[0]
                )));
            }
        };
        if !folder.is_dir() {
            return Err(Error::usage(format!("--labels {}: no such folder", folder.display())));
        }
        let found = data::open(&images.to_string_lossy(), wanted, limit)?;
        let (pixels, mut skipped) = (found.pixels, found.skipped);
        let files: Vec<Option<PathBuf>> =
            (0..pixels.len()).map(|image| label_file(&folder, &pixels.name(image))).collect();
        let without = (0..pixels.len()).filter(|image| files[*image].is_none());
        let unlabelled: Vec<String> = without.map(|image| pixels.name(image)).collect();
        let pairs: Vec<(usize, PathBuf)> = files
            .into_iter()
            .enumerate()
            .filter_map(|(image, file)| Some((image, file?)))
            .collect();
        let labelling = meaning.settle(&pairs)?;
        let room = limit.saturating_sub(pixels.held_bytes());
        let read: Vec<Result<Vec<u8>>> = pairs
            .par_iter()
            .map(|(image, file)| {
                let labels = read_labels(file)?;
                let (h, w) = pixels.size(*image);
                if (labels.h, labels.w) != (h, w) {
                    return Err(Error::usage(format!(
                        "labels of {}x{} for an image of {w}x{h}",
                        labels.w, labels.h
                    )));
                }
                labelling.classes_of(&labels)
            })
            .collect();
        let (mut answered, mut held) = (Vec::new(), 0_u64);
        for ((image, file), classes) in pairs.into_iter().zip(read) {
            match classes {
                Ok(classes) => {
                    held += classes.len() as u64;
                    answered.push(Answered {
                        image,
                        file,
                        held: (held <= room).then_some(classes),
                    });
                }
                Err(error) if wanted.strict => return Err(error.at(file.display())),
                Err(error) => skipped.push((file.display().to_string(), error.to_string())),
            }
        }
        if answered.is_empty() {
            let why = skipped
                .first()
                .map_or_else(String::new, |(file, reason)| format!(" ({file}: {reason})"));
            return Err(Error::usage(format!(
                "{source}: none of {} images has labels in {} that can be used{why}; label files are called as their images, with the ending png",
                pixels.len(),
                folder.display()
            )));
        }
        let description = format!(
            "{}; {} with labels, classes {}",
            found.description,
            answered.len(),
            labelling.classes.join(", ")
        );
        Ok(Self { images: pixels, answered, labelling, skipped, unlabelled, description })
    }

    /// The number of images with labels.
    pub fn len(&self) -> usize {
        self.answered.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.answered.is_empty()
    }

    /// Bytes of labels in memory.
    pub fn held_bytes(&self) -> u64 {
        self.images.held_bytes()
            + self
                .answered
                .iter()
                .filter_map(|answered| answered.held.as_ref())
                .map(|held| held.len() as u64)
                .sum::<u64>()
    }

    /// Height and width of the one of this number that has labels.
    pub fn size(&self, number: usize) -> (usize, usize) {
        self.images.size(self.answered[number].image)
    }

    /// The class of each of its pixels.
    ///
    /// # Errors
    /// When the file cannot be read any more.
    pub fn classes(&self, number: usize) -> Result<std::borrow::Cow<'_, [u8]>> {
        let Answered { file, held, .. } = &self.answered[number];
        match held {
            Some(held) => Ok(held.into()),
            None => {
                let classes =
                    read_labels(file).and_then(|labels| self.labelling.classes_of(&labels));
                Ok(classes.map_err(|error| error.at(file.display()))?.into())
            }
        }
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
        self.images.read(self.answered[number].image, handles)
    }
}

impl Meaning {
    /// The classes that label images have, if they are not named: numbers up to the largest one
    /// that counts.
    fn settle(&self, pairs: &[(usize, PathBuf)]) -> Result<Labelling> {
        let Self { classes, instances, ignore } = self.clone();
        let named = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let classes = if !classes.is_empty() {
            if instances && classes.len() != 2 {
                return Err(Error::usage(
                    "--classes with --instances: two names, of the background and of what the instances are",
                ));
            }
            classes
        } else if instances {
            named(&["background", "foreground"])
        } else {
            let largest = |image: &LabelImage| {
                image
                    .values
                    .iter()
                    .copied()
                    .filter(|value| ignore != Some(*value))
                    .max()
                    .unwrap_or(0)
            };
            // files that cannot be read are told of later
            let most = pairs
                .par_iter()
                .filter_map(|(_, file)| read_labels(file).ok())
                .map(|image| largest(&image))
                .max()
                .unwrap_or(0);
            (0..=most.max(1)).map(|class| class.to_string()).collect()
        };
        if classes.len() > usize::from(crate::data::annotations::label_image::NONE) {
            return Err(Error::usage(format!(
                "labels go up to {}: more than {} classes; --instances takes numbers of objects, --ignore leaves one number out",
                classes.len() - 1,
                crate::data::annotations::label_image::NONE
            )));
        }
        Ok(Labelling { classes, instances, ignore })
    }
}

/// The labels of an image.
fn label_file(folder: &Path, image: &str) -> Option<PathBuf> {
    let whole = Path::new(image).with_extension("");
    let last = whole.file_name().map(PathBuf::from).unwrap_or_default();
    // of a list, images may have whole paths
    let whole = if whole.is_absolute() { last.clone() } else { whole };
    let place = |stem: &Path| {
        TAILS
            .iter()
            .map(|tail| folder.join(format!("{}{tail}.png", stem.display())))
            .find(|file| file.is_file())
    };
    place(&whole).or_else(|| place(&last))
}
