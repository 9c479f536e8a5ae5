//! `csae finetune`

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::{Args, ValueEnum};
use csae::internals::budget::Budget;
use csae::internals::data::{Sample, Subset};
use csae::internals::device::Device;
use csae::internals::error::{Error, Result};
use csae::internals::files;
use csae::internals::model::{self, Graph};
use csae::internals::report::chart;
use csae::internals::report::confusion::Confusion;
use csae::internals::shape::Dims;
use csae::internals::spec::{ClassifySpec, Config, HeadStart, LabelledKind};
use csae::internals::tasks::finetune::{Curve, Labelled, Point, begin_training, draw, split};
use csae::internals::tasks::inspect::ModelPaths;
use csae::internals::tasks::probe::match_labels;
use csae::internals::train::RunFolder;
use serde_json::{Value, json};

use super::features::{Encoder, How, Reading};
use super::interrupt::Interrupted;
use super::learning::{
    Begin, Learning, absolute, best_validation, check_unconditioned, drive, write_results,
};
use super::{CommandArgs, Common};

/// How the head starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Start {
    /// As the linear classifier of the encoder's features that fits the labelled images
    Probe,
    /// With random weights
    Fresh,
}

/// Train a classifier on labelled images: a model's encoder with a fully connected head, from what
/// the encoder has learned without labels.
///
/// A part of the labelled images is held out. Training stops when the error there stops falling,
/// and the best weights become model.safetensors (for `csae classify`). The run folder also gets
/// config.toml, metrics.jsonl, checkpoints for `csae resume`, finetune.json with the results and,
/// with --test, confusion.png. With --curve it trains on more and more labels, pretrained and from
/// scratch, several times each, and writes curve.png and curve.tsv with the p of a paired t-test at
/// each number of labels; the same command goes on with a curve that was stopped.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  csae finetune runs/wta train-images-idx3-ubyte.gz --labels 1000 --test t10k-images-idx3-ubyte.gz -o runs/classifier
  csae finetune runs/wta photos/ --flip-x --shift 2 -o runs/classifier
  csae finetune runs/wta train-images-idx3-ubyte.gz --test t10k-images-idx3-ubyte.gz --curve 100,300,1000 -o runs/curve")]
pub struct FinetuneArgs {
    /// Model file, a run folder, or a bundled model: denoise, inpaint, upscale, paint-1, paint-2,
    /// paint-3
    model: PathBuf,
    /// Labelled images: IDX or CIFAR files, a folder with a sub-folder for each class, x.npy beside
    /// x.labels.npy
    data: String,
    /// Labelled images to test on, once, at the end
    #[arg(long, value_name = "DATA")]
    test: Option<String>,
    /// Learn from this many labels in all, drawn by the seed evenly over the classes
    #[arg(long, value_name = "N")]
    labels: Option<NonZeroUsize>,
    /// Learn from this many labels of each class
    #[arg(long, value_name = "N", conflicts_with = "labels")]
    labels_per_class: Option<NonZeroUsize>,
    /// Error over the number of labels, pretrained and from scratch: numbers of labels in all,
    /// comma-separated
    #[arg(long, value_name = "N,N,…", value_delimiter = ',', requires = "test", conflicts_with_all = ["labels", "labels_per_class", "from_scratch"])]
    curve: Vec<NonZeroUsize>,
    /// With --curve: number of draws of labels and weights
    #[arg(long, value_name = "N", default_value = "5", requires = "curve")]
    seeds: NonZeroUsize,
    /// Pooling of maps before the head
    #[arg(long, value_enum, default_value_t = How::Max)]
    pool: How,
    /// How the head of a pretrained encoder starts [default: probe]
    #[arg(long, value_enum)]
    head: Option<Start>,
    /// Dropout before the head
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    dropout: f64,
    /// Share of the labelled images held out for validation [default: 0.2]
    #[arg(long, value_name = "SHARE")]
    validation: Option<f64>,
    /// Shift images at random by up to this many pixels
    #[arg(long, value_name = "PIXELS")]
    shift: Option<usize>,
    /// Flip images left to right at random
    #[arg(long)]
    flip_x: bool,
    #[command(flatten)]
    reading: Reading,
    #[command(flatten)]
    learning: Learning,
    #[command(flatten)]
    common: Common,
}

