//! Images from several sources, and the files of their results.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use csae::internals::budget::Budget;
use csae::internals::data::{self, LoadOptions, Pixels};
use csae::internals::error::{Error, Result};
use csae::internals::shape::Size;

use super::Common;

/// An image of one of the sources.
pub struct Job {
    /// Index of the source.
    pub source: usize,
    /// Index of the image in its source.
    pub image: usize,
    /// File of the result, a PNG: the image's path relative to a folder that was given, or its file
    /// name.
    pub target: PathBuf,
}

/// An error's message without the file's name in front.
pub fn reason(error: &Error, file: &str) -> String {
    let message = error.to_string();
    message.strip_prefix(&format!("{file}: ")).map_or_else(|| message.clone(), str::to_owned)
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
    /// Opens every source and chooses a file below `out` for each result. Without `out`, results
    /// only get names.
    ///
    /// # Errors
    /// If a source has no images, two results would have the same file, or a file exists and
    /// `force` is not set.
    pub fn plan(
        common: &Common,
        images: &[String],
        out: Option<&Path>,
        wanted: &LoadOptions,
        budget: &Budget,
        force: bool,
    ) -> Result<Self> {
        let mut targets = Self { sources: Vec::new(), jobs: Vec::new(), held: 0 };
        let mut owners = HashMap::new();
        let mut held = 0;
        let opened = open_each(common, images, wanted.strict, |source| {
            let found = data::open(source, wanted, budget.data.saturating_sub(held))?;
            held += found.pixels.held_bytes();
            Ok(found)
        })?;
        targets.held = held;
        for (number, found) in opened {
            let source = &images[number];
            common.report_skipped(&found.skipped);
            let folder = Path::new(source).is_dir();
            for image in 0..found.pixels.len() {
                let name = PathBuf::from(found.pixels.name(image));
                let name =
                    if folder { &name } else { Path::new(name.file_name().unwrap_or_default()) };
                let parent = out.unwrap_or(Path::new(""));
                let mut target = parent.join(name).with_extension("png");
                if let Some(out) = out {
                    // Some file systems ignore case.
                    let lower = |path: &Path| path.to_string_lossy().to_lowercase();
                    if owners.contains_key(&lower(&target)) {
                        // For a.png and a.jpg, the second result keeps the whole name: a.jpg.png.
                        target = out.join(format!("{}.png", name.display()));
                    }
                    if let Some(other) =
                        owners.insert(lower(&target), (source.clone(), found.pixels.name(image)))
                    {
                        return Err(same_target(
                            &target,
                            [&other, &(source.clone(), found.pixels.name(image))],
                        ));
                    }
                    super::refuse_existing(&target, force)?;
                }
                targets.jobs.push(Job { source: targets.sources.len(), image, target });
            }
            targets.sources.push(found.pixels);
        }
        Ok(targets)
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

/// The error for two images, each given by its source and its name there, with the same result
/// file.
fn same_target(target: &Path, [a, b]: [&(String, String); 2]) -> Error {
    let named = |(source, name): &(String, String)| {
        if Path::new(source).is_dir() { format!("{source}: {name}") } else { source.clone() }
    };
    let (a, b) = (named(a), named(b));
    Error::usage(format!(
        "both {a} and {b} would be written to {}; process one of them in a separate call with a \
         different -o",
        target.display()
    ))
}
