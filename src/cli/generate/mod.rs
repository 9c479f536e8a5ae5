//! `csae generate`

mod fit;
mod judge;
mod show;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use csae::bail_usage;
use csae::budget::{Budget, free};
use csae::data::Sample;
use csae::error::{Error, Result};
use csae::infer::batches::{Inference, MemoryInUse};
use csae::model::{self, Graph, Purpose};
use csae::priors::prior::{
    MAX_UNITS, Prior, PriorKind, SWEEP_COMPONENTS, SampleRequest, interpolate,
};
use csae::tasks::inspect::ModelPaths;

use super::{Common, budget, refuse_existing};
use show::{Shown, What};

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
    const fn kind(self) -> PriorKind {
        match self {
            Self::Gaussian => PriorKind::Gaussian,
            Self::Mixture => PriorKind::Mixture,
            Self::Sparse => PriorKind::Sparse,
        }
    }
}

/// Draw new images: codes from a prior that was fitted to the codes of the training images,
/// decoded.
///
/// With --fit the priors are fitted first and stored with the model, as prior.safetensors; of
/// labelled images they learn the classes, too. Then samples are drawn, or images like a given one
/// (--like), those between two (--interpolate), what a unit draws (--unit), or the priors are
/// compared (--judge). Writes each image, all of them on one picture, and gallery.html.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  csae train train-images-idx3-ubyte.gz --preset generate --out runs/clothes\n  csae generate runs/clothes --fit train-images-idx3-ubyte.gz\n  csae generate runs/clothes --class 9 --n 100 --seed 7 -o boots --train train-images-idx3-ubyte.gz\n  csae generate runs/clothes --like shirt.png --vary 0.3 -o shirts\n  csae generate runs/clothes --interpolate shirt.png boot.png --frames 12 -o between\n  csae generate runs/clothes --judge runs/classifier --test t10k-images-idx3-ubyte.gz --train train-images-idx3-ubyte.gz -o judged"
)]
pub struct GenerateArgs {
    /// Model file, or a run folder, of an autoencoder with a small code (--preset generate)
    model: PathBuf,
    /// Fit the priors to the codes of these images, those that the model was trained on, and store
    /// them with it
    #[arg(long, value_name = "DATA")]
    fit: Option<String>,
    /// With --fit: components of the mixture, in all [default: by Bayes's information criterion]
    #[arg(long, value_name = "N", requires = "fit")]
    components: Option<NonZeroUsize>,
    /// With --fit: do without the images' classes
    #[arg(long, requires = "fit")]
    ignore_labels: bool,
    /// What codes are drawn from
    #[arg(long, value_enum, default_value_t = From::Mixture, conflicts_with_all = ["interpolate", "unit", "judge"])]
    prior: From,
    /// Images to draw [default: 64; with --judge as many as test images, up to 10000]
    #[arg(short, long, value_name = "N")]
    n: Option<usize>,
    /// Seed of what is drawn, and with --fit of how fitting begins [default: 0]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Below 1 likelier and less different images, above 1 the contrary
    #[arg(long, value_name = "T", default_value_t = 1.0, conflicts_with_all = ["interpolate", "unit"])]
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
    /// Draw what this unit of the code draws at growing strength, alone and in the mean codes that
    /// it is strongest in
    #[arg(long, value_name = "K", conflicts_with_all = ["judge", "n"])]
    unit: Option<usize>,
    /// Show below each image the nearest of these, those that the model was trained on; with
    /// --judge the floor is their distance
    #[arg(long, value_name = "DATA")]
    train: Option<String>,
    /// Compare what the three priors draw with test images, in the features of this classifier
    /// (csae finetune)
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
    /// Bring images of another size to the model's, and gray or colour to its channels; else priors
    /// are fitted to patches of larger ones
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
/// Patches that priors are fitted to at most, spread evenly over the images.
const PATCHES: usize = 100_000;
/// Multiples of a unit's usual strength that it is shown at.
const STRENGTHS: [f32; 6] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0];

