//! Images from several sources, and where what becomes of each is written.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use csae::budget::Budget;
use csae::data::{self, Pixels, Wanted};
use csae::error::{Error, Result};

use super::Common;

/// An image of one of the sources.
pub struct Job {
    pub source: usize,
    pub image: usize,
    /// Where its result goes: its place below a folder that was given, else its file's name, as
    /// PNG.
    pub target: PathBuf,
}

/// What an error says of a file, without its name in front.
pub fn reason(error: &Error, file: &str) -> String {
    let told = error.to_string();
    told.strip_prefix(&format!("{file}: ")).map_or_else(|| told.clone(), str::to_owned)
}

/// What `open` makes of each source, with the source's number. Of several sources a file that
/// cannot be used is skipped and named, as one of a folder is.
///
/// # Errors
/// The error of a source that is no file, or alone, or of any where `strict`; the first one if all
/// are skipped.
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
    common.say_skipped(&skipped);
    Ok(opened)
}

/// What is to be worked on.
pub struct Targets {
    pub sources: Vec<Pixels>,
    pub jobs: Vec<Job>,
    /// Bytes of the images that are in memory.
    pub held: u64,
}

impl Targets {
    /// Opens every source and finds a place below `out` for each result; without `out`, names only.
    ///
    /// # Errors
    /// When a source has no images, two results would be one file, or a file is there already and
    /// `force` is not set.
    pub fn plan(
        common: &Common,
        images: &[String],
        out: Option<&Path>,
        wanted: &Wanted,
        budget: &Budget,
        force: bool,
    ) -> Result<Self> {
        let mut targets = Self { sources: Vec::new(), jobs: Vec::new(), held: 0 };
        let mut taken = HashMap::new();
        let mut held = 0;
        let opened = open_each(common, images, wanted.strict, |source| {
            let found = data::open(source, wanted, budget.data.saturating_sub(held))?;
            held += found.pixels.held_bytes();
            Ok(found)
        })?;
        targets.held = held;
        for (number, found) in opened {
            let source = &images[number];
            common.say_skipped(&found.skipped);
            let folder = Path::new(source).is_dir();
            for image in 0..found.pixels.len() {
                let name = PathBuf::from(found.pixels.name(image));
                let name =
                    if folder { &name } else { Path::new(name.file_name().unwrap_or_default()) };
                let place = out.unwrap_or(Path::new(""));
                let mut target = place.join(name).with_extension("png");
                if let Some(out) = out {
                    // Some file systems take no notice of case.
                    let lower = |path: &Path| path.to_string_lossy().to_lowercase();
                    if taken.contains_key(&lower(&target)) {
                        // a.png and a.jpg: the second one's name is kept whole.
                        target = out.join(format!("{}.png", name.display()));
                    }
                    if let Some(other) =
                        taken.insert(lower(&target), (source.clone(), found.pixels.name(image)))
                    {
                        return Err(twins(
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

    /// Bytes that the images take, with what looking at the largest one does, by its height and
    /// width.
    pub fn bytes(&self, of: impl Fn(usize, usize) -> u64) -> u64 {
        let most = |pixels: &Pixels| {
            pixels.sizes().map(|(h, w)| of(h, w)).max().unwrap_or(0) + pixels.reading_bytes()
        };
        self.held + self.sources.iter().map(most).max().unwrap_or(0)
    }
}

/// Two images, each by its source and its name there, that would write over each other.
fn twins(target: &Path, [a, b]: [&(String, String); 2]) -> Error {
    let named = |(source, name): &(String, String)| {
        if Path::new(source).is_dir() { format!("{source}: {name}") } else { source.clone() }
    };
    let (a, b) = (named(a), named(b));
    Error::usage(format!(
        "both {a} and {b} would become {}: give one of them in another call, to another -o",
        target.display()
    ))
}
