//! Test sets for anomaly detection: folders of normal and defective images, and masks of the
//! defects. Evaluation of a detector on them.

use std::path::{Path, PathBuf};

use super::detector::Detector;
use super::image::Image;
use super::views::{ViewExtractor, score};
use crate::advice::Advice;
use crate::data;
use crate::data::formats::content::EXTENSIONS;
use crate::data::formats::decode::decode_file;
use crate::data::{FileReport, Handles, LoadOptions, Opened, Pixels};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::metrics::ranks::{ScoreHistogram, regions};
use crate::shape::Size;

/// Names of the folder of normal images. The first that exists is used: that of the MVTec
/// AD data set, and others that are common.
const NORMAL: [&str; 4] = ["good", "normal", "ok", "OK"];
/// Folders searched for masks by default.
const MASKS: [&str; 2] = ["masks", "ground_truth"];

/// Images with one kind of defect.
#[derive(Debug)]
pub struct DefectClass {
    /// Name of the folder.
    pub name: String,
    /// The images.
    pub images: Pixels,
    /// The mask of each image, if there is one.
    pub masks: Vec<Option<PathBuf>>,
}

/// A test set.
#[derive(Debug)]
pub struct LabelledSet {
    /// Normal images.
    pub good: Pixels,
    /// Defective images, by kind of defect.
    pub kinds: Vec<DefectClass>,
    /// Files that are not read, or not as a whole.
    pub report: FileReport,
}

impl LabelledSet {
    /// Opens a folder. Its subfolder `normal` holds normal images; every other one holds a kind of
    /// defect. Without a name, the subfolder is `good`, `normal`, `ok` or `OK`. Masks are searched
    /// in `masks` and `ground_truth`, inside or beside the folder, or in the folder `masks` if it
    /// is given. A mask is called `KIND/NAME.png` or `KIND/NAME_mask.png`;
    /// if there is only one kind, `KIND/` can be missing.
    ///
    /// # Errors
    /// If there are no normal images, no defective images, or no folder `masks`.
    pub fn open(
        root: &Path,
        normal: Option<&str>,
        masks: Option<&Path>,
        wanted: &LoadOptions,
        limit: u64,
    ) -> Result<Self> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(root).map_err(|error| Error::io(root, &error))? {
            let entry = entry.map_err(|error| Error::io(root, &error))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_masks = MASKS.contains(&name.as_str())
                || masks.is_some_and(|masks| same_folder(masks, &entry.path()));
            if entry.path().is_dir() && !name.starts_with('.') && !is_masks {
                names.push(name);
            }
        }
        names.sort();
        let is_there = |normal: &str| names.iter().any(|name| name == normal);
        let found = match normal {
            Some(normal) => Some(normal).filter(|normal| is_there(normal)),
            None => NORMAL.into_iter().find(|normal| is_there(normal)),
        };
        let Some(normal) = found else {
            let folders = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            return Err(Error::usage(format!(
                "{} has no folder `{}` of normal images (its folders: {folders}); {}, and put each \
                 kind of defect into a folder of its own",
                root.display(),
                normal.unwrap_or(NORMAL[0]),
                Advice::NormalFolder
            )));
        };
        names.retain(|name| name != normal);
        if names.is_empty() {
            return Err(Error::usage(format!(
                "{} has no folder besides `{normal}`; put each kind of defect into a folder of its \
                 own",
                root.display()
            )));
        }
        let beside =
            |folder: &&str| [root.join(folder), root.parent().unwrap_or(root).join(folder)];
        let masks = match masks {
            Some(masks) if masks.is_dir() => Some(masks.to_owned()),
            Some(masks) => {
                return Err(Error::usage(format!("masks {}: no such folder", masks.display())));
            }
            None => MASKS.iter().flat_map(beside).find(|folder| folder.is_dir()),
        };
        let mut held = 0;
        let mut open = |name: &str| -> Result<Opened> {
            let folder = root.join(name);
            let opened = data::open(&folder.to_string_lossy(), wanted, limit.saturating_sub(held))?;
            held += opened.pixels.held_bytes();
            Ok(opened)
        };
        let Opened { pixels: good, mut report, .. } = open(normal)?;
        let mut kinds = Vec::new();
        for name in &names {
            let opened = open(name)?;
            report.extend(opened.report);
            let only = names.len() == 1;
            let mask = |i| {
                masks.as_ref().and_then(|masks| mask_of(masks, name, &opened.pixels.name(i), only))
            };
            let masks = (0..opened.pixels.len()).map(mask).collect();
            kinds.push(DefectClass { name: name.clone(), images: opened.pixels, masks });
        }
        Ok(Self { good, kinds, report })
    }

    /// Names of defective images without a mask.
    pub fn unmasked(&self) -> Vec<String> {
        let missing = |kind: &DefectClass| -> Vec<String> {
            let without = kind.masks.iter().enumerate().filter(|(_, mask)| mask.is_none());
            without.map(|(i, _)| format!("{}/{}", kind.name, kind.images.name(i))).collect()
        };
        self.kinds.iter().flat_map(missing).collect()
    }

    /// All sets of images.
    pub fn sets(&self) -> impl Iterator<Item = &Pixels> {
        std::iter::once(&self.good).chain(self.kinds.iter().map(|kind| &kind.images))
    }
}

