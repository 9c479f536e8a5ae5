//! `csae generate`

mod fit;
mod judge;
mod show;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use csae::bail_usage;
use csae::data::Sample;
use csae::data::budget::Budget;
use csae::device::Device;
use csae::error::{Error, Result};
use csae::model::{self, Graph, Purpose};
use csae::tasks::generate::{self, Draw, Kind, LARGEST, Prior, between};
use csae::tasks::infer::{Beside, Inference};
use csae::tasks::inspect::Place;

use super::{Common, budget};
use show::{Shown, Tile};

/// What codes are drawn from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum From {
    /// One Gaussian with a full covariance: the baseline
    Gaussian,
    /// A mixture of Gaussians with full covariances, as many as Bayes's information criterion takes
    Mixture,
    /// Which units fire, and how strongly, given that they fire: one unit after the other
    Sparse,
}

impl From {
    const fn kind(self) -> Kind {
        match self {
            Self::Gaussian => Kind::Gaussian,
            Self::Mixture => Kind::Mixture,
            Self::Sparse => Kind::Sparse,
        }
    }
}

/// Draw new images: codes from a prior that was fitted to the codes of the training images, decoded.
///
/// With --fit the priors are fitted first and stored with the model, as prior.safetensors; of labelled images they learn the classes, too. Then samples are
/// drawn, or images like a given one (--like), those between two (--interpolate), what a unit draws (--unit), or the priors are compared (--judge). Writes each
/// image, all of them on one picture, and gallery.html.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  csae train train-images-idx3-ubyte.gz --preset generate --out runs/clothes\n  csae generate runs/clothes --fit train-images-idx3-ubyte.gz\n  csae generate runs/clothes --class 9 --n 100 --seed 7 -o boots --train train-images-idx3-ubyte.gz\n  csae generate runs/clothes --like shirt.png --vary 0.3 -o shirts\n  csae generate runs/clothes --interpolate shirt.png boot.png --frames 12 -o between\n  csae generate runs/clothes --judge runs/classifier --test t10k-images-idx3-ubyte.gz --train train-images-idx3-ubyte.gz -o judged"
)]
pub struct GenerateArgs {
    /// Model file, or a run folder, of an autoencoder with a small code (--preset generate)
    model: PathBuf,
    /// Fit the priors to the codes of these images, those that the model was trained on, and store them with it
    #[arg(long, value_name = "DATA")]
    fit: Option<String>,
    /// With --fit: components of the mixture, in all [default: by Bayes's information criterion]
    #[arg(long, value_name = "N", requires = "fit")]
    components: Option<NonZeroUsize>,
    /// With --fit: do without the images' classes
    #[arg(long, requires = "fit")]
    ignore_labels: bool,
    /// What codes are drawn from
    #[arg(long, value_enum, default_value_t = From::Mixture)]
    prior: From,
    /// Images to draw [default: 64; with --judge as many as test images, up to 10000]
    #[arg(short, long, value_name = "N")]
    n: Option<usize>,
    /// Seed of what is drawn
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Below 1 likelier and less different images, above 1 the contrary
    #[arg(long, value_name = "T", default_value_t = 1.0)]
    temperature: f64,
    /// Draw images of this class
    #[arg(long, value_name = "NAME", conflicts_with_all = ["like", "interpolate", "unit", "judge"])]
    class: Option<String>,
    /// Draw images like this one
    #[arg(long, value_name = "IMAGE", conflicts_with_all = ["interpolate", "unit", "judge"])]
    like: Option<String>,
    /// With --like: how much is new, from 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.5, requires = "like")]
    vary: f64,
    /// Draw what lies between two images
    #[arg(long, value_names = ["A", "B"], num_args = 2, conflicts_with_all = ["unit", "judge", "n"])]
    interpolate: Option<Vec<String>>,
    /// With --interpolate: images, both ends among them
    #[arg(long, value_name = "N", default_value_t = 9, requires = "interpolate")]
    frames: usize,
    /// Draw what this unit of the code draws, alone and on the mean code, at growing strength
    #[arg(long, value_name = "K", conflicts_with_all = ["judge", "n"])]
    unit: Option<usize>,
    /// Show below each image the nearest of these, those that the model was trained on; with --judge the floor is their distance
    #[arg(long, value_name = "DATA")]
    train: Option<String>,
    /// Compare what the three priors draw with test images, in the features of this classifier (csae finetune)
    #[arg(long, value_name = "MODEL", requires = "test")]
    judge: Option<PathBuf>,
    /// With --judge: the test images
    #[arg(long, value_name = "DATA", requires = "judge")]
    test: Option<String>,
    /// Folder for the results
    #[arg(short, long, value_name = "DIR", default_value = "samples")]
    out: PathBuf,
    /// Write over existing files, and a prior that is there
    #[arg(long)]
    force: bool,
    /// Bring images of another size to the model's, and gray or colour to its channels
    #[arg(long)]
    resize: bool,
    /// A file that does not decode is an error, not skipped
    #[arg(long)]
    strict: bool,
    /// Memory that may be taken, such as 512MiB or 2GiB [default: what is free]
    #[arg(long, value_name = "SIZE")]
    max_memory: Option<String>,
    #[command(flatten)]
    pub(super) common: Common,
}