const RESULTS: &str = "finetune.json";
const PICTURE: &str = "confusion.png";
const CURVE: &str = "curve.png";
const TABLE: &str = "curve.tsv";

/// The images of a run.
struct Data {
    train: Labelled,
    test: Option<Labelled>,
}

impl Data {
    fn open(common: &Common, config: &Config, size: Dims, budget: Budget) -> Result<Self> {
        let spec = config.classify.clone().unwrap_or_default();
        let open = |source: &str| {
            Sample::open_whole(source, size, spec.resize, config.data.strict, budget)
        };
        let train = open(&config.data.source)?;
        let test = spec.test.as_deref().map(open).transpose()?;
        for sample in std::iter::once(&train).chain(&test) {
            common.say(&format!("data: {}", sample.description));
            common.say_skipped(&sample.skipped);
        }
        common.say_same(&config.data.source, spec.test.as_ref());
        // Without test images the training images are matched with themselves, which checks their
        // labels.
        let (of_train, of_test) = match_labels(
            train.labels(),
            test.as_ref().map_or_else(|| train.labels(), Sample::labels),
        )?;
        let allowed = budget.all.map(|all| all / 4);
        let train = Labelled::read(&train, size, of_train, allowed)?;
        let test = test.map(|test| Labelled::read(&test, size, of_test, allowed)).transpose()?;
        Ok(Self { train, test })
    }

    /// The images to learn from and those to validate on.
    fn parts(&self, config: &Config) -> Result<(Subset<'_, Labelled>, Subset<'_, Labelled>)> {
        let data = &self.train;
        let images = match config.classify.as_ref().map_or(0, |spec| spec.labels) {
            0 => (0..data.len()).collect(),
            labels => draw(data, labels, config.seed)?,
        };
        let (fit, held) = split(data, &images, config.data.validation, config.seed);
        Ok(Subset::for_training(data, [fit, held], None))
    }

    fn bytes(&self) -> u64 {
        self.train.held_bytes() + self.test.as_ref().map_or(0, Labelled::held_bytes)
    }
}

impl FinetuneArgs {
    /// What the configuration gets from the flags about data.
    fn note(&self, config: &mut Config) {
        config.data.source.clone_from(&self.data);
        config.data.strict |= self.reading.strict;
        config.data.flip_x |= self.flip_x;
        config.data.validation = self.validation.unwrap_or(config.data.validation);
        let spec = config.classify.get_or_insert_default();
        let ClassifySpec { labels, head, shift, resize, test } = spec;
        *labels = self.labels.map_or(*labels, NonZeroUsize::get);
        *shift = self.shift.unwrap_or(*shift);
        *resize |= self.reading.resize;
        *test = self.test.clone().or(test.take()).map(|path| absolute(&path));
        match self.head {
            Some(Start::Probe) => *head = HeadStart::Probe,
            Some(Start::Fresh) => *head = HeadStart::Fresh,
            None => {}
        }
        if self.learning.from_scratch {
            *head = HeadStart::Fresh;
        }
    }

    fn check(&self) -> Result<()> {
        for (flag, share) in [("--dropout", Some(self.dropout)), ("--validation", self.validation)]
        {
            if let Some(share) = share.filter(|share| !(0.0..1.0).contains(share)) {
                return Err(Error::usage(format!("{flag} {share}: it must lie in 0 ≤ share < 1")));
            }
        }
        Ok(())
    }
}

/// The number of epochs that make about 1500 steps.
fn default_epochs(data: &Data, config: &Config) -> Result<usize> {
    let count = data.parts(config)?.0.indices.len();
    Ok((1500 / count.div_ceil(config.train.batch).max(1)).clamp(5, 40))
}