fn same_folder(a: &Path, b: &Path) -> bool {
    a.canonicalize().ok().zip(b.canonicalize().ok()).is_some_and(|(a, b)| a == b)
}

/// The mask file of an image, if there is one.
fn mask_of(masks: &Path, kind: &str, image: &str, only: bool) -> Option<PathBuf> {
    let stem = Path::new(image).with_extension("");
    let folders = [Some(masks.join(kind)), only.then(|| masks.to_owned())];
    let names = |folder: PathBuf| {
        let stem = stem.clone();
        EXTENSIONS.iter().flat_map(move |ending| {
            let file = |tail: &str| folder.join(format!("{}{tail}.{ending}", stem.display()));
            [file(""), file("_mask")]
        })
    };
    folders.into_iter().flatten().flat_map(names).find(|path| path.is_file())
}

/// Reads a mask for an image of `size`. Pixels brighter than half of the mask's brightest pixel
/// belong to the defect.
///
/// # Errors
/// If it does not decode, has another size, or marks no pixel.
pub fn read_mask(path: &Path, size: Size) -> Result<Vec<bool>> {
    let mask = decode_file(path).map_err(|error| error.at(path.display()))?;
    let bad = |what: String| Error::usage(format!("{}: {what}", path.display()));
    let own = mask.dims.size();
    if own != size {
        return Err(bad(format!("the mask has {own} pixels, its image {size}")));
    }
    let bright: Vec<u8> = mask
        .pixels
        .chunks_exact(mask.dims.c)
        .map(|pixel| pixel.iter().copied().max().unwrap_or(0))
        .collect();
    let brightest = bright.iter().copied().max().unwrap_or(0);
    if brightest == 0 {
        return Err(bad(
            "the mask marks nothing; move images without a defect to the normal images".to_owned(),
        ));
    }
    Ok(bright.into_iter().map(|value| 2 * u16::from(value) > u16::from(brightest)).collect())
}

/// How well a score separates defects from normal images and pixels.
#[derive(Clone, Debug, Default)]
pub struct Evaluation {
    /// Scores of whole images.
    pub images: ScoreHistogram,
    /// Scores of the pixels of normal images, and of defective images with masks.
    pub pixels: ScoreHistogram,
}

