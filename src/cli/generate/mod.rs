//! `csae generate`: samples new images from priors on codes.

mod fit;
mod judge;
mod show;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::learning::{Begin, Settings};
use super::{CommandArgs, Common, budget, refuse_existing};
use crate::bail_usage;
use crate::budget::{Budget, free};
use crate::cli::ranks::RanksArgs;
use crate::data::{LoadOptions, Sample, WholeSize};
use crate::error::{Error, Result};
use crate::infer::batches::{Inference, MemoryInUse};
use crate::model::{Graph, ModelSpec, Purpose};
use crate::priors::file::path_of;
use crate::priors::prior::{
    MAX_UNITS, Prior, PriorKind, SWEEP_COMPONENTS, SampleRequest, interpolate,
};
use crate::spec::{Config, Precision};
use crate::tasks::inspect::ModelPaths;
use show::{Heading, Samples};

/// A prior on codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum PriorChoice {
    /// One Gaussian with full covariance: the baseline
    Gaussian,
    /// A mixture of Gaussians with full covariances; the Bayesian information criterion (BIC)
    /// chooses their number
    Mixture,
    /// Which units fire, then how strongly, one unit after the other
    Sparse,
}

impl PriorChoice {
    const fn kind(self) -> PriorKind {
        match self {
            Self::Gaussian => PriorKind::Gaussian,
            Self::Mixture => PriorKind::Mixture,
            Self::Sparse => PriorKind::Sparse,
        }
    }
}

/// Generate new images: sample codes from a prior that was fitted to the codes of the training
/// images, and decode them.
///
/// --fit first fits the priors and stores them with the model, as prior.safetensors; if the images
/// are labelled, also per class. That is a run with a folder of its own, `prior` beside
/// prior.safetensors: if it is interrupted, `csae resume` continues it. Then the command generates
/// samples, variations of an image (--like), images between two (--interpolate), or images of one
/// unit of the code (--unit), or compares the priors (--judge). It writes each image, a picture of
/// all, and gallery.html.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  csae train train-images-idx3-ubyte.gz --preset generate --out runs/clothes
  csae generate runs/clothes --fit train-images-idx3-ubyte.gz
  csae generate runs/clothes --class 9 --n 100 --seed 7 -o boots
  csae generate runs/clothes --class 9 --train train-images-idx3-ubyte.gz -o nearest
  csae generate runs/clothes --like shirt.png --vary 0.3 -o shirts
  csae generate runs/clothes --interpolate shirt.png boot.png --frames 12 -o between
  csae generate runs/clothes --judge runs/classifier --test t10k-images-idx3-ubyte.gz -o judged")]
pub struct GenerateArgs {
    /// Model file or run folder of an autoencoder with a small code (--preset generate)
    model: PathBuf,
    /// Fit the priors to the codes of these images, normally the training images, and store them
    /// with the model
    #[arg(long, value_name = "DATA")]
    fit: Option<String>,
    /// With --fit: total number of components of the mixture [default: chosen by BIC]
    #[arg(long, value_name = "N", requires = "fit")]
    components: Option<NonZeroUsize>,
    /// With --fit: ignore the images' classes
    #[arg(long, requires = "fit")]
    ignore_labels: bool,
    #[command(flatten)]
    settings: Settings,
    /// Prior to sample codes from
    #[arg(
        long,
        value_enum,
        default_value_t = PriorChoice::Mixture,
        conflicts_with_all = ["interpolate", "unit", "judge"]
    )]
    prior: PriorChoice,
    /// Number of images to generate [default: 64; with --judge the number of test images, at most
    /// 10000]
    #[arg(short, long, value_name = "N")]
    n: Option<usize>,
    /// Seed of the samples, and with --fit of the initialisation [default: 0]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Below 1: more typical, less diverse images; above 1: the opposite
    #[arg(
        long,
        value_name = "T",
        default_value_t = 1.0,
        conflicts_with_all = ["interpolate", "unit"]
    )]
    temperature: f64,
    /// Generate images of this class
    #[arg(long, value_name = "NAME", conflicts_with_all = ["like", "interpolate", "unit", "judge"])]
    class: Option<String>,
    /// Generate variations of this image
    #[arg(long, value_name = "IMAGE", conflicts_with_all = ["interpolate", "unit", "judge"])]
    like: Option<String>,
    /// With --like: how much changes, from 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.5, requires = "like")]
    vary: f64,
    /// Generate images between two images
    #[arg(
        long,
        value_names = ["A", "B"],
        num_args = 2,
        conflicts_with_all = ["unit", "judge", "n"]
    )]
    interpolate: Option<Vec<String>>,
    /// With --interpolate: number of images, including both ends
    #[arg(long, value_name = "N", default_value_t = 9, requires = "interpolate")]
    frames: usize,
    /// Show what this unit of the code contributes, at increasing strength: alone, and within the
    /// mean codes in which it is strongest
    #[arg(long, value_name = "K", conflicts_with_all = ["judge", "n"])]
    unit: Option<usize>,
    /// Show the nearest of these images below each image, normally the training images; with
    /// --judge, also report their distance as the floor
    #[arg(long, value_name = "DATA")]
    train: Option<String>,
    /// Compare samples of the three priors with test images, in the features of this classifier
    /// (from csae finetune)
    #[arg(long, value_name = "MODEL", requires = "test")]
    judge: Option<PathBuf>,
    /// With --judge: the test images
    #[arg(long, value_name = "DATA", requires = "judge")]
    test: Option<String>,
    /// Folder for the results
    #[arg(short, long, value_name = "DIR", default_value = "samples")]
    out: PathBuf,
    /// Overwrite existing files and an existing prior
    #[arg(long)]
    force: bool,
    /// Resize images to the model's input and convert their channels; otherwise priors are fitted
    /// to patches of larger images
    #[arg(long)]
    resize: bool,
    /// Fail on files that do not decode, instead of skipping them
    #[arg(long)]
    strict: bool,
    /// Memory budget, such as 512MiB or 2GiB [default: the free memory]
    #[arg(long, value_name = "SIZE")]
    max_memory: Option<String>,
    #[command(flatten)]
    ranks: RanksArgs,
    #[command(flatten)]
    common: Common,
}

