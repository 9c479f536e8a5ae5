//! Images from several sources, and the files of their results.

use std::collections::{HashMap, HashSet};
use std::path::{Component, Path, PathBuf};

use super::Common;
use super::outputs::single_file;
use crate::budget::Budget;
use crate::data::image_file::is_tiff_name;
use crate::data::{self, Handles, LoadOptions, Pixels, SampleType, pattern};
use crate::error::{Error, Result};
use crate::model::ModelSpec;
use crate::report::rendering::{Rendering, Source, check_channels};
use crate::shape::{Dims, Size};

/// Number of values of images that the colours of pictures are chosen for. More take longer to read
/// and hardly change the colours.
const PICTURED: usize = 1 << 18;

/// An image of one of the sources.
pub struct Job {
    /// Index of the source.
    pub source: usize,
    /// Index of the image in its source.
    pub image: usize,
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
}

impl Results<'_> {
    /// The extension of the result of an image.
    fn ending(&self, name: &str, pixels: &Pixels) -> &'static str {
        let is_tiff = is_tiff_name(Path::new(name)) && [1, 3].contains(&pixels.channels());
        if self.keeps_tiff && is_tiff && pixels.encoding().sample != SampleType::U8 {
            "tif"
        } else {
            "png"
        }
    }
}

/// Images to process.
pub struct Targets {
    /// The opened sources.
    pub sources: Vec<Pixels>,
    /// One job per image.
    pub jobs: Vec<Job>,
    /// Bytes of the images that are in memory.
    pub held: u64,
}

impl Targets {
    /// Opens every source and chooses a file for each result. Images in the folder of results are
    /// left out, see [`EarlierResults`].
    ///
    /// # Errors
    /// If a source has no images, two results would have the same file, a result would replace one
    /// of the images, or a file exists and `force` is not set.
    pub fn plan(
        common: &Common,
        images: &[String],
        results: &Results,
        wanted: &LoadOptions,
        budget: &Budget,
        force: bool,
    ) -> Result<Self> {
        let &Results { out, beside: endings, keeps_tiff } = results;
        let mut targets = Self { sources: Vec::new(), jobs: Vec::new(), held: 0 };
        let mut held = 0;
        let opened = open_each(common, images, wanted.strict, |source| {
            let found = data::open(source, wanted, budget.data.saturating_sub(held))?;
            held += found.pixels.held_bytes();
            Ok(found)
        })?;
        targets.held = held;
        // The source and the path of each image.
        let mut found: Vec<(&String, ImagePath)> = Vec::new();
        for (number, opened) in opened {
            common.report_files(&opened.report);
            let (source, at) = (&images[number], targets.sources.len());
            let earlier = out.map(|out| EarlierResults::new(Path::new(source), out));
            let (before, count) = (found.len(), opened.pixels.len());
            for image in 0..count {
                let path = ImagePath::new(source, &opened.pixels.name(image));
                if earlier.as_ref().is_some_and(|earlier| earlier.contains(&path.file)) {
                    continue;
                }
                found.push((source, path));
                targets.jobs.push(Job {
                    source: at,
                    image,
                    name: String::new(),
                    target: PathBuf::new(),
                });
            }
            if let (Some(earlier), Some(out)) = (earlier, out) {
                let left_out = count - (found.len() - before);
                earlier.report(common, Path::new(source), [left_out, count], out);
            }
            targets.sources.push(opened.pixels);
        }
        if targets.jobs.is_empty() {
            return Err(Error::usage(
                "all images are results of an earlier call; name the folder of results itself to \
                 process them, with another -o",
            ));
        }
        let paths: Vec<&ImagePath> = found.iter().map(|(_, path)| path).collect();
        let names = distinct_names(&paths);
        let formats: &[&str] = if keeps_tiff { &["png", "tif", "tiff"] } else { &["png"] };
        let single = out.map(|out| single_file(out, targets.jobs.len(), formats)).transpose()?;
        let single = single.flatten();
        // The image of each file, by its path in lower case: some file systems ignore case.
        let mut owners: HashMap<String, usize> = HashMap::new();
        let lower = |path: &Path| path.to_string_lossy().to_lowercase();
        for (i, (job, name)) in targets.jobs.iter_mut().zip(&names).enumerate() {
            let path = paths[i];
            job.name = if path.is_extended(name) {
                name.text.clone()
            } else {
                targets.sources[job.source].name(job.image)
            };
            let folder = out.unwrap_or(Path::new(""));
            let ending = results.ending(&name.text, &targets.sources[job.source]);
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
                super::refuse_existing(&file, force)?;
            }
        }
        if force && out.is_some() {
            let inputs = paths.iter().filter_map(|path| path.file.canonicalize().ok());
            let inputs: HashSet<PathBuf> = inputs.collect();
            let written = targets.jobs.iter().flat_map(|job| files(&job.target, endings));
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
        Ok(targets)
    }

