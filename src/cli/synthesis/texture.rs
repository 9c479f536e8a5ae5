//! `csae texture`: texture synthesis.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use csae::internals::error::Result;
use csae::internals::files;
use csae::internals::report::picture::Picture;
use csae::internals::tasks::synthesis::gallery;
use csae::internals::tasks::synthesis::gallery::TextureEntry;
use csae::internals::tasks::synthesis::{TextureOptions, texture};
use serde_json::json;

use super::{
    GALLERY, SynthesisArgs, check_distinct, check_files_exist, expand_patterns, parse_size,
    read_rgb, stem,
};
use crate::cli::interrupt::{self, Interrupted};
use crate::cli::{CommandArgs, Common, refuse_existing};

/// Synthesize a texture of any size from a small exemplar.
///
/// By default, the exemplar is quilted and the patchwork's code is whitened and coloured until no
/// patch stands out, which is fast. With --optimise, noise is optimised until its feature
/// statistics match those of the exemplar. Writes NAME.png for each exemplar, and gallery.html with
/// all of them beside their exemplars.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  csae texture bark.png --optimise
  csae texture bark.png brick.png --size 512x256 --tile -o textures/
  csae texture bark.png --optimise --steps 400 --seed 7")]
pub struct TextureArgs {
    /// Image files of the exemplars
    #[arg(required = true)]
    exemplars: Vec<PathBuf>,
    /// Side of the texture in pixels, or WIDTHxHEIGHT [default: twice the exemplar's]
    #[arg(long, value_name = "SIZE")]
    size: Option<String>,
    /// Make opposite sides meet, so that the texture tiles
    #[arg(long)]
    tile: bool,
    /// Seed of the initial noise
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Folder for the results
    #[arg(short, long, value_name = "DIR", default_value = "textures")]
    out: PathBuf,
    #[command(flatten)]
    pub(in crate::cli) synthesis: SynthesisArgs,
}

/// Default number of optimisation steps at each size. 300 to 600 made no visible difference
/// (`benches/results/2026-11-28-textures-and-styles.md`).
const STEPS: usize = 150;

impl CommandArgs for TextureArgs {
    fn common(&self) -> Option<&Common> {
        Some(&self.synthesis.common)
    }

    fn writes_files(&self) -> bool {
        true
    }

    fn run(self) -> anyhow::Result<()> {
        run(self)
    }
}

fn run(mut args: TextureArgs) -> anyhow::Result<()> {
    expand_patterns(&mut args.exemplars)?;
    let method = args.synthesis.method(STEPS)?;
    let wanted = args.size.as_deref().map(parse_size).transpose()?;
    let names: Vec<String> = args.exemplars.iter().map(|path| stem(path)).collect();
    check_distinct(&names)?;
    check_files_exist(&args.exemplars)?;
    let targets: Vec<PathBuf> =
        names.iter().map(|name| args.out.join(format!("{name}.png"))).collect();
    for target in targets.iter().chain(&[args.out.join(GALLERY)]) {
        refuse_existing(target, args.synthesis.force)?;
    }
    let exemplars = args
        .exemplars
        .iter()
        .map(|path| Ok(read_rgb(&args.synthesis.common, path)?.0))
        .collect::<Result<Vec<Picture>>>()?;
    let size_of =
        |exemplar: &Picture| wanted.unwrap_or_else(|| exemplar.dims.size().map(|side| 2 * side));
    let (mut device, synthesizers) = args.synthesis.open()?;
    // All sizes are checked before the first texture is synthesized.
    for (path, exemplar) in args.exemplars.iter().zip(&exemplars) {
        let coarsest = &synthesizers[0].0;
        let fits = coarsest
            .check_size(exemplar.dims.size())
            .and_then(|()| coarsest.check_size(size_of(exemplar)));
        fits.map_err(|error| error.at(path.display()))?;
    }
    interrupt::watch();
    let mut shown = Vec::new();
    for ((path, target), exemplar) in args.exemplars.iter().zip(&targets).zip(exemplars) {
        let size = size_of(&exemplar);
        let options = TextureOptions { size, tile: args.tile, method, seed: args.seed };
        let (display, start) = (args.synthesis.progress_display(stem(path)), Instant::now());
        let made = texture(&mut device, &synthesizers, &exemplar, &options, |progress| {
            display.update(progress)
        });
        display.bar.finish_and_clear();
        let made = made.map_err(|error| error.at(path.display()))?;
        let seconds = start.elapsed().as_secs_f64();
        files::make_folder(&args.out)?;
        made.picture.save(target)?;
        let caption = format!(
            "distance {:.3}, {:.1} % of the distance of shuffled pixels",
            made.distance,
            100.0 * made.distance / made.shuffled
        );
        if args.synthesis.common.json {
            outln!(
                "{}",
                json!({
                    "kind": "texture", "file": target.display().to_string(),
                    "width": size.w, "height": size.h, "distance": made.distance,
                    "shuffled": made.shuffled, "seconds": seconds
                })
            );
        } else {
            outln!("{}  {size}  {caption}  {seconds:.1} s", target.display());
        }
        shown.push(TextureEntry {
            name: stem(path),
            exemplar,
            texture: made.picture,
            tiles: args.tile,
            caption,
        });
        files::write_atomically(&args.out.join(GALLERY), gallery::textures(&shown)?.as_bytes())?;
        if interrupt::requested() {
            return Err(Interrupted(format!("stopped after {}", target.display())).into());
        }
    }
    args.synthesis.common.report_kernels(&mut device);
    Ok(())
}
