//! Images from several sources, and the files of their results.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::Common;
use super::image_names::{ImagePath, distinct_names};
use super::outputs::single_file;
use super::shard::Work;
use crate::budget::Budget;
use crate::data::image_file::is_tiff_name;
use crate::data::{self, Handles, Listing, LoadOptions, Part, Pixels, SampleType};
use crate::error::{Error, Result};
use crate::model::ModelSpec;
use crate::report::rendering::{Rendering, Source, check_channels};
use crate::shape::{Dims, Size};
use crate::tasks::shards::Table;

/// Number of values of images that the colours of pictures are chosen for. More take longer to read
/// and hardly change the colours.
const PICTURED: usize = 1 << 18;

/// An image of one of the sources.
pub struct Job {
    /// Index of the source.
    pub source: usize,
    /// Index of the image in its source.
    pub image: usize,
    /// Place of the image among all images of all sources.
    pub place: usize,
    /// Name of the image, which no other image has: its name in its source. If several sources have
    /// an image of this name, it starts with the folders that distinguish them.
    pub name: String,
    /// File of the result, a PNG: the image's path relative to a folder that was given, or its file
    /// name. If several images have this name, it starts like `name`.
    pub target: PathBuf,
}

/// An error's message without the file's name in front.
pub fn reason(error: &Error, file: &str) -> String {
    let message = error.to_string();
    message.strip_prefix(&format!("{file}: ")).map_or_else(|| message.clone(), str::to_owned)
}

/// The results of earlier calls among the images of a source: those in the folder of results. They
/// are no images to process, unless the source itself lies in that folder.
pub struct EarlierResults {
    /// The folder, or `None` if its files are images like others.
    folder: Option<PathBuf>,
}

impl EarlierResults {
    /// Those of a folder or pattern `source` in the folder `out`.
    pub fn new(source: &Path, out: &Path) -> Self {
        let is_inside =
            |out: &PathBuf| source.canonicalize().is_ok_and(|source| source.starts_with(out));
        Self { folder: out.canonicalize().ok().filter(|out| !is_inside(out)) }
    }

    /// Whether an image is one of them.
    pub fn contains(&self, image: &Path) -> bool {
        let is_inside =
            |out: &PathBuf| image.canonicalize().is_ok_and(|path| path.starts_with(out));
        self.folder.as_ref().is_some_and(is_inside)
    }

    /// Says that `count` of `all` images of a source are left out.
    pub fn report(&self, common: &Common, source: &Path, [count, all]: [usize; 2], out: &Path) {
        if count > 0 {
            common.status(&format!(
                "note: {}: {count} of {all} files are left out, since they are in the folder of \
                 results {}",
                source.display(),
                out.display()
            ));
        }
    }
}

/// Opens every source. Returns results with the index of their source. If there are several
/// sources, a file that cannot be used is skipped and reported, like one in a folder.
///
/// # Errors
/// If a source fails that is not a file, that is the only one, or with `strict`. If all are
/// skipped, the first error.
pub fn open_each<T>(
    common: &Common,
    sources: &[String],
    strict: bool,
    mut open: impl FnMut(&str) -> Result<T>,
) -> Result<Vec<(usize, T)>> {
    let (mut opened, mut skipped, mut first) = (Vec::new(), Vec::new(), None);
    for (number, source) in sources.iter().enumerate() {
        match open(source) {
            Ok(found) => opened.push((number, found)),
            Err(error) if !strict && sources.len() > 1 && Path::new(source).is_file() => {
                skipped.push((source.clone(), reason(&error, source)));
                first.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
    }
    if let Some(first) = first.filter(|_| opened.is_empty()) {
        return Err(first);
    }
    common.report_skipped(&skipped);
    Ok(opened)
}

/// The files of the results of a command.
pub struct Results<'a> {
    /// Their folder; for one image, it can be the file itself. Without it, results only get names.
    pub out: Option<&'a Path>,
    /// The extensions of files beside each result.
    pub beside: &'a [&'a str],
    /// Whether results of TIFF files with more than 8 bits are TIFF files. All others are PNG.
    pub keeps_tiff: bool,
    /// Whether existing files are overwritten.
    pub force: bool,
    /// The images that this process has.
    pub work: Work,
    /// A table with rows for each image.
    pub table: Option<&'a Table>,
}

