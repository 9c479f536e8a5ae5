//! `csae texture`

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use csae::error::Result;
use csae::files;
use csae::report::picture;
use csae::report::picture::Picture;
use csae::tasks::synthesis::gallery;
use csae::tasks::synthesis::gallery::Woven;
use csae::tasks::synthesis::{Options, texture};
use serde_json::json;

use super::{GALLERY, SynthesisArgs, check_distinct, check_there, read, size, stem};
use crate::cli::interrupt::{self, Interrupted};
use crate::cli::{CommandArgs, Common, refuse_existing};

/// Make more of a texture than there is: an image of any size from a small exemplar.
///
/// Quick: a patchwork of the exemplar, whose code is whitened and coloured until no patch stands
/// out. With --optimise, noise is optimised until an autoencoder's maps say of it what they say of
/// the exemplar. Writes NAME.png for each exemplar, and gallery.html with all of them beside their
/// exemplars.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  csae texture bark.png --optimise\n  csae texture bark.png brick.png --size 512x256 --tile -o textures/\n  csae texture bark.png --optimise --steps 400 --seed 7"
)]
pub struct TextureArgs {
    /// Exemplars: image files
    #[arg(required = true)]
    exemplars: Vec<PathBuf>,
    /// Side of the texture in pixels, or WIDTHxHEIGHT [default: twice the exemplar's]
    #[arg(long, value_name = "SIZE")]
    size: Option<String>,
    /// Let opposite sides meet, so that it can be laid side by side
    #[arg(long)]
    tile: bool,
    /// Seed of the noise that it begins with
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Folder for the results
    #[arg(short, long, value_name = "DIR", default_value = "textures")]
    out: PathBuf,
    #[command(flatten)]
    pub(in crate::cli) paint: SynthesisArgs,
}

/// Steps of optimisation at each size, unless others are asked for.
const STEPS: usize = 150;

impl CommandArgs for TextureArgs {
    fn common(&self) -> Option<&Common> {
        Some(&self.paint.common)
    }

    fn writes_files(&self) -> bool {
        true
    }

    fn run(self) -> anyhow::Result<()> {
        run(self)
    }
}

fn run(args: TextureArgs) -> anyhow::Result<()> {
    let method = args.paint.method(STEPS)?;
    let asked = args.size.as_deref().map(size).transpose()?;
    let names: Vec<String> = args.exemplars.iter().map(|path| stem(path)).collect();
    check_distinct(&names)?;
    check_there(&args.exemplars)?;
    let targets: Vec<PathBuf> =
        names.iter().map(|name| args.out.join(format!("{name}.png"))).collect();
    for target in targets.iter().chain(&[args.out.join(GALLERY)]) {
        refuse_existing(target, args.paint.force)?;
    }
    let exemplars =
        args.exemplars.iter().map(|path| Ok(read(path)?.0)).collect::<Result<Vec<Picture>>>()?;
    let size_of = |exemplar: &Picture| asked.unwrap_or([2 * exemplar.h, 2 * exemplar.w]);
    let (mut device, synthesizers) = args.paint.open()?;
    // all of them before the first one takes time
    for (path, exemplar) in args.exemplars.iter().zip(&exemplars) {
        let coarsest = &synthesizers[0].0;
        let fits = coarsest
            .check_size([exemplar.h, exemplar.w])
            .and_then(|()| coarsest.check_size(size_of(exemplar)));
        fits.map_err(|error| error.at(path.display()))?;
    }
    interrupt::watch();
    let mut shown = Vec::new();
    for ((path, target), exemplar) in args.exemplars.iter().zip(&targets).zip(exemplars) {
        let size = size_of(&exemplar);
        let options = Options { size, tile: args.tile, method, seed: args.seed };
        let (teller, start) = (args.paint.teller(stem(path)), Instant::now());
        let made = texture(&mut device, &synthesizers, &exemplar, &options, |progress| {
            teller.tell(progress)
        });
        teller.bar.finish_and_clear();
        let made = made.map_err(|error| error.at(path.display()))?;
        let seconds = start.elapsed().as_secs_f64();
        files::make_folder(&args.out)?;
        picture::save_png(target, &made.picture.pixels, made.picture.h, made.picture.w, 3)?;
        let says = format!(
            "distance {:.3}, {:.1} % of shuffled pixels'",
            made.distance,
            100.0 * made.distance / made.shuffled
        );
        if args.paint.common.json {
            outln!(
                "{}",
                json!({"kind": "texture", "file": target.display().to_string(), "width": size[1], "height": size[0], "distance": made.distance,
                    "shuffled": made.shuffled, "seconds": seconds})
            );
        } else {
            outln!("{}  {}x{}  {says}  {seconds:.1} s", target.display(), size[1], size[0]);
        }
        shown.push(Woven {
            name: stem(path),
            exemplar,
            texture: made.picture,
            tiles: args.tile,
            says,
        });
        files::write_atomically(&args.out.join(GALLERY), gallery::textures(&shown)?.as_bytes())?;
        if interrupt::asked() {
            return Err(Interrupted(format!("stopped after {}", target.display())).into());
        }
    }
    args.paint.common.say_kernels(&mut device);
    Ok(())
}
