//! Folders of images that are known to be normal or not, and masks of what is not.

use std::path::{Path, PathBuf};

use super::detector::{Detector, Eye, Image, VIEWS};
use crate::data;
use crate::data::formats::decode::decode_file;
use crate::data::{Handles, Opened, Pixels, Wanted, folder};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::metrics::ranks::{ScoreHistogram, regions};

/// The folder of normal images.
pub const GOOD: &str = "good";
/// Folders that hold masks, where none is named.
const MASKS: [&str; 2] = ["masks", "ground_truth"];

/// Images with one kind of defect.
#[derive(Debug)]
pub struct Kind {
    /// The folder's name.
    pub name: String,
    /// The images.
    pub images: Pixels,
    /// The mask of each, where there is one.
    pub masks: Vec<Option<PathBuf>>,
}

/// A set of which it is known what is normal.
#[derive(Debug)]
pub struct Labelled {
    /// Normal images.
    pub good: Pixels,
    /// Others, by what is wrong with them.
    pub kinds: Vec<Kind>,
    /// Files passed over: path and reason.
    pub skipped: Vec<(String, String)>,
}

impl Labelled {
    /// Opens a folder: `good` holds normal images, every other one a kind of defect. Masks lie in
    /// `masks` or `ground_truth`, inside or beside the folder, or in the one that is named, as
    /// `KIND/NAME.png` or `KIND/NAME_mask.png`, without `KIND/` where there is one kind only.
    ///
    /// # Errors
    /// When there are no normal images, or no others.
    pub fn open(root: &Path, masks: Option<&Path>, wanted: &Wanted, limit: u64) -> Result<Self> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(root).map_err(|error| Error::io(root, &error))? {
            let entry = entry.map_err(|error| Error::io(root, &error))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_masks = MASKS.contains(&name.as_str())
                || masks.is_some_and(|masks| same(masks, &entry.path()));
            if entry.path().is_dir() && !name.starts_with('.') && !is_masks {
                names.push(name);
            }
        }
        names.sort();
        let layout = "normal images lie in `good`, others in folders by what is wrong with them";
        if !names.iter().any(|name| name == GOOD) {
            return Err(Error::usage(format!(
                "{}: has no folder `{GOOD}`: {layout}",
                root.display()
            )));
        }
        names.retain(|name| name != GOOD);
        if names.is_empty() {
            return Err(Error::usage(format!(
                "{}: has no folder beside `{GOOD}`: {layout}",
                root.display()
            )));
        }
        let beside =
            |folder: &&str| [root.join(folder), root.parent().unwrap_or(root).join(folder)];
        let masks = match masks {
            Some(masks) if masks.is_dir() => Some(masks.to_owned()),
            Some(masks) => {
                return Err(Error::usage(format!("--masks {}: no such folder", masks.display())));
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
        let Opened { pixels: good, mut skipped, .. } = open(GOOD)?;
        let mut kinds = Vec::new();
        for name in &names {
            let opened = open(name)?;
            skipped.extend(opened.skipped);
            let only = names.len() == 1;
            let mask = |i| {
                masks.as_ref().and_then(|masks| mask_of(masks, name, &opened.pixels.name(i), only))
            };
            let masks = (0..opened.pixels.len()).map(mask).collect();
            kinds.push(Kind { name: name.clone(), images: opened.pixels, masks });
        }
        Ok(Self { good, kinds, skipped })
    }

    /// Images without a mask.
    pub fn unmasked(&self) -> Vec<String> {
        let missing = |kind: &Kind| -> Vec<String> {
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

fn same(a: &Path, b: &Path) -> bool {
    a.canonicalize().ok().zip(b.canonicalize().ok()).is_some_and(|(a, b)| a == b)
}

/// The mask of an image.
fn mask_of(masks: &Path, kind: &str, image: &str, only: bool) -> Option<PathBuf> {
    let stem = Path::new(image).with_extension("");
    let places = [Some(masks.join(kind)), only.then(|| masks.to_owned())];
    let names = |place: PathBuf| {
        let stem = stem.clone();
        folder::EXTENSIONS.iter().flat_map(move |ending| {
            let file = |tail: &str| place.join(format!("{}{tail}.{ending}", stem.display()));
            [file(""), file("_mask")]
        })
    };
    places.into_iter().flatten().flat_map(names).find(|path| path.is_file())
}

/// Reads a mask for an image of h×w: what is brighter than half of its brightest pixel is of the
/// defect.
///
/// # Errors
/// When it does not decode, is of another size, or marks nothing.
pub fn read_mask(path: &Path, h: usize, w: usize) -> Result<Vec<bool>> {
    let mask = decode_file(path).map_err(|error| error.at(path.display()))?;
    let bad = |what: String| Error::usage(format!("{}: {what}", path.display()));
    if (mask.h, mask.w) != (h, w) {
        return Err(bad(format!("a mask of {}x{} for an image of {w}x{h}", mask.w, mask.h)));
    }
    let bright: Vec<u8> = mask
        .pixels
        .chunks_exact(mask.channels)
        .map(|pixel| pixel.iter().copied().max().unwrap_or(0))
        .collect();
    let most = bright.iter().copied().max().unwrap_or(0);
    if most == 0 {
        return Err(bad(
            "a mask that marks nothing; an image without a defect belongs in `good`".to_owned()
        ));
    }
    Ok(bright.into_iter().map(|value| 2 * u16::from(value) > u16::from(most)).collect())
}

/// How well a score tells defects from what is normal.
#[derive(Clone, Debug, Default)]
pub struct Judged {
    /// Whole images, by their largest value.
    pub images: ScoreHistogram,
    /// Pixels of normal images and of those that have masks.
    pub pixels: ScoreHistogram,
}

impl Judged {
    fn add(&mut self, map: &[f32], truth: Truth<'_>) {
        match truth {
            Truth::Good => {
                self.images.add_normal(super::largest(map));
                map.iter().for_each(|value| self.pixels.add_normal(*value));
            }
            Truth::Defect(regions) => {
                self.images.add_defect(super::largest(map));
                if let Some(regions) = regions {
                    self.pixels.add_pixels(map, regions);
                }
            }
        }
    }
}

/// What is known of an image.
#[derive(Clone, Copy)]
enum Truth<'a> {
    Good,
    Defect(Option<&'a [u32]>),
}

/// A detector's marks.
#[derive(Clone, Debug)]
pub struct Report {
    /// Of the heat map.
    pub all: Judged,
    /// Of each view alone, in the order of [`VIEWS`].
    pub views: [Judged; 3],
    /// Of the heat map for each kind of defect against all normal images: its name, how many
    /// images, and marks.
    pub kinds: Vec<(String, usize, Judged)>,
    /// Normal images, and how many of them are called anomalous.
    pub false_alarms: [usize; 2],
    /// Images with defects, and how many of them are called anomalous.
    pub found: [usize; 2],
    /// Masks that were passed over, and why.
    pub skipped: Vec<(String, String)>,
}

/// Judges a detector by a set. `look` is called after every image with how many are done.
///
/// # Errors
/// When an image cannot be read any more, a mask is broken and `strict` is set, or the device
/// fails.
pub fn judge(
    device: &mut Device,
    eye: &mut Eye<'_>,
    detector: &Detector,
    set: &Labelled,
    strict: bool,
    mut look: impl FnMut(usize),
) -> Result<Report> {
    let mut all = Judged::default();
    let mut views: [Judged; VIEWS.len()] = std::array::from_fn(|_| Judged::default());
    // normal pixels are those of normal images and, of a kind's, those outside of its defects
    let (mut good, mut kinds, mut skipped) = (Judged::default(), Vec::new(), Vec::new());
    let (mut false_alarms, mut found, mut done) = ([set.good.len(), 0], [0, 0], 0);
    let mut handles = Handles::default();
    let mut step = || {
        done += 1;
        look(done);
    };
    for i in 0..set.good.len() {
        let seen = detector.look(device, eye, &Image::read(&set.good, i, &mut handles)?)?;
        false_alarms[1] += usize::from(seen.score() > detector.calibration.image_threshold);
        good.add(&seen.heat, Truth::Good);
        all.add(&seen.heat, Truth::Good);
        views.iter_mut().zip(&seen.maps).for_each(|(judged, map)| judged.add(map, Truth::Good));
        step();
    }
    for kind in &set.kinds {
        let mut judged = good.clone();
        for i in 0..kind.images.len() {
            let image = Image::read(&kind.images, i, &mut handles)?;
            let mask = kind.masks[i].as_ref().map(|path| (path, read_mask(path, image.h, image.w)));
            let marked = match mask {
                Some((_, Ok(mask))) => Some(regions(&mask, image.h, image.w)),
                Some((_, Err(error))) if strict => return Err(error),
                Some((path, Err(error))) => {
                    skipped.push((path.display().to_string(), error.to_string()));
                    None
                }
                None => None,
            };
            let seen = detector.look(device, eye, &image)?;
            let truth = Truth::Defect(marked.as_deref());
            found[0] += 1;
            found[1] += usize::from(seen.score() > detector.calibration.image_threshold);
            judged.add(&seen.heat, truth);
            all.add(&seen.heat, truth);
            views.iter_mut().zip(&seen.maps).for_each(|(judged, map)| judged.add(map, truth));
            step();
        }
        kinds.push((kind.name.clone(), kind.images.len(), judged));
    }
    Ok(Report { all, views, kinds, false_alarms, found, skipped })
}
