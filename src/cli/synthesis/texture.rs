//! `csae texture`: texture synthesis.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use serde_json::json;

use super::{
    SynthesisArgs, check_distinct, check_files_exist, expand_patterns, parse_size, read_rgb,
    result_files, stem,
};
use crate::cli::interrupt::{self, Interrupted};
use crate::cli::{CommandArgs, Common};
use crate::error::Result;
use crate::files;
use crate::report::picture::Picture;
use crate::tasks::synthesis::gallery;
use crate::tasks::synthesis::gallery::TextureEntry;
use crate::tasks::synthesis::{TextureOptions, check_texture_memory, texture};

/// Synthesize a texture of any size from a small exemplar.
///
/// Patches of the exemplar are joined where they fit, and the patchwork's code is whitened and
/// coloured until no patch stands out. Writes NAME.png for each exemplar, and gallery.html with all
/// of them beside their exemplars.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  csae texture bark.png
  csae texture bark.png brick.png --size 512x256 --tile -o textures/
  csae texture bark.png --size 1024 --seed 7")]
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
    /// Seed of the choice of patches
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Folder for the results, or the PNG file of a single result, without gallery.html
    #[arg(short, long, value_name = "PATH", default_value = "textures")]
    out: PathBuf,
    #[command(flatten)]
    pub(in crate::cli) synthesis: SynthesisArgs,
}

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
    let wanted = args.size.as_deref().map(parse_size).transpose()?;
    let names: Vec<String> = args.exemplars.iter().map(|path| stem(path)).collect();
    check_distinct(&names)?;
    check_files_exist(&args.exemplars)?;
    let (targets, page) = result_files(&args.out, &names, args.synthesis.force)?;
    let exemplars = args
        .exemplars
        .iter()
        .map(|path| Ok(read_rgb(&args.synthesis.common, path)?.0))
        .collect::<Result<Vec<Picture>>>()?;
    let size_of =
        |exemplar: &Picture| wanted.unwrap_or_else(|| exemplar.dims.size().map(|side| 2 * side));
    let (mut device, synthesizers) = args.synthesis.open()?;
    // All sizes and their memory are checked before the first texture is synthesized.
    for (path, exemplar) in args.exemplars.iter().zip(&exemplars) {
        let size = size_of(exemplar);
        let options = TextureOptions { size, tile: args.tile, seed: args.seed };
        // The exemplars, and all textures and exemplars for the page.
        let area: usize = exemplars.iter().map(|e| e.dims.size().area() + size_of(e).area()).sum();
        let held = (area * 3 * size_of_val(&exemplar.pixels[0])) as u64;
        let own = exemplar.dims.size();
        let fits = check_texture_memory(&device, &synthesizers, own, &options, held);
        fits.map_err(|error| error.at(path.display()))?;
    }
    interrupt::watch();
    let mut shown = Vec::new();
    for ((path, target), exemplar) in args.exemplars.iter().zip(&targets).zip(exemplars) {
        let size = size_of(&exemplar);
        let options = TextureOptions { size, tile: args.tile, seed: args.seed };
        let start = Instant::now();
        let made = texture(&mut device, &synthesizers, &exemplar, &options);
        let made = made.map_err(|error| error.at(path.display()))?;
        let seconds = start.elapsed().as_secs_f64();
        files::make_folder(target.parent().unwrap_or(&args.out))?;
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
            args.synthesis.common.report_written(format_args!(
                "{}  {size}  {caption}  {seconds:.1} s",
                target.display()
            ));
        }
        shown.push(TextureEntry {
            name: stem(path),
            exemplar,
            texture: made.picture,
            tiles: args.tile,
            caption,
        });
        if let Some(page) = &page {
            let page_text = gallery::textures(&shown, &args.synthesis.facts(&device))?;
            files::write_atomically(page, page_text.as_bytes())?;
        }
        if interrupt::requested() {
            return Err(Interrupted(format!("stopped after {}", target.display())).into());
        }
    }
    args.synthesis.common.report_kernels(&mut device);
    Ok(())
}