/// Default number of images.
const COUNT: usize = 64;
/// Maximum number of patches that priors are fitted to, spread evenly over the images: a limit on
/// time and memory.
const PATCHES: usize = 100_000;
/// Multiples of a unit's mean strength at which it is shown.
const STRENGTHS: [f32; 6] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0];
/// Images in a row of an interpolation, so that rows fit a page.
const MAX_COLUMNS: usize = 12;

impl GenerateArgs {
    fn check(&self) -> Result<()> {
        crate::cli::outputs::check_folder(&self.out)?;
        self.settings.check(&["data.source", "prior.model"])?;
        if self.fit.is_none() && self.settings.are_given() {
            bail_usage!("--config, --set: they configure how priors are fitted; add --fit DATA");
        }
        if self.fit.is_none() && self.ranks.are_given() {
            bail_usage!("--devices: only fitting priors can use several; add --fit DATA");
        }
        if self.n == Some(0) {
            bail_usage!("--n 0: give at least 1");
        }
        if self.seed.is_some()
            && self.fit.is_none()
            && (self.interpolate.is_some() || self.unit.is_some())
        {
            bail_usage!(
                "--seed has no effect with --interpolate or --unit: nothing is random; omit it"
            );
        }
        if !(0.0..=10.0).contains(&self.temperature) {
            bail_usage!("--temperature {}: give a number between 0 and 10", self.temperature);
        }
        if !(0.0..=1.0).contains(&self.vary) {
            bail_usage!("--vary {}: give a share between 0 and 1", self.vary);
        }
        if !(2..=1000).contains(&self.frames) {
            bail_usage!("--frames {}: give 2 (both images themselves) to 1000", self.frames);
        }
        Ok(())
    }

    fn seed(&self) -> u64 {
        self.seed.unwrap_or(0)
    }

    /// Upper bound on the number of images to generate.
    fn count(&self) -> usize {
        match (&self.interpolate, self.unit, &self.judge) {
            (Some(_), ..) => self.frames,
            (_, Some(_), _) => (1 + SWEEP_COMPONENTS) * STRENGTHS.len(),
            // The number of test images is checked when it is known.
            (.., Some(_)) => 1,
            _ => self.n.unwrap_or(COUNT),
        }
    }