    /// How the images become colours: chosen for the first ones. `channels` are the channels to
    /// show.
    ///
    /// # Errors
    /// If an image cannot be read.
    pub fn rendering(&self, model: &ModelSpec, channels: &[usize]) -> Result<Rendering> {
        let Some(first) = self.jobs.first() else { unreachable!("there is an image") };
        let pixels = &self.sources[first.source];
        let dims = Dims::of(pixels.size(first.image), pixels.channels());
        check_channels(channels, dims).map_err(|error| error.at("--show-channels"))?;
        let source = Source::of(model, dims, Some(pixels.encoding().sample));
        let (mut pictured, mut handles) = (Vec::new(), Handles::default());
        if source.has_components(channels) {
            for job in &self.jobs {
                let mut values = self.sources[job.source].values(job.image, &mut handles)?;
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

/// The files of a result: its PNG, and those with other extensions.
fn files<'a>(target: &'a Path, endings: &'a [&str]) -> impl Iterator<Item = PathBuf> + 'a {
    std::iter::once(target.to_owned())
        .chain(endings.iter().map(|ending| target.with_extension(ending)))
}

/// The path of an image.
#[derive(Debug)]
pub struct ImagePath {
    /// The names of its folders and of its file.
    parts: Vec<String>,
    /// The number of the last parts that are its name without its source.
    own: usize,
    /// The image's file, if it has a file of its own.
    file: PathBuf,
}

impl ImagePath {
    /// The path of the image `name` of a source.
    pub fn new(source: &str, name: &str) -> Self {
        let (path, name) = (Path::new(source), Path::new(name));
        let is_list = source == "-" || source.starts_with('@');
        let is_source = path.file_name() == name.file_name() && path.is_file();
        let own = if path.is_dir() { parts(name).len() } else { 1 };
        let is_pattern = !is_list && pattern::is_pattern(source) && !path.exists();
        let file = if is_source {
            path.to_owned()
        } else if is_list {
            let list = source.strip_prefix('@').and_then(|list| Path::new(list).parent());
            list.unwrap_or(Path::new("")).join(name)
        } else if is_pattern {
            pattern::root(source).join(name)
        } else {
            path.join(name)
        };
        let parts = if is_list { parts(name) } else { parts(&file) };
        Self { own: own.min(parts.len()), parts, file }
    }

    /// Whether the image's name has parts of its source.
    pub const fn is_extended(&self, name: &Name) -> bool {
        name.parts > self.own
    }
}

/// The names of the folders and the file of a path.
fn parts(path: &Path) -> Vec<String> {
    path.components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
            _ => None,
        })
        .collect()
}

/// The name of an image among others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// The last parts of its path, with slashes between them.
    pub text: String,
    /// The number of parts.
    pub parts: usize,
}

/// Names that distinguish images: without their sources, or with more of the last parts of their
/// paths as long as others have the same name. Images with the same path have the same name.
pub fn distinct_names(paths: &[&ImagePath]) -> Vec<Name> {
    let mut lengths: Vec<usize> = paths.iter().map(|path| path.own).collect();
    let text = |i: usize, length: usize| {
        let parts = &paths[i].parts;
        parts[parts.len() - length..].join("/")
    };
    loop {
        let mut same: HashMap<String, Vec<usize>> = HashMap::new();
        for (i, length) in lengths.iter().enumerate() {
            same.entry(text(i, *length)).or_default().push(i);
        }
        let mut extended = false;
        for same in same.values() {
            if same.iter().all(|i| paths[*i].parts == paths[same[0]].parts) {
                continue;
            }
            for &i in same {
                if lengths[i] < paths[i].parts.len() {
                    lengths[i] += 1;
                    extended = true;
                }
            }
        }
        if !extended {
            break;
        }
    }
    let name = |(i, parts): (usize, &usize)| Name { text: text(i, *parts), parts: *parts };
    lengths.iter().enumerate().map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(images: &[(&str, &str)]) -> Vec<String> {
        let paths: Vec<ImagePath> =
            images.iter().map(|(source, name)| ImagePath::new(source, name)).collect();
        let names = distinct_names(&paths.iter().collect::<Vec<_>>());
        names.into_iter().map(|name| name.text).collect()
    }

    #[test]
    fn names_have_the_folders_that_distinguish_them() {
        let list = |name: &'static str| ("@list.txt", name);
        assert_eq!(names(&[list("a/1/x.png"), list("b/1/x.png")]), ["a/1/x.png", "b/1/x.png"]);
        assert_eq!(names(&[list("a/x.png"), list("b/y.png")]), ["x.png", "y.png"]);
        assert_eq!(names(&[list("x.png"), list("b/x.png")]), ["x.png", "b/x.png"]);
        assert_eq!(names(&[list("a/x.png"), list("a/x.png")]), ["x.png", "x.png"]);
        assert_eq!(names(&[("a.npy", "0"), ("b.npy", "0")]), ["a.npy/0", "b.npy/0"]);
    }
}