/// Images unless another number is asked for.
const COUNT: usize = 64;
/// Multiples of a unit's usual strength that it is shown at.
const STRENGTHS: [f32; 6] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0];

impl GenerateArgs {
    fn check(&self) -> Result<()> {
        if self.n == Some(0) {
            bail_usage!("--n 0: at least one image is drawn");
        }
        if !(0.0..=10.0).contains(&self.temperature) {
            bail_usage!("--temperature {}: between 0 and 10", self.temperature);
        }
        if !(0.0..=1.0).contains(&self.vary) {
            bail_usage!("--vary {}: a share between 0 and 1", self.vary);
        }
        if !(2..=1000).contains(&self.frames) {
            bail_usage!("--frames {}: from 2, the two images themselves, to 1000", self.frames);
        }
        Ok(())
    }

    fn draw(&self, kind: Kind, count: usize, class: Option<u32>) -> Draw {
        Draw { kind, count, seed: self.seed, temperature: self.temperature, class }
    }

    fn sample(&self, graph: &Graph, source: &str, budget: Budget) -> Result<Sample> {
        let sample = Sample::open_whole(source, graph.nodes[0].dims, self.resize, self.strict, budget)?;
        self.common.say(&format!("data: {}", sample.description));
        self.common.say_skipped(&sample.skipped);
        Ok(sample)
    }
}

/// Fails unless codes of the model can be drawn and decoded.
fn check_model(graph: &Graph, name: &Path) -> Result<()> {
    let at = |error: Error| error.at(name.display());
    graph.check_autoencoder().map_err(at)?;
    graph.check_draws_images().map_err(at)?;
    if !graph.spec.undoes.is_none() {
        bail_usage!("{}: the model restores images, it does not draw new ones; train one by --preset generate", name.display());
    }
    let units = graph.nodes[graph.code].dims.len();
    if units > LARGEST {
        bail_usage!(
            "{}: its code has {units} values, more than the {LARGEST} that priors are fitted to; train a model with a smaller code, such as --preset generate",
            name.display()
        );
    }
    Ok(())
}

/// Fails where so many images and their codes are more than may be taken.
fn check_room(device: &Device, graph: &Graph, count: usize) -> Result<()> {
    let (pixels, units) = (graph.nodes[0].dims.len() as u64, graph.nodes[graph.code].dims.len() as u64);
    // codes, images, and the picture and the page of what is shown of them
    let wanted = (count as u64).saturating_mul(4 * (units + 2 * pixels)).saturating_add(show::bytes(graph.nodes[0].dims, count));
    match device.budget() {
        Some(budget) if wanted > budget => {
            let mib = |bytes: u64| bytes.div_ceil(1 << 20);
            bail_usage!(
                "{count} images of {} and their codes take {} MiB, more than the {} MiB that may be taken; draw fewer at a time, with another --seed, or raise --max-memory",
                graph.nodes[0].dims,
                mib(wanted),
                mib(budget)
            )
        }
        _ => Ok(()),
    }
}

