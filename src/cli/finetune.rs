//! `csae finetune`

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::features::{Encoder, PoolChoice, Reading, same_size};
use super::interrupt::Interrupted;
use super::learning::{
    Begin, Learning, absolute, best_validation, check_unconditioned, run_to_end, write_results,
};
use super::ranks::{self, RanksArgs};
use super::{CommandArgs, Common};
use crate::budget::Budget;
use crate::data::{LoadOptions, NanName, Sample, Subset, WholeSize};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::files;
use crate::model::{self, Graph};
use crate::report::chart;
use crate::report::confusion::Confusion;
use crate::report::runs::{State, write_page};
use crate::spec::{ClassifySpec, Config, HeadKind, HeadStart};
use crate::tasks::finetune::{Curve, Labelled, Point, begin_training, draw, split};
use crate::tasks::probe::match_labels;
use crate::train::RunFolder;

/// How the head is initialised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Start {
    /// With a linear classifier fitted to the encoder's features of the labelled images
    Probe,
    /// With random weights
    Fresh,
}

/// Train a classifier on labelled images: an encoder that was trained without labels, with a fully
/// connected head.
///
/// A part of the labelled images is held out. Training stops when their error stops falling, and
/// the best weights become model.safetensors (for `csae classify`). The run folder also gets
/// config.toml, metrics.jsonl, checkpoints for `csae resume`, finetune.json with the results and,
/// with --test, confusion.png. --curve trains with increasing numbers of labels, pretrained and
/// from scratch, several times each. It writes curve.png and curve.tsv, with the p-value of a
/// paired t-test at each number of labels. If it is interrupted, the same command continues it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  csae finetune runs/wta train-images-idx3-ubyte.gz --labels 1000 --test t10k-images-idx3-ubyte.gz -o runs/classifier
  csae finetune runs/wta photos/ --flip-x --shift 2 -o runs/classifier
  csae finetune runs/wta train-images-idx3-ubyte.gz --test t10k-images-idx3-ubyte.gz --curve 100,300,1000 -o runs/curve")]
pub struct FinetuneArgs {
    /// Model file, run folder, or bundled model: photographs, denoise, inpaint, upscale, dejpeg,
    /// paint-1, paint-2, paint-3
    model: PathBuf,
    /// Labelled images: IDX, CIFAR or csv files, a folder with one subfolder per class, or x.npy
    /// beside x.labels.npy
    data: String,
    /// Labelled test images, evaluated once, at the end
    #[arg(long, value_name = "DATA")]
    test: Option<String>,
    /// Total number of labels to use, chosen at random, evenly over the classes [default: all]
    #[arg(long, value_name = "N")]
    labels: Option<NonZeroUsize>,
    /// Number of labels of each class to use, chosen at random
    #[arg(long, value_name = "N", conflicts_with = "labels")]
    labels_per_class: Option<NonZeroUsize>,
    /// Measure the test error over the number of labels, pretrained and from scratch, at these
    /// total numbers of labels, comma-separated
    #[arg(
        long,
        value_name = "N,N,…",
        value_delimiter = ',',
        requires = "test",
        conflicts_with_all = ["labels", "labels_per_class", "from_scratch"]
    )]
    curve: Vec<NonZeroUsize>,
    /// With --curve: number of repetitions, each with other labels and initial weights
    #[arg(long, value_name = "N", default_value = "5", requires = "curve")]
    seeds: NonZeroUsize,
    /// How to pool maps before the head
    #[arg(long, value_enum, default_value_t = PoolChoice::Max)]
    pool: PoolChoice,
    /// How to initialise the head of a pretrained encoder [default: probe]
    #[arg(long, value_enum)]
    head: Option<Start>,
    /// Dropout probability before the head
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
    fn open(common: &Common, config: &Config, size: WholeSize, budget: Budget) -> Result<Self> {
        let spec = config.classify.clone().unwrap_or_default();
        let open = |source: &str, size| {
            let want = LoadOptions {
                layout: config.data.layout.as_ref(),
                nan: config.data.nan,
                normalization: config.model.normalization.as_ref(),
                spectrogram: config.model.spectrogram.as_ref(),
                ..LoadOptions::new(config.data.strict, &budget)
            };
            Sample::open_whole(source, size, &want, budget)
        };
        let train = open(&config.data.source, size)?;
        let dims = train.dims();
        let test = spec.test.as_deref().map(|test| open(test, same_size(size, dims)));
        let test = test.transpose()?;
        for sample in std::iter::once(&train).chain(&test) {
            common.status(&format!("data: {}", sample.description));
            common.report_files(&sample.report);
        }
        common.warn_same_data(&config.data.source, spec.test.as_ref());
        // Without test images the training images are matched with themselves, which checks their
        // labels.
        let (of_train, of_test) = match_labels(
            train.labels(),
            test.as_ref().map_or_else(|| train.labels(), Sample::labels),
        )
        .map_err(|error| train.explain_missing_labels(error))
        .map_err(|error| {
            test.iter().fold(error, |error, test| test.explain_missing_labels(error))
        })?;
        let allowed = budget.all.map(|all| all / 4);
        let train = Labelled::read(&train, dims, of_train, allowed)?;
        let test = test.map(|test| Labelled::read(&test, dims, of_test, allowed)).transpose()?;
        Ok(Self { train, test })
    }

    /// The training images and the held-out images.
    fn subsets(&self, config: &Config) -> Result<(Subset<'_, Labelled>, Subset<'_, Labelled>)> {
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
    /// Sets what the flags about the data and the head give in the configuration.
    fn apply_data_flags(&self, config: &mut Config) {
        config.data.source.clone_from(&self.data);
        config.data.strict |= self.reading.read.strict;
        if self.reading.read.nan != NanName::Error {
            config.data.nan = self.reading.read.nan;
        }
        if let Some(layout) = &self.reading.read.layout {
            config.data.layout = Some(layout.clone());
        }
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
                return Err(Error::usage(format!(
                    "{flag} {share}: must be at least 0 and less than 1"
                )));
            }
        }
        Ok(())
    }
}