impl Evaluation {
    fn add(&mut self, (map, score): (&[f32], f32), truth: Truth<'_>) {
        match truth {
            Truth::Good => {
                self.images.add_normal(score);
                map.iter().for_each(|value| self.pixels.add_normal(*value));
            }
            Truth::Defect(regions) => {
                self.images.add_defect(score);
                if let Some(regions) = regions {
                    self.pixels.add_pixels(map, regions);
                }
            }
        }
    }
}

/// An image with its labels.
#[derive(Clone, Copy)]
enum Truth<'a> {
    Good,
    Defect(Option<&'a [u32]>),
}

/// Evaluation of a detector.
#[derive(Clone, Debug)]
pub struct Report {
    /// By the heat map.
    pub all: Evaluation,
    /// By each view alone, in the order of [`super::VIEWS`].
    pub views: Vec<Evaluation>,
    /// For each kind of defect against all normal images: its name, the number of its images, and
    /// the evaluation of the heat map.
    pub kinds: Vec<(String, usize, Evaluation)>,
    /// Number of normal images, and of those called anomalous.
    pub false_alarms: [usize; 2],
    /// Number of defective images, and of those called anomalous.
    pub found: [usize; 2],
    /// Skipped masks: path and reason.
    pub skipped: Vec<(String, String)>,
}

/// Evaluates a detector on a test set. `progress` is called after every image with the number done.
///
/// # Errors
/// If an image can no longer be read, a mask is invalid and `strict` is set, or the device fails.
pub fn evaluate(
    device: &mut Device,
    extractor: &mut ViewExtractor<'_>,
    detector: &Detector,
    set: &LabelledSet,
    strict: bool,
    mut progress: impl FnMut(usize),
) -> Result<Report> {
    let mut all = Evaluation::default();
    let mut views = vec![Evaluation::default(); detector.calibration.statistics.len()];
    // Normal pixels are the pixels of normal images, and the pixels of defective images outside the
    // masks.
    let (mut good, mut kinds, mut skipped) = (Evaluation::default(), Vec::new(), Vec::new());
    let (mut false_alarms, mut found, mut done) = ([set.good.len(), 0], [0, 0], 0);
    let mut handles = Handles::default();
    let mut step = || {
        done += 1;
        progress(done);
    };
    for i in 0..set.good.len() {
        let image = Image::read(&set.good, i, &mut handles)?;
        let image_views = detector.views(device, extractor, &image)?;
        false_alarms[1] += usize::from(image_views.score > detector.calibration.image_threshold);
        let heat = (&image_views.heat[..], image_views.score);
        good.add(heat, Truth::Good);
        all.add(heat, Truth::Good);
        views
            .iter_mut()
            .zip(&image_views.maps)
            .for_each(|(evaluation, map)| evaluation.add((map, score(map)), Truth::Good));
        step();
    }
    for kind in &set.kinds {
        let mut evaluation = good.clone();
        for i in 0..kind.images.len() {
            let image = Image::read(&kind.images, i, &mut handles)?;
            let size = image.dims.size();
            let mask = kind.masks[i].as_ref().map(|path| (path, read_mask(path, size)));
            let marked = match mask {
                Some((_, Ok(mask))) => Some(regions(&mask, size)),
                Some((_, Err(error))) if strict => return Err(error),
                Some((path, Err(error))) => {
                    skipped.push((path.display().to_string(), error.to_string()));
                    None
                }
                None => None,
            };
            let image_views = detector.views(device, extractor, &image)?;
            let truth = Truth::Defect(marked.as_deref());
            found[0] += 1;
            found[1] += usize::from(image_views.score > detector.calibration.image_threshold);
            let heat = (&image_views.heat[..], image_views.score);
            evaluation.add(heat, truth);
            all.add(heat, truth);
            views
                .iter_mut()
                .zip(&image_views.maps)
                .for_each(|(evaluation, map)| evaluation.add((map, score(map)), truth));
            step();
        }
        kinds.push((kind.name.clone(), kind.images.len(), evaluation));
    }
    Ok(Report { all, views, kinds, false_alarms, found, skipped })
}
