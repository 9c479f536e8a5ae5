//! The images of a source, listed before any is decoded, so that a process can decode some of them
//! and still give them the names, the size and the type of samples that the whole source has.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::folder::{Chosen, Files, load_chosen, slashed};
use super::formats::decode::{Limit, mixed_types};
use super::formats::head::Head;
use super::images::Images;
use super::list::{self, Input};
use super::storage::Page;
use super::{FileReport, LoadOptions, Opened, Pixels, SampleType, bundled, find, formats};
use crate::error::{Error, Result};
use crate::shape::Size;

/// The images of a source.
///
/// Of image files only the headers are read. An image whose header can be read counts as one, also
/// if its pixels turn out to be damaged. All other sources are opened as a whole: arrays, bundled
/// sets, containers, films and recordings.
#[derive(Debug)]
pub struct Listing {
    source: String,
    images: Listed,
}

#[derive(Debug)]
enum Listed {
    Files(ImageFiles),
    Opened(Opened),
}

/// Image files whose headers were read.
#[derive(Debug)]
struct ImageFiles {
    root: PathBuf,
    files: Vec<PathBuf>,
    labelled: bool,
    /// Every image, in order.
    images: Vec<Place>,
    sample: SampleType,
    has_color: bool,
    report: FileReport,
}

/// An image in a file.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// Index of the file.
    file: usize,
    /// The page, from 1.
    page: usize,
    /// Number of pages of the file that are images.
    of: usize,
    size: Size,
}

/// Some images of a source.
#[derive(Debug)]
pub struct Part {
    /// The images that were opened. There can be none.
    pub pixels: Pixels,
    /// The place in the listing of each image that can be used, and its index in `pixels`.
    pub images: Vec<(usize, usize)>,
    /// Files that are not read, or not as a whole.
    pub report: FileReport,
    /// One line: the source, the number and size of the images, the number of classes.
    pub description: String,
}

/// The image files that a source stands for.
struct Found {
    name: String,
    root: PathBuf,
    files: Vec<PathBuf>,
    labelled: bool,
    report: FileReport,
}

impl Found {
    /// `None` if the source is not one of image files.
    fn of(source: &str, want: &LoadOptions) -> Result<Option<Self>> {
        let path = Path::new(source);
        let own = |root: &Path, files, labelled, report| {
            let (name, root) = (source.to_owned(), root.to_owned());
            Ok(Some(Self { name, root, files, labelled, report }))
        };
        let is_other = want.spectrogram.is_some() || bundled::names().contains(&source);
        if is_other {
            return Ok(None);
        }
        if let Some(list) = source.strip_prefix('@') {
            let list = Path::new(list);
            let files = list::paths(list)?;
            let root = list.parent().unwrap_or(Path::new(""));
            return own(root, files, false, FileReport::default());
        }
        if path.is_dir() {
            let find::Found { images, report, .. } = find::find(path)?;
            return if images.is_empty() { Ok(None) } else { own(path, images, true, report) };
        }
        #[cfg(feature = "cli")]
        if !path.exists() && super::pattern::is_pattern(source) {
            if let (_, Some(_)) = super::numbers::split(source) {
                return Ok(None);
            }
            let super::pattern::Matches { root, files, report } = super::pattern::expand(source)?;
            return own(&root, files, true, report);
        }
        if path.is_file() && formats::is_image(path) {
            let file = PathBuf::from(path.file_name().unwrap_or_default());
            let root = path.parent().unwrap_or(Path::new(""));
            return own(root, vec![file], false, FileReport::default());
        }
        Ok(None)
    }
}

impl Listing {
    /// Lists the images of a source, see [`super::open`]. Images that are not in files of their own
    /// are opened as [`super::open`] does.
    ///
    /// # Errors
    /// Those of [`super::open`] that are known from the headers.
    pub fn of(source: &str, want: &LoadOptions, limit: u64) -> Result<Self> {
        if source == "-" && want.spectrogram.is_none() {
            return match list::input(want, limit)? {
                Input::Film(mut film) => {
                    film.normalize(want).map_err(|e| e.at(source))?;
                    Ok(Self::opened(source, *film))
                }
                Input::Paths(files) => Self::of_files(
                    Found {
                        name: list::STANDARD_INPUT.to_owned(),
                        root: PathBuf::new(),
                        files,
                        labelled: false,
                        report: FileReport::default(),
                    },
                    want,
                ),
            };
        }
        let path = Path::new(source);
        let is_bundled = bundled::names().contains(&source);
        if want.spectrogram.is_none()
            && !is_bundled
            && path.is_dir()
            && let Some(opened) = formats::open_folder(path, want, limit)
        {
            let mut opened = opened?;
            opened.normalize(want).map_err(|e| e.at(source))?;
            return Ok(Self::opened(source, opened));
        }
        match Found::of(source, want)? {
            Some(found) => Self::of_files(found, want),
            None => Ok(Self::opened(source, super::open(source, want, limit)?)),
        }
    }

    /// The images of a source that is open.
    pub fn opened(source: &str, opened: Opened) -> Self {
        Self { source: source.to_owned(), images: Listed::Opened(opened) }
    }

