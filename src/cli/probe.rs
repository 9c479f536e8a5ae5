//! `csae probe`: linear probes of features.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context;
use clap::{Args, ValueEnum};
use serde_json::json;

use super::features::{Encoder, PoolChoice, Reading, bar, same_size};
use super::{CommandArgs, Common};
use crate::data::Sample;
use crate::device::Device;
use crate::error::Error;
use crate::files;
use crate::infer::batches::MemoryInUse;
use crate::model::{LoadedModel, Purpose, Store};
use crate::tasks::features::{self, Extractor, Pose};
use crate::tasks::inspect::ModelPaths;
use crate::tasks::probe::{self, ClassifierKind, FittedProbe, ProbeFeatures, ProbeRow, ProbeTask};

/// Which classifiers to fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Classifier {
    /// Multinomial logistic regression
    Logistic,
    /// Support vector machines with squared hinge loss, one class against the rest
    Svm,
    /// Both, one after the other
    Both,
}

impl Classifier {
    const fn kinds(self) -> &'static [ClassifierKind] {
        match self {
            Self::Logistic => &[ClassifierKind::Logistic],
            Self::Svm => &[ClassifierKind::Svm],
            Self::Both => &ClassifierKind::ALL,
        }
    }
}

/// Evaluate features with a linear classifier: how well do they separate classes although they were
/// learned without labels?
///
/// Fits linear classifiers to the features of labelled training images, chooses the penalty on
/// held-out labels, and prints the error on the test images with its 95 % interval. As baselines it
/// also prints the errors of raw pixels and of an untrained network of the same shape. Writes
/// confusion.png and probe.json. With --labels-per-class it fits to that many labels per class,
/// several times. Features are standardised to mean 0 and variance 1.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  csae probe runs/wta --train train-images-idx3-ubyte.gz --test t10k-images-idx3-ubyte.gz
  csae probe runs/wta --train train/ --test test/ --grid 2 --pool average --resize
  csae probe runs/wta --train train/ --test test/ --labels-per-class 10,30")]
