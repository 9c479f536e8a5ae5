//! What `csae texture` and `csae stylize` share: pictures in, autoencoders, where results go.

pub mod stylize;
pub mod texture;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use clap::Args;
use csae::bail_usage;
use csae::data::image_file::ImageFile;
use csae::device::Device;
use csae::error::{Error, Result};
use csae::model::{self, Store};
use csae::report::picture::Picture;
use csae::tasks::synthesis::Synthesizer;
use csae::tasks::synthesis::{Method, Progress};
use indicatif::{ProgressBar, ProgressStyle};

use super::{Common, budget, interrupt};

/// The page of all results.
const GALLERY: &str = "gallery.html";

/// What both take.
#[derive(Debug, Args)]
pub struct SynthesisArgs {
    /// Model file, or a run folder, of an autoencoder of colour images; several by repeating it
    /// [default: the bundled paint-3, paint-2 and paint-1]
    #[arg(short, long = "model", value_name = "MODEL")]
    models: Vec<PathBuf>,
    /// Optimise the image itself, not pass it through autoencoders: slower, closer
    #[arg(long)]
    optimise: bool,
    /// Steps of optimisation at each size, from the smallest on, and a third of that once more for
    /// a texture that need not tile, when its surroundings are cut off
    #[arg(long, value_name = "N")]
    steps: Option<usize>,
    /// Write over existing files
    #[arg(long)]
    force: bool,
    /// Memory that may be taken, such as 512MiB or 2GiB [default: what is free]
    #[arg(long, value_name = "SIZE")]
    max_memory: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) common: Common,
}

impl SynthesisArgs {
    /// Opens the device and puts the autoencoders on it, from the coarsest code to the finest.
    fn open(&self) -> Result<(Device, Vec<(Synthesizer, Store)>)> {
        let budget = budget(self.max_memory.as_deref())?;
        let names = ["paint-3", "paint-2", "paint-1"].map(PathBuf::from);
        let names: &[PathBuf] = if self.models.is_empty() { &names } else { &self.models };
        let of = |name: &PathBuf| {
            Synthesizer::new(model::load(name)?).map_err(|error| error.at(name.display()))
        };
        let mut synthesizers = names.iter().map(of).collect::<Result<Vec<_>>>()?;
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

    /// Which method is asked for; `steps` unless others are.
    fn method(&self, steps: usize) -> Result<Method> {
        Ok(match (self.optimise, self.steps) {
            (_, Some(0)) => bail_usage!("--steps 0: at least one step is taken"),
            (true, asked) => Method::Optimise { steps: asked.unwrap_or(steps) },
            (false, Some(_)) => bail_usage!("--steps: steps are of --optimise"),
            (false, None) => Method::Quick,
        })
    }

    /// Who tells how far it is: a bar on a terminal, lines in a log.
    fn teller(&self, what: String) -> Teller {
        let silent = self.common.quiet || self.common.json;
        let bar = if silent || !std::io::stderr().is_terminal() {
            ProgressBar::hidden()
        } else {
            let style =
                ProgressStyle::with_template("{prefix} {bar:30} {pos}/{len}  {msg}  {eta} left");
            ProgressBar::new(0)
                .with_style(style.expect("the template is sound"))
                .with_prefix(what.clone())
        };
        let lines = !silent && bar.is_hidden();
        Teller { bar, lines, what }
    }
}

/// Tells how far a picture is.
struct Teller {
    bar: ProgressBar,
    lines: bool,
    what: String,
}

impl Teller {
    /// Tells it; whether to go on.
    fn tell(&self, progress: Progress) -> bool {
        let Progress { done, of, loss } = progress;
        self.bar.set_length(of as u64);
        self.bar.set_position(done as u64);
        if loss.is_finite() {
            self.bar.set_message(format!("loss {loss:.5}"));
            // ten lines in all
            if self.lines && (10 * done / of > 10 * (done - 1) / of) {
                eprintln!("{}  step {done}/{of}  loss {loss:.5}", self.what);
            }
        }
        !interrupt::asked()
    }
}

/// Fails where a file is not there, before anything takes time.
fn check_there(paths: &[PathBuf]) -> Result<()> {
    match paths.iter().find(|path| !path.is_file()) {
        Some(path) if path.is_dir() => Err(Error::usage(format!(
            "{0}: a folder; name images, such as {0}/*.png",
            path.display()
        ))),
        Some(path) => Err(Error::usage(format!("{}: no such file; name an image", path.display()))),
        None => Ok(()),
    }
}

/// A picture from a file in RGB, what is transparent over white; and the file.
fn read(path: &Path) -> Result<(Picture, ImageFile)> {
    let file = ImageFile::read(path)?;
    let (mut pixels, c) = (file.pixels(), file.c);
    if c == 1 {
        pixels = pixels.iter().flat_map(|v| [*v; 3]).collect();
    }
    if let Some(alpha) = file.alpha() {
        pixels
            .chunks_exact_mut(3)
            .zip(&alpha)
            .for_each(|(pixel, a)| pixel.iter_mut().for_each(|v| *v = *v * a + 1.0 - a));
    }
    Ok((Picture { h: file.h, w: file.w, c: 3, pixels }, file))
}

/// A file's name without folder and ending.
fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// Width and height as they are written: 256, or 320x200.
fn size(text: &str) -> Result<[usize; 2]> {
    const LARGEST: usize = 1 << 14;
    let side = |text: &str| text.parse::<usize>().ok().filter(|side| (16..=LARGEST).contains(side));
    let (w, h) = text.split_once(['x', '×']).unwrap_or((text, text));
    match (side(w), side(h)) {
        (Some(w), Some(h)) => Ok([h, w]),
        _ => Err(Error::usage(format!(
            "--size {text}: one side, or WIDTHxHEIGHT, each from 16 to {LARGEST} pixels"
        ))),
    }
}

/// Fails where two results would have one name.
fn check_distinct(names: &[String]) -> Result<()> {
    let mut seen = std::collections::HashSet::new();
    for name in names {
        if !seen.insert(name.to_lowercase()) {
            bail_usage!(
                "two results would be called {name}: give one of them in another call, to another -o"
            );
        }
    }
    Ok(())
}