impl GenerateArgs {
    fn check(&self) -> Result<()> {
        if self.n == Some(0) {
            bail_usage!("--n 0: at least one image is drawn");
        }
        if self.seed.is_some()
            && self.fit.is_none()
            && (self.interpolate.is_some() || self.unit.is_some())
        {
            bail_usage!("--seed: nothing is drawn at random between two images, nor of a unit");
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

    fn seed(&self) -> u64 {
        self.seed.unwrap_or(0)
    }

    /// Images that are wanted at most.
    fn count(&self) -> usize {
        match (&self.interpolate, self.unit, &self.judge) {
            (Some(_), ..) => self.frames,
            (_, Some(_), _) => (1 + SWEEP_COMPONENTS) * STRENGTHS.len(),
            // as many as there are test images, which is checked when those are known
            (.., Some(_)) => 1,
            _ => self.n.unwrap_or(COUNT),
        }
    }

    /// What the names of files of images begin with.
    const fn start(&self) -> &'static str {
        match (&self.interpolate, self.unit) {
            (Some(_), _) => "frame-",
            (_, Some(_)) => "unit-",
            _ => "",
        }
    }

    /// Names of the files that are written, or more.
    fn files(&self) -> Vec<String> {
        let mut files = vec![show::GALLERY.to_owned()];
        if self.judge.is_some() {
            files.push(judge::NUMBERS.to_owned());
        } else {
            files.push(show::PICTURE.to_owned());
            files.extend(show::names(self.start(), self.count()));
        }
        files
    }

    /// Fails where the prior does not know what is asked of it.
    fn check_prior(&self, prior: &Prior) -> Result<()> {
        let draw = self.draw(
            self.prior.kind(),
            0,
            self.class.as_deref().map(|class| prior.class(class)).transpose()?,
        );
        prior.sample(&draw)?;
        self.unit.map_or(Ok(()), |unit| prior.unit_sweep(unit, &[]).map(drop))
    }

    /// The codes of what is asked for, those of the given images among them, and what they are.
    fn codes(&self, prior: Option<&Prior>, given: &[Vec<f32>]) -> Result<(What, Vec<f32>)> {
        let (name, kind, count) = (self.model.display(), self.prior.kind(), self.count());
        if let (Some(ends), [a, b]) = (&self.interpolate, given) {
            let note = format!(
                "{count} images on the straight line between the codes of {} and {}, by {name}",
                ends[0], ends[1]
            );
            return Ok((What::new("Between", note, Some(count.min(12))), interpolate(a, b, count)));
        }
        let prior = prior.expect("what needs no prior is done");
        if let Some(unit) = self.unit {
            let codes = prior.unit_sweep(unit, &STRENGTHS)?;
            let [rate, strength] = prior.units[unit];
            let note = format!(
                "unit {unit} of {name}, which fires for {:.1} % of the images, at {strength:.3} on average; from left to right at {} times that; first alone, then in the mean codes of the components that it is strongest in",
                100.0 * rate,
                STRENGTHS.map(|strength| strength.to_string()).join(", ")
            );
            return Ok((What::new(&format!("Unit {unit}"), note, Some(STRENGTHS.len())), codes));
        }
        let by = format!(
            "{} prior of {name}, temperature {}, seed {}",
            kind.name(),
            self.temperature,
            self.seed()
        );
        if let (Some(image), [code]) = (&self.like, given) {
            let codes = prior.variations(&self.draw(kind, count, None), code, self.vary);
            return Ok((
                What::new("Alike", format!("like {image}, {} of it new; {by}", self.vary), None),
                codes,
            ));
        }
        let class = self.class.as_deref().map(|class| prior.class(class)).transpose()?;
        let of = self.class.as_deref().map_or(String::new(), |class| format!(" of class {class}"));
        let codes = prior.sample(&self.draw(kind, count, class))?;
        Ok((What::new("Samples", format!("{count} samples{of}; {by}"), None), codes))
    }

    fn draw(&self, kind: PriorKind, count: usize, class: Option<u32>) -> SampleRequest {
        SampleRequest { kind, count, seed: self.seed(), temperature: self.temperature, class }
    }

    /// Images as the model was trained on: patches where they are larger than its input, unless
    /// they are to be resized.
    fn patches(&self, graph: &Graph, source: &str, budget: Budget) -> Result<Sample> {
        if self.resize {
            return self.whole(graph, source, budget);
        }
        let sample =
            Sample::open_to_learn(source, graph.nodes[0].dims, PATCHES, self.strict, budget)?;
        Ok(self.said(sample))
    }

    /// Images of the model's size.
    fn whole(&self, graph: &Graph, source: &str, budget: Budget) -> Result<Sample> {
        Ok(self.said(Sample::open_whole(
            source,
            graph.nodes[0].dims,
            self.resize,
            self.strict,
            budget,
        )?))
    }

    fn said(&self, sample: Sample) -> Sample {
        self.common.say(&format!("data: {}", sample.description));
        self.common.say_skipped(&sample.skipped);
        sample
    }
}

/// Fails unless codes of the model can be drawn and decoded.
fn check_model(graph: &Graph, name: &Path) -> Result<()> {
    let at = |error: Error| error.at(name.display());
    graph.check_autoencoder().map_err(at)?;
    graph.check_reconstructs_images().map_err(at)?;
    if !graph.spec.undoes.is_none() {
        bail_usage!(
            "{}: the model restores images, it does not draw new ones; train one by --preset generate",
            name.display()
        );
    }
    let units = graph.nodes[graph.code].dims.len();
    if units > MAX_UNITS {
        bail_usage!(
            "{}: its code has {units} values, more than the {MAX_UNITS} that priors are fitted to; train a model with a smaller code, such as --preset generate",
            name.display()
        );
    }
    Ok(())
}

/// Fails where what is `wanted` is more than may be taken of the host's memory, where codes and
/// images are; says what it is for, and what helps.
fn refuse_beyond(budget: Budget, wanted: u64, what: &str, instead: &str) -> Result<()> {
    let here = free().unwrap_or(u64::MAX);
    let allowed = budget.all.map_or(here, |all| all.min(here));
    if wanted > allowed {
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        bail_usage!(
            "{what} take {} MiB, more than the {} MiB that may be taken; {instead}, or raise --max-memory",
            mib(wanted),
            mib(allowed)
        );
    }
    Ok(())
}

/// Fails where so many images and their codes are more than may be taken.
fn check_room(budget: Budget, graph: &Graph, count: usize) -> Result<()> {
    let (size, units) = (graph.nodes[0].dims, graph.nodes[graph.code].dims.len() as u64);
    // codes, images, and the picture and the page of what is shown of them
    let wanted = (count as u64)
        .saturating_mul(4 * (units + 2 * size.len() as u64))
        .saturating_add(show::bytes(size, count));
    let what = format!("{count} images of {size} and their codes");
    refuse_beyond(budget, wanted, &what, "draw fewer at a time, with another --seed")
}

pub fn run(args: GenerateArgs) -> anyhow::Result<()> {
    args.check()?;
    let place = ModelPaths::of(&args.model);
    let loaded = model::load(&place.model)?;
    let graph = &loaded.graph;
    check_model(graph, &args.model)?;
    let stored = csae::priors::file::path_of(&place.model);
    // everything that can be refused is refused before anything takes time
    let known = if args.fit.is_some() {
        refuse_existing(&stored, args.force)?;
        None
    } else if args.interpolate.is_some() {
        None
    } else {
        let prior = Prior::load(&stored, &loaded.hash)?;
        args.check_prior(&prior)?;
        Some(prior)
    };
    let judging = args.judge.as_deref().map(judge::Classifier::load).transpose()?;
    let budget = budget(args.max_memory.as_deref())?;
    check_room(budget, graph, args.count())?;
    args.files().iter().try_for_each(|name| refuse_existing(&args.out.join(name), args.force))?;
    let given = args.like.iter().chain(args.interpolate.iter().flatten());
    let given =
        given.map(|source| one(&args, graph, source, budget)).collect::<Result<Vec<_>>>()?;
    let patches = |source: &Option<String>| {
        source.as_deref().map(|source| args.patches(graph, source, budget)).transpose()
    };
    let (fitting, train) = (patches(&args.fit)?, patches(&args.train)?);
    let test = args.test.as_deref().map(|source| args.whole(graph, source, budget)).transpose()?;
    fitting.iter().try_for_each(|sample| fit::check_room(&args, graph, sample, budget))?;
    let against = match (&judging, &test) {
        (Some(classifier), Some(test)) => {
            Some(judge::Against { classifier, test, train: train.as_ref() })
        }
        _ => None,
    };
    against.iter().try_for_each(|against| against.check(&args, graph.nodes[0].dims, budget))?;
    let mut device = args.common.open()?;
    device.limit_memory(budget.all);
    let store = loaded.place(&mut device, graph, Purpose::Infer)?;
    let mut inference = Inference::new(graph, &store);
    let held = [&fitting, &train, &test].into_iter().flatten().map(Sample::bytes).sum();
    inference.fit(&device, MemoryInUse { parameters: 2 * store.bytes(), data: held })?;
    if inference.decode(&mut device, &vec![0.0; graph.nodes[graph.code].dims.len()])?.is_none() {
        let message = format!(
            "{}: its decoder also reads layers before the code, so that codes alone draw nothing",
            args.model.display()
        );
        return Err(Error::usage(message).into());
    }
    let prior = match (fitting, known) {
        (Some(sample), _) => {
            let prior =
                fit::run(&args, &mut device, &mut inference, &sample, &loaded.hash, &stored)?;
            args.check_prior(&prior)?;
            Some(prior)
        }
        (None, known) => known,
    };
    if let (Some(against), Some(prior)) = (&against, &prior) {
        return judge::run(&args, &mut device, &mut inference, prior, against);
    }
    let codes = given
        .iter()
        .map(|image| inference.run_code(&mut device, image, &[]))
        .collect::<Result<Vec<_>>>()?;
    let (what, codes) = args.codes(prior.as_ref(), &codes)?;
    let drawn = inference.decode(&mut device, &codes)?.expect("the decoder reads the code alone");
    Shown { what, drawn, originals: given, dims: graph.nodes[0].dims }
        .write(&args, train.as_ref())?;
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