    /// Prefix of the image files' names.
    const fn start(&self) -> &'static str {
        match (&self.interpolate, self.unit) {
            (Some(_), _) => "frame-",
            (_, Some(_)) => "unit-",
            _ => "",
        }
    }

    /// Names of the files that are written, or a superset.
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

    /// Fails if the prior lacks what the flags ask for.
    fn check_prior(&self, prior: &Prior) -> Result<()> {
        let class = self.class.as_deref().map(|class| prior.class(class)).transpose();
        class
            .and_then(|class| prior.sample(&self.sample_request(self.prior.kind(), 0, class)))
            .map_err(|error| error.at("--class"))?;
        let sweep = self.unit.map(|unit| prior.unit_sweep(unit, &[])).transpose();
        sweep.map(drop).map_err(|error| error.at("--unit"))
    }

    /// The codes to decode, and the heading of the page. `given` holds the codes of the given
    /// images.
    fn codes(&self, prior: Option<&Prior>, given: &[Vec<f32>]) -> Result<(Heading, Vec<f32>)> {
        let (name, kind, count) = (self.model.display(), self.prior.kind(), self.count());
        if let (Some(ends), [a, b]) = (&self.interpolate, given) {
            let note = format!(
                "{count} images on the straight line between the codes of {} and {}, model {name}",
                ends[0], ends[1]
            );
            return Ok((
                Heading::new("Interpolation", note, Some(count.min(MAX_COLUMNS))),
                interpolate(a, b, count),
            ));
        }
        let prior = prior.expect("only interpolation needs no prior");
        if let Some(unit) = self.unit {
            let codes = prior.unit_sweep(unit, &STRENGTHS)?;
            let [rate, strength] = prior.units[unit];
            let note = format!(
                "unit {unit} of {name} fires for {:.1} % of the images, with mean strength \
                 {strength:.3}; from left to right at {} times the mean; first row alone, other \
                 rows within the mean codes of the components in which it is strongest",
                100.0 * rate,
                STRENGTHS.map(|strength| strength.to_string()).join(", ")
            );
            return Ok((Heading::new(&format!("Unit {unit}"), note, Some(STRENGTHS.len())), codes));
        }
        let by = format!(
            "{} prior of {name}, temperature {}, seed {}",
            kind.name(),
            self.temperature,
            self.seed()
        );
        if let (Some(image), [code]) = (&self.like, given) {
            let codes = prior.variations(&self.sample_request(kind, count, None), code, self.vary);
            return Ok((
                Heading::new(
                    "Variations",
                    format!("variations of {image}, --vary {}; {by}", self.vary),
                    None,
                ),
                codes,
            ));
        }
        let class = self.class.as_deref().map(|class| prior.class(class)).transpose()?;
        let of = self.class.as_deref().map_or(String::new(), |class| format!(" of class {class}"));
        let codes = prior.sample(&self.sample_request(kind, count, class))?;
        Ok((Heading::new("Samples", format!("{count} samples{of}; {by}"), None), codes))
    }

    fn sample_request(&self, kind: PriorKind, count: usize, class: Option<u32>) -> SampleRequest {
        SampleRequest { kind, count, seed: self.seed(), temperature: self.temperature, class }
    }
}

/// How images of a source are read.
#[derive(Clone, Copy)]
struct Reading {
    /// Whether to resize images to the model's input and convert their channels.
    resize: bool,
    /// Whether a file that does not decode is an error.
    strict: bool,
    budget: Budget,
}

impl Reading {
    /// Images as the model was trained on: patches if they are larger than its input, unless they
    /// are to be resized.
    fn patches(self, common: &Common, graph: &Graph, source: &str) -> Result<Sample> {
        if self.resize {
            return self.whole(common, graph, source);
        }
        let dims = graph.nodes[0].dims;
        let want = self.options(graph);
        report(common, Sample::open_training(source, dims, PATCHES, &want, self.budget)?)
    }

    /// Images of the model's size.
    fn whole(self, common: &Common, graph: &Graph, source: &str) -> Result<Sample> {
        let size = WholeSize::of_fixed(graph.nodes[0].dims, self.resize);
        let want = self.options(graph);
        report(common, Sample::open_whole(source, size, &want, self.budget)?)
    }

    fn options(self, graph: &Graph) -> LoadOptions<'_> {
        LoadOptions {
            normalization: graph.spec.normalization.as_ref(),
            spectrogram: graph.spec.spectrogram.as_ref(),
            ..LoadOptions::new(self.strict, &self.budget)
        }
    }
}

/// Prints what a sample is, and which files were skipped.
fn report(common: &Common, sample: Sample) -> Result<Sample> {
    common.status(&format!("data: {}", sample.description));
    common.report_files(&sample.report);
    Ok(sample)
}