pub struct ProbeArgs {
    /// Model file, run folder, or bundled model: photographs, denoise, inpaint, upscale, dejpeg,
    /// paint-1, paint-2, paint-3
    model: PathBuf,
    /// Labelled training images: IDX, CIFAR or csv files, a folder with one subfolder per
    /// class, or x.npy beside x.labels.npy
    #[arg(long, value_name = "DATA")]
    train: String,
    /// Labelled test images
    #[arg(long, value_name = "DATA")]
    test: String,
    /// How to pool maps
    #[arg(long, value_enum, default_value_t = PoolChoice::Max)]
    pool: PoolChoice,
    /// Which classifiers to fit
    #[arg(long, value_enum, default_value_t = Classifier::Both)]
    classifier: Classifier,
    /// Fit to this many labels of each class, chosen at random --draws times; comma-separated
    #[arg(long, value_name = "N,…", value_delimiter = ',')]
    labels_per_class: Vec<std::num::NonZeroUsize>,
    /// Number of random choices of labels
    #[arg(long, value_name = "N", default_value = "5", requires = "labels_per_class")]
    draws: std::num::NonZeroUsize,
    /// Fit to the mirror images (left to right) of the training images too
    #[arg(long, conflicts_with_all = ["labels_per_class", "features"])]
    flip_x: bool,
    /// Fit to the training images moved by this many pixels up, down, left and right too: five
    /// times as many images. Border pixels are repeated
    #[arg(long, value_name = "PIXELS", conflicts_with_all = ["labels_per_class", "features"])]
    shift: Option<std::num::NonZeroUsize>,
    /// Two .safetensors files written by `csae features`, of the training and of the test images,
    /// used instead of running the model on them
    #[arg(long, value_name = "FILE", num_args = 2)]
    features: Vec<PathBuf>,
    /// Seed of the choice of labels, and of the untrained network
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Folder for confusion.png and probe.json [default: probe/ in the run folder, or beside the
    /// model file under its name with -probe]
    #[arg(short, long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Overwrite existing files
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    reading: Reading,
    #[command(flatten)]
    common: Common,
}

const PICTURE: &str = "confusion.png";
const NUMBERS: &str = "probe.json";

impl CommandArgs for ProbeArgs {
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

fn run(args: ProbeArgs) -> anyhow::Result<()> {
    let place = ModelPaths::with(&args.model, "probe");
    let loaded = args.common.load_model(&args.model)?;
    let out = args.out.clone().unwrap_or(place.out);
    super::outputs::check_folder(&out)?;
    for name in [PICTURE, NUMBERS] {
        super::refuse_existing(&out.join(name), args.force)?;
    }
    let budget = args.reading.read.budget()?;
    let want = args.reading.read.options(&budget, Some(&loaded.graph.spec));
    let open = |source: &str, size| Sample::open_whole(source, size, &want, budget);
    let train = open(&args.train, Encoder::input(&loaded, &args.reading)?)?;
    let size = train.dims();
    let test = open(&args.test, same_size(Encoder::input(&loaded, &args.reading)?, size))?;
    let encoder = Encoder::of(&loaded, size, &args.reading, args.pool)?;
    for sample in [&train, &test] {
        args.common.status(&format!("data: {}", sample.description));
        args.common.report_files(&sample.report);
    }
    args.common.warn_same_data(&args.train, Some(&args.test));
    let shift = args.shift.map_or(0, std::num::NonZeroUsize::get);
    if shift >= size.h.min(size.w) {
        let size = size.size();
        return Err(
            Error::usage(format!("--shift {shift} moves images of {size} out of sight")).into()
        );
    }
    let task = ProbeTask::new(&train, &test, Pose::all(args.flip_x, shift), args.seed)?;
    let max = args.labels_per_class.iter().max();
    if let (Some(max), Some(labels)) = (max, train.labels()) {
        crate::data::split::per_class(&labels.of, &labels.classes, max.get(), args.seed)
            .map_err(|error| error.at("--labels-per-class"))?;
    }
    let width = encoder.dims().len();
    // Half of the budget is for the features of all images. The other half is for fitting, which
    // copies subsets of the rows and sums over them.
    task.check(width.max(size.len()), budget.all.map(|all| all / 2))?;
    args.common.status(&format!(
        "features: {encoder}; {} training images{}{}, {} of them held out to choose the penalty",
        train.len(),
        if args.flip_x { " and their mirror images" } else { "" },
        if shift > 0 { ", also moved to four sides" } else { "" },
        train.len() - task.held_from()
    ));
    files::make_folder(&out)?;
    let mut device = args.common.open()?;
    device.limit_memory(budget.all);
    let store = loaded.place(&mut device, &encoder.graph, Purpose::Infer)?;
    let mut probes = Probes { args: &args, task: &task, rows: Vec::new(), best: None };
    let rows = match &args.features[..] {
        [a, b] => stored(&task, [a, b], &encoder, &loaded)?,
        _ => extract(&mut device, &args.common, &task, &encoder, &store, "features")?,
    };
    probes.evaluate("features", &rows)?;
    drop(rows);
    probes.evaluate("raw pixels", &task.pixels(size.len())?)?;
    store.initialise(&mut device, &encoder.graph, args.seed);
    loaded.copy_fixed(&mut device, &encoder.graph, &store);
    let rows = extract(&mut device, &args.common, &task, &encoder, &store, "untrained network")?;
    probes.evaluate("untrained network", &rows)?;
    drop(rows);
    args.common.report_kernels(&mut device);
    probes.report(&out)
}

/// Extracts the features of all images.
fn extract(
    device: &mut Device,
    common: &Common,
    task: &ProbeTask,
    encoder: &Encoder,
    store: &Store,
    what: &str,
) -> crate::error::Result<ProbeFeatures> {
    let mut extractor = Extractor::new(&encoder.graph, store, encoder.pooling)?;
    let width = encoder.dims().len();
    extractor.fit(
        device,
        MemoryInUse {
            parameters: 2 * store.bytes(),
            data: task.train.bytes() + task.test.bytes() + task.bytes(width),
        },
    )?;
    let bar = bar(common, what, task.extractions());
    let rows = task.gather(width, |sample, pose, take| {
        extractor.each(device, sample, pose, |first, values| {
            bar.inc((values.len() / width) as u64);
            take(first, values)
        })
    });
    bar.finish_and_clear();
    rows
}

/// Reads features from files.
fn stored(
    task: &ProbeTask,
    paths: [&PathBuf; 2],
    encoder: &Encoder,
    loaded: &LoadedModel,
) -> crate::error::Result<ProbeFeatures> {
    let mut paths = paths.into_iter();
    task.gather(encoder.dims().len(), |sample, _, take| {
        let path = paths.next().expect("one file for each set");
        take(0, &features::read(path, &encoder.describe(loaded, sample.len()))?)
    })
}

/// Fits classifiers and collects the results.
struct Probes<'a> {
    args: &'a ProbeArgs,
    task: &'a ProbeTask<'a>,
    rows: Vec<ProbeRow>,
    /// The classifier of the model's features with the fewest errors on held-out labels.
    best: Option<FittedProbe>,
}

impl Probes<'_> {
    fn evaluate(&mut self, name: &str, rows: &ProbeFeatures) -> crate::error::Result<()> {
        let classes = &self.task.classes;
        for kind in self.args.classifier.kinds() {
            let start = Instant::now();
            let mut found = Vec::new();
            let blank = ProbeRow {
                features: name.to_owned(),
                width: rows.train.width,
                classifier: kind.name(),
                lambda: None,
                held_out: None,
                test: None,
                draws: None,
                seconds: 0.0,
            };
            if self.args.labels_per_class.is_empty() {
                let fitted = probe::fit(*kind, &rows.train, rows.fit, &rows.test, classes);
                found.push(ProbeRow {
                    lambda: Some(fitted.lambda),
                    held_out: Some(fitted.held_out),
                    test: Some(fitted.confusion.rate()),
                    ..blank.clone()
                });
                if name == "features"
                    && self.best.as_ref().is_none_or(|best| fitted.held_out < best.held_out)
                {
                    self.best = Some(fitted);
                }
            }
            for per_class in &self.args.labels_per_class {
                let draws = self.args.draws.get();
                let draws = probe::fit_few_labels(
                    *kind,
                    &rows.train,
                    &rows.test,
                    classes,
                    per_class.get(),
                    draws,
                    self.args.seed,
                )?;
                found.push(ProbeRow { draws: Some(draws), ..blank.clone() });
            }
            for mut row in found {
                row.seconds = start.elapsed().as_secs_f64();
                if self.args.common.json {
                    let mut line = serde_json::to_value(&row).expect("a row serializes to JSON");
                    line["kind"] = "probe".into();
                    outln!("{line}");
                } else {
                    outln!("{}", summary_line(&row));
                }
                self.rows.push(row);
            }
        }
        Ok(())
    }

