//! Code shared by `csae texture` and `csae stylize`: reading pictures, loading autoencoders,
//! showing progress, naming results.

pub mod stylize;
pub mod texture;

use std::path::{Path, PathBuf};

use clap::Args;

use super::outputs::single_file;
use super::{Common, budget, refuse_existing};
use crate::bail_usage;
use crate::data::image_file::ImageFile;
use crate::data::pattern;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::model::Store;
use crate::report::picture::Picture;
use crate::shape::{Dims, Size};
use crate::tasks::restore::image::fill_hidden;
use crate::tasks::synthesis::Synthesizer;

/// The page that shows all results.
const GALLERY: &str = "gallery.html";

/// Flags of both commands.
#[derive(Debug, Args)]
pub struct SynthesisArgs {
    /// Model file or run folder of an autoencoder of colour images; repeat the flag for several
    /// [default: the bundled paint-3, paint-2 and paint-1]
    #[arg(short, long = "model", value_name = "MODEL")]
    models: Vec<PathBuf>,
    /// Overwrite existing files
    #[arg(long)]
    force: bool,
    /// Memory budget, such as 512MiB or 2GiB [default: the free memory]
    #[arg(long, value_name = "SIZE")]
    max_memory: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) common: Common,
}

impl SynthesisArgs {
    /// Opens the device and loads the autoencoders onto it, sorted from the coarsest code to the
    /// finest.
    fn open(&self) -> Result<(Device, Vec<(Synthesizer, Store)>)> {
        let budget = budget(self.max_memory.as_deref())?;
        let names = self.names();
        let load = |name: &PathBuf| {
            let loaded = self.common.load_model(name)?;
            loaded.graph.check_takes_plain_images()?;
            Synthesizer::new(loaded).map_err(|error| error.at(name.display()))
        };
        let mut synthesizers = names.iter().map(load).collect::<Result<Vec<_>>>()?;
        synthesizers.sort_by_key(|synthesizer| std::cmp::Reverse(synthesizer.stride));
        let mut device = self.common.open()?;
        device.limit_memory(budget.all);
        let placed = synthesizers.into_iter().map(|synthesizer| {
            let store = synthesizer.place(&mut device)?;
            Ok((synthesizer, store))
        });
        let placed = placed.collect::<Result<Vec<_>>>()?;
        Ok((device, placed))
    }

    /// Names of the autoencoders.
    fn names(&self) -> Vec<PathBuf> {
        if self.models.is_empty() {
            return ["paint-3", "paint-2", "paint-1"].map(PathBuf::from).to_vec();
        }
        self.models.clone()
    }

    /// The facts of a page's heading.
    fn facts(&self, device: &Device) -> Vec<(&'static str, String)> {
        let names: Vec<String> =
            self.names().iter().map(|name| name.display().to_string()).collect();
        vec![("models", names.join(", ")), ("device", device.label())]
    }
}

/// Replaces patterns by the files that match them.
fn expand_patterns(paths: &mut Vec<PathBuf>) -> Result<()> {
    let mut all = Vec::new();
    for path in paths.iter() {
        let text = path.to_string_lossy();
        if pattern::is_pattern(&text) && !path.exists() {
            let found = pattern::expand(&text)?;
            all.extend(found.files.iter().map(|file| found.root.join(file)));
        } else {
            all.push(path.clone());
        }
    }
    *paths = all;
    Ok(())
}

/// Checks that all files exist, before anything takes time.
fn check_files_exist(paths: &[PathBuf]) -> Result<()> {
    match paths.iter().find(|path| !path.is_file()) {
        Some(path) if path.is_dir() => Err(Error::usage(format!(
            "{0} is a folder; name images, such as {0}/*.png",
            path.display()
        ))),
        Some(path) => Err(Error::usage(format!("{}: no such file; name an image", path.display()))),
        None => Ok(()),
    }
}

/// Reads a picture as RGB. The colours of transparent pixels are guessed from those that are seen.
/// Also returns the file, which holds the transparency.
fn read_rgb(common: &Common, path: &Path) -> Result<(Picture, ImageFile)> {
    let file = ImageFile::read(path)?;
    if file.frames() > 1 {
        common.report_first_images(&[(path.display().to_string(), file.frames())]);
    }
    let mut pixels = file.pixels();
    if file.dims.c == 1 {
        pixels = pixels.iter().flat_map(|v| [*v; 3]).collect();
    }
    let dims = Dims::of(file.size(), 3);
    fill_hidden(&mut pixels, dims, file.alpha().as_deref());
    Ok((Picture { dims, pixels }, file))
}

/// A file's name without folder and extension.
fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// Parses a size, such as 256 or 320x200.
fn parse_size(text: &str) -> Result<Size> {
    const LARGEST: usize = 1 << 14;
    let side = |text: &str| text.parse::<usize>().ok().filter(|side| (16..=LARGEST).contains(side));
    let (w, h) = text.split_once(['x', '×']).unwrap_or((text, text));
    match (side(w), side(h)) {
        (Some(w), Some(h)) => Ok(Size { h, w }),
        _ => Err(Error::usage(format!(
            "--size {text}: give one side or WIDTHxHEIGHT, each from 16 to {LARGEST} pixels"
        ))),
    }
}

/// The files of results called `names`: PNG files in the folder `out`, or `out` itself for a single
/// result. Also the page of all results, which a single file does without.
///
/// # Errors
/// If a file exists and `force` is not set, or `out` names a file for several results.
fn result_files(
    out: &Path,
    names: &[String],
    force: bool,
) -> Result<(Vec<PathBuf>, Option<PathBuf>)> {
    let (files, page) = match single_file(out, names.len(), &["png"])? {
        Some(file) => (vec![file], None),
        None => {
            let file = |name: &String| out.join(format!("{name}.png"));
            (names.iter().map(file).collect(), Some(out.join(GALLERY)))
        }
    };
    files.iter().chain(&page).try_for_each(|file| refuse_existing(file, force))?;
    Ok((files, page))
}

/// Fails if two results would have the same name.
fn check_distinct(names: &[String]) -> Result<()> {
    let mut seen = std::collections::HashSet::new();
    for name in names {
        if !seen.insert(name.to_lowercase()) {
            bail_usage!(
                "two results would be called {name}; make one of them in a separate call with a \
                 different -o"
            );
        }
    }
    Ok(())
}