/// Fails unless codes of the model can be sampled and decoded.
fn check_model(graph: &Graph, name: &Path) -> Result<()> {
    let at = |error: Error| error.at(name.display());
    graph.check_autoencoder().map_err(at)?;
    graph.check_reconstructs_images().map_err(at)?;
    if !graph.spec.undoes.is_none() {
        bail_usage!(
            "{}: the model restores images and cannot generate new ones; train one with --preset \
             generate",
            name.display()
        );
    }
    let units = graph.nodes[graph.code].dims.len();
    if units > MAX_UNITS {
        bail_usage!(
            "{}: its code has {units} values, but priors support at most {MAX_UNITS}; train a \
             model with a smaller code, such as --preset generate",
            name.display()
        );
    }
    Ok(())
}

/// Fails if `wanted` bytes exceed the memory budget or the host's free memory. `what` names what
/// needs them, `instead` what helps.
fn refuse_beyond(budget: Budget, wanted: u64, what: &str, instead: &str) -> Result<()> {
    let here = free().unwrap_or(u64::MAX);
    let allowed = budget.all.map_or(here, |all| all.min(here));
    if wanted > allowed {
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        bail_usage!(
            "{what} need {} MiB, more than the memory budget of {} MiB; {instead} or raise \
             --max-memory",
            mib(wanted),
            mib(allowed)
        );
    }
    Ok(())
}

/// Fails if `count` images and their codes exceed the memory budget.
fn check_room(budget: Budget, graph: &Graph, count: usize) -> Result<()> {
    let (size, units) = (graph.nodes[0].dims, graph.nodes[graph.code].dims.len() as u64);
    // codes and images in f32, the picture, and the page
    let wanted = (count as u64)
        .saturating_mul(4 * (units + 2 * size.len() as u64))
        .saturating_add(show::bytes(size, count));
    let what = format!("{count} images of {size} and their codes");
    refuse_beyond(budget, wanted, &what, "generate fewer at a time, each with another --seed,")
}

impl CommandArgs for GenerateArgs {
    fn common(&self) -> Option<&Common> {
        Some(&self.common)
    }

    fn writes_files(&self) -> bool {
        true
    }

    fn ranks(&self) -> Option<&RanksArgs> {
        self.fit.is_some().then_some(&self.ranks)
    }

    fn run(self) -> anyhow::Result<()> {
        run(self)
    }
}

/// Continues fitting priors. `data_config` is the configuration with the recorded, absolute paths
/// of the data.
pub fn resume(
    common: &Common,
    config: &Config,
    data_config: &Config,
    budget: Budget,
    begin: Begin,
) -> anyhow::Result<()> {
    let place = config.prior.clone().unwrap_or_default().model;
    let loaded = common.load_model(Path::new(&place))?;
    loaded.graph.check_takes_plain_images()?;
    check_model(&loaded.graph, Path::new(&place))?;
    let sample = fit::open(common, &loaded.graph, data_config, budget)?;
    let mut device = common.open_for(config.train.precision)?;
    device.limit_memory(budget.all);
    let store = loaded.place(&mut device, &loaded.graph, Purpose::Infer)?;
    let mut inference = Inference::new(&loaded.graph, &store);
    inference.fit(&device, MemoryInUse { parameters: 2 * store.bytes(), data: sample.bytes() })?;
    let stored = path_of(Path::new(&place));
    let source = fit::CodeSource {
        sample: &sample,
        model: &loaded.hash,
        stored: &stored,
        data_config: config,
    };
    fit::run(
        common,
        &mut device,
        &mut inference,
        &source,
        &|_, _| Ok(config.clone()),
        budget,
        begin,
    )
    .map(drop)
}