/// The default number of epochs: it makes about 1500 steps, within 5 to 40 epochs.
fn default_epochs(data: &Data, config: &Config) -> Result<usize> {
    let count = data.subsets(config)?.0.indices.len();
    Ok((1500 / count.div_ceil(config.train.batch).max(1)).clamp(5, 40))
}

impl CommandArgs for FinetuneArgs {
    fn common(&self) -> Option<&Common> {
        Some(&self.common)
    }

    fn writes_files(&self) -> bool {
        true
    }

    fn ranks(&self) -> Option<&RanksArgs> {
        Some(&self.learning.ranks)
    }

    fn run(self) -> anyhow::Result<()> {
        run(self)
    }
}

fn run(args: FinetuneArgs) -> anyhow::Result<()> {
    args.check()?;
    if !args.curve.is_empty() && ranks::count() > 1 {
        return Err(Error::usage(
            "--curve trains many classifiers, one after the other; run it as one process",
        )
        .into());
    }
    let (common, learning) = (&args.common, &args.learning);
    let folder = if args.curve.is_empty() {
        learning.folder()?
    } else {
        for name in [CURVE, TABLE] {
            super::refuse_existing(&args.learning.out.join(name), args.learning.force)?;
        }
        RunFolder::at(&learning.out)
    };
    let loaded = args.common.load_model(&args.model)?;
    let budget = args.reading.read.budget()?;
    let size = Encoder::input(&loaded, &args.reading)?;
    let kind = HeadKind::Classify;
    let data_config = learning
        .settings
        .data_config(kind, &loaded.graph.spec, |config| args.apply_data_flags(config))?;
    let data = Data::open(common, &data_config, size, budget)?;
    let dims = data.train.dims;
    let encoder = Encoder::of(&loaded, dims, &args.reading, args.pool)?;
    let labels =
        args.labels_per_class.map(|each| each.get().saturating_mul(occurring(&data.train).get()));
    let spec = model::classifier(encoder.graph_spec(), data.train.classes.clone(), args.dropout)?;
    let graph = Graph::new(&spec, dims)?;
    check_unconditioned(&graph)?;
    common.status(&format!(
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
                args.apply_data_flags(config);
                if let (Some(labels), Some(spec)) = (labels, &mut config.classify) {
                    spec.labels = labels;
                }
                config.train.from = learning.from(&args.model);
                if let Some(spec) = &mut config.classify {
                    // A resumed run resizes images as this one does.
                    spec.resize |= !matches!(size, WholeSize::Exactly(_));
                }
                change(config);
            },
        )
    };
    let config = config_of(&|_| {})?;
    learning.settings.report_unused_keys(common, &config)?;
    let mut device = common.open_for(config.train.precision)?;
    device.limit_memory(budget.all);
    if args.curve.is_empty() {
        let begin = Begin::New { folder, force: learning.force, tensorboard: learning.tensorboard };
        return train_and_print(common, &mut device, (&config, &graph), &data, budget, begin);
    }
    curve(&args, &mut device, (&graph, &data), budget, &config_of)
}

/// Continues a run. `data_config` is the configuration with the recorded, absolute paths of the
/// data.
pub fn resume(
    common: &Common,
    config: &Config,
    data_config: &Config,
    budget: Budget,
    begin: Begin,
) -> anyhow::Result<()> {
    let dims = super::resume::input(config)?;
    let graph = Graph::new(&config.model, dims)?;
    let resize = config.classify.as_ref().is_some_and(|spec| spec.resize);
    let size = WholeSize::of_fixed(dims, resize);
    let data = Data::open(common, data_config, size, budget)?;
    let mut device = common.open_for(config.train.precision)?;
    device.limit_memory(budget.all);
    train_and_print(common, &mut device, (config, &graph), &data, budget, begin)
}