impl Results<'_> {
    /// The extension of the result of an image.
    fn ending(&self, name: &str, channels: usize, sample: SampleType) -> &'static str {
        let is_tiff = is_tiff_name(Path::new(name)) && [1, 3].contains(&channels);
        if self.keeps_tiff && is_tiff && sample != SampleType::U8 { "tif" } else { "png" }
    }

    /// The jobs without those whose results exist, and these.
    fn unfinished(&self, own: Vec<Job>) -> (Vec<Job>, Vec<Job>) {
        if !self.work.skip_existing || self.out.is_none() {
            return (own, Vec::new());
        }
        let exist = |job: &Job| files(&job.target, self.beside).all(|file| file.is_file());
        let exist: Vec<bool> = own.iter().map(exist).collect();
        // A complete table has no rows for an image without objects.
        let is_complete =
            self.table.is_some_and(Table::exists) && exist.iter().all(|exists| *exists);
        let has_rows = |job: &Job| self.table.is_none_or(|table| table.knows(&job.name));
        let mut exist = exist.into_iter();
        own.into_iter().partition(|job| {
            let exists = exist.next().unwrap_or_default();
            !exists || !(is_complete || has_rows(job))
        })
    }
}

/// Facts of a source before its images are opened.
struct Facts {
    channels: usize,
    sample: SampleType,
}

/// Images to process.
pub struct Targets {
    /// The opened sources.
    pub sources: Vec<Pixels>,
    /// One job per image that this process has and that has no results.
    pub jobs: Vec<Job>,
    /// The images that this process has and that have results.
    pub finished: Vec<Job>,
    /// The names of all images, also those of other processes.
    pub names: Vec<String>,
    /// Bytes of the images that are in memory.
    pub held: u64,
    /// Size of the first of all images.
    pub first: Dims,
    /// The type of samples of the first source.
    first_sample: SampleType,
    /// The type of samples that all sources have. Floats if they differ.
    pub sample: SampleType,
    /// The size that all images have.
    pub common_size: Option<Size>,
    /// The source and the index of each image of sources that are open as a whole.
    whole: Vec<(usize, usize)>,
}