    fn report(self, out: &Path) -> anyhow::Result<()> {
        let mut written = Vec::new();
        if let Some(best) = &self.best {
            let rate = best.confusion.rate();
            let title =
                format!("{}, {}: test error {rate}", self.args.model.display(), best.kind.name());
            best.confusion.picture(&title).save(&out.join(PICTURE))?;
            written.push(PICTURE);
        }
        let lines = json!({
            "model": self.args.model.display().to_string(),
            "train": self.args.train,
            "test": self.args.test,
            "classes": self.task.classes,
            "rows": self.rows,
            "confusion": self.best.as_ref().map(|best| &best.confusion.counts),
        });
        let text =
            serde_json::to_string_pretty(&lines).context("results serialize to JSON")? + "\n";
        files::write_atomically(&out.join(NUMBERS), text.as_bytes())?;
        written.push(NUMBERS);
        if self.args.common.json {
            outln!(
                "{}",
                json!({"kind": "files", "folder": out.display().to_string(), "files": written})
            );
        } else {
            self.args.common.report_written(format_args!(
                "{}: {}",
                out.display(),
                written.join(", ")
            ));
        }
        Ok(())
    }
}

/// The output line of a result.
fn summary_line(row: &ProbeRow) -> String {
    let head = format!("{:18} {:>6}  {:19}", row.features, row.width, row.classifier);
    let tail = format!("  {:.0} s", row.seconds);
    match (&row.test, &row.draws) {
        (Some(rate), _) => format!(
            "{head}  test error {rate}  accuracy {:.2} %  held out {:.2} %  lambda {}{tail}",
            100.0 * (1.0 - rate.error),
            100.0 * row.held_out.unwrap_or_default(),
            row.lambda.unwrap_or_default()
        ),
        (None, Some(draws)) => format!(
            "{head}  {} labels per class: test error {:.2} ± {:.2} % over {} draws{tail}",
            draws.per_class,
            100.0 * draws.mean,
            100.0 * draws.std,
            draws.errors.len()
        ),
        (None, None) => head,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_hold_errors_and_intervals() {
        let row = ProbeRow {
            features: "raw pixels".to_owned(),
            width: 784,
            classifier: ClassifierKind::Svm.name(),
            lambda: Some(0.01),
            held_out: Some(0.08),
            test: Some(crate::report::confusion::Rate::new(746, 10_000)),
            draws: None,
            seconds: 3.2,
        };
        let text = summary_line(&row);
        assert!(text.contains("7.46 % (6.96–7.99)") && text.contains("accuracy 92.54 %"), "{text}");
        let draws = probe::RepeatedFits {
            per_class: 30,
            errors: vec![0.04, 0.05],
            mean: 0.045,
            std: 0.0071,
        };
        let text = summary_line(&ProbeRow { test: None, draws: Some(draws), ..row });
        assert!(
            text.contains("30 labels per class: test error 4.50 ± 0.71 % over 2 draws"),
            "{text}"
        );
    }
}