fn run(args: GenerateArgs) -> anyhow::Result<()> {
    args.check()?;
    let place = ModelPaths::of(&args.model);
    let loaded = args.common.load_model(&args.model)?;
    loaded.graph.check_takes_plain_images()?;
    let graph = &loaded.graph;
    check_model(graph, &args.model)?;
    let stored = path_of(&place.model);
    // All checks run before anything that takes time.
    let known = if args.fit.is_some() {
        refuse_existing(&stored, args.force)?;
        fit::check_folder(&stored, args.force)?;
        None
    } else if args.interpolate.is_some() {
        None
    } else {
        let prior = Prior::load(&stored, &loaded.hash)?;
        args.check_prior(&prior)?;
        Some(prior)
    };
    let classifier = args
        .judge
        .as_deref()
        .map(|path| judge::Classifier::load(&args.common, path))
        .transpose()?;
    let budget = budget(args.max_memory.as_deref())?;
    check_room(budget, graph, args.count())?;
    args.files().iter().try_for_each(|name| refuse_existing(&args.out.join(name), args.force))?;
    let given = args.like.iter().chain(args.interpolate.iter().flatten());
    let given =
        given.map(|source| read_one(&args, graph, source, budget)).collect::<Result<Vec<_>>>()?;
    let reading = Reading { resize: args.resize, strict: args.strict, budget };
    let fit_config = args.fit.as_ref().map(|_| fit::data_config(&args, graph, &place.model));
    let fit_config = fit_config.transpose()?;
    if let Some(config) = &fit_config {
        args.settings.report_unused_keys(&args.common, config)?;
    }
    let fitting = fit_config.as_ref().map(|config| fit::open(&args.common, graph, config, budget));
    let fitting = fitting.transpose()?;
    let train = args.train.as_deref().map(|source| reading.patches(&args.common, graph, source));
    let train = train.transpose()?;
    let test = args.test.as_deref().map(|source| reading.whole(&args.common, graph, source));
    let test = test.transpose()?;
    let comparison = match (&classifier, &test) {
        (Some(classifier), Some(test)) => {
            Some(judge::Comparison { classifier, test, train: train.as_ref() })
        }
        _ => None,
    };
    comparison
        .iter()
        .try_for_each(|comparison| comparison.check(&args, graph.nodes[0].dims, budget))?;
    let precision = fit_config.as_ref().map_or(Precision::F32, |config| config.train.precision);
    let mut device = args.common.open_for(precision)?;
    device.limit_memory(budget.all);
    let store = loaded.place(&mut device, graph, Purpose::Infer)?;
    let mut inference = Inference::new(graph, &store);
    let held = [&fitting, &train, &test].into_iter().flatten().map(Sample::bytes).sum();
    inference.fit(&device, MemoryInUse { parameters: 2 * store.bytes(), data: held })?;
    if inference.decode(&mut device, &vec![0.0; graph.nodes[graph.code].dims.len()])?.is_none() {
        let message = format!(
            "{}: its decoder also reads layers before the code, so codes alone cannot be decoded; \
             train a model with --preset generate",
            args.model.display()
        );
        return Err(Error::usage(message).into());
    }
    let prior = match (&fitting, &fit_config, known) {
        (Some(sample), Some(data_config), _) => {
            let model = &loaded.hash;
            let source = fit::CodeSource { sample, model, stored: &stored, data_config };
            let begin =
                Begin::New { folder: fit::folder(&stored), force: args.force, tensorboard: false };
            let config = |codes: usize, network: &ModelSpec| {
                fit::config(&args, &place.model, codes, network)
            };
            let common = &args.common;
            let prior =
                fit::run(common, &mut device, &mut inference, &source, &config, budget, begin)?;
            args.check_prior(&prior)?;
            Some(prior)
        }
        (.., known) => known,
    };
    if let (Some(comparison), Some(prior)) = (&comparison, &prior) {
        return judge::run(&args, &mut device, &mut inference, prior, comparison);
    }
    let codes = given
        .iter()
        .map(|image| inference.run_code(&mut device, image, &[]))
        .collect::<Result<Vec<_>>>()?;
    let (heading, codes) = args.codes(prior.as_ref(), &codes)?;
    let generated =
        inference.decode(&mut device, &codes)?.expect("the decoder reads the code alone");
    let heading = heading.with_device(&device.label());
    Samples { heading, generated, originals: given, dims: graph.nodes[0].dims }
        .write(&args, train.as_ref())?;
    args.common.report_kernels(&mut device);
    Ok(())
}

/// Reads one image of the model's size.
fn read_one(args: &GenerateArgs, graph: &Graph, source: &str, budget: Budget) -> Result<Vec<f32>> {
    if !Path::new(source).is_file() {
        bail_usage!("{source}: no such file; name an image");
    }
    let size = graph.nodes[0].dims;
    let whole = WholeSize::of_fixed(size, args.resize);
    let want = LoadOptions {
        normalization: graph.spec.normalization.as_ref(),
        spectrogram: graph.spec.spectrogram.as_ref(),
        ..LoadOptions::new(true, &budget)
    };
    let sample = Sample::open_whole(source, whole, &want, budget)?;
    if sample.len() != 1 {
        bail_usage!("{source} holds {} images; name an image file", sample.len());
    }
    let mut pixels = Vec::new();
    sample.each_part(|images, chosen| {
        pixels = crate::data::patches::cut(images, chosen, size.size());
        Ok(())
    })?;
    Ok(pixels)
}