impl Targets {
    /// Opens every source and chooses a file for each result. Images in the folder of results are
    /// left out, see [`EarlierResults`].
    ///
    /// # Errors
    /// If a source has no images, two results would have the same file, a result would replace one
    /// of the images, or a file exists and is neither to be overwritten nor to be left out.
    pub fn plan(
        common: &Common,
        images: &[String],
        results: &Results,
        wanted: &LoadOptions,
        budget: &Budget,
    ) -> Result<Self> {
        let &Results { out, beside: endings, keeps_tiff, force, work, .. } = results;
        let mut held = 0;
        let opened = open_each(common, images, wanted.strict, |source| {
            let limit = budget.data.saturating_sub(held);
            let listing = if work.is_part() {
                Listing::of(source, wanted, limit)?
            } else {
                Listing::opened(source, data::open(source, wanted, limit)?)
            };
            held += listing.held_bytes();
            Ok(listing)
        })?;
        let facts: Vec<Facts> = opened
            .iter()
            .map(|(_, listing)| {
                let channels = listing.pixels().map(Pixels::channels).or(wanted.channels);
                Facts { channels: channels.unwrap_or(1), sample: listing.sample() }
            })
            .collect();
        // The source and the path of each image.
        let mut found: Vec<(&String, ImagePath)> = Vec::new();
        let mut all: Vec<Job> = Vec::new();
        let mut left_out = Vec::new();
        for (at, (number, listing)) in opened.iter().enumerate() {
            let source = &images[*number];
            let earlier = out.map(|out| EarlierResults::new(Path::new(source), out));
            let before = all.len();
            for image in 0..listing.len() {
                let path = ImagePath::new(source, &listing.name(image));
                if earlier.as_ref().is_some_and(|earlier| earlier.contains(&path.file)) {
                    continue;
                }
                found.push((source, path));
                let (name, target) = (String::new(), PathBuf::new());
                all.push(Job { source: at, image, place: all.len(), name, target });
            }
            left_out.push((earlier, listing.len() - (all.len() - before), listing.len()));
        }
        let paths: Vec<&ImagePath> = found.iter().map(|(_, path)| path).collect();
        let names = distinct_names(&paths);
        let formats: &[&str] = if keeps_tiff { &["png", "tif", "tiff"] } else { &["png"] };
        let single = match out {
            Some(out) if !all.is_empty() => single_file(out, all.len(), formats)?,
            _ => None,
        };
        // The image of each file, by its path in lower case: some file systems ignore case.
        let mut owners: HashMap<String, usize> = HashMap::new();
        let lower = |path: &Path| path.to_string_lossy().to_lowercase();
        for (i, (job, name)) in all.iter_mut().zip(&names).enumerate() {
            let path = paths[i];
            job.name = if path.is_extended(name) {
                name.text.clone()
            } else {
                opened[job.source].1.name(job.image)
            };
            let folder = out.unwrap_or(Path::new(""));
            let Facts { channels, sample } = facts[job.source];
            let ending = results.ending(&name.text, channels, sample);
            let own = || folder.join(&name.text).with_extension(ending);
            job.target = single.clone().unwrap_or_else(own);
            if out.is_none() {
                continue;
            }
            if files(&job.target, endings).any(|file| owners.contains_key(&lower(&file))) {
                // For a.png and a.jpg, the second result keeps the whole name: a.jpg.png.
                job.target = folder.join(format!("{}.{ending}", name.text));
            }
            for file in files(&job.target, endings) {
                if let Some(other) = owners.insert(lower(&file), i) {
                    let named = |i: usize| {
                        let source = found[i].0;
                        let name = &names[i].text;
                        let is_folder = Path::new(source).is_dir();
                        if is_folder { format!("{source}: {name}") } else { source.clone() }
                    };
                    return Err(Error::usage(format!(
                        "both {} and {} would be written to {}; process one of them in a separate \
                         call with a different -o",
                        named(other),
                        named(i),
                        file.display()
                    )));
                }
            }
        }
        if (force || work.skip_existing) && out.is_some() {
            let inputs = paths.iter().filter_map(|path| path.file.canonicalize().ok());
            let inputs: HashSet<PathBuf> = inputs.collect();
            let written = all.iter().flat_map(|job| files(&job.target, endings));
            let replaced = written
                .filter_map(|file| file.canonicalize().ok())
                .find(|file| inputs.contains(file));
            if let Some(file) = replaced {
                return Err(Error::usage(format!(
                    "{}: the result would overwrite the image; choose another folder with -o",
                    file.display()
                )));
            }
        }
        let own = work.range(all.len());
        let is_whole = |job: &&Job| opened[job.source].1.pixels().is_some();
        let common_size = common_size(opened.iter().flat_map(|(_, listing)| listing.sizes()));
        let samples = facts.iter().map(|facts| facts.sample);
        let sample = samples.reduce(|a, b| if a == b { a } else { SampleType::F32 });
        let first = all.first();
        let mut targets = Self {
            sources: Vec::new(),
            jobs: Vec::new(),
            finished: Vec::new(),
            names: all.iter().map(|job| job.name.clone()).collect(),
            held: 0,
            first: first.map_or(Dims::new(1, 1, 1), |first| {
                let size = opened[first.source].1.size(first.image);
                Dims::of(size, facts[first.source].channels)
            }),
            first_sample: first.map(|first| facts[first.source].sample).unwrap_or_default(),
            sample: sample.unwrap_or_default(),
            common_size,
            whole: all.iter().filter(is_whole).map(|job| (job.source, job.image)).collect(),
        };
        let count = all.len();
        let own: Vec<Job> = all.drain(own).collect();
        if out.is_some() && !work.skip_existing {
            let written = own.iter().flat_map(|job| files(&job.target, endings));
            written.into_iter().try_for_each(|file| super::refuse_existing(&file, force))?;
        }
        let (jobs, finished) = results.unfinished(own);
        targets.finished = finished;
        for (at, ((number, listing), left_out)) in opened.into_iter().zip(left_out).enumerate() {
            let places: Vec<usize> =
                jobs.iter().filter(|job| job.source == at).map(|job| job.image).collect();
            let limit = budget.data.saturating_sub(targets.held);
            let Part { pixels, images: indices, report, .. } =
                listing.open(&places, wanted, limit)?;
            let (earlier, skipped, listed) = left_out;
            common.report_files(&report);
            if let (Some(earlier), Some(out)) = (earlier, out) {
                earlier.report(common, Path::new(&images[number]), [skipped, listed], out);
            }
            targets.held += pixels.held_bytes();
            targets.sources.push(pixels);
            let mut indices = indices.into_iter().peekable();
            for job in jobs.iter().filter(|job| job.source == at) {
                // An image that cannot be decoded has no index.
                if let Some((_, image)) = indices.next_if(|(place, _)| *place == job.image) {
                    let (name, target) = (job.name.clone(), job.target.clone());
                    targets.jobs.push(Job { source: at, image, place: job.place, name, target });
                }
            }
        }
        if count == 0 {
            return Err(Error::usage(
                "all images are results of an earlier call; name the folder of results itself to \
                 process them, with another -o",
            ));
        }
        work.report(common, count, targets.finished.len());
        Ok(targets)
    }