pub fn run(args: GenerateArgs) -> anyhow::Result<()> {
    args.check()?;
    let place = Place::of(&args.model);
    let loaded = model::load(&place.model)?;
    let graph = &loaded.graph;
    check_model(graph, &args.model)?;
    let stored = generate::path_of(&place.model);
    // everything that can be refused is refused before anything takes time
    let known = if args.fit.is_some() {
        super::refuse_existing(&stored, args.force)?;
        None
    } else if args.interpolate.is_some() {
        None
    } else {
        Some(Prior::load(&stored, &loaded.hash)?)
    };
    show::refuse_existing(&args.out, args.force)?;
    let judging = args.judge.as_deref().map(judge::Classifier::load).transpose()?;
    let budget = budget(args.max_memory.as_deref())?;
    let images = |sources: &[String]| sources.iter().map(|source| one(&args, graph, source, budget)).collect::<Result<Vec<_>>>();
    let given = match (&args.like, &args.interpolate) {
        (Some(image), _) => images(std::slice::from_ref(image))?,
        (_, Some(ends)) => images(ends)?,
        _ => Vec::new(),
    };
    let train = args.train.as_deref().map(|source| args.sample(graph, source, budget)).transpose()?;
    let mut device = args.common.open()?;
    device.limit_memory(budget.all);
    let count = match (&args.interpolate, args.unit) {
        (Some(_), _) => args.frames,
        (_, Some(_)) => 2 * STRENGTHS.len(),
        _ => args.n.unwrap_or(COUNT),
    };
    check_room(&device, graph, count)?;
    let store = loaded.place(&mut device, graph, Purpose::Infer)?;
    let mut inference = Inference::new(graph, &store);
    let held = train.as_ref().map_or(0, Sample::bytes);
    inference.fit(&device, Beside { parameters: 2 * store.bytes(), data: held })?;
    // a decoder that reads what lies before the code has no images of codes
    if inference.decode(&mut device, &vec![0.0; graph.nodes[graph.code].dims.len()])?.is_none() {
        let message =
            format!("{}: its decoder also reads layers before the code, so that codes alone draw nothing", args.model.display());
        return Err(Error::usage(message).into());
    }
    let prior = match (&args.fit, known) {
        (Some(source), _) => Some(fit::run(&args, &mut device, &mut inference, source, &loaded.hash, budget, &stored)?),
        (None, known) => known,
    };
    let kind = args.prior.kind();
    let codes_of = |device: &mut Device, inference: &mut Inference<'_>, images: &[Vec<f32>]| -> Result<Vec<Vec<f32>>> {
        images.iter().map(|image| inference.run_code(device, image, &[])).collect()
    };
    if let Some(classifier) = judging {
        let prior = prior.as_ref().expect("only --interpolate does without a prior");
        return judge::run(&args, &mut device, &mut inference, prior, classifier, train.as_ref(), budget);
    }
    let name = args.model.display();
    let (title, note, tiles, codes) = if let Some(ends) = &args.interpolate {
        let codes = codes_of(&mut device, &mut inference, &given)?;
        let codes = between(&codes[0], &codes[1], args.frames);
        let note =
            format!("{} images on the straight line between the codes of {} and {}, by {name}", args.frames, ends[0], ends[1]);
        (String::from("Between"), note, Tile::numbered("frame", args.frames), codes)
    } else {
        let prior = prior.as_ref().expect("only --interpolate does without a prior");
        if let Some(unit) = args.unit {
            let [rate, strength] = prior.units.get(unit).copied().unwrap_or_default();
            let codes = prior.of_unit(unit, &STRENGTHS)?;
            let note = format!(
                "unit {unit} of {name}, which fires for {:.1} % of the images, at {strength:.3} on average; first alone, then on the mean code; from left to right at {} times that",
                100.0 * rate,
                STRENGTHS.map(|strength| strength.to_string()).join(", ")
            );
            (format!("Unit {unit}"), note, Tile::numbered("unit", count), codes)
        } else if let Some(image) = &args.like {
            let code = codes_of(&mut device, &mut inference, &given)?.remove(0);
            let codes = prior.like(&args.draw(kind, count, None), &code, args.vary);
            let note = format!(
                "like {image}, {} of it new; {} prior of {name}, temperature {}, seed {}",
                args.vary,
                kind.name(),
                args.temperature,
                args.seed
            );
            (String::from("Alike"), note, Tile::numbered("", count), codes)
        } else {
            let class = args.class.as_deref().map(|class| prior.class(class)).transpose()?;
            let codes = prior.draw(&args.draw(kind, count, class))?;
            let of = args.class.as_deref().map_or(String::new(), |class| format!(" of class {class}"));
            let note = format!(
                "{count} samples{of}; {} prior of {name}, temperature {}, seed {}",
                kind.name(),
                args.temperature,
                args.seed
            );
            (String::from("Samples"), note, Tile::numbered("", count), codes)
        }
    };
    let drawn = inference.decode(&mut device, &codes)?.expect("the decoder reads the code alone");
    let columns = match (&args.interpolate, args.unit) {
        (None, Some(_)) => Some(STRENGTHS.len()),
        _ => None,
    };
    let originals = if args.unit.is_none() { given } else { Vec::new() };
    let shown = Shown { title, note, drawn, tiles, originals, dims: graph.nodes[0].dims, columns };
    shown.write(&args, train.as_ref())?;
    args.common.say_kernels(&mut device);
    Ok(())
}

/// One image of the model's size.
fn one(args: &GenerateArgs, graph: &Graph, source: &str, budget: Budget) -> Result<Vec<f32>> {
    if !Path::new(source).is_file() {
        bail_usage!("{source}: no such file; name an image");
    }
    let size = graph.nodes[0].dims;
    let sample = Sample::open_whole(source, size, args.resize, true, budget)?;
    if sample.len() != 1 {
        bail_usage!("{source}: {} images; name a file of one", sample.len());
    }
    let mut pixels = Vec::new();
    sample.each_part(|images, chosen| {
        pixels = csae::data::patches::cut(images, chosen, size.h, size.w);
        Ok(())
    })?;
    Ok(pixels)
}