impl CommandArgs for FinetuneArgs {
    fn common(&self) -> Option<&Common> {
        Some(&self.common)
    }

    fn writes_files(&self) -> bool {
        true
    }

    fn run(self) -> anyhow::Result<()> {
        run(self)
    }
}

fn run(args: FinetuneArgs) -> anyhow::Result<()> {
    args.check()?;
    let (common, learning) = (&args.common, &args.learning);
    let folder = if args.curve.is_empty() {
        learning.folder()?
    } else {
        for name in [CURVE, TABLE] {
            super::refuse_existing(&args.learning.out.join(name), args.learning.force)?;
        }
        RunFolder::at(&learning.out)
    };
    let loaded = model::load(&ModelPaths::of(&args.model).model)?;
    let encoder = Encoder::of(&loaded, &args.reading, args.pool)?;
    let budget = super::budget(args.reading.max_memory.as_deref())?;
    let size = encoder.graph.nodes[0].dims;
    let kind = LabelledKind::Classify;
    let place = learning.place(kind, &loaded.graph.spec, |config| args.note(config))?;
    let data = Data::open(common, &place, size, budget)?;
    let labels =
        args.labels_per_class.map(|each| each.get().saturating_mul(occurring(&data.train).get()));
    let spec = model::classifier(encoder.graph_spec(), data.train.classes.clone(), args.dropout)?;
    let graph = Graph::new(&spec, size)?;
    check_unconditioned(&graph)?;
    common.say(&format!(
        "classifier: {} parameters; features {encoder}, {} classes",
        graph.parameter_count(),
        data.train.classes.len()
    ));
    let config_of = |change: &dyn Fn(&mut Config)| {
        learning.config(
            kind,
            &graph.spec,
            |config| default_epochs(&data, config),
            |config| {
                args.note(config);
                if let (Some(labels), Some(spec)) = (labels, &mut config.classify) {
                    spec.labels = labels;
                }
                config.train.from = learning.from(&args.model);
                change(config);
            },
        )
    };
    let mut device = common.open()?;
    device.limit_memory(budget.all);
    if args.curve.is_empty() {
        let config = config_of(&|_| ())?;
        let begin = Begin::New { folder, force: learning.force };
        return single(common, &mut device, (&config, &graph), &data, budget, begin);
    }
    curve(&args, &mut device, (&graph, &data), budget, &config_of)
}

/// Goes on with a run.
pub fn resume(
    common: &Common,
    config: &Config,
    place: &Config,
    budget: Budget,
    begin: Begin,
) -> anyhow::Result<()> {
    let dims = super::resume::input(config)?;
    let graph = Graph::new(&config.model, dims)?;
    let data = Data::open(common, place, dims, budget)?;
    let mut device = common.open()?;
    device.limit_memory(budget.all);
    single(common, &mut device, (config, &graph), &data, budget, begin)
}

/// Trains one classifier, and tests it.
fn single(
    common: &Common,
    device: &mut Device,
    (config, graph): (&Config, &Graph),
    data: &Data,
    budget: Budget,
    begin: Begin,
) -> anyhow::Result<()> {
    let (folder, results) = train(common, device, (config, graph), data, budget, begin)?;
    if common.json {
        outln!("{results}");
        return Ok(());
    }
    let test = results["test"]["error"].as_f64().map_or(String::new(), |_| {
        format!("test error {}, ", results["test_error"].as_str().unwrap_or_default())
    });
    outln!(
        "{test}{:.2} % on {}, {} labels, {:.0} s; {}: model.safetensors, metrics.jsonl, {RESULTS}{}",
        100.0 * results["validation_error"].as_f64().unwrap_or(f64::NAN),
        results["on"].as_str().unwrap_or_default(),
        results["labels"],
        results["seconds"].as_f64().unwrap_or(0.0),
        folder.path().display(),
        if data.test.is_some() { format!(", {PICTURE}") } else { String::new() }
    );
    Ok(())
}