/// Trains and tests one classifier, and prints the results.
fn train_and_print(
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
        "{test}{:.2} % on {}, {} labels, {:.0} s; {}: model.safetensors, metrics.jsonl, \
         {RESULTS}{}",
        100.0 * results["validation_error"].as_f64().unwrap_or(f64::NAN),
        results["on"].as_str().unwrap_or_default(),
        results["labels"],
        results["seconds"].as_f64().unwrap_or(0.0),
        folder.path().display(),
        if data.test.is_some() { format!(", {PICTURE}") } else { String::new() }
    );
    Ok(())
}

/// Trains a classifier in its folder, tests it and writes the results.
fn train(
    common: &Common,
    device: &mut Device,
    (config, graph): (&Config, &Graph),
    data: &Data,
    budget: Budget,
    begin: Begin,
) -> anyhow::Result<(RunFolder, Value)> {
    let start = Instant::now();
    let (fit, held) = data.subsets(config)?;
    let on = held.name;
    let labels = fit.indices.len() + if on == "held-out images" { held.indices.len() } else { 0 };
    let folder = begin.folder().clone();
    let mut run = begin_training(
        device,
        &folder,
        config,
        graph,
        (&fit, held),
        data.bytes(),
        begin.checkpoint(),
    )?;
    let (folder, _lock, summary) = run_to_end(common, device, &mut run, begin, (config, budget))?;
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
        // The page of the run gets this picture, too.
        write_page(folder.path(), State::Finished)?;
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

/// Builds the configuration of a run, and then applies a change to it.
type ConfigOf<'a> = &'a dyn Fn(&dyn Fn(&mut Config)) -> Result<Config>;

/// Trains classifiers with increasing numbers of labels, pretrained and from scratch, each in its
/// own folder. Finished classifiers are not trained again.
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
    let first_seed = config_of(&|_| ())?.seed;
    for labels in [wanted[0], wanted[wanted.len() - 1]] {
        draw(&data.train, labels, first_seed)?;
    }
    files::make_folder(out)?;
    let quiet = Common { quiet: true, json: false, ..common.clone() };
    let mut curve = Curve::default();
    for labels in wanted {
        let mut errors = [Vec::new(), Vec::new()];
        for draw in 0..args.seeds.get() as u64 {
            let seed = first_seed + draw;
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
                let place = (folder.as_path(), args.learning.tensorboard);
                let member = member(&quiet, device, (&config, graph), data, budget, place);
                let results = member.map_err(|error| stopped(error, out, &curve, args))?;
                let error = results["test"]["error"].as_f64().unwrap_or(f64::NAN);
                common.status(&format!(
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
        common.report_written(format_args!("{}: {}", out.display(), written.join(", ")));
    }
    Ok(())
}

/// The results of one classifier of a curve. Trains it unless it is finished. `tensorboard` is
/// whether to write event files.
fn member(
    common: &Common,
    device: &mut Device,
    (config, graph): (&Config, &Graph),
    data: &Data,
    budget: Budget,
    (path, tensorboard): (&Path, bool),
) -> anyhow::Result<Value> {
    let there = RunFolder::is_run(path) && RunFolder::open(path)?.1 == *config;
    let folder = RunFolder::at(path);
    if there && folder.file(RESULTS).is_file() {
        let text = files::read_text(&folder.file(RESULTS))?;
        return Ok(serde_json::from_str(&text)?);
    }
    let newest = if there { folder.newest()? } else { None };
    let from = newest.as_deref().map(crate::train::checkpoint::load).transpose()?;
    let begin = if there {
        let lock = folder.lock()?;
        let lock = Some(lock);
        Begin::Resume { folder, lock, from: from.as_ref(), rewrite: false, tensorboard }
    } else {
        Begin::New { folder, force: true, tensorboard }
    };
    Ok(train(common, device, (config, graph), data, budget, begin)?.1)
}

/// Replaces the error of an interrupted training by one about the curve.
fn stopped(error: anyhow::Error, out: &Path, curve: &Curve, args: &FinetuneArgs) -> anyhow::Error {
    if error.downcast_ref::<Interrupted>().is_none() {
        return error;
    }
    Interrupted(format!(
        "stopped; {} of {} points of the curve are done; run the same command to continue in {}",
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

/// The output line of a point of a curve.
fn describe(point: &Point) -> String {
    let arm = |arm: &crate::tasks::finetune::Arm| {
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