    /// How the images become colours: chosen for the first ones. `channels` are the channels to
    /// show.
    ///
    /// # Errors
    /// If an image cannot be read.
    pub fn rendering(&self, model: &ModelSpec, channels: &[usize]) -> Result<Rendering> {
        check_channels(channels, self.first).map_err(|error| error.at("--show-channels"))?;
        let source = Source::of(model, self.first, Some(self.first_sample));
        let (mut pictured, mut handles) = (Vec::new(), Handles::default());
        // Image files are gray or RGB, and have no components.
        if source.has_components(channels) {
            for (source, image) in &self.whole {
                let mut values = self.sources[*source].values(*image, &mut handles)?;
                model.to_unit(&mut values);
                pictured.append(&mut values);
                if pictured.len() >= PICTURED {
                    break;
                }
            }
        }
        Ok(Rendering::fit(&source, channels, [&pictured[..]]))
    }

    /// Memory in bytes: the images held in memory, the buffers for reading files, and the maximum
    /// of `needed` over the images.
    pub fn bytes(&self, needed: impl Fn(Size) -> u64) -> u64 {
        let peak = |pixels: &Pixels| {
            pixels.sizes().map(&needed).max().unwrap_or(0) + pixels.reading_bytes()
        };
        self.held + self.sources.iter().map(peak).max().unwrap_or(0)
    }
}

/// The size that all images have.
fn common_size(mut sizes: impl Iterator<Item = Size>) -> Option<Size> {
    let first = sizes.next();
    first.filter(|first| sizes.all(|size| size == *first))
}

/// The files of a result: its PNG, and those with other extensions.
fn files<'a>(target: &'a Path, endings: &'a [&str]) -> impl Iterator<Item = PathBuf> + 'a {
    std::iter::once(target.to_owned())
        .chain(endings.iter().map(|ending| target.with_extension(ending)))
}