/// Trains a classifier in its folder, tests it and writes its results.
fn train(
    common: &Common,
    device: &mut Device,
    (config, graph): (&Config, &Graph),
    data: &Data,
    budget: Budget,
    begin: Begin,
) -> anyhow::Result<(RunFolder, Value)> {
    let start = Instant::now();
    let (fit, held) = data.parts(config)?;
    let on = held.name;
    let labels = fit.indices.len() + if on == "held-out images" { held.indices.len() } else { 0 };
    let place = begin.folder().clone();
    let mut run = begin_training(
        device,
        &place,
        config,
        graph,
        (&fit, held),
        data.bytes(),
        begin.checkpoint(),
    )?;
    let (folder, _lock, summary) = drive(common, device, &mut run, begin, (config, budget))?;
    let confusion = match &data.test {
        Some(test) => {
            let all: Vec<usize> = (0..test.len()).collect();
            let found = run.task.classify(device, test, &all)?;
            Some(Confusion::new(&test.classes, &test.of, &found))
        }
        None => None,
    };
    if let Some(confusion) = &confusion {
        let title = format!("{}: test error {}", folder.path().display(), confusion.rate());
        confusion.picture(&title).save(&folder.file(PICTURE))?;
    }
    let best = best_validation(&folder, summary.best_step)?.unwrap_or_default();
    let results = json!({
        "kind": "finetune",
        "labels": labels,
        "pretrained": config.train.from.is_some(),
        "epoch": best["epoch"],
        "on": on,
        "validation_error": best["error"],
        "test": confusion.as_ref().map(Confusion::rate),
        "test_error": confusion.as_ref().map(|confusion| confusion.rate().to_string()),
        "classes": data.train.classes,
        "confusion": confusion.as_ref().map(|confusion| &confusion.counts),
        "seconds": start.elapsed().as_secs_f64(),
    });
    write_results(&folder, RESULTS, &results)?;
    Ok((folder, results))
}

/// Makes a run's configuration with a last change.
type ConfigOf<'a> = &'a dyn Fn(&dyn Fn(&mut Config)) -> Result<Config>;

/// Trains classifiers on more and more labels, pretrained and from scratch, each in a folder of its
/// own. Those that are finished are not trained again.
fn curve(
    args: &FinetuneArgs,
    device: &mut Device,
    (graph, data): (&Graph, &Data),
    budget: Budget,
    config_of: ConfigOf,
) -> anyhow::Result<()> {
    let (common, out) = (&args.common, &args.learning.out);
    let start = Instant::now();
    let mut wanted: Vec<usize> = args.curve.iter().map(|labels| labels.get()).collect();
    wanted.sort_unstable();
    wanted.dedup();
    for labels in [wanted[0], wanted[wanted.len() - 1]] {
        draw(&data.train, labels, args.learning.seed)?;
    }
    files::make_folder(out)?;
    let quiet = Common { quiet: true, json: false, ..common.clone() };
    let mut curve = Curve::default();
    for labels in wanted {
        let mut errors = [Vec::new(), Vec::new()];
        for draw in 0..args.seeds.get() as u64 {
            let seed = args.learning.seed + draw;
            for (errors, pretrained) in errors.iter_mut().zip([true, false]) {
                let config = config_of(&|config| {
                    config.seed = seed;
                    let spec = config.classify.get_or_insert_default();
                    spec.labels = labels;
                    if !pretrained {
                        spec.head = HeadStart::Fresh;
                        (config.train.from, config.optimizer.encoder_lr) = (None, 1.0);
                    }
                })?;
                let what = if pretrained { "pretrained" } else { "from scratch" };
                let name = what.replace(' ', "-");
                let folder = out.join(format!("{labels}-{seed}-{name}"));
                let member = member(&quiet, device, (&config, graph), data, budget, &folder);
                let results = member.map_err(|error| stopped(error, out, &curve, args))?;
                let error = results["test"]["error"].as_f64().unwrap_or(f64::NAN);
                common.say(&format!(
                    "{labels} labels, seed {seed}, {what}: test error {}, {:.0} s",
                    results["test_error"].as_str().unwrap_or_default(),
                    start.elapsed().as_secs_f64()
                ));
                errors.push(error);
            }
        }
        let [pretrained, scratch] = errors;
        let point = Point::new(labels, pretrained, scratch);
        if common.json {
            let mut line = serde_json::to_value(&point)?;
            line["kind"] = "point".into();
            outln!("{line}");
        } else {
            outln!("{}", describe(&point));
        }
        curve.points.push(point);
    }
    write_curve(out, &curve, args)?;
    let written = [CURVE, TABLE, RESULTS];
    if common.json {
        let folder = out.display().to_string();
        outln!("{}", json!({"kind": "files", "folder": folder, "files": written}));
    } else {
        outln!("{}: {}", out.display(), written.join(", "));
    }
    Ok(())
}