    /// Reads the headers.
    fn of_files(found: Found, want: &LoadOptions) -> Result<Self> {
        let Found { name: source, root, files, labelled, mut report } = found;
        let is_single = files.len() == 1 && !labelled;
        if want.strict {
            report.refuse_skipped()?;
        }
        let limit = Limit::of_memory(want.memory);
        let heads: Vec<Result<Head>> =
            files.par_iter().map(|file| Head::read(&root.join(file), limit)).collect();
        let (mut images, mut has_color) = (Vec::new(), false);
        let mut sample: Option<SampleType> = None;
        for (file, head) in heads.into_iter().enumerate() {
            let name = root.join(&files[file]).display().to_string();
            let head = match head {
                Ok(head) => head,
                Err(error) if want.strict || is_single => return Err(error.at(name)),
                Err(error) => {
                    report.skip(name, error);
                    continue;
                }
            };
            let (own, of) =
                if want.eight_bits { (SampleType::U8, 1) } else { (head.sample, head.pages) };
            sample = Some(match sample {
                Some(all) if all.is_integer() != own.is_integer() => {
                    return Err(mixed_types(own, all).at(name));
                }
                Some(SampleType::U8) | None => own,
                Some(all) => all,
            });
            has_color |= head.has_color;
            images.extend((1..=of).map(|page| Place { file, page, of, size: head.size }));
        }
        if images.is_empty() {
            let (first, reason) = &report.skipped[0];
            return Err(Error::usage(format!("{source}: no image can be used; {first}: {reason}")));
        }
        let sample = sample.unwrap_or_default();
        let files = ImageFiles { root, files, labelled, images, sample, has_color, report };
        Ok(Self { source, images: Listed::Files(files) })
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        match &self.images {
            Listed::Files(files) => files.images.len(),
            Listed::Opened(opened) => opened.pixels.len(),
        }
    }

    /// Whether there is no image. This is never the case.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The name of an image: its path inside the folder, or its number inside a file.
    pub fn name(&self, place: usize) -> String {
        match &self.images {
            Listed::Files(all) => {
                let Place { file, page, of, .. } = all.images[place];
                let path = &all.files[file];
                if of > 1 { Page { number: page, of, at: 0 }.name(path) } else { slashed(path) }
            }
            Listed::Opened(opened) => opened.pixels.name(place),
        }
    }

    /// Height and width of an image.
    pub fn size(&self, place: usize) -> Size {
        match &self.images {
            Listed::Files(all) => all.images[place].size,
            Listed::Opened(opened) => opened.pixels.size(place),
        }
    }

    /// Height and width of each image.
    pub fn sizes(&self) -> impl Iterator<Item = Size> {
        (0..self.len()).map(|place| self.size(place))
    }

    /// The type of the samples of all images.
    pub fn sample(&self) -> SampleType {
        match &self.images {
            Listed::Files(all) => all.sample,
            Listed::Opened(opened) => opened.pixels.encoding().sample,
        }
    }

    /// Whether an image file that is not decoded yet has RGB samples.
    pub fn has_color(&self) -> bool {
        match &self.images {
            Listed::Files(all) => all.has_color,
            Listed::Opened(_) => false,
        }
    }

    /// The memory of the images that are open, in bytes.
    pub fn held_bytes(&self) -> u64 {
        match &self.images {
            Listed::Files(_) => 0,
            Listed::Opened(opened) => opened.pixels.held_bytes(),
        }
    }

    /// The images, if the source is open as a whole.
    pub fn pixels(&self) -> Option<&Pixels> {
        match &self.images {
            Listed::Files(_) => None,
            Listed::Opened(opened) => Some(&opened.pixels),
        }
    }

    /// Opens the images at some places, in ascending order. Files that cannot be decoded are
    /// skipped.
    ///
    /// # Errors
    /// Those of [`super::open`], except if no image can be used.
    pub fn open(self, places: &[usize], want: &LoadOptions, limit: u64) -> Result<Part> {
        let count = self.len();
        let all = match self.images {
            Listed::Opened(Opened { pixels, report, description }) => {
                let images = places.iter().map(|place| (*place, *place)).collect();
                let description = part_of(description, places.len(), count);
                return Ok(Part { pixels, images, report, description });
            }
            Listed::Files(all) => all,
        };
        let mut pages: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for Place { file, page, .. } in places.iter().map(|place| all.images[*place]) {
            pages.entry(file).or_default().push(page);
        }
        let files = Files {
            source: &self.source,
            root: &all.root,
            files: &all.files,
            labelled: all.labelled,
        };
        let chosen = Chosen { pages: Some(&pages), sample: Some(all.sample) };
        let (mut opened, found) = load_chosen(&files, chosen, want, limit)?;
        if found.is_empty() {
            let channels = want.channels.unwrap_or(if all.has_color { 3 } else { 1 });
            if let Pixels::Resident(images) = &mut opened.pixels {
                let labels = images.labels.take();
                *images = Images { labels, ..Images::of_type(channels, all.sample) };
            }
            opened.description = self.source.clone();
        }
        opened.normalize(want).map_err(|e| e.at(&self.source))?;
        let place = |(file, page): &(usize, usize)| {
            all.images.partition_point(|own| (own.file, own.page) < (*file, *page))
        };
        let images = found.iter().enumerate().map(|(index, at)| (place(at), index)).collect();
        let mut report = all.report;
        report.extend(opened.report);
        let description = part_of(opened.description, found.len(), count);
        Ok(Part { pixels: opened.pixels, images, report, description })
    }
}

/// The description of a part of a source.
fn part_of(description: String, images: usize, all: usize) -> String {
    if images == all { description } else { format!("{description}; {images} of {all} images") }
}