/// The results of a classifier of a curve, which is trained if it is not finished.
fn member(
    common: &Common,
    device: &mut Device,
    (config, graph): (&Config, &Graph),
    data: &Data,
    budget: Budget,
    path: &Path,
) -> anyhow::Result<Value> {
    let there = RunFolder::is_run(path) && RunFolder::open(path)?.1 == *config;
    let folder = RunFolder::at(path);
    if there && folder.file(RESULTS).is_file() {
        let text = files::read_text(&folder.file(RESULTS))?;
        return Ok(serde_json::from_str(&text)?);
    }
    let newest = if there { folder.newest()? } else { None };
    let from = newest.as_deref().map(csae::internals::train::checkpoint::load).transpose()?;
    let begin = if there {
        let lock = folder.lock()?;
        Begin::Resume { folder, lock, from: from.as_ref(), rewrite: false }
    } else {
        Begin::New { folder, force: true }
    };
    Ok(train(common, device, (config, graph), data, budget, begin)?.1)
}

/// The message for a curve whose training was interrupted.
fn stopped(error: anyhow::Error, out: &Path, curve: &Curve, args: &FinetuneArgs) -> anyhow::Error {
    if error.downcast_ref::<Interrupted>().is_none() {
        return error;
    }
    Interrupted(format!(
        "stopped; {} of {} numbers of labels are done; the same command goes on in {}",
        curve.points.len(),
        args.curve.len(),
        out.display()
    ))
    .into()
}

fn write_curve(out: &Path, curve: &Curve, args: &FinetuneArgs) -> anyhow::Result<()> {
    let title = format!("{} seeds, bars of one standard deviation", args.seeds);
    chart::charts(&[curve.chart(&title)], 1).save(&out.join(CURVE))?;
    files::write_atomically(&out.join(TABLE), curve.table().as_bytes())?;
    let results = json!({"kind": "curve", "points": curve.points});
    Ok(write_results(&RunFolder::at(out), RESULTS, &results)?)
}

/// Number of classes that occur among the labels.
fn occurring(data: &Labelled) -> NonZeroUsize {
    let count = (0..data.classes.len() as u32).filter(|class| data.of.contains(class)).count();
    NonZeroUsize::new(count).unwrap_or(NonZeroUsize::MIN)
}

/// A point of a curve for people.
fn describe(point: &Point) -> String {
    let arm = |arm: &csae::internals::tasks::finetune::Arm| {
        format!("{:.2} ± {:.2} %", 100.0 * arm.mean, 100.0 * arm.std)
    };
    let p = point.p.map_or(String::new(), |p| format!("  p {p:.4}"));
    format!(
        "{:>6} labels  pretrained {}  from scratch {}{p}",
        point.labels,
        arm(&point.pretrained),
        arm(&point.scratch)
    )
}
